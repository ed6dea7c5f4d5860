"""The command line `kft VERB`: parses arguments, calls the library and prints."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from kft.messages import harmless

_LINE_END = "\n"  # of messages of several lines

app = typer.Typer(
    help="Adapt scientific foundation models to your own small data set.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Fasta = Annotated[Path, typer.Argument(help="FASTA file, plain or gzipped.")]
Out = Annotated[Path, typer.Argument(help="File to write: .csv or .npz.")]
Revision = Annotated[
    str | None, typer.Option(help="Commit, tag or branch of the Hugging Face hub.")
]
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
    revision: Revision = None,
) -> None:
    """Turn every protein of a FASTA file into one vector."""
    import kft

    with _short_errors():
        model = kft.load(backbone, revision=revision)
        kft.embed(model, fasta, pooling, batch_size, max_length, out=out)
    typer.echo(f"Written: {harmless(out)}")


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
    typer.echo(f"Written: {harmless(out)}")


@app.command()
def params(
    backbone: Annotated[str, typer.Argument(help="Published name, folder or file.")],
    revision: Revision = None,
) -> None:
    """Print the parameters of a backbone, and which revision its weights are of."""
    import kft

    with _short_errors():
        model = kft.load(backbone, revision=revision)
        revision = getattr(model, "revision", None)
        typer.echo(f"{harmless(backbone)}, {f'revision {revision}' if revision else 'not pinned'}")
        typer.echo(str(kft.parameters(model)))


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="Name of a data set, such as amp, digits or gb1.")],
) -> None:
    """Print what a data set holds and where it comes from."""
    import kft

    with _short_errors():
        typer.echo(harmless(kft.data.load(name), keep=_LINE_END))


@contextmanager
def _short_errors() -> Iterator[None]:
    """Print the message of an expected error without its traceback, and exit with status 1."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        typer.echo(f"kft: {harmless(error, keep=_LINE_END)}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
