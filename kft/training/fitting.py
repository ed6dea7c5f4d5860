"""Fine-tuning by a strategy: Keras's `fit`, phase by phase."""

import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

import keras
import numpy as np

from kft.models.graphs import flat
from kft.models.losses import balanced
from kft.params import by_hand, differences, parameters, sign, weights
from kft.params.paths import listed
from kft.training import strategies
from kft.training.callbacks import FrozenGuard, KeepBest, OneRun, insist_on_constant_rate
from kft.training.features import MEMORY_LIMIT, FrontierError
from kft.training.frontier import as_batches, fit_frontier, split, train_as, why_not
from kft.training.optimizers import Optimizers, WarmupCosine, adamw
from kft.training.probing import solve
from kft.training.range_test import loss_of


@dataclass(frozen=True, eq=False)
class Fit:
    """What `fit` did.

    Attributes:
        model: the trained model: the one given, or from_scratch's copy.
        strategy: the strategy; `kft.strategies.AsMarked` with the epochs and the rate that were
            taken where none was named.
        history: list of dicts, one per epoch: phase, epoch, and what Keras logged.
        phases: list of dicts, one per phase: name, epochs, trainable and total parameters,
            seconds, and `whole`: why the frozen part was not computed once, None if it was.
        best_epoch: the epoch, from 0 over all phases, whose weights the model has now; None
            where the last ones were kept.
        seconds: wall-clock time in all.
    """

    model: keras.Model = field(repr=False)
    strategy: object
    history: list[dict] = field(repr=False)
    phases: list[dict] = field(repr=False)
    best_epoch: int | None
    seconds: float


def fit(
    model, data, strategy=None, epochs=None, *, learning_rate=None, batch_size=32,
    max_length=None, seed=0, loss=None, metrics=None, class_weight=None, label_smoothing=0.0,
    make=adamw, keep_best=True, frontier="auto", cache=None, memory_limit=MEMORY_LIMIT,
    callbacks=(), verbose="auto",
):  # fmt: skip
    """Trains what is marked trainable, or fine-tunes by a strategy: Keras's `fit`, in phases.

    Without a strategy, `layer.trainable` says what learns, and stays as it is. A strategy marks the
    model itself, as in its last phase in the end; a warning names the marks made by hand that it
    goes over. The weights of the best epoch on the validation split are kept.

    Args:
        model: a `kft.Model`, or any functional Keras model.
        data: a `kft.data.Dataset`; or a `Split` or pair (inputs, targets), without validation.
        strategy: None trains what is marked, see `kft.strategies.AsMarked`; or a name of
            `kft.strategies.names()`, or a strategy of `kft.strategies.get`.
        epochs: over all phases; None for the strategy's own.
        learning_rate: the highest; None for the strategy's own.
        batch_size, max_length: as for `kft.batches`.
        seed: int from which the order of the batches, dropout and new weights follow.
        loss, metrics: as for `compile`; None takes those of the kft head or of the last compile.
        class_weight: "balanced", or one weight per class, for a kft head that classifies.
        label_smoothing: share of each label that is spread over all classes.
        make: the optimizer, called as `make(rate schedule, variables)`.
        keep_best: False keeps the weights of the last epoch.
        frontier: "auto" computes the frozen part once where that pays; True insists; False never.
        cache, memory_limit, verbose: as for `kft.fit_frontier`.
        callbacks: of Keras; they see all phases as one run, and stop all. One that sets the rate
            is an error, unless `make` takes a constant one.

    Returns:
        `Fit`; its `model` is the given one, trained, or from_scratch's copy.

    Raises:
        ValueError: unknown strategy or option, no loss, nothing that learns, data that do not fit.
        kft.training.frontier.FrontierError: `frontier=True` cannot be done.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> backbone.trainable = False
        >>> done = kft.fit(model, (["MKTAYI", "GSS"], [0.0, 1.0]), epochs=2, verbose=0)
        >>> done.phases[0]["trainable"]
        321
    """
    if frontier not in ("auto", True, False):
        raise ValueError(f"frontier must be 'auto', True or False, received {frontier!r}.")
    strategy = _chosen(strategy, model, epochs, learning_rate, seed)
    _check_targets(model, data)
    if callbacks := list(callbacks):
        insist_on_constant_rate(callbacks, make(WarmupCosine(1e-3, 1), model.trainable_variables))
    class_weight = _class_weight(model, data, class_weight)
    goal = _goal(model, loss, metrics, class_weight, label_smoothing)
    keep = [KeepBest()] if keep_best and getattr(data, "valid", None) is not None else []
    options = {"callbacks": callbacks, "verbose": verbose}
    where = {"cache": cache, "memory_limit": memory_limit}
    run = _Run(goal, class_weight, seed, frontier, where, options, Optimizers(make))
    return run(model, data, strategy, (batch_size, max_length), keep)


