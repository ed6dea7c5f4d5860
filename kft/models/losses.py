"""Losses: what training makes small, in numbers that padding and units do not change.

They take what heads answer (probabilities, or numbers in the unit of the targets), work in
float32, and reduce by "mean_with_sample_weight": the sum of weight times loss over the sum of
the weights. Positions of weight 0 so change nothing, not even the scale, and without weights it
is the plain mean.

Shapes: `B` records, `L` positions, `K` classes, labels or targets.
"""

import keras
import numpy as np
from keras import ops

from kft.keras_internals import set_direction

REDUCTION = "mean_with_sample_weight"

# Probabilities are raised to it before the logarithm. Keras's 1e-7 would give a record that is
# wrong by more than 16 nats no gradient at all; 1 / 1e-30 times any weight is still finite.
_FLOOR = 1e-30


@keras.saving.register_keras_serializable("kft")
class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of class probabilities and integer targets: -log p of the true class.

    Args:
        class_weight: K numbers, what a record (or residue) of each class counts, or None for 1.
            They are taken as given: those of `balanced` have mean 1 over the records, and so
            leave the scale of the loss as it is.
        label_smoothing: share s of the truth that is spread evenly over all K classes, 0 <= s < 1
            (Szegedy et al. 2016, "Rethinking the Inception architecture", section 7).

    Call with integers (B,) or (B, L), a last axis of 1 allowed, probabilities (B, K) or
    (B, L, K), and sample weights (B,) or (B, L) or None; returns a float32 number, in nats.

    Raises:
        ValueError: weights that are negative or not one per class, a smoothing outside [0, 1),
            targets that are not one per answer.

    Example:
        >>> loss = CrossEntropy(class_weight=[1.0, 2.0])
        >>> round(float(loss(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]]))), 4)
        1.0397
    """

    def __init__(
        self, class_weight=None, label_smoothing=0.0, name="cross_entropy", reduction=REDUCTION
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.class_weight = _weights("class_weight", class_weight)
        self.label_smoothing = _share("label_smoothing", label_smoothing)

    def call(self, y_true, y_pred):
        y_true = ops.cast(_one_per_answer(y_true, y_pred), "int32")
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

    def get_config(self):
        config = {"class_weight": self.class_weight, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kft")
class BinaryCrossEntropy(keras.losses.Loss):
    """Cross-entropy of independent labels, each 0 or 1, averaged over the labels.

    Args:
        positive_weight: K numbers, what a 1 counts beside a 0 of the same label, or None for 1.
            The number of zeros over that of ones balances a label.
        label_smoothing: share s by which targets move towards one half, 0 <= s < 1.

    Call with 0 or 1 (B, K), probabilities (B, K), and sample weights (B,) or None; returns a
    float32 number, in nats.

    Raises:
        ValueError: weights that are negative or not one per label, a smoothing outside [0, 1),
            targets of another shape than the answers.

    Example:
        >>> loss = BinaryCrossEntropy(positive_weight=[3.0, 1.0])
        >>> round(float(loss(np.array([[1, 0]]), np.array([[0.5, 0.5]]))), 4)
        1.3863
    """

    def __init__(
        self,
        positive_weight=None,
        label_smoothing=0.0,
        name="binary_cross_entropy",
        reduction=REDUCTION,
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.positive_weight = _weights("positive_weight", positive_weight)
        self.label_smoothing = _share("label_smoothing", label_smoothing)

    def call(self, y_true, y_pred):
        y_true = _like_answers(y_true, y_pred)
        y_true = y_true * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        ones = y_true * ops.log(ops.maximum(y_pred, _FLOOR))
        if self.positive_weight is not None:
            _check_count("positive_weight", self.positive_weight, y_pred)
            ones = ones * ops.convert_to_tensor(self.positive_weight, dtype="float32")
        # Just below 1, float32 has steps of 6e-8: 1 - p is either 0 or not much smaller than 1e-7.
        zeros = (1.0 - y_true) * ops.log(ops.maximum(1.0 - y_pred, 1e-7))
        return -ops.mean(ones + zeros, axis=-1)

    def get_config(self):
        config = {"positive_weight": self.positive_weight, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kft")
class SquaredError(keras.losses.Loss):
    """Squared error in units of the targets' standard deviation, averaged over the targets.

    In these units a head that answers the mean has a loss of about 1 whatever was measured, so
    that one learning rate serves nanomolar and kelvin.

    Args:
        std: the standard deviation, one number or K, one per target; 1 is the plain squared error.

    Call with numbers (B, K) or (B, L, K), where K is 1 also (B,) or (B, L), answers (B, K) or
    (B, L, K), and sample weights (B,) or (B, L) or None; returns a float32 number.

    Raises:
        ValueError: a std that is not positive or not one per target, targets of another shape
            than the answers.

    Example:
        >>> float(SquaredError(std=10.0)(np.array([20.0, 0.0]), np.array([[10.0], [0.0]])))
        0.5
    """

    def __init__(self, std=1.0, name="squared_error", reduction=REDUCTION):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        array = np.asarray(std, dtype="float64")
        if array.ndim > 1 or not (np.isfinite(array) & (array > 0)).all():
            raise ValueError(
                f"std must be one positive number, or one per target, received {std!r}."
            )
        self.std = array.tolist()

    def call(self, y_true, y_pred):
        if isinstance(self.std, list):
            _check_count("std", self.std, y_pred)
        std = ops.convert_to_tensor(self.std, dtype="float32")
        return ops.mean(ops.square((_like_answers(y_true, y_pred) - y_pred) / std), axis=-1)

    def get_config(self):
        return {**super().get_config(), "std": self.std}


@keras.saving.register_keras_serializable("kft")
class AbsoluteError(keras.metrics.MeanMetricWrapper):
    """The mean absolute error in the unit of the targets, a metric for one target or several.

    Keras's own takes targets (B, L) beside answers (B, L, 1) for one record of L targets, and
    then has no place for the weights of positions.

    Args:
        name: what histories call it.
        dtype: of the state; None takes Keras's.

    Example:
        >>> metric = AbsoluteError()
        >>> answers, weights = np.array([[[3.0], [0.0]]]), np.array([[1.0, 0.0]])
        >>> metric.update_state(np.array([[1.0, 9.0]]), answers, weights)
        >>> float(metric.result())
        2.0
    """

    def __init__(self, name="mean_absolute_error", dtype=None):
        super().__init__(fn=_absolute_error, name=name, dtype=dtype)
        set_direction(self, "down")  # less is better, for Keras's callbacks

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def balanced(targets, classes, masks=None):
    """Weights that let every class count alike: n / (classes * count of the class).

    This is "balanced" of scikit-learn's `compute_class_weight` (King and Zeng 2001). The mean
    weight over the targets is 1.

    Args:
        targets: integers (n,), or for residue tasks a list of integer arrays, one per record.
        classes: number K of classes.
        masks: with a list of arrays, bool arrays that mark what counts, or None for all.

    Returns:
        float64 array (K,), for the `class_weight` of `CrossEntropy`.

    Raises:
        ValueError: targets that are no classes, or a class that does not occur.

    Example:
        >>> balanced([0, 0, 0, 1], 2).round(3).tolist()
        [0.667, 2.0]
    """
    if masks is not None:
        targets = [np.asarray(t)[np.asarray(m)] for t, m in zip(targets, masks, strict=True)]
    if isinstance(targets, list | tuple) and any(np.ndim(row) for row in targets):
        targets = np.concatenate([np.asarray(row) for row in targets])
    targets = np.asarray(targets).ravel()
    wrong = ~np.isin(targets, np.arange(classes))
    if wrong.any():
        raise ValueError(
            f"targets must be classes 0 to {classes - 1}, received {targets[wrong][0]}."
        )
    counts = np.bincount(targets.astype("int64"), minlength=classes)
    if not counts.all():
        raise ValueError(
            f"class {int(np.argmin(counts))} occurs in none of the {len(targets)} targets, and has "
            f"no balanced weight: leave the class out, or give the weights by hand."
        )
    return len(targets) / (classes * counts)


def _absolute_error(y_true, y_pred):
    y_pred = ops.convert_to_tensor(y_pred, dtype="float32")
    return ops.mean(ops.abs(_like_answers(y_true, y_pred) - y_pred), axis=-1)


# What fits together -----------------------------------------------------------------------------


def _one_per_answer(y_true, y_pred):
    """(B[, L]) or (B[, L], 1) -> (B[, L]), beside answers (B[, L], K)."""
    y_true = ops.convert_to_tensor(y_true)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1:
        y_true = ops.squeeze(y_true, axis=-1)
    if not _same(y_true.shape, y_pred.shape[:-1]):
        raise ValueError(
            f"targets must be one class each for answers of shape {tuple(y_pred.shape)}, received "
            f"shape {tuple(y_true.shape)}. Residue targets need a per-residue head; one-hot rows "
            f"become classes by numpy.argmax."
        )
    return y_true


def _like_answers(y_true, y_pred):
    """(B[, L], K), or (B[, L]) where K is 1 -> (B[, L], K)."""
    y_true = ops.convert_to_tensor(y_true, dtype=y_pred.dtype)
    if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    if not _same(y_true.shape, y_pred.shape):
        raise ValueError(
            f"targets must have the shape of the answers, {tuple(y_pred.shape)}, received "
            f"{tuple(y_true.shape)}: give the head as many targets or labels as the data has."
        )
    return y_true


def _same(shape, other):
    """Whether two shapes can be the same; None, a size not known yet, may be any."""
    return len(shape) == len(other) and all(
        a is None or b is None or a == b for a, b in zip(shape, other, strict=True)
    )


def _check_count(name, values, y_pred):
    if len(values) != y_pred.shape[-1]:
        raise ValueError(
            f"{name} must hold one number for each of the {y_pred.shape[-1]} outputs, received "
            f"{len(values)}."
        )


def _weights(name, weights):
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


def _share(name, value):
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, received {value}.")
    return float(value)
