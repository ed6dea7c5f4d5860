"""Saving and loading adapters in PEFT's files: adapter_config.json, adapter_model.safetensors.

Reference: `peft` 0.21, `utils/save_and_load.py` and `tuners/lora`. Modules have the names of
Hugging Face's models where there are such models; layers of other models have their own paths. What
PEFT has no place for, heads of kft and other weights that were trained in full, is in
kft_head.safetensors in the same folder.

Differences from the reference: the metadata of adapter_model.safetensors hold a digest of the base
model (`kft_base`), with which an adapter is not put on another base by mistake. A second entry
(`kft_files`) names every file and its digest, so that a part that is missing, or of another
adapter, is an error. A third (`kft_value_range`) holds the values of 16-bit images that are black
and white for the model, if it takes images and has them.
"""

import hashlib
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import keras
import numpy as np

from kft.arguments import check_flag, check_instance, check_path
from kft.lora.adapting import activate, install
from kft.lora.layers import Settings
from kft.lora.owned import (
    FULL,
    adapted,
    check_unmerged,
    claim_unfrozen,
    head_of,
    hold,
    names,
)
from kft.lora.peft import matching, model_records, value_ranges
from kft.lora.peft.modules import Modules, modules_of
from kft.lora.peft.reading import check_same, read
from kft.lora.peft.token_rows import as_whole_tables
from kft.lora.peft.writing import config_of, from_torch, tensors_of, write
from kft.messages import listed
from kft.params import digest, layers, weights

Arrays = Mapping[str, Mapping[str, np.ndarray]]  # {path of a layer: {part or weight: array}}

# Saving -------------------------------------------------------------------------------------------


def save_adapter(model: keras.Model, folder: str | Path, name: str | None = None) -> Path:
    """Write one adapter into a folder, in files that PEFT reads.

    Heads that Hugging Face has too, and other layers that it has and that were trained in full, are
    written to PEFT's file (`modules_to_save`); everything else to kft_head.safetensors. The files
    of an earlier adapter in the folder are replaced as a whole: a process that is killed leaves the
    old adapter or the new one.

    Args:
        model: A `kft.Model`, backbone or other Keras model with adapters, merged or not.
        folder: Where to write; the folder is made, and other files in it stay.
        name: Name of the adapter; None for the only one.

    Returns:
        The folder.

    Raises:
        ValueError: No adapters, an unknown name, or several adapters and no name.
        NotADirectoryError: The folder is a file, or in one.
        OSError: It cannot be written.

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
    check_path("folder", folder)
    name = _chosen(model, name)
    claim_unfrozen(model)
    modules = modules_of(model)
    modules.prefix = modules.prefix or _prefix(model, name)
    tensors, extra, settings = tensors_of(model, modules, name)
    config = config_of(model, modules, settings, extra)
    metadata = {"format": "pt", "kft_base": base_digest(model, _in_full(model, name))}
    metadata |= value_ranges.metadata_of(model) | model_records.metadata_of(model)
    return write(Path(folder), config, tensors, metadata, extra)


def _prefix(model: keras.Model, name: str) -> str:
    """Return the prefix of the names of modules in the file that the adapter was read from."""
    known = [x.adapters[name].settings.prefix for _, x in adapted(model) if name in x.adapters]
    return next((prefix for prefix in known if prefix), "")


def _in_full(model: keras.Model, name: str) -> set[str]:
    """Return paths of the weights that an adapter has in full."""
    held = {
        id(v)
        for _, x in adapted(model)
        if name in x.adapters and x.adapters[name].settings.full
        for v in x.base_weights()
    }
    return {w.path for w in weights(model) if id(w.variable) in held}


def _chosen(model: keras.Model, name: str | None) -> str:
    known = names(model)
    if not known:
        raise ValueError(f"{model.name} has no adapters: kft.add_lora(model) adds them.")
    if name is None and len(known) > 1:
        raise ValueError(f"{model.name} has the adapters {', '.join(known)}: give one as `name`.")
    if name is not None and name not in known:
        raise ValueError(f"{model.name} has no adapter {name!r}; it has {', '.join(known)}.")
    return known[0] if name is None else name


# Loading ------------------------------------------------------------------------------------------


def load_adapter(
    model: keras.Model, folder: str | Path, name: str = "default", check_base: bool = True
) -> list[str]:
    """Add an adapter from a folder of PEFT's files, written by kft or by PEFT.

    All but adapter and head is frozen, as in `kft.add_lora`. A head in the files needs a model with
    the same head; it belongs to the adapter, as everything that it has in full. An adapter of this
    name with the same layers and settings gets the values of the file. Tensors of parts that the
    model does not have, such as a contact head, are skipped with a warning that names them. A model
    of images without a `value_range` for 16 bits gets the one that the adapter was trained with;
    one with another `value_range` keeps it, with a warning.

    Args:
        model: A `kft.Model`, backbone or other Keras model.
        folder: Folder with adapter_config.json and adapter_model.safetensors (or .bin).
        name: Name of the adapter in this model.
        check_base: Whether the base has to be the one that the adapter was trained on.

    Returns:
        Paths of the layers that have the adapter.

    Raises:
        FileNotFoundError: No such folder or files, or one that belongs to the adapter is missing.
        ValueError: Damaged files, not LoRA, options of PEFT that are not supported; tensors that
            are not finite floating-point numbers; layers, biases or heads in adapter_config.json
            without tensors, or tensors without an entry there; names or shapes that do not fit the
            model or its head; another base; an adapter of this name that differs.

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
    folder = check_path("folder", folder)
    check_instance("name", name, str, "a string")
    check_flag("check_base", check_base)
    settings, parts, values, full, value_range = _checked(model, folder, check_base)
    if name in names(model):
        check_unmerged(model)
        paths = _same(model, settings, name, folder)
        activate(model, name)
    else:
        paths = install(model, settings, name, np.random.default_rng(0))
    _assign(model, name, parts, values, full)
    value_ranges.give(model, folder, value_range)
    return paths


