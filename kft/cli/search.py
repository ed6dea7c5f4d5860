"""`kft search`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kft.cli.options import (
    BatchSize,
    Column,
    Json,
    MaxLength,
    Out,
    Revision,
    SkipInvalid,
    one_of,
)
from kft.cli.output import check_table, short_errors, show, write_table


def search(
    queries: Annotated[Path, typer.Argument(help="FASTA file or table of the queries.")],
    database: Annotated[
        Path, typer.Argument(help="FASTA file or table to search, or the folder of an index.")
    ],
    out: Annotated[
        str | None, typer.Argument(metavar="OUT", help="File to write: .csv or .tsv.")
    ] = None,
    *,
    out_option: Out = None,
    backbone: Annotated[str, typer.Option(help="Published name, folder or file.")],
    k: Annotated[
        int | None,
        typer.Option(
            "-k", "--k", help="Hits of each query [default: 10, or the records of DATABASE]."
        ),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Folder to keep the embedded DATABASE in, or to find it.")
    ] = None,
    pooling: Annotated[
        Literal["mean", "cls"], typer.Option(help="How residues are pooled.")
    ] = "mean",
    layer: Annotated[int | None, typer.Option(help="Number of a layer.")] = None,
    transform: Annotated[
        Literal["none", "centered", "whitened"] | None,
        typer.Option(help="Of embeddings [default: by the size of DATABASE]."),
    ] = None,
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    column: Column = None,
    skip_invalid: SkipInvalid = False,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Find the records of a database that are most like each query.

    Example: kft search mine.fasta swissprot.fasta hits.csv --backbone esm2_t6_8M_UR50D
    """
    written = None
    if out is not None or out_option is not None:
        written = one_of(out, out_option, "OUT")
        check_table(written)
    given: dict[str, Any] = {"--index": index, "--layer": layer, "--transform": transform}
    given |= {"--pooling": None if pooling == "mean" else pooling, "--max-length": max_length}
    if database.is_dir() and (wrong := [name for name, x in given.items() if x is not None]):
        raise typer.BadParameter(f"{wrong[0]} is for a DATABASE that is no index yet.")
    with short_errors("The same command continues." if index is not None else None):
        import kft

        model = kft.load(backbone, revision=revision)
        reading: dict[str, Any] = {
            "batch_size": batch_size,
            "column": column,
            "skip_invalid": skip_invalid,
        }
        built: Any = database
        if not database.is_dir():
            built = kft.build_index(
                model,
                database,
                index,
                pooling=pooling,
                layer=layer,
                transform=transform,
                max_length=max_length,
                **reading,
            )
        hits = kft.search(model, queries, built, k, **reading)
        if written is None:
            show(hits.table.to_dict("records"), as_json, str(hits))
            return
        write_table(hits.table, written, as_json)
