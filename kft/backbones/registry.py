"""Loading backbones by name and saving them; each family of backbones registers itself here."""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import keras
import numpy as np

from kft.arguments import check_flag, check_instance, check_path, check_seed
from kft.backbones.checkpoints import Tensors, read_safetensors, read_torch
from kft.backbones.initialisation import randomised
from kft.backbones.quantized import quantize_as, without_quantization
from kft.backbones.rematerialised import mark_blocks
from kft.files import read_json
from kft.messages import listed, shown, warn


class Family:
    """Base class of families: backbones that are loaded in the same way.

    An instance of a subclass is registered with `register`.

    Attributes:
        name: Name of the family in messages.
        options: Names of further arguments of `kft.load` that the family takes.
        model_types: {`model_type` in config.json: its name in messages} of the folders it reads.
        torch_layout: Name in messages of the torch files it reads; "" if it reads none.
        classifiers: {architecture in config.json: (name of a head's class as Keras registers it,
            {layer of the head: module in the file})} of classifiers that `kft.heads.published`
            reads.
    """

    name: str
    options: tuple[str, ...] = ()
    model_types: ClassVar[Mapping[str, str]] = {}
    torch_layout: str = ""
    classifiers: ClassVar[Mapping[str, tuple[str, Mapping[str, str]]]] = {}

    def names(self) -> list[str]:
        """Return the names that `kft.load` accepts, in the order in which they are listed."""
        raise NotImplementedError

    def load(self, name: str, weights: bool, dtype: str | None, **options: Any) -> keras.Model:
        """Make the backbone of one of the `names`.

        Args:
            name: One of `names`.
            weights: Whether it gets its published weights. Without them nothing may be downloaded;
                `kft.load` draws random ones.
            dtype: Keras dtype policy, None for the current one.
            **options: Those of `options` that were given.
        """
        raise NotImplementedError

    def read(self, name: str) -> tuple[dict, Tensors]:
        """Read the checkpoint of one of the `names`, see `read_checkpoint`.

        Args:
            name: One of `names`.
        """
        raise ValueError(f"{name} has no checkpoint in Hugging Face's format.")

    def from_folder(
        self,
        folder: Path,
        config: dict,
        tensors: Mapping[str, np.ndarray] | None,
        source: str,
        dtype: str | None,
        **options: Any,
    ) -> keras.Model:
        """Make the backbone of a Hugging Face folder.

        Args:
            folder: The folder.
            config: Content of its config.json.
            tensors: The tensors by name, None for random weights.
            source: Name of the folder in errors.
            dtype: Keras dtype policy, None for the current one.
            **options: Those of `options` that were given.
        """
        raise NotImplementedError

    def reads_torch(self, checkpoint: Any) -> bool:
        """Return whether the content of a torch file is of this family."""
        return False

    def from_torch(
        self, checkpoint: Any, path: Path, dtype: str | None, **options: Any
    ) -> keras.Model:
        """Make the backbone of a torch file.

        Args:
            checkpoint: Content of the file, as `checkpoints.read_torch` returns it.
            path: Path of the file.
            dtype: Keras dtype policy, None for the current one.
            **options: Those of `options` that were given.
        """
        raise NotImplementedError


_FAMILIES: list[Family] = []


def register(family: Family) -> Family:
    """Register a family, so that `kft.load` finds its backbones.

    Args:
        family: An instance of a subclass of `Family`. It replaces one of the same class.

    Returns:
        The family.

    Raises:
        ValueError: Another family has one of its names or of its `model_types`.
        TypeError: The family is not an instance of a subclass of `Family`.

    Example:
        >>> class Perceptrons(Family):
        ...     name = "perceptron"
        ...     def names(self):
        ...         return ["perceptron_8"]
        ...     def load(self, name, weights, dtype):
        ...         layers = [keras.Input((8,)), keras.layers.Dense(8, dtype=dtype)]
        ...         return keras.Sequential(layers, name=name)
        >>> family = register(Perceptrons())
        >>> load("perceptron_8", weights=False).name
        'perceptron_8'
        >>> unregister(family)
    """
    if not isinstance(family, Family):
        raise TypeError(
            f"A family must be an instance of a subclass of kft.backbones.Family, received "
            f"{family!r:.80}."
        )
    # A cell of a notebook that is run again defines the same class again.
    others = [other for other in _FAMILIES if _full_name(other) != _full_name(family)]
    for other in others:
        both = {*family.names(), *family.model_types} & {*other.names(), *other.model_types}
        if both:
            raise ValueError(
                f"family {family.name!r} has {listed(sorted(both))}, which the family "
                f"{other.name!r} has already: give them other names, or unregister that one."
            )
    _FAMILIES[:] = [*others, family]
    return family


