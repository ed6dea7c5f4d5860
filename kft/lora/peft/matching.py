"""Matching the tensors of an adapter's file with layers, and checking that none is missing.

Reference: `peft` 0.21, `tuners/tuners_utils.py` (`check_target_module_exists`) and
`utils/other.py` (`_set_trainable`), which define `target_modules` and `modules_to_save`.

Shapes: `I` inputs and `O` outputs of a layer, `r` rank.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.keras_internals import own_weights
from kft.lora.kinds import bias_size, kind_of, sizes_of, why_not
from kft.lora.layers import Settings
from kft.lora.owned import head_paths
from kft.lora.peft.modules import Modules
from kft.lora.peft.writing import CONFIG, PREFIX, SUFFIXES, as_torch, tied_tables
from kft.messages import listed
from kft.params import layers

_PARTS = {
    "lora_A.weight": "a",
    "lora_B.weight": "b",
    "lora_B.bias": "b_bias",
    "lora_embedding_A": "a",
    "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude",
    "base_layer.bias": "base_bias",
    "base_layer.weight": "base_weight",
    "bias": "bias",
    "weight": "weight",
}
_LABELS = {"classifier", "score"}  # PEFT lists both, whichever the model has


@dataclass
class FileContent:
    """The tensors of a file, by what they are.

    Attributes:
        parts: {path: {"a", "b", "magnitude" or "bias": array}} of adapters.
        full: {path of a layer: {"weight" or "bias": array}} of layers that were trained in full.
        head: {path of a weight: array}, or {key: array} of a head that the model does not have.
        modules: {module: path} of those with low-rank tensors or a bias, None for skipped ones.
        skipped: Names of tensors of parts that the model does not have.
        other_full: Modules of such parts that were trained in full.
        base: {path: {(i, n): array}} of weights of the base, of the i-th of n modules of a layer.
        widths: {path: number of modules whose adapters are side by side in one}.
    """

    parts: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    full: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    head: dict[str, np.ndarray] = field(default_factory=dict)
    modules: dict[str, str | None] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    other_full: set[str] = field(default_factory=set)
    base: dict[str, dict[tuple[int, int], np.ndarray]] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)


def placed(
    tensors: Mapping[str, np.ndarray],
    modules: Modules,
    model: keras.Model,
    folder: Path,
    saved: Iterable[str] = (),
) -> FileContent:
    """Find the layer of each tensor.

    Args:
        tensors: {key: array}.
        modules: The model's `Modules`.
        model: The model that the adapter is for.
        folder: Name of the adapter in errors.
        saved: `modules_to_save` of adapter_config.json.

    Raises:
        ValueError: Tensors that belong to no layer.
    """
    content = FileContent()
    pieces: dict[str, dict[str, dict[str, np.ndarray]]] = {}  # by path and module
    unknown = []
    known = set(layers(model))
    tables = {p for p, x in layers(model).items() if isinstance(x, keras.layers.Embedding)}
    for key, value in tensors.items():
        plain = _plain(key.removeprefix(PREFIX).replace("_orig_mod.", ""), modules)
        if plain is None:
            continue
        if (path := modules.in_head(plain)) is not None:
            content.head[path] = value.T if path.endswith("kernel") else value
            continue
        end = next((e for e in _PARTS if plain.endswith(f".{e}")), "")
        part, module = _PARTS.get(end), plain.removesuffix(f".{end}")
        path = modules.path(module) if part else None
        of_base = path in tables or module.endswith("lm_head.decoder")
        if part == "weight" and of_base and not _matched(module, saved):
            part = "base_weight"  # PEFT's save_embedding_layers writes tables of the base
        if part == "base_weight" and path in known:
            content.base.setdefault(path, {})[modules.place(module)] = value
        elif part is not None and path in known:
            pieces.setdefault(path, {}).setdefault(module, {})[part] = value
        elif modules.is_elsewhere(plain):
            # PEFT has all biases with bias="all", and weights of the base beside some adapters.
            if part not in ("bias", "base_bias", "base_weight"):
                content.skipped.append(key)
                low = part in ("a", "b", "magnitude")
                content.modules |= {module: None} if low else {}
                content.other_full |= set() if low else {plain.rpartition(".")[0]}
        elif plain.split(".")[0] in _LABELS:  # a head that the model does not have
            content.head[plain] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{folder}: {len(unknown)} of {len(tensors)} tensors have no place in the model, among "
            f"them {listed(unknown, 3)}. Its layers are called {listed(modules.known(), 3)}."
        )
    for path in [path for path in known if path in pieces]:
        _sort(content, path, pieces[path], modules, layers(model)[path], folder)
    return content


def _plain(key: str, modules: Modules) -> str | None:
    """Return a key without what PEFT adds for its wrappers; None for an untrained copy."""
    if ".original_module." in key:
        return None
    if ".modules_to_save." not in key:
        return key
    # In some keys the adapter's name follows, and that may be the name of a weight.
    with_name = re.sub(r"\.modules_to_save\.", ".", key)
    without = re.sub(r"\.modules_to_save\.[^.]+\.", ".", key)
    places = (modules.in_head(with_name), modules.path(with_name.rpartition(".")[0]))
    return with_name if any(place is not None for place in places) else without


def _sort(
    content: FileContent,
    path: str,
    by_module: dict[str, dict[str, np.ndarray]],
    modules: Modules,
    layer: keras.Layer,
    folder: Path,
) -> None:
    """Add the tensors of one layer to the content."""
    if any("weight" in parts for parts in by_module.values()):
        if len(by_module) > 1 or modules.place(next(iter(by_module)))[1] > 1:
            raise ValueError(
                f"{folder}: {path} is several modules in one, which kft reads with adapters alone, "
                f"not in full."
            )
        content.full[path] = next(iter(by_module.values()))
        return
    turned = {}
    for module, parts in by_module.items():
        content.modules[module] = path
        if ("a" in parts) != ("b" in parts):
            raise ValueError(f"{folder}: {path} has only one of lora_A and lora_B.")
        for part in ("a", "b"):
            if part in parts:
                parts[part] = _as_matrix(parts[part], part)
        if "base_bias" in parts:
            parts["bias"] = parts.pop("base_bias")
        turned[modules.place(module)] = parts
    count = next(iter(turned))[1]
    if count == 1:
        content.parts[path] = next(iter(turned.values()))
    else:
        joined = [turned.get((i, count), {}) for i in range(count)]
        content.parts[path], content.widths[path] = _side_by_side(joined, path, layer, folder)


def _as_matrix(value: np.ndarray, part: str) -> np.ndarray:
    """Turn (r, I) or (r, C, h, w) into (I, r), and (O, r) or (O, r, 1, 1) into (r, O)."""
    if value.ndim == 4:
        value = value.transpose(0, 2, 3, 1) if part == "a" else value[:, :, 0, 0]
        value = value.reshape(len(value), -1)
    return value.T


def _side_by_side(
    joined: Sequence[dict[str, np.ndarray]], path: str, layer: keras.Layer, folder: Path
) -> tuple[dict[str, np.ndarray], int]:
    """Return the parts of a layer that is several modules, and the factor of its rank.

    x [W1 W2] + s [x A1 B1, x A2 B2] = x [W1 W2] + s (x [A1 A2]) [[B1, 0], [0, B2]]
    """
    for part in ("bias", "magnitude"):
        if 0 < sum(part in parts for parts in joined) < len(joined):
            raise ValueError(f"{folder}: one half of {path} has a {part}, the other has none.")
    together: dict[str, np.ndarray] = {
        part: np.concatenate([np.ravel(parts[part]) for parts in joined])
        for part in ("bias", "magnitude")
        if part in joined[0]
    }
    low = [parts for parts in joined if "a" in parts]
    if not low:
        return together, 1
    if len({parts["a"].shape for parts in low}) > 1:
        raise ValueError(f"{folder}: the modules that {path} is made of differ in rank.")
    outputs, rank = sizes_of(layer)[1] // len(joined), low[0]["a"].shape[1]
    if all(np.array_equal(parts["a"], low[0]["a"]) for parts in low):
        none = np.zeros((rank, outputs), "float32")
        b = np.concatenate([parts.get("b", none) for parts in joined], axis=1)
        return {**together, "a": low[0]["a"], "b": b}, 1
    b = np.zeros((rank * len(joined), sum(parts["b"].shape[1] for parts in joined)), "float32")
    column = 0
    for i, parts in enumerate(joined):
        width = parts["b"].shape[1]
        b[i * rank : (i + 1) * rank, column : column + width] = parts["b"]
        column += width
    a = np.concatenate([parts["a"] for parts in joined], axis=1)
    return {**together, "a": a, "b": b}, len(joined)


def check_untied(content: FileContent, config: Mapping[str, Any], model: keras.Model) -> None:
    """Check that no table is trained in full apart from a head that is tied to it.

    PEFT copies a table of `modules_to_save` and leaves the head with the first one, unless
    `ensure_weight_tying` is set; kft has one table for both.

    Args:
        content: Content of the file.
        config: Content of adapter_config.json.
        model: The model that the adapter is for.

    Raises:
        ValueError: There is one.
    """
    tied = tied_tables(model) & set(content.full)
    if tied and not config.get("ensure_weight_tying"):
        raise ValueError(
            f"modules_to_save of {CONFIG} has {listed(sorted(tied), 3)} trained apart from the "
            f"language-model head, which kft ties to it: load it into the backbone alone, or train "
            f"it with ensure_weight_tying=True."
        )


def check_base_weights(content: FileContent, model: keras.Model, folder: Path) -> None:
    """Check that weights of the base that are in the file are those of the model.

    PEFT writes them beside the adapters of layers that it takes for a table of tokens.

    Args:
        content: Content of the file.
        model: The model that the adapter is for.
        folder: Name of the adapter in errors.

    Raises:
        ValueError: One of them differs.
    """
    for path, by_place in content.base.items():
        layer = layers(model)[path]
        variable = next(v for v in own_weights(layer) if SUFFIXES.get(v.name) == "weight")
        value = keras.ops.convert_to_numpy(variable).astype("float32")
        if hasattr(layer, "base_values"):
            value = layer.base_values().get(variable.path, value)
        whole = as_torch(layer, variable.name, value)
        for (i, count), expected in by_place.items():
            if not np.array_equal(np.split(whole, count)[i], expected):
                raise ValueError(
                    f"{folder} was made on another base: it holds the weights of {path}, which "
                    f"are not those of {model.name}. Load the weights that it was made on, or give "
                    f"check_base=False if the two differ on purpose."
                )


# Settings -----------------------------------------------------------------------------------------


def settings_of(
    path: str,
    layer: keras.Layer,
    content: FileContent,
    config: Mapping[str, Any],
    prefix: str,
    folder: Path,
) -> Settings:
    """Return the settings of one layer, and check everything that could fail later.

    Args:
        path: Path of the layer.
        layer: The layer.
        content: The tensors of the file, sorted.
        config: Content of adapter_config.json.
        prefix: What stands before the names of modules in the file.
        folder: Name of the adapter in errors.

    Raises:
        ValueError: Shapes, ranks or kinds of layers that do not fit.
    """
    parts, width = content.parts[path], content.widths.get(path, 1)
    bias = "bias" in parts
    if bias and np.size(parts["bias"]) != (size := bias_size(layer)):
        raise ValueError(
            f"{folder}: the bias of {path} has {np.size(parts['bias'])} numbers, the layer {size}."
        )
    if "a" not in parts:
        if kind_of(layer) is None:
            raise ValueError(
                f"{folder}: {path} is a {type(layer).__name__}, whose bias kft cannot adapt, alone "
                f"or with modules_to_save={[path]!r}: name the layers inside it that kft has, "
                f"for example '{path}.dense'."
            )
        return Settings(0, 0.0, bias=True, prefix=prefix)
    if (reason := why_not(layer)) is not None:
        raise ValueError(f"{folder}: {path} cannot be adapted: {reason}.")
    module = next(m for m, p in content.modules.items() if p == path)
    rank = parts["a"].shape[1]
    expected = _pattern(config.get("rank_pattern"), module, config["r"]) * width
    if rank != expected or parts["b"].shape[0] != expected:
        raise ValueError(
            f"{folder}: {path} has rank {rank} in the tensors and {expected} in {CONFIG}."
        )
    sizes = sizes_of(layer)
    received = parts["a"].shape[0], parts["b"].shape[1]
    if received != sizes:
        raise ValueError(
            f"{folder}: the adapter of {path} is for {received[0]} inputs and {received[1]} "
            f"outputs, the layer has {sizes[0]} and {sizes[1]}."
        )
    dora, rslora = config.get("use_dora", False), config.get("use_rslora", False)
    if np.size(parts.get("magnitude", ())) != sizes[1] * dora:
        raise ValueError(
            f"{folder}: {path} has {np.size(parts.get('magnitude', ()))} magnitudes, expected "
            f"{sizes[1] * dora} with use_dora={dora}."
        )
    if "b_bias" in parts:
        _check_bias_of_b(path, layer, parts, config, width, folder)
        bias = True
    table = isinstance(layer, keras.layers.Embedding)
    alpha = _pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    alpha *= math.sqrt(width) if rslora and width > 1 else width  # so that the scale is the same
    dropout = 0.0 if table else config.get("lora_dropout", 0.0)
    return Settings(rank, alpha, dropout, rslora, dora, bias, prefix=prefix)


def _check_bias_of_b(
    path: str,
    layer: keras.Layer,
    parts: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    width: int,
    folder: Path,
) -> None:
    """Check that a bias of B (`lora_bias`) can be held: it is added to a copy of the layer's."""
    size = np.size(parts["b_bias"])
    if not config.get("lora_bias") or "bias" in parts or width > 1 or size != bias_size(layer):
        raise ValueError(
            f"{folder}: {path} has a lora_B.bias of {size} numbers, which kft holds with "
            f"lora_bias=true and bias='none', in layers that have a bias of that size and are one "
            f"module; this one has {bias_size(layer)} numbers."
        )


