"""What the data of a student are, in words; and whether two are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pandas as pd

from kft.course.assignments import Assignment, module_of
from kft.messages import count_of, listed, shown


def card(assignment: Assignment, student_id: str, data: Any) -> str:
    """Return the page that describes the data of a student.

    Args:
        assignment: The assignment. The first paragraph is the docstring of its data.py.
        student_id: The student.
        data: The data.
    """
    module = module_of(assignment.source("data.py"), "data.py")
    parts = data if isinstance(data, Mapping) else {"data": data}
    return "\n".join(
        [
            f"# Data of {student_id}: {assignment.title}",
            "",
            (module.__doc__ or "").strip(),
            "",
            "`data = course.data()` gives:",
            "",
            *(f"- `{name}`: {described(value)}" for name, value in parts.items()),
            "",
        ]
    )


def described(value: Any) -> str:
    """Say what a value is, in a line.

    Args:
        value: A table, an array, or another value.

    Example:
        >>> described(np.zeros((3, 2), "float32"))
        'array float32 of shape (3, 2)'
        >>> described(pd.DataFrame({"a": [1.0, 2.0]}))
        'table of 2 rows with the columns a'
    """
    if isinstance(value, pd.DataFrame):
        rows = count_of(len(value), "row")
        return f"table of {rows} with the columns {listed(value.columns, None)}"
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} of shape {value.shape}"
    if isinstance(value, list | tuple):
        return (
            f"{type(value).__name__} of {count_of(len(value), 'value')}, such as {shown(value[:1])}"
        )
    if isinstance(value, str | int | float):
        return shown(value)
    return (str(value).splitlines() or [""])[0]


def same(one: Any, other: Any) -> bool:
    """Return whether two values hold the same data.

    Args:
        one: A table, an array, a collection or an object made of these.
        other: Another value.

    Example:
        >>> same({"x": np.array([1.0, np.nan])}, {"x": np.array([1.0, np.nan])})
        True
        >>> same({"x": np.array([1.0])}, {"x": np.array([2.0])})
        False
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        if one.dtype == object:
            return all(map(same, one.ravel(), other.ravel()))
        return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
    if isinstance(one, pd.DataFrame | pd.Series | pd.Index):
        return one.equals(other)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one) or type(one).__module__.startswith("kft."):
        return same(dict(vars(one)), dict(vars(other)))
    if callable(one):
        return True  # not data
    return bool(one == other) or (one != one and other != other)
