"""`kft embed`."""

from typing import Annotated, Any, Literal

import typer

from kft.cli.options import (
    BatchSize,
    Column,
    Inputs,
    Json,
    MaxLength,
    Out,
    Revision,
    SkipInvalid,
    one_of,
)
from kft.cli.output import short_errors, show
from kft.cli.spelling import Verb


class EmbedVerb(Verb):
    """A command whose option --layers takes several numbers, as in `--layers 0 3 6`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each of its numbers, as the parser needs it."""
        repeated: list[str] = []
        listing = False
        for arg in args:
            number = arg.lstrip("-").isdigit()
            if listing and number and repeated[-1] != "--layers":
                repeated.append("--layers")
            listing = arg == "--layers" or (listing and number)
            repeated.append(arg)
        return super().parse_args(ctx, repeated)


def embed(
    inputs: Inputs,
    out: Annotated[
        str | None,
        typer.Argument(metavar="OUT", help="File to write: .npz, .h5, .parquet or .csv."),
    ] = None,
    *,
    out_option: Out = None,
    backbone: Annotated[str, typer.Option(help="Published name, folder or file.")],
    pooling: Annotated[
        Literal["mean", "cls"], typer.Option(help="How residues are pooled.")
    ] = "mean",
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    per_residue: Annotated[bool, typer.Option(help="Also a vector for each residue.")] = False,
    layers: Annotated[
        list[int] | None, typer.Option(help="Layers, such as 0 3 6; 0 is the embedding.")
    ] = None,
    column: Column = None,
    skip_invalid: SkipInvalid = False,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Turn every record of a file into vectors; an interrupted call is continued.

    Example: kft embed proteins.fasta vectors.npz --backbone esm2_t6_8M_UR50D
    """
    written = one_of(out, out_option, "OUT")
    with short_errors("The same command continues."):
        import kft

        kft.embed(
            kft.load(backbone, revision=revision),
            inputs,
            pooling,
            batch_size,
            max_length,
            written,
            per_residue,
            layers or None,
            column=column,
            skip_invalid=skip_invalid,
        )
        show({"written": written}, as_json, f"Written: {written}")
