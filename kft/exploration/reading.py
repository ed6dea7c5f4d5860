"""From what a user has (a path, a DataFrame, a data set) to the `Records` that are explored."""

from __future__ import annotations

import gzip
import itertools
import os
from collections.abc import Hashable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from kft.arguments import check_instance
from kft.data.cells import LINES, MISSING, checked_rows, separator
from kft.data.dataset import Dataset
from kft.data.images.folders import read_images
from kft.data.inputs import InputKind
from kft.data.proteins.fasta import GZIP_MAGIC, checked_path, read_fasta
from kft.data.spreadsheets import EARLIER_EXCEL, EXCEL, JSON_LINES, PARQUET, frame_of_file
from kft.data.tables import SPELLINGS
from kft.data.task import Task
from kft.exploration.findings import Finding, info
from kft.exploration.records import FEW, Kind, Records, kind_of_column, read_words

FASTA = (".fasta", ".fa", ".faa", ".fas")


def records_of(
    data: Any,
    target: str | None,
    groups: str | None,
    split: str | None,
    task: str | None,
    sep: str | None,
    decimal: str | None,
) -> Records:
    """Return the records; the arguments are those of `kft.explore`."""
    if task is not None:
        task = Task.named(task, "task", [Task.CLASSIFICATION, Task.REGRESSION])
    if isinstance(data, str | os.PathLike) and Path(data).is_dir():
        data = read_images(data, split=None)
    if isinstance(data, Dataset):
        given = {"target": target, "groups": groups, "split": split, "task": task}
        named = [name for name, value in given.items() if value is not None]
        if named:
            raise ValueError(
                f"{named[0]} is {given[named[0]]!r}, but a kft.data Dataset states its own; leave "
                "it out."
            )
        Task.named(data.task, "data.task")
        return _of_dataset(data)
    notes: list[Finding] = []
    folder: Path | None = None
    if isinstance(data, pd.DataFrame):
        frame, name = data, "table"
    elif isinstance(data, str | os.PathLike):
        frame, notes, decimal = read_table(data, sep, decimal)
        name, folder = Path(data).name, Path(data).parent
    else:
        raise TypeError(
            "data must be a kft.data Dataset, a pandas.DataFrame or a path, received "
            f"{type(data).__name__}."
        )
    return _of_frame(frame, name, notes, (target, groups, split, task), decimal, folder)


# Files ------------------------------------------------------------------------------------------


def read_table(
    path: str | os.PathLike[str], sep: str | None = None, decimal: str | None = None
) -> tuple[pd.DataFrame, list[Finding], str]:
    """Read a CSV, TSV or FASTA file, plain or gzipped, Excel, Parquet or JSON lines, into a table.

    Args:
        path: Path of the file.
        sep: Character between columns; None finds comma, tab or semicolon.
        decimal: "." or ","; None takes commas only if semicolons separate the columns.

    Returns:
        The table; what was found while reading; and the decimal sign.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: The package that reads Excel or Parquet files is not installed.
        ValueError: The file is not a table in UTF-8; the message names the line.
    """
    path = checked_path(path)
    if path.name.lower().removesuffix(".gz").endswith(FASTA):
        return pd.DataFrame({"sequence": [x.sequence for x in read_fasta(path)]}), [], "."
    if path.suffix.lower() in JSON_LINES:
        return pd.read_json(path, lines=True, convert_dates=False), [], "."
    if _begins_as(path, (EXCEL, PARQUET, EARLIER_EXCEL)):
        return *_of_spreadsheet(path), decimal or "."
    sep, header = _checked(path, sep)
    decimal = decimal or ("," if sep == ";" else ".")
    # Words for missing values are kept apart from empty cells in columns that hold any of them.
    options: dict[str, Any] = {"sep": sep, "keep_default_na": False, "index_col": False}
    options |= {"encoding": "utf-8-sig", "skip_blank_lines": True, "low_memory": False}
    spellings = sorted(
        {form for word in MISSING for form in (word, word.upper(), word.title(), "NaN")} | {""}
    )
    frame = pd.read_csv(path, na_values=spellings, decimal=decimal, **options)
    frame.columns = pd.Index(header)
    notes = _spelled(path, frame, options)
    if decimal == ",":
        notes.append(
            info(
                "decimal-commas", path.name, {"separator": sep},
                "Semicolons separate the columns, and commas were read as decimal signs.",
                "Set decimal='.' if commas are not decimal signs.",
            )
        )  # fmt: skip
    return frame, notes, decimal


