"""Similar sequences: candidates that share k-mers first, then the exact identity of each pair.

Two sequences with an identity of 70% share (0.7^6 =) 12% of their 6-mers on average. Sequences are
compared by all their 6-mers if these are few, and else by minimizers, the k-mer with the least
hash in each window: two sequences with a common stretch of k + window - 1 residues have a common
minimizer. Roberts et al., "Reducing storage requirements for biological sequence comparison",
Bioinformatics 20:3363 (2004).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kft.data.sequences import compared
from kft.exploration.pairs import sharing_pairs

K = 6
SHARED = 0.05  # share of the k-mers of the shorter sequence from which a pair is a candidate
IDENTITY = 0.7  # from which two sequences are called similar
MOST_WORDS = 5_000_000  # k-mers above which minimizers are taken
MOST_ALIGNED = 3_000  # pairs that are aligned
MARGIN = 16  # diagonals on either side of the common k-mers that an alignment may reach
WIDEST = 250  # diagonals from the middle one at which common k-mers count
UNKNOWN = re.compile("[^ACDEFGHIKLMNPQRSTVWYBZX*]")  # letters that biotite's proteins lack
_LETTERS = 32  # codes of letters; other characters have the code of X
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of a multiplicative hash (Knuth)


def similar_sequences(
    sequences: Sequence[str],
    parts: Sequence | np.ndarray | None = None,
    identity: float = IDENTITY,
    most_aligned: int = MOST_ALIGNED,
) -> pd.DataFrame:
    """Find pairs of similar sequences, of all, or of those in different parts.

    Each sequence is aligned with the candidate that shares most of its k-mers, of each other part
    if there are parts. Sequences that are equal are not candidates.

    Args:
        sequences: List of N strings; case, gaps and stops are ignored.
        parts: N names of splits; then only pairs from two of them are found. None finds all.
        identity: Least identity of a pair, from 0 to 1: equal residues of the alignment by the
            length of the shorter sequence.
        most_aligned: Number of pairs to align, those with most shared k-mers first; the pairs of
            parts take turns.

    Returns:
        Table of pairs: first, second (positions from 0), shared (share of the k-mers of the
        shorter sequence) and identity, the most similar first. `attrs["candidates"]` and
        `attrs["aligned"]` count the pairs.

    Raises:
        ImportError: biotite is missing.

    Example:
        >>> found = similar_sequences(["MKTAYIAKQRLLGDFF", "MKTAYIAKQRLLGDFW", "GIGKFLHSAKKF"])
        >>> found[["first", "second", "identity"]].values.tolist()
        [[0.0, 1.0, 0.9375]]
    """
    forms = [compared(sequence) for sequence in sequences]
    candidates = candidate_pairs(forms, parts)
    chosen = _best_of_each(candidates, parts).iloc[:most_aligned]
    found = chosen.assign(
        identity=[
            align_pair(forms[a], forms[b]).identity
            for a, b in zip(chosen["first"], chosen["second"], strict=True)
        ]
    )
    found = found[found["identity"] >= identity].sort_values("identity", ascending=False)
    found.attrs = {"candidates": len(candidates), "aligned": len(chosen)}
    return found.reset_index(drop=True)


def candidate_pairs(
    sequences: Sequence[str], parts: Sequence | np.ndarray | None = None, shared: float = SHARED
) -> pd.DataFrame:
    """Find pairs of different sequences that share k-mers.

    Args:
        sequences: List of N strings in the form in which they are compared.
        parts: N names of splits; then only pairs from two of them are found. None finds all.
        shared: Least share of the k-mers of the shorter sequence.

    Returns:
        Table of pairs: first, second (positions from 0) and shared, in no order.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    words, owners = _words(sequences, lengths)
    sizes = np.bincount(owners, minlength=len(lengths))
    first, second, common = sharing_pairs(words, owners)
    share = common / np.maximum(1, np.minimum(sizes[first], sizes[second]))
    kept = share >= shared
    if parts is not None:
        codes = pd.factorize(np.asarray(parts, dtype=object))[0]
        kept &= codes[first] != codes[second]
    same = pd.factorize(np.array(sequences, dtype=object))[0]
    kept &= same[first] != same[second]
    return pd.DataFrame({"first": first, "second": second, "shared": share})[kept]


