"""Figures that judge one model: confusion, ROC and PR, reliability, residuals, groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from kft.evaluation.calibration import Calibration
from kft.evaluation.groups import GroupAudit
from kft.messages import listed
from kft.plots.style import GREY, MODEL, OTHERS, looks, short_name

MOST_NAMES = 60  # classes of which names have room
MANY = 12  # classes above which cells of a matrix and curves of a figure could not be read


def plot_confusion(
    targets: ArrayLike,
    predicted: ArrayLike,
    classes: Sequence[str],
    data: str = "the data",
    split: str = "test",
) -> tuple[Figure, str]:
    """Draw the confusion matrix: how many records of each class are given each class.

    Args:
        targets: (N,) true classes, integers from 0.
        predicted: (N,) predicted classes.
        classes: Names of the classes.
        data: Name of the data set, for the caption.
        split: Name of the split, for the caption.

    Returns:
        The figure and its caption.

    Raises:
        ValueError: There are no records.

    Example:
        >>> figure, caption = plot_confusion([0, 0, 1, 1], [0, 1, 1, 1], ["no", "yes"])
        >>> "1 of 2 no are called yes" in caption
        True
    """
    targets, predicted = np.asarray(targets), np.asarray(predicted)
    if not len(targets):
        raise ValueError("targets must hold at least one record, received none.")
    counts = confusion_matrix(targets, predicted, labels=range(len(classes)))
    size = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, size, out=np.zeros(counts.shape), where=size > 0)
    names = [short_name(name) for name in classes]
    side = min(10, 3 + 0.5 * len(names) + 0.1 * max(map(len, names)))
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="compressed")
    ax = figure.subplots()
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, label="share of the true class", shrink=0.8)
    if len(classes) <= MANY:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            ax.text(column, row, f"{count:,}", ha="center", va="center", color=colour)
    ax.set(xlabel="predicted class", ylabel="true class")
    _name_both(ax, names)
    wrong = counts * (1 - np.eye(len(classes), dtype=int))
    row, column = divmod(int(wrong.argmax()), len(classes))
    stands = "no record is wrong."
    if wrong.any():
        stands = (
            f"the most frequent error: {wrong[row, column]:,} of {size[row, 0]:,} {classes[row]} "
            f"are called {classes[column]}."
        )
    absent = [str(name) for name, n in zip(classes, size[:, 0], strict=True) if not n]
    absence = f" No record is {listed(absent)}, so those rows are empty." if absent else ""
    return figure, (
        f"Confusion matrix on the {split} split of {data} (n = {len(targets):,}): rows are true "
        f"classes, columns predicted ones; colour is the share of the true class.{absence} "
        f"What stands out: {stands}"
    )


def _name_both(ax: Axes, names: Sequence[str]) -> None:
    """Write the classes along both axes of a matrix; of very many only their numbers."""
    if len(names) > MOST_NAMES:
        ax.set(xlabel="number of the predicted class", ylabel="number of the true class")
        return
    beside = len(names) <= 3 and max(map(len, names)) <= 10  # they have room side by side
    size = 10 if len(names) <= MANY else 7
    ax.set_xticks(range(len(names)), names, rotation=0 if beside else 90, fontsize=size)
    ax.set_yticks(range(len(names)), names, fontsize=size)


def plot_roc_pr(
    targets: ArrayLike,
    probabilities: ArrayLike,
    classes: Sequence[str],
    data: str = "the data",
    split: str = "test",
) -> tuple[Figure, str]:
    """Draw ROC and precision-recall curves, for more than two classes each against the others.

    Args:
        targets: (N,) classes, integers from 0; or (N, K) labels, 0 or 1.
        probabilities: (N, K), or (N,) of class 1.
        classes: Names of the classes or labels.
        data: Name of the data set, for the caption.
        split: Name of the split, for the caption.

    Returns:
        The figure and its caption. Classes of which there is no record, or no other record, have
        no curves; the caption names them.

    Example:
        >>> figure, caption = plot_roc_pr([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9], ["no", "yes"])
        >>> "yes: AUROC 0.750" in caption
        True
    """
    targets, probabilities = np.asarray(targets), np.asarray(probabilities, dtype=float)
    if probabilities.ndim == 1 or probabilities.shape[1] == 1:
        probabilities = probabilities.reshape(len(probabilities), 1)
    truth = targets if targets.ndim == 2 else targets[:, None] == np.arange(len(classes))
    if targets.ndim == 1 and len(classes) == 2:  # the curve of class 0 says nothing more
        truth, probabilities, classes = truth[:, 1:], probabilities[:, -1:], classes[1:]
    figure = Figure(figsize=(10, 4.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    styles, undefined, found = looks(len(classes)), [], {}
    for k, name in enumerate(classes):
        one, values = truth[:, k].astype(bool), probabilities[:, k]
        if one.all() or not one.any():
            undefined.append(str(name))
            continue
        area, precision = roc_auc_score(one, values), average_precision_score(one, values)
        found[str(name)] = (float(area), float(precision), float(one.mean()))
        colour, style = styles[k]
        label = short_name(name) if len(classes) <= MANY else None
        left.plot(*roc_curve(one, values)[:2], label=label, color=colour, linestyle=style)
        high, recall, _ = precision_recall_curve(one, values)
        right.plot(recall, high, drawstyle="steps-post", color=colour, linestyle=style)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    left.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC")
    right.set(xlabel="recall", ylabel="precision", title="precision and recall", ylim=(0, 1.02))
    if found and len(classes) <= MANY:
        left.legend(fontsize=9, loc="lower right")
    order = sorted(found, key=lambda name: found[name][0])
    worst = [
        f"{name}: AUROC {found[name][0]:.3f}, average precision {found[name][1]:.3f} where "
        f"{found[name][2]:.1%} of the records are {name}"
        for name in (order if len(order) < 4 else order[:3])
    ]
    some = "lowest of all, " * (len(order) > 3)
    missing = f" Undefined without records of both kinds: {listed(undefined)}." * bool(undefined)
    return figure, (
        f"ROC and precision-recall curves on the {split} split of {data} (n = {len(targets):,})."
        f"{missing} What stands out: {some}{'; '.join(worst) or 'there is no curve'}."
    )


def plot_reliability(
    calibration: Calibration, data: str = "the data", split: str = "test"
) -> tuple[Figure, str]:
    """Draw how often predictions of each confidence are right, before and after a temperature.

    Args:
        calibration: From `kft.evaluation.calibration.judge_calibration`.
        data: Name of the data set, for the caption.
        split: Name of the split, for the caption.

    Returns:
        The figure and its caption.

    Example:
        >>> from kft.evaluation.calibration import judge_calibration
        >>> found = judge_calibration("classification", [0, 1, 1, 0], [0.1, 0.9, 0.9, 0.9])
        >>> plot_reliability(found)[1][:11]
        'Reliability'
    """
    figure = Figure(figsize=(5.5, 4.6), dpi=120, layout="constrained")
    ax = figure.subplots()
    _draw_bins(ax, calibration, MODEL, "o", "as predicted")
    if calibration.after is not None:
        label = f"temperature {calibration.temperature:.2f}"
        _draw_bins(ax, calibration.after, OTHERS[0], "s", label)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    ax.set(xlabel="mean confidence of the bin", ylabel="share that is right", ylim=(-0.03, 1.03))
    ax.legend(loc="upper left", fontsize=9)
    bins = calibration.bins
    n, excess = bins["records"].sum(), bins["confidence"] - bins["right"]
    mean = float((excess * bins["records"]).sum() / n)
    kind = "over-confident" if mean > 0 else "under-confident"
    return figure, (
        f"Reliability on the {split} split of {data} (n = {n:,}): the predictions are put into "
        f"bins by confidence, the area of a point is the number in the bin, and the dashed line is "
        f"perfect calibration. What stands out: {calibration} On average the model is {kind} by "
        f"{abs(mean):.3f}."
    )


def _draw_bins(ax: Axes, calibration: Calibration, colour: str, marker: str, label: str) -> None:
    bins = calibration.bins
    area = 15 + 150 * bins["records"] / bins["records"].max()
    ax.plot(bins["confidence"], bins["right"], color=colour, linewidth=1)
    ax.scatter(
        bins["confidence"], bins["right"], area, color=colour, marker=marker, alpha=0.7, label=label
    )


def plot_residuals(
    targets: ArrayLike,
    predictions: ArrayLike,
    quantity: str = "target",
    data: str = "the data",
    split: str = "test",
) -> tuple[Figure, str]:
    """Draw the residuals of a regression against the predictions, and their distribution.

    Args:
        targets: (N,) measured values.
        predictions: (N,) or (N, 1), in the unit of the targets.
        quantity: What was measured.
        data: Name of the data set, for the caption.
        split: Name of the split, for the caption.

    Returns:
        The figure and its caption.

    Example:
        >>> figure, caption = plot_residuals([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])
        >>> "0.5 too high on average" in caption
        True
    """
    targets = np.asarray(targets, dtype=float)
    predicted = np.asarray(predictions, dtype=float).reshape(-1)
    residuals = targets - predicted
    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.scatter(predicted, residuals, s=12, alpha=0.4, color=MODEL, linewidths=0)
    left.axhline(0, color=GREY, linewidth=1, linestyle="--")
    left.set(xlabel=f"predicted {quantity}", ylabel="residual: measured minus predicted")
    right.hist(residuals, bins="auto", color=MODEL, alpha=0.6)
    right.axvline(0, color=GREY, linewidth=1, linestyle="--")
    right.set(xlabel="residual", ylabel="records")
    mean = residuals.mean()
    side = "low" if mean > 0 else "high"
    order = np.argsort(predicted, kind="stable")
    thirds = [np.abs(residuals[part]).mean() for part in np.array_split(order, 3) if len(part)]
    return figure, (
        f"Residuals on the {split} split of {data} (n = {len(targets):,}), left against the "
        f"prediction, right their distribution. What stands out: predictions are "
        f"{abs(mean):.3g} too {side} on average; the mean absolute error is {thirds[0]:.3g} in the "
        f"lowest third of predictions and {thirds[-1]:.3g} in the highest."
    )


def plot_groups(
    audit: GroupAudit, data: str = "the data", split: str = "test"
) -> tuple[Figure, str]:
    """Draw the score of each group with its interval.

    Args:
        audit: From `kft.evaluation.groups.audit`.
        data: Name of the data set, for the caption.
        split: Name of the split, for the caption.

    Returns:
        The figure and its caption.

    Example:
        >>> from kft.evaluation.groups import audit
        >>> from kft.evaluation.metrics import Scored
        >>> one = Scored(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.9, 0.1]))
        >>> plot_groups(audit("classification", one, ["a", "a", "b", "b"]))[1][:8]
        'accuracy'
    """
    rows = audit.table
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(rows)), dpi=120, layout="constrained")
    ax = figure.subplots()
    values, low, high = (rows[audit.outcome + end] for end in ("", " low", " high"))
    places = np.arange(len(rows))
    ax.hlines(places, low, high, color=MODEL, linewidth=2)
    ax.plot(values, places, "o", color=MODEL)
    counts = rows["records"].astype(int).items()
    names = [f"{short_name(name)} (n = {n:,})" for name, n in counts]
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set_xlabel(f"{audit.outcome} with {audit.confidence:.0%} interval")
    ax.spines[["top", "right"]].set_visible(False)
    n = int(rows["records"].sum())
    return figure, (
        f"{audit.outcome} of each {audit.by} on the {split} split of {data} (n = {n:,}), with "
        f"{audit.confidence:.0%} intervals. What stands out: {audit}"
    )
