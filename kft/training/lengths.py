"""How many tokens batches of sequences are padded to: few lengths where each is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import keras
import numpy as np

from kft.backbones.attention import on_processor

# Numbers of tokens that grow by a third to a half per step: shapes of these lengths are few, and a
# fifth of the tokens is padding, on proteins of 50 to 1,000 residues.
FEW_LENGTHS = (8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)

# What one more length must save, in tokens (see `cost`), since its program has to be compiled. On
# JAX a step of ESM-2 8M is compiled in the time of 8,000 tokens, and is used in several epochs; a
# program for predictions in that of 6,000, and one of `FEW_LENGTHS` serves later calls, too.
WORTH_TRAINING, WORTH_PREDICTING, WORTH_FEW = 4096, 16384, 4096


@cache
def compiles_each_length() -> bool:
    """Return whether the backend compiles a program for each length of a batch.

    TensorFlow does on a graphics card. On a processor one program serves any length.
    """
    backend = keras.backend.backend()
    return backend == "jax" or (backend == "tensorflow" and not on_processor())


def few_lengths() -> tuple[int, ...]:
    """Return the lengths to pad to where nothing is known of the records; none if any may occur."""
    return FEW_LENGTHS if compiles_each_length() else ()


def padded_length(length: int, lengths: Sequence[int] | None = None) -> int:
    """Return the first of some lengths that is not less than `length`, else `length` itself.

    Args:
        length: Number of tokens.
        lengths: Ascending numbers of tokens; None takes `few_lengths`.
    """
    return next((p for p in (few_lengths() if lengths is None else lengths) if p >= length), length)


def cost(length: Any) -> Any:
    """Return what a padded record costs, in tokens of a short one.

    Attention takes as long as all the rest at about 1,000 tokens (ESM-2 8M, one core).

    Args:
        length: Its number of tokens, or an array of such numbers.
    """
    return length * (1 + length / 1024)


def chosen_lengths(lengths: np.ndarray, training: bool) -> tuple[int, ...]:
    """Choose the lengths that records are padded to, by what each saves and costs to compile.

    Training uses its own lengths. Predictions prefer `FEW_LENGTHS`, which serve other calls, too,
    and use others where there are many records.

    Args:
        lengths: int array (N,), tokens of each record.
        training: Whether the records are trained on.

    Returns:
        Ascending numbers of tokens; none where the backend does not compile each length.
    """
    if not compiles_each_length():
        return ()
    few = () if training else FEW_LENGTHS
    enough = padded_length(int(lengths.max()), FEW_LENGTHS)
    seen, counts = np.unique(lengths, return_counts=True)
    # Rounded, so that other records of the same kind have the same lengths; a tenth is a kind.
    kinds = {*few, *map(_rounded, seen), *seen[10 * counts >= len(lengths)]}
    found = np.array(sorted(n for n in kinds if n <= max(enough, _rounded(lengths.max()))))
    worth = np.full(len(found), WORTH_TRAINING if training else WORTH_PREDICTING)
    worth[np.isin(found, few)] = WORTH_FEW
    up_to = np.searchsorted(np.sort(lengths), found, side="right")  # records
    # The least cost of the records up to each length, where it is chosen, and the length before it.
    least, before = [0.0], []
    for i, length in enumerate(found):
        records = up_to[i] - np.concatenate([[0], up_to[:i]])
        costs = np.array(least) + records * cost(length) + worth[i]
        before.append(int(costs.argmin()))
        least.append(float(costs.min()))
    last = int(np.searchsorted(found, lengths.max()))  # the first that holds all
    chosen, i = [], last + 1 + int(np.argmin(least[last + 1 :]))
    while i:
        chosen.append(int(found[i - 1]))
        i = before[i - 1]
    return tuple(reversed(chosen))


def _rounded(length: int) -> int:
    """Round up to one of eight lengths between powers of two, and by 256 at most."""
    step = min(max(8, 2 ** (int(length - 1).bit_length() - 4)), 256)
    return -(-length // step) * step
