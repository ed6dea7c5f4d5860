"""Read the user's own images: a folder per class, or a table that names files and their targets.

Folders that are splits are read as they are: train, valid (or val, validation, dev) and test, in
any case of letters, which hold a folder per class, or which each class holds.
"""

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kft.data.cells import Table
from kft.data.columns import read_classes, read_numbers, task_of
from kft.data.dataset import Dataset, Split
from kft.data.images.pixels import (
    PERCENTILES,
    checked_range,
    find_range,
    looked_into,
    opened,
    wrong_mode,
)
from kft.data.splits import PARTS, group_split, random_split
from kft.data.tables import SPELLINGS, check_arguments, read_parts

LITTER = {"thumbs.db", "desktop.ini", "icon\r"}  # what file managers leave behind
DIM = 10  # share of the value range, one in so many, that a 16-bit image should reach at least
PART_FOLDERS = SPELLINGS | {"training": "train", "dev": "valid", "testing": "test"}
MOST_NAMED = 10  # offenders that an error lists


def read_images(
    path, inputs="path", target="y", split="random", groups=None, task=None,
    fractions=(0.7, 0.15, 0.15), seed=0, value_range=None, percentiles=PERCENTILES,
    missing=None, dropna=False, decimal=None,
):  # fmt: skip
    """Read images with their targets, open each once to see that it is whole, and split them.

    A folder holds a folder per class, or train, valid and test with these. A CSV file names an
    image per line, relative to itself, and a target: numbers make a regression, text a
    classification. Hidden files are passed over. Needs `pip install "kft[vision]"`.

    Args:
        path: the folder, or a CSV or TSV file in UTF-8 whose first line names the columns.
        inputs: column of the paths. A folder has no columns.
        target: column of the targets.
        split: "random", unless folders say it; a column that says train, valid or test; or None.
        groups: column of groups that a split must not separate (patients, plates), or None.
        task: "classification" (if numbers name classes), "regression", or None: by the targets.
        fractions: the shares of train, valid and test for "random", which keeps classes in balance.
        seed: integer, for "random".
        value_range: (black, white) of images of 16 bits, or None: by their percentiles.
        percentiles: (lower, upper) of all values of the 16-bit images in train, from 0 to 100.
        missing, dropna, decimal: of a CSV file, see `kft.data.read_csv`.

    Returns:
        Dataset: inputs are `pathlib.Path`, opened when they are needed. Classes are sorted. Images
        that are alike in each pixel are of one group at random. What was found is in the notes.

    Raises:
        FileNotFoundError, ImportError: if the path, an image of the table, or Pillow is missing.
        ValueError: if files are no whole single images, or an argument, class or line is wrong.

    Example:
        >>> data = read_images("cells.csv", target="area", groups="plate")  # doctest: +SKIP
    """
    path = Path(path)
    _check_options(path, split, task, value_range)
    columns = {"inputs": inputs, "target": target}
    columns |= {} if groups is None else {"groups": groups}
    found = _found(path, columns, task, split, missing, dropna, decimal)
    seen, checksum = _verify(found.files, path)
    groups, parts, how = _split(found, seen, path, split, fractions, seed)
    value_range, *notes = _find_range(found.files, seen, parts, value_range, percentiles)
    notes += _remarks(found, seen, parts, path, split)
    everything = Split(found.files, found.targets, groups)
    return Dataset(
        *(path.stem, found.task),
        **dict.fromkeys(PARTS) | {part: everything.take(at) for part, at in parts.items()},
        source=str(path),
        licence="not stated (your own files)",
        citation="",
        checksum=checksum,
        classes=found.classes,
        notes=(how, *notes),
        value_range=value_range,
    )


@dataclass(frozen=True)
class _Found:
    """What a folder or a table says of its images."""

    files: list
    targets: np.ndarray
    classes: tuple[str, ...] | None
    task: str = "classification"
    homes: np.ndarray | None = None  # the part of each, where folders say it
    groups: np.ndarray | None = None
    table: Table | None = None


