"""ESM-2, the protein language model of Lin et al. 2023, as a functional Keras model.

Reference: Lin et al., "Evolutionary-scale prediction of atomic-level protein structure with a
language model", Science 379:1123 (2023), doi 10.1126/science.ade2574, and the code of `fair-esm`
2.0.0 (`esm/model/esm2.py`, `esm/modules.py`, `esm/rotary_embedding.py`). The layers are in
`layers.py`.

Differences from the reference: none in the numbers. Token ids outside `encode` are not checked,
and dropout, which the published models train without, does not exist here.

Shapes: `B` proteins in a batch, `L` tokens, `N` = L - 2 residues, `D` width, `H` heads,
`n` encoder blocks.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import keras

from kft.arguments import check_integer
from kft.backbones.attention import rotary_frequencies
from kft.backbones.base import Backbone
from kft.backbones.composite import deserialized, exchanged, parts
from kft.backbones.contract import ModuleNames
from kft.backbones.copies import flags, marked, without_flags
from kft.backbones.esm2 import names, writing
from kft.backbones.esm2.layers import (
    ContactHead,
    EncoderBlock,
    MaskedLMHead,
    TokenEmbedding,
    norm,
)
from kft.backbones.on_backbone import OnBackbone
from kft.backbones.quantized import dtype_of, quantize_as
from kft.backbones.residue_tokens import CLS, EOS, PAD, encode
from kft.backbones.token_table import TokenMask
from kft.keras_internals import set_untracked

PUBLISHED = {  # name: blocks, width, heads (table S1)
    "esm2_t6_8M_UR50D": (6, 320, 20),
    "esm2_t12_35M_UR50D": (12, 480, 20),
    "esm2_t30_150M_UR50D": (30, 640, 20),
    "esm2_t33_650M_UR50D": (33, 1280, 20),
    "esm2_t36_3B_UR50D": (36, 2560, 40),
    "esm2_t48_15B_UR50D": (48, 5120, 40),
}


@keras.saving.register_keras_serializable("kft")
class ESM2(Backbone):
    """The ESM-2 encoder: {"token_ids": int (B, L)} -> float (B, L, D) after the final norm.

    Args:
        num_blocks: Number n of encoder blocks.
        width: Size D of a hidden state.
        num_heads: Number H of attention heads; D / H must be even.
        hidden_width: Units inside a feed-forward; None means 4 D.
        token_dropout: Whether embeddings are scaled for the fraction of <mask>, as in all published
            ESM-2 models.
        frequencies: D / (2 H) rotary frequencies in radians per position; None computes them.
            Checkpoints have their own, some rounded to half precision, and the model was trained
            with those.
        name: Name of the Keras model.
        dtype: Keras dtype or policy, such as "mixed_bfloat16".
        exchanged: {stage: {name of a part: its config}} of parts with adapters, as `get_config`
            writes it.

    Attributes:
        stages: Layers in order: embedding, block 0 ... block n-1, final norm.
        width: D.
        position_mask: symbolic bool (B, L), True where a token is a residue.

    Raises:
        ValueError: Sizes that do not fit together.

    Example:
        >>> backbone = ESM2(num_blocks=2, width=32, num_heads=4)
        >>> tuple(backbone(backbone.encode(["MKTAYI"])).shape)
        (1, 8, 32)
    """

    encode = staticmethod(encode)
    objectives = ("masked_language",)

    def __init__(
        self,
        num_blocks: int,
        width: int,
        num_heads: int,
        hidden_width: int | None = None,
        token_dropout: bool = True,
        frequencies: Sequence[float] | None = None,
        name: str = "esm2",
        dtype: Any = None,
        exchanged: Mapping[str, Mapping[str, dict]] | None = None,
        **kwargs: Any,
    ):
        check_integer("num_blocks", num_blocks)
        if check_integer("width", width) % (2 * check_integer("num_heads", num_heads)):
            raise ValueError(
                f"width must be an even multiple of num_heads, received {width=}, {num_heads=}."
            )
        hidden_width = hidden_width or 4 * width
        frequencies = tuple(frequencies or rotary_frequencies(width // num_heads))
        asked, (dtype, dtype_config) = dtype, dtype_of(dtype)
        config: dict[str, Any] = {
            "num_blocks": num_blocks,
            "width": width,
            "num_heads": num_heads,
            "hidden_width": hidden_width,
            "token_dropout": token_dropout,
            "frequencies": frequencies,
            "dtype": dtype_config,
        }
        inside = exchanged or {}

        def options(name: str) -> dict[str, Any]:
            return {"name": name, "dtype": dtype, "exchanged": inside.get(name)}

        stages = [TokenEmbedding(width, token_dropout, **options("embedding"))]
        stages += [
            EncoderBlock(width, num_heads, hidden_width, frequencies, **options(f"block_{i}"))
            for i in range(num_blocks)
        ]
        stages += [deserialized(inside.get("final_norm", {}), norm("final_norm", dtype))]

        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        attention_mask = TokenMask([PAD], name="attention_mask", dtype=dtype)(token_ids)
        x = stages[0](token_ids)
        for block in stages[1:-1]:
            x = block(x, attention_mask)
        super().__init__({"token_ids": token_ids}, stages[-1](x), stages, name, **kwargs)

        self._config = config
        set_untracked(self, _exchanged=inside)
        mask = TokenMask([CLS, PAD, EOS], name="position_mask", dtype=dtype)
        self.position_mask = mask(token_ids)
        quantize_as(self, asked)

    # The two models below are built when they are first used. They are not layers of the
    # backbone: a fine-tuned model must not hold weights that no gradient reaches. Keras's saving
    # finds them as attributes, so that `backbone.save` keeps their weights.

    @cached_property
    def masked_lm(self) -> "MaskedLM":
        """The keras.Model from the backbone's input to token logits, see `MaskedLM`."""
        return MaskedLM(self, self._exchanged.get("lm_head"))

    @cached_property
    def contacts(self) -> "Contacts":
        """The keras.Model from the backbone's input to contact probabilities, see `Contacts`."""
        return Contacts(self)

    @property
    def published_heads(self) -> list[keras.Layer]:
        """The heads for tokens and contacts."""
        return [self.masked_lm.get_layer("lm_head"), self.contacts.get_layer("contact_head")]

    def module_names(
        self, paths: Iterable[str], head: keras.Layer | None, head_path: str
    ) -> ModuleNames:
        """Return what Hugging Face calls the layers, see `Backbone`."""
        return names.module_names(paths, head, head_path)

    def to_hugging_face(
        self, dtype: Any = None, contacts: bool | None = None
    ) -> tuple[dict[str, Any], dict]:
        """Return configuration and tensors in Hugging Face's format, see `writing`."""
        return writing.to_hugging_face(self, dtype, contacts)

    def get_config(self) -> dict[str, Any]:
        inside = {stage.name: exchanged([stage, *parts(stage)]) for stage in self.stages}
        if "masked_lm" in vars(self):
            inside["lm_head"] = exchanged(parts(self.masked_lm.get_layer("lm_head")))
        inside = {name: configs for name, configs in inside.items() if configs}
        adapted = {"exchanged": inside} if inside else {}
        return {**self._config, "name": self.name, **adapted, **flags(self)}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "ESM2":
        return marked(cls(**without_flags(config)), config)


