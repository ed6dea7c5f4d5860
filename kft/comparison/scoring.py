"""Scores of predictions on the splits of a data set, and the rows of its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import pandas as pd

from kft.arguments import check_instance
from kft.comparison.copies import Copies
from kft.comparison.results import Row
from kft.data import Dataset, Split, load
from kft.evaluation import baselines, metrics
from kft.evaluation.metrics import Scores
from kft.evaluation.significance import Resampled, resampled, without
from kft.inference import predict
from kft.params.paths import check_model


def evaluate(
    model: keras.Model,
    data: Dataset | str,
    split: Literal["train", "valid", "test"] = "test",
    batch_size: int = 32,
    resamples: int = 1000,
    max_length: int | None = None,
    encode: Callable | None = None,
    copies: bool | pd.DataFrame = True,
) -> Scores:
    """Score a model on one split of a data set, with 95% bootstrap intervals.

    If records of the split have near copies in training, the score without these records is given
    too, and the difference with its paired interval.

    Args:
        model: A `kft.Model` whose head predicts the data set's task, or any Keras model that does:
            probabilities of classes or labels, or numbers.
        data: A `kft.data.Dataset`, or a name of `kft.data.names()`.
        split: "train", "valid" or "test".
        batch_size: Largest number of records per batch.
        resamples: Number of bootstrap resamples; whole groups are drawn if the split has groups,
            and whole chains if residues are scored.
        max_length: Number of residues to keep of each protein; None keeps all. Residues that are
            cut are not scored.
        encode: As for `kft.predict`.
        copies: True finds the records of the split with near copies in train and valid by
            `kft.exploration.near_copies` (once for a data set); a table of its form, whose column
            `test` counts the records of the split, names them; False leaves this out.

    Returns:
        {metric name: interval}, the headline metric of the task first. Only residues that the
        split's `masks` mark are scored, and records count by the split's `weights`. If there are
        near copies, `score_without_copies` and `price_of_copies` have the scores on the other
        records and the differences, and `print` shows a second line.

    Raises:
        ValueError: The split is unknown or absent, or the head predicts another task or another
            number of classes.

    Example:
        `kft.evaluate(model, kft.data.load("amp"))["AUROC"].value`
    """
    check_model(model)
    data = load(data) if isinstance(data, str) else data
    check_instance("data", data, Dataset, "a kft.data.Dataset or the name of one")
    if split not in data.splits:
        raise ValueError(
            f"split must be one of {', '.join(data.splits)} for {data.name}, received {split!r}."
        )
    _check_head(model, data)
    records = data.splits[split]
    found = Copies.of(data, split, copies)
    predictions: Any = predict(model, records.inputs, batch_size, max_length, encode=encode)
    scored = _scored(data, records, [predictions])
    counts: dict[str, Any] = {"groups": scored.groups, "weights": scored.weights}
    scores = metrics.score(
        data.task, scored.targets, scored.predictions[0], resamples=resamples, **counts
    )
    if not len(found):
        return Scores(scores, remark=found.note)
    kept = found.kept[scored.owners]
    both = without(data.task, scored.targets, scored.predictions, kept, resamples, **counts)
    rest, price = ({name: one.interval() for name, one in part.items()} for part in both)
    name = scores.headline
    remark = f"{name} {rest[name]} without {found}; the difference is {price[name]}. {found.note}"
    return Scores(scores, rest, price, remark.strip())


def _check_head(model: keras.Model, data: Dataset) -> None:
    """Raise an error if the model's head does not predict the targets of the data set."""
    head = getattr(model, "head", None)
    task, outputs = getattr(head, "task", None), getattr(head, "units", None)
    if task is None:
        return  # a head of the user: errors are raised when its predictions are scored
    wanted = data.task.outputs(data.train.targets, data.classes)
    if task == data.task and outputs in (None, wanted):
        return
    raise ValueError(
        f"model.head must predict {data.name}, {_described(data.task, wanted)}, received "
        f"{type(head).__name__}, which predicts {_described(task, outputs)}: "
        f"use a model with the head kft.heads.for_data(data)."
    )


def _described(task: Any, outputs: int | None) -> str:
    return task if outputs in (None, 1) else f"{task} with {outputs} {task.outputs_are}"


def _marked_residues(records: Split, predictions: Any) -> tuple:
    """Return targets, predictions and chain of each marked residue that was not cut."""
    lengths = [len(rows) for rows in predictions]
    masks = records.masks or [np.ones(n, dtype=bool) for n in lengths]
    kept = [mask[:n] for mask, n in zip(masks, lengths, strict=True)]
    targets = [row[:n][mask] for row, n, mask in zip(records.targets, lengths, kept, strict=True)]
    scored = [rows[mask] for rows, mask in zip(predictions, kept, strict=True)]
    chains = np.repeat(np.arange(len(lengths)), [mask.sum() for mask in kept])
    return np.concatenate(targets), np.concatenate(scored), chains


