"""Figures of segmentation: the masks of objects drawn over their image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from kft.data.images.pixels import read_as_stored
from kft.data.label_images import checked_label_image, numbered, object_numbers
from kft.messages import count_of
from kft.plots.style import MODEL, OTHERS, new_figure

COLOURS = np.array([to_rgb(colour) for colour in (MODEL, *OTHERS[:5])])
OPACITY = 0.35  # of the inside of a mask; its outline is opaque
LONGER = 5.0  # inches, of the longer side of a picture
MOST_DRAWN = 1600  # pixels along the longer side; of larger images each second, third, ... is drawn
PERCENTILES = (0.1, 99.9)  # of the image's values, drawn black and white
TRUTH = "#FFFFFF"


def plot_masks(
    image: Any,
    labels: ArrayLike,
    truth: ArrayLike | None = None,
    points: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
    name: str = "the image",
    how: str = "predicted",
    scores: Mapping[str, object] | None = None,
) -> tuple[Figure, str]:
    """Draw an image beside the same image with the masks of its objects.

    Args:
        image: (H, W) or (H, W, 3) of any depth, or a path.
        labels: Label image (H, W) of the masks to draw.
        truth: Label image (H, W) of the true objects, whose outlines are drawn, or None.
        points: Points of prompts (..., 2), x and y in pixels, or None.
        point_labels: Labels of the points (...): 1 inside, 0 outside, -1 for padding. None for all
            inside.
        boxes: Boxes of prompts (N, 4), x0, y0, x1, y1 in pixels, or None.
        name: What the image is, for the caption.
        how: How the masks were made, for the caption.
        scores: {metric: value} for the caption, such as SA; None for none.

    Returns:
        The figure and its caption.

    Raises:
        ValueError: Sizes differ.

    Example:
        >>> labels = np.zeros((8, 8), int)
        >>> labels[2:5, 2:5] = 1
        >>> figure, caption = plot_masks(np.zeros((8, 8)), labels)
        >>> "1 object" in caption
        True
    """
    pixels = read_as_stored(image, "image")
    labels = checked_label_image(labels, "labels")
    true = None if truth is None else checked_label_image(truth, "truth")
    for called, other in (("labels", labels), ("truth", true)):
        if other is not None and other.shape != pixels.shape[:2]:
            raise ValueError(
                f"{called} has {other.shape[1]} x {other.shape[0]} pixels but the image has "
                f"{pixels.shape[1]} x {pixels.shape[0]}."
            )
    height, width = labels.shape
    scale = LONGER / max(height, width)
    figure = new_figure(2 * max(1.5, width * scale) + 0.2, max(1.5, height * scale) + 0.4)
    left, right = figure.subplots(1, 2)
    step = math.ceil(max(height, width) / MOST_DRAWN)
    small = _stretched(pixels[::step, ::step])
    over = _over(small, labels[::step, ::step])
    for ax, picture, title in ((left, small, "image"), (right, over, "masks")):
        ax.imshow(picture, interpolation="nearest", extent=(0, width, height, 0))
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    if true is not None:
        _outline(right, true[::step, ::step], (0, width, height, 0))
    count = _prompts(left, points, point_labels, boxes)
    return figure, _caption(labels, true, count, name, how, scores)


def _stretched(pixels: np.ndarray) -> np.ndarray:
    """Return colours (H, W, 3) from 0 to 1, with the percentiles drawn black and white."""
    values = pixels.astype(np.float64)
    low, high = np.percentile(values, PERCENTILES)
    values = ((values - low) / (high - low if high > low else 1)).clip(0, 1)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)


def _edges(labels: np.ndarray) -> np.ndarray:
    """Return the pixels of objects, (H, W) bool, beside which another object or background is."""
    padded = np.pad(labels, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return (labels > 0) & np.any([middle != other for other in around], axis=0)


def _over(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the image with coloured masks; neighbours in number have different colours."""
    colours = COLOURS[numbered(labels)[0] % len(COLOURS)]
    opacity = np.where(_edges(labels), 1.0, OPACITY) * (labels > 0)
    return pixels * (1 - opacity[..., None]) + colours * opacity[..., None]


def _outline(ax: Axes, labels: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    drawn = np.zeros((*labels.shape, 4))
    drawn[_edges(labels)] = (*to_rgb(TRUTH), 0.9)
    ax.imshow(drawn, interpolation="nearest", extent=extent)


def _prompts(
    ax: Axes,
    points: ArrayLike | None,
    point_labels: ArrayLike | None,
    boxes: ArrayLike | None,
) -> tuple[int, int]:
    """Draw prompts; return the numbers of points and boxes."""
    xy = np.zeros((0, 2)) if points is None else np.asarray(points, dtype=float).reshape(-1, 2)
    signs = np.ones(len(xy)) if point_labels is None else np.asarray(point_labels).reshape(-1)
    for sign, marker, colour in ((1, "*", OTHERS[3]), (0, "X", OTHERS[0])):
        x, y = xy[signs == sign].T + 0.5  # the middle of the pixel
        ax.scatter(x, y, s=50, marker=marker, color=colour, edgecolor="black", linewidth=0.5)
    given = np.zeros((0, 4)) if boxes is None else np.asarray(boxes, dtype=float).reshape(-1, 4)
    given = given[~np.isnan(given).any(axis=1)]
    for x0, y0, x1, y1 in given:
        ax.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=OTHERS[4], linewidth=1.2)
        )
    return int((signs >= 0).sum()), len(given)


def _caption(
    labels: np.ndarray,
    truth: np.ndarray | None,
    prompts: tuple[int, int],
    name: str,
    how: str,
    scores: Mapping[str, object] | None,
) -> str:
    height, width = labels.shape
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    points, boxes = prompts
    given = [
        count_of(count, one, several)
        for count, one, several in ((points, "point", "points"), (boxes, "box", "boxes"))
        if count
    ]
    parts = [
        f"Masks of {count_of(len(areas), 'object')} in {name} ({width:,} x "
        f"{height:,} pixels), {how}. Left: the image, from percentile {PERCENTILES[0]:g} (black) "
        f"to {PERCENTILES[1]:g} (white)"
        + (f", with the {' and '.join(given)} of the prompts" if given else "")
        + ". Right: masks in colours without a meaning"
        + (", and outlines of the true objects in white." if truth is not None else ".")
    ]
    if scores:
        parts.append(
            ", ".join(f"{metric} {_shown(value)}" for metric, value in scores.items()) + "."
        )
    if not len(areas):
        parts.append("What stands out: there is no mask.")
    else:
        radius = math.sqrt(float(np.median(areas)) / math.pi)
        parts.append(
            f"What stands out: masks cover {areas.sum() / labels.size:.0%} of the image; half of "
            f"them are smaller than {np.median(areas):,.0f} pixels, a disc of radius {radius:.1f}; "
            f"the largest has {areas.max():,}."
        )
    if truth is not None:
        number = len(object_numbers(truth))
        found = int((np.unique(truth[(truth > 0) & (labels > 0)])).size)
        parts.append(f"Of {number:,} true objects, {found:,} are covered at least in part.")
    return " ".join(parts)


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
