"""Reading checkpoints of vision transformers in Hugging Face's format.

References: `transformers` 5, `models/vit`, `models/deit`, `models/dinov2`, `models/dinov3_vit`.
They are read strictly: every tensor is used or named in the report as skipped, and every weight is
filled.

Shapes: `T` tokens that come first, `P` patches, `D` width.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kft.backbones.checkpoints import Origin, Tensors, class_names, fill
from kft.backbones.vision.images import HALF, IMAGENET, RESAMPLING
from kft.backbones.vision.keras_hub_parts import BIASES
from kft.backbones.vision.layouts import origin
from kft.backbones.vision.models import VisionTransformer
from kft.backbones.vision.names import GATED, modern, modules_of_block, modules_outside, stem
from kft.backbones.vision.positions import interpolated

# What a backbone does not use: another pooling, masked image modelling, other heads.
_SKIPPED = re.compile(
    r"pooler\..*|embeddings\.mask_token|decoder\..*|cls_classifier\..*|distillation_classifier\..*"
)
_NO_REGISTERS = re.compile(rf"{_SKIPPED.pattern}|embeddings\.register_tokens")  # an empty tensor
_FAMILIES = ("vit", "deit", "dinov2", "dinov3_vit")  # Hugging Face's model_type
_REQUIRED = {"hidden_act": "gelu", "qkv_bias": True, "num_channels": 3}
_EPSILON = {"dinov2": 1e-6, "dinov3_vit": 1e-5}  # what an absent layer_norm_eps means
# What an absent key means in the config of a DINOv3.
_DINOV3_BIASES = {"query": True, "key": False, "value": True, "proj": True, "mlp": True}


def from_hugging_face(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray] | None,
    source: str,
    dtype: str | None = None,
    processor: Mapping[str, Any] | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> VisionTransformer:
    """Build a vision transformer from a Hugging Face configuration and, if given, its tensors.

    Args:
        config: Content of config.json.
        tensors: {name: array}, None for random weights.
        source: Name of the checkpoint in errors.
        dtype: Keras dtype policy.
        processor: Content of preprocessor_config.json; None for the usual one of the family.
        image_size: (H, W) or one side in pixels, for which position embeddings are interpolated;
            None for what the processor makes.

    Returns:
        The backbone; its `load_report` lists what was filled and skipped.

    Raises:
        ValueError: Another architecture, or tensors that do not fit.
    """
    arguments = _arguments(config, processor, source)
    if tensors is not None:
        tensors = tensors if isinstance(tensors, Tensors) else Tensors.of(tensors, source=source)
        if "classifier.weight" in tensors and arguments["family"] != "dinov3_vit":
            count = tensors.shape("classifier.weight")[0]
            arguments["classes"] = class_names(config, count)
    backbone = VisionTransformer(**arguments, dtype=dtype)
    if image_size is not None:
        backbone = backbone.resized(image_size)
    if tensors is None:
        return backbone
    names = {modern(name, arguments["family"]): name for name in tensors}
    parts = [backbone, *([backbone.classifier] if arguments.get("classes") else [])]
    variables = {v.path: v for part in parts for v in part.weights}
    origins = {
        path: origin(path, tensors_of, variables[path])
        for path, tensors_of in _tensor_names(arguments, variables, names).items()
    }
    if backbone.stages[0].has_positions:
        origins["embedding/positions"] = _positions(origins["embedding/positions"], backbone)
    skipped = _SKIPPED if arguments.get("num_registers", 1) else _NO_REGISTERS
    backbone.load_report = fill(
        variables, origins, tensors, names=names, source=source, skipped=skipped
    )
    return backbone


def _arguments(
    config: Mapping[str, Any], processor: Mapping[str, Any] | None, source: str
) -> dict[str, Any]:
    """Return the constructor's arguments that a config.json describes."""
    family = config.get("model_type")
    if family not in _FAMILIES:
        raise ValueError(
            f"{source} has model_type={family!r} in its config.json, expected one of "
            f"{', '.join(_FAMILIES)}."
        )
    required = {"num_channels": 3} if family == "dinov3_vit" else _REQUIRED
    for key, value in required.items():
        if (received := config.get(key, value)) != value:
            raise ValueError(
                f"{source} has {key}={received!r} in its config.json, expected {value!r}."
            )
    epsilon = config.get("layer_norm_eps", _EPSILON.get(family, 1e-12))
    if family == "dinov2" and epsilon != 1e-6:
        raise ValueError(f"{source} has layer_norm_eps={epsilon}, expected 1e-06.")
    width = config["hidden_size"]
    hidden = int(width * config["mlp_ratio"]) if family == "dinov2" else config["intermediate_size"]
    preprocessing = preprocessing_of(processor, family, config["image_size"], source)
    return {
        "family": family,
        "num_blocks": config["num_hidden_layers"],
        "width": width,
        "num_heads": config["num_attention_heads"],
        "hidden_width": hidden,
        "patch_size": config["patch_size"],
        "image_size": preprocessing["size"],
        "epsilon": epsilon,
        "swiglu": config.get("use_swiglu_ffn", False),
        "preprocessing": preprocessing,
        **(_of_dinov3(config, source) if family == "dinov3_vit" else {}),
    }


