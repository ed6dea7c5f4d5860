"""Vision backbones: ViT, DeiT, DINOv2, ResNet, EfficientNet and MobileNet from keras-hub's layers.

References: Dosovitskiy et al. 2021, arXiv:2010.11929 (ViT); Touvron et al. 2021, arXiv:2012.12877
(DeiT); Oquab et al. 2023, arXiv:2304.07193 (DINOv2); He et al. 2016, arXiv:1512.03385 (ResNet); Tan
and Le 2019, arXiv:1905.11946 (EfficientNet); Howard et al. 2019, arXiv:1905.02244 (MobileNetV3);
and the code of `keras-hub` 0.32 and `transformers` 5, whose numbers these are.

keras-hub keeps all blocks of a transformer in one layer, and those of a ResNet in none. Here each
block is a layer of its own, called as its own node of the graph: the block layers of keras-hub's
transformers, and its convolutional graphs cut at the ends of their blocks.

Differences from the reference: no dropout and no stochastic depth. Position embeddings are those
of the model's own image size: another size interpolates them once, when weights are loaded, and
what is trained then are the interpolated ones. The embedding is written here: keras-hub's ViT has
no other sizes, and its DINOv2 keeps two tables, of which a saved file may hold the untrained one.

Shapes: `B` images in a batch, `H` and `W` their height and width, `p` the side of a patch, `T`
tokens that come first (class, distillation), `P` = H W / p^2 patches, `L` = T + P, `D` width.
"""

from dataclasses import replace
from functools import cached_property

import keras
import numpy as np
from keras import ops

from kft.backbones.copies import Copied, adapters_of, flags, marked, restore, without_flags
from kft.backbones.vision.images import HALF, IMAGENET, ImageEncoder
from kft.backbones.vision.keras_hub_parts import FAMILIES, conv_stages, encoder_block
from kft.keras_internals import sublayers_of

# Tokens that stand before the patches, as Hugging Face calls them.
TOKENS = {
    "vit": ("cls_token",),
    "deit": ("cls_token", "distillation_token"),
    "dinov2": ("cls_token",),
}

