"""Layers that read token ids: a table of embeddings and a mask.

Shapes: `B` sequences in a batch, `L` tokens.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kft")
class TokenTable(keras.layers.Embedding):
    """A Keras `Embedding` whose gradient is a dense table on every backend.

    TensorFlow's gradient of a lookup lists a row once per token, and Keras's optimizers square and
    clip those one by one. The gradient of a product is a dense table.

    Attributes:
        tied: The table that a language-model head multiplies with.
    """

    @property
    def tied(self) -> Any:
        return self.embeddings

    def call(self, token_ids: Any) -> Any:
        """Return the rows of the table, (B, L, D)."""
        return ops.cast(ops.take(self.embeddings * 1.0, token_ids, axis=0), self.compute_dtype)


@keras.saving.register_keras_serializable("kft")
class TokenMask(keras.layers.Layer):
    """Mask of tokens: bool (B, L), True where the id in int (B, L) is not in `excluded`."""

    def __init__(self, excluded: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.excluded = tuple(excluded)

    def call(self, token_ids: Any) -> Any:
        """Compute the mask, see the class."""
        mask = ops.not_equal(token_ids, self.excluded[0])
        for token in self.excluded[1:]:
            mask = ops.logical_and(mask, ops.not_equal(token_ids, token))
        return mask

    def compute_output_spec(self, token_ids: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor(token_ids.shape, dtype="bool")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "excluded": self.excluded}
