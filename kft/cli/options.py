"""Arguments and options that several verbs have, with one wording."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

KNOWN = "amp, cells, chains, digits, gb1, gravitational_waves, secondary_structure, two_cities"
TABLES = ".csv, .tsv, .xlsx, .parquet, .jsonl"

Inputs = Annotated[Path, typer.Argument(help=f"Table ({TABLES}), FASTA file, or folder of images.")]
Out = Annotated[str | None, typer.Option("--out", help="The same as OUT.")]
Revision = Annotated[str | None, typer.Option(help="Commit, tag or branch of the hub.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Column = Annotated[
    str | None, typer.Option(help="Column of a table with the inputs [default: sequence].")
]
BatchSize = Annotated[int, typer.Option(help="Records per batch.")]
MaxLength = Annotated[int | None, typer.Option(help="Residues to keep of each.")]
Window = Annotated[
    int | None, typer.Option(help="Residues of a window; longer proteins are read in several.")
]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Go on without invalid records, and list them.")
]

# Of data, for training and scoring.
Target = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="To predict; repeat it for labels."),
]
InputColumns = Annotated[
    list[str] | None,
    typer.Option("--inputs", metavar="COLUMN", help="Of inputs; may be repeated."),
]
SplitBy = Annotated[
    str | None,
    typer.Option("--split", help="random, cluster, or a column."),
]
Groups = Annotated[str | None, typer.Option(metavar="COLUMN", help="Of groups not to separate.")]
TaskName = Annotated[
    Literal[
        "classification",
        "multilabel",
        "regression",
        "residue_classification",
        "residue_regression",
        "torsions",
        "contacts",
        "distogram",
    ]
    | None,
    typer.Option(metavar="TASK", help="Such as regression."),
]
Sep = Annotated[str | None, typer.Option(help="Character between columns.")]
Decimal = Annotated[str | None, typer.Option(help="Decimal sign.")]
Missing = Annotated[
    list[str] | None, typer.Option(metavar="WORD", help="Marks a missing value; may be repeated.")
]
Weights = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Of how much each record counts.")
]
Categories = Annotated[
    list[str] | None, typer.Option(metavar="COLUMN", help="Numbers that are categories.")
]
DropNa = Annotated[bool, typer.Option("--dropna", help="Leave out incomplete lines.")]
Seed = Annotated[int, typer.Option(help="Of all that is random.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data.")]
Backbone = Annotated[
    str | None,
    typer.Option(help="Name, folder or file."),
]
ImageSize = Annotated[int | None, typer.Option(help="Side of images in pixels.")]


def one_of(argument: str | None, option: str | None, name: str) -> str:
    """Return what was given once, as an argument or as an option.

    Args:
        argument: The argument, or None.
        option: The option, or None.
        name: How both are called in the error.

    Raises:
        typer.BadParameter: Both were given, or none.
    """
    given = [value for value in (argument, option) if value is not None]
    if len(given) != 1:
        raise typer.BadParameter(f"give {name} once, received it {len(given)} times.")
    return given[0]


def parsed(options: list[str] | None) -> dict[str, Any]:
    """Return NAME=VALUE pairs as a dict; values are read as JSON where they are JSON.

    Args:
        options: The pairs.

    Raises:
        typer.BadParameter: One is no such pair.

    Example:
        >>> parsed(["rank=4", "targets=query"])
        {'rank': 4, 'targets': 'query'}
    """
    values: dict[str, Any] = {}
    for pair in options or ():
        name, is_pair, value = pair.partition("=")
        if not is_pair or not name:
            raise typer.BadParameter(f"--option takes NAME=VALUE, received {pair!r}.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values
