"""Self-attention with rotary positions, as in ESM-2 and ESM-C; functions without weights.

References: Su et al. 2021, "RoFormer", arXiv:2104.09864, section 3.2.2; Vaswani et al. 2017,
"Attention is all you need", equation 1.

Differences from the reference (`fair-esm` 2.0.0): the scores are divided by sqrt(d), not the
queries. The numbers are the same up to rounding.

Shapes: `B` proteins in a batch, `L` tokens, `H` heads, `d` features of one head.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.keras_internals import training_of_call


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
    if _pays_in_pieces(ops.shape(query)[1]):
        return _in_pieces(query, key, value, _bias(attention_mask))
    mask = attention_mask[:, None, None, :]  # (B, 1, 1, L)
    dtype = keras.backend.standardize_dtype(value.dtype)
    half = dtype in ("bfloat16", "float16")
    if half and keras.backend.backend() == "torch" and value.device.type == "cpu":
        # torch's gradient of this in half precision takes ten times as long on a CPU as in single.
        query, key, value = (ops.cast(x, "float32") for x in (query, key, value))
    return ops.cast(ops.dot_product_attention(query, key, value, mask=mask), dtype)


# Tokens from which proteins, and heads, are computed one by one, as measured on an Intel processor.
_SHORT = 192  # on TensorFlow; on JAX always
_LONG = 384 if keras.backend.backend() == "tensorflow" else 192


def _pays_in_pieces(length: Any) -> bool:
    """Return whether XLA compiles for a processor, and pieces take less time.

    TensorFlow does not know the length where a program is traced for any: pieces then take less
    time where no gradient is needed. To compile both ways would take longer than is gained.
    """
    if keras.backend.backend() == "torch" or not on_processor():
        return False
    if keras.backend.backend() == "jax":
        return True
    return length >= _SHORT if isinstance(length, int) else training_of_call() is False


def on_processor() -> bool:
    """Return whether Keras computes on a processor, and not on a graphics card."""
    if keras.backend.backend() == "torch":  # for which Keras lists no devices
        return bool(ops.zeros(1).device.type == "cpu")
    return keras.distribution.list_devices()[0].lower().startswith("cpu")


def _in_pieces(query: Any, key: Any, value: Any, bias: Any) -> Any:
    """Compute attention of (B, L, H, d) with a bias (B, L), one protein or head after the other.

    XLA would write the (B, H, L, L) weights of every block to memory and keep them for the
    gradient. One protein at a time, or one head of a long one, they stay in the cache, and
    computing them again is cheaper than keeping them: less time, and a fraction of the memory.
    """
    batch, length, heads, width = ops.shape(query)
    if isinstance(length, int) and length < _LONG:
        return ops.map(keras.remat(_of_one_protein), (query, key, value, bias))
    if keras.backend.backend() == "jax":
        return _by_heads_on_jax()(query, key, value, bias)

    def pieces(x: Any) -> Any:  # (B, H, ...) -> (B H, ...)
        return ops.reshape(x, (-1, *ops.shape(x)[2:]))

    arrays = [pieces(ops.transpose(x, (0, 2, 1, 3))) for x in (query, key, value)]
    bias = pieces(ops.broadcast_to(bias[:, None, None, :], (batch, heads, 1, length)))
    found = ops.map(keras.remat(_of_one_piece), (*arrays, bias))
    return ops.transpose(ops.reshape(found, (batch, heads, length, width)), (0, 2, 1, 3))


def _of_one_protein(inputs: Any) -> Any:
    """Compute attention of query, key and value (L, H, d) with a bias (L,) -> (L, H, d)."""
    *projections, bias = inputs
    arrays = (ops.transpose(x, (1, 0, 2)) for x in projections)  # (H, L, d)
    return ops.transpose(_of_one_piece((*arrays, bias)), (1, 0, 2))


def _of_one_piece(inputs: Any) -> Any:
    """Compute attention of query, key and value (..., L, d) with a bias of the scores."""
    query, key, value, bias = inputs
    return ops.matmul(ops.cast(_weights(query, key, bias), value.dtype), value)


@cache
def _by_heads_on_jax() -> Callable:
    """Return a function of query, key, value (B, L, H, d) and bias (B, L) with its own gradient.

    Heads are read and written where they are, since XLA is slow to bring them into another order.
    It would also copy the transposed (L, L) weights, with which the gradients of keys and values
    are products, so their small factor is transposed instead.
    """
    import jax

    def transposed_product(weights: Any, x: Any) -> Any:  # weights^T x, (L, L) and (L, d) -> (L, d)
        # XLA would simplify it to the slow product if it saw through.
        return ops.transpose(jax.lax.optimization_barrier(ops.matmul(ops.transpose(x), weights)))

    def forward(query: Any, key: Any, value: Any, bias: Any) -> tuple[Any, tuple]:
        batch, length, heads, _ = query.shape

        def attend(i: Any, done: tuple) -> tuple:
            q, k, v = (_head(x, i) for x in (query, key, value))
            scores = _scores(q, k, bias[i // heads])
            largest = ops.max(scores, axis=-1, keepdims=True)
            weights = ops.exp(scores - largest)
            total = ops.sum(weights, axis=-1, keepdims=True)  # (L, 1)
            found = ops.matmul(ops.cast(weights, v.dtype), v) / total
            return _with_head(done[0], found, i), _with_head(done[1], largest + ops.log(total), i)

        log_totals = ops.zeros((batch, length, heads, 1), "float32")
        start = ops.zeros_like(value), log_totals
        found, log_totals = ops.fori_loop(0, batch * heads, attend, start)
        return found, (query, key, value, bias, found, log_totals)

    def backward(kept: tuple, gradient: Any) -> tuple[Any, Any, Any, None]:
        query, key, value, bias, found, log_totals = kept
        batch, _, heads, width = query.shape

        def attend(i: Any, done: tuple) -> tuple:
            q, k, v, g = (_head(x, i) for x in (query, key, value, gradient))
            weights = ops.exp(_scores(q, k, bias[i // heads]) - _head(log_totals, i))  # (L, L)
            of_weights = ops.cast(ops.matmul(g, ops.transpose(v)), "float32")
            mean = ops.sum(ops.cast(g * _head(found, i), "float32"), axis=-1, keepdims=True)
            of_scores = weights * (of_weights - mean) * width**-0.5
            of_scores, weights = (ops.cast(x, v.dtype) for x in (of_scores, weights))
            gradients = (
                ops.matmul(of_scores, k),
                transposed_product(of_scores, q),
                transposed_product(weights, g),
            )
            return tuple(_with_head(x, of_x, i) for x, of_x in zip(done, gradients, strict=True))

        start = tuple(ops.zeros_like(x) for x in (query, key, value))
        return (*ops.fori_loop(0, batch * heads, attend, start), None)

    attend = jax.custom_vjp(lambda *inputs: forward(*inputs)[0])
    attend.defvjp(forward, backward)
    return attend


def _head(x: Any, i: Any) -> Any:
    """Return head i of all B H heads of (B, L, H, d): (L, d)."""
    _, length, heads, width = x.shape
    piece = ops.slice(x, (i // heads, 0, i % heads, 0), (1, length, 1, width))
    return ops.reshape(piece, (length, width))


def _with_head(x: Any, head: Any, i: Any) -> Any:
    """Return (B, L, H, d) with another head i (L, d)."""
    _, length, heads, width = x.shape
    piece = ops.cast(ops.reshape(head, (1, length, 1, width)), x.dtype)
    return ops.slice_update(x, (i // heads, 0, i % heads, 0), piece)


def _weights(query: Any, key: Any, bias: Any) -> Any:
    """Compute float32 (..., L, L) of (..., L, d) twice and a float32 bias of the scores."""
    return ops.softmax(_scores(query, key, bias), axis=-1)


def _scores(query: Any, key: Any, bias: Any) -> Any:
    """Compute Q K^T / sqrt(d) + bias, float32 (..., L, L)."""
    scores = ops.cast(ops.matmul(query, ops.swapaxes(key, -1, -2)), "float32")
    return scores * query.shape[-1] ** -0.5 + bias


def _bias(attention_mask: Any) -> Any:
    """Return 0 where a token may be attended to; elsewhere so low that its weight is exactly 0."""
    return ops.where(attention_mask, 0.0, -1e9)
