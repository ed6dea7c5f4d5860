"""Checks of groups and splits: sizes, groups by target, rare combinations, shifts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from kft.exploration.findings import Finding, error, info, warning
from kft.exploration.pairs import count_by_splits, equal_pairs, splits_in_words
from kft.exploration.records import Kind, Records, counted
from kft.exploration.screens import auroc
from kft.messages import listed

FEW_GROUPS = 5
FEW_RECORDS = 5  # in a combination of two columns
LARGE_GROUP = 20  # records from which a group should have several classes
LARGE = 0.5  # share of the records in one group from which it outweighs the rest
MOST_LEVELS = 10  # of columns whose combinations are counted
SIGNIFICANT = 0.001
SHIFT = 0.65  # AUROC of the test against the training part from which a column has shifted
SCALED = 1e-4  # how near to 0 and 1 mean and deviation of a scaled column are
CLASS_SHIFT = 0.15  # difference of the share of a class between two splits


def group_sizes(records: Records) -> Iterator[Finding]:
    """Report the number of records by group."""
    if records.groups is None:
        return
    counts = pd.Series(records.groups).value_counts()
    evidence = {"groups": len(counts), "records": counted(records.groups)}
    if len(counts) < FEW_GROUPS:
        yield warning(
            "few-groups", records.name, evidence,
            f"The records are of {len(counts):,} groups, and records of one group are alike.",
            "Count groups rather than records when you judge a score; test on whole groups.",
        )  # fmt: skip
    if len(counts) > 1 and counts.iloc[0] > LARGE * len(records):
        yield warning(
            "large-group", repr(counts.index[0]),
            evidence | {"share": float(counts.iloc[0] / len(records))},
            f"Group {counts.index[0]} has {counts.iloc[0] / len(records):.0%} of all records, and "
            "a score over all records is mostly a score of this group.",
            "Give scores by group, and weigh or draw the groups equally.",
        )  # fmt: skip
    elif len(counts) >= FEW_GROUPS:
        yield info(
            "group-sizes", records.name, evidence | {"largest": int(counts.iloc[0])},
            "This is the number of records by group.",
            "Keep each group in one split.",
        )  # fmt: skip


def groups_across_splits(records: Records) -> Iterator[Finding]:
    """Find groups with records in several splits."""
    if records.groups is None or records.parts is None:
        return
    parts = pd.Series(records.parts).groupby(records.groups).nunique()
    several = list(parts.index[parts > 1])
    if several:
        there = np.isin(records.groups.astype(str), several)
        rows = np.flatnonzero(there)
        pairs = equal_pairs(pd.factorize(records.groups)[0], records.parts, there)
        between = count_by_splits(records.parts, *pairs)
        yield error(
            "groups-across-splits", listed(map(repr, several)),
            {"groups": len(several), "records": len(rows), "records by pair of splits": between},
            f"Groups have records in several splits ({splits_in_words(between)}), so one split "
            "holds relatives of another.",
            "Split by group.",
            rows,
        )  # fmt: skip


def groups_tell_target(records: Records) -> Iterator[Finding]:
    """Find groups with one class each: a model may learn the group in place of the class."""
    if records.groups is None or not records.has_classes or records.target is None:
        return
    table = pd.crosstab(records.groups, records.target)
    # Of a small group, such as near copies of one record, one class is no surprise.
    large = table[table.sum(axis=1) >= LARGE_GROUP]
    pure = large[(large > 0).sum(axis=1) == 1]
    most = large.to_numpy().sum() > 0.5 * table.to_numpy().sum()
    if len(large) > 1 and len(table.columns) > 1 and most and len(pure) > 0.5 * len(large):
        yield warning(
            "groups-tell-target", listed(map(repr, pure.index)),
            {"groups of one class": len(pure), "groups": len(large)},
            "Most groups hold one class only, so the class cannot be told from the group.",
            "Test on other groups than those trained on, and look for what else differs.",
        )  # fmt: skip


def rare_combinations(records: Records) -> Iterator[Finding]:
    """Find combinations of two columns of few values (sex and ethnicity) that are hardly there."""
    columns = {
        name: records.inputs[name]
        for name in records.of(Kind.CATEGORY)
        if records.inputs[name].nunique() <= MOST_LEVELS
    }
    if records.groups is not None and len(set(records.groups)) <= MOST_LEVELS:
        columns["group"] = pd.Series(records.groups)
    goal = records.target
    if goal is not None and records.has_classes and goal.nunique() <= MOST_LEVELS:
        columns[f"target {goal.name}"] = goal
    for (a, one), (b, other) in itertools.combinations(columns.items(), 2):
        table = pd.crosstab(one.to_numpy(), other.to_numpy())
        if min(table.shape) < 2:
            continue
        counts = pd.Series(table.stack()).sort_values(ascending=False)
        total = counts.sum()
        if counts.iloc[-1] >= FEW_RECORDS or counts.iloc[0] < LARGE * total:
            continue
        names = [" and ".join(map(str, pair)) for pair in counts.index.tolist()]
        many, few = names[0], names[-1]
        yield warning(
            "rare-combination", f"{a} and {b}",
            {"records": dict(zip(names, counts.tolist(), strict=True)),
             "share of the largest": float(counts.iloc[0] / total)},
            f"The data are biased: {counts.iloc[0]:,} of {total:,} records are {many}, and "
            f"{counts.iloc[-1]:,} {'is' if counts.iloc[-1] == 1 else 'are'} {few}.",
            "Do not trust a model for the rare combinations, nor a score over all records; collect "
            "more of them and give scores by combination.",
        )  # fmt: skip


# Splits -----------------------------------------------------------------------------------------


def split_sizes(records: Records) -> Iterator[Finding]:
    """Report the sizes of splits; find a test that is too small, and one that lacks a class."""
    if records.parts is None:
        return
    counts = pd.Series(records.parts).value_counts()
    small = counts[counts < 30]
    make = warning if len(small) else info
    yield make(
        "small-split" if len(small) else "split-sizes", records.name,
        {"records": counted(records.parts)},
        "A split has fewer than 30 records, and its score says little."
        if len(small) else "These are the sizes of the splits.",
        "Use cross-validation." if len(small) else "Use the test part once, at the end.",
    )  # fmt: skip
    if not records.has_classes or records.target is None or "train" not in counts:
        return
    trained = set(records.target[records.parts == "train"].dropna())
    unseen = sorted(set(records.target[records.parts != "train"].dropna()) - trained, key=str)
    if unseen:
        rows = np.flatnonzero(records.target.isin(unseen))
        yield error(
            "class-not-in-train", listed(map(repr, unseen)),
            {"classes": unseen, "records": len(rows)},
            "Classes of other splits have no record in train, so no model can predict them.",
            "Split again, stratified by class.",
            rows,
        )  # fmt: skip


def split_shifts(records: Records) -> Iterator[Finding]:
    """Find columns and classes that differ between train and the other splits."""
    if records.parts is None or not (records.parts == "train").any():
        return
    train = records.parts == "train"
    if records.has_classes and records.target is not None:
        table = pd.crosstab(records.target.to_numpy(), train)
        shares = table / table.sum()
        gap = float((shares[True] - shares[False]).abs().max()) if table.shape[1] == 2 else 0.0
        if gap > CLASS_SHIFT and chi2_contingency(table).pvalue < SIGNIFICANT:
            yield warning(
                "class-shift", repr(records.target.name),
                {"share in train": shares[True].to_dict(), "elsewhere": shares[False].to_dict()},
                "The classes have other shares in train than in the other splits.",
                "Split again, stratified by class, unless the difference is meant.",
            )  # fmt: skip
    features = {name: records.values(name) for name in records.of(Kind.NUMBER)}
    for name in records.of(Kind.SEQUENCE):
        features[f"length of {name}"] = records.inputs[name].str.len().to_numpy(dtype="float64")
    if records.target_profile is not None and records.target is not None:
        features[f"target {records.target.name}"] = records.target.to_numpy(dtype="float64")
    shifted = {}
    for name, values in features.items():
        known = np.flatnonzero(np.isfinite(values))
        if len(known) > 50_000:
            known = np.random.default_rng(0).choice(known, 50_000, replace=False)
        value, p = auroc(values[known], train[known])
        if max(value, 1 - value) >= SHIFT and p * len(features) < SIGNIFICANT:
            shifted[name] = value
    if shifted:
        yield warning(
            "split-shift", listed(shifted), {"AUROC of train against the rest": shifted},
            "These inputs differ between train and the other splits.",
            "Split again at random, unless the difference is meant; then expect lower scores.",
        )  # fmt: skip


def scaled_on_all_data(records: Records) -> Iterator[Finding]:
    """Find columns scaled to mean 0 and deviation 1 over all records, those of the test too."""
    if records.parts is None or not (records.parts == "train").any():
        return
    train, scaled = records.parts == "train", []
    for name in records.of(Kind.NUMBER):
        values = records.values(name)
        known = np.isfinite(values)
        if known.sum() < LARGE_GROUP or not (known & train).any():
            continue
        mean, deviation = values[known].mean(), values[known].std()
        of_train = values[known & train]
        unlike = abs(of_train.mean()) > SCALED or abs(of_train.std() - 1) > SCALED
        # A sample's deviation is divided by n - 1, as pandas does, or by n, as scikit-learn does.
        sample = deviation * np.sqrt(known.sum() / (known.sum() - 1))
        if abs(mean) < SCALED and min(abs(deviation - 1), abs(sample - 1)) < SCALED and unlike:
            scaled.append(name)
    if scaled:
        yield warning(
            "scaled-on-all-data", listed(map(repr, scaled)), {"columns": scaled},
            "These columns have mean 0 and standard deviation 1 over all splits together, so the "
            "test was used to scale what is trained on.",
            "Scale by the mean and standard deviation of the training part alone.",
        )  # fmt: skip


CHECKS = [
    group_sizes,
    groups_across_splits,
    groups_tell_target,
    rare_combinations,
    split_sizes,
    split_shifts,
    scaled_on_all_data,
]
