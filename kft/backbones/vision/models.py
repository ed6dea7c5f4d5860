"""Vision backbones from keras-hub's layers: ViT, DeiT, DINOv2, DINOv3 and convolutional networks.

References: Dosovitskiy et al. 2021, arXiv:2010.11929 (ViT); Touvron et al. 2021, arXiv:2012.12877
(DeiT); Oquab et al. 2023, arXiv:2304.07193 (DINOv2); Siméoni et al. 2025, arXiv:2508.10104
(DINOv3); He et al. 2016, arXiv:1512.03385 (ResNet); Tan and Le 2019, arXiv:1905.11946
(EfficientNet); Howard et al. 2019, arXiv:1905.02244 (MobileNetV3); and the code of `keras-hub` 0.32
and `transformers` 5, whose numbers these are.

keras-hub keeps all blocks of a transformer in one layer, and those of a ResNet in none. Here each
block is a separate layer, called as its own node of the graph: the block layers of keras-hub's
transformers, and its convolutional graphs cut at the ends of their blocks.

Differences from the reference: no dropout and no stochastic depth; DINOv3's coordinates of patches
are not shifted or rescaled at random in training. Position embeddings are those
of the model's own image size: another size interpolates them once, when weights are loaded, and
what is trained then are the interpolated ones. The embedding is written here: keras-hub's ViT has
no other sizes, and its DINOv2 keeps two tables, of which a saved file may hold the untrained one.

Shapes: `B` images in a batch, `H` and `W` their height and width, `p` the side of a patch, `T`
tokens that come first (class, distillation, registers), `P` = H W / p^2 patches, `L` = T + P, `D`
width.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kft.arguments import check_integer
from kft.backbones.base import Backbone
from kft.backbones.contract import QUERY_AND_VALUE, ModuleNames
from kft.backbones.copies import Copied, flags, marked
from kft.backbones.quantized import dtype_of, quantize_as
from kft.backbones.vision import names
from kft.backbones.vision.images import HALF, IMAGENET, ImageEncoder
from kft.backbones.vision.keras_hub_parts import (
    BIASES,
    DINOV3_OPTIONS,
    FAMILIES,
    conv_stages,
    encoder_block,
)
from kft.backbones.vision.layers import PatchEmbedding, PatchMask, Summary
from kft.backbones.vision.positions import interpolated
from kft.keras_internals import set_untracked, sublayers_of

# Tokens before the patches, with their names in Hugging Face; registers come after them.
TOKENS = {
    "vit": ("cls_token",),
    "deit": ("cls_token", "distillation_token"),
    "dinov2": ("cls_token",),
    "dinov3_vit": ("cls_token",),
}


class VisionBackbone(Backbone):
    """Base class of vision backbones: {"images": float (B, H, W, 3)} -> features.

    See `VisionTransformer` and `ConvNet`.

    Attributes:
        stages: Layers in order, each its own node of the graph.
        width: D.
        image_size: (H, W) in pixels.
        encode: `ImageEncoder`, from images of any kind and size to the model's input.
        value_range: (black, white) of images of 16 bits, None if it is not known; it can be set.
        classes: Names of the classes of `classifier`, empty if there is none.
        lora_targets: Patterns of the layers that `kft.add_lora` adapts by default.
    """

    encode: ImageEncoder

    def __init__(
        self,
        images: keras.KerasTensor,
        features: keras.KerasTensor,
        stages: Sequence[keras.Layer],
        config: dict[str, Any],
        name: str,
    ):
        super().__init__({"images": images}, features, stages, name)
        set_untracked(self, _config=config)
        self.image_size, self.classes = tuple(config["image_size"]), tuple(config["classes"])
        self.encode = ImageEncoder(**config["preprocessing"])

    @property
    def value_range(self) -> tuple[float, float] | None:
        return self.encode.value_range

    @value_range.setter
    def value_range(self, value_range: tuple[float, float] | None) -> None:
        self.encode = replace(self.encode, value_range=value_range)

    # Not a layer of the backbone: a fine-tuned model must not hold weights that no gradient
    # reaches. Keras's saving finds it as an attribute, so that its weights are in every file.
    @cached_property
    def classifier(self) -> "ImageClassifier":
        """The keras.Model from images to logits (B, K), see `ImageClassifier`."""
        return ImageClassifier(self)

    @property
    def published_heads(self) -> list[keras.Layer]:
        """The layer of the classifier, if there is one."""
        return [self.classifier.get_layer("classifier")] if self.classes else []

    def fan_in(self, variable: keras.Variable) -> float | None:
        """Return how many numbers one output of a weight is summed over, see `contract.fan_in`."""
        if variable.name in ("positions", "register_tokens"):
            return 2500  # a deviation of 0.02
        if variable.path.endswith("patches/kernel"):  # (p, p, 3, D), with no rectifier behind it
            return int(np.prod(variable.shape[:-1]))
        return super().fan_in(variable)

    def resized(self, image_size: int | tuple[int, int]) -> "VisionBackbone":
        """Copy the backbone for another image size; position embeddings are interpolated.

        The copy has the same weights, those of the classifier too.

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
            if ours.name == "positions":
                new, old = copy.stages[0], self.stages[0]
                values = interpolated(values, new.first, new.grid, old.grid)
            ours.assign(values)
        return copy

    def _by_path(self) -> dict[str, keras.Layer]:
        """Return {path of Keras: layer}, as in the files of earlier versions."""
        return {layer.path: layer for layer in sublayers_of(self)}

    def get_config(self) -> dict[str, Any]:
        own = {**self._config, "preprocessing": self.encode.get_config()}
        return {**own, **super().get_config()}


