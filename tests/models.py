"""Small models that several tests use, and what tests ask of any model."""

import numpy as np
from keras import ops

import kft
from kft import params
from kft.backbones import vision_published
from kft.backbones.esm2 import ESM2
from kft.backbones.vision import ConvNet, VisionTransformer

TINY_RESNET = {**vision_published.RESNET, "stackwise_num_filters": [64, 64],
               "stackwise_num_blocks": [1, 2], "stackwise_num_strides": [1, 2]}  # fmt: skip
TINY_EFFICIENTNET = {
    **vision_published.EFFICIENTNET_LITE0,
    "stackwise_kernel_sizes": [3, 5, 3], "stackwise_num_repeats": [1, 2, 1],
    "stackwise_input_filters": [16, 8, 8], "stackwise_output_filters": [8, 8, 16],
    "stackwise_expansion_ratios": [1, 6, 6], "stackwise_strides": [1, 2, 1],
    "stackwise_squeeze_and_excite_ratios": [0, 0, 0.25],
    "stackwise_block_types": ["v1", "unfused", "unfused"],
    "stackwise_width_coefficients": [1.0] * 3, "stackwise_depth_coefficients": [1.0] * 3,
    "num_features": 32,
}  # fmt: skip
TINY_MOBILENET = {
    **vision_published.MOBILENET,
    "stackwise_num_blocks": [2], "stackwise_expansion": [[16, 16]],
    "stackwise_num_filters": [[8, 8]], "stackwise_kernel_size": [[3, 3]],
    "stackwise_num_strides": [[2, 1]], "stackwise_se_ratio": [[None, 0.25]],
    "stackwise_activation": [["relu", "hard_swish"]], "stackwise_padding": [[1, 1]],
    "last_layer_filter": 16,
}  # fmt: skip

BACKBONES = {
    "vit": lambda **o: VisionTransformer("vit", 2, 16, 2, patch_size=8, image_size=32, **o),
    "deit": lambda **o: VisionTransformer("deit", 2, 16, 2, patch_size=8, image_size=32, **o),
    "dinov2": lambda **o: VisionTransformer("dinov2", 2, 16, 2, patch_size=8, image_size=32, **o),
    "swiglu": lambda **o: VisionTransformer(
        "dinov2", 2, 16, 2, patch_size=8, image_size=32, swiglu=True, **o
    ),
    "resnet": lambda **o: ConvNet("resnet", TINY_RESNET, 32, **o),
    "resnet_v2": lambda **o: ConvNet(
        "resnet", {**TINY_RESNET, "use_pre_activation": True}, 32, **o
    ),
    "efficientnet": lambda **o: ConvNet("efficientnet", TINY_EFFICIENTNET, 32, **o),
    "mobilenet": lambda **o: ConvNet("mobilenet", TINY_MOBILENET, 32, **o),
}


def esm2(blocks=1, width=16, heads=2, seed=0, **options):
    """A small ESM-2 with random weights, those of published sizes in scale."""
    return kft.backbones.randomised(ESM2(blocks, width, heads, **options), seed)


def values(model):
    """{path: array} of all weights, adapters and statistics included."""
    return {w.path: ops.convert_to_numpy(w.variable.value).copy() for w in params.weights(model)}


def same(one, two):
    """Whether two `values` hold the same bits under the same paths."""
    return one.keys() == two.keys() and all(np.array_equal(one[path], two[path]) for path in one)


def moved(before, after):
    """The stages and layers, by the first part of their path, of which any weight differs."""
    return {
        path.partition("/")[0] for path in before if not np.array_equal(before[path], after[path])
    }


def perturb(model, scale=0.2, seed=7, learning=False):
    """Adds noise to all weights of a model, or to those that learn, and returns the model."""
    rng = np.random.default_rng(seed)
    for weight in params.weights(model):
        if weight.learns or not learning:
            noise = scale * rng.standard_normal(weight.variable.shape)
            noise = np.abs(noise) if "variance" in weight.path else noise
            current = ops.convert_to_numpy(weight.variable.value)
            weight.variable.assign((current + noise).astype("float32"))
    return model


def strings(lengths, letters="ACDEFGHIKL", seed=0):
    """Random sequences of the given lengths."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(letters), n)) for n in lengths]


def pictures(n, side=32):
    """Bright on the left or on the right: what a backbone with random weights can tell apart."""
    kinds = np.arange(n) % 2
    images = np.random.default_rng(0).integers(0, 60, (n, side, side, 3))
    images[kinds == 1, :, : side // 2] += 150
    images[kinds == 0, :, side // 2 :] += 150
    return list(images.astype("uint8")), kinds
