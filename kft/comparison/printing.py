"""The table and the text that a comparison prints."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 140  # of the text, in characters


def table(found: Any) -> Table:
    """Lay out a comparison as a table of `rich`.

    Args:
        found: A `kft.comparison.Comparison`.
    """
    from rich.table import Table

    title = (
        f"{found.data}: test split of {found.records:,} records, {seeds(found.seeds)}, "
        f"{found.confidence:.0%} intervals"
    )
    made = Table(title=title, title_justify="left")
    made.add_column("method")
    for name in (found.metric, "to the best", "p", "trainable weights", "seconds", "memory"):
        made.add_column(name, justify="right")
    kinds = [row.kind for row in found.rows]
    for i, row in enumerate(found.rows):
        last = i + 1 == len(kinds) or kinds[i + 1] != row.kind
        style = "bold" if row is found.recommended else None
        made.add_row(*_cells(found, row), end_section=last, style=style)
    return made


def text(found: Any) -> str:
    """Return a comparison as text: the table, the null hypothesis and the recommendation.

    Args:
        found: A `kft.comparison.Comparison`.
    """
    from rich.console import Console

    console = Console(width=WIDTH, no_color=True)
    with console.capture() as captured:
        console.print(table(found))
    return f"{captured.get()}{found.null_hypothesis}\n\n{found.recommendation}"


def seeds(found: Sized) -> str:
    """Return how many seeds there are, in words.

    Example:
        >>> seeds([0, 1, 2])
        '3 seeds'
    """
    return f"{len(found)} seed{'s' * (len(found) > 1)}"


def _cells(found: Any, row: Any) -> list[str]:
    """Return the cells of a row."""
    cost = [
        "" if row.trainable is None else f"{row.trainable:,}",
        _seconds(row.seconds),
        "" if row.memory is None else f"{row.memory / 2**30:.1f} GB",
    ]
    if not row.scores:
        return [row.name, "failed", "", "", *cost]
    standing, lost = found.standings.get(row.name), found.lost_seeds(row)
    some = 0 < lost < len(next(iter(row.scores.values())).seeds)  # for all it is "undefined"
    name = f"{row.name} (without {seeds(range(lost))})" if some else row.name
    name += " (recommended)" * (row is found.recommended)
    if row is found.best:
        to_the_best = ["highest", ""]
    elif row.collapsed and row.kind != "baseline":
        to_the_best = ["predictions hardly vary", ""]
    elif standing is None:
        to_the_best = ["", ""]
    else:
        to_the_best = [f"{standing.gap.value:+.3f}", _p(standing.corrected)]
    return [name, str(found.interval(row)), *to_the_best, *cost]


def _p(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _seconds(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
