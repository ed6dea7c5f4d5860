"""SAM in Hugging Face's format."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kft.backbones.checkpoints import rounded
from kft.backbones.sam.names import hugging_face_name, in_files, original_name


def to_hugging_face(
    sam: keras.Model, dtype: str | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return configuration and tensors of a SAM as transformers and `kft.load` read them.

    Args:
        sam: A `Sam` without adapters.
        dtype: Numpy dtype that the tensors are rounded to, for example "float16"; None keeps
            theirs.

    Returns:
        The content of config.json; {name: array}.

    Raises:
        ValueError: Weights that a number of this dtype cannot hold.
    """
    config = sam.get_config()
    tensors = {}
    for path, variable in in_files(sam).items():
        name = hugging_face_name(original_name(path), config["iou_depth"])
        array = keras.ops.convert_to_numpy(variable.value)
        if variable.name == "kernel":
            # (in, out) -> (out, in); (h, w, in, out) -> (out, in, h, w), and of a transposed
            # convolution (h, w, out, in) -> (in, out, h, w)
            array = array.T if array.ndim == 2 else array.transpose(3, 2, 0, 1)
        tensors[name] = rounded(path, array, dtype)
    return _config_json(config), tensors


def _config_json(config: Mapping[str, Any]) -> dict[str, Any]:
    size, patch_size, width = (config[x] for x in ("image_size", "patch_size", "prompt_width"))
    automatic = {"automatic_masks": config["automatic"]} if config["automatic"] else {}
    return {
        "architectures": ["SamModel"],
        "model_type": "sam",
        "vision_config": {
            "hidden_size": config["width"],
            "output_channels": width,
            "num_hidden_layers": config["num_blocks"],
            "num_attention_heads": config["num_heads"],
            "mlp_dim": config["hidden_width"],
            "global_attn_indexes": config["global_blocks"],
            "window_size": config["window"],
            "num_pos_feats": width // 2,
            "image_size": size,
            "patch_size": patch_size,
        },
        "prompt_encoder_config": {
            "hidden_size": width,
            "image_size": size,
            "patch_size": patch_size,
            "image_embedding_size": size // patch_size,
            "mask_input_channels": config["mask_channels"],
        },
        "mask_decoder_config": {
            "hidden_size": width,
            "num_hidden_layers": config["decoder_blocks"],
            "num_attention_heads": config["decoder_heads"],
            "mlp_dim": config["decoder_hidden_width"],
            "attention_downsample_rate": config["downsample"],
            "layer_norm_eps": config["decoder_epsilon"],
            "iou_head_depth": config["iou_depth"],
            "iou_head_hidden_dim": config["iou_width"],
        },
        **automatic,
    }
