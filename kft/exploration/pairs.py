"""Pairs of records: those that share words (k-mers, parts of hashes), and those of two splits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kft.data.splits import PARTS

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


def equal_pairs(
    codes: np.ndarray, parts: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of records of one code: each with the first of that code in each split.

    Args:
        codes: Integer array (N,), equal for equal records.
        parts: Array (N,), the name of the split of each record.
        used: Bool array (N,), the records that are paired.

    Returns:
        Integer arrays (P,), the positions of both records of each pair.

    Example:
        >>> parts = np.array(["train", "train", "test"])
        >>> equal_pairs(np.array([5, 5, 5]), parts, np.array([False, True, True]))
        (array([1, 1, 2, 2]), array([1, 2, 1, 2]))
    """
    rows = np.flatnonzero(used)
    table = pd.DataFrame({"code": codes[rows], "part": parts[rows], "row": rows})
    firsts = table.drop_duplicates(["code", "part"])
    both = table.merge(firsts, on="code", suffixes=("", " of first"))
    return both["row"].to_numpy(), both["row of first"].to_numpy()


def count_by_splits(parts: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, int]:
    """Count for each pair of splits the records of one that have a copy in the other.

    Args:
        parts: Array (N,), the name of the split of each record.
        first: Integer array (P,), positions of one record of each pair of copies.
        second: Integer array (P,), positions of the other.

    Returns:
        "train-test" -> number of test records with a copy in train, and so on, for the pairs of
        splits that have any. Splits are in the order train, valid, test, others by name.

    Example:
        >>> parts = np.array(["train", "train", "test", "test", "valid"])
        >>> count_by_splits(parts, np.array([0, 2, 1, 3]), np.array([2, 1, 4, 4]))
        {'train-valid': 1, 'train-test': 1, 'valid-test': 1}
    """
    others = sorted(set(parts.tolist()) - set(PARTS), key=str)
    names = [*PARTS, *others]
    rank = pd.Index(names).get_indexer(pd.Index(parts, dtype=object))
    swapped = rank[first] > rank[second]
    early, late = np.where(swapped, second, first), np.where(swapped, first, second)
    pairs = pd.DataFrame({"early": rank[early], "late": rank[late], "record": late})
    pairs = pairs[pairs["early"] < pairs["late"]].drop_duplicates()
    counts = pairs.groupby(["early", "late"]).size()
    keys: list = counts.index.tolist()
    return {f"{names[i]}-{names[j]}": int(n) for (i, j), n in zip(keys, counts, strict=True)}


def splits_in_words(counts: Mapping[str, int]) -> str:
    """Return what `count_by_splits` counted, in words.

    Args:
        counts: "train-test" -> number, as it returns.

    Example:
        >>> splits_in_words({"train-valid": 1, "train-test": 20})
        'train-valid 1, train-test 20'
    """
    return ", ".join(f"{pair} {count:,}" for pair, count in counts.items())
