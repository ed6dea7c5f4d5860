"""Checks of arguments, with one wording for the same mistake everywhere."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")


def check_integer(name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    """Check that an argument is an integer in a range.

    Args:
        name: Name of the argument, for the error.
        value: What was given. Python's and numpy's integers are accepted, booleans are not.
        minimum: Smallest value allowed.
        maximum: Largest value allowed; None for no limit.

    Returns:
        The value as an `int`.

    Raises:
        ValueError: The value is not an integer or is out of range.

    Example:
        >>> check_integer("epochs", 3)
        3
        >>> check_integer("epochs", 0)
        Traceback (most recent call last):
        ...
        ValueError: epochs must be an integer of at least 1, received 0.
    """
    try:
        number = None if _is_boolean(value) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < minimum or (maximum is not None and number > maximum):
        if maximum is None:
            expected = f"an integer of at least {minimum}"
        else:
            expected = f"an integer from {minimum} to {maximum}"
        raise ValueError(f"{name} must be {expected}, received {value!r}.")
    return number


def check_number_above(name: str, value: Any, limit: float = 0) -> float:
    """Check that an argument is a finite number above a limit.

    Args:
        name: Name of the argument, for the error.
        value: What was given. Booleans are not accepted.
        limit: The value must be larger than this.

    Returns:
        The value as a `float`.

    Raises:
        ValueError: The value is not a number, is NaN or infinite, or is not above the limit.

    Example:
        >>> check_number_above("learning_rate", 1e-3)
        0.001
    """
    number = float(value) if isinstance(value, Real) and not _is_boolean(value) else math.nan
    if not limit < number < math.inf:
        raise ValueError(f"{name} must be a number above {limit}, received {value!r}.")
    return number


def check_weights(name: str, values: Any, count: int) -> np.ndarray:
    """Check that an argument holds one weight for each record.

    Args:
        name: Name of the argument, for the error.
        values: What was given.
        count: Number N of records.

    Returns:
        The weights as a float64 array (N,).

    Raises:
        ValueError: There are more or fewer than N, or one is no number, NaN, infinite or negative.

    Example:
        >>> check_weights("weights", [1, 0.5], 2)
        array([1. , 0.5])
    """
    try:
        weights = np.asarray(values, dtype="float64")
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, received {values!r:.60}.") from None
    if weights.shape != (count,):
        raise ValueError(
            f"{name} must be one number for each of the {count} records, received shape "
            f"{weights.shape}."
        )
    wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(wrong):
        raise ValueError(
            f"{name} must be finite numbers of at least 0, received {weights[wrong[0]]:g} for "
            f"record {wrong[0]} ({len(wrong)} of {count} records are wrong)."
        )
    return weights


def check_choice(name: str, value: Value, choices: Iterable[Value]) -> Value:
    """Check that an argument is one of several values.

    Args:
        name: Name of the argument, for the error.
        value: What was given.
        choices: Values allowed.

    Returns:
        The value.

    Raises:
        ValueError: The value is not among the choices.

    Example:
        >>> check_choice("pooling", "mean", ["mean", "cls"])
        'mean'
    """
    choices = list(choices)
    if value not in choices:
        expected = ", ".join(map(str, choices))
        raise ValueError(f"{name} must be one of {expected}; received {value!r}.")
    return value


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
