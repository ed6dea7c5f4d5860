"""Figures of training: curves of a fine-tuning and a pre-training, the learning-rate range test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kft.messages import count_of, listed
from kft.plots.style import GREY, MODEL, OTHERS, looks, new_figure, open_axes, set_apart


def plot_learning_rates(
    learning_rates: ArrayLike, losses: ArrayLike, smooth: ArrayLike, suggestion: float
) -> tuple[Figure, str]:
    """Draw the loss of a learning-rate range test against the learning rate.

    Args:
        learning_rates: Array (S,), the learning rate of each step, increasing.
        losses: Array (S,), the loss of each step's batch.
        smooth: Array (S,), the running average of the losses.
        suggestion: The learning rate to mark.

    Returns:
        The figure, 720 pixels wide when saved, and its caption.

    Source: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.

    Example:
        >>> figure, caption = plot_learning_rates([1e-3, 1e-2], [1.0, 0.5], [1.0, 0.8], 1e-3)
        >>> "2 steps" in caption
        True
    """
    rates, losses, smooth = (np.asarray(x, float) for x in (learning_rates, losses, smooth))
    figure = new_figure(6, 4.2)
    ax = open_axes(figure.subplots())
    ax.plot(rates, losses, color=GREY, linewidth=0.8, label="loss of each batch")
    ax.plot(rates, smooth, color=MODEL, label="running average")
    ax.axvline(suggestion, color=OTHERS[0], linestyle="--", label=f"suggestion: {suggestion:.1e}")
    # The last steps may have diverged, and would flatten the rest.
    finite = smooth[np.isfinite(smooth)]
    spread = max(float(np.ptp(finite[: int(np.argmin(finite)) + 1])), 0.1 * abs(finite[0]))
    ax.set(
        xscale="log",
        xlabel="learning rate (logarithmic)",
        ylabel="training loss of one batch",
        ylim=(finite.min() - 0.5 * spread, finite[0] + spread),
    )
    figure.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    lowest = float(rates[int(np.argmin(np.where(np.isfinite(smooth), smooth, np.inf)))])
    caption = (
        f"Training loss while the learning rate increases from {rates.min():.1e} to "
        f"{rates.max():.1e} over {len(losses)} steps of one batch each; the running average is "
        f"exponential with a factor of 0.9 per step. What stands out: the average falls fastest at "
        f"{suggestion:.1e}, the suggested highest learning rate, and is lowest at {lowest:.1e}; "
        f"beyond it training becomes unstable."
    )
    return figure, caption


def plot_history(
    history: Sequence[Mapping[str, Any]],
    metric: str | None = None,
    best_epoch: int | None = None,
    phases: Sequence[str] = (),
    data: str = "the data",
) -> tuple[Figure, str]:
    """Draw the loss and a metric of each epoch of a fine-tuning.

    Args:
        history: One row per epoch, in order, with "loss", and where there was validation
            "val_loss"; as the `history` of what `kft.fit` returns. "phase" is the number of the
            phase, from 0.
        metric: Name of another value of each epoch, drawn on the right; None for the first that
            the rows have, if any.
        best_epoch: Epoch that is marked, from 0: the one whose weights the model has.
        phases: Names of the phases.
        data: Name of the data set, for the caption.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Raises:
        ValueError: There is no epoch.

    Example:
        >>> rows = [{"loss": 2.0, "val_loss": 1.9}, {"loss": 1.0, "val_loss": 1.5}]
        >>> figure, caption = plot_history(rows, best_epoch=1)
        >>> "falls from 1.9 to 1.5 in epoch 2" in caption
        True
    """
    if not history:
        raise ValueError("history has no epoch: a head that is solved for has no curve.")
    known = [name for name in history[0] if name not in NOT_METRICS]
    known = [name for name in known if not name.startswith("val_")]
    metric = metric or next(iter(known), None)
    names = ["loss", *([metric] if metric else [])]
    figure = new_figure(10, 4.2)
    epochs = range(1, len(history) + 1)
    for ax, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        open_axes(ax)
        for key, look in ((name, "--"), (f"val_{name}", "-")):
            values = [row.get(key, np.nan) for row in history]
            if np.isfinite(np.asarray(values, float)).any():
                label = "validation" if key.startswith("val_") else "training"
                colour = MODEL if label == "validation" else GREY
                ax.plot(epochs, values, look, marker="o", markersize=3, color=colour, label=label)
        for change in _changes(history):
            ax.axvline(change + 0.5, color=GREY, linewidth=0.8, linestyle=":")
        if best_epoch is not None:
            ax.axvline(best_epoch + 1, color=OTHERS[0], linewidth=1, label="weights of this epoch")
        ax.set(xlabel="epoch", ylabel=name)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.legend(fontsize=9)
    several = f", in the phases {listed(phases, None)}, divided by dotted lines" * (len(phases) > 1)
    return figure, (
        f"{listed(names, None).capitalize()} of each of {count_of(len(history), 'epoch')} of "
        f"training on {data}{several}. Training values are means over an epoch, while the "
        f"weights change; validation values are taken at its "
        f"end. What stands out: {_course(history, best_epoch)}"
    )


NOT_METRICS = ("phase", "epoch", "loss", "learning_rate")  # in the rows of a history


def _changes(history: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the numbers of epochs, from 1, after which another phase begins."""
    found = [row.get("phase") for row in history]
    return [i for i in range(1, len(found)) if found[i] != found[i - 1]]


