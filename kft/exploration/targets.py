"""Checks of the target: distribution, balance of classes, order, and columns that tell it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from kft.exploration.findings import Finding, error, info, warning
from kft.exploration.profiles import QUARTILES
from kft.exploration.records import Kind, Records, counted
from kft.exploration.screens import Screen, held_out_accuracy, screen
from kft.exploration.tables import SKEWED
from kft.messages import listed

FEW_IN_CLASS = 10  # records below which a class cannot be tested
UNBALANCED = 10  # times that the largest class is as large as the smallest
COPIED = 0.995  # held-out accuracy, or correlation, from which a column is taken for a copy
STRONG = 0.9  # AUROC, or correlation, from which a single column tells the target
SIGNIFICANT = 0.01


def constant_target(records: Records) -> Iterator[Finding]:
    """Find a target that does not vary."""
    for name, values in _targets(records).items():
        if values.nunique() == 1:
            yield error(
                "constant-target", repr(name),
                {"value": values.dropna().iloc[0], "records": int(values.notna().sum())},
                "The target has one value, so there is nothing to learn.",
                "Add records with other values, or choose another target.",
            )  # fmt: skip
        elif not values.notna().any():
            yield error(
                "constant-target", repr(name), {"records": 0},
                "The target is missing in every record.",
                "Choose another target.",
            )  # fmt: skip


def class_balance(records: Records) -> Iterator[Finding]:
    """Report classes that are rare, or much rarer than others."""
    for name, values in _targets(records).items():
        if not (records.has_classes or records.target is None):
            continue
        counts = values.value_counts()
        if len(counts) < 2:
            continue
        few = counts[counts < FEW_IN_CLASS]
        evidence = {"records": counted(values)}
        if len(few):
            yield warning(
                "rare-class", repr(name), {"records": counted(values[values.isin(few.index)])},
                f"{len(few):,} of {len(counts):,} classes have fewer than {FEW_IN_CLASS} records, "
                "too few to learn or to test.",
                "Collect more records of them, join them with others, or leave them out.",
                np.flatnonzero(values.isin(few.index)) if len(values) == len(records) else (),
            )  # fmt: skip
        if counts.iloc[0] >= UNBALANCED * counts.iloc[-1]:
            yield warning(
                "class-imbalance", repr(name),
                evidence | {"majority": float(counts.iloc[0] / counts.sum())},
                f"The largest class, {counts.index[0]}, is {counts.iloc[0] / counts.iloc[-1]:.0f} "
                f"times the smallest, {counts.index[-1]}: always guessing it is right in "
                f"{counts.iloc[0] / counts.sum():.0%} of records.",
                "Score by AUROC, MCC or balanced accuracy; split stratified; weigh the classes.",
            )  # fmt: skip
        else:
            yield info(
                "class-balance", repr(name), evidence,
                "The classes are of similar size.",
                "Accuracy is a fair score; compare it with the share of the largest class.",
            )  # fmt: skip


def _targets(records: Records) -> dict[str, pd.Series]:
    """Return the target, or each label, or the classes of residues, by name."""
    if records.target is not None:
        return {str(records.target.name): records.target}
    if records.residues is not None:
        return {"residues": records.residues}
    if records.labels is not None:
        return {f"label {name}": records.labels[name] for name in records.labels}
    return {}


def target_distribution(records: Records) -> Iterator[Finding]:
    """Describe a target of numbers: quartiles, tail, and values far from all others."""
    profile = records.target_profile
    if profile is None or records.target is None or not profile.present:
        return
    name = records.target.name
    yield info(
        "target-distribution", repr(name),
        dict(zip(QUARTILES, profile.quartiles, strict=True))
        | {"skewness": profile.skewness, "distinct": profile.distinct},
        "This is the distribution of the target."
        + (" It has a long tail." if abs(profile.skewness) >= SKEWED else ""),
        "Take logarithms of a positive target with a long tail, or score by ranks (Spearman)."
        if abs(profile.skewness) >= SKEWED
        else "It can be predicted as it is.",
    )  # fmt: skip
    if profile.isolated:
        values = records.target.to_numpy(dtype="float64", na_value=np.nan)
        rows = np.flatnonzero(np.isin(values, profile.isolated))
        yield warning(
            "isolated-target", repr(name), {"values": profile.isolated, "records": len(rows)},
            "A few targets are further from all others than these are from each other.",
            "Look for a wrong unit; squared errors of these few outweigh all others.",
            rows,
        )  # fmt: skip
    common = records.target.value_counts(normalize=True)
    if len(common) > 20 and common.iloc[0] > 0.2:
        yield warning(
            "target-repeats", repr(name),
            {"value": common.index[0], "share": float(common.iloc[0])},
            f"One value, {common.index[0]:g}, is the target of {common.iloc[0]:.0%} of records, as "
            "where a measurement is cut off at a limit.",
            "Predict first whether a record has this value, or use a model of censored data.",
        )  # fmt: skip


def sorted_by_target(records: Records) -> Iterator[Finding]:
    """Find records that lie in the order of their targets."""
    if records.target is None or len(records) < 20 or records.parts is not None:
        return
    codes = records.classes[0] if records.has_classes else records.target.to_numpy()
    if pd.Series(codes).nunique() > 1 and (np.diff(codes) >= 0).all():
        yield info(
            "sorted-by-target", repr(records.target.name), {"records": len(records)},
            "The records are sorted by the target.",
            "Shuffle before you split: the first 80% lack the last classes.",
        )  # fmt: skip


def columns_that_tell(records: Records) -> Iterator[Finding]:
    """Find columns that tell the target alone: copies of it, and strong ones."""
    screens = column_screens(records)
    strong = {}
    for name, found in screens.items():
        level = found.strength if found.told is None else found.accuracy
        above = found.told is None or found.gain > 0.5
        if level >= COPIED and above:
            yield error(
                "column-tells-target", repr(name), found.evidence(len(screens)),
                f"Column {name!r} alone tells the target, as a copy of it or a result of it does.",
                "Leave it out unless it is known before the target is; else every score is too "
                "high.",
            )  # fmt: skip
        elif found.strength >= STRONG and found.p * len(screens) < SIGNIFICANT:
            strong[name] = found
    if strong:
        best = max(strong, key=lambda name: strong[name].strength)
        yield info(
            "strong-column", listed(map(repr, strong)), strong[best].evidence(len(screens)),
            f"Single columns tell much of the target, {best!r} the most.",
            "Check that they are known before the target is; use this score as a baseline.",
        )  # fmt: skip


def column_screens(records: Records) -> dict[str, Screen]:
    """Screen the columns of numbers and words of the inputs.

    Args:
        records: The records.

    Returns:
        Column -> its `Screen`, of those that can be scored.
    """
    found = {}
    for name in records.of(Kind.NUMBER, Kind.CATEGORY):
        values = records.inputs[name].iloc[records.drawn]
        if records.kinds[name] is Kind.NUMBER:
            feature = values.to_numpy(dtype="float64", na_value=np.nan)
            result = screen(records, feature)
        else:
            result = _screen_words(records, values)
        if result is not None:
            found[name] = result
    return found


def _screen_words(records: Records, values: pd.Series) -> Screen | None:
    """Screen a column of words: each record gets the mean target of its word in the other half."""
    codes, words = pd.factorize(values, use_na_sentinel=False)
    if records.target is None or not 1 < len(words) <= len(values) / 2:
        return None
    if records.has_classes:
        classes = records.classes[0][records.drawn]
        accuracy, majority, p = held_out_accuracy(codes.astype(float), classes)
        # Accuracy stands for strength: the order of words means nothing to AUROC.
        found = Screen(0.5, p, "all", accuracy, majority, p)
        return replace(found, strength=0.5 + 0.5 * max(found.gain, 0.0))
    goal = records.target.iloc[records.drawn].to_numpy(dtype="float64")
    half = np.random.default_rng(0).permutation(len(codes)) % 2 == 0
    means = np.full(len(codes), goal.mean())
    for part in (half, ~half):
        sums = np.bincount(codes[part], goal[part], minlength=len(words))
        counts = np.bincount(codes[part], minlength=len(words))
        with np.errstate(invalid="ignore"):
            by_word = np.where(counts, sums / counts, goal.mean())
        means[~part] = by_word[codes[~part]]
    return screen(records, means)


CHECKS = [
    constant_target,
    class_balance,
    target_distribution,
    sorted_by_target,
    columns_that_tell,
]