def with_bias_of_b(
    parts: Mapping[str, np.ndarray], settings: Settings, layer: keras.Layer
) -> dict[str, np.ndarray]:
    """Return the parts of an adapter with the bias of B in the bias of the layer.

    x W + b0 + s (x A B + b) = x W + s x A B + (b0 + s b)

    Args:
        parts: {part: array}, perhaps with "b_bias".
        settings: Settings of the adapter.
        layer: The layer.
    """
    if "b_bias" not in parts:
        return dict(parts)
    variable = next(v for v in own_weights(layer) if v.name == "bias")
    base = layer.base_values() if hasattr(layer, "base_values") else {}
    value = np.ravel(base.get(variable.path, keras.ops.convert_to_numpy(variable)))
    bias = value + settings.scale * parts["b_bias"]
    return {part: x for part, x in parts.items() if part != "b_bias"} | {"bias": bias}


def _pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the end of a module's name, as PEFT."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


# Completeness -------------------------------------------------------------------------------------


def check_complete(
    content: FileContent,
    config: Mapping[str, Any],
    modules: Modules,
    model: keras.Model,
    folder: Path,
) -> None:
    """Check that the tensors are those of adapter_config.json, no less and no more.

    Args:
        content: The tensors of the file, sorted.
        config: Content of adapter_config.json.
        modules: The model's `Modules`.
        model: The model that the adapter is for.
        folder: Name of the adapter in errors.

    Raises:
        ValueError: Layers that should have an adapter, a bias or weights and have none, or the
            other way round; no adapter at all.
    """
    low = {m: p for m, p in content.modules.items() if p is None or "a" in content.parts[p]}
    if not low:
        raise ValueError(
            f"{folder}: the file of tensors holds no adapter: there is no lora_A in it."
        )
    everything, head = layers(model), head_paths(model)
    named = modules.as_in(content.modules)
    named = {m: p for m, p in named.items() if p in everything and p not in head}
    targets = config.get("target_modules")
    if targets is not None and targets != "all-linear":
        wanted = {
            m
            for m, p in named.items()
            if _targeted(config, m) and why_not(everything[p]) is None and p not in content.full
        }
        also = {p: modules.full(p) for p in named.values()}
        extra = {
            m
            for m, p in low.items()
            if not _targeted(config, m)
            and not _targeted(config, m if p is None else also.get(p, m))
        }
        entry = f"target_modules={_short(targets)}"
        _compare(wanted, extra, set(low), "an adapter", entry, folder)
    biased = {m for m, p in content.modules.items() if p and "bias" in content.parts[p]}
    kind = config.get("bias", "none")
    of_targets = set(low) if kind == "lora_only" else set(named) if kind == "all" else set()
    wanted = {
        m
        for m in of_targets
        if named.get(m) and bias_size(everything[named[m]])
        if kind_of(everything[named[m]]) and named[m] not in content.full
    }
    _compare(wanted, biased - wanted, biased, "a bias", f"bias={kind!r}", folder)
    _check_saved(content, config, modules, named, folder)


