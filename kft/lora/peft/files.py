"""Adapters in the files of PEFT: adapter_config.json and adapter_model.safetensors.

Reference: `peft` 0.21, `utils/save_and_load.py` and `tuners/lora`. Modules have the names of
Hugging Face's models where there is one, of ESM-2 (language-model head included) and of ViT; layers
of other models have their own paths. What PEFT has no place for, heads of kft and whatever else
learned in full, lies in kft_head.safetensors beside it.

Differences from the reference: the metadata of adapter_model.safetensors hold a digest of the base
model (`kft_base`), with which an adapter is not put on another base by mistake.
A second entry (`kft_files`) names every file and its digest, so that a part that is missing, or of
another adapter, is an error. A third (`kft_value_range`) holds which values of 16-bit images were
black and white in the model, if it takes images and knows.
"""

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np

from kft.data.images.pixels import checked_range
from kft.lora.adapting import activate, insist_unmerged, install
from kft.lora.owned import FULL, adapted, head_of, hold, names, take_strays
from kft.lora.peft import matching
from kft.lora.peft.modules import modules_of
from kft.lora.peft.reading import insist_same, read
from kft.lora.peft.writing import config_of, from_torch, tensors_of, write
from kft.params import digest, layers, weights
from kft.params.paths import listed

# Saving -------------------------------------------------------------------------------------------


def save_adapter(model, folder, name=None):
    """Writes one adapter into a folder, in files that PEFT reads.

    Heads that Hugging Face has too, and other layers that it knows and that learned in full, go
    into PEFT's file (`modules_to_save`); all else into kft_head.safetensors. The files of an
    earlier adapter in the folder are replaced as a whole: a process that is killed leaves the old
    adapter or the new one.

    Args:
        model: a `kft.Model`, backbone or other Keras model with adapters, merged or not.
        folder: is made; files that are not an adapter's stay.
        name: which adapter; None for the only one.

    Returns:
        The folder, a `Path`.

    Raises:
        ValueError: no adapters, an unknown name, or several and none named.
        NotADirectoryError: the folder is a file, or in one.
        OSError: it cannot be written.

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
    take_strays(model)
    modules = modules_of(model)
    modules.prefix = modules.prefix or _prefix(model, name)
    tensors, beside, settings = tensors_of(model, modules, name)
    config = config_of(model, modules, settings, tensors, beside)
    about = {"format": "pt", "kft_base": base_digest(model, _in_full(model, name))}
    if (known := _range_of(model)) is not None:
        about["kft_value_range"] = json.dumps(known)
    return write(Path(folder), config, tensors, about, beside)


def _prefix(model, name):
    """What stood before the names of modules in the file that the adapter was read from."""
    told = [x.adapters[name].settings.prefix for _, x in adapted(model) if name in x.adapters]
    return next((prefix for prefix in told if prefix), "")


def _in_full(model, name):
    """Paths of the weights that an adapter has in full."""
    held = {id(v) for _, x in adapted(model) for v in x._own()
            if name in x.adapters and x.adapters[name].settings.full}  # fmt: skip
    return {w.path for w in weights(model) if id(w.variable) in held}


def _chosen(model, name):
    known = names(model)
    if not known:
        raise ValueError(f"{model.name} has no adapters: kft.add_lora(model) adds them.")
    if name is None and len(known) > 1:
        raise ValueError(f"{model.name} has the adapters {', '.join(known)}: say which as `name`.")
    if name is not None and name not in known:
        raise ValueError(f"{model.name} has no adapter {name!r}; it has {', '.join(known)}.")
    return known[0] if name is None else name


# Loading ------------------------------------------------------------------------------------------


def load_adapter(model, folder, name="default", check_base=True):
    """Adds an adapter from a folder of PEFT's files, written by kft or by PEFT.

    All but adapter and head is frozen, as `kft.add_lora` does. A head in the files goes into the
    model's, which has to be the same; it is the adapter's own, as all else that it has in full. An
    adapter of this name with the same layers and settings gets the values of the file. Tensors of
    parts that the model has not, of a contact head for one, are skipped and named. A model of
    images that has no `value_range` for 16 bits gets the one in which the adapter learned; one that
    has another keeps it, and a warning says so.

    Args:
        model: a `kft.Model`, backbone or other Keras model.
        folder: with adapter_config.json and adapter_model.safetensors (or .bin).
        name: what the adapter is called here.
        check_base: False puts it on another base too.

    Returns:
        list of the paths of the layers that have the adapter.

    Raises:
        FileNotFoundError: no such folder or files, or one that belongs to the adapter is missing.
        ValueError: damaged, not LoRA, options of PEFT that are not supported; tensors that hold no
            finite floating-point numbers; layers, biases or heads that adapter_config.json tells of
            and that have no tensors, or the other way round; names or shapes that do not fit the
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
    folder = Path(folder)
    settings, parts, values, full, value_range = _checked(model, folder, check_base)
    if name in names(model):
        insist_unmerged(model)
        paths = _same(model, settings, name, folder)
        activate(model, name)
    else:
        paths = install(model, settings, name, np.random.default_rng(0))
    _assign(model, name, parts, values, full)
    _take_range(model, folder, value_range)
    return paths


