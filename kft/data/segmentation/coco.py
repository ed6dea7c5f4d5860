"""Masks in COCO's format: run lengths, polygons, and files of annotations.

A run-length encoding is {"size": [height, width], "counts": ...}. The counts are the lengths of
runs of 0 and 1 in turn, beginning with 0, down the columns; as a list, or as a string of
pycocotools. The format is that of Lin et al. 2014, "Microsoft COCO" (github cocodataset/cocoapi).

Runs are decoded here, not by pycocotools, whose code in C does not check that they fit the mask.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kft.files import read_json
from kft.messages import count_of, shown

_MOST_JSON = 2**30  # bytes
EXTRA = 'needs pycocotools; install it with pip install "kft[segmentation]".'


def decoded(rle: Any, name: str = "rle") -> np.ndarray:
    """Decode a run-length encoding of COCO.

    Args:
        rle: {"size": [height, width], "counts": list of integers, string or bytes}.
        name: Name of the argument, for errors.

    Returns:
        The mask, (H, W) bool.

    Raises:
        ValueError: It has another form, or its runs do not fill the mask.

    Example:
        >>> decoded({"size": [2, 3], "counts": [2, 3, 1]}).astype(int).tolist()
        [[0, 1, 1], [0, 1, 0]]
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, str | bytes):
            counts = _numbers(counts.encode("ascii") if isinstance(counts, str) else counts)
        runs = np.asarray(counts, dtype=np.int64).reshape(-1)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ValueError(
            f'{name} must be a run-length encoding, {{"size": [height, width], "counts": ...}}, '
            f"received {shown(rle)}."
        ) from None
    if height < 1 or width < 1 or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(
            f"{name} has runs of {runs.sum():,} pixels for a mask of {width} x {height}: it is "
            "damaged, or of another image."
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _numbers(text: bytes) -> list[int]:
    """Return the run lengths of a string: 5 bits per character, and a sixth if more follow.

    From the third run on the difference to the run before the previous one is stored.
    Source: `rleFrString` of cocoapi's maskApi.c.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64:
            raise ValueError("no character of a run-length encoding")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # negative
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("ends within a number")
    return runs


def drawn(polygons: Any, shape: tuple[int, int], name: str = "polygons") -> np.ndarray:
    """Fill polygons as pycocotools does.

    Args:
        polygons: List of polygons, each [x0, y0, x1, y1, ...] of at least three corners in pixels.
        shape: (height, width) of the mask.
        name: Name of the argument, for errors.

    Returns:
        The mask, (H, W) bool: pixels inside of any of the polygons.

    Raises:
        ValueError: A polygon has another form, or a corner is outside of the image.
        ImportError: pycocotools is missing.

    Example:
        >>> drawn([[1, 1, 3, 1, 3, 3, 1, 3]], (4, 4)).sum()
        np.int64(4)
    """
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise ImportError(f"{name}: a polygon {EXTRA}") from None
    height, width = shape
    corners = []
    for polygon in polygons:
        try:
            xy = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
        except (TypeError, ValueError):
            xy = np.zeros((0, 2))
        if len(xy) < 3:
            raise ValueError(
                f"{name} must be lists [x0, y0, x1, y1, ...] of at least three corners, received "
                f"{shown(polygon)}."
            )
        if not ((xy >= -1) & (xy <= (width + 1, height + 1))).all():  # NaN included
            raise ValueError(
                f"{name} has a corner outside of its image of {width} x {height} pixels."
            )
        corners.append(xy.clip(0, (width, height)).reshape(-1).tolist())
    if not corners:
        return np.zeros(shape, dtype=bool)
    return coco.decode(coco.merge(coco.frPyObjects(corners, height, width))).astype(bool)


@dataclass
class Annotated:
    """An image of an annotation file.

    Attributes:
        file_name: Path as the file gives it.
        size: (height, width) as the file gives it, or None.
        objects: Segmentation of each object: polygons or a run-length encoding.
        crowds: Number of regions of many objects ("iscrowd"), which are not among the objects.
        without: Number of annotations without a mask, such as boxes.
    """

    file_name: str
    size: tuple[int, int] | None = None
    objects: list[Any] = field(default_factory=list)
    crowds: int = 0
    without: int = 0


def read_annotations(path: Path) -> list[Annotated]:
    """Read a file of COCO annotations.

    Args:
        path: Path of the JSON file.

    Returns:
        Its images, in the order of the file. Those without annotations have no objects.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, or has not the form of COCO's files.
    """
    content = read_json(path, _MOST_JSON)
    images: dict[Any, Annotated] = {}
    try:
        for entry in content["images"]:
            size = (entry.get("height"), entry.get("width"))
            known = None if None in size else (int(size[0]), int(size[1]))
            images[entry["id"]] = Annotated(str(entry["file_name"]), known)
        by_image = defaultdict(list)
        for entry in content["annotations"]:
            by_image[entry["image_id"]].append((entry.get("segmentation"), entry.get("iscrowd", 0)))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f'{path} must be a file of COCO annotations, with "images" (id, file_name) and '
            f'"annotations" (image_id, segmentation); it is not ({error!r}).'
        ) from None
    if unknown := [image for image in by_image if image not in images]:
        raise ValueError(
            f"{path} has annotations of {count_of(len(unknown), 'image')} that it does not list, "
            f"such as image_id {shown(unknown[0])}."
        )
    for image, entries in by_image.items():
        of_image = images[image]
        of_image.crowds = sum(bool(crowd) for _, crowd in entries)
        masks = [mask for mask, crowd in entries if not crowd]
        of_image.objects = [mask for mask in masks if mask]
        of_image.without = len(masks) - len(of_image.objects)
    return list(images.values())


def annotated_mask(segmentation: Any, shape: tuple[int, int], name: str) -> np.ndarray:
    """Return the mask of a "segmentation" of an annotation: polygons or a run-length encoding.

    Args:
        segmentation: As the file has it.
        shape: (height, width) of the image.
        name: What errors call it.

    Returns:
        The mask, (H, W) bool.

    Raises:
        ValueError: It has another form or size.
    """
    if isinstance(segmentation, dict):
        mask = decoded(segmentation, name)
    elif isinstance(segmentation, list):
        mask = drawn(segmentation, shape, name)
    else:
        raise ValueError(f"{name} must be polygons or run lengths, received {shown(segmentation)}.")
    if mask.shape != tuple(shape):
        raise ValueError(
            f"{name} has {mask.shape[1]} x {mask.shape[0]} pixels but its image has "
            f"{shape[1]} x {shape[0]}."
        )
    return mask
