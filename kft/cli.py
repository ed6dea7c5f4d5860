"""The command line: `kft VERB`. Parses, calls the library, prints; holds no logic of its own."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Adapt scientific foundation models to your own small data set.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Fasta = Annotated[Path, typer.Argument(help="FASTA file, plain or gzipped.")]
Out = Annotated[Path, typer.Argument(help="File to write: .csv or .npz.")]
Batch = Annotated[int, typer.Option(help="Most proteins per batch.")]
Cut = Annotated[int | None, typer.Option(help="Residues to keep of each protein.")]


@app.command()
def embed(
    fasta: Fasta,
    out: Out,
    backbone: Annotated[str, typer.Option(help="Published name, folder or file.")],
    pooling: Annotated[str, typer.Option(help="mean or cls.")] = "mean",
    batch_size: Batch = 32,
    max_length: Cut = None,
):
    """Turn every protein of a FASTA file into one vector."""
    import kft

    with _readable_errors():
        kft.embed(kft.load(backbone), fasta, pooling, batch_size, max_length, out)
    typer.echo(f"Written: {out}")


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A fine-tuned model, saved as .keras.")],
    fasta: Fasta,
    out: Out,
    batch_size: Batch = 32,
    max_length: Cut = None,
):
    """Answer for every protein of a FASTA file with a fine-tuned model."""
    import kft
    from kft.models import load_saved

    with _readable_errors():
        kft.predict(load_saved(model), fasta, batch_size, max_length, out)
    typer.echo(f"Written: {out}")


@app.command()
def data(name: Annotated[str, typer.Argument(help="Name of a data set, such as amp.")]):
    """Say what a data set holds and where it comes from."""
    import kft

    with _readable_errors():
        typer.echo(str(kft.data.load(name)))


class _readable_errors:
    """Shows the message of an expected error alone: it says what to do, a trace does not."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, ValueError | TypeError | OSError):
            typer.echo(f"kft: {error}", err=True)
            raise typer.Exit(1)


if __name__ == "__main__":
    app()
