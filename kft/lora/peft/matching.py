"""Which layer the tensors of an adapter's file belong to, and whether they are all there.

Reference: `peft` 0.21, `tuners/tuners_utils.py` (`check_target_module_exists`) and
`utils/other.py` (`_set_trainable`), which say what `target_modules` and `modules_to_save` mean.

Shapes: `I` inputs and `O` outputs of a layer, `r` rank.
"""

import math
import re
from dataclasses import dataclass, field

import keras
import numpy as np

from kft.keras_internals import own_weights
from kft.lora.kinds import bias_size, kind_of, why_not
from kft.lora.layers import Settings
from kft.lora.owned import head_paths
from kft.lora.peft.writing import CONFIG, PREFIX, SUFFIXES, as_torch
from kft.params import layers
from kft.params.paths import listed

_PARTS = {
    "lora_A.weight": "a", "lora_B.weight": "b", "lora_embedding_A": "a", "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude", "base_layer.bias": "base_bias", "bias": "bias",
    "weight": "weight",
}  # fmt: skip
# Parts of Hugging Face's models that an output of kft's does not pass through.
_OTHER_PARTS = re.compile(r"^(esm\.|vit\.|deit\.|dinov2\.)?(contact_head|pooler|lm_head)\.")
_LABELS = {"classifier", "score"}  # PEFT lists both, whichever the model has


@dataclass
class Found:
    """What the tensors of a file are.

    Attributes:
        parts: {path: {"a", "b", "magnitude" or "bias": array}} of adapters.
        full: {path of a layer: {"weight" or "bias": array}} of layers that learned in full.
        head: {path of a weight: array}, or {key: array} of a head that the model has not.
        modules: {module: path} of those with low-rank tensors or a bias, None for skipped ones.
        skipped: names of tensors that belong to parts that the model has not.
        other_full: modules of such parts that learned in full.
        widths: {path: how many modules' adapters stand side by side in one}.
    """

    parts: dict = field(default_factory=dict)
    full: dict = field(default_factory=dict)
    head: dict = field(default_factory=dict)
    modules: dict = field(default_factory=dict)
    skipped: list = field(default_factory=list)
    other_full: set = field(default_factory=set)
    widths: dict = field(default_factory=dict)


def placed(tensors, modules, model, folder):
    """Finds the layer of each tensor.

    Args:
        tensors: {key: array}.
        modules: the model's `Modules`.
        model: that the adapter is for.
        folder: what errors call the adapter.

    Returns:
        `Found`.

    Raises:
        ValueError: tensors that have no place.
    """
    found, pieces, unknown = Found(), {}, []
    known = set(layers(model))
    for key, value in tensors.items():
        plain = _plain(key.removeprefix(PREFIX), modules)
        if plain is None:
            continue
        if (path := modules.in_head(plain)) is not None:
            found.head[path] = value.T if path.endswith("kernel") else value
            continue
        end = next((e for e in _PARTS if plain.endswith(f".{e}")), None)
        module = plain.removesuffix(f".{end}")
        path = modules.path(module) if end else None
        if path in known:
            pieces.setdefault(path, {}).setdefault(module, {})[_PARTS[end]] = value
        elif _OTHER_PARTS.match(plain):
            if _PARTS.get(end) not in ("bias", "base_bias"):  # with bias="all" PEFT has all of them
                found.skipped.append(key)
                low = _PARTS.get(end) in ("a", "b", "magnitude")
                found.modules |= {module: None} if low else {}
                found.other_full |= set() if low else {plain.rpartition(".")[0]}
        elif plain.split(".")[0] in _LABELS:  # a head that the model has not
            found.head[plain] = value
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{folder}: {len(unknown)} of {len(tensors)} tensors have no place in the model, among "
            f"them {listed(unknown, 3)}. Its layers are called {listed(modules.known(), 3)}."
        )
    for path in [path for path in known if path in pieces]:
        _sort(found, path, pieces[path], modules, layers(model)[path], folder)
    return found


def _plain(key, modules):
    """A key without what PEFT adds for its wrappers; None for an untrained copy."""
    if ".original_module." in key:
        return None
    if ".modules_to_save." not in key:
        return key
    # Of some the adapter's name follows, and a name may be that of a weight.
    with_name = re.sub(r"\.modules_to_save\.", ".", key)
    without = re.sub(r"\.modules_to_save\.\w+\.", ".", key)
    places = (modules.in_head(with_name), modules.path(with_name.rpartition(".")[0]))
    return with_name if any(place is not None for place in places) else without


