"""SAM, which segments what a prompt shows (Kirillov et al. 2023, arXiv:2304.02643).

It is a model by itself and not a backbone with a head: prompt encoder and mask decoder were trained
with the image encoder, and make sense only with it. Its stages are those of the image encoder, each
its own node of the graph, so that it is frozen and cut at its frontier as any backbone. Paths of
layers are those of the reference, `segment-anything` 1.0, with Keras's names of weights (kernel for
weight, gamma and beta in norms); `names.original_name` translates them.

Differences from the reference: those of `prompts`, `images` and `layers`. Pixels are normalised
inside of the model ("image_encoder/pixels"), by constants that are saved with it; the positions of
patches are in "image_encoder/patch_embed". All four masks are given: the first, meant for many
prompts, and the three for one prompt.

Shapes: `B` images, `N` objects of each, `P` prompts of each object, `S` side of the input in
pixels, `h` = `w` = S / patch size, `C` width of the prompts, `K` = 4 masks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from kft.arguments import check_integer
from kft.backbones.base import Backbone
from kft.backbones.quantized import dtype_of, quantize_as
from kft.backbones.sam import writing
from kft.backbones.sam.decoder import MaskDecoder
from kft.backbones.sam.encoder import GridEmbedding, ImageBlock, Neck, Pixels
from kft.backbones.sam.images import SamImages
from kft.backbones.sam.prompts import PromptEncoder
from kft.keras_internals import set_untracked


@keras.saving.register_keras_serializable("kft")
class Sam(Backbone):
    """SAM: images and prompts -> masks and their predicted IoU.

    It takes a dict of "images", float (B, S, S, 3) from 0 to 255; "points", float (B, N, P, 2), x
    and y in pixels of the input; "labels", int (B, N, P), see `kft.backbones.sam.prompts`; "masks",
    float (B, N, 4 h, 4 w), logits of rough masks; and "has_mask", float (B, N), 1 where there is
    one. It returns {"masks": float (B, N, K, 4 h, 4 w), logits; "iou": float (B, N, K)}.
    `kft.segmentation.Predictor` takes images and prompts of any size.

    Args:
        num_blocks: Number of blocks of the image encoder.
        width: D.
        num_heads: Number of attention heads of the image encoder.
        global_blocks: Numbers of the blocks whose attention is over the whole image, from 0.
        image_size: S, a multiple of `patch_size`.
        patch_size: Side of a patch in pixels.
        window: Side of the windows of attention in the other blocks, in patches.
        hidden_width: Units inside the feed-forwards of the image encoder; None for 4 D.
        prompt_width: C, a multiple of 8 and of `decoder_heads`.
        mask_channels: Channels between the convolutions of rough masks, a multiple of 4.
        decoder_blocks: Number of blocks of the mask decoder.
        decoder_heads: Number of its attention heads.
        decoder_hidden_width: Units inside its feed-forwards.
        downsample: C divided by the width of all heads between tokens and image.
        decoder_epsilon: Epsilon of its norms: 1e-5 in the original code, 1e-6 in transformers.
        iou_width: Units inside the head that predicts the IoU.
        iou_depth: Number of its layers.
        preprocessing: Arguments of `SamImages`; None for the usual ones.
        automatic: Thresholds of automatic masks that fit this model: "iou" and "stability" of
            `kft.segmentation.Settings`; None for those of the original.
        name: Name of the Keras model.
        dtype: Keras dtype or policy, such as "mixed_bfloat16".

    Attributes:
        stages: Layers of the image encoder in order.
        width: C.
        image_size: S.
        grid: h.
        image_encoder: Functional model, {"images": (B, S, S, 3)} -> embedding (B, h, w, C).
        decode: Functional model of the rest, which takes "embedding" in place of "images".
        encode: `SamImages`, from images of any kind and size to {"images": array}.
        automatic: The thresholds of automatic masks, a dict; empty for those of the original.
        value_range: (black, white) of images of 16 bits, None if it is not known; it can be set.
        parts: {name of a strategy: patterns of the layers that it trains}.

    Raises:
        ValueError: Sizes that do not fit together.

    Example:
        >>> sam = Sam(1, 32, 2, image_size=64, prompt_width=32, decoder_hidden_width=32)
        >>> sam.image_encoder.output_shape, sam.output["masks"].shape
        ((None, 4, 4, 32), (None, None, 4, 16, 16))
    """

    lora_targets = ("qkv", "q_proj", "v_proj")
    parts: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "iou_head": ("mask_decoder/iou_prediction_head",),
            "mask_decoder": ("mask_decoder",),
            "prompt_and_decoder": ("prompt_encoder", "mask_decoder"),
        }
    )

    def __init__(
        self,
        num_blocks: int,
        width: int,
        num_heads: int,
        global_blocks: Sequence[int] = (),
        image_size: int = 1024,
        patch_size: int = 16,
        window: int = 14,
        hidden_width: int | None = None,
        prompt_width: int = 256,
        mask_channels: int = 16,
        decoder_blocks: int = 2,
        decoder_heads: int = 8,
        decoder_hidden_width: int = 2048,
        downsample: int = 2,
        decoder_epsilon: float = 1e-5,
        iou_width: int = 256,
        iou_depth: int = 3,
        preprocessing: Mapping[str, Any] | None = None,
        automatic: Mapping[str, float] | None = None,
        name: str = "sam",
        dtype: Any = None,
    ):
        sizes = {
            "num_blocks": num_blocks,
            "width": width,
            "num_heads": num_heads,
            "image_size": image_size,
            "patch_size": patch_size,
            "window": window,
            "hidden_width": hidden_width or 4 * width,
            "prompt_width": prompt_width,
            "mask_channels": mask_channels,
            "decoder_blocks": decoder_blocks,
            "decoder_heads": decoder_heads,
            "decoder_hidden_width": decoder_hidden_width,
            "downsample": downsample,
            "iou_width": iou_width,
            "iou_depth": iou_depth,
        }
        _check(sizes, global_blocks)
        asked, (dtype, dtype_config) = dtype, dtype_of(dtype)
        grid = image_size // patch_size
        stages = _stages(sizes, set(global_blocks), dtype)
        prompt_encoder = PromptEncoder(
            prompt_width, image_size, grid, mask_channels, name="prompt_encoder", dtype=dtype
        )
        mask_decoder = MaskDecoder(
            prompt_width,
            decoder_blocks,
            decoder_heads,
            decoder_hidden_width,
            downsample,
            decoder_epsilon,
            iou_width,
            iou_depth,
            name="mask_decoder",
            dtype=dtype,
        )
        images = embedding = keras.Input((image_size, image_size, 3), name="images")
        for stage in stages:
            embedding = stage(embedding)
        prompts = prompt_inputs(4 * grid)
        outputs = mask_decoder(embedding, prompt_encoder(**prompts))
        super().__init__({"images": images, **prompts}, outputs, stages, name, width=prompt_width)
        config = {
            **sizes,
            "global_blocks": sorted(global_blocks),
            "decoder_epsilon": decoder_epsilon,
            "dtype": dtype_config,
        }
        automatic = dict(automatic or {})
        set_untracked(self, _config=config, image_size=image_size, grid=grid, automatic=automatic)
        self.encode = SamImages(**{"size": image_size, **(preprocessing or {})})
        quantize_as(self, asked)

    # Not attributes that Keras tracks: their layers are in this graph, and would be listed twice.
    @property
    def image_encoder(self) -> keras.Model:
        return self._parts["image_encoder"]

    @property
    def decode(self) -> keras.Model:
        return self._parts["decode"]

    @cached_property
    def _parts(self) -> dict[str, keras.Model]:
        images = {"images": self.input["images"]}
        found = {"image_encoder": keras.Model(images, self.embedding, name="image_encoder")}
        embedding = keras.Input(self.embedding.shape[1:], name="embedding")
        prompts = prompt_inputs(4 * self.grid)
        encoded = self.get_layer("prompt_encoder")(**prompts)
        outputs = self.get_layer("mask_decoder")(embedding, encoded)
        found["decode"] = keras.Model({"embedding": embedding, **prompts}, outputs, name="decode")
        return found

    @property
    def embedding(self) -> keras.KerasTensor:
        """Symbolic float (B, h, w, C): the output of the image encoder in the graph."""
        return self.stages[-1].output

    @property
    def value_range(self) -> tuple[float, float] | None:
        return self.encode.value_range

    @value_range.setter
    def value_range(self, value_range: tuple[float, float] | None) -> None:
        self.encode = replace(self.encode, value_range=value_range)

    @property
    def head_layers(self) -> list[keras.Layer]:
        """The layers behind the stages, which strategies for heads train."""
        return [self.get_layer(name) for name in ("prompt_encoder", "mask_decoder")]

    def fan_in(self, variable: keras.Variable) -> float | None:
        """Return how many numbers one output of a weight is summed over, see `contract.fan_in`."""
        if variable.name == "pos_embed":
            return 2500  # a deviation of 0.02
        if variable.name in ("weight", "positional_encoding_gaussian_matrix"):
            return 1  # a deviation of 1, as in the reference
        if "output_upscaling" in variable.path and len(variable.shape) == 4:
            return variable.shape[-1]  # (2, 2, outputs, inputs), of which none overlap
        if len(variable.shape) == 4:
            return int(np.prod(variable.shape[:-1]))  # no rectifier follows
        return super().fan_in(variable)

    def to_hugging_face(self, dtype: str | None = None) -> tuple[dict[str, Any], dict]:
        """Return the content of config.json and the tensors, see `kft.backbones.save`."""
        return writing.to_hugging_face(self, dtype)

    def get_config(self) -> dict[str, Any]:
        own = {
            **self._config,
            "preprocessing": self.encode.get_config(),
            "automatic": dict(self.automatic),
        }
        return {**own, **super().get_config()}


def prompt_inputs(mask_side: int) -> dict[str, keras.KerasTensor]:
    """Return the symbolic inputs of the prompt encoder, see `Sam`.

    Args:
        mask_side: Side 4 h of rough masks.
    """
    return {
        "points": keras.Input((None, None, 2), name="points"),
        "labels": keras.Input((None, None), dtype="int32", name="labels"),
        "masks": keras.Input((None, mask_side, mask_side), name="masks"),
        "has_mask": keras.Input((None,), name="has_mask"),
    }


def _stages(sizes: Mapping[str, int], global_blocks: set[int], dtype: Any) -> list[keras.Layer]:
    """Return the layers of the image encoder."""
    grid = sizes["image_size"] // sizes["patch_size"]
    blocks = [
        ImageBlock(
            sizes["width"],
            sizes["num_heads"],
            sizes["hidden_width"],
            (grid, grid),
            0 if i in global_blocks else sizes["window"],
            name=f"image_encoder__blocks__{i}",
            dtype=dtype,
        )
        for i in range(sizes["num_blocks"])
    ]
    patches = {"name": "image_encoder__patch_embed", "dtype": dtype}
    return [
        Pixels(name="image_encoder__pixels", dtype=dtype),
        GridEmbedding(sizes["width"], sizes["patch_size"], **patches),
        *blocks,
        Neck(sizes["prompt_width"], name="image_encoder__neck", dtype=dtype),
    ]


def _check(sizes: Mapping[str, Any], global_blocks: Any) -> None:
    """Raise an error for sizes that do not fit together."""
    for name, value in sizes.items():
        check_integer(name, value)
    if not isinstance(global_blocks, Sequence):
        raise ValueError(f"global_blocks must be a list of integers, received {global_blocks!r}.")
    for i in global_blocks:
        check_integer("each of global_blocks", i, 0, sizes["num_blocks"] - 1)
    multiples = (
        ("image_size", "patch_size", 1),
        ("width", "num_heads", 1),
        ("prompt_width", "decoder_heads", 1),
        ("prompt_width", "downsample", sizes["decoder_heads"]),
    )
    for large, small, factor in multiples:
        if sizes[large] % (sizes[small] * factor):
            times = f" times {factor} heads" if factor > 1 else ""
            raise ValueError(
                f"{large} must be a multiple of {small}{times}, received {large}={sizes[large]} "
                f"and {small}={sizes[small]}."
            )
    for name, factor in (("prompt_width", 8), ("mask_channels", 4)):
        if sizes[name] % factor:
            raise ValueError(f"{name} must be a multiple of {factor}, received {sizes[name]}.")
