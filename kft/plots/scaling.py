"""The figure of a scaling study: loss against compute, data and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from kft.evaluation.metrics import Interval
from kft.messages import listed
from kft.plots.style import GREY, MODEL, OTHERS, new_figure, open_axes


class Panel(NamedTuple):
    """One panel of the figure.

    Attributes:
        x: Array (R,), one number per run or per point of the frontier of their curves.
        losses: Array (R,), the losses in nats.
        law: Function that returns the fitted losses at x.
        exponent: Exponent of the law with its interval.
        floor: Irreducible loss of the law with its interval, in nats.
        curves: Pairs (x, losses), one per run, drawn as thin lines.
    """

    x: ArrayLike
    losses: ArrayLike
    law: Callable[[np.ndarray], np.ndarray]
    exponent: Interval
    floor: Interval
    curves: Sequence[tuple[ArrayLike, ArrayLike]] = ()


def plot_scaling(panels: Mapping[str, Panel], how: str) -> tuple[Figure, str]:
    """Draw the loss against compute, data and parameters, as Kaplan et al. 2020, figure 1.

    Args:
        panels: Name of the axis -> `Panel`, from left to right.
        how: How the runs were made, a sentence for the caption.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Example:
        >>> law, known = lambda x: 2 + (100 / x) ** 0.5, Interval(0.5, 0.4, 0.6)
        >>> x = np.array([1e4, 1e5, 1e6])
        >>> panel = Panel(x, law(x), law, exponent=known, floor=Interval(2.0, 1.9, 2.1))
        >>> figure, caption = plot_scaling({"parameters": panel}, "Three runs of one epoch.")
        >>> "parameters, exponent 0.500 [0.400, 0.600]" in caption
        True
    """
    figure = new_figure(10, 4)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (name, panel) in zip(axes, panels.items(), strict=True):
        x = np.asarray(panel.x, float)
        open_axes(ax)
        for across, curve in panel.curves:
            ax.plot(across, curve, color=GREY, linewidth=0.7, alpha=0.6)
        line = np.geomspace(x.min() / 1.5, x.max() * 1.5, 100)
        ax.plot(line, panel.law(line), color=OTHERS[0], linestyle="--")
        ax.plot(x, panel.losses, "o", color=MODEL, markersize=5)
        ax.set(xscale="log", xlabel=name)
        ax.set_title(f"a = {panel.exponent}\nL₀ = {panel.floor}", fontsize=9)
    _legend(figure, panels)
    shown = np.concatenate([np.asarray(panel.losses, float) for panel in panels.values()])
    room = 0.08 * np.ptp(shown) + 1e-3
    # The beginnings of the curves would flatten the rest.
    axes[0].set(ylabel="loss (nats)", ylim=(shown.min() - room, shown.max() + 3 * room))
    return figure, _caption(panels, how)


def _legend(figure: Figure, panels: Mapping[str, Panel]) -> None:
    lines = {
        "runs": Line2D([], [], color=MODEL, marker="o", markersize=5, linestyle=""),
        "power law, L = L₀ + (x₀/x)^a": Line2D([], [], color=OTHERS[0], linestyle="--"),
    }
    if any(len(panel.curves) for panel in panels.values()):
        lines = {"runs or their frontier": lines.pop("runs"), **lines}
        lines["epochs of one run"] = Line2D([], [], color=GREY, linewidth=0.7, alpha=0.6)
    figure.legend(
        lines.values(), lines, loc="outside lower center", ncols=3, fontsize=9, frameon=False
    )


def _caption(panels: Mapping[str, Panel], how: str) -> str:
    laws = "; ".join(
        f"{name}, exponent {panel.exponent}, irreducible loss {panel.floor}"
        for name, panel in panels.items()
    )
    steepest = max(panels, key=lambda name: panels[name].exponent.value)
    least = panels[steepest].exponent.low
    others = [name for name, p in panels.items() if name != steepest and p.exponent.high > least]
    unclear = f"; the interval overlaps that of {listed(others, None)}" * bool(others)
    unsure = [name for name, panel in panels.items() if panel.floor.low < 0.5 * panel.floor.value]
    doubt = (
        f" The runs determine the irreducible loss for {listed(unsure, None)} poorly, and with it "
        f"the exponent."
        if unsure
        else ""
    )
    ends = [(float(np.max(p.losses)), float(np.min(p.losses))) for p in panels.values()]
    high, low = max(h for h, _ in ends), min(low for _, low in ends)
    return (
        f"Loss at hidden residues of proteins that were not trained on, against "
        f"{', '.join(panels)}. {how} Points are runs at their best epoch or, where thin curves "
        f"show the runs, epochs with a lower loss than any run had with less; dashed lines are "
        f"power laws with an irreducible loss, L = L₀ + (x₀/x)^a, with 95% intervals: {laws}. What "
        f"stands out: over all runs the loss falls from {high:.3f} to {low:.3f} nats, with the "
        f"largest exponent for {steepest}{unclear}.{doubt}"
    )
