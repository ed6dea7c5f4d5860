"""The time that a training will take, from one batch: steps, compilation, what is done once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kft.comparison.estimating import PeakMemory, Timed, seconds_of_training, timed
from kft.comparison.runs import new_model
from kft.data import Dataset
from kft.keras_internals import own_weights, sublayers_of
from kft.models import Model
from kft.params import layers
from kft.training.batching import Batches, batches
from kft.training.features import FrontierError
from kft.training.frontier import fit_value_range, split
from kft.training.optimizers import adamw
from kft.training.probing import seconds_to_solve
from kft.training.strategies import Phase, Strategy


@dataclass(frozen=True)
class Step:
    """Measured times of one batch, and the sizes of the splits.

    Attributes:
        seconds: Wall-clock time of training all weights on the batch, forward and backward,
            without compilation.
        forward: The same of the backbone's forward pass.
        head: The same of training the head alone on the backbone's outputs.
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
        residues: Number of residues of the longest record of train; None if it has none.
        compiling: Wall-clock time of compiling each of the first three, for one shape of batch; 0
            on torch.
        again: Share of it that another training takes, whose programs are compiled already.
        programs: Number of programs compiled for the batches of train, of valid, of both one by
            one, and of test.
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
    residues: int | None = None
    compiling: tuple[float, float, float] = (0.0, 0.0, 0.0)
    again: float = 1.0
    programs: tuple[int, int, int, int] = (1, 1, 1, 1)


@dataclass(frozen=True)
class Expected:
    """What a training takes, in seconds.

    Attributes:
        seconds: Without compilation.
        compiling: Compilation in the first one.
        again: Compilation in each further one, with another seed.
    """

    seconds: float
    compiling: float = 0.0
    again: float = 0.0

    def of(self, trainings: int) -> float:
        """Return the seconds of some trainings, of which the first is the first."""
        further = max(trainings - 1, 0)
        return trainings * self.seconds + (trainings > 0) * self.compiling + further * self.again

    def compiled(self) -> Expected:
        """Return what a further training takes."""
        return Expected(self.seconds, self.again, self.again)


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
    once = timed(lambda: records[typical]).seconds
    inputs, *targets = records[typical]
    _compile(model, head)
    with PeakMemory() as memory:
        step = seconds_of_training(model, inputs, targets)
    again = _share_of_compiled(model, head, inputs, targets, step)
    forward, of_head, cut = _parts_of_step(model, head, inputs, targets, step)
    rows = data.train.take(records.record_indices[typical])
    solving = _seconds_of_solving(model, batches(rows, model.encode, batch_size, None, max_length))
    known = {
        name: batches(part, model.encode, batch_size, 0, max_length)
        for name, part in data.splits.items()
    }
    parts = [known.get(name) for name in ("train", "valid", "test")]
    train, valid, test = ([] if part is None else _sizes(part) for part in parts)
    of_train, of_valid, of_test = (set() if part is None else _shapes(part) for part in parts)
    return Step(
        step.seconds,
        min(forward.seconds, step.seconds),
        min(of_head.seconds, step.seconds),
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
        residues=_longest(records),
        compiling=(step.compiling, forward.compiling, of_head.compiling),
        again=again,
        programs=(
            _programs(of_train),
            _programs(of_valid),
            _programs(of_train | of_valid, one_by_one=True),
            _programs(of_test, one_by_one=True),
        ),
    )


def _typical(records: Batches) -> int:
    """Return the number of the full batch whose length is next to the mean over all tokens."""
    counts = np.array([len(rows) for rows in records.record_indices])
    lengths = np.array([records.padded(i) or 1 for i in range(len(records))])
    mean = np.average(lengths, weights=counts * lengths)
    return int(np.argmin(np.where(counts == counts.max(), abs(lengths - mean), np.inf)))


def _longest(records: Batches) -> int | None:
    """Return the residues of the longest record with padding; None for records without a length."""
    if records.lengths is None:
        return None
    return max(1, int(records.padded_length(records.lengths.max())) - sum(records.info.specials))


def _compile(model: keras.Model, head: keras.layers.Layer) -> None:
    """Compile a model as `fit` does, so that a step takes as long."""
    made = hasattr(head, "make_loss")
    loss, metrics = (head.make_loss(), head.make_metrics()) if made else ("mse", None)
    optimizer = adamw(1e-5, model.trainable_variables)
    model.compile(optimizer, loss, weighted_metrics=metrics)


