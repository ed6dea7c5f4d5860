"""The table and the text that a comparison prints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from kft.messages import count_of, harmless

if TYPE_CHECKING:
    from rich.table import Table

COPIES = "without copies"  # title of the column of scores without near copies
WIDTH = 140  # of the text, in characters


def table(comparison: Any) -> Table:
    """Make a table of a comparison.

    Args:
        comparison: A `kft.comparison.Comparison`.

    Returns:
        A table of `rich`, one row per method.
    """
    from rich.table import Table
    from rich.text import Text

    where = "cross-validation" if comparison.folds else "test split"
    title = (
        f"{comparison.data}: {where} of {count_of(comparison.records, 'record')}, "
        f"{comparison.trainings}, {comparison.confidence:.0%} intervals"
    )
    grid = Table(title=Text(harmless(title)), title_justify="left")
    grid.add_column("method")
    for name in columns(comparison):
        is_score = name in (comparison.metric, COPIES)
        grid.add_column(name, justify="right", no_wrap=is_score)
    kinds = [row.kind for row in comparison.rows]
    for i, row in enumerate(comparison.rows):
        last = i + 1 == len(kinds) or kinds[i + 1] != row.kind
        style = "bold" if row is comparison.recommended else None
        texts = (Text(harmless(cell)) for cell in cells(comparison, row))
        grid.add_row(*texts, end_section=last, style=style)
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


def columns(comparison: Any) -> tuple[str, ...]:
    """Return the titles of the columns after the one of the method.

    Args:
        comparison: A `kft.comparison.Comparison`.
    """
    copies = [COPIES] * _has_copies(comparison)
    names = ("to the best", "p", "trainable weights", "seconds", "memory")
    return (comparison.metric, *copies, *names)


def cells(comparison: Any, row: Any) -> list[str]:
    """Return the cells of a row of the table.

    Args:
        comparison: A `kft.comparison.Comparison`.
        row: One of its rows.
    """
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
    unit = count_of(lost, "fold" if comparison.folds else "seed")
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
