"""What a comparison found: rows, a table, a recommendation with its reason, a figure."""

import json
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from kft.evaluation.metrics import Interval
from kft.evaluation.significance import Resampled, against_best, difference, within_one_error
from kft.plots import plot_comparison, save_figure
from kft.plots.comparison import Point

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
        name: as in the table.
        kind: "strategy", "control" for from_scratch and shuffled labels, or "baseline".
        scores: metric name -> `kft.evaluation.significance.Resampled`, the headline metric first;
            empty where every seed failed.
        trainable, parameters: weights that learned, and all.
        seconds: of one training, the median over seeds.
        memory: bytes of the process at its highest in the first training; None for baselines.
        error: what a seed that failed raised, None if none did.
        shuffles: it learned shuffled labels, and is no candidate.
        predictions: list over seeds of the answers to the test split.
        constant: how many seeds answer (nearly) the same to every record. Their scores stand in the
            table, and are no ground to choose the method.
    """

    name: str
    kind: str
    scores: dict[str, Resampled] = field(default_factory=dict)
    trainable: int | None = None
    parameters: int | None = None
    seconds: float = math.nan
    memory: int | None = None
    error: str | None = None
    shuffles: bool = False
    predictions: list = field(default_factory=list, repr=False)
    constant: int = 0

    @property
    def collapsed(self):
        """Whether every seed answers (nearly) the same to every record."""
        return 0 < len(self.predictions) == self.constant


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `kft.compare` found.

    Attributes:
        data: name of the data set.
        records: in its test split.
        rows: the methods, in the order in which they ran.
        seeds: those that each strategy was trained from.
        confidence: of the intervals.
        about: settings and versions, for the record.
    """

    data: str
    records: int
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    confidence: float
    about: dict

    @cached_property
    def metric(self):
        """The headline metric, by which methods are ordered."""
        return next(iter(next(row.scores for row in self.rows if row.scores)))

    @cached_property
    def candidates(self):
        """Rows with a score that learned true labels, and whose answers vary."""
        return [
            row
            for row in self.rows
            if not (row.shuffles or row.collapsed)
            if row.scores and not math.isnan(self._main(row).value)
        ]

    @cached_property
    def _whole(self):
        """The candidates whose seeds all count, if there are any, else all."""
        whole = [row for row in self.candidates if not (self._lost(row) or row.constant)]
        return whole or self.candidates

    @cached_property
    def best(self):
        """The candidate of the highest score; of those whose seeds all count, if there are any.

        None where there is no candidate.
        """
        return max(self._whole, key=lambda row: self._main(row).value, default=None)

    @cached_property
    def recommended(self):
        """The cheapest candidate within one standard error of the best; all its seeds count."""
        if self.best is None:
            return None
        scores = [self._main(row) for row in self._whole]
        return self._whole[within_one_error(scores, [row.seconds for row in self._whole])]

    @cached_property
    def standings(self):
        """{name of a candidate: how it stands to the best}, see `kft.evaluation.significance`."""
        if not self.candidates:
            return {}
        found = against_best([self._main(row) for row in self.candidates], self.confidence)
        return {row.name: one for row, one in zip(self.candidates, found, strict=True)}

    def _main(self, row):
        return row.scores[self.metric]

    def _lost(self, row):
        """How many of its seeds failed, or have no score."""
        asked = 1 if row.kind == "baseline" else len(self.seeds)
        return max(0, asked - int(np.isfinite(self._main(row).seeds).sum()))

    def _interval(self, row):
        return self._main(row).interval(self.confidence)

    # In words -----------------------------------------------------------------------------------

    @cached_property
    def recommendation(self):
        """What to use and why, in sentences, each true of these numbers."""
        return " ".join(
            filter(None, (self._choice(), self._pretraining(), self._leak(), self._caveats()))
        )

    def _choice(self):
        best, chosen, metric = self.best, self.recommended, self.metric
        if best is None:
            return "Recommended: nothing. No method has a score and answers that vary."
        error = self._main(best).error
        said = f"Recommended: {chosen.name}, {metric} {self._interval(chosen)}."
        if chosen is best:
            said += (
                f" It scores highest, and nothing cheaper comes within one standard error "
                f"({error:.3f}) of it."
            )
        else:
            said += (
                f" {best.name} scores highest, {self._interval(best)}, and {chosen.name} lies "
                f"within one standard error ({error:.3f}) of it at {_ratio(chosen, best)} of the "
                f"time: the rule of one standard error takes the cheaper."
            )
        return said + f" So {NO_GAIN}: the baseline does as well." * self._no_gain

    @property
    def _no_gain(self):
        """Whether strategies were trained, and a baseline is recommended."""
        tried = any(row.kind == "strategy" and row.scores for row in self.rows)
        return tried and self.recommended is not None and self.recommended.kind == "baseline"

    def _pretraining(self):
        control = next((row for row in self.candidates if row.kind == "control"), None)
        tuned = [row for row in self.candidates if row.kind == "strategy"]
        if control is None or not tuned:
            return None
        best = max(tuned, key=lambda row: self._main(row).value)
        gain = difference(self._main(best), self._main(control), self.confidence)
        said = f"The given weights: {best.name} minus {control.name} is {gain}"
        if gain.low > 0:
            return f"{said}, above zero: they helped."
        if gain.high < 0:
            return f"{said}, below zero: new random ones are the better start."
        return f"{said}: this test cannot see that they helped."

    def _leak(self):
        row = next((row for row in self.rows if row.shuffles and row.scores), None)
        chance = self._chance()
        if row is None or chance is None or math.isnan(self._main(row).value):
            return None
        found = self._interval(row)
        said = f"Control: with shuffled labels {self.metric} is {found}; chance is {chance:.3f}."
        if found.low > chance and len(self.seeds) > 1:
            said += (
                " Warning: that is above chance, so something other than the labels gives the "
                "answers away: look at how the data are read, split and scored."
            )
        return said

    def _chance(self):
        """What knowing nothing scores; None if that is not known."""
        if "AUROC" in self.metric:
            return 0.5
        if self.metric in ("Spearman", "Pearson", "MCC"):
            return 0.0
        constant = [row for row in self.rows if row.name == "majority class" and row.scores]
        return self._main(constant[0]).value if constant else None

    def _caveats(self):
        failed = [f"{row.name} ({row.error})" for row in self.rows if row.error]
        said = [f"Failed: {'; '.join(failed)}."] if failed else []
        alike = [
            row.name + f" ({row.constant} of {_seeds(row.predictions)})" * (not row.collapsed)
            for row in self.rows
            if row.constant and row.kind != "baseline" and not row.shuffles
        ]
        if alike:
            said.append(
                f"Answers hardly vary: {', '.join(alike)}. Such a training has collapsed, and is "
                f"not chosen whatever its score: try a lower learning rate or more epochs."
            )
        if len(self.seeds) == 1:
            said.append(
                "One seed tells nothing of how much training varies: take at least three before "
                "believing a small difference."
            )
        return " ".join(said)

    # As tables ----------------------------------------------------------------------------------

    def to_frame(self):
        """All numbers, one row per method.

        Returns:
            pandas.DataFrame indexed by method: kind; each metric with its interval; `gap`, the
            score minus that of the best, with its interval; p and its corrected value; trainable
            and all parameters; seconds of one training; peak memory in bytes; seeds that
            finished; those whose answers hardly vary; whether it is recommended; and the error of
            one that failed.
        """
        rows = {}
        for row in self.rows:
            values = {"kind": row.kind}
            for name, scores in row.scores.items():
                value, low, high = scores.interval(self.confidence)
                values |= {name: value, f"{name} low": low, f"{name} high": high}
            if (standing := self.standings.get(row.name)) is not None:
                gap, low, high = standing.gap
                values |= {"gap": gap, "gap low": low, "gap high": high, "p": standing.p,
                           "p corrected": standing.corrected}  # fmt: skip
            rows[row.name] = values | {
                "trainable": row.trainable,
                "parameters": row.parameters,
                "seconds": row.seconds,
                "peak memory": row.memory,
                "seeds": int(np.isfinite(self._main(row).seeds).sum()) if row.scores else 0,
                "constant seeds": row.constant,
                "recommended": row is self.recommended,
                "error": row.error,
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def table(self):
        """The table as a `rich` renderable."""
        from rich.table import Table

        title = (
            f"{self.data}: test split of {self.records:,} records, {_seeds(self.seeds)}, "
            f"{self.confidence:.0%} intervals"
        )
        table = Table(title=title, title_justify="left")
        table.add_column("method")
        for name in (
            f"{self.metric}",
            "to the best",
            "p",
            "weights that learn",
            "seconds",
            "memory",
        ):
            table.add_column(name, justify="right")
        kinds = [row.kind for row in self.rows]
        for i, row in enumerate(self.rows):
            last = i + 1 == len(kinds) or kinds[i + 1] != row.kind
            style = "bold" if row is self.recommended else None
            table.add_row(*self._cells(row), end_section=last, style=style)
        return table

    def _cells(self, row):
        cost = [
            "" if row.trainable is None else f"{row.trainable:,}",
            _seconds(row.seconds),
            "" if row.memory is None else f"{row.memory / 2**30:.1f} GB",
        ]
        if not row.scores:
            return [row.name, "failed", "", "", *cost]
        standing, lost = self.standings.get(row.name), self._lost(row)
        some = 0 < lost < len(next(iter(row.scores.values())).seeds)  # "undefined" says it of all
        name = f"{row.name} (without {_seeds(range(lost))})" if some else row.name
        name += " (recommended)" * (row is self.recommended)
        if row is self.best:
            stands = ["highest", ""]
        elif row.collapsed and row.kind != "baseline":
            stands = ["answers hardly vary", ""]
        elif standing is None:
            stands = ["", ""]
        else:
            stands = [f"{standing.gap.value:+.3f}", _p(standing.corrected)]
        return [name, str(self._interval(row)), *stands, *cost]

    def __str__(self):
        from rich.console import Console

        console = Console(width=140, no_color=True)
        with console.capture() as captured:
            console.print(self.table())
        return f"{captured.get()}{NULL}\n\n{self.recommendation}"

    # As figure and files ------------------------------------------------------------------------

    def figure(self):
        """Score against cost: a matplotlib figure, and its caption."""
        nothing = Interval(math.nan, math.nan, math.nan)
        points = [
            Point(row.name, row.kind, row.seconds, self._interval(row), self._main(row).seeds)
            if row.scores
            else Point(row.name, row.kind, row.seconds, nothing, [])
            for row in self.rows
        ]
        best = self.best
        made = (
            f"Strategies were trained on the same splits from {_seeds(self.seeds)}; intervals are "
            f"over resampled test records and seeds."
        )
        return plot_comparison(
            points, self.metric, self.data, self.records, best and self.recommended.name,
            best and best.name, best and self._main(best).error, self.confidence, made,
            [row.name for row in self.rows if row.collapsed and row.kind != "baseline"],
            NO_GAIN if self._no_gain else "",
        )  # fmt: skip

    def save(self, folder):
        """Writes the figure, its caption, the table and the record.

        Args:
            folder: is made; gets DATA.png, DATA.txt, DATA.csv and DATA.json.

        Returns:
            list of the paths.
        """
        folder = Path(folder)
        name = re.sub(r"[^\w.-]+", "_", self.data).strip(".") or "data"
        picture = save_figure(*self.figure(), folder / f"{name}.png")
        paths = [picture, *(picture.with_suffix(end) for end in (".txt", ".csv", ".json"))]
        frame = self.to_frame()
        frame.to_csv(paths[2], index_label="method", float_format="%.6g")
        record = {
            "data": self.data,
            "records": self.records,
            "seeds": list(self.seeds),
            **self.about,
            "null hypothesis": NULL,
            "recommendation": self.recommendation,
            "rows": json.loads(frame.to_json(orient="index")),
            "each seed": {
                row.name: {
                    name: [None if np.isnan(x) else round(float(x), 6) for x in scores.seeds]
                    for name, scores in row.scores.items()
                }
                for row in self.rows
            },
        }
        paths[3].write_text(json.dumps(record, indent=2, default=str) + "\n")
        return paths


def _p(value):
    if math.isnan(value):
        return "undefined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _seeds(seeds):
    return f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"


def _seconds(value):
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def _ratio(cheap, dear):
    share = cheap.seconds / max(dear.seconds, 1e-9)
    return f"{share:.0%}" if share >= 0.01 else "less than 1%"
