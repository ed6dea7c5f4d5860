"""Prompts drawn from instance masks, to train and to test a model that is prompted.

As in Kirillov et al. 2023, "Segment Anything", appendix A: the first prompt of an object is, with
equal probability, a point drawn from its mask or its box with noise on each corner. Further points
are drawn from the region where the last prediction is wrong; such a point is positive where the
object was missed, and negative where the prediction goes beyond it. All is drawn with numpy, for
all objects at once, so it is equal on every backend.

Shapes: `N` objects, `P` points, `H`, `W` height and width. Points are x, y, and boxes x0, y0, x1,
y1, in pixels; the point of pixel (row i, column j) is (j, i).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from kft.arguments import check_integer, check_share
from kft.segmentation.masks import boxes_of, checked_masks

POSITIVE, NEGATIVE, PADDING = 1, 0, -1  # labels of points
NOISE, MOST_NOISE = 0.1, 20.0  # of a box: standard deviation as a share of its side; pixels


@dataclass(frozen=True)
class Prompts:
    """Prompts of N objects of one image.

    Attributes:
        points: Points (N, P, 2) float32, x and y in pixels.
        labels: Labels of the points (N, P) int32: 1 inside of the object, 0 outside of it, -1 for
            padding.
        boxes: Boxes (N, 4) float32, x0, y0, x1, y1 in pixels; NaN for objects without one.
    """

    points: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


def draw_points(masks: ArrayLike, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a pixel of each mask, each pixel with equal probability.

    Args:
        masks: Masks (N, H, W).
        rng: Generator of random numbers.

    Returns:
        Points (N, 2) float32, x and y; and whether there is one, (N,) bool: False for empty masks,
        whose point is (0, 0).

    Example:
        >>> draw_points([[[0, 0], [0, 1]]], np.random.default_rng(0))
        (array([[1., 1.]], dtype=float32), array([ True]))
    """
    masks = checked_masks(masks)
    count, _, width = masks.shape
    owner, place = np.nonzero(masks.reshape(count, -1))
    sizes = np.bincount(owner, minlength=count)
    first = np.cumsum(sizes) - sizes  # of each mask, among all
    chosen = first + (rng.random(count) * sizes).astype(np.int64)
    points = np.zeros((count, 2), dtype=np.float32)
    there = sizes > 0
    at = place[chosen[there]]
    points[there] = np.stack([at % width, at // width], axis=-1)
    return points, there


def draw_boxes(masks: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """Return the box of each mask, with noise on each of its four numbers.

    The noise is normal, with a tenth of the side as standard deviation, and at most 20 pixels.
    Boxes stay in the image and keep an extent of at least one pixel.

    Args:
        masks: Masks (N, H, W).
        rng: Generator of random numbers.

    Returns:
        Boxes (N, 4) float32; NaN for empty masks.

    Example:
        >>> draw_boxes([[[0, 0], [0, 1]]], np.random.default_rng(0)).shape
        (1, 4)
    """
    masks = checked_masks(masks)
    height, width = masks.shape[1:]
    boxes = boxes_of(masks)
    drawn = with_noise(boxes, (width, height), rng)
    drawn[~masks.any(axis=(1, 2))] = np.nan
    return drawn


def with_noise(
    boxes: np.ndarray, size: ArrayLike, rng: np.random.Generator, noise: float = NOISE
) -> np.ndarray:
    """Return boxes with noise, see `draw_boxes`.

    Args:
        boxes: Boxes (N, 4).
        size: (width, height) of the image.
        rng: Generator of random numbers.
        noise: Standard deviation as a share of the side.

    Returns:
        Boxes (N, 4) float32.

    Example:
        >>> with_noise(np.array([[0, 0, 8, 8]]), (8, 8), np.random.default_rng(0)).max()
        np.float32(8.0)
    """
    size = np.asarray(size, dtype=np.float64)
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)  # (N, 4)
    shift = (noise * sides * rng.standard_normal(boxes.shape)).clip(-MOST_NOISE, MOST_NOISE)
    drawn = np.clip(boxes + shift, 0, np.tile(size, 2))
    low = np.minimum(drawn[:, :2], np.maximum(size - 1, 0))
    return np.hstack([low, np.maximum(drawn[:, 2:], low + 1)]).astype(np.float32)


def first_prompts(
    masks: ArrayLike, rng: np.random.Generator, box_probability: float = 0.5
) -> Prompts:
    """Draw the first prompt of each object: a point of its mask, or its box with noise.

    Args:
        masks: Masks (N, H, W).
        rng: Generator of random numbers.
        box_probability: Probability from 0 to 1 of a box.

    Returns:
        Prompts with one point each: padding where the object has a box or an empty mask.

    Raises:
        ValueError: The probability is not from 0 to 1.

    Example:
        >>> first_prompts(np.ones((3, 8, 8)), np.random.default_rng(0), 0.0).labels.tolist()
        [[1], [1], [1]]
    """
    check_share("box_probability", box_probability)
    masks = checked_masks(masks)
    points, there = draw_points(masks, rng)
    boxes = draw_boxes(masks, rng)
    with_box = rng.random(len(masks)) < box_probability
    boxes[~with_box] = np.nan
    labels = np.where(there & ~with_box, POSITIVE, PADDING).astype(np.int32)
    points[labels == PADDING] = 0
    return Prompts(points[:, None], labels[:, None], boxes)


def corrected(
    prompts: Prompts, truth: ArrayLike, predicted: ArrayLike, rng: np.random.Generator
) -> Prompts:
    """Add a point to the prompts of each object, drawn where the prediction is wrong.

    Args:
        prompts: The prompts so far.
        truth: True masks (N, H, W).
        predicted: Masks (N, H, W) that were predicted from these prompts.
        rng: Generator of random numbers.

    Returns:
        The prompts with one more point: positive at a pixel that was missed, negative at one that
        is not of the object; padding where the prediction is right.

    Raises:
        ValueError: Shapes differ.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth = np.ones((1, 8, 8), bool)
        >>> corrected(first_prompts(truth, rng, 0.0), truth, ~truth, rng).labels.tolist()
        [[1, 1]]
    """
    truth, predicted = checked_masks(truth, "truth"), checked_masks(predicted, "predicted")
    if truth.shape != predicted.shape or len(truth) != len(prompts):
        raise ValueError(
            f"truth and predicted must have one shape and a mask for each of the {len(prompts)} "
            f"objects, received {truth.shape} and {predicted.shape}."
        )
    points, wrong = draw_points(truth != predicted, rng)
    columns, rows = points.astype(np.int64).T
    missed = truth[np.arange(len(truth)), rows, columns]
    labels = np.where(wrong, np.where(missed, POSITIVE, NEGATIVE), PADDING).astype(np.int32)
    return replace(
        prompts,
        points=np.concatenate([prompts.points, points[:, None]], axis=1),
        labels=np.concatenate([prompts.labels, labels[:, None]], axis=1),
    )


def rounds_with_mask(rounds: int, rng: np.random.Generator, probability: float = 0.5) -> np.ndarray:
    """Draw in which rounds the last predicted mask is given as a prompt, too.

    Args:
        rounds: Number of rounds.
        rng: Generator of random numbers.
        probability: Probability from 0 to 1 in each round but the first.

    Returns:
        (rounds,) bool. The first is False, as nothing was predicted yet.

    Example:
        >>> rounds_with_mask(8, np.random.default_rng(0)).astype(int).tolist()
        [0, 1, 1, 1, 0, 0, 0, 0]
    """
    check_integer("rounds", rounds)
    return (rng.random(rounds) < probability) & (np.arange(rounds) > 0)
