"""Parts of messages that many modules write."""

from collections.abc import Iterable


def listed(names: Iterable[object], most: int = 5) -> str:
    """List names in a message, the first of them and how many more there are.

    Args:
        names: What to list.
        most: How many names are written out.

    Returns:
        The names, separated by commas.

    Example:
        >>> listed(["a", "b", "c", "d"], most=2)
        'a, b and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


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
