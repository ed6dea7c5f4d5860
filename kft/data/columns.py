"""Columns of a table: their task, and their targets as numbers, classes, or these per residue.

The readers take a `kft.data.cells.Table`, which names the line of an error and collects notes on
what they changed, and `cells`, the cells of the column, one per record.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from kft.data.cells import Table
from kft.data.numbers import NUMBER, marks, number, spelling, spellings
from kft.data.task import Task
from kft.messages import count_of, shown

INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+")  # digits in groups of three
TRUTHS = {"true", "false", "yes", "no"}


def decimal_of(table: Table, cells: Sequence[str]) -> str:
    """Return the decimal sign: the given one, else that of cells between semicolons or tabs."""
    if table.decimal is not None:
        return table.decimal
    if table.sep not in (";", "\t") or any(NUMBER.fullmatch(x) and "." in x for x in cells):
        return "."
    commas = [cell for cell in cells if "," in cell and number(cell, ",") is not None]
    if table.sep == "\t" and all(map(GROUPED.fullmatch, commas)):
        return "."  # 1,500 is more often 1500, and between tabs there is no sign of the language
    return "," if 2 * len(commas) > len([cell for cell in cells if "," in cell]) else "."


# The task ---------------------------------------------------------------------------------------


def task_of(
    table: Table, target: str, cells: Sequence[str], sequences: Sequence[str] | None = None
) -> Task:
    """Find the task from the cells of a column.

    Args:
        table: The `Table`.
        target: Name of the column.
        cells: Cells of the column.
        sequences: Sequences of the records, for proteins, to recognise targets of residues.

    Returns:
        "regression" if all cells are numbers, a task of residues if each cell has one entry per
        residue, else "classification".

    Raises:
        ValueError: The cells look like neither numbers nor classes.
    """
    rows = [_entries(cell) for cell in cells]
    task = None if sequences is None else _residue_task(table, target, cells, rows, sequences)
    if task is not None:
        return task
    decimal = decimal_of(table, cells)
    numeric = [number(w, decimal) is not None or bool(INFINITE.fullmatch(w)) for w in cells]
    if all(numeric):
        return Task.REGRESSION
    misspelled = spellings(cells)
    if any(numeric):
        wrong = [i for i, is_number in enumerate(numeric) if not is_number]
        remedy = misspelled.get(
            cells[wrong[0]],
            "correct it (decimals take a point), name it in `missing` if it marks a missing value",
        )
        table.fail(
            wrong,
            f"column {target!r} is {shown(cells[wrong[0]])}, but other {table.place}s hold "
            "numbers; "
            f"{remedy}, or set task='classification' if they are names of classes",
        )
    _refuse_other_spellings(table, target, cells, misspelled)
    if sequences is not None and 2 * sum(_are_numbers(table, row) for row in rows) > len(cells):
        _rows(table, target, cells, sequences, "numbers", _entries)  # too many or too few
    distinct = len(set(cells))
    if distinct > max(10, len(cells) / 2):
        raise ValueError(
            f"{table.path}: column {target!r} holds {distinct:,} different words in "
            f"{len(cells):,} {table.place}s, such as {shown(cells[0])}, too many to be classes; "
            "name another column as `target`, or set task='classification' if they are classes."
        )
    return Task.CLASSIFICATION


def _refuse_other_spellings(
    table: Table, target: str, cells: Sequence[str], misspelled: Mapping[str, str]
) -> None:
    """Raise an error if most cells look like numbers in another spelling, not like classes."""
    if 2 * len(misspelled) > len(set(cells)):
        wrong = [i for i, cell in enumerate(cells) if cell in misspelled]
        table.fail(
            wrong,
            f"column {target!r} is {shown(cells[wrong[0]])}, {misspelled[cells[wrong[0]]]}; or set "
            "task='classification' if such cells are names of classes",
        )


def _residue_task(
    table: Table,
    target: str,
    cells: Sequence[str],
    rows: Sequence[Sequence[str]],
    sequences: Sequence[str],
) -> Task | None:
    """Return the task if every cell has one entry per residue, else None."""

    def fit(rows: Sequence[Sequence[str]]) -> list[bool]:
        return [_fits(table, i, row, sequences[i]) for i, row in enumerate(rows)]

    numbers = [
        right and _are_numbers(table, row) for row, right in zip(rows, fit(rows), strict=True)
    ]
    if 2 * sum(numbers) > len(cells):
        table.notes.append(
            f"Column {target!r} has a number for each residue, read as residue_regression; set "
            "task='residue_classification' if the numbers name classes."
        )
        return Task.RESIDUE_REGRESSION
    # Cells as long as their proteins are not names of classes if they have several lengths, if many
    # of them differ, or if they have few letters.
    lengths, letters = {len(word) for word in cells}, set("".join(cells))
    many = (len(cells) > 2 and len(lengths) > 1) or len(set(cells)) > max(10, len(cells) / 2)
    many = many or (min(lengths) >= 10 and len(letters) <= 8)
    if many and all(fit(cells)) and not any(map(str.isdigit, letters)):
        table.notes.append(
            f"Column {target!r} has one letter per residue, read as residue_classification; set "
            "task='classification' if each cell is the name of one class."
        )
        return Task.RESIDUE_CLASSIFICATION
    return None


def _fits(table: Table, i: int, row: Sequence[str], sequence: str) -> bool:
    """Return whether there is one entry per residue, or one more for a stop that was removed."""
    return len(row) - len(sequence) in ((0, 1) if i in table.stops else (0,))


def _are_numbers(table: Table, row: Sequence[str]) -> bool:
    """Return whether the entries of a cell are several numbers, some of them perhaps missing."""
    decimal = decimal_of(table, row)
    are_numbers = [number(entry, decimal) is not None for entry in row]
    pairs = zip(are_numbers, row, strict=True)
    return sum(are_numbers) > 1 and all(
        is_it or _is_missing(table, entry) for is_it, entry in pairs
    )


def _is_missing(table: Table, entry: str) -> bool:
    return entry == "None" or table.is_missing(entry)


def _entries(cell: str) -> list[str]:
    """Return the entries of a cell, separated by spaces, or in brackets by commas: [1, 2]."""
    inside = re.fullmatch(r"[\[({](.*)[\])}]", cell, re.DOTALL)
    if inside or re.search(r"\s", cell):
        # "0,1 0,2" has decimal commas, "0.1, 0.2" and "0.1,0.2" do not
        text = (inside[1] if inside else cell).strip()
        sign = r"\s+" if re.search(r"\s", text) else r"[,;]"
        return [entry.strip(",;") for entry in re.split(sign, text) if entry.strip(",;")]
    return cell.split(";") if ";" in cell else cell.split(",")


# The targets ------------------------------------------------------------------------------------


def read_numbers(
    table: Table, target: str, cells: Sequence[str], sequences: Sequence[str]
) -> tuple[np.ndarray, None]:
    """Return the targets as float64 (records,), and None, since there are no classes."""
    decimal = decimal_of(table, cells)
    numbers: list[Any] = [number(cell, decimal) for cell in cells]
    wrong = [i for i, x in enumerate(numbers) if x is None or not math.isfinite(x)]
    if wrong:
        cell = cells[wrong[0]]
        remedy = spellings(cells).get(cell)
        table.fail(
            wrong,
            f"column {target!r} is {shown(cell)}, not a finite number"
            + f": {remedy}" * bool(remedy),
        )
    _note_decimals(table, target, cells, decimal)
    _note_marks(table, target, numbers, f"{table.place}s")
    return np.array(numbers), None


def read_weights(table: Table, column: str) -> np.ndarray:
    """Return the weights of the records as float64 (records,); negative ones are an error."""
    cells = table.cells(column)
    weights, _ = read_numbers(table, column, cells, ())
    wrong = np.flatnonzero(weights < 0).tolist()
    if wrong:
        table.fail(wrong, f"column {column!r} is {cells[wrong[0]]!r}; a weight must be at least 0")
    return weights


def _note_decimals(table: Table, target: str, cells: Iterable[str], decimal: str) -> None:
    commas = [cell for cell in cells if decimal in cell]
    if decimal != "." and commas:
        table.notes.append(
            f"Column {target!r} has decimal commas, read as points "
            f"({count_of(len(commas), 'number')}; {commas[0]!r} is "
            f"{number(commas[0], decimal):g}); set decimal='.' if they are not."
        )


def _note_marks(table: Table, target: str, numbers: Sequence[Any], where: str) -> None:
    for mark, count in marks(numbers).items():
        table.notes.append(
            f"{mark:g} is in {count:,} of {len(numbers):,} {where} of column {target!r} and "
            "looks like a mark of missing values; it is read as a number. If it is a mark, set "
            f"missing=('{mark:g}',), and dropna=True to leave these {table.place}s out."
        )


def read_classes(
    table: Table, target: str, cells: Sequence[str], sequences: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the targets as int32 (records,), and the sorted classes."""
    cells = _one_spelling(table, target, cells)
    numeric = all(number(word) is not None for word in cells)
    classes = tuple(sorted(set(cells), key=Decimal if numeric else None))
    if len(classes) < 2:
        raise ValueError(
            f"`target` column {target!r} of {table.path} holds only {classes[0]!r}; a "
            "classification needs at least two classes."
        )
    if numeric:
        _note_marks(table, target, [number(word) for word in cells], f"{table.place}s")
    note_alike(table, target, classes, "classes")
    position = {name: i for i, name in enumerate(classes)}
    return np.array([position[word] for word in cells], dtype=np.int32), classes


