"""ESM-2, the protein language model of Lin et al. 2023, as a functional Keras model.

Reference: Lin et al., "Evolutionary-scale prediction of atomic-level protein structure with a
language model", Science 379:1123 (2023), doi 10.1126/science.ade2574, and the code of `fair-esm`
2.0.0 (`esm/model/esm2.py`, `esm/modules.py`, `esm/rotary_embedding.py`). The contact head is
Rao et al. 2021, "Transformer protein language models are unsupervised structure learners".

Differences from the reference: none in the numbers. Token ids outside `encode` are not checked,
and dropout, which the published models train without, does not exist here.

Shapes: `B` proteins in a batch, `L` tokens, `N` = L - 2 residues, `D` width, `H` heads,
`d` = D / H, `n` encoder blocks.
"""

from functools import cached_property
from itertools import pairwise

import keras
from keras import ops

from kft.backbones.attention import attention, attention_weights, rotary_frequencies, rotate
from kft.backbones.batch_order import OrderedFit
from kft.backbones.composite import Composite, deserialized, exchanged, parts
from kft.backbones.copies import Copied, flags, lost, marked, without_flags
from kft.backbones.esm2.tokens import ALPHABET, CLS, EOS, MASK, PAD, encode

# The published models were trained with 15% of the residues chosen and 80% of those shown as
# <mask>. Their embeddings are zero, so all others are scaled as dropout would (section A.1).
MASKED_IN_TRAINING = 0.15 * 0.8

PUBLISHED = {  # name: blocks, width, heads (table S1)
    "esm2_t6_8M_UR50D": (6, 320, 20),
    "esm2_t12_35M_UR50D": (12, 480, 20),
    "esm2_t30_150M_UR50D": (30, 640, 20),
    "esm2_t33_650M_UR50D": (33, 1280, 20),
    "esm2_t36_3B_UR50D": (36, 2560, 40),
    "esm2_t48_15B_UR50D": (48, 5120, 40),
}


# Layers ---------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class TokenTable(keras.layers.Embedding):
    """Keras's `Embedding`, with a gradient that is a plain table on every backend.

    TensorFlow's gradient of a looked-up variable lists a row once per token, and Keras's
    optimizers square and clip those one by one. That of a product is a plain table.
    """

    @property
    def tied(self):
        """The table that the language-model head multiplies with."""
        return self.embeddings

    def call(self, token_ids):
        return ops.cast(ops.take(self.embeddings * 1.0, token_ids, axis=0), self.compute_dtype)


@keras.saving.register_keras_serializable("kft")
class TokenEmbedding(Composite):
    """Embeds tokens with ESM's token dropout: int (B, L) -> float (B, L, D).

    <mask> and <pad> become zero, and the rest is scaled by (1 - 0.15 * 0.8) / (1 - share of
    <mask> among the tokens that are not <pad>).
    """

    def __init__(self, width, token_dropout=True, **kwargs):
        super().__init__(**kwargs)
        self.width, self.token_dropout = width, token_dropout
        table = TokenTable(
            len(ALPHABET), width, _normal(width), dtype=self.dtype_policy, name="tokens"
        )
        self.tokens = self.part(table)

    def build(self, token_ids_shape):
        self.tokens.build(token_ids_shape)
        self.built = True

    def call(self, token_ids):
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

    def compute_output_spec(self, token_ids):
        return keras.KerasTensor((*token_ids.shape, self.width), dtype=self.compute_dtype)

    def get_config(self):
        config = {"width": self.width, "token_dropout": self.token_dropout}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kft")
