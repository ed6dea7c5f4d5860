"""The two data classes of every data set: `Split` (inputs with targets) and `Dataset`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np

from kft.arguments import check_weights
from kft.data.inputs import InputKind, kind_of, listed_inputs, residues_in
from kft.data.label_images import are_label_images, checked_label_images, count_objects
from kft.data.numbers import marks
from kft.data.sequences import (
    Pairs,
    Sequences,
    changes,
    checked,
    checked_pairs,
    normal,
    warn_of_changes,
)
from kft.data.target_transforms import TargetTransform
from kft.data.task import Task
from kft.messages import count_of, harmless


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Inputs and targets of one part of a data set, checked on construction.

    Args:
        inputs: List of N inputs: strings are sequences of residues, tuples of two strings pairs of
            these; arrays (height, width) or
            (height, width, channels), paths and PIL images are images; dicts of numbers and
            strings are rows of a table, as `frame.to_dict("records")` gives. Sequences are kept in
            upper case, without space around them and without a stop (*) at the end; a warning
            states how many were changed, and how many look like DNA.
        targets: Array of N targets: integers for classes, floats for measurements, 0 or 1 (N, K)
            for labels; a list of N arrays with one entry per residue; or, of images, a list of N
            label images (height, width) of integers: 0 is background, each object has a number.
        groups: Array of N group names, or None. Records of a group, such as near copies, are not
            separated by any split.
        masks: List of N boolean arrays with one entry per residue, or None. True marks a residue
            whose target is used, for instance one that is resolved in the structure. Where it is
            False the target may be missing (None, NaN, infinite or a negative class): it is kept
            as 0.
        parameters: Structured array (N,) of further properties of each record, or None;
            `pandas.DataFrame(split.parameters)` makes a table of it.
        input_kind: Kind of the inputs, see `kft.data.inputs.InputKind`; None finds it from their
            types.
        weights: Array of N numbers of at least 0, or None: how much each record counts in the
            loss and in scores.
        lines: Array of N lines or rows of the file that the records were read from, or None.

    Raises:
        ValueError: Lengths differ; a weight is negative or NaN; a target that is used is missing,
            NaN or infinite; or targets of residues without masks contain a mark of missing values,
            such as 999.
        TypeError: An input is None or a number.

    Example:
        >>> split = Split(["MKTAYI", "GIGKFL"], [0, 1])
        >>> len(split), split.input_kind, split.take([1]).inputs
        (2, 'sequence', ['GIGKFL'])
    """

    inputs: list
    targets: np.ndarray | list[np.ndarray]
    groups: np.ndarray | None = None
    masks: list[np.ndarray] | None = None
    parameters: np.ndarray | None = None
    input_kind: InputKind = None  # type: ignore[assignment]  # found in __post_init__
    weights: np.ndarray | None = None
    lines: np.ndarray | None = None

    def __post_init__(self) -> None:
        inputs = _as_inputs(self.inputs)
        if self.targets is None:
            raise TypeError("`targets` is None; give one per input.")
        kind = kind_of(inputs) if self.input_kind is None else InputKind(self.input_kind)
        columns: dict[str, Any] = {"inputs": inputs, "targets": _as_targets(self.targets)}
        if kind is InputKind.IMAGE and getattr(columns["targets"], "ndim", 0) == 3:
            columns["targets"] = list(columns["targets"])  # label images of one size
        per_pixel = kind is InputKind.IMAGE and are_label_images(columns["targets"])
        if self.groups is not None:
            columns["groups"] = np.asarray(self.groups)
        if self.masks is not None:
            columns["masks"] = [np.asarray(mask, dtype=bool) for mask in self.masks]
        if self.parameters is not None:
            columns["parameters"] = np.asarray(self.parameters)
        if self.weights is not None:
            columns["weights"] = check_weights("`weights`", self.weights, len(inputs))
        if self.lines is not None:
            columns["lines"] = np.asarray(self.lines)
        for name, column in columns.items():
            if isinstance(column, np.ndarray) and not column.ndim:
                raise TypeError(
                    f"`{name}` must hold one entry per input, received {column.item()!r}."
                )
            if len(column) != len(inputs):
                raise ValueError(
                    f"`{name}` has {len(column)} entries but `inputs` has {len(inputs)}; give "
                    "exactly one per input."
                )
        if per_pixel:
            columns["targets"] = checked_label_images(columns["targets"], inputs)
        elif isinstance(columns["targets"], list):
            _check_residues("targets", columns["targets"], inputs)
        if self.masks is not None:
            _check_residues("masks", columns["masks"], inputs)
        if not per_pixel:
            columns["targets"] = _checked_targets(columns["targets"], columns.get("masks"))
        for name, column in {**columns, "input_kind": kind}.items():
            object.__setattr__(self, name, column)  # how a frozen dataclass sets its own fields

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        if not self.inputs:
            return "Split(0 records)"
        if self.input_kind is InputKind.IMAGE:
            return f"Split({count_of(len(self), 'image')}{_describe_sizes(self.inputs)})"
        if self.input_kind is InputKind.TABLE:
            return (
                f"Split({count_of(len(self), 'row')} of {count_of(len(self.inputs[0]), 'column')})"
            )
        if not self.input_kind.has_length:
            return f"Split({count_of(len(self), 'record')})"
        lengths = [residues_in(x) for x in self.inputs]
        kind = "pair" if self.input_kind is InputKind.PAIR else "record"
        return f"Split({count_of(len(self), kind)}, input lengths {min(lengths)} to {max(lengths)})"

    def take(self, indices: Sequence[int] | np.ndarray) -> Split:
        """Return a new split with the records at these positions, in this order.

        Args:
            indices: Integers (n,), positions from 0.

        Returns:
            Split: n records.

        Raises:
            IndexError: A position is out of range.
            TypeError: `indices` are not integers.

        Example:
            >>> Split(["AC", "DE", "FG"], [1.0, 2.0, 3.0]).take([2, 0]).inputs
            ['FG', 'AC']
        """
        indices = np.asarray(indices)
        if indices.size and indices.dtype.kind not in "iu":
            raise TypeError(
                f"`indices` must be integers, received {indices.dtype}; turn a boolean mask into "
                "positions with numpy.flatnonzero."
            )

        def pick(column: Any) -> Any:
            if column is None or isinstance(column, np.ndarray):
                return column if column is None else column[indices.astype(int)]
            return type(column)([column[i] for i in indices])

        return Split(
            inputs=pick(self.inputs),
            targets=pick(self.targets),
            groups=pick(self.groups),
            masks=pick(self.masks),
            parameters=pick(self.parameters),
            input_kind=self.input_kind,
            weights=pick(self.weights),
            lines=pick(self.lines),
        )


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set: its parts, and what is needed to cite and reproduce it.

    Args:
        name: Short name.
        task: What is predicted, a `kft.data.task.Task` or its name: "classification" (integer
            targets), "multilabel" (0 or 1, one column per label), "regression" (floats),
            "residue_classification" (a list of integer arrays), "residue_regression" (a list of
            arrays of numbers) or "segmentation" (a list of label images, see `Segmentation`).
        train: Split.
        valid: Split, or None if the data was not split.
        test: Split, or None if the data was not split.
        source: Where the data comes from, a path or an address.
        licence: Under what terms it may be used.
        citation: The papers to cite.
        checksum: sha256 of the file that was read, in hexadecimal.
        classes: Names of the classes in the order of the integer targets, or of the labels in the
            order of their columns; None for regressions.
        notes: Sentences on how it was split, and on what was removed or changed.
        variable_positions: Positions from 0 at which the sequences differ, for a library of
            mutants of one protein; else None.
        value_range: (black, white) of images of 16 bits, as the training part uses them; else None.
        target: Name of what is predicted, such as the column of a table; None if it has none.
        class_weight: Weight of each class in the loss, which `kft.fit` uses; None for equal ones.
        target_transform: Function of the targets that was applied to them, which `kft.predict`,
            `kft.evaluate` and `kft.compare` undo; None if they are as they were measured.
        wild_type: Sequence of the protein whose mutants the data are, see `kft.crossover`; None for
            other data.

    Raises:
        ValueError: The task is unknown, or targets and task do not fit together.

    Example:
        >>> part = Split(["MKTAYI", "GIGKFL"], [0, 1])
        >>> toy = Dataset("toy", "classification", part, None, None, source="typed in",
        ...               licence="none", citation="", checksum="", classes=("no", "yes"))
        >>> len(toy.train), toy.task, toy.input_kind
        (2, 'classification', 'sequence')
    """

    name: str
    task: Task
    train: Split
    valid: Split | None
    test: Split | None
    source: str
    licence: str
    citation: str
    checksum: str
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    variable_positions: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None
    target: str | None = None
    class_weight: tuple[float, ...] | None = None
    target_transform: TargetTransform | None = None
    wild_type: str | None = None

    def __post_init__(self) -> None:
        task = Task.named(self.task, "`task`", Task)
        object.__setattr__(self, "task", task)
        if (self.classes is not None) != task.has_classes:
            raise ValueError(
                f"`classes` is {self.classes!r} but `task` is {task!r}; name the classes of a "
                "classification or the labels of a multilabel task, and leave `classes` out of a "
                "regression."
            )
        for name, split in self.splits.items():
            self._check_fit(name, split)

    @property
    def splits(self) -> dict[str, Split]:
        """The parts that exist, by name, in the order train, valid, test."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in parts.items() if split is not None}

    @property
    def input_kind(self) -> InputKind:
        """What the inputs are: those of the first part that has any."""
        parts = self.splits.values()
        return next((part.input_kind for part in parts if len(part)), self.train.input_kind)

    def as_measured(self, values: Any) -> Any:
        """Return targets or predictions in the unit in which the targets were measured.

        Args:
            values: Numbers (N,) or (N, K) in the unit of the targets of the splits.

        Returns:
            The numbers without `target_transform`; the same object if there is none.
        """
        return values if self.target_transform is None else self.target_transform.inverse(values)

    def _check_fit(self, name: str, split: Split) -> None:
        several = isinstance(split.targets, list)
        per_pixel = are_label_images(split.targets)
        level = "pixel" if per_pixel else "residue" if several else "record"
        if len(split) and level != self.task.level:
            raise ValueError(
                f"`{name}` has one target per {level}, which does not fit `task` {self.task!r}."
            )
        targets: Any = np.concatenate(split.targets) if level == "residue" else split.targets
        if self.classes is None or not len(targets):
            return
        if targets.dtype.kind not in "iu":
            raise ValueError(
                f"`{name}` holds {targets.dtype} targets; {self.task} needs integers, "
                + ("0 or 1." if self.task.target == "labels" else "the positions in `classes`.")
            )
        if self.task.target == "labels":
            _check_labels(name, targets, self.classes)
        elif targets.min() < 0 or targets.max() >= len(self.classes):
            raise ValueError(
                f"`{name}` holds targets from {targets.min()} to {targets.max()}, but `classes` "
                f"names {len(self.classes)} classes, numbered from 0."
            )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in self.splits.items())
        rows = [("task", self.task), ("records", sizes)]
        if self.task.level == "pixel":
            counts = {
                name: count_objects(list(split.targets)) for name, split in self.splits.items()
            }
            rows.append(("objects", ", ".join(f"{k} {n:,}" for k, n in counts.items())))
        if self.classes is not None:
            rows.append((self.task.outputs_are, ", ".join(self.classes)))
        if self.variable_positions is not None:
            rows.append(("varies at", ", ".join(map(str, self.variable_positions))))
        if self.value_range is not None:
            rows.append(("16 bits", "black at {:,g}, white at {:,g}".format(*self.value_range)))
        rows += [("source", self.source), ("licence", self.licence), ("cite", self.citation)]
        rows += [("note", note) for note in self.notes]
        lines = [f"  {key:<10}{value}" for key, value in rows if value]
        return harmless("\n".join([f"Dataset {self.name}", *lines]), keep="\n")


