"""Does a model work equally well for every group of records, such as each sex or each laboratory?

`audit` scores each group by itself, with intervals, and tests whether the groups differ. What it
compares is one number per record: whether the predicted class is right, the share of labels that
are right, or the absolute error. Unlike AUROC, it is defined for a group of one record.

The test permutes the names of the groups (Good, "Permutation, Parametric and Bootstrap Tests of
Hypotheses", 2005, chapter 3), so it holds its level with groups of any size. The gap between the
best and the worst group is chosen after looking, so its interval is corrected for all pairs of
groups (Bonferroni). Scores by group equal those of fairlearn's `MetricFrame`, as tests check.

Shapes: `N` records, `G` groups, `U` units (clusters within groups), `R` permutations.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kft.arguments import check_integer, check_weights
from kft.data.task import Task
from kft.evaluation.means import UNDEFINED, mean_interval, minus
from kft.evaluation.metrics import Interval, Scored, measure_of, score
from kft.messages import count_of, listed

OUTCOMES = {"class": "accuracy", "labels": "labels right", "number": "MAE"}


@dataclass(frozen=True, eq=False)
class GroupAudit:
    """Scores by group and a test of their difference, see `audit`.

    Attributes:
        by: What the groups are, such as "sex".
        outcome: What is compared: "accuracy", "labels right" or "MAE".
        table: DataFrame with a row per group: `records`, and each metric with its interval, the
            outcome first. NaN where a metric is undefined, or an interval for one record.
        gap: Outcome of the best group minus that of the worst (for MAE worst minus best), with its
            interval. Groups of one record are left out. All NaN if fewer than two are left.
        best: Name of the best group of the gap, or None.
        worst: Name of the worst group, or None.
        p: p-value of "the outcome does not depend on the group"; NaN for a single group, or if all
            records have the same outcome.
        confidence: Confidence level of the intervals; `differs` tests at 1 minus it.
        left_out: Number of records whose group is missing.
    """

    by: str
    outcome: str
    table: pd.DataFrame
    gap: Interval
    best: Hashable
    worst: Hashable
    p: float
    confidence: float
    left_out: int = 0

    @property
    def differs(self) -> bool:
        """Whether the test finds a difference between groups."""
        return bool(self.p < 1 - self.confidence)

    def __str__(self) -> str:
        ends = [self.outcome + end for end in ("", " low", " high")]
        rows = "; ".join(
            f"{name} (n = {row['records']:,.0f}) {Interval(*row[ends])}"
            for name, row in self.table.iterrows()
        )
        text = f"{self.outcome} by {self.by}: {rows}."
        if not math.isnan(self.gap.value):
            text += f" Gap between {self.best} and {self.worst}: {self.gap}."
        small = self.table.index[self.table["records"] == 1]
        if len(small):
            text += f" Of one record, so left out of the gap: {listed(small)}."
        if self.left_out:
            text += f" Left out: {count_of(self.left_out, 'record')} without {self.by}."
        if math.isnan(self.p):
            return f"{text} No test: there is one group, or every record has the same outcome."
        found = "the groups differ" if self.differs else "no difference is shown"
        return (
            f"{text} Null hypothesis: {self.outcome} does not depend on {self.by}; permutation "
            f"test, p = {self.p:.3g}: {found}."
        )


def audit(
    task: str,
    scored: Scored,
    by: ArrayLike,
    name: str = "group",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> GroupAudit:
    """Score each group of records by itself, and test whether the groups differ.

    Records count by `scored.weights` in all that is compared, if there are weights; those of weight
    0 are left out.

    Args:
        task: A `kft.data.task.Task`, or its name.
        scored: Targets and predictions. Records of one of `scored.groups`, such as a cluster of
            near copies, are not independent, and are permuted and drawn together.
        by: (N,) the group of each record. Records without one (None or NaN) are left out and
            counted.
        name: What the groups are, such as "sex".
        confidence: Confidence level of intervals, and 1 minus the level of the test.
        resamples: Number of bootstrap resamples, and of permutations.
        seed: Seed of both.

    Returns:
        `GroupAudit`.

    Raises:
        ValueError: Lengths differ, no record has a group, or as for `kft.evaluation.score`.

    Example:
        >>> right = Scored(np.ones(20, int), np.repeat([0.9, 0.1], 10))
        >>> found = audit("classification", right, ["a"] * 10 + ["b"] * 10)
        >>> found.gap.value, found.differs
        (1.0, True)
    """
    kind = Task.named(task, "task")
    check_integer("resamples", resamples)
    column = pd.Series(np.asarray(by))
    if len(column) != len(scored.targets):
        raise ValueError(
            f"by must name the group of each of {len(scored.targets)} records, received "
            f"{len(column)} names."
        )
    there, left_out = column.notna().to_numpy(), int(column.isna().sum())
    if not there.any():
        raise ValueError(f"by must name at least one group: {name} is missing in every record.")
    if scored.weights is not None:
        weights = check_weights("scored.weights", scored.weights, len(column))
        there = there & (weights > 0)
        if not there.any():
            raise ValueError(f"scored.weights are 0 for every record that has a {name}.")
    codes, groups = pd.factorize(column[there], sort=True)
    part = scored.take(there)
    outcomes = outcome(kind, part.targets, part.predictions)
    options = (confidence, resamples, seed)
    rows = []
    for code in range(len(groups)):
        chosen = codes == code
        rows.append(_row(kind, part.take(chosen), outcomes[chosen], options))
    table = pd.DataFrame(rows, index=pd.Index(groups, name=name))
    gap, best, worst = _gap(kind, outcomes, codes, part, list(groups), options)
    p = _permuted(outcomes.astype(float), codes, part, resamples, seed)
    return GroupAudit(name, OUTCOMES[kind.target], table, gap, best, worst, p, confidence, left_out)


def outcome(task: Task, targets: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Compute how right the prediction of each record is.

    Args:
        task: A task.
        targets: As for `kft.evaluation.score`.
        predictions: As for `kft.evaluation.score`.

    Returns:
        (N,) whether the predicted class is right; the share of labels that are right; or the
        absolute error in the unit of the targets.

    Raises:
        ValueError: As for `kft.evaluation.score`.

    Example:
        >>> outcome(Task("classification"), np.array([0, 1]), np.array([0.2, 0.3])).tolist()
        [True, False]
    """
    predictions = predictions.astype(np.float64)
    measure_of(task, targets, predictions)  # raises an error for NaN and wrong classes
    if task.target == "number":
        return np.abs(targets - predictions.reshape(-1))
    if task.target == "labels":
        return ((predictions.reshape(targets.shape) > 0.5) == (targets == 1)).mean(axis=1)
    if predictions.ndim == 1 or predictions.shape[1] == 1:
        return (predictions.reshape(-1) > 0.5) == (targets == 1)
    return predictions.argmax(axis=1) == targets


