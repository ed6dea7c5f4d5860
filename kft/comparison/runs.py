"""The trainings of a comparison: one run, what it is expected to cost, and where it is kept."""

import ctypes
import gc
import hashlib
import json
import os
import tempfile
import threading
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np
import psutil

from kft.files import atomic_write, cache_folder, ensure_writable
from kft.inference import predict
from kft.models import Model
from kft.params import digests, unfreeze
from kft.training.batching import batches
from kft.training.fitting import fit
from kft.training.frontier import learn_range

# One run --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What one training answered on the test split, and what it cost.

    Attributes:
        predictions: (N, ...) array, or for residue tasks a list of N arrays (L, K).
        trainable, parameters: weights that learned in the last phase, and all.
        seconds: wall-clock time of the training, compilation included.
        memory: bytes of this process at its highest while it trained.
    """

    predictions: np.ndarray | list
    trainable: int
    parameters: int
    seconds: float
    memory: int


@contextmanager
def compiled_once():
    """On JAX, keeps compiled programs for the trainings within, in a folder that goes with it.

    Each training has a new model, which JAX would compile anew though it is the same program: most
    of the time of a small comparison.
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.jax_compilation_cache_dir:  # the user has a place of their own
        yield
        return
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    with tempfile.TemporaryDirectory(prefix="kft-jax-", ignore_cleanup_errors=True) as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        compilation_cache.reset_cache()  # or it would not look at the settings again
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", None)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
            compilation_cache.reset_cache()


class PeakMemory:
    """Resident memory of this process at its highest within a `with` block, in bytes.

    A thread looks at it every hundredth of a second; an accelerator's memory is not in it.
    """

    def __enter__(self):
        gc.collect()
        _return_freed_memory()
        self.peak, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        self._thread.join()

    def _watch(self):
        process = psutil.Process()
        while True:
            self.peak = max(self.peak, process.memory_info().rss)
            if self._done.wait(0.01):
                return


def _return_freed_memory():
    """What an earlier run has freed would count as this one's: glibc keeps it unless asked."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # another system


def fresh(backbone, head):
    """A `kft.Model` with the backbone's weights, that shares nothing with it."""
    copy = type(backbone).from_config(backbone.get_config())
    copy.set_weights(backbone.get_weights())
    unfreeze(copy)
    if not hasattr(copy, "encode") and hasattr(backbone, "encode"):
        copy.encode = backbone.encode  # set on a plain Keras model, which does not copy it
    return Model(copy, head)


def train(backbone, head, data, strategy, options, max_length, callbacks):
    """Trains a copy of the backbone with a new head, and predicts the test split.

    Args:
        backbone: the pre-trained one; stays as it is.
        head: a new head.
        data: a `kft.data.Dataset`.
        strategy, options: as for `kft.fit`.
        max_length: as for `kft.predict`.
        callbacks: Keras callbacks.

    Returns:
        `Run`.

    Raises:
        FloatingPointError: the answers are no numbers, so the training has diverged.
    """
    with PeakMemory() as memory:
        model = fresh(backbone, head)
        done = fit(model, data, strategy, max_length=max_length, callbacks=callbacks, verbose=0,
                   **options)  # fmt: skip
    answers = predict(done.model, data.test.inputs, options["batch_size"], max_length)
    if not all(np.isfinite(row).all() for row in answers):
        raise FloatingPointError(
            "the model answers with what is no number: the training has diverged, lower the "
            "learning rate"
        )
    last = done.phases[-1]
    return Run(answers, last["trainable"], last["parameters"], done.seconds, memory.peak)


def shuffled(data, seed):
    """A data set in which the targets of train and valid have changed places; test is as it was.

    Args:
        data: a `kft.data.Dataset`.
        seed: int from which the order is drawn; per-residue targets that count change places
            over all chains.
    """
    rng = np.random.default_rng(seed)
    parts = {name: _shuffled(part, rng) for name, part in data.splits.items() if name != "test"}
    return replace(data, **parts)


def _shuffled(part, rng):
    if not isinstance(part.targets, list):
        return replace(part, targets=rng.permutation(part.targets))
    masks = part.masks or [np.ones(len(row), dtype=bool) for row in part.targets]
    counted = [row[mask] for row, mask in zip(part.targets, masks, strict=True)]
    values = np.split(rng.permutation(np.concatenate(counted)), np.cumsum(list(map(len, counted))))
    targets = [row.copy() for row in part.targets]
    for row, mask, new in zip(targets, masks, values, strict=False):
        row[mask] = new
    return replace(part, targets=targets)


