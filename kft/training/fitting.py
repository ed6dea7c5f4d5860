"""Fine-tuning by a strategy: Keras's `fit`, phase by phase."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kft.arguments import (
    check_callable,
    check_choice,
    check_flag,
    check_integer,
    check_number_above,
    check_path,
)
from kft.data import Dataset, Split
from kft.data.spreadsheets import is_frame
from kft.keras_internals import compile_arguments, seed_generators, sublayers_of
from kft.messages import count_of, listed
from kft.models import per_residue
from kft.models.graphs import flat
from kft.models.losses import balanced
from kft.models.model import Model
from kft.params import Parameters, differences, parameters, record_marks, user_marks, weights
from kft.params.paths import check_model
from kft.programs import kept_programs
from kft.training import strategies
from kft.training.batching import Batches, keep_images, records_of
from kft.training.callbacks import (
    FrozenGuard,
    KeepBest,
    OneRun,
    check_callbacks,
    require_constant_learning_rate,
)
from kft.training.features import MEMORY_LIMIT, FrontierError
from kft.training.frontier import (
    as_batches,
    check_cache,
    check_sizes,
    fit_frontier,
    split,
    train_as,
    why_not,
)
from kft.training.memory import explained
from kft.training.optimizers import OptimizerFactory, Optimizers, WarmupCosine, adamw
from kft.training.probing import solve
from kft.training.prompted import (
    Prompting,
    check_strategy,
    compile_arguments_of,
    fit_prompted,
    is_prompted,
    prompted_batches,
)
from kft.training.range_test import loss_of
from kft.training.resuming import Resumption, digest_of_records

# Results ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhaseReport:
    """Report on one phase of a training.

    Attributes:
        name: Name of the phase.
        epochs: Number of epochs; 0 where the head was solved for in closed form.
        trainable: Number of trainable parameters.
        parameters: Number of all parameters.
        seconds: Wall-clock time in seconds.
        why_not_computed_once: Why frozen features were not computed once and kept; None if they
            were.
    """

    name: str
    epochs: int
    trainable: int
    parameters: int
    seconds: float
    why_not_computed_once: str | None


@dataclass(frozen=True, eq=False)
class FitResult:
    """Result of `fit`.

    Attributes:
        model: The trained model: the given one, or the copy of from_scratch.
        strategy: The strategy; without one `kft.strategies.AsMarked`, with the epochs and the
            learning rate that were used.
        history: List of dicts, one per epoch: phase, epoch, and what Keras logged.
        phases: List of `PhaseReport`.
        best_epoch: Epoch whose weights the model has, numbered from 0 over all phases; None where
            the weights of the last epoch were kept.
        seconds: Wall-clock time of all phases, in seconds.
        settings: What determines the training besides model and data: strategy, seed, batch_size,
            max_length and class_weight.
    """

    model: keras.Model = field(repr=False)
    strategy: Any
    history: list[dict] = field(repr=False)
    phases: list[PhaseReport] = field(repr=False)
    best_epoch: int | None
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict, repr=False)


# Training -----------------------------------------------------------------------------------------


def fit(
    model: keras.Model,
    data: Dataset | Split | tuple,
    strategy: str | strategies.Strategy | None = None,
    epochs: int | None = None,
    *,
    learning_rate: float | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    seed: int = 0,
    loss: Any = None,
    metrics: Any = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
    optimizer: OptimizerFactory = adamw,
    keep_best: bool = True,
    frontier: bool | Literal["auto"] = "auto",
    cache: Path | str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: Any = "auto",
    encode: Callable | None = None,
    resume: Path | str | None = None,
    prompting: Prompting | None = None,
) -> FitResult:
    """Train the layers that are marked trainable, or fine-tune by a strategy, in phases.

    It runs Keras's `fit`. Without a strategy, the layers with `layer.trainable = True` are trained,
    and `trainable` is not changed. A strategy sets `trainable` in each phase and does not reset it
    at the end; if it overrides a value that you have set, a warning names the layers. The weights
    of the best epoch on the validation split are kept.

    Args:
        model: A `kft.Model`, or any functional Keras model.
        data: A `kft.data.Dataset`; or, without validation, a `Split` or a tuple (inputs, targets)
            or (inputs, targets, weights). Weights multiply the loss of each record, as Keras's
            `sample_weight` does.
        strategy: None trains the layers that are trainable, see `kft.strategies.AsMarked`; or a
            name of `kft.strategies.names()`, or a `kft.strategies.Strategy`.
        epochs: Epochs over all phases; None for those of the strategy.
        learning_rate: Highest learning rate; None for that of the strategy.
        batch_size: Number of records per batch.
        max_length: Number of residues to keep of each sequence; None keeps all.
        seed: Int that determines the order of the batches, dropout and new weights.
        loss: As for `compile`; None takes that of the kft head or of the last compile.
        metrics: As for `compile`; None takes those of the kft head or of the last compile. They are
            weighted where the data have weights or targets for each residue.
        class_weight: "balanced", or one weight per class, for a kft head that classifies; None
            for that of the data set, see `kft.prepare`.
        label_smoothing: Fraction of each label that is spread over all classes.
        optimizer: Called as `optimizer(learning_rate, variables)`, returns a Keras optimizer, which
            may accumulate gradients (`gradient_accumulation_steps`).
        keep_best: False keeps the weights of the last epoch.
        frontier: "auto" computes the outputs of frozen layers once where that saves time; True
            raises an error where it cannot be done; False never does it.
        cache: Folder in which outputs of frozen layers are kept for the next run, see
            `kft.fit_frontier`; None keeps none, or with `resume` those of the present phase.
        memory_limit: Size of all such outputs, in bytes, above which they are read from a file.
            Encoded images may take as much again: where they are needed more than once, each is
            opened and resized once and kept in memory until the end of training. If all of them
            would take more, none is kept, and a line says so.
        callbacks: Keras callbacks. They see all phases as one run, and can stop all of it. One that
            sets the learning rate is an error, unless `optimizer` uses a constant one.
        verbose: As for Keras's `fit`: 0 prints nothing, 1 a progress bar, 2 a line per epoch;
            "auto" prints a bar on a terminal and lines elsewhere.
        encode: Function from raw inputs to arrays, such as `backbone.encode` for a Keras model
            that was built on `backbone.input`; None takes `model.encode`. Without either the
            inputs are arrays.
        resume: Path of a file (.npz) that keeps the training at the end of each epoch. If it is
            there already, the training continues with the epoch after it, and on the same backend
            and processor ends with the same weights as without the interruption. Outputs of frozen
            layers are kept batch by batch in a folder next to it, which is removed when they are no
            longer needed. Remove the file yourself. States of your own callbacks are not kept.
        prompting: For a model that takes prompts, such as a SAM: how objects and prompts are drawn,
            see `kft.segmentation.training.Prompting`; None for the usual way. The data are then
            images and label images.

    Returns:
        `FitResult`; its `model` is the given one, trained, or the copy of from_scratch.

    Raises:
        ValueError: Unknown strategy or option, no loss, no trainable layer, data that do not fit,
            or `resume` belongs to another training.
        TypeError: A strategy of another type.
        kft.training.frontier.FrontierError: `frontier=True` cannot be done.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> backbone.trainable = False
        >>> done = kft.fit(model, (["MKTAYI", "GSS"], [0.0, 1.0]), epochs=2, verbose=0)
        >>> done.phases[0].trainable
        321
    """
    check_choice("frontier", frontier, ("auto", True, False))
    check_model(model)
    check_sizes(batch_size, max_length, seed)
    check_flag("keep_best", keep_best)
    check_callable("optimizer", optimizer, "a function that makes an optimizer")
    check_cache(cache, memory_limit)
    if resume is not None:
        check_path("resume", resume)
    callbacks = check_callbacks(callbacks)
    if encode is not None:
        check_callable("encode", encode, "a function")
    data = _checked_data(data)
    strategy = _configured(strategy, model, epochs, learning_rate, seed)
    _check_targets(model, data)
    if callbacks:
        example = optimizer(WarmupCosine(1e-3, 1), model.trainable_variables)
        require_constant_learning_rate(callbacks, example)
    class_weight = _class_weight(model, data, class_weight)
    compile_args = _compile_args(model, data, loss, metrics, class_weight, label_smoothing)
    keep = [KeepBest()] if keep_best and getattr(data, "valid", None) is not None else []
    options = {"callbacks": callbacks, "verbose": verbose}
    features: dict[str, Any] = {"cache": cache, "memory_limit": memory_limit}
    optimizers = Optimizers(optimizer)
    settings = {"strategy": repr(strategy), "seed": seed, "class_weight": class_weight}
    settings |= {"batch_size": batch_size, "max_length": max_length}
    resumption = Resumption(resume, settings, keep[0] if keep else None, optimizers)
    if cache is None:
        features["cache"] = resumption.features
    run = _Run(
        compile_args, class_weight, seed, frontier, features, options, optimizers, resumption
    )
    batching: dict[str, Any] = {
        "batch_size": batch_size,
        "max_length": max_length,
        "encode": encode,
    }
    if is_prompted(model):
        batching["prompting"] = prompting
        check_strategy(strategy)
    elif prompting is not None:
        raise ValueError(f"prompting is for models that take prompts, and {model.name} takes none.")
    with kept_programs():
        return run(model, data, strategy, batching, keep)


@dataclass
class _Run:
    """One call of `fit`, with its arguments checked.

    Attributes:
        compile_args: Arguments of `compile`, without the optimizer.
        features: `cache` and `memory_limit` of `fit_frontier`.
        options: `callbacks` and `verbose` of Keras's `fit`.
        images_decided: Whether it is decided if encoded images are kept.
    """

    compile_args: dict
    class_weight: Sequence[float] | None
    seed: int
    frontier: object
    features: dict
    options: dict
    optimizers: Optimizers
    resumption: Resumption
    images_decided: bool = False

    def __call__(
        self,
        model: keras.Model,
        data: Any,
        strategy: strategies.Strategy,
        batching: Mapping[str, Any],
        keep: list[KeepBest],
    ) -> FitResult:
        started = time.perf_counter()
        # Before anything is changed: records that do not fit raise an error.
        made = prompted_batches if is_prompted(model) else as_batches
        records: Any = made(model, data, self.seed, **batching)
        if isinstance(model, Model):
            model.take_names(data)
        marks = user_marks(model)
        if isinstance(strategy, strategies.AsMarked) and self.options["verbose"]:
            print(_described_as_marked(model, strategy))
        with _silently_uncompiled():
            model = strategy.prepare(model)
            phases = strategy.phases(model)
            self._check_frontier(model, phases)
            _warn_of_overridden_marks(model, strategy, phases, marks)
        one_run = OneRun(self.options["callbacks"], sum(phase.epochs for phase in phases))
        self.options["callbacks"] = [
            *[one_run] * bool(one_run.callbacks),
            FrozenGuard(),
            *keep,
            *[self.resumption] * (self.resumption.path is not None),
        ]
        _seed_dropout(model, self.seed)
        history, reports = self._resumed(model, records)
        if len(phases) > 1:
            self._keep_images(records)
        for number, phase in list(enumerate(phases))[len(reports) :]:
            kept = self.resumption.begin(number, [asdict(report) for report in reports])
            place = number, len(phases), kept
            report, logs = self._run_phase(model, phase, place, records, history)
            reports.append(report)
            history += logs
            self.resumption.forget_features()
            if phase.epochs and model.stop_training:
                break
        one_run.finish()
        if not isinstance(strategy, strategies.AsMarked):
            record_marks(model)
        # The last schedule has reached zero, and the next call of `model.fit` is to train.
        last = self.optimizers.optimizer(
            phases[-1].learning_rate or 1e-3, model.trainable_variables
        )
        last.build(model.trainable_variables)  # a saved model is compared with it
        model.compile(last, **self.compile_args)
        best = _restored(keep[0]) if keep and history else None
        seconds = time.perf_counter() - started
        settings = dict(self.resumption.settings)
        return FitResult(model, strategy, history, reports, best, seconds, settings)

    def _resumed(
        self, model: keras.Model, records: tuple[Batches, Batches | None]
    ) -> tuple[list[dict[str, Any]], list[PhaseReport]]:
        """Return the rows of epochs and the reports of phases that an interrupted call has kept."""
        if self.resumption.path is None:
            return [], []
        self.resumption.settings["data"] = digest_of_records(records)
        self.resumption.open(model)
        rows = list(self.resumption.rows)
        if rows and self.options["verbose"]:
            print(f"Continued after {count_of(len(rows), 'epoch')}, from {self.resumption.path}.")
        return rows, [PhaseReport(**report) for report in self.resumption.reports]

    def _keep_images(self, records: tuple[Batches, Batches | None]) -> None:
        """Have each image encoded once, or say once that all of them would take too much memory."""
        if self.images_decided:
            return
        self.images_decided = True
        parts = [part for part in records if part is not None]
        reason = keep_images(parts, self.features["memory_limit"])
        if reason is not None and self.options["verbose"]:
            print(reason)

    def _check_frontier(self, model: keras.Model, phases: Sequence[strategies.Phase]) -> None:
        """Raise an error now where `frontier=True` cannot be done in a later phase."""
        for phase in phases if self.frontier is True else ():
            phase.mark(model)
            split(model)

    def _run_phase(
        self,
        model: keras.Model,
        phase: strategies.Phase,
        place: tuple[int, int, int],
        records: tuple[Batches, Batches | None],
        history: Sequence[dict],
    ) -> tuple[PhaseReport, list[dict[str, Any]]]:
        """Train one phase; returns its report and the rows of its epochs.

        `place` is its number, the number of phases, and how many of its epochs are done.
        """
        number, count, kept = place
        with _silently_uncompiled():
            phase.mark(model)
        table = parameters(model)
        reason = self._why_not_computed_once(model, phase)
        if self.options["verbose"]:
            print(_described(number, count, phase, table, reason))
        began, rows = time.perf_counter(), []
        if phase.epochs:
            records[0].go_to(len(history))  # Keras also ends an epoch before each fit
            done = len(history), kept
            with explained(records[0]):
                logs, reason = self._train(model, phase, number, records, reason, done)
            rows = [] if logs is None else _rows(logs, number, len(history))
        else:
            limits = phase.rows, self.seed, *self.features.values()
            solve(model, *records, self.class_weight, *limits)
        seconds = time.perf_counter() - began
        report = PhaseReport(
            phase.name, phase.epochs, table.trainable, table.total, seconds, reason
        )
        return report, rows

    def _why_not_computed_once(self, model: keras.Model, phase: strategies.Phase) -> str | None:
        """Why frozen features are not computed once in a phase, None if they are."""
        if not phase.epochs:
            return "The head is solved for in closed form."
        if self.frontier is False:
            return "frontier is False."
        if self.frontier is True:
            return None
        if (reason := why_not(model)) is not None:
            return reason
        return "They would be used for one epoch only." if phase.epochs < 2 else None

    def _train(
        self,
        model: keras.Model,
        phase: strategies.Phase,
        number: int,
        records: tuple[Batches, Batches | None],
        reason: str | None,
        done: tuple[int, int],
    ) -> tuple[keras.callbacks.History | None, str | None]:
        """Train; `done` are the epochs before this call, of all phases and of this one."""
        train, valid = records
        before, kept = done
        epochs = {"initial_epoch": before, "epochs": before - kept + phase.epochs}
        options = {**epochs, **self.options}
        _reset_metrics(self.compile_args)
        optimizer = self.optimizers.next(model, phase, number, len(train))
        model.compile(optimizer, **self.compile_args)
        if kept:
            self.resumption.restore(optimizer)
        logs = None
        if kept == phase.epochs:  # interrupted between two phases
            self.optimizers.keep()
            return None, reason
        prompted = is_prompted(model)
        if reason is None:
            try:
                at_frontier = fit_prompted if prompted else fit_frontier
                logs = at_frontier(model, train, valid, **self.features, **options)
            except FrontierError as error:
                if self.frontier is True:
                    raise
                reason = str(error)
                if options["verbose"]:
                    print(f"The whole model is trained instead. {error}")
        if logs is None:
            if phase.epochs > 1:
                self._keep_images(records)
            if prompted:
                logs = fit_prompted(model, train, valid, at_frontier=False, **options)
            else:
                logs = train_as(model, flat(model), train, valid, **options)
        self.optimizers.keep()
        return logs, reason


def _restored(keep: KeepBest) -> int | None:
    if keep.epoch is None:
        warnings.warn(
            "val_loss was NaN in every epoch, so training has diverged: lower learning_rate. "
            "The weights are those of the last epoch.",
            stacklevel=4,
        )
        return None
    return keep.restore()


# Arguments ----------------------------------------------------------------------------------------


def _configured(
    strategy: Any, model: keras.Model, epochs: int | None, learning_rate: float | None, seed: int
) -> strategies.Strategy:
    """The strategy, with the epochs, learning rate and seed that `fit` was given."""
    if strategy is None:
        strategy = strategies.AsMarked()
    if isinstance(strategy, str):
        strategy = strategies.get(strategy)
    if isinstance(strategy, type):
        raise TypeError(
            f"strategy must be an object, received the class {strategy.__name__}: write "
            f"{strategy.__name__}()."
        )
    strategies.check_strategy(strategy)
    known = {f.name for f in fields(strategy)}
    given = {"epochs": epochs, "learning_rate": learning_rate}
    given = {name: value for name, value in given.items() if value is not None}
    if unknown := given.keys() - known:
        raise ValueError(
            f"{type(strategy).__name__} takes no {' and no '.join(sorted(unknown))}: leave "
            f"{'it' if len(unknown) == 1 else 'them'} out."
        )
    if getattr(strategy, "seed", 0) is None:
        given["seed"] = seed
    strategy = replace(strategy, **given)
    if isinstance(strategy, strategies.AsMarked):
        strategy, _ = strategy.filled(model)
    for name, check in (("epochs", check_integer), ("learning_rate", check_number_above)):
        if hasattr(strategy, name):
            check(name, getattr(strategy, name))
    return strategy


def _checked_data(data: Any) -> Any:
    """Return records with targets; anything else is an error that says how to make it that."""
    if isinstance(data, tuple) and data and isinstance(data[0], Iterator):
        return (list(data[0]), *data[1:])  # it is read more than once
    if hasattr(data, "train") or hasattr(data, "inputs") or isinstance(data, tuple | Batches):
        return data
    received, advice = f"a {type(data).__name__}", "give a data set, or a pair (inputs, targets)"
    if isinstance(data, str | PathLike) or is_frame(data):
        source = "data" if is_frame(data) else repr(str(data))
        received += f", {source}" * (not is_frame(data))
        advice = (
            f"read it with kft.data.read_table({source}, inputs=COLUMN, target=COLUMN), or "
            "kft.data.read_images for images, or kft.data.load for a data set of kft"
        )
    raise TypeError(
        "data must be a kft.data.Dataset, a Split or a pair (inputs, targets), received "
        f"{received}: {advice}."
    )


def _check_targets(model: keras.Model, data: Any) -> None:
    """Raise an error for wrong targets that Keras would train on without an error."""
    if is_prompted(model):
        return  # `prompted_batches` checks them
    if len(model.outputs) > 1:
        raise ValueError(
            f"kft.fit trains models with one output, {model.name} has {len(model.outputs)}: use "
            f"model.compile and model.fit."
        )
    parts = {"train": data.train, "valid": data.valid} if hasattr(data, "train") else {"": data}
    head: Any = getattr(model, "head", None)
    for name, part in parts.items():
        if part is None:
            continue
        targets = records_of(part)[1]
        where = f" of the {name} split" * bool(name)
        if targets is None:
            raise ValueError(
                f"The records{where} have no targets to train on: give (inputs, targets)."
            )
        if hasattr(head, "check_targets") and len(targets):
            head.check_targets(targets, where)
        elif per_residue(model) and np.ndim(next(iter(targets), ())) == 0:
            raise ValueError(
                f"{model.name} has outputs for every position, of shape {model.output_shape}, and "
                f"the targets{where} are one per record: pool the positions, for example with "
                f"kft.Model(backbone, head, pooling='mean')."
            )


def _class_weight(model: keras.Model, data: Any, class_weight: Any) -> Any:
    if class_weight is None:
        return getattr(data, "class_weight", None)
    if not isinstance(class_weight, str):
        return class_weight
    if class_weight != "balanced":
        raise ValueError(f"class_weight must be 'balanced' or numbers, received {class_weight!r}.")
    classes = getattr(getattr(model, "head", None), "classes", None)
    if classes is None:
        raise ValueError(
            "class_weight='balanced' needs a kft head with one class per record, such as "
            "kft.heads.Classification: use such a head, or leave class_weight out."
        )
    train = getattr(data, "train", data)
    _, targets, weights = records_of(train)
    return balanced(targets, classes, getattr(train, "masks", None), weights)


def _compile_args(
    model: keras.Model,
    data: Any,
    loss: Any,
    metrics: Any,
    class_weight: Any,
    label_smoothing: float,
) -> dict[str, Any]:
    """The arguments of `compile`, without the optimizer."""
    if is_prompted(model):
        others = {"loss": loss, "metrics": metrics, "class_weight": class_weight}
        return compile_arguments_of(model, **others, label_smoothing=label_smoothing or None)
    head: Any = getattr(model, "head", None)
    if loss is None and hasattr(head, "make_loss"):
        loss = head.make_loss(class_weight, label_smoothing)
        metrics = head.make_metrics() if metrics is None else metrics
    elif class_weight is not None or label_smoothing:
        raise ValueError(
            "class_weight and label_smoothing need a kft head and no `loss`: leave them out, or "
            "give them to your own loss."
        )
    weighted = per_residue(model) or records_of(getattr(data, "train", data))[2] is not None
    kind = "weighted_metrics" if weighted else "metrics"
    if loss is None and model.compiled:
        last = compile_arguments(model)
        metrics = last["metrics"] if metrics is None else metrics
        return {"loss": last["loss"], kind: metrics}
    return {"loss": loss_of(model) if loss is None else loss, kind: metrics}


def _reset_metrics(compile_args: Mapping[str, Any]) -> None:
    """Reset metrics that an earlier phase has used; Keras resets only those that it has built."""
    used = [compile_args.get(kind) for kind in ("metrics", "weighted_metrics")]
    for metric in keras.tree.flatten(used):
        if isinstance(metric, keras.metrics.Metric):
            metric.reset_state()


@contextmanager
def _silently_uncompiled() -> Iterator[None]:
    """Ignore the warning that a change of `trainable` undoes `compile`, which is called later."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was compiled")
        yield


