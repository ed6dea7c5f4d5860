"""The trainings of a comparison: one run, its expected time, and the store of runs."""

import hashlib
import json
import os
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.comparison.estimating import PeakMemory, median_seconds, seconds_of_training
from kft.data import Dataset, Split
from kft.files import atomic_write, cache_folder, ensure_writable
from kft.inference import predict
from kft.keras_internals import own_weights, sublayers_of
from kft.models import Model
from kft.params import digests, layers, record_marks, unfreeze
from kft.training.batching import Batches, batches
from kft.training.features import FrontierError
from kft.training.fitting import fit
from kft.training.frontier import fit_value_range, split
from kft.training.optimizers import adamw
from kft.training.probing import seconds_to_solve
from kft.training.strategies import Phase, Strategy

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


@contextmanager
def compiled_once() -> Iterator[None]:
    """Keep compiled programs for all trainings within the `with` block, on JAX.

    Each training has a new model, which JAX would compile again although the program is the same;
    in a small comparison that takes most of the time. Programs are kept in a temporary folder.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.jax_compilation_cache_dir:  # the user has set a folder
        yield
        return
    minimum = jax.config.jax_persistent_cache_min_compile_time_secs
    with tempfile.TemporaryDirectory(prefix="kft-jax-", ignore_cleanup_errors=True) as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        compilation_cache.reset_cache()  # or it would not read the settings again
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", None)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", minimum)
            compilation_cache.reset_cache()


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


# Expected time ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Measured times of one batch, without compilation, and the sizes of the splits.

    Attributes:
        seconds: Wall-clock time of training all weights on the batch, forward and backward.
        forward: Wall-clock time of the backbone's forward pass.
        head: Wall-clock time of training the head alone on the backbone's outputs.
        once: Wall-clock time of encoding the batch.
        setup: Wall-clock time of making a model, with memory cleared before.
        cut: Wall-clock time of cutting it at its frontier.
        memory: Peak memory of this process, compilation included, in bytes.
        batch: Size of the batch, in tokens with padding for sequences, else in records.
        train: Size of the train split, in the same unit.
        valid: Size of the valid split, 0 if there is none.
        test: Size of the test split.
        longest: Size of the longest batches of train and valid, which are run twice where frozen
            features are computed once.
        solving: Wall-clock time of solving for a linear head on the rows of the batch, 0 for other
            heads.
        rows: Number of these rows: records, or residues with a target.
    """

    seconds: float
    forward: float
    head: float
    once: float
    setup: float
    cut: float
    memory: int
    batch: int
    train: int
    valid: int
    test: int
    longest: int = 0
    solving: float = 0.0
    rows: int = 1


def measured_step(
    backbone: keras.Model,
    head: keras.layers.Layer,
    data: Dataset,
    batch_size: int,
    max_length: int | None,
) -> Step:
    """Train a copy of the backbone on one batch of typical length, and measure the time.

    The length is the mean over all tokens of that of their batch: where the time of a token grows
    linearly with the length, as in attention, such batches take as long as all batches do.

    Args:
        backbone: The pre-trained backbone; it is not changed.
        head: A new head.
        data: A `kft.data.Dataset`.
        batch_size: Number of records in the batch.
        max_length: Number of residues to keep of each sequence; None keeps all.

    Returns:
        `Step`; each time is the median of three, after a first one that compiles.
    """
    started = time.perf_counter()
    with PeakMemory():  # as `train` does, which collects garbage first
        model = new_model(backbone, head)
    setup = time.perf_counter() - started
    fit_value_range(model, data)
    records = batches(data.train, model.encode, batch_size, 0, max_length)
    typical = _typical(records)
    once = median_seconds(lambda: records[typical])
    inputs, *targets = records[typical]
    _compile(model, head)
    with PeakMemory() as memory:
        seconds = seconds_of_training(model, inputs, targets)
    forward, of_head, cut = _parts_of_step(model, head, inputs, targets, seconds)
    part = data.train.take(records.record_indices[typical])
    solving = _seconds_of_solving(model, batches(part, model.encode, batch_size, None, max_length))
    sizes = {
        name: _sizes(batches(part, model.encode, batch_size, 0, max_length))
        for name, part in data.splits.items()
    }
    train, valid, test = (sizes.get(name, []) for name in ("train", "valid", "test"))
    return Step(
        seconds,
        forward,
        of_head,
        once,
        setup,
        cut,
        memory.peak,
        _sizes(records)[typical],
        sum(train),
        sum(valid),
        sum(test),
        longest=max(train) + max(valid, default=0),
        solving=solving,
        rows=int((targets[1] > 0).sum()) if len(targets) > 1 else len(targets[0]),
    )


