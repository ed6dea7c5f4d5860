"""Heads with a prediction at every position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kft.data.task import ANGLES, Task
from kft.models.heads.base import ClassesHead, NumbersHead
from kft.models.losses import AngleError, VonMises


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


@keras.saving.register_keras_serializable("kft")
class Torsions(NumbersHead):
    """Head that predicts phi, psi and omega at every position, each as a vector (sine, cosine).

    The direction of a vector is the angle, `numpy.arctan2(sine, cosine)`, and its length the
    concentration of a von Mises distribution: the surer, the longer. Targets are radians.

    Args:
        mean: 6 numbers that are added to the predictions, those of the untrained head; or one.
        dropout: Fraction of the features that is set to zero in training.
        kernel_initializer: Initializer of the dense layer.

    Call with float (B, L, D) and bool (B, L) or None, the mask, which is ignored. Returns float32
    (B, L, 6): sine and cosine of phi, of psi, and of omega.

    Raises:
        ValueError: `mean` is not one or 6 numbers, or the features have no positions.

    Source: pairs of sine and cosine, Jumper et al. 2021, supplement 1.9.1; the loss is a likelihood
        as in Senior et al. 2020, instead of the squared error of normalised pairs.

    Example:
        >>> tuple(Torsions()(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 6)
    """

    task = Task.TORSIONS
    pools = False

    def __init__(self, mean: float | Sequence[float] = 0.0, **kwargs: Any):
        super().__init__(targets=2 * len(ANGLES), mean=mean, **kwargs)

    def make_loss(
        self, class_weight: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> keras.losses.Loss:
        """Make a `kft.losses.VonMises`; there are no classes to weight."""
        super().make_loss(class_weight, label_smoothing)
        return VonMises()

    def make_metrics(self) -> list[keras.metrics.Metric]:
        """Make the mean absolute error, in degrees."""
        return [AngleError()]

    def _check_numbers(self, values: np.ndarray, where: str) -> None:
        known = values[np.isfinite(values)]
        if known.size and np.abs(known).max() > 2 * np.pi:
            raise ValueError(
                f"Torsions takes angles in radians; the targets{where} go from {known.min():g} to "
                f"{known.max():g}: numpy.deg2rad converts degrees."
            )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        config = super().get_config()
        del config["targets"], config["std"]
        return config