def _targeted(config: Mapping[str, Any], module: str) -> bool:
    """Whether PEFT would adapt a module."""
    excluded = config.get("exclude_modules")
    if isinstance(excluded, str) and excluded:
        if re.fullmatch(excluded, module):
            return False
    elif excluded and _ends(module, excluded):
        return False
    saved = config.get("modules_to_save") or ()
    if any(re.match(rf"(^|.*\.){re.escape(m)}($|\..*)", module) for m in saved):
        return False
    targets = config["target_modules"]
    if isinstance(targets, str):
        return re.fullmatch(targets, module) is not None
    if not _ends(module, targets):
        return False
    if module in targets or (only := config.get("layers_to_transform")) is None or only == []:
        return True
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if match := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module):
            return int(match[1]) in ([only] if isinstance(only, int) else only)
    return False


def _ends(module: str, names: Iterable[str]) -> bool:
    return any(f".{module}".endswith(f".{name}") for name in names)


def _short(names: str | Iterable[str]) -> str:
    return repr(names) if isinstance(names, str) else f"[{listed(map(repr, names), 3)}]"


def _compare(
    wanted: set[str], too_many: set[str], there: set[str], what: str, entry: str, folder: Path
) -> None:
    lacking = sorted(wanted - there)
    if lacking:
        raise ValueError(
            f"{folder}: {len(lacking)} of {len(wanted)} modules in {CONFIG} ({entry}) have no "
            f"tensors of {what}: {listed(lacking, 3)}. The files are incomplete or not of one "
            f"adapter: copy or save it again."
        )
    if too_many:
        raise ValueError(
            f"{folder}: {listed(sorted(too_many), 3)} have tensors of {what}, which {CONFIG} does "
            f"not list ({entry}). The files are not of one adapter: copy or save it again."
        )