def _sort(found, path, by_module, modules, layer, folder):
    """Puts the tensors of one layer where they belong."""
    if any("weight" in parts for parts in by_module.values()):
        if len(by_module) > 1 or modules.place(next(iter(by_module)))[1] > 1:
            raise ValueError(f"{folder}: {path} is several modules in one, which kft reads with "
                             f"adapters alone, not in full.")  # fmt: skip
        found.full[path] = next(iter(by_module.values()))
        return
    turned = {}
    for module, parts in by_module.items():
        found.modules[module] = path
        if ("a" in parts) != ("b" in parts):
            raise ValueError(f"{folder}: {path} has one of lora_A and lora_B only.")
        for part in ("a", "b"):
            if part in parts:
                parts[part] = _as_matrix(parts[part], part)
        if "base_bias" in parts:
            parts["bias"] = parts.pop("base_bias")
        turned[modules.place(module)] = parts
    count = next(iter(turned))[1]
    if count == 1:
        found.parts[path] = next(iter(turned.values()))
    else:
        joined = [turned.get((i, count), {}) for i in range(count)]
        found.parts[path], found.widths[path] = _side_by_side(joined, path, layer, folder)


def _as_matrix(value, part):
    """(r, I) or (r, C, h, w); (O, r) or (O, r, 1, 1) -> (I, r); (r, O)."""
    if value.ndim == 4:
        value = value.transpose(0, 2, 3, 1) if part == "a" else value[:, :, 0, 0]
        value = value.reshape(len(value), -1)
    return value.T


def _side_by_side(joined, path, layer, folder):
    """The parts of a layer that is several modules, and by how much its rank is larger.

    x [W1 W2] + s [x A1 B1, x A2 B2] = x [W1 W2] + s (x [A1 A2]) [[B1, 0], [0, B2]]
    """
    for part in ("bias", "magnitude"):
        if 0 < sum(part in parts for parts in joined) < len(joined):
            raise ValueError(f"{folder}: one half of {path} has a {part}, the other has none.")
    together = {part: np.concatenate([np.ravel(parts[part]) for parts in joined])
                for part in ("bias", "magnitude") if part in joined[0]}  # fmt: skip
    low = [parts for parts in joined if "a" in parts]
    if not low:
        return together, 1
    if len({parts["a"].shape for parts in low}) > 1:
        raise ValueError(f"{folder}: the modules that {path} is in one have ranks that differ.")
    outputs, rank = kind_of(layer).sizes_of(layer)[1] // len(joined), low[0]["a"].shape[1]
    if all(np.array_equal(parts["a"], low[0]["a"]) for parts in low):
        b = [
            parts.get("b", np.zeros((low[0]["a"].shape[1], outputs), "float32")) for parts in joined
        ]
        return {**together, "a": low[0]["a"], "b": np.concatenate(b, axis=1)}, 1
    rank = low[0]["a"].shape[1]
    b = np.zeros((rank * len(joined), sum(parts["b"].shape[1] for parts in joined)), "float32")
    column = 0
    for i, parts in enumerate(joined):
        width = parts["b"].shape[1]
        b[i * rank : (i + 1) * rank, column : column + width] = parts["b"]
        column += width
    a = np.concatenate([parts["a"] for parts in joined], axis=1)
    return {**together, "a": a, "b": b}, len(joined)


# Settings -----------------------------------------------------------------------------------------


def settings_of(path, layer, found, config, prefix, folder):
    """`Settings` of one layer, with everything checked that could fail later.

    Raises:
        ValueError: shapes, ranks or kinds of layers that do not fit.
    """
    parts, width = found.parts[path], found.widths.get(path, 1)
    bias = "bias" in parts
    if bias and np.size(parts["bias"]) != (size := bias_size(layer)):
        raise ValueError(
            f"{folder}: the bias of {path} has {np.size(parts['bias'])} numbers, the layer {size}."
        )
    if "a" not in parts:
        if kind_of(layer) is None:
            raise ValueError(f"{folder}: {path} is a {type(layer).__name__}, whose bias kft cannot "
                             f"adapt.")  # fmt: skip
        return Settings(0, 0.0, bias=True, prefix=prefix)
    if (reason := why_not(layer)) is not None:
        raise ValueError(f"{folder}: {path} cannot be adapted: {reason}.")
    module = next(m for m, p in found.modules.items() if p == path)
    rank = parts["a"].shape[1]
    told = _pattern(config.get("rank_pattern"), module, config["r"]) * width
    if rank != told or parts["b"].shape[0] != told:
        raise ValueError(f"{folder}: {path} has rank {rank} in the tensors and {told} in {CONFIG}.")
    sizes = kind_of(layer).sizes_of(layer)
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
    table = isinstance(layer, keras.layers.Embedding)
    alpha = _pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    alpha *= math.sqrt(width) if rslora and width > 1 else width  # the scale stays
    dropout = 0.0 if table else config.get("lora_dropout", 0.0)
    return Settings(rank, alpha, dropout, rslora, dora, bias, prefix=prefix)


