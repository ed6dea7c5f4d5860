"""The table and the text that a comparison prints."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 140  # of the text, in characters


def table(comparison: Any) -> Table:
    """Make a table of a comparison.

    Args:
        comparison: A `kft.comparison.Comparison`.

    Returns:
        A table of `rich`, one row per method.
    """
    from rich.table import Table

    where = "cross-validation" if comparison.folds else "test split"
    title = (
        f"{comparison.data}: {where} of {comparison.records:,} records, "
        f"{comparison.trainings}, {comparison.confidence:.0%} intervals"
    )
    grid = Table(title=title, title_justify="left")
    grid.add_column("method")
    names = ["to the best", "p", "trainable weights", "seconds", "memory"]
    copies = ["without copies"] * _has_copies(comparison)
    for name in [comparison.metric, *copies, *names]:
        grid.add_column(name, justify="right", no_wrap=name in (comparison.metric, *copies))
    kinds = [row.kind for row in comparison.rows]
    for i, row in enumerate(comparison.rows):
        last = i + 1 == len(kinds) or kinds[i + 1] != row.kind
        style = "bold" if row is comparison.recommended else None
        grid.add_row(*_cells(comparison, row), end_section=last, style=style)
    return grid


def text(comparison: Any) -> str:
    """Return a comparison as text: the table, the null hypothesis and the recommendation.

    Args:
        comparison: A `kft.comparison.Comparison`.

    Returns:
        Lines of at most `WIDTH` characters, and below the table the paragraphs of `notes`.
    """
    from rich.console import Console

    console = Console(width=WIDTH, no_color=True)
    with console.capture() as captured:
        console.print(table(comparison))
    return f"{captured.get()}{notes(comparison)}"


def notes(comparison: Any) -> str:
    """Return what is printed below the table.

    Args:
        comparison: A `kft.comparison.Comparison`.

    Returns:
        Paragraphs: near copies, if there are any; the null hypothesis; the recommendation.
    """
    parts = [comparison.leakage, comparison.null_hypothesis, comparison.recommendation]
    return "\n\n".join(filter(None, parts))


def _has_copies(comparison: Any) -> bool:
    return any(row.score_without_copies for row in comparison.rows)


def seeds(found: Sized) -> str:
    """Return the number of seeds with its noun.

    Example:
        >>> seeds([0, 1, 2])
        '3 seeds'
    """
    return f"{len(found)} seed{'s' * (len(found) > 1)}"


def _cells(comparison: Any, row: Any) -> list[str]:
    """Return the cells of a row."""
    cost = [
        "" if row.trainable is None else f"{row.trainable:,}",
        _seconds(row.seconds),
        "" if row.memory is None else f"{row.memory / 2**30:.1f} GB",
    ]
    copies = [""] * _has_copies(comparison)
    if not row.scores:
        return [row.name, "failed", *copies, "", "", *cost]
    if row.score_without_copies:
        rest = row.score_without_copies[comparison.metric]
        copies = [str(rest.interval(comparison.confidence))]
    standing, lost = comparison.standings.get(row.name), comparison.lost_seeds(row)
    some = 0 < lost < len(next(iter(row.scores.values())).seeds)  # all lost: score "undefined"
    unit = f"{lost} folds" if comparison.folds else seeds(range(lost))
    name = f"{row.name} (without {unit})" if some else row.name
    name += " (recommended)" * (row is comparison.recommended)
    if row is comparison.best:
        to_the_best = ["highest", ""]
    elif row.collapsed and row.kind != "baseline":
        to_the_best = ["predictions hardly vary", ""]
    elif standing is None:
        to_the_best = ["", ""]
    else:
        to_the_best = [f"{standing.gap.value:+.3f}", _p(standing.corrected)]
    return [name, str(comparison.interval(row)), *copies, *to_the_best, *cost]


def _p(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _seconds(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