def _check_saved(
    content: FileContent,
    config: Mapping[str, Any],
    modules: Modules,
    named: Mapping[str, str],
    folder: Path,
) -> None:
    """Check `modules_to_save`."""
    saved = list(dict.fromkeys(config.get("modules_to_save") or ()))
    keys = [modules.head.get(path, path) for path in content.head]
    there = {key.rpartition(".")[0] for key in keys}
    there |= {m for m, path in modules.as_in(content.modules).items() if path in content.full}
    there |= content.other_full
    empty = [name for name in saved if not any(_matched(m, [name]) for m in there)]
    if _LABELS & (set(saved) - set(empty)):
        empty = [name for name in empty if name not in _LABELS]
    if empty:
        raise ValueError(
            f"{folder}: modules_to_save of {CONFIG} names {listed(empty, 3)}, which have no "
            f"tensors. The files are incomplete or not of one adapter: copy or save it again."
        )
    wanted = {m for m in named if _matched(m, saved)}
    of_head = {key.rpartition(".")[0] for key in modules.head.values()}
    wanted |= of_head if there & of_head else set()
    extra = {m for m in there if not _matched(m, saved)}
    _compare(wanted, extra, there, "weights in full", f"modules_to_save={_short(saved)}", folder)


def _matched(module: str, saved: Iterable[str]) -> bool:
    """Whether PEFT trains a module, or one that it is in, in full."""
    names = (*_above(module), module)
    return any(name.endswith(end) for name in names for end in saved)


