"""The files of a comparison: figure with caption, table, and record."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kft.evaluation.metrics import Interval
from kft.files import write_text
from kft.messages import harmless_cell
from kft.plots import plot_comparison, save_figure
from kft.plots.comparison import Point

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(comparison: Any) -> tuple[Figure, str]:
    """Draw score against cost.

    Args:
        comparison: A `kft.comparison.Comparison`.

    Returns:
        A matplotlib figure, and its caption.
    """
    nothing = Interval(math.nan, math.nan, math.nan)
    points = []
    for row in comparison.rows:
        seconds = math.nan if row.given else row.seconds
        found = (
            (comparison.interval(row), comparison.score(row).seeds) if row.scores else (nothing, [])
        )
        points.append(Point(row.name, row.kind, seconds, *found))
    best = comparison.best
    over = "folds" if comparison.folds else "resampled test records and seeds"
    remark = (
        f"Strategies were trained on the same splits from {comparison.trainings}; intervals are "
        f"over {over}."
    )
    return plot_comparison(
        points,
        comparison.metric,
        comparison.data,
        comparison.records,
        best and comparison.recommended.name,
        best and best.name,
        best and comparison.score(best).error,
        comparison.confidence,
        remark,
        [row.name for row in comparison.rows if row.collapsed and row.kind != "baseline"],
        comparison.no_gain or "",
    )


def record(comparison: Any) -> dict[str, Any]:
    """Return settings, results and scores of each seed, as a dict for JSON.

    Args:
        comparison: A `kft.comparison.Comparison`.
    """
    return {
        "data": comparison.data,
        "records": comparison.records,
        "seeds": list(comparison.seeds),
        **comparison.settings,
        "null hypothesis": comparison.null_hypothesis,
        "recommendation": comparison.recommendation,
        **({"near copies": comparison.leakage} if comparison.leakage else {}),
        "rows": json.loads(comparison.to_frame().to_json(orient="index")),
        "each seed": {
            row.name: {
                name: [None if np.isnan(x) else round(float(x), 6) for x in scores.seeds]
                for name, scores in row.scores.items()
            }
            for row in comparison.rows
        },
    }


def file_name(name: str) -> str:
    """Return a name with underscores for what not every file system takes.

    Example:
        >>> file_name("lora(rank=4)")
        'lora_rank_4_'
    """
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "data"


def save(comparison: Any, folder: str | Path) -> list[Path]:
    """Write the table, the JSON file, the figure and its caption, each complete or not at all.

    The table and the JSON file come first, so that they are there if the disk is full.

    Args:
        comparison: A `kft.comparison.Comparison`.
        folder: Folder for DATA.png, DATA.txt, DATA.csv and DATA.json; it is made if missing.

    Returns:
        Paths of the files, the figure first.

    Raises:
        OSError: A file cannot be written.
    """
    name, folder = file_name(comparison.data), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    picture, caption, table, text = (
        folder / f"{name}{end}" for end in (".png", ".txt", ".csv", ".json")
    )
    frame = comparison.to_frame().rename(index=harmless_cell)
    write_text(table, frame.to_csv(index_label="method", float_format="%.6g"))
    write_text(text, json.dumps(record(comparison), indent=2, default=str) + "\n")
    save_figure(*figure(comparison), picture)
    return [picture, caption, table, text]
