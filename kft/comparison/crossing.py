"""From zero-shot to few-shot: how many labels a strategy needs to beat a score that needs none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kft.arguments import (
    check_confidence,
    check_flag,
    check_instance,
    check_integer,
    check_optional_integer,
)
from kft.comparison.labels import orders_of, predictions
from kft.comparison.scoring import brief, scores_of
from kft.comparison.study import named_strategies
from kft.data import Dataset, load
from kft.data.inputs import InputKind
from kft.data.task import Task
from kft.evaluation import baselines
from kft.evaluation.augmented import augmented
from kft.evaluation.fitted import test_of
from kft.evaluation.metrics import Interval
from kft.evaluation.significance import Resampled, against
from kft.inference.mutations import score_mutations
from kft.messages import count_of, listed, warn
from kft.models import heads
from kft.params.paths import check_model
from kft.plots import plot_learning_curve

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
ZERO_SHOT = "zero-shot"
ONE_HOT, AUGMENTED = "one-hot ridge", "augmented ridge"


@dataclass(frozen=True)
class Crossover:
    """Scores by number of labels, beside the score of a method that needs none.

    Attributes:
        data: Name of the data set.
        records: Number of test records.
        metric: Name of the score; higher is better.
        zero_shot: The score without labels.
        method: Name of the zero-shot method.
        scores: Method -> {number of labels: its score over seeds}.
        confidence: Confidence of the intervals and of the tests.
        errors: Method -> why it has no score.
    """

    data: str
    records: int
    metric: str
    zero_shot: Resampled
    method: str
    scores: Mapping[str, Mapping[int, Resampled]]
    confidence: float = 0.95
    errors: Mapping[str, str] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Return the table: a row for zero-shot, then one per method and number of labels.

        Returns:
            DataFrame with `method`, `labels`, `score`, `low`, `high`, `seeds` (their number),
            `gain` over zero-shot with `gain_low` and `gain_high`, and `p`: of the paired test of
            "no gain" (see `kft.evaluation.significance`), corrected by Holm for the numbers of
            labels of the method.
        """
        rows = [{"method": ZERO_SHOT, "labels": 0, **_score(self._interval(self.zero_shot), 1)}]
        for method, by_size in self.scores.items():
            standings = against(self.zero_shot, list(by_size.values()), self.confidence)
            for (n, score), standing in zip(by_size.items(), standings, strict=True):
                gain = dict(zip(("gain", "gain_low", "gain_high"), standing.gap, strict=True))
                own = _score(self._interval(score), len(score.seeds))
                rows.append({"method": method, "labels": n, **own, **gain, "p": standing.corrected})
        return pd.DataFrame(rows)

    @property
    def needed(self) -> dict[str, int | None]:
        """Method -> the number of labels from which it beats zero-shot; None if at none tried.

        It beats zero-shot at a number of labels if the interval of its gain is above 0 and `p` is
        below 1 minus the confidence. From a number on, it has to at all larger ones too.
        """
        table, found = self.to_frame(), {}
        for method in self.scores:
            own = table[table.method == method]
            lasting = own.labels[self._beats(own)[::-1].cummin()[::-1]]
            found[method] = None if lasting.empty else int(lasting.iloc[0])
        return found

    def plot(self) -> tuple[Figure, str]:
        """Draw the scores against the number of labels, with the zero-shot score as a line.

        Returns:
            The figure and its caption.
        """
        curves = {
            method: {n: self._interval(score) for n, score in by_size.items()}
            for method, by_size in self.scores.items()
        }
        seeds = max(len(x.seeds) for by_size in self.scores.values() for x in by_size.values())
        made = (
            f"Each seed of {seeds} draws its own labels, of which each method chooses its settings "
            f"too; the intervals hold test records and seeds. {self._found()}"
        )
        level = f"zero-shot ({self.method.replace('_', ' ')})", self._interval(self.zero_shot)
        figure, caption = plot_learning_curve(
            curves, self.metric, self.data, self.records, "labels", made, level
        )
        return figure, caption

    def _beats(self, rows: pd.DataFrame) -> pd.Series:
        return (rows.gain_low > 0) & (rows.p < 1 - self.confidence)

    def _interval(self, score: Resampled) -> Interval:
        return score.interval(self.confidence)

    def _found(self) -> str:
        parts = [
            f"{method} from {n:,} labels" if n is not None else f"{method} at no number tried"
            for method, n in self.needed.items()
        ]
        return f"Better than zero-shot ({self.confidence:.0%}, corrected by Holm): {listed(parts)}."

    def __str__(self) -> str:
        table = self.to_frame()
        title = (
            f"{self.data}: {self.metric} on {count_of(self.records, 'test record')}, by number of "
            f"labels; zero-shot ({self.method}) {self._interval(self.zero_shot)}"
        )
        labelled = table[table.method != ZERO_SHOT].copy()
        scores = labelled[["score", "low", "high"]].to_numpy()
        labelled["text"] = [
            f"{Interval(*score)}{'*' * beats}"
            for score, beats in zip(scores, self._beats(labelled), strict=True)
        ]
        grid = labelled.pivot(index="labels", columns="method", values="text")[list(self.scores)]
        lines = [title, grid.rename_axis(columns=None).to_string(), f"* {self._found()}"]
        return "\n".join([*lines, *(f"{name}: {why}" for name, why in self.errors.items())])


