"""The head that fits a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kft.data.separations import shares_by_separation
from kft.data.task import SCORED, Task
from kft.models.heads.base import Head
from kft.models.heads.pair import Contacts, Distogram
from kft.models.heads.record import Classification, MultiLabel, Regression
from kft.models.heads.residue import ResidueClassification, ResidueRegression, Torsions


def for_data(data: Any, pooling: str = "mean") -> Head:
    """Build the head that fits a data set.

    Args:
        data: A `kft.data.Dataset`, or an object with its `task`, `classes` and `train`. A head for
            regression gets the mean and standard deviation of the training targets, and one for
            torsions or pairs their distribution, without those that a mask excludes.
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
    return MAKERS[Task.named(data.task, "data.task", SCORED)](data, pooling)


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


def _mean_vectors(angles: np.ndarray) -> list[float]:
    """Return the vector of each column of angles (n, K), whose distribution is that of them all.

    The length is the concentration k for which I1(k) / I0(k) is the mean resultant length r, by the
    approximation of Banerjee et al. 2005 (J. Mach. Learn. Res. 6:1345, equation 4.4).
    """
    vectors = np.stack(
        [np.sin(angles).mean(axis=0), np.cos(angles).mean(axis=0)], axis=-1
    )  # (K, 2)
    r = np.minimum(np.linalg.norm(vectors, axis=-1, keepdims=True), 0.999)
    return (vectors * (2 - r**2) / (1 - r**2)).ravel().tolist()


def _prior(data: Any) -> list[list[float]]:
    """Return how often each class occurs among pairs that are as far apart, of training."""
    train = data.train
    shares = shares_by_separation(train.targets, train.masks, len(data.classes))
    return shares.round(6).clip(1e-6).tolist()


MAKERS: dict[Task, Callable[[Any, str], Head]] = {
    Task.CLASSIFICATION: lambda data, pooling: Classification(len(data.classes), pooling),
    Task.MULTILABEL: lambda data, pooling: MultiLabel(np.shape(data.train.targets)[1], pooling),
    Task.REGRESSION: lambda data, pooling: Regression(
        **_scale(data.train.targets), pooling=pooling
    ),
    Task.RESIDUE_CLASSIFICATION: lambda data, _: ResidueClassification(len(data.classes)),
    Task.RESIDUE_REGRESSION: lambda data, _: ResidueRegression(**_scale(_unmasked(data.train))),
    Task.TORSIONS: lambda data, _: Torsions(_mean_vectors(_unmasked(data.train))),
    Task.CONTACTS: lambda data, _: Contacts(prior=_prior(data)),
    Task.DISTOGRAM: lambda data, _: Distogram(len(data.classes), prior=_prior(data)),
}
