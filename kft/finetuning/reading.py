"""Any file of a user as a `kft.data.Dataset`; which columns it is about is guessed, and said."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kft import data as datasets
from kft.arguments import check_choice
from kft.data import Dataset
from kft.data.cells import Table
from kft.data.inputs import InputKind
from kft.data.numbers import number
from kft.data.pair_tables import COLUMNS as PAIR
from kft.data.pair_tables import read_pairs
from kft.data.proteins.chains import TARGETS as CHAIN_TARGETS
from kft.data.proteins.fasta import read_fasta
from kft.data.tables import SPELLINGS, read_table
from kft.exploration.reading import FASTA
from kft.exploration.records import SUFFIXES, Kind, kind_of_column
from kft.finetuning.settings import Settings
from kft.messages import listed
from kft.preparation import Impute, prepare

TARGETS = ("y", "target", "label", "labels", "class", "activity", "score", "value", "fitness")
NAMES = ("", "id", "name", "index", "accession", "entry", "unnamed: 0", "description")
SPLITS = ("split", "set", "part", "fold")
ROWS = (Kind.NUMBER, Kind.CATEGORY)  # columns that are inputs where there are no others
WHOLE = "none"  # as `split`: all records in train
OF_TABLES = ("sep", "decimal", "missing", "dropna", "weights", "categories")  # settings
LOOKED_AT = 1000  # rows from which columns are guessed


def read_data(settings: Settings) -> tuple[Dataset, Settings]:
    """Read the data of a run.

    Args:
        settings: Its settings; those on data are used.

    Returns:
        The data set, split, whose notes begin with what was guessed; and the settings with the
        columns that were guessed.

    Raises:
        FileNotFoundError: There is no such data set, file or folder.
        ValueError: A column cannot be guessed or does not exist, or the file is wrong.

    Example:
        >>> read_data(Settings("digits"))[0].name
        'digits'
    """
    path = Path(settings.data).expanduser()
    if not path.exists():
        if settings.data in datasets.names():
            return _known(settings), settings
        raise FileNotFoundError(
            f"data is {settings.data!r}, which is neither a file or folder (from {Path.cwd()}) nor "
            f"one of {', '.join(datasets.names())}."
        )
    if path.is_dir():
        return _images(path, settings), settings
    if path.name.lower().removesuffix(".gz").endswith(FASTA):
        return _fasta(path, settings)
    table = Table(path, settings.sep, settings.missing, settings.decimal)
    first = [
        ["" if table.is_missing(cell) else cell for cell in row[: len(table.header)]]
        for row in table.rows[:LOOKED_AT]
    ]
    frame = pd.DataFrame(first, columns=pd.Index(table.header, dtype=object))
    settings, kind, said = _guessed(frame, settings, path)
    return _with_notes(_of_columns(path, settings, kind), said), settings


def filled(data: Dataset) -> Dataset:
    """Fill missing values in the inputs of rows, and learn from the training part how.

    Args:
        data: A data set that `read_data` has read.

    Returns:
        For rows of a table a `PreparedDataset`, also if none is missing: later ones may be. Other
        data as they are.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"age": [31, None, 50], "y": [1.5, 2.0, 2.5]})
        >>> data = filled(datasets.read_table(table, inputs=["age"], split=None))
        >>> data.train.inputs[1]
        {'age': 40.5, 'age is missing': 1.0}
    """
    if data.input_kind is not InputKind.TABLE:
        return data
    prepared = prepare(data, steps={"New records may lack values, too.": Impute()})
    (done,) = prepared.steps
    return prepared if any(done.numbers["cells"].values()) else replace(prepared, notes=data.notes)


def _images(path: Path, settings: Settings) -> Dataset:
    _refuse(settings, ("inputs", *OF_TABLES), f"{path} is a folder of images, which has no columns")
    options: dict[str, Any] = {"groups": settings.groups, "task": settings.task}
    target, split = settings.target or "y", _how(settings, "random")
    return datasets.read_images(path, target=target, split=split, seed=settings.seed, **options)


def _known(settings: Settings) -> Dataset:
    names = ("target", "inputs", "split", "groups", *OF_TABLES)
    _refuse(settings, names, f"{settings.data} is a data set of kft, which has its own")
    if settings.data == "chains" and settings.task is not None:
        tasks = {str(task): target for target, (task, _) in CHAIN_TARGETS.items()}
        return datasets.load("chains", target=tasks[check_choice("task", settings.task, tasks)])
    data = datasets.load(settings.data)
    if settings.task not in (None, data.task):
        raise ValueError(
            f"task is {settings.task!r}, but {settings.data} is a data set of kft for "
            f"{data.task}: leave it out."
        )
    return data


def _refuse(settings: Settings, names: Sequence[str], why: str) -> None:
    """Raise an error for the first of these settings that is given."""
    usual = Settings(settings.data)
    for name in names:
        given = getattr(settings, name)
        if given != getattr(usual, name):
            raise ValueError(f"{name} is {given!r}, but {why}: leave it out.")


def _of_columns(source: Any, settings: Settings, kind: InputKind | None) -> Dataset:
    options: dict[str, Any] = {
        "inputs": settings.inputs,
        "target": settings.target,
        "task": settings.task,
        "seed": settings.seed,
        "decimal": settings.decimal,
        "missing": settings.missing,
        "dropna": settings.dropna,
        "weights": settings.weights,
    }
    if kind in (InputKind.PAIR, InputKind.IMAGE):
        what = "pairs of sequences" if kind is InputKind.PAIR else "images"
        _refuse(settings, ("categories",), f"the inputs are {what}")
    if kind is InputKind.PAIR:
        if settings.groups is not None:
            raise ValueError(
                f"groups is {settings.groups!r}, but pairs are split by their proteins: leave it "
                "out."
            )
        return read_pairs(source, split=_how(settings, "C3"), sep=settings.sep, **options)
    options["groups"] = settings.groups
    if kind is InputKind.IMAGE:
        return datasets.read_images(source, split=_how(settings, "random"), **options)
    similar = isinstance(settings.inputs, str) and settings.groups is None
    split = _how(settings, "cluster" if similar else "random")
    options |= {"sep": settings.sep, "categories": settings.categories or ()}
    return read_table(source, split=split, **options)


def _how(settings: Settings, default: str) -> str | None:
    return None if settings.split == WHOLE else settings.split or default


def _fasta(path: Path, settings: Settings) -> tuple[Dataset, Settings]:
    """Read a FASTA file whose headers hold the target, such as `>P1 activity=3.2`."""
    records = list(read_fasta(path))
    pairs = [
        dict(word.split("=", 1) for word in record.description.split() if "=" in word)
        for record in records
    ]
    names = dict.fromkeys(name for of in pairs for name in of)
    if not names:
        raise ValueError(
            f"{path} has no targets: the headers of its records should hold them, as in "
            "'>P1 activity=3.2'; or give a table with a column of sequences and one of targets."
        )
    columns = {"id": [record.id for record in records]}
    columns |= {"sequence": [record.sequence for record in records]}
    columns |= {name: [of.get(name, "") for of in pairs] for name in names}
    frame = pd.DataFrame(columns)
    settings, _, said = _guessed(frame, replace(settings, inputs="sequence"), path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    read = replace(
        _of_columns(frame, settings, None),
        name=path.name.split(".")[0],
        source=str(path),
        checksum=checksum,
    )
    return _with_notes(read, said), settings


def _with_notes(data: Dataset, said: Sequence[str]) -> Dataset:
    return replace(data, notes=(*said, *data.notes))


# Other records for the same model ---------------------------------------------------------------


def read_whole(settings: Settings) -> Dataset:
    """Read data that are not split, to score a model on all of them.

    Args:
        settings: Those of the model's run, with other data.

    Returns:
        The data set, with all records in `train`.
    """
    return read_data(replace(settings, split=WHOLE))[0]


def as_classes(data: Dataset, classes: Sequence[str] | None) -> Dataset:
    """Number the classes of a data set as a model does.

    Args:
        data: A data set that is not split.
        classes: Names of the model's classes or labels; None for numbers.

    Returns:
        The data set with these classes.

    Raises:
        ValueError: It has a class that the model does not know.
    """
    if classes is None or data.classes is None:
        return data
    unknown = [name for name in data.classes if name not in classes]
    if unknown:
        raise ValueError(
            f"{data.source} has {data.task.outputs_are} that the model does not know: "
            f"{listed(unknown)}; it knows {listed(classes, 20)}."
        )
    place = np.array([list(classes).index(name) for name in data.classes])
    targets: Any = data.train.targets
    renumbered: Any
    if data.task.target == "labels":
        renumbered = np.zeros((len(targets), len(classes)), dtype=targets.dtype)
        renumbered[:, place] = targets
    elif data.task.per_residue:
        renumbered = [place[row] for row in targets]
    else:
        renumbered = place[targets]
    return replace(data, train=replace(data.train, targets=renumbered), classes=tuple(classes))


# Guesses ----------------------------------------------------------------------------------------


def _guessed(
    frame: pd.DataFrame, settings: Settings, path: Path
) -> tuple[Settings, InputKind | None, list[str]]:
    """Return the settings with all columns named, images, pairs or neither, and what to say."""
    kinds = _kinds(frame, path.parent)
    inputs, split, target = settings.inputs, settings.split, settings.target
    said = []
    if inputs is None:
        inputs = _inputs(kinds, path)
        if isinstance(inputs, str):
            what = "paths of images" if kinds[inputs] is Kind.IMAGE else "sequences"
            said.append(f"Column {inputs!r} was taken for the {what}; name another in `inputs`.")
    elif isinstance(inputs, str) and (
        inputs in (settings.categories or ()) or kinds.get(inputs) is Kind.NUMBER
    ):
        inputs = [inputs]
    if split is None and settings.groups is None:
        split = _split(frame)
        if split is not None:
            said.append(
                f"Column {split!r} was taken for the split into train, valid and test; set "
                "split='random' or split='cluster' to ignore it."
            )
    used = {split, settings.groups, settings.weights}
    used |= {inputs} if isinstance(inputs, str) else set(inputs or ())
    if target is None:
        target = _target([name for name in frame.columns if name not in used], path)
        said.append(f"Column {target!r} was taken for the target; name another in `target`.")
    if inputs is None:
        used |= {target} if isinstance(target, str) else set(target)
        inputs, said_of_rows = _rows({x: kind for x, kind in kinds.items() if x not in used}, path)
        said += said_of_rows
    settings = replace(settings, inputs=inputs, split=split, target=target)
    if isinstance(inputs, str):
        return settings, InputKind.IMAGE if kinds.get(inputs) is Kind.IMAGE else None, said
    if list(inputs) == list(PAIR) or [kinds.get(x) for x in inputs] == [Kind.SEQUENCE] * 2:
        said.append(f"Columns {listed(inputs)} were read as pairs of sequences.")
        return settings, InputKind.PAIR, said
    return settings, None, said


def _kinds(frame: pd.DataFrame, folder: Path) -> dict[str, Kind | None]:
    """Return the kind of each column; None where it is empty."""
    kinds: dict[str, Kind | None] = {}
    for k, name in enumerate(frame.columns):
        cells = frame.iloc[:, k]
        cells = cells[cells.str.strip() != ""]
        numbers = sum(number(cell.replace(",", ".")) is not None for cell in cells)
        if len(cells) == 0:
            kinds[name] = None
        elif 2 * numbers >= len(cells):  # as `kft.data.read_table` decides
            kinds[name] = Kind.NUMBER
        elif all(Path(cell).suffix.lower() in SUFFIXES for cell in cells):
            kinds[name] = Kind.IMAGE  # also where a file is missing, which is an error then
        else:
            kinds[name] = kind_of_column(cells, name, folder)
    return kinds


def _inputs(kinds: dict[str, Kind | None], path: Path) -> str | list[str] | None:
    """Return the column of sequences or image paths, two for pairs; None where there is none."""
    if "sequence" in kinds:
        return "sequence"
    if all(name in kinds for name in PAIR):
        return list(PAIR)
    found = [name for name, kind in kinds.items() if kind in (Kind.SEQUENCE, Kind.IMAGE)]
    if len(found) > 1:
        raise ValueError(
            f"{path}: the column of the sequences or image paths cannot be guessed (several "
            f"columns could hold them, {listed(found)}): name it in `inputs`, one of "
            f"{listed(kinds, 20)}; or two, for pairs of sequences."
        )
    return found[0] if found else None


def _rows(kinds: dict[str, Kind | None], path: Path) -> tuple[list[str], list[str]]:
    """Return the columns of numbers and categories, and what to say of them."""
    taken = [x for x, kind in kinds.items() if kind in ROWS and x.lower() not in NAMES]
    left = [name for name in kinds if name not in taken]
    if not taken:
        raise ValueError(
            f"{path}: no column is left for the inputs ({listed(left, 20) or 'none'}): name those "
            "of sequences, image paths, numbers or categories in `inputs`."
        )
    said = f"Columns {listed(taken, 20)} were taken for the inputs; name others in `inputs`."
    why = "names, texts or empty"
    return taken, [said, *([f"Left out as {why}: {listed(left, 20)}."] if left else [])]


def _split(frame: pd.DataFrame) -> str | None:
    for k, name in enumerate(frame.columns):
        if name.lower() in SPLITS:
            parts = {SPELLINGS.get(cell.strip().lower()) for cell in frame.iloc[:, k]}
            if None not in parts and "train" in parts:
                return name
    return None


def _target(names: Sequence[str], path: Path) -> str:
    for known in TARGETS:
        for name in names:
            if name.lower() == known:
                return name
    left = [name for name in names if name.lower() not in NAMES]
    if len(left) == 1:
        return left[0]
    which = f"several could be it: {listed(left, 20)}" if left else "no column is left"
    raise ValueError(
        f"{path}: the column to predict cannot be guessed ({which}); name it in `target`."
    )
