"""Parts of messages that many modules write."""

from collections.abc import Iterable


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


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


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