# Layers ---------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class PatchEmbedding(keras.layers.Layer):
    """Embeds patches and puts tokens before them: float (B, H, W, 3) -> float (B, L, D).

    A patch is one step of a convolution. Positions are added to all tokens.

    Args:
        width: D.
        patch_size: p.
        image_size: (H, W), multiples of p.
        tokens: names of the T tokens that come first.
    """

    def __init__(self, width, patch_size, image_size, tokens=("cls_token",), **kwargs):
        super().__init__(**kwargs)
        self.width, self.patch_size, self.tokens = width, patch_size, tuple(tokens)
        self.image_size = tuple(image_size)
        self.patches = keras.layers.Conv2D(
            width, patch_size, strides=patch_size, data_format="channels_last",
            kernel_initializer="lecun_normal", dtype=self.dtype_policy, name="patches",
        )  # fmt: skip

    @property
    def grid(self):
        """Patches from top to bottom and from left to right."""
        return tuple(side // self.patch_size for side in self.image_size)

    @property
    def length(self):
        return len(self.tokens) + int(np.prod(self.grid))

    def build(self, images_shape):
        self.patches.build(images_shape)
        for name in self.tokens:
            token = self.add_weight(shape=(1, 1, self.width), initializer="zeros", name=name)
            setattr(self, name, token)
        self.positions = self.add_weight(
            shape=(1, self.length, self.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="positions",
        )

    def call(self, images):
        x = self.patches(images)  # (B, H/p, W/p, D)
        batch = ops.shape(x)[0]
        x = ops.reshape(x, (batch, -1, self.width))  # (B, P, D)
        first = [ops.tile(getattr(self, name), (batch, 1, 1)) for name in self.tokens]
        return ops.add(ops.concatenate([*first, x], axis=1), self.positions)

    def compute_output_spec(self, images):
        shape = (images.shape[0], self.length, self.width)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        names = ("width", "patch_size", "image_size", "tokens")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("kft")
class PatchMask(keras.layers.Layer):
    """Marks the tokens that are patches: (B, H, W, 3) -> bool (B, L), False for the first T.

    It looks at nothing but the batch's size, so that whatever learns, it is computed once.
    """

    def __init__(self, first, length, **kwargs):
        super().__init__(**kwargs)
        self.first, self.length = first, length

    def call(self, images):
        mask = ops.greater_equal(ops.arange(self.length), self.first)  # (L,)
        return ops.tile(ops.expand_dims(mask, 0), (ops.shape(images)[0], 1))

    def compute_output_spec(self, images):
        return keras.KerasTensor((images.shape[0], self.length), dtype="bool")

    def get_config(self):
        return {**super().get_config(), "first": self.first, "length": self.length}


@keras.saving.register_keras_serializable("kft")
class Summary(keras.layers.Layer):
    """What a published classifier reads of features (B, L, D) or (B, height, width, D).

    Args:
        kind: "cls", the first token (ViT) -> (B, D); "cls_and_mean", that and the mean of the
            others (DINOv2) -> (B, 2 D); "mean" over pixels (convolutional networks) -> (B, D).
    """

    def __init__(self, kind, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, features):
        if self.kind == "mean":
            return ops.mean(features, axis=(1, 2))
        first = features[:, 0]
        if self.kind == "cls":
            return first
        return ops.concatenate([first, ops.mean(features[:, 1:], axis=1)], axis=-1)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


# What all have in common ------------------------------------------------------------------------


class VisionBackbone(Copied):
    """{"images": float (B, H, W, 3)} -> features; see `VisionTransformer` and `ConvNet`.

    Attributes:
        stages: layers in order, each its own node of the graph.
        width: D.
        image_size: (H, W).
        encode: images of any kind and size -> the model's input, see `vision_images.ImageEncoder`.
        value_range: (black, white) of images of 16 bits, None if it is not known; it can be set.
        classes: names of the classes that `classifier` tells apart, empty if there is none.
        lora_targets: what `kft.add_lora` adapts if it is not told.
    """

    keeps_adapters = True  # its config tells of the adapters in it, whosever layers they are

    def __init__(self, images, features, stages, config, exchanged, name):
        super().__init__({"images": images}, features, name=name)
        self.width = features.shape[-1]
        # By hand: plain data, not to be tracked.
        vars(self)["_config"], vars(self)["_stages"] = config, [stage.name for stage in stages]
        self.image_size, self.classes = tuple(config["image_size"]), tuple(config["classes"])
        self.encode = ImageEncoder(**config["preprocessing"])
        restore(self._by_path(), exchanged or {})

    @property
    def stages(self):
        return [self.get_layer(name) for name in self._stages]

    @property
    def value_range(self):
        return self.encode.value_range

    @value_range.setter
    def value_range(self, value_range):
        self.encode = replace(self.encode, value_range=value_range)

    # No layer of the backbone: a fine-tuned model must not carry weights that no gradient reaches.
    # Keras's saving finds it as an attribute, so that its weights are in every file.
    @cached_property
    def classifier(self):
        """keras.Model -> logits (B, K) of the published classes, see `ImageClassifier`."""
        return ImageClassifier(self)

    def resized(self, image_size):
        """A copy for another image size, with the same weights; positions are interpolated.

        The weights of a classifier are among them.

        Args:
            image_size: (H, W), or one side of a square, in pixels.

        Returns:
            A backbone of the same class that shares nothing with this one.
        """
        image_size = sides(image_size)
        encoder = self.encode.resized(image_size).get_config()
        changed = {"image_size": image_size, "preprocessing": encoder}
        copy = type(self).from_config({**self.get_config(), **changed})
        after, before = (one.classifier if one.classes else one for one in (copy, self))
        for ours, theirs in zip(after.weights, before.weights, strict=True):
            values = ops.convert_to_numpy(theirs)
            if ours.shape != theirs.shape:  # the position embeddings, and nothing else
                new, old = copy.stages[0], self.stages[0]
                values = interpolated(values, len(new.tokens), new.grid, old.grid)
            ours.assign(values)
        return copy

    def _by_path(self):
        """Layers by Keras's own paths, unique in one backbone and the same when it is rebuilt."""
        return {layer.path: layer for layer in sublayers_of(self)}

    def get_config(self):
        found = adapters_of(self._by_path())
        adapted = {"exchanged": found} if found else {}
        config = {**self._config, "preprocessing": self.encode.get_config(), "name": self.name}
        return {**config, **adapted, **flags(self)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return marked(cls(**without_flags(config)), config)


@keras.saving.register_keras_serializable("kft")
class ImageClassifier(Copied):
    """A vision backbone with the classifier that it was published with -> logits (B, K).

    Raises:
        ValueError: a backbone without classes.
    """

    def __init__(self, backbone):
        if not backbone.classes:
            raise ValueError(
                f"{backbone.name} was published without a classifier. Put a head on it: "
                f"kft.Model(backbone, kft.heads.Classification(classes))."
            )
        read = Summary(backbone.read_by_classifier, dtype="float32", name="summary")
        dense = keras.layers.Dense(len(backbone.classes), dtype="float32", name="classifier")
        super().__init__(backbone.input, dense(read(backbone.output)), name="classifier")
        # The backbone itself must not be an attribute: it refers to this model, and Keras's
        # loading follows every circle.
        vars(self)["_serialized"] = lambda: keras.saving.serialize_keras_object(backbone)

    def get_config(self):
        return {"backbone": self._serialized(), **flags(self)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return marked(keras.saving.deserialize_keras_object(config["backbone"]).classifier, config)


# The backbones ------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class VisionTransformer(VisionBackbone):
    """ViT, DeiT or DINOv2: {"images": float (B, H, W, 3)} -> float (B, L, D) after the final norm.

    Args:
        family: "vit", "deit" or "dinov2"; a DeiT without distillation is a ViT.
        num_blocks, width, num_heads, hidden_width: encoder blocks, D, attention heads, units inside
            a feed-forward; None means 4 D.
        patch_size: p.
        image_size: (H, W) or one side, multiples of p.
        epsilon: of all layer norms; DINOv2's blocks have 1e-6 whatever it says.
        swiglu: DINOv2's gated feed-forward, of which two thirds of `hidden_width` are kept.
        classes: names of the published classes, or empty.
        preprocessing: dict for `ImageEncoder`; None resizes to the image size.
        name: name of the Keras model.
        dtype: Keras dtype or policy, "mixed_bfloat16" for one.
        exchanged: adapters, as `get_config` writes them.

    Attributes:
        residue_mask: symbolic bool (B, L), True at patches: what pooling counts.

    Raises:
        ValueError: sizes that do not fit together.
        ImportError: keras-hub is not installed.

    Example:
        >>> backbone = VisionTransformer("vit", 2, 32, 4, patch_size=8, image_size=32)
        >>> tuple(backbone(backbone.encode([np.zeros((20, 30), "uint8")])).shape)
        (1, 17, 32)
    """

    lora_targets = ("query", "value")

    def __init__(
        self, family, num_blocks, width, num_heads, hidden_width=None, patch_size=16,
        image_size=224, epsilon=1e-6, swiglu=False, classes=(), preprocessing=None, name=None,
        dtype=None, exchanged=None,
    ):  # fmt: skip
        _check_family(family, TOKENS)
        image_size = sides(image_size)
        if num_blocks < 1 or width % num_heads or any(side % patch_size for side in image_size):
            raise ValueError(
                f"A vision transformer needs num_blocks >= 1, a width that is a multiple of "
                f"num_heads and an image_size that is one of patch_size, received {num_blocks=}, "
                f"{width=}, {num_heads=}, {image_size=}, {patch_size=}."
            )
        dtype = keras.dtype_policies.get(dtype).name
        sizes = {
            "family": family, "num_blocks": num_blocks, "width": width, "num_heads": num_heads,
            "hidden_width": hidden_width or 4 * width, "patch_size": patch_size,
            "image_size": image_size, "epsilon": epsilon, "swiglu": swiglu,
        }  # fmt: skip
        options = {"name": "embedding", "dtype": dtype}
        embedding = PatchEmbedding(width, patch_size, image_size, TOKENS[family], **options)
        blocks = [encoder_block(sizes, f"block_{i}", dtype) for i in range(num_blocks)]
        norm = keras.layers.LayerNormalization(epsilon=epsilon, name="final_norm", dtype=dtype)
        stages = [embedding, *blocks, norm]

        images = x = keras.Input((*image_size, 3), name="images")
        for stage in stages:
            x = stage(x)
        statistics = HALF if family == "vit" else IMAGENET
        config = {**_config(sizes, classes, preprocessing, statistics), "dtype": dtype}
        super().__init__(images, x, stages, config, exchanged, name or family)
        mask = PatchMask(len(embedding.tokens), embedding.length, name="residue_mask")
        self.residue_mask = mask(images)

    @property
    def read_by_classifier(self):
        return "cls_and_mean" if self._config["family"] == "dinov2" else "cls"


@keras.saving.register_keras_serializable("kft")
class ConvNet(VisionBackbone):
    """ResNet, EfficientNet or MobileNet: {"images": float (B, H, W, 3)} -> float (B, h, w, D).

    Its stages are "stem", "block_0" ..., and what follows the last block ("final_norm" of a
    ResNetV2, "top" of the other two): functional models of keras-hub's own layers.

    Args:
        family: "resnet", "efficientnet" or "mobilenet".
        sizes: dict, the constructor's arguments of keras-hub's backbone of that family.
        image_size: (H, W) or one side.
        classes, preprocessing, name, dtype, exchanged: see `VisionTransformer`.

    Raises:
        ValueError: an unknown family.
        ImportError: keras-hub is not installed.

    Example:
        >>> from kft.backbones.vision.published import RESNET
        >>> backbone = ConvNet("resnet", {**RESNET, "stackwise_num_blocks": [1, 1, 1, 1]}, 64)
        >>> tuple(backbone(backbone.encode([np.zeros((20, 30), "uint8")])).shape)
        (1, 2, 2, 512)
    """

    read_by_classifier = "mean"

    def __init__(
        self, family, sizes, image_size=224, classes=(), preprocessing=None, name=None, dtype=None,
        exchanged=None,
    ):  # fmt: skip
        _check_family(family, FAMILIES)
        image_size = sides(image_size)
        dtype = keras.dtype_policies.get(dtype).name
        stages = conv_stages(family, sizes, image_size, dtype)
        images = x = keras.Input((*image_size, 3), name="images")
        for stage in stages:
            x = stage(x)
        about = {"family": family, "sizes": dict(sizes), "image_size": image_size}
        config = {**_config(about, classes, preprocessing, IMAGENET), "dtype": dtype}
        super().__init__(images, x, stages, config, exchanged, name or family)

    @property
    def lora_targets(self):
        return tuple(name for name in self._stages if name.startswith("block_"))


def _check_family(family, known):
    if family not in known:
        raise ValueError(f"family must be one of {', '.join(known)}, received {family!r}.")


def sides(image_size):
    """(H, W) of a pair, or of one side."""
    pair = tuple(image_size) if hasattr(image_size, "__iter__") else (image_size, image_size)
    if len(pair) != 2 or not all(isinstance(s, int | np.integer) and s > 0 for s in pair):
        raise ValueError(
            f"image_size must be one or two integers above 0, received {image_size!r}."
        )
    return tuple(map(int, pair))  # of numpy's JSON knows nothing


def _config(about, classes, preprocessing, statistics):
    encoder = ImageEncoder(**(preprocessing or {"size": about["image_size"], **statistics}))
    if encoder.size != tuple(about["image_size"]):
        raise ValueError(
            f"preprocessing makes images of {encoder.size}, and image_size is "
            f"{about['image_size']}."
        )
    return {**about, "classes": list(classes), "preprocessing": encoder.get_config()}


# Position embeddings ------------------------------------------------------------------------------


def interpolated(positions, first, grid, before=None):
    """Position embeddings for another grid of patches, bicubic.

    Args:
        positions: float array (1, first + P, D).
        first: tokens at the start that have no place in the image and stay as they are.
        grid: (rows, columns) of patches that are wanted.
        before: (rows, columns) that there are; None for a square.

    Returns:
        float array (1, first + rows * columns, D), float32 where anything changed.

    Raises:
        ValueError: P patches are not the rows and columns.

    Source: `interpolate_pos_encoding` of transformers 5 (ViT, DeiT, DINOv2), which is torch's
    bicubic interpolation: a = -0.75, edges repeated, no antialiasing. In numpy, since bicubic is
    another function in JAX and TensorFlow (a = -0.5, and what lies beyond the edges is left out).
    """
    count = positions.shape[1] - first
    before = before or (round(count**0.5),) * 2
    if before[0] * before[1] != count:
        raise ValueError(f"{count} position embeddings of patches are no grid of {before}.")
    if tuple(grid) == tuple(before):
        return positions
    plane = positions[0, first:].reshape(*before, -1).astype("float64")  # (rows, columns, D)
    rows, columns = (_bicubic(n, m) for n, m in zip(before, grid, strict=True))
    plane = np.einsum("ij,jkd,lk->ild", rows, plane, columns).reshape(1, -1, plane.shape[-1])
    return np.concatenate([positions[:, :first], plane], axis=1).astype("float32")


def _bicubic(before, after):
    """The matrix (after, before) of torch's bicubic interpolation along one axis."""
    a, matrix = -0.75, np.zeros((after, before))
    for i in range(after):
        centre = (i + 0.5) * before / after - 0.5
        start = int(np.floor(centre))
        for k in range(start - 1, start + 3):
            t = abs(centre - k)
            near = ((a + 2) * t - (a + 3)) * t * t + 1
            far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
            matrix[i, min(max(k, 0), before - 1)] += near if t <= 1 else far
    return matrix
