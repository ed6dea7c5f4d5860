"""`kft embed`."""

from typing import Annotated, Any, Literal

import typer

from kft.cli.options import (
    Backbone,
    BatchSize,
    Column,
    Inputs,
    Json,
    MaxLength,
    Out,
    Revision,
    SkipInvalid,
    Window,
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
        typer.Argument(
            metavar="OUT", help="File: .npz, .h5, .parquet or .csv; for --shard a folder."
        ),
    ] = None,
    *,
    out_option: Out = None,
    backbone: Backbone = None,
    pooling: Annotated[
        Literal["mean", "cls"], typer.Option(help="How residues are pooled.")
    ] = "mean",
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    window: Window = None,
    per_residue: Annotated[bool, typer.Option(help="Also a vector for each residue.")] = False,
    layers: Annotated[
        list[int] | None, typer.Option(help="Layers, such as 0 3 6; 0 is the embedding.")
    ] = None,
    column: Column = None,
    skip_invalid: SkipInvalid = False,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only part I of N, written to the folder OUT.")
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Join the parts in a folder: --merge FOLDER [OUT].")
    ] = False,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Turn every record of a file into vectors; an interrupted call is continued.

    Example: kft embed proteins.fasta vectors.npz --backbone esm2_t6_8M_UR50D
    """
    if merge:
        if backbone is not None or shard is not None:
            raise typer.BadParameter("--merge takes FOLDER and OUT, no --backbone and no --shard.")
        joined = None if out is out_option is None else one_of(out, out_option, "OUT")
        with short_errors():
            import kft

            path = kft.merge_embeddings(inputs, joined)
            show({"written": str(path)}, as_json, f"Written: {path}")
        return
    if backbone is None:
        raise typer.BadParameter("give --backbone: a published name, a folder or a file.")
    target = one_of(out, out_option, "OUT")
    with short_errors("The same command continues."):
        import kft

        done = kft.embed(
            kft.load(backbone, revision=revision),
            inputs,
            pooling,
            batch_size,
            max_length,
            target,
            per_residue,
            layers or None,
            column=column,
            skip_invalid=skip_invalid,
            shard=shard,
            window=window,
        )
        show({"written": str(done)}, as_json, f"Written: {done}")
