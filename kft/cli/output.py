"""What all verbs print: results, as text or JSON, and messages; and the codes they exit with."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from kft.cli.spelling import as_options
from kft.files import write_text
from kft.messages import harmless, harmless_cell

# Wrong usage, such as an unknown option, is 2: click's own.
FAILED, INTERRUPTED = 1, 130
EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError)
LINE_END = "\n"  # of messages of several lines


def say(line: str) -> None:
    """Print a line of progress to stderr, without characters that a terminal would obey.

    Args:
        line: The line.
    """
    typer.echo(harmless(as_options(line), keep=LINE_END), err=True)


def show(result: Any, as_json: bool, text: str | None = None) -> None:
    """Print the result of a verb to stdout.

    Args:
        result: Plain values, for JSON.
        as_json: Whether to print JSON.
        text: What to print else; None for nothing.
    """
    if as_json:
        typer.echo(json.dumps(result, indent=1, default=str))
    elif text is not None:
        typer.echo(harmless(as_options(text), keep=LINE_END))


def check_table(out: str) -> None:
    """Check that a table can be written to a path, by its ending.

    Args:
        out: The path.

    Raises:
        typer.BadParameter: It ends in something else than .csv or .tsv.
    """
    if not out.endswith((".csv", ".tsv")):
        raise typer.BadParameter(f"OUT must end in .csv or .tsv, received {out}.")


def write_table(table: Any, out: str, as_json: bool) -> None:
    """Write a table for a spreadsheet, and print where it is.

    Args:
        table: A DataFrame.
        out: Path that `check_table` has passed; folders that lack are made.
        as_json: Whether to print JSON.
    """
    text = table.select_dtypes(exclude=["number", "bool"]).columns
    table = table.assign(**{name: table[name].map(harmless_cell) for name in text})
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    write_text(Path(out), table.to_csv(index=False, sep="\t" if out.endswith(".tsv") else ","))
    show({"written": out, "rows": len(table)}, as_json, f"Written: {out}")


@contextmanager
def short_errors(interrupted: str | None = None) -> Iterator[None]:
    """Print warnings, and the message of an expected error without its traceback; then exit.

    Args:
        interrupted: What to say after Ctrl-C; None for that alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)  # those that are meant for users
        warnings.showwarning = _show_warning
        try:
            yield
        except EXPECTED as error:
            for line in (str(error), *getattr(error, "__notes__", ())):
                say(f"kft: {line}")
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            say(f"kft: interrupted. {interrupted or ''}".rstrip())
            sys.stdout.flush()
            raise typer.Exit(INTERRUPTED) from None


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"kft: {message}")
