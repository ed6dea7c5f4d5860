"""Strategies beside baselines and controls on one data set: scores, intervals, tests and cost."""

import inspect
import operator
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import keras
import numpy as np

from kft.comparison.results import NULL, Comparison, Row
from kft.comparison.runs import (
    Store,
    compiled_once,
    digest_of_data,
    digest_of_model,
    expected_seconds,
    fresh,
    measured_step,
    shuffled,
    train,
)
from kft.evaluation import baselines
from kft.evaluation import metrics as evaluation
from kft.evaluation.significance import resampled
from kft.inference import predict
from kft.models import heads
from kft.params import by_hand, weights
from kft.training import strategies
from kft.training.batching import silent_cuts


def evaluate(model, data, split="test", batch_size=32, resamples=1000, max_length=None):
    """Scores a model on one split of a data set, with 95% bootstrap intervals.

    Args:
        model: a `kft.Model` whose head answers the data set's task.
        data: a `kft.data.Dataset`.
        split: "train", "valid" or "test".
        batch_size: most records per batch.
        resamples: bootstrap resamples; whole groups are drawn where the split has groups, and
            whole chains where residues are scored.
        max_length: residues to keep of each protein, None for all; what is cut is not scored.

    Returns:
        `kft.evaluation.Scores`, metric name -> interval, the task's headline metric first. Of
        residues, those count that the split's `masks` mark.

    Raises:
        ValueError: unknown or absent split; a head that answers another task or other classes.

    Example:
        `kft.evaluate(model, kft.data.load("amp"))["AUROC"].value`
    """
    if split not in data.splits:
        raise ValueError(
            f"split must be one of {', '.join(data.splits)} for {data.name}, received {split!r}."
        )
    _check_head(model, data)
    records = data.splits[split]
    targets, groups = records.targets, records.groups
    answers = predict(model, records.inputs, batch_size, max_length)
    if data.task.startswith("residue"):
        targets, answers, groups = _counted_residues(records, answers)
    return evaluation.score(data.task, targets, answers, groups=groups, resamples=resamples)


def _check_head(model, data):
    head = getattr(model, "head", None)
    task, classes = getattr(head, "task", None), getattr(head, "classes", None)
    if task is None:
        return  # a head of the user's own: what it answers is seen when it is scored
    if task != data.task or (classes is not None and classes != len(data.classes)):
        wanted = data.task + (f" into {len(data.classes)} classes" if data.classes else "")
        received = task + (f" into {classes} classes" if classes else "")
        raise ValueError(
            f"model.head must answer {data.name}, {wanted}, received {type(head).__name__}, which "
            f"answers {received}: kft.heads.for_data(data) builds the head that fits."
        )


def _counted_residues(records, answers):
    """Targets, answers and group of each residue that counts and was not cut, of all chains."""
    lengths = [len(rows) for rows in answers]
    masks = records.masks or [np.ones(n, dtype=bool) for n in lengths]
    kept = [mask[:n] for mask, n in zip(masks, lengths, strict=True)]
    targets = [row[:n][mask] for row, n, mask in zip(records.targets, lengths, kept, strict=True)]
    answers = [rows[mask] for rows, mask in zip(answers, kept, strict=True)]
    chains = np.arange(len(lengths)) if records.groups is None else records.groups
    groups = np.repeat(chains, [mask.sum() for mask in kept])
    return np.concatenate(targets), np.concatenate(answers), groups


# Several strategies -------------------------------------------------------------------------------


