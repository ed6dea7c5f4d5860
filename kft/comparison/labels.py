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
from kft.comparison.runs import new_model, train
from kft.comparison.scoring import scores_of, scores_without
from kft.data import Dataset, load
from kft.data.inputs import InputKind
from kft.evaluation.curves import LearningCurve
from kft.evaluation.significance import Resampled
from kft.inference import embed
from kft.messages import count_of
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
        head: Function of a data set that returns a new head; None for `kft.heads.for_data`.
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
    orders = orders_of(data, seeds, max(counts))
    make_head, options = head or heads.for_data, {"batch_size": batch_size}
    each = predictions(backbone, data, strategy, counts, orders, make_head, options, max_length)
    found = {n: scores_of(data, each[n], resamples) for n in counts}
    rest = {n: scores_without(data, each[n], near, resamples)[0] for n in counts}
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


def predictions(
    backbone: keras.Model,
    data: Dataset,
    strategy: Any,
    counts: Sequence[int],
    orders: Sequence[np.ndarray],
    head: Callable[[Dataset], keras.layers.Layer],
    options: dict[str, Any],
    max_length: int | None,
    log: Callable[[str], None] | None = None,
) -> dict[int, list]:
    """Train a strategy on the first records of each order, and predict the test split.

    If the strategy trains the head alone, the features of the backbone are computed once for all
    trainings.

    Args:
        backbone: From `kft.load`.
        data: The data set.
        strategy: A strategy.
        counts: Numbers of training records.
        orders: The order of the training records of each seed.
        head: Function of a data set that returns a new head.
        options: Further arguments of `kft.fit`, including `batch_size`.
        max_length: As for `kft.fit`.
        log: Function that is called with one line before each training, such as `print`.

    Returns:
        {number of records: the predictions of each seed}.
    """
    drawn = np.unique(np.concatenate(orders))
    data = replace(data, train=data.train.take(drawn))
    places = [np.searchsorted(drawn, order) for order in orders]
    on_features = _on_features(backbone, data, strategy, head(data), options, max_length)
    if on_features is not None:
        (backbone, data), max_length = on_features, None
    found: dict[int, list] = {n: [] for n in counts}
    for n in counts:
        for seed, order in enumerate(places):
            if log is not None:
                log(f"  {count_of(n, 'record')}, seed {seed}")
            part = replace(data, train=data.train.take(order[:n]))
            run = train(
                backbone, head(part), part, strategy, options | {"seed": seed}, max_length, []
            )
            found[n].append(run.predictions)
    return found


def _on_features(
    backbone: keras.Model,
    data: Dataset,
    strategy: Any,
    head: keras.layers.Layer,
    options: dict[str, Any],
    max_length: int | None,
) -> tuple[keras.Model, Dataset] | None:
    """Return a model of features and a data set of them, if a strategy trains the head alone.

    None if it does not, if the head does not pool as `kft.embed`, or if inputs are no sequences:
    images may need a value range of the training part.
    """
    pooling = getattr(getattr(head, "pooling", None), "kind", None)
    if pooling not in ("mean", "cls") or not data.input_kind.has_length:
        return None
    model = new_model(backbone, head)
    prepared = strategy.prepare(model)
    phases = strategy.phases(prepared)
    paths = [path for phase in phases for path in phase.trainable_layers or ("",)]
    if prepared is not model or any(path.split("/")[0] != head.name for path in paths):
        return None
    inputs = [x for part in data.splits.values() for x in part.inputs]
    rows = embed(backbone, inputs, pooling, options["batch_size"], max_length)
    ends = np.cumsum([len(part) for part in data.splits.values()])[:-1]
    parts: dict[str, Any] = {
        name: replace(part, inputs=list(features), input_kind=InputKind.ROW)
        for (name, part), features in zip(data.splits.items(), np.split(rows, ends), strict=True)
    }
    features = keras.Input(rows.shape[1:], name="features")
    same = keras.layers.Identity(name="same")(features)
    return keras.Model(features, same, name="features_alone"), replace(data, **parts)


def orders_of(data: Dataset, seeds: int, most: int) -> list[np.ndarray]:
    """Return the first records of each seed, in the order in which they are added.

    Args:
        data: A data set; of a classification the classes come in turn.
        seeds: Number of orders.
        most: Number of records.

    Returns:
        An int array (most,) for each seed.
    """
    return [_order(data, seed)[:most] for seed in range(seeds)]


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
