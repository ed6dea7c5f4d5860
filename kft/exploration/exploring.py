"""`explore`: reads the data, runs all checks, and summarises the columns.

To add a check, write a function that takes the `Records` and yields findings, and add it to the
`CHECKS` of its module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from kft.data.cells import check_separators
from kft.data.dataset import Dataset
from kft.exploration import (
    duplicates,
    images,
    missing,
    sequences,
    shortcuts,
    tables,
    targets,
)
from kft.exploration import (
    groups as groups_,
)
from kft.exploration.findings import Finding, Findings, Summary
from kft.exploration.profiles import QUARTILES
from kft.exploration.reading import records_of
from kft.exploration.records import Kind, Records

Check = Callable[[Records], Iterator[Finding]]
CHECKS: list[Check] = [
    *missing.CHECKS,
    *targets.CHECKS,
    *tables.CHECKS,
    *duplicates.CHECKS,
    *groups_.CHECKS,
    *sequences.CHECKS,
    *images.CHECKS,
    *shortcuts.CHECKS,
]
MOST_CLASSES = 20  # classes in the tables of missing values and balance


@np.errstate(over="ignore", invalid="ignore")  # sums of values near the largest float
def explore(
    data: Dataset | pd.DataFrame | str | os.PathLike[str],
    target: str | None = None,
    groups: str | None = None,
    split: str | None = None,
    task: str | None = None,
    sep: str | None = None,
    decimal: str | None = None,
) -> Findings:
    """Look for defects in a data set and describe its columns; nothing is changed.

    Missing values and suspected marks of them, constant and copied columns, outliers, duplicates
    and conflicting labels, rare classes and groups, columns and simple properties (the first
    letter of a sequence, the format of a file) that tell the target alone, and copies across
    splits are named, each with its numbers, what it means and what to do.

    Args:
        data: A data set of `kft.data`, a table, or the path of a CSV, TSV or FASTA file (plain or
            gzipped), of an Excel file (.xlsx, its first sheet), of a Parquet or JSON lines (.jsonl)
            file, or of a folder of images as for `kft.data.read_images`.
        target: Column of the target, or None. A data set states its own. Names of columns that are
            no strings, such as 0, are given as they are, and written as strings in what is found.
        groups: Column of groups (patients, plates), or None.
        split: Column that names the split of each record, or None.
        task: "classification" or "regression"; None takes a target of words, or of at most 20
            whole numbers, for classes.
        sep: Character between the columns of a file; None finds comma, tab or semicolon.
        decimal: Decimal sign of a file, "." or ","; None takes commas if semicolons separate the
            columns.

    Returns:
        The findings, the most severe first.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: `data` is of another type, or a column is not named by a string.
        ValueError: The file is not a table, or an argument is wrong.

    Example:
        >>> table = pd.DataFrame({"jets": [0, 1, 2, 3] * 25, "mass": [-999.0, 80, 90, 95] * 25})
        >>> found = explore(table)
        >>> found.of("suspected-sentinel")[0].evidence["value"]
        -999.0
    """
    check_separators(sep, decimal)
    records = records_of(data, target, groups, split, task, sep, decimal)
    correlations, covariances = tables.correlation_and_covariance(records)
    found = list(records.notes)
    for check in CHECKS:
        found += check(records)
    found += tables.near_duplicate_columns(records, correlations, covariances)
    return Findings(found, records.name, _summary(records, correlations, covariances))


def _summary(records: Records, correlations: pd.DataFrame, covariances: pd.DataFrame) -> Summary:
    histograms = {
        name: (profile.counts, profile.edges)
        for name, profile in records.profiles.items()
        if len(profile.counts) > 1
    }
    for name in records.of(Kind.SEQUENCE):
        counts, edges = np.histogram(records.inputs[name].str.len().dropna(), bins=30)
        histograms[f"length of {name}"] = counts, edges
    target = None if records.target is None else str(records.target.name)
    if records.target_profile is not None and len(records.target_profile.counts) > 1:
        histograms[str(target)] = records.target_profile.counts, records.target_profile.edges
    return Summary(
        len(records),
        target,
        _columns(records),
        histograms,
        _missing(records),
        correlations,
        _balance(records),
        covariances,
    )


def _columns(records: Records) -> pd.DataFrame:
    """Return a table with one row per column."""
    rows: dict[str, dict[str, Any]] = {}
    for name, kind in records.kinds.items():
        values = records.inputs[name]
        row: dict[str, Any] = {"kind": str(kind), "dtype": str(values.dtype)}
        rows[name] = row
        if kind is Kind.IMAGE:
            continue
        row["missing"] = int(values.isna().sum())
        if kind is not Kind.NUMBER:
            row["distinct"] = int(values.nunique())
            continue
        profile = records.profiles[name]
        row["distinct"] = profile.distinct
        row |= dict(zip(QUARTILES, profile.quartiles, strict=True))
        row |= {"mean": profile.mean, "deviation": profile.deviation}
        row |= {"skewness": profile.skewness, "sentinels": list(profile.sentinels)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _missing(records: Records) -> pd.DataFrame:
    """Return the share of missing values by column, over all records and by class."""
    rows = {}
    for name, absent in records.missing.items():
        rows[name] = {"all": float(absent.mean())}
        if records.has_classes and len(records.classes[1]) <= MOST_CLASSES:
            codes, names = records.classes
            for k, label in enumerate(names):
                rows[name][str(label)] = float(absent[codes == k].mean())
    return pd.DataFrame.from_dict(rows, orient="index")


def _balance(records: Records) -> pd.DataFrame:
    """Return the number of records by class, and by split or group."""
    if records.residues is not None:
        return records.residues.value_counts().sort_index().to_frame("all residues")
    if records.labels is not None:
        return records.labels.sum().to_frame("all records")
    if records.target is None or not records.has_classes:
        return pd.DataFrame()
    by = records.parts if records.parts is not None else records.groups
    if by is None or len(set(by)) > MOST_CLASSES:
        by = np.full(len(records), "all records", dtype=object)
    table = pd.crosstab(records.target.to_numpy(), by)
    return table.loc[table.sum(axis=1).sort_values(ascending=False).index[:MOST_CLASSES]]
