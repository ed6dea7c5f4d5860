"""Checks of the columns of a table: types, constants, outliers, distributions, correlations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from kft.exploration.findings import Finding, error, info, warning
from kft.exploration.records import Kind, Records
from kft.messages import count_of, listed

NEAR_CONSTANT = 0.99  # share of one value
NEAR_COPY = 0.99  # correlation from which two columns say nearly the same
CORRELATED = 0.9
SKEWED = 2.0
CHUNK = 50_000  # records at a time, when columns are multiplied
MOST_COLUMNS = 500  # columns that are correlated with each other
MANY_WORDS = 50  # categories from which one-hot columns become many


def few_records(records: Records) -> Iterator[Finding]:
    """Find data that are too few for a test, or fewer than their columns."""
    n, columns = len(records), len(records.of(Kind.NUMBER, Kind.CATEGORY))
    if n < 50:
        yield warning(
            "few-records", records.name, {"records": n},
            f"{n:,} records leave so few for a test that its score says little.",
            "Use cross-validation, and give every score with its interval.",
        )  # fmt: skip
    if columns > n:
        yield warning(
            "more-columns-than-records", records.name, {"columns": columns, "records": n},
            "With more columns than records, a model can fit any target by chance.",
            "Choose columns beforehand, or use a model with a strong penalty.",
        )  # fmt: skip


def infinite_values(records: Records) -> Iterator[Finding]:
    """Find infinite numbers, which turn sums and losses into NaN."""
    for name, profile in records.profiles.items():
        if profile.infinite:
            rows = np.flatnonzero(np.isinf(records.values(name)))
            yield error(
                "infinite-values", repr(name), {"records": len(rows)},
                f"Column {name!r} holds infinite numbers, which make every sum infinite or NaN.",
                "Find the division or the logarithm of 0 that made them; treat them as missing.",
                rows,
            )  # fmt: skip


def constant_columns(records: Records) -> Iterator[Finding]:
    """Find columns that have one value, or nearly."""
    constant, nearly = {}, {}
    for name in records.of(Kind.NUMBER, Kind.CATEGORY, Kind.TEXT, Kind.DATE):
        values = records.inputs[name]
        present = values.notna().sum()
        if not present or (name in records.profiles and records.profiles[name].sentinels):
            continue
        counts = _most_frequent(records, name)
        if counts is None:
            continue
        value, share = counts
        if share == 1:
            constant[name] = value
        elif share >= NEAR_CONSTANT and present >= 100:
            nearly[name] = share
    if constant:
        yield warning(
            "constant-column", listed(map(repr, constant)), {"values": constant},
            "A column with one value tells a model nothing.",
            "Leave it out, and check that it was measured.",
        )  # fmt: skip
    if nearly:
        yield info(
            "nearly-constant", listed(map(repr, nearly)), {"share of one value": nearly},
            "Hardly any record differs from the rest in this column.",
            "Keep it only if the few other values matter; one split may have none of them.",
        )  # fmt: skip


def _most_frequent(records: Records, name: str) -> tuple[object, float] | None:
    """Return the most frequent value of a column and its share; None if it is far below."""
    if name in records.profiles:
        profile = records.profiles[name]
        if profile.constant:
            return profile.quartiles[2], 1.0
        if not profile.present or profile.distinct > 0.02 * profile.present + 2:
            return None
    counts = records.inputs[name].value_counts()
    return (counts.index[0], float(counts.iloc[0] / counts.sum())) if len(counts) else None


def isolated_values(records: Records) -> Iterator[Finding]:
    """Find single values far from all others, as from a wrong unit or a lost decimal point."""
    for name, profile in records.profiles.items():
        if profile.isolated:
            rows = np.flatnonzero(np.isin(records.values(name), profile.isolated))
            yield warning(
                "isolated-values", repr(name),
                {"values": sorted(set(profile.isolated)), "records": len(rows),
                 "median": profile.quartiles[2], "lower quartile": profile.quartiles[1],
                 "upper quartile": profile.quartiles[3]},
                "A few values are further from all others than these are from each other.",
                "Look for a wrong unit or a lost decimal point; correct them, or scale by ranks.",
                rows,
            )  # fmt: skip


def outliers(records: Records) -> Iterator[Finding]:
    """Count values more than three interquartile ranges outside of the quartiles."""
    far = {name: profile.far for name, profile in records.profiles.items() if profile.far}
    if far:
        yield info(
            "outliers", count_of(len(far), "column"), {"records": far},
            "Values lie more than three interquartile ranges outside of the quartiles.",
            "Scale by median and quartiles rather than by mean and deviation, or take logarithms.",
        )  # fmt: skip


def skewed_columns(records: Records) -> Iterator[Finding]:
    """Name columns with a long tail."""
    skewness = {name: profile.skewness for name, profile in records.profiles.items()}
    long = {name: x for name, x in skewness.items() if abs(x) >= SKEWED}
    if long:
        yield info(
            "skewed", count_of(len(long), "column"), {"skewness": long},
            "These columns have a long tail on one side.",
            "Take logarithms of positive ones, or scale by ranks; trees need neither.",
        )  # fmt: skip


def different_scales(records: Records) -> Iterator[Finding]:
    """Find columns whose spreads differ by a factor of a thousand or more."""
    spread = {
        name: profile.deviation
        for name, profile in records.profiles.items()
        if profile.deviation > 0 and np.isfinite(profile.deviation)
    }
    if len(spread) > 1 and max(spread.values()) > 1000 * min(spread.values()):
        least, most = min(spread, key=spread.__getitem__), max(spread, key=spread.__getitem__)
        yield info(
            "different-scales", f"{least!r} and {most!r}",
            {"standard deviations": {least: spread[least], most: spread[most]}},
            "The spreads of the columns differ by a factor of more than 1,000.",
            "Standardise the columns for anything but trees.",
        )  # fmt: skip


def identifiers(records: Records) -> Iterator[Finding]:
    """Find columns with another value in every record."""
    for name in records.of(Kind.NUMBER, Kind.TEXT, Kind.CATEGORY):
        if len(records) < 20:
            return
        values = records.inputs[name]
        if name in records.profiles:
            if records.profiles[name].distinct < len(records):
                continue
            numbers = records.values(name)
            steps = np.diff(np.sort(numbers))
            if not (numbers == np.round(numbers)).all() or np.median(steps) > 1:
                continue
        elif not values.is_unique:
            continue
        yield info(
            "identifier", repr(name), {"distinct": len(records)},
            f"Column {name!r} has another value in every record, as a number or name of it has.",
            "Leave it out: a model that learns it has learnt the records by heart.",
        )  # fmt: skip


def many_categories(records: Records) -> Iterator[Finding]:
    """Find columns of words with many different ones."""
    counts = {name: records.inputs[name].nunique() for name in records.of(Kind.CATEGORY)}
    many = {name: count for name, count in counts.items() if count >= MANY_WORDS}
    if many:
        yield info(
            "many-categories", listed(map(repr, many)), {"distinct": many},
            "One column for each word would make many columns with few records each.",
            "Join rare words, or encode a word by the mean target of the training part.",
        )  # fmt: skip


def several_spellings(records: Records) -> Iterator[Finding]:
    """Find categories that differ only in case or in space around them."""
    columns = {name: records.inputs[name] for name in records.of(Kind.CATEGORY)}
    if records.target is not None and records.has_classes:
        columns[str(records.target.name)] = records.target
    for name, values in columns.items():
        forms: dict[str, list[str]] = {}
        for word in values.dropna().unique():
            if isinstance(word, str):
                forms.setdefault(" ".join(word.casefold().split()), []).append(word)
        alike = [words for words in forms.values() if len(words) > 1]
        if alike:
            yield warning(
                "several-spellings", repr(name), {"spellings": alike},
                f"Words of column {name!r} differ only in case or spaces, and count as different.",
                "Give each of them one spelling.",
            )  # fmt: skip


# Correlations -----------------------------------------------------------------------------------


def correlation_and_covariance(records: Records) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the correlations and the covariances of columns of numbers that vary.

    Both are over the records in which a pair has both values, with the means and deviations of
    each column. Suspected sentinels are left out.

    Args:
        records: The records.

    Returns:
        Table (columns, columns) of Pearson's correlation; and table (columns, columns) of the
        covariance, divided by the number of records minus 1, in the unit of one column times that
        of the other.
    """
    names = [name for name, x in records.profiles.items() if x.deviation > 0][:MOST_COLUMNS]
    shape = len(names), len(names)
    products, ones, others, counts = (np.zeros(shape) for _ in range(4))
    means, deviations = (
        np.array([getattr(records.profiles[name], what) for name in names])
        for what in ("mean", "deviation")
    )
    for begin in range(0, len(records), CHUNK):
        chunk = records.inputs[names].iloc[begin : begin + CHUNK]
        values = chunk.to_numpy(dtype="float64", na_value=np.nan)
        with np.errstate(over="ignore", invalid="ignore"):
            values = (values - means) / deviations
        present = np.isfinite(values)
        for i, name in enumerate(names):
            if name in records.missing:
                present[:, i] &= ~records.missing[name][begin : begin + CHUNK]
        values[~present] = 0
        mask = present.astype(float)
        products += values.T @ values
        ones += (values**2).T @ mask
        others += mask.T @ values**2
        counts += mask.T @ mask
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        correlations = products / np.sqrt(ones * others)
        covariances = products / (counts - 1) * np.outer(deviations, deviations)
    covariances[counts < 2] = np.nan
    return (
        pd.DataFrame(correlations, index=names, columns=names),
        pd.DataFrame(covariances, index=names, columns=names),
    )


