"""Steps that change the records, splits and targets of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from kft.data.dataset import Dataset, Split
from kft.data.inputs import InputKind
from kft.data.splits import FRACTIONS, PARTS, cluster_split, group_split, random_split
from kft.data.tables import SPELLINGS
from kft.data.target_transforms import TargetTransform
from kft.exploration.duplicates import keys_of
from kft.exploration.reading import records_of
from kft.preparation.steps import RecordStep

FIRST_KEPT = ("test", "valid", "train")  # of copies in several parts


@dataclass(frozen=True)
class DropConflicts(RecordStep):
    """Leave out records whose equal inputs have different targets, in all parts.

    Example:
        `kft.prepare(data, steps=[DropConflicts()])`
    """

    name: ClassVar = "conflicting labels left out"

    def apply(self, data: Dataset) -> tuple[Dataset, dict[str, Any]]:
        keys, values = _keys(data), _target_codes(data)
        several = pd.Series(values).groupby(keys).transform("nunique").to_numpy() > 1
        return _kept(data, ~(several & (keys >= 0)))


@dataclass(frozen=True)
class DropDuplicates(RecordStep):
    """Keep one of the records with equal inputs: that of the test, else of the validation part.

    Numbers to predict are averaged over the copies in the part in which one is kept, by the weights
    of the records if they have any. The record that is kept has the mean weight of these copies.

    Example:
        `kft.prepare(data, steps=[DropDuplicates()])`
    """

    name: ClassVar = "duplicates left out"

    def apply(self, data: Dataset) -> tuple[Dataset, dict[str, Any]]:
        keys, parts = _keys(data), _parts(data)
        rank = np.array([FIRST_KEPT.index(part) for part in parts])
        order = np.argsort(rank, kind="stable")
        kept = np.ones(len(keys), dtype=bool)
        kept[order] = ~pd.Series(keys[order]).duplicated().to_numpy() | (keys[order] < 0)
        return _kept(_with_means(data, keys, parts), kept)


@dataclass(frozen=True)
class DropTargets(RecordStep):
    """Leave out records whose target is a mark of a missing one, such as -999.

    Args:
        value: The number that is the mark.
    """

    name: ClassVar = "records without a target left out"
    value: float

    def apply(self, data: Dataset) -> tuple[Dataset, dict[str, Any]]:
        if data.task != "regression":
            raise ValueError(f"{self.name} is for numbers to predict; the task is {data.task!r}.")
        marked = [np.equal(part.targets, self.value) for part in data.splits.values()]
        return _kept(data, ~np.concatenate([x.reshape(len(x), -1).any(axis=1) for x in marked]))


@dataclass(frozen=True)
class Resplit(RecordStep):
    """Split all records again, as `kft.data.read_csv` does; classes are stratified.

    Args:
        split: "random"; "group": records of one group stay together; "cluster": near copies of
            sequences do; or a column of the inputs that names train, valid or test, which is then
            no input any more.
        groups: Column of the inputs that names the groups, which is then no input any more; None
            for the groups of the data set.
        fractions: Fractions of train, valid and test.
        seed: Integer.
    """

    name: ClassVar = "split again"
    split: str = "random"
    groups: str | None = None
    fractions: tuple[float, float, float] = FRACTIONS
    seed: int = 0

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(x for x in (self.groups, self.split) if x is not None and x not in _WAYS)

    def apply(self, data: Dataset) -> tuple[Dataset, dict[str, Any]]:
        everything = _joined(data)
        for column in self.left_out:
            _check_column(everything, column)
        if self.groups is not None:
            names = np.array([str(row[self.groups]) for row in everything.inputs])
            everything = replace(everything, groups=names)
        parts, everything = self._positions(data, everything)
        if self.left_out:
            rows = [
                {name: value for name, value in row.items() if name not in self.left_out}
                for row in everything.inputs
            ]
            everything = replace(everything, inputs=rows)
        splits: dict[str, Any] = {name: everything.take(at) for name, at in parts.items()}
        numbers = {name: len(at) for name, at in parts.items()}
        return replace(data, **splits), {"records": numbers, "by": self.split}

    def _positions(self, data: Dataset, everything: Split) -> tuple[dict[str, Any], Split]:
        """Return the positions of the records of each part, and the records with their groups."""
        classes = data.task.has_classes and not data.task.per_residue
        strata: Any = everything.targets if classes else None
        if self.split == "random":
            at = random_split(len(everything), self.fractions, self.seed, strata)
            return at, everything
        if self.split == "cluster":
            if data.input_kind is not InputKind.SEQUENCE:
                raise ValueError("split='cluster' is for sequences: use 'group' or 'random'.")
            at, clusters = cluster_split(everything.inputs, self.fractions, self.seed, strata)
            return at, replace(everything, groups=clusters)
        if self.split == "group":
            if everything.groups is None:
                raise ValueError("split='group' needs groups: name their column as `groups`.")
            return group_split(everything.groups, self.fractions, self.seed, strata), everything
        words = [str(row[self.split]).strip().lower() for row in everything.inputs]
        named = np.array([SPELLINGS.get(word, word) for word in words])
        wrong = sorted(set(named.tolist()) - set(PARTS))
        if wrong:
            raise ValueError(
                f"split column {self.split!r} holds {wrong[0]!r}; expected train, valid or test."
            )
        return {part: np.flatnonzero(named == part) for part in PARTS}, everything


_WAYS = ("random", "group", "cluster")


@dataclass(frozen=True)
class WeightClasses(RecordStep):
    """Weigh the classes in the loss so that each has the same total in the training part.

    The weights are those of scikit-learn's "balanced"; `kft.fit` uses them. Records with weights of
    their own count by these, with which the weight of their class is multiplied.
    """

    name: ClassVar = "classes weighted"

    def apply(self, data: Dataset) -> tuple[Dataset, dict[str, Any]]:
        if data.task.target != "class" or data.classes is None:
            raise ValueError(f"{self.name} is for one class per record; the task is {data.task!r}.")
        targets: Any = data.train.targets
        each: Any = data.train.weights
        if data.task.per_residue:
            masks = data.train.masks or [np.ones(len(row), dtype=bool) for row in targets]
            targets = np.concatenate([row[m] for row, m in zip(targets, masks, strict=True)])
            each = None if each is None else np.repeat(each, [int(m.sum()) for m in masks])
        counts = np.bincount(targets, each, minlength=len(data.classes))
        if not counts.all():
            absent = data.classes[int(np.argmin(counts))]
            what = "record" if each is None else "record with a weight above 0"
            raise ValueError(
                f"class {absent!r} has no {what} in the training part: split again, stratified, "
                "with kft.preparation.Resplit()."
            )
        weights = tuple((counts.sum() / (len(counts) * counts)).tolist())
        numbers = {"weights": dict(zip(data.classes, weights, strict=True))}
        return replace(data, class_weight=weights), numbers


@dataclass(frozen=True)
class TransformTarget(RecordStep):
    """Change numbers to predict by a function that predictions and scores undo.

    Args:
        kind: "log", "log1p" or "standardize", see `kft.data.target_transforms`.
    """

    name: ClassVar = "target transformed"
    kind: str = "log1p"

    def apply(self, data: Dataset) -> tuple[Dataset, dict[str, Any]]:
        if data.task != "regression":
            raise ValueError(f"{self.name} is for regressions; the task is {data.task!r}.")
        if data.target_transform is not None:
            raise ValueError(
                f"{self.name}: the targets are changed by {data.target_transform.kind!r} already."
            )
        transform = TargetTransform.fitted(self.kind, np.asarray(data.train.targets))
        parts: dict[str, Any] = {
            name: replace(part, targets=transform.forward(part.targets))
            for name, part in data.splits.items()
        }
        return replace(data, **parts, target_transform=transform), {"by": self.kind}


# Records of all parts, in the order train, valid, test --------------------------------------------


def _joined(data: Dataset) -> Split:
    """Return the records of all parts in one."""
    parts = list(data.splits.values())

    def all_of(name: str) -> Any:
        columns = [getattr(part, name) for part in parts]
        if any(column is None for column in columns):
            return None
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)
        return type(columns[0])([x for column in columns for x in column])

    fields = ("inputs", "targets", "groups", "masks", "parameters", "weights")
    return Split(**{name: all_of(name) for name in fields}, input_kind=data.input_kind)


def _parts(data: Dataset) -> np.ndarray:
    """Return the name of the part of each record."""
    return np.repeat(list(data.splits), [len(part) for part in data.splits.values()])


def _keys(data: Dataset) -> np.ndarray:
    """Return a number per record that is equal for equal inputs; -1 for what cannot be compared."""
    keys = keys_of(records_of(data, None, None, None, None, None, None))
    if keys is None:
        return np.full(sum(map(len, data.splits.values())), -1)
    return pd.factorize(np.asarray(keys))[0]


def _target_codes(data: Dataset) -> np.ndarray:
    """Return a number per record that is equal for equal targets."""
    rows = [np.asarray(x).tobytes() for part in data.splits.values() for x in part.targets]
    return pd.factorize(np.array(rows, dtype=object))[0]


def _kept(data: Dataset, kept: np.ndarray) -> tuple[Dataset, dict[str, Any]]:
    """Return a data set with some of its records, and how many of each part are left out."""
    changed: dict[str, Any] = {}
    numbers, start = {}, 0
    for name, part in data.splits.items():
        mask = kept[start : start + len(part)]
        start += len(part)
        if not mask.any():
            raise ValueError(f"No record of {name} would be left; look at the data first.")
        if not mask.all():
            numbers[name] = int((~mask).sum())
            changed[name] = part.take(np.flatnonzero(mask))
    return replace(data, **changed), {"records": numbers or 0}


def _with_means(data: Dataset, keys: np.ndarray, parts: np.ndarray) -> Dataset:
    """Return a data set in which equal inputs of one part have the mean of numbers and weights."""
    changed: dict[str, Any] = {}
    for name, part in data.splits.items():
        own = keys[parts == name]
        groups = np.where(own < 0, own - np.arange(len(own)), own)  # what is not compared is alone
        new: dict[str, Any] = {}
        weights = np.ones(len(own))
        if part.weights is not None:
            weights = np.asarray(part.weights, dtype="float64")
            new["weights"] = _mean_of(groups, weights)
        if data.task == "regression":
            # Copies that have no weight at all count alike.
            weights = np.where(_mean_of(groups, weights) > 0, weights, 1.0)
            targets = np.asarray(part.targets, dtype="float64")
            means = _mean_of(groups, weights[:, None] * targets.reshape(len(own), -1))
            means = (means / _mean_of(groups, weights)[:, None]).reshape(targets.shape)
            alone = ~pd.Series(groups).duplicated(keep=False).to_numpy()
            means[alone] = targets[alone]  # without rounding
            new["targets"] = means
        changed[name] = replace(part, **new) if new else part
    return replace(data, **changed)


def _mean_of(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return for each record the mean of the values (N,) or (N, K) of its group."""
    return pd.DataFrame(values).groupby(groups).transform("mean").to_numpy().reshape(values.shape)


def _check_column(records: Split, column: str) -> None:
    columns: Sequence[str] = (
        list(records.inputs[0]) if records.input_kind is InputKind.TABLE else []
    )
    if column not in columns:
        raise ValueError(
            f"{column!r} is not among the columns of the inputs ({', '.join(columns) or 'none'}); "
            "`split` must be 'random', 'group', 'cluster' or a column of parts."
        )
