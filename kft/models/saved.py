"""Models in files: what Keras saved, and adapters with the backbone that they name."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.arguments import check_path
from kft.backbones import load
from kft.backbones.registry import refuse_h5
from kft.data.target_transforms import TargetTransform
from kft.files import check_file
from kft.lora import load_adapter
from kft.lora.peft import model_records, reading, writing
from kft.models.model import Model
from kft.params import weights
from kft.params.paths import listed


def load_model(path: str | Path, backbone: keras.Model | str | Path | None = None) -> keras.Model:
    """Load a fine-tuned model from a `.keras` file or from the folder of an adapter.

    A `.keras` file is opened in Keras's safe mode. Of an adapter the backbone is loaded by the name
    that the adapter has, and gets the head and the adapter.

    Args:
        path: A file that `model.save` wrote, or a folder that `kft.save_adapter` wrote for a
            `kft.Model`.
        backbone: Backbone of an adapter, or its name or path for `kft.load`; None for the one that
            the adapter names.

    Returns:
        The model.

    Raises:
        FileNotFoundError: There is no such file or folder, or a file of an adapter is missing.
        ValueError: The file was not written by Keras, a weight is NaN or infinite, or an adapter
            names no backbone, or no head.

    Example:
        >>> import tempfile
        >>> import kft
        >>> model = kft.Model(kft.load("kft_esm2_tiny"), kft.heads.Regression())
        >>> _ = kft.add_lora(model, rank=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     loaded = load_model(kft.save_adapter(model, folder))
        >>> bool((kft.predict(loaded, ["MKT"]) == kft.predict(model, ["MKT"])).all())
        True
    """
    path = check_path("path", path)
    if path.is_dir():
        return _with_adapter(path, backbone)
    if backbone is not None:
        raise ValueError(f"backbone is for the folder of an adapter; {path} has its own.")
    refuse_h5(path)
    _check_file(path)
    try:
        model = keras.saving.load_model(path)
    except RecursionError:
        raise ValueError(f"{path} is damaged: its configuration is nested too deeply.") from None
    arrays = [
        (weight.path, keras.ops.convert_to_numpy(weight.variable)) for weight in weights(model)
    ]
    wrong = [name for name, x in arrays if not np.isfinite(x.astype("float32")).all()]
    if wrong:
        raise ValueError(
            f"{path}: {listed(wrong, 3)} hold NaN or infinity: the training that wrote the file "
            f"has diverged. Use an earlier file, or train again with a smaller learning rate."
        )
    return model


def _check_file(path: Path) -> None:
    """Raise an error for a file that Keras would call "not found", whatever is wrong with it."""
    if not path.exists() and not path.is_symlink():
        raise FileNotFoundError(
            f"There is no file or folder {str(path)!r} (from {Path.cwd()}): give a .keras file, or "
            "the folder of an adapter."
        )
    check_file(path, "path")
    inside = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if not {"config.json", "metadata.json"} <= set(inside):
        raise ValueError(
            f"{path} is not a model that Keras saved: expected a file that model.save('NAME.keras')"
            " wrote, or the folder of an adapter. Backbones are loaded by kft.load."
        )
    if path.suffix != ".keras":
        raise ValueError(f"{path} is a Keras model whose name must end in .keras: rename it.")


def _with_adapter(folder: Path, backbone: Any) -> Model:
    """Make the model of an adapter."""
    if not (folder / writing.CONFIG).exists() and (folder / "config.json").exists():
        raise ValueError(
            f"{folder} holds a backbone, which kft.load loads, and not a fine-tuned model: give a "
            ".keras file, or the folder of an adapter."
        )
    config, _, _, about = reading.read(folder)
    record = model_records.from_metadata(about)
    if record is None:
        raise ValueError(
            f"{folder} is an adapter without a record of its head, as PEFT and earlier versions of "
            "kft write them: make the model, then kft.load_adapter(model, folder) and model.save."
        )
    name = config.get("base_model_name_or_path") if backbone is None else backbone
    if name is None:
        raise ValueError(
            f"{folder} does not name the backbone that it was made on: give it as `backbone`."
        )
    if isinstance(name, str | Path):
        size = record["image_size"]
        try:
            backbone = load(name, image_size=None if size is None else tuple(size))
        except (OSError, ValueError, ImportError) as error:
            raise type(error)(
                f"{folder} was made on the backbone {str(name)!r}, which cannot be loaded: {error} "
                "Or give the backbone, or where it is, as `backbone`."
            ) from error
    model = Model(backbone, keras.saving.deserialize_keras_object(record["head"]))
    transform = record.get("target_transform")
    transform = transform and TargetTransform(**transform)
    model.set_names(record["classes"], record["target_name"], transform)
    load_adapter(model, folder)
    return model
