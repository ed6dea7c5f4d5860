"""The head that fits a data set."""

import numpy as np

from kft.models.heads.record import Classification, MultiLabel, Regression
from kft.models.heads.residue import ResidueClassification, ResidueRegression


def for_data(data, pooling="mean"):
    """Builds the head that answers a data set.

    Args:
        data: a `kft.data.Dataset`, or what has its `task`, `classes` and `train`. A regression
            starts from mean and deviation of the training targets that count.
        pooling: see `Pooling`, for tasks with one answer per record.

    Returns:
        the head, by `data.task`.

    Raises:
        ValueError: a task without a head, an unknown pooling, or targets that are all alike.

    Example:
        >>> from kft.data import load
        >>> for_data(load("amp")).classes
        2
    """
    makers = {
        "classification": lambda: Classification(len(data.classes), pooling),
        "multilabel": lambda: MultiLabel(np.shape(data.train.targets)[1], pooling),
        "regression": lambda: Regression(**_scale(data.train.targets), pooling=pooling),
        "residue_classification": lambda: ResidueClassification(len(data.classes)),
        "residue_regression": lambda: ResidueRegression(**_scale(_counted(data.train))),
    }
    if data.task not in makers:
        raise ValueError(f"data.task must be one of {', '.join(makers)}, received {data.task!r}.")
    return makers[data.task]()


def _scale(targets):
    """How many targets there are, and the mean and deviation of each."""
    targets = np.asarray(targets, dtype="float64")
    mean, std = targets.mean(axis=0), targets.std(axis=0)
    return {"targets": np.size(mean), "mean": mean.tolist(), "std": std.tolist()}


def _counted(split):
    rows, masks = split.targets, getattr(split, "masks", None)
    if masks is not None:
        rows = [row[mask] for row, mask in zip(rows, masks, strict=True)]
    return np.concatenate(rows)