def _checked(
    model: keras.Model, folder: Path, check_base: bool
) -> tuple[dict[str, Settings], Arrays, Arrays, dict[str, np.ndarray], tuple[float, float] | None]:
    """Read a folder for a model, and check everything before the model is changed.

    Returns:
        {path: `Settings`}; {path: {part: array}} of adapters; {path: {weight: array}} of layers in
        full, as torch has them; {path of a weight: array} of the head and of kft_head.safetensors;
        (black, white) of images of 16 bits, or None.
    """
    config, stored, extra, metadata = read(folder)
    value_range = value_ranges.from_metadata(folder, metadata)
    modules, everything = modules_of(model), layers(model)
    config, tensors = as_whole_tables(config, stored, modules, model, folder)
    saved = config.get("modules_to_save") or ()
    content = matching.placed(tensors, modules, model, folder, saved)
    prefix = modules.prefix_of(list(content.modules))
    settings = {
        path: matching.settings_of(path, everything[path], content, config, prefix, folder)
        for path in everything
        if path in content.parts
    }
    values = {
        path: matching.weights_of(everything[path], given, path, folder)
        for path, given in content.full.items()
    }
    full = _that_fit(model, modules, content.head | extra, folder)
    matching.check_untied(content, config, model)
    matching.check_complete(content, config, modules, model, folder)
    check_same(folder, metadata, stored, extra)
    _check_base(model, folder, metadata if check_base else {}, {*full, *_paths(values)})
    if check_base:
        matching.check_base_weights(content, model, folder)
    if content.skipped:
        warnings.warn(
            f"{folder} holds {len(content.skipped)} tensors of parts that {model.name} does not "
            f"have, and they are skipped: {listed(content.skipped, 3)}.",
            stacklevel=3,
        )
    parts = {
        path: matching.with_bias_of_b(given, settings[path], everything[path])
        for path, given in content.parts.items()
    }
    settings |= dict.fromkeys({*values, *(p.rpartition("/")[0] for p in full)}, FULL)
    return settings, parts, values, full, value_range


