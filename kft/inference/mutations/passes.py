"""Log-probabilities of residues from passes through a language model, in windows of long proteins.

Shapes: `L` tokens, `K` tokens of the alphabet, `k` tokens that are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import keras
import numpy as np
from scipy.special import log_softmax

from kft.inference.scoring import logits_at
from kft.messages import progress

BATCHES = 16  # of passes that are in memory at a time


class Pass(NamedTuple):
    """What the model is shown once.

    Attributes:
        token_ids: int32 array (L,).
        at: int array (k,), positions of the tokens that are read.
    """

    token_ids: np.ndarray
    at: np.ndarray


def log_probabilities(
    backbone: keras.Model, passes: Iterable[Pass], tokens: int, total: int | None = None
) -> Iterator[np.ndarray]:
    """Compute log-probabilities over all tokens of the alphabet, in batches.

    Memory does not depend on the number of passes.

    Args:
        backbone: An ESM-2 or ESM-C.
        passes: What the model is shown.
        tokens: Tokens of a batch.
        total: Number of passes, for the bar of progress.

    Yields:
        Float32 array (k, K) for each pass, in their order.
    """
    with progress("passes") as bar:
        task = bar.add_task("scores", total=total)
        for some in _chunks(passes, BATCHES * tokens):
            found = logits_at(backbone, [p.token_ids for p in some], [p.at for p in some], tokens)
            for logits in found:
                yield log_softmax(logits, axis=-1)
            bar.advance(task, len(some))


def _chunks(passes: Iterable[Pass], most: int) -> Iterator[list[Pass]]:
    """Yield lists of passes of at most `most` tokens, or of one pass."""
    some: list[Pass] = []
    size = 0
    for one in passes:
        if some and size + len(one.token_ids) > most:
            yield some
            some, size = [], 0
        some.append(one)
        size += len(one.token_ids)
    if some:
        yield some


def window_of(at: int, length: int, window: int | None) -> tuple[int, int]:
    """Return the tokens that the model is shown around one token of a long protein.

    Args:
        at: Position of the token.
        length: Number L of tokens, <cls> and <eos> included.
        window: Most tokens of a pass; None for all.

    Returns:
        Start and end.

    Source: Notin et al. 2023, ProteinGym, `get_optimal_window`.

    Example:
        >>> window_of(5, 100, 20), window_of(50, 100, 20), window_of(99, 100, 20)
        ((0, 20), (40, 60), (80, 100))
    """
    if window is None or length <= window:
        return 0, length
    half = window // 2
    start = min(max(0, at - half), length - window)
    return start, start + 2 * half if start == at - half else start + window


def one_masked(token_ids: np.ndarray, at: int, mask: int, window: int | None) -> Pass:
    """Make the pass in which one token is hidden.

    Args:
        token_ids: int32 array (L,).
        at: Position of the token that is hidden and read.
        mask: Id of "<mask>".
        window: Most tokens of a pass.
    """
    start, end = window_of(at, len(token_ids), window)
    shown = token_ids[start:end].copy()
    shown[at - start] = mask
    return Pass(shown, np.array([at - start]))


def unmasked(
    token_ids: np.ndarray, at: Iterable[int], window: int | None, step: int = 1
) -> Iterator[tuple[list[int], Pass]]:
    """Yield the passes in which no token is hidden, one for each different window.

    Args:
        token_ids: int32 array (L,).
        at: Positions of the tokens that are read.
        window: Most tokens of a pass.
        step: Windows are centred at every `step`th token, so that there are fewer.

    Yields:
        Positions in `token_ids` that the pass reads; the `Pass`.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for position in at:
        centre = position // step * step + step // 2
        groups.setdefault(window_of(centre, len(token_ids), window), []).append(position)
    for (start, end), positions in groups.items():
        yield positions, Pass(token_ids[start:end], np.array(positions) - start)


def overlapping_windows(length: int, window: int) -> list[int]:
    """Return the starts of windows that cover a long protein from both ends to the middle.

    Neighbours overlap by a little more than half; where the two in the middle overlap by less, one
    more is put there.

    Args:
        length: Number L of tokens, <cls> and <eos> included; more than `window`.
        window: Tokens of each window.

    Source: Notin et al. 2023, ProteinGym, `scoring_window="overlapping"`, whose windows have 1,024
    tokens; Brandes et al. 2023, Nature Genetics 55:1512.

    Example:
        >>> overlapping_windows(1500, 1024), overlapping_windows(2600, 1024)
        ([0, 476], [0, 1576, 511, 1065, 788])
    """
    step, left, right = window // 2 - 1, 0, length - window
    starts = [left, right]
    while left + window - 1 <= right:
        left, right = left + step, right - step
        starts += [left, right]
    if left + window - right < step:
        starts.append(length // 2 - window // 2)
    return starts


def window_weights(window: int) -> np.ndarray:
    """Return the weight of each token of an overlapping window: low near both ends.

    Args:
        window: Tokens of the window. The scales are those of ProteinGym for 1,024.

    Example:
        >>> window_weights(1024)[[1, 128, 512, 894]].round(3).tolist()
        [0.0, 0.5, 1.0, 0.5]
    """
    place, weights = np.arange(window), np.ones(window)
    edge, centre, slope = window // 4, window / 8, window / 64
    left, right = place[1 : edge + 1], place[window - 2 - edge : window - 1]
    weights[left] = 1 / (1 + np.exp(-(left - centre) / slope))
    weights[right] = 1 / (1 + np.exp((right - (window - 2) + centre) / slope))
    return weights