def _found(path, columns, task, split, missing, dropna, decimal):
    if path.is_dir():
        told = {"missing": missing, "dropna": dropna or None, "decimal": decimal}
        _check_folder(path, split, columns.get("groups"), task, told)
        return _read_folder(path)
    check_arguments("random", None, task)
    table = Table(path, None, missing, decimal)
    by_column = split not in (None, "random") and split in table.header
    table.settle(columns | ({"split": split} if by_column else {}), dropna)
    return _read_table(table, columns, task)


def _check_options(path, split, task, value_range):
    if not path.exists():
        raise FileNotFoundError(f"`path` is {path}, which is neither a folder nor a file.")
    if task not in (None, "classification", "regression"):
        raise ValueError(
            f"`task` must be 'classification', 'regression' or None for images; got {task!r}."
        )
    if value_range is not None:
        checked_range(value_range)
    if split == "cluster":
        raise ValueError(
            "`split` is 'cluster', which is for sequences; name near copies of images by `groups`."
        )


def _split(found, seen, path, split, fractions, seed):
    """Groups, {part: positions}, and a sentence that says how."""
    groups, targets = found.groups, found.targets
    if split is None:
        parts = {"train": np.arange(len(targets))}
        return groups, parts, "Not split: every image is in train."
    if found.homes is not None:
        parts = {part: np.flatnonzero(found.homes == part) for part in PARTS}
        return groups, parts, "Split as the folders train, valid and test say."
    if split != "random":
        return groups, read_parts(found.table, split, groups), f"Split by column {split!r}."
    how = f"Split at random{'' if groups is None else ' by group'}, seed {seed}."
    groups = _joined(groups, [look.pixels for look in seen])
    strata = None if found.classes is None else targets
    if groups is None:
        parts = random_split(len(targets), fractions, seed, strata)
    else:
        parts = group_split(groups, fractions, seed, strata)
    if found.classes is not None:
        _check_parts(parts, targets, found.classes, path)
    return groups, parts, how


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


def _check_folder(root, split, groups, task, of_tables):
    """A folder tells classes and nothing else."""
    if told := [name for name, value in of_tables.items() if value is not None]:
        raise ValueError(
            f"{root} is a folder, which has no cells: `{told[0]}` is for a CSV file, received "
            f"{of_tables[told[0]]!r}; leave it out."
        )
    if split not in ("random", None) or groups is not None or task == "regression":
        raise ValueError(
            f"{root} is a folder, which has no columns: `split` must be 'random' or None, `groups` "
            "None and `task` no regression. Write a CSV file of paths and targets to say more."
        )


def _read_folder(root):
    """What the folders say of their files, which are in alphabetical order."""
    folders = _class_folders(root)
    classes = tuple(sorted({name for name, _, _ in folders}))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise ValueError(
            f"{root} should hold one folder per class, at least two; it holds {found}. Put the "
            "images of each class into a folder of its name."
        )
    files, targets, homes = [], [], []
    for name, part, folder in folders:
        found = sorted(p for p in folder.rglob("*") if p.is_file() and not _is_litter(p, root))
        if not found:
            raise ValueError(f"{folder}, the folder of a class, is empty; fill or remove it.")
        files += found
        targets += [classes.index(name)] * len(found)
        homes += [part] * len(found)
    targets = np.array(targets, dtype=np.int32)
    if homes[0] is None:
        return _Found(files, targets, classes)
    homes = np.array(homes)
    learned = set(targets[homes == "train"])
    new = [name for number, name in enumerate(classes) if number not in learned]
    if new:
        raise ValueError(
            f"{root}: {len(new)} of {len(classes)} classes have no images in train: {_some(new)}. "
            "Write each class alike in train, valid and test, and give it images in train."
        )
    return _Found(files, targets, classes, homes=homes)


