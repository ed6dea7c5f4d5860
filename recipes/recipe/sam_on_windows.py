"""Trainings of a small SAM on windows: a step on a quarter of an image costs a quarter."""

import keras
from keras import ops

from kft.backbones.sam.prompts import ABSENT
from kft.segmentation.training import NextPrompts, dice_loss, true_iou


class OnWindows(keras.Model):
    """The image encoder of a SAM on windows, whose output is the loss of each window.

    Args:
        sam: A `kft.backbones.sam.Sam`, which learns.
    """

    def __init__(self, sam):
        super().__init__()
        self.sam, self.patch = sam, sam.image_size // sam.grid
        self.prompts, self.decoder = (sam.get_layer(x) for x in ("prompt_encoder", "mask_decoder"))

    def part(self, table, corner, side):
        """Return of (h, w, D) the part of each window, (B, side, side, D)."""
        steps = ops.arange(side)
        rows, columns = corner[:, :1, None] + steps[:, None], corner[:, 1:, None] + steps
        flat = ops.reshape(table, (-1, table.shape[-1]))
        return ops.take(flat, rows * table.shape[1] + columns, axis=0)

    def embedding(self, images, corner):
        """Return the embedding of windows, (B, g, g, C)."""
        pixels, patches, *blocks, neck = self.sam.stages
        x = patches.proj(pixels(images))
        x = x + self.part(ops.convert_to_tensor(patches.pos_embed)[0], corner, x.shape[1])
        for block in blocks:
            x = block(x)
        return neck(x)


def mask_loss(logits, truth):
    """Return the Dice loss and the cross-entropy, half from inside and half from outside, (...)."""
    surprise = ops.softplus(ops.where(truth > 0.5, -logits, logits))
    inside, outside = (
        ops.sum(surprise * x, (-2, -1)) / ops.maximum(ops.sum(x, (-2, -1)), 1)
        for x in (truth, 1 - truth)
    )
    return dice_loss(logits, truth, ops.ones_like(truth)) + (inside + outside) / 2


def mean_of(values, counted):
    """Return the mean of values (B, ...) for each window, of those that count."""
    axes = tuple(range(1, len(values.shape)))
    counted = counted + ops.zeros_like(values)
    return ops.sum(values * counted, axes) / ops.maximum(ops.sum(counted, axes), 1)


class Prompted(OnWindows):
    """The whole model on windows: masks of a first prompt and of one more, and predicted IoU."""

    def call(self, batch):
        """Return the loss of each window, (B,)."""
        embedding = self.embedding(batch["images"], batch["corner"])
        given = {name: batch[name] for name in ("points", "labels")}
        outputs = self.masks(embedding, batch, **given)
        first = self.loss_of(outputs, batch)
        corner = ops.cast(ops.flip(batch["corner"], axis=1)[:, None, None] * self.patch, "float32")
        drawn = {**batch, "inside": ops.ones_like(batch["targets"][:, 0])}
        following = NextPrompts(0, embedding.shape[1] * self.patch)
        added = following(outputs, batch["points"] - corner, batch["labels"], drawn)
        added["points"] = added["points"] + corner
        second = self.loss_of(self.masks(embedding, batch, **added), batch)
        return (first + second) / 2

    def masks(self, embedding, batch, points, labels, masks=None, has_mask=None):
        """Return what the mask decoder answers to prompts, those of `kft.backbones.sam`."""
        side = embedding.shape[1]
        none = ops.convert_to_tensor(self.prompts.no_mask_embed.weight)
        dense = none + ops.zeros_like(batch["present"])[:, :, None, None, None]
        dense = dense + ops.zeros_like(embedding)[:, None]
        if masks is not None:
            rough = ops.reshape(masks, (-1, 4 * side, 4 * side, 1))
            rough = ops.reshape(self.prompts.mask_downscaling(rough), ops.shape(dense))
            dense = ops.where(has_mask[:, :, None, None, None] > 0, rough, dense)
        return self.decoder(
            embedding,
            {
                "sparse": self.prompts.vectors(points, labels),
                "present": labels != ABSENT,
                "dense": dense,
                "positions": self.part(self.prompts._of_grid(), batch["corner"], side),
            },
        )

    def loss_of(self, outputs, batch):
        """Return the loss of each window, (B,)."""
        logits, truth = outputs["masks"][:, :, 1:], batch["targets"][:, :, None]
        losses = mask_loss(logits, truth + ops.zeros_like(logits))
        losses = 0.3 * ops.min(losses, axis=-1) + 0.7 * ops.mean(losses, axis=-1)
        iou = ops.stop_gradient(true_iou(logits, truth, ops.ones_like(truth)))
        losses = losses + ops.mean((outputs["iou"][:, :, 1:] - iou) ** 2, axis=-1)
        return mean_of(losses, batch["present"])
