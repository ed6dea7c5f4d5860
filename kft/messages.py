"""Parts of messages, text of users made harmless to show or store, and bars of progress."""

from __future__ import annotations

import os
import reprlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def listed(names: Iterable[object], most: int | None = 5) -> str:
    """List names in a message or a caption: the first of them and how many more there are.

    Args:
        names: What to list; control characters are escaped, see `harmless`.
        most: How many names are written out; None for all, as in a sentence.

    Returns:
        The names, separated by commas, and for all names by "and" before the last.

    Example:
        >>> listed(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
        >>> listed(["a", "b", "c", "d"], most=None)
        'a, b, c and d'
    """
    words = [harmless(name) for name in names]
    if most is None:
        return " and ".join([", ".join(words[:-1]), words[-1]]) if words[1:] else "".join(words)
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun, which is plural unless the number is 1.

    Args:
        number: How many there are.
        noun: What is counted, in the singular.
        plural: Its plural; None adds an s.

    Returns:
        Both, with commas between thousands.

    Example:
        >>> count_of(1, "row"), count_of(2000, "row"), count_of(0, "copy", "copies")
        ('1 row', '2,000 rows', '0 copies')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def harmless(text: object, keep: str = "") -> str:
    """Escape characters that a terminal acts on instead of showing them.

    These are control characters, such as those that begin ANSI codes, and marks that turn the
    direction of writing: all that `str.isprintable` refuses.

    Args:
        text: What is shown, such as the name of a record.
        keep: Characters to leave, for example line ends of a message of several lines.

    Returns:
        The text, with a Python escape for each such character.

    Example:
        >>> harmless("\\x1b[31mred")
        '\\\\x1b[31mred'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def harmless_cell(text: object) -> str:
    """Escape text for a cell of a CSV file, so that no spreadsheet takes it for a formula.

    Args:
        text: Content of the cell. Numbers, also negative ones, are left as they are.

    Returns:
        The text, after an apostrophe if it begins with =, +, -, @, a tab or a line end.

    Source: OWASP, "CSV Injection".

    Example:
        >>> harmless_cell("=1+1"), harmless_cell("-1.5"), harmless_cell("sp|P02699")
        ("'=1+1", '-1.5', 'sp|P02699')
    """
    text = str(text)
    if not text.startswith(_FORMULA_STARTS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text.strip()


def shown(value: Any) -> str:
    """Show what was received in a message, cut where it is long or deep.

    Args:
        value: Any object.

    Returns:
        Its `repr`; containers show their first elements, to a depth of 3.

    Example:
        >>> shown("3"), shown(list(range(1000)))
        ("'3'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


_LONGEST = 200
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 60, 60, 40


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of kft and Keras from which this was called, however deep.

    Args:
        message: The message.
        category: Class of the warning.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_inside(frame.f_code):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


_INSIDE = (str(Path(__file__).parent) + os.sep, f"{os.sep}site-packages{os.sep}keras{os.sep}")


def _is_inside(code: CodeType) -> bool:
    """Whether code is of kft or Keras, or the constructor that `dataclass` makes."""
    made = code.co_filename == "<string>" and code.co_name == "__init__"
    return made or any(part in code.co_filename for part in _INSIDE)


@contextmanager
def progress(unit: str = "records") -> Iterator[Progress]:
    """Show how much of some work is done, how fast it goes and how long it takes still.

    Nothing is shown where stderr is not a terminal.

    Args:
        unit: What is counted, in the plural.

    Yields:
        A `rich.progress.Progress`, which is given tasks.

    Example:
        >>> with progress() as bar:
        ...     task = bar.add_task("embedding", total=3)
        ...     bar.advance(task)
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Any:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {unit}/s")

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield bar
