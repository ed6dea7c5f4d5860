"""What the cells of a column are: numbers, classes, or one of these for each residue.

The readers take a `kft.data.cells.Table`, to name the line that is wrong and to note what they
changed; `words` are the cells of the column, one per record.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from kft.data.cells import Table
from kft.data.numbers import NUMBER, marks, number, spelling, spellings
from kft.data.sequences import compared
from kft.data.task import Task

INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
TRUTHS = {"true", "false", "yes", "no"}


def decimal_of(table: Table, words: Sequence[str]) -> str:
    """Return the decimal sign of a column: the given one; a comma if semicolons separate cells."""
    if table.decimal is not None:
        return table.decimal
    if table.sep != ";" or any(NUMBER.fullmatch(word) and "." in word for word in words):
        return "."
    commas = [word for word in words if "," in word and number(word, ",") is not None]
    return "," if 2 * len(commas) > len([word for word in words if "," in word]) else "."


# The task ---------------------------------------------------------------------------------------


def task_of(
    table: Table, target: str, words: Sequence[str], sequences: Sequence[str] | None = None
) -> Task:
    """Find the task from the cells of a column.

    Args:
        table: The `Table`.
        target: Name of the column.
        words: Its cells.
        sequences: For proteins, to recognise targets of residues.

    Returns:
        Task: "regression" if all cells are numbers, a task of residues if each cell has one entry
        per residue, else "classification".

    Raises:
        ValueError: The cells look like neither numbers nor classes.
    """
    rows = [_entries(word) for word in words]
    task = None if sequences is None else _residue_task(table, target, words, rows, sequences)
    if task is not None:
        return task
    decimal = decimal_of(table, words)
    numeric = [number(w, decimal) is not None or bool(INFINITE.fullmatch(w)) for w in words]
    if all(numeric):
        return Task.REGRESSION
    odd = spellings(words)
    if any(numeric):
        wrong = [i for i, is_number in enumerate(numeric) if not is_number]
        remedy = odd.get(
            words[wrong[0]],
            "correct it (decimals take a point), name it in `missing` if it marks a missing value",
        )
        table.fail(
            wrong,
            f"column {target!r} is {words[wrong[0]]!r}, while other lines hold numbers; {remedy}, "
            "or say task='classification' if they are names of classes",
        )
    _refuse_other_spellings(table, target, words, odd)
    if sequences is not None and 2 * sum(_are_numbers(table, row) for row in rows) > len(words):
        _rows(table, target, words, sequences, "numbers", _entries)  # too many or too few
    distinct = len(set(words))
    if distinct > max(10, len(words) / 2):
        raise ValueError(
            f"{table.path}: column {target!r} holds {distinct:,} different words in "
            f"{len(words):,} lines, such as {words[0]!r}, too many to be classes; name another "
            "column as `target`, or say task='classification' if they are."
        )
    return Task.CLASSIFICATION


def _refuse_other_spellings(table, target, words, odd):
    """Raise an error if most cells look like numbers in another spelling, not like classes."""
    if 2 * len(odd) > len(set(words)):
        wrong = [i for i, word in enumerate(words) if word in odd]
        table.fail(
            wrong,
            f"column {target!r} is {words[wrong[0]]!r}, {odd[words[wrong[0]]]}; or say "
            "task='classification' if such cells are names of classes",
        )


def _residue_task(table, target, words, rows, sequences):
    """Return the task if every cell has one entry per residue, else None."""

    def fit(rows):
        return [_fits(table, i, row, sequences[i]) for i, row in enumerate(rows)]

    numbers = [
        right and _are_numbers(table, row) for row, right in zip(rows, fit(rows), strict=True)
    ]
    if 2 * sum(numbers) > len(words):
        table.notes.append(
            f"Column {target!r} has a number for each residue, read as residue_regression; say "
            "task='residue_classification' if the numbers name classes."
        )
        return Task.RESIDUE_REGRESSION
    # Words as long as their proteins are no names if there are many lengths or words, or few
    # letters.
    lengths, letters = {len(word) for word in words}, set("".join(words))
    many = (len(words) > 2 and len(lengths) > 1) or len(set(words)) > max(10, len(words) / 2)
    many = many or (min(lengths) >= 10 and len(letters) <= 8)
    if many and all(fit(words)) and not any(map(str.isdigit, letters)):
        table.notes.append(
            f"Column {target!r} has one letter per residue, read as residue_classification; say "
            "task='classification' if each cell is the name of one class."
        )
        return Task.RESIDUE_CLASSIFICATION
    return None


def _fits(table, i, row, sequence):
    """Return whether there is one entry per residue, or one more for a stop that was left out."""
    return len(row) - len(sequence) in ((0, 1) if i in table.stops else (0,))


def _are_numbers(table, row):
    """Return whether the entries of a cell are several numbers, some of them perhaps missing."""
    decimal = decimal_of(table, row)
    found = [number(entry, decimal) is not None for entry in row]
    pairs = zip(found, row, strict=True)
    return sum(found) > 1 and all(is_it or _is_missing(table, entry) for is_it, entry in pairs)


def _is_missing(table, entry):
    return entry == "None" or table.is_missing(entry)


def _entries(word):
    """Return the entries of a cell, separated by spaces, or in brackets by commas: [1, 2]."""
    inside = re.fullmatch(r"[\[({](.*)[\])}]", word, re.DOTALL)
    if inside or re.search(r"\s", word):
        # "0,1 0,2" has decimal commas, "0.1, 0.2" and "0.1,0.2" have none
        text = (inside[1] if inside else word).strip()
        sign = r"\s+" if re.search(r"\s", text) else r"[,;]"
        return [entry.strip(",;") for entry in re.split(sign, text) if entry.strip(",;")]
    return word.split(";") if ";" in word else word.split(",")


# The targets ------------------------------------------------------------------------------------


def read_numbers(
    table: Table, target: str, words: Sequence[str], sequences: Sequence[str]
) -> tuple[np.ndarray, None]:
    """Return the targets as float64 (records,), and None for classes."""
    decimal = decimal_of(table, words)
    numbers: list[Any] = [number(word, decimal) for word in words]
    wrong = [i for i, x in enumerate(numbers) if x is None or not math.isfinite(x)]
    if wrong:
        word = words[wrong[0]]
        remedy = spellings(words).get(word)
        table.fail(
            wrong,
            f"column {target!r} is {word!r}, not a finite number" + f": {remedy}" * bool(remedy),
        )
    _note_decimals(table, target, words, decimal)
    _note_marks(table, target, numbers, "lines")
    return np.array(numbers), None


def _note_decimals(table, target, words, decimal):
    commas = [word for word in words if decimal in word]
    if decimal != "." and commas:
        table.notes.append(
            f"Column {target!r} has decimal commas, read as points ({len(commas):,} numbers; "
            f"{commas[0]!r} is {number(commas[0], decimal):g}); say decimal='.' if they are none."
        )


def _note_marks(table, target, numbers, where):
    for mark, count in marks(numbers).items():
        table.notes.append(
            f"{mark:g} is in {count:,} of {len(numbers):,} {where} of column {target!r} and "
            "looks like a mark of missing values; it is read as a number. Set "
            f"missing=('{mark:g}',), and dropna=True to leave these lines out, if it is one."
        )


def read_classes(
    table: Table, target: str, words: Sequence[str], sequences: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the targets as int32 (records,), and the sorted classes."""
    words = _one_spelling(table, target, words)
    numeric = all(number(word) is not None for word in words)
    classes = tuple(sorted(set(words), key=Decimal if numeric else None))
    if len(classes) < 2:
        raise ValueError(
            f"`target` column {target!r} of {table.path} holds only {classes[0]!r}; a "
            "classification needs at least two classes."
        )
    if numeric:
        _note_marks(table, target, [number(word) for word in words], "lines")
    note_alike(table, target, classes, "classes")
    position = {name: i for i, name in enumerate(classes)}
    return np.array([position[word] for word in words], dtype=np.int32), classes


