"""Rows of a table as inputs: for each record a dict of its columns, numbers and categories.

A number is a float, NaN where it is missing; a category is a string, None where it is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kft.data.cells import Table
from kft.data.columns import INFINITE, decimal_of
from kft.data.numbers import number, spellings

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


def read_rows(
    table: Table,
    columns: Sequence[str],
    categories: Collection[str] = (),
    numbers: Collection[str] = (),
) -> list[Row]:
    """Read columns of a table as rows; missing cells stay missing.

    Args:
        table: The table.
        columns: Names of the columns to read.
        categories: Those that hold categories, also if their cells are numbers.
        numbers: Those that must hold numbers. A column in neither of both holds numbers if at
            least half of its cells are numbers.

    Returns:
        One dict per record.

    Raises:
        ValueError: There is no such column, or a column of numbers has another word; the message
            names its line.

    Example:
        >>> import pandas as pd
        >>> read_rows(Table(pd.DataFrame({"age": [3, None], "sex": ["f", "m"]}), None), ["age"])
        [{'age': 3.0}, {'age': nan}]
    """
    read = {}
    for name in columns:
        table.check_column(name, "inputs")
        read[name] = _values(table, name, name in categories, name in numbers)
    return [dict(zip(read, values, strict=True)) for values in zip(*read.values(), strict=True)]


def _values(table: Table, name: str, category: bool, numeric: bool) -> list[Any]:
    """Return the cells of a column as numbers or as categories."""
    cells = table.cells(name)
    present = [i for i, cell in enumerate(cells) if not table.is_missing(cell)]
    known = [cells[i] for i in present]
    decimal = decimal_of(table, known)
    found = {cell: _number(cell, decimal) for cell in known}
    wrong = [i for i in present if found[cells[i]] is None]
    if category or (2 * len(wrong) > len(present) and not numeric):
        absent = set(range(len(cells))) - set(present)
        return [None if i in absent else cell for i, cell in enumerate(cells)]
    if wrong:
        cell = cells[wrong[0]]
        remedy = spellings([cell]).get(cell, "name it in `missing` if it marks a missing value")
        table.fail(
            wrong,
            f"column {name!r} is {cell!r}, but it holds numbers; {remedy}, or name the column in "
            "`categories` if its cells are categories",
        )
    values: list[Any] = [float("nan")] * len(cells)
    for i in present:
        values[i] = found[cells[i]]
    return values


def _number(cell: str, decimal: str) -> float | None:
    return float(cell) if INFINITE.fullmatch(cell) else number(cell, decimal)


def rows_of(frame: Any, categories: Collection[str] = ()) -> list[Row]:
    """Return the rows of a DataFrame as inputs.

    Args:
        frame: pandas.DataFrame; its columns of numbers may have missing values.
        categories: As for `read_rows`.

    Example:
        >>> import pandas as pd
        >>> rows_of(pd.DataFrame({"age": [3, 5], "sex": ["f", None]}))
        [{'age': 3.0, 'sex': 'f'}, {'age': 5.0, 'sex': None}]
    """
    table = Table(frame, None)
    return read_rows(table, table.header, categories)


def frame_of(rows: Iterable[Row]) -> pd.DataFrame:
    """Return rows as a DataFrame: columns of numbers are float64, the others hold strings.

    Args:
        rows: One dict per record, with the same columns.

    Example:
        >>> frame_of([{"age": 3.0, "sex": "f"}]).dtypes.astype(str).tolist()
        ['float64', 'object']
    """
    import pandas as pd

    rows = list(rows)
    names = list(rows[0]) if rows else []
    columns = {name: [row[name] for row in rows] for name in names}
    texts = {name for name, values in columns.items() if any(isinstance(x, str) for x in values)}
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype="object" if name in texts else "float64")
            for name, values in columns.items()
        }
    )


def records_of(frame: Any) -> list[Row]:
    """Return the rows of a DataFrame that `frame_of` has made.

    Args:
        frame: The DataFrame.

    Example:
        >>> records_of(frame_of([{"age": 3.0, "sex": "f"}]))
        [{'age': 3.0, 'sex': 'f'}]
    """
    columns = {
        str(name): [None if x is None or x != x else x for x in column]
        if column.dtype == object
        else column.tolist()
        for name, column in frame.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def key_of(row: Row) -> str:
    """Return a text that is equal for equal rows, NaN being equal to NaN.

    Example:
        >>> key_of({"age": 3.0, "sex": None})
        '[3.0, None]'
    """
    return repr(list(row.values()))
