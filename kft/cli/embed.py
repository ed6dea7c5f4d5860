"""`kft embed`."""

from typing import Annotated, Literal

import typer

from kft.cli.options import BatchSize, Column, Inputs, Json, MaxLength, SkipInvalid, one_of
from kft.cli.output import short_errors, show


def embed(
    inputs: Inputs,
    out: Annotated[
        str | None,
        typer.Argument(metavar="OUT", help="File to write: .csv or .npz.", show_default=False),
    ] = None,
    *,
    out_option: Annotated[str | None, typer.Option("--out", help="The same as OUT.")] = None,
    backbone: Annotated[str, typer.Option(help="Published name, folder or file.")],
    pooling: Annotated[
        Literal["mean", "cls"], typer.Option(help="How residues are pooled.")
    ] = "mean",
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    column: Column = None,
    skip_invalid: SkipInvalid = False,
    as_json: Json = False,
) -> None:
    """Turn every record of a file into one vector.

    Example: kft embed proteins.fasta vectors.npz --backbone esm2_t6_8M_UR50D
    """
    written = one_of(out, out_option, "OUT")
    with short_errors():
        import kft

        kft.embed(
            kft.load(backbone),
            inputs,
            pooling,
            batch_size,
            max_length,
            out=written,
            column=column,
            skip_invalid=skip_invalid,
        )
        show({"written": written}, as_json, f"Written: {written}")
