"""Windows of an image around its objects, for objects that are small in their image.

A model that resizes an image to a fixed size sees little of an object of a few pixels. Shown a part
of the image around the object, it sees more of it.

Shapes: `N` objects, `H` and `W` of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from kft.arguments import check_instance, check_integer, check_number_above, check_seed
from kft.data.dataset import Split
from kft.data.images.pixels import read_as_stored
from kft.data.label_images import checked_label_image, object_numbers
from kft.data.segmentation.dataset import Segmentation
from kft.segmentation.masks import boxes_of

STEPS = 8  # windows begin at multiples of this part of their side, so that objects share some
SMALLEST = 16  # side of a window in pixels
SHIFT = 0.1  # of a window that is drawn: standard deviation of its middle, as a part of its side
SCALE = (0.8, 1.25)  # of the side of a window that is drawn


class Window(NamedTuple):
    """A part of an image, in pixels: rows y0 to y1 and columns x0 to x1, the ends left out."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def part(self) -> tuple[slice, slice]:
        """Rows and columns, to index an array (H, W) with."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


def window_at(
    middle: Sequence[float], side: float, shape: Sequence[int], steps: int | None = STEPS
) -> Window:
    """Return the square window around a place of an image, moved so that it lies in the image.

    Args:
        middle: x and y in pixels.
        side: Side in pixels; the window is smaller where the image is.
        shape: (H, W).
        steps: The window begins at multiples of `side / steps`; None for any pixel.

    Example:
        >>> window_at((50, 10), 32, (64, 100))
        Window(x0=32, y0=0, x1=64, y1=32)
    """
    side = max(round(side), 1)
    step = max(side // steps, 1) if steps else 1
    starts, ends = [], []
    for at, length in zip(middle, (shape[1], shape[0]), strict=True):
        start = round((at - side / 2) / step) * step
        starts.append(int(np.clip(start, 0, max(0, length - side))))
        ends.append(min(starts[-1] + side, length))
    return Window(*starts, *ends)


def object_windows(
    data: Segmentation, times: float = 7, each: int | None = 16, seed: int = 0
) -> Segmentation:
    """Cut windows around single objects of the training and validation images.

    For `kft.fit` of a model that is prompted, where objects are small in their images; a
    `Predictor` with a `window` shows the model such windows. The label image of a window holds the
    object in its middle only. Windows are shifted, scaled, turned by right angles and mirrored at
    random.

    Args:
        data: Images and label images.
        times: Side of a window as a multiple of the longer side of the object's box.
        each: Most objects of an image; None for all.
        seed: Seed of what is drawn.

    Returns:
        A data set with these windows in train and valid, arrays of the depth of their images; the
        other splits as they are. Images without objects have no windows.

    Raises:
        TypeError: `data` is no `Segmentation`.
        ValueError: A number is out of range, or no image of train has an object.

    Example:
        >>> import kft
        >>> data = kft.data.load("cells", images=6, size=64)
        >>> windows = object_windows(data, each=2)
        >>> len(windows.train) <= 2 * len(data.train), int(windows.train.targets[0].max())
        (True, 1)
    """
    check_instance("data", data, Segmentation, "such as of kft.data.read_segmentation")
    check_number_above("times", times, 1)
    if each is not None:
        check_integer("each", each)
    check_seed("seed", seed)
    parts = {name: part for name in ("train", "valid") if (part := getattr(data, name)) is not None}
    cut: dict[str, Any] = {}
    for number, (name, part) in enumerate(parts.items()):
        pairs = list(_windows(part, times, each, np.random.default_rng((seed, number))))
        if not pairs:
            raise ValueError(f"no image of {name} has an object, so there is nothing to cut.")
        cut[name] = Split([image for image, _ in pairs], [labels for _, labels in pairs])
    counts = " and ".join(f"{len(part):,} of {name}" for name, part in cut.items())
    note = (
        f"Windows of {times:g} times the side of an object in their middle, seed {seed}: {counts}."
    )
    return replace(data, **cut, notes=(*data.notes, note))


def _windows(
    part: Split, times: float, each: int | None, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pixels and the label image of each window."""
    for number, (image, labels) in enumerate(zip(part.inputs, part.targets, strict=True)):
        labels = checked_label_image(labels, f"targets[{number}]")
        pixels = read_as_stored(image, f"inputs[{number}]")
        boxes, numbers = boxes_of(labels), object_numbers(labels)
        for k in rng.permutation(len(numbers))[:each]:
            low, high = boxes[k, :2], boxes[k, 2:]
            side = max(times * (high - low).max() * rng.uniform(*SCALE), SMALLEST)
            middle = (low + high) / 2 + SHIFT * side * rng.standard_normal(2)
            window = window_at(middle, side, labels.shape, steps=None).part
            turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
            shown, found = pixels[window], labels[window] == numbers[k]
            if found.any():
                shown, found = (np.rot90(x, turns) for x in (shown, found))
                if mirrored:
                    shown, found = shown[:, ::-1], found[:, ::-1]
                yield np.ascontiguousarray(shown), np.ascontiguousarray(found).astype("uint16")
