"""Backbones: pre-trained models as functional Keras graphs, each with its ordered `stages`."""

import difflib
import json
import warnings
from pathlib import Path

import numpy as np

from kft.backbones import esm2, esm2_weights
from kft.backbones.checkpoints import hub_folder, read_safetensors, read_torch

_SHIPPED = Path(__file__).parent / "shipped"  # a Hugging Face folder each, with its model card


def names():
    """The models that `kft.load` knows by name: first what ships with kft, then the published."""
    shipped = sorted(config.parent.name for config in _SHIPPED.glob("*/config.json"))
    return [*shipped, *esm2.PUBLISHED]


def load(name, weights=True, seed=0, dtype=None):
    """Loads a backbone by its published name, or from a local folder or file.

    Args:
        name: one of `kft.backbones.names()`: "kft_esm2_tiny", which ships with kft and whose
            `contacts` are random, or a published
            name, whose weights come from the Hugging Face hub and are kept in its cache; a local
            folder in Hugging Face's format; or a FAIR `.pt` file, beside which
            "-contact-regression.pt" is looked for.
        weights: False gives the architecture with random weights, and never needs the network.
        seed: int from which random weights are drawn, the same on every backend.
        dtype: Keras dtype policy, "mixed_bfloat16" for one; None takes Keras's present policy.

    Returns:
        The backbone, a functional keras.Model; `backbone.load_report` tells what became of each
        tensor of the file.

    Raises:
        ValueError: unknown name (the message lists the valid ones), a file that is damaged or
            carries code, another architecture, tensors that do not fit.
        FileNotFoundError: a folder without weights, or a missing file.
        ConnectionError: the hub cannot be reached; the message names the local alternatives.

    Example:
        >>> import kft
        >>> kft.load("esm2_t6_8M_UR50D", weights=False).width
        320
    """
    path = Path(name)
    if name in esm2.PUBLISHED:
        if not weights:
            num_blocks, width, num_heads = esm2.PUBLISHED[name]
            return randomised(esm2.ESM2(num_blocks, width, num_heads, dtype=dtype), seed)
        return _from_folder(hub_folder(f"facebook/{name}"), name, True, seed, dtype)
    if name in names():
        with warnings.catch_warnings():
            # Its card says so: contacts need structures to learn from.
            warnings.filterwarnings("ignore", message=".*holds no weights for backbone.contacts")
            return _from_folder(_SHIPPED / name, name, weights, seed, dtype)
    if path.is_dir():
        return _from_folder(path, str(name), weights, seed, dtype)
    if path.is_file():
        return _from_file(path, weights, seed, dtype)
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

    Inputs are the rows of a kernel and the columns of a table, so that activations and logits
    start at a size of about 1. (With transformers' 0.02 at every width, a narrow ESM-2 stands
    still for its first epochs.) Drawn with numpy in the order of the weights: the same seed gives
    the same model on every backend. Norms and biases keep what they start from.
    """
    rng = np.random.default_rng(seed)
    heads = backbone.masked_lm.get_layer("lm_head"), backbone.contacts.get_layer("contact_head")
    for variable in [v for part in (backbone, *heads) for v in part.weights]:
        inputs = {"kernel": 0, "embeddings": 1}.get(variable.name)
        if inputs is not None:
            values = rng.standard_normal(variable.shape, dtype="float32")
            variable.assign(values / np.sqrt(variable.shape[inputs], dtype="float32"))
    return backbone


def _from_folder(folder, source, weights, seed, dtype):
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} has no config.json: it is no Hugging Face model folder."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Download it again.") from error
    if not weights:
        backbone = esm2_weights.from_hugging_face(config, None, source, dtype)
        return randomised(backbone, seed)
    return esm2_weights.from_hugging_face(config, read_safetensors(folder), source, dtype)


def _from_file(path, weights, seed, dtype):
    if path.suffix == ".keras":
        raise ValueError(f"{path} is a Keras model: open it with keras.saving.load_model.")
    if path.suffix in (".safetensors", ".bin"):
        return _from_folder(path.parent, str(path), weights, seed, dtype)
    sibling = path.with_name(f"{path.stem}-contact-regression.pt")
    contacts = read_torch(sibling) if sibling.is_file() else None
    backbone = esm2_weights.from_fair(read_torch(path), contacts, str(path), dtype)
    return backbone if weights else randomised(backbone, seed)
