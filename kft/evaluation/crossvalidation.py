"""Cross-validation: folds that keep groups together, and a test that knows that folds overlap.

The training parts of different folds share most of their records, so the scores of folds are not
independent, and Student's t test on them finds differences that are not there. Nadeau and Bengio
(Machine Learning 52:239, 2003) replace its variance s^2 / J by (1 / J + n_test / n_train) s^2, for
J folds over all repeats; Bouckaert and Frank (PAKDD 2004) show that the repeated cross-validation
with this test is the most reproducible. `tests/benchmarks/calibration_of_tests.py` counts how often
both tests err.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from kft.arguments import check_integer, check_number_above
from kft.evaluation.metrics import Interval


class CorrectedTest(NamedTuple):
    """Result of `corrected_t_test`.

    Attributes:
        t: The statistic; NaN if it is undefined, as for differences that are all the same.
        p: Two-sided p-value, NaN if t is.
        freedom: Degrees of freedom.
        mean: Mean difference with its interval; its ends are NaN for a single fold.
    """

    t: float
    p: float
    freedom: int
    mean: Interval


def corrected_t_test(
    differences: ArrayLike, ratio: float, confidence: float = 0.95
) -> CorrectedTest:
    """Test whether the expected difference of two methods is zero, from scores of folds.

    Args:
        differences: (J,) score of one method minus that of the other on each fold of every repeat.
        ratio: Number of test records of a fold divided by that of its training records; 1 / (k - 1)
            for k folds.
        confidence: Confidence level of the interval.

    Returns:
        `CorrectedTest`.

    Raises:
        ValueError: There are no differences, one is NaN, or `ratio` is not above 0.

    Example:
        >>> found = corrected_t_test([0.02, 0.05, 0.03, 0.04, 0.01], ratio=0.25)
        >>> round(found.t, 3), round(found.p, 3)
        (2.828, 0.047)
    """
    values = np.asarray(differences, dtype=np.float64)
    ratio = check_number_above("ratio", ratio)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"differences must be one finite number per fold, received {values!r}.")
    mean, freedom = float(values.mean()), len(values) - 1
    if not freedom:
        return CorrectedTest(math.nan, math.nan, 0, Interval(mean, math.nan, math.nan))
    error = math.sqrt((1 / len(values) + ratio) * values.var(ddof=1))
    half = error * float(student.ppf((1 + confidence) / 2, freedom))
    found = Interval(mean, mean - half, mean + half)
    if error < 1e-12 * max(1, abs(mean)):
        return CorrectedTest(math.nan, 1.0 if abs(mean) < 1e-12 else math.nan, freedom, found)
    t = mean / error
    return CorrectedTest(t, float(2 * student.sf(abs(t), freedom)), freedom, found)


@dataclass(frozen=True, eq=False)
class CrossValidated:
    """One metric of one method over folds, used like `kft.evaluation.significance.Resampled`.

    Attributes:
        seeds: (J,) the score of each fold; NaN where it is undefined.
        ratio: As for `corrected_t_test`.
        bounds: Smallest and largest value of the metric.
    """

    seeds: np.ndarray
    ratio: float
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def value(self) -> float:
        """Mean of the defined scores; NaN if there is none."""
        there = self.seeds[np.isfinite(self.seeds)]
        return float(there.mean()) if len(there) else math.nan

    @property
    def error(self) -> float:
        """The corrected standard error, NaN if undefined."""
        there = self.seeds[np.isfinite(self.seeds)]
        if len(there) < 2:
            return math.nan
        return math.sqrt((1 / len(there) + self.ratio) * there.var(ddof=1))

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return the mean with its interval.

        Args:
            confidence: Confidence level, between 0 and 1.
        """
        there = self.seeds[np.isfinite(self.seeds)]
        if not len(there):
            return Interval(math.nan, math.nan, math.nan)
        value, low, high = corrected_t_test(there, self.ratio, confidence).mean
        ends = np.clip([low, high], *self.bounds)
        return Interval(value, float(ends[0]), float(ends[1]))

    def against(self, other: CrossValidated, confidence: float = 0.95) -> CorrectedTest:
        """Test this method against another on the same folds.

        Args:
            other: The other method. Folds in which either score is undefined are left out.
            confidence: Confidence level of the interval of the difference.

        Raises:
            ValueError: No fold has both scores.

        Example:
            >>> one, other = np.array([0.9, 0.8, 0.9]), np.array([0.7, 0.7, 0.7])
            >>> round(CrossValidated(one, 0.5).against(CrossValidated(other, 0.5)).p, 3)
            0.087
        """
        differences = self.seeds - other.seeds
        return corrected_t_test(differences[np.isfinite(differences)], self.ratio, confidence)


def folds(
    records: int,
    k: int = 5,
    repeats: int = 1,
    seed: int = 0,
    groups: ArrayLike | None = None,
    stratify: ArrayLike | None = None,
) -> list[np.ndarray]:
    """Deal records into k folds, several times over.

    Args:
        records: Number N of records.
        k: Number of folds, at least 2.
        repeats: How often all records are dealt anew.
        seed: Seed of the first repeat.
        groups: (N,) names; no group is separated. None for single records.
        stratify: (N,) classes whose shares should be the same in every fold, or None.

    Returns:
        `repeats` arrays (N,) of the fold of each record, from 0 to k - 1.

    Raises:
        ValueError: There are fewer records, groups or records of each class than folds.

    Example:
        >>> first, second = folds(6, k=3, repeats=2)
        >>> sorted(first.tolist()), (first == second).all().item()
        ([0, 0, 1, 1, 2, 2], False)
    """
    check_integer("k", k, 2)
    check_integer("repeats", repeats)
    units = records if groups is None else len(np.unique(np.asarray(groups)))
    if units < k:
        kind = "records" if groups is None else "groups"
        raise ValueError(f"k must be at most the number of {kind}, {units}, received {k}.")
    if stratify is not None and np.unique(np.asarray(stratify), return_counts=True)[1].max() < k:
        stratify = None  # no class has a record for each fold
    if groups is None:
        kind_of_folds = KFold if stratify is None else StratifiedKFold
    else:
        kind_of_folds = GroupKFold if stratify is None else StratifiedGroupKFold
    dealt = []
    for repeat in range(repeats):
        places = np.empty(records, dtype=int)
        splitter = kind_of_folds(k, shuffle=True, random_state=seed + repeat)
        for fold, (_, test) in enumerate(splitter.split(np.zeros(records), stratify, groups)):
            places[test] = fold
        if len(np.unique(places)) < k:
            raise ValueError(
                f"k must be smaller: the groups are too few or too large to fill {k} folds."
            )
        dealt.append(places)
    return dealt
