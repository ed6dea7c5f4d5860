"""Masks that cost nothing: what a model of segmentation has to exceed.

- An ellipse in the box: for a model that is prompted with a box.
- A disc of the usual radius around the point: for one that is prompted with a point.
- Otsu's threshold and a watershed: for automatic masks. Otsu 1979, IEEE TSMC 9:62; the watershed
  begins at the maxima of the distance to the background, as in scikit-image's guide.

Shapes: `N` objects, `H`, `W` height and width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from kft.arguments import check_integer, check_number_above
from kft.data.images.pixels import read_as_stored
from kft.data.label_images import checked_label_image, numbered

SMALLEST = 15  # pixels of an object of Otsu's baseline
APART = 5  # pixels between the middles of two objects
SMOOTH = 1.0  # pixels, standard deviation of the filter before the threshold


def ellipse_in_box(boxes: ArrayLike, shape: Sequence[int]) -> np.ndarray:
    """Return the ellipse that touches the four sides of each box.

    Args:
        boxes: Boxes (N, 4), x0, y0, x1, y1 in pixels.
        shape: (height, width) of the image.

    Returns:
        Masks (N, H, W) bool: pixels whose middle is inside. The pixel in the middle of a box always
        is, however small the box.

    Raises:
        ValueError: Boxes have another shape, or x1 < x0 or y1 < y0.

    Example:
        >>> ellipse_in_box([[0, 0, 3, 3]], (3, 3))[0].astype(int).tolist()
        [[1, 1, 1], [1, 1, 1], [1, 1, 1]]
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be (objects, 4), x0, y0, x1, y1, received {boxes.shape}.")
    if not (boxes[:, 2:] >= boxes[:, :2]).all():
        wrong = int(np.argmin((boxes[:, 2:] >= boxes[:, :2]).all(axis=1)))
        raise ValueError(
            f"boxes must be x0, y0, x1, y1 with x1 >= x0 and y1 >= y0; box {wrong} is "
            f"{boxes[wrong].tolist()}."
        )
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return _ellipses(middle, np.maximum(half, 0.5), shape)


def disc_at_point(points: ArrayLike, radius: float, shape: Sequence[int]) -> np.ndarray:
    """Return a disc around each point.

    Args:
        points: Points (N, 2), x and y in pixels.
        radius: Radius of all discs in pixels, see `median_radius`.
        shape: (height, width) of the image.

    Returns:
        Masks (N, H, W) bool.

    Raises:
        ValueError: Points have another shape, or the radius is not above 0.

    Example:
        >>> disc_at_point([[1, 1]], 1.0, (3, 3))[0].astype(int).tolist()
        [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    """
    radius = check_number_above("radius", radius)
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must be (objects, 2), x and y, received {points.shape}.")
    return _ellipses(points + 0.5, np.full_like(points, radius), shape)


def _ellipses(middle: np.ndarray, half: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return masks (N, H, W) of ellipses; `middle` and `half` axes are (N, 2), x and y."""
    height, width = shape
    across, down = np.arange(width) + 0.5, np.arange(height) + 0.5  # middles of pixels
    x = ((across - middle[:, :1]) / half[:, :1]) ** 2  # (N, W)
    y = ((down - middle[:, 1:]) / half[:, 1:]) ** 2  # (N, H)
    return x[:, None, :] + y[:, :, None] <= 1


def median_radius(labels: Sequence[ArrayLike]) -> float:
    """Return the median radius of objects, each taken for a disc of its area.

    Args:
        labels: Label images, of the training part.

    Returns:
        The radius in pixels.

    Raises:
        ValueError: There are no objects.

    Example:
        >>> round(median_radius([np.ones((4, 4), int)]), 2)
        2.26
    """
    areas = []
    for i, image in enumerate(labels):
        checked = checked_label_image(image, f"labels[{i}]")
        areas.append(np.unique(checked[checked > 0], return_counts=True)[1])
    if not sum(map(len, areas)):
        raise ValueError(f"labels, {len(labels)} label images, hold no objects.")
    return float(np.median(np.sqrt(np.concatenate(areas) / math.pi)))


def otsu_watershed(image: ArrayLike, smallest: int = SMALLEST, apart: int = APART) -> np.ndarray:
    """Find objects by Otsu's threshold, and cut those that touch with a watershed.

    The brighter side of the threshold is foreground, or the darker one if that is smaller.

    Args:
        image: (H, W) or (H, W, 3) of any depth; or a path.
        smallest: Objects of fewer pixels are left out.
        apart: Least distance in pixels of the middles of two objects.

    Returns:
        Label image (H, W). An image of one value has no objects.

    Raises:
        ImportError: scikit-image is missing.
        ValueError: `image` is no image, or a number is not a positive integer.

    Example:
        >>> image = np.zeros((16, 16))
        >>> image[2:7, 2:7] = image[9:14, 9:14] = 1
        >>> int(otsu_watershed(image).max())
        2
    """
    check_integer("smallest", smallest)
    check_integer("apart", apart)
    try:
        from skimage.feature import peak_local_max
        from skimage.filters import threshold_otsu
        from skimage.segmentation import watershed
    except ImportError:
        raise ImportError(
            'otsu_watershed needs scikit-image; install it with pip install "kft[segmentation]".'
        ) from None
    pixels = read_as_stored(image, "image").astype(np.float64)
    grey = pixels.mean(axis=-1) if pixels.ndim == 3 else pixels
    grey = ndimage.gaussian_filter(grey, SMOOTH)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, dtype=np.uint16)
    bright = grey > threshold_otsu(grey)
    foreground = bright if bright.mean() <= 0.5 else ~bright
    foreground = ndimage.binary_fill_holes(foreground)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(foreground), SMOOTH)
    regions = ndimage.label(foreground)[0]
    peaks = peak_local_max(distance, min_distance=apart, labels=regions, exclude_border=False)
    seeds = np.zeros(grey.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, seeds, mask=foreground)
    sizes = np.bincount(labels.reshape(-1))
    labels[sizes[labels] < smallest] = 0
    return checked_label_image(numbered(labels)[0], "labels")
