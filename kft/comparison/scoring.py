"""Scores of predictions on the splits of a data set, and the rows of its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kft.comparison.results import Row
from kft.data import Dataset, Split
from kft.evaluation import baselines, metrics
from kft.evaluation.metrics import Scored, Scores
from kft.evaluation.significance import Resampled, resampled


def scored_part(data: Dataset, split: str, predictions: Any) -> Scored:
    """Return what is scored: the records of a split, or its marked residues that were not cut.

    Args:
        data: A `kft.data.Dataset`.
        split: Name of a split that it has.
        predictions: What `kft.predict` returns for the split.
    """
    return _scored(data, data.splits[split], predictions)


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
    scored = _scored(data, records, predictions)
    return metrics.score(
        data.task,
        *scored[:2],
        groups=scored.groups,
        resamples=resamples,
        weights=scored.weights,
    )


def _scored(data: Dataset, records: Split, predictions: Any) -> Scored:
    if data.task.per_residue:
        return _marked_residues(records, predictions)
    return Scored(np.asarray(records.targets), predictions, records.groups, records.weights)


def _marked_residues(records: Split, predictions: Any) -> Scored:
    lengths = [len(rows) for rows in predictions]
    masks = records.masks or [np.ones(n, dtype=bool) for n in lengths]
    kept = [mask[:n] for mask, n in zip(masks, lengths, strict=True)]
    targets = [row[:n][mask] for row, n, mask in zip(records.targets, lengths, kept, strict=True)]
    scored = [rows[mask] for rows, mask in zip(predictions, kept, strict=True)]
    chains = np.arange(len(lengths)) if records.groups is None else records.groups
    counts = [mask.sum() for mask in kept]
    weights = None if records.weights is None else np.repeat(records.weights, counts)
    return Scored(
        np.concatenate(targets), np.concatenate(scored), np.repeat(chains, counts), weights
    )


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
    parts = [scored_part(data, "test", one) for one in predictions]
    targets, _, groups, weights = parts[0]
    each = [part.predictions for part in parts]
    return resampled(data.task, targets, each, resamples, groups=groups, weights=weights)


def constant_seeds(data: Dataset, predictions: Sequence) -> int:
    """Return how many seeds predict (nearly) the same for every test record.

    Args:
        data: As for `scores_of`.
        predictions: As for `scores_of`.

    Returns:
        Number of seeds, see `kft.evaluation.hardly_varies`.
    """
    parts = [scored_part(data, "test", one) for one in predictions]
    return sum(metrics.hardly_varies(*part[:2]) for part in parts)


def brief(error: Exception) -> str:
    """Return the type of an error and its message, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message if len(message) < 200 else message[:197] + '...'}"
