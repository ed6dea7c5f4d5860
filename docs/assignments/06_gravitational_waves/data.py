"""Simulated images of a gravitational-wave detector: time to the right, frequency upwards.

`images` show one of eight `classes`: a chirp of two bodies that merge, six kinds of glitches, or quiet noise;
`labels` are their numbers. `chirps` are images of chirps alone, with the masses of both bodies, `mass_1`
and `mass_2`, in solar masses. Up to six images come from one stretch of noise, 32 seconds of the
detector; `stretch` and `chirp_stretch` say from which.
"""

import numpy as np

import kft

SIZE = 32  # pixels
IMAGES, CHIRPS = 336, 300


def joined(rng, images, **options):
    """Draw images with their targets and parameters, in random order."""
    drawn = kft.data.load(
        "gravitational_waves", images=images, size=SIZE, seed=int(rng.integers(2**31)), **options
    )
    parts = list(drawn.splits.values())
    order = rng.permutation(images)
    pictures = np.stack([image for part in parts for image in part.inputs])[order]
    targets = np.concatenate([part.targets for part in parts])[order]
    return drawn, pictures, targets, np.concatenate([part.parameters for part in parts])[order]


def data(rng):
    """{"images", "labels", "stretch", "classes", "chirps", "mass_1", "mass_2", "chirp_stretch"}."""
    drawn, images, labels, about = joined(rng, IMAGES)
    _, chirps, _, about_chirps = joined(rng, CHIRPS, task="regression")
    return {
        "images": images,
        "labels": labels,
        "stretch": about["stretch"],
        "classes": drawn.classes,
        "chirps": chirps,
        "mass_1": about_chirps["mass_1"],
        "mass_2": about_chirps["mass_2"],
        "chirp_stretch": about_chirps["stretch"],
    }