def _check_labels(name: str, targets: np.ndarray, labels: tuple[str, ...]) -> None:
    if targets.ndim != 2 or targets.shape[1] != len(labels):
        raise ValueError(
            f"`{name}` holds targets of shape {targets.shape}, but `classes` names {len(labels)} "
            f"labels; give an array (records, {len(labels)}) of 0 and 1."
        )
    if targets.min() < 0 or targets.max() > 1:
        raise ValueError(
            f"`{name}` holds targets from {targets.min()} to {targets.max()}; a label is 0 or 1."
        )


def _describe_sizes(images: list) -> str:
    """Describe the sizes of images in memory, as width x height; files are not opened."""
    if isinstance(images[0], os.PathLike):
        return f" in files, the first {harmless(Path(images[0]).name)}"
    # PIL gives (width, height), an array (height, width, ...)
    sizes = {
        tuple(x.shape[1::-1]) if isinstance(x, np.ndarray) else tuple(getattr(x, "size", ()))
        for x in images
    }
    if not all(len(size) == 2 for size in sizes):
        return ""
    (least, *_), most = sorted(sizes, key=np.prod), max(sizes, key=np.prod)
    several = f" to {most[0]} x {most[1]}" if len(sizes) > 1 else ""
    return f" of {least[0]} x {least[1]}{several} pixels"