def _one_spelling(table: Table, target: str, cells: Sequence[str]) -> list[str]:
    """Give True, TRUE and true one spelling, and 1 and 1.0; note how many were changed."""
    counts = Counter(cells)
    numeric = all(number(cell) is not None for cell in counts)
    kinds: dict[Any, list[str]] = {}

    # The most frequent first, then True before TRUE and 1 before 1.0.
    def rank(cell: str) -> tuple[int, bool, int, str]:
        return -counts[cell], cell != cell.capitalize(), len(cell), cell

    for cell in sorted(counts, key=rank):
        truth = cell.lower() if cell.lower() in TRUTHS else cell
        kinds.setdefault(Decimal(cell) if numeric else truth, []).append(cell)
    chosen = {cell: kind[0] for kind in kinds.values() for cell in kind}
    changed = sum(cell != chosen[cell] for cell in cells)
    if changed:
        several = [kind for kind in kinds.values() if len(kind) > 1]
        table.notes.append(
            f"{count_of(changed, 'cell')} of column {target!r} in another spelling of the same "
            "class: " + "; ".join(f"{', '.join(kind[1:])} is {kind[0]}" for kind in several) + "."
        )
    return [chosen[cell] for cell in cells]


def note_alike(table: Table, column: str, names: Iterable[str], what: str) -> None:
    """Note names that differ only in case, which may be meant as one name."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.casefold(), []).append(name)
    alike = [kind for kind in kinds.values() if len(kind) > 1]
    if alike:
        table.notes.append(
            f"{len(alike):,} {what} of column {column!r} are spelled in several ways, such as "
            f"{' and '.join(map(repr, alike[0]))}, and are kept apart; if they mean the same, give "
            "them one spelling."
        )


# A target for each residue ----------------------------------------------------------------------


def read_residue_classes(
    table: Table, target: str, cells: Sequence[str], sequences: Sequence[str]
) -> tuple[list[np.ndarray], tuple[str, ...], list[np.ndarray] | None]:
    """Return targets as int32 (residues,) each, the sorted classes, and masks if some are missing.

    A cell has a letter per residue, or words separated by spaces.
    """
    rows = _rows(table, target, cells, sequences, "letters", list, _entries)
    named = {e for row in rows for e in row if not _is_missing(table, e)}
    if len(named) < 2:
        raise ValueError(
            f"`target` column {target!r} of {table.path} holds only "
            f"{', '.join(map(repr, named)) or 'missing values'}; a classification of residues "
            "needs at least two classes."
        )
    numeric = all(number(entry) is not None for entry in named)
    classes = tuple(sorted(named, key=Decimal if numeric else None))
    if numeric:
        _refuse_marks(table, target, [[number(e) or 0.0 for e in row] for row in rows])
    position = {name: i for i, name in enumerate(classes)}
    targets = [np.array([position.get(e, 0) for e in row], dtype=np.int32) for row in rows]
    masks = [np.array([e in position for e in row]) for row in rows]
    return targets, classes, _noted(table, target, masks)


def read_residue_numbers(
    table: Table, target: str, cells: Sequence[str], sequences: Sequence[str]
) -> tuple[list[np.ndarray], None, list[np.ndarray] | None]:
    """Return the targets as float64 (residues,) each, None, and masks if some are missing."""
    rows = _rows(table, target, cells, sequences, "numbers", _entries)
    flat = [entry for row in rows for entry in row]
    decimal = decimal_of(table, flat)
    numbers: list[list[Any]] = [
        [np.nan if _is_missing(table, entry) else number(entry, decimal) for entry in row]
        for row in rows
    ]
    for i, row in enumerate(numbers):
        if None in row or np.isinf(row).any():
            at = next(k for k, x in enumerate(row) if x is None or math.isinf(x))
            remedy = spelling(rows[i][at])
            table.fail(
                i,
                f"column {target!r} is {rows[i][at]!r} at residue {at + 1}, not a finite number"
                + f": {remedy}" * bool(remedy),
            )
    _note_decimals(table, target, flat, decimal)
    _refuse_marks(table, target, numbers)
    targets = [np.array(row, dtype="float64") for row in numbers]
    return targets, None, _noted(table, target, [~np.isnan(row) for row in targets])


def _rows(
    table: Table,
    target: str,
    cells: Sequence[str],
    sequences: Sequence[str],
    what: str,
    *ways: Callable[[str], Sequence[str]],
) -> list[Sequence[str]]:
    """Return the entries of each cell, one per residue, split in the first way that fits."""
    rows, wrong = [], []
    for i, (cell, sequence) in enumerate(zip(cells, sequences, strict=True)):
        splits = [way(cell) for way in ways]
        row = next((row for row in splits if _fits(table, i, row, sequence)), None)
        if row is None:
            wrong.append(i)
            row = splits[0]
        rows.append(row if i in wrong[-1:] else row[: len(sequence)])
    if wrong:
        table.fail(
            wrong,
            f"column {target!r} has {len(rows[wrong[0]])} {what} for "
            f"{len(sequences[wrong[0]])} residues; give exactly one per residue",
        )
    return rows


def _refuse_marks(table: Table, target: str, numbers: Iterable[Iterable[float]]) -> None:
    """Raise an error for a mark of missing values, such as 999 among values near 1."""
    if table.missing is not None:
        return  # marks of missing values were given
    flat = np.array([x for row in numbers for x in row])
    flat = flat[~np.isnan(flat)]
    for mark, count in marks(flat).items():
        i = next(i for i, row in enumerate(numbers) if mark in row)
        table.fail(
            i,
            f"column {target!r} holds {mark:g}, as do {count:,} of {len(flat):,} residues in all, "
            "which looks like a mark of missing values; set "
            f"missing=('{mark:g}',) to leave these residues out, or missing=() if it is a value",
        )


def _noted(table: Table, target: str, masks: list[np.ndarray]) -> list[np.ndarray] | None:
    """Return the masks and note how many residues they leave out; None if they leave out none."""
    left_out = sum(int((~mask).sum()) for mask in masks)
    if not left_out:
        return None if table.missing is None else masks
    table.notes.append(
        f"{left_out:,} of {sum(map(len, masks)):,} residues have no target in column {target!r} "
        "and are False in the masks."
    )
    return masks


# The reader of each task whose targets are in one column; `kft.data.labels` reads labels.
READERS = {
    Task.REGRESSION: read_numbers,
    Task.CLASSIFICATION: read_classes,
    Task.RESIDUE_CLASSIFICATION: read_residue_classes,
    Task.RESIDUE_REGRESSION: read_residue_numbers,
}


def note_conflicts(
    table: Table, target: str | Sequence[str], targets: Any, keys: Sequence[str], what: str
) -> None:
    """Note inputs, which are equal if their keys are, that several lines give different targets."""
    lines: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        lines.setdefault(key, []).append(i)
    values = [np.asarray(x).tobytes() for x in targets]
    conflicting = [found for found in lines.values() if len({values[i] for i in found}) > 1]
    if conflicting:
        first = conflicting[0][0]
        other = next(i for i in conflicting[0] if values[i] != values[first])
        places = f"{table.place}s"
        table.notes.append(
            f"{count_of(len(conflicting), what)} in several {places} with different values of "
            f"column {target!r}, {sum(map(len, conflicting)):,} {places} in all (the first in "
            f"{places} {table.lines[first]} and {table.lines[other]}); all were kept. Keep one "
            f"{table.place} for each, or the mean of their values."
        )
