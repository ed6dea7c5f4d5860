"""Numbers in the cells of a table, and other spellings of numbers that are errors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
MARKS = (-100.0, *(sign * (10.0**digits - 1) for digits in (2, 3, 4, 5) for sign in (-1, 1)))

_N = r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"  # with a point or a comma
# Other spellings of numbers than that of a CSV file, and what to do about each. The first that
# fits is taken: "1,500" is more often 1500 than 1.5.
SPELLINGS = {
    r"[+-]?[0-9]{1,3}(?:[,' _’][0-9]{3})+(?:\.[0-9]+)?": (
        "digits in groups of three: write 1500, not 1,500 (decimals take a point: if it is a "
        "decimal comma, set decimal=',')"
    ),
    r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?": (
        "a decimal comma: decimals take a point, or set decimal=','"
    ),
    r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+": "a decimal comma: write 1500.5, not 1.500,5",
    rf"{_N}\s*[%‰]": "a percentage: write the number alone, without the sign",
    rf"{_N}\s*(?:±|\+/-|\+-)\s*{_N}|{_N}\([0-9]+\)": (
        "a number with its error: keep the number, and put the error into another column"
    ),
    rf"(?:[<>≤≥~≈=]|<=|>=)\s*{_N}": ("a bound: write a number, or leave out lines that have none"),
    rf"[$€£¥]\s*{_N}|{_N}\s*[$€£¥]": "a sum of money: write the number alone",
    rf"{_N}\s*[x×*·]\s*10\s*\^?\s*[+-]?[0-9]+": "a power of ten: write 1.5e-3",
}
UNIT = re.compile(rf"(?:{_N}\s+|[+-]?[0-9]*[.,][0-9]+)([^\W\d_°]*[°µμ]?[^\W\d_][\w/^·.%-]*)")
OTHER_DIGITS = "digits or a minus sign other than 0-9 and -: write it in plain ASCII"
PLAIN = {ord("−"): "-", ord("–"): "-", ord("٫"): ".", 0xA0: " ", 0x202F: " ", 0x2009: " "}


def number(word: str, decimal: str = ".") -> float | None:
    """Return the number in a cell, or None; unlike `float`, only spellings of CSV files are read.

    Example:
        >>> number("1.5e3"), number("1,5", ","), number("1_5"), number("1,5")
        (1500.0, 1.5, None, None)
    """
    if decimal != ".":
        if "." in word:
            return None
        word = word.replace(decimal, ".")
    return float(word) if NUMBER.fullmatch(word) else None


def spelling(word: str) -> str | None:
    """Return advice on a number in another spelling, or None for any other word.

    Example:
        >>> spelling("15%")
        'a percentage: write the number alone, without the sign'
    """
    plain = word.translate(PLAIN)
    plain = "".join(str(int(c)) if c.isdecimal() else c for c in plain).strip()
    if NUMBER.fullmatch(plain):
        return None if plain == word else OTHER_DIGITS
    remedies = (remedy for pattern, remedy in SPELLINGS.items() if re.fullmatch(pattern, plain))
    return next(remedies, None)


def spellings(words: Iterable[str]) -> dict[str, str]:
    """Return {word: advice} for the words that are numbers in another spelling."""
    advice = {word: spelling(word) for word in dict.fromkeys(words)}
    others = [word for word, remedy in advice.items() if remedy is None]
    units = {word: match[1] for word in others if (match := UNIT.fullmatch(word))}
    if len(set(units.values())) == 1:  # "12 nM" in every line, not "1 leg" beside "2 legs"
        remedy = "a number with its unit: write the number alone, and the unit in the header"
        advice.update(dict.fromkeys(units, remedy))
    return {word: remedy for word, remedy in advice.items() if remedy}


def marks(values: Any) -> dict[float, int]:
    """Count numbers (99, -999, ..., -100) that look like marks of missing values.

    Args:
        values: Array of numbers.

    Returns:
        {mark: number of times it occurs}. A mark is further from all other values than they are
        from each other, or is the only negative number.

    Example:
        >>> marks([0.5, -999, 1.5, -999])
        {-999.0: 2}
    """
    values = np.asarray(values, dtype="float64")
    candidates = np.isin(values, MARKS)
    others = values[~candidates]
    counts: dict[float, int] = {}
    if not len(others) or not candidates.any():
        return counts
    for mark in sorted(set(values[candidates].tolist())):
        alone = mark < 0 <= others.min()
        if alone or np.abs(others - mark).min() > np.ptp(others):
            counts[mark] = int((values == mark).sum())
    return counts
