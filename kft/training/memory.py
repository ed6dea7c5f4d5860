"""Whether records fit the memory, said before a model is run on them.

Shapes: `B` sequences in a batch, `L` tokens, `H` heads, `D` width; `P` width of a pair of tokens,
`K` its outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.backbones.attention import on_processor
from kft.data.task import Task
from kft.messages import harmless
from kft.training.batching import Batches

# Longer than any known protein (titin has 35,213 residues). The time of attention grows with the
# square of the length.
MOST_TOKENS_OF_ONE = 100_000

_REMEDY = (
    "give max_length to keep the first residues of each protein, cut long proteins into windows, "
    "or leave them out"
)


def available_memory() -> int | None:
    """Return how many bytes of main memory can be used, None where the system does not say.

    Returns:
        Bytes: what Linux calls available, at most what a container has left of its limit.

    Example:
        >>> available_memory() is None or available_memory() > 0
        True
    """
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = dict(line.split(":", 1) for line in lines if ":" in line)
        available = int(known["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None
    try:
        limit, used = (int(Path("/sys/fs/cgroup", f"memory.{x}").read_text()) for x in _CGROUP)
    except (OSError, ValueError):  # no container, or "max"
        return available
    return min(available, max(0, limit - used))


_CGROUP = ("max", "current")
_FULL = (  # in the name of an error's class, or in its message
    *("memoryerror", "out of memory", "not enough memory"),
    *("resource_exhausted", "resourceexhausted", "can't allocate memory"),
)


def check_memory(model: keras.Model, records: Batches, training: bool = False) -> None:
    """Raise an error if the longest record needs more memory than there is, on a processor.

    On a graphics card nothing is estimated: `explained` says what was too long there. On torch,
    whose attention does without its (L, L) weights, only the pairs of a head for pairs are.

    Args:
        model: A model whose backbone has attention; others are not checked.
        records: Batches of sequences; others are not checked.
        training: Whether the head is trained.

    Raises:
        ValueError: The record is longer than `MOST_TOKENS_OF_ONE`, or the memory is too small.
    """
    if records.lengths is not None:
        check_fits(model, *_longest(records, records.lengths), training)


def check_fits(
    model: keras.Model, tokens: int, size: int, name: str, training: bool = False
) -> None:
    """Raise an error if a record needs more memory than there is, as `check_memory`.

    Args:
        model: As for `check_memory`.
        tokens: Tokens of the record with padding.
        size: Number of records of its batch.
        name: What the error calls it.
        training: As for `check_memory`.

    Raises:
        ValueError: The record is too long.
    """
    pairs = _floats_per_pair(model, training)
    estimated = (pairs or keras.backend.backend() != "torch") and on_processor()
    # The config last: with adapters in it Keras imports TensorFlow, which takes seconds.
    if (not estimated and tokens <= MOST_TOKENS_OF_ONE) or (config := _sizes(model)) is None:
        return
    if tokens > MOST_TOKENS_OF_ONE:
        raise ValueError(
            f"{name} has {tokens:,} tokens, and kft runs at most {MOST_TOKENS_OF_ONE:,}, three "
            f"times the longest known protein: {_REMEDY}."
        )
    available = available_memory()
    if available is None or not estimated:
        return
    needed = _estimate(config, tokens, size) + 4 * size * tokens**2 * pairs
    if needed > available:
        batch = f" in a batch of {size} (give a smaller batch_size, or " if size > 1 else " ("
        raise ValueError(
            f"{name} has {tokens:,} tokens, for which the model needs about "
            f"{needed / 2**30:,.1f} GB{batch}{_REMEDY}), and {available / 2**30:,.1f} GB of "
            f"memory are available."
        )


@contextmanager
def explained(records: Batches) -> Iterator[None]:
    """Add to an error of a full memory which record is the longest, and what to do.

    Args:
        records: The batches that a model is run on.

    Raises:
        MemoryError: The memory was full.
    """
    try:
        yield
    except Exception as error:  # each backend has its own
        if records.lengths is None or not _is_full_memory(error):
            raise
        tokens, size, name = _longest(records, records.lengths)
        raise MemoryError(
            f"The memory was full. The longest input, {name}, has {tokens:,} tokens, in a batch of "
            f"{size}: {_REMEDY}, or give a smaller batch_size. The backend says: {error!s:.200}"
        ) from error


def _is_full_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}".lower()
    return any(mark in text for mark in _FULL)


def _longest(records: Batches, lengths: np.ndarray) -> tuple[int, int, str]:
    """Return the tokens that the longest record is padded to, the size of its batch, its name."""
    longest = int(np.argmax(lengths))
    size = next(len(indices) for indices in records.record_indices if longest in indices)
    return int(records.padded_length(lengths[longest])), size, harmless(records.names[longest])


def _sizes(model: keras.Model) -> dict[str, int] | None:
    """Return blocks, width and heads of the backbone of a model, None if it has no such sizes."""
    backbone: Any = getattr(model, "backbone", model)
    try:
        config = backbone.get_config()
    except Exception:  # a user's own class may have none
        return None
    sizes = {key: config.get(key) for key in ("num_blocks", "width", "num_heads")}
    return sizes if all(isinstance(x, int) for x in sizes.values()) else None


def _floats_per_pair(model: Any, training: bool) -> int:
    """Return how many numbers a head for pairs of residues has at least for each pair of tokens.

    As measured on the three backends: two of P and K, and as many again for the gradient.
    """
    head: Any = getattr(model, "head", None)
    task = getattr(head, "task", None)
    if task is None or not Task(task).per_pair:
        return 0
    return (4 if training else 2) * (getattr(head, "width", 0) + head.units)


def _estimate(sizes: dict[str, int], tokens: int, batch: int) -> int:
    """Return bytes of float32 that the backbone needs at least.

    JAX has the weights of attention (L, L) of one protein, and TensorFlow of the whole batch, in
    three copies: scores, weights, and a mask or a gradient. Torch has none.
    """
    proteins = {"jax": 1, "tensorflow": batch}.get(keras.backend.backend(), 0)
    hidden = batch * tokens * sizes["width"] * 8
    return 4 * (hidden + 3 * proteins * sizes["num_heads"] * tokens**2)
