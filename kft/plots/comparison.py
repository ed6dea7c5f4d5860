"""The figure of a comparison: score against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kft.evaluation.metrics import Interval
from kft.plots.style import GREY, MODEL, OTHERS, listed

# Colour and marker of each kind of method.
LOOKS = {"strategy": (MODEL, "o"), "baseline": (OTHERS[0], "s"), "control": (GREY, "^")}


class Point(NamedTuple):
    """One method in the figure.

    Attributes:
        name: its label.
        kind: "strategy", "baseline" or "control".
        seconds: of one training.
        score: mean over seeds, with its interval.
        seeds: (S,) the score of each seed.
    """

    name: str
    kind: str
    seconds: float
    score: Interval
    seeds: Sequence[float]


def plot_comparison(
    points: Sequence[Point], metric: str = "score", data: str = "the data",
    records: int | None = None, chosen: str | None = None, best: str | None = None,
    error: float | None = None, confidence: float = 0.95, made: str = "",
    constant: Sequence[str] = (), remark: str = "",
) -> tuple[Figure, str]:  # fmt: skip
    """Draw the score of several methods against the time that one training takes.

    Args:
        points: the methods; those without a score are named in the caption and not drawn.
        metric: name of the score; more is better.
        data: name of the data set.
        records: in its test split, for the caption.
        chosen: name of the recommended method, which is ringed.
        best: name of the best; None for the highest score of those that are not `constant`.
        error: standard error of the best, drawn as a band below it.
        confidence: of the intervals.
        made: a sentence on how intervals were made, for the caption.
        constant: names of the methods that answer the same to every record, which is said.
        remark: what else stands out, for the caption.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Raises:
        ValueError: no point has a score.

    Example:
        >>> rows = [Point("3-mers", "baseline", 1.0, Interval(0.8, 0.7, 0.9), [0.8]),
        ...         Point("full", "strategy", 60.0, Interval(0.9, 0.8, 0.95), [0.89, 0.91])]
        >>> figure, caption = plot_comparison(rows, "AUROC")
        >>> "full" in caption
        True
    """
    drawn = [point for point in points if not math.isnan(point.score.value)]
    if not drawn:
        raise ValueError("no point has a score: there is nothing to draw")
    alike = [p for p in drawn if p.name in constant]
    first = max(drawn, key=lambda p: (p not in alike, p.score.value))
    top = next((p for p in drawn if p.name == best), first)
    figure = Figure(figsize=(10, 5.4), dpi=120, layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    if error:
        ax.axhspan(top.score.value - error, top.score.value, color=MODEL, alpha=0.12, linewidth=0)
    low, high = _limits(drawn, top)
    for point in drawn:
        if point.score.value > low:
            _draw(ax, point, point.name == chosen)
    ax.set(
        xscale="log",
        xlabel="time of one training (seconds, logarithmic)",
        ylabel=f"test {metric}, mean over seeds with {confidence:.0%} interval",
    )
    ax.set_ylim(low, high)
    _label(ax, drawn, chosen, alike)
    _legend(ax, drawn, chosen, error)
    stands = _stands(drawn, top, metric, chosen, alike, remark)
    return figure, _caption(points, drawn, stands, metric, data, records, error, made)


def _draw(ax: Axes, point: Point, ringed: bool) -> None:
    colour, marker = LOOKS[point.kind]
    x, (value, low, high) = point.seconds, point.score
    ax.plot([x, x], [low, high], color=colour, linewidth=1.6, alpha=0.8)
    if len(point.seeds) > 1:
        spread = x * np.geomspace(0.94, 1.06, len(point.seeds))
        ax.plot(spread, point.seeds, ".", color=colour, markersize=4, alpha=0.7)
    ax.plot([x], [value], marker, color=colour, markersize=8)
    if ringed:
        ax.plot([x], [value], "o", markersize=17, fillstyle="none", color="black")


def _limits(drawn: Sequence[Point], best: Point) -> tuple[float, float]:
    """The strategies' range and as much again: what lies at chance would flatten it."""
    low = min([p.score.low for p in drawn if p.kind == "strategy"] or [best.score.low])
    high = max(p.score.high for p in drawn)
    near = [p.score.low for p in drawn if p.score.value > 2 * low - high]
    low = min([low, *near])
    margin = 0.06 * max(high - low, 1e-3)
    return low - margin, high + margin


def _label(ax: Axes, drawn: Sequence[Point], chosen: str | None, alike: Sequence[Point]) -> None:
    """Names to the right, in the order of scores and apart, each with a line to its point."""
    order = sorted(drawn, key=lambda p: p.score.value)
    low, high = ax.get_ylim()
    # From the bottom up no closer than a line of text, then down again where the top is passed.
    places = [max((p.score.value - low) / (high - low), 0.0) for p in order]
    line = 0.055
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + line)
    places[-1] = min(places[-1], 0.99)
    for i in reversed(range(len(places) - 1)):
        places[i] = min(places[i], places[i + 1] - line)
    for place, point in zip(places, order, strict=True):
        colour, hidden = LOOKS[point.kind][0], bool(point.score.value < low)
        text = f"{point.name}  {point.score.value:.3f}{' (below)' * hidden}"
        text += " (answers hardly vary)" * (point in alike)
        look = {"color": colour, "fontsize": 9, "va": "center", "annotation_clip": False}
        look["fontweight"] = "bold" if point.name == chosen else "normal"
        if not hidden:
            look["arrowprops"] = {
                "arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.7,
                "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 5,
            }  # fmt: skip
        at = (point.seconds, point.score.value)
        ax.annotate(text, at, (1.03, place), textcoords="axes fraction", **look)


def _legend(ax: Axes, drawn: Sequence[Point], chosen: str | None, error: float | None) -> None:
    for kind, (colour, marker) in LOOKS.items():
        if any(point.kind == kind for point in drawn):
            ax.plot([], [], marker, color=colour, label=kind)
    if chosen:
        ax.plot([], [], "o", fillstyle="none", color="black", markersize=11, label="recommended")
    if error:
        ax.fill_between([], [], [], color=MODEL, alpha=0.12, label="one standard error of the best")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=5, fontsize=9, frameon=False)


def _stands(
    drawn: Sequence[Point], best: Point, metric: str, chosen: str | None, alike: Sequence[Point],
    remark: str,
) -> str:  # fmt: skip
    """What stands out, one sentence or several."""
    said = f"{best.name} scores highest, {metric} {best.score}, in {_time(best.seconds)}"
    if best in alike:
        said = "no method has answers that vary"
    elif chosen and chosen != best.name:
        point = next(p for p in drawn if p.name == chosen)
        said += (
            f"; {chosen} reaches {point.score.value:.3f} in {_time(point.seconds)} and lies within "
            f"one standard error of it"
        )
    if remark:
        said += f"; {remark}"
    if alike and best not in alike:
        said += f". Answers hardly vary, whatever the score: {listed([p.name for p in alike])}"
    return f"{said}."


def _caption(
    points: Sequence[Point], drawn: Sequence[Point], stands: str, metric: str, data: str,
    records: int | None, error: float | None, made: str,
) -> str:  # fmt: skip
    size = f" (n = {records:,})" if records else ""
    lost = [point.name for point in points if point not in drawn]
    missing = f" Without a score and not drawn: {listed(lost)}." if lost else ""
    band = " The band reaches one standard error below the best." * bool(error)
    return (
        f"Test {metric} against the time of one training, for {len(drawn)} methods on {data}"
        f"{size}. Large marks are means over seeds, small dots single seeds, bars intervals."
        f"{band}{missing} {made}{' ' * bool(made)}What stands out: {stands}"
    )


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
