"""The heat map of a scan: the score of each replacement of one residue by another."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kft.arguments import check_integer
from kft.messages import harmless, listed

RESIDUES = "GAVLIMFWYPSTCNQHKRDE"  # small, aliphatic, aromatic, polar, basic and acidic
PER_LINE = 80  # positions
COLUMNS = ("position", "wild_type", "residue", "score")


def plot_scan(
    table: pd.DataFrame, name: str = "a protein", how: str = "", most: int = 5
) -> tuple[Figure, str]:
    """Draw the scores of all single replacements of a protein.

    Args:
        table: Columns `position` (in the numbering to show), `wild_type`, `residue` and `score`, as
            `kft.scan` returns them; a higher score is likelier, the wild type has 0.
        name: Name of the protein, for the caption.
        how: How the scores were made, as sentences for the caption.
        most: Number of best and of worst replacements that the caption lists.

    Returns:
        The figure, 1,200 pixels wide when saved if the protein fills a line, and its caption.

    Raises:
        ValueError: A column is missing, there are no rows, a residue has two scores or one that is
            no number, or `most` is below 1.

    Example:
        >>> rows = [(24, "M", "L", -1.0), (24, "M", "A", -2.5), (25, "K", "R", 0.5)]
        >>> table = pd.DataFrame(rows, columns=["position", "wild_type", "residue", "score"])
        >>> figure, caption = plot_scan(table, most=1)
        >>> "K25R (0.50)" in caption, "M24A (-2.50)" in caption
        (True, True)
    """
    check_integer("most", most, 1)
    wild_types, scores = _checked(table)
    lines = -(-len(wild_types) // PER_LINE)
    longest = min(len(wild_types), PER_LINE)
    size = (0.105 * longest + 1.6, 2.4 * lines + 0.4)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(lines, 1, squeeze=False)[:, 0]
    # The few extreme scores would leave all others white.
    limit = float(np.nanquantile(np.abs(scores), 0.98)) or 1.0
    positions = list(wild_types.index)
    for line, ax in enumerate(axes):
        here = positions[line * PER_LINE : (line + 1) * PER_LINE]
        part = scores[:, line * PER_LINE : (line + 1) * PER_LINE]
        cells = ax.imshow(part, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        letters = [wild_types[position] for position in here]
        known = [(k, RESIDUES.index(x)) for k, x in enumerate(letters) if x in RESIDUES]
        ax.scatter(*zip(*known, strict=True), s=2, color="black")
        ticks = [k for k, position in enumerate(here) if position % 10 == 0]
        ax.set_xticks(ticks, [str(here[k]) for k in ticks], fontsize=7)
        ax.set_yticks(range(len(RESIDUES)), RESIDUES, fontsize=5, family="monospace")
        ax.set_xlim(-0.5, longest - 0.5)  # all lines alike, the last one may be shorter
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    axes[-1].set_xlabel("position", fontsize=8)
    figure.colorbar(cells, ax=axes, label="score", shrink=0.6, extend="both")
    return figure, _caption(table, len(wild_types), limit, name, how, most)


def _checked(table: pd.DataFrame) -> tuple[pd.Series, np.ndarray]:
    """Return the wild type by position, and the scores, (20, positions)."""
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ValueError(f"table must have the columns {listed(COLUMNS)}; it lacks {missing[0]!r}.")
    if not len(table):
        raise ValueError("table is empty: there is nothing to draw.")
    if not np.isfinite(pd.to_numeric(table.score, errors="coerce")).all():
        raise ValueError("table has a score that is not a finite number: leave such rows out.")
    if table.duplicated(["position", "residue"]).any():
        at = table.position[table.duplicated(["position", "residue"])].iloc[0]
        raise ValueError(f"table has two scores of one residue at position {at}.")
    wild_types = table.groupby("position").wild_type.first()
    scores = table.pivot(index="residue", columns="position", values="score")
    return wild_types, scores.reindex(list(RESIDUES)).to_numpy("float64")


def _caption(
    table: pd.DataFrame, positions: int, limit: float, name: str, how: str, most: int
) -> str:
    ordered = table.sort_values("score", ascending=False, kind="stable")

    def names(rows: pd.DataFrame) -> str:
        return ", ".join(
            f"{row.wild_type}{row.position}{row.residue} ({row.score:.2f})"
            for row in rows.itertuples()
        )

    means = table.groupby("position").score.mean().sort_values()
    worst, best = means.index[0], means.index[-1]
    likelier = float((table.score > 0).mean())
    caption = (
        f"Scores of {len(table):,} replacements of single residues of {name}, at {positions:,} "
        "positions, in the numbering of the user. Rows are the new residues, by chemistry; a dot "
        "marks the wild type, whose score is 0. Blue is likelier than the wild type, red less "
        f"likely; colours end at ±{limit:.2g}, the 98% quantile.{' ' + how if how else ''} What "
        f"stands out: {likelier:.0%} of the replacements are likelier than the wild type. Best: "
        f"{names(ordered.head(most))}. Worst: {names(ordered.tail(most)[::-1])}. On average "
        f"replacements cost most at position {worst} (mean {means.iloc[0]:.2f}) and least at "
        f"position {best} (mean {means.iloc[-1]:.2f})."
    )
    return harmless(caption)
