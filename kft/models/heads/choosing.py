"""The head that fits a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kft.data.task import Task
from kft.models.heads.base import Head
from kft.models.heads.record import Classification, MultiLabel, Regression
from kft.models.heads.residue import ResidueClassification, ResidueRegression


def for_data(data: Any, pooling: str = "mean") -> Head:
    """Build the head that fits a data set.

    Args:
        data: A `kft.data.Dataset`, or an object with its `task`, `classes` and `train`. A head for
            regression gets the mean and standard deviation of the training targets, without
            those that a mask excludes.
        pooling: See `Pooling`; for tasks with one target per record.

    Returns:
        A new head, chosen by `data.task`.

    Raises:
        ValueError: The task or pooling is unknown, or all targets are the same.

    Example:
        >>> from kft.data import load
        >>> for_data(load("amp")).classes
        2
    """
    return MAKERS[Task.named(data.task, "data.task")](data, pooling)


def _scale(targets: Any) -> dict[str, Any]:
    """Return the number of targets, and the mean and standard deviation of each."""
    targets = np.asarray(targets, dtype="float64")
    mean, std = targets.mean(axis=0), targets.std(axis=0)
    return {"targets": np.size(mean), "mean": mean.tolist(), "std": std.tolist()}


def _unmasked(split: Any) -> np.ndarray:
    """Return the targets of all residues that the masks mark, in one array."""
    rows, masks = split.targets, getattr(split, "masks", None)
    if masks is not None:
        rows = [row[mask] for row, mask in zip(rows, masks, strict=True)]
    return np.concatenate(rows)


MAKERS: dict[Task, Callable[[Any, str], Head]] = {
    Task.CLASSIFICATION: lambda data, pooling: Classification(len(data.classes), pooling),
    Task.MULTILABEL: lambda data, pooling: MultiLabel(np.shape(data.train.targets)[1], pooling),
    Task.REGRESSION: lambda data, pooling: Regression(
        **_scale(data.train.targets), pooling=pooling
    ),
    Task.RESIDUE_CLASSIFICATION: lambda data, _: ResidueClassification(len(data.classes)),
    Task.RESIDUE_REGRESSION: lambda data, _: ResidueRegression(**_scale(_unmasked(data.train))),
}