def unregister(family: Family) -> None:
    """Remove a family that `register` has added.

    Args:
        family: What `register` returned.

    Raises:
        ValueError: The family is not registered.
    """
    if family not in _FAMILIES:
        raise ValueError(f"family {getattr(family, 'name', family)!r} is not registered.")
    _FAMILIES.remove(family)


def _full_name(family: Family) -> str:
    return f"{type(family).__module__}.{type(family).__qualname__}"


def names() -> list[str]:
    """List the names of models that `kft.load` accepts.

    Returns:
        Names of all families; those for proteins come first.

    Example:
        >>> names()[:2]
        ['kft_esm2_tiny', 'esm2_t6_8M_UR50D']
    """
    return [name for family in _FAMILIES for name in family.names()]


def classifiers() -> dict[str, tuple[str, Mapping[str, str]]]:
    """Return the classifiers that were published with backbones, see `Family`.

    Returns:
        {architecture in config.json: (name of the head's class, {layer: module in the file})}.

    Example:
        >>> classifiers()["EsmForTokenClassification"]
        ('kft>EsmTokenClassification', {'dense': 'classifier'})
    """
    return {key: value for family in _FAMILIES for key, value in family.classifiers.items()}


def read_folder(folder: Path, weights: bool) -> tuple[dict, Tensors | None]:
    """Read a folder in Hugging Face's format.

    Args:
        folder: The folder.
        weights: Whether its tensors are opened too.

    Returns:
        The content of config.json; the tensors by name, None without `weights`.

    Raises:
        FileNotFoundError: It has no config.json, or no weights.
        ValueError: config.json is damaged.
    """
    path = folder / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} has no config.json, so it is not a model folder in Hugging Face's format: "
            f"give the folder that contains config.json and the weights."
        )
    config = read_json(path)
    return config, read_safetensors(folder) if weights else None


def read_checkpoint(source: str | Path) -> tuple[dict, Tensors]:
    """Read the configuration and the tensors of a checkpoint in Hugging Face's format.

    Args:
        source: One of `kft.backbones.names()`, or a folder.

    Returns:
        The content of config.json, and the tensors by name, also those that the backbone does not
        use, such as a classifier.

    Raises:
        ValueError: A file is damaged, or a name whose weights are stored in another format.
        FileNotFoundError: A folder without config.json or without weights.
        ConnectionError, ImportError: As for `load`.

    Example:
        >>> config, tensors = read_checkpoint("kft_esm2_tiny")
        >>> config["architectures"], tensors.shape("lm_head.bias")
        (['EsmForMaskedLM'], (33,))
    """
    for family in _FAMILIES:
        if source in family.names():
            return family.read(str(source))
    config = read_folder(Path(source), weights=False)[0]
    return config, read_safetensors(source)


