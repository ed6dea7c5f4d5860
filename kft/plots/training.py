"""Figures of training: the range test of learning rates, and the curves of pre-training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kft.plots.style import GREY, MODEL, OTHERS, STYLES


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


def plot_pretraining(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    levels: Mapping[str, float],
    held_out: str = "proteins that are held out",
) -> tuple[Figure, str]:
    """Draw how perplexity falls with the residues seen, for one pre-training or several.

    Args:
        histories: name of a run -> rows with "residues", "perplexity" and, if there was
            validation, "val_perplexity", as `kft.pretraining.pretrain` returns them.
        levels: perplexities to compare with, by name, drawn as horizontal lines.
        held_out: what the validation proteins are, and how many, for the caption.

    Returns:
        The figure, 840 pixels wide when saved, and its caption.

    Raises:
        ValueError: no run.

    Example:
        >>> rows = [{"residues": 1e6, "perplexity": 18.0}, {"residues": 2e6, "perplexity": 17.0}]
        >>> figure, caption = plot_pretraining({"small": rows}, {"residue frequencies": 18.0})
        >>> "17.00" in caption
        True
    """
    if not histories:
        raise ValueError("histories is empty: give at least one run.")
    figure = Figure(figsize=(7, 4.4), dpi=120, layout="constrained")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    colours, ends = (MODEL, *OTHERS), {}
    validated = all("val_perplexity" in rows[0] for rows in histories.values())
    key = "val_perplexity" if validated else "perplexity"
    for i, (name, rows) in enumerate(histories.items()):
        seen = [row["residues"] / 1e6 for row in rows]
        style = {
            "color": colours[i % len(colours)],
            "linestyle": ("-", *STYLES)[i // len(colours) % 6],
        }
        ax.plot(seen, [row[key] for row in rows], label=name, **style)
        if validated and len(histories) == 1:
            ax.plot(seen, [row["perplexity"] for row in rows], color=GREY, linewidth=0.9,
                    label="on the training proteins, meanwhile")  # fmt: skip
        ends[name] = rows[-1][key]
    for name, level in levels.items():
        ax.axhline(level, color=GREY, linewidth=0.8, linestyle=":")
        ax.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                    fontsize=8, color=GREY)  # fmt: skip
    shown = [row[key] for rows in histories.values() for row in rows]
    low, high = (f([*shown, *levels.values()]) for f in (min, max))
    high = min(high, 21) if low < 20.5 else high  # the first epochs would flatten the rest
    ax.set(xlabel="residues seen (millions)", ylabel="perplexity where <mask> stands",
           ylim=(low - 0.3, high + 0.3))  # fmt: skip
    ax.legend(fontsize=8, loc="upper right")
    where = f"on {held_out}, after" if validated else "on the proteins trained on, during"
    return figure, _caption_of_pretraining(ends, levels, where)


def _caption_of_pretraining(
    ends: Mapping[str, float], levels: Mapping[str, float], where: str
) -> str:
    best, worst = min(ends, key=ends.get), max(ends, key=ends.get)
    against = "".join(f", beside {level:.2f} of {name}" for name, level in levels.items())
    others = "" if len(ends) == 1 else f"; the worst, {worst}, at {ends[worst]:.2f}"
    runs = "one pre-training" if len(ends) == 1 else f"{len(ends)} pre-trainings"
    return (
        f"Perplexity where <mask> stands, {where} each epoch of {runs}, against the "
        f"residues seen. A blind guess among 20 residues has 20; lower is better. What stands out: "
        f"{best} ends at {ends[best]:.2f}{against}{others}."
    )
