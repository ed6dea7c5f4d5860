"""What Hugging Face calls the layers of a model; PEFT's keys are made of it.

References: `transformers` 5 `models/esm/modeling_esm.py` and `models/vit/modeling_vit.py`; before
version 5 the latter had other names, which are read too.
"""

import re

from kft.backbones import vision_weights
from kft.backbones.esm2 import ESM2, MaskedLM
from kft.backbones.esm2_weights import hugging_face_modules
from kft.backbones.vision import VisionTransformer
from kft.params import layers

# keras-hub's ViT, in one block -> Hugging Face's now, and before version 5.
_VIT_BLOCK = {
    "ln_1": ("layernorm_before", "layernorm_before"),
    "mha/query": ("attention.q_proj", "attention.attention.query"),
    "mha/key": ("attention.k_proj", "attention.attention.key"),
    "mha/value": ("attention.v_proj", "attention.attention.value"),
    "mha/attention_output": ("attention.o_proj", "attention.output.dense"),
    "ln_2": ("layernorm_after", "layernorm_after"),
    "mlp/dense": ("mlp.fc1", "intermediate.dense"),
    "mlp/dense_1": ("mlp.fc2", "output.dense"),
}
_VIT_REST = {
    "vit_patching_and_embedding/patch_embedding": "embeddings.patch_embeddings.projection",
    "vit_encoder/ln": "layernorm",
}
# Heads that Hugging Face has too: their layers, and the task that PEFT calls them.
_HEADS = {
    "EsmClassification": (
        "SEQ_CLS",
        {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
    ),
    "EsmTokenClassification": ("TOKEN_CLS", {None: "classifier"}),
}


class Modules:
    """Paths of a model's layers and the names of the modules that they are elsewhere.

    Attributes:
        names: {path: module without prefix}.
        prefix: what stands before the modules in the model that PEFT wraps, "esm." or "".
        head: {path of a weight of the head: key}, of a head that Hugging Face has too.
        task: PEFT's task type, or None.
    """

    def __init__(self, names, older=None, prefix="", head=None, task=None):
        self.names, self.prefix, self.head, self.task = names, prefix, head or {}, task
        self._paths = {**(older or {}), **{module: path for path, module in names.items()}}
        self._keys = {key: path for path, key in self.head.items()}

    def full(self, path):
        """The module's name in the model that PEFT wraps."""
        module = self.names[path]
        return module if module.startswith("lm_head") else self.prefix + module

    def path(self, module):
        """The layer's path, None if it is none of the model's."""
        stripped = re.sub(r"^(esm|vit|deit|dinov2)\.", "", module)
        return self._paths.get(module, self._paths.get(stripped))

    def in_head(self, key):
        """The path of a head's weight, None if the key is not of the head."""
        return self._keys.get(key)

    def known(self):
        return [self.full(path) for path in self.names]

    def short(self, paths):
        """The modules of these layers, by their last name where it means no others."""
        last = {path: module.rpartition(".")[2] for path, module in self.names.items()}
        wanted = {last[path] for path in paths}
        whole = {
            name
            for name in wanted - {"dense"}  # poolers and heads have one too
            if all(path in paths for path in self.names if last[path] == name)
        }
        return sorted({last[p] if last[p] in whole else self.full(p) for p in paths})


def modules_of(model):
    """The `Modules` of any Keras model; unknown ones have their own paths for names."""
    backbone, head = getattr(model, "backbone", model), getattr(model, "head", None)
    if isinstance(backbone, ESM2 | MaskedLM):
        task, parts = _HEADS.get(type(head).__name__, (None, {}))
        keys = {}
        for part, module in parts.items():
            path = f"{_path(model, head)}/{part or head.last}"
            keys |= {f"{path}/kernel": f"{module}.weight", f"{path}/bias": f"{module}.bias"}
        prefix = "esm." if keys or isinstance(backbone, MaskedLM) else ""
        names = {p: m for p in layers(model) if (m := hugging_face_modules(p)) is not None}
        return Modules(names, None, prefix, keys, task)
    if isinstance(backbone, VisionTransformer):
        return Modules(*vision_weights.hugging_face_names(backbone, layers(model)))
    if type(backbone).__name__ == "ViTBackbone":
        return Modules(*_vit(layers(model)))
    return Modules({path: path.replace("/", ".") for path in layers(model)})


def _path(model, layer):
    return next(path for path, found in layers(model).items() if found is layer)


def _vit(paths):
    names, older = dict(_VIT_REST), {}
    blocks = [p for p in paths if re.fullmatch(r"vit_encoder/transformer_block_\d+", p)]
    for i, block in enumerate(blocks):
        for part, (now, before) in _VIT_BLOCK.items():
            names[f"{block}/{part}"] = f"layers.{i}.{now}"
            older[f"encoder.layer.{i}.{before}"] = f"{block}/{part}"
    return {path: module for path, module in names.items() if path in paths}, older