def compare(
    backbone, data, strategies=None, seeds=3, *, head=None, epochs=None, batch_size=32,
    max_length=None, controls=True, out=None, again=False, confidence=0.95, resamples=2000,
    verbose=True,
):  # fmt: skip
    """Trains strategies on the same splits, beside baselines and controls, and says which to use.

    Baselines are those of `kft.baselines`. Controls are from_scratch, which says what pre-training
    was worth, and the first strategy with shuffled labels, which must score no better than chance.
    Before training it says how long all will take and how much memory, from one measured step.
    Every training is kept in a folder: an interrupted comparison goes on where it stopped.

    Args:
        backbone: of `kft.load`; it stays as it is, each training starts from a copy in which all
            is trainable, until the strategy marks it.
        data: a `kft.data.Dataset` with a test split.
        strategies: list of names or strategies, see `kft.strategies`; or {name: strategy}. None
            takes all. A strategy of your own should be a dataclass, or it cannot be told from
            others when a comparison goes on.
        seeds: how many trainings of each, or the list of their seeds.
        head: called with `data`, returns a new head; None for `kft.heads.for_data`.
        epochs: for all strategies that take some; None for their own.
        batch_size, max_length: as for `kft.fit`.
        controls: False leaves the controls out.
        out: folder for trainings, table, figure and caption; None keeps the trainings in the
            cache (KFT_CACHE or ~/.cache/kft) and writes no figure.
        again: True trains anew what is there already.
        confidence, resamples: of the intervals, see `kft.evaluation.significance`.
        verbose: False prints nothing.

    Returns:
        `kft.comparison.Comparison`; `print` shows table and recommendation. A strategy that fails
        stands in it with its error, and the others go on.

    Raises:
        ValueError: unknown strategy, no test split, no seeds, or nothing to compare.

    Example:
        `kft.compare(kft.load("esm2_t6_8M_UR50D"), kft.data.load("amp"), ["linear_probe", "lora"])`
    """
    methods, seeds = _methods(strategies, epochs, controls), _seeds(seeds)
    _check(data, batch_size, confidence, resamples)
    study = _Study(backbone, data, head or heads.for_data, batch_size, max_length, verbose)
    study.open(out, again)
    with compiled_once(), silent_cuts():  # `expect` says once what is cut
        study.expect(methods, seeds)
        rows = baseline_rows(data, resamples, lambda line: study.say(f"  {line}"), max_length)
        taken = [method.name for method in methods if method.name in [row.name for row in rows]]
        if taken:
            raise ValueError(f"{taken[0]!r} is the name of a baseline: call the strategy another.")
        rows += study.trained(methods, seeds, resamples)
    if not any(row.scores for row in rows):
        raise ValueError(f"Nothing could be compared: {rows[-1].error}")
    about = study.store.about | {"strategies": {m.name: repr(m.strategy) for m in methods}}
    found = Comparison(data.name, len(data.test), tuple(rows), tuple(seeds), confidence, about)
    study.show(found, out)
    return found


def baseline_rows(data, resamples=2000, say=None, max_length=None):
    """The rows of the baselines of a data set, fitted now; see `kft.baselines`.

    Args:
        data: a `kft.data.Dataset` with a test split.
        resamples: of the test records.
        say: called with one line before each fit, such as `print`.
        max_length: residues of each chain that are scored, as of strategies; None for all.

    Returns:
        list of `kft.comparison.Row`; a baseline that fails stands in its row with the error.
    """
    rows, fits = [], baselines.suited(data)
    for number, (name, fit) in enumerate(fits.items(), start=1):
        if say is not None:
            say(f"baseline {number}/{len(fits)}: {name}")
        try:
            one = fit(data)
            answers = one.predictions
            if data.task.startswith("residue"):
                answers = [row[:max_length] for row in answers]
            scores = scores_of(data, [answers], resamples)
        except Exception as error:
            rows.append(Row(name, "baseline", error=brief(error)))
            continue
        rows.append(
            Row(one.name, "baseline", scores, one.parameters, one.parameters, one.seconds,
                predictions=[answers])
        )  # fmt: skip
    return rows


def scores_of(data, predictions, resamples=2000):
    """Scores the answers of one method to the test split, see `significance.resampled`.

    Args:
        data: a `kft.data.Dataset`.
        predictions: list over seeds of what `kft.predict` answers.
        resamples: as for `resampled`.

    Returns:
        dict, metric name -> `kft.evaluation.significance.Resampled`.
    """
    targets, predictions, groups = _counted(data, predictions)
    return resampled(data.task, targets, predictions, resamples, groups=groups)


