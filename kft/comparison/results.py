"""What a comparison found: rows, how they compare, and a recommendation with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from kft.comparison import printing, writing
from kft.comparison.printing import seeds
from kft.evaluation.metrics import Interval
from kft.evaluation.significance import (
    Resampled,
    Standing,
    against_best,
    difference,
    within_one_error,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

NO_GAIN = "no strategy earns its cost on this test set"
NULL = (
    "Null hypothesis of each p: over training seeds and test sets like this one, the method and "
    "the best have the same expected score. p is two-sided, paired by test records, and corrected "
    "for all pairs of methods (Welch's test, Holm's correction)."
)


@dataclass(frozen=True)
class Row:
    """One method of a comparison.

    Attributes:
        name: As in the table.
        kind: "strategy", "control" for from_scratch and shuffled labels, or "baseline".
        scores: Metric name -> `kft.evaluation.significance.Resampled`, the headline metric first;
            empty if every seed failed.
        trainable: Number of weights that were trained.
        parameters: Number of all weights.
        seconds: Time of one training, the median over seeds.
        memory: Peak memory of the process in the first training, in bytes; None for baselines.
        error: Error of a seed that failed, or None.
        shuffles: Whether it was trained on shuffled labels, which makes it no candidate.
        given: Whether its predictions come with the data set; it makes none for new records, and
            is no candidate.
        predictions: List over seeds of the predictions for the test split.
        constant: Number of seeds that predict (nearly) the same for every record. Their scores are
            in the table, but are no reason to choose the method.
    """

    name: str
    kind: Literal["strategy", "control", "baseline"]
    scores: dict[str, Resampled] = field(default_factory=dict)
    trainable: int | None = None
    parameters: int | None = None
    seconds: float = math.nan
    memory: int | None = None
    error: str | None = None
    shuffles: bool = False
    given: bool = False
    predictions: list = field(default_factory=list, repr=False)
    constant: int = 0

    @property
    def collapsed(self) -> bool:
        """Whether every seed predicts (nearly) the same for every record."""
        return 0 < len(self.predictions) == self.constant


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `kft.compare` found.

    Attributes:
        data: Name of the data set.
        records: Number of records in its test split.
        rows: The methods, in the order in which they ran.
        seeds: Those that each strategy was trained from.
        confidence: Confidence of the intervals.
        about: Settings and versions, for the record.
    """

    data: str
    records: int
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    confidence: float
    about: dict

    null_hypothesis = NULL

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
            if not (row.shuffles or row.given or row.collapsed)
            if row.scores and not math.isnan(self.score(row).value)
        ]

    @cached_property
    def _whole(self) -> list[Row]:
        """The candidates of which no seed failed or collapsed, if there are any, else all."""
        whole = [row for row in self.candidates if not (self.lost_seeds(row) or row.constant)]
        return whole or self.candidates

    @cached_property
    def best(self) -> Row | None:
        """The candidate with the highest score, or None if there is no candidate.

        Candidates of which a seed failed or collapsed are passed over if there are others.
        """
        return max(self._whole, key=lambda row: self.score(row).value, default=None)

    @cached_property
    def recommended(self) -> Row | None:
        """The cheapest candidate within one standard error of the best."""
        if self.best is None:
            return None
        scores = [self.score(row) for row in self._whole]
        return self._whole[within_one_error(scores, [row.seconds for row in self._whole])]

    @cached_property
    def standings(self) -> dict[str, Standing | None]:
        """Name of a candidate -> how it compares with the best."""
        if not self.candidates:
            return {}
        found = against_best([self.score(row) for row in self.candidates], self.confidence)
        return {row.name: one for row, one in zip(self.candidates, found, strict=True)}

    def score(self, row: Row) -> Resampled:
        """Return the headline score of a row that has scores."""
        return row.scores[self.metric]

    def interval(self, row: Row) -> Interval:
        """Return the interval of the headline score of a row."""
        return self.score(row).interval(self.confidence)

    def lost_seeds(self, row: Row) -> int:
        """Return how many seeds of a row failed or have no score."""
        asked = 1 if row.kind == "baseline" else len(self.seeds)
        return max(0, asked - int(np.isfinite(self.score(row).seeds).sum()))

    # In words -----------------------------------------------------------------------------------

    @cached_property
    def recommendation(self) -> str:
        """What to use and why, in sentences."""
        return " ".join(
            filter(None, (self._choice(), self._pretraining(), self._leak(), self._caveats()))
        )

    def _choice(self) -> str:
        best, chosen, metric = self.best, self.recommended, self.metric
        if best is None or chosen is None:
            return "Recommended: nothing. No method has a score and predictions that vary."
        error = self.score(best).error
        said = f"Recommended: {chosen.name}, {metric} {self.interval(chosen)}."
        if chosen is best:
            said += (
                f" It scores highest, and nothing cheaper comes within one standard error "
                f"({error:.3f}) of it."
            )
        else:
            said += (
                f" {best.name} scores highest, {self.interval(best)}, and {chosen.name} lies "
                f"within one standard error ({error:.3f}) of it at {_ratio(chosen, best)} of the "
                f"time: the rule of one standard error takes the cheaper."
            )
        return said + (f" So {self.no_gain}: the baseline does as well." if self.no_gain else "")

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
        said = f"The given weights: {best.name} minus {control.name} is {gain}"
        if gain.low > 0:
            return f"{said}, above zero: they helped."
        if gain.high < 0:
            return f"{said}, below zero: new random ones are the better start."
        return f"{said}: this test cannot see that they helped."

    def _leak(self) -> str | None:
        row = next((row for row in self.rows if row.shuffles and row.scores), None)
        chance = self._chance()
        if row is None or chance is None or math.isnan(self.score(row).value):
            return None
        found = self.interval(row)
        said = f"Control: with shuffled labels {self.metric} is {found}; chance is {chance:.3f}."
        if found.low > chance and len(self.seeds) > 1:
            said += (
                " Warning: that is above chance, so something other than the labels gives the "
                "answers away: look at how the data are read, split and scored."
            )
        return said

    def _chance(self) -> float | None:
        """Return the score of a random guess, None if that is not known."""
        if "AUROC" in self.metric:
            return 0.5
        if self.metric in ("Spearman", "Pearson", "MCC"):
            return 0.0
        constant = [row for row in self.rows if row.name == "majority class" and row.scores]
        return self.score(constant[0]).value if constant else None

    def _caveats(self) -> str:
        failed = [f"{row.name} ({row.error})" for row in self.rows if row.error]
        said = [f"Failed: {'; '.join(failed)}."] if failed else []
        alike = [
            row.name + f" ({row.constant} of {seeds(row.predictions)})" * (not row.collapsed)
            for row in self.rows
            if row.constant and row.kind != "baseline" and not row.shuffles
        ]
        if alike:
            said.append(
                f"Predictions hardly vary: {', '.join(alike)}. Such a training has collapsed, and "
                f"is not chosen whatever its score: try a lower learning rate or more epochs."
            )
        given = [row.name for row in self.rows if row.given and row.scores]
        if given:
            said.append(
                f"{', '.join(given)}: these predictions come with the data set, there are none for "
                f"new records, so they are shown and not recommended."
            )
        if len(self.seeds) == 1:
            said.append(
                "One seed does not show how much training varies: take at least three before "
                "believing a small difference."
            )
        return " ".join(said)

    # As tables ----------------------------------------------------------------------------------

    def to_frame(self) -> pd.DataFrame:
        """Return all numbers, one row per method.

        Returns:
            pandas.DataFrame indexed by method: kind; each metric with its interval; `gap`, the
            score minus that of the best, with its interval; p and its corrected value; trainable
            and all parameters; seconds of one training; peak memory in bytes; seeds that
            finished; seeds whose predictions hardly vary; whether it is recommended; and the error
            of one that failed.
        """
        rows = {}
        for row in self.rows:
            values: dict[str, Any] = {"kind": row.kind}
            for name, scores in row.scores.items():
                value, low, high = scores.interval(self.confidence)
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
                "constant seeds": row.constant,
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
        """Draw score against cost: a matplotlib figure, and its caption."""
        return writing.figure(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write the figure, its caption, the table and the record.

        Args:
            folder: Made if missing; gets DATA.png, DATA.txt, DATA.csv and DATA.json.

        Returns:
            list of Path: the files.
        """
        return writing.save(self, folder)


def _ratio(cheap: Row, dear: Row) -> str:
    ratio = cheap.seconds / max(dear.seconds, 1e-9)
    return f"{ratio:.0%}" if ratio >= 0.01 else "less than 1%"
