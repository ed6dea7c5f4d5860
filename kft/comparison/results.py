"""Results of a comparison: a row per method, tests between methods, and a recommendation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from kft.comparison import printing, writing
from kft.comparison.copies import Copies
from kft.evaluation.metrics import Interval
from kft.evaluation.significance import (
    Measured,
    Standing,
    against_best,
    difference,
    within_one_error,
)
from kft.messages import count_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

NO_GAIN = "no strategy is worth its cost on this test set"
NULL_OF_FOLDS = (
    "Null hypothesis of each p: trained on data sets of this size, the method and the best have "
    "the same expected score. p is two-sided, from the same folds of both (the corrected resampled "
    "t test of Nadeau and Bengio), and corrected for all pairs of methods (Holm's correction)."
)
NULL = (
    "Null hypothesis of each p: over training seeds and test sets like this one, the method and "
    "the best have the same expected score. p is two-sided, paired by test records, and corrected "
    "for all pairs of methods (Welch's test, Holm's correction)."
)


@dataclass(frozen=True)
class Row:
    """One method of a comparison.

    Attributes:
        name: Name of the method in the table.
        kind: "strategy", "control" for from_scratch and shuffled labels, or "baseline".
        scores: Metric name -> `kft.evaluation.significance.Resampled`, or for folds
            `kft.evaluation.crossvalidation.CrossValidated`, the headline metric first; empty if
            every seed failed.
        trainable: Number of trained parameters.
        parameters: Number of all parameters.
        seconds: Time of one training in seconds, the median over seeds.
        memory: Peak memory of the process in the first training, in bytes; None for baselines.
        error: Error of a seed that failed, or None.
        shuffled_labels: Whether it was trained on shuffled labels; if so, it is never recommended.
        given: Whether its predictions come with the data set; there are none for new records, so it
            is never recommended.
        predictions: List of the predictions for the test split, one array per seed.
        constant_seeds: Number of seeds that predict (nearly) the same for every record. Their
            scores are in the table, but the method is not recommended because of them.
        score_without_copies: The same as `scores`, on the test records without near copies in
            training; empty if there are no copies.
        price_of_copies: Scores on all test records minus these, paired by records and seeds, or by
            folds.
    """

    name: str
    kind: Literal["strategy", "control", "baseline"]
    scores: Mapping[str, Measured] = field(default_factory=dict)
    trainable: int | None = None
    parameters: int | None = None
    seconds: float = math.nan
    memory: int | None = None
    error: str | None = None
    shuffled_labels: bool = False
    given: bool = False
    predictions: list = field(default_factory=list, repr=False)
    constant_seeds: int = 0
    score_without_copies: Mapping[str, Measured] = field(default_factory=dict, repr=False)
    price_of_copies: Mapping[str, Measured] = field(default_factory=dict, repr=False)

    @property
    def collapsed(self) -> bool:
        """Whether every seed predicts (nearly) the same for every record."""
        return 0 < len(self.predictions) == self.constant_seeds


@dataclass(frozen=True, eq=False)
class Comparison:
    """Result of `kft.compare`.

    Attributes:
        data: Name of the data set.
        records: Number of records in its test split; of a cross-validation, of all records.
        rows: A `Row` per method, in the order in which they ran.
        seeds: Seeds of the trainings of each strategy.
        confidence: Confidence of the intervals, such as 0.95.
        settings: Dict of settings and versions.
        copies: Test records that have near copies in training, of all folds of a cross-validation;
            None if none were looked for.
        folds: Number of folds over all repeats of a cross-validation; 0 for one test split.
    """

    data: str
    records: int
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    confidence: float
    settings: dict
    copies: Copies | None = None
    folds: int = 0

    @property
    def null_hypothesis(self) -> str:
        """What the p-values test, and how."""
        return NULL_OF_FOLDS if self.folds else NULL

    @property
    def trainings(self) -> str:
        """Number of seeds, or of folds, in words."""
        return count_of(self.folds, "fold") if self.folds else count_of(len(self.seeds), "seed")

    @cached_property
    def metric(self) -> str:
        """The headline metric, by which methods are ordered."""
        return next(iter(next(row.scores for row in self.rows if row.scores)))

    @cached_property
    def candidates(self) -> list[Row]:
        """Rows with a score that were trained on true labels and whose predictions vary."""
        return [
            row
            for row in self.rows
            if not (row.shuffled_labels or row.given or row.collapsed)
            if row.scores and not math.isnan(self.score(row).value)
        ]

    @cached_property
    def _complete(self) -> list[Row]:
        """The candidates without failed or collapsed seeds, if there are any, else all."""
        complete = [
            row for row in self.candidates if not (self.lost_seeds(row) or row.constant_seeds)
        ]
        return complete or self.candidates

    @cached_property
    def best(self) -> Row | None:
        """The candidate with the highest score, or None if there is no candidate.

        Candidates with a failed or collapsed seed are considered only if there are no others.
        """
        return max(self._complete, key=lambda row: self.score(row).value, default=None)

    @cached_property
    def recommended(self) -> Row | None:
        """The cheapest candidate within one standard error of the best."""
        if self.best is None:
            return None
        scores = [self.score(row) for row in self._complete]
        return self._complete[within_one_error(scores, [row.seconds for row in self._complete])]

    @cached_property
    def standings(self) -> dict[str, Standing | None]:
        """Name of a candidate -> how it compares with the best."""
        if not self.candidates:
            return {}
        standings = against_best([self.score(row) for row in self.candidates], self.confidence)
        return {row.name: one for row, one in zip(self.candidates, standings, strict=True)}

    def score(self, row: Row) -> Measured:
        """Return the headline score of a row, which must have scores."""
        return row.scores[self.metric]

    def interval(self, row: Row) -> Interval:
        """Return the interval of the headline score of a row."""
        return self.score(row).interval(self.confidence)

    def lost_seeds(self, row: Row) -> int:
        """Return how many seeds (of a cross-validation, folds) of a row failed or have no score."""
        asked = self.folds or (1 if row.kind == "baseline" else len(self.seeds))
        return max(0, asked - int(np.isfinite(self.score(row).seeds).sum()))

    # Sentences ----------------------------------------------------------------------------------

    @cached_property
    def leakage(self) -> str:
        """Sentences on near copies of test records in training; "" if there are none."""
        if self.copies is None or not len(self.copies):
            return "" if self.copies is None else self.copies.note
        text = f"Without copies: the scores without {self.copies}. {self.copies.note}".strip()
        if self.best is None:
            return text
        price = self.best.price_of_copies[self.metric].interval(self.confidence)
        return f"{text} For {self.best.name} the difference is {price}."

    @cached_property
    def recommendation(self) -> str:
        """The recommended method and the reasons, as sentences."""
        return " ".join(
            filter(None, (self._choice(), self._pretraining(), self._leak(), self._caveats()))
        )

    def _choice(self) -> str:
        best, chosen, metric = self.best, self.recommended, self.metric
        if best is None or chosen is None:
            return "Recommended: nothing. No method has a score and predictions that vary."
        error = self.score(best).error
        text = f"Recommended: {chosen.name}, {metric} {self.interval(chosen)}."
        if chosen is best:
            text += (
                f" It scores highest, and nothing cheaper comes within one standard error "
                f"({error:.3f}) of it."
            )
        else:
            text += (
                f" {best.name} scores highest, {self.interval(best)}, and {chosen.name} lies "
                f"within one standard error ({error:.3f}) of it at {_ratio(chosen, best)} of the "
                f"time: the rule of one standard error takes the cheaper one."
            )
        return text + (f" So {self.no_gain}: the baseline does as well." if self.no_gain else "")

    @property
    def no_gain(self) -> str | None:
        """A sentence if strategies were trained and a baseline is recommended, else None."""
        tried = any(row.kind == "strategy" and row.scores for row in self.rows)
        is_baseline = self.recommended is not None and self.recommended.kind == "baseline"
        return NO_GAIN if tried and is_baseline else None

    def _pretraining(self) -> str | None:
        control = next((row for row in self.candidates if row.kind == "control"), None)
        tuned = [row for row in self.candidates if row.kind == "strategy"]
        if control is None or not tuned:
            return None
        best = max(tuned, key=lambda row: self.score(row).value)
        gain = difference(self.score(best), self.score(control), self.confidence)
        text = f"The given weights: {best.name} minus {control.name} is {gain}"
        if gain.low > 0:
            return f"{text}, above zero: they helped."
        if gain.high < 0:
            return f"{text}, below zero: random weights are a better start."
        return f"{text}, which contains zero: this test set does not show that they helped."

    def _leak(self) -> str | None:
        row = next((row for row in self.rows if row.shuffled_labels and row.scores), None)
        chance = self._chance()
        if row is None or chance is None or math.isnan(self.score(row).value):
            return None
        score = self.interval(row)
        text = f"Control: with shuffled labels {self.metric} is {score}; chance is {chance:.3f}."
        if score.low > chance and (self.folds or len(self.seeds) > 1):
            text += (
                " Warning: that is above chance, although shuffled labels contain no information: "
                "check how the data are read, split and scored."
            )
        return text

    def _chance(self) -> float | None:
        """Return the score of a random guess, None if it is not known."""
        if "AUROC" in self.metric:
            return 0.5
        if self.metric in ("Spearman", "Pearson", "MCC"):
            return 0.0
        constant = [row for row in self.rows if row.name == "majority class" and row.scores]
        return self.score(constant[0]).value if constant else None

    def _caveats(self) -> str:
        failed = [f"{row.name} ({row.error})" for row in self.rows if row.error]
        sentences = [f"Failed: {'; '.join(failed)}."] if failed else []
        constant = [
            row.name
            + f" ({row.constant_seeds} of {count_of(len(row.predictions), 'seed')})"
            * (not row.collapsed)
            for row in self.rows
            if row.constant_seeds and row.kind != "baseline" and not row.shuffled_labels
        ]
        if constant:
            sentences.append(
                f"Predictions hardly vary: {', '.join(constant)}. Such a training has collapsed "
                f"and is not recommended, even with a high score: try a lower learning rate or "
                f"more epochs."
            )
        given = [row.name for row in self.rows if row.given and row.scores]
        if given:
            sentences.append(
                f"{', '.join(given)}: these predictions come with the data set. There are none for "
                f"new records, so they are shown but not recommended."
            )
        if len(self.seeds) == 1 and not self.folds:
            sentences.append(
                "One seed does not show how much trainings vary: use at least three before you "
                "trust a small difference."
            )
        return " ".join(sentences)

    # As tables ----------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Return all numbers, one row per method.

        Returns:
            pandas.DataFrame indexed by method: kind; each metric with its interval, and, if test
            records have near copies in training, the same without them; `gap`, the score minus that
            of the best method, with its interval; p and its corrected value; number of trainable
            and of all parameters; seconds of one training; peak memory in bytes; number of seeds
            that finished; number of seeds whose predictions hardly vary; whether the method is
            recommended; and the error of a seed that failed.
        """
        rows = {}
        for row in self.rows:
            values: dict[str, Any] = {"kind": row.kind}
            for name, scores in row.scores.items():
                value, low, high = scores.interval(self.confidence)
                values |= {name: value, f"{name} low": low, f"{name} high": high}
            for name, scores in row.score_without_copies.items():
                value, low, high = scores.interval(self.confidence)
                name = f"{name} without copies"
                values |= {name: value, f"{name} low": low, f"{name} high": high}
            if (standing := self.standings.get(row.name)) is not None:
                gap, low, high = standing.gap
                values |= {"gap": gap, "gap low": low, "gap high": high}
                values |= {"p": standing.p, "p corrected": standing.corrected}
            rows[row.name] = values | {
                "trainable": row.trainable,
                "parameters": row.parameters,
                "seconds": row.seconds,
                "peak memory": row.memory,
                "seeds": int(np.isfinite(self.score(row).seeds).sum()) if row.scores else 0,
                "constant seeds": row.constant_seeds,
                "recommended": row is self.recommended,
                "error": row.error,
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def table(self) -> Table:
        """Return the table as a `rich` renderable."""
        return printing.table(self)

    def __str__(self) -> str:
        return printing.text(self)

    def figure(self) -> tuple[Figure, str]:
        """Draw score against cost; return a matplotlib figure and its caption."""
        return writing.figure(self)

    def record(self) -> dict[str, Any]:
        """Return settings, results and the scores of each seed, as `save` writes them as JSON."""
        return writing.record(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the table, all settings and results as JSON, and the figure with its caption.

        Args:
            folder: Folder for DATA.png, DATA.txt, DATA.csv and DATA.json; it is made if missing.

        Returns:
            Paths of the files, the figure first.

        Raises:
            OSError: A file cannot be written, for example because the disk is full. The table and
                the JSON file are written before the figure.
        """
        return writing.save(self, folder)


def _ratio(cheap: Row, expensive: Row) -> str:
    ratio = cheap.seconds / max(expensive.seconds, 1e-9)
    return f"{ratio:.0%}" if ratio >= 0.01 else "less than 1%"