def _of_spreadsheet(path: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """Read an Excel or Parquet file, each column in the type of its values."""
    frame, sentences = frame_of_file(path, path.read_bytes()) or (pd.DataFrame(), [])
    findings = [
        info("sheets-not-read", path.name, {}, sentence, "Save another sheet as a file of its own.")
        for sentence in sentences
    ]
    return frame.infer_objects(), findings


def _begins_as(path: Path, kinds: tuple[bytes, ...]) -> bool:
    with path.open("rb") as stream:
        return stream.read(max(map(len, kinds))).startswith(kinds)


def _checked(path: Path, sep: str | None) -> tuple[str, list[str]]:
    """Check the lines of a table, one at a time; return the separator and the header."""
    try:
        with _opened(path) as lines:
            first = "".join(itertools.islice((line for line in lines if line.strip()), LINES))
        if not first:
            raise ValueError(f"{path} is empty; its first line should name the columns.")
        sep = sep or separator(first)
        with _opened(path) as lines:
            rows = checked_rows(lines, sep, path)
            header = [name.strip() for name in next(rows)[1]]
            if sum(1 for _ in rows) == 0:
                raise ValueError(f"{path} has a header but no records; add at least one line.")
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"{path}: holds bytes that are not text in UTF-8 ({problem.reason}); save the table as "
            "CSV (UTF-8)."
        ) from problem
    except (EOFError, gzip.BadGzipFile) as problem:
        raise ValueError(f"{path}: the compressed file is damaged or ends early.") from problem
    twice = [name for i, name in enumerate(header) if name in header[:i]]
    if twice:
        raise ValueError(f"{path}: names column {twice[0]!r} twice; give each its own name.")
    return sep, header


def _opened(path: Path) -> IO[str]:
    opener: Any = gzip.open if _begins_as(path, (GZIP_MAGIC,)) else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _spelled(path: Path, frame: pd.DataFrame, options: dict[str, Any]) -> list[Finding]:
    """Return how missing values are written, which a table of numbers no longer tells."""
    missing = [name for name in frame.columns if frame[name].isna().any()]
    if not missing:
        return []
    at = [i for i, name in enumerate(frame.columns) if name in missing]
    written: dict[str, int] = {}
    for chunk in pd.read_csv(path, usecols=at, dtype=str, chunksize=100_000, **options):
        for i, name in enumerate(missing):
            cells = chunk.iloc[:, i].str.strip()
            absent = frame[name].iloc[chunk.index[0] : chunk.index[-1] + 1].isna().to_numpy()
            for word, count in cells[absent].value_counts().items():
                written[str(word) or "empty"] = written.get(str(word) or "empty", 0) + int(count)
    return [
        info(
            "missing-spellings", path.name, {"cells": written},
            "Cells are empty or hold words for missing values.",
            "Check that no such word is a value, such as the peptide NA.",
        )
    ]  # fmt: skip


# Tables -----------------------------------------------------------------------------------------


def _of_frame(
    frame: pd.DataFrame,
    name: str,
    notes: list[Finding],
    named: tuple[str | None, str | None, str | None, str | None],
    decimal: str | None,
    folder: Path | None,
) -> Records:
    """Return the records of a table, with its columns told apart by kind."""
    target, groups, split, task = named
    if not len(frame) or not len(frame.columns):
        raise ValueError(
            f"{name} has {len(frame):,} records and {len(frame.columns):,} columns; at least one "
            "of each is needed."
        )
    given = list(frame.columns)
    frame = frame.set_axis([str(column) for column in given], axis=1).reset_index(drop=True)
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"data names column {twice[0]!r} twice; give each column its own name.")
    target, groups, split = (
        _named_column(argument, column, given, name)
        for argument, column in {"target": target, "groups": groups, "split": split}.items()
    )
    columns, kinds, notes = {}, {}, list(notes)
    for column in frame.columns:
        if column in (groups, split):
            continue
        values = frame[column]
        kind = kind_of_column(values, column, folder)
        if kind in (Kind.CATEGORY, Kind.TEXT) and _is_text(values):
            values, found = read_words(values, column, decimal)
            notes += found
            kind = kind_of_column(values, column, folder)
        if kind is Kind.IMAGE:
            values = pd.Series([_in_folder(x, folder) for x in values], dtype=object)
        columns[column], kinds[column] = values, kind
    goal = columns.pop(target) if target is not None else None
    kinds = {column: kind for column, kind in kinds.items() if column in columns}
    has_classes = goal is not None and _names_classes(goal, task)
    if goal is not None:
        notes.append(_target_kind(str(target), goal, has_classes, task))
    return Records(
        name,
        pd.DataFrame(columns, index=frame.index),
        kinds,
        goal,
        has_classes,
        None if groups is None else frame[groups].astype(str).to_numpy(dtype=object),
        None if split is None else _parts(frame[split]),
        notes,
    )