def constant_seeds(data, predictions):
    """How many of the seeds answer (nearly) the same to every test record.

    Args:
        data, predictions: as for `scores_of`.

    Returns:
        int; see `kft.evaluation.hardly_varies`.
    """
    targets, predictions, _ = _counted(data, predictions)
    return sum(evaluation.hardly_varies(targets, one) for one in predictions)


def _counted(data, predictions):
    """Targets, answers of each seed and groups of what counts in the test split."""
    if not data.task.startswith("residue"):
        return data.test.targets, predictions, data.test.groups
    counted = [_counted_residues(data.test, one) for one in predictions]
    targets, _, groups = counted[0]
    return targets, [one[1] for one in counted], groups


@dataclass(frozen=True)
class _Method:
    name: str
    kind: str
    strategy: object
    shuffles: bool = False


def _methods(chosen, epochs, controls):
    """The strategies under their names, and the controls."""
    if chosen is None:
        chosen = [name for name in strategies.names() if name != "from_scratch"]
    if isinstance(chosen, str):
        raise ValueError(f"strategies must be a list or a dict, received {chosen!r}.")
    named = dict(chosen) if isinstance(chosen, dict) else {}
    for one in [] if named else chosen:
        name = one if isinstance(one, str) else _name(one)
        if name in named:
            raise ValueError(f"strategies names {name!r} twice: give a dict {{name: strategy}}.")
        named[name] = one
    if not named:
        raise ValueError("strategies is empty: name at least one of kft.strategies.names().")
    found = []
    for name, one in named.items():
        strategy = strategies.get(one) if isinstance(one, str) else one
        if strategy is not None:
            strategies.check_strategy(strategy)
        if strategy is None or isinstance(strategy, strategies.AsMarked):
            raise ValueError(
                "strategies must choose what learns, received one that trains what is marked: each "
                "training of a comparison starts from a copy in which all is trainable."
            )
        kind = "control" if isinstance(strategy, strategies.FromScratch) else "strategy"
        found.append(_Method(name, kind, strategy))
    if controls and all(method.kind == "strategy" for method in found):
        found.append(_Method("from_scratch", "control", strategies.get("from_scratch")))
    if controls:
        first = next((method for method in found if method.kind == "strategy"), found[0])
        found.append(_Method(f"{first.name}, shuffled labels", "control", first.strategy, True))
    if epochs is not None:
        if not (isinstance(epochs, int) and epochs > 0):
            raise ValueError(f"epochs must be an integer above 0, received {epochs!r}.")
        found = [
            replace(method, strategy=replace(method.strategy, epochs=epochs))
            if hasattr(method.strategy, "epochs") else method
            for method in found
        ]  # fmt: skip
    return found


def _name(strategy):
    """Its name, with the options that differ from the defaults."""
    name = strategies.name_of(strategy)
    if name not in strategies.names():
        return name
    plain = strategies.get(name)
    own = [f.name for f in fields(strategy)
           if getattr(strategy, f.name) != getattr(plain, f.name)]  # fmt: skip
    told = ", ".join(f"{option}={getattr(strategy, option)!r}" for option in own)
    return f"{name}({told})" if told else name


def _seeds(seeds):
    try:
        listed = range(seeds) if isinstance(seeds, int | np.integer) else seeds
        found = [operator.index(seed) for seed in listed]
    except TypeError:
        found = []
    if not found or len(set(found)) < len(found):
        raise ValueError(
            f"seeds must be a number above 0 or a list of different integers, received {seeds!r}."
        )
    return found


