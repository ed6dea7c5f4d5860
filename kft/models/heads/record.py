"""Heads with one prediction per input: a class, labels, or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kft.arguments import check_integer
from kft.data.task import Task
from kft.messages import count_of
from kft.models.heads.base import ClassesHead, Head, NumbersHead
from kft.models.losses import BinaryCrossEntropy


@keras.saving.register_keras_serializable("kft")
class Classification(ClassesHead):
    """Head that predicts the probabilities of K classes.

    Args:
        classes: Number K of classes, at least 2; targets are integers 0 ... K-1.
        pooling: See `Pooling`.
        dropout: Fraction of the features that is set to zero in training.
        kernel_initializer: Initializer of the dense layer.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, K), rows sum to 1.

    Raises:
        ValueError: There are fewer than two classes, or the pooling is unknown.

    Example:
        >>> keras.ops.convert_to_numpy(Classification(4)(keras.ops.ones((1, 5, 8)))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    task = Task.CLASSIFICATION

    def __init__(self, classes: int, pooling: str = "mean", **kwargs: Any):
        super().__init__(classes, pooling=pooling, **kwargs)


@keras.saving.register_keras_serializable("kft")
class MultiLabel(Head):
    """Head that predicts the probabilities of K labels; any number of them may be true.

    Args:
        labels: Number K of labels, at least 1; targets are 0 or 1, (B, K).
        pooling: See `Pooling`.
        dropout: Fraction of the features that is set to zero in training.
        kernel_initializer: Initializer of the dense layer.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, K), each 0 to 1.

    Raises:
        ValueError: There is no label, or the pooling is unknown.

    Example:
        >>> keras.ops.convert_to_numpy(MultiLabel(2)(keras.ops.ones((1, 5, 8)))).tolist()
        [[0.5, 0.5]]
    """

    task = Task.MULTILABEL
    activation = "sigmoid"

    def __init__(self, labels: int, pooling: str = "mean", **kwargs: Any):
        labels = check_integer("labels", labels)
        super().__init__(labels, pooling=pooling, **kwargs)
        self.labels = labels

    def make_loss(
        self, class_weight: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> keras.losses.Loss:
        """Make a `kft.losses.BinaryCrossEntropy`, see `Head.make_loss`."""
        return BinaryCrossEntropy(class_weight, label_smoothing)

    def make_metrics(self) -> list[keras.metrics.Metric]:
        """Make the accuracy over all labels."""
        return [keras.metrics.BinaryAccuracy(name="accuracy")]

    def _check_values(self, values: np.ndarray, where: str) -> None:
        super()._check_values(values, where)
        width = 1 if values.ndim == 1 else values.shape[1]
        if width != self.units:
            raise ValueError(
                f"{type(self).__name__} predicts "
                f"{count_of(self.units, 'label')}; the targets{where} have "
                f"{width} each: give labels={width} to the head."
            )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "labels": self.labels}


@keras.saving.register_keras_serializable("kft")
class Regression(NumbersHead):
    """Head that predicts numbers in the unit of the targets.

    Args:
        targets: Number K of targets per input.
        mean: Number, or K numbers, added to the output of the dense layer: the mean of the
            training targets, which the untrained head predicts.
        std: Number, or K numbers, that the output of the dense layer is multiplied by: the
            standard deviation of the training targets.
        pooling: See `Pooling`.
        dropout: Fraction of the features that is set to zero in training.
        kernel_initializer: Initializer of the dense layer.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, K).

    Raises:
        ValueError: There is no target, a `std` is not positive, `mean` or `std` has another
            size, or the pooling is unknown.

    Example:
        >>> head = Regression(targets=2, mean=[310.0, -8.5], std=[12.0, 1.5])
        >>> keras.ops.convert_to_numpy(head(keras.ops.ones((1, 5, 8)))).tolist()
        [[310.0, -8.5]]
    """

    task = Task.REGRESSION

    def __init__(
        self,
        targets: int = 1,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        pooling: str = "mean",
        **kwargs: Any,
    ):
        super().__init__(targets, mean, std, pooling=pooling, **kwargs)
