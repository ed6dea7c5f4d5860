"""Reading checkpoints of SAM: the original torch files and folders in Hugging Face's format.

References: `segment-anything` 1.0, `build_sam.py`; `transformers` 5, `models/sam`. Sizes are taken
from the shapes of the tensors of a torch file, and from config.json of a folder; never from a name.
Checkpoints are read strictly: every tensor is used, and every weight is filled but for the
constants of the pixels, which no file holds.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from kft.backbones.checkpoints import (
    MOST_BLOCKS,
    MOST_HEADS,
    MOST_WIDTH,
    Config,
    Origin,
    Tensors,
    fill,
)
from kft.backbones.sam.model import Sam
from kft.backbones.sam.names import SHARED, hugging_face_name, in_files, original_name

_MOST_PIXELS = 16_384
_COPY = "prompt_encoder.shared_embedding.positional_embedding"
_BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.")


# Folders ------------------------------------------------------------------------------------------


def from_hugging_face(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray] | None,
    source: str,
    dtype: Any = None,
    name: str = "sam",
) -> Sam:
    """Build a SAM from a Hugging Face configuration and, if given, its tensors.

    Args:
        config: Content of config.json.
        tensors: {name: array}, None for random weights.
        source: Name of the checkpoint in errors.
        dtype: Keras dtype policy.
        name: Name of the model.

    Returns:
        The model; its `load_report` lists what was filled.

    Raises:
        ValueError: Another architecture, or tensors that do not fit.
    """
    arguments = {**_arguments(Config(config, source), tensors), "name": name}
    sam = _built(arguments, source, dtype)
    if tensors is not None:
        depth = arguments["iou_depth"]
        named = {_COPY: SHARED} if _COPY in tensors else {}
        _fill(sam, tensors, source, lambda name: hugging_face_name(name, depth), named)
    return sam


def _built(arguments: Mapping[str, Any], source: str, dtype: Any) -> Sam:
    try:
        return Sam(**arguments, dtype=dtype)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _arguments(config: Config, tensors: Any) -> dict[str, Any]:
    """Return the constructor's arguments that a config.json describes."""
    config.insist("model_type", "sam", kind="a SAM")
    vision, prompts, decoder = (
        config.part(f"{name}_config") for name in ("vision", "prompt_encoder", "mask_decoder")
    )
    for key, value in {
        "hidden_act": "gelu",
        "num_channels": 3,
        "qkv_bias": True,
        "use_abs_pos": True,
        "use_rel_pos": True,
        "layer_norm_eps": 1e-6,
    }.items():
        vision.insist(key, value, value, kind="a SAM")
    for part, key, value in (
        (prompts, "hidden_act", "gelu"),
        (prompts, "num_point_embeddings", 4),
        (prompts, "layer_norm_eps", 1e-6),
        (decoder, "hidden_act", "relu"),
        (decoder, "num_multimask_outputs", 3),
    ):
        part.insist(key, value, value, kind="a SAM")
    blocks = vision.integer("num_hidden_layers", MOST_BLOCKS, default=12)
    width = vision.integer("hidden_size", MOST_WIDTH, default=768)
    hidden = int(width * vision.number("mlp_ratio", 4.0))
    if "mlp_dim" in vision:  # null is the ratio
        hidden = vision.integer("mlp_dim", 4 * MOST_WIDTH)
    config.check_size(blocks, width, hidden, tensors)
    prompt_width = prompts.integer("hidden_size", MOST_WIDTH, default=256)
    image_size = vision.integer("image_size", _MOST_PIXELS, default=1024)
    patch_size = vision.integer("patch_size", _MOST_PIXELS, default=16)
    _check_parts(vision, prompts, decoder, prompt_width, image_size, patch_size)
    automatic = config.part("automatic_masks")
    thresholds = [key for key in ("iou", "stability") if key in automatic]
    return {
        "automatic": {key: automatic.share(key) for key in thresholds},
        "num_blocks": blocks,
        "width": width,
        "num_heads": vision.integer("num_attention_heads", MOST_HEADS, default=12),
        "hidden_width": hidden,
        "global_blocks": vision.integers("global_attn_indexes", blocks - 1, (2, 5, 8, 11)),
        "image_size": image_size,
        "patch_size": patch_size,
        "window": vision.integer("window_size", _MOST_PIXELS, default=14),
        "prompt_width": prompt_width,
        "mask_channels": prompts.integer("mask_input_channels", MOST_WIDTH, default=16),
        "decoder_blocks": decoder.integer("num_hidden_layers", MOST_BLOCKS, default=2),
        "decoder_heads": decoder.integer("num_attention_heads", MOST_HEADS, default=8),
        "decoder_hidden_width": decoder.integer("mlp_dim", MOST_WIDTH, default=2048),
        "downsample": decoder.integer("attention_downsample_rate", MOST_WIDTH, default=2),
        "decoder_epsilon": decoder.number("layer_norm_eps", 1e-6),
        "iou_width": decoder.integer("iou_head_hidden_dim", MOST_WIDTH, default=256),
        "iou_depth": decoder.integer("iou_head_depth", MOST_BLOCKS, 2, default=3),
    }


