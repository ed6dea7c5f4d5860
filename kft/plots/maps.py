"""The map of a database: its records in a plane, near where their embeddings are alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from kft.messages import harmless, listed
from kft.plots.style import GREY, looks, new_figure, open_axes

MOST_LABELS = 8  # that have a colour of their own
MARKERS = "osD^v<>P"


def plot_map(
    table: pd.DataFrame, label: str | None = None, name: str = "a database"
) -> tuple[Figure, str]:
    """Draw records in a plane, in the colours of a column.

    Args:
        table: Columns `x`, `y` and `name`, as `Index.map` returns them, whose `attrs["method"]`
            says how they were made.
        label: Column of groups, such as families; the largest 8 have a colour, the others are
            grey, as are records without one. None draws all in one colour.
        name: Name of the records, for the caption.

    Returns:
        The figure and its caption.

    Raises:
        ValueError: A column is missing, there are no rows, or a place is not a number.

    Example:
        >>> rows = [("a", 0.0, 0.0, "u"), ("b", 0.1, 0.0, "u"), ("c", 5.0, 1.0, "v")]
        >>> table = pd.DataFrame(rows, columns=["name", "x", "y", "family"])
        >>> figure, caption = plot_map(table, "family")
        >>> "same family" in caption, "farthest from the others is c" in caption
        (True, True)
    """
    for column in ["name", "x", "y", *([] if label is None else [label])]:
        if column not in table:
            raise ValueError(
                f"table must have the column {column!r}, it has {listed(table.columns)}."
            )
    if not len(table):
        raise ValueError("table is empty: there is nothing to draw.")
    places = table[["x", "y"]].to_numpy("float64")
    if not np.isfinite(places).all():
        raise ValueError("table has places x, y that are not finite numbers: leave them out.")
    figure = new_figure(6.4, 4.8)
    ax = open_axes(figure.subplots())
    size = float(np.clip(4000 / len(table), 3, 30))
    groups = pd.Series(dtype=int) if label is None else table[label].value_counts()
    shown = list(groups.index[:MOST_LABELS])
    rest = np.ones(len(table), bool) if label is None else ~table[label].isin(shown).to_numpy()
    colour, title = (looks(1)[0][0], None) if label is None else (GREY, "others")
    if rest.any():
        ax.scatter(
            places[rest, 0],
            places[rest, 1],
            s=size,
            color=colour,
            alpha=0.5,
            linewidths=0,
            label=title,
        )
    for group, marker, (colour, _) in zip(shown, MARKERS, looks(MOST_LABELS), strict=False):
        here = (table[label] == group).to_numpy()
        ax.scatter(
            places[here, 0], places[here, 1], s=size, color=colour, marker=marker, label=str(group)
        )
    if label is not None:
        ax.legend(
            title=label, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
        )
    ax.set_xticks([])
    ax.set_yticks([])
    return figure, _caption(table, places, label, name)


def _caption(table: pd.DataFrame, places: np.ndarray, label: str | None, name: str) -> str:
    method = table.attrs.get("method", "the columns x and y of the table")
    distances = cKDTree(places).query(places, k=min(2, len(places)))
    middle = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    caption = (
        f"Map of {len(table):,} records of {name}: each point is one, and points are near where "
        f"embeddings are alike. How: {method}. What stands out: the record farthest from the "
        f"others is {table['name'].iloc[int(middle.argmax())]}"
    )
    if label is None or len(table) < 2:
        return harmless(f"{caption}.")
    groups = table[label].to_numpy()
    known = table[label].notna().to_numpy()
    nearest = distances[1][:, 1]
    same = float((groups[nearest] == groups)[known].mean()) if known.any() else 0.0
    shares = table[label].value_counts(normalize=True)
    chance = float((shares**2).sum())
    return harmless(
        f"{caption}; of {same:.0%} of the records the nearest on the map is of the same {label}, "
        f"by chance it would be of {chance:.0%}. The largest of {len(shares):,}: "
        f"{listed(shares.index[:MOST_LABELS], MOST_LABELS)}."
    )
