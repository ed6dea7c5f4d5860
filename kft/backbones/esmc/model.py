"""ESM-C, the protein language model of the ESM Team, as a functional Keras model.

Reference: ESM Team 2024, "ESM Cambrian: revealing the mysteries of proteins with unsupervised
learning", and the code of `transformers` 5.23 (`models/esmc/modeling_esmc.py`). The layers are in
`layers.py`.

Differences from the reference: none in the numbers. Chains that are joined by "|", with
`sequence_id` to keep them apart, are not encoded; token ids outside `encode` are not checked.

Shapes: `B` proteins in a batch, `L` tokens, `D` width, `H` heads, `n` encoder blocks.
"""

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import keras

from kft.arguments import check_integer
from kft.backbones.base import Backbone
from kft.backbones.composite import exchanged, parts
from kft.backbones.contract import ModuleNames
from kft.backbones.copies import marked
from kft.backbones.esmc import names, writing
from kft.backbones.esmc.layers import ESMCBlock, ESMCHead, gated_width, norm
from kft.backbones.esmc.names import VOCABULARY
from kft.backbones.on_backbone import OnBackbone
from kft.backbones.quantized import dtype_of, quantize_as
from kft.backbones.residue_tokens import CLS, EOS, PAD, encode
from kft.backbones.token_table import TokenMask, TokenTable
from kft.keras_internals import set_untracked

PUBLISHED = {  # name: blocks, width, heads
    "ESMC-300M": (30, 960, 15),
    "ESMC-600M": (36, 1152, 18),
    "ESMC-6B": (80, 2560, 40),
}


@keras.saving.register_keras_serializable("kft")
class ESMC(Backbone):
    """The ESM-C encoder: {"token_ids": int (B, L)} -> float (B, L, D) after the final norm.

    Args:
        num_blocks: Number n of encoder blocks. The output of attention and feed-forward is divided
            by sqrt(n / 36).
        width: Size D of a hidden state.
        num_heads: Number H of attention heads; D / H must be even.
        hidden_width: Units inside a feed-forward; None means 8/3 D, rounded up to a multiple of
            256, as in the published models.
        rope_theta: Base of the rotary frequencies.
        name: Name of the Keras model.
        dtype: Keras dtype or policy, such as "mixed_bfloat16".
        lm_head: {name of a part: its config} of parts of the language-model head with adapters, as
            `get_config` writes it.

    Attributes:
        stages: Layers in order: embedding, block 0 ... block n-1, final norm.
        width: D.
        position_mask: symbolic bool (B, L), True where a token is a residue.

    Raises:
        ValueError: Sizes that do not fit together.

    Example:
        >>> backbone = ESMC(num_blocks=2, width=32, num_heads=4)
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
        rope_theta: float = 10000.0,
        name: str = "esmc",
        dtype: Any = None,
        lm_head: Mapping[str, dict] | None = None,
        **kwargs: Any,
    ):
        check_integer("num_blocks", num_blocks)
        if check_integer("width", width) % (2 * check_integer("num_heads", num_heads)):
            raise ValueError(
                f"width must be an even multiple of num_heads, received {width=}, {num_heads=}."
            )
        hidden_width = hidden_width or gated_width(width)
        asked, (dtype, dtype_config) = dtype, dtype_of(dtype)
        config: dict[str, Any] = {
            "num_blocks": num_blocks,
            "width": width,
            "num_heads": num_heads,
            "hidden_width": hidden_width,
            "rope_theta": float(rope_theta),
            "dtype": dtype_config,
        }
        scale = math.sqrt(num_blocks / 36)
        table = keras.initializers.RandomNormal(stddev=width**-0.5)
        stages: list[keras.Layer] = [
            TokenTable(VOCABULARY, width, table, dtype=dtype, name="embedding")
        ]
        for i in range(num_blocks):
            sizes = (width, num_heads, hidden_width, float(rope_theta), scale)
            stages.append(ESMCBlock(*sizes, name=f"block_{i}", dtype=dtype))
        stages.append(norm("final_norm", dtype, center=False))

        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        attention_mask = TokenMask([PAD], name="attention_mask", dtype=dtype)(token_ids)
        x = stages[0](token_ids)
        for block in stages[1:-1]:
            x = block(x, attention_mask)
        super().__init__({"token_ids": token_ids}, stages[-1](x), stages, name, **kwargs)

        set_untracked(self, _lm_head=lm_head or {}, _config=config)
        mask = TokenMask([CLS, PAD, EOS], name="position_mask", dtype=dtype)
        self.position_mask = mask(token_ids)
        quantize_as(self, asked)

    # Built when it is first used. It is not a layer of the backbone: a fine-tuned model must not
    # hold weights that no gradient reaches. Keras's saving finds it as an attribute, so that
    # `backbone.save` keeps its weights.
    @cached_property
    def masked_lm(self) -> "ESMCMaskedLM":
        """The keras.Model from the backbone's input to token logits, see `ESMCMaskedLM`."""
        return ESMCMaskedLM(self, self._lm_head)

    @property
    def published_heads(self) -> list[keras.Layer]:
        """The head for tokens."""
        return [self.masked_lm.get_layer("lm_head")]

    def module_names(
        self, paths: Iterable[str], head: keras.Layer | None, head_path: str
    ) -> ModuleNames:
        """Return what Hugging Face calls the layers, see `Backbone`."""
        return names.module_names(paths, head, head_path)

    def to_hugging_face(self, dtype: Any = None) -> tuple[dict[str, Any], dict]:
        """Return configuration and tensors in Hugging Face's format, see `writing`."""
        return writing.to_hugging_face(self, dtype)

    def get_config(self) -> dict[str, Any]:
        model = vars(self).get("masked_lm")
        found = exchanged(parts(model.get_layer("lm_head"))) if model else {}
        return {**self._config, **super().get_config(), **({"lm_head": found} if found else {})}


@keras.saving.register_keras_serializable("kft")
class ESMCMaskedLM(OnBackbone):
    """Masked language model: {"token_ids": int (B, L)} -> float (B, L, 64).

    Args:
        backbone: The `ESMC`, whose layers are shared.
        exchanged: {name of a part of the head: its config} of parts with adapters.
    """

    def __init__(self, backbone: ESMC, exchanged: Mapping[str, dict] | None = None):
        policy = backbone.stages[0].dtype_policy
        head = ESMCHead(
            backbone.width, VOCABULARY, name="lm_head", dtype=policy, exchanged=exchanged
        )
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
        return marked(ESMC.from_config(config["backbone"]).masked_lm, config)
