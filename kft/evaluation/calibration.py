"""Calibration: are predicted probabilities the shares of records that turn out so?

`judge_calibration` puts records into bins by confidence, the probability of the predicted class,
and compares each bin's mean confidence with the share of its records that are right. The expected
calibration error (ECE) is the mean difference, weighted by records. It is never 0 in a sample, so
it comes with the ECE that a calibrated model would have on as many records, and with a test.

Sources: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), for the ECE and for
temperature scaling; Broecker and Smith, Weather and Forecasting 22:651 (2007), for the test, which
draws outcomes from the predicted probabilities.

Shapes: `N` records, `K` classes or labels, `E` events (records; for labels records times labels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from kft.arguments import check_integer, check_weights
from kft.data.task import Task
from kft.evaluation.means import UNDEFINED
from kft.evaluation.metrics import Interval, interval, measure_of, resample

# The least probability of a softmax in float32, and of 1 minus a sigmoid in float32, which rounds.
SMALLEST, SMALLEST_REST = 1e-37, 1e-8
TEMPERATURES = (0.02, 50.0)  # the range that is searched


@dataclass(frozen=True, eq=False)
class Calibration:
    """How well the probabilities of a model are calibrated.

    Attributes:
        bins: DataFrame with a row per bin that holds records: `confidence`, its mean; `right`, the
            share of its records that are right; `records`, their number.
        error: The ECE, with its interval.
        expected: The ECE that a calibrated model has on average on as many records.
        p: p-value of "the model is calibrated"; NaN where records come in groups, as their
            outcomes are not independent.
        temperature: The temperature fitted on validation records; NaN if none could be.
        after: `Calibration` of the probabilities at that temperature, or None.
        note: Why there is no temperature, or "".
    """

    bins: pd.DataFrame
    error: Interval
    expected: float
    p: float
    temperature: float = math.nan
    after: Calibration | None = None
    note: str = ""

    def __str__(self) -> str:
        text = f"ECE {self.error}; a calibrated model would have {self.expected:.3f}"
        text += f" (p = {self.p:.3g})." if not math.isnan(self.p) else "."
        if self.after is None:
            return f"{text} No temperature: {self.note}." if self.note else text
        return f"{text} With temperature {self.temperature:.3f}: ECE {self.after.error}."


def judge_calibration(
    task: str,
    targets: ArrayLike,
    probabilities: ArrayLike,
    bins: int = 15,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> Calibration:
    """Compare predicted probabilities with the shares of records that are right.

    Args:
        task: A classification or multilabel `kft.data.task.Task`, or its name.
        targets: (N,) classes, or (N, K) labels. Of labels each record and label is an event, whose
            confidence is the probability of the label.
        probabilities: As the predictions of `kft.evaluation.score`.
        bins: Number of bins of equal width, from 0 to 1.
        groups: (N,) names; records of a group are not independent. None for single records.
        confidence: Confidence level of the interval, a percentile bootstrap from which the mean
            that resampling adds to the error is subtracted.
        resamples: Number of bootstrap resamples, and of simulated outcomes.
        seed: Seed of both.
        weights: (N,) numbers of at least 0, how much each record counts; None for all alike. Those
            of weight 0 are left out.

    Returns:
        `Calibration` without a temperature.

    Raises:
        ValueError: The task is a regression, or as for `kft.evaluation.score`.

    Example:
        >>> found = judge_calibration("classification", [0, 1, 1, 0], [0.1, 0.9, 0.9, 0.9])
        >>> round(found.error.value, 3), found.bins["records"].tolist()
        (0.15, [4])
    """
    check_integer("bins", bins)
    stated, right, event_groups, weight = _events(task, targets, probabilities, groups, weights)
    place = np.minimum((stated * bins).astype(int), bins - 1)  # (E,)
    present, place = np.unique(place, return_inverse=True)
    member = np.eye(len(present))[place]  # (E, bins)

    def error(counts: np.ndarray, outcome: np.ndarray) -> np.ndarray:
        each = counts * weight
        return np.abs((each * (stated - outcome)) @ member).sum(axis=1) / each.sum(axis=1)

    rng = np.random.default_rng([seed, 1])
    every = np.ones((1, len(stated)))
    value = float(error(every, right)[0])
    step = max(1, 200_000 // len(stated))
    null = np.concatenate(
        [
            error(every, rng.random((min(step, resamples - start), len(stated))) < stated)
            for start in range(0, resamples, step)
        ]
    )
    units = len(stated) if event_groups is None else len(np.unique(event_groups))
    found = UNDEFINED
    if units > 1:
        draws = np.concatenate(
            [error(c, right) for c in resample(len(stated), event_groups, resamples, seed)]
        )
        # Resampling adds noise to each bin, so that the mean of the draws is above the value.
        found = interval(value, np.maximum(draws - draws.mean() + value, 0), confidence)
    independent = units == len(stated)
    p = (1 + (null >= value - 1e-12).sum()) / (1 + resamples) if independent else math.nan
    total = weight @ member
    table = pd.DataFrame(
        {
            "confidence": (weight * stated) @ member / total,
            "right": (weight * right) @ member / total,
            "records": member.sum(axis=0).astype(int),
        }
    )
    return Calibration(table, found, float(null.mean()), float(p))


def fit_temperature(
    task: str, targets: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Find the temperature that gives the probabilities of held-out records the least log loss.

    Args:
        task: As for `judge_calibration`.
        targets: As for `judge_calibration`, of records that the model was not trained on.
        probabilities: As for `judge_calibration`.
        weights: As for `judge_calibration`.

    Returns:
        The temperature, above 1 for an over-confident model. NaN if there is no best one: every
        record is predicted right (any lower temperature is better), the predictions are worse than
        a guess (any higher one is), or they do not depend on the temperature.

    Raises:
        ValueError: As for `judge_calibration`.

    Example:
        >>> found = fit_temperature("classification", [0, 1, 1, 1], [0.01, 0.99, 0.99, 0.01])
        >>> round(found, 2)
        4.18
    """
    kind = Task.named(task, "task")
    targets, probabilities = np.asarray(targets), np.asarray(probabilities, dtype=np.float64)
    # Raises an error for what cannot be scored.
    weight = _events(task, targets, probabilities, None, weights)[3]
    if weights is not None:
        used = np.asarray(weights, dtype=np.float64) > 0
        targets, probabilities = targets[used], probabilities[used]
    if kind.target == "class":
        truth = np.eye(_two_columns(probabilities).shape[1])[targets.astype(int)].astype(bool)
    else:
        truth = targets.astype(bool).ravel()[:, None] == [False, True]

    def loss(log_temperature: float) -> float:
        scaled = with_temperature(task, probabilities, math.exp(log_temperature))
        columns = _two_columns(scaled if kind.target == "class" else scaled.ravel())
        return float(np.average(-np.log(np.maximum(columns[truth], 1e-300)), weights=weight))

    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    ends = min(loss(low), loss(high))
    if found.fun > ends - 1e-9 or min(found.x - low, high - found.x) < 1e-3:
        return math.nan
    return math.exp(float(found.x))


