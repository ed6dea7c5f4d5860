"""A backbone of one's own: {"letters": int (B, L)} -> float (B, L, D), and how `kft.load` finds it.

Shapes: `B` sequences in a batch, `L` letters, `D` width.
"""

import keras
import numpy as np
from keras import ops

import kft

PADDING = 0


def encode(sequences, max_length=None, pad_lengths=None, names=None):
    """Encode sequences as numbers: A is 1, Z is 26, padding 0. No special tokens."""
    names = names or [f"sequences[{i}]" for i in range(len(sequences))]
    for sequence, name in zip(sequences, names, strict=True):
        if not (sequence.isalpha() and sequence.isascii()):
            raise ValueError(f"{name} must have letters A to Z only, received {sequence!r}.")
    rows = [
        [ord(letter) - 64 for letter in sequence.upper()[:max_length]] for sequence in sequences
    ]
    length = max(map(len, rows))
    length = next((n for n in pad_lengths or () if n >= length), length)
    letters = np.full((len(rows), length), PADDING, dtype="int32")
    for padded, row in zip(letters, rows, strict=True):
        padded[: len(row)] = row
    return {"letters": letters}


# What an encoder states about itself, see `kft.data.Encoder`.
encode.input_kind = "sequence"
encode.specials = (0, 0)
encode.pad = {"letters": PADDING}


@keras.saving.register_keras_serializable("toy")
class ToyBackbone(kft.backbones.Backbone):
    """An embedding, dense blocks and a norm.

    Args:
        blocks: Number of blocks.
        width: Size D of the output.
        name: Name of the Keras model.
        dtype: Keras dtype policy.
    """

    encode = staticmethod(encode)

    def __init__(self, blocks=2, width=8, name="toy", dtype=None):
        stages = [keras.layers.Embedding(27, width, name="table", dtype=dtype)]
        for i in range(blocks):
            stages.append(keras.layers.Dense(width, "tanh", name=f"block_{i}", dtype=dtype))
        stages.append(keras.layers.LayerNormalization(name="norm", dtype=dtype))
        letters = x = keras.Input((None,), dtype="int32", name="letters")
        for stage in stages:
            x = stage(x)
        super().__init__({"letters": letters}, x, stages, name)
        self.blocks, self.dtype_name = blocks, dtype
        self.lora_targets = tuple(f"block_{i}" for i in range(blocks))
        self.position_mask = ops.not_equal(letters, PADDING)  # heads leave padding out

    def get_config(self):
        arguments = {"blocks": self.blocks, "width": self.width, "dtype": self.dtype_name}
        return {**arguments, **super().get_config()}


class ToyFamily(kft.backbones.Family):
    """The names under which `kft.load` finds the backbone."""

    name = "toys"

    def names(self):
        return ["toy_8", "toy_16"]

    def load(self, name, weights, dtype):
        if weights:
            raise ValueError(f"{name} has no published weights: give weights=False.")
        return ToyBackbone(width=int(name.removeprefix("toy_")), name=name, dtype=dtype)


family = kft.backbones.register(ToyFamily())