def _one_spelling(table, target, words):
    """Give True, TRUE and true one spelling, and 1 and 1.0; note how many were changed."""
    counts = Counter(words)
    numeric = all(number(word) is not None for word in counts)
    kinds = {}

    def rank(word):  # the most frequent first, then True before TRUE and 1 before 1.0
        return -counts[word], word != word.capitalize(), len(word), word

    for word in sorted(counts, key=rank):
        truth = word.lower() if word.lower() in TRUTHS else word
        kinds.setdefault(Decimal(word) if numeric else truth, []).append(word)
    chosen = {word: kind[0] for kind in kinds.values() for word in kind}
    changed = sum(word != chosen[word] for word in words)
    if changed:
        several = [kind for kind in kinds.values() if len(kind) > 1]
        table.notes.append(
            f"{changed:,} cells of column {target!r} were in another spelling of the same class: "
            + "; ".join(f"{', '.join(kind[1:])} is {kind[0]}" for kind in several)
            + "."
        )
    return [chosen[word] for word in words]


def note_alike(table: Table, column: str, names: Iterable[str], what: str) -> None:
    """Note names that differ only in case: they may have been meant as one."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.casefold(), []).append(name)
    alike = [kind for kind in kinds.values() if len(kind) > 1]
    if alike:
        table.notes.append(
            f"{len(alike):,} {what} of column {column!r} are spelled in several ways, such as "
            f"{' and '.join(map(repr, alike[0]))}, and were kept apart; make them one if they are."
        )


# A target for each residue ----------------------------------------------------------------------


def read_residue_classes(
    table: Table, target: str, words: Sequence[str], sequences: Sequence[str]
) -> tuple[list[np.ndarray], tuple[str, ...], list[np.ndarray] | None]:
    """Return the targets as int32 (residues,) each, the sorted classes, and masks if some miss.

    A cell has a letter per residue, or words separated by spaces.
    """
    rows = _rows(table, target, words, sequences, "letters", list, _entries)
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
    table: Table, target: str, words: Sequence[str], sequences: Sequence[str]
) -> tuple[list[np.ndarray], None, list[np.ndarray] | None]:
    """Return the targets as float64 (residues,) each, None for classes, and masks if some miss."""
    rows = _rows(table, target, words, sequences, "numbers", _entries)
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


def _rows(table, target, words, sequences, what, *ways):
    """Return the entries of each cell, one per residue, by the first of the ways that fits."""
    rows, wrong = [], []
    for i, (word, sequence) in enumerate(zip(words, sequences, strict=True)):
        found = [way(word) for way in ways]
        row = next((row for row in found if _fits(table, i, row, sequence)), None)
        if row is None:
            wrong.append(i)
            row = found[0]
        rows.append(row if i in wrong[-1:] else row[: len(sequence)])
    if wrong:
        table.fail(
            wrong,
            f"column {target!r} has {len(rows[wrong[0]])} {what} for "
            f"{len(sequences[wrong[0]])} residues; give exactly one per residue",
        )
    return rows


def _refuse_marks(table, target, numbers):
    """Raise an error for 999 among values near 1, which would be learned as a value."""
    if table.missing is not None:
        return  # marks of missing values were given
    flat = np.array([x for row in numbers for x in row])
    flat = flat[~np.isnan(flat)]
    for mark, count in marks(flat).items():
        i = next(i for i, row in enumerate(numbers) if mark in row)
        table.fail(
            i,
            f"column {target!r} holds {mark:g}, as do {count:,} of {len(flat):,} residues in all, "
            "which looks like a mark of missing values and would be learned; say "
            f"missing=('{mark:g}',) to leave these residues out, or missing=() if it is a value",
        )


def _noted(table, target, masks):
    """Return the masks and note what they leave out; None if that is nothing."""
    left_out = sum(int((~mask).sum()) for mask in masks)
    if not left_out:
        return None if table.missing is None else masks
    table.notes.append(
        f"{left_out:,} of {sum(map(len, masks)):,} residues have no target in column {target!r} "
        "and are False in the masks."
    )
    return masks


# Of each task whose targets are in one column; labels are read by `kft.data.labels`.
READERS = {
    Task.REGRESSION: read_numbers,
    Task.CLASSIFICATION: read_classes,
    Task.RESIDUE_CLASSIFICATION: read_residue_classes,
    Task.RESIDUE_REGRESSION: read_residue_numbers,
}


def note_conflicts(
    table: Table, target: str | Sequence[str], targets: Any, sequences: Sequence[str]
) -> None:
    """Note sequences that are in several lines with different targets."""
    lines: dict[str, list[int]] = {}
    for i, sequence in enumerate(sequences):
        lines.setdefault(compared(sequence), []).append(i)
    values = [np.asarray(x).tobytes() for x in targets]
    apart = [found for found in lines.values() if len({values[i] for i in found}) > 1]
    if apart:
        first = apart[0][0]
        other = next(i for i in apart[0] if values[i] != values[first])
        table.notes.append(
            f"{len(apart):,} sequences are in several lines with different values of column "
            f"{target!r}, {sum(map(len, apart)):,} lines in all (the first in lines "
            f"{table.lines[first]} and {table.lines[other]}); all were kept. Keep one line each, "
            "or the mean of their values."
        )