def _seed_dropout(model: keras.Model, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for layer in sublayers_of(model):
        for generator in seed_generators(layer):
            state = rng.integers(2**32, size=generator.state.shape, dtype="uint32")
            generator.state.assign(state)


# Messages -----------------------------------------------------------------------------------------


def _described_as_marked(model: keras.Model, strategy: strategies.AsMarked) -> str:
    """The trainable layers, epochs and learning rate of a training without a strategy."""
    _, similar = strategy.filled(model)
    all_weights, marks = weights(model), user_marks(model)
    trainable = [weight.path for weight in all_weights if weight.trainable]
    parts = list(dict.fromkeys(path.partition("/")[0] for path in trainable))
    text = (
        f"Training the layers that are marked trainable: {len(trainable)} of {len(all_weights)} "
        f"weights, in {listed(parts, 4)}; for "
        f"{count_of(strategy.epochs or 0, 'epoch')}, with a learning rate of at most "
        f"{strategy.learning_rate:g}. Epochs and learning rate, where not given, are "
        f"those of the strategy {similar!r}."
    )
    if any(weight.frozen and not marks.get(weight.path) for weight in all_weights):
        text += (
            " Some layers were frozen by kft, in an earlier kft.fit or by kft.add_lora: "
            "kft.unfreeze makes them trainable."
        )
    return text


def _warn_of_overridden_marks(
    model: keras.Model,
    strategy: strategies.Strategy,
    phases: Sequence[strategies.Phase],
    marks: Mapping[str, bool],
) -> None:
    """Warn where a strategy trains layers that were frozen by hand, or the other way round."""
    if not marks or isinstance(strategy, strategies.AsMarked):
        return
    trainable = dict.fromkeys(marks, False)
    for phase in phases:
        phase.mark(model)
        trainable |= {w.path: True for w in weights(model) if not w.frozen and w.path in marks}
    phases[0].mark(model)
    changed = differences({path: not frozen for path, frozen in marks.items()}, trainable)
    if changed:
        warnings.warn(
            f"strategy {strategies.name_of(strategy)!r} chooses the trainable layers itself and "
            f"overrides values of layer.trainable that were set by hand: {changed}. Without a "
            f"strategy, kft.fit trains the layers that are marked trainable.",
            stacklevel=4,
        )


def _described(
    number: int, count: int, phase: strategies.Phase, table: Parameters, reason: str | None
) -> str:
    """One line on a phase."""
    epochs = phase.epochs
    length = count_of(epochs, "epoch") if epochs else "in closed form"
    once = "; frozen features are computed once" * (reason is None)
    return (
        f"Phase {number + 1} of {count}, {phase.name}: {table.trainable:,} of {table.total:,} "
        f"parameters are trainable, {length}{once}."
    )


def _rows(logs: keras.callbacks.History, phase: int, before: int) -> list[dict[str, Any]]:
    """One dict per epoch of a Keras History."""
    names = list(logs.history)
    return [
        {"phase": phase, "epoch": before + i, **dict(zip(names, values, strict=True))}
        for i, values in enumerate(zip(*logs.history.values(), strict=True))
    ]
