"""The heads of transformers' ESM models, whose weights load into them."""

import keras
import numpy as np
from keras import ops

from kft.models.heads.base import _Classes, _dense
from kft.models.heads.residue import ResidueClassification


@keras.saving.register_keras_serializable("kft")
class Drawn(keras.initializers.Initializer):
    """Normal with deviation 1 / sqrt(inputs), drawn by numpy: the same on every backend.

    Args:
        seed: int.
    """

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        values = np.random.default_rng(self.seed).standard_normal(shape) / np.sqrt(shape[0])
        return ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self):
        return {"seed": self.seed}


@keras.saving.register_keras_serializable("kft")
class EsmClassification(_Classes):
    """The head of transformers' `EsmForSequenceClassification`, with a softmax on top.

    First token, dropout, dense D x D, tanh, dropout, dense D x K (`EsmClassificationHead` of
    transformers 5, `models/esm/modeling_esm.py`; the layers have its names).

    Args:
        classes, dropout, kernel_initializer: see `Classification`.
        seed: from which `dense` is drawn, normal with deviation 1 / sqrt(D).

    Call with float (B, L, D), whose first position is taken, or (B, D); returns float32 (B, K).

    Raises:
        ValueError: fewer than two classes, or a dropout outside [0, 1].

    Example:
        >>> tuple(EsmClassification(3, dropout=0.1)(np.ones((2, 5, 8))).shape)
        (2, 3)
    """

    task = "classification"
    pools = False
    last = "out_proj"

    def __init__(self, classes, dropout=0.0, seed=0, **kwargs):
        super().__init__(classes, dropout=dropout, **kwargs)
        self.seed = seed

    def build(self, features_shape, residue_mask_shape=None):
        width = features_shape[-1]
        self.dense = self.part(_dense(width, "dense", Drawn(self.seed), "tanh"))
        self.dense.build((features_shape[0], width))
        super().build(features_shape, residue_mask_shape)

    def call(self, features, residue_mask=None, training=None):
        if len(features.shape) == 3:
            features = features[:, 0]
        features = self.dropout(ops.cast(features, "float32"), training=training)
        return super().call(self.dense(features), None, training)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("kft")
class EsmTokenClassification(ResidueClassification):
    """The head of transformers' `EsmForTokenClassification`, with a softmax on top.

    Dropout, then a dense layer at every position (transformers 5, `models/esm/modeling_esm.py`):
    a `ResidueClassification` under another name, with the same arguments.
    """
