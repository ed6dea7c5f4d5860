"""Read the user's own images: a folder per class, or a table that names files and their targets."""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np

from kft.pixels import opened, wrong_mode

from .dataset import Dataset, Split
from .splits import PARTS, group_split, random_split
from .tables import (
    Table,
    check_arguments,
    read_classes,
    read_numbers,
    read_parts,
    task_of,
)

LITTER = {"thumbs.db", "desktop.ini", "icon\r"}  # what file managers leave behind
MOST_NAMED = 10  # offenders that an error lists


def read_images(
    path,
    inputs="path",
    target="y",
    split="random",
    groups=None,
    task=None,
    fractions=(0.7, 0.15, 0.15),
    seed=0,
):
    """Read images with their targets, open each once to see that it is whole, and split them.

    A folder holds a folder per class. A CSV file names an image per line, relative to itself, and
    a target: numbers make a regression, text a classification; say `task="classification"` if
    numbers name classes. Hidden files are passed over. Needs `pip install "kft[vision]"`.

    Args:
        path: the folder, or a CSV or TSV file in UTF-8 whose first line names the columns.
        inputs: column of the paths. A folder has no columns.
        target: column of the targets.
        split: "random"; a column that says train, valid or test; or None: all in `train`.
        groups: column of groups that a split must not separate (patients, plates), or None.
        task: "classification", "regression", or None: by the targets.
        fractions: the shares of train, valid and test for "random", which keeps classes in balance.
        seed: integer, for "random".

    Returns:
        Dataset: inputs are `pathlib.Path`, opened when they are needed. Classes are sorted.

    Raises:
        FileNotFoundError: if the path, or an image that the table names, is missing.
        ImportError: if Pillow is not installed.
        ValueError: if files are no whole images (up to ten are named), or an argument, a class, a
            column or a line is wrong.

    Example:
        >>> data = read_images("cells.csv", target="area", groups="plate")  # doctest: +SKIP
    """
    path, table, names = Path(path), None, None
    _check_options(path, split, task)
    if path.is_dir():
        task = _check_folder(path, split, groups, task)
        files, targets, classes = _read_folder(path)
    else:
        table = Table(path, None)
        files, task, targets, classes, names = _read_table(table, inputs, target, groups, task)
    checksum = _verify(files, path)
    parts, how = _split(path, targets, classes, names, split, table, fractions, seed)
    everything = Split(files, targets, groups=names)
    return Dataset(
        name=path.stem,
        task=task,
        **dict.fromkeys(PARTS) | {part: everything.take(at) for part, at in parts.items()},
        source=str(path),
        licence="not stated (your own files)",
        citation="",
        checksum=checksum,
        classes=classes,
        notes=(how,),
    )


def _check_options(path, split, task):
    if not path.exists():
        raise FileNotFoundError(f"`path` is {path}, which is neither a folder nor a file.")
    if task not in (None, "classification", "regression"):
        raise ValueError(
            f"`task` must be 'classification', 'regression' or None for images; got {task!r}."
        )
    if split == "cluster":
        raise ValueError(
            "`split` is 'cluster', which is for sequences; name near copies of images by `groups`."
        )


def _split(path, targets, classes, names, split, table, fractions, seed):
    """{part: positions} and a sentence that says how."""
    if split is None:
        return {"train": np.arange(len(targets))}, "Not split: every image is in train."
    if split != "random":
        return read_parts(table, split, names), f"Split by column {split!r}."
    strata = None if classes is None else targets
    if names is None:
        parts, by = random_split(len(targets), fractions, seed, strata), ""
    else:
        parts, by = group_split(names, fractions, seed, strata), " by group"
    if classes is not None:
        _check_parts(parts, targets, classes, path)
    return parts, f"Split at random{by}, seed {seed}."


