"""Figures of a data set: distributions, missing values, correlations, balance of classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kft.messages import count_of, harmless, listed
from kft.plots.style import GREY, MODEL, OTHERS, new_figure, open_axes, short_name

MOST_PANELS = 30  # distributions drawn
MOST_COLUMNS = 40  # columns whose names are written at an axis
ACROSS = 6  # panels in a row


def plot_distributions(
    histograms: Mapping[str, tuple[np.ndarray, np.ndarray]],
    target: str | None = None,
    data: str = "the data",
    records: int | None = None,
) -> tuple[Figure, str]:
    """Draw a histogram of every column.

    Args:
        histograms: Column -> (counts (B,), edges (B + 1,)).
        target: Name of the target, which is drawn last and in another colour.
        data: Name of the data, for the caption.
        records: Number of records, for the caption.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Example:
        >>> figure, caption = plot_distributions({"x": (np.array([1, 3]), np.array([0, 1, 2]))})
        >>> len(figure.axes)
        1
    """
    names = [name for name in histograms if name != target][: MOST_PANELS - 1]
    names += [target] if target is not None and target in histograms else []
    across = min(ACROSS, len(names))
    down = -(-len(names) // across)
    figure = new_figure(10, 1.6 * down + 0.4)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        counts, edges = histograms[name]
        colour = OTHERS[0] if name == target else MODEL
        ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colour)
        ax.set_title(short_name(name), fontsize=8, parse_math=False)
        ax.tick_params(labelsize=7)
        ax.set_yticks([])
        open_axes(ax).spines["left"].set_visible(False)
        ax.locator_params(axis="x", nbins=3)
        ax.ticklabel_format(axis="x", scilimits=(-2, 3))
        ax.xaxis.get_offset_text().set_fontsize(7)
    for ax in axes[len(names) :]:
        ax.set_visible(False)
    figure.supylabel("records", fontsize=8)
    figure.supxlabel("value, in the unit of its column", fontsize=8)
    left_out = len(histograms) - len(names)
    top = {name: counts.max() / max(1, counts.sum()) for name, (counts, _) in histograms.items()}
    highest = max(names, key=lambda name: top[name])
    caption = (
        f"Distribution of {count_of(len(names), 'column')} of numbers of {data}"
        + _n(records)
        + (f"; {left_out:,} more are not shown" if left_out else "")
        + ". Each panel is a histogram of up to 30 bins of equal width between the 0.5% and 99.5% "
        "quantiles of its column, without missing values and suspected sentinels; heights are not "
        "comparable between panels."
        + (f" The target, {target}, is orange." if target in histograms else "")
        + f" What stands out: {highest} has {top[highest]:.0%} of its values in one bin."
    )
    return figure, harmless(caption, keep="\n")


def plot_missing(
    shares: pd.DataFrame, data: str = "the data", records: int | None = None
) -> tuple[Figure, str]:
    """Draw the share of missing values of each column, by class if there are classes.

    Args:
        shares: Share from 0 to 1, one row per column of the data; the first column is the share in
            all records, the others those in each class. Names may be of any type, and repeat.
        data: Name of the data, for the caption.
        records: Number of records, for the caption.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Example:
        >>> figure, caption = plot_missing(pd.DataFrame({"all": [0.7]}, index=["mass"]))
        >>> "mass, 70%" in caption
        True
    """
    overall = shares.iloc[:, 0].to_numpy(dtype=float)
    order = np.argsort(overall, kind="stable")[-MOST_COLUMNS:]
    names, classes = list(shares.index), list(shares.columns)[1:]
    figure = new_figure(10, max(0.28, 0.09 * len(classes)) * len(order) + 1.6)
    ax = open_axes(figure.subplots())
    places = np.arange(len(order))
    ax.barh(places, overall[order], color="#DDDDDD", label="all")
    for k, name in enumerate(classes):
        colour = [MODEL, *OTHERS][k % 7]
        # Classes one above the other: with equal shares one mark would hide another.
        across = places + 0.7 * ((len(classes) - 1) / 2 - k) / len(classes)
        of_class = shares.iloc[order, k + 1]
        mark, label = "osD^v<>"[k % 7], short_name(name)
        ax.plot(of_class, across, mark, color=colour, markersize=5, label=label)
    ax.set_yticks(places, [short_name(names[i]) for i in order], fontsize=8, parse_math=False)
    ax.set(xlabel="share of records without a value", xlim=(0, 1.01))
    if len(classes):
        _legend(figure)
    most = int(overall.argmax())
    one = len(shares) == 1
    which = "one column that has any" if one else f"{len(shares):,} columns that have any"
    caption = (
        f"Missing values of {data}{_n(records)}, in the {which}: "
        "NaN, empty cells, words such as NA, suspected sentinels. Bars are shares of all records"
        + (", points shares of each class" if len(classes) else "")
        + f". What stands out: most are missing in {names[most]}, {overall[most]:.0%} of "
        "records" + _widest(shares) + "."
    )
    return figure, harmless(caption, keep="\n")


def _widest(shares: pd.DataFrame) -> str:
    """Say which column differs most between classes."""
    by_class = shares.iloc[:, 1:].astype(float)
    spread = (by_class.max(axis=1) - by_class.min(axis=1)).fillna(-1).to_numpy()
    if by_class.shape[1] < 2 or spread.max(initial=-1) < 0:
        return ""
    row = int(spread.argmax())
    values = by_class.to_numpy()[row]
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    classes = list(by_class.columns)
    return (
        f"; classes differ most in {list(shares.index)[row]}, from {values[low]:.0%} "
        f"({classes[low]}) to {values[high]:.0%} ({classes[high]})"
    )


def plot_correlation(
    correlations: pd.DataFrame, data: str = "the data", records: int | None = None
) -> tuple[Figure, str]:
    """Draw the correlations between columns.

    Args:
        correlations: Table (columns, columns) of correlations from -1 to 1.
        data: Name of the data, for the caption.
        records: Number of records, for the caption.

    Returns:
        The figure, 960 pixels wide when saved, and its caption.

    Example:
        >>> table = pd.DataFrame([[1, 0.5], [0.5, 1]], index=["a", "b"], columns=["a", "b"])
        >>> plot_correlation(table)[1].endswith("a and b correlate most, by 0.50.")
        True
    """
    figure = new_figure(8, 7)
    figure.set_layout_engine("compressed")  # as the matrix is square
    ax = figure.subplots()
    drawn = ax.imshow(correlations, cmap="RdBu_r", vmin=-1, vmax=1)
    figure.colorbar(drawn, ax=ax, label="Pearson's correlation", shrink=0.8)
    if len(correlations) <= MOST_COLUMNS:
        names = [short_name(name) for name in correlations]
        places = np.arange(len(names))
        ax.set_xticks(places, names, rotation=90, fontsize=7, parse_math=False)
        ax.set_yticks(places, names, fontsize=7, parse_math=False)
    else:
        ax.set(xlabel="column, counted from 0", ylabel="column, counted from 0")
    values = correlations.to_numpy(dtype=float)
    pairs = np.where(np.triu(np.ones(values.shape), 1) > 0, np.abs(values), np.nan)
    stands_out = "no pair has a correlation"
    if np.isfinite(pairs).any():
        i, j = (int(at) for at in np.unravel_index(np.nanargmax(pairs), pairs.shape))
        stands_out = (
            f"{list(correlations.index)[i]} and {list(correlations.columns)[j]} correlate most, "
            f"by {values[i, j]:.2f}"
        )
    caption = (
        f"Pearson's correlation between {len(correlations):,} columns of numbers of {data}"
        f"{_n(records)}. Each pair is correlated over the records that have both values, suspected "
        f"sentinels left out. What stands out: {stands_out}."
    )
    return figure, harmless(caption, keep="\n")


def plot_balance(counts: pd.DataFrame, data: str = "the data") -> tuple[Figure, str]:
    """Draw the number of records by class, and by split or group.

    Args:
        counts: Number of records, one row per class, one column per split or group.
        data: Name of the data, for the caption.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Example:
        >>> figure, caption = plot_balance(pd.DataFrame({"all": [9, 1]}, index=["no", "yes"]))
        >>> "no has 9.0 times as many records as yes" in caption
        True
    """
    figure = new_figure(10, 0.3 * len(counts) + 1.8)
    ax = open_axes(figure.subplots())
    places, left = np.arange(len(counts)), np.zeros(len(counts))
    colours = [MODEL, *OTHERS, GREY]
    for k, name in enumerate(counts.columns):
        widths = counts.iloc[:, k].to_numpy()
        hatch = (None, "///", "...")[k // 8 % 3]
        ax.barh(
            places, widths, left=left, color=colours[k % 8], edgecolor="white", hatch=hatch,
            linewidth=0.5, label=short_name(name),
        )  # fmt: skip
        left = left + widths
    for place, total in zip(places, left, strict=True):
        ax.annotate(f" {int(total):,}", (total, place), va="center", fontsize=8)
    ax.set_yticks(places, [short_name(name) for name in counts.index], fontsize=8, parse_math=False)
    ax.invert_yaxis()
    ax.set(xlabel="records", xlim=(0, left.max() * 1.08))
    if counts.shape[1] > 1:
        _legend(figure)
    totals = counts.sum(axis=1)
    most, least = (list(counts.index)[int(at)] for at in (np.argmax(totals), np.argmin(totals)))
    ratio = totals.max() / max(1, totals.min())
    caption = (
        f"Number of records by class of {data} (n = {int(totals.sum()):,})"
        + (f", coloured by {listed(counts.columns, None)}" * (counts.shape[1] > 1))
        + ". Counted over all records with a target. What stands out: "
        + (f"{most} has {ratio:.1f} times as many records as {least}."
           if totals.min() else f"{least} has no record.")
    )  # fmt: skip
    return figure, harmless(caption, keep="\n")


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=6, fontsize=8, frameon=False)


def _n(records: int | None) -> str:
    return "" if records is None else f" (n = {records:,})"
