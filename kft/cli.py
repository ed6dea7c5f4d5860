"""The command line `kft VERB`: parses arguments, calls the library and prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

app = typer.Typer(
    help="Adapt scientific foundation models to your own small data set.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Fasta = Annotated[Path, typer.Argument(help="FASTA file, plain or gzipped.")]
OUT_FILE = "File to write: .npz, .h5, .parquet or .csv."
Out = Annotated[Path | None, typer.Argument(metavar="OUT", help=OUT_FILE)]
OutOption = Annotated[Path | None, typer.Option("--out", help="The same as OUT.")]
BatchSize = Annotated[int, typer.Option(help="Largest number of proteins per batch.")]
Pooling = Annotated[Literal["mean", "cls"], typer.Option(help="How residues are pooled.")]
MaxLength = Annotated[int | None, typer.Option(help="Residues to keep of each protein.")]


class _Embed(TyperCommand):
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


@app.command(cls=_Embed)
def embed(
    fasta: Fasta,
    out: Out = None,
    *,
    out_option: OutOption = None,
    backbone: Annotated[str, typer.Option(help="Published name, folder or file.")],
    pooling: Pooling = "mean",
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    per_residue: Annotated[bool, typer.Option(help="Also a vector for each residue.")] = False,
    layers: Annotated[
        list[int] | None, typer.Option(help="Layers, such as 0 3 6; 0 is the embedding.")
    ] = None,
) -> None:
    """Turn every protein of a FASTA file into vectors; an interrupted call is continued."""
    import kft

    with _short_errors():
        out = _one_path(out, out_option)
        sizes = (pooling, batch_size, max_length)
        kft.embed(kft.load(backbone), fasta, *sizes, out, per_residue, layers or None)
    typer.echo(f"Written: {out}")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A fine-tuned model, saved as .keras.")],
    fasta: Fasta,
    out: Out = None,
    out_option: OutOption = None,
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
) -> None:
    """Predict with a fine-tuned model for every protein of a FASTA file."""
    import kft
    from kft.models import load_saved

    with _short_errors():
        out = _one_path(out, out_option)
        kft.predict(load_saved(model), fasta, batch_size, max_length, out=out)
    typer.echo(f"Written: {out}")


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="Name of a data set, such as amp, digits or gb1.")],
) -> None:
    """Print what a data set holds and where it comes from."""
    import kft

    with _short_errors():
        typer.echo(str(kft.data.load(name)))


def _one_path(*given: Path | None) -> Path:
    """Return the one path that was given, as an argument or as an option."""
    paths = [path for path in given if path is not None]
    if len(paths) != 1:
        raise ValueError(f"OUT must be given once, received it {len(paths)} times.")
    return paths[0]


@contextmanager
def _short_errors() -> Iterator[None]:
    """Print the message of an expected error without its traceback, and exit with status 1."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        for line in (f"kft: {error}", *getattr(error, "__notes__", ())):
            typer.echo(line, err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
