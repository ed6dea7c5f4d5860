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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kft.files import Aside, read_json, remove_unfinished
from kft.messages import progress, warn
from kft.params import fingerprint
from kft.training.batching import Batches, silent_cuts

MEMORY_LIMIT = 2 * 2**30  # bytes of features that stay in memory; more are mapped from a file
FORGOTTEN = 7 * 24 * 3600  # seconds after which the work of an interrupted run is not kept on


class FrontierError(ValueError):
    """Raised where a model cannot be trained at a frozen frontier; the message says why."""


class Features:
    """The outputs of a frozen part for each record, without padding.

    Args:
        values: One flat array per tensor, the values of one record after those of another.
        shapes: One tuple per tensor, the shape for one record, with None for its tokens.
        pads: One array per tensor, the value at a padded position.
        lengths: Int array, the tokens of each record.
        temporary: `Aside` with the files of the values, which goes with this object; or None.
    """

    def __init__(
        self,
        values: list[np.ndarray],
        shapes: list[tuple[int | None, ...]],
        pads: list[np.ndarray],
        lengths: np.ndarray,
        temporary: Aside | None = None,
    ):
        self.values, self.shapes, self.pads, self.lengths = values, shapes, pads, lengths
        if temporary is not None:
            weakref.finalize(self, temporary.close)
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
            row[_corner(self.shapes[i], self.lengths[record])] = self.of(i, record)
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
        self.of(i, record)[...] = row[_corner(self.shapes[i], self.lengths[record])]

    def flat(self, i: int, indices: np.ndarray) -> np.ndarray:
        """Join the values of tensor i for some records, without padding.

        Args:
            i: Number of the tensor.
            indices: Positions of the records.

        Returns:
            Flat array.
        """
        return np.concatenate([self.of(i, record).ravel() for record in indices])

    def of(self, i: int, record: int) -> np.ndarray:
        """Return the values of tensor i for one record, without padding; a view, not a copy.

        Args:
            i: Number of the tensor.
            record: Number of the record.
        """
        start, end = self.starts[i][record : record + 2]
        return self.values[i][start:end].reshape(_filled(self.shapes[i], self.lengths[record]))


def _filled(shape: Sequence[int | None], length: Any) -> tuple[int, ...]:
    return tuple(int(length) if n is None else n for n in shape)


def _corner(shape: Sequence[int | None], length: Any) -> tuple[slice, ...]:
    return tuple(slice(int(length)) if n is None else slice(None) for n in shape)


def _starts(shape: tuple[int | None, ...], lengths: np.ndarray) -> np.ndarray:
    fixed, tokens = int(np.prod([n for n in shape if n is not None])), shape.count(None)
    return np.concatenate([[0], np.cumsum(fixed * np.asarray(lengths, dtype="int64") ** tokens)])


@dataclass(frozen=True)
class Source:
    """What computes features, batch by batch.

    Attributes:
        run: Function from an encoded batch to the list of its arrays (B, ...).
        shapes: One tuple per array, its shape for one record, with None for the tokens; None takes
            the shapes of the first batch.
        identity: Digest of what the arrays depend on besides the records; None if they cannot be
            kept for another run.
        for_training: Whether the records will be put into other batches, with other padding: then
            the values at padded positions are computed, and that `run` always gives the same.
    """

    run: Callable[[Any], list[np.ndarray]]
    shapes: Sequence[tuple[int | None, ...]] | None
    identity: str | None
    for_training: bool


def identity_of(model: keras.Model, *about: Any) -> str:
    """Compute a digest of a model's weights, graph and backend, and of further settings.

    Args:
        model: Any built Keras model with a config.
        *about: Settings: numbers, strings, lists and dicts.

    Returns:
        Hexadecimal digest.
    """
    digest = hashlib.sha256(fingerprint(model, trainable=None).encode())
    settings = [keras.backend.backend(), model.get_config(), *about]
    digest.update(json.dumps(settings, sort_keys=True, default=repr).encode())
    return digest.hexdigest()


