"""The trainings of a comparison: one run, and the store of runs."""

import hashlib
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.comparison.estimating import PeakMemory
from kft.data import Dataset, Split
from kft.files import atomic_write, cache_folder, ensure_writable
from kft.inference import predict
from kft.models import Model
from kft.params import digests, record_marks, unfreeze
from kft.training.fitting import fit
from kft.training.strategies import Strategy

# One run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Predictions of one training for the test split, and its cost.

    Attributes:
        predictions: (N, ...) array, or for residue tasks a list of N arrays (L, K).
        trainable: Number of trainable parameters in the last phase.
        parameters: Number of all parameters.
        seconds: Wall-clock time of the training in seconds, compilation included.
        memory: Peak memory of this process during the training, in bytes.
    """

    predictions: np.ndarray | list
    trainable: int
    parameters: int
    seconds: float
    memory: int


def new_model(backbone: keras.Model, head: keras.layers.Layer) -> Model:
    """Make a `kft.Model` with a copy of a backbone, in which all layers are trainable.

    Args:
        backbone: The pre-trained backbone; it is not changed.
        head: A new head.

    Returns:
        The model.
    """
    copy = type(backbone).from_config(backbone.get_config())
    copy.set_weights(backbone.get_weights())
    unfreeze(copy)
    record_marks(copy)  # not by hand: strategies mark it again
    if not hasattr(copy, "encode") and hasattr(backbone, "encode"):
        copy.encode = backbone.encode  # set on a plain Keras model, which does not copy it
    return Model(copy, head)


def train(
    backbone: keras.Model,
    head: keras.layers.Layer,
    data: Dataset,
    strategy: str | Strategy,
    options: dict,
    max_length: int | None,
    callbacks: Iterable[keras.callbacks.Callback],
    file: Path | None = None,
) -> Run:
    """Train a copy of the backbone with a new head, and predict the test split.

    Args:
        backbone: The pre-trained backbone; it is not changed.
        head: A new head.
        data: A `kft.data.Dataset`.
        strategy: As for `kft.fit`.
        options: Further arguments of `kft.fit`, including `batch_size`.
        max_length: As for `kft.predict`.
        callbacks: Keras callbacks.
        file: Path of a `.keras` file to which the model is written; None writes none.

    Returns:
        `Run`.

    Raises:
        FloatingPointError: A prediction is NaN or infinity, so the training has diverged.
    """
    if data.test is None:
        raise ValueError(f"{data.name} has no test split to predict: split it first.")
    with PeakMemory() as memory:
        model = new_model(backbone, head)
        done = fit(
            model,
            data,
            strategy,
            max_length=max_length,
            callbacks=callbacks,
            verbose=0,
            **options,
        )
    predictions = predict(done.model, data.test.inputs, options["batch_size"], max_length)
    if not all(np.isfinite(row).all() for row in predictions):
        raise FloatingPointError(
            "predictions are NaN or infinite: the training has diverged, lower the learning rate"
        )
    if file is not None:
        _save(done.model, file)
    last = done.phases[-1]
    return Run(predictions, last.trainable, last.parameters, done.seconds, memory.peak)


def _save(model: keras.Model, file: Path) -> None:
    """Write a model, whole or not at all; a training is not lost where that fails."""
    unfinished = file.with_name(f".{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        model.save(unfinished, include_optimizer=False)
        unfinished.replace(file)
    except (OSError, ValueError, TypeError) as error:
        unfinished.unlink(missing_ok=True)
        warnings.warn(f"The model could not be written to {file}: {error}", stacklevel=2)


def shuffled(data: Dataset, seed: int) -> Dataset:
    """Shuffle the targets of the train and valid splits; the test split stays as it is.

    Args:
        data: A `kft.data.Dataset`.
        seed: Int from which the order is drawn; per-residue targets that are not masked are
            shuffled over all chains.

    Returns:
        `kft.data.Dataset`.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, Any] = {
        name: _shuffled(part, rng) for name, part in data.splits.items() if name != "test"
    }
    return replace(data, **parts)


def _shuffled(part: Split, rng: np.random.Generator) -> Split:
    if not isinstance(part.targets, list):
        return replace(part, targets=rng.permutation(part.targets))
    masks = part.masks or [np.ones(len(row), dtype=bool) for row in part.targets]
    counted = [row[mask] for row, mask in zip(part.targets, masks, strict=True)]
    values = np.split(rng.permutation(np.concatenate(counted)), np.cumsum(list(map(len, counted))))
    targets = [row.copy() for row in part.targets]
    for row, mask, new in zip(targets, masks, values, strict=False):
        row[mask] = new
    return replace(part, targets=targets)


