"""Maps of contacts, and the torsions of a chain."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kft.arguments import check_number_above
from kft.messages import count_of, harmless
from kft.plots.style import GREY, MODEL, OTHERS, new_figure, open_axes

RIGHT, WRONG = OTHERS[1], OTHERS[0]


def plot_contacts(
    scores: np.ndarray,
    truth: np.ndarray | None = None,
    known: np.ndarray | None = None,
    nearest: int = 6,
    per_length: float = 1.0,
    name: str = "a protein",
    how: str = "",
    other: str = "observed contacts",
) -> tuple[Figure, str]:
    """Draw the likeliest contacts of a chain below the diagonal, and the true ones above.

    Args:
        scores: Floats (N, N), symmetric; the higher, the likelier a contact.
        truth: Bool (N, N), the contacts to compare with, or None.
        known: Bool (N, N), pairs that count; None for all.
        nearest: Smallest number of residues from one to the other.
        per_length: N times `per_length` pairs are drawn.
        name: Name of the protein, for the caption.
        how: How scores and contacts were made, as sentences for the caption.
        other: What `truth` is, for the caption and the legend.

    Returns:
        The figure and its caption.

    Raises:
        ValueError: Shapes differ, or no pair is that far apart.

    Example:
        >>> truth = np.zeros((9, 9), bool)
        >>> truth[0, 8] = truth[8, 0] = True
        >>> figure, caption = plot_contacts(truth * 1.0, truth, per_length=1 / 9)
        >>> "1 of 1 is among the observed contacts" in caption
        True
    """
    scores = np.asarray(scores, dtype="float64")
    shape = scores.shape
    known = np.ones(shape, dtype=bool) if known is None else np.asarray(known)
    parts = [known] if truth is None else [known, np.asarray(truth)]
    if len(shape) != 2 or any(part.shape != (shape[0], shape[0]) for part in [scores, *parts]):
        raise ValueError(
            "scores, truth and known must have the same shape (N, N), received "
            f"{', '.join(str(part.shape) for part in [scores, *parts])}."
        )
    check_number_above("per_length", per_length, 0)
    first, second = np.triu_indices(len(scores), nearest)
    counts = known[first, second]
    first, second = first[counts], second[counts]
    if not len(first):
        raise ValueError(f"no pair of residues is at least {nearest} apart.")
    most = max(1, round(per_length * len(scores)))
    chosen = np.argsort(-scores[first, second], kind="stable")[:most]
    figure = new_figure(5.2, 5.4)
    ax = open_axes(figure.subplots())
    x, y = first[chosen], second[chosen]
    if truth is None:
        ax.scatter(x, y, s=12, color=MODEL, label="likeliest pairs")
        found = ""
    else:
        right = np.asarray(truth)[x, y]
        there, where = np.nonzero(np.triu(np.asarray(truth) & known, nearest))
        ax.scatter(where, there, s=8, marker="s", color=GREY, label=other)
        ax.scatter(x[right], y[right], s=14, color=RIGHT, label="likeliest pairs: right")
        ax.scatter(x[~right], y[~right], s=14, marker="x", color=WRONG, label="wrong")
        share = len(there) / len(first)
        found = (
            f" What stands out: {right.sum()} of {len(right)} "
            f"{'is' if len(right) == 1 else 'are'} among the {other} ({right.mean():.0%}), where "
            f"{share:.0%} would be by chance."
        )
    ax.plot([0, len(scores) - 1], [0, len(scores) - 1], color=GREY, linewidth=0.5)
    ax.set(
        xlabel="residue", ylabel="residue", aspect="equal",
        xlim=(-1, len(scores)), ylim=(len(scores), -1),
    )  # fmt: skip
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    above = "" if truth is None else f" Above the diagonal: {other}."
    caption = (
        f"Map of pairs of residues of {harmless(name)}, {len(scores)} residues, at least {nearest} "
        f"apart. Below the diagonal: the {len(chosen)} likeliest pairs.{above} {how}".rstrip()
    )
    return figure, caption + found


def plot_ramachandran(
    torsions: np.ndarray,
    sequence: str,
    name: str = "a protein",
    how: str = "",
) -> tuple[Figure, str]:
    """Draw phi and psi of each residue of a chain.

    Args:
        torsions: Floats (N, 2) or (N, 3), phi and psi (and omega) in radians; NaN where unknown.
        sequence: String of N residues; glycine, which may have any phi, is drawn otherwise.
        name: Name of the protein, for the caption.
        how: Where the torsions come from, as sentences for the caption.

    Returns:
        The figure and its caption.

    Raises:
        ValueError: Shapes do not fit together, or no residue has both angles.

    Source: Ramachandran et al. 1963, J. Mol. Biol. 7:95.

    Example:
        >>> figure, caption = plot_ramachandran(np.array([[-1.0, -0.8], [-1.1, 0.8]]), "AG")
        >>> "1 of 1 residues other than glycine has a negative phi" in caption
        True
    """
    angles = np.rad2deg(np.asarray(torsions, dtype="float64"))
    if angles.ndim != 2 or angles.shape[1] < 2 or len(angles) != len(sequence):
        raise ValueError(
            f"torsions must have the shape ({len(sequence)}, 2) or ({len(sequence)}, 3) for "
            f"{count_of(len(sequence), 'residue')} of sequence, received {angles.shape}."
        )
    there = np.isfinite(angles[:, :2]).all(axis=1)
    if not there.any():
        raise ValueError("no residue has both phi and psi.")
    glycine = np.array([letter == "G" for letter in sequence])
    figure = new_figure(5.2, 5.2)
    ax = open_axes(figure.subplots())
    others, some = there & ~glycine, there & glycine
    phi, psi = angles[:, 0], angles[:, 1]
    ax.scatter(phi[others], psi[others], s=14, color=MODEL, label="residues other than glycine")
    ax.scatter(phi[some], psi[some], s=18, marker="^", color=WRONG, label="glycine")
    ax.axvline(0, color=GREY, linewidth=0.5)
    ax.axhline(0, color=GREY, linewidth=0.5)
    ticks = [-180, -90, 0, 90, 180]
    ax.set(
        xlabel="phi (degrees)", ylabel="psi (degrees)", xlim=(-180, 180), ylim=(-180, 180),
        xticks=ticks, yticks=ticks, aspect="equal",
    )  # fmt: skip
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    negative = int((phi[others] < 0).sum())
    caption = (
        f"Torsions phi and psi of {int(there.sum())} of {len(sequence)} residues of "
        f"{harmless(name)}. {how}".rstrip()
        + f" What stands out: {negative} of {int(others.sum())} residues other than glycine "
        f"{'has' if negative == 1 else 'have'} a negative phi, as in L-amino acids; in a mirror "
        "image most would be positive."
    )
    return figure, caption
