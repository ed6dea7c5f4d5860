"""Parts of messages that many modules write, and text of users made harmless to show or store."""

import reprlib
from collections.abc import Iterable
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def listed(names: Iterable[object], most: int = 5) -> str:
    """List names in a message, the first of them and how many more there are.

    Args:
        names: What to list; control characters are escaped, see `harmless`.
        most: How many names are written out.

    Returns:
        The names, separated by commas.

    Example:
        >>> listed(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(harmless(name) for name in names[:most]) + more


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
