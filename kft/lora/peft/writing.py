"""Writing a folder of PEFT's files, which replaces an earlier one as a whole.

Reference: `peft` 0.21, `utils/save_and_load.py`.

Shapes: `I` inputs and `O` outputs of a layer, `r` rank.
"""

import collections
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.files import atomic_replace
from kft.keras_internals import sublayers_of
from kft.lora.kinds import LoRAConv2D, LoRAEinsumDense
from kft.lora.layers import Adapted, Adapter, Settings
from kft.lora.owned import adapted, head_paths
from kft.lora.peft.modules import Modules
from kft.params import layers, weights

CONFIG, TENSORS, HEAD = "adapter_config.json", "adapter_model.safetensors", "kft_head.safetensors"
PREFIX = "base_model.model."
# What torch calls the weights of a layer.
SUFFIXES = {
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
}


def tensors_of(
    model: keras.Model, modules: Modules, name: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Settings]]:
    """Return everything that belongs to one adapter.

    Args:
        model: The model with the adapter.
        modules: Its `Modules`.
        name: Name of the adapter.

    Returns:
        {key of PEFT: array}; {path of a weight: array} of what PEFT has no place for; {path:
        settings} of the layers.
    """
    adapters = [(path, x, x.adapters[name]) for path, x in adapted(model) if name in x.adapters]
    tensors: dict[str, np.ndarray] = {}
    extra: dict[str, np.ndarray] = {}
    settings: dict[str, Settings] = {}
    by_layer, head = _paths_by_layer(model), head_paths(model)
    for path, layer, adapter in adapters:
        settings[path] = adapter.settings
        if not adapter.settings.full:
            tensors |= _low_rank(layer, adapter, modules.all_of(path))
            continue
        own = dict(zip(by_layer[path], layer.full_values(name) or (), strict=True))
        if path not in head and _known_to_peft(layer, modules, path):
            for end, value in zip(layer.own_paths(), own.values(), strict=True):
                key = f"{PREFIX}{modules.full(path)}.{SUFFIXES[end]}"
                tensors[key] = as_torch(layer, end, value)
            continue
        for weight, value in own.items():
            if weight in modules.head:
                end = weight.rpartition("/")[2]
                tensors[f"{PREFIX}{modules.head[weight]}"] = as_torch(layer, end, value)
            else:
                extra[weight] = value
    return tensors, extra, settings


def _known_to_peft(layer: Adapted, modules: Modules, path: str) -> bool:
    return path in modules.names and set(layer.own_paths()) <= set(SUFFIXES)


def _paths_by_layer(model: keras.Model) -> dict[str, list[str]]:
    """Return {path of a layer: paths of its own weights, without those of adapters}."""
    by_id = {id(w.variable): w.path for w in weights(model)}
    return {path: [by_id[id(v)] for v in x.base_weights()] for path, x in adapted(model)}


def _low_rank(layer: Adapted, adapter: Adapter, modules: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the tensors of one layer's adapter; a layer that is several modules has A in each."""
    parts = {part: keras.ops.convert_to_numpy(v) for part, v in adapter.variables.items()}
    tensors: dict[str, np.ndarray] = {}
    for i, module in enumerate(modules):

        def piece(value: np.ndarray, i: int = i) -> np.ndarray:
            return np.split(value, len(modules), axis=-1)[i]

        cut = {part: value if part == "a" else piece(value) for part, value in parts.items()}
        tensors |= _written(layer, cut, PREFIX + module)
    return tensors


def _written(
    layer: keras.Layer, parts: Mapping[str, np.ndarray], module: str
) -> dict[str, np.ndarray]:
    table = isinstance(layer, keras.layers.Embedding)
    tensors: dict[str, np.ndarray] = {}
    if "a" in parts:
        a, b = parts["a"].T, parts["b"].T  # (r, I), (O, r)
        if isinstance(layer, LoRAConv2D):
            height, width, channels, _ = layer.kernel.shape
            a = a.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)  # (r, C, h, w)
            b = b[:, :, None, None]
        end = ("embedding_A", "embedding_B") if table else ("A.weight", "B.weight")
        tensors |= {f"{module}.lora_{end[0]}": a, f"{module}.lora_{end[1]}": b}
    if "magnitude" in parts:
        magnitude = parts["magnitude"]
        if isinstance(layer, LoRAConv2D):
            magnitude = magnitude.reshape(1, -1, 1, 1)
        tensors[f"{module}.lora_magnitude_vector"] = magnitude
    if "bias" in parts:
        place = f"{module}.base_layer.bias" if "a" in parts else f"{module}.bias"
        tensors[place] = parts["bias"].reshape(-1)
    return {key: np.ascontiguousarray(value) for key, value in tensors.items()}


def as_torch(layer: keras.Layer, weight: str, value: np.ndarray) -> np.ndarray:
    """Return a weight of a Keras layer as torch has it.

    Args:
        layer: The layer.
        weight: Name of the weight, for example "kernel".
        value: Its array.
    """
    if weight == "kernel":
        if isinstance(layer, keras.layers.Conv2D):
            value = value.transpose(3, 2, 0, 1)  # (h, w, I, O) -> (O, I, h, w)
        elif isinstance(layer, LoRAEinsumDense):
            value = value.transpose(layer.kernel_order()).reshape(layer.sizes).T
        else:
            value = value.T
    elif weight == "bias":
        value = value.reshape(-1)
    return np.ascontiguousarray(value)


