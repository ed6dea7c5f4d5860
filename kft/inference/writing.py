"""Files of predictions and embeddings, written part by part: tables, and columns of numbers.

Tables (CSV, TSV, Excel, Parquet) have the columns of the input and of the predictions. A file of
columns of numbers (CSV, NPZ, HDF5, Parquet) has the names of the records and one or more columns. A
column has a row of numbers per record (records, D), or one per residue: then all residues are in
one array (residues, D), and `lengths` has the number of residues of each record. In NPZ and HDF5 a
column is an array under its name. Names in NPZ are UTF-8 bytes with offsets, since an array of
strings would give each name the size of the longest.
"""

from __future__ import annotations

import csv
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kft.arguments import check_path
from kft.data.spreadsheets import INSTALL
from kft.files import Aside, move_into_place
from kft.inference.records import Records
from kft.messages import harmless_cell

# A column of some records: an array (records, D), or for residues a list of arrays (residues, D).
Rows = np.ndarray | list[np.ndarray]
Part = tuple[Records, dict[str, Rows]]  # some records, and their columns

TABLES = (".csv", ".tsv", ".xlsx", ".parquet", ".jsonl")  # endings of files of tables
AT_ONCE = 256  # records per group of rows in HDF5 and Parquet


def checked_path(out: str | Path, endings: Iterable[str] | None = None) -> Path:
    """Return the path of a file that can be written, or raise an error for another ending.

    Args:
        out: Path of the file.
        endings: Endings that are allowed; None for those of `WRITERS`.

    Raises:
        ValueError: It ends in anything else.
        ModuleNotFoundError: It ends in .parquet, and pyarrow is not installed.

    Example:
        >>> checked_path("predictions.csv").name
        'predictions.csv'
    """
    out = check_path("out", out)
    *first, last = WRITERS if endings is None else endings
    if out.suffix not in (*first, last):
        raise ValueError(f"out must end in {', '.join(first)} or {last}, received {str(out)!r}.")
    if out.suffix == ".parquet":
        arrow()
    return out


