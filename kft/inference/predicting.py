"""Predictions and embeddings of raw inputs, in the order of the inputs."""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, overload

import keras
import numpy as np

from kft.arguments import check_choice, check_integer, check_optional_integer
from kft.data import read_fasta
from kft.data.inputs import InputKind, encoder_info
from kft.data.sequences import warn_of_changes
from kft.inference import writing
from kft.inference.writing import Part
from kft.messages import harmless
from kft.models.heads import Pooling
from kft.params.paths import check_model
from kft.training.batching import Batches, batches, listed_inputs, silent_cuts, warn_of_cut
from kft.training.memory import check_memory, explained

_CHUNK = 8192  # records of a FASTA file that are in memory at a time


@overload
def predict(
    model: keras.Model,
    inputs: Any,
    batch_size: int = 32,
    max_length: int | None = None,
    out: None = None,
) -> np.ndarray | list[np.ndarray]: ...


@overload
def predict(
    model: keras.Model,
    inputs: Any,
    batch_size: int = 32,
    max_length: int | None = None,
    *,
    out: str | Path,
) -> Path: ...


def predict(
    model: keras.Model,
    inputs: Any,
    batch_size: int = 32,
    max_length: int | None = None,
    out: str | Path | None = None,
) -> np.ndarray | list[np.ndarray] | Path:
    """Predict from raw inputs; the predictions are in the order of the inputs.

    Sequences are sorted by length internally, so that batches contain little padding.

    Args:
        model: A `kft.Model`, or a Keras model; one without `encode` takes arrays as they are.
        inputs: List of raw inputs, for proteins strings of residues; or the path of a FASTA file,
            plain or gzipped, which is read in parts, so that it may be larger than the memory.
        batch_size: Largest number of inputs per batch; batches of long proteins are smaller.
        max_length: Number of residues to keep of each protein; None keeps all.
        out: Path of a `.csv` (column `name`, then one per output) or `.npz` (`names`, `values`)
            that the predictions are written to; None returns them. For a per-residue head the CSV
            has a row per residue, with its `position` from 1 after the name, and the npz file all
            residues in one array, with `lengths`, the number of residues of each record.

    Returns:
        float32 array (records, outputs); for a per-residue head a list of float32 arrays
        (residues, outputs), one per record, without special tokens and without residues that
        `max_length` cuts off; or the path `out`. An interrupted call leaves no file there.

    Raises:
        ValueError: An input cannot be encoded; the message names it.
        TypeError: An input is of another kind than the model takes.
        FileNotFoundError: There is no such FASTA file.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> kft.predict(kft.Model(backbone, kft.heads.Regression()), ["MKTAYI"]).shape
        (1, 1)
        >>> residues = kft.Model(backbone, kft.heads.ResidueClassification(3))
        >>> [rows.shape for rows in kft.predict(residues, ["MKTAYI", "GSS"])]
        [(6, 3), (3, 3)]
    """
    check_model(model)
    _check_sizes(batch_size, max_length, out)
    encode = getattr(model, "encode", None)
    parts = _predictions(model, encode, inputs, batch_size, max_length, "predicting")
    return _collected(parts) if out is None else writing.write(parts, out)


@overload
def embed(
    backbone: keras.Model,
    inputs: Any,
    pooling: Literal["mean", "cls"] = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
    out: None = None,
) -> np.ndarray: ...


@overload
def embed(
    backbone: keras.Model,
    inputs: Any,
    pooling: Literal["mean", "cls"] = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
    *,
    out: str | Path,
) -> Path: ...


def embed(
    backbone: keras.Model,
    inputs: Any,
    pooling: Literal["mean", "cls"] = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
    out: str | Path | None = None,
) -> np.ndarray | Path:
    """Compute one vector per raw input, in the order of the inputs: the backbone's pooled output.

    Args:
        backbone: A kft backbone, or a `kft.Model`, whose backbone is taken.
        inputs: As for `kft.predict`.
        pooling: "mean" over residues, without special tokens, or "cls"; see `kft.heads.Pooling`.
        batch_size: As for `kft.predict`.
        max_length: As for `kft.predict`.
        out: As for `kft.predict`.

    Returns:
        float32 array (records, D), or the path `out`. An interrupted call leaves no file there.

    Raises:
        ValueError: An input cannot be encoded, or the pooling is unknown.
        TypeError: An input is of another kind than the backbone takes.
        FileNotFoundError: There is no such FASTA file.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> kft.embed(backbone, ["MKTAYI", "GSS"]).shape
        (2, 320)
    """
    check_model(backbone, "backbone")
    _check_sizes(batch_size, max_length, out)
    backbone = getattr(backbone, "backbone", backbone)
    check_choice("pooling", pooling, ("mean", "cls"))
    models = _EMBEDDERS.setdefault(backbone, {})
    if pooling not in models:
        pooled = Pooling(pooling)(backbone.output, getattr(backbone, "position_mask", None))
        models[pooling] = keras.Model(backbone.input, pooled, name=f"{backbone.name}_{pooling}")
    encode, model = getattr(backbone, "encode", None), models[pooling]
    parts = _predictions(model, encode, inputs, batch_size, max_length, "embedding")
    return np.asarray(_collected(parts)) if out is None else writing.write(parts, out)


