"""Parts of messages that many modules write, and bars of progress."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress


def listed(names: Iterable[object], most: int | None = 5) -> str:
    """List names in a message or a caption: the first of them and how many more there are.

    Args:
        names: What to list.
        most: How many names are written out; None for all, as in a sentence.

    Returns:
        The names, separated by commas, and for all names by "and" before the last.

    Example:
        >>> listed(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
        >>> listed(["a", "b", "c", "d"], most=None)
        'a, b, c and d'
    """
    words = [str(name) for name in names]
    if most is None:
        return " and ".join([", ".join(words[:-1]), words[-1]]) if words[1:] else "".join(words)
    more = f" and {len(words) - most:,} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def harmless(text: str) -> str:
    r"""Write out the characters of a text that a terminal would obey, such as those of colours.

    Args:
        text: Text from a file of the user.

    Returns:
        The text with control characters as \x1b and the like; line ends are kept.

    Example:
        >>> harmless("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


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
def progress() -> Iterator[Progress]:
    """Show how much of some work is done, how fast it goes and how long it takes still.

    Nothing is shown where stderr is not a terminal.

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
            return Text("" if speed is None else f"{speed:,.1f} records/s")

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
