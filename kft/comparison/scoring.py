"""Scores of predictions on the splits of a data set, and the rows of its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np

from kft.arguments import check_instance
from kft.comparison.results import Row
from kft.data import Dataset, Split, load
from kft.evaluation import baselines, metrics
from kft.evaluation.metrics import Scores
from kft.evaluation.significance import Resampled, resampled
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
) -> Scores:
    """Score a model on one split of a data set, with 95% bootstrap intervals.

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

    Returns:
        {metric name: interval}, the headline metric of the task first. Only residues that the
        split's `masks` mark are scored, and records count by the split's `weights`.

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
    predictions: Any = predict(model, records.inputs, batch_size, max_length, encode=encode)
    return score_split(data, records, predictions, resamples)


def score_split(data: Dataset, records: Split, predictions: Any, resamples: int = 1000) -> Scores:
    """Score predictions for a split, with 95% bootstrap intervals.

    Args:
        data: A `kft.data.Dataset`.
        records: One of its splits.
        predictions: What `kft.predict` returns for the inputs of the split.
        resamples: As for `evaluate`.

    Returns:
        As `evaluate`.
    """
    targets, groups, weights = records.targets, records.groups, records.weights
    if data.task.per_residue:
        targets, predictions, groups, weights = _marked_residues(records, predictions)
    return metrics.score(
        data.task, targets, predictions, groups=groups, resamples=resamples, weights=weights
    )


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
    """Return targets, predictions, group and weight of each marked residue that was not cut."""
    lengths = [len(rows) for rows in predictions]
    masks = records.masks or [np.ones(n, dtype=bool) for n in lengths]
    kept = [mask[:n] for mask, n in zip(masks, lengths, strict=True)]
    targets = [row[:n][mask] for row, n, mask in zip(records.targets, lengths, kept, strict=True)]
    scored = [rows[mask] for rows, mask in zip(predictions, kept, strict=True)]
    chains = np.arange(len(lengths)) if records.groups is None else records.groups
    counts = [mask.sum() for mask in kept]
    weights = None if records.weights is None else np.repeat(records.weights, counts)
    return np.concatenate(targets), np.concatenate(scored), np.repeat(chains, counts), weights


def baseline_rows(
    data: Dataset,
    resamples: int = 2000,
    log: Callable[[str], None] | None = None,
    max_length: int | None = None,
) -> list[Row]:
    """Fit the baselines of a data set and return their rows, see `kft.baselines`.

    Args:
        data: A `kft.data.Dataset` with a test split.
        resamples: Number of resamples of the test records.
        log: Function that is called with one line before each fit, such as `print`.
        max_length: Number of residues of each chain that are scored, as for strategies; None for
            all.

    Returns:
        A row per baseline; the row of a baseline that fails has its error.
    """
    rows, fits = [], baselines.suited(data)
    for number, (name, fit) in enumerate(fits.items(), start=1):
        if log is not None:
            log(f"baseline {number}/{len(fits)}: {name}")
        try:
            fitted = fit(data)
            predictions = fitted.predictions
            if data.task.per_residue:
                predictions = [row[:max_length] for row in predictions]
            scores = scores_of(data, [predictions], resamples)
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
    targets, predictions, groups, weights = _scored(data, predictions)
    return resampled(data.task, targets, predictions, resamples, groups=groups, weights=weights)


def constant_seeds(data: Dataset, predictions: Sequence) -> int:
    """Return how many seeds predict (nearly) the same for every test record.

    Args:
        data: As for `scores_of`.
        predictions: As for `scores_of`.

    Returns:
        Number of seeds, see `kft.evaluation.hardly_varies`.
    """
    targets, predictions, *_ = _scored(data, predictions)
    return sum(metrics.hardly_varies(targets, one) for one in predictions)


def _scored(data: Dataset, predictions: Sequence) -> tuple:
    """Return targets, predictions of each seed, groups and weights of scored test records."""
    test = data.splits["test"]
    if not data.task.per_residue:
        return test.targets, predictions, test.groups, test.weights
    parts = [_marked_residues(test, seed_part) for seed_part in predictions]
    targets, _, groups, weights = parts[0]
    return targets, [seed_part[1] for seed_part in parts], groups, weights


def brief(error: Exception) -> str:
    """Return the type of an error and its message, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message if len(message) < 200 else message[:197] + '...'}"
