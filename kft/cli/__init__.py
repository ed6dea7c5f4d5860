"""The command line `kft VERB`: each verb parses arguments, calls the library and prints.

Results go to stdout; progress, warnings and errors go to stderr.
"""

from typing import Annotated

import typer

from kft.cli.assignment import assignment
from kft.cli.compare import compare
from kft.cli.data import data
from kft.cli.doctor import doctor
from kft.cli.embed import EmbedVerb, embed
from kft.cli.evaluate import evaluate
from kft.cli.explore import explore
from kft.cli.finetune import finetune
from kft.cli.fold import fold
from kft.cli.mutations import mutations
from kft.cli.params import params
from kft.cli.predict import predict
from kft.cli.report import report
from kft.cli.search import search
from kft.cli.segment import segment
from kft.cli.spelling import Verb

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    explore, finetune, evaluate, predict, report, compare, embed, search, mutations, fold, segment,
    params, data,
    doctor,
):  # fmt: skip
    app.command(cls=EmbedVerb if verb is embed else Verb)(verb)
app.add_typer(assignment, name="assignment")


def _version(wanted: bool) -> None:
    if wanted:
        import kft

        typer.echo(f"kft {kft.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Adapt scientific foundation models to your own small data set.

    \b
    kft explore mine.csv                         look for defects in the data
    kft finetune mine.csv --target y --out run   train; the folder holds all of it
    kft predict run new.csv --out new_y.csv      predict for new records

    Exit codes: 0 done, 1 wrong data or settings, 2 wrong usage, 130 interrupted.
    """
