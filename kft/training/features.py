"""Features: the outputs of a frozen part for each record, computed once, in memory or in files.

Shapes: `B` records in a batch, `L` tokens, padding included.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.params import fingerprint
from kft.training.batching import Batches, silent_cuts

MEMORY_LIMIT = 2 * 2**30  # bytes of features that stay in memory; more are mapped from a file


class FrontierError(ValueError):
    """Raised where a model cannot be trained at a frozen frontier; the message says why."""


class Features:
    """The outputs of a frozen part for each record, without padding.

    Args:
        values: One flat array per tensor, the values of one record after those of another.
        shapes: One tuple per tensor, the shape for one record, with None for its tokens.
        pads: One array per tensor, the value at a padded position.
        lengths: Int array, the tokens of each record.
        temporary: Folder that is removed together with this object, or None.
    """

    def __init__(
        self,
        values: list[np.ndarray],
        shapes: list[tuple[int | None, ...]],
        pads: list[np.ndarray],
        lengths: np.ndarray,
        temporary: Path | None = None,
    ):
        self.values, self.shapes, self.pads, self.lengths = values, shapes, pads, lengths
        if temporary is not None:  # the folder goes with this object
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
        self.starts = [_starts(shape, lengths) for shape in shapes]

    def take(self, indices: np.ndarray, padded: int | None) -> dict[str, np.ndarray]:
        """Read the features of some records.

        Args:
            indices: Positions of the records.
            padded: Tokens that each is padded to, None where records have no length.

        Returns:
            {name: array (B, ...)}.
        """
        return {f"frontier_{i}": self._take(i, indices, padded) for i in range(len(self.values))}

    def _take(self, i: int, indices: np.ndarray, padded: int | None) -> np.ndarray:
        out = np.empty((len(indices), *_filled(self.shapes[i], padded)), self.values[i].dtype)
        out[...] = self.pads[i]
        for row, record in zip(out, indices, strict=True):
            row[_corner(self.shapes[i], self.lengths[record])] = self._of(i, record)
        return out

    def trimmed(self, arrays: Sequence[np.ndarray], indices: np.ndarray) -> list[np.ndarray]:
        """Join the values of some records without padding.

        Args:
            arrays: One padded array per tensor.
            indices: Positions of the records.

        Returns:
            List of flat arrays, one per tensor.
        """
        return [
            np.concatenate(
                [
                    row[_corner(shape, self.lengths[record])].ravel()
                    for row, record in zip(array, indices, strict=True)
                ]
            )
            for shape, array in zip(self.shapes, arrays, strict=True)
        ]

    def put(self, i: int, record: int, row: np.ndarray) -> None:
        """Keep the values of tensor i for one record.

        Args:
            i: Number of the tensor.
            record: Number of the record.
            row: Array, padded.
        """
        self._of(i, record)[...] = row[_corner(self.shapes[i], self.lengths[record])]

    def _of(self, i: int, record: int) -> np.ndarray:
        start, end = self.starts[i][record : record + 2]
        return self.values[i][start:end].reshape(_filled(self.shapes[i], self.lengths[record]))


def _filled(shape: Sequence[int | None], length: Any) -> tuple[int, ...]:
    return tuple(int(length) if n is None else n for n in shape)


def _corner(shape: Sequence[int | None], length: Any) -> tuple[slice, ...]:
    return tuple(slice(int(length)) if n is None else slice(None) for n in shape)


def _starts(shape: tuple[int | None, ...], lengths: np.ndarray) -> np.ndarray:
    fixed, tokens = int(np.prod([n for n in shape if n is not None])), shape.count(None)
    return np.concatenate([[0], np.cumsum(fixed * np.asarray(lengths, dtype="int64") ** tokens)])


def features_of(
    frozen: keras.Model,
    base: Batches,
    cache: Path | str | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Features:
    """Compute the features of all records, or read them from the folder `cache`.

    Each record is encoded once, and a second time only where the folder holds features of the same
    records that another `encode` or another version of a layer has made.

    Args:
        frozen: Functional Keras model with outputs {"frontier_0": ..., ...}.
        base: Batches of `kft.batches`.
        cache: Folder, or None to keep nothing.
        memory_limit: Bytes above which features are mapped from a temporary file.

    Returns:
        `Features`.

    Raises:
        FrontierError: `frozen` is random, its outputs cannot be kept record by record, or there
            is no room for them.
    """
    inputs = base.in_order()
    if cache is None:
        return _computed(frozen, inputs, None, memory_limit)
    folder = Path(cache) / _key(frozen, inputs)
    if folder.is_dir():
        features = _opened(folder, inputs)
        if _still_right(frozen, inputs, features, folder):
            return features
        shutil.rmtree(folder)
    Path(cache).mkdir(parents=True, exist_ok=True)
    # Computed in another folder that is renamed: a folder under its own name is complete.
    with tempfile.TemporaryDirectory(dir=cache, prefix=".computing-") as temporary:
        inside = Path(temporary) / folder.name
        inside.mkdir()
        _computed(frozen, inputs, inside, memory_limit)
        with contextlib.suppress(OSError):  # another run was faster
            inside.rename(folder)
    return _opened(folder, inputs)


def _opened(folder: Path, inputs: Batches) -> Features:
    description = json.loads((folder / "about.json").read_text())
    count = range(len(description["shapes"]))
    values = [np.load(folder / f"values_{i}.npy", mmap_mode="r") for i in count]
    pads = [np.load(folder / f"pad_{i}.npy") for i in count]
    return Features(values, list(map(tuple, description["shapes"])), pads, _lengths(inputs))


def _lengths(inputs: Batches) -> np.ndarray:
    return np.zeros(len(inputs.inputs), "int64") if inputs.lengths is None else inputs.lengths


def _key(frozen: keras.Model, inputs: Batches) -> str:
    """A digest of what features depend on, without encoding: weights, graph, records, backend."""
    digest = hashlib.sha256(fingerprint(frozen, trainable=None).encode())
    settings = [keras.backend.backend(), frozen.get_config(), inputs.max_length]
    digest.update(json.dumps(settings, sort_keys=True, default=repr).encode())
    for indices in inputs.record_indices:
        digest.update(f"{indices.dtype} {indices.shape}".encode() + indices.tobytes())
    for x in inputs.inputs:
        _update_with_record(digest, x)
    return digest.hexdigest()[:32]


def _update_with_record(digest: Any, x: Any) -> None:
    """Add a raw record to a digest; of a file its name, size and time."""
    if isinstance(x, dict):
        for name, part in x.items():
            digest.update(f"{name} ".encode())
            _update_with_record(digest, part)
    elif isinstance(x, os.PathLike):
        file = os.stat(x)
        digest.update(f"{os.fspath(x)!r} {file.st_size} {file.st_mtime_ns} ".encode())
    elif isinstance(x, str):
        digest.update(f"{x!r} ".encode())
    else:
        array = np.asarray(x)
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())


def _update_with_encoded(digest: Any, encoded: Any) -> None:
    """Add the encoded records of a batch to a digest."""
    for x in keras.tree.flatten(encoded):
        digest.update(f"{x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())


def _still_right(frozen: keras.Model, inputs: Batches, features: Features, folder: Path) -> bool:
    """Whether kept features are those that would be computed now.

    The key holds neither the code of `encode` nor that of layers: all encoded records are compared
    by their digest, and the features of the first batch are computed again.
    """
    digest = hashlib.sha256()
    for step in range(len(inputs)):
        encoded = inputs.inputs_of(step)
        _update_with_encoded(digest, encoded)
        if step == 0:
            indices = inputs.record_indices[0]
            kept = features.take(indices, inputs.padded(0))
            before = features.trimmed(list(kept.values()), indices)
            now = features.trimmed(_outputs(frozen, encoded), indices)
            if not all(map(np.array_equal, before, now)):
                return False
    description = json.loads((folder / "about.json").read_text())
    return description["encoded"] == digest.hexdigest()


def _computed(
    frozen: keras.Model, inputs: Batches, folder: Path | None, memory_limit: int
) -> Features:
    """Compute the features of all records, in one pass over them."""
    from rich.console import Console
    from rich.progress import track

    console, padding = Console(stderr=True), False
    features: Features | None = None
    digest = hashlib.sha256()
    steps = track(
        range(len(inputs)),
        "computing frozen features",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for step in steps:
        encoded = inputs.inputs_of(step)
        if folder is not None:
            _update_with_encoded(digest, encoded)
        outputs = _outputs(frozen, encoded)
        if features is None:
            _check_steady(frozen, encoded, outputs)
            features = _empty(frozen, outputs, inputs, folder, memory_limit)
        padding |= _keep(
            frozen, features, outputs, inputs.record_indices[step], inputs.padded(step)
        )
    if features is None:
        raise ValueError("There are no records to compute features of.")
    if inputs.lengths is not None and not padding and np.ptp(features.lengths):
        # No batch had padding, but the mixed batches of a training may have some.
        with silent_cuts():
            wider = (int(features.lengths[0]) + 1,)
            encoded = inputs.encode([inputs.inputs[0]], inputs.max_length, pad_lengths=wider)
        _keep_pads(features, [output[0] for output in _outputs(frozen, encoded)])
    if folder is not None:
        description = {"shapes": features.shapes, "encoded": digest.hexdigest()}
        (folder / "about.json").write_text(json.dumps(description))
        for i, pad in enumerate(features.pads):
            np.save(folder / f"pad_{i}.npy", pad)
    return features


def _keep(
    frozen: keras.Model,
    features: Features,
    outputs: Sequence[np.ndarray],
    indices: np.ndarray,
    padded: int | None,
) -> bool:
    """Keep the features of one batch; return whether a record of it was padded."""
    for i, output in enumerate(outputs):
        _check_shape(frozen, features.shapes[i], output, padded)
        for record, row in zip(indices, output, strict=True):
            features.put(i, record, row)
    shortest = int(np.argmin(features.lengths[indices]))
    if padded is None or features.lengths[indices[shortest]] >= padded:
        return False
    _keep_pads(features, [output[shortest] for output in outputs])
    return True


def _keep_pads(features: Features, rows: Sequence[np.ndarray]) -> None:
    """Keep what the features of one padded record hold at the last position."""
    for i, (shape, row) in enumerate(zip(features.shapes, rows, strict=True)):
        if None in shape:
            last = tuple(slice(-1, None) if n is None else slice(None) for n in shape)
            features.pads[i] = row[last].copy()


def _outputs(frozen: keras.Model, encoded: Any) -> list[np.ndarray]:
    """The tensors at the frontier, in the order of the numbers in their names."""
    outputs = frozen.predict_on_batch(encoded)
    arrays = [
        keras.ops.convert_to_numpy(outputs[f"frontier_{i}"]) for i in range(len(frozen.outputs))
    ]
    # numpy has no bfloat16 of its own; float32 holds the same numbers.
    return [x.astype("float32") if x.dtype.name == "bfloat16" else x for x in arrays]


def _check_steady(frozen: keras.Model, encoded: Any, outputs: Sequence[np.ndarray]) -> None:
    for old, new in zip(outputs, _outputs(frozen, encoded), strict=True):
        if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
            raise FrontierError(
                "The frozen part is random: its outputs for one batch differ from call to call, so "
                "that they cannot be computed once."
            )


def _empty(
    frozen: keras.Model,
    outputs: Sequence[np.ndarray],
    inputs: Batches,
    folder: Path | None,
    memory_limit: int,
) -> Features:
    """Features without values yet, in memory or in files."""
    lengths = _lengths(inputs)
    shapes = []
    for i, output in enumerate(outputs):
        symbolic = frozen.output[f"frontier_{i}"].shape[1:]
        # Arrays as inputs are of one shape, whatever the graph leaves open.
        shapes.append(tuple(symbolic if inputs.lengths is not None else output.shape[1:]))
    sizes = [int(_starts(shape, lengths)[-1]) for shape in shapes]
    types = [output.dtype for output in outputs]
    total = sum(size * dtype.itemsize for size, dtype in zip(sizes, types, strict=True))
    temporary = None
    if folder is None and total > memory_limit:
        _check_room(Path(tempfile.gettempdir()), total)
        temporary = folder = Path(tempfile.mkdtemp(prefix="kft-features-"))
    if folder is None:
        values = [np.empty(size, dtype) for size, dtype in zip(sizes, types, strict=True)]
    else:
        _check_room(folder, total)
        values = [
            np.lib.format.open_memmap(folder / f"values_{i}.npy", "w+", dtype, (size,))
            for i, (size, dtype) in enumerate(zip(sizes, types, strict=True))
        ]
    pads = [np.zeros((), dtype) for dtype in types]
    return Features(values, shapes, pads, lengths, temporary)


def _check_room(folder: Path, total: int) -> None:
    free = shutil.disk_usage(folder).free
    if total > 0.9 * free:
        raise FrontierError(
            f"The features take {total / 2**30:.1f} GiB and {folder} has {free / 2**30:.1f} GiB "
            f"free: name another folder as `cache`, or train with frontier=False."
        )


def _check_shape(
    frozen: keras.Model, shape: Sequence[int | None], output: np.ndarray, padded: int | None
) -> None:
    if output.shape[1:] != _filled(shape, padded or 0):
        raise FrontierError(
            f"A tensor of the frontier has shape {output.shape[1:]} in a batch of {padded} tokens, "
            f"expected {shape} with None for the tokens: it cannot be kept record by record."
        )


class FeatureBatches(keras.utils.PyDataset):
    """The batches of `base`, with features in place of inputs; nothing is encoded for them.

    Args:
        base: Batches of `kft.batches`.
        features: `Features` of the same records.
    """

    def __init__(self, base: Batches, features: Features):
        super().__init__()
        self.base, self.features = base, features

    def __len__(self) -> int:
        return len(self.base)

    @property
    def num_batches(self) -> int:
        return self.base.num_batches

    def __getitem__(self, index: int) -> Any:
        self.base.asked_for(index)
        padded = self.base.padded(index)
        x = self.features.take(self.base.record_indices[index], padded)
        return (x, *self.base.targets_of(index, padded))

    def on_epoch_begin(self) -> None:
        self.base.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.base.on_epoch_end()
