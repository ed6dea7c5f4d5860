"""Steps of a preparation, and the record of those that were done.

To add a step, derive a frozen dataclass from `ColumnStep` or `RecordStep` and give it a `name`. Its
fields, and what `fit` returns, must be values that JSON can hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from kft.data.cells import Table
from kft.data.dataset import Dataset
from kft.data.rows import frame_of, read_rows
from kft.data.spreadsheets import is_frame
from kft.files import atomic_write
from kft.messages import listed

STEPS: dict[str, type[Step]] = {}


@dataclass(frozen=True)
class Step:
    """Base class of steps; a subclass that has a `name` is found by it in stored preparations."""

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if cls.name:
            STEPS[cls.name] = cls

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns that are no inputs after the step, and that new data need not have."""
        return ()


class ColumnStep(Step):
    """A step that changes columns of a table, in a data set and in new data alike."""

    def fit(self, train: pd.DataFrame) -> dict[str, Any]:
        """Return what the step needs to know, from the training part alone.

        Args:
            train: Inputs of the training part.
        """
        return {}

    def transform(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> pd.DataFrame:
        """Return changed columns.

        Args:
            frame: Inputs, those of a part of the data set or new ones.
            fitted: What `fit` has returned.
        """
        raise NotImplementedError

    def count(self, frame: pd.DataFrame, fitted: Mapping[str, Any]) -> int | None:
        """Return how many cells of a part the step changes; None where that says nothing."""
        return None


class RecordStep(Step):
    """A step that changes records, splits or targets of a data set; new data have none of them."""

    def apply(self, data: Dataset) -> tuple[Dataset, dict[str, Any]]:
        """Return the changed data set, and numbers for the record.

        Args:
            data: The data set.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class DoneStep:
    """A step that was done.

    Args:
        step: The step.
        reason: Why it was done, such as what a finding means.
        numbers: How many cells or records it has changed, by name.
        fitted: What it has learned from the training part, such as medians.
    """

    step: Step
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    fitted: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        numbers = [f"{name} {_short(value)}" for name, value in self.numbers.items()]
        return f"{self.step.name}: {', '.join(numbers) or 'done'}. {self.reason}".strip()

    def to_dict(self) -> dict[str, Any]:
        """Return the step as plain values."""
        return {
            "step": self.step.name,
            "arguments": asdict(self.step),
            "reason": self.reason,
            "numbers": dict(self.numbers),
            "fitted": dict(self.fitted),
        }


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(x)}" for key, x in value.items())
    if isinstance(value, list | tuple):
        return f"({listed(map(_short, value))})"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class Preparation:
    """The steps that were done, which do the same with new data; printing shows a line for each.

    Args:
        steps: The steps in order.
        columns: Name of each column of the inputs -> whether it holds categories; empty where
            inputs are no rows of a table.
        left: Codes of findings, of a warning or worse, for which no step is done.

    Example:
        >>> print(Preparation(steps=()))
        No step was done.
    """

    steps: tuple[DoneStep, ...]
    columns: Mapping[str, bool] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{i}. {done}" for i, done in enumerate(self.steps, start=1)]
        if self.left:
            lines.append(f"Left to you, as no step answers them: {', '.join(self.left)}.")
        return "\n".join(lines) or "No step was done."

    def transform(self, new: Any) -> pd.DataFrame:
        """Prepare new rows as the data set was prepared.

        Args:
            new: A pandas.DataFrame, the path of a table, a list of rows, or a `kft.data.Split`,
                with the columns of the inputs; others, such as the target, are left out.

        Returns:
            The rows that `kft.predict` takes, one per row of `new`, with its index.

        Raises:
            ValueError: The inputs of the data set were no rows of a table, or a column is not
                there.
        """
        if not self.columns:
            raise ValueError(
                "transform is for rows of a table; sequences and images are given to kft.predict "
                "as they are."
            )
        frame = self._read(new)
        for done in self.steps:
            if isinstance(done.step, ColumnStep):
                frame = done.step.transform(frame, done.fitted)
        return frame.drop(columns=list(self._left_out), errors="ignore")

    @property
    def _left_out(self) -> set[str]:
        return {name for done in self.steps for name in done.step.left_out}

    def _read(self, new: Any) -> pd.DataFrame:
        """Return the columns of the inputs, numbers as float64 and categories as strings."""
        index = new.index if is_frame(new) else None
        if not (is_frame(new) or isinstance(new, str | PathLike)):
            new = pd.DataFrame(list(getattr(new, "inputs", new)))
        categories = [name for name, category in self.columns.items() if category]
        numbers = [name for name, category in self.columns.items() if not category]
        table = Table(new, None)
        used = [x for x in self.columns if x in table.header or x not in self._left_out]
        frame = frame_of(read_rows(table, used, categories, numbers))
        frame = frame.reindex(columns=list(self.columns))
        frame = frame.astype(dict.fromkeys(categories, "object"))
        return frame if index is None else frame.set_index(index)

    def to_json(self) -> str:
        """Return the preparation as JSON, from which `load` makes it again."""
        content = {
            "columns": dict(self.columns),
            "steps": [done.to_dict() for done in self.steps],
            "left": list(self.left),
        }
        return json.dumps(content, indent=1, allow_nan=False)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the preparation to a file, for new data in another program.

        Args:
            path: Path of a .json file.

        Returns:
            The path.
        """
        with atomic_write(Path(path)) as stream:
            stream.write(self.to_json().encode())
        return Path(path)


def load(path: str | PathLike[str]) -> Preparation:
    """Read a preparation that `Preparation.save` has written.

    Args:
        path: Path of the file.

    Returns:
        The preparation.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or names a step that is not known.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        steps = tuple(_read_step(entry) for entry in content["steps"])
        return Preparation(steps, content["columns"], tuple(content["left"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no preparation of kft: {error}.") from error


def _read_step(entry: Mapping[str, Any]) -> DoneStep:
    if entry["step"] not in STEPS:
        raise ValueError(f"step {entry['step']!r} is none of {listed(STEPS, None)}")
    arguments = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in entry["arguments"].items()
    }
    step = STEPS[entry["step"]](**arguments)
    return DoneStep(step, entry["reason"], entry["numbers"], entry["fitted"])


def as_names(columns: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Return names of columns as a tuple; one name may be given alone."""
    if columns is None:
        return None
    return (columns,) if isinstance(columns, str) else tuple(columns)


def check_columns(frame: pd.DataFrame, columns: Sequence[str], step: str) -> None:
    """Raise an error for a column that is not there.

    Args:
        frame: The inputs.
        columns: Names of columns.
        step: Name of the step, for the error.
    """
    for name in columns:
        if name not in frame:
            raise ValueError(
                f"{step} names column {name!r}, which is not among the inputs: "
                f"{listed(frame.columns, 20)}."
            )
