"""Masks of all objects of an image, from a grid of points.

A model is prompted with each point of a grid by itself. Of its masks those remain whose predicted
IoU and stability are high; of masks whose boxes nearly coincide, the best. So in Kirillov et al.
2023, "Segment Anything", appendix B, and its `SamAutomaticMaskGenerator`; the label image is
assembled as in micro-sam (Archit et al. 2025).

The model is a function `predict(points) -> (masks, iou, stability)`, so nothing here knows Keras.

Differences from the reference: masks that touch the edge of a crop are left out by the same rule,
but crops are not resized to one size here, which is up to the function that predicts; and small
regions are removed before masks are compared for the last time, with their scores kept.

Shapes: `N` points or objects, `H`, `W` height and width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from scipy import ndimage

from kft.arguments import check_callable, check_instance, check_integer, check_share
from kft.messages import progress
from kft.segmentation.masks import boxes_of, checked_masks, to_labels

Prediction = tuple[np.ndarray, np.ndarray, np.ndarray]
Predict = Callable[[np.ndarray], Prediction]
Crop = tuple[int, int, int, int]
THRESHOLDS = MappingProxyType({"iou": 0.88, "stability": 0.95})  # of the original
MOST_PIXELS = 2**30  # of the masks that are predicted at once, 1 GiB of booleans
EDGE = 20  # pixels; a mask this near to the edge of a crop is cut off by it


@dataclass(frozen=True)
class Settings:
    """Settings of automatic masks; the defaults are those of the original.

    Args:
        points_per_side: Points along each side of the grid.
        points_per_batch: Points that are given to the model at once; fewer in large images, so
            that three masks of each take at most 1 GiB.
        iou: Least predicted IoU of a mask; None for that of the model (`Sam.automatic`), or the
            0.88 of the original.
        stability: Least stability of a mask: the IoU of the masks at a higher and at a lower
            threshold of the logits; None for that of the model, or the 0.95 of the original.
        overlap: IoU of two boxes from which the worse mask is left out.
        least_area: Pixels; smaller islands and holes of masks are removed, and masks that are
            smaller.
        most_area: Largest share of the image that a mask may cover; background is often a mask.
        crop_layers: Layers of crops that are segmented by themselves: layer k has 2^k by 2^k.
        crop_overlap: Overlap of crops, as a share of the shorter side of the image.
        crop_points_divisor: Layer k has grids with 1 / divisor^k of the points per side.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> Settings(points_per_side=16, iou=0.5).points_per_side
        16
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    iou: float | None = None
    stability: float | None = None
    overlap: float = 0.7
    least_area: int = 0
    most_area: float = 1.0
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    crop_points_divisor: int = 1

    def __post_init__(self) -> None:
        for name, least in (
            ("points_per_side", 1), ("points_per_batch", 1), ("least_area", 0), ("crop_layers", 0),
            ("crop_points_divisor", 1),
        ):  # fmt: skip
            check_integer(name, getattr(self, name), least)
        for name in ("iou", "stability", "overlap", "most_area", "crop_overlap"):
            if getattr(self, name) is not None or name not in THRESHOLDS:
                check_share(name, getattr(self, name))

    def with_thresholds(self, thresholds: Mapping[str, float]) -> Settings:
        """Return the settings with thresholds in place of those that are None.

        Args:
            thresholds: "iou" and "stability"; what is missing is that of the original.

        Example:
            >>> Settings(stability=0.9).with_thresholds({"iou": 0.5, "stability": 0.6})
            Settings(points_per_side=32, points_per_batch=64, iou=0.5, stability=0.9, ...
        """
        found = {**THRESHOLDS, **thresholds}
        iou, stability = (
            found[name] if getattr(self, name) is None else getattr(self, name)
            for name in THRESHOLDS
        )
        return replace(self, iou=iou, stability=stability)


@dataclass(frozen=True)
class Found:
    """Masks of the objects of an image, the best first.

    Attributes:
        masks: Masks (N, H, W) bool, which may overlap.
        iou: Predicted IoU (N,).
        stability: Stability (N,).
        points: Points (N, 2), x and y in pixels, that gave the masks.
        dropped: Number of masks that were left out, by why.
    """

    masks: np.ndarray = field(repr=False)
    iou: np.ndarray
    stability: np.ndarray
    points: np.ndarray
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def labels(self) -> np.ndarray:
        """Label image (H, W); a pixel of several masks belongs to the smallest."""
        return to_labels(self.masks)


