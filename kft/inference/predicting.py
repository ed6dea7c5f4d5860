"""Predictions of raw inputs, in the order of the inputs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, overload

import keras
import numpy as np

from kft.inference import writing
from kft.inference.stream import Stream
from kft.training.features import Source, identity_of


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
        out: Path of a `.csv` (column `name`, then one per output), `.npz`, `.h5` or `.parquet` file
            that the predictions are written to, read it with `kft.load_embeddings`; None returns
            them. For a per-residue head the CSV has a row per residue, with its `position` from 1
            after the name. What an interrupted call has computed is kept next to `out`, and the
            same call continues from it.

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
    per_residue = getattr(getattr(model, "head", None), "per_residue", False)

    def run(encoded: Any) -> list[np.ndarray]:
        outputs = keras.ops.convert_to_numpy(model.predict_on_batch(encoded))
        return [outputs.astype("float32")]

    identity = None if out is None else _identity(model)
    source = Source(run, [model.output.shape[1:]] if per_residue else None, identity, False)
    encode = getattr(model, "encode", None)
    columns = {"values": per_residue}
    stream = Stream(source, columns, encode, inputs, batch_size, max_length, "predicting")
    if out is not None:
        return writing.write(stream.parts, out, identity)
    return collected(rows["values"] for _, rows in stream.parts())


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
