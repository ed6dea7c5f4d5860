"""Losses whose values do not depend on padding or on the unit of the targets.

They take what heads predict (probabilities, or numbers in the unit of the targets), work in
float32, and reduce by "mean_with_sample_weight": the sum of weight times loss over the sum of
the weights. Positions of weight 0 therefore change nothing, not even the scale, and without weights
it is the plain mean.

Shapes: `B` records, `L` positions, `K` classes, labels or targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.arguments import check_weights
from kft.keras_internals import set_direction

REDUCTION = "mean_with_sample_weight"

# Lower bound of probabilities in logarithms. With Keras's 1e-7 a record that is wrong by more than
# 16 nats would have no gradient at all; 1 / 1e-30 times any weight is still finite.
_FLOOR = 1e-30


@keras.saving.register_keras_serializable("kft")
class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of class probabilities and integer targets: -log p of the true class.

    Args:
        class_weight: K numbers, the weight of a record (or residue) of each class, or None for 1.
            They are not normalised: those of `balanced` have mean 1 over the records, which keeps
            the scale of the loss.
        label_smoothing: Fraction s of each target that is spread evenly over all K classes,
            0 <= s < 1 (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7).
        name: Name of the loss.
        reduction: As for `keras.losses.Loss`.

    Call with integers (B,) or (B, L), a last axis of 1 allowed, probabilities (B, K) or
    (B, L, K), and sample weights (B,) or (B, L) or None; returns a float32 number, in nats.

    Raises:
        ValueError: Weights are negative or not one per class, the smoothing is outside [0, 1),
            or targets are not one per prediction.

    Example:
        >>> loss = CrossEntropy(class_weight=[1.0, 2.0])
        >>> round(float(loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]]))), 4)
        1.0397
    """

    def __init__(
        self,
        class_weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        name: str = "cross_entropy",
        reduction: str = REDUCTION,
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.class_weight = _weights("class_weight", class_weight)
        self.label_smoothing = _fraction("label_smoothing", label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the losses (B,) or (B, L)."""
        y_true = ops.cast(_one_per_prediction(y_true, y_pred), "int32")
        log = ops.log(ops.maximum(y_pred, _FLOOR))  # (B[, L], K)
        own = ops.take_along_axis(log, ops.expand_dims(y_true, -1), axis=-1)
        losses = -ops.squeeze(own, axis=-1)  # (B[, L])
        if self.label_smoothing:
            s = self.label_smoothing
            losses = (1.0 - s) * losses - s * ops.mean(log, axis=-1)
        if self.class_weight is not None:
            _check_count("class_weight", self.class_weight, y_pred)
            weights = ops.convert_to_tensor(self.class_weight, dtype="float32")
            losses = losses * ops.take(weights, y_true, axis=0)
        return losses

    def get_config(self) -> dict:
        """Return the arguments."""
        config = {"class_weight": self.class_weight, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kft")
class BinaryCrossEntropy(keras.losses.Loss):
    """Cross-entropy of independent labels, each 0 or 1, averaged over the labels.

    Args:
        positive_weight: K numbers, the weight of a 1 relative to a 0 of the same label, or None
            for 1. The number of zeros over that of ones balances a label.
        label_smoothing: Fraction s by which targets move towards one half, 0 <= s < 1.
        name: Name of the loss.
        reduction: As for `keras.losses.Loss`.

    Call with 0 or 1 (B, K), probabilities (B, K), and sample weights (B,) or None; returns a
    float32 number, in nats.

    Raises:
        ValueError: Weights are negative or not one per label, the smoothing is outside [0, 1),
            or targets have another shape than the predictions.

    Example:
        >>> loss = BinaryCrossEntropy(positive_weight=[3.0, 1.0])
        >>> round(float(loss(np.array([[1, 0]]), np.array([[0.5, 0.5]]))), 4)
        1.3863
    """

    def __init__(
        self,
        positive_weight: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        name: str = "binary_cross_entropy",
        reduction: str = REDUCTION,
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.positive_weight = _weights("positive_weight", positive_weight)
        self.label_smoothing = _fraction("label_smoothing", label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the losses (B,)."""
        y_true = _like_predictions(y_true, y_pred)
        y_true = y_true * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        ones = y_true * ops.log(ops.maximum(y_pred, _FLOOR))
        if self.positive_weight is not None:
            _check_count("positive_weight", self.positive_weight, y_pred)
            ones = ones * ops.convert_to_tensor(self.positive_weight, dtype="float32")
        # Just below 1, float32 has steps of 6e-8: 1 - p is either 0 or not much smaller than 1e-7.
        zeros = (1.0 - y_true) * ops.log(ops.maximum(1.0 - y_pred, 1e-7))
        return -ops.mean(ones + zeros, axis=-1)

    def get_config(self) -> dict:
        """Return the arguments."""
        config = {"positive_weight": self.positive_weight, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kft")
class SquaredError(keras.losses.Loss):
    """Squared error in units of the targets' standard deviation, averaged over the targets.

    In these units a head that predicts the mean has a loss of about 1 for any quantity, so
    that one learning rate suits nanomolar and kelvin.

    Args:
        std: Standard deviation, one number or K, one per target; 1 is the plain squared error.
        name: Name of the loss.
        reduction: As for `keras.losses.Loss`.

    Call with numbers (B, K) or (B, L, K), if K is 1 also (B,) or (B, L), predictions (B, K) or
    (B, L, K), and sample weights (B,) or (B, L) or None; returns a float32 number.

    Raises:
        ValueError: A std is not positive or not one per target, or targets have another shape
            than the predictions.

    Example:
        >>> float(SquaredError(std=10.0)(np.array([20.0, 0.0]), np.array([[10.0], [0.0]])))
        0.5
    """

    def __init__(
        self,
        std: float | Sequence[float] = 1.0,
        name: str = "squared_error",
        reduction: str = REDUCTION,
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        array = np.asarray(std, dtype="float64")
        if array.ndim > 1 or not (np.isfinite(array) & (array > 0)).all():
            raise ValueError(
                f"std must be one positive number, or one per target, received {std!r}."
            )
        self.std = array.tolist()

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the losses (B,) or (B, L)."""
        if isinstance(self.std, list):
            _check_count("std", self.std, y_pred)
        std = ops.convert_to_tensor(self.std, dtype="float32")
        return ops.mean(ops.square((_like_predictions(y_true, y_pred) - y_pred) / std), axis=-1)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "std": self.std}


@keras.saving.register_keras_serializable("kft")
class AbsoluteError(keras.metrics.MeanMetricWrapper):
    """Mean absolute error in the unit of the targets, a metric for one target or several.

    Keras's own reads targets (B, L) with predictions (B, L, 1) as records of L targets each, and
    then has no place for the weights of positions.

    Args:
        name: Name of the metric in histories.
        dtype: Dtype of the state; None takes Keras's.

    Example:
        >>> metric = AbsoluteError()
        >>> predictions, weights = np.array([[[3.0], [0.0]]]), np.array([[1.0, 0.0]])
        >>> metric.update_state(np.array([[1.0, 9.0]]), predictions, weights)
        >>> float(metric.result())
        2.0
    """

    def __init__(self, name: str = "mean_absolute_error", dtype: Any = None):
        super().__init__(fn=_absolute_error, name=name, dtype=dtype)
        set_direction(self, "down")  # less is better, for Keras's callbacks

    def get_config(self) -> dict:
        """Return the arguments."""
        return {"name": self.name, "dtype": self.dtype}


def balanced(
    targets: Any,
    classes: int,
    masks: Sequence[np.ndarray] | None = None,
    weights: Any = None,
) -> np.ndarray:
    """Compute weights that give every class the same total: n / (classes * count of the class).

    This is "balanced" of scikit-learn's `compute_class_weight` (King and Zeng 2001). The mean
    weight over the targets is 1.

    Args:
        targets: Integers (n,), or for residue tasks a list of integer arrays, one per record.
        classes: Number K of classes.
        masks: With a list of arrays, bool arrays that mark the targets to use, or None for all.
        weights: Numbers (records,), how much each record counts, by which n and the counts are
            sums; None for all alike.

    Returns:
        float64 array (K,), for the `class_weight` of `CrossEntropy`.

    Raises:
        ValueError: A target is not a class, or a class does not occur or has no weight.

    Example:
        >>> balanced([0, 0, 0, 1], 2).round(3).tolist()
        [0.667, 2.0]
    """
    if masks is not None:
        targets = [np.asarray(t)[np.asarray(m)] for t, m in zip(targets, masks, strict=True)]
    each = None if weights is None else check_weights("weights", weights, len(targets))
    if isinstance(targets, list | tuple) and any(np.ndim(row) for row in targets):
        if each is not None:
            each = np.repeat(each, [len(row) for row in targets])
        targets = np.concatenate([np.asarray(row) for row in targets])
    targets = np.asarray(targets).ravel()
    wrong = ~np.isin(targets, np.arange(classes))
    if wrong.any():
        raise ValueError(
            f"targets must be classes 0 to {classes - 1}, received {targets[wrong][0]}."
        )
    counts = np.bincount(targets.astype("int64"), each, minlength=classes)
    if not counts.all():
        which = "targets" if each is None else "targets with a weight above 0"
        raise ValueError(
            f"class {int(np.argmin(counts))} occurs in none of the {len(targets)} {which}, and has "
            f"no balanced weight: leave the class out, or give the weights yourself."
        )
    return counts.sum() / (classes * counts)


def _absolute_error(y_true: Any, y_pred: Any) -> Any:
    y_pred = ops.convert_to_tensor(y_pred, dtype="float32")
    return ops.mean(ops.abs(_like_predictions(y_true, y_pred) - y_pred), axis=-1)


# Checks -----------------------------------------------------------------------------


def _one_per_prediction(y_true: Any, y_pred: Any) -> Any:
    """Return targets (B[, L]) or (B[, L], 1) as (B[, L]), for predictions (B[, L], K)."""
    y_true = ops.convert_to_tensor(y_true)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    if not _same(y_true.shape, y_pred.shape[:-1]):
        raise ValueError(
            f"targets must be one class each for predictions of shape {tuple(y_pred.shape)}, "
            f"received shape {tuple(y_true.shape)}. Residue targets need a per-residue head; "
            f"numpy.argmax turns one-hot rows into classes."
        )
    return y_true


def _like_predictions(y_true: Any, y_pred: Any) -> Any:
    """Return targets (B[, L], K), or (B[, L]) if K is 1, as (B[, L], K)."""
    y_true = ops.convert_to_tensor(y_true, dtype=y_pred.dtype)
    if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    if not _same(y_true.shape, y_pred.shape):
        raise ValueError(
            f"targets must have the shape of the predictions, {tuple(y_pred.shape)}, received "
            f"{tuple(y_true.shape)}: give the head as many targets or labels as the data has."
        )
    return y_true


def _same(shape: Sequence[int | None], other: Sequence[int | None]) -> bool:
    """Return whether two shapes can be the same; None, a size not known yet, may be any."""
    return len(shape) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(shape, other, strict=True)
    )


def _check_count(name: str, values: Sequence[float], y_pred: Any) -> None:
    if len(values) != y_pred.shape[-1]:
        raise ValueError(
            f"{name} must hold one number for each of the {y_pred.shape[-1]} outputs, received "
            f"{len(values)}."
        )


def _weights(name: str, weights: Any) -> list[float] | None:
    if weights is None:
        return None
    if isinstance(weights, str | dict):
        raise ValueError(
            f"{name} must be a list of numbers, one for each output, received {weights!r}. "
            f"kft.losses.balanced(targets, classes) computes those that balance classes."
        )
    array = np.asarray(weights, dtype="float64")
    if array.ndim != 1 or not (np.isfinite(array) & (array >= 0)).all() or not array.any():
        raise ValueError(
            f"{name} must be one number of at least 0 for each output, and one above 0, received "
            f"{weights!r}."
        )
    return array.tolist()


def _fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, received {value}.")
    return float(value)