@dataclass
class _Run:
    goal: dict
    class_weight: object
    seed: int
    frontier: object
    where: dict
    options: dict
    optimizers: Optimizers

    def __call__(self, model, data, strategy, sizes, keep):
        started, history, reports = time.perf_counter(), [], []
        records = as_batches(model, data, self.seed, *sizes)  # before anything is changed
        chosen = by_hand(model)
        if isinstance(strategy, strategies.AsMarked) and self.options["verbose"]:
            print(_said_as_marked(model, strategy))
        with _silently_uncompiled():
            phases = strategy(model)
            self._insist(phases)
            _say_what_is_overridden(strategy, phases, chosen)
        model = phases[0].model
        shown = OneRun(self.options["callbacks"], sum(phase.epochs for phase in phases))
        self.options["callbacks"] = [*[shown] * bool(shown.callbacks), FrozenGuard(), *keep]
        _seed_dropout(model, self.seed)
        for number, phase in enumerate(phases):
            with _silently_uncompiled():
                phase.mark()
            reports.append(_report(phase, self.frontier))
            if self.options["verbose"]:
                print(_said(number, len(phases), reports[-1]))
            began = time.perf_counter()
            if phase.epochs:
                records[0].go_to(len(history))  # Keras also ends an epoch before each fit
                logs = self._train(phase, number, records, reports[-1], len(history))
                history += _rows(logs, number, len(history))
            else:
                solve(model, *records, self.class_weight, strategy.rows, self.seed)
            reports[-1]["seconds"] = time.perf_counter() - began
            if phase.epochs and model.stop_training:
                break
        shown.finish()
        if not isinstance(strategy, strategies.AsMarked):
            sign(model)
        # The last schedule has reached zero: whoever calls `fit` next is to learn something.
        optimizer = self.optimizers.make(phases[-1].rate or 1e-3, model.trainable_variables)
        optimizer.build(model.trainable_variables)  # a saved model is compared with it
        model.compile(optimizer, **self.goal)
        best = None
        if keep and history:
            best = _restored(keep[0])
        return Fit(model, strategy, history, reports, best, time.perf_counter() - started)

    def _insist(self, phases):
        """Raises before the first epoch where `frontier=True` cannot be done in a later phase."""
        for phase in phases if self.frontier is True else ():
            phase.mark()
            split(phase.model)

    def _train(self, phase, number, records, report, before):
        epochs = {"initial_epoch": before, "epochs": before + phase.epochs}
        model, options = phase.model, {**epochs, **self.options}
        _forget(self.goal)
        model.compile(self.optimizers.next(phase, number, len(records[0])), **self.goal)
        logs = None
        if report["whole"] is None:
            try:
                logs = fit_frontier(model, *records, **self.where, **options)
            except FrontierError as error:
                if self.frontier is True:
                    raise
                report["whole"] = str(error)
                if options["verbose"]:
                    print(f"The whole model is trained after all. {error}")
        if logs is None:
            logs = train_as(model, flat(model), *records, **options)
        self.optimizers.keep()
        return logs


def _restored(keep):
    if keep.epoch is None:
        warnings.warn(
            "val_loss was no number in any epoch, so training has diverged: lower learning_rate. "
            "The weights are those of the last epoch.",
            stacklevel=4,
        )
        return None
    return keep.restore()


