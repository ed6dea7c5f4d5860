"""`kft report`."""

from pathlib import Path
from typing import Annotated

import typer

from kft.cli.options import Json
from kft.cli.output import short_errors, show


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of kft finetune.")],
    out: Annotated[
        Path | None, typer.Option(help="File: .html, .md or .ipynb. [report.html in RUN]")
    ] = None,
    question: Annotated[str | None, typer.Option(help="The question that the run answers.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the page. [name of the data]")] = None,
    as_json: Json = False,
) -> None:
    """Write all of a run on one page, from its data to how to repeat it.

    Example: kft report run --question "Which peptides are active?"
    """
    with short_errors():
        import kft

        path = out or run / "report.html"
        kft.report(run, path, question=question, title=title)
        show({"written": str(path)}, as_json, f"Written: {path}")
