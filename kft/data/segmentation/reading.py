"""Read your own images with the objects in them: label images, masks of objects, or COCO files.

The folder has one of these layouts. In each, `images` may also be called image or img, and
`labels` label, masks, mask, annotations or annotation.

- `images/a.png` and `labels/a.png`: a label image for each image, of the same name but for the
  ending. Names such as `a_mask.png` and `a_labels.tif` are found, too.
- `images/a.png` and `labels/a/1.png`, `labels/a/2.png`: a mask for each object.
- `a/images/a.png` and `a/masks/1.png`, `a/masks/2.png`: a folder for each image, as in the Data
  Science Bowl of 2018.
- `a.png` and `a_masks.png` side by side.
- one JSON file of COCO annotations, in the folder or in `annotations`, and the images in the
  folder or in `images`.

`train`, `valid` and `test`, each a folder with one of these layouts, are kept as parts; so are
`images/train` and `labels/train`.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kft.arguments import check_choice, check_instance, check_path, check_seed
from kft.data.dataset import Split
from kft.data.images.folders import PART_FOLDERS, is_ignored
from kft.data.images.pixels import PERCENTILES, checked_range, find_range, opened_as, read_as_stored
from kft.data.label_images import checked_label_image, numbered, object_numbers
from kft.data.segmentation.coco import annotated_mask, read_annotations
from kft.data.segmentation.dataset import Segmentation, checksum_of, pixel_digest
from kft.data.splits import PARTS, group_split, joined_groups, random_split
from kft.data.task import Task
from kft.messages import count_of, listed

IMAGES = ("images", "image", "img")
LABELS = ("labels", "label", "masks", "mask", "annotations", "annotation")
ENDINGS = ("_masks", "_mask", "_labels", "_label", "_cp_masks")  # of names of label images


def read_segmentation(
    path: str | os.PathLike[str],
    split: str | None = "random",
    groups: Mapping[str, str] | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    value_range: Sequence[float] | None = None,
) -> Segmentation:
    """Read images with the objects that are marked in them, and split them by image.

    The layouts are those of the module `kft.data.segmentation.reading`. Hidden files are skipped.
    All images are held in memory. Needs `pip install "kft[vision]"`, and for polygons
    `"kft[segmentation]"`.

    Args:
        path: The folder.
        split: "random" (or by folders, if they are named as parts), or None for train alone.
        groups: {name of an image file: group} for all images. A random split keeps the images of a
            group (a patient, a plate) together. None for none.
        fractions: Fractions of train, valid and test for "random".
        seed: Seed for "random".
        value_range: (black, white) for images of 16 bits; None takes percentiles 0.1 and 99.9 of
            those in train.

    Returns:
        The data set. Inputs are arrays (H, W) or (H, W, 3), uint8 or uint16; targets are label
        images (H, W). A random split keeps images with equal pixels together. Where masks of
        objects overlap, a pixel belongs to the smaller object. The notes count what was left out.

    Raises:
        FileNotFoundError: The folder does not exist.
        ImportError: Pillow or pycocotools is missing.
        ValueError: The folder has no labels, images lack them, labels have another size than their
            image, or an argument is wrong.

    Example:
        >>> data = read_segmentation("nuclei")  # doctest: +SKIP
    """
    root = check_path("path", path)
    if not root.is_dir():
        raise FileNotFoundError(f"`path` is {root}, which is not a folder (from {Path.cwd()}).")
    check_choice("split", split, ["random", None])
    check_seed("seed", seed)
    if value_range is not None:
        checked_range(value_range)
    items = _items(root)
    group_names = _group_names(items, groups)
    images, targets, counts = _read(items)
    everything = Split(images, targets, group_names, input_kind="image")  # type: ignore[arg-type]
    if not any(label.any() for label in targets):
        raise ValueError(f"{root}: none of {len(items):,} images has an object in its labels.")
    parts, how = _parts(items, everything, split, fractions, seed)
    known = _value_range(everything, parts["train"], value_range)
    valid, test = (everything.take(parts[x]) if x in parts else None for x in ("valid", "test"))
    return Segmentation(
        root.name,
        Task.SEGMENTATION,
        everything.take(parts["train"]),
        valid,
        test,
        source=str(root),
        licence="not stated (your own files)",
        citation="",
        checksum=checksum_of(everything),
        notes=(how, *_notes(counts, targets)),
        value_range=known,
    )


# Finding the files --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Item:
    """An image, and what marks its objects.

    Attributes:
        image: Path of the image.
        labels: Path of a label image, or a list of paths of masks or of COCO segmentations.
        part: train, valid or test, if folders name them.
        size: (height, width) that a COCO file gives.
        left_out: Numbers of annotations without a mask of one object, by why.
    """

    image: Path
    labels: Path | list[Any]
    part: str | None = None
    size: tuple[int, int] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)


def _items(root: Path) -> list[_Item]:
    """Find all images and their labels, in alphabetical order."""
    folders = {PART_FOLDERS[x.name.lower()]: x for x in _folders(root) if _is_part(x)}
    if "train" in folders and len(folders) > 1:
        pairs = [(part, folders[part]) for part in PARTS if part in folders]
        return [replace(item, part=part) for part, folder in pairs for item in _layout(folder)]
    return _layout(root)


def _layout(root: Path) -> list[_Item]:
    annotations = sorted([*root.glob("*.json"), *root.glob("annotations/*.json")])
    if annotations:
        return _from_coco(root, annotations)
    images, labels = _named(root, IMAGES), _named(root, LABELS)
    if images and labels:
        return _from_two_folders(images, labels)
    each = [x for x in _folders(root) if _named(x, IMAGES) and _named(x, LABELS)]
    if each:
        return [_from_own_folder(folder) for folder in each]
    side_by_side = {x for x in _files(root) if x.stem.lower().endswith(ENDINGS)}
    if side_by_side:
        return _from_pairs(_files(root), side_by_side, root)
    raise ValueError(
        f"{root} has no labels that are recognised. Put images into {root / 'images'} and label "
        f"images of the same names, or a folder of masks for each, into {root / 'labels'}; or add "
        "a JSON file of COCO annotations. See kft.data.segmentation.reading for other layouts."
    )


def _from_coco(root: Path, files: list[Path]) -> list[_Item]:
    if len(files) > 1:
        raise ValueError(
            f"{root} has {len(files)} JSON files ({listed(x.name for x in files)}): leave one file "
            "of annotations, or put each into a folder train, valid or test with its images."
        )
    items, absent = [], []
    places = [root, *(root / name for name in IMAGES)]
    for entry in read_annotations(files[0]):
        found = next((x / entry.file_name for x in places if (x / entry.file_name).is_file()), None)
        if found is None or not found.resolve().is_relative_to(root.resolve()):
            absent.append(entry.file_name)
            continue
        left_out = {"regions of many objects (iscrowd)": entry.crowds}
        left_out["annotations without a mask"] = entry.without
        items.append(_Item(found, entry.objects, None, entry.size, left_out))
    if absent:
        raise ValueError(
            f"{files[0]} names {count_of(len(absent), 'image')} not in {root}: {listed(absent)}."
        )
    return _some(items, root)


def _from_two_folders(images: Path, labels: Path) -> list[_Item]:
    """Pair images/a.png with labels/a.png, or with the masks in labels/a; folders may nest."""
    found: dict[str, list[Path]] = {}
    for file in _files(labels, deep=True):
        found.setdefault(_key(file.relative_to(labels)), []).append(file)
        found.setdefault(f"{file.relative_to(labels).parent}/", []).append(file)
    items, used = [], set()
    for image in _files(images, deep=True):
        inside = image.relative_to(images)
        key = _key(inside, endings=False)
        masks = found.get(f"{inside.with_suffix('')}/")
        single = found.get(key, [])
        if len(single) > 1:
            raise ValueError(
                f"{image} has {len(single)} label images: {listed(map(str, single))}. Leave one."
            )
        part = PART_FOLDERS.get(inside.parts[0].lower()) if len(inside.parts) > 1 else None
        used |= set(masks or single)
        items.append(_Item(image, masks or (single[0] if single else []), part))
    _check_pairs(items, images)
    other = set(_files(labels, deep=True)) - used
    if other:
        raise ValueError(
            f"{labels} has {len(other):,} files without an image in {images}: "
            f"{listed(sorted(x.name for x in other))}. Remove them, or add the images."
        )
    return items


def _from_own_folder(folder: Path) -> _Item:
    images = _files(_named(folder, IMAGES) or folder)
    if len(images) != 1:
        raise ValueError(
            f"{folder} should have one image beside its masks, it has {len(images)}: "
            f"{listed(x.name for x in images)}."
        )
    return _Item(images[0], list(_files(_named(folder, LABELS) or folder)))


def _from_pairs(files: Sequence[Path], labels: set[Path], root: Path) -> list[_Item]:
    by_name = {_key(Path(x.name)): x for x in files if x in labels}
    images = [x for x in files if x not in labels]
    items = [_Item(x, by_name.get(_key(Path(x.name), endings=False), [])) for x in images]
    _check_pairs(items, root)
    return items


def _check_pairs(items: Sequence[_Item], folder: Path) -> None:
    without = [item.image.name for item in _some(items, folder) if not item.labels]
    if without:
        raise ValueError(
            f"{folder}: {len(without):,} of {len(items):,} images have no labels: "
            f"{listed(without)}. Add a label image for each, all 0 where there are no objects, or "
            "remove the images."
        )


def _some(items: list[_Item] | Sequence[_Item], folder: Path) -> list[_Item]:
    if not items:
        raise ValueError(f"{folder} has no images.")
    return list(items)


def _key(path: Path, endings: bool = True) -> str:
    """Return a path without its suffix, and without an ending such as "_mask"."""
    name = path.stem
    for ending in sorted(ENDINGS, key=len, reverse=True) if endings else ():
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    return str(path.with_name(name)) if name else str(path)


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the folder of one of these names, in upper or lower case."""
    inside = {x.name.lower(): x for x in _folders(folder)}
    return next((inside[name] for name in names if name in inside), None)


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in PART_FOLDERS


