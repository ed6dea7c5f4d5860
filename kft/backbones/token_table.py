"""A table of tokens that a language-model head can share."""

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
        return ops.cast(ops.take(self.embeddings * 1.0, token_ids, axis=0), self.compute_dtype)