# Store of runs ----------------------------------------------------------------------------------


def ensure_kept(folder: Path) -> Path:
    """Make a folder for trainings, and return it.

    Args:
        folder: Its path.

    Raises:
        ValueError: It cannot be written to.
    """
    try:
        return ensure_writable(folder)
    except OSError as error:
        raise ValueError(
            f"{folder} cannot keep the trainings ({type(error).__name__}): name another folder, as "
            "`out` or in KFT_CACHE."
        ) from error


class Store:
    """A folder of runs, each in one file whose name is a digest of its settings.

    Args:
        folder: Path of the folder, which is made if missing; None for the cache, the folder
            KFT_CACHE or ~/.cache/kft.
        settings: Dict of settings that all runs have in common: numbers, strings, lists and dicts.

    Raises:
        ValueError: The folder cannot be written to.
    """

    def __init__(self, folder: Path | str | None, settings: dict):
        self.folder = Path(folder) if folder is not None else cache_folder() / "comparisons"
        ensure_kept(self.folder)
        self.settings = {
            **settings,
            "kft": version("kft"),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        }

    def _file(self, settings: Mapping[str, Any]) -> Path:
        line = json.dumps(settings, sort_keys=True, default=repr)
        return self.folder / f"{hashlib.sha256(line.encode()).hexdigest()[:32]}.npz"

    def get(self, run_settings: dict, earlier: dict | None = None) -> Run | None:
        """Read a run.

        Args:
            run_settings: Settings of the run, in addition to those of all runs.
            earlier: All settings from which an earlier version of kft made the name of the file.

        Returns:
            The run; None if there is none or its file is damaged.
        """
        file = self._file({**self.settings, **run_settings})
        if earlier is not None and not file.exists():
            file = self._file(earlier)
        try:
            with open(file, "rb") as stream, np.load(stream) as kept:
                cost, predictions = json.loads(str(kept["about"])), kept["predictions"]
                if "ends" in kept:
                    predictions = np.split(predictions, kept["ends"])
                    if "sides" in kept:  # of pairs
                        squares = zip(predictions, kept["sides"], strict=True)
                        predictions = [rows.reshape(n, n, -1) for rows, n in squares]
                return Run(predictions, **cost)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # absent or damaged: it is trained again

    def put(self, run: Run, run_settings: dict) -> None:
        """Write a run.

        Args:
            run: The run.
            run_settings: Settings of the run, in addition to those of all runs.
        """
        names = ("trainable", "parameters", "seconds", "memory")
        arrays: dict[str, Any] = {"about": json.dumps({name: getattr(run, name) for name in names})}
        if isinstance(run.predictions, list):
            rows = run.predictions
            if rows[0].ndim == 3:  # of pairs
                arrays["sides"] = np.array([len(row) for row in rows])
                rows = [row.reshape(-1, row.shape[-1]) for row in rows]
            arrays["predictions"] = np.concatenate(rows)
            arrays["ends"] = np.cumsum([len(row) for row in rows])[:-1]
        else:
            arrays["predictions"] = run.predictions
        with atomic_write(self._file({**self.settings, **run_settings})) as stream:
            np.savez(stream, **arrays)


def digest_of_data(data: Dataset) -> str:
    """Compute a digest of inputs, targets, groups, masks and weights of all splits.

    Args:
        data: A `kft.data.Dataset`.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256(repr(data.value_range).encode())
    for setting in (data.class_weight, data.target_transform):
        if setting is not None:  # none leaves the digests of earlier versions as they were
            digest.update(repr(setting).encode())
    for name, part in data.splits.items():
        digest.update(name.encode())
        for column in (part.inputs, part.targets, part.groups, part.masks, part.weights):
            for value in [] if column is None else column:
                if isinstance(value, os.PathLike):  # not its name: the file may be another
                    value = np.fromfile(value, dtype="uint8")
                array = np.asarray(repr(value) if isinstance(value, dict) else value)
                digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def digest_of_model(model: keras.Model) -> str:
    """Compute a digest of the architecture and of all weights.

    Args:
        model: Any built Keras model.

    Returns:
        Hexadecimal digest.
    """
    config = {key: value for key, value in model.get_config().items() if key != "revision"}
    description = json.dumps([config, digests(model, None)], sort_keys=True, default=repr)
    return hashlib.sha256(description.encode()).hexdigest()
