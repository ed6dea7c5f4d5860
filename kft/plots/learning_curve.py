"""The learning curve: the score of each method against the number of labelled records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kft.evaluation.metrics import Interval
from kft.plots.style import GREY, looks, new_figure, open_axes


def plot_learning_curve(
    curves: Mapping[str, Mapping[int, Interval]],
    metric: str,
    data: str = "the data",
    records: int | None = None,
    each: str = "training records",
    made: str = "",
    level: tuple[str, Interval] | None = None,
) -> tuple[Figure, str]:
    """Draw the test score of several methods against the number of records they learned from.

    Args:
        curves: Method -> {number of records: score with its interval}.
        metric: Name of the score; higher is better.
        data: Name of the data set.
        records: Number of records in its test split, for the caption.
        each: What the axis counts.
        made: How runs and intervals were made, a sentence for the caption.
        level: Name and score of a method that needs no records, drawn as a level line; or None.

    Returns:
        The figure, 1080 pixels wide when saved, and its caption.

    Raises:
        ValueError: There are no curves, or no number of records is common to all.

    Example:
        >>> curves = {"pre-trained": {20: Interval(0.8, 0.7, 0.9), 100: Interval(0.9, 0.8, 1.0)},
        ...           "from scratch": {20: Interval(0.4, 0.3, 0.5), 100: Interval(0.7, 0.6, 0.8)}}
        >>> figure, caption = plot_learning_curve(curves, "accuracy")
        >>> "with 20 pre-trained 0.800 [0.700, 0.900], from scratch 0.400" in caption
        True
    """
    common = sorted(set.intersection(*[set(curve) for curve in curves.values()] or [set()]))
    if not common:
        raise ValueError(
            "curves must have at least one number of records in common, to compare them there."
        )
    figure = new_figure(9, 5)
    ax = open_axes(figure.subplots())
    for (name, curve), (colour, style) in zip(curves.items(), looks(len(curves)), strict=True):
        counts = sorted(curve)
        values, lows, highs = zip(*[curve[n] for n in counts], strict=True)
        ax.plot(counts, values, marker="o", color=colour, linestyle=style, label=name)
        ax.fill_between(counts, lows, highs, color=colour, alpha=0.12, linewidth=0)
    if level is not None:
        name, score = level
        ax.axhline(score.value, color=GREY, linewidth=1, label=name)
        ax.axhspan(score.low, score.high, color=GREY, alpha=0.12, linewidth=0)
    ax.set(xscale="log", xlabel=f"{each} (logarithmic)", ylabel=f"test {metric} with 95% interval")
    ticks = _ticks(common)
    ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
    ax.minorticks_off()
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure, _caption(curves, common, metric, data, records, each, made, level)


def _ticks(counts: Sequence[int]) -> list[int]:
    """Return the numbers that have room at the axis: the first and those far enough apart."""
    ticks = [counts[0]]
    least = max((counts[-1] / counts[0]) ** 0.07, 1.0)
    for n in counts[1:]:
        if n > least * ticks[-1]:
            ticks.append(n)
    return ticks


def _caption(
    curves: Mapping[str, Mapping[int, Interval]],
    common: Sequence[int],
    metric: str,
    data: str,
    records: int | None,
    each: str,
    made: str,
    level: tuple[str, Interval] | None,
) -> str:
    size = f" (n = {records:,})" if records else ""
    few, many = common[0], common[-1]

    def scores(n: int) -> str:
        order = sorted(curves, key=lambda name: -curves[name][n].value)
        return ", ".join(f"{name} {curves[name][n]}" for name in order)

    alone = "" if level is None else f" {level[0]}, without any, has {level[1]};"
    return (
        f"Test {metric} on {data}{size} against the number of {each}, for {len(curves)} methods; "
        f"bands are 95% intervals. {made}{' ' * bool(made)}What stands out:{alone} with {few:,} "
        f"{scores(few)}{f'; with {many:,} {scores(many)}' * (few != many)}."
    )