def _checked(model, folder, check_base):
    """What a folder has for a model, with everything checked before the model is changed.

    Returns:
        {path: `Settings`}; {path: {part: array}} of adapters; {path: {weight: array}} of layers in
        full, as torch has them; {path of a weight: array} of the head and what else lies beside;
        (black, white) of images of 16 bits, or None.
    """
    config, tensors, beside, about = read(folder)
    value_range = _told_range(folder, about)
    modules, everything = modules_of(model), layers(model)
    found = matching.placed(tensors, modules, model, folder)
    prefix = modules.prefix_of(list(found.modules))
    settings = {
        path: matching.settings_of(path, everything[path], found, config, prefix, folder)
        for path in everything
        if path in found.parts
    }
    values = {
        path: matching.weights_of(everything[path], given, path, folder)
        for path, given in found.full.items()
    }
    full = _that_fit(model, modules, found.head | beside, folder)
    matching.insist_complete(found, config, modules, model, folder)
    insist_same(folder, about, tensors, beside)
    _check_base(model, folder, about if check_base else {}, {*full, *_paths(values)})
    if found.skipped:
        warnings.warn(
            f"{folder} holds {len(found.skipped)} tensors of parts that {model.name} has not, and "
            f"they are skipped: {listed(found.skipped, 3)}.",
            stacklevel=3,
        )
    settings |= dict.fromkeys({*values, *(p.rpartition("/")[0] for p in full)}, FULL)
    return settings, found.parts, values, full, value_range


def _paths(values):
    return {f"{path}/{weight}" for path, given in values.items() for weight in given}


def _check_base(model, folder, about, without):
    expected = about.get("kft_base")
    if expected and (received := base_digest(model, without)) != expected:
        raise ValueError(
            f"{folder} was made on another base: its digest is {expected[:16]}, that of "
            f"{model.name} is {received[:16]}. Load the weights that it was made on, or say "
            f"check_base=False if the two differ on purpose."
        )


def _assign(model, name, parts, values, full):
    """Gives an adapter that counts alone the values of a file."""
    everything = layers(model)
    for path, found in parts.items():
        for part, variable in everything[path].adapters[name].variables.items():
            variable.assign(np.reshape(found[part], variable.shape))
    for path, given in values.items():
        layer = everything[path]
        layer.set_full(name, [from_torch(layer, x, given[x]) for x in layer.own_paths()])
    by_path = {w.path: w.variable for w in weights(model)}
    for path, value in full.items():
        by_path[path].assign(value)


def _that_fit(model, modules, full, folder):
    """The weights that learned in full, if the model has them; for a backbone, without the head."""
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


def _same(model, settings, name, folder):
    """The paths, if the adapter of this name has the same layers and settings."""
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


def _above(path):
    parts = path.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts) + 1)]


# Images of 16 bits --------------------------------------------------------------------------------


def _range_of(model):
    """(black, white) of images of 16 bits as a model sees them, None if it does not know."""
    return getattr(getattr(model, "backbone", model), "value_range", None)


def _told_range(folder, about):
    """(black, white) in the metadata, None if they tell nothing."""
    told = about.get("kft_value_range")
    try:
        return None if told is None else checked_range(json.loads(told))
    except ValueError:
        raise ValueError(
            f"{folder}: kft_value_range in the metadata must be [black, white], two rising numbers "
            f"from 0 to 65535, received {told!r}. Copy or save the adapter again."
        ) from None


def _take_range(model, folder, value_range):
    """Hands the range in which an adapter learned to a model that knows none."""
    backbone = getattr(model, "backbone", model)
    if value_range is None or not hasattr(backbone, "value_range"):
        return
    if backbone.value_range is None:
        backbone.value_range = value_range
    elif backbone.value_range != value_range:
        said = ["{:,g} for black and {:,g} for white".format(*x)
                for x in (value_range, backbone.value_range)]  # fmt: skip
        warnings.warn(
            f"{folder} was trained on images of 16 bits with {said[0]}, and {model.name} keeps "
            f"{said[1]}, in which such images look different to the adapter: set `value_range` of "
            f"the backbone to {value_range} to use the adapter's.",
            stacklevel=3,
        )


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
