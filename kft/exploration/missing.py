"""Checks of missing values: how many, where, together with which, and whether they tell the target.

Missing are NaN and empty cells, words such as NA, and suspected sentinels: numbers found by their
shape (`profiles.suspected_sentinels`), which are reported and never changed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import chi2

from kft.exploration.findings import Finding, error, info, warning
from kft.exploration.records import Kind, Records
from kft.exploration.screens import auroc
from kft.messages import listed

MANY = 0.05  # share of missing values from which a finding is a warning
DIFFERENCE = 0.1  # between the shares of two classes, from which missing values tell the target
SIGNIFICANT = 0.01
FEW_LEVELS = 20  # of a column that may explain which values are missing


def missing_values(records: Records) -> Iterator[Finding]:
    """Report columns with NaN or empty cells, and columns that have nothing else."""
    n, empty = len(records), []
    for name, kind in records.kinds.items():
        if kind is Kind.IMAGE:
            continue
        absent = records.inputs[name].isna().to_numpy()
        count = int(absent.sum())
        if count == n:
            empty.append(name)
        elif count:
            make = warning if count >= MANY * n else info
            yield make(
                "missing-values", repr(name),
                {"records": count, "share": count / n} | _by_class(records, absent),
                f"Column {name!r} has no value in {count:,} of {n:,} records.",
                "Fill them from the training part, and add a column that says where they were.",
                np.flatnonzero(absent),
            )  # fmt: skip
    if empty:
        yield warning(
            "empty-column", listed(map(repr, empty)), {"columns": empty, "records": n},
            "All values of the column are missing.",
            "Leave it out, and check the file and how it was read.",
        )  # fmt: skip


def suspected_sentinels(records: Records) -> Iterator[Finding]:
    """Report numbers that look like marks of missing values."""
    for name, profile in records.profiles.items():
        yield from _marked(records, name, profile.sentinels, records.values(name))
    if records.target_profile is not None and records.target is not None:
        values = records.target.to_numpy(dtype="float64", na_value=np.nan)
        yield from _marked(
            records, str(records.target.name), records.target_profile.sentinels, values
        )


def _marked(
    records: Records, name: str, sentinels: dict[float, int], values: np.ndarray
) -> Iterator[Finding]:
    for mark, count in sentinels.items():
        at = values == mark
        yield warning(
            "suspected-sentinel", repr(name),
            {"value": mark, "records": count, "share": count / len(records)}
            | _by_class(records, at),
            f"{mark:g} repeats in column {name!r} far from all other values, as a mark of missing "
            "values does.",
            "If it is one, set it to NaN and treat it as missing; nothing was changed.",
            np.flatnonzero(at),
        )  # fmt: skip


def _by_class(records: Records, absent: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the share of missing values in each class, as evidence."""
    if not records.has_classes or len(records.classes[1]) > FEW_LEVELS:
        return {}
    codes, names = records.classes
    known = codes >= 0
    totals = np.bincount(codes[known], minlength=len(names))
    counts = np.bincount(codes[known & absent], minlength=len(names))
    return {"share by class": dict(zip(map(str, names), counts / totals, strict=True))}


def missing_together(records: Records) -> Iterator[Finding]:
    """Find columns that are missing in the same records, and what decides where."""
    for names in _alike(records):
        absent = records.missing[names[0]]
        count = int(absent.sum())
        if count < 3:
            continue
        where = _explained(records, names, absent)
        if len(names) > 1 or where:
            yield info(
                "missing-together", listed(map(repr, names)),
                {"columns": names, "records": count} | where,
                ("These columns are missing in the same records"
                 if len(names) > 1 else "The values are missing")
                + (", exactly where another column has certain values." if where else "."),
                "They do not apply there: keep one column that says so, rather than fill them.",
                np.flatnonzero(absent),
            )  # fmt: skip


def _explained(records: Records, names: list[str], absent: np.ndarray) -> dict[str, str]:
    """Return a column of few values that decides where values are missing, as evidence."""
    for name in records.of(Kind.NUMBER, Kind.CATEGORY):
        if name in names or name in records.missing:
            continue
        if name in records.profiles and records.profiles[name].distinct > FEW_LEVELS:
            continue
        codes, levels = pd.factorize(records.inputs[name])
        if not 1 < len(levels) <= FEW_LEVELS:
            continue
        totals = np.bincount(codes)
        counts = np.bincount(codes[absent], minlength=len(levels))
        if ((counts == 0) | (counts == totals)).all():
            found = [level for level, count in zip(levels, counts, strict=True) if count]
            return {"where": f"{name} is {', '.join(f'{x}' for x in sorted(found, key=str))}"}
    return {}


def missing_tells_target(records: Records) -> Iterator[Finding]:
    """Find columns whose missing values differ between classes, or with the target."""
    if records.target is None:
        return
    at = records.drawn
    tested = {}
    for names in _alike(records):
        absent = records.missing[names[0]][at]
        if 10 <= absent.sum() <= len(at) - 10:
            tested[tuple(names)] = absent
    for columns, absent in tested.items():
        difference, p, evidence = _association(records, absent, at)
        p = min(1.0, p * len(tested))
        if p < SIGNIFICANT and difference >= DIFFERENCE:
            yield warning(
                "missing-tells-target", listed(map(repr, columns)),
                evidence | {"columns": list(columns), "p, corrected": p},
                "Where these values are missing, the target differs.",
                "Ask why they are missing: if the answer came after the target was known, leave "
                "the column out; else add a column that says where they were missing.",
            )  # fmt: skip


def _alike(records: Records) -> list[list[str]]:
    """Return the columns with missing values, those that are missing together in one list."""
    alike: dict[bytes, list[str]] = {}
    for name, absent in records.missing.items():
        if not absent.all():
            alike.setdefault(np.packbits(absent).tobytes(), []).append(name)
    return list(alike.values())


def _association(
    records: Records, absent: np.ndarray, at: np.ndarray
) -> tuple[float, float, dict[str, object]]:
    """Return the size of an effect on the target, its p-value, and the evidence."""
    if not records.has_classes:
        goal = records.target.iloc[at].to_numpy(dtype="float64")  # type: ignore[union-attr]
        value, p = auroc(goal, absent)
        return 2 * abs(value - 0.5), p, {"AUROC of the target for being missing": value}
    codes, names = records.classes
    codes = codes[at]
    totals = np.bincount(codes, minlength=len(names))
    counts = np.bincount(codes[absent], minlength=len(names))
    used = totals > 0
    expected = totals[used] * absent.mean()
    statistic = ((counts[used] - expected) ** 2 / (expected * (1 - absent.mean()))).sum()
    shares = counts[used] / totals[used]
    large = shares[totals[used] >= 10]
    difference = float(np.ptp(large)) if len(large) else 0.0
    by_class = dict(zip(map(str, names[used]), shares, strict=True))
    return difference, float(chi2.sf(statistic, used.sum() - 1)), {"share by class": by_class}


def missing_target(records: Records) -> Iterator[Finding]:
    """Find records without a target."""
    if records.target is None:
        return
    absent = records.target.isna().to_numpy()
    if absent.any():
        yield error(
            "missing-target", repr(records.target.name),
            {"records": int(absent.sum()), "share": float(absent.mean())},
            "Records without a target can neither train nor test a model.",
            "Leave them out, or keep them for pre-training; ask why they are missing.",
            np.flatnonzero(absent),
        )  # fmt: skip


CHECKS = [
    missing_values,
    suspected_sentinels,
    missing_together,
    missing_tells_target,
    missing_target,
]
