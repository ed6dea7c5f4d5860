"""A model: a backbone and a head in one functional Keras graph; predictions from raw inputs."""

import csv
import os
import shutil
import tempfile
import warnings
import weakref
import zipfile
from collections import Counter
from itertools import chain, islice
from pathlib import Path

import keras
import numpy as np

from kft.backbones.batch_order import OrderedFit
from kft.backbones.copies import (
    Copied,
    adapters_of,
    flags,
    lost,
    marked,
    names_of,
    restore,
    without_flags,
)
from kft.batching import Batches, batches, listed_inputs, silent_cuts, warn_of_cut
from kft.data import read_fasta
from kft.data.sequences import warn_of_changes
from kft.heads import Pooling
from kft.lora.owned import join
from kft.params import find, is_frozen, layers, weights
from kft.params.paths import listed


@keras.saving.register_keras_serializable("kft")
class Learner(OrderedFit):
    """A functional Keras model whose frozen layers run in inference mode.

    Keras does so for BatchNormalization alone. Here a whole layer of the graph, frozen as
    `kft.params.is_frozen` says, is called with `training=False`: its dropout rests, and what it
    answers can be computed once.
    """

    def _run_through_graph(self, inputs, operation_fn=lambda op: op, call_fn=None):
        wakes = []

        def in_mode(operation):
            call = operation_fn(operation)
            # Keras asks for shapes through here, too, and clones models.
            cloned = isinstance(call, keras.Operation)
            if cloned and call is not operation and _rests(operation) and _drops(operation):
                wakes.append(operation.name)
            if call_fn or cloned or call == operation.compute_output_spec or not _rests(operation):
                return call
            return lambda *args, **kwargs: operation(*args, **{**kwargs, "training": False})

        outputs = super()._run_through_graph(inputs, in_mode, call_fn)
        if wakes and "__init__" in vars(type(self)):
            warnings.warn(
                f"The clone of {self.name} is a plain functional model, in which the dropout of "
                f"{listed(dict.fromkeys(wakes), 3)} is active in training although the layers "
                f"are frozen. copy.deepcopy(model) makes a {type(self).__name__}, where it is not.",
                stacklevel=4,
            )
        return outputs

    def compute_mask(self, inputs, previous_mask=None):
        """None: the layers inside hand on Keras's masks themselves."""
        return

    keeps_adapters = True  # its config tells of the adapters in it, whosever layers they are

    def get_config(self):
        found = adapters_of(layers(self))
        adapted = {"exchanged": found} if found else {}
        return {**super().get_config(), **adapted, **flags(self), **names_of(self)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        about = {k: v for k, v in without_flags(config).items() if k != "exchanged"}
        model = super().from_config(about, custom_objects)
        model = marked(model, {"inner_names": config.get("inner_names", ())})
        restore(layers(model), config.get("exchanged", {}))
        by_name = {layer.name: layer for layer in model.layers}
        for layer in model.layers:
            if hasattr(layer, "borrow"):
                if layer.lender not in by_name:
                    raise lost(layer.name, layer.lender, model.name)
                layer.borrow(by_name[layer.lender])
        return marked(model, config)


def _rests(operation):
    # Augmentation is part of the data: it goes on.
    return (
        isinstance(operation, keras.Layer)
        and not isinstance(operation, AUGMENTATION)
        and is_frozen(operation)
    )


def _drops(layer):
    parts = layer._flatten_layers()
    return any(part._seed_generators and getattr(part, "rate", 0) for part in parts)


# The class that Keras's layers for images share, which it does not export.
AUGMENTATION = keras.layers.RandomBrightness.__base__


def flat(model):
    """A functional model as a `Learner` in which no functional model is a layer.

    Args:
        model: a functional or Sequential Keras model.

    Returns:
        A `Learner` that shares the layers, or the model itself where it is one already.

    Raises:
        TypeError: a model that is not functional.
    """
    model = _graph(model)
    if model is None:
        raise TypeError(
            "model must be a functional Keras model that is built: the layers of any other form "
            "no graph that could be cut."
        )
    if isinstance(model, Learner) and not any(_graph(layer) for layer in model.layers):
        return model
    tensors = {id(x): x for x in model.inputs}
    _run_anew(model, tensors)
    outputs = keras.tree.map_structure(lambda x: tensors[id(x)], model.output)
    return Learner(model.input, outputs, name=model.name)


def _graph(layer):
    """The layer itself, or the model inside of a Sequential, if its graph says all it does."""
    layer = getattr(layer, "_functional", layer)
    runs = getattr(type(layer), "call", None)
    return layer if getattr(runs, "__qualname__", "") == "Functional.call" else None


def _run_anew(model, tensors):
    """Calls every layer of the graph once more, symbolically; functional ones are opened."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(tensors)
            inner = _graph(node.operation)
            if inner is None:
                outputs = keras.tree.flatten(node.operation(*args, **kwargs))
            else:
                inside = dict(zip(map(id, inner.inputs), keras.tree.flatten(args), strict=True))
                _run_anew(inner, inside)
                outputs = [inside[id(x)] for x in inner.outputs]
            tensors |= zip(map(id, node.outputs), outputs, strict=True)


@keras.saving.register_keras_serializable("kft")
class Model(Learner):
    """A backbone with a head on top; everything else is Keras.

    The layers of both stand side by side in one flat graph, so that a single block can be
    frozen, looked at or cut off. Frozen layers run in inference mode, see `Learner`.

    `copy.deepcopy(model)` makes another one that shares nothing with it. `clone_model` of Keras
    does too, with new weights, but a plain functional model without `backbone` and `encode`.

    Args:
        backbone: a kft backbone, for example of `kft.load`, or any functional Keras model. Its
            layers are shared, not copied.
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
        inputs = [backbone.output] if mask is None else [backbone.output, mask]
        names = {layer.name for layer in backbone.layers}
        if getattr(head, "name", None) in names:
            raise ValueError(
                f"The backbone has a layer named {head.name!r}, as the head is: give the head "
                f"another name, for example name='new_head'."
            )
        pooling = getattr(head, "pooling", None)
        if pooling is not None and pooling.kind != "attention" and pooling.name not in names:
            # A node of its own: with the backbone frozen, the head learns from vectors alone.
            inputs = [pooling(*inputs)]
        super().__init__(backbone.input, head(*inputs), name=name, **kwargs)
        # Not as a tracked attribute: its layers are already layers of this graph, and would be
        # listed twice.
        vars(self)["backbone"] = backbone
        self.head = head
        join(self)  # the backbone may have adapters, and each has a head of its own

    keeps_head = True  # its config tells of adapters in the head, whatever that is made of

    @property
    def encode(self):
        """The backbone's `encode`; None where it takes arrays as they are."""
        return getattr(self.backbone, "encode", None)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Keras's `predict`. Answers to batches of `kft.batches` come in the records' order."""
        chosen = x.chosen[:steps] if isinstance(x, Batches) else None  # planned anew afterwards
        answers = super().predict(x, batch_size, verbose, steps, callbacks)
        if chosen is None:
            return answers
        order = np.argsort(np.concatenate(chosen))
        return keras.tree.map_structure(lambda answer: answer[order], answers)

    def _in_head(self):
        """{path: layer} of the head, "" for itself."""
        return {"": self.head, **layers(self.head)}

    def get_config(self):
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            "exchanged": adapters_of(self._in_head()),
            **flags(self),
            **({} if isinstance(self.backbone, Copied) else names_of(self)),
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
        restore(model._in_head(), config.get("exchanged", {}))
        # A model is frozen as it was, or the optimizer's state would not fit it.
        if "frozen" in config:  # an older file, by Keras's paths, which may count on in a process
            for layer in model._flatten_layers(include_self=False):
                layer.trainable = layer.path not in config["frozen"]
        return marked(model, config)


def replace_head(model, head, features=None):
    """Chops a model's head and puts another one on its backbone.

    Layers are shared, so the backbone keeps what it has learned, and what is frozen stays frozen.
    kft's heads start from zero weights (Dosovitskiy et al. 2021, section 3.2).

    Args:
        model: a `kft.Model`, or any functional Keras model.
        head: a layer that is called with the features, for example `kft.heads.Classification(10)`.
        features: pattern of the one layer whose output the head is to take, see `kft.freeze`.
            None takes what the last layer with weights takes, which is to be chopped with all
            that follows it. A `kft.Model` knows its head, and takes None alone.

    Returns:
        A `kft.Model` that is not compiled.

    Raises:
        TypeError: a model that is not functional.
        ValueError: the pattern matches no layer, or several, or is given with a `kft.Model`; a
            model without a layer to chop; a head named as a layer of the backbone.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> kft.replace_head(model, kft.heads.Classification(10)).output_shape
        (None, 10)
    """
    if isinstance(model, Model):
        if features is not None:
            raise ValueError(
                f"features is for plain Keras models, received {features!r} with a kft.Model, "
                f"whose heads take the output of its backbone."
            )
        return Model(model.backbone, head, name=model.name)
    graph = flat(model)
    tensor = _features(model, graph, features)
    backbone = keras.Model(graph.input, tensor, name=f"{model.name}_backbone")
    return Model(backbone, head, name=model.name)


def node_of(graph, layer):
    """The first node of a functional model that calls a layer; the layer itself may have others.

    Args:
        graph: a functional Keras model.
        layer: a layer of it.

    Returns:
        A Keras node: `input_tensors` and `output_tensors` are those of this model.
    """
    nodes = [node for depth in graph._nodes_by_depth.values() for node in depth]
    return next(node for node in nodes if node.operation is layer)


def _features(model, graph, pattern):
    if pattern is not None:
        found = [layer for path, layer in find(model, pattern) if layer in graph.layers]
        if len(found) != 1:
            raise ValueError(
                f"features must match one layer of the graph, received {pattern!r}, which matches "
                f"{len(found)}: {', '.join(layer.name for layer in found)}. The layers are "
                f"{', '.join(layer.name for layer in graph.layers)}."
            )
        return node_of(graph, found[0]).output_tensors[0]
    weighted = [layer for layer in graph.layers if layer.weights]
    if not weighted:
        raise ValueError(f"{model.name} has no layer with weights that could be its head.")
    return node_of(graph, weighted[-1]).input_tensors[0]


def load_saved(path):
    """Loads what `model.save` wrote, in Keras's safe mode, and looks at its weights.

    Args:
        path: of a `.keras` file.

    Returns:
        The model.

    Raises:
        ValueError: the file is none of Keras's, or holds weights that are no finite numbers.

    Example:
        `load_saved("amp.keras")`
    """
    model = keras.saving.load_model(path)
    found = [
        (weight.path, keras.ops.convert_to_numpy(weight.variable)) for weight in weights(model)
    ]
    wrong = [name for name, x in found if not np.isfinite(x.astype("float32")).all()]
    if wrong:
        raise ValueError(
            f"{path}: {listed(wrong, 3)} hold values that are no finite numbers: the file is of a "
            f"training that diverged. Take an earlier one, or train anew with a smaller "
            f"learning rate."
        )
    return model


# Predictions from raw inputs ------------------------------------------------------------------

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
