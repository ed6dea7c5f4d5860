"""Read your own images: a folder per class, or a table of files and their targets.

Folders named as splits are kept as splits: train, valid (or val, validation, dev) and test, in
upper or lower case, with a folder per class in each, or inside of the folder of each class.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kft.arguments import check_flag, check_optional_integer, check_path, check_seed
from kft.data.cells import Table
from kft.data.columns import READERS, read_weights, task_of
from kft.data.dataset import Dataset, Split
from kft.data.images.pixels import (
    PERCENTILES,
    Frame,
    checked_range,
    find_range,
    looked_into,
    opened,
    wrong_mode,
)
from kft.data.labels import read_labels
from kft.data.splits import PARTS, group_split, joined_groups, random_split
from kft.data.tables import SPELLINGS, check_arguments, read_parts, settle_columns
from kft.data.task import Task
from kft.messages import count_of, listed

IGNORED = {"thumbs.db", "desktop.ini", "icon\r"}  # files that file managers create
DIM = 10  # 16-bit images that are darker than this fraction, 1/10, of the value range are noted
PART_FOLDERS = SPELLINGS | {"training": "train", "dev": "valid", "testing": "test"}
MOST_NAMED = 10  # names that an error lists
TASKS = (Task.CLASSIFICATION, Task.MULTILABEL, Task.REGRESSION)


def read_images(
    path: str | os.PathLike[str],
    inputs: str = "path",
    target: str | Sequence[str] = "y",
    split: str | None = "random",
    groups: str | None = None,
    task: Literal["classification", "multilabel", "regression"] | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    value_range: Sequence[float] | None = None,
    percentiles: Sequence[float] = PERCENTILES,
    missing: Sequence[str] | None = None,
    dropna: bool = False,
    decimal: str | None = None,
    weights: str | None = None,
    frames: int | None = None,
) -> Dataset:
    """Read images with their targets, check that each file is complete, and split them.

    A folder holds one folder per class, or train, valid and test with these. A CSV file names an
    image and its target per line: numbers make a regression, text a classification, several columns
    of 0 and 1 labels. Hidden files are skipped. Needs `pip install "kft[vision]"`.

    Args:
        path: The folder, or a CSV or TSV file in UTF-8 whose first line names the columns.
        inputs: Column of the paths, relative to the folder of the table.
        target: Column of the targets. For labels it is a list of columns that hold 0 or 1, one per
            label; or one column, with `task="multilabel"`, see `kft.data.read_csv`.
        split: "random" (or by folders, if they are splits), a column that names splits, or None.
        groups: Column of groups that a split must not separate (patients, plates), or None.
        task: "classification" (if numbers name classes), "multilabel", "regression", or None: by
            the targets.
        fractions: Fractions of train, valid and test for "random", which is stratified by class, or
            by the labels that occur together.
        seed: Seed for "random".
        value_range: (black, white) for images of 16 bits; None takes the percentiles.
        percentiles: (lower, upper) percentile, from 0 to 100, of the values of the 16-bit images
            in train, which are taken for black and white.
        missing: Words for missing values in a CSV file, see `kft.data.read_csv`.
        dropna: Whether to leave out lines of a CSV file with missing values.
        decimal: Decimal separator of a CSV file, see `kft.data.read_csv`.
        weights: Column of weights of a CSV file, see `kft.data.read_csv`.
        frames: Number, from 0, of the image to take from each file, for files of several, such as
            TIFF stacks and animations; None refuses them.

    Returns:
        The data set. Inputs are `pathlib.Path`, or with `frames` `kft.data.images.pixels.Frame`,
        opened when needed. Classes are sorted; labels are in the order of their columns. A random
        split keeps images with equal pixels together. The notes describe what is unusual.

    Raises:
        FileNotFoundError: The path or an image of the table does not exist.
        ImportError: Pillow is missing.
        ValueError: Files are not single complete images, or an argument, class or line is wrong.

    Example:
        >>> data = read_images("cells.csv", target="area", groups="plate")  # doctest: +SKIP
        >>> data = read_images("cells.csv", target=["round", "dividing"])  # doctest: +SKIP
    """
    path = check_path("path", path)
    _check_options(path, split, task, value_range)
    check_seed("seed", seed)
    check_flag("dropna", dropna)
    check_optional_integer("frames", frames, 0)
    known_task = check_arguments(split, groups, task, target)
    if path.is_dir():
        of_tables = {"missing": missing, "dropna": dropna or None, "decimal": decimal}
        of_tables["weights"] = weights
        _check_folder(path, target, split, groups, known_task, of_tables)
        content = _read_folder(path)
    else:
        table = Table(path, None, missing, decimal)
        by_column = split not in (None, "random") and split in table.header
        used = split if by_column else None
        settle_columns(table, inputs, target, groups, used, known_task, dropna, weights)
        content = _read_table(table, inputs, target, groups, known_task, weights)
    if frames is not None:
        content = replace(content, files=[Frame(Path(x), frames) for x in content.files])
    return _dataset(path, content, split, fractions, seed, value_range, percentiles)


def _dataset(
    path: Path,
    content: _Content,
    split: str | None,
    fractions: Sequence[float],
    seed: int,
    value_range: Sequence[float] | None,
    percentiles: Sequence[float],
) -> Dataset:
    looks, checksum = _verify(content.files, path)
    group_names, parts, how = _split(content, looks, path, split, fractions, seed)
    known_range, *notes = _find_range(content.files, looks, parts, value_range, percentiles)
    notes += _remarks(content, looks, parts, path, split)
    lines = None if content.table is None else np.asarray(content.table.lines)
    everything = Split(
        content.files, content.targets, group_names, weights=content.weights, lines=lines
    )
    valid, test = (everything.take(parts[x]) if x in parts else None for x in ("valid", "test"))
    return Dataset(
        path.stem,
        content.task,
        everything.take(parts["train"]),
        valid,
        test,
        source=str(path),
        licence="not stated (your own files)",
        citation="",
        checksum=checksum,
        classes=content.classes,
        notes=(how, *notes),
        value_range=known_range,
    )


@dataclass(frozen=True)
class _Content:
    """Content of a folder or a table."""

    files: list[Path] | list[Frame]
    targets: np.ndarray
    classes: tuple[str, ...] | None
    task: Task = Task.CLASSIFICATION
    parts: np.ndarray | None = None  # train, valid or test for each file, if folders name them
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    table: Table | None = None


def _check_options(
    path: Path, split: str | None, task: str | None, value_range: Sequence[float] | None
) -> None:
    if not path.exists():
        raise FileNotFoundError(f"`path` is {path}, which is neither a folder nor a file.")
    if task not in (None, *TASKS):
        raise ValueError(
            f"`task` must be {', '.join(map(repr, TASKS))} or None for images; received {task!r}."
        )
    if value_range is not None:
        checked_range(value_range)
    if split == "cluster":
        raise ValueError(
            "`split` is 'cluster', which is for sequences; name groups of near copies in `groups`."
        )


def _split(
    content: _Content,
    looks: Sequence[_Look],
    path: Path,
    split: str | None,
    fractions: Sequence[float],
    seed: int,
) -> tuple[np.ndarray | None, dict[str, Any], str]:
    """Return groups, {part: positions}, and a sentence on how images were split."""
    groups, targets = content.groups, content.targets
    if split is None:
        parts = {"train": np.arange(len(targets))}
        return groups, parts, "Not split: every image is in train."
    if content.parts is not None:
        parts = {part: np.flatnonzero(content.parts == part) for part in PARTS}
        return groups, parts, "Split by the folders train, valid and test."
    if content.table is not None and split != "random":
        return groups, read_parts(content.table, split, groups), f"Split by column {split!r}."
    how = f"Split at random{'' if groups is None else ' by group'}, seed {seed}."
    groups = joined_groups(groups, [look.pixels for look in looks])
    strata = None if content.classes is None else targets
    if groups is None:
        parts = random_split(len(targets), fractions, seed, strata)
    else:
        parts = group_split(groups, fractions, seed, strata)
    if content.task is Task.CLASSIFICATION and content.classes is not None:
        _check_parts(parts, targets, content.classes, path)
    return groups, parts, how


def _check_parts(
    parts: Mapping[str, np.ndarray], targets: np.ndarray, classes: Sequence[str], path: Path
) -> None:
    """Raise an error if a random split leaves a part without a class, which has no score then."""
    few = []
    for number, name in enumerate(classes):
        without = [part for part, at in parts.items() if number not in targets[at]]
        if without:
            total = np.count_nonzero(targets == number)
            few.append(f"{name!r} ({total:,} images, none in {' and '.join(without)})")
    if few:
        raise ValueError(
            f"{path}: {len(few)} of {len(classes)} classes have too few images or groups to be in "
            f"train, valid and test: {_some(few)}. Add images, remove the class, or use split=None."
        )


def is_ignored(path: Path, root: Path) -> bool:
    """Return whether a file or folder below a root is hidden or made by a file manager."""
    parts = path.relative_to(root).parts
    return path.name.lower() in IGNORED or any(part.startswith(".") for part in parts)


def _check_folder(
    root: Path,
    target: str | Sequence[str],
    split: str | None,
    groups: str | None,
    task: Task | None,
    of_tables: Mapping[str, Any],
) -> None:
    """Raise an error for arguments that need a table: a folder gives classes only."""
    given = [name for name, value in of_tables.items() if value is not None]
    if given:
        raise ValueError(
            f"{root} is a folder, which has no cells: `{given[0]}` is for a CSV file, received "
            f"{of_tables[given[0]]!r}; leave it out."
        )
    usual = {
        "target": (target, ("y",)),
        "split": (split, ("random", None)),
        "groups": (groups, (None,)),
        "task": (task, (None, Task.CLASSIFICATION)),
    }
    wrong = [f"{name}={value!r}" for name, (value, known) in usual.items() if value not in known]
    if wrong:
        raise ValueError(
            f"{root} is a folder, which has no columns; its folders name the classes. Leave out "
            f"{' and '.join(wrong)}, or give a CSV file of paths and targets."
        )


def _read_folder(root: Path) -> _Content:
    """Read folders of classes; files are in alphabetical order."""
    folders = _class_folders(root)
    classes = tuple(sorted({name for name, _, _ in folders}))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise ValueError(
            f"{root} should hold one folder per class, at least two; it holds {found}. Put the "
            "images of each class into a folder of its name."
        )
    files: list[Path] = []
    numbers: list[int] = []
    part_of_file: list[str | None] = []
    for name, part, folder in folders:
        inside = files_in(folder, root)
        if not inside:
            raise ValueError(f"{folder}, the folder of a class, is empty; fill or remove it.")
        files += inside
        numbers += [classes.index(name)] * len(inside)
        part_of_file += [part] * len(inside)
    targets = np.array(numbers, dtype=np.int32)
    if part_of_file[0] is None:
        return _Content(files, targets, classes)
    parts = np.array(part_of_file)
    in_train = set(targets[parts == "train"])
    absent = [name for number, name in enumerate(classes) if number not in in_train]
    if absent:
        raise ValueError(
            f"{root}: {len(absent)} of {len(classes)} classes have no images in train: "
            f"{_some(absent)}. Name each class equally in train, valid and test, and put images "
            "of it in train."
        )
    return _Content(files, targets, classes, parts=parts)


def files_in(folder: Path, root: Path) -> list[Path]:
    """List the files in a folder and in those inside it, in alphabetical order.

    Hidden files are left out.

    Args:
        folder: The folder.
        root: The folder that the user has named, for the error.

    Raises:
        ValueError: An entry is no file: a link to nothing, a pipe or a device.
    """
    found = sorted(p for p in folder.rglob("*") if not p.is_dir() and not is_ignored(p, root))
    if other := [str(path) for path in found if not path.is_file()]:
        raise ValueError(
            f"{root}: {len(other):,} entries are links to nothing, pipes or devices, not files: "
            f"{_some(other)}. Remove them, or put copies of the images in their place."
        )
    return found


def _class_folders(root: Path) -> list[tuple[str, str | None, Path]]:
    """List (class, part or None, folder) for each folder with the images of a class."""
    outer = _folders_in(root, root)
    if _are_parts(root, outer):
        pairs = [(part, folder) for part in outer for folder in _folders_in(part, root)]
        return [(folder.name, _part(part), folder) for part, folder in pairs]
    inner = {folder: _inside(folder, root, Path.is_dir) for folder in outer}
    if inner and all(_are_parts(folder, inside) for folder, inside in inner.items()):
        pairs = [(folder, part) for folder in outer for part in _folders_in(folder, root)]
        return [(folder.name, _part(part), part) for folder, part in pairs]
    return [(folder.name, None, folder) for folder in outer]


def _folders_in(folder: Path, root: Path) -> list[Path]:
    """List the folders in a folder, which must hold nothing else."""
    folders, loose = (_inside(folder, root, kind) for kind in (Path.is_dir, Path.is_file))
    if folders and loose:
        names = [path.name for path in loose]
        raise ValueError(
            f"{folder} holds files next to the folders of the classes: {_some(names)}. Move them "
            "into the folder of a class, or away."
        )
    return folders


def _inside(folder: Path, root: Path, kind: Callable[[Path], bool]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if kind(p) and not is_ignored(p, root))


def _part(folder: Path) -> str | None:
    return PART_FOLDERS.get(folder.name.lower())


def _are_parts(root: Path, folders: Collection[Path]) -> bool:
    """Return whether folders are train, valid and test; raise an error if only some of them are."""
    parts = sorted({part for part in map(_part, folders) if part})
    if len(parts) < 2:
        return False  # a single such name may be the name of a class
    names = ", ".join(sorted(folder.name for folder in folders))
    if len(parts) != len(folders) or len(parts) < len(PARTS):
        raise ValueError(
            f"{root} holds the folders {names}, and some of these are named as splits: it should "
            "hold train, valid and test, with a folder per class in each, and nothing else; or one "
            "folder per class, to be split at random. Add, rename or move folders."
        )
    return True


def _read_table(
    table: Table,
    inputs: str,
    target: Any,
    groups: str | None,
    task: Task | None,
    weights: str | None,
) -> _Content:
    """Read a table whose missing cells are settled."""
    cells = table.cells(inputs)
    read: Any
    if task is Task.MULTILABEL:
        read = read_labels(table, target)
    else:
        target_cells = table.cells(target)
        task = task or task_of(table, target, target_cells)
        read = READERS[task](table, target, target_cells, cells)
    targets, classes = read
    names = None if groups is None else np.array(table.column(groups, "groups"))
    files = [table.path.parent / cell for cell in cells]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{table.path} names {len(missing):,} of {len(files):,} images that do not exist: "
            f"{_some(missing)}. Paths are relative to the folder of the table."
        )
    lines: dict[str, list[int]] = {}
    for line, path in zip(table.lines, files, strict=True):
        lines.setdefault(os.path.realpath(path), []).append(line)
    repeated = [
        f"{name} (lines {', '.join(map(str, found))})"
        for name, found in lines.items()
        if len(found) > 1
    ]
    if repeated:
        raise ValueError(
            f"{table.path} names {count_of(len(repeated), 'image')} more than once: "
            f"{_some(repeated)}. A copy could be in both train and test; keep one line of each."
        )
    each = None if weights is None else read_weights(table, weights)
    return _Content(files, targets, classes, task, groups=names, weights=each, table=table)


@dataclass(frozen=True)
class _Look:
    """Result of decoding a file: what is wrong with it, or properties of its pixels."""

    problem: str | None = None
    pixels: str = ""  # digest
    brightest: int | None = None  # largest value, for 16 bits
    colours: bool = False  # whether it has 16-bit colours


def _verify(files: Sequence[Path | Frame], path: Path) -> tuple[list[_Look], str]:
    """Decode every file once; return the results, and the sha256 of names and contents."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ImportError(
            'reading images needs Pillow; install it with pip install "kft[vision]".'
        ) from None
    looks, digest = [], hashlib.sha256()
    for file in files:
        looks.append(_look(file))
        if not looks[-1].problem:
            digest.update(file.name.encode() + b"\0" + Path(file).read_bytes())
    offenders = [f"{f} ({x.problem})" for f, x in zip(files, looks, strict=True) if x.problem]
    if offenders:
        raise ValueError(
            f"{path}: {len(offenders):,} of {len(files):,} files are not complete images: "
            f"{_some(offenders)}. Repair them, or remove them and the lines that name them."
        )
    return looks, digest.hexdigest()


