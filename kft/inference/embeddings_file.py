"""Read the files that `kft.embed` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from kft.arguments import check_path
from kft.inference.writing import arrow, decoded_names


@dataclass(frozen=True)
class Embeddings:
    """The content of a file that `kft.embed` or `kft.predict` wrote.

    Attributes:
        names: Names of the records.
        columns: Name of a column -> its rows: a float32 array (records, D), or `Residues`. The
            columns are those of `kft.embed`, such as "values" or "values_6".

    Example:
        >>> Embeddings(["P1"], {"values": np.zeros((1, 320))}).values.shape
        (1, 320)
    """

    names: list[str]
    columns: dict[str, Any] = field(repr=False)

    @property
    def values(self) -> Any:
        """The column "values", of a file with one layer."""
        if "values" not in self.columns:
            raise ValueError(
                f"The file has several layers: choose one of columns, {', '.join(self.columns)}."
            )
        return self.columns["values"]


class Residues(Sequence):
    """The rows of each record, float32 arrays (residues, D), read when they are asked for.

    Args:
        rows: Array or HDF5 data set (all residues, D).
        lengths: Number of residues of each record.

    Example:
        >>> [len(x) for x in Residues(np.zeros((5, 2)), [2, 3])]
        [2, 3]
    """

    def __init__(self, rows: Any, lengths: Sequence[int] | np.ndarray):
        self._rows = rows
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype="int64")])

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]: ...

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = range(len(self))[index]
        start, end = self._starts[record : record + 2]
        return self._rows[start:end]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))


def load_embeddings(path: str | Path) -> Embeddings:
    """Read a file that `kft.embed` or `kft.predict` wrote, of this version or an earlier one.

    Rows of residues in HDF5 are read record by record when they are asked for, so that the file may
    be larger than the memory.

    Args:
        path: Path of a `.npz`, `.h5` or `.parquet` file. A `.csv` file is read by
            `pandas.read_csv`, a `.parquet` file of `kft.predict` by `pandas.read_parquet`.

    Returns:
        `Embeddings`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file ends in anything else, or holds something else.
        ModuleNotFoundError: It ends in .parquet, and pyarrow is not installed.

    Example:
        >>> import tempfile, kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     out = kft.embed(backbone, ["MKTAYI", "GSS"], out=f"{folder}/two.npz")
        ...     found = kft.load_embeddings(out)
        >>> found.names, found.values.shape
        (['inputs[0]', 'inputs[1]'], (2, 320))
    """
    path = check_path("path", path)
    if path.suffix not in _READERS:
        raise ValueError(
            f"path must end in .npz, .h5 or .parquet, received {str(path)!r}; a .csv file is read "
            f"by pandas.read_csv."
        )
    if not path.is_file():
        raise FileNotFoundError(f"path is {path}, which is not a file; check the name.")
    try:
        return _READERS[path.suffix](path)
    except KeyError as error:
        raise ValueError(
            f"{path} has no {error}: it was not written by kft.embed or kft.predict, or it is a "
            f"table, which pandas.read_parquet reads."
        ) from None


def _read_npz(path: Path) -> Embeddings:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    if "names" in arrays:  # of an earlier version
        names = arrays.pop("names").tolist()
    else:
        names = decoded_names(arrays.pop("names_utf8"), arrays.pop("names_offsets"))
    return _embeddings(names, arrays.pop("lengths", None), arrays)


def _read_h5(path: Path) -> Embeddings:
    import h5py

    file = h5py.File(path, "r")  # rows of residues are read from it later
    names = file["names"].asstr()[:].tolist()
    lengths = file["lengths"][:] if "lengths" in file else None
    columns = {name: file[name] for name in file if name not in ("names", "lengths")}
    return _embeddings(names, lengths, columns)


def _read_parquet(path: Path) -> Embeddings:
    pyarrow = arrow()
    table = pyarrow.parquet.read_table(path).combine_chunks()
    names, lengths, columns = table["name"].to_pylist(), None, {}
    for name in table.column_names[1:]:
        lists = pyarrow.concat_arrays(table[name].chunks)
        if pyarrow.types.is_large_list(lists.type):
            lengths, lists = np.diff(lists.offsets.to_numpy()), lists.flatten()
        columns[name] = lists.flatten().to_numpy().reshape(-1, lists.type.list_size)
    return _embeddings(names, lengths, columns)


def _embeddings(names: list[str], lengths: Any, columns: dict[str, Any]) -> Embeddings:
    """Return the columns, with those of residues cut into records."""
    found = {}
    for name, rows in columns.items():
        per_residue = lengths is not None and name.startswith("values")
        found[name] = Residues(rows, lengths) if per_residue else rows[:]
    return Embeddings(names, found)


_READERS = {".npz": _read_npz, ".h5": _read_h5, ".parquet": _read_parquet}
