"""Splits of pairs of proteins by which proteins of a test pair were seen in training.

Park and Marcotte 2012, "Flaws in evaluation schemes for pair-input computational predictions",
Nature Methods 9:1134: a model may score well by knowing the proteins rather than their pairing, so
test pairs are of class C1 if both proteins are in training pairs, of C2 if one is, of C3 if none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from kft.arguments import check_choice, check_flag, check_seed
from kft.data.sequences import checked_pairs, compared
from kft.data.splits import FRACTIONS, PARTS, cluster, group_split, random_split

SEEN = {"C1": "both proteins", "C2": "one protein", "C3": "no protein"}
CLASSES = tuple(SEEN)


def pair_split(
    pairs: Sequence[tuple[str, str]],
    scheme: str = "C3",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    near_copies: bool = True,
) -> dict[str, np.ndarray]:
    """Split pairs of proteins so that the pairs of valid and test are of one class.

    For "C2" and "C3" proteins are dealt into three parts; a pair of two parts that does not make
    the class is left out. Proteins that are near copies (see `cluster`) go to one part together.

    Args:
        pairs: List of N pairs of sequences.
        scheme: "C1": both proteins of a test pair are in training pairs; "C2": exactly one;
            "C3": none.
        fractions: Fractions of train, valid and test among the pairs that are kept.
        seed: Integer; the same seed gives the same parts.
        near_copies: False takes proteins as the same only if they are equal.

    Returns:
        dict: "train", "valid" and "test" to an int64 array, the sorted positions of its pairs.

    Raises:
        ValueError: The scheme is unknown, the fractions are wrong, or proteins are too few or too
            alike to fill each part.
        TypeError: `pairs` is no list of pairs of strings.

    Example:
        >>> proteins = ["MKTAYIAK", "GIGKFLHS", "LLGDFFRK", "WWPWWPWW", "ACDEFGHI", "QNQNSTST"]
        >>> pairs = [(a, b) for a in proteins for b in proteins if a < b]
        >>> parts = pair_split(pairs, fractions=(0.34, 0.33, 0.33))
        >>> pair_classes([pairs[i] for i in parts["train"]], [pairs[i] for i in parts["test"]])
        array(['C3'], dtype='<U2')
    """
    check_choice("scheme", scheme, CLASSES)
    check_flag("near_copies", near_copies)
    check_seed("seed", seed)
    pairs = checked_pairs(pairs)
    if scheme == "C1":
        return _seen(pairs, random_split(len(pairs), fractions, seed))
    proteins, ends = _numbered(pairs)
    groups = cluster(proteins) if near_copies else np.arange(len(proteins))
    # Pairs of a part are as its fraction of the proteins: squared for C3, times that of train for
    # C2. `group_split` checks the fractions first.
    wanted = np.asarray(fractions, dtype=float) if np.ndim(fractions) == 1 else np.zeros(0)
    if wanted.shape == (3,) and (wanted > 0).all() and np.isclose(wanted.sum(), 1):
        wanted = np.sqrt(wanted) if scheme == "C3" else wanted / [1, 2, 2]
        fractions = (wanted / wanted.sum()).tolist()
    home = np.empty(len(proteins), dtype=int)
    for part, at in enumerate(group_split(groups, fractions, seed).values()):
        home[at] = part
    first, second = home[ends[:, 0]], home[ends[:, 1]]
    # Both in one part, or one of them in train, which is part 0.
    kept = first == second if scheme == "C3" else np.minimum(first, second) == 0
    part_of_pair = np.maximum(first, second)
    parts = {name: np.flatnonzero(kept & (part_of_pair == i)) for i, name in enumerate(PARTS)}
    _check_filled(parts, scheme, len(set(groups)), len(proteins))
    return parts


def pair_classes(train: Iterable, test: Iterable) -> np.ndarray:
    """Tell of each test pair how many of its proteins are in training pairs.

    Args:
        train: List of pairs of sequences.
        test: List of N pairs of sequences.

    Returns:
        Array (N,) of "C1" (both are), "C2" (one is) and "C3" (none is).

    Example:
        >>> test = [("GSS", "MKT"), ("mkt", "AAA"), ("AAA", "WWW")]
        >>> pair_classes([("MKT", "GSS")], test).tolist()
        ['C1', 'C2', 'C3']
    """
    known = {compared(protein) for pair in checked_pairs(train, "train") for protein in pair}
    seen = [
        sum(compared(protein) in known for protein in pair) for pair in checked_pairs(test, "test")
    ]
    return np.array([CLASSES[2 - n] for n in seen], dtype="<U2")


def _numbered(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], np.ndarray]:
    """Return the proteins, and int (N, 2), the numbers of those of each pair."""
    forms = [[compared(protein) for protein in pair] for pair in pairs]
    number = {
        protein: i for i, protein in enumerate(dict.fromkeys(x for pair in forms for x in pair))
    }
    ends = np.array([[number[protein] for protein in pair] for pair in forms]).reshape(-1, 2)
    return list(number), ends


def _seen(pairs: Sequence[tuple[str, str]], parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Move to training what has a protein that is in no training pair."""
    train = [pairs[i] for i in parts["train"]]
    moved = {
        name: at[pair_classes(train, [pairs[i] for i in at]) != "C1"]
        for name, at in parts.items()
        if name != "train"
    }
    found = {"train": np.sort(np.concatenate([parts["train"], *moved.values()]))}
    found |= {name: np.setdiff1d(parts[name], at) for name, at in moved.items()}
    _check_filled(found, "C1", 0, 0)
    return found


def _check_filled(parts: dict[str, np.ndarray], scheme: str, groups: int, proteins: int) -> None:
    empty = [name for name, at in parts.items() if not len(at)]
    if empty:
        of = f" of {proteins:,} proteins in {groups:,} groups of near copies" * (scheme != "C1")
        raise ValueError(
            f"class {scheme} leaves no pairs for {empty[0]}{of}: use more pairs, other fractions "
            f"or another class, of {', '.join(CLASSES)}."
        )
