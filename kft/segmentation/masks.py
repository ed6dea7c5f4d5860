"""Masks, label images and boxes: from one to the other, and into files that other programs open.

Shapes: `N` objects, `H`, `W` height and width. A box is x0, y0, x1, y1 in pixels; pixel (row i,
column j) covers x from j to j + 1 and y from i to i + 1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from kft.arguments import check_path
from kft.data.label_images import checked_label_image, numbered, object_numbers
from kft.data.segmentation.coco import EXTRA, decoded
from kft.data.segmentation.reading import assembled
from kft.files import atomic_write, write_text
from kft.messages import listed, warn

ENDINGS = (".tif", ".tiff", ".png", ".json", ".npy")


def checked_masks(masks: ArrayLike, name: str = "masks") -> np.ndarray:
    """Check masks of objects.

    Args:
        masks: (N, H, W) booleans, or integers or floats of 0 and 1.
        name: Name of the argument, for errors.

    Returns:
        The masks, (N, H, W) bool.

    Raises:
        ValueError: The shape is another, or a value is neither 0 nor 1.

    Example:
        >>> checked_masks([[[0, 1]]]).tolist()
        [[[False, True]]]
    """
    masks = np.asarray(masks)
    if masks.ndim != 3 or masks.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be an array (objects, height, width) of booleans, received "
            f"{masks.dtype} {masks.shape}."
        )
    if masks.dtype == bool:
        return masks
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError(
            f"{name} must be True or False, received values from {masks.min():g} to "
            f"{masks.max():g}: compare logits with a threshold, as in logits > 0."
        )
    return masks.astype(bool)


def to_masks(labels: ArrayLike) -> np.ndarray:
    """Return the mask of each object of a label image.

    Args:
        labels: Label image (H, W), 0 for background.

    Returns:
        Masks (N, H, W) bool, in the order of the objects' numbers.

    Example:
        >>> to_masks([[0, 5], [2, 5]]).astype(int).tolist()
        [[[0, 0], [1, 0]], [[0, 1], [0, 1]]]
    """
    labels = checked_label_image(labels, "labels")
    return labels == object_numbers(labels)[:, None, None]


def to_labels(masks: ArrayLike) -> np.ndarray:
    """Return the label image of masks; a pixel of several belongs to the smallest object.

    Args:
        masks: Masks (N, H, W).

    Returns:
        Label image (H, W), uint16 or int32, with 1, 2, ... in the order of the masks. Masks that
        are empty, or covered by smaller ones, get no number.

    Example:
        >>> to_labels([[[1, 1, 1]], [[0, 1, 0]]]).tolist()
        [[1, 2, 1]]
    """
    masks = checked_masks(masks)
    return assembled(masks, masks.shape[1:])


def boxes_of(objects: ArrayLike) -> np.ndarray:
    """Return the smallest box around each object.

    Args:
        objects: Label image (H, W), or masks (N, H, W).

    Returns:
        Boxes (N, 4) float64, x0, y0, x1, y1 in pixels, for a label image in the order of the
        objects' numbers. A single pixel has a box of 1 x 1; an empty mask one of 0 x 0 at 0.

    Example:
        >>> boxes_of([[0, 1, 1], [0, 1, 1]])
        array([[1., 0., 3., 2.]])
    """
    objects = np.asarray(objects)
    if objects.ndim == 3:
        masks = checked_masks(objects, "objects")
        boxes = np.zeros((len(masks), 4))
        for axis, sides in ((1, (1, 3)), (2, (0, 2))):  # rows are those of y
            occupied = np.asarray(masks.any(axis=3 - axis))
            length = occupied.shape[1]
            boxes[:, sides[0]] = occupied.argmax(axis=1)
            boxes[:, sides[1]] = length - occupied[:, ::-1].argmax(axis=1)
        boxes[~masks.any(axis=(1, 2))] = 0
        return boxes
    labels = checked_label_image(objects, "objects")
    found = ndimage.find_objects(numbered(labels)[0])
    rows = [(x.start, y.start, x.stop, y.stop) for y, x in found]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def cells_of(shape: Sequence[int], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels in the middles of the cells of a square grid that the longer side spans.

    Args:
        shape: (height, width) of the image.
        side: Cells along a side of the grid.

    Returns:
        Rows (h,) and columns (w,) of the pixels, integers, for the cells whose middle is on the
        image; h and w are at most `side`, and one of them is.

    Example:
        >>> cells_of((4, 8), 4)
        (array([1, 3]), array([1, 3, 5, 7]))
    """
    middle = (np.arange(side) + 0.5) * max(shape) / side
    rows, columns = (middle[middle < length].astype(np.int64) for length in shape)
    return rows, columns


# Formats ------------------------------------------------------------------------------------------


def to_rle(masks: ArrayLike) -> list[dict[str, Any]]:
    """Encode masks as COCO does, with pycocotools.

    Args:
        masks: Masks (N, H, W).

    Returns:
        N dicts {"size": [height, width], "counts": string}, which JSON can hold.

    Raises:
        ImportError: pycocotools is missing.

    Example:
        >>> to_rle([[[0, 1, 1], [0, 1, 0]]])
        [{'size': [2, 3], 'counts': '231'}]
    """
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise ImportError(f"writing COCO's format {EXTRA}") from None
    encoded = []
    for mask in checked_masks(masks):
        rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
        encoded.append({"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")})
    return encoded


