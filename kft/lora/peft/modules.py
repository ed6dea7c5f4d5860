"""What Hugging Face calls the layers of a model; PEFT's keys are made of it.

References: `transformers` 5 `models/esm/modeling_esm.py` and `models/vit/modeling_vit.py`; before
version 5 the latter had other names, which are read too.
"""

import re

from kft.backbones.esm2.model import ESM2, MaskedLM
from kft.backbones.esm2.weights import hugging_face_modules
from kft.backbones.vision import weights as vision_weights
from kft.backbones.vision.models import VisionTransformer
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

    Args:
        names: {path: module without prefix}, or a tuple of the modules that a layer is in one,
            their outputs side by side.
        older: {module: path} of names that modules had before.

    Attributes:
        names: {path: module without prefix}, the first of several.
        prefix: what stands before the modules in the model that PEFT wraps, "esm." or "".
        head: {path of a weight of the head: key}, of a head that Hugging Face has too.
        task: PEFT's task type, or None.
        advice: what head of kft is the one that the files' model has.
    """

    def __init__(self, names, older=None, prefix="", head=None, task=None, advice=None):
        self._several = {p: m if isinstance(m, tuple) else (m,) for p, m in names.items()}
        self.names = {path: modules[0] for path, modules in self._several.items()}
        self.prefix, self.head, self.task, self.advice = prefix, head or {}, task, advice
        self._older = older or {}
        self._now = {m: path for path, modules in self._several.items() for m in modules}
        self._keys = {key: path for path, key in self.head.items()}

    def full(self, path):
        """The module's name in the model that PEFT wraps."""
        return self.all_of(path)[0]

    def all_of(self, path):
        """The names of all modules that a layer is; of most layers one."""
        return [m if m.startswith("lm_head") else self.prefix + m for m in self._several[path]]

    def path(self, module):
        """The layer's path, None if it is none of the model's."""
        known = {**self._older, **self._now}
        return known.get(module, known.get(PREFIXES.sub("", module)))

    def place(self, module):
        """(i, n): the module is the i-th of n that the layer is."""
        modules = self._several[self.path(module)]
        found = [i for i, m in enumerate(modules) if m in (module, PREFIXES.sub("", module))]
        return (found[0], len(modules)) if found else (0, 1)  # an older name of the whole

    def prefix_of(self, modules):
        """The prefix that the names of a file's modules have, "" for none."""
        found = [match[0] for m in modules if m not in self._now and (match := PREFIXES.match(m))]
        return found[0] if found else ""

    def as_in(self, modules):
        """{module: path} of all layers, by the names and with the prefix that a file uses."""
        prefix = self.prefix_of(modules)
        plain = {m.removeprefix(prefix) for m in modules}
        named = dict(self._now)
        if plain & (set(self._older) - set(self._now)):
            named = {**{m: p for m, p in self._now.items() if p not in self._older.values()},
                     **self._older}  # fmt: skip
        return {m if m.startswith("lm_head") else prefix + m: path for m, path in named.items()}

    def in_head(self, key):
        """The path of a head's weight, None if the key is not of the head."""
        return self._keys.get(key)

    def known(self):
        return [self.full(path) for path in self.names]

    def short(self, paths):
        """What PEFT's target_modules says to mean these layers alone: names, or a pattern."""
        everything = {m: path for path in self._several for m in self.all_of(path)}
        wanted = {m for m, path in everything.items() if path in paths}
        last = {module: module.rpartition(".")[2] for module in everything}
        whole = {
            name
            for name in {last[m] for m in wanted} - {"dense"}  # poolers and heads have one too
            if all(m in wanted for m in everything if last[m] == name)
        }
        names = sorted({last[m] if last[m] in whole else m for m in wanted})
        if all(m in wanted for m in everything for n in names if f".{m}".endswith(f".{n}")):
            return names
        # A name alone would mean the end of another one, too.
        return f"({'|'.join(map(re.escape, sorted(wanted)))})"


PREFIXES = re.compile(r"^(esm|vit|deit|dinov2)\.")


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
        advice = "those of Hugging Face are kft.heads.EsmClassification and EsmTokenClassification"
        return Modules(names, None, prefix, keys, task, advice)
    if isinstance(backbone, VisionTransformer):
        family = backbone.get_config()["family"]
        names, older = vision_weights.hugging_face_names(backbone, layers(model))
        head = _vision_head(model, head) if family in ("vit", "deit") else {}
        advice = (
            "kft has no head like the classifier of Hugging Face's DINOv2"
            if family == "dinov2"
            else 'that of Hugging Face is kft.heads.Classification(classes, pooling="cls")'
        )
        return Modules(names, older, f"{family}." if head else "", head, None, advice)
    if type(backbone).__name__ == "ViTBackbone":
        return Modules(*_vit(layers(model)))
    return Modules({path: path.replace("/", ".") for path in layers(model)})


def _vision_head(model, head):
    """The classifier of ViT and DeiT reads the first token, as heads of kft with "cls" do."""
    kind = getattr(getattr(head, "pooling", None), "kind", None)
    if type(head).__name__ not in ("Classification", "MultiLabel") or kind != "cls":
        return {}
    path = f"{_path(model, head)}/{head.last}"
    return {f"{path}/kernel": "classifier.weight", f"{path}/bias": "classifier.bias"}


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
