"""What the layers of vision transformers are called here, by Hugging Face and by keras-hub.

References: `transformers` 5, `models/vit`, `models/deit`, `models/dinov2`, `models/dinov3_vit` and
`conversion_mapping.py`, which lists what tensors were called before version 5 (and what
`save_pretrained` still calls them).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from kft.backbones.contract import FOREIGN_MODULE_NAMES, ModuleNames

# Ours in one block -> Hugging Face's, without ".weight" and ".bias".
VIT_BLOCK = {
    "ln_1": "layernorm_before",
    "mha/query": "attention.q_proj",
    "mha/key": "attention.k_proj",
    "mha/value": "attention.v_proj",
    "mha/attention_output": "attention.o_proj",
    "ln_2": "layernorm_after",
    "mlp/dense_1": "mlp.fc1",
    "mlp/dense_2": "mlp.fc2",
}
_DINOV2_BLOCK = {
    "norm1": "norm1",
    "attention/attention/query": "attention.q_proj",
    "attention/attention/key": "attention.k_proj",
    "attention/attention/value": "attention.v_proj",
    "attention/attention/attention_output": "attention.o_proj",
    "layer_scale1": "layer_scale1",
    "norm2": "norm2",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
    "layer_scale2": "layer_scale2",
}
_DINOV3_BLOCK = {
    path: path.replace("/", ".")
    for path in (
        "norm1",
        "attention/q_proj",
        "attention/k_proj",
        "attention/v_proj",
        "attention/o_proj",
        "layer_scale1",
        "norm2",
        "mlp/gate_proj",
        "mlp/up_proj",
        "mlp/down_proj",
        "layer_scale2",
    )
}
SWIGLU = {"mlp/weights_in": "mlp.weights_in", "mlp/weights_out": "mlp.down_proj"}
GATED = ("gate_proj", "up_proj")  # together "weights_in", with their outputs side by side
_REST = {
    "embedding/patches": "embeddings.patch_embeddings.projection",
    "final_norm": "layernorm",
}
_DINOV3_REST = {"embedding/patches": "embeddings.patch_embeddings", "final_norm": "norm"}
# Before transformers 5, in the order in which they have to be replaced.
_OLDER = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("mlp.weights_out", "mlp.down_proj"),
)
# kft.params counts the dense layers of keras-hub's MLP from 0: "dense", "dense_1".
_COUNTED = {"mlp/dense": "mlp/dense_1", "mlp/dense_1": "mlp/dense_2"}
# What the published classifier reads, as kinds of pooling.
READ_BY_CLASSIFIER = {"vit": "cls", "deit": "cls", "dinov2": "cls_and_mean"}
_PREFIXES = ("vit.", "deit.", "dinov2.")


def modern(name: str, family: str) -> str:
    """Return what transformers 5 calls a tensor, without the prefix of a model with a head."""
    if family == "dinov3_vit":
        return re.sub(r"^layer\.", "model.layer.", name)
    name = re.sub(r"^(vit|deit|dinov2)\.", "", name)
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    if family != "dinov2":
        name = re.sub(r"^encoder\.layer\.", "layers.", name)
    for old, new in _OLDER:
        name = name.replace(f".{old}.", f".{new}.")
    return name


def stem(family: str) -> str:
    """Return what Hugging Face calls the list of blocks."""
    return {"dinov2": "encoder.layer", "dinov3_vit": "model.layer"}.get(family, "layers")


def modules_outside(family: str) -> dict[str, str]:
    """Return {layer outside of the blocks: module of Hugging Face's}."""
    return _DINOV3_REST if family == "dinov3_vit" else _REST


def modules_of_block(family: str, swiglu: bool) -> dict[str, str]:
    """Return {layer of a block: module of Hugging Face's}."""
    if family == "dinov3_vit":  # gated or not
        return _DINOV3_BLOCK
    block = dict(_DINOV2_BLOCK if family == "dinov2" else VIT_BLOCK)
    if swiglu:
        block = {k: v for k, v in block.items() if not k.startswith("mlp/")} | SWIGLU
    return block


def module_names(
    config: Mapping[str, Any], paths: Iterable[str], head: keras.Layer | None, head_path: str
) -> ModuleNames:
    """Return what Hugging Face calls the layers of a vision transformer with a head.

    Args:
        config: Config of the `VisionTransformer`.
        paths: Paths of all layers of the model.
        head: The head on the backbone, None without one.
        head_path: Path of the head.
    """
    family = config["family"]
    block, outside = modules_of_block(family, config["swiglu"]), modules_outside(family)
    names: dict[str, str | tuple[str, ...]] = {}
    older: dict[str, str] = {}
    for path in paths:
        found = re.fullmatch(r"block_(\d+)/(.*)", path)
        module = block.get(_COUNTED.get(found[2], found[2])) if found else outside.get(path)
        if module is None:
            continue
        name = f"{stem(family)}.{found[1]}.{module}" if found else module
        gated = found and module == SWIGLU["mlp/weights_in"]
        names[path] = tuple(name.replace("weights_in", part) for part in GATED) if gated else name
        if found and family == "dinov3_vit":
            older[f"layer.{found[1]}.{module}"] = path
        elif found:
            for old, new in _OLDER:
                module = module.replace(new, old)
            older[f"encoder.layer.{found[1]}.{module}"] = path
    keys = _keys_of_head(head, head_path, READ_BY_CLASSIFIER.get(family))
    return ModuleNames(
        names,
        older,
        prefixes=_PREFIXES,
        prefix=f"{family}." if keys else "",
        head=keys,
        advice=(
            'that of Hugging Face is kft.heads.Classification(classes, pooling="cls")'
            if family in ("vit", "deit")
            else 'that of Hugging Face is kft.heads.Classification(classes, pooling="cls_and_mean")'
            if family == "dinov2"
            else "Hugging Face has no DINOv3 with a classifier"
        ),
        other_parts=("pooler",),
    )


def _keys_of_head(head: keras.Layer | None, head_path: str, pooling: str | None) -> dict[str, str]:
    """Return the names of a head that reads what the classifier of Hugging Face reads."""
    kind = getattr(getattr(head, "pooling", None), "kind", None)
    known = type(head).__name__ in ("Classification", "MultiLabel")
    if head is None or not known or kind != pooling:
        return {}
    path = f"{head_path}/{head.last}"
    return {f"{path}/kernel": "classifier.weight", f"{path}/bias": "classifier.bias"}


# keras-hub's own ViT ------------------------------------------------------------------------------

# One block -> Hugging Face's now, and before version 5.
_HUB_BLOCK = {
    "ln_1": ("layernorm_before", "layernorm_before"),
    "mha/query": ("attention.q_proj", "attention.attention.query"),
    "mha/key": ("attention.k_proj", "attention.attention.key"),
    "mha/value": ("attention.v_proj", "attention.attention.value"),
    "mha/attention_output": ("attention.o_proj", "attention.output.dense"),
    "ln_2": ("layernorm_after", "layernorm_after"),
    "mlp/dense": ("mlp.fc1", "intermediate.dense"),
    "mlp/dense_1": ("mlp.fc2", "output.dense"),
}
_HUB_REST = {
    "vit_patching_and_embedding/patch_embedding": "embeddings.patch_embeddings.projection",
    "vit_encoder/ln": "layernorm",
}


def _module_names_of_keras_hub(
    paths: Iterable[str], head: keras.Layer | None, head_path: str
) -> ModuleNames:
    names, older = dict(_HUB_REST), {}
    blocks = [p for p in paths if re.fullmatch(r"vit_encoder/transformer_block_\d+", p)]
    for i, block in enumerate(blocks):
        for part, (now, before) in _HUB_BLOCK.items():
            names[f"{block}/{part}"] = f"layers.{i}.{now}"
            older[f"encoder.layer.{i}.{before}"] = f"{block}/{part}"
    names = {path: module for path, module in names.items() if path in paths}
    return ModuleNames(names, older, prefixes=_PREFIXES, other_parts=("pooler",))


FOREIGN_MODULE_NAMES["ViTBackbone"] = _module_names_of_keras_hub