def _look(file: Path | Frame) -> _Look:
    """Decode a file, since a damaged file can have a valid header."""
    if not os.stat(file).st_size:
        return _Look("empty")
    try:
        # Warnings are about unusual metadata or the size, which matter when pixels are used.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = opened(file)
            if problem := wrong_mode(picture):
                return _Look(problem)
            return _Look(None, *looked_into(picture, str(file)))
    except ValueError as error:
        return _Look(str(error))


# Notes ---------------------------------------------------------------------------


def _remarks(
    content: _Content,
    looks: Sequence[_Look],
    parts: Mapping[str, np.ndarray],
    path: Path,
    split: str | None,
) -> Iterator[str]:
    """Yield sentences about unusual things that may be intended."""
    yield from content.table.notes if content.table else ()
    yield from _copies(looks, parts, content.targets)
    if content.parts is not None or split not in ("random", None) or content.targets.ndim > 1:
        yield from _absent(parts, content)
    if content.table and split == "random":
        yield from _ignored_folders(content.files, path.parent)


def _copies(
    looks: Sequence[_Look], parts: Mapping[str, np.ndarray], targets: np.ndarray
) -> Iterator[str]:
    """Yield sentences about images with equal pixels."""
    pixels = np.array([look.pixels for look in looks])
    _, first, copy_of, counts = np.unique(
        pixels, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) == len(pixels):
        return
    other = np.zeros(len(first), dtype=bool)
    differs = (targets != targets[first][copy_of]).reshape(len(targets), -1).any(axis=1)
    other[copy_of[differs]] = True
    yield f"{len(pixels) - len(first):,} images have the same pixels as another; they were kept."
    if other.any():
        yield (
            f"{counts[other].sum():,} images, copies and originals, have different targets for the "
            "same pixels: one of each is wrong, or the target cannot be seen in the image."
        )
    earlier = set(copy_of[parts["train"]])
    for part, before in (("valid", "train"), ("test", "train or valid")):
        if part in parts:
            leaked = sum(number in earlier for number in copy_of[parts[part]])
            earlier |= set(copy_of[parts[part]])
            if leaked:
                yield (
                    f"{leaked:,} {part} images are also in {before}, so {part} scores are too "
                    "high; split='random' keeps copies together."
                )


