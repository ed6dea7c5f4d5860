"""How often classes occur among pairs of residues, by how far apart they are in the sequence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FARTHEST = 100  # residues from which pairs are equally far apart


def shares_by_separation(
    targets: Sequence[np.ndarray], masks: Sequence[np.ndarray], classes: int
) -> np.ndarray:
    """Count how often each class occurs among pairs that are as far apart.

    Args:
        targets: Classes (L, L) of each chain.
        masks: Bool (L, L) of each chain, the pairs that count.
        classes: Number K of classes.

    Returns:
        Float array (`FARTHEST` + 1, K); rows sum to 1, with one pair of each class added.
    """
    shape = FARTHEST + 1, classes
    counts = np.zeros(shape)
    for row, mask in zip(targets, masks, strict=True):
        found = np.ravel_multi_index((apart(len(row))[mask], row[mask]), shape)
        counts += np.bincount(found, minlength=counts.size).reshape(shape)
    return smoothed_shares(counts)


def apart(length: int) -> np.ndarray:
    """Return how far apart the residues (L, L) of each pair are."""
    return np.minimum(abs(np.subtract.outer(np.arange(length), np.arange(length))), FARTHEST)


def smoothed_shares(counts: np.ndarray) -> np.ndarray:
    """Return the share (..., K) of each class, with one pair of each added."""
    return (counts + 1) / (counts + 1).sum(axis=-1, keepdims=True)
