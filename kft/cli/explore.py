"""`kft explore`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from kft.cli.options import TABLES, Decimal, Groups, Json, Sep
from kft.cli.output import short_errors, show


def explore(
    file: Annotated[
        str, typer.Argument(help=f"Table ({TABLES}), FASTA file, image folder, or data set of kft.")
    ],
    target: Annotated[str | None, typer.Option(help="Column of the target.")] = None,
    groups: Groups = None,
    split: Annotated[str | None, typer.Option(help="Column of the split.")] = None,
    sep: Sep = None,
    decimal: Decimal = None,
    as_json: Json = False,
) -> None:
    """Look for defects in a data set; nothing is changed.

    Example: kft explore assay.csv --target activity --groups plate
    """
    with short_errors():
        from kft import data as datasets
        from kft.exploration import explore as explored

        source: Any = file
        if not Path(file).exists():
            if file not in datasets.names():
                raise FileNotFoundError(
                    f"file is {file!r}, which is neither a file or folder (from {Path.cwd()}) nor "
                    f"one of {', '.join(datasets.names())}."
                )
            source = datasets.load(file)
        found = explored(source, target, groups, split, sep=sep, decimal=decimal)
        show(json.loads(found.to_json()), as_json, str(found))
