"""Embeddings in pieces: the shards of an input, and the one file of all.

A shard is a stretch of the records, chosen so that all shards have about as many residues. That of
`shard="3/64"` is the file `shard_03_of_64.h5` of a folder. Next to it `shard_03_of_64.json` says
what it was computed from: digests of the weights, of all records and of the file itself. So shards
may be computed in any order, by several processes or machines that share the folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kft.arguments import check_instance, check_path
from kft.data.inputs import residues_in
from kft.files import read_json, sha256_of, write_text
from kft.inference import writing
from kft.inference.embeddings_file import load_embeddings
from kft.inference.records import Records, Stretch
from kft.inference.stream import Stream
from kft.messages import listed, warn
from kft.training.features import update_with_record

_MERGED = "embeddings.h5"
# Keys of the description of a shard, and what differs where their values do.
_SAME = {
    "shards": "another number of shards",
    "input": "another input",
    "backbone": "another backbone",
    "weights": "another backbone (its weights differ)",
    "pooling": "another pooling",
    "layers": "other layers",
    "per_residue": "another per_residue",
    "max_length": "another max_length",
    "window": "another window",
}


def checked_shard(shard: Any) -> tuple[int, int]:
    """Return the number of a shard, from 1, and that of all.

    Args:
        shard: As for `kft.embed`.

    Raises:
        TypeError: It is no string.
        ValueError: It is not such a pair.

    Example:
        >>> checked_shard("3/64")
        (3, 64)
    """
    check_instance("shard", shard, str, "a string such as '3/64'")
    found = re.fullmatch(r"([0-9]{1,7})/([0-9]{1,7})", shard)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(
            f"shard must be I/N with I from 1 to N, such as '3/64', received {shard[:40]!r}."
        )
    return number, count


def write_shard(stream: Stream, out: Path | str, shard: str, about: Mapping[str, Any]) -> Path:
    """Compute one shard of an input, unless the folder has it already.

    Args:
        stream: The embeddings of all records.
        out: Folder of the shards; it is made if it is missing.
        shard: As for `kft.embed`.
        about: What the shard depends on besides its records: values of JSON under keys of `_SAME`.

    Returns:
        Path of the file.

    Raises:
        ValueError: There are more shards than records, or the folder has shards of something else.
    """
    number, count = checked_shard(shard)
    folder = Path(out)
    sizes, digest = _measured(stream)
    if count > len(sizes):
        raise ValueError(
            f"shard must name at most as many shards as there are records, received {shard!r} for "
            f"{len(sizes):,} records."
        )
    about = {"shards": count, "input": digest, **about}
    name = _name(number, count)
    path = folder / f"{name}.h5"
    for manifest, other in _manifests(folder).items():
        _check_same(manifest, other, about)
    if (manifest := path.with_suffix(".json")).exists():
        if _is_whole(path, read_json(manifest)):
            warn(f"{path} is complete already: nothing was computed.")
            return path
        warn(f"{path} is missing or was changed, and is computed again.")
    edges = _edges(sizes, count)
    stream.stretch = Stretch(int(edges[number - 1]), int(edges[number]), len(sizes))
    written = 0

    def parts(aside: Path) -> Iterator[writing.Part]:
        nonlocal written
        for records, rows in stream.parts(aside):
            written += len(records.names)
            yield records, rows

    writing.write(parts, path, stream.source.identity)
    about = {"shard": number, **about, "records": written, "sha256": sha256_of(path)}
    write_text(manifest, json.dumps(about, indent=1))
    return path


def merge_embeddings(folder: str | Path, out: str | Path | None = None) -> Path:
    """Join the shards in a folder to one file, with the records in the order of the input.

    Of no more than one shard the pooled vectors, and of 256 records those of residues, are in
    memory at a time. The shards stay where they are.

    Args:
        folder: Folder of the shards that `kft.embed` wrote with `shard`.
        out: Path of a `.npz`, `.h5`, `.parquet` or `.csv` file, as for `kft.embed`; None writes
            `embeddings.h5` into the folder.

    Returns:
        Path of the file, which `kft.load_embeddings` reads.

    Raises:
        FileNotFoundError: The folder has no shards, or one is missing.
        ValueError: Shards were computed from different inputs or by different backbones, or one was
            changed.

    Example:
        >>> import tempfile, kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for shard in ("1/2", "2/2"):
        ...         _ = kft.embed(backbone, ["MKTAYI", "GSS"], out=folder, shard=shard)
        ...     kft.load_embeddings(kft.merge_embeddings(folder)).values.shape
        (2, 320)
    """
    folder = check_path("folder", folder)
    out = writing.checked_path(folder / _MERGED if out is None else out)
    found = _manifests(folder)
    if not found:
        raise FileNotFoundError(
            f"folder is {folder}, which has no shards: give the folder that was `out` of kft.embed "
            f"with shard."
        )
    first, about = next(iter(found.items()))
    for manifest, other in found.items():
        _check_same(manifest, other, about, first.stem)
    count = about["shards"]
    there = {other["shard"] for other in found.values()}
    if missing := [f"{i}/{count}" for i in range(1, count + 1) if i not in there]:
        raise FileNotFoundError(
            f"{folder} has {len(there):,} of {count:,} shards; missing are {listed(missing)}: "
            f"compute them with shard={missing[0]!r}."
        )
    for manifest, other in found.items():
        if not _is_whole(manifest.with_suffix(".h5"), other):
            raise ValueError(
                f"{manifest.with_suffix('.h5')} is missing or was changed after it was written: "
                f"compute it again with shard='{other['shard']}/{count}'."
            )
    in_order = sorted(found, key=lambda manifest: found[manifest]["shard"])
    shards = [manifest.with_suffix(".h5") for manifest in in_order if found[manifest]["records"]]
    if not shards:
        raise ValueError(f"all records of the shards in {folder} were skipped: nothing to merge.")
    return writing.write(lambda _: _parts(shards), out)


def _parts(shards: list[Path]) -> Iterator[writing.Part]:
    """Yield the records of all shards with their columns, some at a time."""
    for path in shards:
        found = load_embeddings(path)
        for start in range(0, len(found.names), writing.AT_ONCE):
            some = slice(start, start + writing.AT_ONCE)
            names = found.names[some]
            records = Records([], names, names, names, range(len(names)), pd.DataFrame, len(names))
            yield records, {name: rows[some] for name, rows in found.columns.items()}


def _measured(stream: Stream) -> tuple[np.ndarray, str]:
    """Return the residues of each record, 1 where it has none, and a digest of names and records.

    The records are read, and not encoded.
    """
    digest, sizes = hashlib.sha256(), []
    most = np.inf if stream.max_length is None else stream.max_length
    for part in stream.read([] if stream.skip_invalid else None):
        for name, x in zip(part.names, part.inputs, strict=True):
            digest.update(f"{name!r} ".encode())
            update_with_record(digest, x)
            sizes.append(min(_size(x), most))
    return np.array(sizes), digest.hexdigest()


def _size(x: Any) -> int:
    try:
        return max(1, residues_in(x)) if isinstance(x, str | tuple | list) else 1
    except (TypeError, ValueError):  # it cannot be encoded, which is said then
        return 1


def _edges(sizes: np.ndarray, count: int) -> np.ndarray:
    """Return the first record of each shard, and the number of records: int (count + 1,).

    Each shard has at least one record.

    Args:
        sizes: Residues of each record, at least 1.
        count: Number of shards, at most that of records.
    """
    numbers = np.arange(count + 1)
    before = np.concatenate([[0], np.cumsum(sizes)])
    nearest = np.searchsorted((before[:-1] + before[1:]) / 2, before[-1] * numbers / count)
    return np.minimum(np.maximum.accumulate(nearest - numbers), len(sizes) - count) + numbers


def _name(number: int, count: int) -> str:
    return f"shard_{number:0{len(str(count))}}_of_{count}"


def _manifests(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the descriptions of the shards in a folder, by their paths.

    Raises:
        ValueError: One is damaged.
    """
    found = {path: read_json(path) for path in sorted(folder.glob("shard_*_of_*.json"))}
    for path, about in found.items():
        if missing := {"shard", "records", "sha256", *_SAME} - set(about) - {"window"}:
            raise ValueError(
                f"{path} has no {sorted(missing)[0]}: it was not written by kft.embed, or it is "
                f"damaged. Remove it, and compute its shard again."
            )
    return found


def _check_same(
    manifest: Path, other: Mapping[str, Any], about: Mapping[str, Any], called: str = "this call"
) -> None:
    """Raise an error if a shard in the folder was computed from something else."""
    for key, differs in _SAME.items():
        if other.get(key) != about.get(key):  # earlier files have no window
            raise ValueError(
                f"{manifest.with_suffix('.h5')} is of {differs}: it has {key} "
                f"{str(other[key])[:16]}, and {called} {str(about[key])[:16]}. Name another "
                f"folder, or remove it with {manifest.name}."
            )


def _is_whole(path: Path, about: Mapping[str, Any]) -> bool:
    """Return whether the file of a shard is as it was written."""
    return path.is_file() and sha256_of(path) == about["sha256"]
