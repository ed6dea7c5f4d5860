"""How many labels are needed: the learning curve of a strategy on a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd

from kft.arguments import check_instance, check_integer
from kft.comparison.copies import Copies
from kft.comparison.runs import train
from kft.comparison.scoring import scores_of, scores_without
from kft.data import Dataset, load
from kft.evaluation.curves import LearningCurve
from kft.evaluation.significance import Resampled
from kft.models import heads
from kft.params.paths import check_model
from kft.training import strategies


def learning_curve(
    backbone: keras.Model,
    data: Dataset | str,
    strategy: str | Any = "linear_probe",
    counts: Sequence[int] | None = None,
    seeds: int = 3,
    *,
    head: Callable[[Dataset], keras.layers.Layer] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    resamples: int = 1000,
    copies: bool | pd.DataFrame = True,
) -> LearningCurve:
    """Train a strategy on more and more records, and score each training on the test split.

    If test records have near copies in the whole train or valid split, so is the score without
    them, on the same test records for every number of training records.

    Args:
        backbone: From `kft.load`; each training starts from a copy of it.
        data: A `kft.data.Dataset` with a test split, or a name of `kft.data.names()`.
        strategy: As for `kft.fit`.
        counts: Numbers of training records; None for a sixteenth, an eighth, a quarter, a half and
            all of them. The valid split stays as it is.
        seeds: Number of trainings for each; every seed draws other records, a larger number holds
            the smaller ones of its seed.
        head: Function of `data` that returns a new head; None for `kft.heads.for_data`.
        batch_size: Number of records per batch.
        max_length: Number of residues to keep of each sequence; None keeps all.
        resamples: Number of resamples of the test records, for the intervals.
        copies: As for `kft.evaluate`.

    Returns:
        `kft.evaluation.curves.LearningCurve`; its `needed(score)` tells how many records a score
        needs. `kft.plots.plot_learning_curve({"name": curve.scores}, curve.metric)` draws it,
        and `curve.without_copies` is the curve without near copies, if there are any.

    Raises:
        ValueError: A number is larger than the train split, there is no test split, or `copies` is
            not a table of near copies of test records.

    Example:
        `learning_curve(kft.load("kft_esm2_tiny"), "amp").needed(0.95)`
    """
    check_model(backbone, "backbone")
    data = load(data) if isinstance(data, str) else data
    check_instance("data", data, Dataset, "a kft.data.Dataset or the name of one")
    if data.test is None:
        raise ValueError(f"data must have a test split, {data.name} has none: split it first.")
    everything = len(data.train)
    if counts is None:
        counts = sorted({max(2, round(everything / 2**i)) for i in range(5)})
    for n in counts:
        check_integer("counts", n, 2, everything)
    check_integer("seeds", seeds)
    if isinstance(strategy, str):
        strategy = strategies.get(strategy)
    near = Copies.of(data, "test", copies)
    found, rest = {}, {}
    for n in counts:
        predictions = []
        for seed in range(seeds):
            part = replace(data, train=data.train.take(_order(data, seed)[:n]))
            options = {"batch_size": batch_size, "seed": seed}
            new_head = (head or heads.for_data)(data)
            run = train(backbone, new_head, part, strategy, options, max_length, [])
            predictions.append(run.predictions)
        found[n] = scores_of(data, predictions, resamples)
        rest[n] = scores_without(data, predictions, near, resamples)[0]
    remark = near.note
    if len(near):
        remark = f"Without copies is without {near}. {near.note}".strip()
    without = _curve(rest) if len(near) else None
    return replace(_curve(found), without_copies=without, remark=remark)


def _curve(scores: Mapping[int, Mapping[str, Resampled]]) -> LearningCurve:
    """Return the curve of the headline metric."""
    metric = next(iter(next(iter(scores.values()))))
    return LearningCurve(
        metric,
        {n: one[metric].interval() for n, one in scores.items()},
        {n: one[metric].seeds for n, one in scores.items()},
    )


def _order(data: Dataset, seed: int) -> np.ndarray:
    """Return the order in which training records are added: at random, classes in turn."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data.train))
    if data.task != "classification":
        return order
    classes = np.asarray(data.train.targets)[order]
    due = np.empty(len(order))
    for one in np.unique(classes):  # record i of a class with n is due at (i + 1 / 2) / n
        there = np.flatnonzero(classes == one)
        due[there] = (np.arange(len(there)) + 0.5) / len(there)
    return order[np.argsort(due, kind="stable")]
