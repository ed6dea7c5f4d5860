"""Self-attention with rotary positions, as in ESM-2 and ESM-C; functions without weights.

References: Su et al. 2021, "RoFormer", arXiv:2104.09864, section 3.2.2; Vaswani et al. 2017,
"Attention is all you need", equation 1.

Differences from the reference (`fair-esm` 2.0.0): the scores are divided by sqrt(d), not the
queries. The numbers are the same up to rounding.

Shapes: `B` proteins in a batch, `L` tokens, `H` heads, `d` features of one head.
"""

from typing import Any

import keras
import numpy as np
from keras import ops


def rotary_frequencies(head_width: int, base: float = 10000.0) -> tuple[float, ...]:
    """Compute the angle per position of each pair of features.

    Source: Su et al. 2021, section 3.2.2.

    Args:
        head_width: Number d of features of one head, even.
        base: Ratio between the largest and the smallest frequency.

    Returns:
        d/2 floats in radians, base^(-2i/d), rounded to float32 where the reference rounds: far
        along a protein the last bit of a frequency changes the angle.

    Example:
        >>> rotary_frequencies(2)
        (1.0,)
    """
    exponent = np.arange(0, head_width, 2, dtype="float32") / np.float32(head_width)
    return tuple((1 / np.power(base, exponent.astype("float64")).astype("float32")).tolist())


def rotate(x: Any, frequencies: tuple[float, ...]) -> Any:
    """Rotate queries or keys by their position (Su et al. 2021, equation 34).

    Args:
        x: Float tensor (B, L, H, d), d even. Feature i is paired with feature i + d/2.
        frequencies: d/2 floats, radians per position.

    Returns:
        Tensor of the same shape and dtype; computed in float32, as in the reference.

    Example:
        >>> rotate(ops.ones((1, 3, 2, 4)), rotary_frequencies(4)).shape == (1, 3, 2, 4)
        True
    """
    position = ops.arange(ops.shape(x)[1], dtype="float32")  # (L,)
    angle = ops.outer(position, ops.convert_to_tensor(frequencies, "float32"))  # (L, d/2)
    cos, sin = ops.cos(angle)[None, :, None, :], ops.sin(angle)[None, :, None, :]  # (1, L, 1, d/2)
    # Not slices: on torch the gradient of each would fill a tensor of the whole size with zeros.
    first, second = ops.split(ops.cast(x, "float32"), 2, axis=-1)  # (B, L, H, d/2)
    rotated = ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return ops.cast(rotated, x.dtype)


def attention_weights(query: Any, key: Any, attention_mask: Any) -> Any:
    """Compute softmax(Q K^T / sqrt(d)), the weights inside of `attention`.

    Args:
        query: Float tensor (B, L, H, d).
        key: Float tensor (B, L, H, d).
        attention_mask: Bool tensor (B, L), True where a token may be attended to.

    Returns:
        float32 tensor (B, H, L, L).

    Example:
        >>> x = ops.ones((1, 3, 2, 4))
        >>> attention_weights(x, x, ops.ones((1, 3), "bool")).shape == (1, 2, 3, 3)
        True
    """
    query, key = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key))  # (B, H, L, d)
    return _weights(query, key, _bias(attention_mask)[:, None, None, :])


def attention(query: Any, key: Any, value: Any, attention_mask: Any) -> Any:
    """Compute softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, equation 1).

    Args:
        query: Float tensor (B, L, H, d).
        key: Float tensor (B, L, H, d).
        value: Float tensor (B, L, H, d).
        attention_mask: Bool tensor (B, L), True where a token may be attended to.

    Returns:
        Tensor (B, L, H, d) of the dtype of `value`; the softmax is computed in float32.

    Example:
        >>> x = ops.ones((1, 3, 2, 4))
        >>> attention(x, x, x, ops.ones((1, 3), "bool")).shape == (1, 3, 2, 4)
        True
    """
    if keras.backend.backend() == "jax" and keras.distribution.list_devices()[0].startswith("cpu"):
        # XLA would write the (B, H, L, L) weights of every block to memory and keep them for the
        # gradient. One protein at a time they stay in the cache, and computing them again is
        # cheaper than keeping them: less time, and a tenth of the memory.
        return ops.map(keras.remat(_of_one_protein), (query, key, value, _bias(attention_mask)))
    mask = attention_mask[:, None, None, :]  # (B, 1, 1, L)
    dtype = keras.backend.standardize_dtype(value.dtype)
    half = dtype in ("bfloat16", "float16")
    if half and keras.backend.backend() == "torch" and value.device.type == "cpu":
        # torch's gradient of this in half precision takes ten times as long on a CPU as in single.
        query, key, value = (ops.cast(x, "float32") for x in (query, key, value))
    return ops.cast(ops.dot_product_attention(query, key, value, mask=mask), dtype)


def _of_one_protein(inputs: Any) -> Any:
    """Compute attention of query, key and value (L, H, d) with a bias (L,) -> (L, H, d)."""
    *projections, bias = inputs
    query, key, value = (ops.transpose(x, (1, 0, 2)) for x in projections)  # (H, L, d)
    weights = ops.cast(_weights(query, key, bias), value.dtype)  # (H, L, L)
    return ops.transpose(ops.matmul(weights, value), (1, 0, 2))


def _weights(query: Any, key: Any, bias: Any) -> Any:
    """Compute float32 (..., H, L, L) of (..., H, L, d) twice and a float32 bias of the scores."""
    scores = ops.cast(ops.matmul(query, ops.swapaxes(key, -1, -2)), "float32")
    return ops.softmax(scores * query.shape[-1] ** -0.5 + bias, axis=-1)


def _bias(attention_mask: Any) -> Any:
    """Return 0 where a token may be attended to; elsewhere so low that its weight is exactly 0."""
    return ops.where(attention_mask, 0.0, -1e9)
