"""Regular expressions in adapter_config.json: what PEFT matches names of modules with.

A file that somebody else wrote can hold an expression that Python's `re`, which tries all ways to
match, would need years for. Such expressions are refused before they are used.
"""

import re
from pathlib import Path
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

_LONGEST = 100_000  # characters; kft itself writes the names of all layers of a large model
_FEW = 4  # repeats without limit, one after the other
_UNLIMITED = 16  # a repeat of more times than this counts as one without a limit


def check_pattern(pattern: str, what: str, file: Path) -> None:
    """Check that a pattern is a regular expression that is matched in a short time.

    Args:
        pattern: The pattern.
        what: Name of the option it is from.
        file: Name of the file in errors.

    Raises:
        ValueError: It is not a regular expression, is too long, repeats what repeats or has
            alternatives, such as "(a+)+", or has more than 4 repeats in a row.
    """
    try:
        if len(pattern) > _LONGEST:
            raise ValueError(f"has {len(pattern):,} characters, expected at most {_LONGEST:,}")
        try:
            repeats = _repeats(_parser.parse(pattern))
        except re.error as error:
            raise ValueError(f"is not a regular expression ({error})") from None
        if repeats > _FEW:
            raise ValueError(
                f"has {repeats} repeats without limit (such as .*), expected at most {_FEW}"
            )
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file}: {what} has {pattern[:80]!r}, which {error}: write plain names of modules."
        ) from None


def _repeats(parsed: Any) -> int:
    """Return the largest number of unlimited repeats that are matched one after the other."""
    return sum(_repeats_of(op, argument) for op, argument in parsed)


def _repeats_of(op: Any, argument: Any) -> int:
    if op is _constants.BRANCH:
        return max(map(_repeats, argument[1]))
    if op in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
        _, most, body = argument
        if most <= 1:
            return _repeats(body)
        if _repeats(body) or _has_branch(body):
            raise ValueError("repeats what repeats or has alternatives, and may never end")
        return int(most > _UNLIMITED)
    if op is _constants.GROUPREF_EXISTS:
        return max(_repeats(part) for part in argument[1:] if part is not None)
    return sum(map(_repeats, _inside(argument)))


def _has_branch(parsed: Any) -> bool:
    """Whether the part can match in several ways: alternatives, or something optional."""
    return any(
        op is _constants.BRANCH
        or (op in (_constants.MAX_REPEAT, _constants.MIN_REPEAT) and argument[0] != argument[1])
        or any(map(_has_branch, _inside(argument)))
        for op, argument in parsed
    )


def _inside(argument: Any) -> list[Any]:
    """The parts of a group or a look-around."""
    arguments = argument if isinstance(argument, tuple) else (argument,)
    return [one for one in arguments if isinstance(one, _parser.SubPattern)]
