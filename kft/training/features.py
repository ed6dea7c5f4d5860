"""Features: what a frozen part answers to each record, computed once, in memory or in files.

Shapes: `B` records in a batch, `L` tokens, padding included.
"""

import contextlib
import hashlib
import json
import shutil
import tempfile
import weakref
from pathlib import Path

import keras
import numpy as np

from kft.params import fingerprint
from kft.training.batching import batches, silent_cuts

MEMORY_LIMIT = 2 * 2**30  # bytes of features that stay in memory; more are mapped from a file


class FrontierError(ValueError):
    """A model that cannot be trained at a frozen frontier; the message says why."""


class Features:
    """What `frozen` answers to each record, without padding.

    Per tensor: `values` is flat, one stretch after the other; `shapes` says how a record's is
    shaped, None where its tokens go; `pads` is what stands at a padded position.
    """

    def __init__(self, values, shapes, pads, lengths, temporary=None):
        self.values, self.shapes, self.pads, self.lengths = values, shapes, pads, lengths
        if temporary is not None:  # the folder goes with this object
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
        self.starts = [_starts(shape, lengths) for shape in shapes]

    def take(self, chosen, padded):
        """The features of some records, padded to so many tokens: {name: array (B, ...)}."""
        return {f"frontier_{i}": self._take(i, chosen, padded) for i in range(len(self.values))}

    def _take(self, i, chosen, padded):
        out = np.empty((len(chosen), *_filled(self.shapes[i], padded)), self.values[i].dtype)
        out[...] = self.pads[i]
        for row, record in zip(out, chosen, strict=True):
            row[_corner(self.shapes[i], self.lengths[record])] = self._of(i, record)
        return out

    def trimmed(self, arrays, chosen):
        """All values of some records without padding, one row per tensor."""
        return [
            np.concatenate(
                [
                    row[_corner(shape, self.lengths[record])].ravel()
                    for row, record in zip(array, chosen, strict=True)
                ]
            )
            for shape, array in zip(self.shapes, arrays, strict=True)
        ]

    def put(self, i, record, row):
        """Keeps what tensor i, padded, holds for one record."""
        self._of(i, record)[...] = row[_corner(self.shapes[i], self.lengths[record])]

    def _of(self, i, record):
        start, end = self.starts[i][record : record + 2]
        return self.values[i][start:end].reshape(_filled(self.shapes[i], self.lengths[record]))


def _filled(shape, length):
    return tuple(int(length) if n is None else n for n in shape)


def _corner(shape, length):
    return tuple(slice(int(length)) if n is None else slice(None) for n in shape)


def _starts(shape, lengths):
    fixed, tokens = int(np.prod([n for n in shape if n is not None])), shape.count(None)
    return np.concatenate([[0], np.cumsum(fixed * np.asarray(lengths, dtype="int64") ** tokens)])


def features_of(frozen, base, cache=None, memory_limit=MEMORY_LIMIT):
    """Computes, or finds in the folder `cache`, the features of all records of some batches.

    Args:
        frozen: functional Keras model with outputs {"frontier_0": ..., ...}.
        base: batches of `kft.batches`.
        cache: folder, or None to keep nothing.
        memory_limit: bytes above which features are mapped from a temporary file.

    Returns:
        `Features`.

    Raises:
        FrontierError: `frozen` is random, its answers cannot be kept record by record, or there
            is no room for them.
    """
    inputs = batches(base.inputs, base.encode, base.batch_size, None, base.max_length)
    if cache is None:
        return _computed(frozen, inputs, None, memory_limit)
    folder = Path(cache) / _key(frozen, inputs)
    if folder.is_dir():
        # The key knows no code: a layer that was rewritten since answers otherwise.
        features, chosen = _opened(folder, inputs), inputs.chosen[0]
        kept = features.take(chosen, inputs.padded(0))
        now = features.trimmed(_answers(frozen, inputs[0]), chosen)
        if all(map(np.array_equal, features.trimmed(list(kept.values()), chosen), now)):
            return features
        shutil.rmtree(folder)
    if not folder.is_dir():
        Path(cache).mkdir(parents=True, exist_ok=True)
        # Computed aside and renamed: a folder under its own name is complete.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".computing-") as aside:
            inside = Path(aside) / folder.name
            inside.mkdir()
            _computed(frozen, inputs, inside, memory_limit)
            with contextlib.suppress(OSError):  # another run was faster
                inside.rename(folder)
    return _opened(folder, inputs)


def _opened(folder, inputs):
    about = json.loads((folder / "about.json").read_text())
    count = range(len(about["shapes"]))
    values = [np.load(folder / f"values_{i}.npy", mmap_mode="r") for i in count]
    pads = [np.load(folder / f"pad_{i}.npy") for i in count]
    return Features(values, list(map(tuple, about["shapes"])), pads, _lengths(inputs))


def _lengths(inputs):
    return np.zeros(len(inputs.inputs), "int64") if inputs.lengths is None else inputs.lengths


