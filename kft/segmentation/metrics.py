"""How well masks agree with the truth: IoU of single objects, and scores of whole images.

The score of an image is TP / (TP + FP + FN): objects that were found, over these, those that are
not there and those that were missed. An object is found by a mask whose IoU with it is at least a
threshold; each mask finds one object, and pairs are matched so that most objects are found. SA, the
segmentation accuracy, is the mean over the thresholds 0.5, 0.55, ..., 0.95. So in the Data Science
Bowl of 2018 (Caicedo et al. 2019, Nature Methods 16:1247), in StarDist and in micro-sam (Archit et
al. 2025, Nature Methods 22:579).

Shapes: `N` true and `M` predicted objects, `H`, `W` height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from kft.data.label_images import checked_label_image, numbered
from kft.evaluation.means import mean_interval
from kft.evaluation.metrics import Interval, Scores
from kft.segmentation.masks import checked_masks

THRESHOLDS = tuple(np.round(np.arange(0.5, 0.96, 0.05), 2).tolist())


def iou_matrix(truth: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """Compute the intersection over union of each true object with each predicted one.

    Args:
        truth: Label image (H, W).
        predicted: Label image (H, W).

    Returns:
        IoU (N, M) float64 from 0 to 1, in the order of the objects' numbers.

    Raises:
        ValueError: One is no label image, or their sizes differ.

    Example:
        >>> iou_matrix([[1, 1, 2, 2]], [[1, 1, 1, 0]]).round(2).tolist()
        [[0.67], [0.25]]
    """
    truth, predicted = (
        checked_label_image(x, name) for x, name in ((truth, "truth"), (predicted, "predicted"))
    )
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth and predicted must have one size, received {truth.shape} and {predicted.shape}."
        )
    (rows, ours), (columns, theirs) = numbered(truth), numbered(predicted)
    n, m = len(ours) + 1, len(theirs) + 1
    both = np.bincount((rows * m + columns).reshape(-1), minlength=n * m).reshape(n, m)  # pixels
    union = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
    return both[1:, 1:] / np.maximum(union[1:, 1:], 1)


def mask_iou(truth: ArrayLike, predicted: ArrayLike) -> np.ndarray:
    """Compute the intersection over union of pairs of masks.

    Args:
        truth: Masks (N, H, W).
        predicted: Masks (N, H, W), the first for the first object, and so on.

    Returns:
        IoU (N,) float64; 1 where both are empty.

    Raises:
        ValueError: Shapes differ, or values are neither 0 nor 1.

    Example:
        >>> mask_iou([[[1, 1, 0]]], [[[0, 1, 1]]]).round(2)
        array([0.33])
    """
    truth, predicted = checked_masks(truth, "truth"), checked_masks(predicted, "predicted")
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth and predicted must have one shape, received {truth.shape} and "
            f"{predicted.shape}."
        )
    both = np.count_nonzero(truth & predicted, axis=(1, 2))
    either = np.count_nonzero(truth | predicted, axis=(1, 2))
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def accuracy_at(iou: ArrayLike, thresholds: ArrayLike = THRESHOLDS) -> np.ndarray:
    """Compute TP / (TP + FP + FN) at thresholds of the IoU, with most objects matched.

    Args:
        iou: IoU (N, M) of true and predicted objects, which may overlap.
        thresholds: T thresholds above 0.

    Returns:
        Scores (T,) float64 from 0 to 1; 1 for an image without objects in which none is predicted.

    Raises:
        ValueError: The IoU is no matrix, or a threshold is not above 0 and at most 1.

    Example:
        >>> accuracy_at([[0.9, 0.0], [0.6, 0.6]], [0.5, 0.7]).round(2).tolist()
        [1.0, 0.33]
    """
    iou, limits = np.asarray(iou, dtype=np.float64), np.atleast_1d(thresholds)
    if iou.ndim != 2:
        raise ValueError(f"iou must be a matrix, true by predicted objects, received {iou.shape}.")
    if not ((limits > 0) & (limits <= 1)).all():
        raise ValueError(f"thresholds must be above 0 and at most 1, received {thresholds!r}.")
    objects, masks = iou.shape
    if not objects or not masks:
        return np.full(len(limits), float(objects == masks))
    scores = []
    for limit in limits:
        matched = maximum_bipartite_matching(csr_array(iou >= limit), perm_type="column")
        found = int((matched >= 0).sum())
        scores.append(found / (objects + masks - found))
    return np.array(scores)


def score_labels(
    truth: Sequence[ArrayLike],
    predicted: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score the segmentation of whole images, with bootstrap intervals over the images.

    Args:
        truth: Label images of B images.
        predicted: Label images of the same B images.
        groups: B names; images of a group are drawn together. None for single images.
        confidence: Confidence level of the intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        "SA" and "TP/(TP+FP+FN) at 0.5", each the mean over images of `accuracy_at`.

    Raises:
        ValueError: Numbers of images or sizes differ.

    Example:
        >>> print(score_labels([[[1, 1, 0]], [[1, 0, 2]]], [[[1, 1, 0]], [[1, 0, 0]]]))
        SA 0.750 [0.500, 1.000], TP/(TP+FP+FN) at 0.5 0.750 [0.500, 1.000]
    """
    pairs = _paired(truth, predicted)
    each = np.array([accuracy_at(iou_matrix(*pair)) for pair in pairs]).reshape(-1, len(THRESHOLDS))
    options = (groups, confidence, resamples, seed)
    return Scores(
        {
            "SA": mean_interval(each.mean(axis=1), *options),
            "TP/(TP+FP+FN) at 0.5": mean_interval(each[:, 0], *options),
        }
    )


def mean_iou(
    each: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Compute the mean over images of the mean IoU of their objects, with a bootstrap interval.

    Args:
        each: For each of B images the IoU of its objects, as `mask_iou` gives it. Images without
            objects are left out.
        groups: B names; images of a group are drawn together. None for single images.
        confidence: Confidence level of the interval.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        The mean with its interval.

    Example:
        >>> print(mean_iou([[0.5, 0.7], [0.8], []]))
        0.700 [0.600, 0.800]
    """
    kept = [i for i, values in enumerate(each) if np.size(values)]
    means = np.array([np.asarray(each[i], dtype=np.float64).mean() for i in kept])
    names = None if groups is None else np.asarray(groups)[kept]
    return mean_interval(means, names, confidence, resamples, seed)


def _paired(
    truth: Sequence[ArrayLike], predicted: Sequence[ArrayLike]
) -> list[tuple[ArrayLike, ArrayLike]]:
    if len(truth) != len(predicted) or not len(truth):
        raise ValueError(
            f"truth and predicted must hold one label image for each image, received {len(truth)} "
            f"and {len(predicted)}."
        )
    return list(zip(truth, predicted, strict=True))
