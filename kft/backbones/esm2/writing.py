"""ESM-2 in Hugging Face's format."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kft.backbones.checkpoints import oriented, rounded
from kft.backbones.esm2.names import HEADS, tensor_names
from kft.backbones.residue_tokens import ALPHABET, MASK, PAD


def to_hugging_face(
    backbone: keras.Model, dtype: str | None = None, contacts: bool | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return configuration and tensors of a backbone as transformers and `kft.load` read them.

    Args:
        backbone: An `ESM2` without adapters.
        dtype: Numpy dtype that the tensors are rounded to, for example "float16"; None keeps
            theirs.
        contacts: Whether the contact head is among them; None leaves it out where the file that
            the backbone is from held none. Masked language modelling does not train it.

    Returns:
        The content of config.json; {name: array}. A head that was never used is left out.

    Raises:
        ValueError: Weights that a number of this dtype cannot hold.
    """
    if contacts is None:
        missing = getattr(getattr(backbone, "load_report", None), "missing", ())
        contacts = not any(path.startswith("contact_head/") for path in missing)
    config = backbone.get_config()
    wanted = [head for head in HEADS.values() if contacts or head != "contacts"]
    heads = [vars(backbone)[head] for head in wanted if head in vars(backbone)]
    variables = {v.path: v for part in (backbone, *heads) for v in part.weights}
    tensors = {}
    for path, name in tensor_names(config["num_blocks"], "Hugging Face").items():
        if path in variables:
            array = oriented(path, keras.ops.convert_to_numpy(variables[path].value))
            full = name if name.startswith("lm_head.") else f"esm.{name}"
            tensors[full] = rounded(path, array, dtype)
    frequencies = np.array(config["frequencies"], dtype="float32")
    tensors["esm.rotary_embeddings.inv_freq"] = frequencies
    return _config_json(config), tensors


def _config_json(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["EsmForMaskedLM"],
        "model_type": "esm",
        "vocab_size": len(ALPHABET),
        "hidden_size": config["width"],
        "num_hidden_layers": config["num_blocks"],
        "num_attention_heads": config["num_heads"],
        "intermediate_size": config["hidden_width"],
        "position_embedding_type": "rotary",
        "token_dropout": config["token_dropout"],
        "emb_layer_norm_before": False,
        "layer_norm_eps": 1e-5,
        "pad_token_id": PAD,
        "mask_token_id": MASK,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "tie_word_embeddings": True,
    }
