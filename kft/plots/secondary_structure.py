"""The sequence of one protein, coloured by its secondary structure and by what was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import ArrayLike

from kft.messages import listed
from kft.plots.style import new_figure

STATES = {"C": ("coil", "#D4D4D4"), "E": ("strand", "#56B4E9"), "H": ("helix", "#E69F00")}
PER_LINE = 50  # residues at most
OBSERVED = "observed"


def plot_secondary_structure(
    sequence: str,
    targets: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    classes: Sequence[str] = ("C", "E", "H"),
    mask: ArrayLike | None = None,
    name: str = "a protein",
    how: str = "",
) -> tuple[Figure, str]:
    """Draw a sequence several times: coloured by its structure, and by each prediction of it.

    Args:
        sequence: String of N residues.
        targets: Integers (N,), positions in `classes`.
        predictions: Name -> (N, K) probabilities, as `kft.predict` returns them, or (N,) integers.
        classes: The letters C (coil), E (strand) and H (helix), in the order of the integers.
        mask: Bool (N,), False for residues whose target is not known; None if all are.
        name: Name of the protein, for the caption.
        how: How structure and predictions were made, as sentences for the caption.

    Returns:
        tuple: the figure, at most 1,200 pixels wide when saved, and its caption. Residues whose
        predicted class is another than the observed one have a frame.

    Raises:
        ValueError: If there are no predictions, the classes are others, or a residue lacks a target
            or a prediction.

    Example:
        >>> predictions = {"probe": [0, 2, 2, 0, 0]}
        >>> figure, caption = plot_secondary_structure("MKTAY", [0, 2, 2, 2, 0], predictions)
        >>> "probe agrees with 4 of 5 residues" in caption
        True
    """
    targets, predicted, known = _checked(sequence, targets, predictions, classes, mask)
    rows = np.array([np.where(known, targets, -1), *predicted.values()])
    lines = -(-len(sequence) // PER_LINE)
    longest = min(len(sequence), -(-len(sequence) // (10 * lines)) * 10)  # lines of similar length
    labels = [OBSERVED, *predicted]
    width = 0.17 * longest + 0.09 * max(map(len, labels)) + 0.3
    # The legend needs six inches.
    figure = new_figure(max(width, 6), lines * (0.25 * len(rows) + 0.5) + 0.5)
    axes = figure.subplots(lines, 1, squeeze=False)[:, 0]
    for line, ax in enumerate(axes):
        start = line * longest
        part = slice(start, start + longest)
        _draw_line(ax, sequence[part], rows[:, part], start, longest, classes)
        ax.set_yticks(range(len(labels)), labels)
    handles = [Patch(color=STATES[letter][1], label=STATES[letter][0]) for letter in classes]
    handles.append(Patch(facecolor="white", edgecolor="black", label="predicted otherwise"))
    if not known.all():
        handles.append(Patch(facecolor="white", edgecolor="#BBBBBB", label="not known"))
    figure.legend(handles=handles, loc="outside lower left", ncols=5, fontsize=9, frameon=False)
    return figure, _caption(name, targets, predicted, known, classes, how)


def _checked(
    sequence: str,
    targets: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    classes: Sequence[str],
    mask: ArrayLike | None,
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Return targets and predictions as integers (N,), and which targets are known."""
    if not predictions:
        raise ValueError("predictions is empty; give at least one, as {name: (N, K) array}.")
    if sorted(classes) != sorted(STATES):
        raise ValueError(f"classes must be the letters {', '.join(STATES)}, received {classes!r}.")
    known = np.ones(len(sequence), bool) if mask is None else np.asarray(mask, bool)
    columns = {"targets": np.asarray(targets), "mask": known}
    predicted = {}
    for key, values in predictions.items():
        values = np.asarray(values)
        predicted[key] = values.argmax(axis=1) if values.ndim == 2 else values
        columns[f"predictions[{key!r}]"] = predicted[key]
    for key, column in columns.items():
        if column.shape != (len(sequence),):
            raise ValueError(
                f"{key} must have one entry for each of {len(sequence)} residues, received the "
                f"shape {column.shape}."
            )
    if not known.any():
        raise ValueError("mask is False for all residues: there is nothing to compare with.")
    return columns["targets"], predicted, known


def _draw_line(
    ax: Axes, letters: str, rows: np.ndarray, start: int, longest: int, classes: Sequence[str]
) -> None:
    colours = ListedColormap(["white", *(STATES[letter][1] for letter in classes)])
    ax.imshow(rows, cmap=colours, vmin=-1, vmax=len(classes) - 1, aspect="auto")
    wrong = (rows != rows[0]) & (rows[0] >= 0)
    for i, j in np.ndindex(rows.shape):
        ax.text(j, i, letters[j], ha="center", va="center", fontsize=8, family="monospace")
        if wrong[i, j]:
            ax.add_patch(Rectangle((j - 0.45, i - 0.4), 0.9, 0.8, fill=False, linewidth=1.2))
    numbers = [k for k in range(len(letters)) if (start + k + 1) % 10 == 0]
    ax.set_xticks(numbers, [str(start + k + 1) for k in numbers])
    ax.set_xlim(-0.5, longest - 0.5)  # all lines alike, the last one may be shorter
    ax.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    ax.grid(which="minor", axis="y", color="white", linewidth=3)
    ax.tick_params(length=0, which="both")
    ax.spines[:].set_visible(False)


def _caption(
    name: str,
    targets: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    known: np.ndarray,
    classes: Sequence[str],
    how: str,
) -> str:
    count = int(known.sum())
    words = [STATES[letter][0] for letter in classes]
    parts = [f"{np.mean(targets[known] == i):.0%} {word}" for i, word in enumerate(words)]
    right = {key: int((row == targets)[known].sum()) for key, row in predicted.items()}
    scores = (
        f"{key} agrees with {n} of {count} residues ({n / count:.0%})" for key, n in right.items()
    )
    agreement = listed(scores, None)
    left_out = int((~known).sum())
    white = f" White: {left_out} of unknown structure." if left_out else ""
    first = next(iter(predicted))
    return (
        f"The sequence of {name}, {len(targets)} residues, coloured by the observed secondary "
        f"structure ({listed(parts, None)}) and below by what {listed(predicted, None)} predicted; "
        f"residues predicted otherwise have a frame.{white}{' ' + how if how else ''} What stands "
        f"out: {agreement}. {_errors(targets[known], predicted[first][known], words, first)}"
    )


def _errors(targets: np.ndarray, predicted: np.ndarray, words: Sequence[str], name: str) -> str:
    """Return a sentence on the errors that are most frequent."""
    table = np.zeros((len(words), len(words)), dtype=int)
    np.add.at(table, (targets, predicted), 1)
    np.fill_diagonal(table, 0)
    if not table.any():
        return f"{name} has no error."
    i, j = divmod(int(table.argmax()), len(words))
    return (
        f"The most frequent error of {name} is {words[i]} predicted as {words[j]}, "
        f"{table[i, j]} of {table.sum()} residues."
    )
