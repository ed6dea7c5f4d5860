"""Training of a small SAM's image encoder, and of what its masks are made of."""

import keras
from keras import ops

from kft.backbones.sam.prompts import TOP_LEFT
from recipe.sam_discs import GAIN, WAVES
from recipe.sam_on_windows import OnWindows, mask_loss, mean_of

MASK = 1  # of the decoder's masks, the one that learns first
TRAINED = (
    "image_encoder", "prompt_encoder.point_embeddings", "prompt_encoder.not_a_point_embed",
    "mask_decoder.output_upscaling", f"mask_decoder.output_hypernetworks_mlps.{MASK}",
    "mask_decoder.transformer.final_attn_token_to_image",
    "mask_decoder.transformer.norm_final_attn", "mask_decoder.transformer.layers.0.norm4",
    "mask_decoder.transformer.layers.1.norm3", "mask_decoder.transformer.layers.1.norm4",
)  # fmt: skip
DENSE, LOOKS = 0.5, 0.1  # weights of losses beside that of the mask


class Direct(OnWindows):
    """The mask decoder without its attention: a prompt takes what the embedding holds at its patch.

    Beside the mask it learns dense targets: which cells are of an object, the way to its middle,
    and, as what masks are made of, sines and cosines of the place of the middle. The last attention
    of the decoder learns to look at the patch of the prompt.
    """

    def __init__(self, sam):
        super().__init__(sam)
        self.dense = keras.layers.Dense(48, name="dense")

    def call(self, batch):
        """Return the loss of each window, (B,)."""
        embedding = self.embedding(batch["images"], batch["corner"])
        logits, found = self.masks(embedding, batch)
        losses = mask_loss(logits, batch["targets"]) + LOOKS * self._looks(batch, **found)
        waves = found["weights"][..., :WAVES] / GAIN
        losses = losses + ops.mean((waves - batch["middles"]) ** 2, axis=-1)
        of_cells = self._dense_loss(embedding, found["pixels"], batch)
        return mean_of(losses, batch["present"]) + of_cells

    def masks(self, embedding, batch):
        """Return logits (B, N, 4 g, 4 g), and what they are made of."""
        transformer = self.decoder.transformer
        first, second = transformer.blocks
        image = second.norm4(first.norm4(embedding))
        pixels = self.decoder.output_upscaling(image)  # (B, 4 g, 4 g, C / 8)
        vectors = self.prompts.vectors(batch["points"], batch["labels"])
        tokens = second.norm3(ops.sum(vectors, axis=2))  # (B, N, C)
        side = image.shape[1]
        image = ops.reshape(image, (-1, side * side, image.shape[-1]))
        patch = self._patches(batch, side)
        there = ops.take_along_axis(image, patch[:, :, None], axis=1)
        last = transformer.final_attn_token_to_image
        update = last.out_proj(last.v_proj(there))
        head = list(self.decoder.output_hypernetworks_mlps)[MASK]
        weights = head(transformer.norm_final_attn(tokens + update))
        logits = ops.einsum("bnc,bxyc->bnxy", weights, pixels)
        parts = {"tokens": tokens, "image": image, "patch": patch}
        return logits, {**parts, "weights": weights, "pixels": pixels}

    def _patches(self, batch, side):
        """Return the number of the patch of each point, or of the middle of each box, (B, N)."""
        points, of_box = batch["points"], batch["labels"][:, :, :1] == TOP_LEFT
        at = ops.where(of_box, ops.mean(points[:, :, :2], axis=2), points[:, :, 0])
        x, y = ops.unstack(ops.cast(at // self.patch, "int32"), 2, axis=-1)
        row, column = (
            ops.clip(place - batch["corner"][:, axis : axis + 1], 0, side - 1)
            for axis, place in enumerate((y, x))
        )
        return row * side + column

    def _looks(self, batch, tokens, image, patch, **_):
        """Return how far the last attention is from looking at the patch alone, (B, N)."""
        last = self.decoder.transformer.final_attn_token_to_image
        side = round(image.shape[1] ** 0.5)
        places = self.part(self.prompts._of_grid(), batch["corner"], side)
        keys = image + ops.reshape(places, ops.shape(image))
        query, key = last._heads(last.q_proj(tokens)), last._heads(last.k_proj(keys))
        scores = ops.matmul(query, ops.swapaxes(key, -1, -2)) * query.shape[-1] ** -0.5
        wanted = ops.broadcast_to(patch[:, None], ops.shape(scores)[:-1])
        losses = keras.losses.sparse_categorical_crossentropy(wanted, scores, from_logits=True)
        return ops.mean(losses, axis=1)

    def _dense_loss(self, embedding, pixels, batch):
        """Return the loss of the dense targets, (B,)."""
        side = embedding.shape[1]
        found = ops.reshape(self.dense(embedding), (-1, side, side, 4, 4, 3))
        found = ops.transpose(found, (0, 1, 3, 2, 4, 5))
        found = ops.reshape(found, (-1, 4 * side, 4 * side, 3))
        inside = batch["inside"]
        surprise = ops.softplus(ops.where(inside > 0.5, -found[..., :1], found[..., :1]))
        way = mean_of(ops.abs(found[..., 1:] - batch["way"]), inside)
        wanted = ops.concatenate([batch["waves"], inside], axis=-1)
        error = ops.mean((pixels[..., : wanted.shape[-1]] - wanted) ** 2, axis=-1, keepdims=True)
        of_waves = mean_of(error, inside) + mean_of(error, 1 - inside) / 2
        return DENSE * (mean_of(surprise, ops.ones_like(surprise)) + way) + of_waves
