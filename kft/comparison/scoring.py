"""Scores of predictions on the splits of a data set, and the rows of its baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kft.comparison.copies import Copies
from kft.comparison.results import Row
from kft.data import Dataset, Split
from kft.evaluation import baselines, metrics
from kft.evaluation.metrics import Scored, Scores
from kft.evaluation.significance import Resampled, resampled, without
from kft.evaluation.structures import UNKNOWN, as_chains


def scored_part(data: Dataset, split: str, predictions: Any) -> Scored:
    """Return what is scored: the records of a split, or its marked residues that were not cut.

    Of pairs of residues it is the chains, each with its marked pairs.

    Args:
        data: A `kft.data.Dataset`.
        split: Name of a split that it has.
        predictions: What `kft.predict` returns for the split.
    """
    records = data.splits[split]
    if data.task.per_residue:
        return _marked_residues(records, predictions)
    if data.task.per_pair:
        return _marked_pairs(records, predictions)
    owners = np.arange(len(records))
    targets = data.as_measured(records.targets)
    return Scored(np.asarray(targets), predictions, records.groups, records.weights, owners)


def score_split(data: Dataset, split: str, predictions: Any, resamples: int = 1000) -> Scores:
    """Score predictions for a split, with 95% bootstrap intervals.

    Args:
        data: As for `scored_part`.
        split: As for `scored_part`.
        predictions: As for `scored_part`.
        resamples: Number of bootstrap resamples.

    Returns:
        {metric name: interval}, the headline metric of the task first.
    """
    scored = scored_part(data, split, predictions)
    return metrics.score(
        data.task,
        scored.targets,
        scored.predictions,
        groups=scored.groups,
        weights=scored.weights,
        resamples=resamples,
    )


def _marked_residues(records: Split, predictions: Any) -> Scored:
    lengths = [len(rows) for rows in predictions]
    masks = records.masks or [np.ones(n, dtype=bool) for n in lengths]
    kept = [mask[:n] for mask, n in zip(masks, lengths, strict=True)]
    targets = [row[:n][mask] for row, n, mask in zip(records.targets, lengths, kept, strict=True)]
    scored = [rows[mask] for rows, mask in zip(predictions, kept, strict=True)]
    owners = np.repeat(np.arange(len(lengths)), [mask.sum() for mask in kept])
    groups = owners if records.groups is None else records.groups[owners]
    weights = None if records.weights is None else records.weights[owners]
    return Scored(np.concatenate(targets), np.concatenate(scored), groups, weights, owners)


def _marked_pairs(records: Split, predictions: Any) -> Scored:
    """Return the targets (L, L) of each chain, `UNKNOWN` where a pair is not scored."""
    parts = [(slice(len(rows)),) * 2 for rows in predictions]
    marked = zip(records.targets, records.masks or (), parts, strict=True)
    targets = as_chains(np.where(mask[at], row[at], UNKNOWN) for row, mask, at in marked)
    owners = np.arange(len(targets))
    return Scored(targets, as_chains(predictions), records.groups, records.weights, owners)


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
            if data.task.level in ("residue", "pair"):
                cut = (slice(max_length),) * (2 if data.task.per_pair else 1)
                predictions = [row[cut] for row in predictions]
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
    parts = [scored_part(data, "test", one) for one in predictions]
    targets, _, groups, weights, _ = parts[0]
    each = [part.predictions for part in parts]
    return resampled(data.task, targets, each, resamples, groups=groups, weights=weights)


def scores_without(
    data: Dataset, predictions: Sequence, copies: Copies | None, resamples: int = 2000
) -> tuple[dict[str, Resampled], dict[str, Resampled]]:
    """Score the predictions of one method without records that have near copies in training.

    Args:
        data: As for `scores_of`.
        predictions: As for `scores_of`, for the split of the copies.
        copies: The records with near copies, or None.
        resamples: As for `scores_of`.

    Returns:
        The scores, and those on all records minus these, see `significance.without`; empty if
        there are no copies.
    """
    if copies is None or not len(copies):
        return {}, {}
    parts = [scored_part(data, copies.split, one) for one in predictions]
    targets, _, groups, weights, owners = parts[0]
    each = [part.predictions for part in parts]
    kept = copies.kept[owners]
    return without(data.task, targets, each, kept, resamples, groups=groups, weights=weights)


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
