"""Heads with the layers of transformers' ESM heads, so that their weights can be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.data.task import Task
from kft.models.heads.base import ClassesHead, _dense
from kft.models.heads.residue import ResidueClassification


@keras.saving.register_keras_serializable("kft")
class Drawn(keras.initializers.Initializer):
    """Normal initializer with standard deviation 1 / sqrt(inputs), the same on all backends.

    Args:
        seed: Integer from which numpy draws the values.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        values = np.random.default_rng(self.seed).standard_normal(shape) / np.sqrt(shape[0])
        return ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {"seed": self.seed}


@keras.saving.register_keras_serializable("kft")
class EsmClassification(ClassesHead):
    """Head of transformers' `EsmForSequenceClassification`, followed by a softmax.

    First token, dropout, dense D x D, tanh, dropout, dense D x K (`EsmClassificationHead` of
    transformers 5, `models/esm/modeling_esm.py`; the layers have its names).

    Args:
        classes: Number K of classes, at least 2; targets are integers 0 ... K-1.
        dropout: Fraction of the features that is set to zero in training.
        kernel_initializer: Initializer of `out_proj`.
        seed: Integer from which `dense` is drawn, with standard deviation 1 / sqrt(D).

    Call with float (B, L, D), whose first position is taken, or (B, D); returns float32 (B, K).

    Raises:
        ValueError: There are fewer than two classes, or the dropout is outside [0, 1].

    Example:
        >>> tuple(EsmClassification(3, dropout=0.1)(np.ones((2, 5, 8))).shape)
        (2, 3)
    """

    task = Task.CLASSIFICATION
    pools = False
    last = "out_proj"

    def __init__(self, classes: int, dropout: float = 0.0, seed: int = 0, **kwargs: Any):
        super().__init__(classes, dropout=dropout, **kwargs)
        self.seed = seed

    def build(
        self,
        features_shape: tuple[int | None, ...],
        position_mask_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Create the weights."""
        samples, *_, width = features_shape
        if width is None:
            raise ValueError(
                f"features must have a last axis of known size, received shape {features_shape}."
            )
        self.dense = self.part(_dense(width, "dense", Drawn(self.seed), "tanh"))
        self.dense.build((samples, width))
        super().build(features_shape, position_mask_shape)

    def call(self, features: Any, position_mask: Any = None, training: bool | None = None) -> Any:
        """Compute class probabilities from the first token."""
        if len(features.shape) == 3:
            features = features[:, 0]
        features = self.dropout(ops.cast(features, "float32"), training=training)
        return super().call(self.dense(features), None, training)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("kft")
class EsmTokenClassification(ResidueClassification):
    """Head of transformers' `EsmForTokenClassification`, followed by a softmax.

    Dropout, then a dense layer at every position (transformers 5, `models/esm/modeling_esm.py`):
    a `ResidueClassification` under another name, with the same arguments.
    """
