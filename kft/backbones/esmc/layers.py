"""Layers of ESM-C: encoder block and language-model head.

Reference: `transformers` 5.23 (`models/esmc/modeling_esmc.py`). The gated feed-forward is Shazeer
2020, "GLU variants improve transformer", arXiv:2002.05202; the norms of queries and keys are Henry
et al. 2020, "Query-key normalization for transformers", arXiv:2010.04245.

Shapes: `B` proteins in a batch, `L` tokens, `D` width, `H` heads, `d` = D / H, `K` tokens of the
vocabulary.
"""

import math
from typing import Any

import keras
from keras import ops

from kft.backbones.attention import attention, rotary_frequencies, rotate
from kft.backbones.composite import Composite


@keras.saving.register_keras_serializable("kft")
class ESMCBlock(Composite):
    """A pre-norm transformer block: x + attention(norm(x)) / s, then x + feedforward(norm(x)) / s.

    `call(x, attention_mask)` takes float (B, L, D) and bool (B, L), True where a token may be
    attended to, and returns (B, L, D).

    Args:
        width: D.
        num_heads: H.
        hidden_width: Units inside the feed-forward.
        rope_theta: Base of the rotary frequencies.
        residual_scale: s.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden_width: int,
        rope_theta: float,
        residual_scale: float,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.width, self.num_heads, self.hidden_width = width, num_heads, hidden_width
        self.rope_theta, self.residual_scale = rope_theta, residual_scale
        self.frequencies = rotary_frequencies(width // num_heads, rope_theta)
        policy = self.dtype_policy
        self.attention_norm = self.part(norm("attention_norm", policy))
        self.query = self.part(dense(width, "query", policy))
        self.key = self.part(dense(width, "key", policy))
        self.value = self.part(dense(width, "value", policy))
        self.query_norm = self.part(norm("query_norm", policy, center=False))
        self.key_norm = self.part(norm("key_norm", policy, center=False))
        self.attention_output = self.part(dense(width, "attention_output", policy))
        self.feedforward_norm = self.part(norm("feedforward_norm", policy))
        self.feedforward_gate = self.part(dense(hidden_width, "feedforward_gate", policy))
        self.feedforward_in = self.part(dense(hidden_width, "feedforward_in", policy))
        self.feedforward_out = self.part(dense(width, "feedforward_out", policy))

    def build(
        self, x_shape: tuple[int | None, ...], attention_mask_shape: tuple[int | None, ...]
    ) -> None:
        """Create the weights."""
        in_attention = (self.attention_norm, self.query, self.key, self.value, self.query_norm)
        in_width = (*in_attention, self.key_norm, self.attention_output, self.feedforward_norm)
        for layer in (*in_width, self.feedforward_gate, self.feedforward_in):
            layer.build(x_shape)
        self.feedforward_out.build((*x_shape[:-1], self.hidden_width))

    def call(self, x: Any, attention_mask: Any) -> Any:
        """Compute the block, see the class."""
        shape = ops.shape(x)
        # Tokens in rows, as in ESM-2: XLA copies less for the gradient of the kernels.
        x = ops.reshape(x, (-1, self.width))  # (BL, D)
        h = attention(*self._project(self.attention_norm(x), shape[1]), attention_mask)
        h = self.attention_output(ops.reshape(h, ops.shape(x)))  # (B, L, H, d) -> (BL, D)
        x = ops.add(x, h / self.residual_scale)  # which may have another dtype
        h = self.feedforward_norm(x)
        h = self.feedforward_out(ops.silu(self.feedforward_gate(h)) * self.feedforward_in(h))
        return ops.reshape(ops.add(x, h / self.residual_scale), shape)

    def _project(self, x: Any, length: Any) -> tuple[Any, Any, Any]:
        """(BL, D) -> rotated queries, rotated keys, values, each (B, L, H, d)."""
        heads = (-1, length, self.num_heads, self.width // self.num_heads)
        query, key = self.query_norm(self.query(x)), self.key_norm(self.key(x))
        query, key, value = (ops.reshape(h, heads) for h in (query, key, self.value(x)))
        return rotate(query, self.frequencies), rotate(key, self.frequencies), value

    def compute_output_spec(self, x: Any, attention_mask: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        names = ("width", "num_heads", "hidden_width", "rope_theta", "residual_scale")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("kft")
class ESMCHead(Composite):
    """Token logits from hidden states: (B, L, D) -> (B, L, K).

    Args:
        width: D.
        vocabulary: K.
    """

    def __init__(self, width: int, vocabulary: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.vocabulary = width, vocabulary
        policy = self.dtype_policy
        self.dense = self.part(dense(width, "dense", policy, use_bias=True))
        self.norm = self.part(norm("norm", policy))
        self.decoder = self.part(dense(vocabulary, "decoder", policy, use_bias=True))

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        for layer in (self.dense, self.norm, self.decoder):
            layer.build(x_shape)

    def call(self, x: Any) -> Any:
        """Compute the logits, see the class."""
        return self.decoder(self.norm(ops.gelu(self.dense(x), approximate=False)))

    def compute_output_spec(self, x: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor((*x.shape[:-1], self.vocabulary), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "width": self.width, "vocabulary": self.vocabulary}


def gated_width(width: int) -> int:
    """Return the units inside a feed-forward of the published models: 8/3 D in steps of 256.

    Example:
        >>> gated_width(960)
        2560
    """
    return 256 * math.ceil(8 * width / 3 / 256)


def dense(units: int, name: str, dtype: Any, use_bias: bool = False) -> keras.layers.Dense:
    """Return a dense layer as all of ESM-C are, outside of its head without a bias."""
    return keras.layers.Dense(
        units, use_bias=use_bias, kernel_initializer="lecun_normal", dtype=dtype, name=name
    )


def norm(name: str, dtype: Any, center: bool = True) -> keras.layers.LayerNormalization:
    """Return a layer norm as all of ESM-C are, with a bias where `center` is True."""
    return keras.layers.LayerNormalization(epsilon=1e-5, center=center, dtype=dtype, name=name)
