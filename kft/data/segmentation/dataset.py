"""`Segmentation`: a data set of images in which objects are marked pixel by pixel."""

from __future__ import annotations

import hashlib

import numpy as np

from kft.data.dataset import Dataset, Split
from kft.data.task import Task


class Segmentation(Dataset):
    """A data set of images and label images, which may differ in size and bit depth.

    Inputs are arrays (height, width) or (height, width, 3); targets are label images
    (height, width) of integers: 0 is background, and each object has a number of its own. The
    arguments are those of `kft.data.Dataset`, with `task="segmentation"` and without classes.

    Raises:
        ValueError: The task is another, or a part has no label images.

    Example:
        >>> labels = np.zeros((8, 8), "uint16")
        >>> labels[2:5, 2:5] = 1
        >>> part = Split([np.zeros((8, 8), "uint8")], [labels])
        >>> toy = Segmentation("toy", "segmentation", part, None, None, source="typed in",
        ...                    licence="none", citation="", checksum="")
        >>> toy.task, toy.task.level
        ('segmentation', 'pixel')
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task is not Task.SEGMENTATION:
            raise ValueError(f"`task` of a Segmentation is 'segmentation', received {self.task!r}.")


def checksum_of(everything: Split) -> str:
    """Return the sha256 of all images and label images, in hexadecimal."""
    digest = hashlib.sha256()
    for image, labels in zip(everything.inputs, everything.targets, strict=True):
        digest.update(pixel_digest(image).encode() + pixel_digest(labels).encode())
    return digest.hexdigest()


def pixel_digest(image: np.ndarray) -> str:
    """Return a digest that is equal for arrays with equal pixels."""
    digest = hashlib.sha256(f"{image.dtype} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()
