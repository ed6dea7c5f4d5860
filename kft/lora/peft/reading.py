"""Reading adapters: a folder of PEFT's files, and what can be checked in them alone."""

import hashlib
import json
import math
import re
import warnings

from kft.backbones.checkpoints import read_safetensors
from kft.files import finish_replacing
from kft.lora.peft.writing import CONFIG, HEAD, TENSORS, digest
from kft.params.paths import listed

_OLDER = "adapter_model.bin"

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
    "target_modules": ("a list or a string", list, str), "modules_to_save": ("a list", list),
    "bias": ("a string", str),
}  # fmt: skip
# Ways to begin after which the base itself is another one.
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read(folder):
    """Everything in an adapter's folder.

    Args:
        folder: `Path`.

    Returns:
        dict, the content of adapter_config.json without what is null in it; {key: float32 array};
        {path: array} of what lies beside them; {str: str}, the metadata.

    Raises:
        FileNotFoundError: no such folder, or a file that belongs to the adapter is missing.
        ValueError: a file that is damaged, or not the one that was saved with the others; options
            that are not supported; values that are no numbers, or out of range.
        OSError: saving was interrupted, and cannot be finished here.
    """
    from safetensors import safe_open

    try:
        finish_replacing(folder)
    except OSError as error:
        raise type(error)(
            f"{folder} was being saved when the process ended, and its new files cannot be brought "
            f"to their places ({error}): copy it to where you may write."
        ) from error
    config = _config(folder)
    file = next((f for f in (folder / TENSORS, folder / _OLDER) if f.exists()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has no {TENSORS}: copy it beside {CONFIG}.")
    tensors, about = _numbers(file), {}  # says first what is wrong with a damaged file
    if file.name == TENSORS:
        with safe_open(file, framework="numpy") as opened:
            about = opened.metadata() or {}
    return config, tensors, _beside(folder, about), about


def _config(folder):
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
    _in_range(config, file)
    return config


def _in_range(config, file):
    """Refuses numbers with which nothing could be computed; JSON in Python knows NaN."""

    def rank(value):
        return isinstance(value, int) and not isinstance(value, bool) and value > 0

    def alpha(value):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and value > 0

    checks = [("r", config["r"], rank, "an integer above 0"),
              ("lora_alpha", config["lora_alpha"], alpha, "a number above 0"),
              ("lora_dropout", config.get("lora_dropout", 0.0), lambda x: 0 <= x < 1,
               "at least 0 and below 1")]  # fmt: skip
    for what, check, kind in (("rank_pattern", rank, "integers above 0"),
                              ("alpha_pattern", alpha, "numbers above 0")):  # fmt: skip
        checks += [(f"{what}[{p!r}]", v, check, kind) for p, v in config.get(what, {}).items()]
    for what, value, check, kind in checks:
        if not check(value):
            raise ValueError(
                f"{file}: {what} must be {kind}, received {value!r}. Copy or save it again."
            )
    if (bias := config.get("bias", "none")) not in ("none", "lora_only", "all"):
        raise ValueError(f"{file}: bias must be none, lora_only or all, received {bias!r}.")
    for what in ("rank_pattern", "alpha_pattern"):
        for pattern in config.get(what, {}):
            _insist_pattern(pattern, what, file)
    for what in ("target_modules", "exclude_modules"):
        if isinstance(config.get(what), str):
            _insist_pattern(config[what], what, file)


def _insist_pattern(pattern, what, file):
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{file}: {what} has {pattern!r}, which is no regular expression ({error})."
        ) from None


def _numbers(file, dtype="float32"):
    """{key: array} of a file of tensors; each is finite and stored as floating-point numbers."""
    tensors = read_safetensors(file, dtype)
    if wrong := tensors.no_floats(tensors):
        raise ValueError(f"{file}: {wrong[0]}. kft reads no quantised adapters.")
    return dict(tensors)


def _beside(folder, about):
    """What lies in kft_head.safetensors, if it is of this adapter."""
    file, told = folder / HEAD, about.get("kft_files")
    expected = json.loads(told) if told else {}
    lacking = [name for name in expected if not (folder / name).exists()]
    if lacking:
        raise FileNotFoundError(
            f"{folder} has no {lacking[0]}, which belongs to the adapter: it was saved with "
            f"{listed(expected, 3)}. Copy all of them, or save the adapter again."
        )
    if not file.exists():
        return {}
    # Files of kft of before this was noted have a digest of their base at least.
    if HEAD not in expected and (told or "kft_base" not in about):
        warnings.warn(
            f"{file} is not of the adapter beside it, and is not loaded: it was left by another.",
            stacklevel=5,
        )
        return {}
    return _numbers(file, dtype=None)


def insist_same(folder, about, tensors, beside):
    """Checks that the files are those that were saved together.

    Args:
        folder: `Path`.
        about, tensors, beside: as `read` returns them.

    Raises:
        ValueError: one is another than the metadata say.
    """
    found = {
        CONFIG: lambda: hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest(),
        TENSORS: lambda: digest(tensors),
        HEAD: lambda: digest(beside),
    }
    for name, expected in json.loads(about.get("kft_files", "{}")).items():
        if name not in found or (received := found[name]()) != expected:
            raise ValueError(
                f"{folder / name} is not the file that was saved with this adapter: its digest is "
                f"{received[:16]}, expected {expected[:16]}. Copy all files again, or save the "
                f"adapter again."
            )
