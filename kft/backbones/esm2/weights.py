"""Reading ESM-2 checkpoints of Hugging Face and FAIR.

Both are read strictly: every tensor is used or named in the report as skipped, and every weight is
filled or named as missing.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kft.backbones.checkpoints import (
    MOST_BLOCKS,
    MOST_HEADS,
    MOST_WIDTH,
    Config,
    LoadReport,
    Origin,
    Tensors,
    fill,
    oriented,
)
from kft.backbones.esm2.model import ESM2
from kft.backbones.esm2.names import HEADS, Publisher, tensor_names
from kft.backbones.residue_tokens import ALPHABET
from kft.messages import listed

# Copies of the table of tokens, to which they are tied.
_TIED = {
    "lm_head.decoder.weight": "embeddings.word_embeddings.weight",
    "lm_head.weight": "embed_tokens.weight",
}
# Tensors that ESM-2 does not use, or that belong to other heads.
_SKIPPED = re.compile(
    r"embeddings\.position_ids|embeddings\.position_embeddings\.weight|lm_head\.decoder\.bias"
    r"|pooler\..*|classifier\..*|.*inv_freq"
)
# Required values in config.json; a tuple lists those accepted.
_EXPECTED = {
    "model_type": "esm",
    "vocab_size": len(ALPHABET),
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": (False, None),
    "is_folding_model": (False, None),
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "mask_token_id": 32,
}
FAIR_SIZES = ("encoder_layers", "encoder_embed_dim", "encoder_attention_heads", "token_dropout")


def from_hugging_face(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray] | None,
    source: str,
    dtype: str | None = None,
) -> ESM2:
    """Build an ESM-2 from a Hugging Face configuration and, if given, its tensors.

    Args:
        config: Content of config.json.
        tensors: {name: array}, None for random weights.
        source: Name of the checkpoint in errors.
        dtype: Keras dtype policy.

    Returns:
        The backbone; its `load_report` lists what was filled, skipped and missing.

    Raises:
        ValueError: Another architecture, or tensors that do not fit.
    """
    entries = Config(config, source)
    for key, value in _EXPECTED.items():
        entries.insist(key, value, kind="an ESM-2")
    sizes = {
        "num_blocks": entries.integer("num_hidden_layers", MOST_BLOCKS),
        "width": entries.integer("hidden_size", MOST_WIDTH),
        "num_heads": entries.integer("num_attention_heads", MOST_HEADS),
        "hidden_width": entries.integer("intermediate_size", 4 * MOST_WIDTH),
        "token_dropout": entries.flag("token_dropout", False),
    }
    entries.check_size(sizes["num_blocks"], sizes["width"], sizes["hidden_width"], tensors)
    if tensors is None:
        return _built(sizes, source, None, dtype)
    # transformers 5 writes the weights of layer norms as .gamma and .beta; files without a head
    # have no prefix.
    names = {}
    tensors = tensors if isinstance(tensors, Tensors) else Tensors.of(tensors, source=source)
    for name in tensors:
        plain = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        names[plain.removeprefix("esm.")] = name
    return _filled(sizes, tensors, names, "Hugging Face", source, dtype)


def _built(
    sizes: Mapping[str, Any],
    source: str,
    frequencies: tuple[float, ...] | None,
    dtype: str | None,
) -> ESM2:
    try:
        return ESM2(**sizes, frequencies=frequencies, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def is_fair(checkpoint: Any) -> bool:
    """Return whether the content of a torch file is a FAIR ESM-2 checkpoint."""
    try:
        sizes = checkpoint["cfg"]["model"]
        return "model" in checkpoint and all(name in sizes for name in FAIR_SIZES)
    except (KeyError, TypeError):
        return False


def from_fair(checkpoint: Any, contacts: Any, source: str, dtype: str | None = None) -> ESM2:
    """Build an ESM-2 from the content of a FAIR `.pt` file.

    Args:
        checkpoint: Dict with "cfg" and "model", as `checkpoints.read_torch` returns it.
        contacts: The same for the file "-contact-regression.pt" that belongs to it, or None.
        source: Name of the checkpoint in errors.
        dtype: Keras dtype policy.

    Returns:
        The backbone, see `from_hugging_face`.

    Raises:
        ValueError: Another architecture, or tensors that do not fit.
    """
    try:
        cfg = Config(checkpoint["cfg"]["model"], source, "cfg.model")
        stored = dict(checkpoint["model"]) | dict(contacts["model"] if contacts else {})
    except (KeyError, TypeError, ValueError) as error:
        keys = listed(checkpoint) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(
            f"{source} is not a FAIR ESM-2 checkpoint: expected cfg.model with "
            f"{', '.join(FAIR_SIZES)}, and model; found {keys}. ESM-1 and ESM-1b files "
            f"are another architecture."
        ) from error
    sizes = {
        "num_blocks": cfg.integer("encoder_layers", MOST_BLOCKS),
        "width": cfg.integer("encoder_embed_dim", MOST_WIDTH),
        "num_heads": cfg.integer("encoder_attention_heads", MOST_HEADS),
        "token_dropout": cfg.flag("token_dropout", False),
    }
    tensors = Tensors.of(stored, source=source)
    cfg.check_size(sizes["num_blocks"], sizes["width"], 4 * sizes["width"], tensors)
    names = {re.sub(r"^encoder\.(sentence_encoder\.)?", "", name): name for name in tensors}
    return _filled(sizes, tensors, names, "FAIR", source, dtype)


def _filled(
    sizes: Mapping[str, Any],
    tensors: Tensors,
    names: Mapping[str, str],
    publisher: Publisher,
    source: str,
    dtype: str | None,
) -> ESM2:
    frequencies = _frequencies(tensors, names, source)
    if frequencies and len(frequencies) != sizes["width"] // sizes["num_heads"] // 2:
        raise ValueError(f"{source}: {len(frequencies)} rotary frequencies do not fit {sizes}.")
    backbone = _built(sizes, source, frequencies, dtype)
    parts = (backbone, backbone.masked_lm, backbone.contacts)
    variables = {v.path: v for part in parts for v in part.weights}
    backbone.load_report = fill(
        variables,
        {
            path: _origin(path, name, variables[path].shape)
            for path, name in tensor_names(sizes["num_blocks"], publisher).items()
        },
        tensors,
        names=names,
        source=source,
        kind="an ESM-2",
        skipped=_SKIPPED,
        optional=HEADS,
        tied=_TIED,
        also_read=[name for name in names if name.endswith("inv_freq")],
    )
    _warn_of_missing_heads(backbone.load_report)
    return backbone


def _origin(path: str, name: str, shape: Sequence[int]) -> Origin:
    expected = tuple(shape)[::-1] if path.endswith("kernel") else tuple(shape)
    return Origin((name,), expected, lambda array: oriented(path, array))


def _warn_of_missing_heads(report: LoadReport) -> None:
    heads = sorted({HEADS[path.split("/")[0]] for path in report.missing})
    if heads:
        warnings.warn(
            f"{report.source} holds no weights for "
            f"{' and '.join(f'backbone.{head}' for head in heads)}: their outputs are random until "
            f"they are trained. The hidden states are complete.",
            stacklevel=5,
        )


def _frequencies(
    tensors: Tensors, names: Mapping[str, str], source: str
) -> tuple[float, ...] | None:
    """Return the file's own rotary frequencies, rounded in some files; None if it has none."""
    found = {
        tuple(np.asarray(tensors[names[name]], "float32").tolist())
        for name in names
        if name.endswith("inv_freq")
    }
    if len(found) > 1:
        raise ValueError(f"{source}: its blocks rotate at different frequencies, unlike ESM-2.")
    return found.pop() if found else None
