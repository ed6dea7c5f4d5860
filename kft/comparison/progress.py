"""Lines that a running comparison prints; on a terminal one line shows the progress."""

from __future__ import annotations

import time
from typing import Any

import keras


class Log:
    """Printer of lines.

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
        """Whether lines go to a terminal, where a line can be overwritten."""
        return self.console.is_terminal

    def print(self, line: str, **options: Any) -> None:
        """Print a line as it is, without markup."""
        self.console.print(line, highlight=False, markup=False, **options)

    def show(self, renderable: Any) -> None:
        """Print a table of `rich`."""
        self.console.print(renderable, highlight=False)

    def update(self, line: str) -> None:
        """Print a line that the next line overwrites."""
        self.print(line.ljust(self.console.width - 1), end="\r")

    def done(self, line: str) -> None:
        """Print a line that overwrites the one of `update`."""
        self.print(line.ljust(self.console.width - 1) if self.is_terminal else line)


class ProgressLine(keras.callbacks.Callback):
    """One line on a terminal with the epoch and batch of a training.

    Args:
        log: The `Log` that prints it.
        label: Beginning of the line.
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
    """Return a time as text, in seconds, minutes or hours.

    Example:
        >>> duration(75), duration(600)
        ('75 s', '10 min')
    """
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
