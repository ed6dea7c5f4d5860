"""Peak memory and seconds of a training step: measured, or estimated for a larger batch."""

from __future__ import annotations

import copy
import ctypes
import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import keras
import numpy as np
import psutil
from keras import ops

from kft.arguments import check_instance, check_integer, check_optional_integer
from kft.data.inputs import InputKind, encoder_info
from kft.keras_internals import GraphModel
from kft.training.memory import available_memory
from kft.training.optimizers import adamw

_SECONDS = 2.0  # of the largest step that is run for an estimate
_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"

# Measuring ----------------------------------------------------------------------------------------


class PeakMemory:
    """Peak resident memory of this process within a `with` block.

    A thread reads it every hundredth of a second; memory of an accelerator is not included.

    Attributes:
        before: Resident memory at the start in bytes.
        peak: Peak memory in bytes.
    """

    def __enter__(self) -> PeakMemory:
        gc.collect()
        _return_freed_memory()
        self.before = self.peak = psutil.Process().memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak = max(self.peak, process.memory_info().rss)
            if self._done.wait(0.01):
                return


def _return_freed_memory() -> None:
    """Return freed memory to the system: glibc keeps it, and it would be added to the next run."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # another system


@dataclass(frozen=True)
class Timed:
    """How long some work takes, in seconds.

    Attributes:
        seconds: Once it is compiled.
        compiling: How much longer the first time takes on a backend that compiles; 0 on torch.
    """

    seconds: float
    compiling: float


def timed(work: Callable[[], Any]) -> Timed:
    """Do some work four times, and return the median time without the first one.

    Args:
        work: Function without arguments.
    """
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    usual = float(np.median(seconds[1:]))
    compiles = keras.backend.backend() != "torch"
    return Timed(usual, max(seconds[0] - usual, 0.0) if compiles else 0.0)


def seconds_of_training(model: keras.Model, inputs: Any, targets: Sequence[Any]) -> Timed:
    """Return the time of a step; reading its loss waits until the backend has computed it.

    Args:
        model: A compiled model, which is trained by four steps.
        inputs: Of one batch.
        targets: Targets, and perhaps weights.
    """
    return timed(lambda: float(model.train_on_batch(inputs, *targets, return_dict=True)["loss"]))


# Estimating ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What one batch takes, in training and in prediction.

    Attributes:
        batch_size: Number of records.
        length: Number of residues of each; None for inputs without a length.
        memory: Peak memory of this process while it trains, in bytes; what it holds now included.
        seconds: Wall-clock time of a training step, forward, backward and update.
        forward_memory: Peak memory of this process while it predicts, in bytes.
        forward_seconds: Wall-clock time of a forward pass.
        compiling: Wall-clock time by which the first training step takes longer, as backends
            other than torch compile it; again for each other shape of batch.
        measured: Number of records of the largest batch that was run; if it is `batch_size`,
            nothing is extrapolated.
    """

    batch_size: int
    length: int | None
    memory: int
    seconds: float
    forward_memory: int
    forward_seconds: float
    compiling: float
    measured: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        size = f"{self.batch_size} records" + (f" of {self.length} residues" if self.length else "")
        run = "measured" if self.measured == self.batch_size else f"from batches of {self.measured}"
        step, forward = f"{self.seconds:.3g} s", f"{self.forward_seconds:.3g} s"
        compiling = f" (the first {self.compiling:.2g} s more)" if self.compiling else ""
        return (
            f"{size}, {run}:\n"
            f"training step  {step}{compiling}, {self.memory / 2**30:.2f} GiB\n"
            f"forward pass   {forward}, {self.forward_memory / 2**30:.2f} GiB"
        )


