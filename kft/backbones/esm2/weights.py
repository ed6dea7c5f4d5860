"""ESM-2 checkpoints: which tensor of a Hugging Face or FAIR file fills which weight of ours.

References: `transformers` `models/esm/modeling_esm.py` and `fair-esm` 2.0.0 `esm/pretrained.py`.
Both are read strictly: every tensor is used or is named in the report as skipped, and every
weight is filled or is named as missing.
"""

import re
import warnings

import keras
import numpy as np

from kft.backbones.checkpoints import LoadReport, Tensors
from kft.backbones.esm2.model import ALPHABET, ESM2, MASK, PAD

# Ours -> Hugging Face's and FAIR's, without ".weight" and ".bias". `{i}` counts blocks.
_BLOCK = {
    "attention_norm": ("attention.LayerNorm", "self_attn_layer_norm"),
    "query": ("attention.self.query", "self_attn.q_proj"),
    "key": ("attention.self.key", "self_attn.k_proj"),
    "value": ("attention.self.value", "self_attn.v_proj"),
    "attention_output": ("attention.output.dense", "self_attn.out_proj"),
    "feedforward_norm": ("LayerNorm", "final_layer_norm"),
    "feedforward_in": ("intermediate.dense", "fc1"),
    "feedforward_out": ("output.dense", "fc2"),
}
_REST = {
    "embedding/tokens/embeddings": ("embeddings.word_embeddings.weight", "embed_tokens.weight"),
    "final_norm/gamma": ("encoder.emb_layer_norm_after.weight", "emb_layer_norm_after.weight"),
    "final_norm/beta": ("encoder.emb_layer_norm_after.bias", "emb_layer_norm_after.bias"),
    "lm_head/dense/kernel": ("lm_head.dense.weight", "lm_head.dense.weight"),
    "lm_head/dense/bias": ("lm_head.dense.bias", "lm_head.dense.bias"),
    "lm_head/norm/gamma": ("lm_head.layer_norm.weight", "lm_head.layer_norm.weight"),
    "lm_head/norm/beta": ("lm_head.layer_norm.bias", "lm_head.layer_norm.bias"),
    "lm_head/bias": ("lm_head.bias", "lm_head.bias"),
    "contact_head/kernel": ("contact_head.regression.weight", "contact_head.regression.weight"),
    "contact_head/bias": ("contact_head.regression.bias", "contact_head.regression.bias"),
}
# Weights a file may lack, by the head that then starts at random.
_HEADS = {"lm_head": "masked_lm", "contact_head": "contacts"}
# Copies of the tied table, and tensors that ESM-2 does not use or that belong to other heads.
_TIED = {"lm_head.decoder.weight": "embeddings.word_embeddings.weight",
         "lm_head.weight": "embed_tokens.weight"}  # fmt: skip
_SKIPPED = re.compile(
    r"embeddings\.position_ids|embeddings\.position_embeddings\.weight|lm_head\.decoder\.bias"
    r"|pooler\..*|classifier\..*|.*inv_freq"
)


def hugging_face_modules(path):
    """What Hugging Face's EsmModel calls a layer of ours.

    Args:
        path: of a layer, "block_0/query" for one.

    Returns:
        str, "encoder.layer.0.attention.self.query" for that one; None for layers it has not.
    """
    block, _, part = path.partition("/")
    if part in _BLOCK and (found := re.fullmatch(r"block_(\d+)", block)):
        return f"encoder.layer.{found[1]}.{_BLOCK[part][0]}"
    weight = next((weight for weight in _REST if weight.rpartition("/")[0] == path), None)
    return _REST[weight][0].rpartition(".")[0] if weight else None


