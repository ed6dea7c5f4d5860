"""Adapters in the files of PEFT: adapter_config.json and adapter_model.safetensors.

Reference: `peft` 0.21, `utils/save_and_load.py` and `tuners/lora`. Modules have the names of
Hugging Face's models where there is one, of ESM-2 (language-model head included) and of ViT; layers
of other models have their own paths. What PEFT has no place for, heads of kft and whatever else
learned in full, lies in kft_head.safetensors beside it.

Differences from the reference: the metadata of adapter_model.safetensors hold a digest of the base
model (`kft_base`), with which an adapter is not put on another base by mistake.

Shapes: `I` inputs and `O` outputs of a layer, `r` rank.
"""

import collections
import hashlib
import json
import re
import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from kft.backbones.checkpoints import read_safetensors
from kft.lora.adapting import activate, adapted, head_of, insist_unmerged, install, names
from kft.lora.kinds import LoRAConv2D, bias_size, kind_of, why_not
from kft.lora.layers import Settings
from kft.lora.modules import modules_of
from kft.params import digest, layers, weights
from kft.params.paths import listed

CONFIG, TENSORS, HEAD = "adapter_config.json", "adapter_model.safetensors", "kft_head.safetensors"
_OLDER = "adapter_model.bin"
_PREFIX = "base_model.model."

# Options of PEFT's LoraConfig that change what an adapter computes and that are not read here.
_FOREIGN = (
    "layer_replication", "lora_bias", "megatron_config", "trainable_token_indices",
    "target_parameters", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config",
    "kasa_config", "monteclora_config", "fan_in_fan_out",
)  # fmt: skip
# What is read of the file, by JSON's names for it; the first two have to be there.
_READ = {
    "r": ("an integer", int), "lora_alpha": ("a number", int, float),
    "lora_dropout": ("a number", int, float),
    "rank_pattern": ("an object", dict), "alpha_pattern": ("an object", dict),
    "use_rslora": ("true or false", bool), "use_dora": ("true or false", bool),
}  # fmt: skip
# Ways to begin after which the base itself is another one.
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")


# Saving -------------------------------------------------------------------------------------------


def save_adapter(model, folder, name=None):
    """Writes one adapter into a folder, in files that PEFT reads.

    Hugging Face's classification and token heads go into PEFT's file too (`modules_to_save`);
    any other head, and other layers that learn in full, into kft_head.safetensors.

    Args:
        model: a `kft.Model`, backbone or other Keras model with adapters, merged or not.
        folder: is made; files of an earlier adapter in it are replaced.
        name: which adapter; None for the only one.

    Returns:
        The folder, a `Path`.

    Raises:
        ValueError: no adapters, an unknown name, or several and none named.
        NotADirectoryError: the folder is a file, or in one.

    Example:
        >>> import tempfile
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> _ = kft.add_lora(backbone, rank=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saved = kft.save_adapter(backbone, folder)
        ...     sorted(path.name for path in saved.iterdir())
        ['adapter_config.json', 'adapter_model.safetensors']
    """
    name = _chosen(model, name)
    modules = modules_of(model)
    found = [(path, x, x.adapters[name]) for path, x in adapted(model) if name in x.adapters]
    tensors = {}
    for path, layer, adapter in found:
        tensors |= _written(layer, adapter, _PREFIX + modules.full(path))
    kept, form = _learned_in_full(model), modules.head
    tensors |= {
        f"{_PREFIX}{form[path]}": _turned(path, value)
        for path, value in kept.items()
        if path in form
    }
    beside = {path: value for path, value in kept.items() if path not in form}
    config = _config(model, modules, {path: x.settings for path, _, x in found}, name)
    about = {"format": "pt", "kft_base": base_digest(model, kept)}
    return _write(Path(folder), config, tensors, about, beside)


def _chosen(model, name):
    known = names(model)
    if not known:
        raise ValueError(f"{model.name} has no adapters: kft.add_lora(model) adds them.")
    if name is None and len(known) > 1:
        raise ValueError(f"{model.name} has the adapters {', '.join(known)}: say which as `name`.")
    if name is not None and name not in known:
        raise ValueError(f"{model.name} has no adapter {name!r}; it has {', '.join(known)}.")
    return known[0] if name is None else name


def _written(layer, adapter, module):
    """The tensors of one layer's adapter, by PEFT's keys."""
    parts = {part: keras.ops.convert_to_numpy(v) for part, v in adapter.variables.items()}
    table, tensors = isinstance(layer, keras.layers.Embedding), {}
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


