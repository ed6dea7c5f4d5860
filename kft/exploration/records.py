"""The records that are explored: `Records`, the columns by kind with target, groups and splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from kft.data.cells import MISSING
from kft.data.numbers import number
from kft.exploration.findings import Finding, warning
from kft.exploration.looks import Look, looks
from kft.exploration.profiles import Profile, profile

RESIDUES = frozenset("ACDEFGHIKLMNPQRSTVWYXBZUOJ-.*")
SEQUENCE_NAMES = ("sequence", "seq", "peptide", "protein")
WORDS = MISSING | {"", "none", "?", "-", "--", "missing", "unknown", "n.a.", "nd", "n.d."}
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
FEW = 20  # distinct whole numbers up to which a target is read as classes
LOOKED_AT = 1000  # values by which the kind of a column is told
DRAWN = 50_000  # records that screens of single columns use


class Kind(StrEnum):
    """Kind of a column; it compares equal to its name."""

    NUMBER = "number"
    CATEGORY = "category"
    TEXT = "text"
    SEQUENCE = "sequence"
    IMAGE = "image"
    DATE = "date"


@dataclass(frozen=True, eq=False)
class Records:
    """The records of a data set.

    Args:
        name: Name of the data.
        inputs: Columns of the inputs; images are paths, PIL images or arrays.
        kinds: Column -> its kind.
        target: One value per record, or None.
        has_classes: Whether the target names classes; False for numbers.
        groups: Array (N,) of group names, or None.
        parts: Array (N,) of the split of each record, or None.
        notes: What was found when the columns were read.
        labels: 0 or 1 for each label of a multilabel task, one column per label, or None.
        residues: Classes of all residues, for a task with a class per residue, or None.
    """

    name: str
    inputs: pd.DataFrame
    kinds: dict[str, Kind]
    target: pd.Series | None = None
    has_classes: bool = False
    groups: np.ndarray | None = None
    parts: np.ndarray | None = None
    notes: list[Finding] = field(default_factory=list)
    labels: pd.DataFrame | None = None
    residues: pd.Series | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def of(self, *kinds: Kind) -> list[str]:
        """Return the names of the columns of some kinds."""
        return [name for name, kind in self.kinds.items() if kind in kinds]

    def values(self, column: str) -> np.ndarray:
        """Return a column of numbers as float64 (N,)."""
        return as_floats(self.inputs[column])

    @cached_property
    def profiles(self) -> dict[str, Profile]:
        """Profiles of the columns of numbers."""
        return {name: profile(self.values(name)) for name in self.of(Kind.NUMBER)}

    @cached_property
    def target_profile(self) -> Profile | None:
        """Profile of a target of numbers, else None."""
        if self.target is None or self.has_classes:
            return None
        return profile(as_floats(self.target))

    @cached_property
    def classes(self) -> tuple[np.ndarray, pd.Index]:
        """Class of each record, -1 if it is missing; and the names of the classes."""
        codes, names = pd.factorize(pd.Series(self.target), sort=True)
        return codes, pd.Index(names)

    @cached_property
    def missing(self) -> dict[str, np.ndarray]:
        """Columns with missing values or suspected sentinels -> bool (N,), where they are."""
        found = {}
        for name, kind in self.kinds.items():
            if kind is Kind.IMAGE:
                continue
            absent = self.inputs[name].isna().to_numpy()
            if kind is Kind.NUMBER and self.profiles[name].sentinels:
                absent = absent | np.isin(self.values(name), list(self.profiles[name].sentinels))
            if absent.any():
                found[name] = absent
        return found

    @cached_property
    def looks(self) -> list[Look]:
        """A look at each image."""
        names = self.of(Kind.IMAGE)
        return looks(self.inputs[names[0]]) if names else []

    @cached_property
    def drawn(self) -> np.ndarray:
        """Positions of the records that screens use: all with a target, or some of them."""
        known = np.arange(len(self))
        if self.target is not None:
            known = np.flatnonzero(self.target.notna().to_numpy())
        if len(known) <= DRAWN:
            return known
        return np.sort(np.random.default_rng(0).choice(known, DRAWN, replace=False))


def counted(values: pd.Series | np.ndarray, most: int = 10) -> dict[str, int]:
    """Count values, as evidence: the most frequent ones by name, and how many others there are.

    Args:
        values: Values (N,).
        most: Number of values that are named.

    Returns:
        Value -> how often it occurs.

    Example:
        >>> counted(np.array(["a", "b", "a", "c"], dtype=object), most=1)
        {'a': 2, 'others (2)': 2}
    """
    counts = pd.Series(values).value_counts()
    named = {str(value): int(n) for value, n in counts.iloc[:most].items()}
    if len(counts) > most:
        named[f"others ({len(counts) - most:,})"] = int(counts.iloc[most:].sum())
    return named


def as_floats(column: pd.Series) -> np.ndarray:
    """Return a column of numbers as float64, with NaN where a value is missing."""
    return column.to_numpy(dtype="float64", na_value=np.nan)


def kind_of_column(column: pd.Series, name: str, folder: Path | None = None) -> Kind:
    """Return the kind of a column by its values.

    Args:
        column: The column.
        name: Its name; "sequence" and the like help to recognise a few short sequences.
        folder: Folder to which paths of images are relative; None for the current one.

    Returns:
        The kind.

    Example:
        >>> kind_of_column(pd.Series(["MKTAYIAKQR", "GIGKFLHSAK"]), "peptide")
        <Kind.SEQUENCE: 'sequence'>
    """
    if types.is_datetime64_any_dtype(column):
        return Kind.DATE
    if types.is_bool_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype):
        return Kind.CATEGORY
    if types.is_numeric_dtype(column):
        return Kind.NUMBER
    values = column.dropna()
    words = values.iloc[:LOOKED_AT].tolist()
    if words and all(_is_image(word, folder) for word in words[:20]):
        return Kind.IMAGE
    if not all(isinstance(word, str) for word in words):
        return Kind.CATEGORY
    if _are_sequences(words, name):
        return Kind.SEQUENCE
    distinct = len(set(words))
    return Kind.CATEGORY if distinct <= max(FEW, len(words) / 4) else Kind.TEXT


def _is_image(value: Any, folder: Path | None) -> bool:
    if isinstance(value, str):
        if Path(value).suffix.lower() not in SUFFIXES:
            return False
        return (folder or Path()).joinpath(value).is_file()
    return isinstance(value, Path) or hasattr(value, "convert") or np.ndim(value) in (2, 3)


def _are_sequences(words: Sequence[str], name: str) -> bool:
    """Return whether most words are of residues, in upper case, and several are long."""
    named = any(part in name.lower() for part in SEQUENCE_NAMES)
    fit = [word for word in words if word.strip() and set(word.strip().upper()) <= RESIDUES]
    if len(fit) < 0.8 * len(words) or not fit:
        return False
    if named:
        return True
    upper = [word for word in fit if word.strip() == word.strip().upper()]
    long = np.median([len(word) for word in fit]) >= 8
    return len(upper) > 0.8 * len(fit) and long and len(set(fit)) >= min(20, 0.5 * len(words))


def read_words(
    column: pd.Series, name: str, decimal: str | None = None
) -> tuple[pd.Series, list[Finding]]:
    """Return a column of words with missing words as NaN, and numbers if most words are numbers.

    Args:
        column: Column of words.
        name: Its name.
        decimal: Decimal sign, or None for a point.

    Returns:
        The column; and findings on what was read.
    """
    codes, words = pd.factorize(column)
    texts = [str(word).strip() for word in words]
    kinds = {type(word).__name__ for word in words}
    absent = np.array([text.lower() in WORDS for text in texts], dtype=bool)
    numbers = [number(text, decimal or ".") for text in texts]
    wrong = [i for i, x in enumerate(numbers) if x is None and not absent[i]]
    found = []
    if len(kinds) > 1:
        found.append(
            warning(
                "mixed-types", repr(name), {"types": sorted(kinds)},
                f"Column {name!r} holds values of several types.",
                "Give them one type, so that 1 and '1' are not two values.",
            )
        )  # fmt: skip
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    if absent.any():
        rows = np.flatnonzero(np.append(absent, False)[codes])
        found.append(
            warning(
                "missing-words", repr(name),
                {"words": {texts[i]: counts[i] for i in np.flatnonzero(absent)},
                 "records": len(rows)},
                f"Words in column {name!r} mark missing values.",
                "They are explored as missing; name them in `missing` (kft finetune --missing) "
                "when you read the table.",
                rows,
            )
        )  # fmt: skip
    usable = len(texts) - int(absent.sum())
    if usable and len(wrong) <= 0.2 * usable:
        values = np.array([np.nan if x is None else x for x in numbers] + [np.nan])[codes]
        rows = np.flatnonzero(np.isin(codes, wrong))
        severe = {"numbers": int(np.isfinite(values).sum()), "other": [texts[i] for i in wrong]}
        found.append(
            warning(
                "numbers-as-text", repr(name), severe | {"records": len(rows)},
                f"Column {name!r} is text, but holds numbers"
                + (f", and {len(wrong):,} other words." if wrong else "."),
                "It is explored as numbers and other words as missing; correct these words or "
                "convert the column.",
                rows,
            )
        )  # fmt: skip
        return pd.Series(values, index=column.index), found
    if absent.any():
        column = column.mask(np.append(absent, False)[codes])
    return column, found
