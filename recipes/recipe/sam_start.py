"""Weights from which a small image encoder learns fast: it sees edges, knows places, looks around.

Training goes on to change all of them. Random ones would have to find the same first.
"""

import numpy as np
from keras import ops

import kft
from recipe.sam_discs import carry_places
from recipe.sam_prompts import look_near, turn_prompts

PERIODS = (512, 24)  # pixels, longest and shortest wave of the positions of patches
# Where the heads of each block look first: rows and columns of patches from their own.
LOOKS = (
    ((0, -1), (0, 1), (-1, 0), (1, 0)),
    ((-1, -1), (1, 1), (-1, 1), (1, -1)),
    ((0, -2), (0, 2), (-2, 0), (2, 0)),
    ((-2, -2), (2, 2), (-2, 2), (2, -2)),
)
FALL = (1.5, 1.5, 0.7, 0.7)  # of the scores of each block, per squared patch from there


def begin(sam, images, seed, head):
    """Draw the weights of a SAM, and set those with which it begins.

    Args:
        sam: A `kft.backbones.sam.Sam` with at most four heads in its image encoder, changed in
            place.
        images: (B, S, S, 3), some images.
        seed: Seed of what is random.
        head: Number of the mask that begins with discs.
    """
    kft.backbones.randomised(sam, seed)
    _, patches, *blocks, _ = sam.stages
    _see_edges(patches.proj)
    _know_place(patches)
    for block, looks, fall in zip(blocks, LOOKS, FALL, strict=False):
        _look_around(block.attn, looks, fall)
    carry_places(sam, images.astype("float32"))
    prompts, decoder = (sam.get_layer(x) for x in ("prompt_encoder", "mask_decoder"))
    look_near(prompts, decoder)
    points = np.random.default_rng(seed).uniform(0, sam.image_size, (200, 2))
    turn_prompts(prompts, decoder, list(decoder.output_hypernetworks_mlps)[head], points)


def _see_edges(proj):
    """Set the first filters to the cosine transform of a patch, and some differences of colours."""
    kernel = ops.convert_to_numpy(proj.kernel).copy()
    side, filters = kernel.shape[0], kernel.shape[-1]
    at, numbers = np.arange(side) + 0.5, np.arange(side)
    waves = np.cos(np.pi * numbers[:, None] * at / side) * np.sqrt(2 / side)
    waves[0] /= np.sqrt(2)
    most = min(6, int(np.sqrt(filters / 2)))
    for i in range(most * most):
        down, across = divmod(i, most)
        gain = 1.0 if i else 0.25  # the mean of a patch is large
        kernel[..., i] = gain * np.outer(waves[down], waves[across])[:, :, None] / 3
    for i, colours in enumerate(((1, -1, 0), (0.5, 0.5, -1)), most * most):
        kernel[..., i] = 0.5 * np.outer(waves[0], waves[0])[:, :, None] * colours
    proj.kernel.assign(kernel)


def _know_place(patches):
    """Set the positions of patches to sines and cosines of rows and of columns."""
    _, grid, _, width = patches.pos_embed.shape
    periods = np.geomspace(*PERIODS, width // 4)
    angles = 2 * np.pi * (np.arange(grid)[:, None] + 0.5) * patches.patch_size / periods
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)  # (h, D / 2)
    rows = np.repeat(waves[:, None], grid, axis=1)
    columns = np.repeat(waves[None], grid, axis=0)
    patches.pos_embed.assign(0.5 * np.concatenate([rows, columns], axis=-1)[None])


def _look_around(attention, looks, fall):
    """Let each head begin with looking at one neighbour, whatever is there.

    The bias of a query has a 1 that meets the relative positions, of which each head reads a
    dimension of its own (d'Ascoli et al. 2021, arXiv:2103.10697, begin so, too).
    """
    kernel, bias = (ops.convert_to_numpy(x).copy() for x in attention.qkv.weights)
    tables = [ops.convert_to_numpy(x).copy() for x in (attention.rel_pos_h, attention.rel_pos_w)]
    heads, width = attention.num_heads, attention.width
    each = width // heads
    kernel[:, : 2 * width] /= 2
    for head, steps in zip(range(heads), looks, strict=False):
        for axis, (table, step) in enumerate(zip(tables, steps, strict=True)):
            number = head + heads * axis
            kernel[:, each * head + number], bias[each * head + number] = 0, 1
            away = np.arange(len(table)) - len(table) // 2 - step
            table[:, number] = np.maximum(-fall * away**2, -12)
    for variable, values in zip(attention.qkv.weights, (kernel, bias), strict=True):
        variable.assign(values)
    attention.rel_pos_h.assign(tables[0])
    attention.rel_pos_w.assign(tables[1])