def _class_folders(root):
    """(class, part or None, folder) of each folder that holds the images of a class."""
    outer = _folders_in(root, root)
    if _are_parts(root, outer):
        inner = [(part, folder) for part in outer for folder in _folders_in(part, root)]
        return [(folder.name, _part(part), folder) for part, folder in inner]
    inner = {folder: _inside(folder, root, Path.is_dir) for folder in outer}
    if inner and all(_are_parts(folder, inside) for folder, inside in inner.items()):
        inner = [(folder, part) for folder in outer for part in _folders_in(folder, root)]
        return [(folder.name, _part(part), part) for folder, part in inner]
    return [(folder.name, None, folder) for folder in outer]


def _folders_in(folder, root):
    """The folders in one that is to hold nothing else."""
    found, loose = (_inside(folder, root, kind) for kind in (Path.is_dir, Path.is_file))
    if found and loose:
        loose = [path.name for path in loose]
        raise ValueError(
            f"{folder} holds files beside the folders of the classes: {_some(loose)}. Move them "
            "into a class, or away."
        )
    return found


def _inside(folder, root, kind):
    return sorted(p for p in folder.iterdir() if kind(p) and not _is_litter(p, root))


def _part(folder):
    return PART_FOLDERS.get(folder.name.lower())


def _are_parts(root, folders):
    """Whether folders are train, valid and test; raises where they are so in part."""
    found = sorted({part for part in map(_part, folders) if part})
    if len(found) < 2:
        return False  # one such name alone may well be that of a class
    names = ", ".join(sorted(folder.name for folder in folders))
    if len(found) != len(folders) or len(found) < len(PARTS):
        raise ValueError(
            f"{root} holds the folders {names}, some of which are named as splits: it should hold "
            "train, valid and test, with a folder per class in each, and nothing else; or one "
            "folder per class, to be split at random. Add, rename or move folders."
        )
    return True


def _read_table(table, columns, task):
    cells, words = (table.column(columns[name], name) for name in ("inputs", "target"))
    target, groups = columns["target"], columns.get("groups")
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
    return _Found(files, targets, classes, task, groups=names, table=table)


@dataclass(frozen=True)
class _Look:
    """What decoding a file has shown: why it is no image, or what is needed of its pixels."""

    problem: str | None = None
    pixels: str = ""  # a digest
    brightest: int | None = None  # value of an image of 16 bits
    colours: bool = False  # of 16 bits


