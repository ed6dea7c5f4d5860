"""`compare`: strategies, baselines and controls on one data set, with scores, tests and cost."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd

from kft.arguments import (
    check_confidence,
    check_flag,
    check_instance,
    check_integer,
    check_optional_integer,
)
from kft.comparison.copies import Copies
from kft.comparison.earlier import earlier_settings
from kft.comparison.expecting import Expected, expected_of, measured_step
from kft.comparison.folding import deal, joined_copies, merged
from kft.comparison.printing import notes
from kft.comparison.progress import Log, ProgressLine, duration
from kft.comparison.results import Comparison, Row
from kft.comparison.runs import (
    Run,
    Store,
    digest_of_data,
    digest_of_model,
    ensure_kept,
    shuffled,
    train,
)
from kft.comparison.scoring import baseline_rows, brief, constant_seeds, scores_of, scores_without
from kft.comparison.writing import file_name
from kft.data import Dataset, load
from kft.data.inputs import encoder_info, residues_in
from kft.files import only_writer
from kft.messages import count_of, shown, warn
from kft.models import heads
from kft.params import user_marks, weights
from kft.params.paths import check_model
from kft.programs import kept_programs
from kft.training import strategies
from kft.training.batching import silent_cuts


def compare(
    backbone: keras.Model,
    data: Dataset | str,
    strategies: Sequence | Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 3,
    *,
    head: Callable[[Dataset], keras.layers.Layer] | None = None,
    epochs: int | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    controls: bool = True,
    out: str | Path | None = None,
    overwrite: bool = False,
    save_models: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    verbose: bool | Literal["progress"] = True,
    copies: bool | pd.DataFrame = True,
    folds: int | None = None,
    repeats: int = 1,
) -> Comparison:
    """Train strategies on the same splits and compare them with baselines and controls.

    Baselines are those of `kft.baselines`. Controls are from_scratch, which shows what pre-training
    contributed, and the first strategy with shuffled labels, which must score no better than
    chance. Every training is kept: an interrupted comparison continues where it stopped.

    Args:
        backbone: From `kft.load`; each training starts from a copy with all layers trainable.
        data: A `kft.data.Dataset` with a test split, or a name of `kft.data.names()`.
        strategies: List of names or strategies, see `kft.strategies`; or {name: strategy}; None
            for all. Your own should be dataclasses: their fields identify a kept training.
        seeds: Number of trainings of each strategy, or the list of their seeds.
        head: Function of `data` that returns a new head; None for `kft.heads.for_data`.
        epochs: Number of epochs of all strategies that take one; None for their own.
        batch_size: Number of records per batch.
        max_length: Number of residues to keep of each sequence; None keeps all.
        controls: False leaves the controls out.
        out: Folder for trainings, table, figure and caption; None keeps the trainings in the
            cache (KFT_CACHE or ~/.cache/kft) and writes no figure.
        overwrite: True repeats trainings that are in the folder already.
        save_models: Whether the model of each strategy, trained from the first seed, is written to
            `out`/models/STRATEGY.keras, for `kft.load_model` and `kft predict`. A training that
            was kept without its model is repeated.
        confidence: Confidence of the intervals, such as 0.95.
        resamples: Number of resamples of the test records and seeds, see
            `kft.evaluation.significance`.
        verbose: False prints nothing, "progress" a line for each training and what is cut, without
            the table.
        copies: Test records with near copies in training, as for `kft.evaluate`. If there are any,
            the scores without them are in the table too. With folds they are searched in each fold.
        folds: Number k of folds of a cross-validation: all records are dealt into k parts, groups
            kept together, and each part is the test split once (the next one the valid split, if
            the data have one). Takes k times as long. None uses the splits of the data.
        repeats: How often the records are dealt anew.

    Returns:
        The results, which `print` shows. If a strategy fails, the others are run all the same, and
        its error is in the results. A file that cannot be written, on a full disk for example, is
        a warning.

    Raises:
        ValueError: A strategy is unknown, or there are no seeds, test split or scores.
        BlockingIOError: Another process is writing to `out`.

    Example:
        `kft.compare(kft.load("esm2_t6_8M_UR50D"), kft.data.load("amp"), ["linear_probe", "lora"])`
    """
    check_model(backbone, "backbone")
    check_optional_integer("max_length", max_length)
    check_flag("controls", controls)
    check_flag("overwrite", overwrite)
    check_flag("save_models", save_models)
    methods, seed_list = methods_of(strategies, epochs, controls), seeds_of(seeds)
    data = load(data) if isinstance(data, str) else data
    check_instance("data", data, Dataset, "a kft.data.Dataset or the name of one")
    check_optional_integer("folds", folds, 2)
    check_integer("repeats", repeats)
    if folds is not None and save_models:
        raise ValueError("save_models must be False with folds: each fold has models of its own.")
    if folds is not None and isinstance(copies, pd.DataFrame):
        raise ValueError(
            "copies must be True or False with folds: a table names records of one test split, and "
            "each fold has its own."
        )
    parts = [data] if folds is None else deal(data, folds, repeats)
    for part in parts:
        _check(part, batch_size, confidence, resamples)
    near = [Copies.of(part, "test", copies) for part in parts]
    found = []
    with nullcontext() if out is None else only_writer(ensure_kept(Path(out))):
        for part, its_copies in zip(parts, near, strict=True):
            study = _Study(
                backbone, part, head or heads.for_data, batch_size, max_length, verbose, its_copies
            )
            study.open(out, overwrite)
            study.keep_models(out, seed_list[0] if save_models else None)
            found.append(study.rows(methods, seed_list, resamples if folds is None else 1))
        run_with: dict[str, Any] = {"strategies": {m.name: repr(m.strategy) for m in methods}}
        if folds is not None:
            run_with |= {"folds": folds, "repeats": repeats}
        comparison = Comparison(
            data.name,
            len(data.splits["test"]) if folds is None else sum(map(len, data.splits.values())),
            tuple(found[0] if folds is None else merged(found, parts)),
            tuple(seed_list),
            confidence,
            study.store.settings | run_with,
            near[0] if folds is None else joined_copies(near),
            0 if folds is None else len(parts),
        )
        study.show(comparison, out)
    return comparison


@dataclass(frozen=True)
class Method:
    """A strategy or control of a comparison."""

    name: str
    kind: Literal["strategy", "control"]
    strategy: Any
    shuffled_labels: bool = False
    added: bool = False  # by `controls=True`


def methods_of(given: Any, epochs: int | None, controls: bool) -> list[Method]:
    """Return the strategies with their names, and the controls.

    Args:
        given: As `strategies` of `compare`.
        epochs: As for `compare`.
        controls: As for `compare`.
    """
    if given is None:
        given = [name for name in strategies.names() if name != "from_scratch"]
    methods = []
    for name, strategy in named_strategies(given).items():
        scratch = isinstance(strategy, strategies.FromScratch)
        methods.append(Method(name, "control" if scratch else "strategy", strategy))
    if controls and all(method.kind == "strategy" for method in methods):
        strategy = strategies.get("from_scratch")
        methods.append(Method("from_scratch", "control", strategy, added=True))
    if controls:
        first = next((method for method in methods if method.kind == "strategy"), methods[0])
        name = f"{first.name}, shuffled labels"
        methods.append(Method(name, "control", first.strategy, shuffled_labels=True, added=True))
    if epochs is not None:
        check_integer("epochs", epochs)
        for i, method in enumerate(methods):
            if hasattr(method.strategy, "epochs"):
                methods[i] = replace(method, strategy=replace(method.strategy, epochs=epochs))
    return methods


def named_strategies(given: Any) -> dict[str, Any]:
    """Return the strategies that an argument `strategies` names.

    Args:
        given: List of names or strategies, or {name: strategy}.

    Returns:
        {name: strategy}.

    Raises:
        TypeError: It is neither, or holds what is no strategy.
        ValueError: There is none, a name is there twice, or a strategy trains what is marked.

    Example:
        >>> list(named_strategies(["linear_probe", "lora"]))
        ['linear_probe', 'lora']
    """
    if isinstance(given, str):
        raise ValueError(
            f"strategies must be a list or a dict, received {given!r}: write [{given!r}]."
        )
    expected = "a list of strategies or a dict {name: strategy}"
    check_instance("strategies", given, Iterable, expected)
    named = dict(given) if isinstance(given, dict) else {}
    for strategy_or_name in [] if named else given:
        name = strategy_or_name if isinstance(strategy_or_name, str) else _name(strategy_or_name)
        if name in named:
            raise ValueError(f"strategies names {name!r} twice: give a dict {{name: strategy}}.")
        named[name] = strategy_or_name
    if not named:
        raise ValueError("strategies is empty: name at least one of kft.strategies.names().")
    found = {}
    for name, strategy_or_name in named.items():
        strategy = (
            strategies.get(strategy_or_name)
            if isinstance(strategy_or_name, str)
            else strategy_or_name
        )
        if strategy is not None:
            strategies.check_strategy(strategy)
        if strategy is None or isinstance(strategy, strategies.AsMarked):
            raise ValueError(
                "strategies must choose the trainable layers, received one that trains the layers "
                "that are marked: each training of a comparison starts from a copy in which all "
                "layers are trainable."
            )
        found[name] = strategy
    return found


def _name(strategy: Any) -> str:
    """Return the name of a strategy, with the options that differ from the defaults."""
    name = strategies.name_of(strategy)
    if name not in strategies.names():
        return name
    default = strategies.get(name)
    values = {f.name: getattr(strategy, f.name) for f in fields(strategy)}
    changed = {
        option: value for option, value in values.items() if value != getattr(default, option)
    }
    options = ", ".join(f"{option}={value!r}" for option, value in changed.items())
    return f"{name}({options})" if options else name


def seeds_of(seeds: Any) -> list[int]:
    """Return the seeds of an argument `seeds`, a number of them or a list.

    Args:
        seeds: As for `compare`.

    Raises:
        ValueError: It is neither.
    """
    try:
        seeds = None if isinstance(seeds, bool) else seeds
        seeds_or_range = range(seeds) if isinstance(seeds, int | np.integer) else seeds
        integers = [operator.index(seed) for seed in seeds_or_range]
    except TypeError:
        integers = []
    if not integers or len(set(integers)) < len(integers) or min(integers) < 0:
        raise ValueError(
            f"seeds must be a number above 0 or a list of different integers from 0, received "
            f"{shown(seeds)}."
        )
    return integers


def _check(data: Dataset, batch_size: int, confidence: float, resamples: int) -> None:
    """Raise errors now that would otherwise come after hours of training."""
    if data.test is None:
        raise ValueError(f"{data.name} has no test split to compare on: split it first.")
    check_confidence(confidence)
    check_integer("batch_size", batch_size)
    check_integer("resamples", resamples)
    targets = data.test.targets
    values = np.concatenate([*map(np.ravel, targets)]) if isinstance(targets, list) else targets
    if len(np.unique(values, axis=0)) < 2:
        raise ValueError(
            f"The test split of {data.name} has one target only: it cannot distinguish methods."
        )


class _Study:
    """The work of one call of `compare`."""

    def __init__(
        self,
        backbone: keras.Model,
        data: Dataset,
        make_head: Callable[[Dataset], keras.Layer],
        batch_size: int,
        max_length: int | None,
        verbose: bool | Literal["progress"],
        copies: Copies | None,
    ):
        self.backbone, self.data, self.make_head = backbone, data, make_head
        self.batch_size, self.max_length = batch_size, max_length
        self.everything = bool(verbose) and verbose != "progress"
        self.log = Log(bool(verbose))  # a line for each training, and what is cut
        self.notes = Log(self.everything)  # all else
        self.expected: dict[str, Expected] = {}  # by name of the method
        self.copies = copies

    def open(self, out: Path | str | None, overwrite: bool) -> None:
        """Open the folder of runs, which depend on these settings, on strategy and seed."""
        head = self.make_head(self.data)
        settings = {
            "data": digest_of_data(self.data),
            "backbone": digest_of_model(self.backbone),
            "head": _described(head),
            "batch_size": self.batch_size,
            "max_length": self.max_length,
            **_own_code(self.backbone, getattr(self.backbone, "encode", None), head),
        }
        self.store = Store(None if out is None else Path(out) / "runs", settings)
        self.overwrite = overwrite

    def keep_models(self, out: Path | str | None, seed: int | None) -> None:
        """Write the models of this seed; None writes none."""
        if seed is not None and out is None:
            raise ValueError("save_models needs a folder for the models: give `out`.")
        self.models = None if out is None or seed is None else Path(out) / "models"
        self.seed_of_models = seed

    def _model_file(self, method: Method, seed: int) -> Path | None:
        """Return where the model of a training is written; None if it is not."""
        if self.models is None or seed != self.seed_of_models or method.shuffled_labels:
            return None
        return self.models / f"{file_name(method.name)}.keras"

    def _kept(self, method: Method, seed: int) -> Run | None:
        file = self._model_file(method, seed)
        if file is not None and not file.exists():
            return None
        earlier = earlier_settings(
            self.store.settings, method.strategy, seed, method.shuffled_labels
        )
        return self.store.get(_key(method, seed), earlier)

    def rows(self, methods: Sequence[Method], seeds: Sequence[int], resamples: int) -> list[Row]:
        """Fit the baselines, run the trainings, and return a row for each."""
        with kept_programs(), silent_cuts():  # `expect` reports once what is cut
            self.expect(methods, seeds)
            rows = baseline_rows(
                self.data,
                resamples,
                lambda line: self.notes.print(f"  {line}"),
                self.max_length,
                self.copies,
            )
            taken = [method.name for method in methods if method.name in [row.name for row in rows]]
            if taken:
                raise ValueError(
                    f"{taken[0]!r} is the name of a baseline: give the strategy another."
                )
            rows += self.trained(methods, seeds, resamples)
        if not any(row.scores for row in rows):
            raise ValueError(f"Nothing could be compared: {rows[-1].error}")
        return rows

    def expect(self, methods: Sequence[Method], seeds: Sequence[int]) -> None:
        """Print the number of trainings, of those that are kept, and the expected time."""
        count = count_of(len(seeds), "seed")
        self.notes.print(
            f"{self.data.name}: {len(methods)} methods from {count} each, and baselines; "
            f"training on {keras.backend.backend()}."
        )
        self._print_marks()
        self._print_cuts()
        kept = {
            (method.name, seed)
            for method in methods
            for seed in seeds
            if not self.overwrite and self._kept(method, seed)
        }
        if kept:
            self.notes.print(
                f"{len(kept)} of {len(methods) * len(seeds)} trainings are in {self.store.folder}.",
                soft_wrap=True,
            )
        if len(kept) == len(methods) * len(seeds) or not self.everything:
            return
        try:
            head = self.make_head(self.data)
            step = measured_step(self.backbone, head, self.data, self.batch_size, self.max_length)
        except Exception as error:  # strategies may work where a step of all weights fails
            self.notes.print(f"No estimate of time and memory: {brief(error)}")
            return
        for method in methods:
            try:
                head = self.make_head(self.data)
                found = expected_of(method.strategy, step, self.backbone, head)
                self.expected[method.name] = found
            except Exception:  # the error is reported when the strategy is run
                self.expected[method.name] = Expected(0.0)
        remaining = {
            m.name: self.expected[m.name].of(sum((m.name, s) not in kept for s in seeds))
            for m in methods
        }
        self.notes.print(
            f"One step of training all weights takes {step.seconds:.2f} s, and the process uses "
            f"{step.memory / 2**30:.1f} GB of memory. All trainings together should take about "
            f"{duration(sum(remaining.values()))}, and little more memory."
            f"{_cost_of_controls(methods, remaining)}"
        )

    def _print_marks(self) -> None:
        frozen = sum(user_marks(self.backbone).values())
        if frozen:
            self.log.print(
                f"{frozen} of {len(weights(self.backbone))} weights of the backbone are frozen by "
                f"hand: this has no effect here, since each strategy sets `trainable` in a copy."
            )

    def _print_cuts(self) -> None:
        longest = self.max_length
        info = encoder_info(getattr(self.backbone, "encode", None), self.data.train.inputs)
        if longest is None or not info.input_kind.has_length:
            return
        counts = [
            f"{sum(residues_in(x) > longest for x in part.inputs):,} of {len(part):,} {name}"
            for name, part in self.data.splits.items()
        ]
        self.log.print(f"Of {', '.join(counts)} inputs only the first {longest} residues are used.")

    def trained(self, methods: Sequence[Method], seeds: Sequence[int], resamples: int) -> list[Row]:
        """Return a row for each strategy and control; a seed is run for all before the next one."""
        runs: dict[str, list[Run]] = {method.name: [] for method in methods}
        errors: dict[str, str] = {}
        plan = [(method, seed) for seed in seeds for method in methods]
        width = max(len(method.name) for method in methods)
        for number, (method, seed) in enumerate(plan, start=1):
            if method.name in errors and not runs[method.name]:
                continue  # a method that failed at its first seed would fail again
            label = f"[{number:>2}/{len(plan)}] {method.name:<{width}} seed {seed}"
            try:
                run = self._run(method, seed, label)
                scores = scores_of(self.data, [run.predictions], 1)
            except Exception as error:
                errors[method.name] = f"seed {seed}: {brief(error)}"
                self.log.done(f"{label}  failed: {brief(error)}")
                continue
            runs[method.name].append(run)
            metric, score = next(iter(scores.items()))
            alike = ", predictions hardly vary" * constant_seeds(self.data, [run.predictions])
            self.log.done(f"{label}  {metric} {score.value:.3f}  {run.seconds:6.1f} s{alike}")
        return [
            self._row(method, runs[method.name], errors.get(method.name), resamples)
            for method in methods
        ]

    def _row(self, method: Method, runs: list[Run], error: str | None, resamples: int) -> Row:
        if not runs:
            return Row(
                method.name, method.kind, error=error, shuffled_labels=method.shuffled_labels
            )
        predictions = [run.predictions for run in runs]
        scores = scores_of(self.data, predictions, resamples)
        rest, price = scores_without(self.data, predictions, self.copies, resamples)
        seconds = float(np.median([run.seconds for run in runs]))
        return Row(
            name=method.name,
            kind=method.kind,
            scores=scores,
            trainable=runs[0].trainable,
            parameters=runs[0].parameters,
            seconds=seconds,
            memory=runs[0].memory,
            error=error,
            shuffled_labels=method.shuffled_labels,
            predictions=predictions,
            constant_seeds=constant_seeds(self.data, predictions),
            score_without_copies=rest,
            price_of_copies=price,
        )

    def _run(self, method: Method, seed: int, label: str) -> Run:
        if not self.overwrite and (run := self._kept(method, seed)):
            return run
        data = shuffled(self.data, seed) if method.shuffled_labels else self.data
        expected = self.expected.pop(method.name, Expected(0.0))
        self.expected[method.name] = expected.compiled()
        seconds = expected.of(1)
        line = f"{label}  about {duration(seconds)} ..." if seconds else f"{label} ..."
        callbacks = [ProgressLine(self.log, line)] if self.log.is_terminal else []
        if not callbacks:
            self.notes.print(line)
        run = train(
            self.backbone,
            self.make_head(self.data),
            data,
            method.strategy,
            {"batch_size": self.batch_size, "seed": seed},
            self.max_length,
            callbacks,
            self._model_file(method, seed),
        )
        try:
            self.store.put(run, _key(method, seed))
        except OSError as error:
            self.log.print(
                f"This training could not be kept ({brief(error)}); the comparison continues."
            )
        return run

    def show(self, comparison: Comparison, out: Path | str | None) -> None:
        """Print the comparison, and write its files if there is a folder."""
        self.notes.print("")
        self.notes.show(comparison.table())
        self.notes.print(notes(comparison))
        if out is not None:
            try:
                picture, *_ = comparison.save(out)
            except OSError as error:
                warn(
                    f"Not all files of the comparison could be written ({brief(error)}). The "
                    f"result is complete: make room, and call save({str(out)!r}) of it."
                )
                return
            self.notes.print(f"\n{picture.with_suffix('.txt').read_text(encoding='utf-8')}")
            self.notes.print(
                f"Written: {picture}, and next to it the caption, the table and a JSON file.",
                soft_wrap=True,
            )
        if self.models is not None:
            self.notes.print(
                f"The models are in {self.models}; kft predict MODEL NEW.csv --out OUT.csv uses "
                "them.",
                soft_wrap=True,
            )


def _cost_of_controls(methods: Sequence[Method], remaining: Mapping[str, float]) -> str:
    """Say what the most expensive control takes, and what the comparison takes without them."""
    controls = [method for method in methods if method.kind == "control"]
    most = max(controls, key=lambda method: remaining[method.name], default=None)
    if most is None or not remaining[most.name]:
        return ""
    text = f" The most expensive control, {most.name}, takes {duration(remaining[most.name])} of it"
    if any(method.added for method in controls):
        rest = sum(remaining[method.name] for method in methods if not method.added)
        text += f"; with controls=False it should take {duration(rest)} in all"
    return f"{text}."


def _described(head: keras.Layer) -> dict[str, Any]:
    """The configuration of a head, without the module if it is a head of kft."""
    config = keras.saving.serialize_keras_object(head)
    if str(config.get("registered_name")).startswith("kft>"):
        config.pop("module")
    return config


def _key(method: Method, seed: int) -> dict[str, Any]:
    """The settings of one training, for `Store`, without names of kft's modules, which may move."""
    return {
        "strategy": _identity(method.strategy),
        "seed": seed,
        "shuffles": method.shuffled_labels,
    }


def _identity(strategy: Any) -> Any:
    kind = type(strategy)
    if kind.__module__.startswith("kft."):
        return repr(strategy)
    return [repr(strategy), f"{kind.__module__}.{kind.__qualname__}", _source(kind)]


def _own_code(*parts: Any) -> dict[str, list[str]]:
    """{"code": source} of those parts that belong neither to kft nor to Keras, {} without any."""
    kinds = [part if inspect.isroutine(part) else type(part) for part in parts if part is not None]
    known = ("kft", "keras", "keras_hub")
    own = [kind for kind in kinds if str(kind.__module__).partition(".")[0] not in known]
    return {"code": [_source(kind) for kind in own]} if own else {}


def _source(kind: Any) -> str:
    """The source of a user's own class or function, which may change at any time."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return ""
