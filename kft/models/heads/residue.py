"""Heads with an answer at every position."""

import keras

from kft.models.heads.base import _Classes, _Numbers


@keras.saving.register_keras_serializable("kft")
class ResidueClassification(_Classes):
    """Answers at every position with the probabilities of K classes.

    Args:
        classes, dropout, kernel_initializer: see `Classification`.

    Call with float (B, L, D) and bool (B, L) or None, which is not looked at: what counts is said
    by the weights of `kft.batches`. Returns float32 (B, L, K), whose last axis sums to 1.

    Raises:
        ValueError: fewer than two classes, or features without positions.

    Example:
        >>> tuple(ResidueClassification(3)(np.ones((2, 5, 8))).shape)
        (2, 5, 3)
    """

    task = "residue_classification"
    per_residue = True
    pools = False


@keras.saving.register_keras_serializable("kft")
class ResidueRegression(_Numbers):
    """Answers at every position with numbers in the unit of the targets.

    Args:
        targets, mean, std: see `Regression`.
        dropout, kernel_initializer: see `Classification`.

    Call with float (B, L, D) and bool (B, L) or None, which is not looked at; returns float32
    (B, L, K).

    Raises:
        ValueError: as `Regression`, or features without positions.

    Example:
        >>> tuple(ResidueRegression(mean=0.5)(np.ones((2, 5, 8))).shape)
        (2, 5, 1)
    """

    task = "residue_regression"
    per_residue = True
    pools = False
