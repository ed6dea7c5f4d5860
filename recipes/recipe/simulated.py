"""Simulated images of cells to pre-train a SAM on, and dense targets of its image encoder."""

import numpy as np
from scipy import ndimage

from kft.data.segmentation.cells import STYLES, simulate_cells

REACH = 16  # pixels; unit of the way to the middle of a cell


def cells(number, size, seed, few=False):
    """Simulate one image of cells, changed so that they vary more than in one microscope.

    With `few` it is cut to some cells, which are then large.
    """
    rng = np.random.default_rng((seed, number))
    shape = [size, int(size * rng.uniform(0.7, 1))][:: rng.choice([-1, 1])]
    image, labels = simulate_cells(shape, STYLES[number % 3], [seed, number])
    share = rng.choice([1, rng.uniform(0.4, 1)])  # a part of the image shows larger cells
    if few:
        radius = np.sqrt(np.count_nonzero(labels) / labels.max() / np.pi)
        share = min(1, radius * np.exp(rng.uniform(*np.log((3, 10)))) / size)
    sides = [max(16, int(share * side)) for side in labels.shape]
    starts = [rng.integers(s - n + 1) for s, n in zip(labels.shape, sides, strict=True)]
    rows, columns = (slice(a, a + n) for a, n in zip(starts, sides, strict=True))
    image, labels = image[rows, columns].astype("float32"), labels[rows, columns]
    if rng.random() < 0.3:
        image = 255 - image
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
    if rng.random() < 0.3:
        image = image * rng.uniform(0.4, 1, 3) + rng.uniform(0, 40, 3)
    image = 255 * (image.clip(0, 255) / 255) ** np.exp(rng.uniform(-0.5, 0.5))
    image += rng.uniform(0, 8) * rng.standard_normal(image.shape[:2])[..., None]
    return image.clip(0, 255).astype("uint8"), labels


def simulated(number, size, seed, few=False):
    """Return images and label images."""
    pairs = [cells(i, size, seed, few) for i in range(number)]
    kept = [pair for pair in pairs if pair[1].any()]
    return [image for image, _ in kept], [labels for _, labels in kept]


def dense(labels, size):
    """Return for the cells of the grid of logits: is it of an object, and the way to its middle."""
    side = size // 4
    step = max(labels.shape) / side
    middle = ((np.arange(side) + 0.5) * step).astype(int)
    rows, columns = (middle[middle < length] for length in labels.shape)
    found = labels[np.ix_(rows, columns)]
    numbers = np.unique(labels[labels > 0])
    centres = np.zeros((int(labels.max()) + 1, 2))
    if len(numbers):
        centres[numbers] = ndimage.center_of_mass(labels > 0, labels, numbers)
    way = centres[found] - np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
    inside = (found > 0)[..., None]
    targets = np.zeros((side, side, 3), "float32")
    targets[: len(rows), : len(columns)] = np.concatenate(
        [inside, inside * way / step * 4 / REACH], axis=-1
    )
    grid = side // 4  # (4 h, 4 w, 3) -> (h, w, 4 * 4 * 3)
    return targets.reshape(grid, 4, grid, 4, 3).transpose(0, 2, 1, 3, 4).reshape(grid, grid, 48)