def _course(history: Sequence[Mapping[str, Any]], best_epoch: int | None) -> str:
    """Describe how the validation loss, else the training loss, develops."""
    key = "val_loss" if "val_loss" in history[0] else "loss"
    kind = "validation" if key == "val_loss" else "training"
    values = np.asarray([row.get(key, np.nan) for row in history], float)
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        return (
            f"the {kind} loss is NaN or infinite in epoch {first + 1}: the training has diverged."
        )
    if len(values) == 1:
        return f"after its only epoch the {kind} loss is {values[0]:.3g}."
    low = int(values.argmin())
    if low == 0:
        text = f"the {kind} loss is lowest after the first epoch, {values[0]:.3g}, and never again"
    else:
        text = f"the {kind} loss falls from {values[0]:.3g} to {values[low]:.3g} in epoch {low + 1}"
    if low == len(values) - 1:
        text += ", the last: more epochs may lower it further"
    elif values[-1] > 1.1 * values[low]:
        text += f", and is {values[-1]:.3g} at the end: the model begins to overfit"
    elif low:
        text += f", and is {values[-1]:.3g} at the end"
    kept = "" if best_epoch is None else f" The weights of epoch {best_epoch + 1} are kept."
    return f"{text}.{kept}"


def plot_pretraining(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    levels: Mapping[str, float],
    held_out: str = "proteins that are held out",
) -> tuple[Figure, str]:
    """Draw perplexity against the residues seen, for one pre-training run or several.

    Args:
        histories: Name of each run -> its rows with "residues", "perplexity" and, if there was
            validation, "val_perplexity", as returned by `kft.pretraining.pretrain`.
        levels: Name -> perplexity to compare with, drawn as a horizontal line.
        held_out: What the validation proteins are, and how many, for the caption.

    Returns:
        The figure, 1080 pixels wide when saved, and its caption.

    Raises:
        ValueError: `histories` is empty.

    Example:
        >>> rows = [{"residues": 1e6, "perplexity": 18.0}, {"residues": 2e6, "perplexity": 17.0}]
        >>> figure, caption = plot_pretraining({"small": rows}, {"residue frequencies": 18.0})
        >>> "17.00" in caption
        True
    """
    if not histories:
        raise ValueError("histories is empty: give at least one run.")
    figure = new_figure(9, max(4.4, 0.22 * len(histories) + 1))
    ax = open_axes(figure.subplots())
    ends = dict[str, float]()
    validated = all("val_perplexity" in rows[0] for rows in histories.values())
    key = "val_perplexity" if validated else "perplexity"
    for (name, rows), (colour, style) in zip(histories.items(), looks(len(histories)), strict=True):
        seen = [row["residues"] / 1e6 for row in rows]
        ax.plot(seen, [row[key] for row in rows], label=name, color=colour, linestyle=style)
        if validated and len(histories) == 1:
            training = [row["perplexity"] for row in rows]
            ax.plot(seen, training, color=GREY, linewidth=0.9, label="on the training proteins")
        ends[name] = rows[-1][key]
    shown = [row[key] for rows in histories.values() for row in rows]
    low, high = (f([*shown, *levels.values()]) for f in (min, max))
    high = min(high, 21) if low < 20.5 else high  # the first epochs would flatten the rest
    ax.set(xlabel="residues seen (millions)", ylabel="perplexity at <mask>")
    ax.set_ylim(low - 0.3, high + 0.3)
    _draw_levels(ax, levels)
    figure.legend(fontsize=8, loc="outside right upper", frameon=False)
    where = f"on {held_out}, after" if validated else "on the proteins trained on, during"
    return figure, _caption_of_pretraining(ends, levels, where)


def _draw_levels(ax: Axes, levels: Mapping[str, float]) -> None:
    """Draw a line at each level, and its name to the right, set apart from the others."""
    low, high = ax.get_ylim()
    ordered = sorted(levels, key=lambda name: levels[name])
    places = set_apart([(levels[name] - low) / (high - low) for name in ordered], 0.05)
    for name, place in zip(ordered, places, strict=True):
        ax.axhline(levels[name], color=GREY, linewidth=0.8, linestyle=":")
        ax.annotate(
            f"{name}: {levels[name]:.2f}", (1.01, place), xycoords="axes fraction", va="center",
            fontsize=8, color=GREY, annotation_clip=False,
        )  # fmt: skip


def _caption_of_pretraining(
    ends: Mapping[str, float], levels: Mapping[str, float], where: str
) -> str:
    order = sorted(ends, key=lambda name: ends[name])
    best, worst = order[0], order[-1]
    against = "".join(f" ({name}: {level:.2f})" for name, level in levels.items())
    others = "" if len(ends) == 1 else f"; the worst, {worst}, at {ends[worst]:.2f}"
    runs = "one pre-training" if len(ends) == 1 else f"{len(ends)} pre-trainings"
    return (
        f"Perplexity at <mask>, {where} each epoch of {runs}, against the residues seen. A "
        f"random guess among 20 residues has a perplexity of 20; lower is better. What stands out: "
        f"{best} ends at {ends[best]:.2f}{against}{others}."
    )
