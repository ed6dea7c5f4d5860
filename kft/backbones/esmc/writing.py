"""ESM-C in Hugging Face's format."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kft.backbones.checkpoints import oriented, rounded
from kft.backbones.esmc.names import VOCABULARY, tensor_of
from kft.backbones.residue_tokens import CLS, EOS, MASK, PAD


def to_hugging_face(
    backbone: keras.Model, dtype: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the configuration and tensors of a backbone for transformers and `kft.load`.

    Args:
        backbone: An `ESMC` without adapters.
        dtype: Numpy dtype that the tensors are rounded to, for example "float16"; None keeps
            theirs.

    Returns:
        The content of config.json; {name: array}, with the language-model head if it was used.

    Raises:
        ValueError: Weights that a number of this dtype cannot hold.
    """
    models = [backbone, *([backbone.masked_lm] if "masked_lm" in vars(backbone) else [])]
    tensors = {}
    for path, variable in {v.path: v for model in models for v in model.weights}.items():
        name = tensor_of(path).name
        array = oriented(path, keras.ops.convert_to_numpy(variable.value))
        tensors[name if name.startswith("lm_head.") else f"esmc.{name}"] = rounded(
            path, array, dtype
        )
    return config_json(backbone.get_config()), tensors


def config_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.json.

    Args:
        config: Config of an `ESMC`.
    """
    return {
        "architectures": ["EsmcForMaskedLM"],
        "model_type": "esmc",
        "vocab_size": VOCABULARY,
        "hidden_size": config["width"],
        "intermediate_size": config["hidden_width"],
        "num_hidden_layers": config["num_blocks"],
        "num_attention_heads": config["num_heads"],
        "num_key_value_heads": config["num_heads"],
        "head_dim": config["width"] // config["num_heads"],
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]},
        "bos_token_id": CLS,
        "eos_token_id": EOS,
        "mask_token_id": MASK,
        "pad_token_id": PAD,
        "tie_word_embeddings": False,
    }
