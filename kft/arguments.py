"""Checks of arguments, with one wording for the same mistake everywhere."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kft.messages import shown

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
        raise ValueError(f"{name} must be {expected}, received {shown(value)}.")
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
    number = _as_float(value)
    if not limit < number < math.inf:
        raise ValueError(f"{name} must be a number above {limit}, received {shown(value)}.")
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
        ValueError: There are more or fewer than N, or one is not a finite number of at least 0.

    Example:
        >>> check_weights("weights", [1, 0.5], 2)
        array([1. , 0.5])
    """
    try:
        weights = np.asarray(values, dtype="float64")
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers, received {shown(values)}.") from None
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


def check_confidence(confidence: Any) -> float:
    """Check that the confidence of intervals is between 0 and 1, and return it.

    Args:
        confidence: What was given. Booleans are not accepted.

    Raises:
        ValueError: It is not a number, or is out of range.

    Example:
        >>> check_confidence(0.95)
        0.95
    """
    if check_number_above("confidence", confidence) >= 1:
        raise ValueError(f"confidence must be between 0 and 1, received {confidence!r}.")
    return float(confidence)


def check_fraction(name: str, value: Any) -> float:
    """Check that an argument is a number of at least 0 and below 1.

    Args:
        name: Name of the argument, for the error.
        value: What was given. Booleans are not accepted.

    Returns:
        The value as a `float`.

    Raises:
        ValueError: The value is not a number, or is out of range.

    Example:
        >>> check_fraction("dropout", 0.1)
        0.1
    """
    number = _as_float(value)
    if not 0 <= number < 1:
        raise ValueError(f"{name} must be a number from 0 to below 1, received {shown(value)}.")
    return number


def check_share(name: str, value: Any) -> float:
    """Check that an argument is a number from 0 to 1, both included.

    Args:
        name: Name of the argument, for the error.
        value: What was given. Booleans are not accepted.

    Returns:
        The value as a `float`.

    Raises:
        ValueError: The value is not a number, or is out of range.

    Example:
        >>> check_share("box_probability", 1)
        1.0
    """
    number = _as_float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, received {shown(value)}.")
    return number


def check_seed(name: str, value: Any) -> int:
    """Check that an argument is a seed that all backends take: an integer from 0 to 2**32 - 1.

    Args:
        name: Name of the argument, for the error.
        value: What was given.

    Returns:
        The value as an `int`.

    Raises:
        ValueError: The value is not an integer or is out of range.

    Example:
        >>> check_seed("seed", 0)
        0
    """
    return check_integer(name, value, 0, 2**32 - 1)


def check_optional_integer(name: str, value: Any, minimum: int = 1) -> int | None:
    """Check that an argument is None or an integer, see `check_integer`.

    Args:
        name: Name of the argument, for the error.
        value: What was given.
        minimum: Smallest value allowed.

    Returns:
        The value as an `int`, or None.

    Raises:
        ValueError: The value is neither.

    Example:
        >>> check_optional_integer("max_length", None)
    """
    return None if value is None else check_integer(name, value, minimum)


def check_flag(name: str, value: Any) -> bool:
    """Check that an argument is True or False.

    Args:
        name: Name of the argument, for the error.
        value: What was given.

    Returns:
        The value as a `bool`.

    Raises:
        TypeError: The value is something else, which Python would take for one of them.

    Example:
        >>> check_flag("weights", True)
        True
    """
    if not _is_boolean(value):
        raise TypeError(f"{name} must be True or False, received {shown(value)}.")
    return bool(value)


def check_instance(name: str, value: Any, kind: type | tuple[type, ...], expected: str) -> Any:
    """Check that an argument is an object of a class.

    Args:
        name: Name of the argument, for the error.
        value: What was given.
        kind: The class, or a tuple of several.
        expected: What the error says is expected, for example "a Keras model".

    Returns:
        The value.

    Raises:
        TypeError: The value is of another class.

    Example:
        >>> check_instance("name", "default", str, "a string")
        'default'
    """
    if not isinstance(value, kind):
        received = f"{shown(value)} ({type(value).__name__})"
        raise TypeError(f"{name} must be {expected}, received {received}.")
    return value


def check_callable(name: str, value: Any, expected: str) -> Any:
    """Check that an argument can be called.

    Args:
        name: Name of the argument, for the error.
        value: What was given.
        expected: What the error says is expected, for example "a function of the data".

    Returns:
        The value.

    Raises:
        TypeError: The value cannot be called.

    Example:
        >>> check_callable("encode", len, "a function")
        <built-in function len>
    """
    if not callable(value):
        received = f"{shown(value)} ({type(value).__name__})"
        raise TypeError(f"{name} must be {expected}, received {received}.")
    return value


_LONGEST_PATH = 4096  # as on Linux


def check_path(name: str, value: Any) -> Path:
    """Check that an argument is a path.

    Args:
        name: Name of the argument, for the error.
        value: A string or path.

    Returns:
        The value as a `Path`.

    Raises:
        TypeError: The value is something else.
        ValueError: It is empty, too long, or has a character that no path has.

    Example:
        >>> check_path("folder", "models").name
        'models'
    """
    check_instance(name, value, (str, os.PathLike), "a path")
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path or len(path) > _LONGEST_PATH:
        raise ValueError(f"{name} must be a path, received {shown(path)}.")
    return Path(path)


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
    # One by one, since an array is equal to nothing as a whole; 1 is not True.
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        listed = ", ".join(map(str, choices))
        raise ValueError(f"{name} must be one of {listed}; received {shown(value)}.")
    return value


def _as_float(value: Any) -> float:
    """Return a real number as a float, NaN for anything else and for what no float can hold."""
    try:
        return float(value) if isinstance(value, Real) and not _is_boolean(value) else math.nan
    except OverflowError:
        return math.nan


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