def near_duplicate_columns(
    records: Records, correlations: pd.DataFrame, covariances: pd.DataFrame
) -> Iterator[Finding]:
    """Find columns that say the same, or nearly."""
    matrix = np.abs(np.triu(correlations.to_numpy(), 1))
    names = list(correlations.columns)
    pairs = [(names[i], names[j]) for i, j in zip(*np.nonzero(matrix >= NEAR_COPY), strict=True)]
    equal = [pair for pair in pairs if records.inputs[pair[0]].equals(records.inputs[pair[1]])]
    equal += list(_equal_words(records))
    pairs = [pair for pair in pairs if pair not in equal]
    near, covaried = (
        {f"{a!r} and {b!r}": table.loc[a, b] for a, b in pairs}
        for table in (correlations, covariances)
    )
    if equal:
        yield warning(
            "equal-columns", listed(f"{a!r} and {b!r}" for a, b in equal),
            {"pairs": [f"{a} = {b}" for a, b in equal]},
            "These columns are equal in every record.",
            "Leave out one of each pair.",
        )  # fmt: skip
    if near:
        yield warning(
            "near-duplicate-columns", listed(near, most=2),
            {"correlation": near, "covariance": covaried},
            f"Pairs of columns correlate by {NEAR_COPY} or more, so they say nearly the same.",
            "Keep one of each pair if you read weights or importances; a penalty copes with both.",
        )  # fmt: skip
    some = int(((matrix >= CORRELATED) & (matrix < NEAR_COPY)).sum())
    if some:
        at = np.unravel_index(np.where(matrix < NEAR_COPY, matrix, 0).argmax(), matrix.shape)
        yield info(
            "correlated-columns", count_of(some, "pair"),
            {"strongest": f"{names[at[0]]} and {names[at[1]]}", "correlation": matrix[at]},
            f"Pairs of columns correlate by {CORRELATED} or more.",
            "Do not read the weights of a linear model one by one.",
        )  # fmt: skip


def _equal_words(records: Records) -> Iterator[tuple[str, str]]:
    """Yield pairs of columns of words that are equal, or equal up to other names."""
    codes: dict[bytes, str] = {}
    for name in records.of(Kind.CATEGORY, Kind.TEXT):
        code = pd.factorize(records.inputs[name])[0]
        if code.max(initial=0) < 1:
            continue
        first = codes.setdefault(code.tobytes(), name)
        if first != name:
            yield first, name


CHECKS = [
    few_records,
    infinite_values,
    constant_columns,
    isolated_values,
    outliers,
    skewed_columns,
    different_scales,
    identifiers,
    many_categories,
    several_spellings,
]