def with_temperature(task: str, probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """Divide the logits of probabilities by a temperature.

    Args:
        task: As for `judge_calibration`.
        probabilities: As for `judge_calibration`.
        temperature: Number above 0; the predicted class stays the same.

    Returns:
        Probabilities of the same shape, float64.

    Example:
        >>> with_temperature("classification", [0.9, 0.5], 2.0).round(3)
        array([0.75, 0.5 ])
    """
    kept = np.asarray(probabilities, dtype=np.float64)
    several = Task.named(task, "task").target == "class" and kept.ndim == 2 and kept.shape[1] > 1
    columns = kept if several else _two_columns(kept.ravel())
    least = SMALLEST if several else SMALLEST_REST
    logits = np.log(np.clip(columns, least, 1)) / temperature
    scaled = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled if several else scaled[:, 1].reshape(kept.shape)


def _two_columns(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities (N, K) from (N, K), (N,) or (N, 1)."""
    if probabilities.ndim == 2 and probabilities.shape[1] > 1:
        return probabilities
    positive = probabilities.reshape(-1)
    return np.stack([1 - positive, positive], axis=1)


def _events(
    task: str,
    targets: ArrayLike,
    probabilities: ArrayLike,
    groups: ArrayLike | None,
    weights: ArrayLike | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
    """Return confidence (E,), whether it is right (E,), groups and weights of the events."""
    kind = Task.named(task, "task", [one for one in Task if one.has_classes])
    targets, probabilities = np.asarray(targets), np.asarray(probabilities, dtype=np.float64)
    if len(targets) != len(probabilities):
        raise ValueError(
            f"targets and probabilities must have one entry per record, received {len(targets)} "
            f"and {len(probabilities)}."
        )
    measure_of(kind, targets, probabilities)  # raises an error for NaN and wrong classes
    names, each = None if groups is None else np.asarray(groups), np.ones(len(targets))
    if weights is not None:
        each = check_weights("weights", weights, len(targets))
        used = np.flatnonzero(each)
        if not len(used):
            raise ValueError("weights must be above 0 for at least one record, all of them are 0.")
        targets, probabilities, each = targets[used], probabilities[used], each[used]
        names = None if names is None else names[used]
    if kind.target == "labels":
        names = np.arange(len(targets)) if names is None else names
        events, labels = np.clip(probabilities.ravel(), 0, 1), targets.shape[1]
        return events, targets.ravel() == 1, np.repeat(names, labels), np.repeat(each, labels)
    columns = np.clip(_two_columns(probabilities), 0, 1)
    return columns.max(axis=1), columns.argmax(axis=1) == targets, names, each
