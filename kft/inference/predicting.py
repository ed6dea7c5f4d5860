"""Predictions of raw inputs, in the order of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal, overload

import keras
import numpy as np
import pandas as pd

from kft.arguments import check_flag
from kft.backbones.contract import check_no_prompts
from kft.inference import writing
from kft.inference.naming import with_harmless_words, with_predictions
from kft.inference.records import Records
from kft.inference.stream import Stream
from kft.models import per_residue
from kft.params.paths import check_model
from kft.training.features import Source, identity_of


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
    window: int | None = None,
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
    window: int | None = None,
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
    window: int | None = None,
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
    window: int | None = None,
) -> np.ndarray | list[np.ndarray] | Path | pd.DataFrame:
    """Predict from raw inputs; the predictions are in the order of the inputs.

    Sequences are sorted by length internally, so that batches contain little padding.

    Args:
        model: A `kft.Model`, or any Keras model with one output.
        inputs: List of raw inputs, for proteins strings of residues, for rows of a table dicts of
            its columns; a pandas Series or DataFrame; or the path of a table (.csv, .tsv, .xlsx,
            .parquet, .jsonl), of an image or a folder of images, in which hidden files are skipped,
            or of a FASTA file, plain or gzipped, which is read in parts, so that it may be larger
            than the memory.
        batch_size: Largest number of inputs per batch; batches of long proteins are smaller.
        max_length: Number of residues to keep of each protein; None keeps all.
        out: Path of a .csv, .tsv, .xlsx, .parquet or .jsonl file, to which the columns of the input
            and of the predictions are written (with semicolons and decimal commas if the input has
            them); or of an .npz or .h5 file, which `kft.load_embeddings` reads. None returns the
            predictions. What an interrupted call has computed is kept next to `out`, and the same
            call continues from it.
        encode: Function from raw inputs to arrays, such as `backbone.encode` for a Keras model
            that was built on `backbone.input`; None takes `model.encode`. Without either the
            inputs are arrays.
        as_frame: True returns a DataFrame with the columns of the input and of the predictions.
        column: Column of a table that holds the inputs; None takes the only one, or "sequence",
            or for images, whose paths are relative to the table, "path". A model of rows takes all
            columns that it knows by name.
        skip_invalid: True skips inputs that cannot be encoded, or are too long for the memory as
            far as that is known before, with one warning that lists them. Such a record of a FASTA
            file or of a folder is left out; of a list or table it keeps its place, and its
            predictions are NaN, and empty in files.
        window: Number of residues, 8 or more, that the model is shown at once: a longer protein is
            read in windows of as many, which overlap by half, with a warning that counts them. A
            residue has the prediction of the window whose middle is nearest to it, a protein the
            mean over its windows, weighted by these residues. ESM-2 was trained on 1022 residues
            at most, and the memory grows with them. None shows whole proteins.

    Returns:
        float32 array (records, outputs), numbers in the unit in which targets were measured; for a
        per-residue head a list of float32 arrays (residues, outputs), and for one of pairs
        (residues, residues, outputs), one per record, without special tokens and without residues
        that `max_length` cuts off; or a DataFrame; or the path `out`. An interrupted call leaves no
        file there. Columns of predictions are named for the target and the classes, which `kft.fit`
        notes in the model: `predicted_TARGET` (`prediction` if it has no name), and the probability
        of each class in `probability_CLASS`. Per residue, cells hold a letter, or numbers separated
        by spaces, for each residue; torsions are in degrees, in `predicted_phi`, `predicted_psi`
        and `predicted_omega`.

    Raises:
        ValueError: An input cannot be encoded, the message names it; `out` has another ending;
            `out` or `as_frame` is given with a head of pairs; or `window` is given with
            `max_length`, or with a model of anything but one protein.
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
    check_model(model)
    check_no_prompts(model)
    check_flag("as_frame", as_frame)
    task = getattr(getattr(model, "head", None), "task", None)
    if (out is not None or as_frame) and task is not None and task.per_pair:
        raise ValueError(
            f"predictions of {task} are arrays (residues, residues, classes), which no table has a "
            f"row for: leave out `out` and `as_frame`, and save the arrays."
        )
    if out is not None:
        writing.checked_path(out, [*writing.TABLES, *_ARRAYS])

    def run(encoded: Any) -> list[np.ndarray]:
        outputs = keras.ops.convert_to_numpy(model.predict_on_batch(encoded))
        return [outputs.astype("float32", copy=False)]

    at_residues = per_residue(model)
    identity = None if out is None else _identity(model)
    source = Source(run, [model.output.shape[1:]] if at_residues else None, identity, False)
    encode = getattr(model, "encode", None) if encode is None else encode
    given = (inputs, batch_size, max_length, column, skip_invalid)
    stream = Stream(
        model, source, {"values": at_residues}, encode, *given, "predicting", window=window
    )

    def parts(folder: Path | None = None) -> Iterator[writing.Part]:
        for records, rows in stream.parts(folder):
            yield records, {"values": _as_measured(model, rows["values"])}

    def tables(folder: Path | None = None) -> Iterator[tuple[Records, pd.DataFrame]]:
        for records, rows in parts(folder):
            table = records.make_table()
            kept = table.shape[1] if records.in_table else 0
            table = with_predictions(table, model, rows["values"])
            in_text = out is not None and Path(out).suffix in (".csv", ".tsv")
            yield records, with_harmless_words(table, model, kept) if in_text else table

    if out is not None and Path(out).suffix in _ARRAYS:
        return writing.write(parts, out, identity)
    if out is not None:
        return writing.write_tables(tables, out, identity)
    if not as_frame:
        return collected(rows["values"] for _, rows in parts())
    several = [table for _, table in tables()]
    return several[0] if len(several) == 1 else pd.concat(several, ignore_index=True)


_ARRAYS = (".npz", ".h5")  # endings of files that have arrays of predictions


def _as_measured(model: keras.Model, rows: writing.Rows) -> writing.Rows:
    """Return predictions in the unit in which the targets were measured."""
    transform = getattr(model, "target_transform", None)
    return rows if transform is None else transform.inverse(rows)


def _identity(model: keras.Model) -> str | None:
    """Return the digest of a model, None if it has no config: then nothing is kept for later."""
    try:
        return identity_of(model)
    except NotImplementedError:
        return None


def collected(parts: Iterable[writing.Rows]) -> np.ndarray | list[np.ndarray]:
    """Join the rows of all parts: an array, or for residues a list of arrays.

    Args:
        parts: Rows of one part after the other.
    """
    rows = list(parts)
    if isinstance(rows[0], list):
        # Copies, since one view would keep the residues of all records in memory.
        return [residues.copy() for residues in chain(*rows)]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)
