"""Batches to pre-train a small SAM: windows of simulated images, with prompts and dense targets."""

import keras
import numpy as np
from scipy import ndimage

from kft.backbones.sam.prompts import ABSENT, BOTTOM_RIGHT, NOT_A_POINT, POSITIVE, TOP_LEFT
from kft.segmentation.prompts import with_noise
from recipe.sam_discs import waves

LEAST = 12  # pixels of an object that is prompted for
WHOLE = 10  # one step of so many is on a whole image, so that masks end far away, too
REACH = 8  # pixels; unit of the way to the middle of a cell


class Windows(keras.utils.PyDataset):
    """Batches of windows of simulated images, with prompts of the cells in them.

    Args:
        images: (images, S, S, 3).
        labels: Label images (images, S, S).
        patch: Side of a patch in pixels.
        side: Side of a window in patches; it begins at multiples of half of it.
        steps: Batches of an epoch.
        batch_size: Windows of a batch.
        objects: Most objects of a window.
        seed: Seed of all that is drawn.
    """

    def __init__(self, images, labels, patch, side, steps, batch_size, objects, seed):
        super().__init__()
        self.images, self.labels, self.patch, self.side = images, labels, patch, side * patch
        self.steps, self.batch_size, self.objects = steps, batch_size, objects
        self.seed, self.epoch = seed, 0

    def __len__(self):
        return self.steps

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, number):
        rng = np.random.default_rng([self.seed, self.epoch, number])
        whole = number % WHOLE == WHOLE - 1
        side, count = (self.images.shape[1], 1) if whole else (self.side, self.batch_size)
        windows = [self._window(side, rng) for _ in range(count)]
        inputs = {name: np.stack([x[name] for x in windows]) for name in windows[0]}
        return inputs, np.zeros(count, "float32")

    def _window(self, side, rng):
        """Draw a window with a cell, and its prompts and targets."""
        step = self.side // (2 * self.patch)
        most = (self.images.shape[1] - side) // (step * self.patch)
        while True:
            i, turns = rng.integers(len(self.images)), rng.integers(4)
            image, labels = (np.rot90(x[i], turns) for x in (self.images, self.labels))
            if rng.random() < 0.5:
                image, labels = image[:, ::-1], labels[:, ::-1]
            corner = step * rng.integers(most + 1, size=2)  # row and column in patches
            y, x = corner * self.patch
            image, labels = image[y : y + side, x : x + side], labels[y : y + side, x : x + side]
            if (np.bincount(labels.ravel())[1:] >= LEAST).any():
                break
        pixels = image.astype("float32")
        prompts = _prompts(labels, self.patch // 4, (y, x), self.objects, rng)
        dense = _dense(labels, self.patch // 4, (y, x))
        return {"images": pixels, "corner": corner.astype("int32"), **prompts, **dense}


def _prompts(labels, step, corner, objects, rng):
    """Return points, labels, targets, present and the waves of the middle of some objects."""
    sizes = np.bincount(labels.ravel())
    numbers = rng.permutation(np.flatnonzero(sizes[1:] >= LEAST) + 1)[:objects]
    cells = labels.shape[0] // step
    points, kinds = np.zeros((objects, 3, 2)), np.full((objects, 3), ABSENT)
    targets, middles = np.zeros((objects, cells, cells)), np.zeros((objects, 2))
    for i, number in enumerate(numbers):
        mask = labels == number
        targets[i] = mask.reshape(cells, step, cells, step).mean(axis=(1, 3)) >= 0.5
        rows, columns = np.nonzero(mask)
        middles[i] = rows.mean(), columns.mean()
        if rng.random() < 0.5:
            low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
            box = with_noise(np.array([[*low, *high]]), labels.shape[::-1], rng)
            points[i, :2], kinds[i, :2] = box.reshape(2, 2), (TOP_LEFT, BOTTOM_RIGHT)
        else:
            chosen = rng.integers(len(rows))
            points[i, 0], kinds[i, :2] = (columns[chosen], rows[chosen]), (POSITIVE, NOT_A_POINT)
    present = np.arange(objects) < len(numbers)
    arrays = {"points": points + corner[::-1], "targets": targets, "present": present,
              "middles": waves(middles + corner), "draws": rng.random((objects, 1)),
              "given": rng.random((objects, 1)) < 0.5}  # fmt: skip
    return {"labels": kinds.astype("int32"), **{k: x.astype("float32") for k, x in arrays.items()}}


def _dense(labels, step, corner):
    """Return for each cell of logits: inside, the way to the middle, and the middle's waves."""
    at = np.arange(labels.shape[0] // step) * step + step // 2
    found = labels[np.ix_(at, at)]
    numbers = np.unique(labels[labels > 0])
    middles = np.zeros((int(labels.max()) + 1, 2))
    middles[numbers] = ndimage.center_of_mass(labels > 0, labels, numbers)
    way = middles[found] - np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1)
    inside = (found > 0)[..., None]
    arrays = {"inside": inside, "way": inside * way / REACH,
              "waves": inside * (1 + waves(middles[found] + corner))}  # fmt: skip
    return {name: x.astype("float32") for name, x in arrays.items()}