def baseline_rows(
    data: Dataset,
    resamples: int = 2000,
    log: Callable[[str], None] | None = None,
    max_length: int | None = None,
    copies: Copies | None = None,
) -> list[Row]:
    """Fit the baselines of a data set and return their rows, see `kft.baselines`.

    Args:
        data: A `kft.data.Dataset` with a test split.
        resamples: Number of resamples of the test records.
        log: Function that is called with one line before each fit, such as `print`.
        max_length: Number of residues of each chain that are scored, as for strategies; None for
            all.
        copies: Test records with near copies in training, or None.

    Returns:
        A row per baseline; the row of a baseline that fails has its error.
    """
    rows, fits = [], baselines.suited(data)
    for number, (name, fit) in enumerate(fits.items(), start=1):
        if log is not None:
            log(f"baseline {number}/{len(fits)}: {name}")
        try:
            fitted = fit(data)
            predictions = data.as_measured(fitted.predictions)
            if data.task.per_residue:
                predictions = [row[:max_length] for row in predictions]
            scores = scores_of(data, [predictions], resamples)
            rest, price = scores_without(data, [predictions], copies, resamples)
        except Exception as error:
            rows.append(Row(name, "baseline", error=brief(error)))
            continue
        row = Row(
            fitted.name,
            "baseline",
            scores,
            fitted.parameters,
            fitted.parameters,
            fitted.seconds,
            given=fitted.given,
            predictions=[predictions],
            score_without_copies=rest,
            price_of_copies=price,
        )
        rows.append(row)
    return rows


def scores_of(data: Dataset, predictions: Sequence, resamples: int = 2000) -> dict[str, Resampled]:
    """Score the predictions of one method for the test split, see `significance.resampled`.

    Args:
        data: A `kft.data.Dataset`.
        predictions: List of what `kft.predict` returns, one item per seed.
        resamples: As for `resampled`.

    Returns:
        {metric name: `kft.evaluation.significance.Resampled`}.
    """
    scored = _scored(data, data.splits["test"], predictions)
    return resampled(
        data.task, scored.targets, scored.predictions, resamples,
        groups=scored.groups, weights=scored.weights,
    )  # fmt: skip


def scores_without(
    data: Dataset, predictions: Sequence, copies: Copies | None, resamples: int = 2000
) -> tuple[dict[str, Resampled], dict[str, Resampled]]:
    """Score the predictions of one method without test records that have near copies in training.

    Args:
        data: As for `scores_of`.
        predictions: As for `scores_of`.
        copies: The records with near copies, or None.
        resamples: As for `scores_of`.

    Returns:
        The scores, and those on all records minus these, see `significance.without`; empty if
        there are no copies.
    """
    if copies is None or not len(copies):
        return {}, {}
    scored = _scored(data, data.splits["test"], predictions)
    return without(
        data.task, scored.targets, scored.predictions, copies.kept[scored.owners], resamples,
        groups=scored.groups, weights=scored.weights,
    )  # fmt: skip


def constant_seeds(data: Dataset, predictions: Sequence) -> int:
    """Return how many seeds predict (nearly) the same for every test record.

    Args:
        data: As for `scores_of`.
        predictions: As for `scores_of`.

    Returns:
        Number of seeds, see `kft.evaluation.hardly_varies`.
    """
    scored = _scored(data, data.splits["test"], predictions)
    return sum(metrics.hardly_varies(scored.targets, one) for one in scored.predictions)


class _Scored(NamedTuple):
    """What is scored of a split: records, or marked residues."""

    targets: Any
    predictions: Sequence[np.ndarray]  # of each seed
    groups: np.ndarray | None
    weights: np.ndarray | None
    owners: np.ndarray  # the position of the record of each


def _scored(data: Dataset, split: Split, predictions: Sequence) -> _Scored:
    if not data.task.per_residue:
        owners, targets = np.arange(len(split)), data.as_measured(split.targets)
        return _Scored(targets, predictions, split.groups, split.weights, owners)
    parts = [_marked_residues(split, seed_part) for seed_part in predictions]
    targets, _, owners = parts[0]
    groups = owners if split.groups is None else split.groups[owners]
    weights = None if split.weights is None else split.weights[owners]
    return _Scored(targets, [part[1] for part in parts], groups, weights, owners)


def brief(error: Exception) -> str:
    """Return the type of an error and its message, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message if len(message) < 200 else message[:197] + '...'}"