def _row(
    task: Task, part: Scored, outcomes: np.ndarray, options: tuple[float, int, int]
) -> dict[str, float]:
    """Return the row of a group: its size, and each metric with its interval."""
    within: dict[str, Any] = {"groups": part.groups, "weights": part.weights}
    found = {OUTCOMES[task.target]: mean_interval(outcomes, part.groups, *options, part.weights)}
    clusters = len(outcomes) if part.groups is None else len(np.unique(part.groups))
    if clusters > 1:
        scores = score(task, part.targets, part.predictions, *options, **within)
        found |= {metric: row for metric, row in scores.items() if metric not in found}
    row: dict[str, float] = {"records": len(outcomes)}
    for metric, values in found.items():
        row |= {metric: values.value, f"{metric} low": values.low, f"{metric} high": values.high}
    return row


def _gap(
    task: Task,
    outcomes: np.ndarray,
    codes: np.ndarray,
    part: Scored,
    names: list,
    options: tuple[float, int, int],
) -> tuple[Interval, Hashable, Hashable]:
    """Return the gap between best and worst group of several records, and their names."""
    confidence, resamples, seed = options
    large = [code for code in range(len(names)) if (codes == code).sum() > 1]
    if len(large) < 2:
        return UNDEFINED, None, None
    pairs = len(large) * (len(large) - 1) / 2
    corrected = 1 - (1 - confidence) / pairs
    means = {}
    for code in large:
        chosen = codes == code
        clusters, weights = (None if x is None else x[chosen] for x in (part.groups, part.weights))
        # Seeds differ, as the groups are independent samples.
        means[code] = mean_interval(
            outcomes[chosen], clusters, corrected, resamples, seed + code, weights
        )
    low = min(large, key=lambda code: means[code].value)
    high = max(large, key=lambda code: means[code].value)
    best, worst = (low, high) if task.target == "number" else (high, low)
    return minus(means[high], means[low]), names[best], names[worst]


def _permuted(
    outcomes: np.ndarray, codes: np.ndarray, part: Scored, permutations: int, seed: int
) -> float:
    """Return p of "the outcome does not depend on the group", from permuted names of groups.

    Records of a cluster that lie in one group are moved together.
    """
    groups = int(codes.max()) + 1
    if groups < 2 or np.ptp(outcomes) < 1e-12:
        return math.nan
    weights = np.ones(len(codes))
    if part.weights is not None:
        # With mean 1 in each group, so that records which change places are worth the same.
        means = np.bincount(codes, part.weights) / np.bincount(codes)
        weights = part.weights / means[codes]
    cluster = np.arange(len(codes))
    if part.groups is not None:
        cluster = np.unique(part.groups, return_inverse=True)[1]
    unit = np.unique(cluster * groups + codes, return_inverse=True)[1]  # (N,)
    sizes = np.bincount(unit, weights)  # (U,)
    sums = np.bincount(unit, weights * (outcomes - np.average(outcomes, weights=weights)))
    labels = np.zeros(len(sizes), dtype=int)
    labels[unit] = codes

    def spread(labels: np.ndarray) -> np.ndarray:  # (r, U) -> (r,), between groups
        rows = len(labels)
        cells = (labels + groups * np.arange(rows)[:, None]).ravel()
        total = np.bincount(cells, np.tile(sums, rows), rows * groups)
        size = np.bincount(cells, np.tile(sizes, rows), rows * groups)
        each = np.divide(total**2, size, out=np.zeros_like(total), where=size > 0)
        return each.reshape(rows, groups).sum(axis=1)

    rng = np.random.default_rng([seed, 2])
    found = float(spread(labels[None])[0])
    step, as_large = max(1, 200_000 // len(labels)), 0
    for start in range(0, permutations, step):
        rows = np.tile(labels, (min(step, permutations - start), 1))
        as_large += int((spread(rng.permuted(rows, axis=1)) >= found * (1 - 1e-9)).sum())
    return (1 + as_large) / (1 + permutations)
