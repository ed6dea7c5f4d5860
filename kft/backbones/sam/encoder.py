"""SAM's image encoder: a vision transformer with attention in windows, and the neck behind it.

References and shapes are those of `layers`; `B` images, `S` side of the input in pixels, `p` side
of a patch, `h` = `w` = S / p, `C` width of the prompts.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kft.backbones.sam.layers import GridAttention, feed_forward, gelu, norm

# Statistics of ImageNet, in units of 8-bit pixels, as in the reference.
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Stage(keras.layers.Layer):
    """A layer of the graph that is found under a path of several parts, as in the reference.

    The path is its name, with "/" for two underscores.
    """

    @property
    def path_in_model(self) -> str:
        """Path of the layer in the model."""
        return self.name.replace("__", "/")


@keras.saving.register_keras_serializable("kft")
class Pixels(Stage):
    """Normalisation of pixels 0 to 255: (B, S, S, 3) -> same, by constants that do not learn."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the constants."""
        self.mean, self.std = (
            self.add_weight(
                shape=(3,),
                initializer=lambda shape, dtype, values=values: ops.convert_to_tensor(
                    values, dtype=dtype
                ),
                trainable=False,
                name=name,
            )
            for name, values in (("pixel_mean", PIXEL_MEAN), ("pixel_std", PIXEL_STD))
        )

    def call(self, images: Any) -> Any:
        """Normalise, see the class."""
        return (images - self.mean) / self.std

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the images."""
        return shape


@keras.saving.register_keras_serializable("kft")
class GridEmbedding(Stage):
    """Embedding of patches, with trained positions: float (B, S, S, 3) -> float (B, h, w, D).

    Args:
        width: D.
        patch_size: p in pixels.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, width: int, patch_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.patch_size = width, patch_size
        self.proj = keras.layers.Conv2D(
            width,
            patch_size,
            strides=patch_size,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="proj",
        )

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        self.proj.build(shape)
        grid = self.compute_output_shape(shape)[1:]
        self.pos_embed = self.add_weight(shape=(1, *grid), initializer="zeros", name="pos_embed")

    def call(self, images: Any) -> Any:
        """Compute the embeddings, see the class."""
        return self.proj(images) + self.pos_embed

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (B, h, w, D)."""
        grid = (side and side // self.patch_size for side in shape[1:3])
        return (shape[0], *grid, self.width)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        own = {"width": self.width, "patch_size": self.patch_size}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("kft")
class ImageBlock(Stage):
    """Block of the image encoder: float (B, h, w, D) -> same.

    Attention is within windows; a grid that is no multiple of them is padded with zeros after the
    norm, which take part in attention, as in the reference.

    Args:
        width: D.
        num_heads: H.
        hidden_width: Units inside the feed-forward.
        grid: Largest (h, w); a part of the image has fewer rows and columns.
        window: Side of a window in patches, 0 for attention over the whole grid.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden_width: int,
        grid: Sequence[int],
        window: int,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.arguments = {
            "width": width,
            "num_heads": num_heads,
            "hidden_width": hidden_width,
            "grid": tuple(grid),
            "window": window,
        }
        self.grid: tuple[int, int] = (grid[0], grid[1])
        self.window, self.width = window, width
        policy = self.dtype_policy
        self.norm1, self.norm2 = (norm(1e-6, name, policy) for name in ("norm1", "norm2"))
        seen = (window, window) if window else self.grid
        self.attn = GridAttention(width, num_heads, seen, name="attn", dtype=policy)
        self.mlp = feed_forward(hidden_width, width, gelu, policy)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        for layer in (self.norm1, self.attn, self.norm2, self.mlp):
            layer.build((None, None, None, self.width))

    def call(self, x: Any) -> Any:
        """Compute the block, see the class."""
        y = self.norm1(x)
        y = self._in_windows(y) if self.window else self.attn(y)
        x = ops.add(x, y)  # which may have another dtype
        return ops.add(x, self.mlp(self.norm2(x)))

    def _in_windows(self, x: Any) -> Any:
        """Compute attention within each window of (B, h, w, D)."""
        (h, w), side, width = x.shape[1:3], self.window, self.width
        down, right = -h % side, -w % side
        x = ops.pad(x, ((0, 0), (0, down), (0, right), (0, 0)))
        rows, columns = (h + down) // side, (w + right) // side
        x = ops.reshape(x, (-1, rows, side, columns, side, width))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B, rows, columns, side, side, D)
        x = self.attn(ops.reshape(x, (-1, side, side, width)))
        x = ops.transpose(
            ops.reshape(x, (-1, rows, columns, side, side, width)), (0, 1, 3, 2, 4, 5)
        )
        return ops.reshape(x, (-1, h + down, w + right, width))[:, :h, :w]

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the input."""
        return shape

    def compute_output_spec(self, x: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), **self.arguments}


@keras.saving.register_keras_serializable("kft")
class Neck(Stage):
    """Two convolutions from the blocks to the embedding: (B, h, w, D) -> (B, h, w, C).

    Args:
        width: C.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width

        def conv(side: int, name: str) -> keras.Layer:
            return keras.layers.Conv2D(
                width,
                side,
                padding="same",
                use_bias=False,
                data_format="channels_last",
                dtype=self.dtype_policy,
                name=name,
            )

        self.steps = [
            conv(1, "0"),
            norm(1e-6, "1", self.dtype_policy),
            conv(3, "2"),
            norm(1e-6, "3", self.dtype_policy),
        ]

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        for step in self.steps:
            step.build(shape)
            shape = step.compute_output_shape(shape)

    def call(self, x: Any) -> Any:
        """Compute the embedding, see the class."""
        for step in self.steps:
            x = step(x)
        return x

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (B, h, w, C)."""
        return (*shape[:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "width": self.width}