def _chosen(strategy, model, epochs, learning_rate, seed):
    """The strategy, with what `fit` was told about epochs, rate and seed."""
    if strategy is None:
        strategy = strategies.AsMarked()
    if isinstance(strategy, str):
        strategy = strategies.get(strategy)
    known = {f.name for f in fields(strategy)}
    told = {"epochs": epochs, "rate": learning_rate}
    told = {name: value for name, value in told.items() if value is not None}
    if unknown := told.keys() - known:
        raise ValueError(
            f"{type(strategy).__name__} trains in closed form and takes no "
            f"{' and no '.join(sorted(unknown))}."
        )
    if getattr(strategy, "seed", 0) is None:
        told["seed"] = seed
    strategy = replace(strategy, **told)
    if isinstance(strategy, strategies.AsMarked):
        strategy, _ = strategy.filled(model)
    for name, least in (("epochs", 1), ("rate", 0)):
        value = getattr(strategy, name, 1)
        if not (value >= least and 0 < value < float("inf")):
            expected = "at least 1" if least else "a number above 0"
            raise ValueError(f"{name} must be {expected}, received {value!r}.")
    return strategy


def _said_as_marked(model, strategy):
    """What learns where no strategy chooses it, for how long and how fast."""
    _, like = strategy.filled(model)
    found, hand = weights(model), by_hand(model)
    learning = [weight.path for weight in found if weight.trainable]
    parts = list(dict.fromkeys(path.partition("/")[0] for path in learning))
    said = (
        f"What is marked trainable learns: {len(learning)} of {len(found)} weights, in "
        f"{listed(parts, 4)}; for {strategy.epochs} epoch{'s' * (strategy.epochs > 1)}, at a "
        f"learning rate of at most {strategy.rate:g}. What was not given is that of {like!r}."
    )
    if any(weight.frozen and not hand.get(weight.path) for weight in found):
        said += (
            " What is frozen was marked by kft, in an earlier kft.fit or by kft.add_lora: "
            "kft.unfreeze lets it learn."
        )
    return said


def _say_what_is_overridden(strategy, phases, chosen):
    """Warns where a strategy trains what was frozen by hand, or the other way round."""
    if not chosen or isinstance(strategy, strategies.AsMarked):
        return
    learns = dict.fromkeys(chosen, False)
    for phase in phases:
        phase.mark()
        learns |= {w.path: True for w in weights(phase.model) if not w.frozen and w.path in chosen}
    phases[0].mark()
    said = differences({path: not frozen for path, frozen in chosen.items()}, learns)
    if said:
        warnings.warn(
            f"strategy {strategies.name_of(strategy)!r} chooses itself what learns, and goes over "
            f"what was marked by hand: {said}. Without a strategy, kft.fit trains what is marked.",
            stacklevel=4,
        )


def _check_targets(model, data):
    """Says what is wrong with targets that the head would learn without a word."""
    if len(model.outputs) > 1:
        raise ValueError(f"kft.fit trains models with one output, {model.name} has several.")
    parts = {"train": data.train, "valid": data.valid} if hasattr(data, "train") else {"": data}
    head = getattr(model, "head", None)
    for name, part in parts.items():
        if part is None:
            continue
        targets = part.targets if hasattr(part, "targets") else None
        if isinstance(part, tuple) and len(part) == 2:
            targets = part[1]
        where = f" of the {name} split" * bool(name)
        if targets is None:
            raise ValueError(
                f"The records{where} have no targets to learn: give (inputs, targets)."
            )
        if getattr(head, "task", None) is not None and len(targets):
            _check_task(head, targets, where)


