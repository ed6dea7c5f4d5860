"""Embeddings of raw inputs: hidden states of a backbone, pooled or per residue, of any layers."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import keras
import numpy as np

from kft.arguments import check_choice, check_flag, check_path
from kft.backbones.contract import check_features, check_no_prompts
from kft.inference import writing
from kft.inference.predicting import collected
from kft.inference.shards import checked_shard, write_shard
from kft.inference.stream import Stream
from kft.keras_internals import nodes_of
from kft.messages import shown
from kft.models.heads import Pooling
from kft.params import fingerprint
from kft.params.paths import check_model
from kft.training.features import Source, identity_of, outputs_of

Vectors = np.ndarray | list[np.ndarray]  # (records, D), or for residues (residues, D) per record


@overload
def embed(
    backbone: keras.Model,
    inputs: Any,
    pooling: Literal["mean", "cls"] = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
    out: None = None,
    per_residue: Literal[False] = False,
    layers: None = None,
    *,
    column: str | None = None,
    skip_invalid: bool = False,
    window: int | None = None,
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
    per_residue: bool = False,
    layers: Sequence[int] | None = None,
    column: str | None = None,
    skip_invalid: bool = False,
    shard: str | None = None,
    window: int | None = None,
) -> Path: ...


@overload
def embed(
    backbone: keras.Model,
    inputs: Any,
    pooling: Literal["mean", "cls"] = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
    out: str | Path | None = None,
    per_residue: bool = False,
    layers: Sequence[int] | None = None,
    *,
    column: str | None = None,
    skip_invalid: bool = False,
    shard: str | None = None,
    window: int | None = None,
) -> Vectors | dict[int, Vectors] | Path: ...


def embed(
    backbone: keras.Model,
    inputs: Any,
    pooling: Literal["mean", "cls"] = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
    out: str | Path | None = None,
    per_residue: bool = False,
    layers: Sequence[int] | None = None,
    *,
    column: str | None = None,
    skip_invalid: bool = False,
    shard: str | None = None,
    window: int | None = None,
) -> Vectors | dict[int, Vectors] | Path:
    """Compute one vector per raw input, or per residue, in the order of the inputs.

    The vectors are hidden states of the backbone. Layers are numbered as in fair-esm: 0 is the
    embedding, i the output of block i, and n, the number of blocks, that of the last block after
    the final norm, which is the output of the backbone. Negative numbers count from the end.

    Args:
        backbone: A kft backbone, or a `kft.Model`, whose backbone is taken.
        inputs: As for `kft.predict`.
        pooling: "mean" over residues, without special tokens, or "cls"; see `kft.heads.Pooling`.
        batch_size: As for `kft.predict`.
        max_length: As for `kft.predict`.
        out: Path of a `.npz`, `.h5` (HDF5), `.parquet` or `.csv` file that the vectors are written
            to, read it with `kft.load_embeddings`; None returns them. Its columns are `values`,
            and per residue also `pooled`; of several layers `values_0`, `values_3` and so on. What
            an interrupted call has computed is kept next to `out`, and the same call continues
            from it. With `shard` the path of a folder.
        per_residue: Whether to return a vector for each residue. A file then has the pooled ones
            as well.
        layers: Numbers of layers; None takes the output of the backbone.
        column: As for `kft.predict`.
        skip_invalid: As for `kft.predict`.
        shard: "3/64" computes the third of 64 parts of the records, with about as many residues
            each, and writes it to the folder `out`, unless it is there. `kft.merge_embeddings`
            joins the parts. None computes all records.
        window: As for `kft.predict`.

    Returns:
        float32 array (records, D); with `per_residue` a list of float32 arrays (residues, D), one
        per record, without special tokens; with `layers` a dict of these, by number as it was
        given; or the path `out`, with `shard` that of the file in it. An interrupted call leaves no
        file there.

    Raises:
        ValueError: An input cannot be encoded, the pooling or a layer is unknown, `per_residue` is
            asked of inputs that have no residues, `window` is given with `max_length` or to a
            backbone of anything but one protein, or the folder has shards of another backbone, of
            other inputs or settings.
        TypeError: An input is of another kind than the backbone takes.
        FileNotFoundError: There is no such file.
        ModuleNotFoundError: `out` ends in .parquet, and pyarrow is not installed.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> kft.embed(backbone, ["MKTAYI", "GSS"]).shape
        (2, 320)
        >>> found = kft.embed(backbone, ["MKTAYI", "GSS"], per_residue=True, layers=[0, 6])
        >>> [rows.shape for rows in found[6]]
        [(6, 320), (3, 320)]
    """
    check_model(backbone, "backbone")
    check_no_prompts(backbone, "backbone")
    check_flag("per_residue", per_residue)
    if shard is not None:
        out = _checked_folder(out, shard)
    elif out is not None:
        writing.checked_path(out)
    backbone = getattr(backbone, "backbone", backbone)
    check_choice("pooling", pooling, ("mean", "cls"))
    numbers = (None,) if layers is None else _checked_layers(backbone, layers)
    if per_residue and getattr(backbone, "position_mask", None) is None:
        raise ValueError(
            f"per_residue needs a backbone whose inputs have residues, received {backbone.name}: "
            f"leave it out."
        )
    given = (inputs, batch_size, max_length, column, skip_invalid)
    stream = stream_of(
        backbone, pooling, numbers, per_residue, given, kept=out is not None, window=window
    )
    if out is not None and shard is not None:
        about = {"backbone": backbone.name, "weights": fingerprint(backbone, trainable=None)}
        about |= {"pooling": pooling, "layers": list(numbers), "per_residue": per_residue}
        about |= {"max_length": max_length, "window": window}
        return write_shard(stream, out, shard, about)
    if out is not None:
        return writing.write(stream.parts, out, stream.source.identity)
    parts = [rows for _, rows in stream.parts()]
    found = {number: collected(x[f"values{_ending(number)}"] for x in parts) for number in numbers}
    if layers is None:
        return found[None]
    return {given: found[number] for given, number in zip(layers, numbers, strict=True)}


def _checked_folder(out: Any, shard: str) -> Path:
    """Return the folder of the shards, or raise an error for another `out` or `shard`."""
    checked_shard(shard)
    folder = None if out is None else check_path("out", out)
    if folder is None or folder.suffix in writing.WRITERS or folder.is_file():
        raise ValueError(
            f"out must be the folder of the shards where shard is given, received {shown(out)}; "
            f"kft.merge_embeddings writes the file of all."
        )
    return folder


def stream_of(
    backbone: keras.Model,
    pooling: str,
    layers: tuple[int | None, ...],
    per_residue: bool,
    given: tuple[Any, int, int | None, str | None, bool],
    kept: bool,
    argument: str = "inputs",
    window: int | None = None,
) -> Stream:
    """Make the stream of embeddings of raw inputs, see `embed`.

    Args:
        backbone: A backbone of kft.
        pooling: "mean" or "cls".
        layers: Numbers of layers, from 0 on; None is the output of the backbone.
        per_residue: Whether there are columns of residues as well.
        given: The arguments `inputs`, `batch_size`, `max_length`, `column` and `skip_invalid`.
        kept: Whether an interrupted computation is kept for a later one.
        argument: What errors call `inputs`.
        window: As for `kft.predict`.
    """
    check_features(backbone)
    model = _embedder(backbone, pooling, layers, per_residue)
    names = [f"{'pooled' if per_residue else 'values'}{_ending(layer)}" for layer in layers]
    columns = dict.fromkeys(names, False)
    if per_residue:
        columns |= {f"values{_ending(layer)}": True for layer in layers}

    def run(encoded: Any) -> list[np.ndarray]:
        return [x.astype("float32", copy=False) for x in outputs_of(model, encoded)]

    shapes = None
    if per_residue:
        shapes = [model.output[f"frontier_{i}"].shape[1:] for i in range(len(columns))]
    source = Source(run, shapes, identity_of(model) if kept else None, for_training=False)
    encode = getattr(backbone, "encode", None)
    return Stream(backbone, source, columns, encode, *given, "embedding", argument, window)


def _ending(layer: int | None) -> str:
    """Return the end of the name of a column."""
    return "" if layer is None else f"_{layer}"


# One model per backbone and settings: a new one would be compiled again at every call.
_EMBEDDERS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _embedder(
    backbone: keras.Model, pooling: str, layers: tuple[int | None, ...], per_residue: bool
) -> keras.Model:
    """Return the model from inputs to {"frontier_0": ...}: pooled layers, then those of tokens."""
    models = _EMBEDDERS.setdefault(backbone, {})
    settings = pooling, layers, per_residue
    if settings not in models:
        mask = getattr(backbone, "position_mask", None)
        states = [_state(backbone, layer) for layer in layers]
        outputs = [Pooling(pooling)(state, mask) for state in states]
        outputs += states if per_residue else []
        named = {f"frontier_{i}": x for i, x in enumerate(outputs)}
        models[settings] = keras.Model(backbone.input, named, name=f"{backbone.name}_{pooling}")
    return models[settings]


def _state(backbone: keras.Model, layer: int | None) -> keras.KerasTensor:
    """Return the symbolic output of a layer."""
    if layer is None or layer == len(ends := _ends(backbone)) - 1:
        return backbone.output
    node = next(node for node in nodes_of(backbone) if node.operation is ends[layer])
    return node.output_tensors[0]


def _ends(backbone: keras.Model) -> list[keras.Layer]:
    """Return the last stage of each layer: one without a matrix, as a norm, belongs to a block."""
    ends: list[keras.Layer] = []
    for stage in backbone.stages:
        if ends and all(len(weight.shape) < 2 for weight in stage.weights):
            ends[-1] = stage
        else:
            ends.append(stage)
    return ends


def last_layer(backbone: keras.Model) -> int:
    """Return the number of the last layer, whose output is that of the backbone.

    Args:
        backbone: A backbone of kft.

    Raises:
        ValueError: It is another model.
    """
    if not hasattr(backbone, "stages"):
        raise ValueError(f"layers needs a backbone of kft, received {backbone.name}: leave it out.")
    return len(_ends(backbone)) - 1


def _checked_layers(backbone: keras.Model, layers: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of layers from 0 on.

    Args:
        backbone: A backbone of kft.
        layers: As for `embed`.

    Raises:
        ValueError: There is no such layer, or one is given twice.
    """
    most = last_layer(backbone)
    listed = [layers] if isinstance(layers, int) else list(layers)
    wrong = [x for x in listed if isinstance(x, bool) or x not in range(-most - 1, most + 1)]
    numbers = tuple(range(most + 1)[x] for x in listed if x not in wrong)
    if wrong or isinstance(layers, int) or not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"layers must be a list of different numbers from 0 (the embedding) to {most} (the "
            f"output of {backbone.name}), received {layers!r}."
        )
    return numbers
