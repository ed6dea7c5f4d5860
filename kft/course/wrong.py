"""What a check raises, and the mark of checks that students do not run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Wrong(Exception):
    """The finding of a check: a rule that a submission breaks.

    Args:
        reason: One sentence that says which rule is broken, and what was found instead.
        line: Line of the submission, as `Work.line_of` gives it; None where no line is to blame.

    Example:
        >>> raise Wrong("-999 is still in column 'ph'.", line=12)
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: -999 is still in column 'ph'.
    """

    def __init__(self, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.line = line


def hidden(check: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a check that runs when submissions are graded, and not when students check their own.

    Args:
        check: The check.

    Returns:
        The same check.

    Example:
        >>> @hidden
        ... def check_other_data(work, data, rng):
        ...     ...
        >>> is_hidden(check_other_data)
        True
    """
    check.hidden = True  # type: ignore[attr-defined]
    return check


def is_hidden(check: Callable[..., Any]) -> bool:
    """Return whether a check is marked as `hidden`.

    Args:
        check: The check.
    """
    return getattr(check, "hidden", False)