def _learned_in_full(model):
    """{path of a weight: numpy array} of the head and of all else that learns, adapters aside."""
    own = {
        id(v) for _, x in adapted(model) for a in x.adapters.values() for v in a.variables.values()
    }
    head = head_of(model)
    return {
        w.path: keras.ops.convert_to_numpy(w.variable)
        for w in weights(model)
        if id(w.variable) not in own and (w.learns or set(_above(w.path)) & set(head))
    }


def _above(path):
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]


def _turned(path, value):
    """A weight as torch has it."""
    return np.ascontiguousarray(value.T if path.endswith("kernel") else value)


def _config(model, modules, settings, name):
    """What adapter_config.json says."""
    low_rank = {path: s for path, s in settings.items() if s.rank}
    most = {
        what: collections.Counter(getattr(s, what) for s in low_rank.values()).most_common(1)[0][0]
        for what in ("rank", "alpha")
    }
    differing = {
        what: {f"^{re.escape(modules.full(p))}$": getattr(s, what) for p, s in low_rank.items()
               if getattr(s, what) != most[what]}
        for what in ("rank", "alpha")
    }  # fmt: skip
    bias = "all" if len(low_rank) < len(settings) else "none"
    if bias == "none" and any(s.bias for s in settings.values()):
        bias = "lora_only"
    first = next(iter(low_rank.values()))
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
        "modules_to_save": ["classifier"] if modules.head else None,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _write(folder, config, tensors, about, beside):
    from safetensors.numpy import save_file

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(
            f"folder must be a folder or a new name for one, received {folder}, and "
            f"{next(x for x in (folder, *folder.parents) if x.exists())} is a file."
        ) from None
    # Written aside and renamed: a file under its own name is complete.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".adapter-") as aside:
        aside = Path(aside)
        save_file(tensors, aside / TENSORS, metadata=about)
        if beside:
            save_file(beside, aside / HEAD, metadata={"format": "np"})
        (aside / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        (folder / HEAD).unlink(missing_ok=True)
        for file in aside.iterdir():
            file.replace(folder / file.name)
    return folder


# Loading ------------------------------------------------------------------------------------------


def load_adapter(model, folder, name="default", check_base=True):
    """Adds an adapter from a folder of PEFT's files, written by kft or by PEFT.

    All but adapter and head is frozen, as `kft.add_lora` does. A head in the files goes into the
    model's, which has to be the same. An adapter of this name with the same layers and settings
    gets the values of the file.

    Args:
        model: a `kft.Model`, backbone or other Keras model.
        folder: with adapter_config.json and adapter_model.safetensors (or .bin).
        name: what the adapter is called here.
        check_base: False puts it on another base too.

    Returns:
        list of the paths of the layers that have the adapter.

    Raises:
        FileNotFoundError: no such folder or files.
        ValueError: damaged, not LoRA, options of PEFT that are not supported; names or shapes that
            do not fit the model or its head; another base; an adapter of this name that differs.

    Example:
        >>> import tempfile
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> _ = kft.add_lora(backbone, rank=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = kft.save_adapter(backbone, folder)
        ...     kft.lora.remove(backbone)
        ...     paths = kft.load_adapter(backbone, folder)
        >>> paths[:2]
        ['block_0/query', 'block_0/value']
    """
    folder = Path(folder)
    config, tensors, about = _read(folder)
    everything = layers(model)
    parts, full, called = _by_layer(tensors, modules_of(model), everything, folder)
    settings = {p: _settings(p, everything[p], found, config, called[p], folder)
                for p, found in parts.items()}  # fmt: skip
    full = _that_fit(model, full | _beside(folder), folder)
    expected = about.get("kft_base")
    if check_base and expected and (received := base_digest(model, full)) != expected:
        raise ValueError(
            f"{folder} was made on another base: its digest is {expected[:16]}, that of "
            f"{model.name} is {received[:16]}. Load the weights that it was made on, or say "
            f"check_base=False if the two differ on purpose."
        )
    if name in names(model):
        insist_unmerged(model)
        paths = _same(model, settings, name, folder)
        activate(model, name)
    else:
        paths = install(model, settings, name, np.random.default_rng(0))
    for path, found in parts.items():
        for part, variable in everything[path].adapters[name].variables.items():
            variable.assign(np.reshape(found[part], variable.shape))
    by_path = {w.path: w.variable for w in weights(model)}
    for path, value in full.items():
        by_path[path].assign(value)
    return paths


def _read(folder):
    from safetensors import safe_open

    config = _read_config(folder)
    file = next((f for f in (folder / TENSORS, folder / _OLDER) if f.exists()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has no {TENSORS}: copy it beside {CONFIG}.")
    tensors, about = read_safetensors(file), {}  # says first what is wrong with a damaged file
    if file.name == TENSORS:
        with safe_open(file, framework="numpy") as opened:
            about = opened.metadata() or {}
    return config, tensors, about


def _read_config(folder):
    """What adapter_config.json says, without what is null in it."""
    file = folder / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: give the folder of an adapter.")
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: no JSON ({error}). Copy or save it again.") from None
    if not isinstance(config, dict):
        raise ValueError(
            f"{file}: expected a JSON object, received a {type(config).__name__}: give the folder "
            f"of an adapter."
        )
    config = {option: value for option, value in config.items() if value is not None}
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{folder}: peft_type is {config.get('peft_type')!r}, expected 'LORA'.")
    foreign = [option for option in _FOREIGN if config.get(option)]
    if str(config.get("init_lora_weights", True)).lower().startswith(_OTHER_BASES):
        foreign.append("init_lora_weights")
    if foreign:
        raise ValueError(
            f"{folder}: {foreign[0]}={config[foreign[0]]!r} is not supported by kft. What is: r, "
            f"lora_alpha, rank_pattern, alpha_pattern, lora_dropout, bias, use_rslora, use_dora, "
            f"modules_to_save."
        )
    for i, (option, (kind, *types)) in enumerate(_READ.items()):
        if type(config.get(option)) not in types and (i < 2 or option in config):
            received = repr(config[option]) if option in config else "nothing"
            raise ValueError(
                f"{file}: {option} must be {kind}, received {received}. Copy or save it again."
            )
    return config


_PARTS = {
    "lora_A.weight": "a", "lora_B.weight": "b", "lora_embedding_A": "a", "lora_embedding_B": "b",
    "lora_magnitude_vector": "magnitude", "base_layer.bias": "bias", "bias": "bias",
}  # fmt: skip


# With bias="all" PEFT takes along the biases of heads, and the untrained copy of one that it saves.
_OTHER_HEADS = re.compile(r"\.original_module\.|^(esm\.)?(contact_head|pooler|lm_head)\..*bias$")


def _by_layer(tensors, modules, everything, folder):
    """{path: {part: array}} of adapters, {path: array} of what learned in full, {path: module}."""
    parts, full, called, unknown = {}, {}, {}, []
    for key in tensors:
        plain = re.sub(r"\.modules_to_save(\.\w+)?", "", key.removeprefix(_PREFIX))
        if _OTHER_HEADS.search(plain) and modules.path(plain.rpartition(".")[0]) is None:
            continue
        if (path := modules.in_head(plain)) is not None:
            full[path] = tensors[key].T if path.endswith("kernel") else tensors[key]
            continue
        if plain.startswith("classifier."):  # a head that the model has not
            full[plain] = tensors[key]
            continue
        end = next((e for e in _PARTS if plain.endswith(f".{e}")), None)
        path = modules.path(plain.removesuffix(f".{end}")) if end else None
        if path not in everything:
            unknown.append(key)
            continue
        value, part, called[path] = tensors[key], _PARTS[end], plain.removesuffix(f".{end}")
        if part in ("a", "b"):  # (r, I) or (r, C, h, w); (O, r) or (O, r, 1, 1)
            if value.ndim == 4:
                value = value.transpose(0, 2, 3, 1) if part == "a" else value[:, :, 0, 0]
                value = value.reshape(len(value), -1)
            value = value.T
        parts.setdefault(path, {})[part] = value
    if unknown:
        raise ValueError(
            f"{folder}: {len(unknown)} of {len(tensors)} tensors have no place in the model, among "
            f"them {listed(unknown, 3)}. Its layers are called {listed(modules.known(), 3)}."
        )
    return {path: parts[path] for path in everything if path in parts}, full, called


def _settings(path, layer, parts, config, module, folder):
    """`Settings` of one layer, with everything checked that could fail later."""
    if ("a" in parts) != ("b" in parts):
        raise ValueError(f"{folder}: {path} has one of lora_A and lora_B only.")
    bias = "bias" in parts
    if bias and np.size(parts["bias"]) != (size := bias_size(layer)):
        raise ValueError(
            f"{folder}: the bias of {path} has {np.size(parts['bias'])} numbers, the layer {size}."
        )
    if "a" not in parts:
        if kind_of(layer) is None:
            raise ValueError(f"{folder}: {path} is a {type(layer).__name__}, whose bias kft cannot "
                             f"adapt.")  # fmt: skip
        return Settings(0, 0.0, bias=True)
    if (reason := why_not(layer)) is not None:
        raise ValueError(f"{folder}: {path} cannot be adapted: {reason}.")
    rank = parts["a"].shape[1]
    told = _pattern(config.get("rank_pattern"), module, config["r"])
    if rank != told or parts["b"].shape[0] != told:
        raise ValueError(f"{folder}: {path} has rank {rank} in the tensors and {told} in {CONFIG}.")
    layer_sizes = kind_of(layer).sizes_of(layer)
    received = parts["a"].shape[0], parts["b"].shape[1]
    if received != layer_sizes:
        raise ValueError(
            f"{folder}: the adapter of {path} is for {received[0]} inputs and {received[1]} "
            f"outputs, the layer has {layer_sizes[0]} and {layer_sizes[1]}."
        )
    dora = config.get("use_dora", False)
    if np.size(parts.get("magnitude", ())) != layer_sizes[1] * dora:
        raise ValueError(
            f"{folder}: {path} has {np.size(parts.get('magnitude', ()))} magnitudes, expected "
            f"{layer_sizes[1] * dora} with use_dora={dora}."
        )
    table = isinstance(layer, keras.layers.Embedding)
    return Settings(
        rank,
        _pattern(config.get("alpha_pattern"), module, config["lora_alpha"]),
        0.0 if table else config.get("lora_dropout", 0.0),
        config.get("use_rslora", False),
        dora,
        bias,
    )


def _pattern(patterns, module, default):
    """The value of the first pattern that matches the end of a module's name, as PEFT finds it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _beside(folder):
    if not (folder / HEAD).exists():
        return {}
    return dict(read_safetensors(folder / HEAD, dtype=None))


def _that_fit(model, full, folder):
    """The weights that learned in full, if the model has them; for a backbone, without the head."""
    by_path = {w.path: w.variable for w in weights(model)}
    if full and not head_of(model):
        lacking = [path for path in full if path not in by_path]
        if lacking:
            warnings.warn(
                f"{folder} holds a head ({listed(lacking, 2)}), and {model.name} has none: it is "
                f"not loaded.",
                stacklevel=3,
            )
        full = {path: value for path, value in full.items() if path in by_path}
    for path, value in full.items():
        expected = tuple(by_path[path].shape) if path in by_path else None
        if expected != value.shape:
            has = f"has it as {expected}" if expected else "has no such weight"
            raise ValueError(
                f"{folder}: {path} is {value.shape}, and {model.name} {has}. Give the model the "
                f"head that it was saved with: kft.replace_head."
            )
    return full


def _same(model, settings, name, folder):
    """The paths, if the adapter of this name has the same layers and settings."""
    there = {path: x.adapters[name].settings for path, x in adapted(model) if name in x.adapters}
    if there != settings:
        ranks = [sorted({s.rank for s in x.values() if s.rank}) for x in (there, settings)]
        raise ValueError(
            f"{model.name} has an adapter {name!r} of rank {listed(ranks[0], 3)} on {len(there)} "
            f"layers, that of {folder} has rank {listed(ranks[1], 3)} on {len(settings)}, or other "
            f"settings: load it under another name, or kft.lora.remove(model, {name!r}) first."
        )
    return [path for path, setting in settings.items() if setting.rank]


# The base -----------------------------------------------------------------------------------------


def base_digest(model, without=()):
    """Digests what an adapter is put on: all weights but the head, adapters, and `without`.

    Args:
        model: a model or backbone; with merged adapters, what it was before.
        without: paths of weights to leave out.

    Returns:
        str of 64 hexadecimal digits, the same for a backbone and a model on top of it.
    """
    holders = dict(adapted(model))
    before = {p: x.base_values() for p, x in holders.items()}
    head, lines = [*head_of(model), "lm_head"], []
    for weight in weights(model):
        path, _, name = weight.path.rpartition("/")
        if (
            weight.path in without
            or set(_above(weight.path)) & set(head)
            or name.startswith("lora_")
        ):
            continue
        values = before.get(path, {}).get(weight.variable.path)
        lines.append(f"{weight.path} {digest(weight.variable, values)}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
