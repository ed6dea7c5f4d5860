"""The command line `kft VERB`: parses arguments, calls the library and prints."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from kft.messages import harmless

_LINE_END = "\n"  # of messages of several lines

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
Vectors = Annotated[
    Path | None,
    typer.Argument(metavar="OUT", help="File to write: .npz, .h5, .parquet or .csv."),
]
Predictions = Annotated[
    Path | None,
    typer.Argument(metavar="OUT", help="File to write: .csv, .tsv, .xlsx, .parquet, .npz or .h5."),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="The same as OUT.")]
Revision = Annotated[
    str | None, typer.Option(help="Commit, tag or branch of the Hugging Face hub.")
]
BatchSize = Annotated[int, typer.Option(help="Largest number of proteins per batch.")]
Pooling = Annotated[Literal["mean", "cls"], typer.Option(help="How residues are pooled.")]
MaxLength = Annotated[int | None, typer.Option(help="Residues to keep of each protein.")]
SkipInvalid = Annotated[
    bool, typer.Option("--skip-invalid", help="Go on without invalid records, and list them.")
]


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
    inputs: Inputs,
    out: Vectors = None,
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
    column: Column = None,
    skip_invalid: SkipInvalid = False,
    revision: Revision = None,
) -> None:
    """Turn every protein of a file into vectors; an interrupted call is continued."""
    import kft

    with _short_errors():
        out = _one_path(out, out_option)
        kft.embed(
            kft.load(backbone, revision=revision),
            inputs,
            pooling,
            batch_size,
            max_length,
            out,
            per_residue,
            layers or None,
            column=column,
            skip_invalid=skip_invalid,
        )
    typer.echo(f"Written: {harmless(out)}")


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(help="A fine-tuned model: a .keras file, or an adapter's folder.")
    ],
    inputs: Inputs,
    out: Predictions = None,
    out_option: OutOption = None,
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
        out = _one_path(out, out_option)
        kft.predict(
            kft.load_model(model, backbone),
            inputs,
            batch_size,
            max_length,
            out=out,
            column=column,
            skip_invalid=skip_invalid,
        )
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


def _one_path(*given: Path | None) -> Path:
    """Return the one path that was given, as an argument or as an option."""
    paths = [path for path in given if path is not None]
    if len(paths) != 1:
        raise ValueError(f"OUT must be given once, received it {len(paths)} times.")
    return paths[0]


@contextmanager
def _short_errors() -> Iterator[None]:
    """Print warnings and the message of an expected error without more, and exit with status 1."""
    error = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)  # those that are meant for users
        try:
            yield
        except (ValueError, TypeError, OSError, ImportError, MemoryError) as caught:
            error = caught
    lines = [str(warning.message) for warning in said]
    if error is not None:
        lines += [str(error), *getattr(error, "__notes__", ())]
    for line in lines:
        typer.echo(f"kft: {harmless(line, keep=_LINE_END)}", err=True)
    if error is not None:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
