"""Label images: integers (height, width), 0 where there is no object, else the object's number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_OBJECTS = np.iinfo(np.int32).max


def are_label_images(targets: Any) -> bool:
    """Return whether targets are a list of arrays (height, width)."""
    return isinstance(targets, list) and bool(targets) and all(np.ndim(x) == 2 for x in targets)


def checked_label_image(labels: Any, name: str) -> np.ndarray:
    """Check a label image.

    Args:
        labels: Array (H, W) of booleans, integers, or floats that are whole numbers.
        name: Name of the argument, for errors.

    Returns:
        The labels, (H, W) uint16 where they fit, else int32.

    Raises:
        ValueError: The shape is another, or a value is negative, too large or not whole.

    Example:
        >>> checked_label_image([[0, 1], [0, 2]], "labels").dtype
        dtype('uint16')
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not labels.size or labels.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be a label image, integers (height, width), received {labels.dtype} "
            f"{labels.shape}."
        )
    low, high = labels.min(), labels.max()
    whole = labels.dtype.kind != "f" or bool((np.floor(labels) == labels).all())  # False for NaN
    if not whole or low < 0 or high > MOST_OBJECTS:
        raise ValueError(
            f"{name} has values from {low} to {high}"
            f"{'' if whole else ', not all of them whole numbers'}; a label image has 0 for "
            f"background, and for each object a whole number from 1 to {MOST_OBJECTS:,}."
        )
    dtype = np.uint16 if high <= np.iinfo(np.uint16).max else np.int32
    return labels.astype(dtype, copy=False)


def checked_label_images(targets: Sequence[Any], images: Sequence[Any]) -> list[np.ndarray]:
    """Check the label images of a data set.

    Args:
        targets: N label images.
        images: N images. The sizes of those in files are not looked at.

    Returns:
        The label images, see `checked_label_image`.

    Raises:
        ValueError: One is no label image, or has another size than its image.

    Example:
        >>> checked_label_images([np.eye(2)], [np.zeros((2, 2, 3))])[0].tolist()
        [[1, 0], [0, 1]]
    """
    checked = []
    for i, (target, image) in enumerate(zip(targets, images, strict=True)):
        labels = checked_label_image(target, f"`targets` of record {i}")
        if isinstance(image, np.ndarray) and image.shape[:2] != labels.shape:
            raise ValueError(
                f"`targets` of record {i} has {_size(labels)} pixels but its image has "
                f"{_size(image)}; give label images of the size of their images."
            )
        checked.append(labels)
    return checked


def object_numbers(labels: np.ndarray) -> np.ndarray:
    """Return the numbers of the objects of a label image, ascending.

    Example:
        >>> object_numbers(np.array([[0, 7], [7, 2]]))
        array([2, 7])
    """
    return numbered(labels)[1]


def numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the objects of a label image from 1, without gaps.

    Args:
        labels: Label image (H, W) of integers.

    Returns:
        The label image (H, W) int64; and the numbers (N,) that its objects had, ascending.

    Example:
        >>> numbered(np.array([[0, 7], [7, 2]]))
        (array([[0, 2],
               [2, 1]]), array([2, 7]))
    """
    labels = np.asarray(labels)
    most = int(labels.max(initial=0))
    if most > 2**16 + 4 * labels.size:  # a table of all numbers would be larger than the image
        found, places = np.unique(np.append(labels, 0), return_inverse=True)
        return places[:-1].reshape(labels.shape), found[1:]
    seen = np.bincount(labels.reshape(-1), minlength=1) > 0
    seen[0] = False
    return (np.cumsum(seen) * seen)[labels], np.flatnonzero(seen)


def count_objects(targets: Sequence[np.ndarray]) -> int:
    """Count the objects of label images.

    Example:
        >>> count_objects([np.array([[0, 7], [7, 2]]), np.array([[1]])])
        3
    """
    return sum(len(object_numbers(labels)) for labels in targets)


def _size(image: np.ndarray) -> str:
    """Return the size of an array as width x height."""
    return f"{image.shape[1]} x {image.shape[0]}"
