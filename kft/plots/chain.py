"""The backbone of a chain coloured by confidence, and that confidence against the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline
from scipy.stats import spearmanr

from kft.data.proteins.geometry import pieces
from kft.messages import count_of, harmless
from kft.plots.style import GREY, MODEL, OTHERS, new_figure, open_axes

# Lower limits of an lDDT in percent, as the AlphaFold database has them, and their colours.
BANDS = (
    (90.0, "above 90", MODEL),
    (70.0, "70 to 90", OTHERS[4]),
    (50.0, "50 to 70", OTHERS[3]),
    (-np.inf, "below 50", OTHERS[0]),
)
CONFIDENT = 70.0
PER_RESIDUE = 6  # points of the curve from one C-alpha to the next
FOG = 0.45  # share of white in the part that is farthest away
WIDTHS = (2.0, 5.0)  # points of the line, far and near


class Trace(NamedTuple):
    """A smooth curve through the C-alpha of a chain.

    Attributes:
        curves: Floats (points, 3) in angstrom of each piece between two breaks, around the middle
            of the chain; the first axis is the longest of the chain, the third its shortest.
        residues: The residue that each point belongs to, ints (points,), from 0.
    """

    curves: list[np.ndarray]
    residues: list[np.ndarray]


def trace(coordinates: np.ndarray) -> Trace:
    """Compute a smooth curve through the C-alpha of a chain, turned to show most of it.

    Args:
        coordinates: Floats (N, 3, 3), N, CA and C in angstrom; NaN where an atom is missing.

    Returns:
        `Trace`. The chain is turned, never mirrored.

    Raises:
        ValueError: The shape is another, or no C-alpha is known.

    Example:
        >>> from kft.data.proteins.geometry import rebuild
        >>> helix = rebuild(np.tile(np.deg2rad([-60, -45, 180]), (8, 1)))
        >>> [len(curve) for curve in trace(helix).curves]
        [43]
    """
    coordinates = np.asarray(coordinates, dtype="float64")
    if coordinates.ndim != 3 or coordinates.shape[1:] != (3, 3):
        raise ValueError(
            f"coordinates must have the shape (N, 3, 3), received {coordinates.shape}."
        )
    alpha = coordinates[:, 1]
    known = np.isfinite(alpha).all(axis=1)
    if not known.any():
        raise ValueError("coordinates must hold the C-alpha of a residue at least, all are NaN.")
    alpha = alpha - alpha[known].mean(axis=0)
    _, _, axes = np.linalg.svd(alpha[known].T @ alpha[known])
    axes[2] *= np.linalg.det(axes)  # a rotation
    alpha = alpha @ axes.T
    piece = pieces(coordinates) + np.cumsum(~known)  # a missing C-alpha is a gap, too
    curves, residues = [], []
    for number in np.unique(piece[known]):
        at = np.flatnonzero((piece == number) & known)
        places = np.linspace(0, len(at) - 1, PER_RESIDUE * (len(at) - 1) + 1)
        one = len(at) == 1
        curves.append(alpha[at] if one else CubicSpline(range(len(at)), alpha[at])(places))
        residues.append(at[np.floor(places + 0.5).astype(int)])
    return Trace(curves, residues)


def colours_of(confidence: ArrayLike | None, count: int) -> list[str]:
    """Return the colour of each of `count` residues; one for all without confidence.

    Args:
        confidence: Expected lDDT (N,) in percent, or None.
        count: N.

    Example:
        >>> colours_of([95.0, 10.0], 2)
        ['#0072B2', '#D55E00']
    """
    if confidence is None:
        return [MODEL] * count
    values = np.asarray(confidence, dtype="float64")
    return [next(colour for low, _, colour in BANDS if not value < low) for value in values]


def plot_chain(
    coordinates: np.ndarray,
    confidence: ArrayLike | None = None,
    name: str = "a protein",
    how: str = "",
) -> tuple[Figure, str]:
    """Draw the backbone of a chain as a smooth curve, coloured by confidence.

    Args:
        coordinates: Floats (N, 3, 3), N, CA and C in angstrom; NaN where an atom is missing.
        confidence: Expected lDDT (N,) in percent, or None.
        name: Name of the protein, for the caption.
        how: How the chain was made, as sentences for the caption.

    Returns:
        The figure and its caption.

    Raises:
        ValueError: Shapes do not fit together, or no C-alpha is known.

    Example:
        >>> from kft.data.proteins.geometry import rebuild
        >>> helix = rebuild(np.tile(np.deg2rad([-60, -45, 180]), (8, 1)))
        >>> figure, caption = plot_chain(helix, [80.0] * 8, "a helix")
        >>> "8 of 8 residues have an expected lDDT of at least 70" in caption
        True
    """
    curves, residues = trace(coordinates)
    count = len(coordinates)
    if confidence is not None and np.shape(confidence) != (count,):
        raise ValueError(
            f"confidence must be one number for each of {count_of(count, 'residue')}, received the "
            f"shape {np.shape(confidence)}."
        )
    colours = np.array([to_rgb(colour) for colour in colours_of(confidence, count)])
    figure = new_figure(6.0, 4.6)
    ax = figure.subplots()
    _draw(ax, curves, residues, colours)
    for letter, curve, end in (("N", curves[0], 0), ("C", curves[-1], -1)):
        ax.annotate(
            letter, tuple(curve[end, :2]), (7, 7), textcoords="offset points", fontweight="bold"
        )
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_axis_off()
    if confidence is not None:
        shown = [Line2D([], [], color=colour, linewidth=4) for *_, colour in BANDS]
        names = [label for _, label, _ in BANDS]
        figure.legend(
            shown, names, title="expected lDDT (%)", loc="outside lower center", ncols=4,
            frameon=False, fontsize=8, title_fontsize=8,
        )  # fmt: skip
    return figure, _caption(count, confidence, name, how)


def _draw(ax: Axes, curves: list, residues: list, colours: np.ndarray) -> None:
    """Draw all pieces, what is far away first, thin and pale."""
    lines = [np.stack([curve[:-1], curve[1:]], axis=1) for curve in curves if len(curve) > 1]
    if not lines:
        return
    owners = np.concatenate([at[:-1] for at, curve in zip(residues, curves, strict=True)])
    segments = np.concatenate(lines)  # (S, 2, 3)
    depth = segments[..., 2].mean(axis=1)
    near = (depth - depth.min()) / max(np.ptp(depth), 1e-9)
    fog = FOG * (1 - near)[:, None]
    order = np.argsort(depth, kind="stable")
    drawn = LineCollection(
        list(segments[order, :, :2]),
        colors=(colours[owners] * (1 - fog) + fog)[order],
        linewidths=(WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * near)[order],
        capstyle="round",
    )
    ax.add_collection(drawn)
    ax.autoscale_view()


def _caption(count: int, confidence: ArrayLike | None, name: str, how: str) -> str:
    about = (
        f"Backbone of {harmless(name)}, {count_of(count, 'residue')}, as a smooth curve through "
        f"its C-alpha, from the side on which it is widest; what is nearer is thicker. {how}"
    ).rstrip()
    if confidence is None:
        return about
    values = np.asarray(confidence, dtype="float64")
    least = int(np.nanargmin(values))
    return (
        f"{about} Colours are the lDDT that the predicted distances lead one to expect. What "
        f"stands out: {int((values >= CONFIDENT).sum())} of {count_of(count, 'residue')} have an "
        f"expected lDDT of at least {CONFIDENT:g}; the mean is {np.nanmean(values):.0f}, and the "
        f"lowest {values[least]:.0f}, of residue {least + 1}."
    )


def plot_confidence(
    expected: ArrayLike,
    observed: ArrayLike,
    name: str = "a protein",
    how: str = "",
) -> tuple[Figure, str]:
    """Draw the observed lDDT of each residue against the expected one.

    Args:
        expected: Expected lDDT (N,) in percent.
        observed: lDDT (N,) in percent, of `kft.structure.lddt`; NaN where the truth is not known.
        name: Name of the protein, for the caption.
        how: How the model was made, as sentences for the caption.

    Returns:
        The figure and its caption.

    Raises:
        ValueError: Shapes do not fit together, or fewer than 3 residues have both.

    Example:
        >>> figure, caption = plot_confidence([60.0, 70.0, 80.0], [50.0, 60.0, 90.0])
        >>> "mean expected lDDT is 70, the observed one 67" in caption
        True
    """
    given, seen = np.asarray(expected, dtype="float64"), np.asarray(observed, dtype="float64")
    if given.ndim != 1 or given.shape != seen.shape:
        raise ValueError(
            f"expected and observed must have the same shape (N,), received {given.shape} and "
            f"{seen.shape}."
        )
    both = np.isfinite(given) & np.isfinite(seen)
    if both.sum() < 3:
        raise ValueError(f"at least 3 residues must have both, received {int(both.sum())}.")
    given, seen = given[both], seen[both]
    figure = new_figure(4.8, 4.6)
    ax = open_axes(figure.subplots())
    ax.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="--")
    ax.scatter(given, seen, s=14, color=MODEL)
    ax.set(
        xlabel="expected lDDT (%)", ylabel="observed lDDT (%)", xlim=(0, 100), ylim=(0, 100),
        aspect="equal",
    )  # fmt: skip
    constant = min(np.ptp(given), np.ptp(seen)) == 0
    rank = "is not defined" if constant else f"is {spearmanr(given, seen).statistic:.2f}"
    caption = (
        f"lDDT of {count_of(int(both.sum()), 'residue')} of {harmless(name)}: observed, by "
        f"comparison with the true chain, against expected, from the predicted distances; on the "
        f"dashed line both are equal. {how}".rstrip()
        + f" What stands out: the mean expected lDDT is {given.mean():.0f}, the observed one "
        f"{seen.mean():.0f}; their rank correlation over residues {rank}."
    )
    return figure, caption
