"""Learning curves: the score that a method reaches with so many records, and how many it needs.

Beyond the largest number of records that was measured the answer is an extrapolation: what is
missing to a perfect score is taken to fall as a power law towards a floor (Cortes et al., NIPS
1993; `kft.evaluation.scaling`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kft.evaluation.metrics import Interval
from kft.evaluation.scaling import fit_power_law

PERFECT = 1.0  # of all headline metrics


@dataclass(frozen=True)
class LearningCurve:
    """Scores by number of training records.

    Attributes:
        metric: Name of the metric; higher is better and 1 is perfect.
        scores: Number of records -> mean score over seeds with its interval.
        seeds: Number of records -> (S,) score of each seed.
        without_copies: The curve on the test records without a near copy in training; None if no
            record has one, or none was looked for.
        remark: A sentence on the near copies, "" if there is nothing to say.
    """

    metric: str
    scores: Mapping[int, Interval]
    seeds: Mapping[int, np.ndarray]
    without_copies: LearningCurve | None = None
    remark: str = ""

    def needed(self, wanted: float) -> tuple[float, str]:
        """Find how many records are needed for a score.

        Args:
            wanted: The score, below 1.

        Returns:
            The number of records, and how it was found: "measured" if the smallest number with such
            a mean score was measured; "extrapolated" by a power law; or why there is no number,
            which is then NaN, or infinite if the curve levels off below the score.

        Raises:
            ValueError: `wanted` is not below 1.

        Example:
            >>> counts = (10, 20, 40, 80, 160)
            >>> seeds = {n: np.full(2, 0.9 - n**-0.5) for n in counts}
            >>> curve = LearningCurve(
            ...     "AUROC", {n: Interval(x[0], x[0], x[0]) for n, x in seeds.items()}, seeds
            ... )
            >>> curve.needed(0.7), round(curve.needed(0.85)[0]), curve.needed(0.95)[0]
            ((40, 'measured'), 400, inf)
        """
        if not wanted < PERFECT:
            raise ValueError(f"wanted must be a score below {PERFECT:g}, received {wanted!r}.")
        for n in sorted(self.scores):
            if self.scores[n].value >= wanted:
                return n, "measured"
        points = [(n, x) for n, seeds in self.seeds.items() for x in seeds if not math.isnan(x)]
        counts, found = (np.array(column) for column in zip(*points, strict=True))
        try:
            law = fit_power_law(counts, PERFECT - found, resamples=1)
        except ValueError as error:
            return math.nan, f"no power law fits: {error}"
        missing = PERFECT - wanted - law.floor.value
        if missing <= 0:
            return math.inf, f"the curve levels off at {PERFECT - law.floor.value:.3f}"
        return float(law.scale / missing ** (1 / law.exponent.value)), "extrapolated"

    def to_frame(self) -> pd.DataFrame:
        """Return a row per number of records: `score`, `low`, `high` and `seeds`, their number.

        If there are near copies, `score without copies`, `low without copies` and `high without
        copies` are those on the other test records.
        """
        rows = {
            n: {"score": x.value, "low": x.low, "high": x.high, "seeds": len(self.seeds[n])}
            for n, x in self.scores.items()
        }
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("records")
        if self.without_copies is None:
            return table
        rest = self.without_copies.to_frame().drop(columns="seeds")
        return table.join(rest.add_suffix(" without copies"))

    def __str__(self) -> str:
        rest = {} if self.without_copies is None else self.without_copies.scores
        lines = [
            f"{self.metric} with {n:,} training records: {score}"
            + (f"; without near copies {rest[n]}" if n in rest else "")
            for n, score in self.scores.items()
        ]
        return "\n".join([*lines, *[self.remark] * bool(self.remark)])
