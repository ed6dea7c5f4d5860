"""Files of predictions, CSV or NPZ, written part by part and renamed once they are complete."""

from __future__ import annotations

import csv
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from kft.data.spreadsheets import INSTALL
from kft.files import atomic_write

# Names of records, and their predictions: an array (records, outputs), or for residues a list of
# arrays (residues, outputs).
Part = tuple[list[str], np.ndarray | list[np.ndarray]]


def checked_path(out: str | Path, endings: Iterable[str] = (".csv", ".npz")) -> Path:
    """Return the path of a file that can be written, or raise an error for another ending.

    Args:
        out: Path of the file.
        endings: Endings that are allowed.

    Raises:
        ValueError: It ends in anything else.

    Example:
        >>> checked_path("predictions.csv").name
        'predictions.csv'
    """
    out = Path(out)
    *first, last = endings
    if out.suffix not in (*first, last):
        raise ValueError(f"out must end in {', '.join(first)} or {last}, received {str(out)!r}.")
    return out


def write(parts: Iterable[Part], out: str | Path) -> Path:
    """Write predictions to a file, one part after the other.

    Args:
        parts: Yields names and predictions of some records at a time.
        out: Path that ends in .csv or .npz; missing folders are made. An earlier file is replaced
            once the new one is complete.

    Returns:
        Path: `out`.

    Raises:
        ValueError: `out` ends in anything else.
    """
    out = checked_path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        written = Path(folder) / out.name
        WRITERS[out.suffix](parts, written)
        written.replace(out)
    return out


def _write_csv(parts: Iterable[Part], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        for i, (names, rows) in enumerate(parts):
            per_residue = isinstance(rows, list)
            if i == 0:
                outputs = [f"output_{k}" for k in range(rows[0].shape[-1])]
                writer.writerow(["name", *["position"] * per_residue, *outputs])
            for name, row in zip(names, rows, strict=True):
                if per_residue:
                    writer.writerows([name, k, *x] for k, x in enumerate(row.tolist(), start=1))
                else:
                    writer.writerow([name, *row.tolist()])


def _write_npz(parts: Iterable[Part], path: Path) -> None:
    """Write what `numpy.savez` writes, without holding all values in memory."""
    names: list[str] = []
    lengths: list[int] = []
    count, width = 0, 0
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        for part, rows in parts:
            names += part
            if isinstance(rows, list):
                lengths += map(len, rows)
                rows = np.concatenate(rows)
            count, width = count + len(rows), rows.shape[1]
            file.write(rows.tobytes())
    small = {"names": np.array(names)} | ({"lengths": np.array(lengths)} if lengths else {})
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("values.npy", "w", force_zip64=True) as file, raw.open("rb") as values:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
            np.lib.format.write_array_header_1_0(file, header)
            shutil.copyfileobj(values, file)
        for name, array in small.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array)


def write_tables(
    tables: Iterable[pd.DataFrame], out: str | Path, sep: str = ",", decimal: str = "."
) -> Path:
    """Write tables of the same columns to one file, a text file one after the other.

    Args:
        tables: Yields pandas.DataFrames.
        out: Path that ends in one of `TABLES`; missing folders are made. An earlier file is
            replaced once the new one is complete.
        sep: Character between the columns of a .csv file; in a .tsv file it is a tab.
        decimal: Decimal sign of a .csv or .tsv file; a point where commas separate the columns.

    Returns:
        Path: `out`.

    Raises:
        ImportError: The package that writes Excel or Parquet files is not installed.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as stream:
        if out.suffix == ".jsonl":
            for table in tables:
                text = table.to_json(orient="records", lines=True, force_ascii=False)
                stream.write(text.encode())
            return out
        if out.suffix in (".csv", ".tsv"):
            sep = "\t" if out.suffix == ".tsv" else sep
            decimal = "." if sep == "," else decimal
            for i, table in enumerate(tables):
                text = table.to_csv(index=False, header=not i, sep=sep, decimal=decimal)
                stream.write(text.encode())
            return out
        table = pd.concat(list(tables), ignore_index=True)
        try:
            if out.suffix == ".xlsx":
                table.to_excel(stream, index=False, engine="openpyxl")
            else:
                table.to_parquet(stream, index=False, engine="pyarrow")
        except ImportError as error:
            raise ImportError(f"{out} needs another package: {INSTALL}") from error
    return out


TABLES = (".csv", ".tsv", ".xlsx", ".parquet", ".jsonl")
WRITERS: dict[str, Callable[[Iterable[Part], Path], None]] = {
    ".csv": _write_csv,
    ".npz": _write_npz,
}
