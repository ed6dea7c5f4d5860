"""The panels of a scaling study: loss against compute, data and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kft.evaluation.metrics import Interval
from kft.plots.style import GREY, MODEL, OTHERS


class Panel(NamedTuple):
    """One panel.

    Attributes:
        x, losses: (R,) of the runs, or of the frontier of their curves.
        law: called with x, returns the fitted losses.
        exponent, floor: of the law, with their intervals.
        curves: pairs (x, losses) drawn thin behind, one for each run.
    """

    x: ArrayLike
    losses: ArrayLike
    law: Callable[[np.ndarray], np.ndarray]
    exponent: Interval
    floor: Interval
    curves: Sequence[tuple[ArrayLike, ArrayLike]] = ()


def plot_scaling(panels: Mapping[str, Panel], how: str) -> tuple[Figure, str]:
    """Draw how the loss falls with each of its causes, as Kaplan et al. 2020, figure 1.

    Args:
        panels: name of the axis -> Panel, from left to right.
        how: how the runs were made, a sentence for the caption.

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
    figure = Figure(figsize=(10, 3.8), dpi=120, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (name, panel) in zip(axes, panels.items(), strict=True):
        x = np.asarray(panel.x, float)
        ax.spines[["top", "right"]].set_visible(False)
        for across, curve in panel.curves:
            ax.plot(across, curve, color=GREY, linewidth=0.7, alpha=0.6)
        line = np.geomspace(x.min() / 1.5, x.max() * 1.5, 100)
        said = f"L = {panel.floor.value:.2f} + (x₀/x)^{panel.exponent.value:.2f}"
        ax.plot(line, panel.law(line), color=OTHERS[0], linestyle="--", label=said)
        ax.plot(x, panel.losses, "o", color=MODEL, markersize=5)
        ax.set(xscale="log", xlabel=name)
        ax.legend(fontsize=8, loc="upper right")
    seen = np.concatenate([np.asarray(panel.losses, float) for panel in panels.values()])
    room = 0.08 * np.ptp(seen) + 1e-3
    # Curves of runs that had hardly begun would flatten the rest.
    axes[0].set(ylabel="loss (nats)", ylim=(seen.min() - room, seen.max() + 3 * room))
    return figure, _caption(panels, how)


def _caption(panels: Mapping[str, Panel], how: str) -> str:
    told = "; ".join(
        f"{name}, exponent {panel.exponent}, irreducible loss {panel.floor}"
        for name, panel in panels.items()
    )
    steepest = max(panels, key=lambda name: panels[name].exponent.value)
    least = panels[steepest].exponent.low
    beside = [name for name, p in panels.items() if name != steepest and p.exponent.high > least]
    unclear = f", which cannot be told from that of {' and '.join(beside)}" * bool(beside)
    unsure = [name for name, panel in panels.items() if panel.floor.low < 0.5 * panel.floor.value]
    doubt = (
        f" The runs hardly tell the irreducible loss for {' and '.join(unsure)}, and with it the "
        f"exponent."
        if unsure
        else ""
    )
    ends = [(float(np.max(p.losses)), float(np.min(p.losses))) for p in panels.values()]
    high, low = max(h for h, _ in ends), min(low for _, low in ends)
    return (
        f"Loss at hidden residues of proteins that were not trained on, against "
        f"{', '.join(panels)}. {how} Points are runs at their best epoch, or where thin curves "
        f"show the runs, epochs that no run had been better than with less; dashed lines are power "
        f"laws with an irreducible loss, L = L₀ + (x₀/x)^a, with 95% intervals: {told}. What "
        f"stands out: over all runs the loss falls from {high:.3f} to {low:.3f} nats, with the "
        f"largest exponent for {steepest}{unclear}.{doubt}"
    )
