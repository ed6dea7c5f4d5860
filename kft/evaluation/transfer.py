"""Is a model good enough for new data as it is, or does it need fine-tuning?

Two tests answer. Does the model lose on the new data, compared with test records of the data that
it was trained on? The test permutes which records are new. And is the model better on the new data
than a baseline? The bootstrap of their paired difference tells. Only a model that is not shown to
lose and is shown to beat the baseline is called transferable.

Not shown to lose is not the same as shown not to lose: with few records a large loss goes unseen.
So the verdict states how large a loss the interval leaves possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kft.arguments import check_integer
from kft.data.task import Task
from kft.evaluation.means import UNDEFINED, minus
from kft.evaluation.metrics import Interval, Scored, bootstrap, interval, measure_of, score


@dataclass(frozen=True)
class Transfer:
    """Verdict on a model and new data, see `judge_transfer`.

    Attributes:
        metric: The headline metric of the task.
        source: Its score on test records of the data that the model was trained on.
        new: Its score on the new records.
        loss: `source` minus `new`, with its interval.
        p_loss: p-value of "the model scores as well on the new data", one-sided; NaN if undefined.
        baseline: Name of the baseline.
        gain: Score of the model minus that of the baseline, on the new records.
        p_gain: p-value of "the model is no better than the baseline", one-sided.
        level: Level of both tests.
    """

    metric: str
    source: Interval
    new: Interval
    loss: Interval
    p_loss: float
    baseline: str
    gain: Interval
    p_gain: float
    level: float

    @property
    def transferable(self) -> bool | None:
        """Whether no fine-tuning is needed; None if a score is undefined."""
        if math.isnan(self.p_loss) or math.isnan(self.p_gain):
            return None
        return bool(self.p_loss >= self.level and self.p_gain < self.level)

    @property
    def verdict(self) -> str:
        """One sentence that begins with "transferable", "fine-tune" or "undecided"."""
        if self.transferable is None:
            return (
                f"undecided: {self.metric} is undefined for the model or the baseline, as it is if "
                f"targets or predictions are all the same."
            )
        if self.transferable:
            return (
                f"transferable: no fine-tuning needed. A loss of {self.metric} above "
                f"{max(self.loss.high, 0):.3f} is ruled out, a smaller one is not."
            )
        if self.p_loss < self.level:
            return f"fine-tune: the model loses {self.loss} {self.metric} on the new data."
        return f"fine-tune: the model is not shown to be better than {self.baseline} there."

    def __str__(self) -> str:
        return (
            f"{self.metric} of the model is {self.source} on its own test records and {self.new} "
            f"on the new ones.\n"
            f"Null hypothesis 1: new records are like its own, so it scores as well on them. "
            f"Alternative: it scores lower. Statistic: the loss, {self.loss}; permutation test, "
            f"p = {_p(self.p_loss)}.\n"
            f"Null hypothesis 2: on the new records it is no better than {self.baseline}. "
            f"Alternative: it is better. Statistic: the gain, {self.gain}; paired bootstrap, "
            f"p = {_p(self.p_gain)}.\n"
            f"At level {self.level:g}: {self.verdict}"
        )


def judge_transfer(
    task: str,
    source: Scored,
    new: Scored,
    baseline: ArrayLike,
    name: str = "the baseline",
    level: float = 0.05,
    resamples: int = 2000,
    seed: int = 0,
) -> Transfer:
    """Test whether a model works on new data as well as on its own.

    Args:
        task: A `kft.data.task.Task`, or its name.
        source: Targets and predictions of test records of the data that the model was trained on.
        new: Those of the new records, with groups if `source` has them.
        baseline: Predictions of a baseline for the new records. The Spearman correlation of one
            that predicts a constant counts as 0.
        name: Name of the baseline.
        level: Level of both tests; the intervals have confidence 1 minus it.
        resamples: Number of permutations and of bootstrap resamples.
        seed: Seed of both.

    Returns:
        `Transfer`, which prints as sentences.

    Raises:
        ValueError: `level` is not between 0 and 1, only one of the two has groups, or as for
            `kft.evaluation.score`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth, noise = rng.normal(size=(2, 300))
        >>> here, there = Scored(truth, truth + noise), Scored(truth, noise)
        >>> judge_transfer("regression", here, there, noise[::-1]).verdict[:9]
        'fine-tune'
    """
    kind = Task.named(task, "task")
    check_integer("resamples", resamples)
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, such as 0.05; received {level!r}.")
    if (source.groups is None) != (new.groups is None):
        raise ValueError("source and new must both have groups, or neither.")
    scores = [
        score(kind, *part[:2], 1 - level, resamples, seed + i, part.groups, part.weights)
        for i, part in enumerate((source, new))
    ]
    metric = scores[0].headline
    if scores[1].headline != metric:
        raise ValueError("source and new must have the same number of classes.")
    here, there = (one[metric] for one in scores)
    loss = minus(here, there) if not math.isnan(here.value + there.value) else UNDEFINED
    p_loss = _permuted(kind, source, new, metric, resamples, seed)
    options: Any = (resamples, seed, new.groups, new.weights)
    values, draws = bootstrap(kind, *new[:2], *options)
    others, other_draws = bootstrap(kind, new.targets, baseline, *options)
    if metric == "Spearman" and math.isnan(others[metric]):  # of a constant: it has no order
        others[metric], other_draws[metric] = 0.0, np.zeros(resamples)
    gains = draws[metric] - other_draws[metric]
    gain = interval(values[metric] - others[metric], gains, 1 - level)
    gains = gains[~np.isnan(gains)]
    p_gain = math.nan
    if not math.isnan(gain.value):
        p_gain = (1 + int((gains <= 0).sum())) / (1 + len(gains))
    return Transfer(metric, here, there, loss, p_loss, name, gain, p_gain, level)


def _permuted(
    task: Task, source: Scored, new: Scored, metric: str, permutations: int, seed: int
) -> float:
    """Return p of "source and new records are alike", from permutations of which are new.

    Records of a group are moved together.
    """
    targets = np.concatenate([source.targets, new.targets])
    predictions = [np.asarray(part.predictions, dtype=np.float64) for part in (source, new)]
    measure = measure_of(task, targets, np.concatenate(predictions))
    n, m = len(source.targets), len(new.targets)
    weights = np.concatenate(
        [
            np.ones(len(part.targets)) if part.weights is None else part.weights
            for part in (source, new)
        ]
    )
    unit = np.arange(n + m)
    if source.groups is not None and new.groups is not None:
        first, second = (
            np.unique(groups, return_inverse=True)[1] for groups in (source.groups, new.groups)
        )
        unit = np.concatenate([first, second + first.max() + 1])  # groups of two data sets differ
    is_new = np.zeros(unit.max() + 1)
    is_new[unit[n:]] = 1

    def losses(chosen: np.ndarray) -> np.ndarray:  # (r, U) -> (r,)
        member = chosen[:, unit]
        with np.errstate(invalid="ignore", divide="ignore"):  # all weights of a part may be 0
            parts = [measure(weights * counts)[metric] for counts in (1 - member, member)]
        return parts[0] - parts[1]

    found = float(losses(is_new[None])[0])
    if math.isnan(found):
        return math.nan
    rng = np.random.default_rng([seed, 3])
    step = max(1, 200_000 // (n + m))
    null = np.concatenate(
        [
            losses(rng.permuted(np.tile(is_new, (min(step, permutations - start), 1)), axis=1))
            for start in range(0, permutations, step)
        ]
    )
    null = null[~np.isnan(null)]
    return (1 + int((null >= found - 1e-12).sum())) / (1 + len(null))


def _p(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.2g}"