def _check_task(head, targets, where):
    per_residue = isinstance(targets, list) and np.ndim(targets[0]) > 0
    if head.per_residue != per_residue and (head.per_residue or not hasattr(targets[0], "__len__")):
        raise ValueError(
            f"{type(head).__name__} takes one target per "
            f"{'residue' if head.per_residue else 'record'}; the targets{where} are not."
        )
    values = (
        np.concatenate([np.ravel(row) for row in targets]) if per_residue else np.asarray(targets)
    )
    kind, outputs = head.task.removeprefix("residue_"), head.units
    if kind == "regression":
        width = 1 if per_residue or values.ndim == 1 else values.shape[1]
        if width != outputs and not per_residue:
            raise ValueError(
                f"{type(head).__name__} answers with {outputs} numbers; the targets{where} have "
                f"{width} each: give targets={width} to the head."
            )
        return
    most = outputs - 1 if kind == "classification" else 1
    if values.dtype.kind not in "biu" or values.min() < 0 or values.max() > most:
        what = "classes" if kind == "classification" else "labels"
        raise ValueError(
            f"{type(head).__name__} with {outputs} {what} takes integers from 0 to {most}; the "
            f"targets{where} are {values.dtype} from {values.min()} to {values.max()}."
        )


def _class_weight(model, data, class_weight):
    if not isinstance(class_weight, str):
        return class_weight
    if class_weight != "balanced":
        raise ValueError(f"class_weight must be 'balanced' or numbers, received {class_weight!r}.")
    classes = getattr(getattr(model, "head", None), "classes", None)
    if classes is None:
        raise ValueError("class_weight='balanced' needs a kft head that names one of K classes.")
    train = getattr(data, "train", data)
    targets = train.targets if hasattr(train, "targets") else train[1]
    return balanced(targets, classes, getattr(train, "masks", None))


def _goal(model, loss, metrics, class_weight, label_smoothing):
    """What `compile` takes beside the optimizer."""
    head = getattr(model, "head", None)
    if loss is None and hasattr(head, "make_loss"):
        loss = head.make_loss(class_weight, label_smoothing)
        metrics = head.make_metrics() if metrics is None else metrics
    elif class_weight is not None or label_smoothing:
        raise ValueError("class_weight and label_smoothing need a kft head and no `loss`.")
    kind = "weighted_metrics" if getattr(head, "per_residue", False) else "metrics"
    if loss is None and model.compiled:
        last = model._compile_config.config
        metrics = last["metrics"] if metrics is None else metrics
        return {"loss": last["loss"], kind: metrics}
    return {"loss": loss_of(model) if loss is None else loss, kind: metrics}


def _forget(goal):
    """Metrics begin each phase anew; Keras resets only those that it has already seen."""
    for metric in keras.tree.flatten([goal.get(kind) for kind in ("metrics", "weighted_metrics")]):
        if isinstance(metric, keras.metrics.Metric):
            metric.reset_state()


@contextmanager
def _silently_uncompiled():
    """Marking un-compiles a model and says so; here it is compiled again at once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was compiled, and ")
        yield


def _seed_dropout(model, seed):
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for generator in layer._seed_generators:
            state = rng.integers(2**32, size=generator.state.shape, dtype="uint32")
            generator.state.assign(state)


def _report(phase, frontier):
    """What a phase is, and why its frozen part is not computed once (None: it is)."""
    table = parameters(phase.model)
    whole = why_not(phase.model) if frontier == "auto" and phase.epochs else None
    if not phase.epochs:
        whole = "The head is solved for in closed form."
    elif frontier is False:
        whole = "It was not asked for."
    elif frontier == "auto" and whole is None and phase.epochs < 2:
        whole = "It would be used for one epoch only."
    return {
        "name": phase.name,
        "epochs": phase.epochs,
        "trainable": table.trainable,
        "parameters": table.total,
        "whole": whole,
    }


def _said(number, count, report):
    epochs = report["epochs"]
    long = f"{epochs} epoch{'s' * (epochs > 1)}" if epochs else "in closed form"
    once = "; what is frozen is computed once" * (report["whole"] is None)
    return (
        f"Phase {number + 1} of {count}, {report['name']}: {report['trainable']:,} of "
        f"{report['parameters']:,} parameters learn, {long}{once}."
    )


def _rows(logs, phase, before):
    """One dict per epoch of a Keras History."""
    names = list(logs.history)
    return [
        {"phase": phase, "epoch": before + i, **dict(zip(names, values, strict=True))}
        for i, values in enumerate(zip(*logs.history.values(), strict=True))
    ]