def _absent(parts: Mapping[str, np.ndarray], content: _Content) -> Iterator[str]:
    """Yield sentences about classes or labels without images in a part."""
    targets, classes = content.targets, content.classes
    if classes is None:
        return
    for part, at in parts.items():
        of_part = targets[at]
        present = of_part.any(axis=0).nonzero()[0] if of_part.ndim > 1 else of_part
        without = [name for k, name in enumerate(classes) if k not in present]
        if without:
            yield (
                f"{len(without)} of {len(classes)} {content.task.outputs_are} have no images in "
                f"{part}: {_some(without)}."
            )


def _find_range(
    files: Sequence[Path | Frame],
    looks: Sequence[_Look],
    parts: Mapping[str, np.ndarray],
    value_range: Sequence[float] | None,
    percentiles: Sequence[float],
) -> tuple[Any, ...]:
    """Return (black, white) or None, and a sentence if there are images of 16 bits."""
    deep = [i for i, look in enumerate(looks) if look.brightest is not None]
    in_train = [i for i in parts["train"] if looks[i].brightest is not None]
    how = "as given"
    if value_range is not None:
        value_range = checked_range(value_range)
    elif in_train:
        value_range = find_range([files[i] for i in in_train], percentiles)
        lower, upper = percentiles
        how = f"percentiles {lower:g} and {upper:g} of the {len(in_train):,} in train"
    if not deep:
        return (value_range,)
    if value_range is None:
        return None, (
            f"{count_of(len(deep), 'image')} of 16 bits, and none in train, so it is not known "
            "which of their values are black and white: give value_range."
        )
    black, white = value_range
    note = (
        f"{count_of(len(deep), 'image')} of 16 bits, with {black:,g} as black and {white:,g} as "
        f"white ({how}; value_range and percentiles change it)"
    )
    dim = sum((looks[i].brightest or 0) < black + (white - black) / DIM for i in deep)
    if dim:
        note += f"; {dim:,} reach no more than a tenth of that, perhaps from another camera"
    colours = sum(looks[i].colours for i in deep)
    if colours:
        note += f"; {colours:,} have colours, and Pillow reads only their upper 8 bits"
    return value_range, note + "."


def _ignored_folders(files: Iterable[Path | Frame], root: Path) -> Iterator[str]:
    """Yield a sentence about folders named as splits that a random split ignores."""
    parts: set[str | None] = set()
    for file in map(Path, files):
        folders = file.relative_to(root).parent.parts if file.is_relative_to(root) else ()
        names = [name.lower() for name in folders]
        parts.add(next((PART_FOLDERS[x] for x in names if x in PART_FOLDERS), None))
    if None not in parts and len(parts) > 1:
        yield (
            f"The images are in folders named {', '.join(sorted(map(str, parts)))}, which were "
            "ignored: to split by them, name a column with these values in `split`."
        )


def _some(names: Sequence[str]) -> str:
    return listed(names, MOST_NAMED)