def _named_column(argument: str, column: Any, given: list, name: str) -> str | None:
    """Return the name of a column as a string; an error if there is none."""
    names = [str(one) for one in given]
    if column is None or (isinstance(column, str) and column in names):
        return column
    if isinstance(column, Hashable) and column in given:  # a number, a date or a tuple
        return names[given.index(column)]
    check_instance(argument, column, str, "the name of a column")
    raise ValueError(
        f"{argument} is {column!r}, which is not among the columns of {name}: {', '.join(names)}."
    )


def _in_folder(image: Any, folder: Path | None) -> Any:
    """Return the path of an image from the current folder; images in memory stay."""
    return (folder or Path()) / image if isinstance(image, str) else image


def _is_text(column: pd.Series) -> bool:
    return not isinstance(column.dtype, pd.CategoricalDtype) and column.dtype.kind not in "biufcmM"


def _names_classes(goal: pd.Series, task: str | None) -> bool:
    """Return whether a target names classes: words, or a few whole numbers."""
    if task is not None:
        return task == Task.CLASSIFICATION
    if not pd.api.types.is_numeric_dtype(goal) or pd.api.types.is_bool_dtype(goal):
        return True
    values = goal.dropna().unique()
    whole = bool((values == np.round(values)).all())
    return whole and len(values) <= min(FEW, max(2, len(goal) // 4))


def _target_kind(target: str, goal: pd.Series, has_classes: bool, task: str | None) -> Finding:
    kind, other = ("classes", "regression") if has_classes else ("numbers", "classification")
    return info(
        "target-kind", repr(target), {"read as": kind, "distinct": int(goal.nunique())},
        f"Column {target!r} is taken for {kind}" + (", as task states." if task else "."),
        "It needs no change." if task else f"Set task={other!r} if it is not.",
    )  # fmt: skip


def _parts(column: pd.Series) -> np.ndarray:
    """Return the names of splits, with train, valid and test in one spelling."""
    words = column.astype(str).str.strip()
    return np.array([SPELLINGS.get(word.lower(), word) for word in words], dtype=object)


# Data sets of kft -------------------------------------------------------------------------------


def _of_dataset(data: Dataset) -> Records:
    """Return the records of all splits of a data set."""
    splits = data.splits
    inputs = list(itertools.chain.from_iterable(split.inputs for split in splits.values()))
    if data.input_kind in (InputKind.TABLE, InputKind.ROW):
        if not isinstance(inputs[0], dict):
            inputs = [dict(enumerate(np.ravel(row).tolist())) for row in inputs]
        frame = pd.DataFrame(inputs)
        frame.columns = pd.Index([f"x{x}" if isinstance(x, int) else str(x) for x in frame])
        kinds = {name: kind_of_column(frame[name], name) for name in frame.columns.tolist()}
    elif data.input_kind is InputKind.PAIR:
        frame = pd.DataFrame(inputs, columns=["first", "second"])
        kinds = {"first": Kind.SEQUENCE, "second": Kind.SEQUENCE}
    else:
        column = data.input_kind.value
        series = pd.Series(index=range(len(inputs)), dtype=object)
        series[:] = inputs
        frame, kinds = pd.DataFrame({column: series}), {column: Kind(column)}
    parts = np.repeat(np.array(list(splits), dtype=object), [len(x) for x in splits.values()])
    targets = list(itertools.chain.from_iterable(split.targets for split in splits.values()))
    target, labels, residues = None, None, None
    if data.task.per_residue:
        if data.classes is not None:
            masks = [
                mask
                for split in splits.values()
                for mask in split.masks or [np.ones(len(row), bool) for row in split.targets]
            ]
            used = [row[mask] for row, mask in zip(targets, masks, strict=True)]
            residues = pd.Series(np.array(data.classes, dtype=object)[np.concatenate(used)])
    elif data.task.target == "labels":
        labels = pd.DataFrame(np.array(targets), columns=pd.Index(data.classes or ()))
    elif data.classes is not None:
        target = pd.Series(np.array(data.classes, dtype=object)[np.array(targets)], name="target")
    elif np.ndim(targets) == 1:
        target = pd.Series(np.array(targets, dtype=float), name="target")
    groups = None
    if all(split.groups is not None for split in splits.values()):
        names = [np.asarray(split.groups, dtype=object) for split in splits.values()]
        groups = np.concatenate(names).astype(str).astype(object)
    return Records(
        data.name,
        frame,
        kinds,
        target,
        data.classes is not None and target is not None,
        groups,
        parts if len(splits) > 1 else None,
        labels=labels,
        residues=residues,
    )
