"""Simulated images of cells to pre-train a SAM on."""

import numpy as np
from scipy import ndimage

from kft.data.segmentation.cells import simulate_cells

STYLES = ("fluorescence", "bright_field", "fluorescence", "stained")
RADII = (4, 20)  # pixels, of the cells in an image of 256


def simulated(number, size, seed, each=2):
    """Return images (n, size, size, 3) and label images (n, size, size), all with cells.

    Args:
        number: Simulations; of each a few parts are enlarged.
        size: Side of the images in pixels.
        seed: Seed of all that is drawn.
        each: Parts of a simulation.
    """
    pairs = [pair for i in range(number) for pair in _parts(i, size, seed, each)]
    kept = [pair for pair in pairs if pair[1].any()]
    return np.stack([image for image, _ in kept]), np.stack([labels for _, labels in kept])


def _parts(number, size, seed, each):
    """Simulate one image, and cut and enlarge parts so that their cells have a drawn radius."""
    rng = np.random.default_rng((seed, number))
    image, labels = simulate_cells(size, STYLES[number % len(STYLES)], [seed, number])
    image = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
    radius = np.sqrt(np.count_nonzero(labels) / labels.max() / np.pi)
    rows, columns = np.nonzero(labels)
    for _ in range(each):
        wanted = np.exp(rng.uniform(*np.log(RADII))) * size / 256
        side = round(size / max(1, wanted / radius))
        chosen = rng.integers(len(rows))  # a pixel of a cell that is seen
        y, x = (
            int(np.clip(at - rng.integers(side), 0, size - side))
            for at in (rows[chosen], columns[chosen])
        )
        part = image[y : y + side, x : x + side].astype("float32")
        at = ((np.arange(size) + 0.5) * side / size).astype(int)
        found = labels[y : y + side, x : x + side][np.ix_(at, at)]
        zoom = (size / side, size / side, 1)
        part = ndimage.zoom(part, zoom, order=1, mode="nearest", grid_mode=True)
        yield _changed(part, rng), found


def _changed(image, rng):
    """Change an image so that they vary more than in one microscope; return it as uint8."""
    if rng.random() < 0.15:
        image = 255 - image
    if rng.random() < 0.3:
        image = image * rng.uniform(0.4, 1, 3) + rng.uniform(0, 40, 3)
    image = 255 * (image.clip(0, 255) / 255) ** np.exp(rng.uniform(-0.5, 0.5))
    image = image + rng.uniform(0, 8) * rng.standard_normal(image.shape[:2])[..., None]
    return image.clip(0, 255).astype("uint8")