def _words(sequences: Sequence[str], lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct k-mers or minimizers of all sequences, and whose they are."""
    text = "".join(sequences).encode("ascii", "replace")
    letters = np.frombuffer(text, dtype=np.uint8).astype(np.uint64)
    letters = np.where((letters >= 65) & (letters <= 90), letters - np.uint64(64), np.uint64(24))
    owners = np.repeat(np.arange(len(lengths)), lengths)
    if len(letters) < K:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    n = len(letters) - K + 1
    words = np.zeros(n, dtype=np.uint64)
    for i in range(K):
        words = words * np.uint64(_LETTERS) + letters[i : i + n]
    inside = owners[:n] == owners[K - 1 :]  # within one sequence
    words, owners = words[inside] * _MULTIPLIER, owners[:n][inside]
    window = int(np.ceil(2 * len(words) / MOST_WORDS)) - 1
    if len(words) > MOST_WORDS and window > 1:
        words, owners = _minimizers(words, owners, window)
    order = np.lexsort((words, owners))
    words, owners = words[order], owners[order]
    new = np.ones(len(words), dtype=bool)
    new[1:] = (words[1:] != words[:-1]) | (owners[1:] != owners[:-1])
    return words[new], owners[new]


def _minimizers(
    words: np.ndarray, owners: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least word of each window of consecutive words of a sequence."""
    n = len(words) - window + 1
    least = words[:n].copy()
    for i in range(1, window):
        np.minimum(least, words[i : i + n], out=least)
    inside = owners[:n] == owners[window - 1 :]
    return least[inside], owners[:n][inside]


def _best_of_each(
    candidates: pd.DataFrame, parts: Sequence | np.ndarray | None = None
) -> pd.DataFrame:
    """Return the pairs that are the best of one of their sequences between two parts.

    The best are first; the pairs of parts take turns.
    """
    ordered = candidates.sort_values("shared", ascending=False, kind="stable")
    between = np.zeros(len(ordered), dtype=np.int64)
    if parts is not None:
        codes = pd.factorize(np.asarray(parts, dtype=object))[0]
        ends = np.sort(codes[ordered[["first", "second"]].to_numpy()], axis=1)
        between = ends[:, 0] * (codes.max(initial=0) + 1) + ends[:, 1]
    keyed = ordered.assign(between=between)
    best = ~keyed.duplicated(["between", "first"]) | ~keyed.duplicated(["between", "second"])
    keyed = keyed[best]
    turn = keyed.groupby("between").cumcount().to_numpy()
    return ordered[best].iloc[np.argsort(turn, kind="stable")].reset_index(drop=True)


class Alignment(NamedTuple):
    """The best alignment of two sequences.

    Attributes:
        identity: Equal residues by the length of the shorter sequence, from 0 to 1.
        coverage: Residues of the second sequence that are aligned, by its length, from 0 to 1.
    """

    identity: float
    coverage: float


def align_pair(one: str, other: str) -> Alignment:
    """Align two proteins: globally with BLOSUM62, gaps of 10 and 1, and free ends.

    If they share k-mers, the alignment stays near the diagonals of these, which takes a tenth of
    the time, and for long proteins little memory.

    Args:
        one: Sequence in upper case.
        other: Sequence in upper case.

    Returns:
        Identity and coverage of the alignment.

    Raises:
        ImportError: biotite is missing.

    Example:
        >>> align_pair("MKTAYIAKQR", "MKTAYIAR")
        Alignment(identity=0.875, coverage=1.0)
    """
    align, sequence = _biotite()
    if one == other or not (one and other):
        return Alignment(float(one == other), float(one == other))
    proteins = [sequence.ProteinSequence(UNKNOWN.sub("X", x)) for x in (one, other)]
    options = {"matrix": align.SubstitutionMatrix.std_protein_matrix(), "max_number": 1}
    options["gap_penalty"] = (-10, -1)
    band = _band(one, other)
    if band is None:
        best = align.align_optimal(*proteins, terminal_penalty=False, **options)[0]
    else:
        best = align.align_banded(*proteins, band=band, **options)[0]
    trace = best.trace[(best.trace >= 0).all(axis=1)]
    equal = proteins[0].code[trace[:, 0]] == proteins[1].code[trace[:, 1]]
    return Alignment(float(equal.sum() / min(map(len, proteins))), len(trace) / len(other))


def _band(one: str, other: str) -> tuple[int, int] | None:
    """Return the least and the largest diagonal of an alignment; None if no k-mer is common."""
    first = {one[i : i + K]: i for i in range(len(one) - K, -1, -1)}
    diagonals = [
        j - first[word] for j in range(len(other) - K + 1) if (word := other[j : j + K]) in first
    ]
    if not diagonals:
        return None
    middle = int(np.median(diagonals))
    low, high = max(min(diagonals), middle - WIDEST), min(max(diagonals), middle + WIDEST)
    return low - MARGIN, high + MARGIN


def _biotite() -> tuple:
    try:
        from biotite import sequence
        from biotite.sequence import align
    except ImportError as error:
        raise ImportError(
            'aligning sequences needs biotite; install it with pip install "kft[structure]".'
        ) from error
    return align, sequence
