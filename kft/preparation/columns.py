"""Steps that change the columns of a table: missing values, scales, columns left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import RobustScaler, StandardScaler

from kft.arguments import check_choice
from kft.preparation.steps import ColumnStep, as_names, check_columns

ABSENT = "missing"  # the category of a missing one


@dataclass(frozen=True)
class SentinelToMissing(ColumnStep):
    """Set a number that marks missing values, such as -999, to missing.

    Args:
        column: Name of the column.
        value: The number.

    Example:
        >>> step = SentinelToMissing("mass", -999.0)
        >>> step.transform(pd.DataFrame({"mass": [80.0, -999.0]}), {})["mass"].tolist()
        [80.0, nan]
    """

    name: ClassVar = "sentinel to missing"
    column: str
    value: float

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        check_columns(train, [self.column], self.name)
        return {}

    def transform(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> pd.DataFrame:
        return frame.assign(
            **{self.column: frame[self.column].mask(frame[self.column] == self.value)}
        )

    def count(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> int:
        return int((frame[self.column] == self.value).sum())


@dataclass(frozen=True)
class InfiniteToMissing(ColumnStep):
    """Set infinite numbers to missing.

    Args:
        columns: Names of the columns; None for all.

    Example:
        >>> InfiniteToMissing().transform(pd.DataFrame({"x": [1.0, np.inf]}), {})["x"].tolist()
        [1.0, nan]
    """

    name: ClassVar = "infinite to missing"
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names(self.columns))

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        check_columns(train, self.columns or (), self.name)
        return {}

    def transform(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> pd.DataFrame:
        chosen = _numbers(frame, self.columns)
        return frame.assign(**{name: frame[name].mask(np.isinf(frame[name])) for name in chosen})

    def count(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> int:
        return int(np.isinf(frame[_numbers(frame, self.columns)].to_numpy()).sum())


@dataclass(frozen=True)
class DropColumns(ColumnStep):
    """Leave columns out.

    Args:
        columns: Names of the columns.

    Example:
        >>> list(DropColumns("id").transform(pd.DataFrame({"id": [1], "x": [2.0]}), {}))
        ['x']
    """

    name: ClassVar = "columns left out"
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", as_names(self.columns))

    @property
    def left_out(self) -> tuple[str, ...]:
        return self.columns

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        check_columns(train, self.columns, self.name)
        if len(set(self.columns)) == train.shape[1]:
            raise ValueError(f"{self.name} names all columns; keep at least one.")
        return {}

    def transform(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> pd.DataFrame:
        return frame.drop(columns=list(self.columns))


@dataclass(frozen=True)
class Impute(ColumnStep):
    """Fill missing values from the training part, and mark where they were.

    Numbers are filled with a statistic of scikit-learn's `SimpleImputer`. A column with missing
    values in the training part gets another, "NAME is missing", of 0 and 1. Categories are filled
    with "missing" if that occurs in the training part, else with the most frequent one.

    Args:
        strategy: "median", "mean" or "most_frequent", for numbers.
        indicator: False adds no columns.

    Example:
        >>> frame = pd.DataFrame({"x": [1.0, np.nan, 4.0, 7.0]})
        >>> step = Impute()
        >>> step.transform(frame, step.fit(frame)).to_numpy()[1].tolist()
        [4.0, 1.0]
    """

    name: ClassVar = "missing values filled"
    strategy: str = "median"
    indicator: bool = True

    def __post_init__(self) -> None:
        check_choice("strategy", self.strategy, ["median", "mean", "most_frequent"])

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        empty = [name for name in train if train[name].isna().all()]
        if empty:
            raise ValueError(
                f"{self.name}: column {empty[0]!r} has no value in the training part to fill from; "
                f"leave it out of `inputs`, or with kft.preparation.DropColumns({empty[0]!r})."
            )
        numbers = _numbers(train)
        values: dict[str, Any] = {}
        if numbers:
            imputer = SimpleImputer(strategy=self.strategy).fit(train[numbers].to_numpy())
            values = dict(zip(numbers, imputer.statistics_.tolist(), strict=True))
        for name in train.columns.difference(numbers, sort=False):
            absent = train[name].isna().any()
            values[name] = ABSENT if absent else str(train[name].mode()[0])
        marked = [name for name in numbers if self.indicator and train[name].isna().any()]
        return {"values": values, "indicators": marked}

    def transform(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> pd.DataFrame:
        marks = {
            f"{name} is missing": frame[name].isna().astype("float64")
            for name in fitted["indicators"]
        }
        values = {name: frame[name].fillna(value) for name, value in fitted["values"].items()}
        return frame.assign(**values, **marks)

    def count(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> int:
        return int(frame.isna().to_numpy().sum())


@dataclass(frozen=True)
class Scale(ColumnStep):
    """Shift and scale columns of numbers by statistics of the training part.

    Args:
        by: "standard" (mean and standard deviation) or "robust" (median and interquartile range),
            as scikit-learn's `StandardScaler` and `RobustScaler`.
        columns: Names of the columns; None for all numbers but those that are only 0 or 1.

    Example:
        >>> frame = pd.DataFrame({"x": [1.0, 3.0, 2.0]})
        >>> step = Scale()
        >>> step.transform(frame, step.fit(frame))["x"].round(3).tolist()
        [-1.225, 1.225, 0.0]
    """

    name: ClassVar = "columns scaled"
    by: str = "standard"
    columns: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_choice("by", self.by, ["standard", "robust"])
        object.__setattr__(self, "columns", as_names(self.columns))

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        check_columns(train, self.columns or (), self.name)
        chosen = _numbers(train, self.columns)
        if self.columns is None:
            chosen = [name for name in chosen if not train[name].dropna().isin([0, 1]).all()]
        if not chosen:
            return {"center": {}, "scale": {}}
        scaler: Any = StandardScaler() if self.by == "standard" else RobustScaler()
        scaler.fit(train[chosen].to_numpy())
        center = scaler.mean_ if self.by == "standard" else scaler.center_
        return {
            "center": dict(zip(chosen, center.tolist(), strict=True)),
            "scale": dict(zip(chosen, scaler.scale_.tolist(), strict=True)),
        }

    def transform(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> pd.DataFrame:
        return frame.assign(
            **{
                name: (frame[name] - center) / fitted["scale"][name]
                for name, center in fitted["center"].items()
            }
        )


def _numbers(frame: pd.DataFrame, columns: tuple[str, ...] | None = None) -> list[str]:
    """Return the columns of numbers; an error for a given one that is not."""
    numbers = [str(name) for name in frame if frame[name].dtype != object]
    for name in columns or ():
        if name not in numbers:
            raise ValueError(f"column {name!r} holds categories, not numbers: leave it out.")
    return list(columns) if columns is not None else numbers
