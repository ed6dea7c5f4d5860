"""A model: a backbone and a head in one functional Keras graph; predictions from raw inputs."""

import csv
import os
import shutil
import tempfile
import warnings
import weakref
import zipfile
from itertools import islice
from pathlib import Path

import keras
import numpy as np

from kft.batching import Batches, batches, warn_of_cut
from kft.data import read_fasta
from kft.heads import Pooling


@keras.saving.register_keras_serializable("kft")
class Model(keras.Model):
    """A backbone with a head on top; everything else is Keras.

    The layers of both stand side by side in one flat graph, so that a single block can be
    frozen, looked at or cut off.

    Args:
        backbone: a kft backbone, for example of `kft.load`. Its layers are shared, not copied.
        head: a layer that is called with the backbone's output and, where the backbone has one,
            its `residue_mask`, for example `kft.heads.Regression()`.

    Attributes:
        backbone, head: the two parts.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Classification(2))
        >>> kft.predict(model, ["MKTAYI", "GSS"]).shape
        (2, 2)
    """

    def __init__(self, backbone, head, name="model", **kwargs):
        mask = getattr(backbone, "residue_mask", None)
        features = backbone.output
        output = head(features) if mask is None else head(features, mask)
        super().__init__(backbone.input, output, name=name, **kwargs)
        # Not as a tracked attribute: its layers are already layers of this graph, and would be
        # listed twice.
        vars(self)["backbone"] = backbone
        self.head = head

    def encode(self, *args, **kwargs):
        """The backbone's `encode`."""
        return self.backbone.encode(*args, **kwargs)

    def fit(self, x=None, y=None, *, shuffle=None, **kwargs):
        """Keras's `fit`. Batches of `kft.batches` come in the order that their seed says."""
        if shuffle is None:
            # Keras would shuffle them once more, with Python's global random state.
            shuffle = not isinstance(x, Batches)
        return super().fit(x, y, shuffle=shuffle, **kwargs)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Keras's `predict`. Answers to batches of `kft.batches` come in the records' order."""
        chosen = x.chosen[:steps] if isinstance(x, Batches) else None  # planned anew afterwards
        answers = super().predict(x, batch_size, verbose, steps, callbacks)
        if chosen is None:
            return answers
        order = np.argsort(np.concatenate(chosen))
        return keras.tree.map_structure(lambda answer: answer[order], answers)

    def get_config(self):
        layers = self._flatten_layers(include_self=False)
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            "frozen": [layer.path for layer in layers if layer.path and not layer.trainable],
        }

    def get_compile_config(self):
        config = super().get_compile_config()
        # Keras writes down what "auto" means on the present backend. On torch, the True of the
        # others would trace for a minute.
        return config and {**config, "jit_compile": "auto"}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            part: keras.saving.deserialize_keras_object(config[part], custom_objects)
            for part in ("backbone", "head")
        }
        model = cls(**parts, name=config["name"])
        # A model is frozen as it was, or the optimizer's state would not fit it.
        for layer in model._flatten_layers(include_self=False):
            layer.trainable = layer.path not in config["frozen"]
        return model


# Predictions from raw inputs ------------------------------------------------------------------

_CHUNK = 8192  # records of a FASTA file that are in memory at a time


def predict(model, inputs, batch_size=32, max_length=None, out=None):
    """Answers for raw inputs, in their order.

    Inputs are sorted by length behind the scenes, so that little work goes into padding.

    Args:
        model: a `kft.Model`.
        inputs: list of raw inputs, for proteins strings of residues; or the path of a FASTA file,
            plain or gzipped, of which only a part is in memory at a time.
        batch_size: most inputs per batch; long proteins come in smaller batches.
        max_length: residues to keep of each protein, None for all.
        out: path of a `.csv` (column `name`, then one per output) or `.npz` (`names`, `values`)
            that the answers are streamed to. None returns them.

    Returns:
        float32 array (records, outputs), or the path `out`, which exists only when complete.

    Raises:
        ValueError, TypeError: an input that cannot be encoded; the message says which.
        FileNotFoundError: no such FASTA file.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> kft.predict(kft.Model(backbone, kft.heads.Regression()), ["MKTAYI"]).shape
        (1, 1)
    """
    encode = model.backbone.encode
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
    encode, model = backbone.encode, models[pooling]
    return _collect(_answers(model, encode, inputs, batch_size, max_length, "embedding"), out)


# One model per backbone and pooling: a new one would be compiled anew at every call.
_EMBEDDERS = weakref.WeakKeyDictionary()


def _answers(model, encode, inputs, batch_size, max_length, doing):
    """Yields (names, float32 (records, ...)) for one part of the inputs after the other."""
    from rich.console import Console
    from rich.progress import Progress

    console, cut, seen = Console(stderr=True), [], 0
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(doing, total=None)
        for names, called, part, total in _parts(inputs):
            bar.update(task, total=total)
            with warnings.catch_warnings():  # said once, at the end
                warnings.filterwarnings("ignore", message=".*longer than max_length")
                records = batches(part, encode, batch_size, None, max_length, called)
            cut, seen, rows = cut + records.cut, seen + len(part), None
            for i, chosen in enumerate(records.chosen):
                answer = keras.ops.convert_to_numpy(model.predict_on_batch(records[i]))
                if rows is None:
                    rows = np.empty((len(part), *answer.shape[1:]), dtype="float32")
                rows[chosen] = answer
                bar.advance(task, len(chosen))
            yield names, rows
    warn_of_cut(cut, seen, max_length)


def _parts(inputs):
    """Yields (names, what errors call them, inputs, how many in all): a FASTA file in chunks."""
    if not isinstance(inputs, str | Path):
        inputs = list(inputs)
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
        return np.concatenate([rows for _, rows in answers])
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
            if i == 0:
                writer.writerow(["name", *(f"output_{k}" for k in range(rows.shape[1]))])
            writer.writerows([name, *row] for name, row in zip(names, rows.tolist(), strict=True))


def _write_npz(answers, path):
    """What `numpy.savez` writes, without ever holding all values."""
    names, width = [], 0
    raw = path.with_suffix(".raw")
    with raw.open("wb") as file:
        for part, rows in answers:
            names += part
            width = rows.shape[1]
            file.write(rows.tobytes())
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("values.npy", "w", force_zip64=True) as file, raw.open("rb") as values:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), width)}
            np.lib.format.write_array_header_1_0(file, header)
            shutil.copyfileobj(values, file)
        with archive.open("names.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.array(names))