def _score(interval: Interval, seeds: int) -> dict[str, float]:
    return dict(zip(("score", "low", "high"), interval, strict=True)) | {"seeds": seeds}


def crossover(
    backbone: keras.Model,
    data: Dataset | str,
    sizes: Sequence[int] | None = None,
    strategies: Sequence[Any] | Mapping[str, Any] = ("linear_probe",),
    seeds: int = 3,
    *,
    wild_type: str | None = None,
    method: str = "masked_marginal",
    head: Callable[[Dataset], keras.layers.Layer] | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    verbose: bool = True,
) -> Crossover:
    """Compare few labels with none: from how many labels on does training beat zero-shot scores?

    The mutants of a protein are scored without labels, see `kft.score_mutations`; then each
    strategy is trained on more and more labels, and so are two linear models: ridge regression on
    one-hot residues, and the same with the zero-shot score as another feature (Hsu et al. 2022),
    which is the baseline to beat. All are scored on the same test split.

    The labels are all that a training sees: there is no validation split beside them. If a strategy
    trains the head alone, features are computed once.

    Args:
        backbone: An ESM-2 or ESM-C with a trained `masked_lm`.
        data: A `kft.data.Dataset` of mutants of one protein with one measured number each and a
            test split, or a name of `kft.data.names()`.
        sizes: Numbers of labels; None for 8, 16, 32 and so on up to 1,024.
        strategies: List of names or strategies, see `kft.strategies`; or {name: strategy}.
        seeds: Number of trainings for each size; every seed draws other labels, a larger number
            holds the smaller ones of its seed.
        wild_type: Sequence of the protein; None takes that of the data set.
        method: As for `kft.score_mutations`.
        head: Function of a data set that returns a new head; None for `kft.heads.for_data`.
        batch_size: Number of records per batch.
        max_length: Number of residues that strategies keep of each sequence; None keeps all.
        confidence: Confidence of the intervals and of the tests.
        resamples: Number of resamples of the test records.
        verbose: False prints no progress.

    Returns:
        `Crossover`: `print` shows it, `to_frame()` is the table, `needed` the numbers of labels,
        `plot()` the figure with its caption. What fails has its error in it.

    Raises:
        ValueError: A size is larger than the train split, the data are not of this kind, or a
            sequence is no mutant of the wild type.

    Example:
        `print(kft.crossover(kft.load("esm2_t6_8M_UR50D"), "gb1"))`
    """
    check_model(backbone, "backbone")
    check_flag("verbose", verbose)
    check_integer("seeds", seeds)
    check_integer("batch_size", batch_size)
    check_optional_integer("max_length", max_length)
    check_integer("resamples", resamples)
    check_confidence(confidence)
    data = load(data) if isinstance(data, str) else data
    _check(data)
    sizes = _sizes(sizes, len(data.train))
    chosen = named_strategies(strategies)
    log = print if verbose else None
    scored = _zero_shot(backbone, data, wild_type, method)
    orders = orders_of(data, seeds, max(sizes))
    data = replace(data, valid=None)
    options = {"batch_size": batch_size}
    trainings: dict[str, Callable[[], dict[int, list]]] = {
        ONE_HOT: lambda: _fitted(baselines.one_hot, data, sizes, orders),
        AUGMENTED: lambda: _fitted(lambda x: augmented(x, scored), data, sizes, orders),
    }
    for name, strategy in chosen.items():
        given = (backbone, data, strategy, sizes, orders, head or heads.for_data, options)
        trainings[name] = partial(predictions, *given, max_length, log)
    found, errors = {}, {}
    for name, run in trainings.items():
        if log:
            log(f"{name}: {count_of(len(sizes), 'number')} of labels, {count_of(seeds, 'seed')}")
        try:
            found[name] = {
                n: next(iter(scores_of(data, each, resamples).values()))
                for n, each in run().items()
            }
        except Exception as error:
            errors[name] = brief(error)
            warn(f"{name} has failed: {errors[name]}")
    tested = test_of(data).inputs
    known = [np.array([scored[sequence] for sequence in tested])]
    metric, zero_shot = next(iter(scores_of(data, known, resamples).items()))
    return Crossover(data.name, len(tested), metric, zero_shot, method, found, confidence, errors)


