"""Predictions and embeddings of raw inputs, in the order of the inputs."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, overload

import keras
import numpy as np
import pandas as pd

from kft.data.inputs import InputKind, encoder_info
from kft.data.proteins.fasta import Skipped, warn_of_skipped
from kft.data.sequences import warn_of_changes
from kft.inference import writing
from kft.inference.naming import with_predictions
from kft.inference.reading import Records, read_records
from kft.models import per_residue
from kft.models.heads import Pooling
from kft.training.batching import Batches, batches, silent_cuts, warn_of_cut


@overload
def predict(
    model: keras.Model,
    inputs: Any,
    batch_size: int = 32,
    max_length: int | None = None,
    out: None = None,
    encode: Callable | None = None,
    *,
    as_frame: Literal[False] = False,
    column: str | None = None,
    skip_invalid: bool = False,
) -> np.ndarray | list[np.ndarray]: ...


@overload
def predict(
    model: keras.Model,
    inputs: Any,
    batch_size: int = 32,
    max_length: int | None = None,
    *,
    out: str | Path,
    column: str | None = None,
    skip_invalid: bool = False,
    encode: Callable | None = None,
) -> Path: ...


@overload
def predict(
    model: keras.Model,
    inputs: Any,
    batch_size: int = 32,
    max_length: int | None = None,
    *,
    as_frame: Literal[True],
    column: str | None = None,
    skip_invalid: bool = False,
) -> pd.DataFrame: ...


def predict(
    model: keras.Model,
    inputs: Any,
    batch_size: int = 32,
    max_length: int | None = None,
    out: str | Path | None = None,
    encode: Callable | None = None,
    *,
    as_frame: bool = False,
    column: str | None = None,
    skip_invalid: bool = False,
) -> np.ndarray | list[np.ndarray] | Path | pd.DataFrame:
    """Predict from raw inputs; the predictions are in the order of the inputs.

    Sequences are sorted by length internally, so that batches contain little padding.

    Args:
        model: A `kft.Model`, or any Keras model with one output.
        inputs: List of raw inputs, for proteins strings of residues; a pandas Series or DataFrame;
            or the path of a table (.csv, .tsv, .xlsx, .parquet, .jsonl) or of a FASTA file, plain
            or gzipped, which is read in parts, so that it may be larger than the memory.
        batch_size: Largest number of inputs per batch; batches of long proteins are smaller.
        max_length: Number of residues to keep of each protein; None keeps all.
        out: Path of a .csv, .tsv, .xlsx, .parquet or .jsonl file, to which the columns of the input
            and of the predictions are written (with semicolons and decimal commas if the input has
            them); or of an .npz file with `names` and `values`, and for a per-residue head
            all residues in one array, with `lengths`, the residues of each record. None returns
            the predictions.
        encode: Function from raw inputs to arrays, such as `backbone.encode` for a Keras model
            that was built on `backbone.input`; None takes `model.encode`. Without either the
            inputs are arrays.
        as_frame: True returns a DataFrame with the columns of the input and of the predictions.
        column: Column of a table that holds the inputs; None takes the only one, or "sequence",
            or for images, whose paths are relative to the table, "path".
        skip_invalid: True goes on where an input cannot be encoded, with one warning that lists
            them. Such a record of a FASTA file is left out; of a list or table it keeps its
            place, and its predictions are NaN, and empty in files.

    Returns:
        float32 array (records, outputs); for a per-residue head a list of float32 arrays
        (residues, outputs), one per record, without special tokens and without residues that
        `max_length` cuts off; or a DataFrame; or the path `out`. An interrupted call leaves no
        file there. Columns of predictions are named for the target and the classes, which
        `kft.fit` notes in the model: `predicted_TARGET` (`prediction` if it has no name), and the
        probability of each class in `probability_CLASS`. Per residue, cells hold a letter, or
        numbers separated by spaces, for each residue.

    Raises:
        ValueError: An input cannot be encoded, the message names it; or `out` has another ending.
        TypeError: An input is of another kind than the model takes.
        FileNotFoundError: There is no such file.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> kft.predict(model, ["MKTAYI"]).shape
        (1, 1)
        >>> kft.predict(model, ["MKTAYI"], as_frame=True).columns.tolist()
        ['sequence', 'prediction']
        >>> residues = kft.Model(backbone, kft.heads.ResidueClassification(3))
        >>> [rows.shape for rows in kft.predict(residues, ["MKTAYI", "GSS"])]
        [(6, 3), (3, 3)]
    """
    if out is not None:
        writing.checked_path(out, [*writing.TABLES, ".npz"])
    encode = getattr(model, "encode", None) if encode is None else encode
    sizes = (batch_size, max_length)
    parts = _predictions(model, encode, inputs, sizes, "predicting", column, skip_invalid)
    if out is not None and Path(out).suffix == ".npz":
        return writing.write(((part.names, rows) for part, rows in parts), out)
    if out is None and not as_frame:
        return _collected(rows for _, rows in parts)
    first, rows = next(parts)
    tables = (
        with_predictions(part.make_table(), model, rows)
        for part, rows in chain([(first, rows)], parts)
    )
    if out is not None:
        return writing.write_tables(tables, out, first.sep, first.decimal)
    several = list(tables)
    return several[0] if len(several) == 1 else pd.concat(several, ignore_index=True)


@overload
def embed(
    backbone: keras.Model,
    inputs: Any,
    pooling: Literal["mean", "cls"] = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
    out: None = None,
    *,
    column: str | None = None,
    skip_invalid: bool = False,
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
    column: str | None = None,
    skip_invalid: bool = False,
) -> Path: ...


def embed(
    backbone: keras.Model,
    inputs: Any,
    pooling: Literal["mean", "cls"] = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
    out: str | Path | None = None,
    *,
    column: str | None = None,
    skip_invalid: bool = False,
) -> np.ndarray | Path:
    """Compute one vector per raw input, in the order of the inputs: the backbone's pooled output.

    Args:
        backbone: A kft backbone, or a `kft.Model`, whose backbone is taken.
        inputs: As for `kft.predict`.
        pooling: "mean" over residues, without special tokens, or "cls"; see `kft.heads.Pooling`.
        batch_size: As for `kft.predict`.
        max_length: As for `kft.predict`.
        out: Path of a `.csv` (column `name`, then one per number) or `.npz` (`names`, `values`)
            that the vectors are written to; None returns them.
        column: As for `kft.predict`.
        skip_invalid: As for `kft.predict`.

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
    backbone = getattr(backbone, "backbone", backbone)
    if pooling not in ("mean", "cls"):
        raise ValueError(f"pooling must be 'mean' or 'cls', received {pooling!r}.")
    models = _EMBEDDERS.setdefault(backbone, {})
    if pooling not in models:
        pooled = Pooling(pooling)(backbone.output, getattr(backbone, "position_mask", None))
        models[pooling] = keras.Model(backbone.input, pooled, name=f"{backbone.name}_{pooling}")
    encode, model = getattr(backbone, "encode", None), models[pooling]
    sizes = (batch_size, max_length)
    parts = _predictions(model, encode, inputs, sizes, "embedding", column, skip_invalid)
    if out is None:
        return np.asarray(_collected(rows for _, rows in parts))
    return writing.write(((part.names, rows) for part, rows in parts), out)


