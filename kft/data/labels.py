"""Labels in a table: columns of 0 and 1, or one column whose cells name the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kft.data.cells import Table
from kft.data.columns import note_alike
from kft.data.numbers import number
from kft.messages import count_of, shown

YES, NO = {"1", "true", "yes"}, {"0", "false", "no"}
SEPARATORS = ";|,"


def read_labels(table: Table, target: str | Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read labels; any number of them may be true for a record.

    Args:
        table: The `kft.data.cells.Table`, to which notes are added.
        target: List of columns that hold 0 or 1 (or true, false, yes, no), one per label; or one
            column whose cells name the labels. These are separated by the first of ; | , that
            occurs in any cell, and an empty cell has none.

    Returns:
        int32 array (records, labels) of 0 and 1; and the names of the labels, in the order of the
        columns, else in alphabetical order.

    Raises:
        ValueError: A cell is neither 0 nor 1, or no cell names a label.
    """
    if isinstance(target, str):
        targets, labels = _from_names(table, target)
    else:
        targets, labels = _from_columns(table, target)
    for label, count in zip(labels, targets.sum(axis=0).tolist(), strict=True):
        if count in (0, len(targets)):
            table.notes.append(
                f"Label {label!r} is {'true' if count else 'false'} for all {len(targets):,} "
                "records: nothing can be learned about it."
            )
    return targets, labels


def _from_columns(table: Table, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    repeated = [name for i, name in enumerate(names) if name in names[:i]]
    if repeated:
        raise ValueError(f"`target` names column {repeated[0]!r} twice; name each label once.")
    columns = []
    for name in names:
        cells = table.cells(name)
        values = [_truth(cell) for cell in cells]
        wrong = [i for i, value in enumerate(values) if value is None]
        if wrong:
            table.fail(
                wrong, f"column {name!r} is {shown(cells[wrong[0]])}; expected 0 or 1 for a label"
            )
        columns.append(values)
    return np.array(columns, dtype=np.int32).T, tuple(names)


def _truth(cell: str) -> int | None:
    """Return 1 or 0 for a cell, None for any other word."""
    value = number(cell)
    word = cell.lower() if value is None else f"{value:g}"
    return 1 if word in YES else 0 if word in NO else None


def _from_names(table: Table, target: str) -> tuple[np.ndarray, tuple[str, ...]]:
    cells = table.cells(target)
    sign = next((sign for sign in SEPARATORS if any(sign in cell for cell in cells)), None)
    rows = [[name.strip() for name in (cell.split(sign) if sign else [cell])] for cell in cells]
    rows = [[name for name in row if name] for row in rows]
    labels = tuple(sorted({name for row in rows for name in row}))
    if not labels:
        raise ValueError(f"{table.path}: column {target!r} names no label in any line.")
    how = f"separated by {sign!r}" if sign else "one in each cell, as no cell holds ; or | or ,"
    empty = sum(not row for row in rows)
    table.notes.append(
        f"Column {target!r} was read as names of {count_of(len(labels), 'label')}, {how}; "
        f"{empty:,} of {len(rows):,} records have none."
    )
    note_alike(table, target, labels, "labels")
    position = {name: k for k, name in enumerate(labels)}
    targets = np.zeros((len(rows), len(labels)), dtype=np.int32)
    for i, row in enumerate(rows):
        targets[i, [position[name] for name in row]] = 1
    return targets, labels