def from_hugging_face(config, tensors, source, dtype=None):
    """Builds an ESM2 from a Hugging Face configuration and, if given, its tensors.

    Args:
        config: dict, the content of config.json.
        tensors: mapping of names to arrays, or None for random weights.
        source: what errors call the checkpoint.
        dtype: Keras dtype policy.

    Returns:
        The ESM2; `load_report` tells what was filled, skipped and missing.

    Raises:
        ValueError: another architecture, or tensors that do not fit.
    """
    expected = {
        "model_type": "esm", "vocab_size": len(ALPHABET), "position_embedding_type": "rotary",
        "emb_layer_norm_before": (False, None), "is_folding_model": (False, None),
        "layer_norm_eps": 1e-5, "pad_token_id": 1, "mask_token_id": 32,
    }  # fmt: skip
    for key, value in expected.items():
        received = config.get(key)
        if received not in (value if isinstance(value, tuple) else (value,)):
            raise ValueError(
                f"{source} is not an ESM-2: its config.json has {key}={received!r}, expected "
                f"{value!r}."
            )
    sizes = {
        "num_blocks": config["num_hidden_layers"],
        "width": config["hidden_size"],
        "num_heads": config["num_attention_heads"],
        "hidden_width": config["intermediate_size"],
        "token_dropout": config.get("token_dropout", False),
    }
    if tensors is None:
        return ESM2(**sizes, dtype=dtype)
    # transformers 5 writes LayerNorm's as .gamma/.beta; headless files lack the prefix.
    names = {}
    tensors = tensors if isinstance(tensors, Tensors) else Tensors.of(tensors, source=source)
    for name in tensors:
        plain = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        names[plain.removeprefix("esm.")] = name
    return _build(sizes, tensors, names, 0, source, dtype)


def to_hugging_face(backbone, dtype=None, contacts=True):
    """The configuration and tensors by which transformers and `from_hugging_face` know a backbone.

    Args:
        backbone: an ESM2 without adapters.
        dtype: numpy dtype to round the tensors to, "float16" for one; None keeps theirs.
        contacts: False leaves the contact head out.

    Returns:
        dict, the content of config.json; dict, name -> array. A head that was never asked for is
        not among them.

    Raises:
        ValueError: weights that a number of this dtype cannot hold.
    """
    config = backbone.get_config()
    wanted = [head for head in _HEADS.values() if contacts or head != "contacts"]
    heads = [vars(backbone)[head] for head in wanted if head in vars(backbone)]
    variables = {v.path: v for part in (backbone, *heads) for v in part.weights}
    tensors = {}
    for path, name in _wanted(config["num_blocks"], 0).items():
        if path in variables:
            array = keras.ops.convert_to_numpy(variables[path].value)
            with np.errstate(over="ignore"):  # is looked for in the next line
                kept = np.ascontiguousarray(_oriented(path, array), dtype=dtype)
            if not np.isfinite(kept).all():
                raise ValueError(f"{path} holds numbers that {kept.dtype} cannot.")
            tensors[name if name.startswith("lm_head.") else f"esm.{name}"] = kept
    frequencies = np.array(config["frequencies"], dtype="float32")
    tensors["esm.rotary_embeddings.inv_freq"] = frequencies
    return {
        "architectures": ["EsmForMaskedLM"], "model_type": "esm", "vocab_size": len(ALPHABET),
        "hidden_size": config["width"], "num_hidden_layers": config["num_blocks"],
        "num_attention_heads": config["num_heads"], "intermediate_size": config["hidden_width"],
        "position_embedding_type": "rotary", "token_dropout": config["token_dropout"],
        "emb_layer_norm_before": False, "layer_norm_eps": 1e-5, "pad_token_id": PAD,
        "mask_token_id": MASK, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "tie_word_embeddings": True,
    }, tensors  # fmt: skip


def from_fair(checkpoint, contacts, source, dtype=None):
    """Builds an ESM2 from the content of a FAIR `.pt` file.

    Args:
        checkpoint: dict with "cfg" and "model", as `checkpoints.read_torch` returns it.
        contacts: the same for the sibling "-contact-regression.pt", or None.
        source: what errors call the checkpoint.
        dtype: Keras dtype policy.

    Returns:
        The ESM2, see `from_hugging_face`.

    Raises:
        ValueError: another architecture, or tensors that do not fit.
    """
    try:
        cfg = checkpoint["cfg"]["model"]
        sizes = {
            "num_blocks": cfg["encoder_layers"],
            "width": cfg["encoder_embed_dim"],
            "num_heads": cfg["encoder_attention_heads"],
            "token_dropout": cfg["token_dropout"],
        }
        tensors = dict(checkpoint["model"]) | dict(contacts["model"] if contacts else {})
    except (KeyError, TypeError) as error:
        keys = sorted(checkpoint) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise ValueError(
            f"{source} is not a FAIR ESM-2 checkpoint: expected cfg.model with encoder_layers, "
            f"encoder_embed_dim, encoder_attention_heads and token_dropout beside model; found "
            f"{keys}. ESM-1 and ESM-1b files are another architecture."
        ) from error
    tensors = Tensors.of(tensors, source=source)
    names = {re.sub(r"^encoder\.(sentence_encoder\.)?", "", name): name for name in tensors}
    return _build(sizes, tensors, names, 1, source, dtype)