def _folders(folder: Path) -> list[Path]:
    return sorted(x for x in folder.iterdir() if x.is_dir() and not x.name.startswith("."))


def _files(folder: Path, deep: bool = False) -> list[Path]:
    found = folder.rglob("*") if deep else folder.iterdir()
    return sorted(x for x in found if x.is_file() and not is_ignored(x, folder))


# Reading them -------------------------------------------------------------------------------------


def _read(items: Sequence[_Item]) -> tuple[list[np.ndarray], list[np.ndarray], Counter[str]]:
    """Return images, label images, and numbers of what was left out or is unusual, by what."""
    counts: Counter[str] = Counter()
    images, targets = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual metadata, which are not used
        for item in items:
            image = read_as_stored(item.image, "the image")
            labels = _labels(item, image.shape[:2], counts)
            counts.update(item.left_out)
            images.append(image)
            targets.append(labels)
    return images, targets, counts


def _labels(item: _Item, shape: tuple[int, ...], counts: Counter[str]) -> np.ndarray:
    """Return the label image of an image of this (height, width)."""
    if isinstance(item.labels, Path):
        labels = _read_labels(item.labels)
        _check_size(item.labels, labels.shape, item.image, shape)
        return labels
    if item.size is not None:
        _check_size(f"the entry of {item.image.name} in the file of annotations", item.size,
                    item.image, shape)  # fmt: skip
    return assembled(_masks(item, shape), shape, counts)


