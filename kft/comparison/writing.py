"""The files of a comparison: figure with caption, table, and record."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kft.comparison.printing import seeds
from kft.evaluation.metrics import Interval
from kft.plots import plot_comparison, save_figure
from kft.plots.comparison import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(found: Any) -> tuple[Figure, str]:
    """Draw score against cost.

    Args:
        found: A `kft.comparison.Comparison`.

    Returns:
        tuple: a matplotlib figure, and its caption.
    """
    nothing = Interval(math.nan, math.nan, math.nan)
    points = [
        Point(row.name, row.kind, row.seconds, found.interval(row), found.score(row).seeds)
        if row.scores
        else Point(row.name, row.kind, row.seconds, nothing, [])
        for row in found.rows
    ]
    best = found.best
    made = (
        f"Strategies were trained on the same splits from {seeds(found.seeds)}; intervals are "
        f"over resampled test records and seeds."
    )
    return plot_comparison(
        points,
        found.metric,
        found.data,
        found.records,
        best and found.recommended.name,
        best and best.name,
        best and found.score(best).error,
        found.confidence,
        made,
        [row.name for row in found.rows if row.collapsed and row.kind != "baseline"],
        found.no_gain or "",
    )


def record(found: Any) -> dict[str, Any]:
    """Return everything that is known of a comparison, as JSON can hold it.

    Args:
        found: A `kft.comparison.Comparison`.
    """
    return {
        "data": found.data,
        "records": found.records,
        "seeds": list(found.seeds),
        **found.about,
        "null hypothesis": found.null_hypothesis,
        "recommendation": found.recommendation,
        "rows": json.loads(found.to_frame().to_json(orient="index")),
        "each seed": {
            row.name: {
                name: [None if np.isnan(x) else round(float(x), 6) for x in scores.seeds]
                for name, scores in row.scores.items()
            }
            for row in found.rows
        },
    }


def save(found: Any, folder: str | Path) -> list[Path]:
    """Write the figure, its caption, the table and the record of a comparison.

    Args:
        found: A `kft.comparison.Comparison`.
        folder: Made if missing; gets DATA.png, DATA.txt, DATA.csv and DATA.json.

    Returns:
        list of Path: the files.
    """
    name = re.sub(r"[^\w.-]+", "_", found.data).strip(".") or "data"
    picture = save_figure(*figure(found), Path(folder) / f"{name}.png")
    caption, table, text = (picture.with_suffix(end) for end in (".txt", ".csv", ".json"))
    found.to_frame().to_csv(table, index_label="method", float_format="%.6g")
    text.write_text(json.dumps(record(found), indent=2, default=str) + "\n")
    return [picture, caption, table, text]
