"""Tables in Excel, Parquet and JSON lines, and DataFrames, as cells that are strings."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

EXCEL, PARQUET, EARLIER_EXCEL = b"PK\x03\x04", b"PAR1", b"\xd0\xcf\x11\xe0"  # how files begin
INSTALL = 'pip install "kft[tables]"'


class Cells(NamedTuple):
    """The cells of a table.

    Attributes:
        header: Names of the columns.
        rows: Cells of each row; "" for what is missing.
        places: Number or label of each row, for messages.
        notes: Sentences on what was left out.
    """

    header: list[str]
    rows: list[list[str]]
    places: list[Any]
    notes: list[str]


def is_frame(source: Any) -> bool:
    """Return whether an object is a pandas DataFrame, without importing pandas.

    Example:
        >>> is_frame("mine.csv")
        False
    """
    return hasattr(source, "columns") and hasattr(source, "iloc")


def cells_of_frame(frame: Any) -> Cells:
    """Return the cells of a DataFrame; a row is named by its label in the index.

    Args:
        frame: pandas.DataFrame. A cell may hold a list or array, with one entry per residue.

    Example:
        >>> import pandas as pd
        >>> cells_of_frame(pd.DataFrame({"y": [1.5, None], "z": [[1, 0], "NA"]})).rows
        [['1.5', '1 0'], ['', 'NA']]
    """
    columns = [list(map(_word, frame.iloc[:, k].to_numpy())) for k in range(frame.shape[1])]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Cells([str(name) for name in frame.columns], rows, list(frame.index), [])


def cells_of_file(path: Path, content: bytes) -> Cells | None:
    """Return the cells of an Excel or Parquet file, which is recognised by its content.

    Args:
        path: Path of the file, for messages.
        content: What it holds.

    Returns:
        The cells; None for any other file, such as text.

    Raises:
        ImportError: The package that reads it is not installed; the message has the command.
        ValueError: It is damaged, or of a version of Excel before 2007.
    """
    found = frame_of_file(path, content)
    if found is None:
        return None
    frame, notes = found
    return cells_of_frame(frame)._replace(notes=notes)


def frame_of_file(path: Path, content: bytes) -> tuple[pd.DataFrame, list[str]] | None:
    """Return an Excel or Parquet file as a DataFrame, and sentences on what was left out.

    Args:
        path: As for `cells_of_file`.
        content: As for `cells_of_file`.

    Returns:
        The DataFrame, in which the rows of a sheet have their numbers as labels; None for any other
        file.

    Raises:
        ImportError: As for `cells_of_file`.
        ValueError: As for `cells_of_file`.
    """
    if content.startswith(EARLIER_EXCEL):
        raise ValueError(
            f"{path} is a file of Excel before 2007 (.xls): save it as .xlsx or as CSV (UTF-8)."
        )
    if content.startswith(EXCEL):
        return _excel(path, content)
    if content.startswith(PARQUET):
        return _parquet(path, content)
    return None


def _excel(path: Path, content: bytes) -> tuple[pd.DataFrame, list[str]]:
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of openpyxl, on styles
        try:
            book = pd.ExcelFile(io.BytesIO(content), engine="openpyxl")
            first = pd.read_excel(book, header=None, dtype=object, na_filter=False)
        except ImportError as error:
            raise ImportError(
                f"{path} is an Excel file, which openpyxl reads: {INSTALL}"
            ) from error
        except (ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} begins as an Excel file and cannot be read as one ({error}): save it "
                "again as .xlsx, or as CSV (UTF-8)."
            ) from error
    first.index += 1  # as Excel numbers rows
    empty = first.map(lambda cell: not _word(cell).strip())
    filled = first.mask(empty)[~empty.all(axis=1)]
    if filled.empty:
        raise ValueError(
            f"{path}: the first sheet is empty; its first row should name the columns."
        )
    notes = []
    if len(book.sheet_names) > 1:
        name, *others = map(str, book.sheet_names)
        notes = [f"The first sheet, {name!r}, was read; {', '.join(others)} not."]
    return filled.iloc[1:].set_axis(list(map(_word, filled.iloc[0])), axis=1), notes


def _parquet(path: Path, content: bytes) -> tuple[pd.DataFrame, list[str]]:
    import pandas as pd

    try:
        return pd.read_parquet(io.BytesIO(content), engine="pyarrow"), []
    except ImportError as error:
        raise ImportError(f"{path} is a Parquet file, which pyarrow reads: {INSTALL}") from error
    except (ValueError, OSError) as error:  # as pyarrow's own errors are
        raise ValueError(
            f"{path} begins as a Parquet file and cannot be read as one ({error}): write it again."
        ) from error


JSON_LINES = (".jsonl", ".ndjson")


def cells_of_json_lines(path: Path, text: str) -> Cells:
    r"""Return the cells of a file with one JSON object per line.

    Args:
        path: Path of the file, for messages.
        text: What it holds.

    Returns:
        The cells; columns are in the order in which their names first occur.

    Raises:
        ValueError: A line is not a JSON object, or holds another object.

    Example:
        >>> cells_of_json_lines(Path("a.jsonl"), '{"y": 1.5}\n\n{"y": null, "z": [0, 1]}').rows
        [['1.5', ''], ['', '0 1']]
    """
    records: list[dict[str, Any]] = []
    places = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: is not JSON ({error}).") from error
        if not isinstance(record, dict) or any(isinstance(x, dict) for x in record.values()):
            raise ValueError(
                f"{path}, line {line}: expected one JSON object of names and values, such as "
                f'{{"sequence": "MKT", "y": 1.5}}; received {content[:60]!r}.'
            )
        records.append(record)
        places.append(line)
    header = list(dict.fromkeys(name for record in records for name in record))
    rows = [[_word(record.get(name)) for name in header] for record in records]
    return Cells(header, rows, places, [])


def _word(value: Any) -> str:
    """Return a cell as the text that a CSV file would have."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | np.ndarray):  # one entry per residue
        return " ".join(_word(entry) or "None" for entry in value)
    text = str(value)  # pandas has several objects for what is missing
    return "" if text in ("None", "nan", "<NA>", "NaT") else text.removesuffix(".0")