# One model per backbone and pooling: a new one would be compiled again at every call.
_EMBEDDERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _predictions(
    model: keras.Model,
    encode: Callable | None,
    inputs: Any,
    sizes: tuple[int, int | None],
    verb: str,
    column: str | None,
    skip_invalid: bool,
) -> Iterator[tuple[Records, Any]]:
    """Yield one part of the records after the other, with its predictions."""
    from rich.console import Console
    from rich.progress import Progress

    info = None if encode is None else encoder_info(encode)
    if (
        info
        and info.input_kind not in (InputKind.SEQUENCE, InputKind.IMAGE)
        and isinstance(inputs, str | Path)
    ):
        raise TypeError(
            f"inputs must be a list of {info.input_kind}s, received {str(inputs)!r}: write [path]."
        )
    of_images = info is not None and info.input_kind is InputKind.IMAGE
    batch_size, max_length = sizes
    console, seen = Console(stderr=True), 0
    cut: list[int] = []
    changes: Counter[str] = Counter()
    skipped: list[Skipped] | None = [] if skip_invalid else None
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(verb, total=None)
        for part in read_records(inputs, column, skipped, of_images):
            bar.update(task, total=part.total)
            count, valid = len(part.inputs), None
            if skipped is not None and encode is not None:
                part, valid = _without_invalid(part, encode, skipped)
            if not len(part.inputs) and count:
                continue  # none is valid
            with silent_cuts():  # reported once, at the end
                records = batches(part.inputs, encode, batch_size, None, max_length, part.called)
            cut, seen = cut + records.residues_cut, seen + len(part.inputs)
            changes += records.changes
            rows = _rows(model, records, len(part.inputs), per_residue(model), bar, task)
            yield part, rows if valid is None else _in_places(rows, valid, count)
    if skipped:
        if not seen:
            raise ValueError(
                f"no input is valid; the first, {skipped[0].place}: {skipped[0].reason}"
            )
        warn_of_skipped(skipped, inputs if isinstance(inputs, str | Path) else "inputs")
    warn_of_cut(cut, seen, max_length)
    warn_of_changes(changes, seen)