def _as_inputs(inputs: Any) -> list:
    """Return inputs as a list; sequences in normal form, with a warning of what was changed."""
    if isinstance(inputs, Sequences | Pairs):
        return inputs
    inputs = list(listed_inputs(inputs))
    for i, x in enumerate(inputs):
        if x is None or isinstance(x, Number):
            raise TypeError(
                f"`inputs` of record {i} is {x!r}; expected a sequence or an image. Leave the "
                "record out."
            )
    kind = kind_of(inputs)
    if kind is InputKind.PAIR:
        pairs = checked_pairs(inputs, "inputs")
        both = [sequence for pair in pairs for sequence in pair]
        warn_of_changes(changes(both), len(both))
        return Pairs((normal(first), normal(second)) for first, second in pairs)
    if kind is not InputKind.SEQUENCE:
        return inputs
    inputs = checked(inputs, "inputs")
    warn_of_changes(changes(inputs), len(inputs))
    return Sequences(map(normal, inputs))


def _as_targets(targets: Any) -> np.ndarray | list[np.ndarray]:
    """Return one array, or a list of arrays if each record has a target per residue."""
    if isinstance(targets, (list, tuple)):
        targets = list(targets)
        if targets and isinstance(targets[0], (list, tuple, np.ndarray)):
            return [_as_row(row) for row in targets]
    return np.asarray(targets)


