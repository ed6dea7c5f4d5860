"""Batches: from raw records and an encoder to what `model.fit` takes, on every backend."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from numbers import Number
from typing import Any

import keras
import numpy as np

from kft.arguments import (
    check_callable,
    check_integer,
    check_optional_integer,
    check_seed,
    check_weights,
)
from kft.backbones.attention import on_processor
from kft.data.inputs import InputKind, encoder_info, listed_inputs, residues_in
from kft.data.sequences import SequenceWarning, warn_of_changes
from kft.messages import count_of, warn
from kft.training.lengths import chosen_lengths, padded_length

# Largest number of tokens of a batch for evaluation, for any batch size: the memory of attention
# grows with the square of the length. What a processor computes of 2,000 tokens stays in its cache,
# which takes two thirds of the time of 8,000 tokens or less.
MOST_TOKENS = {"processor": 2048, "graphics card": 16384}


class Passes(keras.utils.PyDataset):
    """Batches that change from one pass over the records to the next, and never within one.

    Keras ends an "epoch" after `steps_per_epoch` batches, if that is given, and continues the same
    pass in the next one. A pass ends when each of its batches was asked for, or when a `fit`
    begins, at which Keras reads `num_batches` and ends an epoch.

    A subclass has an attribute `epoch` and a method `go_to(epoch)`, which calls `begin_pass`; its
    `__getitem__` calls `asked_for(index)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._within, self._counted = False, False  # an epoch of Keras; just now
        self.begin_pass()

    def begin_pass(self) -> None:
        """Start a pass, of which no batch was asked for yet."""
        self._seen: set[int] = set()

    def asked_for(self, index: int) -> None:
        """Record that batch `index` was asked for."""
        self._counted = False
        self._seen.add(index)

    @property
    def num_batches(self) -> int:
        """Number of batches, which Keras reads when a `fit` begins."""
        self._counted = True
        return len(self)

    def on_epoch_begin(self) -> None:
        """Record that Keras has begun an epoch."""
        self._within = True

    def on_epoch_end(self) -> None:
        """Go to the next epoch if the pass has ended."""
        if self._counted or not self._within or len(self._seen) == len(self):
            self.go_to(self.epoch + 1)
        self._within = False


class Batches(Passes):
    """Encoded batches of records, see `kft.batches`.

    `batches[i]` is batch i of the current epoch: encoded inputs, or (encoded inputs, targets), or
    if records have weights or residues have targets (encoded inputs, targets, weights).

    Attributes:
        record_indices: List of int arrays, the records of each batch of the current epoch.
        names: Names of the records in errors.
        residues_cut: List of int, the number of residues cut from each input that is longer than
            `max_length`.
        changes: Counter of the inputs that `encode` has brought to normal form, see
            `kft.data.sequences.changes`.
        info: Description of the encoder, see `kft.data.inputs.EncoderInfo`.
        lengths: int array, the number of tokens of each record, with special tokens and without
            residues that were cut; None if records are images or rows, which have one size.
        pad_lengths: Numbers of tokens that batches are padded to, see
            `kft.training.lengths.chosen_lengths`; none if each is as long as its longest record.
        encoded: List of the encoded records without padding, one dict of arrays (L,) each, if the
            encoder has a `pad`: they are encoded once, when the batches are made. Else None:
            records are encoded again in every epoch, but for images that are kept.
        kept: `KeptImages`, if images are encoded once, see `keep_images`. Else None.
    """

    def __init__(
        self,
        inputs: list,
        targets: Any,
        encode: Callable | None,
        batch_size: int,
        seed: int | None,
        max_length: int | None,
        names: Sequence[str],
        masks: Sequence[np.ndarray] | None = None,
        weights: np.ndarray | None = None,
    ):
        super().__init__()
        self.inputs, self.targets, self.weights, self.names = inputs, targets, weights, names
        self.encode: Callable[..., Any] = _stack if encode is None else encode
        self.batch_size, self.seed, self.max_length = batch_size, seed, max_length
        self.residues_cut: list[int] = []
        self.changes: Counter[str] = Counter()
        self.lengths: np.ndarray | None = None
        self.pad_lengths: tuple[int, ...] = ()
        self.encoded: list[dict[str, np.ndarray]] | None = None
        self.kept: KeptImages | None = None
        self.info, sizes = encoder_info(encode, inputs), None
        # All inputs are checked now, since an error in the third epoch would be too late.
        if encode is None:
            _check_arrays(inputs, names)
        elif self.info.input_kind.has_length:
            self.lengths, sizes = self._measure(names)
            self.pad_lengths = chosen_lengths(self.lengths, training=seed is not None)
            if self.info.changes is not None:
                self.changes = self.info.changes(inputs)
        elif self.info.check is not None:
            self.info.check(inputs, names)
        if isinstance(targets, list):
            self.targets, self.masks = _per_residue(targets, masks, sizes, names)
        self.epoch = 0
        self._plan()

    def __len__(self) -> int:
        return len(self.record_indices)

    def __getitem__(self, index: int) -> Any:
        self.asked_for(index)
        encoded = self.inputs_of(index)
        if self.targets is None:
            return encoded
        length = None if self.lengths is None else _tokens(encoded)
        return (encoded, *self.targets_of(index, length))

    def inputs_of(self, index: int) -> dict[str, np.ndarray]:
        """Return the encoded inputs of batch `index`."""
        indices = self.record_indices[index]
        length = self.padded(index)
        if self.encoded is not None and length is not None:
            return self._padded_inputs([self.encoded[i] for i in indices], length)
        if self.kept is not None:
            return self.kept.take(indices)
        inputs = [self.inputs[i] for i in indices]
        if self.lengths is None:
            return self.encode(inputs)
        with silent_cuts():  # they are counted in `residues_cut` and `changes`
            return self.encode(inputs, self.max_length, pad_lengths=self.pad_lengths)

    def targets_of(self, index: int, length: int | None) -> tuple[np.ndarray, ...]:
        """Return the targets of batch `index`, and their weights if they have any.

        No inputs are encoded.

        Args:
            index: Number of the batch.
            length: Number of tokens that each record is padded to.

        Returns:
            Tuple of arrays, empty where there are no targets.
        """
        indices = self.record_indices[index]
        if self.targets is None:
            return ()
        if isinstance(self.targets, list):
            if length is None:
                raise ValueError(
                    "length must be the tokens of a padded record where residues have targets, "
                    "received None."
                )
            return self._at_tokens(indices, length)
        if self.weights is None:
            return (self.targets[indices],)
        return self.targets[indices], self.weights[indices]

    def in_order(self) -> Batches:
        """Return the same records in a fixed order, by length, without targets."""
        other = copy(self)
        other.seed, other.targets, other.epoch = None, None, 0
        other.begin_pass()
        other._plan()
        return other

    def _padded_inputs(
        self, rows: Sequence[dict[str, np.ndarray]], length: int
    ) -> dict[str, np.ndarray]:
        """Return encoded records as one batch: {name: array (B, L)}."""
        batch, pad = {}, self.info.pad or {}
        for name, first in rows[0].items():
            batch[name] = np.full((len(rows), length), pad[name], first.dtype)
            for out, row in zip(batch[name], rows, strict=True):
                out[: len(row[name])] = row[name]
        return batch

    def padded_length(self, length: int) -> int:
        """Return the number of tokens that a record of so many is padded to, if it is alone."""
        return padded_length(length, self.pad_lengths)

    def padded(self, index: int) -> int | None:
        """Return the number of tokens that batch `index` is padded to; None without lengths."""
        if self.lengths is None:
            return None
        return int(self.padded_length(self.lengths[self.record_indices[index]].max()))

    def _at_tokens(self, indices: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return targets (B, L) or (B, L, K) and weights (B, L), 0 except at residues.

        Those of pairs of residues are (B, L, L), both.
        """
        first, axes = self.targets[0], self.masks[0].ndim
        places = (len(indices), *[length] * axes)
        targets = np.zeros((*places, *first.shape[axes:]), dtype=first.dtype)
        weights = np.zeros(places, dtype="float32")
        for row, i in enumerate(indices):
            at = self.residues(i)
            there, kept = (at,) * axes, (slice(at.stop - at.start),) * axes
            targets[row][there] = self.targets[i][kept]
            weights[row][there] = self.masks[i][kept]
        if self.weights is not None:
            weights *= self.weights[indices].reshape(-1, *[1] * axes)
        return targets, weights

    def residues(self, record: int) -> slice:
        """Return the slice of the residues of a record among its tokens.

        Args:
            record: Position of the record, from 0.
        """
        if self.lengths is None:
            raise ValueError(f"record {record} is not a sequence: only sequences have residues.")
        return self.info.residues(int(self.lengths[record]))

    def _measure(self, names: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        """Return the number of tokens of each input, and that of its residues before the cut."""
        lengths, residues = [], []
        kept: list[dict[str, np.ndarray]] | None = None if self.info.pad is None else []
        self.encoded = kept
        with silent_cuts():
            for name, x in zip(names, self.inputs, strict=True):
                encoded = self.encode([x], names=[name])
                tokens = _tokens(encoded)
                residues.append(tokens - sum(self.info.specials))
                if self.max_length is not None and residues_in(x) > self.max_length:
                    before, encoded = encoded, self.encode([x], self.max_length, names=[name])
                    cut = self._tokens_in(before) - self._tokens_in(encoded)
                    self.residues_cut += [cut] if cut else []
                    tokens = _tokens(encoded)
                lengths.append(tokens)
                if kept is not None:
                    kept.append({key: array[0] for key, array in encoded.items()})
        return np.array(lengths), residues

    def _tokens_in(self, encoded: Mapping[str, np.ndarray]) -> int:
        """Return the number of tokens of one record, of both sequences for a pair."""
        if self.info.input_kind is not InputKind.PAIR or self.info.pad is None:
            return _tokens(encoded)
        return sum(int((array != self.info.pad[name]).sum()) for name, array in encoded.items())

    def go_to(self, epoch: int) -> None:
        """Make `epoch` the current one, to continue a training."""
        self.epoch = epoch
        self.begin_pass()
        self._plan()

    def _plan(self) -> None:
        self.record_indices = self._by_length() if self.seed is None else self._mixed(self.seed)
        if self.lengths is None:
            return
        # If the first two batches have the same length, TensorFlow assumes it for all.
        order = self.record_indices
        padded = [self.padded(i) for i in range(len(order))]
        other = next((i for i, length in enumerate(padded) if length != padded[0]), 0)
        if other > 1:
            order[1], order[other] = order[other], order[1]

    def _mixed(self, seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng((seed, self.epoch))
        order = rng.permutation(len(self.inputs))
        if self.lengths is not None:
            # Sorted by length within stretches of 50 batches: neighbours are of similar length,
            # and still mixed differently in every epoch.
            stretches = _cut(order, 50 * self.batch_size)
            order = np.concatenate([s[np.argsort(self.lengths[s])] for s in stretches])
        in_batches = _cut(order, self.batch_size)
        return [in_batches[i] for i in rng.permutation(len(in_batches))]

    def _by_length(self) -> list[np.ndarray]:
        """Return batches with the longest first, so that memory runs out at once or never."""
        if self.lengths is None:
            return _cut(np.arange(len(self.inputs)), self.batch_size)
        order = np.argsort(-self.lengths, kind="stable")
        in_batches, start = [], 0
        while start < len(order):
            padded = self.padded_length(self.lengths[order[start]])
            size = max(1, min(self.batch_size, most_tokens() // padded))
            in_batches.append(order[start : start + size])
            start += size
        return in_batches


def most_tokens() -> int:
    """Return the largest number of tokens of a batch where nothing is learned."""
    return MOST_TOKENS["processor" if on_processor() else "graphics card"]


class KeptImages:
    """Encoded images in memory. Each is encoded when it is first asked for, and then kept.

    Args:
        images: List of N images.
        encode: Encoder of images that is deterministic, see `kft.data.inputs.Encoder`.
    """

    def __init__(self, images: Sequence[Any], encode: Callable[..., dict[str, np.ndarray]]):
        self.images, self.encode = images, encode
        self.rows: dict[int, dict[str, np.ndarray]] = {}

    @property
    def size(self) -> int:
        """Bytes that all images take, by the size of the first."""
        (row,) = self._rows([0])
        return len(self.images) * sum(array.nbytes for array in row.values())

    def take(self, chosen: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Return encoded images as one batch: {name: array (B, ...)}.

        Args:
            chosen: Numbers of the images.
        """
        rows = self._rows(chosen)
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _rows(self, chosen: Sequence[int] | np.ndarray) -> list[dict[str, np.ndarray]]:
        new = [i for i in chosen if i not in self.rows]
        if new:
            encoded = self.encode([self.images[i] for i in new])
            for k, i in enumerate(new):
                self.rows[i] = {name: array[k] for name, array in encoded.items()}
        return [self.rows[i] for i in chosen]


def keep_images(parts: Sequence[Batches], memory_limit: int) -> str | None:
    """Keep the images of batches once they are encoded, if all of them fit into memory.

    Records that are not images, and images whose encoder is not stated to be deterministic, are
    left as they are.

    Args:
        parts: Batches, such as those to train and to validate on.
        memory_limit: Most bytes of all their encoded images together.

    Returns:
        None; or where they would take more, why they are encoded again for each batch.
    """
    images = [
        part
        for part in parts
        if part.info.input_kind is InputKind.IMAGE and part.info.deterministic
    ]
    kept = [KeptImages(part.inputs, part.encode) for part in images]
    size = sum(part.size for part in kept)
    if size > memory_limit:
        return (
            f"Images are opened and resized again in every epoch: all would take "
            f"{size / 2**30:.2g} GiB of memory, above memory_limit={memory_limit / 2**30:.2g} GiB."
        )
    for part, its in zip(images, kept, strict=True):
        part.kept = its
    return None


def warn_of_cut(cut: Sequence[int], total: int, max_length: int | None) -> None:
    """Warn once of what `max_length` has cut from `total` inputs, see `Batches.residues_cut`."""
    if cut:
        warn(
            f"{len(cut)} of {total} inputs were longer than max_length={max_length}: "
            f"{count_of(sum(cut), 'residue')} cut from their ends."
        )


@contextmanager
def silent_cuts() -> Iterator[None]:
    """Silence warnings of `max_length` and of changes by `encode`, which are given elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SequenceWarning)
        warnings.filterwarnings("ignore", message=".*longer than max_length")
        yield


def _tokens(encoded: Mapping[str, np.ndarray]) -> int:
    return next(iter(encoded.values())).shape[1]


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[i : i + size] for i in range(0, len(order), size)]


def batches(
    records: Any,
    encode: Callable[..., dict[str, np.ndarray]] | None,
    batch_size: int = 32,
    seed: int | None = 0,
    max_length: int | None = None,
    names: Sequence[str] | None = None,
) -> Batches:
    """Make batches that `fit`, `evaluate` and `predict` of any Keras model take.

    Sequences are batched with others of similar length. Where the backend compiles a program for
    each length, they are padded to few lengths. Every epoch has another order.

    Args:
        records: An object with `.inputs` and `.targets` (a `kft.data.Split`), a tuple
            (inputs, targets) or (inputs, targets, weights), or inputs alone. Targets are numbers
            (N,) or (N, K); or, if every residue has its own, a list of N arrays with one entry (or
            K) per residue. `.masks`, if there are any, are N bool arrays that mark the residues
            whose targets are used. Weights are N numbers of at least 0, by which the loss of each
            record is multiplied.
        encode: The backbone's `encode`, or a function like it, see `kft.data.inputs.Encoder`. None
            stacks records that are arrays of one shape, or dicts of such arrays, for any Keras
            model; float64 becomes float32.
        batch_size: Records per batch; the last one may be smaller.
        seed: Integer that determines the order of every epoch, the same on every backend. None
            keeps one order, by length, for evaluation.
        max_length: Number of residues to keep of each sequence; None keeps all.
        names: Names of the inputs in errors; None for "inputs[0]" and so on.

    Returns:
        keras.utils.PyDataset of (encoded inputs, targets), or of encoded inputs; with weights of
        (encoded inputs, targets, weights float32 (B,)). If residues have targets, it is of (encoded
        inputs, targets (B, L) or (B, L, K), weights float32 (B, L)), at the token of each residue.
        These weights are 1, or that of the record, at residues whose targets are used, and 0 at
        special tokens, padding and masked residues. A plain keras.Model shuffles batches in `fit`
        with Python's `random` unless `shuffle=False`, and predicts in the order of
        `.record_indices`; a
        `kft.Model` does neither. With `steps_per_epoch`, the next epoch continues where the last
        one ended, so that each record is used once before any is used again, as with arrays.

    Raises:
        ValueError: There are no records, targets are not one per input or per residue, a target
            is missing, weights are not one per input, one is negative or NaN or all are 0, an input
            is empty or has a character that is not a residue, or arrays differ in shape.
        TypeError: Targets are not numbers, or an input is not a string or not an array.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> train = kft.batches((["MKTAYI", "GSS"], [0, 1]), backbone.encode, batch_size=2)
        >>> train[0][0]["token_ids"].shape
        (2, 8)
    """
    check_integer("batch_size", batch_size)
    check_optional_integer("max_length", max_length)
    if seed is not None:
        check_seed("seed", seed)
    if encode is not None:
        check_callable("encode", encode, "a function or None")
    inputs, targets, weights = records_of(records)
    names = names or [f"inputs[{i}]" for i in range(len(inputs))]
    if targets is not None:
        targets = _rows(targets, names) or _checked_targets(targets, len(inputs))
    if weights is not None:
        weights = _checked_weights(weights, targets, len(inputs))
    masks = getattr(records, "masks", None)
    result = Batches(inputs, targets, encode, batch_size, seed, max_length, names, masks, weights)
    warn_of_cut(result.residues_cut, len(inputs), max_length)
    in_pairs = result.info.input_kind is InputKind.PAIR
    warn_of_changes(result.changes, len(inputs) * (1 + in_pairs))
    return result


def records_of(records: Any) -> tuple[list, Any, Any]:
    """Return inputs, targets and weights of a `Split` or a tuple; None for what there is not."""
    inputs, targets, weights = records, None, None
    if hasattr(records, "inputs"):
        inputs, targets = records.inputs, records.targets
        weights = getattr(records, "weights", None)
    elif isinstance(records, tuple) and len(records) == 2:
        inputs, targets = records
    # Three strings in a tuple are inputs alone.
    elif isinstance(records, tuple) and len(records) == 3 and not isinstance(records[0], str):
        inputs, targets, weights = records
    inputs = listed_inputs(inputs)
    if len(inputs) == 0:
        raise ValueError("records is empty: give at least one input.")
    return inputs, targets, weights


# Records that are arrays ----------------------------------------------------------------------


def _stack(inputs: Sequence[Any]) -> Any:
    """Stack arrays of one shape, or dicts of such arrays, to (B, ...) each."""
    if isinstance(inputs[0], dict):
        return {key: _stack([x[key] for x in inputs]) for key in inputs[0]}
    stacked = np.stack(inputs)
    return stacked.astype("float32") if stacked.dtype == "float64" else stacked


def _check_arrays(inputs: Sequence[Any], names: Sequence[str]) -> None:
    shapes = []
    for name, x in zip(names, inputs, strict=True):
        parts = x if isinstance(x, dict) else {"": x}
        wrong = [part for part in parts.values() if np.asarray(part).dtype.kind not in "biuf"]
        if wrong or not parts:
            received = repr(x[:20]) if isinstance(x, str) else type(x).__name__
            raise TypeError(
                f"{name} must be an array of numbers or a dict of such arrays, received "
                f"{received}: with encode=None arrays are only stacked; for raw inputs give a "
                f"backbone's `encode`."
            )
        shapes.append({key: np.shape(part) for key, part in parts.items()})
        if shapes[-1] != shapes[0]:
            raise ValueError(
                f"{name} has shape {_shown(shapes[-1])}, and {names[0]} {_shown(shapes[0])}: bring "
                f"all records to one shape."
            )


def _shown(shapes: Mapping[str, Any]) -> Any:
    return shapes.get("", shapes)


# Targets --------------------------------------------------------------------------------------


def _rows(targets: Any, names: Sequence[str]) -> list[np.ndarray] | None:
    """Return the targets as a list of arrays if each record has its own, else None."""
    if isinstance(targets, np.ndarray) and targets.dtype != object:
        return None
    targets = list(targets) if np.iterable(targets) else []
    arrays = [isinstance(row, np.ndarray) and row.ndim > 0 for row in targets]
    if not any(arrays):
        return None
    if not all(arrays):
        i = arrays.index(False)
        raise ValueError(
            f"targets mixes arrays with single values, targets[{i}] is {targets[i]!r}: give one "
            f"array per record, with a target for each residue, or one value per record."
        )
    if len(targets) != len(names):
        raise ValueError(f"{len(names)} inputs and {len(targets)} targets: give one per input.")
    return targets


def _per_residue(
    targets: Sequence[np.ndarray],
    masks: Sequence[Any] | None,
    residues: Sequence[int] | None,
    names: Sequence[str],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return targets and masks as lists of arrays, one entry per residue; 0 where masked.

    Masks (N, N) say that there is one per pair of residues.
    """
    if residues is None:
        raise ValueError(
            "targets are arrays, one entry per residue, but inputs have no residues (label images "
            "are for a model that kft.segmentation prompts): give "
            "one array (N,) or (N, K) of targets."
        )
    if masks is None:
        masks = [np.ones(n, dtype=bool) for n in residues]
    if len(masks) != len(names):
        raise ValueError(f"{len(names)} inputs and {len(masks)} masks: give one per input.")
    dtype = "float32" if any(row.dtype.kind not in "biu" for row in targets) else "int32"
    axes = 2 if len(masks) and np.ndim(masks[0]) == 2 else 1
    what = "residue" if axes == 1 else "pair of residues"
    filled, width = [], targets[0].shape[axes:]
    for name, row, mask, n in zip(names, targets, masks, residues, strict=True):
        mask = np.asarray(mask)
        if mask.dtype != bool:
            raise TypeError(
                f"the mask of {name} must be bool, True where a target is used; received "
                f"{mask.dtype}."
            )
        if row.shape != ((n,) * axes + width) or mask.shape != (n,) * axes:
            raise ValueError(
                f"{name} has {n} residues, targets of shape {row.shape} and a mask of shape "
                f"{mask.shape}: expected {(n,) * axes + width} and {(n,) * axes}, one per {what}. "
                f"Several targets per record, and none per residue, are one array (N, K)."
            )
        row = _in_range(_as_numbers(row), f"targets of {name}")
        marked = mask.reshape(*mask.shape, *(1 for _ in width))
        missing = np.argwhere(marked & ~np.isfinite(row))
        if len(missing):
            raise ValueError(
                f"the target of {name} at residue {missing[0, 0] + 1} is missing (NaN or "
                f"infinite): give a value, or mark it False in masks."
            )
        filled.append(np.where(marked, row, 0).astype(dtype))
    return filled, [np.asarray(mask) for mask in masks]


def _checked_targets(targets: Any, n: int) -> np.ndarray:
    try:
        array = np.asarray(targets)
    except ValueError:
        raise ValueError(
            "targets are lists of different lengths: targets of residues are a list of numpy "
            "arrays, several targets per record one array (N, K)."
        ) from None
    if array.ndim == 0 or len(array) != n:
        received = len(array) if array.ndim else repr(targets)
        raise ValueError(f"{n} inputs and {received} targets: give one target per input.")
    array = _as_numbers(array)
    missing = ~np.isfinite(array.reshape(n, -1)).all(axis=1)
    if missing.any():
        raise ValueError(
            f"{missing.sum()} of {n} targets are missing (NaN or infinite), the first is "
            f"targets[{int(np.argmax(missing))}]: leave those records out."
        )
    return _in_range(array, "targets").astype("float32" if array.dtype.kind == "f" else "int32")


_LARGEST = 1e18  # whose square, in a loss, is still far from the largest float32


def _in_range(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array whose numbers can be trained on; raise an error for others."""
    most = _LARGEST if array.dtype.kind == "f" else 2**31 - 1
    finite = array[np.isfinite(array)]
    if finite.size and max(abs(float(finite.min())), abs(float(finite.max()))) > most:
        worst = finite[np.argmax(np.abs(finite.astype("float64")))]
        raise ValueError(
            f"{name} must be numbers from -{most:,g} to {most:,g}, received {worst:g}: give them "
            f"in another unit, or mark missing values."
        )
    return array


def _checked_weights(weights: Any, targets: Any, n: int) -> np.ndarray:
    if targets is None:
        raise ValueError("weights are for records with targets, received targets=None.")
    weights = check_weights("weights", weights, n)
    if not weights.any():
        raise ValueError(f"weights must hold a number above 0, received 0 for all {n} records.")
    return weights.astype("float32")


def _as_numbers(array: np.ndarray) -> np.ndarray:
    """Return an array of numbers, with NaN for None and pandas' NA in an array of objects."""
    if array.dtype == object:
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
    return array