def features_of(
    frozen: keras.Model,
    base: Batches,
    cache: Path | str | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Features:
    """Compute the features of all records, or read them from the folder `cache`.

    Each record is encoded once, and a second time only where the folder holds features of the same
    records.

    Args:
        frozen: Functional Keras model with outputs {"frontier_0": ..., ...}.
        base: Batches of `kft.batches`.
        cache: Folder, or None to keep nothing. An interrupted computation is continued from it.
        memory_limit: Bytes above which features are mapped from a temporary file.

    Returns:
        `Features`.

    Raises:
        FrontierError: `frozen` is random, its outputs cannot be kept record by record, or there
            is no room for them.
    """
    inputs = base.in_order()
    shapes = None
    if inputs.lengths is not None:  # else arrays are of one shape, whatever the graph leaves open
        shapes = [frozen.output[f"frontier_{i}"].shape[1:] for i in range(len(frozen.outputs))]
    identity = None if cache is None else identity_of(frozen)
    source = Source(lambda x: outputs_of(frozen, x), shapes, identity, for_training=True)
    with progress() as bar:
        place = "not kept, see cache and resume" if cache is None else f"kept in {cache}"
        task = bar.add_task(f"computing frozen features ({place})", total=len(inputs.inputs))
        return kept(source, inputs, cache, memory_limit, lambda n: bar.advance(task, n))


def kept(
    source: Source,
    inputs: Batches,
    cache: Path | str | None,
    memory_limit: float,
    advance: Callable[[int], None],
) -> Features:
    """Compute features, or read them from the folder `cache`, as `features_of`.

    Args:
        source: What computes them.
        inputs: Batches without targets, in a fixed order.
        cache: Folder, or None to keep nothing.
        memory_limit: Bytes above which features are mapped from a temporary file.
        advance: Called with the number of records that are done, after each batch.

    Returns:
        `Features`.
    """
    if cache is None or source.identity is None:
        return _computed(source, inputs, None, memory_limit, advance)
    folder = Path(cache) / _key(source.identity, inputs)
    if folder.is_dir():
        features, good = _read(folder, source, inputs)
        if features is not None and good == len(inputs):
            advance(len(inputs.inputs))
            return features
        shutil.rmtree(folder)
    Path(cache).mkdir(parents=True, exist_ok=True)
    remove_unfinished(Path(cache) / "*", age=FORGOTTEN)
    remove_unfinished(Path(cache) / "computing")  # of earlier versions
    aside = Aside(folder, key="features")
    try:
        _computed(source, inputs, aside.path, memory_limit, advance)
    except BaseException:
        aside.close(keep=True)
        raise
    with contextlib.suppress(OSError):  # another run was faster
        aside.path.rename(folder)
    aside.close()
    return _opened(folder, inputs)


# Files of features --------------------------------------------------------------------------------

_ABOUT, _LOG = "about.json", "batches.txt"


def _opened(folder: Path, inputs: Batches, mode: Literal["r", "r+"] = "r") -> Features:
    about = read_json(folder / _ABOUT)
    count = range(len(about["shapes"]))
    values = [np.load(folder / f"values_{i}.npy", mmap_mode=mode) for i in count]
    if mode == "r":
        pads = [np.load(folder / f"pad_{i}.npy") for i in count]
    else:
        pads = [np.zeros((), x.dtype) for x in values]
    return Features(values, list(map(tuple, about["shapes"])), pads, _lengths(inputs))


def _read(
    folder: Path, source: Source, inputs: Batches, mode: Literal["r", "r+"] = "r"
) -> tuple[Features | None, int]:
    """Open the features in a folder, and count the batches that are as they would be computed now.

    The name of the folder depends on weights and records, not on the code of `encode` and of
    layers. The log holds a digest of each batch when encoded and of its features: all are compared,
    and the features of the first batch are computed again.
    """
    try:
        features = _opened(folder, inputs, mode)
        log = (folder / _LOG).read_text().splitlines()
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        if mode == "r":  # else they are those of an interrupted run, or new
            warn(
                f"The features in {folder} are damaged or of an earlier version "
                f"({type(error).__name__}: {error!s:.200}), and are computed again."
            )
        return None, 0
    if list(map(len, features.values)) != [starts[-1] for starts in features.starts]:
        return None, 0
    for step, line in enumerate(log[: len(inputs)]):
        encoded, indices = inputs.inputs_of(step), inputs.record_indices[step]
        if line != _logged(encoded, features, indices):
            return features, step
        if step == 0:
            now = features.trimmed(source.run(encoded), indices)
            before = [features.flat(i, indices) for i in range(len(features.values))]
            if not all(map(np.array_equal, before, now)):
                return None, 0
    return features, min(len(log), len(inputs))


def _logged(encoded: Any, features: Features, indices: np.ndarray) -> str:
    """Return the line of a batch in the log: digests of what is encoded, and of its features."""
    inputs, outputs = hashlib.sha256(), hashlib.sha256()
    for x in keras.tree.flatten(encoded):
        inputs.update(f"{x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    for i in range(len(features.values)):
        outputs.update(features.flat(i, indices).tobytes())
    return f"{inputs.hexdigest()} {outputs.hexdigest()}"


def _lengths(inputs: Batches) -> np.ndarray:
    return np.zeros(len(inputs.inputs), "int64") if inputs.lengths is None else inputs.lengths


def _key(identity: str, inputs: Batches) -> str:
    """A digest of what features depend on, without encoding: `identity`, and the records."""
    digest = hashlib.sha256(f"{identity} {inputs.max_length}".encode())
    for indices in inputs.record_indices:
        digest.update(f"{indices.dtype} {indices.shape}".encode() + indices.tobytes())
    for x in inputs.inputs:
        update_with_record(digest, x)
    return digest.hexdigest()[:32]


def update_with_record(digest: Any, x: Any) -> None:
    """Add a raw record to a digest; of a file its name, size and time.

    Args:
        digest: Object of hashlib.
        x: The record.
    """
    if isinstance(x, dict):
        for name, part in x.items():
            digest.update(f"{name} ".encode())
            update_with_record(digest, part)
    elif isinstance(x, os.PathLike):
        file = os.stat(x)
        digest.update(f"{str(x)!r} {file.st_size} {file.st_mtime_ns} ".encode())
    elif isinstance(x, str) or x is None:
        digest.update(f"{x!r} ".encode())
    else:
        array = np.asarray(x)
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())


# Computing them -----------------------------------------------------------------------------------


def _computed(
    source: Source,
    inputs: Batches,
    folder: Path | None,
    memory_limit: float,
    advance: Callable[[int], None],
) -> Features:
    """Compute the features of all records in one pass, which continues that of the folder."""
    features, done = (None, 0) if folder is None else _read(folder, source, inputs, "r+")
    padding = False
    advance(sum(map(len, inputs.record_indices[:done])))
    with _log(folder, done) as log:
        for step in range(done, len(inputs)):
            encoded, indices = inputs.inputs_of(step), inputs.record_indices[step]
            outputs = source.run(encoded)
            if source.for_training and step == done:
                _check_steady(source, encoded, outputs)
            if features is None:
                features = _empty(source, outputs, inputs, folder, memory_limit)
            padding |= _keep(features, outputs, indices, inputs.padded(step))
            if log is not None:
                print(_logged(encoded, features, indices), file=log, flush=True)
            advance(len(indices))
    if features is None:
        raise ValueError("There are no records to compute features of.")
    if source.for_training and inputs.lengths is not None and not padding:
        _keep_padding(source, features, inputs)
    if folder is not None:
        for i, pad in enumerate(features.pads):
            np.save(folder / f"pad_{i}.npy", pad)
    return features


@contextlib.contextmanager
def _log(folder: Path | None, done: int) -> Iterator[Any]:
    """Open the log of a folder behind the lines of the batches that are done."""
    if folder is None:
        yield None
        return
    folder.mkdir(exist_ok=True)
    path = folder / _LOG
    lines = path.read_text().splitlines()[:done] if done else []
    with path.open("w") as log:
        log.writelines(f"{line}\n" for line in lines)
        yield log


def _keep(
    features: Features, outputs: Sequence[np.ndarray], indices: np.ndarray, padded: int | None
) -> bool:
    """Keep the features of one batch; return whether a record of it was padded."""
    for i, output in enumerate(outputs):
        _check_shape(features.shapes[i], output, padded)
        for record, row in zip(indices, output, strict=True):
            features.put(i, record, row)
    shortest = int(np.argmin(features.lengths[indices]))
    if padded is None or features.lengths[indices[shortest]] >= padded:
        return False
    _keep_pads(features, [output[shortest] for output in outputs])
    return True


def _keep_padding(source: Source, features: Features, inputs: Batches) -> None:
    """Keep what padded positions hold where no batch had any, as those of a training may have."""
    if np.ptp(features.lengths):
        with silent_cuts():
            wider = (int(features.lengths[0]) + 1,)
            encoded = inputs.encode([inputs.inputs[0]], inputs.max_length, pad_lengths=wider)
        _keep_pads(features, [output[0] for output in source.run(encoded)])


def _keep_pads(features: Features, rows: Sequence[np.ndarray]) -> None:
    """Keep what the features of one padded record hold at the last position."""
    for i, (shape, row) in enumerate(zip(features.shapes, rows, strict=True)):
        if None in shape:
            last = tuple(slice(-1, None) if n is None else slice(None) for n in shape)
            features.pads[i] = row[last].copy()


def outputs_of(frozen: keras.Model, encoded: Any) -> list[np.ndarray]:
    """Compute the outputs of a frozen part, in the order of the numbers in their names.

    Args:
        frozen: Functional Keras model with outputs {"frontier_0": ..., ...}.
        encoded: A batch of its inputs.

    Returns:
        List of arrays (B, ...); those in bfloat16 as float32.
    """
    outputs = frozen.predict_on_batch(encoded)
    arrays = [
        keras.ops.convert_to_numpy(outputs[f"frontier_{i}"]) for i in range(len(frozen.outputs))
    ]
    # numpy has no bfloat16 of its own; float32 holds the same numbers.
    return [x.astype("float32") if x.dtype.name == "bfloat16" else x for x in arrays]


def _check_steady(source: Source, encoded: Any, outputs: Sequence[np.ndarray]) -> None:
    for old, new in zip(outputs, source.run(encoded), strict=True):
        if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
            raise FrontierError(
                "The frozen part is random: its outputs for one batch differ from call to call, so "
                "that they cannot be computed once."
            )


def _empty(
    source: Source,
    outputs: Sequence[np.ndarray],
    inputs: Batches,
    folder: Path | None,
    memory_limit: float,
) -> Features:
    """Features without values yet, in memory or in files."""
    lengths = _lengths(inputs)
    shapes = source.shapes or [output.shape[1:] for output in outputs]
    sizes = [int(_starts(shape, lengths)[-1]) for shape in shapes]
    types = [output.dtype for output in outputs]
    total = sum(size * dtype.itemsize for size, dtype in zip(sizes, types, strict=True))
    temporary = None
    if folder is not None or total > memory_limit:
        _check_room(folder or Path(tempfile.gettempdir()), total)
    if folder is None and total > memory_limit:
        temporary = Aside(Path(tempfile.gettempdir()) / "kft-features")
        folder = temporary.path
        folder.mkdir()
    if folder is None:
        values = [np.empty(size, dtype) for size, dtype in zip(sizes, types, strict=True)]
    else:
        values = [
            _mapped(folder / f"values_{i}.npy", size, dtype)
            for i, (size, dtype) in enumerate(zip(sizes, types, strict=True))
        ]
        (folder / _ABOUT).write_text(json.dumps({"shapes": shapes}))
    pads = [np.zeros((), dtype) for dtype in types]
    return Features(values, list(shapes), pads, lengths, temporary)


def _mapped(path: Path, size: int, dtype: np.dtype) -> np.ndarray:
    """Map a new file, for which the disk has room: writing to a mapped file raises no error."""
    values = np.lib.format.open_memmap(path, "w+", dtype, (size,))
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return values


def _check_room(folder: Path, total: int) -> None:
    free = shutil.disk_usage(folder).free
    if total > 0.9 * free:
        raise FrontierError(
            f"The features take {total / 2**30:.1f} GiB and {folder} has {free / 2**30:.1f} GiB "
            f"free: name another folder as `cache`, or train with frontier=False."
        )


def _check_shape(shape: Sequence[int | None], output: np.ndarray, padded: int | None) -> None:
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
