"""Rows of a table of tokens that PEFT trained alone (`trainable_token_indices`), read as the table.

Reference: `peft` 0.21, `tuners/trainable_tokens`: a file has the new rows, and the others are the
base's. A language-model head that is tied to the table follows it.

Shapes: `T` tokens of the table, `D` width, `n` rows that were trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.lora.peft.modules import Modules
from kft.lora.peft.writing import CONFIG, PREFIX
from kft.messages import shown, warn
from kft.params import layers

_KEY = ".token_adapter.trainable_tokens_delta"


def as_whole_tables(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    modules: Modules,
    model: keras.Model,
    folder: Path,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the files of an adapter as if PEFT had saved the whole table (`modules_to_save`).

    Args:
        config: Content of adapter_config.json.
        tensors: {key: array} of adapter_model.safetensors.
        modules: The model's `Modules`.
        model: The model that the adapter is for.
        folder: Name of the adapter in messages.

    Returns:
        The content of adapter_config.json, and {key: array}.

    Raises:
        ValueError: The rows are not those of adapter_config.json, or of no table of the model.
    """
    config, tensors = dict(config), dict(tensors)
    given = config.pop("trainable_token_indices", None) or {}
    keys = [key for key in tensors if key.endswith(_KEY)]
    if len(keys) != (len(given) if isinstance(given, dict) else 1 if given else 0):
        raise ValueError(
            f"{folder}: trainable_token_indices of {CONFIG} is {shown(given)}, and there are rows "
            f"of {len(keys)} tables in the tensors. The files are not of one adapter: copy or save "
            f"it again."
        )
    for key in keys:
        module = key.removeprefix(PREFIX).removesuffix(_KEY)
        indices: Any = given
        if isinstance(given, dict):
            indices = next((x for name, x in given.items() if f".{module}".endswith(f".{name}")), 0)
        path = modules.path(module)
        table = layers(model).get(path or "")
        if not isinstance(table, keras.layers.Embedding):
            raise ValueError(
                f"{folder}: {module} has rows of its own (trainable_token_indices), and is no "
                f"table of tokens of {model.name}: give the model that the adapter was made for."
            )
        value, rows = _values(table), tensors.pop(key)
        _check(indices, rows.shape, value.shape, folder)
        value[indices] = rows
        tensors[f"{PREFIX}{module}.weight"] = value
        config["modules_to_save"] = [*config.get("modules_to_save", ()), module]
        config["ensure_weight_tying"] = True  # as PEFT does for such rows
        warn(
            f"{folder} has {len(rows)} rows of {path} that were trained alone "
            f"(trainable_token_indices). kft keeps the whole table with the adapter: predictions "
            f"are the same, further training moves all its rows."
        )
    return config, tensors


def _values(table: keras.layers.Embedding) -> np.ndarray:
    """Return the table of the base, (T, D) float32; a copy."""
    value = np.array(keras.ops.convert_to_numpy(table.embeddings), "float32")
    if hasattr(table, "base_values"):
        value = np.array(table.base_values().get(table.embeddings.path, value), "float32")
    return value


def _check(indices: Any, rows: tuple[int, ...], table: tuple[int, ...], folder: Path) -> None:
    """Check that there is one row for each index, and that the table has them."""
    known = isinstance(indices, list) and all(type(i) is int and 0 <= i < table[0] for i in indices)
    if not known or len(set(indices)) < len(indices):
        raise ValueError(
            f"{folder}: trainable_token_indices of {CONFIG} must be different integers from 0 to "
            f"{table[0] - 1}, the tokens of the model, received {shown(indices)}."
        )
    if rows != (len(indices), table[1]):
        raise ValueError(
            f"{folder}: trainable_token_indices has {len(indices)} tokens, for which rows of shape "
            f"{(len(indices), table[1])} are expected, received {rows}. The files are not of one "
            f"adapter, or of another model."
        )