def estimate(model: keras.Model, batch_size: int = 32, length: int | None = None) -> Estimate:
    """Estimate memory and time of a training step and of a forward pass, before training.

    A copy of the model, with what is frozen, adapters and `kft.remat`, trains on random batches
    with AdamW: as many records as take about two seconds, at most `batch_size`. For more records
    memory and time are extrapolated along a line through two sizes. The time of compilation is
    stated apart. Outputs of frozen layers, which `kft.fit` computes once where it can, are computed
    in each step here. Memory is that of the process: on a graphics card only the time is of use.

    Args:
        model: A `kft.Model`, or a backbone of kft.
        batch_size: Number of records.
        length: Number of residues of each; None for models of images or of rows of a table.

    Returns:
        `Estimate`; printed, it is three lines.

    Raises:
        TypeError: The model is a plain Keras model.
        ValueError: A model of sequences without `length`, or another with one; or nothing in the
            model is trainable.

    Example:
        >>> import kft
        >>> model = kft.Model(kft.load("kft_esm2_tiny"), kft.heads.Regression())
        >>> found = kft.estimate(model, batch_size=4, length=20)
        >>> found.seconds > 0 and found.memory > found.forward_memory / 2
        True
    """
    expected = "a kft.Model, or a backbone of kft"
    check_instance("model", model, GraphModel, expected)
    check_integer("batch_size", batch_size)
    check_optional_integer("length", length)
    _check_length(model, length)
    with PeakMemory() as alone:
        trial = copy.deepcopy(model)
    if not trial.trainable_variables:
        raise ValueError(f"No weight of {model.name} is trainable: unfreeze a layer first.")
    first = many = _costs(trial, 1, length)  # pays for what all sizes share, such as the optimizer
    larger, grown = 1, np.zeros(4)
    if batch_size > 1:
        usual = np.maximum(first[:4], [2**20, 1e-4] * 2)
        most = np.array([(available_memory() or 2**40) / 2, _SECONDS] * 2)
        larger = min(max(int(np.min(most / usual)), 2), batch_size)
        one, many = (_costs(trial, size, length) for size in (1, larger))
        grown = _growth(one, many, larger - 1)
    memory, forward_memory = (
        int(alone.before + x) for x in (first[:4] + grown * (batch_size - 1))[::2]
    )
    seconds, forward = map(float, (many[:4] + grown * (batch_size - larger))[1::2])
    return Estimate(
        batch_size, length, memory, seconds, forward_memory, forward, float(many[4]), larger
    )


def _growth(one: np.ndarray, many: np.ndarray, records: int) -> np.ndarray:
    """Return the bytes and seconds that a record more takes, at least 0."""
    return np.maximum(many[:4] - one[:4], 0.0) / records


def _check_length(model: keras.Model, length: int | None) -> None:
    kind = _kind(model)
    if kind is not None and kind.has_length and length is None:
        raise ValueError(
            f"length must be the number of residues of each record, since {model.name} takes "
            f"{kind}s, received None."
        )
    if length is not None and (kind is None or not kind.has_length):
        raise ValueError(
            f"length is for models of sequences, received {length} for {model.name}: leave it out."
        )


def _kind(model: keras.Model) -> InputKind | None:
    encode = getattr(model, "encode", None)
    return None if encode is None else encoder_info(encode).input_kind


def _batch(model: keras.Model, size: int, length: int | None) -> Any:
    """Return inputs of random records."""
    rng, kind = np.random.default_rng(0), _kind(model)
    if length is not None:
        rows = ["".join(rng.choice(list(_RESIDUES), length)) for _ in range(2 * size)]
        pairs = list(zip(rows[:size], rows[size:], strict=True))
        return model.encode(pairs if kind is InputKind.PAIR else rows[:size])

    def array(x: keras.KerasTensor) -> np.ndarray:
        shape = (size, *(n or 1 for n in x.shape[1:]))
        return np.zeros(shape, keras.backend.standardize_dtype(x.dtype))

    return keras.tree.map_structure(array, model.input)


def _compile(model: keras.Model) -> None:
    """Compile with AdamW and a loss that any output has, and that takes no time."""

    def loss(y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.square(y_pred))

    model.compile(adamw(1e-6, model.trainable_variables), loss)


def _costs(model: keras.Model, size: int, length: int | None) -> np.ndarray:
    """Return added bytes and seconds of a training step, of a forward pass, and of compiling."""
    inputs = _batch(model, size, length)
    _compile(model)
    with PeakMemory() as forward:
        passed = timed(lambda: model.predict_on_batch(inputs))
    zeros = np.zeros(size, "float32")
    with PeakMemory() as training:
        step = seconds_of_training(model, inputs, [zeros])
    added = [memory.peak - memory.before for memory in (training, forward)]
    return np.array([added[0], step.seconds, added[1], passed.seconds, step.compiling], "float64")
