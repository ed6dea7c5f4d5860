"""Heads with a prediction at every position."""

import keras

from kft.data.task import Task
from kft.models.heads.base import ClassesHead, NumbersHead


@keras.saving.register_keras_serializable("kft")
class ResidueClassification(ClassesHead):
    """Head that predicts the probabilities of K classes at every position.

    Args:
        classes: Number K of classes, at least 2; targets are integers 0 ... K-1.
        dropout: Fraction of the features that is set to zero in training.
        kernel_initializer: Initializer of the dense layer.

    Call with float (B, L, D) and bool (B, L) or None; the mask is ignored, since the weights from
    `kft.batches` mark the positions that have a target. Returns float32 (B, L, K), whose last axis
    sums to 1.

    Raises:
        ValueError: There are fewer than two classes, or the features have no positions.

    Example:
        >>> tuple(ResidueClassification(3)(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 3)
    """

    task = Task.RESIDUE_CLASSIFICATION
    pools = False


@keras.saving.register_keras_serializable("kft")
class ResidueRegression(NumbersHead):
    """Head that predicts numbers in the unit of the targets at every position.

    Args:
        targets: Number K of targets per position.
        mean: As for `Regression`.
        std: As for `Regression`.
        dropout: Fraction of the features that is set to zero in training.
        kernel_initializer: Initializer of the dense layer.

    Call with float (B, L, D) and bool (B, L) or None, the mask, which is ignored. Returns float32
    (B, L, K).

    Raises:
        ValueError: As for `Regression`, or the features have no positions.

    Example:
        >>> tuple(ResidueRegression(mean=0.5)(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 1)
    """

    task = Task.RESIDUE_REGRESSION
    pools = False
