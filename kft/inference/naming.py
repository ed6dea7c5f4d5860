"""Predictions as columns with names: those of classes, labels and targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kft.data.task import ANGLES
from kft.evaluation.structures import directions
from kft.messages import harmless_cell

LIKELY = 0.5  # probability from which a label is named


def with_predictions(table: pd.DataFrame, model: Any, rows: Any) -> pd.DataFrame:
    """Add columns of predictions to a table.

    Args:
        table: One row per record.
        model: The model; a `kft.Model` may know the names of classes and target.
        rows: Predictions (records, K), NaN for records without; or for residues a list of arrays
            (residues, K), empty for records without.

    Returns:
        A new table. For a target "y": numbers in `predicted_y`, or if there are several, in
        `predicted_y_0` and so on; of classes the most likely one in `predicted_y`, and the
        probability of each in `probability_NAME`; of labels the names of those that are likely,
        separated by semicolons, and their probabilities. Without a name of the target the first
        column is `prediction`. Of torsions angles in degrees, in `predicted_phi`, `predicted_psi`
        and `predicted_omega`. Cells of residues hold a letter, or words and numbers separated by
        spaces, for each residue.

    Raises:
        ValueError: The table has a column of such a name already.
    """
    new = dict(_columns(model, rows))
    if taken := [name for name in new if name in table.columns]:
        raise ValueError(
            f"the inputs have a column {taken[0]!r} already, which the predictions are to have: "
            "rename it or leave it out."
        )
    return table.assign(**new) if table.columns.is_unique else _beside(table, new)


def with_harmless_words(table: pd.DataFrame, model: Any, kept: int) -> pd.DataFrame:
    """Escape names of classes and of records of a FASTA file, which could begin a formula.

    Args:
        table: Of `with_predictions`.
        model: The model.
        kept: Number of columns that are left as they are: those of the user's own table.

    Returns:
        The table, for a text file; numbers and the letters of residues are as they were.
    """
    task = getattr(getattr(model, "head", None), "task", None)
    columns = list(range(kept, table.shape[1]))
    if task is not None and task.per_residue:
        columns = [k for k in columns if table.columns[k] in ("id", "description")]
    words = [k for k in columns if not pd.api.types.is_numeric_dtype(table.iloc[:, k])]
    escaped = table.copy()
    for k in words:
        escaped.isetitem(k, [x if pd.isna(x) else harmless_cell(x) for x in table.iloc[:, k]])
    return escaped


def _beside(table: pd.DataFrame, new: dict[str, Any]) -> pd.DataFrame:
    return pd.concat([table, pd.DataFrame(new, index=table.index)], axis=1)


def _columns(model: Any, rows: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, values) of each column."""
    task = getattr(getattr(model, "head", None), "task", None)
    target = getattr(model, "target_name", None)
    first = f"predicted_{target}" if target else "prediction"
    outputs = rows[0].shape[-1] if isinstance(rows, list) else int(np.prod(rows.shape[1:]))
    names = getattr(model, "classes", None) or [str(k) for k in range(outputs)]
    per_residue = isinstance(rows, list)
    by_record = rows if per_residue else rows.reshape(len(rows), outputs)
    if task is not None and task.target == "angles":
        degrees = [np.rad2deg(directions(row)).round(1) for row in rows]
        for k, angle in enumerate(ANGLES):
            yield f"predicted_{angle}", [_numbers(row[:, k]) for row in degrees]
        return
    if task is None or not task.has_classes:
        columns = [first] if outputs == 1 else [f"{first}_{k}" for k in range(outputs)]
    else:
        name_of = _labels if task.target == "labels" else _states if per_residue else _class
        yield first, [name_of(row, names) for row in by_record]
        columns = [f"probability_{name}" for name in names]
    margins = getattr(model, "margins", None)  # see `kft.finetuning`
    for k, name in enumerate(columns):
        yield name, [_numbers(row[:, k]) for row in rows] if per_residue else by_record[:, k]
        if margins is not None:
            yield f"{name}_low", by_record[:, k] - margins[k]
            yield f"{name}_high", by_record[:, k] + margins[k]


def _class(row: np.ndarray, names: Sequence[str]) -> str | None:
    return None if np.isnan(row).any() else names[int(row.argmax())]


def _labels(row: np.ndarray, names: Sequence[str]) -> str | None:
    if np.isnan(row).any():
        return None
    return ";".join(name for name, x in zip(names, row, strict=True) if x >= LIKELY)


def _states(row: np.ndarray, names: Sequence[str]) -> str:
    between = "" if all(len(name) == 1 for name in names) else " "
    return between.join(names[k] for k in row.argmax(axis=-1))


def _numbers(values: np.ndarray) -> str:
    return " ".join(map(str, values))
