"""Rows of a table as a backbone takes them: numbers as they are, categories one-hot.

Shapes: `B` rows, `F` features, one per column of numbers and one per level of a category.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import numpy as np

from kft.data.inputs import InputKind
from kft.data.rows import Row, frame_of, rows_of
from kft.data.spreadsheets import is_frame
from kft.messages import listed


@dataclass(frozen=True)
class Column:
    """A column of the inputs.

    Args:
        name: Name of the column.
        levels: Its categories, each of which is a feature of 0 and 1; None for numbers.
        mean: Mean of the numbers that it is scaled by.
        deviation: Their standard deviation, above 0.

    Example:
        >>> Column("sex", ("f", "m")).features
        2
    """

    name: str
    levels: tuple[str, ...] | None = None
    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if self.levels is not None:
            object.__setattr__(self, "levels", tuple(self.levels))  # a list, from JSON

    @property
    def features(self) -> int:
        """Number of features."""
        return 1 if self.levels is None else len(self.levels)


def columns_of(inputs: Sequence[Row]) -> tuple[Column, ...]:
    """Return the columns of rows, with their levels, means and standard deviations.

    Args:
        inputs: The training inputs, which are the only ones that may be used.

    Returns:
        The columns. One that has a single number is not scaled.

    Raises:
        ValueError: There are no rows, or a column has no value at all.

    Example:
        >>> columns_of([{"age": 30.0, "sex": "f"}, {"age": 50.0, "sex": "m"}])[0]
        Column(name='age', levels=None, mean=40.0, deviation=10.0)
    """
    if not len(inputs) or not isinstance(inputs[0], dict):
        raise ValueError(
            "data must have rows of a table as inputs: give kft.data.read_csv a list of columns "
            "as `inputs`."
        )
    columns = []
    for name, values in frame_of(inputs).items():
        present = values.dropna()
        if not len(present):
            raise ValueError(f"column {str(name)!r} has no value at all: leave it out.")
        if values.dtype == object:
            columns.append(Column(str(name), tuple(sorted(set(present)))))
            continue
        finite = present[np.isfinite(present)]
        deviation = float(finite.std(ddof=0)) if len(finite) else 0.0
        columns.append(Column(str(name), None, float(finite.mean()), deviation or 1.0))
    return tuple(columns)


@dataclass(frozen=True)
class RowEncoder:
    """Function from rows to the input of a backbone.

    Args:
        columns: The columns that are used, in this order; others are ignored.

    Example:
        >>> encode = RowEncoder((Column("age"), Column("sex", ("f", "m"))))
        >>> encode([{"age": 31.0, "sex": "m"}])["columns"]
        array([[31.,  0.,  1.]], dtype=float32)
    """

    columns: tuple[Column, ...]

    # No fields: what an encoder states about itself, see `kft.data.inputs.Encoder`.
    input_kind = InputKind.TABLE
    specials = (0, 0)
    changes = None
    deterministic = True

    @property
    def features(self) -> list[str]:
        """Names of the F features."""
        return [
            name
            for x in self.columns
            for name in ([x.name] if x.levels is None else [f"{x.name}={y}" for y in x.levels])
        ]

    def __call__(
        self,
        inputs: Any,
        max_length: None = None,
        pad_lengths: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Encode rows.

        Args:
            inputs: List of dicts, or a pandas.DataFrame.
            max_length: None; rows have no length.
            pad_lengths: Ignored; rows have no length.
            names: Name of each row in errors, None for "inputs[0]" and so on.

        Returns:
            {"columns": float32 array (B, F)}; a category that is not one of the levels has only 0.

        Raises:
            TypeError: A row is no dict, or a value is of another type.
            ValueError: A column is not there, or a value is missing or infinite.
        """
        if max_length is not None:
            raise ValueError(f"max_length is for sequences, received {max_length} with rows.")
        if is_frame(inputs):
            inputs = rows_of(inputs, [x.name for x in self.columns if x.levels is not None])
        called = names or [f"inputs[{i}]" for i in range(len(inputs))]
        found = [self._encoded(row, name) for row, name in zip(inputs, called, strict=True)]
        return {"columns": np.array(found, dtype="float32").reshape(len(found), -1)}

    def _encoded(self, row: Any, called: str) -> list[float]:
        """Return the features of one row."""
        if not isinstance(row, Mapping):
            raise TypeError(
                f"{called} must be a dict of the columns of a table, received {row!r:.60}."
            )
        features: list[float] = []
        for column in self.columns:
            if column.name not in row:
                raise ValueError(
                    f"{called} has no column {column.name!r}; it has {listed(row)}, and the model "
                    f"takes {listed(x.name for x in self.columns)}."
                )
            value = row[column.name]
            if value is None or value != value:
                raise ValueError(
                    f"{called} has no value in column {column.name!r}: fill missing values with "
                    "kft.prepare(data), and new data with its `transform`."
                )
            if column.levels is not None:
                features += [float(str(value) == level) for level in column.levels]
            else:
                features.append(_finite(value, column.name, called))
        return features

    def check(self, inputs: Sequence[Any], names: Sequence[str]) -> None:
        """Check rows before training starts, and warn of categories that the model does not know.

        Args:
            inputs: List of dicts.
            names: Name of each row in errors.

        Raises:
            TypeError, ValueError: A row cannot be encoded.
        """
        for row, name in zip(inputs, names, strict=True):
            self._encoded(row, name)
        for column in self.columns:
            if column.levels is None:
                continue
            words = Counter(str(row[column.name]) for row in inputs)
            unknown = [word for word in words if word not in column.levels]
            if unknown:
                warnings.warn(
                    f"{sum(words[x] for x in unknown):,} of {len(inputs):,} rows hold categories "
                    f"of column {column.name!r} that the model was not made with ({listed(unknown)}"
                    "): they are encoded as none of its categories.",
                    stacklevel=4,
                )

    def get_config(self) -> list[dict[str, Any]]:
        """Return the columns, as JSON can hold them."""
        return [
            {**asdict(x), "levels": None if x.levels is None else list(x.levels)}
            for x in self.columns
        ]


def _finite(value: Any, column: str, called: str) -> float:
    if not isinstance(value, Real):
        raise TypeError(f"{called} must have a number in column {column!r}, received {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"{called} is {value!r} in column {column!r}: give a finite number.")
    return float(value)
