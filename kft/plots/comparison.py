"""The figure of a comparison: score against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Transform

from kft.evaluation.metrics import Interval
from kft.messages import listed
from kft.plots.style import GREY, MODEL, OTHERS, new_figure, open_axes, plain_log_axis, set_apart

# Colour and marker of each kind of method.
LOOKS = {"strategy": (MODEL, "o"), "baseline": (OTHERS[0], "s"), "control": (GREY, "^")}


LINE = 0.235  # height of a label, in inches


class Point(NamedTuple):
    """One method in the figure.

    Attributes:
        name: Its label.
        kind: "strategy", "baseline" or "control".
        seconds: Duration of one training; NaN if there was none, as for given predictions.
        score: Mean over seeds, with its interval.
        seeds: Array (S,), the score of each seed.
    """

    name: str
    kind: str
    seconds: float
    score: Interval
    seeds: Sequence[float]


def plot_comparison(
    points: Sequence[Point],
    metric: str = "score",
    data: str = "the data",
    records: int | None = None,
    chosen: str | None = None,
    best: str | None = None,
    error: float | None = None,
    confidence: float = 0.95,
    made: str = "",
    collapsed: Sequence[str] = (),
    remark: str = "",
) -> tuple[Figure, str]:
    """Draw the score of several methods against the time of one training.

    Args:
        points: The methods. Those without a score are named in the caption and not drawn.
        metric: Name of the score; higher is better.
        data: Name of the data set.
        records: Number of records in its test split, for the caption.
        chosen: Name of the recommended method, which is marked with a ring.
        best: Name of the best method; None for the highest score of those not in `collapsed`.
        error: Standard error of the best, drawn as a band below it.
        confidence: Confidence level of the intervals.
        made: How the intervals were made, a sentence for the caption.
        collapsed: Names of the methods whose predictions hardly vary, for labels and caption.
        remark: Further sentence on what stands out, for the caption.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Raises:
        ValueError: No point has a score.

    Example:
        >>> rows = [Point("3-mers", "baseline", 1.0, Interval(0.8, 0.7, 0.9), [0.8]),
        ...         Point("full", "strategy", 60.0, Interval(0.9, 0.8, 0.95), [0.89, 0.91])]
        >>> figure, caption = plot_comparison(rows, "AUROC")
        >>> "full" in caption
        True
    """
    drawn = [point for point in points if not math.isnan(point.score.value)]
    if not drawn:
        raise ValueError("points must hold at least one method with a score, received none.")
    flat = [p for p in drawn if p.name in collapsed]
    first = max(drawn, key=lambda p: (p not in flat, p.score.value))
    top = next((p for p in drawn if p.name == best), first)
    figure, ax = _figure(drawn, top, metric, chosen, error, confidence)
    _label(figure, ax, drawn, chosen, flat)
    _legend(figure, ax, drawn, chosen, error)
    findings = _findings(drawn, top, metric, chosen, flat, remark)
    return figure, _caption(points, drawn, findings, metric, data, records, error, made)


def _figure(
    drawn: Sequence[Point],
    top: Point,
    metric: str,
    chosen: str | None,
    error: float | None,
    confidence: float,
) -> tuple[Figure, Axes]:
    height = max(5.4, LINE * len(drawn) + 1.2)
    figure = new_figure(10, height)
    ax = open_axes(figure.subplots())
    if error:
        ax.axhspan(top.score.value - error, top.score.value, color=MODEL, alpha=0.12, linewidth=0)
    low, high = _limits(drawn, top)
    for point in drawn:
        if point.score.value > low:
            _draw(ax, point, point.name == chosen)
    plain_log_axis(ax)
    ax.set(
        xlabel="time of one training (seconds, logarithmic)",
        ylabel=f"test {metric}, mean over seeds with {confidence:.0%} interval",
    )
    ax.set_ylim(low, high)
    return figure, ax


def _draw(ax: Axes, point: Point, ringed: bool) -> None:
    colour, marker = LOOKS[point.kind]
    (x, value), where = _place(ax, point)
    _, low, high = point.score
    ax.plot([x, x], [low, high], color=colour, linewidth=1.6, alpha=0.8, transform=where)
    if len(point.seeds) > 1:
        spread = x * np.geomspace(0.94, 1.06, len(point.seeds))
        look: dict[str, Any] = {"color": colour, "markersize": 4, "alpha": 0.7}
        ax.plot(spread, point.seeds, ".", **look, transform=where)
    # A white edge sets marks at the same place apart.
    look = {"color": colour, "markersize": 9, "markeredgecolor": "white"}
    ax.plot([x], [value], marker, **look, transform=where)
    if ringed:
        ring: dict[str, Any] = {"markersize": 17, "fillstyle": "none", "color": "black"}
        ax.plot([x], [value], "o", **ring, transform=where)


def _place(ax: Axes, point: Point) -> tuple[tuple[float, float], Transform]:
    """Return where a point is drawn, at the left edge without a time, and in which coordinates."""
    if math.isnan(point.seconds):
        return (0.02, point.score.value), ax.get_yaxis_transform()
    return (point.seconds, point.score.value), ax.transData


def _limits(drawn: Sequence[Point], best: Point) -> tuple[float, float]:
    """Return limits of the axis: the range of the strategies, and twice its width below."""
    low = min([p.score.low for p in drawn if p.kind == "strategy"] or [best.score.low])
    high = max(p.score.high for p in drawn)
    near = [p.score.low for p in drawn if p.score.value > 3 * low - 2 * high]
    low = min([low, *near])
    margin = 0.06 * max(high - low, 1e-3)
    return low - margin, high + margin


def _label(
    figure: Figure, ax: Axes, drawn: Sequence[Point], chosen: str | None, flat: Sequence[Point]
) -> None:
    """Write names to the right, in the order of scores, each with a line to its point."""
    order = sorted(drawn, key=lambda p: p.score.value)
    low, high = ax.get_ylim()
    places = [max((p.score.value - low) / (high - low), 0.0) for p in order]
    # The axis is about 1.1 inches shorter than the figure.
    line = LINE / (figure.get_figheight() - 1.1)
    places = set_apart(places, line, 0.99)
    for place, point in zip(places, order, strict=True):
        colour, hidden = LOOKS[point.kind][0], bool(point.score.value < low)
        text = f"{point.name}  {point.score.value:.3f}{' (below)' * hidden}"
        text += " (predictions hardly vary)" * (point in flat)
        look: dict[str, Any] = {"color": colour, "fontsize": 9, "va": "center"}
        look["annotation_clip"] = False
        look["fontweight"] = "bold" if point.name == chosen else "normal"
        if not hidden:
            look["arrowprops"] = {
                "arrowstyle": "-",
                "color": colour,
                "alpha": 0.35,
                "linewidth": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 5,
            }
        at, where = _place(ax, point)
        ax.annotate(text, at, (1.03, place), xycoords=where, textcoords="axes fraction", **look)


def _legend(
    figure: Figure, ax: Axes, drawn: Sequence[Point], chosen: str | None, error: float | None
) -> None:
    for kind, (colour, marker) in LOOKS.items():
        if any(point.kind == kind for point in drawn):
            ax.plot([], [], marker, color=colour, label=kind)
    if chosen:
        ax.plot([], [], "o", fillstyle="none", color="black", markersize=11, label="recommended")
    if error:
        ax.fill_between([], [], [], color=MODEL, alpha=0.12, label="one standard error of the best")
    if any(len(point.seeds) > 1 for point in drawn):
        ax.plot([], [], ".", color=GREY, markersize=4, label="single seed")
    figure.legend(loc="outside lower center", ncols=6, fontsize=9, frameon=False)


def _findings(
    drawn: Sequence[Point],
    best: Point,
    metric: str,
    chosen: str | None,
    flat: Sequence[Point],
    remark: str,
) -> str:
    """Describe what stands out, in one sentence or several."""
    text = f"{best.name} scores highest, {metric} {best.score}, {_time(best.seconds)}"
    if best in flat:
        text = "the predictions of all methods hardly vary"
    elif chosen and chosen != best.name:
        point = next(p for p in drawn if p.name == chosen)
        text += (
            f"; {chosen} reaches {point.score.value:.3f} {_time(point.seconds)} and lies within "
            f"one standard error of it"
        )
    if remark:
        text += f"; {remark}"
    if flat and best not in flat:
        names = listed((point.name for point in flat), None)
        text += f". Predictions hardly vary, so their scores mean little: {names}"
    return f"{text}."


def _caption(
    points: Sequence[Point],
    drawn: Sequence[Point],
    findings: str,
    metric: str,
    data: str,
    records: int | None,
    error: float | None,
    made: str,
) -> str:
    size = f" (n = {records:,})" if records else ""
    without = [point.name for point in points if point not in drawn]
    missing = f" Not drawn, without a score: {listed(without, None)}." if without else ""
    given = [point.name for point in drawn if math.isnan(point.seconds)]
    edge = f" At the left edge, without a training: {listed(given, None)}." if given else ""
    band = " The band reaches one standard error below the best." * bool(error)
    return (
        f"Test {metric} against the time of one training, for {len(drawn)} methods on {data}"
        f"{size}. Large marks are means over seeds, small dots single seeds, bars intervals."
        f"{band}{missing}{edge} {made}{' ' * bool(made)}What stands out: {findings}"
    )


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "without a training"
    return f"in {seconds:.1f} s" if seconds < 10 else f"in {seconds:,.0f} s"