def grid_of_points(points_per_side: int, shape: Sequence[int]) -> np.ndarray:
    """Return the points of a regular grid, in the middle of equal tiles.

    Args:
        points_per_side: Points along each side.
        shape: (height, width) of the image.

    Returns:
        Points (points_per_side^2, 2) float64, x and y in pixels, row by row.

    Example:
        >>> grid_of_points(2, (8, 4)).tolist()
        [[1.0, 2.0], [3.0, 2.0], [1.0, 6.0], [3.0, 6.0]]
    """
    check_integer("points_per_side", points_per_side)
    height, width = shape
    middles = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(middles * width, middles * height)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def box_nms(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Return which boxes remain when those that overlap a better one are left out.

    Args:
        boxes: Boxes (N, 4), x0, y0, x1, y1.
        scores: Scores (N,); of equal ones the first is better.
        overlap: IoU above which the worse of two boxes is left out.

    Returns:
        Positions of the boxes that remain, the best first.

    Source: greedy non-maximum suppression, as `torchvision.ops.nms`.

    Example:
        >>> boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 3], [6, 6, 8, 8]])
        >>> box_nms(boxes, np.array([0.5, 0.9, 0.7]), 0.7).tolist()
        [1, 2]
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    waiting = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[waiting, :2])
        high = np.minimum(boxes[best, 2:], boxes[waiting, 2:])
        both = np.maximum(high - low, 0).prod(axis=1)
        union = areas[best] + areas[waiting] - both
        waiting = waiting[both <= overlap * union]
    return np.array(kept, dtype=np.int64)


def without_small_regions(mask: np.ndarray, least_area: int) -> np.ndarray:
    """Fill holes and remove islands of fewer pixels than an area.

    Args:
        mask: Mask (H, W) bool.
        least_area: Area in pixels.

    Returns:
        The mask (H, W) bool. If all islands are smaller, the largest stays.

    Source: `remove_small_regions` of the original, with pixels connected across corners.

    Example:
        >>> without_small_regions(np.array([[1, 1, 0, 0, 1]], bool), 2).astype(int).tolist()
        [[1, 1, 0, 0, 0]]
    """
    for value in (False, True):  # holes, then islands
        regions, count = ndimage.label(mask == value, structure=np.ones((3, 3)))
        sizes = np.bincount(regions.reshape(-1), minlength=count + 1)[1:]
        small = sizes < least_area
        if value and count and small.all():
            small[sizes.argmax()] = False
        if small.any():
            mask = np.where(np.append(False, small)[regions], not value, mask)
    return mask


def crops_of(shape: Sequence[int], layers: int, overlap: float) -> list[tuple[int, Crop]]:
    """List the crops of an image, layer by layer; layer 0 is the whole image.

    Args:
        shape: (height, width) of the image.
        layers: Layers beyond the first.
        overlap: Overlap of crops in layer 1, as a share of the shorter side.

    Returns:
        Pairs of the layer and (x0, y0, x1, y1) in pixels.

    Source: `generate_crop_boxes` of the original.

    Example:
        >>> crops_of((100, 100), 1, 0.2)[1:3]
        [(1, (0, 0, 60, 60)), (1, (40, 0, 100, 60))]
    """
    height, width = shape
    crops: list[tuple[int, Crop]] = [(0, (0, 0, width, height))]
    for layer in range(1, layers + 1):
        per_side = 2**layer
        shared = int(overlap * min(height, width) * (2 / per_side))
        steps = [math.ceil((shared * (per_side - 1) + n) / per_side) for n in (width, height)]
        starts = [[i * (step - shared) for i in range(per_side)] for step in steps]
        crops += [
            (layer, (x, y, min(x + steps[0], width), min(y + steps[1], height)))
            for y in starts[1]
            for x in starts[0]
        ]
    return crops