def _check(data: Any) -> None:
    """Check that data hold mutants with one number each, and a test split."""
    check_instance("data", data, Dataset, "a kft.data.Dataset or the name of one")
    if data.task != Task.REGRESSION or np.ndim(data.train.targets) > 1:
        raise ValueError(
            f"data must hold one measured number per record, and {data.name} is a {data.task}: "
            f"kft.comparison.learning_curve takes any task."
        )
    if data.input_kind is not InputKind.SEQUENCE:
        raise ValueError(f"data must hold sequences, and {data.name} holds {data.input_kind}s.")
    test_of(data)


def _sizes(sizes: Sequence[int] | None, most: int) -> list[int]:
    if sizes is None:
        sizes = [n for n in SIZES if n <= most] or [most]
    if isinstance(sizes, str) or not np.iterable(sizes) or not len(list(sizes)):
        raise ValueError(f"sizes must be a list of numbers of labels, received {sizes!r:.40}.")
    for n in sizes:
        check_integer("sizes", n, 2, most)
    return sorted(set(sizes))


def _zero_shot(
    backbone: keras.Model, data: Dataset, wild_type: str | None, method: str
) -> dict[str, float]:
    """Return {sequence: score} of all records of the train and test split."""
    wild_type = data.wild_type if wild_type is None else wild_type
    if wild_type is None:
        raise ValueError(
            f"wild_type must be the sequence of the protein whose mutants {data.name} holds: the "
            f"data set does not name it."
        )
    sequences = list(dict.fromkeys([*data.train.inputs, *test_of(data).inputs]))
    mutants = pd.DataFrame({"mutated_sequence": sequences})
    found = score_mutations(backbone, wild_type, mutants, method)
    return dict(zip(sequences, found.score, strict=True))


def _fitted(
    fit: Callable[[Dataset], baselines.Baseline],
    data: Dataset,
    sizes: Sequence[int],
    orders: Sequence[np.ndarray],
) -> dict[int, list]:
    """Return {number of labels: predictions of a baseline for each seed}."""
    return {
        n: [
            data.as_measured(fit(replace(data, train=data.train.take(order[:n]))).predictions)
            for order in orders
        ]
        for n in sizes
    }
