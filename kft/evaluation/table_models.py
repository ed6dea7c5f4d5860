"""What the baselines of tables are made of: columns as numbers, forests and boosted trees.

All are scikit-learn's. Missing numbers are filled with the median and marked in a column of their
own; categories are one-hot, with a level for missing ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kft.data.rows import Row, frame_of

TREES = 200
ABSENT = "missing"


class Columns(TransformerMixin, BaseEstimator):
    """Rows -> float (N, F): numbers, filled and scaled, and categories one-hot.

    Args:
        scaled: Whether numbers are scaled to mean 0 and standard deviation 1.

    Example:
        >>> rows = [{"age": 30.0, "sex": "f"}, {"age": 50.0, "sex": "m"}]
        >>> Columns().fit_transform(rows).tolist()
        [[-1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    """

    def __init__(self, scaled: bool = True):
        self.scaled = scaled

    def fit(self, rows: Sequence[Row], targets: Any = None) -> Columns:
        """Find columns, medians, scales and categories; columns without any value are left out."""
        frame = frame_of(rows).dropna(axis=1, how="all")
        self.words_ = [str(name) for name in frame if frame[name].dtype == object]
        self.numbers_ = [str(name) for name in frame if name not in self.words_]
        numbers = [SimpleImputer(strategy="median", add_indicator=True)]
        self.numeric_ = make_pipeline(*numbers, *[StandardScaler()] * self.scaled)
        self.categorical_ = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        if self.numbers_:
            self.numeric_.fit(self._numbers(rows))
        if self.words_:
            self.categorical_.fit(self._words(rows))
        return self

    def transform(self, rows: Sequence[Row]) -> np.ndarray:
        """Return rows as numbers (N, F)."""
        parts = [np.zeros((len(rows), 0))]
        parts += [self.numeric_.transform(self._numbers(rows))] if self.numbers_ else []
        parts += [self.categorical_.transform(self._words(rows))] if self.words_ else []
        return np.hstack(parts)

    def _numbers(self, rows: Sequence[Row]) -> np.ndarray:
        values = np.array([[row[name] for name in self.numbers_] for row in rows], dtype=float)
        return np.where(np.isfinite(values), values, np.nan)

    def _words(self, rows: Sequence[Row]) -> np.ndarray:
        words = [[row[name] for name in self.words_] for row in rows]
        return np.array([[ABSENT if x is None else str(x) for x in row] for row in words], object)


def forest(target: str, seed: int = 0) -> Any:
    """Return a random forest that is not fitted yet.

    Args:
        target: "number", or anything else for classes, see `kft.data.task.Task.target`.
        seed: Seed of the trees.
    """
    kind = RandomForestRegressor if target == "number" else RandomForestClassifier
    return kind(TREES, min_samples_leaf=2, random_state=seed)


def boosting(target: str, seed: int = 0) -> Any:
    """Return boosted trees that are not fitted yet; as for `forest`."""
    if target == "number":
        return HistGradientBoostingRegressor(random_state=seed)
    return HistGradientBoostingClassifier(random_state=seed)