def _verify(files, path):
    """Decode every file once; return what was seen and the sha256 of names and contents.

    Raises ValueError with the names of what is no image.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise ImportError(
            'reading images needs Pillow; install it with pip install "kft[vision]".'
        ) from None
    seen, digest = [], hashlib.sha256()
    for file in files:
        seen.append(_look(file))
        if not seen[-1].problem:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    offenders = [f"{f} ({x.problem})" for f, x in zip(files, seen, strict=True) if x.problem]
    if offenders:
        raise ValueError(
            f"{path}: {len(offenders):,} of {len(files):,} files are no whole images: "
            f"{_some(offenders)}. Repair or remove them, and what names them."
        )
    return seen, digest.hexdigest()


def _look(file):
    """Pixels are decoded: a header can be whole alone."""
    if not file.stat().st_size:
        return _Look("empty")
    try:
        # Warnings are of odd metadata or of size, which is for whoever uses the pixels to judge.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = opened(file)
            if problem := wrong_mode(picture):
                return _Look(problem)
            return _Look(None, *looked_into(picture, str(file)))
    except ValueError as error:
        return _Look(str(error))


# What is said of them ---------------------------------------------------------------------------


def _joined(names, pixels):
    """Groups that share an image made one, so that a split at random separates no copies."""
    if len(set(pixels)) == len(pixels):
        return names
    first = {}
    copy_of = np.array([first.setdefault(look, i) for i, look in enumerate(pixels)])
    if names is None:
        return copy_of
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, group = np.unique(names, return_inverse=True)
    links = coo_array((np.ones(len(group)), (group, group[copy_of])))
    size = max(links.shape)
    links.resize((size, size))
    _, joined = connected_components(links, directed=False)
    _, where = np.unique(joined[group], return_index=True)
    return np.asarray(names)[where][np.unique(joined[group], return_inverse=True)[1]]


def _remarks(found, seen, parts, path, split):
    """Sentences about what looks odd but may be meant."""
    yield from found.table.notes if found.table else ()
    yield from _copies(seen, parts, found.targets)
    if found.homes is not None or split not in ("random", None):
        yield from _absent(parts, found.targets, found.classes)
    if found.table and split == "random":
        yield from _ignored_folders(found.files, path.parent)


def _copies(seen, parts, targets):
    """Sentences about images that are alike pixel by pixel."""
    pixels = np.array([look.pixels for look in seen])
    _, first, copy_of, counts = np.unique(
        pixels, return_index=True, return_inverse=True, return_counts=True
    )
    if len(first) == len(pixels):
        return
    other = np.zeros(len(first), dtype=bool)
    other[copy_of[targets != targets[first][copy_of]]] = True
    yield f"{len(pixels) - len(first):,} images repeat another pixel by pixel; they were kept."
    if other.any():
        yield (
            f"{counts[other].sum():,} of them and of those that they repeat have other targets for "
            "the same pixels: one of each is wrong, or the target is not to be seen."
        )
    learned = set(copy_of[parts["train"]])
    for part, before in (("valid", "train"), ("test", "train or valid")):
        if part in parts:
            leaked = sum(number in learned for number in copy_of[parts[part]])
            learned |= set(copy_of[parts[part]])
            if leaked:
                yield (
                    f"{leaked:,} {part} images are also in {before}, so {part} scores flatter; "
                    "split='random' keeps copies on one side."
                )


def _absent(parts, targets, classes):
    """Sentences about classes that a split which was told cannot be scored on."""
    for part, at in parts.items() if classes else ():
        without = [name for k, name in enumerate(classes) if k not in targets[at]]
        if without:
            yield f"{len(without)} of {len(classes)} classes have none in {part}: {_some(without)}."


def _find_range(files, seen, parts, value_range, percentiles):
    """(black, white) of images of 16 bits or None, and a sentence if there are such images."""
    deep = [i for i, look in enumerate(seen) if look.brightest is not None]
    learned = [i for i in parts["train"] if seen[i].brightest is not None]
    if value_range is not None:
        value_range, how = checked_range(value_range), "as told"
    elif learned:
        value_range = find_range([files[i] for i in learned], percentiles)
        lower, upper = percentiles
        how = f"percentiles {lower:g} and {upper:g} of the {len(learned):,} in train"
    if not deep:
        return (value_range,)
    if value_range is None:
        return None, (
            f"{len(deep):,} images have 16 bits, and none of them is in train, so which of their "
            "values are black and white is not known: give value_range."
        )
    black, white = value_range
    said = (
        f"{len(deep):,} images have 16 bits, of which {black:,g} is black and {white:,g} white "
        f"({how}; value_range and percentiles change it)"
    )
    dim = sum(seen[i].brightest < black + (white - black) / DIM for i in deep)
    if dim:
        said += f"; {dim:,} reach no more than a tenth of that, perhaps of another camera"
    colours = sum(seen[i].colours for i in deep)
    if colours:
        said += f"; {colours:,} are in colours, of which Pillow reads the upper 8 bits alone"
    return value_range, said + "."


def _ignored_folders(files, root):
    """A sentence about folders named as splits that a split at random takes no notice of."""
    homes = set()
    for file in files:
        names = file.relative_to(root).parent.parts if file.is_relative_to(root) else ()
        names = [name.lower() for name in names]
        homes.add(next((PART_FOLDERS[x] for x in names if x in PART_FOLDERS), None))
    if None not in homes and len(homes) > 1:
        yield (
            f"The images lie in folders named {', '.join(sorted(homes))}, which were not looked "
            "at: to split as they say, name a column that says so."
        )


def _some(names):
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
