"""Read the user's own table (CSV, Excel, Parquet, DataFrame), with errors that name the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kft.arguments import check_flag, check_instance, check_seed
from kft.data.cells import Table
from kft.data.columns import READERS, note_alike, note_conflicts, read_weights, task_of
from kft.data.dataset import Dataset, Split
from kft.data.labels import read_labels
from kft.data.pair_splits import CLASSES, SEEN, pair_split
from kft.data.rows import Row, key_of, read_rows
from kft.data.sequences import (
    STOP,
    Pairs,
    Sequences,
    SequenceWarning,
    compared,
    compared_pair,
    is_dna,
    normal_forms,
)
from kft.data.splits import (
    FRACTIONS,
    KMER,
    PARTS,
    SHARED,
    advice,
    cluster_split,
    group_split,
    random_split,
)
from kft.data.task import Task
from kft.messages import count_of, shown, warn

SPELLINGS = {"validation": "valid", "val": "valid"} | {part: part for part in PARTS}


def read_table(
    source: Any,
    inputs: str | Sequence[str] = "sequence",
    target: str | Sequence[str] = "y",
    split: str | None = "random",
    groups: str | None = None,
    task: str | None = None,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    sep: str | None = None,
    missing: Sequence[str] | str | None = None,
    dropna: bool = False,
    decimal: str | None = None,
    weights: str | None = None,
    categories: Sequence[str] = (),
) -> Dataset:
    """Read a table with one record per line or row, from a file or a DataFrame, and split it.

    Sequences are compared, split and kept in one normal form: in upper case, without space around
    them and without one stop (*) at the end. `notes` of the data set state what was changed or
    guessed, with counts. Numbers in another spelling (1,500 or 15% or 12 nM) are an error, and are
    not read as names of classes.

    Args:
        source: pandas.DataFrame, whose index names the rows in messages; or the path of a CSV or
            TSV file in UTF-8, plain or gzipped, of an Excel file (.xlsx, its first sheet) or of a
            Parquet file, with the names of the columns in the first line. Excel and Parquet need
            `pip install "kft[tables]"`.
        inputs: Column of the sequences; or a list of columns of numbers and categories, which are
            the inputs as they are. These may have missing values, see `kft.prepare`.
        target: Column of the targets. For tasks of residues it has a letter for each residue, or
            words or numbers separated by spaces, with NA for a missing one. For labels it is a
            list of columns that hold 0 or 1, one per label; or one column, with
            `task="multilabel"`, whose cells name the labels, separated by ; or | or , and are
            empty if there are none.
        split: "random"; "cluster" (near copies stay together); the name of a column that holds
            train, valid or test; or None: all records are in `train`, `valid` and `test` are None.
        groups: Column of groups that a split must not separate, or None.
        task: "classification" (also if numbers name classes), "multilabel", "regression",
            "residue_classification", "residue_regression", or None to find it from the targets.
        fractions: Fractions of train, valid and test for "random" and "cluster".
        seed: Integer, for "random" and "cluster".
        sep: Character between columns; None finds comma, tab or semicolon.
        missing: Words that mark a missing value, such as ("-999", "?"); empty cells always do, and
            () means no words. None takes NA, N/A, #N/A, NaN and null.
        dropna: True leaves out lines with a missing value, which are an error otherwise.
        decimal: "." or ","; None takes commas only if semicolons or tabs separate the columns.
        weights: Column of numbers of at least 0, or None: how much each record counts in the loss
            and in scores.
        categories: Columns of a list `inputs` that hold categories, although their cells are
            numbers. Columns of words always do.

    Returns:
        The data set. Classes are in alphabetical order, or in numerical order if they are numbers;
        labels are in the order of their columns, or in alphabetical order if cells name them.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: The package that reads Excel or Parquet files is not installed.
        TypeError: `source` or a column is None.
        ValueError: The file, a line, a column or an argument is wrong; the message names the line
            as an editor numbers it, where the header is line 1.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"sequence": ["MKT", "GSS"], "active": ["yes", "no"]})
        >>> data = read_table(table, target="active", split=None)
        >>> data.classes, data.train.targets.tolist()
        (('no', 'yes'), [1, 0])
        >>> table = pd.DataFrame({"age": [31, 40], "smokes": ["no", "yes"], "y": [1.5, 2.0]})
        >>> read_table(table, inputs=["age", "smokes"], split=None).train.inputs[0]
        {'age': 31.0, 'smokes': 'no'}
        >>> data = read_table("mine.xlsx", target="activity", split="cluster")  # doctest: +SKIP
        >>> data = read_table("sites.csv", target=["membrane", "nucleus"])  # doctest: +SKIP
    """
    task = check_arguments(split, groups, task, target)
    check_seed("`seed`", seed)
    check_flag("`dropna`", dropna)
    columns = _check_inputs(inputs, target, {"split": split, "weights": weights}, task)
    _check_categories(categories, columns)
    table = Table(source, sep, missing, decimal)
    by_column = split not in (None, "random", "cluster") and split in table.header
    used = split if by_column else None
    one_column = None if columns else inputs
    settle_columns(table, one_column, target, groups, used, task, dropna, weights)
    if columns:
        read: Any = read_rows(table, columns, categories)
    else:
        read = read_sequences(table, str(inputs))
    records = read_target(table, read, target, groups, task, weights)
    return parted(records, table, split, fractions, seed)


read_csv = read_table  # its name for text files


def _check_inputs(
    inputs: Any, target: Any, others: Mapping[str, str | None], task: Task | None
) -> list[str]:
    """Return the columns of a table of plain columns; none where `inputs` is a single one."""
    if isinstance(inputs, str):
        return []
    if not isinstance(inputs, list | tuple):
        raise TypeError(
            f"`inputs` must be the name of a column, received {inputs!r}, or a list of names."
        )
    columns, targets = list(inputs), [target] if isinstance(target, str) else list(target)
    twice = [name for i, name in enumerate(columns) if name in columns[:i]]
    if not columns or twice:
        problem = f"names column {twice[0]!r} twice" if twice else "is an empty list"
        raise ValueError(f"`inputs` {problem}; name each column of the inputs once.")
    for name in columns:
        if name in targets:
            raise ValueError(f"`inputs` names {name!r}, which is the target: leave it out.")
        for argument, other in others.items():
            if name == other:
                raise ValueError(
                    f"`inputs` names {name!r}, which is the `{argument}`: leave it out."
                )
    if others["split"] == "cluster":
        raise ValueError(
            "`split` is 'cluster', which is for sequences; rows of a table are split by "
            "'random', with `groups=` a column of groups, or by a column of their parts."
        )
    if task is not None and task.per_residue:
        raise ValueError(f"`task` is {task!r}, but rows of a table have no residues.")
    return columns


def _check_categories(categories: Any, columns: Sequence[str]) -> None:
    """Raise an error for categories that are not a list of some columns of the inputs."""
    check_instance("`categories`", categories, (list, tuple), "a list of columns")
    unknown = [name for name in categories if name not in columns]
    if unknown:
        raise ValueError(
            f"`categories` names {unknown[0]!r}, which is not in the list `inputs`: name columns "
            f"of the inputs ({', '.join(columns) or 'none, since `inputs` is one column'})."
        )


class Records(NamedTuple):
    """Content of the columns of a table."""

    inputs: Sequences | Pairs | list[Row]
    task: Task
    targets: np.ndarray | list
    classes: tuple[str, ...] | None
    masks: list | None
    groups: np.ndarray | None
    target: str | None
    weights: np.ndarray | None


def settle_columns(
    table: Table,
    inputs: Any,
    target: str | Sequence[str],
    groups: str | None,
    split: str | None,
    task: Task | None,
    dropna: bool,
    weights: str | None = None,
) -> None:
    """Find missing cells in all columns that are used, see `Table.settle`.

    Of a table of plain columns `inputs` is None: these may have missing cells.
    """
    columns: dict[str, Any] = {} if inputs is None else {"inputs": inputs}
    columns |= dict.fromkeys(["target"], target) if isinstance(target, str) else {}
    columns |= {"groups": groups} if groups is not None else {}
    columns |= {"split": split} if split is not None else {}
    columns |= {"weights": weights} if weights is not None else {}
    if isinstance(target, list | tuple):
        columns |= {f"target[{i}]": name for i, name in enumerate(target)}
    elif not isinstance(target, str):
        columns["target"] = target  # which is an error
    may_be_empty = target if task is Task.MULTILABEL and isinstance(target, str) else None
    table.settle(columns, dropna, may_be_empty)


def read_target(
    table: Table,
    inputs: Sequences | Pairs | list[Row],
    target: Any,
    groups: str | None,
    task: Task | None,
    weights: str | None,
) -> Records:
    """Read the columns of targets, groups and weights.

    Args:
        table: The table.
        inputs: The inputs of its records.
        target: As for `read_table`.
        groups: As for `read_table`.
        task: As for `read_table`.
        weights: As for `read_table`.
    """
    sequences = inputs if isinstance(inputs, Sequences) else None
    if task is Task.MULTILABEL:
        read: tuple[Any, ...] = read_labels(table, target)
    else:
        words = table.cells(target)
        task = task or task_of(table, target, words, sequences)
        read = READERS[task](table, target, words, sequences or ())
    targets, classes, *masks = read
    note_conflicts(table, target, targets, keys_of(inputs), _called(inputs))
    names = None
    if groups is not None:
        names = np.array(table.column(groups, "groups"))
        note_alike(table, groups, dict.fromkeys(names.tolist()), "groups")
    name = target if isinstance(target, str) else None
    mask = masks[0] if masks else None
    each = None if weights is None else read_weights(table, weights)
    return Records(inputs, task, targets, classes, mask, names, name, each)


def keys_of(inputs: Sequence[Any]) -> list[str]:
    """Return a text per input that is equal for equal ones."""
    if isinstance(inputs, Pairs):
        return [" ".join(compared_pair(pair)) for pair in inputs]
    return list(map(compared if isinstance(inputs, Sequences) else key_of, inputs))


def _called(inputs: Sequence[Any]) -> str:
    kinds = {Sequences: "sequence", Pairs: "pair"}
    return kinds.get(type(inputs), "row")


def parted(
    records: Records, table: Table, split: str | None, fractions: Sequence[float], seed: int
) -> Dataset:
    """Split the records and return their data set.

    Args:
        records: The records.
        table: The table that they were read from.
        split: As for `read_table`, or for pairs as for `read_pairs`.
        fractions: As for `read_table`.
        seed: As for `read_table`.
    """
    inputs, targets = records.inputs, records.targets
    parts, clusters, how = _split(
        table, split, inputs, records.groups, records.task, targets, fractions, seed
    )
    groups = records.groups if clusters is None else clusters
    everything = Split(
        inputs,
        targets,
        groups,
        records.masks,
        weights=records.weights,
        lines=np.asarray(table.lines),
    )
    splits: dict[str, Any] = dict.fromkeys(PARTS)
    splits |= {part: everything.take(at) for part, at in parts.items()}
    return Dataset(
        name=table.path.name.split(".")[0],
        task=records.task,
        **splits,
        source=str(table.path),
        licence="not stated (your own file)",
        citation="",
        checksum=table.checksum,
        classes=records.classes,
        target=records.target,
        notes=(how, *table.notes, *_remarks(inputs, splits, records.task, targets)),
    )


def read_sequences(table: Table, inputs: str) -> Sequences:
    """Return the sequences in normal form, note what was changed, and warn of DNA at once.

    Args:
        table: The table.
        inputs: Name of the column.
    """
    cells = table.column(inputs, "inputs")
    sequences, notes = normal_forms(cells, "inputs")
    table.stops = {i for i, cell in enumerate(cells) if cell.endswith(STOP)}
    empty = [i for i, sequence in enumerate(sequences) if not sequence]
    if empty:
        table.fail(empty, f"column {inputs!r} is {shown(cells[empty[0]])}, which holds no residue")
    if any(map(is_dna, sequences)):
        warn(f"{table.path}: {notes[-1]}", SequenceWarning)
    table.notes += notes
    return sequences


def check_arguments(
    split: str | None, groups: str | None, task: str | None, target: str | Sequence[str] = "y"
) -> Task | None:
    """Raise an error for an unknown task, and for arguments that exclude each other.

    Returns:
        The task: "multilabel" if `target` is a list of columns; None if it is not given.
    """
    task = None if task is None else Task.named(task, "`task`")
    if isinstance(target, list | tuple):
        if task not in (None, Task.MULTILABEL):
            raise ValueError(
                f"`target` is a list of columns, which is for task='multilabel'; received "
                f"task={task!r}."
            )
        if not target:
            raise ValueError("`target` is an empty list; name at least one column of labels.")
        task = Task.MULTILABEL
    if split == "cluster" and groups is not None:
        raise ValueError(
            f"`groups` is {groups!r} but `split` is 'cluster', which makes its own groups; set "
            "split='random' to split by your groups, or leave `groups` out."
        )
    return task


def _split(
    table: Table,
    split: str | None,
    inputs: Any,
    groups: np.ndarray | None,
    task: Task,
    targets: Any,
    fractions: Sequence[float],
    seed: int,
) -> tuple[dict[str, Any], np.ndarray | None, str]:
    """Return {name: positions}, the clusters or None, and a sentence on how records were split."""
    strata = targets if task.has_classes and not task.per_residue else None
    clusters = None
    parts: dict[str, Any]
    if split is None:
        parts, how = {"train": np.arange(len(inputs))}, "Not split: every record is in train."
    elif split == "cluster":
        parts, clusters = cluster_split(inputs, fractions, seed, strata)
        how = (
            f"Split by cluster, seed {seed}: sequences that share {SHARED:.0%} of the {KMER}-mers "
            f"of the shorter one are in one split ({count_of(int(clusters.max()) + 1, 'cluster')})."
        )
    elif split in CLASSES and isinstance(inputs, Pairs):
        parts = pair_split(inputs, str(split), fractions, seed)
        left = len(inputs) - sum(map(len, parts.values()))
        how = (
            f"Split by protein, class {split} of Park and Marcotte, seed {seed}: "
            f"{SEEN[str(split)]} of a test pair {'are' if split == 'C1' else 'is'} in training; "
            f"{left:,} of {len(inputs):,} pairs are left out."
        )
    elif split == "random" and groups is not None:
        parts = group_split(groups, fractions, seed, strata)
        how = f"Split at random by group, seed {seed}."
    elif split == "random":
        parts = random_split(len(inputs), fractions, seed, strata)
        how = f"Split at random, seed {seed}."
    else:
        parts, how = read_parts(table, split, groups), f"Split by column {split!r}."
    return parts, clusters, how


def read_parts(table: Table, split: str, groups: np.ndarray | None) -> dict[str, list[int]]:
    """Return {part: positions} as a column gives them."""
    if split not in table.header:
        raise ValueError(
            f"`split` must be 'random', 'cluster', None or a column of {table.path}: "
            f"{', '.join(table.header)}; received {split!r}."
        )
    cells = table.column(split, "split")
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    part_of_group: dict[Any, str] = {}  # the part of each group
    for i, cell in enumerate(cells):
        part = SPELLINGS.get(cell.lower())
        if part is None:
            table.fail(i, f"column {split!r} is {shown(cell)}; expected train, valid or test")
        parts[part].append(i)
        if groups is not None and part_of_group.setdefault(groups[i], part) != part:
            table.fail(
                i,
                f"group {str(groups[i])!r} is in {part} here but in {part_of_group[groups[i]]} "
                "before; keep each group in one split",
            )
    for part, positions in parts.items():
        if not positions:
            raise ValueError(
                f"`split` column {split!r} of {table.path} puts no record into {part}; mark some "
                f"lines {part!r}, or set split='random'."
            )
    return parts


def _remarks(
    inputs: Sequences | Pairs | list[Row], splits: Mapping[str, Any], task: Task, targets: Any
) -> Iterator[str]:
    """Yield sentences about unusual things that may be intended."""
    sequences = inputs if isinstance(inputs, Sequences) else Sequences()
    what = _called(inputs)
    gaps = sum("-" in sequence or "." in sequence for sequence in sequences)
    if gaps:
        yield (
            f"{gaps:,} sequences hold gaps (- or .): they are compared without them, and encoded "
            "with them."
        )
    repeats = len(inputs) - len(set(keys_of(inputs)))
    if repeats:
        yield f"{repeats:,} records repeat the {what} of an earlier one; they were kept."
    if splits["test"] is not None:
        known = {key for part in ("train", "valid") for key in keys_of(splits[part].inputs)}
        leaked = sum(key in known for key in keys_of(splits["test"].inputs))
        if leaked:
            remedy = advice(sequences) if sequences else "remove them, as kft.prepare does"
            remedy = "split='C3' keeps them apart" if what == "pair" else remedy
            yield (
                f"{count_of(leaked, f'test {what}')} {'is' if leaked == 1 else 'are'} also in "
                f"train or valid, so test scores are too high; {remedy}."
            )
    values = np.concatenate(targets) if isinstance(targets, list) else np.asarray(targets)
    if task.target == "number" and (values == values.round())[~np.isnan(values)].all():
        kind = Task.of("class", task.level)
        yield (
            f"The targets are whole numbers with {len(set(values[~np.isnan(values)]))} values, "
            f"read as a {task.replace('_', ' ')}; set task={kind!r} if they are classes."
        )