# What it will cost ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One measured step of training all weights.

    Attributes:
        seconds: of one batch, forward and backward, compiled before.
        memory: bytes of this process at its highest, compilation included.
        batch, train, valid, test: how much there is of each, residues of strings, else records.
    """

    seconds: float
    memory: int
    batch: int
    train: int
    valid: int
    test: int


def measured_step(backbone, head, data, batch_size, max_length):
    """Trains on one batch of middling length: the fastest of three steps, the first compiles."""
    model = fresh(backbone, head)
    learn_range(model, data)
    records = batches(data.train, model.encode, batch_size, 0, max_length)
    lengths = [records.padded(i) or 0 for i in range(len(records))]
    middle = int(np.argsort(lengths, kind="stable")[len(lengths) // 2])
    weighted = getattr(head, "per_residue", False)
    model.compile("adam", head.make_loss() if hasattr(head, "make_loss") else "mse")
    with PeakMemory() as memory:
        seconds = []
        for _ in range(4):
            inputs, targets, *weight = records[middle]
            started = time.perf_counter()
            # Reading the loss waits for what the backend still computes.
            float(model.train_on_batch(inputs, targets, weight[0] if weighted else None))
            seconds.append(time.perf_counter() - started)
    sizes = {name: _size(part.inputs, max_length) for name, part in data.splits.items()}
    chosen = [data.train.inputs[i] for i in records.chosen[middle]]
    parts = [sizes.get(name, 0) for name in ("train", "valid", "test")]
    return Step(min(seconds[1:]), memory.peak, _size(chosen, max_length), *parts)


def _size(inputs, max_length):
    if not isinstance(inputs[0], str):
        return len(inputs)
    return sum(min(len(x), max_length or len(x)) + 2 for x in inputs)  # with <cls> and <eos>


def expected_seconds(step, model, strategy):
    """Estimates what a strategy takes, from one step of training all weights.

    A backward pass costs two forward ones, and what is frozen below all that learns is computed
    once (see `kft.training.frontier`). Compilation is not in it.

    Args:
        step: `Step`.
        model: a copy of the model, which the strategy may mark and change.
        strategy: of `kft.strategies.get`.

    Returns:
        float, seconds.
    """
    forward = step.seconds / step.batch / 3
    passes = step.test
    for phase in strategy(model):
        phase.mark()
        above = _share_above_frontier(phase.model)
        if not phase.epochs:
            passes += step.train + step.valid
            continue
        once = phase.epochs > 1
        below = (1 - above) * (1 if once else phase.epochs) * (step.train + step.valid)
        passes += below + phase.epochs * above * (3 * step.train + step.valid)
    return forward * passes


def _share_above_frontier(model):
    """Share of the backbone's weights that lie in or after its first stage that learns."""
    stages = getattr(model.backbone, "stages", None) or model.backbone.layers
    sizes = [sum(int(np.prod(w.shape)) for w in stage.weights) for stage in stages]
    first = next((i for i, stage in enumerate(stages) if stage.trainable_weights), len(stages))
    return sum(sizes[first:]) / max(sum(sizes), 1)


# Where it is kept -------------------------------------------------------------------------------


class Store:
    """Runs in a folder, each in one file whose name is a digest of all that it depends on.

    Args:
        folder: is made; None for the cache, the folder KFT_CACHE or ~/.cache/kft.
        about: what all runs depend on: numbers, strings, lists and dicts of them.

    Raises:
        ValueError: nothing can be written there.
    """

    def __init__(self, folder, about):
        self.folder = Path(folder) if folder is not None else cache_folder() / "comparisons"
        try:
            ensure_writable(self.folder)
        except OSError as error:
            raise ValueError(
                f"{self.folder} cannot keep the trainings ({type(error).__name__}): name another "
                f"folder, as `out` or in KFT_CACHE."
            ) from error
        self.about = {
            **about,
            "kft": version("kft"),
            "keras": keras.__version__,
            "backend": keras.backend.backend(),
        }

    def _file(self, **run):
        line = json.dumps({**self.about, **run}, sort_keys=True, default=repr)
        return self.folder / f"{hashlib.sha256(line.encode()).hexdigest()[:32]}.npz"

    def get(self, **run):
        """The run of these settings, None if it is not there whole."""
        try:
            with open(self._file(**run), "rb") as stream, np.load(stream) as kept:
                about, answers = json.loads(str(kept["about"])), kept["predictions"]
                if "ends" in kept:
                    answers = np.split(answers, kept["ends"])
                return Run(answers, **about)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # absent or damaged: it is trained again

    def put(self, found, **run):
        """Keeps a run."""
        names = ("trainable", "parameters", "seconds", "memory")
        arrays = {"about": json.dumps({name: getattr(found, name) for name in names})}
        if isinstance(found.predictions, list):
            arrays["predictions"] = np.concatenate(found.predictions)
            arrays["ends"] = np.cumsum([len(row) for row in found.predictions])[:-1]
        else:
            arrays["predictions"] = found.predictions
        with atomic_write(self._file(**run)) as stream:
            np.savez(stream, **arrays)


def digest_of_data(data):
    """A digest of inputs, targets, groups and masks of all splits."""
    found = hashlib.sha256(repr(data.value_range).encode())
    for name, part in data.splits.items():
        found.update(name.encode())
        for column in (part.inputs, part.targets, part.groups, part.masks):
            for value in [] if column is None else column:
                if isinstance(value, os.PathLike):  # not its name: the file may be another
                    value = np.fromfile(value, dtype="uint8")
                array = np.asarray(value)
                found.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return found.hexdigest()


def digest_of_model(model):
    """A digest of the architecture and of all weights."""
    found = json.dumps([model.get_config(), digests(model, None)], sort_keys=True, default=repr)
    return hashlib.sha256(found.encode()).hexdigest()