def load(
    name: str | Path,
    weights: bool = True,
    seed: int = 0,
    dtype: Any = None,
    image_size: int | tuple[int, int] | None = None,
    revision: str | None = None,
    data: Any = None,
    remat: bool = False,
) -> keras.Model:
    """Load a backbone by its published name, or from a local folder or file.

    Args:
        name: One of `kft.backbones.names()`, whose weights ship with kft or are downloaded once
            and kept in a cache; or the path of a local folder in Hugging Face's format or of a
            torch file. Details are in the docstrings of the packages in `kft.backbones`.
        weights: False gives the architecture with random weights, and never needs the network.
        seed: Int from which random weights are drawn, the same on every backend.
        dtype: Keras dtype policy, such as "mixed_bfloat16", or a map of policies by the paths of
            layers (`keras.dtype_policies.DTypePolicyMap`); None takes Keras's current policy. With
            "int8_from_float32" the weights are quantized once they are loaded.
        image_size: (H, W) or one side in pixels, for backbones of images: position embeddings are
            interpolated to it. None takes the size that the model was trained with.
        revision: Commit, tag or branch of the Hugging Face hub, for published names whose weights
            are downloaded from there; None takes the newest. A commit never changes.
        data: For "dense", a `kft.data.Dataset` of rows of a table: the backbone takes its columns,
            scaled by the means and standard deviations of the training part.
        remat: Whether training computes its blocks again for the gradient, which takes less memory
            and more time, see `kft.remat`.

    Returns:
        The backbone, a functional keras.Model; its `load_report` lists how each tensor of the file
        was used, its `revision` is the commit that was downloaded, None for other sources.

    Raises:
        ValueError: The name is unknown (the message lists the valid ones), the file is damaged or
            contains code, the architecture is another, tensors do not fit, or `remat` is given and
            there are no blocks.
        FileNotFoundError: A file is missing, or a folder has no weights.
        ConnectionError: The hub cannot be reached; the message names the local alternatives.
        ImportError: A package that the family needs is not installed.

    Example:
        >>> import kft
        >>> kft.load("esm2_t6_8M_UR50D", weights=False).width
        320
    """
    check_path("name", name)
    check_flag("weights", weights)
    check_flag("remat", remat)
    check_seed("seed", seed)
    given = {"image_size": image_size, "data": data}
    options = {name: value for name, value in given.items() if value is not None}
    if revision is not None:
        options["revision"] = check_instance("revision", revision, str, "a string")
        if not weights:
            raise ValueError(
                f"revision is for downloaded weights, received {revision!r} with weights=False."
            )
    backbone = _built(name, weights, without_quantization(dtype), options)
    if not weights:
        randomised(backbone, seed)
    quantize_as(backbone, dtype)
    if remat:
        mark_blocks(backbone)
    return backbone


def _built(
    name: str | Path, weights: bool, dtype: str | None, options: dict[str, Any]
) -> keras.Model:
    """Make the backbone, without drawing random weights."""
    for family in _FAMILIES:
        if isinstance(name, str) and name in family.names():
            _check_options(family, options, name)
            return family.load(name, weights, dtype, **options)
    if "revision" in options:
        refuse_revision(name)
    path = Path(name)
    if path.is_dir():
        return _from_folder(path, str(name), weights, dtype, options)
    if path.is_file():
        return _from_file(path, weights, dtype, options)
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(
            f"There is no file or folder {str(name)!r} (from {Path.cwd()}). Published names are "
            f"{', '.join(names())}."
        )
    close = difflib.get_close_matches(str(name), names(), n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Unknown model {str(name)!r}.{hint} Valid are {', '.join(names())}, or the path of a "
        f"Hugging Face folder or a torch file."
    )


