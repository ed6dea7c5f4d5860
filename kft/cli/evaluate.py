"""`kft evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from kft.cli.options import Decimal, Json, Sep
from kft.cli.output import short_errors, show


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of kft finetune.")],
    file: Annotated[
        Path | None, typer.Argument(help="New records with targets. [the test split]")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column of the targets in FILE. [that of the run]")
    ] = None,
    sep: Sep = None,
    decimal: Decimal = None,
    as_json: Json = False,
) -> None:
    """Print the scores of a run, on its test split or on new records with targets.

    Example: kft evaluate run measured_later.csv
    """
    with short_errors():
        import kft

        opened = kft.finetuning.Run(run)
        if file is None:
            show(opened.summary(), as_json, opened.text())
            return
        scores = opened.evaluate(file, target, sep, decimal)
        show(scores.to_dict(), as_json, str(scores))
