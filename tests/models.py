"""Small models that several tests use, and what tests ask of any model."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import kft
from kft import params
from kft.backbones.esm2.model import ESM2
from kft.backbones.esmc.model import ESMC
from kft.backbones.sam import Sam
from kft.backbones.vision import published as vision_published
from kft.backbones.vision.models import ConvNet, VisionTransformer
from kft.lora.adapting import adapted
from kft.training import pretraining

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
    "dinov3": lambda **o: VisionTransformer(
        "dinov3_vit", 2, 16, 2, patch_size=8, image_size=32, num_registers=2, **o
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


def esmc(blocks=1, width=16, heads=2, seed=0, **options):
    """A small ESM-C with random weights, those of published sizes in scale."""
    options = {"hidden_width": 24, **options}
    return kft.backbones.randomised(ESMC(blocks, width, heads, **options), seed)


SMALL_SAM = {
    "num_blocks": 2, "width": 16, "num_heads": 2, "global_blocks": [1], "image_size": 32,
    "patch_size": 8, "window": 3, "prompt_width": 16, "mask_channels": 4, "decoder_heads": 2,
    "decoder_hidden_width": 16, "iou_width": 16,
}  # fmt: skip


def sam(seed=0, **options):
    """A small SAM with random weights, for images of 32 pixels; logits are 16 by 16."""
    return kft.backbones.randomised(Sam(**{**SMALL_SAM, **options}), seed)


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
        if weight.trainable or not learning:
            noise = scale * rng.standard_normal(weight.variable.shape)
            noise = np.abs(noise) if "variance" in weight.path else noise
            current = ops.convert_to_numpy(weight.variable.value)
            weight.variable.assign((current + noise).astype("float32"))
    return model


def perturb_adapters(model, scale=0.1, seed=7):
    """Adds noise to the adapters of a model, and to nothing else that learns."""
    rng = np.random.default_rng(seed)
    for _, layer in adapted(model):
        for adapter in layer.adapters.values():
            for variable in adapter.variables.values():
                current = ops.convert_to_numpy(variable).astype("float32")
                variable.assign(current + scale * rng.standard_normal(current.shape))


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


# Of every kind that Keras knows -------------------------------------------------------------------


def dense(width, name=None, **kwargs):
    return keras.layers.Dense(width, name=name, **kwargs)


class Block(keras.layers.Layer):
    """A composite with weights of its own and sublayers, some of them without a name."""

    def __init__(self, shared=None, **kwargs):
        super().__init__(**kwargs)
        self.inner = [dense(4), dense(4), dense(4, "named"), shared or keras.layers.Dropout(0.1)]

    def build(self, shape):
        self.scale = self.add_weight(shape=(6,), initializer="ones", name="scale")
        for layer in self.inner:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self.count = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="count", dtype="int32"
        )

    def call(self, x):
        x = x * self.scale
        for layer in self.inner:
            x = layer(x)
        return x


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = Block(), keras.layers.BatchNormalization()
        self.out = dense(1, "out")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, 4))
        self.out.build((None, 4))

    def call(self, x, training=False):
        return self.out(self.second(self.first(x), training=training))


def make_esm(blocks=2):
    return kft.Model(esm2(blocks), kft.heads.Regression(pooling="attention"))


def make_cnn():
    image = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, name="conv_1")(image)
    x = keras.layers.BatchNormalization(name="norm_1")(x)
    x = keras.layers.Dropout(0.1, name="drop_1")(x)
    x = keras.layers.Conv2D(4, 3, name="conv_10")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, dense(1, "out")(x), name="cnn")


def make_nested():
    inner = keras.Input((6,))
    x = dense(4, "hidden")(inner)
    inner = keras.Model(inner, keras.layers.BatchNormalization(name="norm")(x), name="inner")
    middle = keras.Sequential([keras.Input((6,)), inner, dense(4, "after")], name="middle")
    x = keras.Input((6,))
    return keras.Model(x, dense(1, "out")(middle(x)))


def make_sequential():
    hidden = [dense(4, "a"), keras.layers.Dropout(0.1, name="drop"), dense(4, "b")]
    return keras.Sequential([keras.Input((6,)), *hidden, dense(1, "out")])


def make_subclassed():
    model = Subclassed()
    model.build((None, 6))
    return model


def make_shared():
    x, tied = keras.Input((6,)), dense(6, "tied")
    shared = dense(4, "shared")
    y = tied(tied(x))
    y = dense(4, "between")(Block(shared, name="block")(y))
    return keras.Model(x, dense(1, "out")(shared(y)))


# Each model, what is frozen in it, and the weights that learn thereafter (found by hand).
MODELS = {
    "esm": (make_esm, ["embedding", "block_0", "block_1/query"], 38, 19),
    "cnn": (make_cnn, ["conv_1", "norm_1"], 10, 4),
    "nested": (make_nested, ["inner"], 10, 4),
    "sequential": (make_sequential, ["a", "drop"], 6, 4),
    "subclassed": (make_subclassed, ["block/dense_1", "batch_normalization"], 14, 7),
    "shared": (make_shared, ["block"], 16, 6),
}


def waves(n, seed=0, side=32):
    """Images of some direction and phase, with noise: of a part the rest follows."""
    rng = np.random.default_rng(seed)
    axes = np.mgrid[:side, :side] / side
    found = []
    for axis, phase in zip(rng.integers(0, 2, n), rng.integers(0, 4, n) / 4, strict=True):
        wave = 127 + 100 * np.sin(2 * np.pi * (1.5 * axes[axis] + phase))
        found.append((wave + rng.normal(0, 5, wave.shape)).astype("uint8"))
    return found


def masked_batches(images, autoencoder, batch_size=4, **options):
    """Batches of images as an autoencoder of patches takes them."""
    return pretraining.masked_image_batches(
        images, autoencoder.encode, batch_size, patch_size=autoencoder.patch_size, **options
    )


# The beginning of a program that imports modules of kft without `import kft`, which imports Keras.
WITHOUT_KERAS = f"""
import sys, types
sys.modules["kft"] = package = types.ModuleType("kft")
package.__path__ = [{str(Path(kft.__file__).parent)!r}]
"""


def in_turn(values, everywhere=(), backends=("torch", "jax", "torch", "tensorflow")):
    """Return parameters of a test, of which `make test` runs each on one backend, in turn.

    PyTorch is the quickest by far and takes every second one; those `everywhere` run on all.
    """
    turns = itertools.cycle(backends)
    return [
        value if value in everywhere
        else pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            marks=pytest.mark.in_turn(next(turns)),
        )
        for value in values
    ]  # fmt: skip
