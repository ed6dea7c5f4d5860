"""What the weights and layers of ESM-C are called here and by Hugging Face.

References: `transformers` 5.23 `models/esmc/modeling_esmc.py`; the names of the files that were
published first are in transformers' `convert_esmc_checkpoint.py`.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import keras

from kft.backbones.contract import ModuleNames

VOCABULARY = 64  # rows of the table and logits; the last 31 belong to no token


class Tensor(NamedTuple):
    """A tensor of a checkpoint, or one of several equal parts that it is joined from."""

    name: str
    part: int = 0
    parts: int = 1


# Ours -> transformers', without ".weight" and ".bias".
_BLOCK = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
    "attention_output": "self_attn.o_proj",
    "feedforward_norm": "post_attention_layernorm",
    "feedforward_gate": "mlp.gate_proj",
    "feedforward_in": "mlp.up_proj",
    "feedforward_out": "mlp.down_proj",
}
_REST = {
    "embedding": "embed_tokens",
    "final_norm": "norm",
    "lm_head/dense": "lm_head.dense",
    "lm_head/norm": "lm_head.layer_norm",
    "lm_head/decoder": "lm_head.decoder",
}
# Ours -> those of the files that were published first.
_FIRST_BLOCK = {
    "attention_norm/gamma": Tensor("attn.layernorm_qkv.layer_norm_weight"),
    "attention_norm/beta": Tensor("attn.layernorm_qkv.layer_norm_bias"),
    "query/kernel": Tensor("attn.layernorm_qkv.weight", 0, 3),
    "key/kernel": Tensor("attn.layernorm_qkv.weight", 1, 3),
    "value/kernel": Tensor("attn.layernorm_qkv.weight", 2, 3),
    "query_norm/gamma": Tensor("attn.q_ln.weight"),
    "key_norm/gamma": Tensor("attn.k_ln.weight"),
    "attention_output/kernel": Tensor("attn.out_proj.weight"),
    "feedforward_norm/gamma": Tensor("ffn.layer_norm_weight"),
    "feedforward_norm/beta": Tensor("ffn.layer_norm_bias"),
    "feedforward_gate/kernel": Tensor("ffn.fc1_weight", 0, 2),
    "feedforward_in/kernel": Tensor("ffn.fc1_weight", 1, 2),
    "feedforward_out/kernel": Tensor("ffn.fc2_weight"),
}
_FIRST_REST = {
    "embedding": "embed",
    "final_norm": "transformer.norm",
    "lm_head/dense": "lm_head.0",
    "lm_head/norm": "lm_head.2",
    "lm_head/decoder": "lm_head.3",
}
# Heads of kft that Hugging Face has too: PEFT's task type, and {part of the head: module}.
_TASKS: dict[str, tuple[str | None, dict[str | None, str]]] = {
    "EsmClassification": (
        "SEQ_CLS",
        {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
    ),
    "EsmTokenClassification": ("TOKEN_CLS", {None: "score"}),
}


def tensor_of(path: str, first: bool = False) -> Tensor:
    """Return where the values of a weight are in a checkpoint.

    Args:
        path: Path of a weight of the backbone or of its language-model head.
        first: Whether the names are those of the files that were published first.

    Returns:
        The tensor, its name without the prefix "esmc.".

    Example:
        >>> tensor_of("block_3/key/kernel").name
        'layers.3.self_attn.k_proj.weight'
    """
    layer, _, weight = path.rpartition("/")
    suffix = "bias" if weight in ("bias", "beta") else "weight"
    if layer in _REST:
        return Tensor(f"{(_FIRST_REST if first else _REST)[layer]}.{suffix}")
    block, _, part = layer.partition("/")
    index = block.removeprefix("block_")
    if first:
        tensor = _FIRST_BLOCK[f"{part}/{weight}"]
        return tensor._replace(name=f"transformer.blocks.{index}.{tensor.name}")
    return Tensor(f"layers.{index}.{_BLOCK[part]}.{suffix}")


def module_names(
    paths: Iterable[str],
    head: keras.Layer | None,
    head_path: str,
    language_model: bool = False,
) -> ModuleNames:
    """Return what Hugging Face calls the layers of an ESM-C with a head.

    Args:
        paths: Paths of all layers of the model.
        head: The head on the backbone, None without one.
        head_path: Path of the head.
        language_model: Whether the model is the masked language model.
    """
    task, parts = _TASKS.get(type(head).__name__, (None, {}))
    keys: dict[str, str] = {}
    for part, module in parts.items():
        path = f"{head_path}/{part or getattr(head, 'last', None)}"
        keys |= {f"{path}/kernel": f"{module}.weight", f"{path}/bias": f"{module}.bias"}
    return ModuleNames(
        names={path: name for path in paths if (name := _module(path)) is not None},
        prefixes=("esmc.",),
        prefix="esmc." if keys or language_model else "",
        head=keys,
        task=task,
        advice="those of Hugging Face are kft.heads.EsmClassification and EsmTokenClassification",
        other_parts=("lm_head",),
    )


def _module(path: str) -> str | None:
    """Return what Hugging Face's EsmcModel calls a layer; None if it has no such layer."""
    block, _, part = path.partition("/")
    if part in _BLOCK and (found := re.fullmatch(r"block_(\d+)", block)):
        return f"layers.{found[1]}.{_BLOCK[part]}"
    return _REST.get(path)