def from_torch(layer: keras.Layer, weight: str, value: np.ndarray) -> np.ndarray:
    """Return the inverse of `as_torch`.

    Args:
        layer: The layer.
        weight: Name of the weight, for example "kernel".
        value: The array as torch has it.
    """
    if weight == "kernel":
        if isinstance(layer, keras.layers.Conv2D):
            return value.transpose(2, 3, 1, 0)
        return layer.unflattened(value.T) if isinstance(layer, LoRAEinsumDense) else value.T
    return value


def config_of(
    model: keras.Model,
    modules: Modules,
    settings: Mapping[str, Settings],
    extra: Collection[str],
) -> dict[str, Any]:
    """Return the content of adapter_config.json.

    Args:
        model: The model with the adapter.
        modules: Its `Modules`.
        settings: {path of a layer: settings}.
        extra: Paths of the weights in kft_head.safetensors.
    """
    low_rank = {path: s for path, s in settings.items() if s.rank}
    most = {
        what: collections.Counter(getattr(s, what) for s in low_rank.values()).most_common(1)[0][0]
        for what in ("rank", "alpha")
    }
    differing = {
        what: {
            f"^{re.escape(module)}$": getattr(s, what)
            for p, s in low_rank.items()
            if getattr(s, what) != most[what]
            for module in modules.all_of(p)
        }
        for what in ("rank", "alpha")
    }
    bias = "none"
    if any(s.bias for s in settings.values()):
        bias = "lora_only" if all(s.rank for s in settings.values() if s.bias) else "all"
    first = next(iter(low_rank.values()))
    full = {path for path, s in settings.items() if s.full}
    report = getattr(getattr(model, "backbone", model), "load_report", None)
    return {
        "peft_type": "LORA",
        "task_type": modules.task,
        "base_model_name_or_path": getattr(report, "source", None),
        "r": most["rank"],
        "lora_alpha": most["alpha"],
        "lora_dropout": max(s.dropout for s in low_rank.values()),
        "target_modules": modules.short(low_rank),
        "rank_pattern": differing["rank"],
        "alpha_pattern": differing["alpha"],
        "bias": bias,
        "use_rslora": first.rslora,
        "use_dora": first.dora,
        "modules_to_save": _saved(modules, settings, extra),
        **({"ensure_weight_tying": True} if full & tied_tables(model) else {}),
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def tied_tables(model: keras.Model) -> set[str]:
    """Return paths of the tables of tokens that a head of the model reads too."""
    everything = layers(model)
    lenders = [getattr(layer, "lender", None) for layer in everything.values()]
    inside = {
        id(x) for lender in lenders if isinstance(lender, keras.Layer) for x in sublayers_of(lender)
    }
    return {p for p, x in everything.items() if id(x) in inside and hasattr(x, "tied")}


def _saved(
    modules: Modules, settings: Mapping[str, Settings], extra: Iterable[str]
) -> list[str] | None:
    """Return the modules that PEFT's file has in full, None for none."""
    inside = {path.rpartition("/")[0] for path in extra} | {
        path.rpartition("/")[0] for path in modules.head
    }
    in_full = [modules.full(path) for path, s in settings.items() if s.full and path not in inside]
    of_head = dict.fromkeys(key.split(".")[0] for key in modules.head.values())
    return [*of_head, *in_full] or None


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of tensors, 64 hexadecimal digits."""
    hasher = hashlib.sha256()
    for key in sorted(tensors):
        value = np.ascontiguousarray(tensors[key])
        hasher.update(f"{key} {value.dtype} {value.shape}\n".encode())
        hasher.update(value.tobytes())
    return hasher.hexdigest()


def write(
    folder: Path,
    config: Mapping[str, Any],
    tensors: dict[str, np.ndarray],
    metadata: Mapping[str, str],
    extra: dict[str, np.ndarray],
) -> Path:
    """Write an adapter's files, which replace those of an earlier one as a whole.

    Args:
        folder: Where to write; the folder is made.
        config: Content of adapter_config.json.
        tensors: {key: array} for adapter_model.safetensors.
        metadata: Metadata of adapter_model.safetensors; the digests are added.
        extra: {path: array} for kft_head.safetensors; may be empty.

    Returns:
        The folder.

    Raises:
        NotADirectoryError: The folder is a file, or in one.
        OSError: It cannot be written.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"folder must be a folder or a new name for one, received {folder}, but "
            f"{next(x for x in (folder, *folder.parents) if x.exists())} is a file."
        ) from None
    text = json.dumps(config, indent=2) + "\n"
    digests = {CONFIG: hashlib.sha256(text.encode()).hexdigest(), TENSORS: digest(tensors)}
    if extra:
        digests[HEAD] = digest(extra)
    with atomic_replace(folder, [CONFIG, TENSORS, HEAD]) as aside:
        save_file(tensors, aside / TENSORS, metadata={**metadata, "kft_files": json.dumps(digests)})
        if extra:
            save_file(extra, aside / HEAD, metadata={"format": "np"})
        (aside / CONFIG).write_text(text)
    return folder