def _pattern(patterns, module, default):
    """The value of the first pattern that matches the end of a module's name, as PEFT finds it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


# Whether all is there -----------------------------------------------------------------------------


def insist_complete(found, config, modules, model, folder):
    """Checks that the tensors are those that adapter_config.json tells of, no less and no more.

    Raises:
        ValueError: layers that should have an adapter, a bias or weights and have none, or the
            other way round; no adapter at all.
    """
    low = {m: p for m, p in found.modules.items() if p is None or "a" in found.parts[p]}
    if not low:
        raise ValueError(
            f"{folder}: the file of tensors holds no adapter: there is no lora_A in it."
        )
    everything, head = layers(model), head_paths(model)
    named = modules.as_in(found.modules)
    named = {m: p for m, p in named.items() if p in everything and p not in head}
    told = config.get("target_modules")
    if told is not None and told != "all-linear":
        wanted = {m for m, p in named.items() if _targeted(config, m)
                  and why_not(everything[p]) is None and p not in found.full}  # fmt: skip
        also = {p: m for m, p in named.items()} | {p: modules.full(p) for p in named.values()}
        extra = {m for m, p in low.items()
                 if not _targeted(config, m) and not _targeted(config, also.get(p, m))}  # fmt: skip
        _compare(wanted, extra, set(low),
                 "an adapter", f"target_modules={_short(told)}", folder)  # fmt: skip
    biased = {m for m, p in found.modules.items() if p and "bias" in found.parts[p]}
    kind = config.get("bias", "none")
    of_targets = set(low) if kind == "lora_only" else set(named) if kind == "all" else set()
    wanted = {m for m in of_targets if named.get(m) and bias_size(everything[named[m]])
              and kind_of(everything[named[m]]) and named[m] not in found.full}  # fmt: skip
    _compare(wanted, biased - wanted, biased, "a bias", f"bias={kind!r}", folder)
    _insist_saved(found, config, modules, named, folder)


def _targeted(config, module):
    """Whether PEFT would adapt a module."""
    excluded = config.get("exclude_modules")
    if excluded and (re.fullmatch(excluded, module) if isinstance(excluded, str)
                     else _ends(module, excluded)):  # fmt: skip
        return False
    saved = config.get("modules_to_save") or ()
    if any(re.match(rf"(^|.*\.){re.escape(m)}($|\..*)", module) for m in saved):
        return False
    told = config["target_modules"]
    if isinstance(told, str):
        return re.fullmatch(told, module) is not None
    if not _ends(module, told):
        return False
    if module in told or (only := config.get("layers_to_transform")) is None or only == []:
        return True
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if match := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module):
            return int(match[1]) in ([only] if isinstance(only, int) else only)
    return False


def _ends(module, names):
    return any(f".{module}".endswith(f".{name}") for name in names)


def _short(told):
    return repr(told) if isinstance(told, str) else f"[{listed(map(repr, told), 3)}]"


def _compare(wanted, too_many, there, what, told, folder):
    lacking = sorted(wanted - there)
    if lacking:
        raise ValueError(
            f"{folder}: {len(lacking)} of {len(wanted)} modules that {CONFIG} tells of "
            f"({told}) have no tensors of {what}: {listed(lacking, 3)}. The files are not of one "
            f"adapter, or not whole: copy or save it again."
        )
    if too_many:
        raise ValueError(
            f"{folder}: {listed(sorted(too_many), 3)} have tensors of {what}, of which {CONFIG} "
            f"tells nothing ({told}). The files are not of one adapter: copy or save it again."
        )


def _insist_saved(found, config, modules, named, folder):
    """Checks `modules_to_save`."""
    told = list(dict.fromkeys(config.get("modules_to_save") or ()))
    keys = [modules.head.get(path, path) for path in found.head]
    there = {key.rpartition(".")[0] for key in keys}
    there |= {m for m, path in modules.as_in(found.modules).items() if path in found.full}
    there |= found.other_full

    def matched(module, name):
        return any(x.endswith(name) for x in (*_above(module), module))

    empty = [name for name in told if not any(matched(m, name) for m in there)]
    if _LABELS & (set(told) - set(empty)):
        empty = [name for name in empty if name not in _LABELS]
    if empty:
        raise ValueError(
            f"{folder}: modules_to_save of {CONFIG} names {listed(empty, 3)}, of which there are "
            f"no tensors. The files are not of one adapter, or not whole: copy or save it again."
        )
    wanted = {m for m in named if any(matched(m, name) for name in told)}
    of_head = {key.rpartition(".")[0] for key in modules.head.values()}
    wanted |= of_head if there & of_head else set()
    extra = {m for m in there if not any(matched(m, name) for name in told)}
    _compare(wanted, extra, there, "weights in full", f"modules_to_save={_short(told)}", folder)


def _above(module):
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def weights_of(layer, by_suffix, path, folder):
    """{name of a weight: array as torch has it} of a layer that learned in full.

    Raises:
        ValueError: weights that are missing, too many or of another shape.
    """
    own = layer.own_paths() if hasattr(layer, "own_paths") else [
        v.name for v in own_weights(layer)
    ]  # fmt: skip
    wanted = {name: SUFFIXES.get(name) for name in own}
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
            expected = kind_of(layer).sizes_of(layer)[::-1]
        else:
            expected = as_torch(layer, name, np.empty(shape, "bool")).shape
        if value.shape != expected:
            raise ValueError(
                f"{folder}: {name} of {path} is {value.shape}, expected {expected} of this model."
            )
    return given
