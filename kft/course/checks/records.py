"""Whether records were prepared right: no code for missing left, no leak, a scaler of training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from kft.course.wrong import Wrong
from kft.messages import count_of, listed


def no_overlap(
    train: Any, test: Any, line: int | None = None, columns: Iterable[str] | None = None
) -> None:
    """Check that no test record is in training.

    Args:
        train: Training records: a table, an array with a record in each row, or a list.
        test: Test records, of the same kind.
        line: Line of the submission to blame.
        columns: Columns of a table that make a record; None for all.

    Raises:
        Wrong: A record is in both.

    Example:
        >>> no_overlap(["MKT", "GIG"], ["MKV"])
        >>> no_overlap(["MKT", "GIG"], ["GIG"])
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: 1 test record is in training, too: the score would be that of \
what the model has seen.
    """
    seen = set(_records(train, columns))
    both = sum(record in seen for record in _records(test, columns))
    if both:
        verb = "is" if both == 1 else "are"
        raise Wrong(
            f"{count_of(both, 'test record')} {verb} in training, too: the score would be that of "
            f"what the model has seen.",
            line,
        )


def _records(records: Any, columns: Iterable[str] | None) -> list[Any]:
    """Return records as values that can be looked up."""
    if isinstance(records, pd.DataFrame):
        table = records if columns is None else records[list(columns)]
        return list(map(tuple, table.astype(object).where(table.notna(), None).to_numpy()))
    if isinstance(records, np.ndarray) and records.ndim > 1:
        return [np.ascontiguousarray(row).tobytes() for row in records]
    return list(records)


def no_value(table: Any, value: float, line: int | None = None) -> None:
    """Check that a number that stands for "missing" is not left.

    Args:
        table: A table, or an array.
        value: The number, such as -999.
        line: Line of the submission to blame.

    Raises:
        Wrong: It is left.

    Example:
        >>> no_value(pd.DataFrame({"ph": [7.0, np.nan]}), -999)
        >>> no_value(pd.DataFrame({"ph": [7.0, -999.0]}), -999)
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: -999 is still in ph (1 time): it stands for "missing", and is no \
measurement.
    """
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(np.asarray(table))
    counts = frame.isin([value, str(value)]).sum()
    left = counts[counts > 0]
    if len(left):
        raise Wrong(
            f"{value:g} is still in {listed(left.index)} ({count_of(int(left.sum()), 'time')}): it "
            f'stands for "missing", and is no measurement.',
            line,
        )


def scaler_saw_only(
    scaler: Any,
    train: Any,
    line: int | None = None,
    everything: Any = None,
    tolerance: float = 1e-6,
) -> None:
    """Check that a scaler was fitted on training records alone.

    Args:
        scaler: A `StandardScaler` of scikit-learn that was fitted, or a pair (mean, scale).
        train: What it should have seen: array (N, D); NaN is left out.
        line: Line of the submission to blame.
        everything: All records, to name the usual mistake; None to leave that out.
        tolerance: Largest difference allowed, as a share of the scale.

    Raises:
        Wrong: It was not fitted, or on something else.

    Example:
        >>> scaler_saw_only((2.0, 1.0), np.array([[1.0], [3.0]]))
        >>> scaler_saw_only((2.5, 1.5), np.array([[1.0], [3.0]]), everything=np.array([[1], [4]]))
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: the scaler was fitted on all records: fit it on the training \
records alone, or it knows the test records.
    """
    try:
        pair = (scaler.mean_, scaler.scale_) if not isinstance(scaler, tuple | list) else scaler
        mean, scale = (np.asarray(x, "float64") for x in pair)
    except (AttributeError, TypeError, ValueError):
        raise Wrong("the scaler was not fitted: it has no mean_ and scale_.", line) from None
    if _fits(mean, scale, train, tolerance):
        return
    if everything is not None and _fits(mean, scale, everything, tolerance):
        raise Wrong(
            "the scaler was fitted on all records: fit it on the training records alone, or it "
            "knows the test records.",
            line,
        )
    raise Wrong("the scaler's mean and scale are not those of the prepared training records.", line)


def _fits(mean: np.ndarray, scale: np.ndarray, records: Any, tolerance: float) -> bool:
    """Return whether mean and scale are those of records."""
    values = np.asarray(records, "float64")
    expected, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    spread = np.where(spread > 0, spread, 1)
    if np.shape(np.broadcast_to(mean, expected.shape)) != expected.shape:
        return False
    close = np.abs(mean - expected) <= tolerance * spread
    return bool(close.all() and (np.abs(scale - spread) <= tolerance * spread).all())
