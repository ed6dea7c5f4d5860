"""What SAM's weights are called in the original code and in Hugging Face's format."""

import re

import keras

from kft.params import weights

_IN_ORIGINAL = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
_ELSEWHERE = {
    "image_encoder.patch_embed.pos_embed": "image_encoder.pos_embed",
    "image_encoder.pixels.pixel_mean": "pixel_mean",
    "image_encoder.pixels.pixel_std": "pixel_std",
}

POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
SHARED = "shared_image_embedding.positional_embedding"

# (in the original, in Hugging Face); the first that fits the beginning or a part of a name counts.
_TO_HUGGING_FACE = [
    (rf"^{re.escape(POSITIONS)}$", SHARED),
    (r"^image_encoder\.patch_embed\.proj", "vision_encoder.patch_embed.projection"),
    (r"^image_encoder\.blocks", "vision_encoder.layers"),
    (r"^image_encoder\.neck\.0", "vision_encoder.neck.conv1"),
    (r"^image_encoder\.neck\.1", "vision_encoder.neck.layer_norm1"),
    (r"^image_encoder\.neck\.2", "vision_encoder.neck.conv2"),
    (r"^image_encoder\.neck\.3", "vision_encoder.neck.layer_norm2"),
    (r"^image_encoder", "vision_encoder"),
    (r"mask_downscaling\.0", "mask_embed.conv1"),
    (r"mask_downscaling\.1", "mask_embed.layer_norm1"),
    (r"mask_downscaling\.3", "mask_embed.conv2"),
    (r"mask_downscaling\.4", "mask_embed.layer_norm2"),
    (r"mask_downscaling\.6", "mask_embed.conv3"),
    (r"point_embeddings", "point_embed"),
    (r"norm_final_attn", "layer_norm_final_attn"),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"output_upscaling\.0", "upscale_conv1"),
    (r"output_upscaling\.1", "upscale_layer_norm"),
    (r"output_upscaling\.3", "upscale_conv2"),
]


def original_name(path: str) -> str:
    """Return what the original code calls a weight.

    Args:
        path: Path of the weight in kft.

    Example:
        >>> original_name("mask_decoder/iou_prediction_head/layers/0/kernel")
        'mask_decoder.iou_prediction_head.layers.0.weight'
    """
    layer, _, weight = path.replace("/", ".").rpartition(".")
    name = f"{layer}.{_IN_ORIGINAL.get(weight, weight)}"
    return _ELSEWHERE.get(name, name)


def hugging_face_name(name: str, iou_depth: int = 3) -> str:
    """Return what transformers calls a tensor of the original code.

    Args:
        name: Name in the original code.
        iou_depth: Number of layers of the head that predicts the IoU.

    Example:
        >>> hugging_face_name("mask_decoder.iou_prediction_head.layers.2.weight")
        'mask_decoder.iou_prediction_head.proj_out.weight'
    """
    for pattern, replacement in _TO_HUGGING_FACE:
        name = re.sub(pattern, replacement, name)

    def in_perceptron(match: re.Match[str]) -> str:
        i, last = int(match[2]), (iou_depth if "iou" in match[1] else 3) - 1
        return match[1] + {0: "proj_in", last: "proj_out"}.get(i, f"layers.{i - 1}")

    return re.sub(r"((?:iou_prediction_head|mlps\.\d+)\.)layers\.(\d+)", in_perceptron, name)


def in_files(sam: keras.Model) -> dict[str, keras.Variable]:
    """Return the weights that files hold by path: all but the constants of the pixels.

    Args:
        sam: A `Sam`.
    """
    constants = "image_encoder/pixels/"
    return {w.path: w.variable for w in weights(sam) if not w.path.startswith(constants)}
