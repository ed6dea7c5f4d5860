"""Reading ESM-C checkpoints of Hugging Face, strictly: see `checkpoints.fill`.

Two layouts are read: that of `transformers` 5.23, and that of the files that were published first,
in which queries, keys and values are one tensor, and so are both inputs of the feed-forward.
"""

import re
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kft.backbones.checkpoints import (
    MOST_BLOCKS,
    MOST_HEADS,
    MOST_WIDTH,
    Config,
    Origin,
    Tensors,
    fill,
    oriented,
)
from kft.backbones.esmc.model import ESMC
from kft.backbones.esmc.names import VOCABULARY, tensor_of
from kft.backbones.residue_tokens import MASK, PAD

# Heads for other tasks, frequencies that are computed, and states of fused kernels.
_SKIPPED = re.compile(r"classifier\..*|score\..*|.*inv_freq|.*_extra_state")
# What config.json may say, and what is assumed where it says nothing.
_EXPECTED = {
    "model_type": "esmc",
    "vocab_size": VOCABULARY,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "pad_token_id": PAD,
    "mask_token_id": MASK,
}
_SIZES = {  # ours: transformers', that of the files that were published first, and the largest
    "num_blocks": ("num_hidden_layers", "n_layers", MOST_BLOCKS),
    "width": ("hidden_size", "d_model", MOST_WIDTH),
    "num_heads": ("num_attention_heads", "n_heads", MOST_HEADS),
}


def from_hugging_face(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray] | None,
    source: str,
    dtype: str | None = None,
) -> ESMC:
    """Build an ESM-C from a Hugging Face configuration and, if given, its tensors.

    Args:
        config: Content of config.json.
        tensors: {name: array}, None for random weights.
        source: What errors call the checkpoint.
        dtype: Keras dtype policy.

    Returns:
        The backbone; its `load_report` lists what was filled, skipped and missing.

    Raises:
        ValueError: Another architecture, or tensors that do not fit.
    """
    if tensors is not None and not isinstance(tensors, Tensors):
        tensors = Tensors.of(tensors, source=source)
    backbone = _built(_arguments(config, source, tensors), source, dtype)
    if tensors is None:
        return backbone
    names = {name.removeprefix("esmc."): name for name in tensors}
    first = "embed.weight" in names or any(name.startswith("transformer.") for name in names)
    variables = {v.path: v for part in (backbone, backbone.masked_lm) for v in part.weights}
    backbone.load_report = fill(
        variables,
        {path: _origin(path, variable, first) for path, variable in variables.items()},
        tensors,
        names=names,
        source=source,
        kind="an ESM-C",
        skipped=_SKIPPED,
        optional=("lm_head",),
    )
    if backbone.load_report.missing:
        warnings.warn(
            f"{source} holds no weights for backbone.masked_lm: its outputs are random until it is "
            f"trained. The hidden states are complete.",
            stacklevel=4,
        )
    return backbone


def _built(arguments: Mapping[str, Any], source: str, dtype: str | None) -> ESMC:
    try:
        return ESMC(**arguments, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _arguments(config: Mapping[str, Any], source: str, tensors: Any) -> dict[str, Any]:
    """Return the arguments of `ESMC` that a config.json stands for."""
    entries = Config(config, source)
    for key, value in _EXPECTED.items():
        entries.insist(key, value, value, "an ESM-C")
    first = "d_model" in config
    sizes = {ours: entries.integer(theirs[first], most) for ours, (*theirs, most) in _SIZES.items()}
    hidden = None  # the rule of the published models, in the files that were published first
    if not first or "intermediate_size" in entries:
        hidden = entries.integer("intermediate_size", 4 * MOST_WIDTH)
    for key, size in (
        ("num_key_value_heads", sizes["num_heads"]),
        ("head_dim", sizes["width"] // sizes["num_heads"]),
    ):
        entries.insist(key, (size, None), kind="an ESM-C")
    entries.check_size(sizes["num_blocks"], sizes["width"], hidden or 0, tensors)
    rope = entries.part("rope_parameters")
    rope.insist("rope_type", "default", "default", "an ESM-C")
    theta = rope.number("rope_theta", entries.number("rope_theta", 10000.0))
    return {**sizes, "hidden_width": hidden, "rope_theta": theta}


def _origin(path: str, variable: keras.Variable, first: bool) -> Origin:
    tensor = tensor_of(path, first)
    shape = tuple(variable.shape)
    shape = shape[::-1] if path.endswith("kernel") else shape
    rows = shape[0]
    taken = slice(tensor.part * rows, (tensor.part + 1) * rows)
    return Origin(
        (tensor.name,),
        (tensor.parts * rows, *shape[1:]),
        lambda array: oriented(path, array[taken]),
    )