def refuse_revision(name: object) -> NoReturn:
    """Raise an error for a `revision` of what is not downloaded from the hub.

    Args:
        name: What was to be loaded.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"revision is for weights from the Hugging Face hub, and those of {name} are not from "
        f"there: leave it out."
    )


def _check_options(family: Family, options: Mapping[str, Any], source: object) -> None:
    for option, value in options.items():
        if option not in family.options:
            raise ValueError(
                f"{option} is not an option of {source}, which is of the family {family.name}, "
                f"received {value!r}: leave it out."
            )


def _from_folder(
    folder: Path, source: str, weights: bool, dtype: str | None, options: dict[str, Any]
) -> keras.Model:
    config, tensors = read_folder(folder, weights)
    kind = config.get("model_type")
    family = next((family for family in _FAMILIES if kind in list(family.model_types)), None)
    if family is None:
        known = {key: name for family in _FAMILIES for key, name in family.model_types.items()}
        raise ValueError(
            f"{source} is not an {_either(known.values())}: its config.json has "
            f"model_type={shown(kind)}, expected {_either(map(repr, known))}."
        )
    _check_options(family, options, source)
    backbone = family.from_folder(folder, config, tensors, source, dtype, **options)
    if tensors is not None:
        _warn_of_classifier(config, tensors, source)
    return backbone


# The end of a warning, for those who load the classifier too.
CLASSIFIER_IS_SKIPPED = ".*and is skipped: kft.Model.from_checkpoint"


def _warn_of_classifier(config: Mapping[str, Any], tensors: Iterable[str], source: str) -> None:
    """Say that a classifier, which a backbone does not have, is in the file."""
    known = classifiers()
    kind = next((x for x in config.get("architectures") or [] if x in known), None)
    if kind is None:
        return
    parts = {module.split(".")[0] for module in known[kind][1].values()}
    count = sum(name.split(".")[0] in parts for name in tensors)
    if count:
        warn(
            f"{source} holds the classifier of {kind} too ({count} tensors), which is no part of "
            f"the backbone and is skipped: kft.Model.from_checkpoint({source!r}) gives both."
        )


def _from_file(
    path: Path, weights: bool, dtype: str | None, options: dict[str, Any]
) -> keras.Model:
    if path.suffix == ".keras":
        raise ValueError(f"{path} is a Keras model: open it with kft.load_model.")
    refuse_h5(path)
    if path.suffix in (".safetensors", ".bin"):
        return _from_folder(path.parent, str(path), weights, dtype, options)
    checkpoint = read_torch(path)
    family = next((family for family in _FAMILIES if family.reads_torch(checkpoint)), None)
    if family is None:
        keys = listed(checkpoint) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        known = [family.torch_layout for family in _FAMILIES if family.torch_layout]
        raise ValueError(f"{path} is not a {_either(known)}; it holds {keys}.")
    _check_options(family, options, path)
    return family.from_torch(checkpoint, path, dtype, **options)


def refuse_h5(path: Path) -> None:
    """Check that a file is none that Keras writes and cannot load.

    Args:
        path: Path of the file.

    Raises:
        ValueError: It ends in .h5.
    """
    if path.suffix in (".h5", ".hdf5"):
        raise ValueError(
            f"{path} cannot be loaded as a model: save the model as a .keras file. Weights alone "
            f"(.weights.h5) are loaded by the method load_weights of a model that is built already."
        )


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def save(
    backbone: keras.Model, folder: str | Path, dtype: str | None = None, **options: Any
) -> Path:
    """Write a backbone as a Hugging Face folder, which `kft.load` and transformers read.

    Args:
        backbone: A backbone that has a method `to_hugging_face`, such as those for proteins,
            without adapters (call `kft.merge_lora` and `kft.lora.remove` first).
        folder: Folder to write to; it is made if missing.
        dtype: Numpy dtype of the file; "float16" halves its size; None keeps float32.
        **options: Further arguments of the backbone's `to_hugging_face`.

    Returns:
        The folder, with config.json and model.safetensors.

    Raises:
        ValueError: The model is of another kind, has adapters, or has weights that are out of the
            range of the dtype.

    Example:
        >>> import tempfile
        >>> import kft
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save(kft.load("kft_esm2_tiny"), folder)
        ...     sorted(file.name for file in path.iterdir())
        ['config.json', 'model.safetensors']
    """
    from safetensors.numpy import save_file

    if not hasattr(backbone, "to_hugging_face"):
        raise ValueError(
            f"backbone must have a method to_hugging_face, received a {type(backbone).__name__}: "
            f"for a kft.Model give model.backbone."
        )
    if "exchanged" in backbone.get_config():
        raise ValueError(
            "backbone has adapters, which a model folder of Hugging Face cannot hold: call "
            "kft.merge_lora and kft.lora.remove first, or save them with kft.save_adapter."
        )
    config, tensors = backbone.to_hugging_face(dtype, **options)
    config["dtype"] = str(next(iter(tensors.values())).dtype)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder
