"""The figure of a learning-rate range test."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kft.plots.style import GREY, MODEL, OTHERS


def plot_learning_rates(
    rates: ArrayLike, losses: ArrayLike, smooth: ArrayLike, suggestion: float
) -> tuple[Figure, str]:
    """Draw the loss of a learning-rate range test over the rate.

    Args:
        rates: (S,) learning rate of each step, rising.
        losses: (S,) loss of each step's batch.
        smooth: (S,) running average of the losses.
        suggestion: the rate to mark.

    Returns:
        The figure, 720 pixels wide when saved, and its caption.

    Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.

    Example:
        >>> figure, caption = plot_learning_rates([1e-3, 1e-2], [1.0, 0.5], [1.0, 0.8], 1e-3)
        >>> "2 steps" in caption
        True
    """
    losses, smooth = np.asarray(losses, dtype=float), np.asarray(smooth, dtype=float)
    figure = Figure(figsize=(6, 4.2), dpi=120, layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.plot(rates, losses, color=GREY, linewidth=0.8, label="loss of each batch")
    ax.plot(rates, smooth, color=MODEL, label="running average")
    ax.axvline(suggestion, color=OTHERS[0], linestyle="--", label=f"suggestion: {suggestion:.1e}")
    # The last steps may have left all bounds, and would flatten the rest.
    finite = smooth[np.isfinite(smooth)]
    spread = max(float(np.ptp(finite[: int(np.argmin(finite)) + 1])), 0.1 * abs(finite[0]))
    ax.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="training loss",
        ylim=(finite.min() - 0.5 * spread, finite[0] + spread),
    )
    ax.legend(fontsize=9)
    lowest = float(np.asarray(rates)[int(np.argmin(np.where(np.isfinite(smooth), smooth, np.inf)))])
    caption = (
        f"Training loss while the learning rate rises from {np.min(rates):.1e} to "
        f"{np.max(rates):.1e} over {len(losses)} steps of one batch each; the running average "
        f"weights each earlier step by another 0.9. What stands out: the average falls fastest at "
        f"{suggestion:.1e}, the suggestion for the highest rate, and is lowest at {lowest:.1e}; "
        f"beyond it training becomes unstable."
    )
    return figure, caption
