"""Striped images of four orientations, with any colour, width and place.

`angles` are the angles of the four classes in degrees, measured across the stripes: 0 for stripes
that stand upright. `images` have values from 0 to 1, `labels` are their classes. Dreams begin with
`noise`; `clouds` is a larger picture to dream on.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

SIDE = 32  # pixels of an image
CLASSES = 4


def stripes(rng, angles, number):
    """Draw striped images of any colour, width and place.

    Args:
        rng: numpy Generator.
        angles: Angle of each class in degrees, across the stripes.
        number: Number of images.

    Returns:
        Float32 array (number, 32, 32, 3) from 0 to 1, and the classes, int (number,).
    """
    labels = rng.permutation(np.arange(number) % len(angles))
    y, x = np.mgrid[:SIDE, :SIDE]
    images = []
    for label in labels:
        angle = np.deg2rad(angles[label] + rng.normal(0, 3))
        frequency, phase = rng.uniform(0.1, 0.2), rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        colour = rng.uniform(0.1, 0.3, 3)
        noise = rng.normal(0, 0.1, (SIDE, SIDE, 3))
        images.append(np.clip(0.5 + wave[..., None] * colour + noise, 0, 1))
    return np.array(images, dtype="float32"), labels


def data(rng):
    """{"angles", "images", "labels", "noise", "clouds"}: the angles, too, are the student's own."""
    angles = rng.uniform(0, 45) + 45.0 * np.arange(CLASSES)
    images, labels = stripes(rng, angles, 160)
    noise = np.clip(rng.normal(0.5, 0.05, (SIDE, SIDE, 3)), 0, 1)
    clouds = gaussian_filter(rng.normal(0, 1, (96, 96, 3)), (6, 6, 0), mode="wrap")
    clouds = np.clip(0.5 + 0.1 * clouds / clouds.std(), 0, 1).astype("float32")
    return {
        "angles": angles,
        "images": images,
        "labels": labels,
        "noise": noise,
        "clouds": clouds,
    }
