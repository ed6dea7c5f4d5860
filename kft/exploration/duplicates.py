"""Checks of equal records: within the data, across splits, and with different targets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from kft.data.sequences import compared
from kft.exploration.findings import Finding, error, info, warning
from kft.exploration.pairs import count_by_splits, equal_pairs, splits_in_words
from kft.exploration.records import Kind, Records

MANY = 0.05  # share of repeated records from which they are a warning


def equal_records(records: Records) -> Iterator[Finding]:
    """Find records with the same inputs, in the same and in several splits, and their targets."""
    what = _noun(records)
    keys = keys_of(records)
    if keys is None:
        return
    codes = pd.factorize(keys)[0]
    sizes = np.bincount(codes[codes >= 0], minlength=1)
    repeated = (codes >= 0) & (sizes[codes] > 1)
    later = repeated & pd.Series(codes).duplicated().to_numpy()
    if later.any():
        share = float(later.mean())
        make = warning if share >= MANY else info
        yield make(
            f"duplicate-{what}s", records.name,
            {"records": int(later.sum()), "share": share, "largest group": int(sizes.max())},
            f"{int(later.sum()):,} records repeat the inputs of an earlier one.",
            "Keep one of each, or keep all copies in one split.",
            np.flatnonzero(later),
        )  # fmt: skip
    yield from _conflicts(records, codes, repeated, what)
    if records.parts is not None:
        parts = pd.factorize(records.parts)[0]
        lowest, highest = _extremes(codes, parts, len(sizes))
        across = repeated & (lowest != highest)[codes]
        if across.any():
            counts = pd.Series(records.parts[across]).value_counts()
            between = count_by_splits(records.parts, *equal_pairs(codes, records.parts, across))
            yield error(
                f"{what}s-across-splits", records.name,
                {"records": int(across.sum()), "by split": counts.to_dict(),
                 "records by pair of splits": between},
                f"The same {what} is in several splits ({splits_in_words(between)}), so the "
                "score on one of them is too high.",
                "Split again with equal ones in one split.",
                np.flatnonzero(across),
            )  # fmt: skip


def _conflicts(
    records: Records, codes: np.ndarray, repeated: np.ndarray, what: str
) -> Iterator[Finding]:
    """Find equal inputs with different targets."""
    if records.target is None or not repeated.any():
        return
    goal = pd.factorize(records.target)[0]
    used = (goal >= 0) & repeated
    lowest, highest = _extremes(np.where(used, codes, -1), goal, int(codes.max()) + 1)
    conflicting = used & (lowest < highest)[codes]
    if conflicting.any():
        make = error if records.has_classes else warning
        yield make(
            "conflicting-labels", records.name,
            {"records": int(conflicting.sum()), "groups": len(set(codes[conflicting].tolist()))},
            f"Equal {what}s have different targets, so at most one of them is right.",
            "Find the right label or leave them out; of repeated measurements, take the mean.",
            np.flatnonzero(conflicting),
        )  # fmt: skip


def _extremes(codes: np.ndarray, values: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest value in each group of codes; -1 is in no group."""
    lowest, highest = np.full(groups, values.max(initial=0) + 1), np.full(groups, -1)
    used = codes >= 0
    np.minimum.at(lowest, codes[used], values[used])
    np.maximum.at(highest, codes[used], values[used])
    return lowest, highest


def _noun(records: Records) -> str:
    if records.of(Kind.SEQUENCE):
        return "sequence"
    return "image" if records.of(Kind.IMAGE) else "row"


def keys_of(records: Records) -> np.ndarray | pd.Series | None:
    """Return a key per record that is equal for equal inputs; None if there are no inputs.

    Args:
        records: The records. Of sequences and images these alone are compared, sequences in their
            normal form without gaps; of tables all columns of the inputs.

    Returns:
        The keys (N,). Images that cannot be read have None.
    """
    sequences, images = records.of(Kind.SEQUENCE), records.of(Kind.IMAGE)
    if sequences:
        columns = [records.inputs[name].map(compared, na_action="ignore") for name in sequences]
        return columns[0] if len(columns) == 1 else pd.Series(list(zip(*columns, strict=True)))
    if images:
        return pd.Series([look.digest for look in records.looks], dtype=object)
    if not len(records.inputs.columns) or records.inputs.shape[1] == 1:
        return None  # equal numbers in one column are no copies
    return pd.util.hash_pandas_object(records.inputs, index=False).to_numpy()


CHECKS = [equal_records]
