"""Ways to split records: at random, by groups kept together, and by clusters of near copies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from kft.arguments import check_integer
from kft.data.sequences import checked, compared
from kft.messages import count_of, shown

PARTS = ("train", "valid", "test")
FRACTIONS = (0.8, 0.1, 0.1)

REMEDY = "use more data, other fractions or another split"
VARIANTS = (
    "variants of one protein are all near copies, and split='cluster' cannot separate them: split "
    "them by position (groups= a column that names the mutated position), which tests on positions "
    "that were not trained on, or set split='random', whose test variants have relatives in train"
)

# Two sequences are near copies if they share 30% of the 4-mers of the one that has fewer (so a
# fragment is a near copy of its precursor, which the Jaccard index would miss). That is where
# identities of about 75% begin (0.75 ** 4 = 0.32). Clusters are the connected components, as only
# they keep every near copy out of the other parts; they chain, so k and threshold were chosen by
# looking at the 4,620 peptides of `amp`. Largest cluster, by threshold:
#           0.2    0.25   0.3    0.4    0.5
#     k=3   4,324  3,704  2,571  1,118  309
#     k=4   2,181  1,334  456    110    66
#     k=5   490    126    110    68     60
# 4-mers at 0.3 are the strictest point before chains swallow the data, with 2,224 clusters. k=3
# chains by chance, and k=5 misses peptides with a mutation at every fifth residue.
KMER = 4
SHARED = 0.3

# Sequences of one length are variants of one protein if this fraction of their letters agrees with
# the first; such near copies would form one cluster.
ALIKE = 0.75

LARGE = 0.05  # fraction of a part above which a group would weigh too much in its score


def random_split(
    n: int,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    stratify: Sequence | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Split n records at random.

    Args:
        n: Number of records.
        fractions: Fractions of train, valid and test, positive, of sum 1.
        seed: Integer; the same seed gives the same parts.
        stratify: None, or n values (classes or numbers) whose distribution should be the same in
            every part; or an array (n, K) of labels, whose combinations are treated as classes.

    Returns:
        dict: "train", "valid" and "test" to an int64 array, the sorted positions of its records.
        Every record is in exactly one part; sizes are n times the fraction, rounded.

    Raises:
        ValueError: The fractions are not three numbers with sum 1, or leave a part empty.

    Example:
        >>> {name: len(positions) for name, positions in random_split(100).items()}
        {'train': 80, 'valid': 10, 'test': 10}
    """
    ratios = _check_fractions(fractions)
    strata = _check_strata(stratify, n)
    sizes = np.diff(np.round(np.cumsum([0, *ratios]) * n).astype(int))
    # Shuffle, sort by stratum, then deal: the j-th card of a part of size s falls due at
    # (j + 1/2) / s, so each stratum meets the parts in their proportions, however rare it is.
    order = np.lexsort((_generator(seed).random(n), strata))
    due = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    dealt = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(due, kind="stable")]
    home = np.empty(n, dtype=int)
    home[order] = dealt
    return _parts(home, ratios, f"{n} records are too few to split")


