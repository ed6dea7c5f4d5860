"""Lines that a running comparison prints, one of which is written again on a terminal."""

from __future__ import annotations

import time
from typing import Any

import keras


class Log:
    """Lines on the screen.

    Args:
        verbose: False prints nothing.
    """

    def __init__(self, verbose: bool = True):
        from rich.console import Console

        self.console = Console(quiet=not verbose)
        if not self.console.is_terminal:
            self.console = Console(quiet=not verbose, width=140)  # a log has room for the table

    @property
    def is_terminal(self) -> bool:
        """Whether lines go to a terminal, where one can be written over."""
        return self.console.is_terminal

    def say(self, line: str, **options: Any) -> None:
        """Print a line as it is, without markup."""
        self.console.print(line, highlight=False, markup=False, **options)

    def show(self, renderable: Any) -> None:
        """Print a table of `rich`."""
        self.console.print(renderable, highlight=False)

    def update(self, line: str) -> None:
        """Print a line that the next one is written over."""
        self.say(line.ljust(self.console.width - 1), end="\r")

    def done(self, line: str) -> None:
        """Print a line over the one that `update` has printed."""
        self.say(line.ljust(self.console.width - 1) if self.is_terminal else line)


class ProgressLine(keras.callbacks.Callback):
    """One line on a terminal with the epoch and batch of a training.

    Args:
        log: Where it is printed.
        label: What the line begins with.
    """

    def __init__(self, log: Log, label: str):
        super().__init__()
        self.log, self.label, self.epochs, self.shown = log, label, 0, 0.0
        self.log.update(label)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Print epoch and batch, at most twice a second."""
        if time.perf_counter() - self.shown > 0.5:
            self.shown = time.perf_counter()
            self.log.update(f"{self.label}  epoch {self.epochs + 1}, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Count the epochs of all phases."""
        self.epochs += 1


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Example:
        >>> duration(75), duration(600)
        ('75 s', '10 min')
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