def find_masks(
    predict: Predict,
    shape: Sequence[int],
    settings: Settings | None = None,
    crop: Callable[[Crop], Predict] | None = None,
) -> Found:
    """Find the masks of all objects of an image.

    Args:
        predict: Function of points (N, 1, 2), x and y in pixels of the image, that returns masks
            (N, K, H, W) bool, the predicted IoU (N, K) and the stability (N, K) of K masks a point.
        shape: (height, width) of the image.
        settings: Settings; None for those of the original.
        crop: For settings with crops: function of (x0, y0, x1, y1) that returns such a function
            for that part of the image, whose points and masks are in pixels of the part.

    Returns:
        The masks that remain, the best first, with the numbers of those that do not.

    Raises:
        ValueError: Settings have crops and `crop` is None, or shapes of a prediction do not fit.
        TypeError: `predict` is no function, or `settings` no `Settings`.

    Example:
        >>> def predict(points):  # a disc of radius 3 around (8, 8) for every point
        ...     x, y = np.meshgrid(np.arange(16), np.arange(16))
        ...     masks = np.tile((x - 8) ** 2 + (y - 8) ** 2 <= 9, (len(points), 1, 1, 1))
        ...     return masks, np.full((len(points), 1), 0.9), np.full((len(points), 1), 0.96)
        >>> len(find_masks(predict, (16, 16), Settings(points_per_side=4)))
        1
    """
    check_callable("predict", predict, "a function of points that returns masks")
    settings = Settings() if settings is None else settings
    check_instance("settings", settings, Settings, "a kft.segmentation.Settings")
    settings = settings.with_thresholds({})
    if settings.crop_layers and crop is None:
        raise ValueError(
            "settings have crops, for which `crop` must be a function of (x0, y0, x1, y1) that "
            "returns the function that predicts there; received None."
        )
    height, width = shape
    dropped: dict[str, int] = {}
    kept: list[_Candidate] = []
    crops = crops_of((height, width), settings.crop_layers, settings.crop_overlap)
    with progress("points") as bar:
        task = bar.add_task(
            "masks", total=sum(_points_per_side(settings, i) ** 2 for i, _ in crops)
        )
        for layer, part in crops:
            of_crop = predict if layer == 0 or crop is None else crop(part)
            found = []
            for points, some in _candidates(
                of_crop, part, layer, (height, width), settings, dropped
            ):
                found += some
                bar.advance(task, points)
            kept += _best(found, [x.iou for x in found], settings.overlap, dropped)
    if settings.crop_layers:  # of equal masks that of the smaller crop is better
        kept = _best(kept, [float(x.layer) for x in kept], settings.overlap, dropped)
    kept = _cleaned(kept, settings, (height, width), dropped)
    kept.sort(key=lambda one: -one.iou)
    return Found(
        np.stack([one.whole((height, width)) for one in kept])
        if kept
        else np.zeros((0, height, width), dtype=bool),
        np.array([one.iou for one in kept], dtype=np.float64),
        np.array([one.stability for one in kept], dtype=np.float64),
        np.array([one.point for one in kept], dtype=np.float64).reshape(-1, 2),
        dropped,
    )


@dataclass(frozen=True)
class _Candidate:
    """A mask, of which only the part within its box is kept."""

    window: np.ndarray
    box: np.ndarray  # x0, y0, x1, y1, integers in pixels of the image
    iou: float
    stability: float
    point: np.ndarray
    layer: int

    def whole(self, shape: tuple[int, int]) -> np.ndarray:
        mask = np.zeros(shape, dtype=bool)
        x0, y0, x1, y1 = self.box
        mask[y0:y1, x0:x1] = self.window
        return mask


