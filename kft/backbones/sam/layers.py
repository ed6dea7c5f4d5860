"""Layers that the parts of SAM share: chains, tables, feed-forwards and the two kinds of attention.

Reference: Kirillov et al. 2023, arXiv:2304.02643 (SAM), and the code of `segment-anything` 1.0.
Layers inside of others are named as there, so that `layers.0` is found by the same name.

Differences from the reference: none in the numbers. Tables of relative positions are looked up by a
product, whose gradient is a plain table on TensorFlow too.

Shapes: `M` images or windows or objects, `L` and `T` tokens, `h` and `w` rows and columns of a
grid, `D` width, `H` heads, `d` = width of one head.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
from keras import ops


class Chain(keras.layers.Layer):
    """Layers that are called one after the other.

    Args:
        steps: The layers, named by their numbers in the reference.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, steps: Sequence[keras.Layer], **kwargs: Any):
        super().__init__(**kwargs)
        self.steps = list(steps)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        for step in self.steps:
            step.build(shape)
            shape = step.compute_output_shape(shape)

    def call(self, x: Any) -> Any:
        """Call one after the other."""
        for step in self.steps:
            x = step(x)
        return x

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output of the last layer."""
        for step in self.steps:
            shape = step.compute_output_shape(shape)
        return shape


class Group(keras.layers.Layer):
    """Layers that another one calls, under one name.

    Args:
        members: The layers, named by their numbers.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, members: Sequence[keras.Layer], **kwargs: Any):
        super().__init__(**kwargs)
        self.members = list(members)
        self.built = True  # the layers inside are built by the one that calls them

    def __iter__(self) -> Any:
        return iter(self.members)


