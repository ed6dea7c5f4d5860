"""What a submission may use, and a watch over the processes that use it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from kft.arguments import check_number_above

MIB, GIB = 2**20, 2**30
PRINTED, _WRITTEN = 10 * MIB, 2 * GIB  # bytes that a submission may print, and write
_PROCESSES = 64


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Args:
        seconds: Seconds that it may run, checks included.
        memory: GiB of memory of all its processes, kft and Python included.

    Raises:
        ValueError: One is not a number above 0.
    """

    seconds: float = 600
    memory: float = 4

    def __post_init__(self) -> None:
        for name in ("seconds", "memory"):
            check_number_above(name, getattr(self, name))


class Watch:
    """A watch over a submission.

    Args:
        limits: What it may use.
        processes: Called for its processes, the first first.
        folder: The folder that it may write to.
        output: The file that it prints to.

    Attributes:
        begun: When its program began, in seconds of `time.monotonic`.
    """

    def __init__(
        self,
        limits: Limits,
        processes: Callable[[], list[psutil.Process]],
        folder: Path,
        output: Path,
    ) -> None:
        self.begun = time.monotonic()
        self._limits, self._processes = limits, processes
        self._folder, self._output = folder, output
        self._looked_at_files = self.begun

    def broken(self) -> str:
        """Return which limit is broken; empty if none is."""
        processes, now = self._processes(), time.monotonic()
        broken = ""
        if now - self.begun > self._limits.seconds:
            broken = f"it ran longer than {self._limits.seconds:g} s"
        elif sum(map(_memory, processes)) > self._limits.memory * GIB:
            broken = f"it took more than {self._limits.memory:g} GiB of memory"
        elif len(processes) > _PROCESSES:
            broken = f"it started more than {_PROCESSES} processes"
        elif size_of(self._output) > PRINTED:
            broken = f"it printed more than {PRINTED // MIB} MiB"
        elif now - self._looked_at_files > 1:
            self._looked_at_files = now
            if sum(map(size_of, self._folder.rglob("*"))) > _WRITTEN:
                broken = f"it wrote more than {_WRITTEN // GIB} GiB"
        if broken and processes:
            _ask_where(processes[0])
        return broken


def _ask_where(process: psutil.Process) -> None:
    """Have a submission write down the stack of its program."""
    if hasattr(signal, "SIGUSR1"):
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)


def lives(process: psutil.Process) -> bool:
    """Return whether a process has not ended.

    Args:
        process: The process.
    """
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _memory(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 if it is not there.

    Args:
        path: The file.
    """
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0
