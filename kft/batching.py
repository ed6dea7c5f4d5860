"""Batches: from raw records and an encoder to what `model.fit` takes, on every backend."""

import warnings
from contextlib import contextmanager
from numbers import Number

import keras
import numpy as np

# Token counts that batches of sequences are padded to. JAX compiles a model once per shape, so
# shapes must be few. On proteins of 3 to 1,000 residues steps of a third to a half, and unequal
# neighbours, make a quarter of the tokens padding.
PAD_LENGTHS = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)

# Batches for evaluation hold at most so many tokens, whatever the batch size: attention takes
# memory with the square of the length.
MOST_TOKENS = 16384


class Batches(keras.utils.PyDataset):
    """Encoded batches of records, see `kft.batches`.

    `batches[i]` is batch i of the present epoch: encoded inputs, or (encoded inputs, targets).

    Attributes:
        chosen: list of int arrays, the records of each batch of the present epoch.
        cut: list of int, how many residues each input above `max_length` has lost.
    """

    def __init__(self, inputs, targets, encode, batch_size, seed, max_length, names):
        super().__init__()
        self.inputs, self.targets, self.encode = inputs, targets, encode
        self.batch_size, self.seed, self.max_length = batch_size, seed, max_length
        self.cut = []
        # Only strings differ in size: they are put beside others of their length. What is no
        # array is left to the encoder, which says what is wrong with None or a number.
        self.lengths = self._measure(names) if np.ndim(inputs[0]) == 0 else None
        self.epoch = 0
        self._plan()

    def __len__(self):
        return len(self.chosen)

    def __getitem__(self, index):
        chosen = self.chosen[index]
        inputs = [self.inputs[i] for i in chosen]
        if self.lengths is None:
            encoded = self.encode(inputs)
        else:
            with _silent_cuts():  # they are counted in `cut`
                encoded = self.encode(inputs, self.max_length, pad_lengths=PAD_LENGTHS)
        return encoded if self.targets is None else (encoded, self.targets[chosen])

    def _measure(self, names):
        """Tokens of each input. All are encoded now: an error in the third epoch is too late."""
        lengths = []
        with _silent_cuts():
            for name, x in zip(names, self.inputs, strict=True):
                tokens = _tokens(self.encode([x], names=[name]))
                if self.max_length is not None and len(x) > self.max_length:
                    kept = _tokens(self.encode([x], self.max_length, names=[name]))
                    self.cut += [tokens - kept] if kept < tokens else []
                    tokens = kept
                lengths.append(tokens)
        return np.array(lengths)

    def on_epoch_end(self):
        self.epoch += 1
        self._plan()

    def _plan(self):
        self.chosen = self._by_length() if self.seed is None else self._mixed()
        if self.lengths is None:
            return
        # TensorFlow takes a length that the first two batches share for that of all.
        padded = [_padded(self.lengths[chosen].max()) for chosen in self.chosen]
        other = next((i for i, length in enumerate(padded) if length != padded[0]), 0)
        if other > 1:
            self.chosen[1], self.chosen[other] = self.chosen[other], self.chosen[1]

    def _mixed(self):
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.inputs))
        if self.lengths is not None:
            # Sorted by length within stretches of 50 batches: neighbours are alike in length,
            # and still another mix in every epoch.
            stretches = _cut(order, 50 * self.batch_size)
            order = np.concatenate([s[np.argsort(self.lengths[s])] for s in stretches])
        cut = _cut(order, self.batch_size)
        return [cut[i] for i in rng.permutation(len(cut))]

    def _by_length(self):
        """The longest first, so that memory runs out at once or never."""
        if self.lengths is None:
            return _cut(np.arange(len(self.inputs)), self.batch_size)
        order = np.argsort(-self.lengths, kind="stable")
        chosen, start = [], 0
        while start < len(order):
            padded = _padded(self.lengths[order[start]])
            size = max(1, min(self.batch_size, MOST_TOKENS // padded))
            chosen.append(order[start : start + size])
            start += size
        return chosen


def warn_of_cut(cut, total, max_length, stacklevel=2):
    """Says once how much `max_length` has cut from `total` inputs, see `Batches.cut`."""
    if cut:
        warnings.warn(
            f"{len(cut)} of {total} inputs were longer than max_length={max_length}: "
            f"{sum(cut)} residues were cut from their ends.",
            stacklevel=stacklevel + 1,
        )


@contextmanager
def _silent_cuts():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*longer than max_length")
        yield


def _tokens(encoded):
    return next(iter(encoded.values())).shape[1]


def _padded(length):
    return next((p for p in PAD_LENGTHS if p >= length), length)


def _cut(order, size):
    return [order[i : i + size] for i in range(0, len(order), size)]


def batches(records, encode, batch_size=32, seed=0, max_length=None, names=None):
    """Makes batches that `fit`, `evaluate` and `predict` of any Keras model take.

    Sequences are put beside others of about their length, and padded to one of few lengths, so
    that little work goes into padding and little is compiled. Every epoch mixes them anew.

    Args:
        records: what has `.inputs` and `.targets` (a `kft.data.Split`), a pair (inputs, targets),
            or inputs alone.
        encode: the backbone's `encode`.
        batch_size: records per batch; the last one may be smaller.
        seed: int from which the order of every epoch follows, on every backend. None keeps one
            order, by length, for evaluation.
        max_length: residues to keep of each sequence, None for all.
        names: what errors call each input, None for "inputs[0]" and so on.

    Returns:
        keras.utils.PyDataset of (encoded inputs, targets), or of encoded inputs. A plain
        keras.Model shuffles batches in `fit` with Python's `random`, unless told
        `shuffle=False`, and predicts in the order of `.chosen`; a `kft.Model` does neither.

    Raises:
        ValueError: no records, other than one target per input, a target that is missing, an
            empty input or one with a character that is no residue.
        TypeError: targets that are no numbers, or an input that is no string.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> train = kft.batches((["MKTAYI", "GSS"], [0, 1]), backbone.encode, batch_size=2)
        >>> train[0][0]["token_ids"].shape
        (2, 8)
    """
    inputs, targets = _parts(records)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, received {batch_size}.")
    if len(inputs) == 0:
        raise ValueError("records is empty: give at least one input.")
    if targets is not None:
        targets = _checked_targets(targets, len(inputs))
    names = names or [f"inputs[{i}]" for i in range(len(inputs))]
    result = Batches(inputs, targets, encode, batch_size, seed, max_length, names)
    warn_of_cut(result.cut, len(inputs), max_length)
    return result


def _parts(records):
    if hasattr(records, "inputs"):
        inputs, targets = records.inputs, records.targets
    elif isinstance(records, tuple) and len(records) == 2:
        inputs, targets = records
    else:
        inputs, targets = records, None
    if isinstance(inputs, str | bytes):
        raise TypeError(
            f"inputs must be a list, received one string, {inputs[:20]!r}: write [string]."
        )
    return list(inputs), targets


def _checked_targets(targets, n):
    array = np.asarray(targets)
    if array.ndim == 0 or len(array) != n:
        received = len(array) if array.ndim else repr(targets)
        raise ValueError(f"{n} inputs and {received} targets: give one target per input.")
    if array.dtype == object:  # None, or pandas' NA, among others
        from pandas import isna

        known = array[~isna(array)]
        array = np.where(isna(array), np.nan, array)
        if all(isinstance(value, Number | np.bool_) for value in known):
            array = array.astype("float64")
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"targets must be numbers, received {array.dtype}: number the classes 0, 1, ... "
            f"(numpy.unique(labels, return_inverse=True) does)."
        )
    missing = ~np.isfinite(array.reshape(n, -1)).all(axis=1)
    if missing.any():
        raise ValueError(
            f"{missing.sum()} of {n} targets are missing (NaN or infinite), the first is "
            f"targets[{int(np.argmax(missing))}]: leave those records out."
        )
    return array.astype("float32" if array.dtype.kind == "f" else "int32")
