"""Python in messages, as it is typed on the command line.

The library says `dropna=True`, "epochs must be an integer" and "see kft.compare"; on the command
line these are --dropna, --epochs and `kft compare`.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand

# What the library calls the arguments of a verb, where that is not the name of its option.
_IN_PYTHON = {
    "explore": {"data": "file"},
    "finetune": {"data": "file"},
    "compare": {"data": "file", "strategies": "strategy"},
    "evaluate": {"data": "file"},
    "report": {"subject": "run", "path": "out"},
}
# Functions that are a verb, too, of the same name.
VERBS = (
    "compare",
    "embed",
    "evaluate",
    "explore",
    "finetune",
    "fold",
    "predict",
    "report",
    "search",
)
_CALL = r"[\w.]+\([^()]*\)"  # Python code, which stays as it is
_VALUE = r"""True|False|None|'[^']*'|"[^"]*"|\[[^\]]*\]|\([^()]*\)|[\w+-]+(?:\.\w+)*"""
_IS = r"must|is|are|names|has|holds"  # as in "epochs must be an integer"

_in_use: ContextVar[Mapping[str, Any] | None] = ContextVar("_in_use", default=None)


class Verb(TyperCommand):
    """A command in whose messages arguments are called as its options are."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with spelled(self):
            return super().invoke(ctx)


@contextmanager
def spelled(command: Any) -> Iterator[None]:
    """Let `as_options` spell arguments as the options of a command.

    Args:
        command: A `typer.core.TyperCommand`.
    """
    parameters = {x.name: x for x in command.params}
    known = {name: parameters[x] for name, x in _IN_PYTHON.get(command.name, {}).items()}
    before = _in_use.set({**parameters, **known})
    try:
        yield
    finally:
        _in_use.reset(before)


def as_options(text: str) -> str:
    """Return a message with the options of the command that is run for arguments of Python.

    Functions that are named, and not called, are replaced by the verbs of their name.

    Args:
        text: The message.

    Example:
        >>> import typer
        >>> from kft.cli import app
        >>> with spelled(typer.main.get_command(app).commands["finetune"]):
        ...     as_options("fill them, or dropna=True to leave them out; kft.f(dropna=True)")
        'fill them, or --dropna to leave them out; kft.f(dropna=True)'
    """
    parameters = _in_use.get()
    if not parameters:
        return text
    name = "|".join(sorted(parameters, key=len, reverse=True))
    # Names of one word are words of English, too: they are arguments where they look like one.
    only = "|".join(x for x in parameters if "_" in x) or "(?!)"
    pattern = re.compile(
        rf"(?P<call>{_CALL})"
        rf"|\bkft\.(?P<verb>{'|'.join(VERBS)})(?![\w(]|\.\w)"
        rf"|`?(?<![\w.'\"/-])(?P<set>{name})=(?P<value>{_VALUE})?`?"
        rf"|`(?P<quoted>{name})`"
        rf"|(?:^|(?<=^kft: ))(?P<first>{name})(?= (?:{_IS})\b)"
        rf"|(?<![\w.'\"/-])(?P<only>{only})(?![\w.'\"/])",
        re.MULTILINE,
    )

    def spell(match: re.Match[str]) -> str:
        if match["call"]:
            return match["call"]
        if match["verb"]:
            return f"kft {match['verb']}"
        if match["set"]:
            return _with_value(parameters[match["set"]], match["value"])
        return _name(parameters[match["quoted"] or match["first"] or match["only"]])

    return pattern.sub(spell, text)


def _name(parameter: Any) -> str:
    """Return what a parameter is called in the help: --split, or FILE."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    return parameter.opts[0]


def _with_value(parameter: Any, value: str | None) -> str:
    """Return an option and its value as they are typed."""
    called = _name(parameter)
    if value is None:
        return called
    if value in ("True", "False") and getattr(parameter, "is_flag", False):
        if value == "True":
            return called
        return parameter.secondary_opts[0] if parameter.secondary_opts else f"no {called}"
    if value == "None":
        return f"no {called}"
    try:
        given = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        given = value
    values: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    return " ".join(f"{called} {shlex.quote(str(x))}" for x in values or [""])
