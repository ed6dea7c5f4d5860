"""Weights with which a small SAM begins: its mask is a disc at the prompt, whatever is there.

Some channels of the embedding hold sines and cosines of the place of a patch. The enlargement
carries them to each cell of the masks, a prompt is turned to those of its own place, and their
product is largest where the two are the same. What is inside of a cell is left to training.
"""

import numpy as np
from keras import ops

PERIODS = np.array([36.0, 80.0, 200.0])  # pixels of the input, along rows and along columns
WAVES = 4 * len(PERIODS)
GAIN, LEAST = 2.0, 4.5  # of the products of waves, whose largest sum is 6


def waves(places):
    """Return sines and cosines of places (..., 2), row and column in pixels, float (..., 12)."""
    angles = (2 * np.pi * places[..., None] / PERIODS).reshape(*places.shape[:-1], -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


def carry_places(sam, images):
    """Set weights of the image encoder and the enlargement, so that places reach the masks.

    Args:
        sam: A `kft.backbones.sam.Sam` of at least 32 channels, changed in place.
        images: (B, S, S, 3), some images, on which the size of waves is measured.
    """
    decoder = sam.get_layer("mask_decoder")
    kept = slice(-2 * WAVES, -WAVES)  # channels that hold waves
    _carry(sam, kept)
    embedding = sam.image_encoder.predict_on_batch({"images": images})
    _enlarge(sam, decoder.output_upscaling.steps, embedding, kept)


def centres(side, step):
    """Return row and column of the middles of a grid, (side, side, 2) in pixels."""
    at = (np.arange(side) + 0.5) * step
    return np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1)


def shifted(step):
    """Return the matrix (in, out) from the waves of a place to those `step` pixels from it."""
    angle = 2 * np.pi * (np.asarray(step)[:, None] / PERIODS).ravel()
    cosine, sine = np.diag(np.cos(angle)), np.diag(np.sin(angle))
    return np.block([[cosine, -sine], [sine, cosine]])


def _carry(sam, kept):
    """Let some channels hold waves from the patches to the embedding."""
    _, patches, *blocks, neck = sam.stages
    _without(patches.proj.kernel, kept)
    places = waves(centres(sam.grid, patches.patch_size))
    table = 0.6 * ops.convert_to_numpy(patches.pos_embed)
    table[..., kept] = 1.4 * places
    patches.pos_embed.assign(table)
    for block in blocks:
        for layer in (block.attn.proj, block.mlp.steps[1]):
            _without(layer.kernel, kept)
    first, _, second, _ = neck.steps
    width = second.kernel.shape[-1]
    first.kernel.assign(np.eye(*first.kernel.shape[-2:])[None, None])
    kernel = ops.convert_to_numpy(second.kernel) / 2
    kernel[..., kept] = 0
    kernel[1, 1] += np.eye(width)
    second.kernel.assign(kernel)


def _without(kernel, outputs):
    """Set the columns of some outputs to 0."""
    values = ops.convert_to_numpy(kernel).copy()
    values[..., outputs] = 0
    kernel.assign(values)


def _enlarge(sam, steps, embedding, kept):
    """Let the two enlargements carry waves to the cells of masks: gelu(x) - gelu(-x) is x."""
    first, norm, _, second, _ = steps
    patch = sam.image_size // sam.grid
    true = waves(centres(sam.grid, patch))
    seen = (embedding[..., kept] * true).mean() / (true**2).mean()
    kernel = ops.convert_to_numpy(first.kernel) / 2  # (2, 2, out, in)
    kernel[:, :, : 2 * WAVES] = 0
    for i, j in np.ndindex(2, 2):
        turn = shifted(((i - 0.5) * patch / 2, (j - 0.5) * patch / 2)).T / seen
        kernel[i, j, : 2 * WAVES, kept] = np.concatenate([turn, -turn])
    first.kernel.assign(kernel)
    true = waves(centres(2 * sam.grid, patch / 2))
    found = ops.convert_to_numpy(norm(first(ops.convert_to_tensor(embedding))))[..., :WAVES]
    seen = (found * true).mean() / (true**2).mean()
    kernel, bias = 0.3 * ops.convert_to_numpy(second.kernel), np.zeros(second.bias.shape)
    kernel[:, :, :WAVES], kernel[:, :, WAVES + 1] = 0, 0
    for i, j in np.ndindex(2, 2):
        turn = shifted(((i - 0.5) * patch / 4, (j - 0.5) * patch / 4)).T / seen
        kernel[i, j, :WAVES, : 2 * WAVES] = np.concatenate([turn, -turn], axis=1)
    bias[:WAVES], bias[WAVES + 1] = 1, 1.16  # gelu(1.16) is 1
    second.kernel.assign(kernel)
    second.bias.assign(bias)