@keras.saving.register_keras_serializable("kft")
class ImageClassifier(Copied):
    """A vision backbone with the classifier that it was published with: images -> logits (B, K).

    Args:
        backbone: The backbone, whose layers are shared.

    Raises:
        ValueError: A backbone without classes.
    """

    def __init__(self, backbone: VisionBackbone):
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
        set_untracked(self, _serialized=lambda: keras.saving.serialize_keras_object(backbone))

    def get_config(self) -> dict[str, Any]:
        return {"backbone": self._serialized(), **flags(self)}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.Model:
        return marked(keras.saving.deserialize_keras_object(config["backbone"]).classifier, config)


# The backbones ------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class VisionTransformer(VisionBackbone):
    """Vision transformer: {"images": float (B, H, W, 3)} -> float (B, L, D) after the final norm.

    A DINOv3 has no position embeddings: queries and keys of patches are rotated by their row and
    column, for any image size.

    Args:
        family: "vit", "deit", "dinov2" or "dinov3_vit"; a DeiT without distillation is a ViT.
        num_blocks: Number of encoder blocks.
        width: D.
        num_heads: Number of attention heads.
        hidden_width: Units inside a feed-forward; None means 4 D.
        patch_size: p in pixels.
        image_size: (H, W) or one side in pixels, multiples of p.
        epsilon: Epsilon of the layer norms; that of DINOv2's blocks is always 1e-6.
        swiglu: Whether feed-forwards are gated, as in some DINOv2, where they then have two thirds
            of `hidden_width`, and in some DINOv3.
        num_registers: Number of register tokens, of a DINOv3 only, as the next three.
        rope_theta: Ratio between the largest and the smallest frequency of the rotations.
        activation: "gelu" or "silu", in the feed-forwards.
        biases: Which layers of a block add a bias, of "query", "key", "value", "proj" (the output
            of attention) and "mlp".
        classes: Names of the published classes, or empty.
        preprocessing: Arguments of `ImageEncoder`; None resizes to the image size.
        name: Name of the Keras model.
        dtype: Keras dtype or policy, such as "mixed_bfloat16".

    Attributes:
        position_mask: symbolic bool (B, L), True at patches: what pooling counts.

    Raises:
        ValueError: Sizes that do not fit together, or an option that the family does not have.
        ImportError: keras-hub is not installed.

    Example:
        >>> backbone = VisionTransformer("vit", 2, 32, 4, patch_size=8, image_size=32)
        >>> tuple(backbone(backbone.encode([np.zeros((20, 30), "uint8")])).shape)
        (1, 17, 32)
    """

    objectives: tuple[str, ...] = ("masked_autoencoding",)

    def __init__(
        self,
        family: Literal["vit", "deit", "dinov2", "dinov3_vit"],
        num_blocks: int,
        width: int,
        num_heads: int,
        hidden_width: int | None = None,
        patch_size: int = 16,
        image_size: int | tuple[int, int] = 224,
        epsilon: float = 1e-6,
        swiglu: bool = False,
        num_registers: int = 0,
        rope_theta: float = 100.0,
        activation: Literal["gelu", "silu"] = "gelu",
        biases: Sequence[str] = DINOV3_OPTIONS["biases"],
        classes: Sequence[str] = (),
        preprocessing: dict[str, Any] | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        _check_family(family, TOKENS)
        image_size = sides(image_size)
        dinov3 = {
            "num_registers": num_registers,
            "rope_theta": rope_theta,
            "activation": activation,
            "biases": tuple(biases),
        }
        check_integer("num_blocks", num_blocks)
        check_integer("width", width)
        check_integer("num_heads", num_heads)
        check_integer("patch_size", patch_size)
        if width % num_heads or any(side % patch_size for side in image_size):
            raise ValueError(
                f"width must be a multiple of num_heads and image_size one of patch_size, received "
                f"{width=}, {num_heads=}, {image_size=}, {patch_size=}."
            )
        _check_dinov3(family, width // num_heads, dinov3)
        asked, (dtype, dtype_config) = dtype, dtype_of(dtype)
        sizes = {
            "family": family,
            "num_blocks": num_blocks,
            "width": width,
            "num_heads": num_heads,
            "hidden_width": hidden_width or 4 * width,
            "patch_size": patch_size,
            "image_size": image_size,
            "epsilon": epsilon,
            "swiglu": swiglu,
            **(dinov3 if family == "dinov3_vit" else {}),
        }
        embedding = PatchEmbedding(
            width,
            patch_size,
            image_size,
            TOKENS[family],
            num_registers,
            has_positions=family != "dinov3_vit",
            name="embedding",
            dtype=dtype,
        )
        blocks = [encoder_block(sizes, f"block_{i}", dtype) for i in range(num_blocks)]
        norm = keras.layers.LayerNormalization(epsilon=epsilon, name="final_norm", dtype=dtype)
        stages = [embedding, *blocks, norm]

        images = x = keras.Input((*image_size, 3), name="images")
        for stage in stages:
            x = stage(x)
        statistics = HALF if family == "vit" else IMAGENET
        config = {**_config(sizes, classes, preprocessing, statistics), "dtype": dtype_config}
        super().__init__(images, x, stages, config, name or family)
        if not embedding.has_positions:  # its blocks rotate all patches, and cannot take a part
            self.objectives = ()
        mask = PatchMask(embedding.first, embedding.length, name="position_mask", dtype=dtype)
        self.position_mask = mask(images)
        quantize_as(self, asked)

    @property
    def read_by_classifier(self) -> str:
        """What the published classifier reads, see `Summary`."""
        return names.READ_BY_CLASSIFIER.get(self._config["family"], "cls")

    @property
    def lora_targets(self) -> tuple[str, ...]:
        return ("q_proj", "v_proj") if self._config["family"] == "dinov3_vit" else QUERY_AND_VALUE

    def decoder_block(self, width: int, num_heads: int, name: str, dtype: Any) -> keras.Layer:
        """Return a new ViT block of another width, for a decoder behind this backbone."""
        sizes = {
            "family": "vit",
            "width": width,
            "num_heads": num_heads,
            "hidden_width": 4 * width,
            "epsilon": 1e-6,
        }
        return encoder_block(sizes, name, dtype)

    def module_names(
        self, paths: Iterable[str], head: keras.Layer | None, head_path: str
    ) -> ModuleNames:
        """Return what Hugging Face calls the layers, see `Backbone`."""
        return names.module_names(self._config, paths, head, head_path)


@keras.saving.register_keras_serializable("kft")
class ConvNet(VisionBackbone):
    """ResNet, EfficientNet or MobileNet: {"images": float (B, H, W, 3)} -> float (B, h, w, D).

    Its stages are "stem", "block_0" ..., and what follows the last block ("final_norm" of a
    ResNetV2, "top" of the other two): functional models of keras-hub's own layers.

    Args:
        family: "resnet", "efficientnet" or "mobilenet".
        sizes: Arguments of the constructor of keras-hub's backbone of that family.
        image_size: (H, W) or one side in pixels.
        classes: Names of the classes of the published classifier.
        preprocessing: Arguments of the `ImageEncoder`; None for the usual one.
        name: Name of the model.
        dtype: As for keras.layers.Layer.

    Raises:
        ValueError: An unknown family.
        ImportError: keras-hub is not installed.

    Example:
        >>> from kft.backbones.vision.published import RESNET
        >>> backbone = ConvNet("resnet", {**RESNET, "stackwise_num_blocks": [1, 1, 1, 1]}, 64)
        >>> tuple(backbone(backbone.encode([np.zeros((20, 30), "uint8")])).shape)
        (1, 2, 2, 512)
    """

    read_by_classifier = "mean"

    def __init__(
        self,
        family: Literal["resnet", "efficientnet", "mobilenet"],
        sizes: dict[str, Any],
        image_size: int | tuple[int, int] = 224,
        classes: Sequence[str] = (),
        preprocessing: dict[str, Any] | None = None,
        name: str | None = None,
        dtype: Any = None,
    ):
        _check_family(family, FAMILIES)
        image_size = sides(image_size)
        asked, (dtype, dtype_config) = dtype, dtype_of(dtype)
        stages = conv_stages(family, sizes, image_size, dtype)
        images = x = keras.Input((*image_size, 3), name="images")
        for stage in stages:
            x = stage(x)
        architecture = {"family": family, "sizes": dict(sizes), "image_size": image_size}
        config = {
            **_config(architecture, classes, preprocessing, IMAGENET),
            "dtype": dtype_config,
        }
        super().__init__(images, x, stages, config, name or family)
        quantize_as(self, asked)

    @property
    def lora_targets(self) -> tuple[str, ...]:
        return tuple(name for name in self._stages if name.startswith("block_"))


def _check_family(family: str, known: Iterable[str]) -> None:
    if family not in known:
        raise ValueError(f"family must be one of {', '.join(known)}, received {family!r}.")


def _check_dinov3(family: str, head_width: int, options: Mapping[str, Any]) -> None:
    """Raise an error for options that a family does not have, or that a DINOv3 cannot have."""
    changed = [name for name, value in options.items() if value != DINOV3_OPTIONS[name]]
    if family != "dinov3_vit":
        if changed:
            raise ValueError(
                f'{", ".join(changed)}: only a "dinov3_vit" has this, received {family=}.'
            )
        return
    if head_width % 4:
        raise ValueError(
            f"The width of one head of a DINOv3, width / num_heads, must be a multiple of 4, "
            f"received {head_width}."
        )
    if options["activation"] not in ("gelu", "silu"):
        raise ValueError(f"activation must be gelu or silu, received {options['activation']!r}.")
    if unknown := set(options["biases"]) - set(BIASES):
        raise ValueError(f"biases must be of {', '.join(BIASES)}, received {sorted(unknown)}.")


def sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (H, W) of a pair, or of one side.

    Raises:
        ValueError: Neither one integer above 0 nor two.
    """
    pair = tuple(image_size) if hasattr(image_size, "__iter__") else (image_size, image_size)
    if len(pair) != 2:
        raise ValueError(f"image_size must be one integer or two, received {image_size!r}.")
    return check_integer("image_size", pair[0]), check_integer("image_size", pair[1])


def _config(
    architecture: Mapping[str, Any],
    classes: Sequence[str],
    preprocessing: Mapping[str, Any] | None,
    statistics: Mapping[str, Any],
) -> dict[str, Any]:
    encoder = ImageEncoder(**(preprocessing or {"size": architecture["image_size"], **statistics}))
    if encoder.size != tuple(architecture["image_size"]):
        raise ValueError(
            f"preprocessing makes images of {encoder.size}, and image_size is "
            f"{architecture['image_size']}."
        )
    return {**architecture, "classes": list(classes), "preprocessing": encoder.get_config()}
