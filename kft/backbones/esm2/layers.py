"""Layers of ESM-2: embedding, encoder block, heads for tokens and contacts.

Reference: `fair-esm` 2.0.0 (`esm/model/esm2.py`, `esm/modules.py`). The contact head is Rao et al.
2021, "Transformer protein language models are unsupervised structure learners".

Shapes: `B` proteins in a batch, `L` tokens, `N` = L - 2 residues, `D` width, `H` heads,
`d` = D / H, `n` encoder blocks.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kft.backbones.attention import attention, attention_weights, rotate
from kft.backbones.composite import Composite
from kft.backbones.copies import lost
from kft.backbones.residue_tokens import ALPHABET, EOS, MASK, PAD
from kft.backbones.token_table import TokenTable
from kft.keras_internals import set_untracked

# The published models were trained with 15% of the residues chosen and 80% of those shown as
# <mask>. Their embeddings are zero, so all others are scaled as dropout would (section A.1).
MASKED_IN_TRAINING = 0.15 * 0.8


@keras.saving.register_keras_serializable("kft")
class TokenEmbedding(Composite):
    """Embedding of tokens with ESM's token dropout: int (B, L) -> float (B, L, D).

    <mask> and <pad> become zero, and the rest is scaled by (1 - 0.15 * 0.8) / (1 - fraction of
    <mask> among the tokens that are not <pad>).

    Args:
        width: D.
        token_dropout: Whether embeddings are scaled.
    """

    def __init__(self, width: int, token_dropout: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.width, self.token_dropout = width, token_dropout
        table = TokenTable(
            len(ALPHABET), width, normal(width), dtype=self.dtype_policy, name="tokens"
        )
        self.tokens = self.part(table)

    def build(self, token_ids_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        self.tokens.build(token_ids_shape)
        self.built = True

    def call(self, token_ids: Any) -> Any:
        """Compute the embeddings, see the class."""
        shown = ops.not_equal(token_ids, PAD)
        scale = 1.0
        if self.token_dropout:
            is_mask = ops.equal(token_ids, MASK)
            masked = ops.sum(ops.cast(is_mask, "float32"), axis=1, keepdims=True)  # (B, 1)
            total = ops.sum(ops.cast(shown, "float32"), axis=1, keepdims=True)
            scale = (1.0 - MASKED_IN_TRAINING) / (1.0 - masked / total)
            shown = ops.logical_and(shown, ops.logical_not(is_mask))
        scale = ops.expand_dims(ops.where(shown, scale, 0.0), -1)  # (B, L, 1)
        return self.tokens(token_ids) * ops.cast(scale, self.compute_dtype)

    def compute_output_spec(self, token_ids: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor((*token_ids.shape, self.width), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        config = {"width": self.width, "token_dropout": self.token_dropout}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kft")
class EncoderBlock(Composite):
    """A pre-norm transformer block: x + attention(norm(x)), then x + feedforward(norm(x)).

    `call(x, attention_mask)` takes float (B, L, D) and bool (B, L), True where a token may be
    attended to, and returns (B, L, D); with `attend_only` the weights of its attention instead,
    float32 (B, H, L, L).

    Args:
        width: D.
        num_heads: H.
        hidden_width: Units inside the feed-forward.
        frequencies: d / 2 rotary frequencies in radians per position.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden_width: int,
        frequencies: Sequence[float],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.width, self.num_heads, self.hidden_width = width, num_heads, hidden_width
        self.frequencies = tuple(frequencies)
        policy = self.dtype_policy
        self.attention_norm = self.part(norm("attention_norm", policy))
        self.query = self.part(dense(width, "query", policy))
        self.key = self.part(dense(width, "key", policy))
        self.value = self.part(dense(width, "value", policy))
        self.attention_output = self.part(dense(width, "attention_output", policy))
        self.feedforward_norm = self.part(norm("feedforward_norm", policy))
        self.feedforward_in = self.part(dense(hidden_width, "feedforward_in", policy))
        self.feedforward_out = self.part(dense(width, "feedforward_out", policy))

    def build(
        self, x_shape: tuple[int | None, ...], attention_mask_shape: tuple[int | None, ...]
    ) -> None:
        """Create the weights."""
        in_width = (self.attention_norm, self.query, self.key, self.value, self.attention_output)
        for layer in (*in_width, self.feedforward_norm, self.feedforward_in):
            layer.build(x_shape)
        self.feedforward_out.build((*x_shape[:-1], self.hidden_width))

    def call(self, x: Any, attention_mask: Any, attend_only: bool = False) -> Any:
        """Compute the block, or the weights of its attention, see the class."""
        if attend_only:
            return self.attention_weights(x, attention_mask)
        shape = ops.shape(x)
        # Tokens in rows: with (B, L, D) XLA would copy each dense layer's input once more to
        # contract B and L for the gradient of the kernel, a quarter of a training step.
        x = ops.reshape(x, (-1, self.width))  # (BL, D)
        h = attention(*self._project(self.attention_norm(x), shape[1]), attention_mask)
        h = self.attention_output(ops.reshape(h, ops.shape(x)))  # (B, L, H, d) -> (BL, D)
        x = ops.add(x, h)  # which may have another dtype
        h = ops.gelu(self.feedforward_in(self.feedforward_norm(x)), approximate=False)
        return ops.reshape(ops.add(x, self.feedforward_out(h)), shape)

    def attention_weights(self, x: Any, attention_mask: Any) -> Any:
        """Return the attention weights inside of `call`, float32 (B, H, L, L)."""
        query, key, _ = self._project(self.attention_norm(x), ops.shape(x)[1])
        return attention_weights(query, key, attention_mask)

    def _project(self, x: Any, length: Any) -> tuple[Any, Any, Any]:
        """(B, L, D) or (BL, D) -> rotated queries, rotated keys, values, each (B, L, H, d)."""
        heads = (-1, length, self.num_heads, self.width // self.num_heads)
        query, key, value = (
            ops.reshape(layer(x), heads) for layer in (self.query, self.key, self.value)
        )
        return rotate(query, self.frequencies), rotate(key, self.frequencies), value

    def compute_output_spec(self, x: Any, attention_mask: Any, attend_only: bool = False) -> Any:
        """Return shape and dtype of the output."""
        if attend_only:
            batch, length = attention_mask.shape
            return keras.KerasTensor((batch, self.num_heads, length, length), dtype="float32")
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        names = ("width", "num_heads", "hidden_width", "frequencies")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("kft")
class MaskedLMHead(Composite):
    """Token logits from hidden states, with the table of the embedding: (B, L, D) -> (B, L, 33).

    Args:
        width: D.
        lender: Name of the embedding whose table is read, for a head that is rebuilt from its
            config; `borrow` then gives it the layer.
    """

    def __init__(self, width: int, lender: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.width = width
        set_untracked(self, lender=lender)
        self.dense = self.part(dense(width, "dense", self.dtype_policy))
        self.norm = self.part(norm("norm", self.dtype_policy))

    def borrow(self, embedding: TokenEmbedding) -> "MaskedLMHead":
        """Read the table of this layer from now on; the table stays a weight of the layer."""
        set_untracked(self, lender=embedding)
        return self

    def build(self, x_shape: tuple[int | None, ...]) -> None:
        """Create the weights."""
        self.dense.build(x_shape)
        self.norm.build(x_shape)
        self.bias = self.add_weight(shape=(len(ALPHABET),), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        """Compute the logits, see the class."""
        if not isinstance(self.lender, TokenEmbedding):
            raise lost(self.name, self.lender, "the model that was copied")
        x = self.norm(ops.gelu(self.dense(x), approximate=False))
        table = ops.convert_to_tensor(self.lender.tokens.tied)  # (33, D)
        return ops.matmul(x, ops.transpose(table)) + self.bias

    def compute_output_spec(self, x: Any) -> Any:
        """Return shape and dtype of the output."""
        return keras.KerasTensor((*x.shape[:-1], len(ALPHABET)), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        lender = getattr(self.lender, "name", self.lender)
        return {**super().get_config(), "width": self.width, "lender": lender}


@keras.saving.register_keras_serializable("kft")
class ContactHead(keras.layers.Layer):
    """Contacts from attention: symmetrise, correct for the average product, regress.

    `call(attentions, token_ids)` takes the n attention weights, float32 (B, H, L, L), and int
    (B, L), and returns probabilities, float32 (B, N, N); rows and columns past the end of a protein
    have no meaning. Rao et al. 2021; the correction is Dunn et al. 2008, equation 3.
    """

    def build(
        self, attentions_shape: Sequence[Any], token_ids_shape: tuple[int | None, ...]
    ) -> None:
        """Create the weights."""
        channels = sum(shape[1] for shape in attentions_shape)
        self.kernel = self.add_weight(
            shape=(channels, 1), initializer=normal(channels), name="kernel"
        )
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")

    def call(self, attentions: Any, token_ids: Any) -> Any:
        """Compute the probabilities, see the class."""
        maps = self.maps(attentions, token_ids)
        return ops.sigmoid(ops.einsum("bcij,co->bij", maps, self.kernel) + self.bias)

    def maps(self, attentions: Any, token_ids: Any) -> Any:
        """Compute what is regressed on: float32 (B, nH, N, N), symmetric and corrected."""
        keep = ops.logical_and(ops.not_equal(token_ids, PAD), ops.not_equal(token_ids, EOS))
        keep = ops.cast(keep, "float32")
        maps = ops.concatenate(attentions, axis=1)  # (B, nH, L, L)
        maps = maps * keep[:, None, :, None] * keep[:, None, None, :]
        maps = maps[:, :, 1:-1, 1:-1]  # (B, nH, N, N)
        maps = maps + ops.transpose(maps, (0, 1, 3, 2))
        rows = ops.sum(maps, axis=-1, keepdims=True)  # (B, nH, N, 1)
        columns = ops.sum(maps, axis=-2, keepdims=True)  # (B, nH, 1, N)
        total = ops.sum(rows, axis=-2, keepdims=True)  # (B, nH, 1, 1)
        return maps - rows * columns / total

    def compute_output_spec(self, attentions: Any, token_ids: Any) -> Any:
        """Return shape and dtype of the output."""
        batch, length = token_ids.shape
        residues = None if length is None else length - 2
        return keras.KerasTensor((batch, residues, residues), dtype="float32")


def normal(inputs: int) -> keras.initializers.Initializer:
    """Return a normal initializer with deviation 1 / sqrt(inputs)."""
    return keras.initializers.RandomNormal(stddev=inputs**-0.5)


def dense(units: int, name: str, dtype: str) -> keras.layers.Dense:
    """Return a dense layer as all of ESM-2 are."""
    return keras.layers.Dense(units, kernel_initializer="lecun_normal", dtype=dtype, name=name)


def norm(name: str, dtype: str) -> keras.layers.LayerNormalization:
    """Return a layer norm as all of ESM-2 are."""
    return keras.layers.LayerNormalization(epsilon=1e-5, dtype=dtype, name=name)
