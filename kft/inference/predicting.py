"""Predictions and embeddings from raw inputs, in their order."""

import csv
import os
import shutil
import tempfile
import weakref
import zipfile
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import keras
import numpy as np

from kft.data import read_fasta
from kft.data.sequences import warn_of_changes
from kft.models.heads import Pooling
from kft.training.batching import batches, listed_inputs, silent_cuts, warn_of_cut

_CHUNK = 8192  # records of a FASTA file that are in memory at a time


def predict(model, inputs, batch_size=32, max_length=None, out=None):
    """Answers for raw inputs, in their order.

    Inputs are sorted by length behind the scenes, so that little work goes into padding.

    Args:
        model: a `kft.Model`, or a Keras model; one without `encode` takes arrays as they are.
        inputs: list of raw inputs, for proteins strings of residues; or the path of a FASTA file,
            plain or gzipped, of which only a part is in memory at a time.
        batch_size: most inputs per batch; long proteins come in smaller batches.
        max_length: residues to keep of each protein, None for all.
        out: path of a `.csv` (column `name`, then one per output) or `.npz` (`names`, `values`)
            that the answers are streamed to. None returns them. Of a per-residue head the CSV has
            a row per residue, with its `position` from 1 after the name, and the npz file all
            residues in one row, with `lengths` that say how many are of each record.

    Returns:
        float32 array (records, outputs); of a per-residue head a list of float32 arrays
        (residues, outputs), one per record, without special tokens and what `max_length` cut; or
        the path `out`, which exists only when complete.

    Raises:
        ValueError, TypeError: an input that cannot be encoded; the message says which.
        FileNotFoundError: no such FASTA file.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> kft.predict(kft.Model(backbone, kft.heads.Regression()), ["MKTAYI"]).shape
        (1, 1)
        >>> residues = kft.Model(backbone, kft.heads.ResidueClassification(3))
        >>> [rows.shape for rows in kft.predict(residues, ["MKTAYI", "GSS"])]
        [(6, 3), (3, 3)]
    """
    encode = getattr(model, "encode", None)
    return _collect(_answers(model, encode, inputs, batch_size, max_length, "predicting"), out)


def embed(backbone, inputs, pooling="mean", batch_size=32, max_length=None, out=None):
    """Vectors for raw inputs, in their order: the backbone's output, pooled.

    Args:
        backbone: a kft backbone, or a `kft.Model`, whose backbone is taken.
        inputs, batch_size, max_length, out: see `kft.predict`.
        pooling: "mean" over residues only, or "cls"; see `kft.heads.Pooling`.

    Returns:
        float32 array (records, D), or the path `out`, which exists only when complete.

    Raises:
        ValueError, TypeError: an input that cannot be encoded; the message says which.
        FileNotFoundError: no such FASTA file.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> kft.embed(backbone, ["MKTAYI", "GSS"]).shape
        (2, 320)
    """
    backbone = getattr(backbone, "backbone", backbone)
    if pooling not in ("mean", "cls"):
        raise ValueError(f"pooling must be mean or cls, received {pooling!r}.")
    models = _EMBEDDERS.setdefault(backbone, {})
    if pooling not in models:
        pooled = Pooling(pooling)(backbone.output, getattr(backbone, "residue_mask", None))
        models[pooling] = keras.Model(backbone.input, pooled, name=f"{backbone.name}_{pooling}")
    encode, model = getattr(backbone, "encode", None), models[pooling]
    return _collect(_answers(model, encode, inputs, batch_size, max_length, "embedding"), out)


# One model per backbone and pooling: a new one would be compiled anew at every call.
_EMBEDDERS = weakref.WeakKeyDictionary()


def _answers(model, encode, inputs, batch_size, max_length, doing):
    """Yields (names, answers) for one part of the inputs after the other.

    Answers are float32 (records, ...), or a list of (residues, ...) of a per-residue head.
    """
    from rich.console import Console
    from rich.progress import Progress

    if getattr(encode, "of_one_size", False) and isinstance(inputs, str | Path):
        raise TypeError(f"inputs must be a list of images, received {str(inputs)!r}: write [path].")
    per_residue = getattr(getattr(model, "head", None), "per_residue", False)
    console, cut, changes, seen = Console(stderr=True), [], Counter(), 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=None)
        for names, called, part, total in _parts(inputs):
            bar.update(task, total=total)
            with silent_cuts():  # said once, at the end
                records = batches(part, encode, batch_size, None, max_length, called)
            cut, seen, rows = cut + records.cut, seen + len(part), None
            changes += records.changes
            of_residues = per_residue and records.lengths is not None
            for i, chosen in enumerate(records.chosen):
                answer = keras.ops.convert_to_numpy(model.predict_on_batch(records[i]))
                if rows is None:
                    shape = (len(part), *answer.shape[1:])
                    rows = [None] * len(part) if of_residues else np.empty(shape, dtype="float32")
                if of_residues:
                    for record, tokens in zip(chosen, answer, strict=True):
                        # Between <cls> and <eos>; a copy, or the whole batch would be kept.
                        residues = tokens[1 : records.lengths[record] - 1]
                        rows[record] = residues.astype("float32", copy=True)
                else:
                    rows[chosen] = answer
                bar.advance(task, len(chosen))
            yield names, rows
    warn_of_cut(cut, seen, max_length)
    warn_of_changes(changes, seen)


def _parts(inputs):
    """Yields (names, what errors call them, inputs, how many in all): a FASTA file in chunks."""
    if not isinstance(inputs, str | Path):
        inputs = listed_inputs(inputs)
        names = [f"inputs[{i}]" for i in range(len(inputs))]
        yield names, names, inputs, len(inputs)
        return
    if not os.path.isfile(inputs):
        raise FileNotFoundError(
            f"inputs is {str(inputs)[:60]!r}, which is no file: give the path of a FASTA file, or "
            f"a list of raw inputs."
        )
    records = read_fasta(inputs)
    while chunk := list(islice(records, _CHUNK)):
        names, sequences = map(list, zip(*chunk, strict=True))
        yield names, [f"record {record.id}" for record in chunk], sequences, None


def _collect(answers, out):
    if out is None:
        parts = [rows for _, rows in answers]
        return list(chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)
    out = Path(out)
    writers = {".csv": _write_csv, ".npz": _write_npz}
    if out.suffix not in writers:
        raise ValueError(f"out must end in .csv or .npz, received {str(out)!r}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed: a file under its own name is complete.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as aside:
        written = Path(aside) / out.name
        writers[out.suffix](answers, written)
        written.replace(out)
    return out


def _write_csv(answers, path):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        for i, (names, rows) in enumerate(answers):
            of_residues = isinstance(rows, list)
            if i == 0:
                outputs = [f"output_{k}" for k in range(rows[0].shape[-1])]
                writer.writerow(["name", *["position"] * of_residues, *outputs])
            for name, row in zip(names, rows, strict=True):
                if of_residues:
                    writer.writerows([name, k, *x] for k, x in enumerate(row.tolist(), start=1))
                else:
                    writer.writerow([name, *row.tolist()])


def _write_npz(answers, path):
    """What `numpy.savez` writes, without ever holding all values."""
    names, lengths, count, width = [], [], 0, 0
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        for part, rows in answers:
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
