"""The command line `kft VERB`: parses arguments, calls the library and prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    help="Adapt scientific foundation models to your own small data set.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Fasta = Annotated[Path, typer.Argument(help="FASTA file, plain or gzipped.")]
Out = Annotated[Path, typer.Argument(help="File to write: .csv or .npz.")]
BatchSize = Annotated[int, typer.Option(help="Largest number of proteins per batch.")]
Pooling = Annotated[Literal["mean", "cls"], typer.Option(help="How residues are pooled.")]
MaxLength = Annotated[int | None, typer.Option(help="Residues to keep of each protein.")]


@app.command()
def embed(
    fasta: Fasta,
    out: Out,
    backbone: Annotated[str, typer.Option(help="Published name, folder or file.")],
    pooling: Pooling = "mean",
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
) -> None:
    """Turn every protein of a FASTA file into one vector."""
    import kft

    with _short_errors():
        kft.embed(kft.load(backbone), fasta, pooling, batch_size, max_length, out=out)
    typer.echo(f"Written: {out}")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A fine-tuned model, saved as .keras.")],
    fasta: Fasta,
    out: Out,
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
) -> None:
    """Predict with a fine-tuned model for every protein of a FASTA file."""
    import kft
    from kft.models import load_saved

    with _short_errors():
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


@contextmanager
def _short_errors() -> Iterator[None]:
    """Print the message of an expected error without its traceback, and exit with status 1."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        typer.echo(f"kft: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