def _key(frozen, inputs):
    """A digest of all that features depend on: weights, graph, encoded inputs, backend."""
    digest = hashlib.sha256(fingerprint(frozen, trainable=None).encode())
    about = [keras.backend.backend(), frozen.get_config()]
    digest.update(json.dumps(about, sort_keys=True, default=repr).encode())
    for i in range(len(inputs)):
        for x in [*keras.tree.flatten(inputs[i]), inputs.chosen[i]]:
            digest.update(f"{x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()[:32]


def _computed(frozen, inputs, folder, memory_limit):
    from rich.console import Console
    from rich.progress import track

    console, features, padding = Console(stderr=True), None, False
    steps = track(
        range(len(inputs)),
        "computing what is frozen",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for step in steps:
        answers = _answers(frozen, inputs[step])
        if features is None:
            _check_steady(frozen, inputs[step], answers)
            features = _empty(frozen, answers, inputs, folder, memory_limit)
        chosen, padded = inputs.chosen[step], inputs.padded(step)
        shortest = int(np.argmin(features.lengths[chosen]))
        for i, answer in enumerate(answers):
            _check_shape(frozen, features.shapes[i], answer, padded)
            for record, row in zip(chosen, answer, strict=True):
                features.put(i, record, row)
        if inputs.lengths is not None and features.lengths[chosen[shortest]] < padded:
            padding = True
            _keep_pads(features, [answer[shortest] for answer in answers])
    if inputs.lengths is not None and not padding and np.ptp(features.lengths):
        # Each batch was full to the end, which the mixed ones of a training need not be.
        with silent_cuts():
            wider = (int(features.lengths[0]) + 1,)
            encoded = inputs.encode([inputs.inputs[0]], inputs.max_length, pad_lengths=wider)
        _keep_pads(features, [answer[0] for answer in _answers(frozen, encoded)])
    if folder is not None:
        (folder / "about.json").write_text(json.dumps({"shapes": features.shapes}))
        for i, pad in enumerate(features.pads):
            np.save(folder / f"pad_{i}.npy", pad)
    return features


def _keep_pads(features, rows):
    """Keeps what tensors of one record, padded, hold at the last position."""
    for i, (shape, row) in enumerate(zip(features.shapes, rows, strict=True)):
        if None in shape:
            last = tuple(slice(-1, None) if n is None else slice(None) for n in shape)
            features.pads[i] = row[last].copy()


def _answers(frozen, encoded):
    """The tensors that cross the frontier, in the order of their names' numbers."""
    found = frozen.predict_on_batch(encoded)
    arrays = [
        keras.ops.convert_to_numpy(found[f"frontier_{i}"]) for i in range(len(frozen.outputs))
    ]
    # numpy has no bfloat16 of its own; float32 holds the same numbers.
    return [x.astype("float32") if x.dtype.name == "bfloat16" else x for x in arrays]


def _check_steady(frozen, encoded, answers):
    for old, new in zip(answers, _answers(frozen, encoded), strict=True):
        if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
            raise FrontierError(
                "The frozen part is random: it answers the same batch in two ways, so that it "
                "cannot be computed once."
            )


def _empty(frozen, answers, inputs, folder, memory_limit):
    """Features to be filled, in memory or in files."""
    lengths = _lengths(inputs)
    shapes = []
    for i, answer in enumerate(answers):
        symbolic = frozen.output[f"frontier_{i}"].shape[1:]
        # Arrays as inputs are of one shape, whatever the graph leaves open.
        shapes.append(tuple(symbolic if inputs.lengths is not None else answer.shape[1:]))
    sizes = [int(_starts(shape, lengths)[-1]) for shape in shapes]
    types = [answer.dtype for answer in answers]
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


def _check_room(folder, total):
    free = shutil.disk_usage(folder).free
    if total > 0.9 * free:
        raise FrontierError(
            f"The features take {total / 2**30:.1f} GiB and {folder} has {free / 2**30:.1f} GiB "
            f"free: name another folder as `cache`, or train with frontier=False."
        )


def _check_shape(frozen, shape, answer, padded):
    if answer.shape[1:] != _filled(shape, padded or 0):
        raise FrontierError(
            f"A tensor of the frontier has shape {answer.shape[1:]} in a batch of {padded} tokens, "
            f"expected {shape} with None for the tokens: it cannot be kept record by record."
        )


class FeatureBatches(keras.utils.PyDataset):
    """The batches of `base`, with features in place of inputs."""

    def __init__(self, base, features):
        super().__init__()
        self.base, self.features = base, features

    def __len__(self):
        return len(self.base)

    @property
    def num_batches(self):
        return self.base.num_batches

    def __getitem__(self, index):
        _, *rest = self.base[index]
        x = self.features.take(self.base.chosen[index], self.base.padded(index))
        return (x, *rest)

    def on_epoch_begin(self):
        self.base.on_epoch_begin()

    def on_epoch_end(self):
        self.base.on_epoch_end()