def _paths(values: Arrays) -> set[str]:
    return {f"{path}/{weight}" for path, given in values.items() for weight in given}


def _check_base(
    model: keras.Model, folder: Path, metadata: Mapping[str, str], without: Collection[str]
) -> None:
    expected = metadata.get("kft_base")
    if expected and (received := base_digest(model, without)) != expected:
        raise ValueError(
            f"{folder} was made on another base: its digest is {expected[:16]}, that of "
            f"{model.name} is {received[:16]}. Load the weights that it was made on, or give "
            f"check_base=False if the two differ on purpose."
        )


def _assign(
    model: keras.Model, name: str, parts: Arrays, values: Arrays, full: Mapping[str, np.ndarray]
) -> None:
    """Give the only active adapter the values of a file."""
    everything = layers(model)
    for path, arrays in parts.items():
        for part, variable in everything[path].adapters[name].variables.items():
            variable.assign(np.reshape(arrays[part], variable.shape))
    for path, given in values.items():
        layer = everything[path]
        layer.set_full(name, [from_torch(layer, x, given[x]) for x in layer.own_paths()])
    by_path = {w.path: w.variable for w in weights(model)}
    for path, value in full.items():
        by_path[path].assign(value)


def _that_fit(
    model: keras.Model, modules: Modules, full: dict[str, np.ndarray], folder: Path
) -> dict[str, np.ndarray]:
    """Return the weights in full that the model has; for a backbone, without the head."""
    by_path = {w.path: w.variable for w in weights(model)}
    if full and not head_of(model):
        lacking = [path for path in full if path not in by_path]
        if lacking:
            warnings.warn(
                f"{folder} holds a head ({listed(lacking, 2)}), and {model.name} has none: it is "
                f"not loaded.",
                stacklevel=4,
            )
        full = {path: value for path, value in full.items() if path in by_path}
    for path, value in full.items():
        expected = tuple(by_path[path].shape) if path in by_path else None
        if expected != value.shape:
            has = f"has it as {expected}" if expected else "has no such weight"
            advice = f"; {modules.advice}" if modules.advice and not expected else ""
            raise ValueError(
                f"{folder}: {path} is {value.shape}, and {model.name} {has}. Give the model the "
                f"head that it was saved with: kft.replace_head{advice}."
            )
    return full


def _same(
    model: keras.Model, settings: Mapping[str, Settings], name: str, folder: Path
) -> list[str]:
    """Return the paths, if the adapter of this name has the same layers and settings."""
    everything = dict(adapted(model))
    there = {
        path: x.adapters[name].settings for path, x in everything.items() if name in x.adapters
    }
    full = {path for path, s in [*settings.items(), *there.items()] if s.full}
    there, wanted = ({p: s for p, s in x.items() if p not in full} for x in (there, settings))
    if there != wanted:
        ranks = [sorted({s.rank for s in x.values() if s.rank}) for x in (there, wanted)]
        raise ValueError(
            f"{model.name} has an adapter {name!r} of rank {listed(ranks[0], 3)} on {len(there)} "
            f"layers, that of {folder} has rank {listed(ranks[1], 3)} on {len(wanted)}, or other "
            f"settings: load it under another name, or kft.lora.remove(model, {name!r}) first."
        )
    for path, setting in settings.items():
        if setting.full:
            hold(layers(model)[path], name)
    return [path for path, setting in settings.items() if setting.rank]


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]


# The base -----------------------------------------------------------------------------------------


def base_digest(model: keras.Model, without: Collection[str] = ()) -> str:
    """Compute a digest of the base of an adapter: all weights but the head and adapters.

    Args:
        model: A model or backbone; merged adapters are taken out for it.
        without: Paths of weights to leave out.

    Returns:
        64 hexadecimal digits, the same for a backbone and a model on top of it.
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
