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

from kft.arguments import check_integer
from kft.backbones.checkpoints import (
    MOST_BLOCKS,
    MOST_HEADS,
    MOST_WIDTH,
    Config,
    Origin,
    Tensors,
    class_names,
    fill,
)
from kft.backbones.vision.images import HALF, IMAGENET, RESAMPLING
from kft.backbones.vision.keras_hub_parts import BIASES
from kft.backbones.vision.layouts import origin
from kft.backbones.vision.models import VisionTransformer
from kft.backbones.vision.names import GATED, modern, modules_of_block, modules_outside, stem
from kft.backbones.vision.positions import interpolated
from kft.messages import shown

# What a backbone does not use: another pooling, masked image modelling, other heads.
_SKIPPED = re.compile(
    r"pooler\..*|embeddings\.mask_token|decoder\..*|cls_classifier\..*|distillation_classifier\..*"
)
_NO_REGISTERS = re.compile(rf"{_SKIPPED.pattern}|embeddings\.register_tokens")  # an empty tensor
_FAMILIES = ("vit", "deit", "dinov2", "dinov3_vit")  # Hugging Face's model_type
_REQUIRED = {"hidden_act": "gelu", "qkv_bias": True, "num_channels": 3}
_MOST_PIXELS = 16_384  # the side of an image or patch
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
    if tensors is not None and not isinstance(tensors, Tensors):
        tensors = Tensors.of(tensors, source=source)
    arguments = _arguments(config, processor, source, tensors)
    dinov3 = arguments["family"] == "dinov3_vit"
    if tensors is not None and "classifier.weight" in tensors and not dinov3:
        count = tensors.shape("classifier.weight")[0]
        arguments["classes"] = class_names(config, count, source)
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
    config: Mapping[str, Any],
    processor: Mapping[str, Any] | None,
    source: str,
    tensors: Any = None,
) -> dict[str, Any]:
    """Return the constructor's arguments that a config.json describes."""
    entries = Config(config, source)
    entries.insist("model_type", _FAMILIES, kind="a vision transformer")
    family = config["model_type"]
    required = {"num_channels": 3} if family == "dinov3_vit" else _REQUIRED
    for key, value in required.items():
        entries.insist(key, value, value)
    epsilon = entries.number("layer_norm_eps", _EPSILON.get(family, 1e-12))
    if family == "dinov2":
        entries.insist("layer_norm_eps", 1e-6, epsilon)
    blocks = entries.integer("num_hidden_layers", MOST_BLOCKS)
    width = entries.integer("hidden_size", MOST_WIDTH)
    if family == "dinov2":
        hidden = int(width * entries.integer("mlp_ratio", 64))
    else:
        hidden = entries.integer("intermediate_size", 4 * MOST_WIDTH)
    entries.check_size(blocks, width, hidden, tensors)
    image_size = _pair(entries, "image_size", entries.value("image_size"))
    preprocessing = preprocessing_of(processor, family, image_size, source)
    return {
        "family": family,
        "num_blocks": blocks,
        "width": width,
        "num_heads": entries.integer("num_attention_heads", MOST_HEADS),
        "hidden_width": hidden,
        "patch_size": entries.integer("patch_size", _MOST_PIXELS),
        "image_size": preprocessing["size"],
        "epsilon": epsilon,
        "swiglu": entries.flag("use_swiglu_ffn", False),
        "preprocessing": preprocessing,
        **(_of_dinov3(entries) if family == "dinov3_vit" else {}),
    }


def _of_dinov3(entries: Config) -> dict[str, Any]:
    """Return the arguments that the config.json of a DINOv3 has under other names, or alone."""
    entries.insist("hidden_act", ("gelu", "silu"), "gelu")
    rotations = entries.part("rope_parameters") if "rope_parameters" in entries else entries
    return {
        "swiglu": entries.flag("use_gated_mlp", False),
        "num_registers": entries.integer("num_register_tokens", 1024, 0, default=0),
        "rope_theta": rotations.number("rope_theta", 100.0),
        "activation": entries.value("hidden_act", "gelu"),
        "biases": [part for part in BIASES if entries.flag(f"{part}_bias", _DINOV3_BIASES[part])],
    }


def preprocessing_of(
    processor: Mapping[str, Any] | None, family: str, image_size: Any, source: str
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
    sides = _pair(Config({}, source), "image_size", image_size)
    larger = 256 if processor else round(max(sides) * 256 / 224)
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
    given = Config(processor or {}, source, "preprocessor_config.json")
    for key in ("do_resize", "do_rescale"):
        given.insist(key, True, True)
    resize, size = _sizes(given, usual, family)
    mean, std = (
        [255 * x for x in _three_numbers(given, f"image_{name}")] or usual["statistics"][name]
        for name in ("mean", "std")
    )
    if not given.flag("do_normalize", True):
        mean, std = [0.0] * 3, [255.0] * 3
    # Processors of transformers write null for what they leave to its defaults.
    if "rescale_factor" in given and not np.isclose(given.number("rescale_factor"), 1 / 255):
        raise ValueError(
            f"{given.called('rescale_factor')} is {given.value('rescale_factor')}, expected 1/255."
        )
    number = usual["resample"]
    if "resample" in given:
        number = given.integer("resample", len(RESAMPLING) - 1, 0)
    found: dict[str, Any] = {"size": size, "resize": resize, "mean": mean, "std": std}
    found["resample"] = RESAMPLING[number]
    return {**found, "in_float32": True} if family == "dinov3_vit" else found


def _three_numbers(given: Config, key: str) -> list[float]:
    """Return an entry of one number per channel, [] if it is absent."""
    values = given.value(key, [])
    if values and (not isinstance(values, list | tuple) or len(values) != 3):
        raise ValueError(f"{given.called(key)} must be three numbers, received {shown(values)}.")
    numbers = (isinstance(x, int | float) and np.isfinite(x) for x in values)
    if not all(numbers) or (key == "image_std" and 0 in values):
        raise ValueError(f"{given.called(key)} must be three numbers, received {shown(values)}.")
    return values


def _sizes(
    given: Config, usual: Mapping[str, Any], family: str
) -> tuple[int | tuple[int, int] | None, tuple[int, int]]:
    """Return what images are resized to, None for their final size, and the final size."""
    crops = given.flag("do_center_crop", usual["crop"] is not None)
    crop = _pair(given, "crop_size", given.value("crop_size", usual["crop"])) if crops else None
    resize = given.value("size", usual["size"])
    if isinstance(resize, int) and family == "dinov2":  # as files were before 2023
        resize = {"shortest_edge": resize}
    if isinstance(resize, dict) and "shortest_edge" in resize:
        resize = _side(given, "size", resize["shortest_edge"])
        if crop is None:
            raise ValueError(
                f"{given.source} resizes to one side and crops nothing, so that images differ in "
                f"size."
            )
    else:
        resize = _pair(given, "size", resize)
    size = crop or resize
    return (None if resize == size else resize), size


def _pair(given: Config, key: str, size: Any) -> tuple[int, int]:
    """Return (height, width) of an entry: one side, a list of two, or an object."""
    if isinstance(size, dict):
        size = [size.get("height"), size.get("width")]
    sides = list(size) if isinstance(size, list | tuple) and len(size) == 2 else [size, size]
    height, width = (_side(given, key, side) for side in sides)
    return height, width


def _side(given: Config, key: str, side: Any) -> int:
    return check_integer(given.called(key), side, 1, _MOST_PIXELS)


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
