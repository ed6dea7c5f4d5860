"""`prepare`: plans the steps, does one after the other, and keeps their record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pandas as pd

from kft.arguments import check_instance
from kft.data.dataset import Dataset
from kft.data.inputs import InputKind
from kft.data.rows import frame_of, records_of
from kft.data.task import Task
from kft.exploration.exploring import explore
from kft.exploration.findings import Findings
from kft.messages import shown
from kft.preparation.planning import plan
from kft.preparation.steps import ColumnStep, DoneStep, Preparation, RecordStep, Step


@dataclass(frozen=True, eq=False, repr=False)
class PreparedDataset(Dataset):
    """A data set that `kft.prepare` has made, with the record of the steps.

    Args:
        preparation: The steps that were done. The other arguments are those of `Dataset`.
    """

    preparation: Preparation = field(default_factory=lambda: Preparation(()))

    @property
    def steps(self) -> tuple[DoneStep, ...]:
        """The steps that were done, in order."""
        return self.preparation.steps

    def transform(self, new: Any) -> pd.DataFrame:
        """Prepare new rows in the same way, see `Preparation.transform`.

        Args:
            new: A pandas.DataFrame, the path of a table, a list of rows or a `Split`.
        """
        return self.preparation.transform(new)


def prepare(
    data: Dataset,
    findings: Findings | None = None,
    steps: Sequence[Step] | Mapping[str, Step] | None = None,
) -> PreparedDataset:
    """Prepare a data set by steps that learn from its training part alone.

    Args:
        data: A data set. It is not changed.
        findings: What `kft.explore(data)` found; the steps that answer it are done. None explores
            the data, unless there are `steps`.
        steps: The steps to do, see `kft.preparation`, in this order; or {reason: step}.

    Returns:
        A new data set. Its `steps` have for each step the reason, how many cells or records it
        has changed, and what it has learned; its `transform` prepares new rows in the same way;
        `preparation.left` names the findings that no step answers.

    Raises:
        TypeError: `data` is not a data set, or a step is none.
        ValueError: There are findings and steps, or a step cannot be done; the message names it.

    Example:
        >>> from kft.data import read_csv
        >>> from kft.preparation import Impute, SentinelToMissing
        >>> table = pd.DataFrame({"mass": [-999.0, 80, 90, 95] * 25, "jets": [0, 1, 2, 3] * 25})
        >>> table["y"] = table.jets > 1
        >>> data = read_csv(table, inputs=["mass", "jets"], target="y")
        >>> prepared = prepare(data, steps=[SentinelToMissing("mass", -999.0), Impute()])
        >>> [done.step.name for done in prepared.steps]
        ['sentinel to missing', 'missing values filled']
        >>> prepared.transform(pd.DataFrame({"mass": [-999.0], "jets": [0]})).iloc[0].tolist()
        [90.0, 0.0, 1.0]
    """
    if not isinstance(data, Dataset):
        raise TypeError(
            f"data must be a kft.data.Dataset, received a {type(data).__name__}: read it with "
            "kft.data.read_csv, read_fasta or read_images."
        )
    Task.named(data.task, "data.task")
    if findings is not None:
        check_instance("findings", findings, Findings, "what kft.explore returns")
    if findings is not None and steps is not None:
        raise ValueError("findings and steps are both given: leave one of them out.")
    left: tuple[str, ...] = ()
    if steps is not None:
        planned = _checked_steps(steps)
    else:
        planned, left = plan(data, explore(data) if findings is None else findings)
    return _Run(data).done(planned, left)


def _checked_steps(steps: Any) -> list[tuple[Step, str]]:
    """Return the steps with their reasons."""
    check_instance("steps", steps, (list, tuple, Mapping), "a list of steps, or {reason: step}")
    named = list(steps.items()) if isinstance(steps, Mapping) else [("", x) for x in steps]
    for reason, step in named:
        check_instance("steps", reason, str, "{reason: step} with reasons that are strings")
        if not isinstance(step, ColumnStep | RecordStep):
            raise TypeError(f"steps must hold steps of kft.preparation, received {shown(step)}.")
    return [(step, reason) for reason, step in named]


class _Run:
    """The work of one call of `prepare`."""

    def __init__(self, data: Dataset):
        self.data = data
        self.frames: dict[str, pd.DataFrame] | None = None  # inputs by part, between column steps
        self.before = getattr(data, "preparation", Preparation(()))
        self.columns = self.before.columns or _columns(data)

    def done(self, planned: Iterable[tuple[Step, str]], left: tuple[str, ...]) -> PreparedDataset:
        """Do the steps, and return the data set with their record."""
        record = list(self.before.steps)
        for step, reason in planned:
            if isinstance(step, ColumnStep):
                record.append(self._columns_changed(step, reason))
            elif isinstance(step, RecordStep):
                self._write_back()
                self.data, numbers = step.apply(self.data)
                record.append(DoneStep(step, reason, numbers))
        self._write_back()
        preparation = Preparation(tuple(record), self.columns, left)
        new = preparation.steps[len(self.before.steps) :]
        values = {
            one.name: getattr(self.data, one.name) for one in fields(Dataset) if one.name != "notes"
        }
        notes = (*self.data.notes, *(f"Prepared, {done}" for done in new))
        if left:
            notes += (f"No step of kft.prepare answers the findings {', '.join(left)}.",)
        return PreparedDataset(**values, notes=notes, preparation=preparation)

    def _columns_changed(self, step: ColumnStep, reason: str) -> DoneStep:
        """Fit a step on the training part, and change the inputs of all parts."""
        if self.data.input_kind is not InputKind.TABLE:
            raise ValueError(
                f"{step.name!r} changes columns of a table, but the inputs of {self.data.name} are "
                f"of the kind {self.data.input_kind}: leave it out."
            )
        if self.frames is None:
            self.frames = {name: frame_of(x.inputs) for name, x in self.data.splits.items()}
            kinds = self.frames["train"].dtypes
            self.frames = {name: frame.astype(kinds) for name, frame in self.frames.items()}
        fitted = step.fit(self.frames["train"])
        counts = {name: step.count(frame, fitted) for name, frame in self.frames.items()}
        self.frames = {n: step.transform(frame, fitted) for n, frame in self.frames.items()}
        numbers = {} if None in counts.values() else {"cells": counts}
        return DoneStep(step, reason, numbers, fitted)

    def _write_back(self) -> None:
        """Put the changed columns into the data set."""
        if self.frames is None:
            return
        parts: dict[str, Any] = {
            name: replace(part, inputs=records_of(self.frames[name]), input_kind=InputKind.TABLE)
            for name, part in self.data.splits.items()
        }
        self.data, self.frames = replace(self.data, **parts), None


def _columns(data: Dataset) -> dict[str, bool]:
    """Return {name: whether it holds categories} of the inputs; {} where they are no rows."""
    if data.input_kind is not InputKind.TABLE:
        return {}
    return {str(name): x.dtype == object for name, x in frame_of(data.train.inputs).items()}
