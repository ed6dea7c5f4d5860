"""Reading a folder of PEFT's files, with the checks that need no model."""

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kft.backbones.checkpoints import read_safetensors
from kft.files import finish_replacing, read_json
from kft.lora.layers import MOST_RANK
from kft.lora.peft.patterns import check_pattern
from kft.lora.peft.writing import CONFIG, HEAD, TENSORS, digest
from kft.messages import listed, shown

_OLDER = "adapter_model.bin"

# Options of PEFT's LoraConfig that change what an adapter computes and that are not supported.
_UNSUPPORTED = (
    "layer_replication",
    "megatron_config",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "fan_in_fan_out",
)
# Options that are read, with their types in JSON; the first two are required.
_READ = {
    "r": ("an integer", int),
    "lora_alpha": ("a number", int, float),
    "lora_dropout": ("a number", int, float),
    "rank_pattern": ("an object", dict),
    "alpha_pattern": ("an object", dict),
    "use_rslora": ("true or false", bool),
    "use_dora": ("true or false", bool),
    "lora_bias": ("true or false", bool),
    "target_modules": ("a list or a string", list, str),
    "modules_to_save": ("a list", list),
    "trainable_token_indices": ("a list or an object", list, dict),
    "bias": ("a string", str),
}
# Initialisations that change the base itself.
_OTHER_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read(
    folder: Path,
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray], dict[str, str]]:
    """Read everything in an adapter's folder.

    Args:
        folder: The folder.

    Returns:
        The content of adapter_config.json without entries that are null; {key: float32 array} of
        PEFT's tensors; {path: array} of kft_head.safetensors; the metadata.

    Raises:
        FileNotFoundError: No such folder, or a file that belongs to the adapter is missing.
        ValueError: A file that is damaged, or not the one that was saved with the others; options
            that are not supported; values that are not finite, or out of range.
        OSError: Saving was interrupted, and cannot be finished here.
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
        raise FileNotFoundError(f"{folder} has no {TENSORS}: copy it next to {CONFIG}.")
    tensors = _numbers(file)  # first, since its errors describe a damaged file
    metadata: dict[str, str] = {}
    if file.name == TENSORS:
        with safe_open(file, framework="numpy") as opened:
            metadata = opened.metadata() or {}
    return config, tensors, _beside(folder, metadata), metadata


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG}: give the folder of an adapter.")
    config = read_json(file)
    config = {option: value for option, value in config.items() if value is not None}
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"{folder}: peft_type is {shown(config.get('peft_type'))}, expected 'LORA'."
        )
    unsupported = [option for option in _UNSUPPORTED if config.get(option)]
    if str(config.get("init_lora_weights", True)).lower().startswith(_OTHER_BASES):
        unsupported.append("init_lora_weights")
    if unsupported:
        raise ValueError(
            f"{folder}: {unsupported[0]}={shown(config[unsupported[0]])} is not supported by kft, "
            f"which reads r, lora_alpha, rank_pattern, alpha_pattern, lora_dropout, bias, "
            f"use_rslora, use_dora, lora_bias, modules_to_save and trainable_token_indices."
        )
    for i, (option, (kind, *types)) in enumerate(_READ.items()):
        if type(config.get(option)) not in types and (i < 2 or option in config):
            received = shown(config[option]) if option in config else "nothing"
            raise ValueError(
                f"{file}: {option} must be {kind}, received {received}. Copy or save it again."
            )
    _in_range(config, file)
    return config


def _in_range(config: Mapping[str, Any], file: Path) -> None:
    """Check that numbers are in range; JSON in Python also reads NaN."""

    def rank(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST_RANK

    def alpha(value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value) and value > 0

    def dropout(value: Any) -> bool:
        return 0 <= value < 1

    checks = [
        ("r", config["r"], rank, f"an integer from 1 to {MOST_RANK}"),
        ("lora_alpha", config["lora_alpha"], alpha, "a number above 0"),
        ("lora_dropout", config.get("lora_dropout", 0.0), dropout, "at least 0 and below 1"),
    ]
    for what, check, kind in (
        ("rank_pattern", rank, f"integers from 1 to {MOST_RANK}"),
        ("alpha_pattern", alpha, "numbers above 0"),
    ):
        checks += [(f"{what}[{p!r}]", v, check, kind) for p, v in config.get(what, {}).items()]
    for what, value, check, kind in checks:
        if not check(value):
            raise ValueError(
                f"{file}: {what} must be {kind}, received {shown(value)}. Copy or save it again."
            )
    if (bias := config.get("bias", "none")) not in ("none", "lora_only", "all"):
        raise ValueError(f"{file}: bias must be none, lora_only or all, received {bias!r}.")
    for what in ("rank_pattern", "alpha_pattern"):
        for pattern in config.get(what, {}):
            check_pattern(pattern, what, file)
    for what in ("target_modules", "exclude_modules"):
        if isinstance(config.get(what), str):
            check_pattern(config[what], what, file)
    layers_pattern = config.get("layers_pattern") or ()
    for pattern in [layers_pattern] if isinstance(layers_pattern, str) else layers_pattern:
        check_pattern(pattern, "layers_pattern", file)


def _numbers(file: Path, dtype: str | None = "float32") -> dict[str, np.ndarray]:
    """Return {key: array} of a file of tensors, which have to be finite floating-point numbers."""
    tensors = read_safetensors(file, dtype)
    if wrong := tensors.no_floats(tensors):
        raise ValueError(f"{file}: {wrong[0]}. kft does not read quantised adapters.")
    return dict(tensors)


def _digests(folder: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Return {name of a file: digest} of the metadata, {} if they have none."""
    try:
        found = json.loads(metadata.get("kft_files", "{}"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(x, str) for x in found.values()):
        raise ValueError(
            f"{folder}: kft_files in the metadata must be {{file: digest}}, received "
            f"{shown(metadata['kft_files'])}. Copy or save the adapter again."
        )
    return found


def _beside(folder: Path, metadata: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the content of kft_head.safetensors, if it is of this adapter."""
    file, known = folder / HEAD, metadata.get("kft_files")
    expected = _digests(folder, metadata)
    lacking = [name for name in expected if not (folder / name).exists()]
    if lacking:
        raise FileNotFoundError(
            f"{folder} has no {lacking[0]}, which belongs to the adapter: it was saved with "
            f"{listed(expected, 3)}. Copy all of them, or save the adapter again."
        )
    if not file.exists():
        return {}
    # Files of earlier versions of kft, which did not note this, have a digest of their base.
    if HEAD not in expected and (known or "kft_base" not in metadata):
        warnings.warn(
            f"{file} belongs to another adapter than the files next to it, and is not loaded.",
            stacklevel=5,
        )
        return {}
    return _numbers(file, dtype=None)


def check_same(
    folder: Path,
    metadata: Mapping[str, str],
    tensors: Mapping[str, np.ndarray],
    extra: Mapping[str, np.ndarray],
) -> None:
    """Check that the files are those that were saved together.

    Args:
        folder: The folder.
        metadata: The metadata.
        tensors: {key: array} of PEFT's tensors.
        extra: {path: array} of kft_head.safetensors.

    Raises:
        ValueError: A file is not the one that the metadata describe.
    """
    computed = {
        CONFIG: lambda: hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest(),
        TENSORS: lambda: digest(tensors),
        HEAD: lambda: digest(extra),
    }
    for name, expected in _digests(folder, metadata).items():
        if name not in computed:
            raise ValueError(f"{folder}: kft_files in the metadata names {shown(name)}.")
        if (received := computed[name]()) != expected:
            raise ValueError(
                f"{folder / name} is not the file that was saved with this adapter: its digest is "
                f"{received[:16]}, expected {expected[:16]}. Copy all files again, or save the "
                f"adapter again."
            )
