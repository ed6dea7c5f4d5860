"""Weights with which the prompts and the mask decoder of a small SAM begin."""

import numpy as np
from keras import ops

from recipe.sam_discs import GAIN, LEAST, PERIODS, WAVES, waves

FINER = 2  # times the frequencies of the positions of prompts: cells are small
SMALL = 0.05  # of the branches of the mask decoder, when it begins


def look_near(prompts, decoder):
    """Let the last attention of the mask decoder look at the patch of the prompt.

    Queries and keys of a head are the sines and cosines of a few frequencies, from low to high; the
    product of those of two places is largest where they are the same.
    """
    matrix = FINER * ops.convert_to_numpy(prompts.pe_layer.matrix)
    matrix = matrix[:, np.argsort(np.linalg.norm(matrix, axis=0))]
    own, count = prompts.image_size / 2 / PERIODS, len(PERIODS)
    matrix[:, : 2 * count] = np.kron([[0, 1], [1, 0]], own)  # x is the first row
    prompts.pe_layer.matrix.assign(matrix)
    attention = decoder.transformer.final_attn_token_to_image
    frequencies, heads = matrix.shape[1], attention.num_heads
    each = attention.inner // heads
    chosen = np.zeros(attention.q_proj.kernel.shape)
    for head, i in np.ndindex(heads, each // 2):
        number = head + heads * i
        chosen[number, each * head + i] = 1.5
        chosen[frequencies + number, each * head + each // 2 + i] = 1.5
    for layer in (attention.q_proj, attention.k_proj):
        layer.kernel.assign(chosen)
    attention.out_proj.kernel.assign(0.2 * attention.out_proj.kernel)
    tables = (*prompts.point_embeddings, prompts.not_a_point_embed, prompts.no_mask_embed)
    for table in (*tables, decoder.mask_tokens, decoder.iou_token):
        table.weight.assign(0.2 * table.weight)


def turn_prompts(prompts, decoder, head, points):
    """Let a head of the decoder turn the token of a point to the waves of its place, and weigh.

    Args:
        prompts: The prompt encoder.
        decoder: The mask decoder.
        head: One of its `output_hypernetworks_mlps`, changed in place.
        points: (n, 2), x and y in pixels, on which the turn is fitted.
    """
    given = np.zeros((1, len(points), 2, 2), "float32")
    given[0, :, 0] = points
    kinds = np.tile([1, -1], (1, len(points), 1)).astype("int32")
    vectors = ops.sum(prompts.vectors(*map(ops.convert_to_tensor, (given, kinds))), axis=2)
    second = list(decoder.transformer.blocks)[-1]
    tokens = ops.convert_to_numpy(decoder.transformer.norm_final_attn(second.norm3(vectors)))[0]
    half, width = WAVES // 2, tokens.shape[-1]
    own = [*range(half), *range(width // 2, width // 2 + half)]  # sines, cosines
    turn = np.linalg.lstsq(tokens[:, own], waves(points[:, ::-1].astype("float64")), rcond=None)[0]
    first, middle, last = (ops.convert_to_numpy(x.kernel).copy() for x in head.steps[0].steps)
    both = slice(0, 2 * WAVES)  # relu(x) - relu(-x) is x
    first *= 0.3
    first[:, both] = 0
    first[own, both] = np.concatenate([turn, -turn], axis=1)
    middle *= 0.3
    middle[:, both] = 0
    middle[both, both] = np.eye(2 * WAVES)
    last *= 0.1
    last[both] = 0
    weights = GAIN * np.concatenate([np.eye(WAVES), -np.eye(WAVES)])
    last[both, :WAVES], last[both, WAVES + 1] = weights, -weights.sum(axis=1)
    bias = np.zeros(last.shape[1])
    bias[WAVES + 1] = -GAIN * LEAST
    for layer, kernel in zip(head.steps[0].steps, (first, middle, last), strict=True):
        layer.kernel.assign(kernel)
    layer.bias.assign(bias)


def open_decoder(sam, head):
    """Set the mask decoder so that it begins with what `Direct` has learned, and all else small.

    Args:
        sam: A `kft.backbones.sam.Sam`, changed in place.
        head: Number of the mask that `Direct` has trained.
    """
    prompts, decoder = (sam.get_layer(x) for x in ("prompt_encoder", "mask_decoder"))
    first, second = decoder.transformer.blocks
    last = decoder.transformer.final_attn_token_to_image
    for layer in (first.self_attn.v_proj, first.self_attn.out_proj):
        layer.kernel.assign(np.eye(decoder.width))
        layer.bias.assign(np.zeros(decoder.width))
    for layer in (first.self_attn.q_proj, first.self_attn.k_proj):
        layer.kernel.assign(0.3 * layer.kernel)  # each token becomes about the mean of all
    across = []
    for block in (first, second):
        across += [block.cross_attn_token_to_image, block.cross_attn_image_to_token]
    for attention in across:
        _copy(last.q_proj, attention.q_proj)
        _copy(last.k_proj, attention.k_proj)
    small = [x.out_proj for x in (*across, second.self_attn)]
    small += [first.mlp.steps[1], second.mlp.steps[1], prompts.mask_downscaling.steps[-1]]
    for layer in small:
        layer.kernel.assign(SMALL * layer.kernel)
    for table in (decoder.mask_tokens, decoder.iou_token):
        table.weight.assign(0.1 * table.weight)
    prompts.no_mask_embed.weight.assign(0 * prompts.no_mask_embed.weight)
    heads = list(decoder.output_hypernetworks_mlps)
    for i in {0, 1, 2, 3} - {head}:
        _copy(heads[head], heads[i])
    of_iou = decoder.iou_prediction_head.steps[0].steps[-1]
    of_iou.kernel.assign(0.1 * of_iou.kernel)
    of_iou.bias.assign(np.full(of_iou.bias.shape, 0.5))


def _copy(one, other):
    """Copy all weights of a layer to another one; JAX would share a tensor that is assigned."""
    for a, b in zip(one.weights, other.weights, strict=True):
        b.assign(ops.convert_to_numpy(a))