class EncoderBlock(Composite):
    """A pre-norm transformer block: x + attention(norm(x)), then x + feedforward(norm(x)).

    `call(x, attention_mask)` takes float (B, L, D) and bool (B, L), True where a token may be
    attended to, and returns (B, L, D); with `attend_only` the weights of its attention instead,
    float32 (B, H, L, L).
    """

    def __init__(self, width, num_heads, hidden_width, frequencies, **kwargs):
        super().__init__(**kwargs)
        self.width, self.num_heads, self.hidden_width = width, num_heads, hidden_width
        self.frequencies = tuple(frequencies)
        policy = self.dtype_policy
        self.attention_norm = self.part(_norm("attention_norm", policy))
        self.query = self.part(_dense(width, "query", policy))
        self.key = self.part(_dense(width, "key", policy))
        self.value = self.part(_dense(width, "value", policy))
        self.attention_output = self.part(_dense(width, "attention_output", policy))
        self.feedforward_norm = self.part(_norm("feedforward_norm", policy))
        self.feedforward_in = self.part(_dense(hidden_width, "feedforward_in", policy))
        self.feedforward_out = self.part(_dense(width, "feedforward_out", policy))

    def build(self, x_shape, attention_mask_shape):
        in_width = (self.attention_norm, self.query, self.key, self.value, self.attention_output)
        for layer in (*in_width, self.feedforward_norm, self.feedforward_in):
            layer.build(x_shape)
        self.feedforward_out.build((*x_shape[:-1], self.hidden_width))

    def call(self, x, attention_mask, attend_only=False):
        if attend_only:
            return self.attention_weights(x, attention_mask)
        shape = ops.shape(x)
        # Tokens in rows: with (B, L, D) XLA would copy each dense layer's input once more to
        # contract B and L for the gradient of the kernel, a quarter of a training step.
        x = ops.reshape(x, (-1, self.width))  # (BL, D)
        h = attention(*self._project(self.attention_norm(x), shape[1]), attention_mask)
        x = x + self.attention_output(ops.reshape(h, ops.shape(x)))  # (B, L, H, d) -> (BL, D)
        h = ops.gelu(self.feedforward_in(self.feedforward_norm(x)), approximate=False)
        return ops.reshape(x + self.feedforward_out(h), shape)

    def attention_weights(self, x, attention_mask):
        """The weights that `call` uses and does not hand out, float32 (B, H, L, L)."""
        query, key, _ = self._project(self.attention_norm(x), ops.shape(x)[1])
        return attention_weights(query, key, attention_mask)

    def _project(self, x, length):
        """(B, L, D) or (BL, D) -> rotated queries, rotated keys and values, each (B, L, H, d)."""
        heads = (-1, length, self.num_heads, self.width // self.num_heads)
        query, key, value = (
            ops.reshape(layer(x), heads) for layer in (self.query, self.key, self.value)
        )
        return rotate(query, self.frequencies), rotate(key, self.frequencies), value

    def compute_output_spec(self, x, attention_mask, attend_only=False):
        if attend_only:
            batch, length = attention_mask.shape
            return keras.KerasTensor((batch, self.num_heads, length, length), dtype="float32")
        return keras.KerasTensor(x.shape, dtype=self.compute_dtype)

    def get_config(self):
        names = ("width", "num_heads", "hidden_width", "frequencies")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("kft")
class MaskedLMHead(Composite):
    """Token logits from hidden states, with the embedding's own table: (B, L, D) -> (B, L, 33).

    Args:
        width: D.
        lender: name of the embedding, of one that is rebuilt; it reads no table until it is given
            the layer by `borrow`.
    """

    def __init__(self, width, lender=None, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        vars(self)["lender"] = lender
        self.dense = self.part(_dense(width, "dense", self.dtype_policy))
        self.norm = self.part(_norm("norm", self.dtype_policy))

    def borrow(self, embedding):
        """Reads the table of this `TokenEmbedding` from now on; it stays the embedding's."""
        vars(self)["lender"] = embedding  # by hand, not to be tracked
        return self

    def build(self, x_shape):
        self.dense.build(x_shape)
        self.norm.build(x_shape)
        self.bias = self.add_weight(shape=(len(ALPHABET),), initializer="zeros", name="bias")

    def call(self, x):
        if not isinstance(self.lender, TokenEmbedding):
            raise lost(self.name, self.lender, "the model that was copied")
        x = self.norm(ops.gelu(self.dense(x), approximate=False))
        table = ops.convert_to_tensor(self.lender.tokens.tied)  # (33, D)
        return ops.matmul(x, ops.transpose(table)) + self.bias

    def compute_output_spec(self, x):
        return keras.KerasTensor((*x.shape[:-1], len(ALPHABET)), dtype=self.compute_dtype)

    def get_config(self):
        lender = getattr(self.lender, "name", self.lender)
        return {**super().get_config(), "width": self.width, "lender": lender}


@keras.saving.register_keras_serializable("kft")
class ContactHead(keras.layers.Layer):
    """Predicts contacts from attention: symmetrise, correct for the average product, regress.

    `call(attentions, token_ids)` takes the n attention weights, float32 (B, H, L, L), and int
    (B, L), and returns probabilities, float32 (B, N, N); rows and columns past a protein's end
    mean nothing. Rao et al. 2021; the correction is Dunn et al. 2008, equation 3.
    """

    def build(self, attentions_shape, token_ids_shape):
        channels = sum(shape[1] for shape in attentions_shape)
        self.kernel = self.add_weight(
            shape=(channels, 1), initializer=_normal(channels), name="kernel"
        )
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")

    def call(self, attentions, token_ids):
        keep = ops.logical_and(ops.not_equal(token_ids, PAD), ops.not_equal(token_ids, EOS))
        keep = ops.cast(keep, "float32")
        maps = ops.concatenate(attentions, axis=1)  # (B, nH, L, L)
        maps = maps * keep[:, None, :, None] * keep[:, None, None, :]
        maps = maps[:, :, 1:-1, 1:-1]  # (B, nH, N, N)
        maps = maps + ops.transpose(maps, (0, 1, 3, 2))
        rows = ops.sum(maps, axis=-1, keepdims=True)  # (B, nH, N, 1)
        columns = ops.sum(maps, axis=-2, keepdims=True)  # (B, nH, 1, N)
        total = ops.sum(rows, axis=-2, keepdims=True)  # (B, nH, 1, 1)
        maps = maps - rows * columns / total
        return ops.sigmoid(ops.einsum("bcij,co->bij", maps, self.kernel) + self.bias)

    def compute_output_spec(self, attentions, token_ids):
        batch, length = token_ids.shape
        residues = None if length is None else length - 2
        return keras.KerasTensor((batch, residues, residues), dtype="float32")


@keras.saving.register_keras_serializable("kft")
class TokenMask(keras.layers.Layer):
    """Marks tokens: bool (B, L), True where the id in int (B, L) is none of `excluded`."""

    def __init__(self, excluded, **kwargs):
        super().__init__(**kwargs)
        self.excluded = tuple(excluded)

    def call(self, token_ids):
        mask = ops.not_equal(token_ids, self.excluded[0])
        for token in self.excluded[1:]:
            mask = ops.logical_and(mask, ops.not_equal(token_ids, token))
        return mask

    def compute_output_spec(self, token_ids):
        return keras.KerasTensor(token_ids.shape, dtype="bool")

    def get_config(self):
        return {**super().get_config(), "excluded": self.excluded}


def _normal(inputs):
    return keras.initializers.RandomNormal(stddev=inputs**-0.5)


def _dense(units, name, dtype):
    return keras.layers.Dense(units, kernel_initializer="lecun_normal", dtype=dtype, name=name)


def _norm(name, dtype):
    return keras.layers.LayerNormalization(epsilon=1e-5, dtype=dtype, name=name)


# Models ---------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class ESM2(Copied):
    """The ESM-2 encoder: {"token_ids": int (B, L)} -> float (B, L, D) after the final norm.

    Args:
        num_blocks: encoder blocks n.
        width: size D of a hidden state.
        num_heads: attention heads H; D / H must be even.
        hidden_width: units inside a feed-forward; None means 4 D.
        token_dropout: whether embeddings are scaled for the share of <mask>, as all published
            ESM-2 models do.
        frequencies: D / (2 H) rotary frequencies; None computes them. Checkpoints carry their
            own, some rounded to half precision, and the model was trained with those.
        name: name of the Keras model.
        dtype: Keras dtype or policy, "mixed_bfloat16" for one.
        exchanged: {stage: {name of a part: its config}} of parts with adapters, as `get_config`
            writes it.

    Attributes:
        stages: layers in order: embedding, block 0 ... block n-1, final norm.
        width: D.
        position_mask: symbolic bool (B, L), True where a token is a residue.

    Raises:
        ValueError: sizes that do not fit together.

    Example:
        >>> backbone = ESM2(num_blocks=2, width=32, num_heads=4)
        >>> tuple(backbone(backbone.encode(["MKTAYI"])).shape)
        (1, 8, 32)
    """

    encode = staticmethod(encode)

    def __init__(
        self, num_blocks, width, num_heads, hidden_width=None, token_dropout=True,
        frequencies=None, name="esm2", dtype=None, exchanged=None, **kwargs,
    ):  # fmt: skip
        if num_blocks < 1 or width % (2 * num_heads):
            raise ValueError(
                f"An ESM-2 needs num_blocks >= 1 and a width that is an even multiple of "
                f"num_heads, received {num_blocks=}, {width=}, {num_heads=}."
            )
        hidden_width = hidden_width or 4 * width
        frequencies = tuple(frequencies or rotary_frequencies(width // num_heads))
        dtype = keras.dtype_policies.get(dtype).name
        config = {
            "num_blocks": num_blocks, "width": width, "num_heads": num_heads,
            "hidden_width": hidden_width, "token_dropout": token_dropout,
            "frequencies": frequencies, "dtype": dtype,
        }  # fmt: skip
        inside = exchanged or {}

        def options(name):
            return {"name": name, "dtype": dtype, "exchanged": inside.get(name)}

        stages = [TokenEmbedding(width, token_dropout, **options("embedding"))]
        stages += [
            EncoderBlock(width, num_heads, hidden_width, frequencies, **options(f"block_{i}"))
            for i in range(num_blocks)
        ]
        stages += [deserialized(inside.get("final_norm", {}), _norm("final_norm", dtype))]

        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        attention_mask = TokenMask([PAD], name="attention_mask")(token_ids)
        x = stages[0](token_ids)
        for block in stages[1:-1]:
            x = block(x, attention_mask)
        super().__init__({"token_ids": token_ids}, stages[-1](x), name=name, **kwargs)

        self.width, self._config = width, config
        vars(self)["_exchanged"] = inside
        self.position_mask = TokenMask([CLS, PAD, EOS], name="position_mask")(token_ids)

    @property
    def stages(self):
        blocks = (f"block_{i}" for i in range(self._config["num_blocks"]))
        return [self.get_layer(name) for name in ("embedding", *blocks, "final_norm")]

    # The two models below are built when they are first asked for. They are no layers of the
    # backbone: a fine-tuned model must not carry weights that no gradient reaches. Keras's
    # saving finds them as attributes, so that `backbone.save` keeps their weights.

    @cached_property
    def masked_lm(self):
        """keras.Model from the backbone's input to token logits, see `MaskedLM`."""
        return MaskedLM(self, self._exchanged.get("lm_head"))

    @cached_property
    def contacts(self):
        """keras.Model from the backbone's input to contact probabilities, see `Contacts`."""
        return Contacts(self)

    def get_config(self):
        inside = {stage.name: exchanged([stage, *parts(stage)]) for stage in self.stages}
        if "masked_lm" in vars(self):
            inside["lm_head"] = exchanged(parts(self.masked_lm.get_layer("lm_head")))
        inside = {name: configs for name, configs in inside.items() if configs}
        adapted = {"exchanged": inside} if inside else {}
        return {**self._config, "name": self.name, **adapted, **flags(self)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return marked(cls(**without_flags(config)), config)


class _OnBackbone(OrderedFit):
    """A functional model that shares a backbone's layers and is rebuilt from its config."""

    def __init__(self, backbone, output, name):
        super().__init__(backbone.input, output, name=name)
        self.stages = [stage for stage in backbone.stages if stage in self.layers]
        # The backbone itself must not be an attribute: it refers to this model, and Keras's loading
        # follows every circle.
        self._backbone_config = backbone.get_config

    def get_config(self):
        return {"backbone": self._backbone_config(), **flags(self)}


@keras.saving.register_keras_serializable("kft")
class MaskedLM(_OnBackbone):
    """{"token_ids": int (B, L)} -> token logits, float (B, L, 33); the table is tied."""

    def __init__(self, backbone, exchanged=None):
        embedding = backbone.stages[0]
        head = MaskedLMHead(
            embedding.width, name="lm_head", dtype=embedding.dtype_policy, exchanged=exchanged
        ).borrow(embedding)
        super().__init__(backbone, head(backbone.output), "masked_lm")

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return marked(ESM2.from_config(config["backbone"]).masked_lm, config)


@keras.saving.register_keras_serializable("kft")
class Contacts(_OnBackbone):
    """{"token_ids": int (B, L)} -> contact probabilities, float32 (B, N, N)."""

    def __init__(self, backbone):
        mask = backbone.get_layer("attention_mask").output
        attentions = [
            block(before.output, mask, attend_only=True)
            for before, block in pairwise(backbone.stages[:-1])
        ]
        head = ContactHead(name="contact_head", dtype="float32")
        super().__init__(backbone, head(attentions, backbone.input["token_ids"]), "contacts")

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return marked(ESM2.from_config(config["backbone"]).contacts, config)