def _above(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def weights_of(
    layer: keras.Layer, by_suffix: Mapping[str, np.ndarray], path: str, folder: Path
) -> dict[str, np.ndarray]:
    """Return {name of a weight: array as torch has it} of a layer that was trained in full.

    Args:
        layer: The layer.
        by_suffix: {"weight" or "bias": array}.
        path: Path of the layer.
        folder: Name of the adapter in errors.

    Raises:
        ValueError: Weights that are missing, too many or of another shape.
    """
    adapted = hasattr(layer, "own_paths")
    own = layer.own_paths() if adapted else [v.name for v in own_weights(layer)]
    wanted = {name: SUFFIXES.get(name, "") for name in own}  # "" is no key of `by_suffix`
    if set(wanted.values()) != set(by_suffix):
        raise ValueError(
            f"{folder}: {path} has {listed(sorted(by_suffix), 3)} in full, and the layer has "
            f"{listed(own, 3)}."
        )
    given = {name: by_suffix[suffix] for name, suffix in wanted.items()}
    variables = {v.name: v for v in own_weights(layer)}
    for name, value in given.items():
        shape = tuple(variables[name].shape)
        if name == "kernel" and isinstance(layer, keras.layers.EinsumDense):
            expected = sizes_of(layer)[::-1]
        else:
            expected = as_torch(layer, name, np.empty(shape, "bool")).shape
        if value.shape != expected:
            raise ValueError(
                f"{folder}: {name} of {path} is {value.shape}, expected {expected} of this model."
            )
    return given
