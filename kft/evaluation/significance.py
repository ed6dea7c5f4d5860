"""Several methods on one test set, each trained with several seeds: which differ significantly.

The score of a method is its mean over seeds. Two things make it uncertain: which records are in the
test set, and the seed of the training. Each resample draws the test records with replacement
(whole groups, the same for every method) and adds to the mean a draw for other seeds:
t s / sqrt(S), with t from Student's distribution with S - 1 degrees of freedom, since three or five
seeds estimate their own variance poorly. The interval is that of Behrens and Fisher, which is
slightly too wide rather than too narrow. Drawing the seeds with replacement, as the textbook's
nested bootstrap does, is too narrow where training is unstable: `tests/benchmarks/coverage.py`
compares both.

Shapes: `M` methods, `S` seeds, `R` resamples.

Sources: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), 3.8, for the nested
bootstrap; Welch, Biometrika 34:28 (1947), for the test of a difference; Holm, Scandinavian Journal
of Statistics 6:65 (1979); Breiman et al., "Classification and Regression Trees" (1984), 3.4.3, for
the rule of one standard error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

from kft.evaluation.crossvalidation import CrossValidated
from kft.evaluation.metrics import Interval, bootstrap, interval, interval_of
from kft.evaluation.shares import independent_records

BOUNDS = {  # smallest and largest value of a metric, if not 0 and 1
    "RMSE": (0, math.inf),
    "MAE": (0, math.inf),
    "MCC": (-1, 1),
    "Spearman": (-1, 1),
    "Pearson": (-1, 1),
}


class Resampled(NamedTuple):
    """One metric of one method.

    Attributes:
        seeds: Array (S,), the score of each seed on the test set; NaN where it is undefined.
        value: Mean of the defined scores.
        by_records: Array (R,), that mean on resampled test sets.
        variance: Variance of the mean due to seeds.
        bounds: Smallest and largest value of the metric.
        metric: Name of the metric.
        records: Number of independent records, see `kft.evaluation.shares`; None if records are in
            groups or there are several seeds.
    """

    seeds: np.ndarray
    value: float
    by_records: np.ndarray
    variance: float = 0.0
    bounds: tuple[float, float] = (-math.inf, math.inf)
    metric: str = ""
    records: float | None = None

    @property
    def part(self) -> tuple[float, int]:
        """The variance due to seeds, and its degrees of freedom."""
        return self.variance, int(np.isfinite(self.seeds).sum()) - 1

    @property
    def draws(self) -> np.ndarray:
        """Array (R,), draws of the mean for other test records and seeds."""
        return np.clip(_moved(self.by_records, [self.part]), *self.bounds)

    @property
    def error(self) -> float:
        """The standard error: half the width of the central 68% of the draws, NaN if undefined."""
        low, high = self.interval(0.6827)[1:]
        return (high - low) / 2

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return the mean with its interval, as `evaluation.score` does for one seed.

        Args:
            confidence: Confidence level, between 0 and 1.

        Returns:
            The mean and its interval.
        """
        return interval_of(self.metric, self.value, self.draws, confidence, self.records)