def _check(data, batch_size, confidence, resamples):
    """Raises before hours of training what would be raised after them."""
    if data.test is None:
        raise ValueError(f"{data.name} has no test split to compare on: split it first.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, received {confidence!r}.")
    for name, value in (("batch_size", batch_size), ("resamples", resamples)):
        if not (isinstance(value, int | np.integer) and value > 0):
            raise ValueError(f"{name} must be an integer above 0, received {value!r}.")
    targets = data.test.targets
    values = np.concatenate(targets) if isinstance(targets, list) else targets
    if len(np.unique(values, axis=0)) < 2:
        raise ValueError(
            f"The test split of {data.name} has one target only: nothing can be told apart on it."
        )


class _Study:
    """The work of one call of `compare`."""

    def __init__(self, backbone, data, make_head, batch_size, max_length, verbose):
        from rich.console import Console

        self.backbone, self.data, self.make_head = backbone, data, make_head
        self.batch_size, self.max_length = batch_size, max_length
        self.console = Console(quiet=not verbose)
        if not self.console.is_terminal:
            self.console = Console(quiet=not verbose, width=140)  # a log has room for the table
        self.expected = {}  # {name of a method: seconds}

    def say(self, line, **options):
        self.console.print(line, highlight=False, markup=False, **options)

    def done(self, line):
        """Says a line over the one that told of progress."""
        self.say(line.ljust(self.console.width - 1) if self.console.is_terminal else line)

    def open(self, out, again):
        """Opens the folder of runs; names all that they depend on beside strategy and seed."""
        about = {
            "data": digest_of_data(self.data),
            "backbone": digest_of_model(self.backbone),
            "head": keras.saving.serialize_keras_object(self.make_head(self.data)),
            "batch_size": self.batch_size,
            "max_length": self.max_length,
        }
        self.store = Store(None if out is None else Path(out) / "runs", about)
        self.again = again

    def expect(self, methods, seeds):
        """Says what is to be done, what of it is there already, and what the rest will take."""
        count = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
        self.say(
            f"{self.data.name}: {len(methods)} methods from {count} each, beside baselines; "
            f"training on {keras.backend.backend()}."
        )
        self._say_marks()
        self._say_cuts()
        kept = {
            (method.name, seed)
            for method in methods
            for seed in seeds
            if not self.again and self.store.get(**_key(method, seed))
        }
        if kept:
            self.say(f"{len(kept)} of {len(methods) * len(seeds)} trainings are in "
                     f"{self.store.folder}.", soft_wrap=True)  # fmt: skip
        if len(kept) == len(methods) * len(seeds):
            return
        try:
            head = self.make_head(self.data)
            step = measured_step(self.backbone, head, self.data, self.batch_size, self.max_length)
        except Exception as error:  # a strategy may do what a step of all weights cannot
            self.say(f"No estimate of time and memory: {brief(error)}")
            return
        for method in methods:
            try:
                copy = method.strategy.prepare(fresh(self.backbone, self.make_head(self.data)))
                phases = method.strategy.phases(copy)
                self.expected[method.name] = expected_seconds(step, copy, phases)
            except Exception:  # it will say so itself when its turn comes
                self.expected[method.name] = 0.0
        rest = sum(self.expected[m.name] for m in methods for s in seeds if (m.name, s) not in kept)
        self.say(
            f"One step of training all weights takes {step.seconds:.2f} s, and with it the "
            f"process {step.memory / 2**30:.1f} GB: all trainings together should take about "
            f"{_duration(rest)}, compilation aside, and hardly more memory than that."
        )

    def _say_marks(self):
        frozen = sum(by_hand(self.backbone).values())
        if frozen:
            self.say(
                f"{frozen} of {len(weights(self.backbone))} weights of the backbone are frozen by "
                f"hand: this does not count here, each strategy marks a copy as it says."
            )

    def _say_cuts(self):
        most = self.max_length
        counts = [
            f"{sum(len(x) > most for x in part.inputs):,} of {len(part):,} {name}"
            for name, part in self.data.splits.items()
            if most is not None and isinstance(part.inputs[0], str)
        ]
        if counts:
            self.say(f"Of {', '.join(counts)} inputs only the first {most} residues are shown.")

    def trained(self, methods, seeds, resamples):
        """One row for each strategy and control; all of one seed before those of the next."""
        runs, errors = {method.name: [] for method in methods}, {}
        plan = [(method, seed) for seed in seeds for method in methods]
        width = max(len(method.name) for method in methods)
        for number, (method, seed) in enumerate(plan, start=1):
            if method.name in errors and not runs[method.name]:
                continue  # what failed at once fails again, and may take an hour to do so
            label = f"[{number:>2}/{len(plan)}] {method.name:<{width}} seed {seed}"
            try:
                run = self._run(method, seed, label)
                scores = scores_of(self.data, [run.predictions], 1)
            except Exception as error:
                errors[method.name] = f"seed {seed}: {brief(error)}"
                self.done(f"{label}  failed: {brief(error)}")
                continue
            runs[method.name].append(run)
            metric, score = next(iter(scores.items()))
            alike = ", answers hardly vary" * constant_seeds(self.data, [run.predictions])
            self.done(f"{label}  {metric} {score.value:.3f}  {run.seconds:6.1f} s{alike}")
        return [
            _row(self.data, method, runs[method.name], errors.get(method.name), resamples)
            for method in methods
        ]

    def _run(self, method, seed, label):
        if not self.again and (run := self.store.get(**_key(method, seed))):
            return run
        data = shuffled(self.data, seed) if method.shuffles else self.data
        expected = self.expected.get(method.name)
        line = f"{label}  about {_duration(expected)} ..." if expected else f"{label} ..."
        callbacks = [_Line(self, line)] if self.console.is_terminal else []
        if not callbacks:
            self.say(line)
        options = {"batch_size": self.batch_size, "seed": seed}
        run = train(self.backbone, self.make_head(self.data), data, method.strategy, options,
                    self.max_length, callbacks)  # fmt: skip
        try:
            self.store.put(run, **_key(method, seed))
        except OSError as error:
            self.say(f"This training could not be kept ({brief(error)}); the comparison goes on.")
        return run

    def show(self, found, out):
        self.say("")
        self.console.print(found.table(), highlight=False)
        self.say(f"{NULL}\n\n{found.recommendation}")
        if out is not None:
            picture, *_ = found.save(out)
            self.say(f"\n{picture.with_suffix('.txt').read_text(encoding='utf-8')}")
            self.say(f"Written: {picture}, its caption, the table and the record beside it.",
                     soft_wrap=True)  # fmt: skip