def group_split(
    groups: Sequence | np.ndarray,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    stratify: Sequence | np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Split records so that no group is separated.

    Large groups are placed first, each where it brings the numbers of every class in every part
    closest to those wanted (least chi-square). A group larger than 5% of a part goes to the largest
    part if there are enough small groups to fill the others: else a single family decides the test
    score (in `amp`, families of 113 and 79 in a test of 924 moved the AUROC by up to 0.04).

    Args:
        groups: N group names.
        fractions: Fractions of train, valid and test, positive, of sum 1.
        seed: Integer; the same seed gives the same parts.
        stratify: None, or N classes whose fractions should be the same in every part; or an array
            (N, K) of labels, 0 or 1.

    Returns:
        dict: "train", "valid" and "test" to an int64 array, the sorted positions of its records.

    Raises:
        ValueError: The fractions are wrong, or groups are too few or too large to fill each
            part.

    Example:
        >>> group_split(["a", "a", "b", "c"], (0.5, 0.25, 0.25))["train"]
        array([0, 1])
    """
    names, group = np.unique(_named(groups), return_inverse=True)
    largest = int(np.bincount(group).max(initial=0))
    problem = (
        f"{len(group)} records form {count_of(len(names), 'group')}, the largest of "
        f"{largest}: too few"
    )
    return _parts_of_groups(group, fractions, seed, stratify, problem)


def _parts_of_groups(
    group: np.ndarray,
    fractions: Sequence[float],
    seed: int,
    stratify: Any,
    problem: str,
    remedy: str = REMEDY,
) -> dict[str, np.ndarray]:
    """Do the work of `group_split`, for groups that are numbered from 0."""
    ratios = _check_fractions(fractions)
    kinds = _kinds(stratify, len(group))
    counts = np.zeros((group.max(initial=-1) + 1, kinds.shape[1]))  # groups x classes
    np.add.at(counts, group, kinds)
    sizes = np.bincount(group).astype(float)
    wanted = np.outer(ratios, counts.sum(axis=0))  # parts x classes
    limits = _size_limits(sizes, ratios * len(group))
    missing = wanted.copy()
    shuffled = _generator(seed).permutation(len(sizes))
    home = np.empty(len(sizes), dtype=int)
    for g in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        chi_square_change = (((missing - counts[g]) ** 2 - missing**2) / wanted).sum(axis=1)
        home[g] = np.where(sizes[g] <= limits, chi_square_change, np.inf).argmin()
        missing[home[g]] -= counts[g]
    return _parts(home[group], ratios, problem, remedy)


def joined_groups(names: np.ndarray | None, digests: Sequence[str]) -> np.ndarray | None:
    """Join groups that contain equal inputs, so that a random split separates no copies.

    Args:
        names: N names of groups, or None.
        digests: N strings, equal for equal inputs.

    Returns:
        N names, of which equal inputs have the same; None for no groups and no copies.

    Example:
        >>> joined_groups(np.array(["a", "b", "b"]), ["x", "y", "x"]).tolist()
        ['a', 'a', 'a']
    """
    if len(set(digests)) == len(digests):
        return names
    first: dict[str, int] = {}
    copy_of = np.array([first.setdefault(look, i) for i, look in enumerate(digests)])
    if names is None:
        return copy_of
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, group = np.unique(names, return_inverse=True)
    links = coo_array((np.ones(len(group)), (group, group[copy_of])))
    size = max(links.shape)
    links.resize((size, size))
    _, joined = connected_components(links, directed=False)
    _, where = np.unique(joined[group], return_index=True)
    return np.asarray(names)[where][np.unique(joined[group], return_inverse=True)[1]]


def cluster_split(
    sequences: Sequence[str],
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    stratify: Sequence | np.ndarray | None = None,
    k: int = KMER,
    threshold: float = SHARED,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Split sequences so that near copies stay in one part.

    Args:
        sequences: List of N strings; case, gaps, space around them and a stop at the end are
            ignored.
        fractions: Fractions of train, valid and test, positive, of sum 1.
        seed: Integer; the same seed gives the same parts.
        stratify: As for `group_split`.
        k: Length of the words that are compared.
        threshold: Fraction of the words of the shorter sequence from which two are near copies.

    Returns:
        tuple: the parts as `group_split` returns them; and int64 (N,), the cluster of each
        sequence.

    Raises:
        ValueError: As `group_split`; variants of one protein form one cluster, and the message
            states how else to split them.
        TypeError: As `cluster`.

    Example:
        >>> sequences = ["MKTAYIAK", "MKTAYIAR", "GIGKFLHS", "LLGDFFRK"]
        >>> parts, clusters = cluster_split(sequences, (0.5, 0.25, 0.25))
        >>> clusters, parts["train"]
        (array([0, 0, 1, 2]), array([0, 1]))
    """
    clusters = cluster(sequences, k, threshold)
    sizes = np.bincount(clusters, minlength=1)
    problem = (
        f"{len(clusters)} sequences form "
        f"{count_of(int(clusters.max(initial=-1)) + 1, 'cluster')} of near copies, "
        f"the largest of {sizes.max()}: too few"
    )
    # If one cluster holds nearly all records, they cannot be split by clusters.
    remedy = VARIANTS if 2 * sizes.max() > len(clusters) else REMEDY
    return _parts_of_groups(clusters, fractions, seed, stratify, problem, remedy), clusters


def advice(sequences: Sequence[str]) -> str:
    """Return a sentence on which split keeps copies of sequences apart, or why none does.

    Example:
        >>> advice(["MKTAYIAK", "GIGKFLHS"])
        "split='cluster' keeps them apart"
    """
    return VARIANTS if are_variants(sequences) else "split='cluster' keeps them apart"


def are_variants(sequences: Sequence[str]) -> bool:
    """Return whether sequences are variants of one protein: of one length, most letters equal.

    Example:
        >>> are_variants(["MKTAYIAK", "MKTAYIAR", "MKTGYIAK"])
        True
    """
    forms = [compared(sequence) for sequence in dict.fromkeys(sequences)]
    if len({len(form) for form in forms}) != 1 or not all(map(str.isascii, forms)):
        return False
    letters = np.array([np.frombuffer(form.encode(), dtype=np.uint8) for form in forms])
    return bool((letters == letters[0]).mean() >= ALIKE)


def cluster(sequences: Sequence[str], k: int = KMER, threshold: float = SHARED) -> np.ndarray:
    """Number the clusters of near copies: the connected components of shared k-mers.

    Args:
        sequences: List of N strings, compared in upper case and without gaps (- and .), space
            around them and a stop (*) at the end.
        k: Length of the words that are compared. A sequence shorter than k is one word.
        threshold: Fraction of the distinct words of the sequence that has fewer, from which two
            sequences are near copies; above 0, at most 1.

    Returns:
        int64 (N,): the cluster of each sequence, numbered in order of appearance.

    Raises:
        ValueError: `k` or `threshold` is out of range.
        TypeError: `sequences` is not a list of strings.

    Example:
        >>> cluster(["MKTAYIAK", "GIGKFLHS", "MKTAYIAR"])
        array([0, 1, 0])
    """
    check_integer("k", k)
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, received {threshold!r}.")
    words = [kmers(compared(sequence), k) for sequence in checked(sequences)]
    unplaced = defaultdict(set)  # word -> sequences that have it and no cluster yet
    for i, own in enumerate(words):
        for word in own:
            unplaced[word].add(i)
    clusters = np.full(len(words), -1)

    def place(i: int, number: int) -> None:
        clusters[i] = number
        for word in words[i]:
            unplaced[word].discard(i)

    number = 0
    for start in range(len(words)):
        if clusters[start] >= 0:
            continue
        place(start, number)
        frontier = [start]
        while frontier:
            own = words[frontier.pop()]
            shared: Counter[int] = Counter()
            for word in own:
                shared.update(unplaced[word])
            for other, n in shared.items():
                if n >= threshold * min(len(own), len(words[other])):
                    place(other, number)
                    frontier.append(other)
        number += 1
    return clusters


def kmers(sequence: str, k: int) -> set[str]:
    """Return the set of words of length k in a sequence; the sequence itself if it is shorter."""
    return {sequence[i : i + k] for i in range(len(sequence) - k + 1)} or {sequence}


def _size_limits(sizes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the size of the largest group that each part takes."""
    limits = LARGE * wanted
    elsewhere = wanted.sum() - wanted.max()  # records wanted outside of the largest part
    enough = np.array([sizes[sizes <= limit].sum() >= elsewhere for limit in limits])
    return np.where((wanted == wanted.max()) | ~enough, np.inf, limits)


def _check_fractions(fractions: Any) -> np.ndarray:
    given = fractions
    try:
        fractions = np.asarray(given, dtype=float)
    except (TypeError, ValueError):  # words, or lists of different lengths
        fractions = np.zeros(0)
    if fractions.shape != (3,) or not (fractions > 0).all() or not np.isclose(fractions.sum(), 1):
        raise ValueError(
            "`fractions` must be three positive numbers of sum 1, for train, valid and test, as "
            f"{FRACTIONS}; received {shown(given)}."
        )
    return fractions


def _check_strata(stratify: Any, n: int) -> np.ndarray:
    """Return the rank of each value or combination of labels, 0 without stratification."""
    if stratify is None:
        return np.zeros(n, dtype=int)
    if len(stratify) != n:
        raise ValueError(f"`stratify` has {len(stratify)} entries for {n} records; give one each.")
    # Rows of a matrix are compared as a whole.
    values = np.asarray(stratify)
    axis = 0 if values.ndim > 1 else None
    return np.unique(values, axis=axis, return_inverse=True)[1].reshape(-1)


def _kinds(stratify: Any, n: int) -> np.ndarray:
    """Return float (n, kinds): what each record adds to the numbers that are kept in balance."""
    if np.ndim(stratify) < 2:
        strata = _check_strata(stratify, n)
        return np.eye(strata.max(initial=0) + 1)[strata]
    _check_strata(stratify, n)
    # Every label by itself, as combinations may be as many as records; and the records.
    labels = np.asarray(stratify, dtype=float)
    return np.hstack([labels[:, labels.any(axis=0)], np.ones((n, 1))])


def _parts(
    home: np.ndarray, fractions: np.ndarray, problem: str, remedy: str = REMEDY
) -> dict[str, np.ndarray]:
    """Return {part: positions} from the number of each record's part; no part may be empty."""
    parts = {name: np.flatnonzero(home == i) for i, name in enumerate(PARTS)}
    if not all(map(len, parts.values())):
        sizes = ", ".join(f"{name} {len(positions)}" for name, positions in parts.items())
        raise ValueError(f"{problem} at fractions {fractions.tolist()} ({sizes}); {remedy}.")
    return parts


def _named(groups: Any) -> np.ndarray:
    """Return the groups as an array; None is not a name."""
    groups = np.asarray(groups)
    if groups.ndim != 1:
        raise TypeError(f"`groups` must hold one name per record, received {groups!r:.60}.")
    if groups.dtype == object and any(name is None for name in groups):
        i = next(i for i, name in enumerate(groups) if name is None)
        raise TypeError(f"`groups` of record {i} is None; name the group of each record.")
    return groups


def _generator(seed: Any) -> np.random.Generator:
    """Return numpy's generator; None would draw another split in every run."""
    return np.random.default_rng(check_integer("seed", seed, 0))