def _without_invalid(
    part: Records, encode: Callable, skipped: list[Skipped]
) -> tuple[Records, list[int] | None]:
    """Return the records that can be encoded, and their positions if the others keep theirs."""
    valid = []
    for i, (x, called) in enumerate(zip(part.inputs, part.called, strict=True)):
        try:
            with silent_cuts():
                encode([x], names=[called])
            valid.append(i)
        except (ValueError, TypeError, OSError) as error:
            skipped.append(Skipped(part.numbers[i], part.places[i], str(error)))
    if len(valid) == len(part.inputs):
        return part, None
    return part.take(valid), valid if part.in_table else None


def _in_places(rows: Any, valid: Sequence[int], count: int) -> Any:
    """Return predictions of `count` records, NaN (or for residues none) where one is invalid."""
    if isinstance(rows, list):
        places = [rows[0][:0]] * count
        for i, row in zip(valid, rows, strict=True):
            places[i] = row
        return places
    filled = np.full((count, *rows.shape[1:]), np.nan, dtype="float32")
    filled[valid] = rows
    return filled


def _rows(
    model: keras.Model, records: Batches, count: int, at_residues: bool, bar: Any, task: Any
) -> Any:
    """Return the predictions of one part in the order of its records."""
    rows: Any = None
    at_residues = at_residues and records.lengths is not None
    for i, indices in enumerate(records.record_indices):
        outputs = keras.ops.convert_to_numpy(model.predict_on_batch(records[i]))
        if rows is None:
            shape = (count, *outputs.shape[1:])
            rows = [None] * count if at_residues else np.empty(shape, dtype="float32")
        if at_residues:
            for record, tokens in zip(indices, outputs, strict=True):
                # A copy, since a view would keep the whole batch in memory.
                rows[record] = tokens[records.residues(record)].astype("float32", copy=True)
        else:
            rows[indices] = outputs
        bar.advance(task, len(indices))
    return rows


def _collected(parts: Iterable[Any]) -> np.ndarray | list[np.ndarray]:
    rows = list(parts)
    return list(chain(*rows)) if isinstance(rows[0], list) else np.concatenate(rows)
