"""Whether a caption says what a plot shows, how it was made and what stands out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kft.course.wrong import Wrong
from kft.messages import shown

_PARTS = ("What", "How", "Wow")
_WORDS = 4  # that each part has at least
_NUMBER = re.compile(r"(?<![\w.])[-+−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?\s?%?", re.I)


def caption_is_complete(
    caption: Any, numbers: Mapping[str, float | Sequence[float]], line: int | None = None
) -> None:
    """Check that a caption has its three parts, and numbers that come from the data.

    Args:
        caption: Text such as "What: ... How: ... Wow: ...".
        numbers: What the numbers are -> their values, each of which has to be in the caption:
            rounded to at least two digits, or a count as it is. A share may be in percent. Of a
            list of values one is enough.
        line: Line of the submission to blame.

    Raises:
        Wrong: A part or a number is missing.

    Example:
        >>> caption = "What: ages of 40 patients. How: one bar for each decade. Wow: 12.5% are 90."
        >>> caption_is_complete(caption, {"patients": 40, "share of 90": 0.125})
        >>> caption_is_complete(caption, {"patients": 41})
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: the caption lacks a number of your data: patients.
    """
    if not isinstance(caption, str):
        raise Wrong(f"a caption is a text, received {shown(caption)}.", line)
    for part in _PARTS:
        others = "|".join(_PARTS)
        found = re.search(rf"\b{part}:(.*?)(?=\b(?:{others}):|\Z)", caption, re.S | re.I)
        if not found:
            raise Wrong(
                f"the caption has no part `{part}:`: write what the plot shows, how it was made, "
                f"and what stands out, as `What: ... How: ... Wow: ...`.",
                line,
            )
        if len(re.findall(r"\w+", found[1])) < _WORDS:
            raise Wrong(f"part `{part}:` of the caption has less than {_WORDS} words.", line)
    has_numbers(caption, numbers, line, "the caption")


def has_numbers(
    text: str,
    numbers: Mapping[str, float | Sequence[float]],
    line: int | None = None,
    name: str = "the text",
) -> None:
    """Check that a text has numbers that come from the data.

    Args:
        text: The text.
        numbers: As for `caption_is_complete`.
        line: Line of the submission to blame.
        name: What the text is called in the reason.

    Raises:
        Wrong: A number is missing.

    Example:
        >>> has_numbers("12.5% of 40 patients are 90.", {"patients": 40, "share of 90": 0.125})
    """
    written = _NUMBER.findall(text)
    for called, values in numbers.items():
        right = np.ravel(np.asarray(values, "float64"))
        if not any(_is_rounded(number, value) for number in written for value in right):
            raise Wrong(f"{name} lacks a number of your data: {called}.", line)


def _is_rounded(written: str, value: float) -> bool:
    """Return whether a number as written is a value, to at least two digits."""
    text = written.replace(",", "").replace("−", "-").strip()
    unit = 100 if text.endswith("%") else 1
    text = text.rstrip("% ").lower()
    mantissa, _, power = text.partition("e")
    decimals = len(mantissa.partition(".")[2])
    step = 10.0 ** (int(power or 0) - decimals) / unit  # of the last digit
    if float(value).is_integer():
        return float(text) / unit == value
    digits = len(mantissa.lstrip("+-").replace(".", "").lstrip("0"))
    return digits >= 2 and abs(float(text) / unit - value) <= step * (1 + 1e-9)