@keras.saving.register_keras_serializable("kft")
class MaskedLM(OnBackbone):
    """Masked language model: {"token_ids": int (B, L)} -> float (B, L, 33); the table is tied.

    Args:
        backbone: The `ESM2`, whose layers are shared.
        exchanged: {name of a part of the head: its config} of parts with adapters.
    """

    def __init__(self, backbone: ESM2, exchanged: Mapping[str, dict] | None = None):
        embedding = backbone.stages[0]
        head = MaskedLMHead(
            embedding.width, name="lm_head", dtype=embedding.dtype_policy, exchanged=exchanged
        ).borrow(embedding)
        super().__init__(backbone, head(backbone.output), "masked_lm")

    def module_names(
        self, paths: Iterable[str], head: keras.Layer | None, head_path: str
    ) -> ModuleNames:
        """Return what Hugging Face calls the layers, see `Backbone`."""
        return names.module_names(paths, head, head_path, language_model=True)

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.Model:
        return marked(ESM2.from_config(config["backbone"]).masked_lm, config)


@keras.saving.register_keras_serializable("kft")
class Contacts(OnBackbone):
    """Contact probabilities: {"token_ids": int (B, L)} -> float32 (B, N, N).

    Args:
        backbone: The `ESM2`, whose layers are shared.
    """

    def __init__(self, backbone: ESM2):
        mask = backbone.get_layer("attention_mask").output
        attentions = [
            block(before.output, mask, attend_only=True)
            for before, block in pairwise(backbone.stages[:-1])
        ]
        head = ContactHead(name="contact_head", dtype="float32")
        super().__init__(backbone, head(attentions, backbone.input["token_ids"]), "contacts")

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.Model:
        return marked(ESM2.from_config(config["backbone"]).contacts, config)