def _masks(item: _Item, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield the mask of each object, (H, W) bool."""
    for i, given in enumerate(item.labels if isinstance(item.labels, list) else ()):
        if isinstance(given, Path):
            mask = _read_labels(given) > 0
            _check_size(given, mask.shape, item.image, shape)
            yield mask
        else:
            height, width = shape
            yield annotated_mask(given, (height, width), f"object {i} of {item.image.name}")


def assembled(
    masks: Iterable[np.ndarray],
    shape: tuple[int, ...],
    counts: Counter[str] | None = None,
) -> np.ndarray:
    """Make a label image of masks, where a pixel of several belongs to the smallest of them.

    Args:
        masks: Masks (H, W) bool of N objects.
        shape: (height, width).
        counts: Counter to which the numbers of empty masks, of overlapping pixels and of objects
            that others cover are added; None for none.

    Returns:
        The label image (H, W), uint16 or int32. Objects have numbers 1, 2, ... in the order of the
        masks, without those that are empty or covered.

    Example:
        >>> assembled([np.ones((2, 2), bool), np.eye(2, dtype=bool)], (2, 2)).tolist()
        [[2, 1], [1, 2]]
    """
    places = [np.flatnonzero(mask) for mask in masks]
    labels = np.zeros(int(np.prod(shape)), dtype=np.int32)
    for i in sorted(range(len(places)), key=lambda i: len(places[i]), reverse=True):
        labels[places[i]] = i + 1
    compact, seen = numbered(labels)
    if counts is not None:
        empty = sum(not len(at) for at in places)
        counts["empty masks"] += empty
        counts["objects that others cover"] += len(places) - empty - len(seen)
        counts["shared"] += sum(map(len, places)) - int(np.count_nonzero(labels))
    return checked_label_image(compact.reshape(shape), "masks")


def _read_labels(path: Path) -> np.ndarray:
    """Read a file of labels; colours are refused, where all channels are not equal."""
    picture = opened_as("the labels", path)
    values = np.asarray(picture)
    if values.ndim == 3:
        colours = values[..., :3] if values.shape[-1] > 2 else values[..., :1]
        if (colours != colours[..., :1]).any():
            raise ValueError(
                f"{path} has colours: a label image has one channel, 0 for background and a number "
                "for each object. Save it as 16-bit grey PNG or TIFF."
            )
        values = colours[..., 0]
    return checked_label_image(values, str(path))


def _check_size(labels: Any, size: tuple[int, ...], image: Path, shape: tuple[int, ...]) -> None:
    if tuple(size) != tuple(shape):
        raise ValueError(
            f"{labels} has {size[1]} x {size[0]} pixels but its image, {image}, has "
            f"{shape[1]} x {shape[0]}: save labels in the size of their image."
        )


# Parts and notes ----------------------------------------------------------------------------------


def _group_names(items: Sequence[_Item], groups: Mapping[str, str] | None) -> np.ndarray | None:
    if groups is None:
        return None
    check_instance("groups", groups, Mapping, "a dict of the names of images and their groups")
    names = [item.image.name for item in items]
    if absent := [name for name in names if name not in groups]:
        raise ValueError(
            f"groups has no group for {len(absent):,} of {len(names):,} images: {listed(absent)}."
        )
    return np.array([str(groups[name]) for name in names])


def _parts(
    items: Sequence[_Item],
    everything: Split,
    split: str | None,
    fractions: Sequence[float],
    seed: int,
) -> tuple[dict[str, np.ndarray], str]:
    """Return {part: positions}, and a sentence on how images were split."""
    if split is None:
        return {"train": np.arange(len(items))}, "Not split: every image is in train."
    named = np.array([item.part or "" for item in items])
    if (named == "train").any() and (named != "").all():
        parts = {part: np.flatnonzero(named == part) for part in PARTS if (named == part).any()}
        return parts, f"Split by the folders {listed(parts, most=None)}."
    names = joined_groups(everything.groups, [pixel_digest(image) for image in everything.inputs])
    if names is None:
        return random_split(len(items), fractions, seed), f"Split at random, seed {seed}."
    how = "images with equal pixels together" if everything.groups is None else "by group"
    return group_split(names, fractions, seed), f"Split at random, {how}, seed {seed}."


def _value_range(
    everything: Split, train: np.ndarray, value_range: Sequence[float] | None
) -> tuple[float, float] | None:
    if value_range is not None:
        return checked_range(value_range)
    return find_range([everything.inputs[i] for i in train], PERCENTILES)


def _notes(counts: Counter[str], targets: Sequence[np.ndarray]) -> Iterator[str]:
    """Yield sentences about what was left out, and about unusual label images."""
    from scipy import ndimage

    shared = counts.pop("shared", 0)
    for what, number in counts.items():
        if number:
            yield f"{number:,} {what} were left out."
    if shared:
        yield f"{shared:,} pixels are in several masks; they belong to the smallest object."
    single = [labels for labels in targets if len(object_numbers(labels)) == 1]
    pieces = sum(ndimage.label(labels)[1] > 1 for labels in single)
    if pieces:
        yield (
            f"{pieces:,} label images have a single number, in several pieces: if the pieces are "
            "objects, give each a number, for instance with scipy.ndimage.label."
        )
    empty = sum(not labels.any() for labels in targets)
    if empty:
        yield f"{count_of(empty, 'image')} without objects: kept."