def _as_row(row: Any) -> np.ndarray:
    """Return the targets of one record; numbers with None among them become floats with NaN."""
    row = np.asarray(row)
    if row.dtype == object and all(x is None or isinstance(x, Number) for x in row.flat):
        return row.astype("float64")
    return row


def _checked_targets(targets: Any, masks: list[np.ndarray] | None) -> Any:
    """Raise an error for missing targets, which would turn the loss into NaN many steps later.

    Returns the targets, with 0 for those that are missing where the mask is False.
    """
    if not isinstance(targets, list):
        missing = [i for i, target in enumerate(targets) if _missing(target).any()]
        if missing:
            raise ValueError(
                f"`targets` of record {missing[0]} is {targets[missing[0]]}{_and_more(missing)}; "
                "remove the record or give it a value."
            )
        return targets
    if masks is not None:
        targets = [_without_missing(*pair) for pair in zip(targets, masks, strict=True)]
    marked = [(i, _missing(row)) for i, row in enumerate(targets)]
    marked = [(i, at) for i, at in marked if at.any()]
    if marked:
        i, at = marked[0]
        position = int(np.argmax(at.reshape(len(at), -1).any(axis=1)))
        raise ValueError(
            f"`targets` of record {i} is {targets[i][position]} at residue {position + 1} "
            f"({int(at.sum())} of its {at.size} are missing{_and_more(marked)}); give values, or "
            "mark such residues False in `masks`."
        )
    if masks is None and targets:
        _refuse_marks(targets)
    return targets


def _and_more(records: Sequence[Any]) -> str:
    return f", as in {len(records) - 1:,} more" * (len(records) > 1)


def _refuse_marks(targets: Sequence[np.ndarray]) -> None:
    """Raise an error for a number such as 999, far from all others, that marks missing targets."""
    if not all(row.dtype.kind in "iuf" for row in targets):
        return
    values = np.concatenate([row.reshape(-1) for row in targets])
    for mark, count in marks(values).items():
        raise ValueError(
            f"`targets` holds {mark:g} at {count:,} of {len(values):,} residues, far from all "
            "other values, which looks like a mark of missing ones and would be learned. Mark "
            f"these residues False: masks=[row != {mark:g} for row in targets]; masks that are "
            "all True say that it is a value."
        )


def _without_missing(row: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the row with 0 for missing targets where the mask is False.

    Negative classes (-1, -100) mark missing targets, too.
    """
    masked = (~mask).reshape(len(mask), *(1 for _ in row.shape[1:]))
    missing = _missing(row) | (row < 0 if row.dtype.kind == "i" else False)
    return np.where(masked & missing, np.zeros((), row.dtype), row) if missing.any() else row


def _missing(target: Any) -> np.ndarray:
    """Return a bool array: True for None, NaN and infinity."""
    array = np.asarray(target)
    if array.dtype.kind == "O":
        missing = [x is None or (isinstance(x, float) and not np.isfinite(x)) for x in array.flat]
        return np.array(missing, dtype=bool).reshape(array.shape)
    if array.dtype.kind == "f":
        return ~np.isfinite(array)
    return np.zeros(array.shape, dtype=bool)


def _check_residues(name: str, rows: Sequence[Any], inputs: Sequence[Any]) -> None:
    for i, (row, residues) in enumerate(zip(rows, inputs, strict=True)):
        if np.ndim(row) == 0 or len(row) != len(residues):
            received = len(row) if np.ndim(row) else f"{row!r:.40}"
            raise ValueError(
                f"`{name}` of record {i} has {received} entries but its input has "
                f"{len(residues)} residues; give exactly one per residue (a stop at the end is "
                "none)."
            )
