"""SAM's prompt encoder: points, corners of boxes and rough masks to vectors.

References are those of `layers`.

Differences from the reference: a prompt that is absent (label -2) does not count in attention, so
that objects with different numbers of points are computed together and each as if it were alone.

Shapes: `B` images, `N` objects of each, `P` prompts of each object, `S` side of the input in
pixels, `h` = `w` rows and columns of the embedding, `C` width.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.backbones.sam.encoder import Stage
from kft.backbones.sam.layers import Chain, Group, Table, gelu, norm

# What the label of a prompt means. A box is its two corners. An object without a box has one prompt
# NOT_A_POINT in place of it, as in the reference; ABSENT ones fill up an array.
ABSENT, NOT_A_POINT, NEGATIVE, POSITIVE, TOP_LEFT, BOTTOM_RIGHT = -2, -1, 0, 1, 2, 3
_KINDS = 4  # labels 0 to 3 have a vector each


class Positions(keras.layers.Layer):
    """Random Fourier features of positions (Tancik et al. 2020): (..., 2) in 0 to 1 -> (..., C).

    They are computed in float32 under any policy: the sine of a large number in 16 bits is noise.

    Args:
        width: C.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, width: int, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.matrix = self.add_weight(
            shape=(2, width // 2),
            initializer=keras.initializers.RandomNormal(1.0),
            trainable=False,
            autocast=False,
            name="positional_encoding_gaussian_matrix",
        )
        self.built = True

    def call(self, positions: Any) -> Any:
        """Compute the features, see the class."""
        angles = 2 * math.pi * ops.matmul(2 * positions - 1, self.matrix)
        return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


@keras.saving.register_keras_serializable("kft")
class PromptEncoder(Stage):
    """Encoder of prompts.

    Args:
        width: C.
        image_size: S.
        grid: h.
        mask_channels: Channels between the convolutions of rough masks.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(
        self, width: int, image_size: int, grid: int, mask_channels: int = 16, **kwargs: Any
    ):
        super().__init__(autocast=False, **kwargs)
        self.width, self.image_size, self.grid = width, image_size, grid
        self.mask_channels = mask_channels
        policy = self.dtype_policy

        def table(name: str) -> Table:
            return Table(1, width, name=name, dtype=policy)

        def conv(channels: int, side: int, name: str) -> keras.Layer:
            return keras.layers.Conv2D(
                channels, side, strides=side, data_format="channels_last", dtype=policy, name=name
            )

        def activation(name: str) -> keras.Layer:
            return keras.layers.Activation(gelu, name=name, dtype=policy)

        self.pe_layer = Positions(width, name="pe_layer")
        kinds = [table(str(i)) for i in range(_KINDS)]
        self.point_embeddings = Group(kinds, name="point_embeddings")
        self.not_a_point_embed = table("not_a_point_embed")
        steps = [
            conv(mask_channels // 4, 2, "0"),
            norm(1e-6, "1", policy),
            activation("2"),
            conv(mask_channels, 2, "3"),
            norm(1e-6, "4", policy),
            activation("5"),
            conv(width, 1, "6"),
        ]
        self.mask_downscaling = Chain(steps, name="mask_downscaling", dtype=policy)
        self.no_mask_embed = table("no_mask_embed")

    def build(self, *shapes: Any) -> None:
        """Create the weights."""
        self.mask_downscaling.build((None, 4 * self.grid, 4 * self.grid, 1))
        self.built = True

    def call(self, points: Any, labels: Any, masks: Any, has_mask: Any) -> dict[str, Any]:
        """Compute the vectors.

        Args:
            points: Float (B, N, P, 2), x and y in pixels of the model's input.
            labels: Int (B, N, P), see `ABSENT` and the others.
            masks: Float (B, N, 4 h, 4 w), logits of rough masks.
            has_mask: Float (B, N), 1 where an object has a rough mask, else 0.

        Returns:
            "sparse" float (B, N, P, C); "present" bool (B, N, P); "dense" float (B, N, h, w, C);
            "positions" float (B, h, w, C), those of the embedding.
        """
        dtype, labels = self.compute_dtype, ops.cast(labels, "int32")
        batch = ops.shape(points)[0]
        positions = ops.expand_dims(ops.cast(self._of_grid(), dtype), 0)
        return {
            "sparse": self.vectors(points, labels),
            "present": labels != ABSENT,
            "dense": self._dense(masks, has_mask),
            "positions": ops.tile(positions, (batch, 1, 1, 1)),
        }

    def vectors(self, points: Any, labels: Any) -> Any:
        """Return float (B, N, P, C) of points and corners of boxes, see `call`."""
        dtype, labels = self.compute_dtype, ops.cast(labels, "int32")
        features = self.pe_layer((points + 0.5) / self.image_size)
        kinds = ops.concatenate([ops.convert_to_tensor(x.weight) for x in self.point_embeddings])
        one_hot = ops.cast(
            ops.expand_dims(labels, -1) == ops.arange(_KINDS, dtype="int32"), kinds.dtype
        )
        vectors = ops.cast(features, dtype) + ops.cast(ops.matmul(one_hot, kinds), dtype)
        marked = ops.expand_dims(labels, -1)
        nothing = ops.cast(ops.convert_to_tensor(self.not_a_point_embed.weight), dtype)
        sparse = ops.where(marked == NOT_A_POINT, nothing, vectors)
        return ops.where(marked == ABSENT, ops.zeros_like(sparse), sparse)

    def _dense(self, masks: Any, has_mask: Any) -> Any:
        """Return (B, N, h, w, C) of rough masks, or the one vector of none."""
        side, objects = 4 * self.grid, masks.shape[1] or ops.shape(masks)[1]
        dense = self.mask_downscaling(ops.reshape(masks, (-1, side, side, 1)))
        dense = ops.reshape(dense, (-1, objects, self.grid, self.grid, self.width))
        none = ops.cast(ops.convert_to_tensor(self.no_mask_embed.weight)[0], dense.dtype)
        return ops.where(has_mask[:, :, None, None, None] > 0, dense, none)

    def _of_grid(self) -> Any:
        """Return the features (h, w, C) of the centres of the patches."""
        at = (np.arange(self.grid, dtype="float32") + 0.5) / self.grid
        x, y = np.meshgrid(at, at)
        return self.pe_layer(ops.convert_to_tensor(np.stack([x, y], -1)))

    def compute_output_spec(
        self, points: Any, labels: Any, masks: Any, has_mask: Any
    ) -> dict[str, Any]:
        """Return shapes and dtypes of the outputs."""
        (batch, objects, count), grid = labels.shape, (self.grid, self.grid)
        dtype = self.compute_dtype
        return {
            "sparse": keras.KerasTensor((batch, objects, count, self.width), dtype),
            "present": keras.KerasTensor((batch, objects, count), "bool"),
            "dense": keras.KerasTensor((batch, objects, *grid, self.width), dtype),
            "positions": keras.KerasTensor((batch, *grid, self.width), dtype),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        names = ("width", "image_size", "grid", "mask_channels")
        config = {**super().get_config(), **{name: getattr(self, name) for name in names}}
        config.pop("autocast", None)
        return config