def from_rle(rles: Sequence[dict[str, Any]]) -> np.ndarray:
    """Decode masks of COCO's run-length encoding.

    Args:
        rles: N dicts {"size": [height, width], "counts": string, bytes or list}, of one size.

    Returns:
        Masks (N, H, W) bool.

    Raises:
        ValueError: One is damaged, or their sizes differ.

    Example:
        >>> from_rle([{"size": [2, 3], "counts": "231"}]).astype(int).tolist()
        [[[0, 1, 1], [0, 1, 0]]]
    """
    masks = [decoded(rle, f"rles[{i}]") for i, rle in enumerate(rles)]
    sizes = {mask.shape for mask in masks}
    if len(sizes) != 1:
        raise ValueError(f"rles must be masks of one size, received {len(sizes)} sizes.")
    return np.stack(masks)


def to_coco(
    masks: ArrayLike, file_name: str, scores: ArrayLike | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Describe the objects of an image as a file of COCO annotations does.

    Args:
        masks: Masks (N, H, W).
        file_name: Name of the image file.
        scores: N numbers, such as predicted IoU, or None.

    Returns:
        {"images", "annotations", "categories"}; kft.data.read_segmentation reads it, too.

    Raises:
        ValueError: There is another number of scores than of masks.
        ImportError: pycocotools is missing.

    Example:
        >>> to_coco([[[0, 1, 1]]], "a.png")["annotations"][0]["bbox"]
        [1.0, 0.0, 2.0, 1.0]
    """
    masks = checked_masks(masks)
    height, width = masks.shape[1:]
    if scores is not None and np.shape(scores) != (len(masks),):
        raise ValueError(
            f"scores must be a number for each of {len(masks):,} masks, received shape "
            f"{np.shape(scores)}."
        )
    annotations = []
    for i, (rle, (x0, y0, x1, y1)) in enumerate(zip(to_rle(masks), boxes_of(masks), strict=True)):
        entry = {"id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": rle}
        entry |= {"area": int(masks[i].sum())}
        entry |= {"bbox": [float(x) for x in (x0, y0, x1 - x0, y1 - y0)]}
        if scores is not None:
            entry["score"] = float(np.asarray(scores)[i])
        annotations.append(entry)
    image = {"id": 1, "file_name": file_name, "height": height, "width": width}
    return {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }


def save_masks(
    masks: ArrayLike,
    path: str | os.PathLike[str],
    image: str | os.PathLike[str] = "image.png",
    scores: ArrayLike | None = None,
) -> Path:
    """Write masks to a file; the ending of its name says in which format.

    Args:
        masks: Masks (N, H, W), or a label image (H, W).
        path: File to write. ".tif" is a label image that napari and Fiji open, ".png" one of 16
            bits, ".json" a file of COCO annotations, ".npy" the masks as booleans.
        image: Path of the image, whose name a file of annotations holds.
        scores: N numbers for a file of annotations, or None.

    Returns:
        The path. A file that was there is replaced once the new one is complete. A warning counts
        the masks that a label image does not hold, see `to_labels`.

    Raises:
        ValueError: The ending is another, or there are more objects than 16 bits number.
        ImportError: tifffile, Pillow or pycocotools is missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_masks([[[0, 1, 1]]], f"{folder}/labels.tif").name
        'labels.tif'
    """
    path = checked_masks_path(path)
    ending = path.suffix.lower()
    masks = np.asarray(masks)
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending in (".json", ".npy"):
        masks = to_masks(masks) if masks.ndim == 2 else checked_masks(masks)
        if ending == ".json":
            write_text(path, json.dumps(to_coco(masks, Path(image).name, scores)) + "\n")
            return path
        with atomic_write(path) as stream:
            np.save(stream, masks)
        return path
    if masks.ndim == 2:
        _write_labels(checked_label_image(masks, "masks"), path)
        return path
    labels = to_labels(masks)
    if hidden := len(masks) - int(labels.max()):
        warn(
            f"{hidden:,} of {len(masks):,} masks are empty, or covered by smaller ones, and are "
            f"not in the label image {path}: write .json or .npy to keep all."
        )
    _write_labels(labels, path)
    return path


def checked_masks_path(path: str | os.PathLike[str], name: str = "path") -> Path:
    """Check the path of a file of masks, so that a long computation fails at its start.

    Args:
        path: As for `save_masks`.
        name: Name of the argument, for errors.

    Returns:
        The path.

    Raises:
        ValueError: Its ending is none of a file of masks.

    Example:
        >>> checked_masks_path("labels.tif").name
        'labels.tif'
    """
    path = check_path(name, path)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"{name} must end in {listed(ENDINGS, most=None)}, received {str(path)!r}."
        )
    return path


def _write_labels(labels: np.ndarray, path: Path) -> None:
    """Write a label image of up to 65,535 objects, as uint16; a TIFF may hold more, as int32."""
    if path.suffix.lower() == ".png":
        if labels.dtype != np.uint16:
            raise ValueError(
                f"{path} cannot hold numbers up to {labels.max():,}: a PNG has 16 bits. Write a "
                ".tif file."
            )
        from PIL import Image

        with atomic_write(path) as stream:
            Image.fromarray(labels).save(stream, format="PNG")
        return
    try:
        import tifffile
    except ImportError:
        raise ImportError(
            'writing a TIFF needs tifffile; install it with pip install "kft[segmentation]".'
        ) from None
    # Fiji shows values in full range only if it is told which they are.
    most = float(labels.max(initial=1))
    options: dict[str, Any] = {"imagej": True, "metadata": {"axes": "YX", "min": 0.0, "max": most}}
    if labels.dtype != np.uint16:  # the format of ImageJ ends at 16 bits
        options = {"metadata": {"axes": "YX"}}
    with atomic_write(path) as stream:
        tifffile.imwrite(stream, labels, photometric="minisblack", compression="zlib", **options)