def _check_parts(parts, targets, classes, path):
    """Refuse a split at random that leaves a class out of a part: it could not be scored."""
    few = []
    for number, name in enumerate(classes):
        without = [part for part, at in parts.items() if number not in targets[at]]
        if without:
            total = np.count_nonzero(targets == number)
            few.append(f"{name!r} ({total:,} images, none in {' and '.join(without)})")
    if few:
        raise ValueError(
            f"{path}: {len(few)} of {len(classes)} classes have too few images or groups to be in "
            f"train, valid and test: {_some(few)}. Add images, remove the class, or say split=None."
        )


def _is_litter(path, root):
    parts = path.relative_to(root).parts
    return path.name.lower() in LITTER or any(part.startswith(".") for part in parts)


def _check_folder(root, split, groups, task):
    """A folder tells classes and nothing else."""
    if split not in ("random", None) or groups is not None or task == "regression":
        raise ValueError(
            f"{root} is a folder, which has no columns: `split` must be 'random' or None, `groups` "
            "None and `task` no regression. Write a CSV file of paths and targets to say more."
        )
    return "classification"


def _read_folder(root):
    """Files in alphabetical order, the number of each one's class, and the classes."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not _is_litter(p, root))
    if len(folders) < 2:
        found = f"only {folders[0].name!r}" if folders else "none"
        raise ValueError(
            f"{root} should hold one folder per class, at least two; it holds {found}. Put the "
            "images of each class into a folder of its name."
        )
    loose = sorted(p.name for p in root.iterdir() if p.is_file() and not _is_litter(p, root))
    if loose:
        raise ValueError(
            f"{root} holds files beside the folders of the classes: {_some(loose)}. Move them into "
            "a class, or away."
        )
    files, targets = [], []
    for number, folder in enumerate(folders):
        found = sorted(p for p in folder.rglob("*") if p.is_file() and not _is_litter(p, root))
        if not found:
            raise ValueError(f"{folder}, the folder of a class, is empty; fill or remove it.")
        files += found
        targets += [number] * len(found)
    return files, np.array(targets, dtype=np.int32), tuple(folder.name for folder in folders)


def _read_table(table, inputs, target, groups, task):
    check_arguments("random", groups, task)
    cells = table.column(inputs, "inputs")
    words = table.column(target, "target")
    task = task or task_of(table, target, words)
    read = read_numbers if task == "regression" else read_classes
    targets, classes = read(table, target, words, cells)
    names = None if groups is None else np.array(table.column(groups, "groups"))
    files = [table.path.parent / cell for cell in cells]
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{table.path} names {len(missing):,} of {len(files):,} images that are not there: "
            f"{_some(missing)}. Paths are relative to the folder of the table."
        )
    lines = {}
    for line, path in zip(table.lines, files, strict=True):
        lines.setdefault(os.path.realpath(path), []).append(line)
    repeated = [
        f"{name} (lines {', '.join(map(str, found))})"
        for name, found in lines.items()
        if len(found) > 1
    ]
    if repeated:
        raise ValueError(
            f"{table.path} names {len(repeated):,} images more than once: {_some(repeated)}. A "
            "copy could fall into train and test; keep one line each."
        )
    return files, task, targets, classes, names


def _verify(files, path):
    """Decode every file once; return the sha256 of names and contents, or name what is no image."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ImportError('images are read by Pillow: pip install "kft[vision]"') from error
    digest, offenders = hashlib.sha256(), []
    for file in files:
        problem = _problem(file)
        if problem:
            offenders.append(f"{file} ({problem})")
        else:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    if offenders:
        raise ValueError(
            f"{path}: {len(offenders):,} of {len(files):,} files are no whole images: "
            f"{_some(offenders)}. Repair or remove them, and what names them."
        )
    return digest.hexdigest()


def _problem(file):
    """What is wrong with the file, or None. Pixels are decoded: a header can be whole alone."""
    if not file.stat().st_size:
        return "empty"
    try:
        # Warnings are of odd metadata or of size, which is for whoever uses the pixels to judge.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return wrong_mode(opened(file))
    except ValueError as error:
        return str(error)


def _some(names):
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
