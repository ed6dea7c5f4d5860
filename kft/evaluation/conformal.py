"""Prediction sets and intervals that hold the truth as often as they say (split conformal).

Held-out records, on which the model was not trained, tell how wrong it can be: the threshold is the
ceil((n + 1) confidence)-th smallest of their n errors. A new record's set holds every class, or its
interval every number, with an error up to the threshold. If held-out and new records are
exchangeable, that covers the truth with at least this confidence, whatever the model.

The error of a class is 1 minus its probability (Sadinle, Lei and Wasserman, JASA 114:223, 2019),
that of a number its distance to the prediction (Papadopoulos et al., ECML 2002; Lei et al., JASA
113:1094, 2018). With groups each has a threshold of its own, so coverage holds in each (Vovk,
Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, 4.5). The tests compare
thresholds with those of the package crepes.

Shapes: `N` records, `K` classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kft.data.task import Task
from kft.evaluation.metrics import measure_of
from kft.messages import listed

ALL = None  # the key of the threshold of all records, without groups


@dataclass(frozen=True)
class Conformal:
    """Thresholds for prediction sets or intervals, see `fit_conformal`.

    Attributes:
        task: A task of classes or numbers.
        confidence: Share of records whose truth is to be covered.
        thresholds: Group -> largest error that is let in; the only key is None without groups.
            Infinite where there are too few held-out records for this confidence, so that a set
            holds every class and an interval all numbers.
        records: Group -> number of held-out records.
    """

    task: Task
    confidence: float
    thresholds: dict[Hashable, float]
    records: dict[Hashable, int]

    def sets(self, probabilities: ArrayLike, groups: ArrayLike | None = None) -> np.ndarray:
        """Return the prediction set of each record.

        Args:
            probabilities: (N, K), or (N,) of class 1.
            groups: (N,) names, as in `fit_conformal`; None if it had none.

        Returns:
            (N, K) booleans, True for the classes in the set. A set can be empty: then no class is
            likely enough for a record of this kind.

        Raises:
            ValueError: The task has no classes, or groups are missing.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> targets = rng.integers(2, size=100)
            >>> found = fit_conformal("classification", targets, 0.2 + 0.6 * targets)
            >>> found.sets([0.1, 0.85]).tolist()
            [[True, False], [False, True]]
        """
        if self.task.target != "class":
            raise ValueError(f"sets are for classes, this task is {self.task}: use intervals.")
        columns = np.asarray(probabilities, dtype=np.float64)
        if columns.ndim == 1 or columns.shape[1] == 1:
            columns = np.stack([1 - columns.reshape(-1), columns.reshape(-1)], axis=1)
        # Rounding must not leave out a class whose error equals the threshold.
        return 1 - columns <= self._limits(len(columns), groups)[:, None] + 1e-12

    def intervals(self, predictions: ArrayLike, groups: ArrayLike | None = None) -> np.ndarray:
        """Return the prediction interval of each record.

        Args:
            predictions: (N,) or (N, 1) numbers.
            groups: As for `sets`.

        Returns:
            (N, 2), the two ends in the unit of the targets.

        Raises:
            ValueError: The task is not a regression, or groups are missing.

        Example:
            >>> found = fit_conformal("regression", np.arange(99.0), np.zeros(99))
            >>> found.intervals([0.0]).tolist()
            [[-89.0, 89.0]]
        """
        if self.task.target != "number":
            raise ValueError(f"intervals are for numbers, this task is {self.task}: use sets.")
        values = np.asarray(predictions, dtype=np.float64).reshape(-1)
        limits = self._limits(len(values), groups)
        return np.stack([values - limits, values + limits], axis=1)

    def covers(
        self, targets: ArrayLike, predictions: ArrayLike, groups: ArrayLike | None = None
    ) -> np.ndarray:
        """Return for each record whether its set or interval holds the truth.

        Args:
            targets: (N,) true classes or numbers.
            predictions: As for `sets` or `intervals`.
            groups: As for `sets`.

        Returns:
            (N,) booleans; their mean is the measured coverage.
        """
        targets = np.asarray(targets)
        limits = self._limits(len(targets), groups)
        return _errors(self.task, targets, np.asarray(predictions)) <= limits + 1e-12

    def _limits(self, count: int, groups: ArrayLike | None) -> np.ndarray:
        """Return the threshold of each record, (N,)."""
        if ALL in self.thresholds:
            return np.full(count, self.thresholds[ALL])
        if groups is None:
            raise ValueError(
                f"groups must be given: there is a threshold for each of {listed(self.thresholds)}."
            )
        names = np.asarray(groups).tolist()
        unknown = sorted({str(name) for name in names if name not in self.thresholds})
        if unknown:
            warnings.warn(
                f"{len(unknown)} groups have no held-out records, so their sets hold everything: "
                f"{listed(unknown)}.",
                stacklevel=3,
            )
        return np.array([self.thresholds.get(name, math.inf) for name in names])


def fit_conformal(
    task: str,
    targets: ArrayLike,
    predictions: ArrayLike,
    confidence: float = 0.9,
    groups: ArrayLike | None = None,
) -> Conformal:
    """Find the thresholds from held-out records.

    Args:
        task: A classification or regression, of records or residues.
        targets: (N,) classes or numbers of held-out records. Use records on which the model was
            not trained; records that stopped its training early are nearly as good.
        predictions: As for `kft.evaluation.score`.
        confidence: Share of records whose truth is to be covered, such as 0.9.
        groups: (N,) names; each group gets a threshold of its own. None for one threshold.

    Returns:
        `Conformal`.

    Raises:
        ValueError: The task has labels, `confidence` is not between 0 and 1, there are no records,
            or as for `kft.evaluation.score`.

    Example:
        >>> fit_conformal("regression", np.arange(99.0), np.zeros(99)).thresholds
        {None: 89.0}
    """
    kind = Task.named(task, "task", [one for one in Task if one.target in ("class", "number")])
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, received {confidence!r}.")
    errors = _errors(kind, np.asarray(targets), np.asarray(predictions))
    if not len(errors):
        raise ValueError("targets must hold at least one held-out record, received none.")
    names: list = [ALL] * len(errors) if groups is None else np.asarray(groups).tolist()
    if len(names) != len(errors):
        raise ValueError(
            f"groups must have one name per record: received {len(names)} for {len(errors)}."
        )
    parts: dict[Hashable, list[float]] = {}
    for name, error in zip(names, errors.tolist(), strict=True):
        parts.setdefault(name, []).append(error)
    thresholds = {name: _quantile(np.sort(part), confidence) for name, part in parts.items()}
    return Conformal(kind, confidence, thresholds, {name: len(x) for name, x in parts.items()})


def _errors(task: Task, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the error of each record, (N,), see the top of the file."""
    predictions = predictions.astype(np.float64)
    if len(targets) != len(predictions):
        raise ValueError(
            f"targets and predictions must have one entry per record, received {len(targets)} and "
            f"{len(predictions)}."
        )
    if len(targets):
        measure_of(task, targets, predictions)  # raises an error for NaN and wrong classes
    if task.target == "number":
        return np.abs(targets - predictions.reshape(-1))
    if predictions.ndim == 1 or predictions.shape[1] == 1:
        positive = predictions.reshape(-1)
        return np.where(targets == 1, 1 - positive, positive)
    return 1 - predictions[np.arange(len(targets)), targets.astype(int)]


def _quantile(ordered: np.ndarray, confidence: float) -> float:
    # Rounding: (9 + 1) * 0.9 must be 9, not the next above it.
    place = math.ceil((len(ordered) + 1) * confidence - 1e-9)
    return float(ordered[place - 1]) if place <= len(ordered) else math.inf
