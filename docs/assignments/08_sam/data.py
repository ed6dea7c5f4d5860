"""Simulated microscope images of cells, and the shape of a small SAM.

`cells` is a data set: images in which each cell has a number in the label image, in `train`, `valid`
and `test`. `shape` are the arguments of a SAM that is 1,000 times smaller than the published ones,
and `seed` that of its random weights. What it segments is of no use; what is trained, what stays,
and how that is shown are the same for a SAM with 600 million weights.
"""

import kft

IMAGES, SIZE = 18, 64
SHAPE = {
    "num_blocks": 2, "width": 32, "num_heads": 2, "global_blocks": (1,), "image_size": 64,
    "patch_size": 8, "window": 4, "prompt_width": 32, "decoder_heads": 4,
    "decoder_hidden_width": 64, "iou_width": 32,
}  # fmt: skip


def data(rng):
    """{"cells", "shape", "seed"}."""
    drawn, seed = (int(x) for x in rng.integers(2**31, size=2))
    cells = kft.data.load("cells", images=IMAGES, size=SIZE, seed=drawn)
    return {"cells": cells, "shape": dict(SHAPE), "seed": seed}
