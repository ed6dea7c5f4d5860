"""The command line `kft VERB`: parses arguments, calls the library and prints."""

import warnings
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

Inputs = Annotated[
    Path,
    typer.Argument(help="FASTA file, or table (.csv, .tsv, .xlsx, .parquet)."),
]
Column = Annotated[
    str | None, typer.Option(help="Column of a table with the sequences [default: sequence].")
]
BatchSize = Annotated[int, typer.Option(help="Largest number of proteins per batch.")]
Pooling = Annotated[Literal["mean", "cls"], typer.Option(help="How residues are pooled.")]
MaxLength = Annotated[int | None, typer.Option(help="Residues to keep of each protein.")]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Go on without invalid records, and list them.")
]


@app.command()
def embed(
    inputs: Inputs,
    out: Annotated[Path, typer.Argument(help="File to write: .csv or .npz.")],
    backbone: Annotated[str, typer.Option(help="Published name, folder or file.")],
    pooling: Pooling = "mean",
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    column: Column = None,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Turn every protein of a file into one vector."""
    import kft

    with _short_errors():
        kft.embed(
            kft.load(backbone),
            inputs,
            pooling,
            batch_size,
            max_length,
            out=out,
            column=column,
            skip_invalid=skip_invalid,
        )
    typer.echo(f"Written: {out}")


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(help="A fine-tuned model: a .keras file, or an adapter's folder.")
    ],
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .tsv, .xlsx, .parquet or .npz.")],
    backbone: Annotated[
        str | None, typer.Option(help="Backbone of an adapter, if it is not where it was.")
    ] = None,
    batch_size: BatchSize = 32,
    max_length: MaxLength = None,
    column: Column = None,
    skip_invalid: SkipInvalid = False,
) -> None:
    """Predict for every protein of a file; the columns of a table are kept."""
    import kft

    with _short_errors():
        kft.predict(
            kft.load_model(model, backbone),
            inputs,
            batch_size,
            max_length,
            out=out,
            column=column,
            skip_invalid=skip_invalid,
        )
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
    """Print warnings and the message of an expected error without more, and exit with status 1."""
    error = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)  # those that are meant for users
        try:
            yield
        except (ValueError, TypeError, OSError, ImportError) as caught:
            error = caught
    for message in [*(warning.message for warning in said), *[error] * (error is not None)]:
        typer.echo(f"kft: {message}", err=True)
    if error is not None:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
