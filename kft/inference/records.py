"""The records to predict: lists, DataFrames, tables, FASTA files, images; some at a time."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from kft.data.cells import Table
from kft.data.columns import decimal_of
from kft.data.images.folders import files_in
from kft.data.inputs import input_column, listed_inputs
from kft.data.pair_tables import COLUMNS
from kft.data.proteins.fasta import GZIP_MAGIC, Skipped, numbered_records
from kft.data.rows import read_rows
from kft.data.spreadsheets import JSON_LINES, is_frame
from kft.messages import harmless, warn

CHUNK = 8192  # records of a FASTA file that are in memory at a time
TABLES = (".csv", ".tsv", ".tab", ".txt", ".xlsx", ".xls", ".parquet", *JSON_LINES)
RowReader = Callable[[Table], list[Any]]  # function that returns the inputs in a table
NAMES = ("id", "name")  # columns of a table that name its records, in files of embeddings


class Stretch(NamedTuple):
    """Some records of an input, one after the other.

    Attributes:
        start: Number of the first, from 0.
        stop: Number after the last.
        total: Number of records of the whole input.
    """

    start: int
    stop: int
    total: int


@dataclass(frozen=True)
class Records:
    """Some of the records of an input.

    Attributes:
        inputs: List of raw inputs.
        names: Names of the records, for files.
        called: What errors call each record.
        places: Where each record is, such as "line 3".
        numbers: By which the places are sorted.
        make_table: Function that returns the columns of the input, one row per record.
        total: Number of records of the whole input; None if unknown.
        in_table: Whether each record keeps its row in the result, also if it is invalid.
        sep: Character between the columns of a .csv file of results, ";" if it was so in theirs.
        decimal: Decimal sign of the file that the records are from.
    """

    inputs: list[Any]
    names: list[str]
    called: list[str]
    places: list[str]
    numbers: Sequence[int]
    make_table: Callable[[], pd.DataFrame]
    total: int | None
    in_table: bool = True
    sep: str = ","
    decimal: str = "."

    def take(self, at: list[int]) -> Records:
        """Return the records at these positions; those of a table keep all its rows.

        Args:
            at: Positions from 0, in order.
        """
        table = self.make_table
        return replace(
            self,
            inputs=[self.inputs[i] for i in at],
            called=[self.called[i] for i in at],
            names=self.names if self.in_table else [self.names[i] for i in at],
            make_table=table if self.in_table else lambda: table().iloc[at],
        )

    def cut(self, start: int, stop: int, total: int) -> Records:
        """Return the records from `start` to `stop`, as if the input had no others.

        Args:
            start: Position of the first, from 0.
            stop: Position after the last.
            total: As the attribute.
        """
        table = self.make_table
        return replace(
            self,
            inputs=self.inputs[start:stop],
            names=self.names[start:stop],
            called=self.called[start:stop],
            places=self.places[start:stop],
            numbers=self.numbers[start:stop],
            make_table=lambda: table().iloc[start:stop],
            total=total,
        )


def read_records(
    inputs: Any,
    column: str | None,
    skipped: list[Skipped] | None,
    of_images: bool = False,
    rows: RowReader | None = None,
    argument: str = "inputs",
) -> Iterator[Records]:
    """Read raw inputs, a FASTA file in chunks.

    Args:
        inputs: As for `kft.predict`.
        column: As for `kft.predict`.
        skipped: List to which invalid records of a FASTA file are added; None raises an error.
        of_images: Whether cells of tables are paths of images, relative to the file of the table.
        rows: Function that returns the inputs in a table, for a model of its rows, see
            `table_rows`.
        argument: What errors call `inputs`, and the records of a list.

    Yields:
        `Records`.

    Raises:
        FileNotFoundError: A path leads to nothing, or a folder has no files.
        TypeError: `inputs` is no list of inputs, or a table whose column of inputs is not named.
        ValueError: A file is damaged, or has no such column.
    """
    if isinstance(inputs, str | Path):
        path = Path(inputs)
        if of_images and os.path.isdir(path):
            yield _of_images(files_in(path, path), path)
            return
        if not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "not a file"
            takes = "an image, a folder of images" if of_images else "a FASTA file"
            raise FileNotFoundError(
                f"{argument} is {str(inputs)[:60]!r}, which is {kind}: give the path of {takes} "
                "or a table, or a list of raw inputs."
            )
        if is_table(path):
            yield _of_table(Table(path, None), column, of_images, rows)
        elif of_images:
            yield _of_images([path], path.parent)
        elif rows is not None:
            raise TypeError(
                f"{argument} must be a table or a list of rows, received {str(path)!r}."
            )
        else:
            yield from _of_fasta(path, skipped)
    elif is_frame(inputs):
        yield _of_frame(inputs, column, of_images, rows, argument)
    else:
        yield _of_list(inputs, argument)


def records_within(
    stretch: Stretch, parts: Iterable[Records], skipped: list[Skipped] | None
) -> Iterator[Records]:
    """Yield the records of a stretch; what follows it is not read.

    Args:
        stretch: The stretch.
        parts: All records, as of `read_records`.
        skipped: The list that was given to `read_records`. Invalid records stay in it if they come
            after the last valid record before the stretch, and before its end, so that each one is
            in one of several stretches.
    """
    first, last, seen = -math.inf, math.inf, 0
    for part in parts:
        start, stop = stretch.start - seen, stretch.stop - seen
        count = len(part.inputs)
        seen += count
        if 0 < start <= count:
            first = part.numbers[start - 1]
        if 0 < stop <= count and stretch.stop < stretch.total:
            last = part.numbers[stop - 1]
        if start < count and stop > 0:
            yield part.cut(max(start, 0), min(stop, count), stretch.stop - stretch.start)
        if last < math.inf:
            break
    if skipped is not None:
        skipped[:] = [one for one in skipped if first < one.number <= last]


def count_in_fasta(inputs: Any) -> int | None:
    """Count the records of a FASTA file; None for other inputs.

    Args:
        inputs: As for `kft.predict`.
    """
    if not isinstance(inputs, str | Path) or not os.path.isfile(inputs) or is_table(Path(inputs)):
        return None
    with _opener(Path(inputs))(inputs, "rb") as lines:
        return sum(line.startswith(b">") for line in lines)


def is_table(path: Path) -> bool:
    """Return whether a file is a table: by its name, unless it begins as a FASTA file."""
    if not path.name.lower().removesuffix(".gz").endswith(TABLES):
        return False
    with _opener(path)(path, "rb") as content:
        return not content.read(100).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b">")


def _opener(path: Path) -> Any:
    """Return the function that opens a file, plain or gzipped."""
    with path.open("rb") as file:
        return gzip.open if file.read(2) == GZIP_MAGIC else open


def _of_list(inputs: Any, argument: str) -> Records:
    listed = listed_inputs(inputs, argument)
    if not listed:
        raise ValueError(f"{argument} is empty: give at least one input.")
    index = inputs.index if hasattr(inputs, "iloc") else None
    names = [f"{argument}[{i}]" for i in range(len(listed))]

    def table() -> pd.DataFrame:
        if listed and all(isinstance(x, dict) for x in listed):
            return pd.DataFrame(listed)
        if not all(isinstance(x, str | os.PathLike) for x in listed):
            return pd.DataFrame(index=range(len(listed)) if index is None else index)
        kind = "sequence" if isinstance(listed[0], str) else "path"
        return pd.DataFrame({kind: list(map(str, listed))}, index=index)

    count = len(listed)
    return Records(listed, names, names, names, range(count), table, count)


def table_rows(encode: Any, table: Table) -> list[Any]:
    """Return the rows of a table with the columns that an encoder takes.

    Args:
        encode: Encoder of rows; its `columns`, if it has any, have a name, and levels where they
            hold categories, and its `missing` are words that mark a missing value.
        table: The table.
    """
    columns, missing = getattr(encode, "columns", None), getattr(encode, "missing", None)
    if missing is not None:
        table.set_missing(missing)
    if columns is None:
        return read_rows(table, table.header)
    categories = [column.name for column in columns if column.levels is not None]
    numbers = [column.name for column in columns if column.levels is None]
    return read_rows(table, [column.name for column in columns], categories, numbers)


def table_pairs(table: Table) -> list[tuple[str, str]]:
    """Return the pairs of sequences in a table.

    Args:
        table: The table; its columns are those that `kft.data.read_pairs` takes by default, or it
            has only two.

    Raises:
        ValueError: It has other columns.
    """
    named = [name for name in COLUMNS if name in table.header]
    chosen = named if len(named) == 2 else table.header
    if len(chosen) != 2:
        raise ValueError(
            f"inputs must have the columns {' and '.join(COLUMNS)}, received a table with "
            f"{', '.join(table.header)}: rename them, or give list(zip(first, second))."
        )
    first, second = (
        ["" if table.is_missing(cell) else cell for cell in table.cells(name)] for name in chosen
    )
    return list(zip(first, second, strict=True))


def _of_frame(
    frame: pd.DataFrame,
    column: str | None,
    of_images: bool,
    rows: RowReader | None,
    argument: str,
) -> Records:
    values = (
        _frame_values(frame, column, of_images, argument)
        if rows is None
        else rows(Table(frame, None))
    )
    places = [f"row {label}" for label in frame.index]
    names = _names(list(map(str, frame.columns)), lambda name: frame[name], places)
    return Records(values, names, places, places, range(len(frame)), frame.copy, len(frame))


def _frame_values(
    frame: pd.DataFrame, column: str | None, of_images: bool, argument: str
) -> list[Any]:
    """Return the cells of the column that holds the inputs."""
    chosen = _column(list(frame.columns), argument, of_images) if column is None else column
    if chosen not in frame:
        raise ValueError(
            f"`column` is {column!r}, which is not among the columns of the DataFrame: "
            f"{', '.join(map(str, frame.columns))}."
        )
    values = list(frame[chosen])
    return [Path(x) if isinstance(x, str) else x for x in values] if of_images else values


def _column(columns: list[Any], name: str, of_images: bool) -> Any:
    return "path" if of_images and "path" in columns else input_column(columns, name)


def _of_table(table: Table, column: str | None, of_images: bool, rows: RowReader | None) -> Records:
    if table.place == "row" and table.notes:
        warn(f"{table.path}: {' '.join(table.notes)}")  # sheets not read
    values = _table_values(table, column, of_images) if rows is None else rows(table)
    places = [f"{table.place} {line}" for line in table.lines]
    return Records(
        values,
        _names(table.header, table.cells, places),
        [f"{table.path}, {place}" for place in places],
        places,
        range(len(values)),
        lambda: pd.DataFrame(table.rows, columns=table.header),
        len(values),
        sep=";" if table.sep == ";" else ",",
        decimal=decimal_of(table, [cell for row in table.rows for cell in row]),
    )


def _table_values(table: Table, column: str | None, of_images: bool) -> list[Any]:
    """Return the cells of the column that holds the inputs."""
    chosen = _column(table.header, str(table.path), of_images) if column is None else column
    table.check_column(chosen, "column")
    cells = ["" if table.is_missing(cell) else cell for cell in table.cells(chosen)]
    return [table.path.parent / cell for cell in cells] if of_images else cells


def _names(header: list[str], cells: Callable[[str], Any], places: list[str]) -> list[str]:
    known = [name for name in header if name.lower() in NAMES]
    return [str(cell) for cell in cells(known[0])] if known else places


def _of_images(files: list[Path], root: Path) -> Records:
    """Return files of images as records that are named by their paths in a folder."""
    if not files:
        raise FileNotFoundError(f"{str(root)!r} is a folder without files: name another.")
    names = [file.relative_to(root).as_posix() for file in files]
    called = [harmless(name) for name in names]
    table = partial(pd.DataFrame, {"path": names})
    count = len(files)
    return Records(files, names, called, called, range(count), table, count, in_table=False)


def _of_fasta(path: Path, skipped: list[Skipped] | None) -> Iterator[Records]:
    records = numbered_records(path, skipped)
    while chunk := list(islice(records, CHUNK)):
        ids = [record.id for _, record in chunk]
        about = [record.description for _, record in chunk]
        yield Records(
            [record.sequence for _, record in chunk],
            [record.name for _, record in chunk],
            [f"record {harmless(name)}" for name in ids],
            [f"line {line}" for line, _ in chunk],
            [line for line, _ in chunk],
            partial(pd.DataFrame, {"id": ids, "description": about}),
            None,
            in_table=False,
        )