def _check_sizes(batch_size: int, max_length: int | None, out: Any) -> None:
    """Raise an error for wrong arguments before anything is computed."""
    check_integer("batch_size", batch_size)
    check_optional_integer("max_length", max_length)
    if out is not None:
        writing.checked_path(out)


# One model per backbone and pooling: a new one would be compiled again at every call.
_EMBEDDERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _predictions(
    model: keras.Model,
    encode: Callable | None,
    inputs: Any,
    batch_size: int,
    max_length: int | None,
    verb: str,
) -> Iterator[Part]:
    """Yield names and predictions of one part of the inputs after the other."""
    from rich.console import Console
    from rich.progress import Progress

    info = None if encode is None else encoder_info(encode)
    if info and info.input_kind is not InputKind.SEQUENCE and isinstance(inputs, str | Path):
        raise TypeError(
            f"inputs must be a list of {info.input_kind}s, received {str(inputs)!r}: write [path]."
        )
    per_residue = getattr(getattr(model, "head", None), "per_residue", False)
    console, seen = Console(stderr=True), 0
    cut: list[int] = []
    changes: Counter[str] = Counter()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(verb, total=None)
        for names, called, part, total in _parts(inputs):
            bar.update(task, total=total)
            with silent_cuts():  # reported once, at the end
                records = batches(part, encode, batch_size, None, max_length, called)
            check_memory(model, records)
            cut, seen = cut + records.cut, seen + len(part)
            changes += records.changes
            yield names, _rows(model, records, len(part), per_residue, bar, task)
    warn_of_cut(cut, seen, max_length)
    warn_of_changes(changes, seen)


def _rows(
    model: keras.Model, records: Batches, count: int, per_residue: bool, bar: Any, task: Any
) -> Any:
    """Return the predictions of one part in the order of its records."""
    rows: Any = None
    per_residue = per_residue and records.lengths is not None
    for i, chosen in enumerate(records.chosen):
        with explained(records):
            outputs = keras.ops.convert_to_numpy(model.predict_on_batch(records[i]))
        if rows is None:
            shape = (count, *outputs.shape[1:])
            rows = [None] * count if per_residue else np.empty(shape, dtype="float32")
        if per_residue:
            for record, tokens in zip(chosen, outputs, strict=True):
                # A copy, since a view would keep the whole batch in memory.
                rows[record] = tokens[records.residues(record)].astype("float32", copy=True)
        else:
            rows[chosen] = outputs
        bar.advance(task, len(chosen))
    return rows


def _collected(parts: Iterable[Part]) -> np.ndarray | list[np.ndarray]:
    rows = [rows for _, rows in parts]
    return list(chain(*rows)) if isinstance(rows[0], list) else np.concatenate(rows)


def _parts(inputs: Any) -> Iterator[tuple[list[str], list[str], Any, int | None]]:
    """Yield (names, names for errors, inputs, total number); a FASTA file in chunks."""
    if not isinstance(inputs, str | Path):
        inputs = listed_inputs(inputs)
        names = [f"inputs[{i}]" for i in range(len(inputs))]
        yield names, names, inputs, len(inputs)
        return
    if not os.path.isfile(inputs):
        raise FileNotFoundError(
            f"inputs is {str(inputs)[:60]!r}, which is not a file: give the path of a FASTA file, "
            f"or a list of raw inputs."
        )
    records = read_fasta(inputs)
    while chunk := list(islice(records, _CHUNK)):
        names, sequences = map(list, zip(*chunk, strict=True))
        yield names, [f"record {harmless(record.id)}" for record in chunk], sequences, None