def resampled(
    task: str,
    targets: ArrayLike,
    predictions: Sequence[ArrayLike],
    resamples: int = 2000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> dict[str, Resampled]:
    """Score a method trained with several seeds, on resamples of test records and seeds.

    With one seed, or for a method without seeds, intervals are those of `evaluation.score`: they
    describe this single training.

    Args:
        task: Task, as for `evaluation.score`.
        targets: Targets, as for `evaluation.score`.
        predictions: Predictions of each seed, as for `evaluation.score`; one for a method without
            seeds.
        resamples: Number of resamples R.
        seed: Seed of the resamples. Methods with the same seed get the same resamples.
        groups: Groups of the records, as for `evaluation.score`.
        weights: Weights of the records, as for `evaluation.score`.

    Returns:
        Metric name -> `Resampled`, with the task's headline metric first.

    Raises:
        ValueError: There are no predictions, or as for `evaluation.score`.

    Example:
        >>> one = resampled("regression", [1.0, 2.0, 3.0, 5.0], [[1.0, 2.0, 4.0, 3.0]])
        >>> round(one["Spearman"].value, 3)
        0.8
    """
    if not len(predictions):
        raise ValueError("predictions must be given for at least one seed, received none.")
    each = [bootstrap(task, targets, one, resamples, seed, groups, weights) for one in predictions]
    return _by_metric(each, independent_records(len(np.asarray(targets)), groups, weights))


def without(
    task: str,
    targets: ArrayLike,
    predictions: Sequence[ArrayLike],
    kept: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> tuple[dict[str, Resampled], dict[str, Resampled]]:
    """Score a method on some of the test records, and compare with its score on all.

    Both are of the same resamples and seeds, so that the interval of their difference is paired.

    Args:
        task: As for `resampled`.
        targets: As for `resampled`.
        predictions: As for `resampled`.
        kept: Booleans (N,), the records that are scored, such as those without a near copy in
            training.
        resamples: As for `resampled`.
        seed: As for `resampled`.
        groups: As for `resampled`.
        weights: As for `resampled`.

    Returns:
        Scores on the records kept; and scores on all records minus these, by metric.

    Raises:
        ValueError: As for `resampled`.

    Example:
        >>> kept = np.array([True, True, True, True, False, False])
        >>> part, price = without("regression", [1, 2, 3, 5, 7, 8], [[3, 1, 2, 2, 7, 8]], kept)
        >>> round(part["MAE"].value, 2), round(price["MAE"].value, 2)
        (1.75, -0.58)
    """
    parts, prices = [], []
    for one in predictions:
        given = (task, targets, one, resamples, seed, groups, weights)
        part, part_draws = bootstrap(*given, kept=kept)
        whole, whole_draws = bootstrap(*given)
        parts.append((part, part_draws))
        prices.append(
            (
                {name: whole[name] - part[name] for name in part},
                {name: whole_draws[name] - part_draws[name] for name in part},
            )
        )
    used = np.asarray(kept, dtype=bool)
    names, counts = (None if x is None else np.asarray(x)[used] for x in (groups, weights))
    records = independent_records(int(used.sum()), names, counts)
    return _by_metric(parts, records), _by_metric(prices, bounded=False)


def _by_metric(
    each: Sequence[tuple[dict[str, float], dict[str, np.ndarray]]],
    records: float | None = None,
    bounded: bool = True,
) -> dict[str, Resampled]:
    """Combine the values and draws of each seed."""
    unbounded = (-math.inf, math.inf)
    return {
        name: _over_seeds(
            np.array([values[name] for values, _ in each]),
            np.stack([draws[name] for _, draws in each]),
            BOUNDS.get(name, (0, 1)) if bounded else unbounded,
        )._replace(metric=name, records=records if len(each) == 1 else None)
        for name in each[0][0]
    }


def _over_seeds(seeds: np.ndarray, draws: np.ndarray, bounds: tuple[float, float]) -> Resampled:
    """Combine the scores (S,) of one metric and their draws (S, R)."""
    defined = ~np.isnan(seeds)
    if not defined.any():
        return Resampled(seeds, math.nan, np.full(draws.shape[1], math.nan))
    draws = draws[defined]
    variance = _by_seeds(seeds[defined], draws) / len(draws)
    return Resampled(seeds, float(seeds[defined].mean()), draws.mean(axis=0), variance, bounds)


def _by_seeds(seeds: np.ndarray, draws: np.ndarray) -> float:
    """Estimate the variance of the expected score from seed to seed.

    On one test set seeds also differ because each makes errors on other records, which the
    resamples of the records already include. Resampling doubles that part and leaves the other.
    """
    if len(seeds) < 2:
        return 0.0
    return max(0.0, 2 * seeds.var(ddof=1) - float(np.nanmean(draws.var(axis=0, ddof=1))))


def _moved(by_records: np.ndarray, parts: list[tuple[float, int]]) -> np.ndarray:
    """Add draws for other seeds to the draws for other records, (R,)."""
    resamples = len(by_records)
    rng = np.random.default_rng([0, resamples])  # an independent stream
    for variance, freedom in parts:
        if variance:
            # R equal slices of Student's distribution, so that its tails do not depend on chance.
            slices = (rng.permutation(resamples) + 0.5) / resamples
            by_records = by_records + math.sqrt(variance) * student.ppf(slices, freedom)
    return by_records


Measured = Resampled | CrossValidated


def difference(one: Measured, other: Measured, confidence: float = 0.95) -> Interval:
    """Compute the score of one method minus that of another, paired by records or by folds.

    Args:
        one: The first method.
        other: The second method, with the same resamples or folds.
        confidence: Confidence level of the interval.

    Returns:
        The difference and its interval.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.02, 500)
        >>> good, bad = (Resampled(np.array([v]), v, v + noise) for v in (0.9, 0.8))
        >>> print(difference(good, bad))
        0.100 [0.100, 0.100]
    """
    if isinstance(one, CrossValidated) and isinstance(other, CrossValidated):
        return one.against(other, confidence).mean
    one, other = _resampled(one), _resampled(other)
    draws = _moved(one.by_records - other.by_records, [one.part, other.part])
    return interval(one.value - other.value, draws, confidence)


class Standing(NamedTuple):
    """Comparison of a method with the best one.

    Attributes:
        gap: Score minus that of the best, with its paired interval.
        p: p-value of a two-sided paired test of "both have the same expected score".
        corrected: p-value corrected for all pairs of methods. Both are NaN if no resample of the
            records changes the difference, for example with perfect scores on few records.
    """

    gap: Interval
    p: float
    corrected: float


def against_best(methods: Sequence[Measured], confidence: float = 0.95) -> list[Standing | None]:
    """Test every method against the best, corrected for choosing the best from the same scores.

    Scores of folds are tested by `kft.evaluation.crossvalidation.corrected_t_test`, all others as
    follows.

    The null hypothesis is that the method and the best have the same expected score over training
    seeds and test sets like this one. The test is Welch's: the difference divided by its standard
    error, where the variance due to records is taken as known from the paired resamples, and the
    variances due to seeds have S - 1 degrees of freedom each. The best was chosen by these
    scores, so `corrected` is Holm's p over all M (M - 1) / 2 pairs.

    Args:
        methods: M methods on one metric where higher is better, with the same resamples or folds.
        confidence: Confidence level of the intervals of the gaps.

    Returns:
        M standings; None for methods whose score is undefined. The best has p = 1.

    Raises:
        ValueError: No method has a score.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.01, 500)
        >>> rows = [Resampled(np.array([v]), v, v + noise * v) for v in (0.9, 0.5)]
        >>> against_best(rows)[1].corrected < 0.001
        True
    """
    there = _defined(methods)
    best = max(there, key=lambda i: methods[i].value)
    pairs = [(i, j) for i in there for j in there if i < j]
    p = {pair: _p(*(methods[i] for i in pair)) for pair in pairs}
    corrected = _holm(p)
    standings: list[Standing | None] = [None] * len(methods)
    for i in there:
        pair, gap = (min(i, best), max(i, best)), difference(methods[i], methods[best], confidence)
        standings[i] = Standing(gap, p.get(pair, 1.0), corrected.get(pair, 1.0))
    return standings


def against(
    reference: Measured, methods: Sequence[Measured], confidence: float = 0.95
) -> list[Standing]:
    """Test every method against one that was chosen before, with the test of `against_best`.

    Args:
        reference: The method that the others are compared with.
        methods: M methods on the same metric, with the same resamples or folds.
        confidence: Confidence level of the intervals of the gaps.

    Returns:
        M standings: score minus that of the reference, and `corrected` by Holm for M tests. All
        are NaN where a score is undefined.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.01, 500)
        >>> known, better = (Resampled(np.array([v]), v, v + noise * v) for v in (0.5, 0.9))
        >>> against(known, [better, known])[0].corrected < 0.001
        True
    """
    p = {i: _p(method, reference) for i, method in enumerate(methods)}
    corrected = _holm(p)
    gaps = [difference(method, reference, confidence) for method in methods]
    return [Standing(gap, p[i], corrected[i]) for i, gap in enumerate(gaps)]


def _holm(p: Mapping[Any, float]) -> dict[Any, float]:
    """Return Holm's correction of p-values by name; NaN stays NaN."""
    corrected, largest = dict.fromkeys(p, math.nan), 0.0
    for rank, name in enumerate(sorted((x for x in p if p[x] == p[x]), key=lambda x: p[x])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = largest
    return corrected


def _p(one: Measured, other: Measured) -> float:
    if isinstance(one, CrossValidated) and isinstance(other, CrossValidated):
        return one.against(other).p
    return _welch(_resampled(one), _resampled(other))


def _resampled(method: Measured) -> Resampled:
    if isinstance(method, Resampled):
        return method
    raise TypeError("methods must all be scored on folds, or none of them.")


def _welch(one: Resampled, other: Resampled) -> float:
    """Return p of "both have the same expected score", two-sided and paired by records."""
    gap = abs(one.value - other.value)
    known = float(np.nanvar(one.by_records - other.by_records, ddof=1))
    total = known + one.variance + other.variance
    if not total:  # at the end of a metric's range no resample differs, so no test is possible
        return 1.0 if gap < 1e-12 else math.nan
    # What `_by_seeds` subtracts is known, so the whole variance is uncertain, not the difference.
    uncertain = sum(_spread(method) for method in (one, other))
    freedom = total**2 / uncertain if uncertain else math.inf  # Welch-Satterthwaite
    return float(2 * student.sf(gap / math.sqrt(total), freedom))


def _spread(method: Resampled) -> float:
    """Return the squared variance of the mean over seeds, by its degrees of freedom."""
    seeds = method.seeds[np.isfinite(method.seeds)]
    if len(seeds) < 2:
        return 0.0
    return float((seeds.var(ddof=1) / len(seeds)) ** 2 / (len(seeds) - 1))


def within_one_error(methods: Sequence[Measured], costs: Sequence[float]) -> int:
    """Choose the cheapest method whose score is within one standard error of the best's.

    Args:
        methods: M methods on one metric where higher is better.
        costs: M costs, in any unit.

    Returns:
        The position of the chosen method.

    Raises:
        ValueError: No method has a score, or the number of costs differs.

    Example:
        >>> noise = np.random.default_rng(0).normal(0, 0.02, 500)
        >>> rows = [Resampled(np.array([v]), v, v + noise) for v in (0.89, 0.9)]
        >>> within_one_error(rows, [1.0, 60.0])
        0
    """
    if len(costs) != len(methods):
        raise ValueError(
            f"costs must have one number per method, {len(methods)}, received {len(costs)}."
        )
    there = _defined(methods)
    best = max((methods[i] for i in there), key=lambda method: method.value)
    error = 0.0 if math.isnan(best.error) else best.error  # of a single fold
    good = [i for i in there if methods[i].value >= best.value - error]
    return min(good, key=lambda i: (costs[i], -methods[i].value))


def _defined(methods: Sequence[Measured]) -> list[int]:
    there = [i for i, method in enumerate(methods) if not math.isnan(method.value)]
    if not there:
        raise ValueError("methods must hold at least one defined score: no method has a score.")
    return there
