"""The cells of a table, with the lines or rows they are on."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from kft.arguments import check_choice
from kft.data.numbers import number
from kft.data.proteins.fasta import GZIP_MAGIC, checked_path
from kft.data.spreadsheets import (
    JSON_LINES,
    Cells,
    cells_of_file,
    cells_of_frame,
    cells_of_json_lines,
    is_frame,
)
from kft.messages import count_of, listed, shown

MISSING = {"na", "n/a", "#n/a", "nan", "null"}
LONGEST_CELL = 2**24  # characters
MOST_NAMED = 10  # lines that an error lists
SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}
LINES = 20  # from which the separator is found


def separator(text: str) -> str:
    """Find the character between the columns of a table.

    Args:
        text: Content of the file.

    Returns:
        The one of comma, tab and semicolon that splits the first lines into the same number of
        columns, the most if several do; else the most frequent one of the first line.

    Example:
        >>> separator("sequence;IC50 (mg, 24 h, pH 7)\\nMKT;1,5\\nGSS;2")
        ';'
    """
    lines = [line for line in text.splitlines() if line.strip()][:LINES]

    def rank(sep: str) -> tuple[int, int]:
        with _long_cells():
            widths = {len(row) for row in csv.reader(lines, delimiter=sep)}
        return max(widths) if len(widths) == 1 else 1, lines[0].count(sep)

    return max(SEPARATORS, key=rank)


def check_separators(sep: Any, decimal: Any) -> None:
    """Check the characters between columns and before decimals.

    Args:
        sep: What was given as `sep`, a character or None.
        decimal: What was given as `decimal`.

    Raises:
        ValueError: One of them is something else.
    """
    check_choice("`decimal`", decimal, (None, ".", ","))
    if sep is not None and (not isinstance(sep, str) or len(sep) != 1 or sep in '\r\n"'):
        raise ValueError(f"`sep` must be a single character or None; received {shown(sep)}.")


class Table:
    """The cells of a table, each with the line it is on.

    Args:
        source: As for `kft.data.read_table`.
        sep: As for `kft.data.read_table`.
        missing: As for `kft.data.read_table`.
        decimal: As for `kft.data.read_table`.

    Attributes:
        path: Path of the file, "DataFrame" for a DataFrame.
        place: What `lines` number: "line", or "row" of a sheet or DataFrame.
        sep: Character between columns; "" where there is none.
        notes: List of sentences, to which readers of columns add what they changed.
        stops: Positions of records from whose sequence a stop was removed.
    """

    def __init__(
        self,
        source: Any,
        sep: str | None,
        missing: Sequence[str] | str | None = None,
        decimal: str | None = None,
    ):
        self.set_missing(missing)
        self.decimal = decimal
        check_separators(sep, decimal)
        self.notes: list[str] = []
        self.stops: set[int] = set()
        self.place, self.sep = "row", ""
        cells: Cells | None
        if is_frame(source):
            self.path, cells = Path("DataFrame"), cells_of_frame(source)
            self.checksum = hashlib.sha256(repr(cells).encode()).hexdigest()
        else:
            self.path = checked_path(source)
            content = self.path.read_bytes()
            self.checksum = hashlib.sha256(content).hexdigest()
            cells = cells_of_file(self.path, content)
            if cells is None:
                cells = self._read_text(self._decode(content), sep)
        self.header = [name.strip() for name in cells.header]
        self.rows, self.lines = cells.rows, cells.places
        self.notes += cells.notes
        if not self.rows:
            raise ValueError(f"{self.path} has a header but no records; add at least one line.")

    def _read_text(self, text: str, sep: str | None) -> Cells:
        if not text.strip():
            raise ValueError(f"{self.path} is empty; its first line should name the columns.")
        self.place = "line"
        if self.path.name.lower().removesuffix(".gz").endswith(JSON_LINES):
            return cells_of_json_lines(self.path, text)
        self.sep = sep or separator(text)
        # newline="" leaves line ends inside of quotes to the csv module
        (_, header), *rows = checked_rows(io.StringIO(text, newline=""), self.sep, self.path)
        notes = []
        if sep is None and self.sep != ",":
            notes = [
                f"Columns are separated by {SEPARATORS[self.sep]}; set `sep=` if they are not."
            ]
        return Cells(header, [row for _, row in rows], [line for line, _ in rows], notes)

    def column(self, name: str, argument: str) -> list[str]:
        """Return the cells of a column, without space around them; missing ones are an error."""
        self.settle({argument: name})
        return self.cells(name)

    def settle(
        self, columns: dict[str, str], dropna: bool = False, may_be_empty: str | None = None
    ) -> None:
        """Raise an error that lists all missing cells, or leave their lines out.

        Args:
            columns: Argument -> name of the column.
            dropna: True leaves the lines out and notes how many.
            may_be_empty: The column whose empty cells are values.
        """
        for argument, name in columns.items():
            self.check_column(name, argument)
        lacking = {
            name: [
                i
                for i, cell in enumerate(self.cells(name))
                if self.is_missing(cell) and (cell or name != may_be_empty)
            ]
            for name in dict.fromkeys(columns.values())
        }
        lacking = {name: rows for name, rows in lacking.items() if rows}
        if not lacking:
            return
        if not dropna:
            self._fail_missing(lacking)
        dropped = set().union(*lacking.values())
        if len(dropped) == len(self.rows):
            raise ValueError(
                f"{self.path}: every {self.place} has a missing cell; `dropna` leaves none."
            )
        counts = ", ".join(f"{name!r} {len(rows):,}" for name, rows in lacking.items())
        self.notes.append(
            f"{len(dropped):,} of {len(self.rows):,} {self.place}s with a missing cell were left "
            f"out (column {counts})."
        )
        kept = [i for i in range(len(self.rows)) if i not in dropped]
        self.lines, self.rows = [self.lines[i] for i in kept], [self.rows[i] for i in kept]

    def set_missing(self, words: Sequence[str] | str | None) -> None:
        """Set the words that mark a missing value, as for `kft.data.read_table`."""
        self.missing = _checked_missing(words)

    def is_missing(self, cell: str) -> bool:
        """Return whether a cell marks a missing value: empty, or a word of `missing`."""
        if not cell:
            return True
        if self.missing is None:
            return cell.lower() in MISSING
        value = number(cell)
        return cell in self.missing or (
            value is not None and any(number(word) == value for word in self.missing)
        )

    def fail(self, rows: int | Sequence[int], problem: str) -> NoReturn:
        """Raise an error that names the lines of records, the first line at its beginning."""
        rows = [rows] if isinstance(rows, int) else rows
        also = f" (and {self._places(rows[1:])} likewise)" * (len(rows) > 1)
        at = f"{self.place} {self.lines[rows[0]]}"
        raise ValueError(f"{self.path}, {at}: {problem}{also}.")

    def check_column(self, name: Any, argument: str) -> None:
        """Raise an error if there is not exactly one column of this name."""
        if not isinstance(name, str):
            raise TypeError(
                f"`{argument}` must be the name of a column, received {name!r}; columns of "
                f"{self.path} are {listed(self.header, 20)}."
            )
        if self.header.count(name) != 1:
            problem = "twice" if name in self.header else "not"
            how = ""
            if self.sep:
                how = (
                    f" Columns were taken to be separated by {self.sep!r}; set `sep=` if they are "
                    "not."
                )
            raise ValueError(
                f"`{argument}` is {name!r}, which is {problem} among the columns of {self.path}: "
                f"{listed(self.header, 20)}.{how}"
            )

    def cells(self, name: str) -> list[str]:
        """Return the cells of a column, without space around them."""
        position = self.header.index(name)
        return [row[position].strip() for row in self.rows]

    def _fail_missing(self, lacking: Mapping[str, Sequence[int]]) -> NoReturn:
        """Name the first missing cell and the lines of all."""
        i, name = min((found[0], name) for name, found in lacking.items())
        total = sum(map(len, lacking.values()))
        cell = self.cells(name)[i]
        more = ""
        if total > 1:
            where = "; ".join(
                f"column {other!r}, {self._places(found)}" for other, found in lacking.items()
            )
            more = f" ({total:,} cells are missing: {where})"
        remedy = (
            f"set missing=() if {shown(cell)} is a value, " if cell and self.missing is None else ""
        )
        at = f"{self.place} {self.lines[i]}"
        raise ValueError(
            f"{self.path}, {at}: column {name!r} is {shown(cell)}, a missing value"
            f"{more}; fill them, {remedy}or dropna=True to leave such {self.place}s out."
        )

    def _places(self, rows: Sequence[int]) -> str:
        """Return the lines of records, the first ten by number."""
        numbers = listed((self.lines[i] for i in rows), MOST_NAMED)
        return f"{self.place if len(rows) == 1 else self.place + 's'} {numbers}"

    def _decode(self, content: bytes) -> str:
        if content[:2] == GZIP_MAGIC:
            try:
                content = gzip.decompress(content)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f"{self.path}: the compressed file is damaged or ends early ({error}); copy "
                    "or download it again."
                ) from error
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise ValueError(
                f"{self.path}, line {line}: holds bytes that are not text in UTF-8; save the table "
                "as CSV (UTF-8)."
            ) from error


def checked_rows(lines: Iterable[str], sep: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table, the header first, without blank lines.

    Args:
        lines: Lines of the file, with their line ends as they are in the file.
        sep: Character between columns.
        path: Path of the file, for errors.

    Returns:
        Iterator of (line on which the row begins, cells).

    Raises:
        ValueError: A row has another number of columns than the header, or a quote is not closed.
    """
    reader = csv.reader(lines, delimiter=sep, strict=True)
    begin, width = 1, None
    try:
        while True:
            with _long_cells():
                row = next(reader)
            if any(cell.strip() for cell in row):
                width = width or len(row)
                if len(row) != width:
                    raise ValueError(
                        f"{path}, line {begin}: has {count_of(len(row), 'column')}, the header "
                        f"has {width}; quote cells that contain {sep!r}."
                    )
                yield begin, row
            begin = reader.line_num + 1
    except StopIteration:
        return
    except csv.Error as error:
        raise ValueError(f"{path}, line {begin}: {error}; look for an unclosed quote.") from error


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let cells have `LONGEST_CELL` characters: numbers per residue may be above csv's 131,072."""
    usual = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


def _checked_missing(missing: Any) -> tuple[str, ...] | None:
    """Return a tuple of words, also for a single one; None stays None."""
    if missing is None:
        return None
    words = tuple(missing) if isinstance(missing, list | tuple | set) else (missing,)
    for word in words:
        if not isinstance(word, str):
            raise TypeError(
                f"`missing` must hold words as the file has them, such as ('NA', '-999'); received "
                f"{shown(word)}."
            )
    return tuple(word.strip() for word in words)
