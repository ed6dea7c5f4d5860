"""Three small problems, each harder than the one before.

`line_*` are points that a straight line separates (labels -1 and 1). `ring_*` are points inside and
outside of a circle (labels 0 and 1), which no line separates. `image_*` are four handwritten
digits (labels 0 to 3), each somewhere on a dark picture of 14 x 14 pixels. The parts whose names
have `test` are for scores alone.
"""

import numpy as np
from sklearn.datasets import load_digits

SIDE = 14


def line(rng, n=80):
    """Points that a line separates, with a margin."""
    direction = rng.standard_normal(2)
    direction /= np.linalg.norm(direction)
    offset, points = rng.uniform(-1, 1), np.zeros((0, 2))
    while len(points) < n:
        drawn = rng.uniform(-3, 3, (4 * n, 2))
        points = np.concatenate([points, drawn[np.abs(drawn @ direction - offset) > 0.25]])
    points = points[:n]
    return points, np.where(points @ direction > offset, 1, -1)


def rings(rng, n):
    """Points inside and outside of a circle."""
    centre, radius = rng.uniform(-0.3, 0.3, 2), rng.uniform(0.9, 1.2)
    angle, inside = rng.uniform(0, 2 * np.pi, n), rng.random(n) < 0.5
    distance = np.where(inside, rng.uniform(0, 0.85, n), rng.uniform(1.15, 2, n)) * radius
    points = centre + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return points.astype("float32"), inside.astype(int)


def pictures(rng, n):
    """Handwritten digits of four kinds, each at a random place."""
    digits = load_digits()
    kinds = rng.choice(10, 4, replace=False)
    chosen = rng.permutation(np.flatnonzero(np.isin(digits.target, kinds)))[:n]
    images = np.zeros((n, SIDE, SIDE, 1), "float32")
    for image, digit in zip(images, digits.images[chosen], strict=True):
        row, column = rng.integers(0, SIDE - 8 + 1, 2)
        image[row : row + 8, column : column + 8, 0] = digit / 16
    return images, np.searchsorted(np.sort(kinds), digits.target[chosen])


def data(rng):
    """A dict of arrays."""
    line_x, line_y = line(rng)
    ring_x, ring_y = rings(rng, 500)
    image_x, image_y = pictures(rng, 640)
    return {
        "line_x": line_x, "line_y": line_y,
        "ring_x": ring_x[:300], "ring_y": ring_y[:300],
        "ring_test_x": ring_x[300:], "ring_test_y": ring_y[300:],
        "image_x": image_x[:480], "image_y": image_y[:480],
        "image_test_x": image_x[480:], "image_test_y": image_y[480:],
    }  # fmt: skip
