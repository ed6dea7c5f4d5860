"""SAM's mask decoder: a transformer between tokens and the image, masks and their predicted IoU.

References are those of `layers`.

Shapes: `B` images, `N` objects of each, `M` = B N, `P` prompts of each object, `L` = 5 + P tokens
(one for the IoU, four for masks, the prompts), `h` = `w` rows and columns of the embedding, `C`
width, `K` = 4 masks.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kft.backbones.sam.encoder import Stage
from kft.backbones.sam.layers import (
    Chain,
    Group,
    Table,
    TokenAttention,
    feed_forward,
    gelu,
    norm,
    perceptron,
)

# The first mask is meant for many prompts; the other three for one, which may mean the whole, a
# part or a part of it.
MASKS = 4


class TwoWayBlock(keras.layers.Layer):
    """Block in which tokens attend to each other and to the image, and the image to tokens.

    Args:
        width: C.
        num_heads: Number of heads.
        hidden_width: Units inside the feed-forward.
        downsample: C divided by the width of all heads in attention between tokens and image.
        epsilon: Epsilon of the norms.
        first: Whether it is the first block, in which positions are not added to the tokens.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden_width: int,
        downsample: int,
        epsilon: float,
        first: bool,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.first, policy = first, self.dtype_policy

        def attention(name: str, downsample: int) -> TokenAttention:
            return TokenAttention(width, num_heads, downsample, name=name, dtype=policy)

        self.self_attn = attention("self_attn", 1)
        self.cross_attn_token_to_image = attention("cross_attn_token_to_image", downsample)
        self.cross_attn_image_to_token = attention("cross_attn_image_to_token", downsample)
        self.norm1, self.norm2, self.norm3, self.norm4 = (
            norm(epsilon, f"norm{i}", policy) for i in range(1, 5)
        )
        self.mlp = feed_forward(hidden_width, width, "relu", policy)
        self.width = width

    def build(self, *shapes: Any) -> None:
        """Create the weights."""
        for layer in (
            *(self.self_attn, self.norm1, self.cross_attn_token_to_image, self.norm2),
            *(self.mlp, self.norm3, self.norm4, self.cross_attn_image_to_token),
        ):
            layer.build((None, None, self.width))
        self.built = True

    def call(
        self, tokens: Any, image: Any, of_tokens: Any, of_image: Any, present: Any
    ) -> tuple[Any, Any]:
        """Compute the block.

        Args:
            tokens: Float (M, L, C).
            image: Float (M, h w, C).
            of_tokens: Float (M, L, C), added to tokens where they are queries or keys.
            of_image: Float (M, h w, C), added to the image where it is.
            present: Bool (M, L), False for tokens that do not count.

        Returns:
            Tokens and image, of the same shapes.
        """
        add = ops.add  # of terms that may have different dtypes
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, present)
        else:
            query = add(tokens, of_tokens)
            tokens = add(tokens, self.self_attn(query, query, tokens, present))
        tokens, key = self.norm1(tokens), add(image, of_image)
        query = add(tokens, of_tokens)
        tokens = self.norm2(add(tokens, self.cross_attn_token_to_image(query, key, image)))
        tokens = self.norm3(add(tokens, self.mlp(tokens)))
        update = self.cross_attn_image_to_token(key, add(tokens, of_tokens), tokens, present)
        return tokens, self.norm4(add(image, update))


