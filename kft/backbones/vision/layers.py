"""Layers of vision backbones: embedding of patches, mask of patches, what a classifier reads.

Shapes: `B` images in a batch, `H` and `W` their height and width, `p` the side of a patch, `T`
tokens that come first (class, distillation, registers), `P` = H W / p^2 patches, `L` = T + P, `D`
width.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("kft")
class PatchEmbedding(keras.layers.Layer):
    """Embedding of patches, with tokens before them: float (B, H, W, 3) -> float (B, L, D).

    A patch is one step of a convolution.

    Args:
        width: D.
        patch_size: p in pixels.
        image_size: (H, W) in pixels, multiples of p.
        tokens: Names of single tokens that come first.
        num_registers: Number of register tokens after those, which are one weight.
        has_positions: Whether trained positions are added to all tokens.
    """

    def __init__(
        self,
        width: int,
        patch_size: int,
        image_size: Sequence[int],
        tokens: Sequence[str] = ("cls_token",),
        num_registers: int = 0,
        has_positions: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.width, self.patch_size, self.tokens = width, patch_size, tuple(tokens)
        self.image_size = tuple(image_size)
        self.num_registers, self.has_positions = num_registers, has_positions
        self.patches = keras.layers.Conv2D(
            width,
            patch_size,
            strides=patch_size,
            data_format="channels_last",
            kernel_initializer="lecun_normal",
            dtype=self.dtype_policy,
            name="patches",
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches from top to bottom and from left to right."""
        height, width = (side // self.patch_size for side in self.image_size)
        return height, width

    @property
    def first(self) -> int:
        """Number T of tokens that come first."""
        return len(self.tokens) + self.num_registers

    @property
    def length(self) -> int:
        """Number L of tokens."""
        return self.first + int(np.prod(self.grid))

    def build(self, images_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        self.patches.build(images_shape)
        for name in self.tokens:
            token = self.add_weight(shape=(1, 1, self.width), initializer="zeros", name=name)
            setattr(self, name, token)
        if self.num_registers:
            self.register_tokens = self._normal("register_tokens", self.num_registers)
        if self.has_positions:
            self.positions = self._normal("positions", self.length)

    def _normal(self, name: str, count: int) -> keras.Variable:
        initializer = keras.initializers.RandomNormal(stddev=0.02)
        return self.add_weight(shape=(1, count, self.width), initializer=initializer, name=name)

    def call(self, images: Any) -> Any:
        """Compute the embeddings, see the class."""
        x = self.patches(images)  # (B, H/p, W/p, D)
        batch = ops.shape(x)[0]
        x = ops.reshape(x, (batch, -1, self.width))  # (B, P, D)
        names = [*self.tokens, *(["register_tokens"] if self.num_registers else [])]
        first = [ops.tile(getattr(self, name), (batch, 1, 1)) for name in names]
        x = ops.concatenate([*first, x], axis=1)  # (B, L, D)
        return ops.add(x, self.positions) if self.has_positions else x

    def compute_output_spec(self, images: Any) -> Any:
        """Return shape and dtype of the output."""
        shape = (images.shape[0], self.length, self.width)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        names = ("width", "patch_size", "image_size", "tokens", "num_registers", "has_positions")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("kft")
class PatchMask(keras.layers.Layer):
    """Mask of the tokens that are patches: (B, H, W, 3) -> bool (B, L), False for the first T.

    It depends only on the size of the batch, so that it can be computed once, with any trainable
    layers.

    Args:
        first: T.
        length: L.
    """

    def __init__(self, first: int, length: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.first, self.length = first, length

    def call(self, images: Any) -> Any:
        """Compute the mask, see the class."""
        mask = ops.greater_equal(ops.arange(self.length), self.first)  # (L,)
        return ops.tile(ops.expand_dims(mask, 0), (ops.shape(images)[0], 1))

    def compute_output_spec(self, images: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor((images.shape[0], self.length), dtype="bool")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "first": self.first, "length": self.length}


@keras.saving.register_keras_serializable("kft")
class Summary(keras.layers.Layer):
    """Features that a published classifier reads, of (B, L, D) or (B, height, width, D).

    Args:
        kind: "cls", the first token (ViT) -> (B, D); "cls_and_mean", that and the mean of the
            others (DINOv2) -> (B, 2 D); "mean" over pixels (convolutional networks) -> (B, D).
    """

    def __init__(self, kind: Literal["cls", "cls_and_mean", "mean"], **kwargs: Any):
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, features: Any) -> Any:
        """Compute the features, see the class."""
        if self.kind == "mean":
            return ops.mean(features, axis=(1, 2))
        first = features[:, 0]
        if self.kind == "cls":
            return first
        return ops.concatenate([first, ops.mean(features[:, 1:], axis=1)], axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "kind": self.kind}
