"""What the weights and layers of ESM-2 are called here, by Hugging Face and by FAIR.

References: `transformers` 5 `models/esm/modeling_esm.py` and `fair-esm` 2.0.0 `esm/pretrained.py`.
"""

import re
from collections.abc import Iterable
from typing import Literal

import keras

from kft.backbones.contract import ModuleNames

Publisher = Literal["Hugging Face", "FAIR"]

# Ours -> (Hugging Face's, FAIR's), without ".weight" and ".bias".
_BLOCK = {
    "attention_norm": ("attention.LayerNorm", "self_attn_layer_norm"),
    "query": ("attention.self.query", "self_attn.q_proj"),
    "key": ("attention.self.key", "self_attn.k_proj"),
    "value": ("attention.self.value", "self_attn.v_proj"),
    "attention_output": ("attention.output.dense", "self_attn.out_proj"),
    "feedforward_norm": ("LayerNorm", "final_layer_norm"),
    "feedforward_in": ("intermediate.dense", "fc1"),
    "feedforward_out": ("output.dense", "fc2"),
}
_REST = {
    "embedding/tokens/embeddings": ("embeddings.word_embeddings.weight", "embed_tokens.weight"),
    "final_norm/gamma": ("encoder.emb_layer_norm_after.weight", "emb_layer_norm_after.weight"),
    "final_norm/beta": ("encoder.emb_layer_norm_after.bias", "emb_layer_norm_after.bias"),
    "lm_head/dense/kernel": ("lm_head.dense.weight", "lm_head.dense.weight"),
    "lm_head/dense/bias": ("lm_head.dense.bias", "lm_head.dense.bias"),
    "lm_head/norm/gamma": ("lm_head.layer_norm.weight", "lm_head.layer_norm.weight"),
    "lm_head/norm/beta": ("lm_head.layer_norm.bias", "lm_head.layer_norm.bias"),
    "lm_head/bias": ("lm_head.bias", "lm_head.bias"),
    "contact_head/kernel": ("contact_head.regression.weight", "contact_head.regression.weight"),
    "contact_head/bias": ("contact_head.regression.bias", "contact_head.regression.bias"),
}
# Weights that a file may lack, by the attribute of the backbone that then starts at random.
HEADS = {"lm_head": "masked_lm", "contact_head": "contacts"}

# Heads of kft that Hugging Face has too: PEFT's task type, and {part of the head: module}.
_TASKS: dict[str, tuple[str | None, dict[str | None, str]]] = {
    "EsmClassification": (
        "SEQ_CLS",
        {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
    ),
    "EsmTokenClassification": ("TOKEN_CLS", {None: "classifier"}),
}


def tensor_names(num_blocks: int, publisher: Publisher) -> dict[str, str]:
    """Return the names of the tensors of a checkpoint.

    Args:
        num_blocks: Number of encoder blocks.
        publisher: Whose names.

    Returns:
        {path of a weight: name of its tensor, without the prefix of the model}.
    """
    which = ("Hugging Face", "FAIR").index(publisher)
    stem = ("encoder.layer", "layers")[which]
    names = {}
    for i in range(num_blocks):
        for layer, modules in _BLOCK.items():
            weights = ("gamma", "beta") if layer.endswith("norm") else ("kernel", "bias")
            for weight, suffix in zip(weights, ("weight", "bias"), strict=True):
                names[f"block_{i}/{layer}/{weight}"] = f"{stem}.{i}.{modules[which]}.{suffix}"
    return names | {path: both[which] for path, both in _REST.items()}


def module_names(
    paths: Iterable[str],
    head: keras.Layer | None,
    head_path: str,
    language_model: bool = False,
) -> ModuleNames:
    """Return what Hugging Face calls the layers of an ESM-2 with a head.

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
        prefixes=("esm.",),
        prefix="esm." if keys or language_model else "",
        head=keys,
        task=task,
        advice="those of Hugging Face are kft.heads.EsmClassification and EsmTokenClassification",
        other_parts=("contact_head", "pooler", "lm_head"),
    )


def _module(path: str) -> str | None:
    """Return what Hugging Face's EsmModel calls a layer; None if it has no such layer."""
    block, _, part = path.partition("/")
    if part in _BLOCK and (found := re.fullmatch(r"block_(\d+)", block)):
        return f"encoder.layer.{found[1]}.{_BLOCK[part][0]}"
    weight = next((weight for weight in _REST if weight.rpartition("/")[0] == path), None)
    return _REST[weight][0].rpartition(".")[0] if weight else None