def _candidates(
    predict: Predict,
    crop: Crop,
    layer: int,
    shape: tuple[int, int],
    settings: Settings,
    dropped: dict[str, int],
) -> Iterator[tuple[int, list[_Candidate]]]:
    """Yield numbers of points of a crop, with those of their masks that are good enough."""
    x0, y0, x1, y1 = crop
    part, corner = (y1 - y0, x1 - x0), np.array([x0, y0])
    points = grid_of_points(_points_per_side(settings, layer), part)
    at_once = max(1, min(settings.points_per_batch, MOST_PIXELS // (3 * math.prod(part))))
    for start in range(0, len(points), at_once):
        batch = points[start : start + at_once]
        masks, iou, stability = _checked(predict(batch[:, None]), len(batch), part)
        good = {"of low predicted IoU": iou >= settings.iou}
        good["of low stability"] = stability >= settings.stability
        good["empty"] = np.asarray(masks.any(axis=(1, 2)))
        keep = _all_of(good, dropped)
        boxes = boxes_of(masks[keep]).astype(np.int64)
        inside = ~_cut_off(boxes, crop, shape)
        _count(dropped, "cut off by a crop", int((~inside).sum()))
        owner = keep // (len(masks) // len(batch))
        found = []
        for i, box, point in zip(keep[inside], boxes[inside], batch[owner[inside]], strict=True):
            left, top, right, bottom = box
            found.append(
                _Candidate(
                    masks[i, top:bottom, left:right].copy(),
                    box + np.tile(corner, 2),
                    float(iou[i]),
                    float(stability[i]),
                    point + corner,
                    layer,
                )
            )
        yield len(batch), found


def _points_per_side(settings: Settings, layer: int) -> int:
    """Return how many points of the grid are on a side of a crop."""
    return max(1, int(settings.points_per_side / settings.crop_points_divisor**layer))


def _checked(
    prediction: Prediction, points: int, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return masks (N K, H, W), IoU and stability (N K,)."""
    masks, iou, stability = (np.asarray(x) for x in prediction)
    fits = masks.ndim == 4 and masks.shape[0] == points and masks.shape[2:] == shape
    if not fits or not masks.shape[:2] == iou.shape == stability.shape:
        raise ValueError(
            f"predict must return masks ({points}, K, {shape[0]}, {shape[1]}), iou ({points}, K) "
            f"and stability ({points}, K); received {masks.shape}, {iou.shape} and "
            f"{stability.shape}."
        )
    return checked_masks(masks.reshape(-1, *shape)), iou.reshape(-1), stability.reshape(-1)


def _all_of(good: dict[str, np.ndarray], dropped: dict[str, int]) -> np.ndarray:
    """Return the positions where all hold; each that is left out is counted once."""
    keep = np.ones(len(next(iter(good.values()))), dtype=bool)
    for why, holds in good.items():
        _count(dropped, why, int((keep & ~holds).sum()))
        keep &= holds
    return np.flatnonzero(keep)


def _count(dropped: dict[str, int], why: str, number: int) -> None:
    if number:
        dropped[why] = dropped.get(why, 0) + number


def _cut_off(boxes: np.ndarray, crop: Crop, shape: tuple[int, int]) -> np.ndarray:
    """Return which boxes, in pixels of the crop, touch an edge that is not one of the image."""
    x0, y0, x1, y1 = crop
    height, width = shape
    whole = boxes + np.array([x0, y0, x0, y0])
    near_crop = np.abs(whole - [x0, y0, x1, y1]) < EDGE
    near_image = np.abs(whole - [0, 0, width, height]) < EDGE
    return (near_crop & ~near_image).any(axis=1)


def _best(
    found: list[_Candidate], scores: list[float], overlap: float, dropped: dict[str, int]
) -> list[_Candidate]:
    boxes = np.array([one.box for one in found]).reshape(-1, 4)
    kept = box_nms(boxes, np.array(scores), overlap)
    _count(dropped, "on a better mask", len(found) - len(kept))
    return [found[i] for i in kept]


def _cleaned(
    kept: list[_Candidate], settings: Settings, shape: tuple[int, int], dropped: dict[str, int]
) -> list[_Candidate]:
    """Remove small regions, and masks that are too small or too large."""
    most = settings.most_area * shape[0] * shape[1]
    cleaned, scores = [], []
    for one in kept:
        mask = one.whole(shape)
        tidy = without_small_regions(mask, settings.least_area) if settings.least_area else mask
        area = np.count_nonzero(tidy)
        if area < settings.least_area or area > most:
            _count(dropped, "too small" if area < settings.least_area else "too large", 1)
            continue
        changed = bool((tidy != mask).any())
        scores.append(float(not changed))  # one that needed no change is better
        if changed:
            box = boxes_of(tidy[None])[0].astype(np.int64)
            x0, y0, x1, y1 = box
            one = _Candidate(tidy[y0:y1, x0:x1], box, one.iou, one.stability, one.point, one.layer)
        cleaned.append(one)
    return _best(cleaned, scores, settings.overlap, dropped) if settings.least_area else cleaned