class _Line(keras.callbacks.Callback):
    """One line on a terminal that says how far a training is."""

    def __init__(self, study, label):
        super().__init__()
        self.study, self.label, self.epochs, self.shown = study, label, 0, 0.0
        self._show("")

    def _show(self, where):
        self.study.say(f"{self.label}{where}".ljust(self.study.console.width - 1), end="\r")

    def on_train_batch_end(self, batch, logs=None):
        if time.perf_counter() - self.shown > 0.5:
            self.shown = time.perf_counter()
            self._show(f"  epoch {self.epochs + 1}, batch {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1


def _row(data, method, runs, error, resamples):
    if not runs:
        return Row(method.name, method.kind, error=error, shuffles=method.shuffles)
    predictions = [run.predictions for run in runs]
    scores = scores_of(data, predictions, resamples)
    seconds = float(np.median([run.seconds for run in runs]))
    return Row(method.name, method.kind, scores, runs[0].trainable, runs[0].parameters, seconds,
               runs[0].memory, error, method.shuffles, predictions,
               constant_seeds(data, predictions))  # fmt: skip


def _key(method, seed):
    kind = type(method.strategy)
    try:
        code = inspect.getsource(kind)  # of a strategy of one's own it may change any day
    except (OSError, TypeError):
        code = ""
    return {"strategy": repr(method.strategy), "kind": f"{kind.__module__}.{kind.__qualname__}",
            "code": code, "seed": seed, "shuffles": method.shuffles}  # fmt: skip


def brief(error):
    """The kind of an error and what it says, on one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said if len(said) < 200 else said[:197] + '...'}"


def _duration(seconds):
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