def _of_dinov3(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the arguments that the config.json of a DINOv3 has under other names, or alone."""
    activation = config.get("hidden_act", "gelu")
    if activation not in ("gelu", "silu"):
        raise ValueError(
            f"{source} has hidden_act={activation!r} in its config.json, expected 'gelu' or 'silu'."
        )
    if not isinstance(patch_size := config["patch_size"], int):
        raise ValueError(
            f"{source} has patch_size={patch_size!r} in its config.json, expected one integer."
        )
    rotations = config.get("rope_parameters") or config
    return {
        "swiglu": config.get("use_gated_mlp", False),
        "num_registers": config.get("num_register_tokens", 0),
        "rope_theta": rotations.get("rope_theta", 100.0),
        "activation": activation,
        "biases": [part for part in BIASES if config.get(f"{part}_bias", _DINOV3_BIASES[part])],
    }


def preprocessing_of(
    processor: Mapping[str, Any] | None, family: str, image_size: int, source: str
) -> dict[str, Any]:
    """Return the arguments of `ImageEncoder` that a preprocessor_config.json describes.

    Source: `ViTImageProcessor`, `DeiTImageProcessor`, `BitImageProcessor` and
    `DINOv3ViTImageProcessor` of transformers 5.

    Args:
        processor: Its content, None for the usual one of the family.
        family: "vit", "deit", "dinov2" or "dinov3_vit".
        image_size: Size of config.json, for a processor that names none.
        source: Name of the checkpoint in errors.

    Raises:
        ValueError: A step that is not known.
    """
    # The defaults of the four classes, for what an old file leaves out. Without a file, images of
    # the size in config.json are cut from larger ones, as 224 pixels are from 256.
    larger = 256 if processor else round(max(_pair(image_size)) * 256 / 224)
    usual: dict[str, Any] = {
        "vit": {"size": image_size, "resample": 2, "statistics": HALF, "crop": None},
        "deit": {"size": larger, "resample": 3, "statistics": IMAGENET, "crop": image_size},
        "dinov2": {
            "size": {"shortest_edge": larger},
            "resample": 3,
            "statistics": IMAGENET,
            "crop": 224 if processor else image_size,
        },
        "dinov3_vit": {"size": image_size, "resample": 2, "statistics": IMAGENET, "crop": None},
    }[family]
    given = processor or {}
    for key in ("do_resize", "do_rescale"):
        if given.get(key) is False:
            raise ValueError(
                f"{source} has {key}=false in its preprocessor_config.json, expected true."
            )
    resize, size = _sizes(given, usual, family, source)
    mean, std = (
        [255 * x for x in given.get(f"image_{name}") or ()] or usual["statistics"][name]
        for name in ("mean", "std")
    )
    if given.get("do_normalize") is False:
        mean, std = [0.0] * 3, [255.0] * 3
    if not np.isclose(given.get("rescale_factor", 1 / 255), 1 / 255):
        raise ValueError(f"{source} has rescale_factor={given['rescale_factor']}, expected 1/255.")
    resample = RESAMPLING[given.get("resample", usual["resample"])]
    found = {"size": size, "resize": resize, "resample": resample, "mean": mean, "std": std}
    return {**found, "in_float32": True} if family == "dinov3_vit" else found


def _sizes(
    given: Mapping[str, Any], usual: Mapping[str, Any], family: str, source: str
) -> tuple[int | tuple[int, int] | None, tuple[int, int]]:
    """Return what images are resized to, None for their final size, and the final size."""
    crops = given.get("do_center_crop", usual["crop"] is not None)
    crop = _pair(given.get("crop_size") or usual["crop"]) if crops else None
    resize = given.get("size") or usual["size"]
    if isinstance(resize, int) and family == "dinov2":  # as files were before 2023
        resize = {"shortest_edge": resize}
    if isinstance(resize, dict) and "shortest_edge" in resize:
        resize = resize["shortest_edge"]
        if crop is None:
            raise ValueError(
                f"{source} resizes to one side and crops nothing, so that images differ in size."
            )
    else:
        resize = _pair(resize)
    size = crop or resize
    return (None if resize == size else resize), size


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        return size["height"], size["width"]
    return (size, size) if isinstance(size, int) else tuple(size)


def _tensor_names(
    arguments: Mapping[str, Any], variables: Iterable[str], names: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return {path of a weight: names of the tensors that fill it, one after the other}."""
    family = arguments["family"]
    block, outside = modules_of_block(family, arguments["swiglu"]), modules_outside(family)
    found = {}
    for path in variables:
        layer, _, weight = path.rpartition("/")
        suffix = {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(weight, weight)
        inside = re.fullmatch(r"block_(\d+)/(.*)", layer)
        if inside:
            module = f"{stem(family)}.{inside[1]}.{block[inside[2]]}"
            pair = [module.replace("weights_in", part) for part in GATED]
            both = module.endswith("weights_in") and f"{pair[0]}.{suffix}" in names
            found[path] = tuple(f"{one}.{suffix}" for one in (pair if both else [module]))
        elif layer in outside:
            found[path] = (f"{outside[layer]}.{suffix}",)
        elif layer == "embedding":
            found[path] = ("embeddings." + weight.replace("positions", "position_embeddings"),)
        else:  # classifier/kernel
            found[path] = (f"{layer}.{suffix}",)
    return found


def _positions(origin: Origin, backbone: keras.Model) -> Origin:
    """Position embeddings (1, T + P, D) of any number of patches, for the grid of the backbone."""
    embedding = backbone.stages[0]

    def convert(array: np.ndarray) -> np.ndarray:
        return interpolated(array, embedding.first, embedding.grid)

    return replace(origin, shape=(1, None, embedding.width), convert=convert)
