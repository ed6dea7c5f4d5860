"""Inputs that are wrong, or nearly, and what kft should answer; for tests and a benchmark."""

import os
import re
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FINE = ("refused", "read")


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        name: What is wrong with it.
        call: Gives it to kft.
        refused: Whether it is to be an error, else the right answer is True; None where both are
            right, if the error is kft's own.
        named: What the message of the error has to contain.
    """

    name: str
    call: Callable[[], object]
    refused: bool | None = True
    named: str = ""


def folder() -> Path:
    """A new folder."""
    return Path(tempfile.mkdtemp())


def file(name: str, content: bytes | str) -> Path:
    """A new file with this content."""
    path = folder() / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def strange_paths() -> dict[str, object]:
    """Paths that lead to no file."""
    place = folder()
    os.mkfifo(place / "pipe.csv")
    (place / "dangling.csv").symlink_to(place / "gone")
    (place / "loop.csv").symlink_to(place / "loop.csv")
    return {
        "absent": place / "absent",
        "folder": place,
        "pipe": place / "pipe.csv",
        "link to nothing": place / "dangling.csv",
        "link to itself": place / "loop.csv",
        "device": "/dev/zero",
        "NUL in the path": "a\0b",
        "empty path": "",
        "very long path": "x" * 5000,
        "None": None,
        "number": 3.5,
    }


def judged(case: Case, stop: type[BaseException] = KeyboardInterrupt) -> tuple[str, str]:
    """What became of a case: one of `FINE`, else what is wrong, and details.

    Args:
        case: The case.
        stop: An exception that is not caught.
    """
    try:
        answer = case.call()
    except stop:
        raise
    except BaseException as error:
        return _named(error, case)
    if case.refused:
        return "silent", f"answered {answer!r:.80}"
    return ("read", "") if answer is not False else ("wrong answer", "")


def _named(error: BaseException, case: Case) -> tuple[str, str]:
    message = f"{type(error).__name__}: {error}"
    if case.refused is False:
        return "refused wrongly", message
    if not isinstance(error, ValueError | TypeError | OSError):
        return "raw error", message
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    if not place.startswith(str(ROOT / "kft")) and not str(error).startswith("kft: "):
        return "raw error", f"{message} (from {place})"
    if "\x1b" in str(error):
        return "control characters", message
    if len(str(error)) > 5000:
        return "endless message", message
    if case.named and not re.search(case.named, str(error)):
        return "not named", message
    return "refused", message