def _check_parts(
    vision: Config, prompts: Config, decoder: Config, width: int, size: int, patch_size: int
) -> None:
    """Check entries that say again what another one says."""
    for part, key, value, default in (
        (vision, "output_channels", width, 256),
        (decoder, "hidden_size", width, 256),
        (vision, "num_pos_feats", width // 2, width // 2),
        (prompts, "image_size", size, size),
        (prompts, "patch_size", patch_size, patch_size),
        (prompts, "image_embedding_size", size // patch_size, size // patch_size),
    ):
        part.insist(key, value, default, kind="a SAM whose parts fit")


# Torch files --------------------------------------------------------------------------------------


def is_original(checkpoint: Any) -> bool:
    """Return whether the content of a torch file is that of an original SAM."""
    return isinstance(checkpoint, Mapping) and {
        "image_encoder.patch_embed.proj.weight",
        "mask_decoder.iou_token.weight",
    } <= set(checkpoint)


def from_original(checkpoint: Mapping[str, np.ndarray], source: str, dtype: Any = None) -> Sam:
    """Build a SAM from an original torch file, by the shapes of its tensors.

    Args:
        checkpoint: {name: array}.
        source: Name of the file in errors.
        dtype: Keras dtype policy.

    Returns:
        The model; its `load_report` lists what was filled.

    Raises:
        ValueError: Tensors that do not fit.
    """
    tensors = Tensors.of(checkpoint, source=source)
    try:
        arguments = _sizes(tensors)
    except (KeyError, ValueError, ZeroDivisionError, IndexError) as error:
        raise ValueError(
            f"{source} is not a complete SAM, the sizes cannot be read from its tensors: {error}. "
            f"The file is incomplete, or of another architecture."
        ) from None
    sam = _built(arguments, source, dtype)
    _fill(sam, tensors, source, lambda name: name, {})
    return sam


def _sizes(tensors: Tensors) -> dict[str, Any]:
    """Return the constructor's arguments that the shapes of tensors tell."""
    width, _, patch_size, _ = tensors.shape("image_encoder.patch_embed.proj.weight")
    _, grid, _, _ = tensors.shape("image_encoder.pos_embed")
    blocks = 1 + max(int(found[1]) for name in tensors if (found := _BLOCK.match(name)))
    first = "image_encoder.blocks.0."
    reach = [
        (tensors.shape(f"image_encoder.blocks.{i}.attn.rel_pos_h")[0] + 1) // 2
        for i in range(blocks)
    ]
    windows = sorted({side for side in reach if side != grid})
    if len(windows) > 1:
        raise ValueError(f"windows of several sides, {windows}")
    in_decoder = "mask_decoder.transformer.layers."
    prompt_width = tensors.shape("mask_decoder.iou_token.weight")[1]
    inner = tensors.shape(f"{in_decoder}0.cross_attn_token_to_image.q_proj.weight")[0]
    heads = "mask_decoder.iou_prediction_head.layers."
    return {
        "num_blocks": blocks,
        "width": width,
        "num_heads": width // tensors.shape(f"{first}attn.rel_pos_h")[1],
        "hidden_width": tensors.shape(f"{first}mlp.lin1.weight")[0],
        "global_blocks": [i for i, side in enumerate(reach) if side == grid],
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "window": windows[0] if windows else grid,
        "prompt_width": prompt_width,
        "mask_channels": tensors.shape("prompt_encoder.mask_downscaling.3.weight")[0],
        "decoder_blocks": _count(tensors, in_decoder),
        "decoder_hidden_width": tensors.shape(f"{in_decoder}0.mlp.lin1.weight")[0],
        "downsample": prompt_width // inner,
        "iou_width": tensors.shape(f"{heads}0.weight")[0],
        "iou_depth": _count(tensors, heads),
    }


def _count(names: Iterable[str], prefix: str) -> int:
    """Return how many numbers follow a prefix in the names of tensors."""
    return len(
        {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}
    )


# Filling ------------------------------------------------------------------------------------------


def _fill(
    sam: Sam,
    tensors: Mapping[str, np.ndarray],
    source: str,
    renamed: Callable[[str], str],
    tied: Mapping[str, str],
) -> None:
    """Fill the weights of a model from tensors that are called `renamed(name in the original)`."""
    if not isinstance(tensors, Tensors):
        tensors = Tensors.of(tensors, source=source)
    names = {name.removeprefix("sam."): name for name in tensors}
    if _COPY in names and SHARED not in names:  # a file holds one of two tied tensors
        names[SHARED], tied = names.pop(_COPY), {}
    variables = in_files(sam)
    origins = {
        path: Origin(
            (renamed(original_name(path)),),
            _torch_shape(variable),
            _oriented if variable.name == "kernel" else np.asarray,
        )
        for path, variable in variables.items()
    }
    sam.load_report = fill(
        variables,
        origins,
        tensors,
        names=names,
        source=source,
        kind="a SAM",
        skipped=re.compile(r"pixel_mean|pixel_std"),
        tied=tied,
    )


def _torch_shape(variable: keras.Variable) -> tuple[int, ...]:
    """Return the shape that torch keeps a weight in."""
    shape = tuple(variable.shape)
    if variable.name != "kernel":
        return shape
    return shape[::-1] if len(shape) == 2 else (shape[3], shape[2], shape[0], shape[1])


def _oriented(array: np.ndarray) -> np.ndarray:
    """Turn torch's array of a kernel into Keras's."""
    # (out, in) -> (in, out); (out, in, h, w) -> (h, w, in, out), and of a transposed convolution
    # (in, out, h, w) -> (h, w, out, in)
    return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