def _typical(records: Batches) -> int:
    """Return the number of the full batch whose length is next to the mean over all tokens."""
    counts = np.array([len(rows) for rows in records.record_indices])
    lengths = np.array([records.padded(i) or 1 for i in range(len(records))])
    mean = np.average(lengths, weights=counts * lengths)
    return int(np.argmin(np.where(counts == counts.max(), abs(lengths - mean), np.inf)))


def _compile(model: keras.Model, head: keras.layers.Layer) -> None:
    """Compile a model as `fit` does, so that a step takes as long."""
    made = hasattr(head, "make_loss")
    loss, metrics = (head.make_loss(), head.make_metrics()) if made else ("mse", None)
    optimizer = adamw(1e-5, model.trainable_variables)
    model.compile(optimizer, loss, weighted_metrics=metrics)


def _seconds_of_solving(model: keras.Model, records: Batches) -> float:
    """Return the time of solving for a linear head, without its features; 0 for others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a solution that is not used
            return seconds_to_solve(model, records)
    except (ValueError, FloatingPointError):  # not linear, or too few records for it
        return 0.0


def _parts_of_step(
    model: Model, head: keras.layers.Layer, inputs: Any, targets: Sequence[Any], seconds: float
) -> tuple[float, float, float]:
    """Return the seconds of the forward pass, of training the head alone, and of cutting."""
    started = time.perf_counter()
    model.backbone.trainable = False
    try:
        frozen, learner = split(model)
    except (FrontierError, TypeError):  # not functional, or a backbone without weights
        return seconds / 3, 0.0, 0.0
    cut = time.perf_counter() - started
    forward = median_seconds(lambda: frozen.predict_on_batch(inputs))
    features = frozen.predict_on_batch(inputs)
    _compile(learner, head)
    of_head = seconds_of_training(learner, features, targets)
    return min(forward, seconds), min(of_head, seconds), cut


def _sizes(records: Batches) -> list[int]:
    """Return the size of each batch, in tokens with padding for sequences, else in records."""
    return [len(rows) * (records.padded(i) or 1) for i, rows in enumerate(records.record_indices)]


def expected_seconds(step: Step, model: Model, phases: Sequence[Phase]) -> float:
    """Estimate the time of a training and of predicting the test split.

    Frozen features are computed once, and of the longest batches twice (see
    `kft.training.features`). Half of a backward pass is for activations, of all layers above the
    frontier, and half for weights, of those that learn. The time of solving for a linear head
    grows with the number of rows. Compilation is not included. Nothing is changed.

    Args:
        step: `Step`.
        model: A `kft.Model` as the strategy has prepared it.
        phases: Phases of the strategy for this model.

    Returns:
        Seconds.
    """
    train, valid, test = (size / step.batch for size in (step.train, step.valid, step.test))
    half = max(step.seconds - step.forward - step.head, 0.0) / 2  # of a backward pass
    seconds = step.setup + step.once * (train + valid) + (step.once + step.forward) * test
    for phase in phases:
        above, learning = _fractions(model, phase) if phase.epochs else (0.0, 0.0)
        # `fit` cuts once to see whether it saves time, and once more to train.
        seconds += 2 * step.cut + (1 - above) * step.forward * (train + valid)
        if above < 1:
            seconds += (1 - above) * step.forward * step.longest / step.batch
        if not phase.epochs:
            seconds += step.solving * min(train, phase.rows / step.rows)
        each = step.head + above * step.forward
        seconds += phase.epochs * (each * (train + valid) + (above + learning) * half * train)
    return seconds


def _fractions(model: Model, phase: Phase) -> tuple[float, float]:
    """Fractions of the backbone's weights: those above the frontier, and those that learn.

    Above the frontier are the first trainable stage and all that follow.
    """
    stages = getattr(model.backbone, "stages", None) or model.backbone.layers
    sizes = [sum(int(np.prod(w.shape)) for w in stage.weights) for stage in stages]
    by_path = layers(model)
    chosen = list(by_path) if phase.trainable_layers is None else phase.trainable_layers
    trainable = {id(part) for path in chosen for part in sublayers_of(by_path[path])}
    parts = [{id(part) for part in sublayers_of(stage)} for stage in stages]
    first = next((i for i, part in enumerate(parts) if part & trainable), len(stages))
    learning = {
        id(weight): int(np.prod(weight.shape))
        for stage in stages
        for part in sublayers_of(stage)
        if id(part) in trainable
        for weight in own_weights(part)
        if weight.trainable  # not the weights that have an adapter
    }
    total = max(sum(sizes), 1)
    return sum(sizes[first:]) / total, sum(learning.values()) / total


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
