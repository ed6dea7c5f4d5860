"""The cells of a CSV or TSV file, with the lines they are on."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from kft.arguments import check_choice
from kft.data.numbers import number
from kft.data.proteins.fasta import GZIP_MAGIC, checked_path
from kft.messages import listed, shown

MISSING = {"na", "n/a", "#n/a", "nan", "null"}
MOST_NAMED = 10  # lines that an error lists


class Table:
    """The cells of a file, each with the line it is on.

    Args:
        path, sep, missing, decimal: As for `kft.data.read_csv`.

    Attributes:
        notes: List of sentences, to which readers of columns add what they changed.
        stops: Positions of records from whose sequence a stop was removed.
    """

    def __init__(
        self,
        path: str | Path,
        sep: str | None,
        missing: Sequence[str] | str | None = None,
        decimal: str | None = None,
    ):
        self.path = checked_path(path)
        self.missing, self.decimal = _checked_missing(missing), decimal
        check_choice("`decimal`", decimal, (None, ".", ","))
        if sep is not None and (not isinstance(sep, str) or len(sep) != 1 or sep in '\r\n"'):
            raise ValueError(f"`sep` must be a single character or None; received {shown(sep)}.")
        self.notes: list[str] = []
        self.stops: set[int] = set()
        content = self.path.read_bytes()
        self.checksum = hashlib.sha256(content).hexdigest()
        text = self._decode(content)
        if not text.strip():
            raise ValueError(f"{path} is empty; its first line should name the columns.")
        first = text.splitlines()[0]
        self.sep = sep or max(",\t;", key=first.count)
        (_, header), *rows = self._rows(text)
        self.header = [name.strip() for name in header]
        if not rows:
            raise ValueError(f"{path} has a header but no records; add at least one line.")
        self.lines = [line for line, _ in rows]
        self.rows = [row for _, row in rows]

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
            self._check_name(name, argument)
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
            raise ValueError(f"{self.path}: every line has a missing cell; `dropna` leaves none.")
        counts = ", ".join(f"{name!r} {len(rows):,}" for name, rows in lacking.items())
        self.notes.append(
            f"{len(dropped):,} of {len(self.rows):,} lines with a missing cell were left out "
            f"(column {counts})."
        )
        kept = [i for i in range(len(self.rows)) if i not in dropped]
        self.lines, self.rows = [self.lines[i] for i in kept], [self.rows[i] for i in kept]

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
        raise ValueError(f"{self.path}, line {self.lines[rows[0]]}: {problem}{also}.")

    def _check_name(self, name: Any, argument: str) -> None:
        if not isinstance(name, str):
            raise TypeError(
                f"`{argument}` must be the name of a column, received {name!r}; columns of "
                f"{self.path} are {listed(self.header, 20)}."
            )
        if self.header.count(name) != 1:
            problem = "twice" if name in self.header else "not"
            raise ValueError(
                f"`{argument}` is {name!r}, which is {problem} among the columns of {self.path}: "
                f"{listed(self.header, 20)}. Columns were taken to be separated by {self.sep!r}; "
                "set `sep=` if they are not."
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
        raise ValueError(
            f"{self.path}, line {self.lines[i]}: column {name!r} is {shown(cell)}, a missing value"
            f"{more}; fill them, {remedy}or dropna=True to leave such lines out."
        )

    def _places(self, rows: Sequence[int]) -> str:
        """Return the lines of records, the first ten by number."""
        named = ", ".join(str(self.lines[i]) for i in rows[:MOST_NAMED])
        more = f" and {len(rows) - MOST_NAMED:,} more" * (len(rows) > MOST_NAMED)
        return f"line{'s' * (len(rows) > 1)} {named}{more}"

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

    def _rows(self, text: str) -> Iterator[tuple[int, list[str]]]:
        """Yield (line on which the row begins, cells), without blank lines."""
        # newline="" leaves line ends inside of quotes to the csv module
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.sep, strict=True)
        begin, width = 1, None
        # A row of numbers per residue may be longer than the module's usual limit, 131,072.
        usual = csv.field_size_limit(max(len(text), csv.field_size_limit()))
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    width = width or len(row)
                    if len(row) != width:
                        raise ValueError(
                            f"{self.path}, line {begin}: has {len(row)} columns, the header has "
                            f"{width}; quote cells that contain {self.sep!r}."
                        )
                    yield begin, row
                begin = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{self.path}, line {begin}: {error}; look for an unclosed quote."
            ) from error
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