def _share_of_compiled(
    model: keras.Model, head: keras.layers.Layer, inputs: Any, targets: Sequence[Any], step: Timed
) -> float:
    """Return which share of compilation is left once the program is kept, as in `kept_programs`."""
    if keras.backend.backend() != "jax" or not step.compiling:
        return 1.0
    _compile(model, head)
    started = time.perf_counter()
    model.train_on_batch(inputs, *targets)
    taken = time.perf_counter() - started - step.seconds
    return float(np.clip(taken / step.compiling, 0.0, 1.0))


def _seconds_of_solving(model: keras.Model, records: Batches) -> float:
    """Return the time of solving for a linear head, without its features; 0 for others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a solution that is not used
            return seconds_to_solve(model, records)
    except (ValueError, FloatingPointError):  # not linear, or too few records for it
        return 0.0


def _parts_of_step(
    model: Model, head: keras.layers.Layer, inputs: Any, targets: Sequence[Any], step: Timed
) -> tuple[Timed, Timed, float]:
    """Return the time of the forward pass, of training the head alone, and seconds of cutting."""
    started = time.perf_counter()
    model.backbone.trainable = False
    try:
        frozen, learner = split(model)
    except (FrontierError, TypeError):  # not functional, or a backbone without weights
        return Timed(step.seconds / 3, step.compiling / 3), Timed(0.0, 0.0), 0.0
    cut = time.perf_counter() - started
    forward = timed(lambda: frozen.predict_on_batch(inputs))
    features = frozen.predict_on_batch(inputs)
    _compile(learner, head)
    return forward, seconds_of_training(learner, features, targets), cut


def _sizes(records: Batches) -> list[int]:
    """Return the size of each batch, in tokens with padding for sequences, else in records."""
    return [len(rows) * (records.padded(i) or 1) for i, rows in enumerate(records.record_indices)]


def _shapes(records: Batches) -> set[tuple[int, int | None]]:
    """Return the shapes of the batches: records, and tokens with padding for sequences."""
    return {(len(rows), records.padded(i)) for i, rows in enumerate(records.record_indices)}


def _programs(shapes: set[tuple[int, int | None]], one_by_one: bool = False) -> int:
    """Return how many programs are compiled for batches of these shapes.

    JAX compiles one for each shape. TensorFlow compiles one for all batches of a `fit`; if they
    come one by one, a first one, and at most another for each axis along which they differ.
    """
    if keras.backend.backend() != "tensorflow" or not shapes:
        return len(shapes)
    return 1 + sum(len(set(sizes)) > 1 for sizes in zip(*shapes, strict=True)) if one_by_one else 1


def expected_seconds(step: Step, model: Model, phases: Sequence[Phase]) -> Expected:
    """Estimate the time of a training and of predicting the test split.

    Frozen features are computed once, and of the longest batches twice (see
    `kft.training.features`). Half of a backward pass is for activations, of all layers above the
    frontier, and half for weights, of those that learn. The time of solving for a linear head
    grows with the number of rows. The time of compiling a program grows with the layers in it.
    Nothing is changed.

    Args:
        step: `Step`.
        model: A `kft.Model` as the strategy has prepared it.
        phases: Phases of the strategy for this model.

    Returns:
        `Expected`.
    """
    train, valid, test = (size / step.batch for size in (step.train, step.valid, step.test))
    half = max(step.seconds - step.forward - step.head, 0.0) / 2  # of a backward pass
    seconds = step.setup + step.once * (train + valid) + (step.once + step.forward) * test
    whole, of_forward, of_head = step.compiling
    of_train, of_valid, of_both, of_test = step.programs
    compiling = of_forward * of_test
    for phase in phases:
        above, learning = _fractions(model, phase) if phase.epochs else (0.0, 0.0)
        # `fit` cuts once to see whether it saves time, and once more to train.
        seconds += 2 * step.cut + (1 - above) * step.forward * (train + valid)
        if above < 1:
            seconds += (1 - above) * step.forward * step.longest / step.batch
            compiling += (1 - above) * of_forward * of_both
        if not phase.epochs:
            seconds += step.solving * min(train, phase.rows / step.rows)
        each = step.head + above * step.forward
        seconds += phase.epochs * (each * (train + valid) + (above + learning) * half * train)
        if phase.epochs:
            compiling += (of_head + above * max(whole - of_head, 0.0)) * of_train
            compiling += above * of_forward * of_valid
    return Expected(seconds, compiling, step.again * compiling)


def expected_of(
    strategy: Strategy, step: Step, backbone: keras.Model, head: keras.layers.Layer
) -> Expected:
    """Estimate the time of a training by a strategy, as `expected_seconds` does.

    Args:
        strategy: The strategy.
        step: `Step`.
        backbone: The pre-trained backbone; it is not changed.
        head: A new head.

    Returns:
        `Expected`.
    """
    model = strategy.prepare(new_model(backbone, head))
    return expected_seconds(step, model, strategy.phases(model))


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
