"""Figures of one model's test results, compared with baselines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from kft.evaluation.metrics import Interval, Scores, difference, hardly_varies, score
from kft.messages import listed
from kft.plots.style import GREY, MODEL, OTHERS, LineStyle, looks, new_figure, open_axes

MANY = 1500  # number of points above which their density is drawn instead
MOST_INSIDE = 4  # curves whose legend has room beside them


def plot_classification(
    targets: ArrayLike,
    probabilities: Mapping[str, ArrayLike],
    classes: Sequence[str] = ("class 0", "class 1"),
    data: str = "the data",
    split: str = "test",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> tuple[Figure, str]:
    """Draw ROC curves of a model and its baselines, and the model's scores by class.

    Args:
        targets: Array (N,) of classes 0 and 1.
        probabilities: Name -> array (N,) of probabilities of class 1, or (N, 2). The first is the
            model, the others are its baselines.
        classes: Names of class 0 and class 1.
        data: Name of the data set, for the caption.
        split: Name of the split, for the caption.
        confidence: Confidence level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
        groups: Array (N,); records of one group are resampled together. None for single records.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Raises:
        ValueError: There are no probabilities, not two classes, or as for `evaluation.score`.

    Example:
        >>> figure, caption = plot_classification([0, 0, 1, 1], {"model": [0.2, 0.6, 0.4, 0.9]})
        >>> len(figure.axes)
        2
    """
    if len(classes) != 2:
        raise ValueError(f"classes must name two classes, received {len(classes)}.")
    options = {"confidence": confidence, "resamples": resamples, "seed": seed, "groups": groups}
    scores = _score_each("classification", targets, probabilities, options)
    targets = np.asarray(targets).astype(int)
    positive = {name: _positive(values) for name, values in probabilities.items()}
    model = next(iter(positive))

    many = len(positive) > MOST_INSIDE  # their legend would hide the curves
    figure, (left, right) = _figure(4.6 + many * 0.13 * len(positive))
    _draw_rocs(left, targets, positive, scores, classes)
    if many:
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            fontsize=9,
            frameon=False,
        )
    else:
        left.legend(loc="lower right", fontsize=9, framealpha=1)
    left.set_title(f"ROC curves: AUROC with {confidence:.0%} interval")
    _draw_scores(right, targets, positive[model], classes, model)

    sizes = np.bincount(targets, minlength=2)
    caption = (
        f"Left: ROC curves of {listed(positive, None)} on the {split} split of {data} "
        f"(n = {len(targets):,}: {sizes[1]:,} {classes[1]}, {sizes[0]:,} {classes[0]}). "
        f"AUROC is the chance that a random {classes[1]} record scores above a random "
        f"{classes[0]} record. Right: the probability of {classes[1]} that {model} gives to the "
        f"records of each class. {_how(options)} What stands out: "
        f"{_against('classification', targets, probabilities, scores, options)} "
        f"{_calls(targets, positive[model], classes, model)}"
    )
    return figure, caption


def plot_regression(
    targets: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    quantity: str = "target",
    unit: str = "unit of the data",
    data: str = "the data",
    split: str = "test",
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
) -> tuple[Figure, str]:
    """Draw measured against predicted values, and the Spearman correlation of model and baselines.

    Args:
        targets: Array (N,) of measured values.
        predictions: Name -> array (N,) or (N, 1), in the unit of the targets. The first is the
            model, the others are its baselines.
        quantity: What was measured, such as "fitness".
        unit: Its unit, such as "log enrichment".
        data: Name of the data set, for the caption.
        split: Name of the split, for the caption.
        confidence: Confidence level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
        groups: Array (N,); records of one group are resampled together. None for single records.

    Returns:
        The figure, 1200 pixels wide when saved, and its caption.

    Raises:
        ValueError: There are no predictions, or as for `evaluation.score`.

    Example:
        >>> figure, caption = plot_regression([1.0, 2.0, 3.0], {"model": [1.5, 1.8, 2.9]})
        >>> "n = 3" in caption
        True
    """
    options = {"confidence": confidence, "resamples": resamples, "seed": seed, "groups": groups}
    scores = _score_each("regression", targets, predictions, options)
    targets = np.asarray(targets, dtype=float)
    model = next(iter(predictions))
    predicted = np.asarray(predictions[model], dtype=float).reshape(-1)
    figure, (left, right) = _figure(max(4.6, 0.5 * len(predictions) + 0.8))
    shown = _draw_agreement(figure, left, targets, predicted)
    left.set(xlabel=f"measured {quantity} ({unit})", ylabel=f"predicted {quantity} ({unit})")
    left.set_title(textwrap.fill(f"predictions of {model}", 50))
    spearman = {name: row["Spearman"] for name, row in scores.items()}
    _draw_intervals(right, spearman)
    right.set_title(f"Spearman with {confidence:.0%} interval")
    caption = (
        f"Left: measured and predicted {quantity} of {model} on the {split} split of {data} "
        f"(n = {len(targets):,}); {shown}, and the dashed line is perfect agreement. "
        f"Right: Spearman rank correlation of {listed(predictions, None)}{_undefined(spearman)}. "
        f"{_how(options)} What stands out: "
        f"{_against('regression', targets, predictions, scores, options)} "
        f"{_top_tenth(targets, predicted, quantity)}"
    )
    return figure, caption


def _figure(height: float = 4.6) -> tuple[Figure, np.ndarray]:
    figure = new_figure(10, height)
    axes = figure.subplots(1, 2)
    for ax in axes:
        open_axes(ax)
    return figure, axes


def _wrapped(text: str, whole: str) -> str:
    """Return both texts, in lines of at most 42 letters; spaces in `whole` break no line."""
    joined = text + whole.replace(" ", "\xa0")
    return textwrap.fill(joined, 42).replace("\xa0", " ")


def _draw_rocs(
    ax: Axes,
    targets: np.ndarray,
    positive: Mapping[str, np.ndarray],
    scores: Mapping[str, Scores],
    classes: Sequence[str],
) -> None:
    for (name, values), (colour, style) in zip(positive.items(), looks(len(positive)), strict=True):
        label = _wrapped(f"{name}: ", str(scores[name]["AUROC"]))
        _draw_roc(ax, targets, values, label, colour, style)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, label="chance: 0.500")
    ax.set(
        xlabel=f"false positive rate (fraction of {classes[0]})",
        ylabel=f"true positive rate (fraction of {classes[1]})",
        aspect="equal",
    )


def _draw_roc(
    ax: Axes, targets: np.ndarray, values: np.ndarray, label: str, colour: str, style: LineStyle
) -> None:
    if len(np.unique(targets)) < 2:  # no curve exists; the legend says "undefined"
        ax.plot([], [], color=colour, linestyle=style, label=label)
        return
    false_positives, true_positives, _ = roc_curve(targets, values)
    width = 2.2 if colour == MODEL else 1.5
    ax.plot(
        false_positives, true_positives, color=colour, linestyle=style, linewidth=width, label=label
    )


def _draw_scores(
    ax: Axes, targets: np.ndarray, values: np.ndarray, classes: Sequence[str], model: str
) -> None:
    """Draw a histogram for each class in percent, so that a rare class is visible too."""
    bins = np.linspace(0, 1, 31).tolist()
    for label, (colour, hatch) in enumerate(((OTHERS[3], None), (MODEL, "///"))):
        chosen = values[targets == label]
        ax.hist(
            chosen,
            bins,
            weights=np.full(len(chosen), 100 / max(len(chosen), 1)),
            histtype="stepfilled",
            facecolor=colour + "70",
            edgecolor=colour,
            hatch=hatch,
            linewidth=1.2,
            label=_wrapped(f"{classes[label]} ", f"(n = {len(chosen):,})"),
        )
    ax.axvline(0.5, color=GREY, linewidth=0.8, linestyle="--")
    ax.set(
        xlabel=f"predicted probability of {classes[1]}",
        ylabel="records of the class (%)",
        title=textwrap.fill(f"scores of {model}", 50),
        xlim=(0, 1),
    )
    columns = 2 if len("".join(classes)) <= 24 else 1
    ax.set_ylim(top=(1.4 - 0.1 * columns) * ax.get_ylim()[1])  # room for the legend above any peak
    ax.legend(loc="upper center", fontsize=9, ncols=columns)


def _draw_agreement(figure: Figure, ax: Axes, targets: np.ndarray, predicted: np.ndarray) -> str:
    """Draw points, or their density if they are many, and return a description."""
    if len(targets) > MANY:
        cells = ax.hexbin(targets, predicted, gridsize=45, bins="log", mincnt=1, cmap="cividis")
        figure.colorbar(cells, ax=ax, label="records per hexagon")
        shown = "colour counts the records of each hexagon"
    else:
        ax.scatter(targets, predicted, s=14, alpha=0.4, color=MODEL, linewidths=0)
        shown = "each point is one record"
    ends = [min(targets.min(), predicted.min()), max(targets.max(), predicted.max())]
    ax.plot(ends, ends, color=GREY, linewidth=1, linestyle="--")
    return shown


def _draw_intervals(ax: Axes, intervals: Mapping[str, Interval]) -> None:
    """Draw one row per model, from the top in the order given."""
    for row, (name, interval) in enumerate(intervals.items()):
        colour = MODEL if row == 0 else GREY
        label = f"{name}: {interval}"  # above its bar, where a long name has room
        ax.annotate(
            label,
            (0.02, row - 0.25),
            xycoords=ax.get_yaxis_transform(),
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )
        if math.isnan(interval.value):
            continue
        ax.barh(row, interval.value, height=0.3, color=colour, alpha=0.3)
        ends = [interval.low, interval.high]
        ax.plot(ends, [row, row], color=colour, linewidth=2.5, marker="|", markersize=9)
    lowest = min([0.0, *(row.low for row in intervals.values() if not math.isnan(row.low))])
    ax.set_xlim(lowest * 1.1, 1.02)
    ax.set_ylim(len(intervals) - 0.5, -0.6)
    ax.set_yticks([])
    ax.set_xlabel("Spearman rank correlation (no unit)")
    ax.axvline(0, color=GREY, linewidth=0.8, linestyle="--", zorder=0)


def _score_each(
    task: str, targets: ArrayLike, predictions: Mapping[str, ArrayLike], options: dict[str, Any]
) -> dict[str, Scores]:
    if not predictions:
        raise ValueError(
            "nothing to plot: give a dict with at least one name -> predictions, the model first."
        )
    return {name: score(task, targets, values, **options) for name, values in predictions.items()}


def _positive(probabilities: ArrayLike) -> np.ndarray:
    """Return the probability of class 1, (N,), from (N,), (N, 1) or (N, 2)."""
    probabilities = np.asarray(probabilities, dtype=float)
    return probabilities if probabilities.ndim == 1 else probabilities[:, -1]


def _undefined(intervals: Mapping[str, Interval]) -> str:
    names = [name for name, interval in intervals.items() if math.isnan(interval.value)]
    return f" (undefined for {listed(names, None)}: equal values have no order)" if names else ""


def _how(options: dict[str, Any]) -> str:
    drawn = "records" if options["groups"] is None else "whole groups of records"
    return (
        f"Brackets and bars are {options['confidence']:.0%} percentile bootstrap intervals over "
        f"{options['resamples']:,} resamples of {drawn}, the same for every model (seed "
        f"{options['seed']})."
    )


def _against(
    task: str,
    targets: ArrayLike,
    predictions: Mapping[str, ArrayLike],
    scores: Mapping[str, Scores],
    options: dict[str, Any],
) -> str:
    """Compare the model, the first, with the best of the others, in a sentence."""
    (model, own), *others = scores.items()
    metric = own.headline
    if math.isnan(own[metric].value):
        return f"the {metric} of {model} is undefined on these records."
    if hardly_varies(targets, predictions[model]):
        return f"the predictions of {model} hardly vary, so its {metric} means nothing."
    others = [(name, row) for name, row in others if not math.isnan(row[metric].value)]
    if not others:
        return f"{model} reaches {metric} {own[metric]}, with no baseline to compare with."
    best = max(others, key=lambda item: item[1][metric].value)[0]
    gap = difference(task, targets, predictions[model], predictions[best], **options)[metric]
    stands = f"{model} reaches {metric} {own[metric].value:.3f}"
    if gap.low > 0:
        return f"{stands}, {gap} above the best baseline ({best}): the gain is significant."
    if gap.high < 0:
        loss = Interval(-gap.value, -gap.high, -gap.low)
        return f"{stands}, {loss} below the best baseline ({best}): the baseline is better."
    return (
        f"{stands}, which differs from the best baseline ({best}) by {gap}: "
        f"the difference is not significant on these records."
    )


def _calls(targets: np.ndarray, values: np.ndarray, classes: Sequence[str], model: str) -> str:
    """Describe what the model gets right and wrong at a threshold of 0.5."""
    if len(np.unique(targets)) < 2:
        return "All records are of one class."
    found, wrong = (np.mean(values[targets == label] > 0.5) for label in (1, 0))
    return (
        f"At a probability above 0.5, {model} finds {found:.0%} of the {classes[1]} records and "
        f"wrongly calls {wrong:.0%} of the {classes[0]} records {classes[1]}."
    )


def _top_tenth(targets: np.ndarray, predicted: np.ndarray, quantity: str) -> str:
    """State how many of the highest records are among those predicted highest."""
    if np.ptp(predicted) == 0:
        return "Its predictions are all the same."
    size = max(1, len(targets) // 10)
    top, best = (set(np.argsort(-x, kind="stable")[:size]) for x in (predicted, targets))
    return (
        f"Of the {size:,} records predicted highest in {quantity}, {len(top & best) / size:.0%} "
        f"are among the {size:,} measured highest ({size / len(targets):.0%} by chance)."
    )
