"""Build an index, keep it in a folder, and open it again.

The folder has `index.json` (what the index is of, and the sha256 of the other files), `vectors.npy`
(N, D), `records.npz` (names, digests, space) and, beyond `EXACT_UP_TO` records, `graph.usearch`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from kft.arguments import check_choice, check_flag, check_integer, check_path
from kft.data.sequences import compared
from kft.files import atomic_write, read_json, sha256_of, write_text
from kft.inference.embedding import last_layer, stream_of
from kft.inference.records import read_records
from kft.inference.search.index import EXACT_UP_TO, Index, graph_of, usearch
from kft.inference.search.space import TRANSFORMS, Moments, Space, space_of
from kft.inference.stream import Stream
from kft.inference.writing import Names, decoded_names, written_aside
from kft.messages import count_of, listed, warn
from kft.params import fingerprint
from kft.params.paths import check_model

FORMAT = 1
ABOUT, VECTORS, RECORDS, GRAPH = "index.json", "vectors.npy", "records.npz", "graph.usearch"
RAW = "raw.f4"  # the embeddings, while the index is built
Vectors = tuple[list[str], np.ndarray, np.ndarray]  # names, digests and vectors of some records
ENOUGH = 2  # records per number of an embedding from which a database is whitened
AT_ONCE = 4096  # vectors that are changed at a time


def build_index(
    backbone: keras.Model,
    database: Any,
    out: str | Path | None = None,
    *,
    pooling: Literal["mean", "cls"] = "mean",
    layer: int | None = None,
    transform: str | None = None,
    exact: bool | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    column: str | None = None,
    skip_invalid: bool = False,
) -> Index:
    """Embed a database, so that `kft.search` can search it.

    Args:
        backbone: A kft backbone, or a `kft.Model`, whose backbone is taken.
        database: As the inputs of `kft.embed`: a list, a DataFrame, a table or a FASTA file of any
            size, which is read in parts.
        out: Folder to keep the index in, for any number of records. If it has an index of the same
            backbone, database and settings, that is opened. An interrupted call leaves no folder
            there; what it has embedded is kept beside it, and the same call continues from it. None
            keeps the index in memory alone.
        pooling: "mean" over residues, or "cls"; see `kft.embed`.
        layer: Number of a layer, see `kft.embed`; None takes the output of the backbone.
        transform: What is done to the embeddings before cosines are taken: "centered" subtracts
            the mean of the database, "whitened" also scales all directions alike, "none" nothing.
            None whitens where the database has at least twice as many records as an embedding has
            numbers, since the directions of fewer are not known, and else centres.
        exact: Whether each query is compared with all records; None does so up to 100,000 records,
            and else builds a graph of neighbours (usearch).
        batch_size: As for `kft.predict`.
        max_length: As for `kft.predict`.
        column: As for `kft.predict`.
        skip_invalid: As for `kft.predict`.

    Returns:
        `Index`.

    Raises:
        ValueError: A record is invalid, there is none, a setting is unknown, or `out` is no index,
            or one of something else.
        TypeError: A record is of another kind than the backbone takes.
        FileNotFoundError: There is no such file.
        ModuleNotFoundError: There are more than 100,000 records, and usearch is not installed.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> len(kft.build_index(backbone, ["MKTAYI", "GSS", "MKTAYL"]))
        3
    """
    check_model(backbone, "backbone")
    backbone = getattr(backbone, "backbone", backbone)
    check_choice("pooling", pooling, ("mean", "cls"))
    check_choice("transform", transform, (None, *TRANSFORMS))
    if exact is not None:
        check_flag("exact", exact)
    if layer is not None:
        last = last_layer(backbone)
        layer = range(last + 1)[check_integer("layer", layer, -last - 1, last)]
    if isinstance(database, Iterator):
        database = list(database)  # it is read twice
    given = (database, batch_size, max_length, column, skip_invalid)
    stream = stream_of(backbone, pooling, (layer,), False, given, out is not None, "database")
    settings = {"pooling": pooling, "layer": layer, "transform": transform, "exact": exact}
    settings |= {"max_length": max_length, "column": column, "skip_invalid": skip_invalid}
    about = {"backbone": described(backbone), "settings": settings}
    if out is None:
        return _built(embedded(stream), {**about, "database": None}, None)
    out = check_path("out", out)
    about["database"] = _described_database(database, column)
    if out.exists():
        index = _opened("out", out)
        _check_same(out, index.about, about)
        return index
    identity = stream.source.identity
    written_aside(partial(embedded, stream), partial(_write, about=about), out, identity)
    return load_index(out)


def embedded(stream: Stream, folder: Path | None = None) -> Iterator[Vectors]:
    """Compute the embeddings of records, some at a time, without those that are invalid.

    Args:
        stream: Of one pooled column.
        folder: As for `Stream.parts`.

    Yields:
        Names; uint64 digests of the inputs (N,); float32 vectors (N, D).

    Raises:
        ValueError: The backbone answers with NaN.
    """
    (column,) = stream.columns
    for records, rows in stream.parts(folder):
        vectors = np.asarray(rows[column])
        valid = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        if len(valid) != len(records.inputs):  # those skipped are rows of NaN
            raise ValueError(
                f"the backbone {stream.model.name} answers with NaN or infinity for "
                f"{len(records.inputs) - len(valid)} of {len(records.inputs)} records: its weights "
                f"are damaged."
            )
        names = [records.names[i] for i in valid]
        yield names, np.array([digest(x) for x in records.inputs], "uint64"), vectors[valid]


def digest(record: Any) -> int:
    """Return a number of 64 bits that is the same for equal inputs alone.

    Args:
        record: A raw input. Case and gaps of sequences do not count, images count by their file.
    """
    if isinstance(record, str):
        content = compared(record).encode("utf-8", "surrogatepass")
    elif isinstance(record, Path):
        content = record.read_bytes()
    else:
        content = (
            repr(record).encode() if isinstance(record, dict) else np.asarray(record).tobytes()
        )
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def described(backbone: keras.Model) -> dict[str, str]:
    """Return the name of a backbone and the digest of its weights, the same on all Keras backends.

    Args:
        backbone: A backbone of kft.
    """
    return {"name": backbone.name, "weights": fingerprint(backbone, trainable=None)}


def _described_database(database: Any, column: str | None) -> dict[str, str]:
    """Return what errors call a database, and the digest of its content."""
    if isinstance(database, str | Path) and Path(database).is_file():
        return {"name": Path(database).name, "content": sha256_of(database)}
    content = hashlib.sha256()
    for records in read_records(database, column, None, argument="database"):
        for name, record in zip(records.names, records.inputs, strict=True):
            content.update(f"{name!r} {digest(record)}\n".encode())
    return {"name": f"a {type(database).__name__}", "content": content.hexdigest()}


class _Collected(NamedTuple):
    """The embeddings of a database as they come from the backbone."""

    names: list[str]
    digests: np.ndarray  # (N,)
    vectors: np.ndarray  # (N, D), in memory or in a file
    moments: Moments


def _collected(parts: Iterable[Vectors], folder: Path | None) -> _Collected:
    """Collect embeddings in memory, or in a file of a folder."""
    names: list[str] = []
    digests, kept = [], []
    moments = None
    with ExitStack() as stack:
        raw = None if folder is None else stack.enter_context((folder / RAW).open("wb"))
        for some, codes, vectors in parts:
            moments = moments or Moments(vectors.shape[1])
            moments.add(vectors)
            names += some
            digests.append(codes)
            if raw is None:
                kept.append(vectors)
            else:
                raw.write(np.ascontiguousarray(vectors).tobytes())
    if moments is None or not names:
        raise ValueError("database has no valid record: give at least one.")
    shape = len(names), len(moments.mean)
    if folder is None:
        everything = np.concatenate(kept)
    else:
        everything = np.memmap(folder / RAW, "float32", "r", shape=shape)
    return _Collected(names, np.concatenate(digests), everything, moments)


def _built(parts: Iterable[Vectors], about: dict[str, Any], folder: Path | None) -> Index:
    """Build an index, its vectors in memory or in a file of a folder."""
    names, digests, raw, moments = _collected(parts, folder)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        warn(
            f"database: {count_of(len(repeated), 'name')} of several records ({listed(repeated)}); "
            f"hit_record, the position of a hit, tells the records apart."
        )
    transform = about["settings"]["transform"]
    if transform is None:
        transform = "whitened" if len(names) >= ENOUGH * raw.shape[1] else "centered"
    about = {**about, "transform": transform}
    space = space_of(moments, transform)
    vectors = raw
    if folder is not None:
        vectors = np.lib.format.open_memmap(folder / VECTORS, "w+", "float32", raw.shape)
    for start in range(0, len(names), AT_ONCE):
        vectors[start : start + AT_ONCE] = space.apply(raw[start : start + AT_ONCE])
    exact = about["settings"]["exact"]
    compare_all = len(names) <= EXACT_UP_TO if exact is None else exact
    graph = None if compare_all else graph_of(vectors)
    return Index(names, vectors, digests, space, about, graph)


def _write(parts: Iterable[Vectors], folder: Path, about: dict[str, Any]) -> None:
    """Write the folder of an index."""
    folder.mkdir(exist_ok=True)
    index = _built(parts, about, folder)
    if isinstance(index.vectors, np.memmap):
        index.vectors.flush()
    (folder / RAW).unlink()
    names = Names()
    names.add(index.names)
    matrix = {} if index.space.matrix is None else {"matrix": index.space.matrix}
    arrays: dict[str, Any] = (
        names.arrays() | {"digests": index.digests, "mean": index.space.mean} | matrix
    )
    with atomic_write(folder / RECORDS) as file:
        np.savez(file, **arrays)
    if index.graph is not None:
        index.graph.save(str(folder / GRAPH))
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    about = {"format": FORMAT, "records": len(index), "files": files, **index.about}
    write_text(folder / ABOUT, json.dumps(about, indent=1) + "\n")


def load_index(folder: str | Path) -> Index:
    """Open an index that `kft.build_index` wrote.

    Args:
        folder: Path of the folder. Its vectors are read from the disk as they are needed.

    Returns:
        `Index`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It is something else than an index, damaged, or of a later version.
        ModuleNotFoundError: It has a graph of neighbours, and usearch is not installed.

    Example:
        >>> import tempfile, kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = kft.build_index(backbone, ["MKTAYI", "GSS"], f"{folder}/two")
        ...     kft.load_index(f"{folder}/two").names
        ['database[0]', 'database[1]']
    """
    return _opened("folder", check_path("folder", folder))


def _opened(argument: str, folder: Path) -> Index:
    if not folder.exists():
        raise FileNotFoundError(f"{argument} is {folder}, which does not exist; check the name.")
    if not (folder / ABOUT).is_file():
        raise ValueError(
            f"{argument} is {folder}, which is no index of kft.build_index: it has no {ABOUT}. "
            f"Give another folder."
        )
    about = read_json(folder / ABOUT)
    parts = [about.get(name) for name in ("files", "settings", "backbone", "database")]
    if about.get("format") != FORMAT or not all(isinstance(x, dict) for x in parts):
        raise ValueError(
            f"{folder / ABOUT} is of a later version of kft, or damaged: its format is "
            f"{about.get('format')!r}, expected {FORMAT}. Build the index anew."
        )
    for name, expected in about["files"].items():
        path = folder / Path(name).name
        if not path.is_file() or sha256_of(path) != expected:
            raise ValueError(
                f"the index {folder} is damaged: {path.name} is missing or was changed. Remove the "
                f"folder and build the index anew."
            )
    vectors = np.load(folder / VECTORS, mmap_mode="r")
    with np.load(folder / RECORDS) as archive:
        arrays = {name: archive[name] for name in archive.files}
    names = decoded_names(arrays["names_utf8"], arrays["names_offsets"])
    space = Space(arrays["mean"], arrays.get("matrix"))
    graph = usearch().Index.restore(str(folder / GRAPH)) if GRAPH in about["files"] else None
    return Index(names, vectors, arrays["digests"], space, about, graph)


def check_backbone(index: Index, backbone: keras.Model) -> None:
    """Check that a backbone is the one that an index was built with.

    Args:
        index: The index.
        backbone: A backbone of kft.

    Raises:
        ValueError: It is another one.
    """
    built, given = index.about["backbone"], described(backbone)
    if given["weights"] != built["weights"]:
        raise ValueError(
            f"backbone must be that of the index, {_called(built, 'weights')}, received "
            f"{_called(given, 'weights')}: load that one, or build an index with this one."
        )


def _check_same(folder: Path, built: dict[str, Any], given: dict[str, Any]) -> None:
    """Raise an error if the index in a folder is of something else than what is asked for."""
    differ = []
    for what, key in (("backbone", "weights"), ("database", "content")):
        if built[what][key] != given[what][key]:
            names = _called(built[what], key), _called(given[what], key)
            differ.append(f"its {what} is {names[0]}, received {names[1]}")
    for name, value in given["settings"].items():
        if built["settings"].get(name) != value:
            differ.append(f"its {name} is {built['settings'].get(name)!r}, received {value!r}")
    if differ:
        raise ValueError(
            f"out is {folder}, an index of something else: {'; '.join(differ)}. Give another "
            f"folder, or remove it."
        )


def _called(one: dict[str, str], key: str) -> str:
    return f"{one['name']} ({key} {one[key][:12]})"
