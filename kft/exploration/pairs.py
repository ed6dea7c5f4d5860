"""Pairs of records that share words, such as k-mers of sequences or parts of hashes of images."""

from __future__ import annotations

import numpy as np

NEXT = 16  # following records with the same word that each record is paired with


def sharing_pairs(
    words: np.ndarray, owners: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find pairs of records that share words, and count how many they share.

    Records with a common word are put in a random order, the same for all words, and each is
    paired with the 16 that follow, so that a word that very many have costs no more than 16 pairs
    for each of them.

    Args:
        words: Integer array (W,), the words of all records.
        owners: Integer array (W,), the record of each word; a record has a word at most once.
        seed: Seed of the order.

    Returns:
        int64 arrays (P,): the smaller and the larger record of each pair, and the words shared.

    Example:
        >>> sharing_pairs(np.array([5, 6, 5, 6, 7]), np.array([0, 0, 1, 1, 2]))
        (array([0]), array([1]), array([2]))
    """
    if not len(words):
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    records = int(owners.max()) + 1
    place = np.random.default_rng(seed).permutation(records)
    order = np.lexsort((place[owners], words))
    words, owners = words[order], owners[order].astype(np.int64)
    codes = []
    for step in range(1, NEXT + 1):
        same = np.flatnonzero(words[step:] == words[:-step])
        if not len(same):
            break
        one, other = owners[same], owners[same + step]
        codes.append(np.minimum(one, other) * records + np.maximum(one, other))
    if not codes:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    pairs, shared = np.unique(np.concatenate(codes), return_counts=True)
    return pairs // records, pairs % records, shared