class TwoWayTransformer(keras.layers.Layer):
    """Blocks of tokens and image, and a last attention of the tokens to the image.

    Args:
        depth: Number of blocks.
        width: C.
        num_heads: Number of heads.
        hidden_width: Units inside the feed-forwards.
        downsample: As for `TwoWayBlock`.
        epsilon: As for `TwoWayBlock`; that of the last norm is always 1e-5.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_heads: int,
        hidden_width: int,
        downsample: int,
        epsilon: float,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        policy, self.width = self.dtype_policy, width
        sizes = (width, num_heads, hidden_width, downsample, epsilon)
        blocks = [TwoWayBlock(*sizes, i == 0, name=str(i), dtype=policy) for i in range(depth)]
        self.blocks = Group(blocks, name="layers")
        self.final_attn_token_to_image = TokenAttention(
            width, num_heads, downsample, name="final_attn_token_to_image", dtype=policy
        )
        self.norm_final_attn = norm(1e-5, "norm_final_attn", policy)

    def build(self, *shapes: Any) -> None:
        """Create the weights."""
        for layer in (*self.blocks, self.final_attn_token_to_image, self.norm_final_attn):
            layer.build((None, None, self.width))
        self.built = True

    def call(self, tokens: Any, image: Any, of_image: Any, present: Any) -> tuple[Any, Any]:
        """Compute all blocks, see `TwoWayBlock.call`."""
        first = tokens
        for block in self.blocks:
            tokens, image = block(tokens, image, first, of_image, present)
        query, key = ops.add(tokens, first), ops.add(image, of_image)
        update = self.final_attn_token_to_image(query, key, image)
        return self.norm_final_attn(ops.add(tokens, update)), image


@keras.saving.register_keras_serializable("kft")
class MaskDecoder(Stage):
    """Decoder of masks.

    Args:
        width: C.
        depth: Number of blocks of its transformer.
        num_heads: Number of heads.
        hidden_width: Units inside the feed-forwards.
        downsample: As for `TwoWayBlock`.
        epsilon: As for `TwoWayTransformer`.
        iou_width: Units inside of the head that predicts the IoU.
        iou_depth: Number of its layers.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(
        self,
        width: int,
        depth: int = 2,
        num_heads: int = 8,
        hidden_width: int = 2048,
        downsample: int = 2,
        epsilon: float = 1e-5,
        iou_width: int = 256,
        iou_depth: int = 3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.arguments = {
            "width": width,
            "depth": depth,
            "num_heads": num_heads,
            "hidden_width": hidden_width,
            "downsample": downsample,
            "epsilon": epsilon,
            "iou_width": iou_width,
            "iou_depth": iou_depth,
        }
        self.width, policy = width, self.dtype_policy
        self.transformer = TwoWayTransformer(
            depth,
            width,
            num_heads,
            hidden_width,
            downsample,
            epsilon,
            name="transformer",
            dtype=policy,
        )
        self.iou_token = Table(1, width, name="iou_token", dtype=policy)
        self.mask_tokens = Table(MASKS, width, name="mask_tokens", dtype=policy)

        def larger(channels: int, name: str) -> keras.Layer:
            return keras.layers.Conv2DTranspose(
                channels, 2, strides=2, data_format="channels_last", dtype=policy, name=name
            )

        def activation(name: str) -> keras.Layer:
            return keras.layers.Activation(gelu, name=name, dtype=policy)

        steps = [
            larger(width // 4, "0"),
            norm(1e-6, "1", policy),
            activation("2"),
            larger(width // 8, "3"),
            activation("4"),
        ]
        self.output_upscaling = Chain(steps, name="output_upscaling", dtype=policy)
        heads = [perceptron([width, width, width // 8], str(i), policy) for i in range(MASKS)]
        self.output_hypernetworks_mlps = Group(heads, name="output_hypernetworks_mlps")
        widths = [*[iou_width] * (iou_depth - 1), MASKS]
        self.iou_prediction_head = perceptron(widths, "iou_prediction_head", policy)

    def build(self, *shapes: Any) -> None:
        """Create the weights."""
        tokens = (None, None, self.width)
        for layer in (self.transformer, *self.output_hypernetworks_mlps, self.iou_prediction_head):
            layer.build(tokens)
        self.output_upscaling.build((None, None, None, self.width))
        self.built = True

    def call(self, embedding: Any, prompts: Mapping[str, Any]) -> dict[str, Any]:
        """Compute masks and their predicted IoU.

        Args:
            embedding: Float (B, h, w, C) of the image encoder.
            prompts: What `PromptEncoder` returns.

        Returns:
            "masks": float (B, N, K, 4 h, 4 w), logits. "iou": float (B, N, K).
        """
        (side, _, width), sparse = embedding.shape[1:], prompts["sparse"]
        objects = sparse.shape[1] or ops.shape(sparse)[1]
        count = sparse.shape[2] or ops.shape(sparse)[2]
        image = ops.expand_dims(embedding, 1) + prompts["dense"]  # (B, N, h, w, C)
        image = ops.reshape(image, (-1, side * side, width))
        of_image = ops.repeat(prompts["positions"], objects, axis=0)
        of_image = ops.reshape(of_image, (-1, side * side, width))
        sparse = ops.reshape(sparse, (-1, count, width))  # (M, P, C)
        own = [ops.convert_to_tensor(x.weight) for x in (self.iou_token, self.mask_tokens)]
        own = ops.expand_dims(ops.cast(ops.concatenate(own), sparse.dtype), 0)
        own = ops.tile(own, (ops.shape(sparse)[0], 1, 1))
        present = ops.reshape(prompts["present"], (-1, count))
        present = ops.concatenate([ops.ones_like(own[:, :, 0], dtype="bool"), present], axis=1)
        tokens = ops.concatenate([own, sparse], axis=1)  # (M, L, C)
        tokens, image = self.transformer(tokens, image, of_image, present)
        pixels = self.output_upscaling(ops.reshape(image, (-1, side, side, width)))
        pixels = ops.reshape(pixels, (-1, 16 * side * side, width // 8))
        weights = [
            perceptron(tokens[:, 1 + i])
            for i, perceptron in enumerate(self.output_hypernetworks_mlps)
        ]
        masks = ops.matmul(ops.stack(weights, axis=1), ops.swapaxes(pixels, 1, 2))
        return {
            "masks": ops.reshape(masks, (-1, objects, MASKS, 4 * side, 4 * side)),
            "iou": ops.reshape(self.iou_prediction_head(tokens[:, 0]), (-1, objects, MASKS)),
        }

    def compute_output_spec(self, embedding: Any, prompts: Mapping[str, Any]) -> dict[str, Any]:
        """Return shapes and dtypes of the outputs."""
        batch, objects, *_ = prompts["sparse"].shape
        side = 4 * embedding.shape[1]
        return {
            "masks": keras.KerasTensor((batch, objects, MASKS, side, side), self.compute_dtype),
            "iou": keras.KerasTensor((batch, objects, MASKS), self.compute_dtype),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), **self.arguments}