def arrow() -> Any:
    """Import pyarrow; raise an error with the command that installs it.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Parquet files need pyarrow: {INSTALL}, or write .h5 or .npz."
        ) from error
    return pyarrow


def write(
    parts: Callable[[Path], Iterable[Part]], out: str | Path, identity: str | None = None
) -> Path:
    """Write columns to a file, one part after the other.

    Args:
        parts: Function of a folder, in which computed arrays may be kept, that yields the parts.
        out: Path that ends in .csv, .npz, .h5 or .parquet; missing folders are made. An earlier
            file is replaced once the new one is complete. In a CSV file, names that a spreadsheet
            would take for formulas begin with an apostrophe, see `kft.messages.harmless_cell`.
        identity: Digest of what computes the parts. If writing is interrupted, the folder stays,
            and the next call with the same `out` and identity receives it. None removes it.

    Returns:
        Path: `out`.

    Raises:
        ValueError: `out` ends in anything else.
    """
    return written_aside(parts, WRITERS[checked_path(out).suffix], Path(out), identity)


def write_tables(
    tables: Callable[[Path], Iterable[tuple[Records, pd.DataFrame]]],
    out: str | Path,
    identity: str | None = None,
) -> Path:
    """Write tables of the same columns to one file, a text file one after the other.

    Args:
        tables: As the parts of `write`; yields records and their table.
        out: Path that ends in one of `TABLES`; missing folders are made. An earlier file is
            replaced once the new one is complete. A .csv file has the separator and the decimal
            sign of the records, a .tsv file tabs.
        identity: As for `write`.

    Returns:
        Path: `out`.

    Raises:
        ImportError: The package that writes Excel or Parquet files is not installed.
        ValueError: `out` ends in anything else.
    """
    return written_aside(tables, _write_tables, checked_path(out, TABLES), identity)


def written_aside(
    parts: Callable[[Path], Iterable[Any]],
    writer: Callable[[Iterable[Any], Path], None],
    out: Path,
    identity: str | None,
) -> Path:
    """Write a file or folder next to its place, and move it there once it is complete.

    Args:
        parts: As for `write`.
        writer: Function of the parts and of a path, which writes the file or folder there.
        out: Path of the file or folder; missing folders around it are made.
        identity: As for `write`.

    Returns:
        Path: `out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Aside(out, None if identity is None else identity[:16])
    keep = False
    try:
        aside.path.mkdir(exist_ok=True)
        written = aside.path / out.name
        writer(parts(aside.path), written)
        move_into_place(written, out)
    except BaseException as error:
        keep = identity is not None and any(path.is_dir() for path in aside.path.iterdir())
        if keep:
            error.add_note(
                f"What was computed is kept next to {out}: the same call continues from it, and "
                f"another one that writes {out.name} removes it."
            )
        raise
    finally:
        aside.close(keep)
    return out


def _write_tables(tables: Iterable[tuple[Records, pd.DataFrame]], path: Path) -> None:
    if path.suffix == ".jsonl":
        with path.open("wb") as file:
            for _, table in tables:
                text = table.to_json(orient="records", lines=True, force_ascii=False)
                file.write(text.encode())
        return
    if path.suffix in (".csv", ".tsv"):
        with path.open("wb") as file:
            for i, (records, table) in enumerate(tables):
                sep = "\t" if path.suffix == ".tsv" else records.sep
                decimal = "." if sep == "," else records.decimal
                text = table.to_csv(index=False, header=not i, sep=sep, decimal=decimal)
                file.write(text.encode())
        return
    table = pd.concat([table for _, table in tables], ignore_index=True)
    try:
        if path.suffix == ".xlsx":
            table.to_excel(path, index=False, engine="openpyxl")
        else:
            table.to_parquet(path, index=False, engine="pyarrow")
    except ImportError as error:
        raise ImportError(f"{path.name} needs another package: {INSTALL}") from error


def _write_csv(parts: Iterable[Part], path: Path) -> None:
    """Write a row per record; with columns of residues a row per residue, of these columns."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        header = False
        for records, columns in parts:
            residues = {name: x for name, x in columns.items() if isinstance(x, list)}
            shown: dict[str, Any] = residues or columns
            if not header:
                writer.writerow(["name", *["position"] * bool(residues), *_titles(shown)])
                header = True
            names = map(harmless_cell, records.names)
            for name, *rows in zip(names, *shown.values(), strict=True):
                row = np.concatenate(rows, axis=-1).tolist()
                if residues:
                    writer.writerows([name, k, *x] for k, x in enumerate(row, start=1))
                else:
                    writer.writerow([name, *row])


def _titles(columns: dict[str, Any]) -> list[str]:
    """Return the titles of the numbers of all columns: output_0, or values_3_0 for layer 3."""
    return [
        f"{'output' if name == 'values' else name}_{k}"
        for name, rows in columns.items()
        for k in range(rows[0].shape[-1])
    ]


def _write_npz(parts: Iterable[Part], path: Path) -> None:
    """Write what `numpy.savez` writes, without holding all values in memory."""
    encoded, lengths = Names(), []
    shapes: dict[str, tuple[int, ...]] = {}
    for records, columns in parts:
        encoded.add(records.names)
        lengths += _lengths(columns)
        for column, rows in columns.items():
            with path.with_name(f"{column}.raw").open("ab" if column in shapes else "wb") as file:
                for row in rows:
                    file.write(np.ascontiguousarray(row).tobytes())
            count = sum(map(len, rows)) if isinstance(rows, list) else len(rows)
            before = shapes.get(column, (0,))[0]
            shapes[column] = (before + count, *rows[0].shape[isinstance(rows, list) :])
    small = encoded.arrays() | ({"lengths": np.array(lengths)} if lengths else {})
    with zipfile.ZipFile(path, "w") as archive:
        for column, shape in shapes.items():
            raw = path.with_name(f"{column}.raw")
            with archive.open(f"{column}.npy", "w", force_zip64=True) as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                with raw.open("rb") as values:
                    shutil.copyfileobj(values, file)
            raw.unlink()
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


class Names:
    """Names as the bytes of their text, one after the other, and where each ends.

    Example:
        >>> names = Names()
        >>> names.add(["P1", "P02"])
        >>> names.arrays()["names_offsets"].tolist()
        [0, 2, 5]
    """

    def __init__(self) -> None:
        self.text, self.ends = bytearray(), [0]

    def add(self, names: Iterable[str]) -> None:
        """Add names.

        Args:
            names: Some names, in order.
        """
        for name in names:
            self.text += name.encode("utf-8", "surrogatepass")
            self.ends.append(len(self.text))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that `decoded_names` reads: names_utf8 and names_offsets."""
        return {
            "names_utf8": np.frombuffer(bytes(self.text), dtype="uint8"),
            "names_offsets": np.array(self.ends, dtype="int64"),
        }


def decoded_names(text: np.ndarray, offsets: np.ndarray) -> list[str]:
    """Return the names that are stored as bytes and offsets.

    Args:
        text: uint8 array (bytes,), the names in UTF-8, one after the other.
        offsets: int array (records + 1,), where each begins and the last one ends.

    Example:
        >>> decoded_names(np.frombuffer(b"P1P02", "uint8"), np.array([0, 2, 5]))
        ['P1', 'P02']
    """
    whole = text.tobytes()
    return [whole[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(offsets.tolist())]


def _lengths(columns: dict[str, Rows]) -> list[int]:
    """Return the number of residues of each record, or nothing without columns of residues."""
    return next((list(map(len, rows)) for rows in columns.values() if isinstance(rows, list)), [])


def _write_h5(parts: Iterable[Part], path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for records, columns in parts:
            _append(file, "names", np.array(records.names, dtype=object), h5py.string_dtype())
            if lengths := _lengths(columns):
                _append(file, "lengths", np.array(lengths, dtype="int64"))
            for column, rows in columns.items():
                for start in range(0, len(rows), AT_ONCE):
                    some = rows[start : start + AT_ONCE]
                    _append(file, column, np.concatenate(some) if isinstance(some, list) else some)


def _append(file: Any, name: str, values: np.ndarray, dtype: Any = None) -> None:
    """Append rows to a data set of an HDF5 file, which is made if it is missing."""
    if name not in file:
        shape = (0, *values.shape[1:])
        dtype = dtype or values.dtype
        file.create_dataset(name, shape, dtype, maxshape=(None, *shape[1:]), chunks=True)
    data = file[name]
    data.resize(len(data) + len(values), axis=0)
    data[len(data) - len(values) :] = values


def _write_parquet(parts: Iterable[Part], path: Path) -> None:
    pyarrow = arrow()
    writer = None
    try:
        for records, columns in parts:
            for start in range(0, len(records.names), AT_ONCE):
                some = slice(start, start + AT_ONCE)
                arrays = {"name": pyarrow.array(records.names[some], pyarrow.large_string())}
                arrays |= {name: _lists(pyarrow, rows[some]) for name, rows in columns.items()}
                table = pyarrow.table(arrays)
                writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
                writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _lists(pyarrow: Any, rows: Rows) -> Any:
    """Return a column of Parquet: a list of D numbers per record, or a list of such lists."""
    flat = np.concatenate(rows) if isinstance(rows, list) else rows
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat.ravel()), flat.shape[-1])
    if not isinstance(rows, list):
        return lists
    offsets = pyarrow.array(_starts(list(map(len, rows))), pyarrow.int64())
    return pyarrow.LargeListArray.from_arrays(offsets, lists)


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype="int64")])


WRITERS: dict[str, Callable[[Iterable[Part], Path], None]] = {
    ".csv": _write_csv,
    ".npz": _write_npz,
    ".h5": _write_h5,
    ".parquet": _write_parquet,
}