class Table(keras.layers.Layer):
    """A table of vectors that are all used: no inputs -> float (count, width).

    Args:
        count: Number of vectors.
        width: Their width.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, count: int, width: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.weight = self.add_weight(
            shape=(count, width), initializer=keras.initializers.RandomNormal(1.0), name="weight"
        )
        self.built = True


def norm(epsilon: float, name: str, dtype: Any) -> keras.Layer:
    """Return a layer norm over channels.

    Args:
        epsilon: Its epsilon.
        name: Its name.
        dtype: Keras dtype policy.
    """
    return keras.layers.LayerNormalization(epsilon=epsilon, name=name, dtype=dtype)


def gelu(x: Any) -> Any:
    """Return the exact GELU."""
    return keras.activations.gelu(x, approximate=False)


def perceptron(
    widths: Sequence[int], name: str, dtype: Any, activation: Any = "relu"
) -> keras.Layer:
    """Return a feed-forward whose layers are name/layers/0, name/layers/1 and so on.

    Args:
        widths: Widths of the outputs of its layers; the last has no activation.
        name: Its name.
        dtype: Keras dtype policy.
        activation: Activation of all layers but the last.
    """
    last = len(widths) - 1
    steps = [
        keras.layers.Dense(width, activation if i < last else None, name=str(i), dtype=dtype)
        for i, width in enumerate(widths)
    ]
    return Chain([Chain(steps, name="layers", dtype=dtype)], name=name, dtype=dtype)


def feed_forward(hidden: int, width: int, activation: Any, dtype: Any) -> keras.Layer:
    """Return the feed-forward of a block, with the layers lin1 and lin2.

    Args:
        hidden: Units inside.
        width: D.
        activation: Activation of lin1.
        dtype: Keras dtype policy.
    """
    steps = [
        keras.layers.Dense(hidden, activation, name="lin1", dtype=dtype),
        keras.layers.Dense(width, name="lin2", dtype=dtype),
    ]
    return Chain(steps, name="mlp", dtype=dtype)


def softmax(scores: Any) -> Any:
    """Return the softmax over the last axis, computed with at least 32 bits."""
    dtype = keras.backend.standardize_dtype(scores.dtype)
    if dtype in ("float16", "bfloat16"):
        return ops.cast(ops.softmax(ops.cast(scores, "float32")), dtype)
    return ops.softmax(scores)


# Attention of the image encoder -------------------------------------------------------------------


class GridAttention(keras.layers.Layer):
    """Attention over a grid, with relative positions of rows and columns: (M, h, w, D) -> same.

    To the score of a query at (i, j) and a key at (k, l) it adds q . R_h[i - k] + q . R_w[j - l]
    (Li et al. 2022, arXiv:2112.01526, equation 4).

    Args:
        width: D.
        num_heads: H.
        grid: Largest (h, w).
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, width: int, num_heads: int, grid: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.num_heads, self.grid = width, num_heads, grid
        self.qkv = keras.layers.Dense(3 * width, name="qkv", dtype=self.dtype_policy)
        self.proj = keras.layers.Dense(width, name="proj", dtype=self.dtype_policy)

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        self.qkv.build(shape)
        self.proj.build(shape)
        per_head = self.width // self.num_heads
        self.rel_pos_h, self.rel_pos_w = (
            self.add_weight(shape=(2 * side - 1, per_head), initializer="zeros", name=name)
            for name, side in zip(("rel_pos_h", "rel_pos_w"), self.grid, strict=True)
        )

    def call(self, x: Any) -> Any:
        """Compute attention, see the class."""
        h, w, d = x.shape[1], x.shape[2], self.width // self.num_heads
        qkv = ops.reshape(self.qkv(x), (-1, h * w, 3, self.num_heads, d))
        qkv = ops.transpose(qkv, (2, 0, 3, 1, 4))  # (3, M, H, h w, d)
        query, key, value = (ops.reshape(qkv[i], (-1, h * w, d)) for i in range(3))  # (M H, h w, d)
        on_grid = ops.reshape(query, (-1, h, w, d))
        rows = ops.einsum("mhwd,hkd->mhwk", on_grid, _relative(self.rel_pos_h, h))
        columns = ops.einsum("mhwd,wkd->mhwk", on_grid, _relative(self.rel_pos_w, w))
        together = _rows_together(h, w, query.shape[0] or self.num_heads)

        def pieces(of_queries: Any) -> Any:  # (M H, h, w, ...) -> (h / r, M H, r w, ...)
            split = (-1, h // together, together * w, of_queries.shape[-1])
            return ops.swapaxes(ops.reshape(of_queries, split), 0, 1)

        attend: Any = keras.remat(_attend_on_grid) if together < h else _attend_on_grid
        found = ops.map(
            lambda of_queries: attend(*of_queries, key, value),
            (pieces(on_grid * d**-0.5), pieces(rows), pieces(columns)),
        )
        out = ops.reshape(ops.swapaxes(found, 0, 1), (-1, self.num_heads, h * w, d))
        out = ops.reshape(ops.transpose(out, (0, 2, 1, 3)), (-1, h, w, self.width))
        return self.proj(out)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the input."""
        return shape


_IN_CACHE = 16 * 2**20  # bytes of the scores that are computed at once


def _rows_together(h: int, w: int, heads: int) -> int:
    """Return of how many rows of the grid, a divisor of h, the scores are computed at once."""
    fitting = _IN_CACHE / (4 * heads * w * h * w)
    return max(r for r in range(1, h + 1) if h % r == 0 and r <= max(1, fitting))


def _attend_on_grid(query: Any, rows: Any, columns: Any, key: Any, value: Any) -> Any:
    """Compute attention of some queries to the whole grid.

    Args:
        query: Float (M, T, d), scaled.
        rows: Float (M, T, h), added to the scores of keys in each row.
        columns: Float (M, T, w), added to the scores of keys in each column.
        key: Float (M, h w, d).
        value: Float (M, h w, d).

    Returns:
        Float (M, T, d).
    """
    scores = ops.matmul(query, ops.swapaxes(key, -1, -2))  # (M, T, h w)
    on_grid = (-1, query.shape[1], rows.shape[-1], columns.shape[-1])
    scores = ops.reshape(scores, on_grid) + rows[:, :, :, None] + columns[:, :, None, :]
    weights = softmax(ops.reshape(scores, (-1, query.shape[1], key.shape[1])))
    return ops.matmul(weights, value)


def _relative(table: Any, side: int) -> Any:
    """Return vectors (side, side, d) for each pair of query and key.

    They are the middle 2 side - 1 rows of the table, all of them on a grid of its own size.
    """
    table = ops.convert_to_tensor(table)
    farther = (table.shape[0] + 1) // 2 - side
    table = table[farther : farther + 2 * side - 1]
    chosen = ops.convert_to_tensor(_distances(side), dtype=table.dtype)  # (side^2, 2 side - 1)
    return ops.reshape(ops.matmul(chosen, table), (side, side, table.shape[-1]))


@lru_cache(maxsize=8)
def _distances(side: int) -> np.ndarray:
    """Return a one-hot row for each pair (query, key): its distance + side - 1."""
    at = np.arange(side)
    return np.eye(2 * side - 1, dtype="float32")[(at[:, None] - at[None] + side - 1).reshape(-1)]


# Attention of the mask decoder --------------------------------------------------------------------


class TokenAttention(keras.layers.Layer):
    """Attention whose heads may be narrower than the tokens: (M, L, D), (M, T, D) -> (M, L, D).

    Args:
        width: D.
        num_heads: H.
        downsample: D divided by the width of all heads together.
        **kwargs: Arguments of `keras.Layer`.
    """

    def __init__(self, width: int, num_heads: int, downsample: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads, self.inner = num_heads, width // downsample
        self.width = width

        def dense(units: int, name: str) -> keras.Layer:
            return keras.layers.Dense(units, name=name, dtype=self.dtype_policy)

        self.q_proj, self.k_proj, self.v_proj = (
            dense(self.inner, name) for name in ("q_proj", "k_proj", "v_proj")
        )
        self.out_proj = dense(width, "out_proj")

    def build(self, *shapes: Any) -> None:
        """Create the weights."""
        for layer in (self.q_proj, self.k_proj, self.v_proj):
            layer.build((None, None, self.width))
        self.out_proj.build((None, None, self.inner))
        self.built = True

    def call(self, query: Any, key: Any, value: Any, present: Any = None) -> Any:
        """Compute attention.

        Args:
            query: Float (M, L, D).
            key: Float (M, T, D).
            value: Float (M, T, D).
            present: Bool (M, T), False where a key does not count; None where all do.

        Returns:
            Float (M, L, D).
        """
        q, k, v = (
            self._heads(project(x))
            for project, x in (
                (self.q_proj, query),
                (self.k_proj, key),
                (self.v_proj, value),
            )
        )
        scores = ops.matmul(q, ops.swapaxes(k, -1, -2)) * (self.inner // self.num_heads) ** -0.5
        if present is not None:
            scores = ops.where(present[:, None, None, :], scores, -1e4)  # float16 holds it
        out = ops.transpose(ops.matmul(softmax(scores), v), (0, 2, 1, 3))  # (M, L, H, d)
        return self.out_proj(ops.reshape(out, (-1, out.shape[1] or ops.shape(out)[1], self.inner)))

    def _heads(self, x: Any) -> Any:
        """Split (M, L, H d) to (M, H, L, d)."""
        length = x.shape[1] or ops.shape(x)[1]
        x = ops.reshape(x, (-1, length, self.num_heads, self.inner // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))