def _build(sizes, tensors, names, family, source, dtype):
    frequencies = _frequencies(tensors, names, source)
    if frequencies and len(frequencies) != sizes["width"] // sizes["num_heads"] // 2:
        raise ValueError(f"{source}: {len(frequencies)} rotary frequencies do not fit {sizes}.")
    backbone = ESM2(**sizes, frequencies=frequencies, dtype=dtype)
    variables = {
        v.path: v
        for part in (backbone, backbone.masked_lm, backbone.contacts)
        for v in part.weights
    }
    wanted = _wanted(sizes["num_blocks"], family)
    unused = set(names) - set(wanted.values())
    _check(tensors, names, wanted, unused, variables, family, source)

    filled = [path for path, name in wanted.items() if name in names]
    for path in filled:
        variables[path].assign(_oriented(path, tensors[names[wanted[path]]]))
    missing = [path for path, name in wanted.items() if name not in names]
    heads = sorted({_HEADS[path.split("/")[0]] for path in missing})
    if heads:
        warnings.warn(
            f"{source} holds no weights for {' and '.join(f'backbone.{h}' for h in heads)}: "
            f"what these return is random until they are trained. The hidden states are complete.",
            stacklevel=4,
        )
    skipped = tuple(sorted(names[name] for name in unused if name not in _TIED))
    backbone.load_report = LoadReport(source, tuple(filled), tuple(missing), skipped)
    return backbone


def _wanted(num_blocks, family):
    """Path of our weight -> the file's name for it, without prefix."""
    stem = ("encoder.layer.{}.", "layers.{}.")[family]
    wanted = {}
    for i in range(num_blocks):
        for ours, theirs in _BLOCK.items():
            weights = ("gamma", "beta") if ours.endswith("norm") else ("kernel", "bias")
            for weight, suffix in zip(weights, (".weight", ".bias"), strict=True):
                wanted[f"block_{i}/{ours}/{weight}"] = stem.format(i) + theirs[family] + suffix
    return wanted | {ours: theirs[family] for ours, theirs in _REST.items()}


def _oriented(path, array):
    """Torch keeps dense kernels as (out, in), Keras as (in, out)."""
    return array.T if path.endswith("kernel") else array


def _check(tensors, names, wanted, unused, variables, family, source):
    unknown = sorted(names[n] for n in unused if n not in _TIED and not _SKIPPED.fullmatch(n))
    # A head may be absent as a whole, never in part.
    present = {path.split("/")[0] for path, name in wanted.items() if name in names}
    lacking = sorted(
        name
        for path, name in wanted.items()
        for part in [path.split("/")[0]]
        if name not in names and (part in present or part not in _HEADS)
    )
    misshapen = [
        f"{names[name]} is {shape}, expected {expected}"
        for path, name in wanted.items()
        if name in names
        for shape in [tensors.shape(names[name])]
        for expected in [tuple(variables[path].shape)[:: -1 if path.endswith("kernel") else 1]]
        if shape != expected
    ]
    for tied, table in _TIED.items():
        if tied in names and table in names and not np.array_equal(
            tensors[names[tied]], tensors[names[table]]
        ):  # fmt: skip
            misshapen.append(f"{names[tied]} differs from {names[table]}, to which ESM-2 ties it")
    problems = []
    if lacking:
        problems.append("missing " + _listed(lacking))
    if unknown:
        problems.append("unknown " + _listed(unknown))
    if misshapen:
        problems.append(_listed(misshapen))
    used = [name for name in names if name in set(wanted.values()) or name.endswith("inv_freq")]
    if no_floats := tensors.no_floats(names[name] for name in used):
        problems.append(_listed(no_floats))
    if problems:
        raise ValueError(
            f"{source} does not fit an ESM-2 of this size: {'; '.join(problems)}. Nothing was "
            f"loaded. The file is incomplete, or belongs to another architecture or size."
        )


def _listed(items, most=5):
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _frequencies(tensors, names, source):
    """The file's own rotary frequencies, which training may have rounded; None if it has none."""
    found = {tuple(np.asarray(tensors[names[n]], "float32").tolist())
             for n in names if n.endswith("inv_freq")}  # fmt: skip
    if len(found) > 1:
        raise ValueError(f"{source}: its blocks rotate at different frequencies, unlike ESM-2.")
    return found.pop() if found else None
