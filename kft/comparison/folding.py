"""Cross-validated comparisons: a data set for each fold, and the rows of all folds as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kft.comparison.copies import Copies
from kft.comparison.results import Row
from kft.data import Dataset, Split
from kft.evaluation.crossvalidation import CrossValidated, folds
from kft.evaluation.significance import BOUNDS, Measured


def deal(data: Dataset, k: int, repeats: int = 1) -> list[Dataset]:
    """Deal all records of a data set into k folds, and return a data set for each.

    Args:
        data: A `kft.data.Dataset`.
        k: Number of folds; at least 3 if the data have a valid split.
        repeats: How often the records are dealt anew.

    Returns:
        k data sets for each repeat. Fold i is the test split of data set i, and fold i + 1 its
        valid split if the data have one. No group is separated, and classes have the same share in
        each fold.

    Raises:
        ValueError: There are too few records or groups for so many folds, or too few folds.
    """
    has_valid = data.valid is not None and len(data.valid) > 0
    if has_valid and k < 3:
        raise ValueError(
            f"folds must be at least 3 for {data.name}, whose valid split is a fold too; received "
            f"{k!r}."
        )
    everything = _joined(list(data.splits.values()))
    stratify = np.asarray(everything.targets) if data.task == "classification" else None
    dealt = folds(len(everything), k, repeats, groups=everything.groups, stratify=stratify)
    found = []
    for places in dealt:
        for fold in range(k):
            held = (fold + 1) % k if has_valid else -1
            learned = (places != fold) & (places != held)
            train, valid, test = (
                everything.take(np.flatnonzero(chosen))
                for chosen in (learned, places == held, places == fold)
            )
            found.append(replace(data, train=train, valid=valid if has_valid else None, test=test))
    return found


def merged(rows: Sequence[Sequence[Row]], parts: Sequence[Dataset]) -> list[Row]:
    """Make one row per method of its rows in all folds.

    Args:
        rows: For each fold a row per method, in the same order.
        parts: The data sets of the folds.

    Returns:
        Rows whose scores are `kft.evaluation.crossvalidation.CrossValidated`.
    """
    ratio = float(np.mean([len(part.splits["test"]) / len(part.train) for part in parts]))
    with_copies = any(row.score_without_copies for fold in rows for row in fold)
    return [_merged(list(row), ratio, with_copies) for row in zip(*rows, strict=True)]


def joined_copies(copies: Sequence[Copies]) -> Copies:
    """Count the near copies of all folds together.

    Args:
        copies: The near copies of each fold.

    Returns:
        Copies whose records are the test records of all folds, one fold after the other.
    """
    starts = np.cumsum([0, *(one.records for one in copies)])
    tables = [
        one.table.assign(test=one.table["test"] + start)
        for one, start in zip(copies, starts[:-1], strict=True)
        if len(one)
    ]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    notes = [next((one.note for one in copies if one.note), "")]
    if tables:
        notes.append(f"These are the test records of all {len(copies)} folds, each searched alone.")
    note = " ".join(filter(None, notes))
    return Copies(table, int(starts[-1]), "test", note)


def _merged(rows: list[Row], ratio: float, with_copies: bool) -> Row:
    scored = [row for row in rows if row.scores]
    first = (scored or rows)[0]
    rest, price = {}, {}
    scores = _over_folds([row.scores for row in rows], ratio)
    if with_copies:  # a fold without copies has one score, and no price
        rest = _over_folds([row.score_without_copies or row.scores for row in rows], ratio)
        price = {
            name: CrossValidated(scores[name].seeds - rest[name].seeds, ratio) for name in scores
        }
    errors = [f"fold {i + 1}: {row.error}" for i, row in enumerate(rows) if row.error]
    return replace(
        first,
        scores=scores,
        seconds=float(np.median([row.seconds for row in scored or rows])),
        error=errors[0] if errors else None,
        predictions=[one for row in rows for one in row.predictions],
        constant_seeds=sum(row.constant_seeds for row in rows),
        score_without_copies=rest,
        price_of_copies=price,
    )


def _over_folds(
    scores: Sequence[Mapping[str, Measured]], ratio: float
) -> dict[str, CrossValidated]:
    """Combine the scores of each fold, NaN for a fold that has none."""
    return {
        name: CrossValidated(
            np.array([fold[name].value if fold else np.nan for fold in scores]),
            ratio,
            BOUNDS.get(name, (0, 1)),
        )
        for name in next(filter(None, scores), {})
    }


def _joined(parts: list[Split]) -> Split:
    """Return one split with the records of all parts."""
    columns: dict[str, Any] = {
        "inputs": [x for part in parts for x in part.inputs],
        "targets": _concatenated([part.targets for part in parts]),
    }
    if any(part.groups is not None for part in parts):
        columns["groups"] = np.concatenate([_names(part, i) for i, part in enumerate(parts)])
    if any(part.masks is not None for part in parts):
        columns["masks"] = [
            mask
            for part in parts
            for mask in part.masks or [np.ones(len(x), dtype=bool) for x in part.targets]
        ]
    if any(part.weights is not None for part in parts):
        weights = [np.ones(len(p)) if p.weights is None else p.weights for p in parts]
        columns["weights"] = np.concatenate(weights)
    tables = [part.parameters for part in parts if part.parameters is not None]
    if len(tables) == len(parts) and len({table.dtype for table in tables}) == 1:
        columns["parameters"] = np.concatenate(tables)
    return Split(**columns, input_kind=parts[0].input_kind)


def _concatenated(targets: list) -> Any:
    if isinstance(targets[0], list):
        return [row for part in targets for row in part]
    return np.concatenate(targets)


def _names(part: Split, number: int) -> np.ndarray:
    """Return the groups of a part; a record without one is a group of its own."""
    if part.groups is not None:
        return part.groups.astype(str)
    return np.array([f"part {number}, record {i}" for i in range(len(part))])
