"""Baselines for pairs of residues: how often each class occurs among pairs that are alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kft.data.separations import FARTHEST, apart, shares_by_separation, smoothed_shares
from kft.data.task import Task
from kft.evaluation.fitted import Baseline

if TYPE_CHECKING:
    from kft.data import Dataset
    from kft.data.dataset import Split

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
KINDS = len(LETTERS) + 1  # all other letters are one kind
STRENGTHS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # in pairs, of what is known of all types


def separation(data: Dataset) -> Baseline:
    """Predict how often each class occurs among pairs that are as far apart in the sequence.

    Args:
        data: A data set with targets per pair of residues.

    Returns:
        Baseline: of counts in training and validation split, with one pair of each class added.

    Raises:
        ValueError: Targets are not per pair, or there is no test split.

    Example:
        >>> from kft.data import Dataset, Split
        >>> near = abs(np.subtract.outer(range(3), range(3))) < 2
        >>> chain = Split(["AGA"], [near.astype(int)], masks=[~np.eye(3, dtype=bool)])
        >>> toy = Dataset("toy", "contacts", chain, None, chain, source="typed in",
        ...               licence="none", citation="", checksum="", classes=("apart", "contact"))
        >>> separation(toy).predictions[0][0, 1].round(2).tolist()
        [0.17, 0.83]
    """
    start = time.perf_counter()
    chains, parts = _test(data), _outside_test(data)
    rows = [row for part in parts for row in part.targets]
    table = shares_by_separation(rows, _masks(parts), len(data.classes or ()))
    predictions = [table[apart(len(chain))] for chain in chains]
    return Baseline("separation", predictions, time.perf_counter() - start, table.size)


def residue_pairs(data: Dataset) -> Baseline:
    """Predict how often each class occurs among pairs of the same two residue types as far apart.

    Rare pairs are filled up with those of all types that are as far apart; with how many is chosen
    on the validation split.

    Args:
        data: As for `separation`.

    Returns:
        Baseline: `penalty` is the number of pairs that are filled in.

    Raises:
        ValueError: As for `separation`.

    Example:
        `residue_pairs(kft.data.load("chains", target="contacts")).predictions[0][..., 1]`
    """
    start = time.perf_counter()
    train, valid = _counts(data, data.train), data.valid
    strength = STRENGTHS[len(STRENGTHS) // 2]
    if valid is not None and len(valid):
        held = _counts(data, valid)
        losses = [-(held * np.log(_filled(train, strength))).sum() for strength in STRENGTHS]
        strength = STRENGTHS[int(np.argmin(losses))]
        train = train + held
    table = _filled(train, strength)
    predictions = [table[apart(len(chain)), _types(chain)] for chain in _test(data)]
    seconds = time.perf_counter() - start
    return Baseline("separation and residues", predictions, seconds, train.size, strength)


def _outside_test(data: Dataset) -> list[Split]:
    return [part for part in (data.train, data.valid) if part is not None]


def _test(data: Dataset) -> Sequence[str]:
    if not Task(data.task).per_pair or data.test is None:
        raise ValueError(
            f"expected a data set with a target for each pair of residues and a test split, "
            f"received {data.name!r} for {data.task!r}."
        )
    return data.test.inputs


def _types(chain: str) -> np.ndarray:
    """Return a number (L, L) of the two types of each pair, the same in both orders."""
    kinds = np.array([LETTERS.find(letter) % KINDS for letter in chain])
    return np.minimum.outer(kinds, kinds) * KINDS + np.maximum.outer(kinds, kinds)


def _masks(parts: Sequence[Split]) -> list[np.ndarray]:
    return [mask for part in parts for mask in part.masks or ()]


def _counts(data: Dataset, part: Split) -> np.ndarray:
    """Return how many pairs (FARTHEST + 1, types, K) of each kind have each class."""
    _test(data)
    shape = (FARTHEST + 1, KINDS**2, len(data.classes or ()))
    counts = np.zeros(shape)
    for chain, classes, mask in zip(part.inputs, part.targets, _masks([part]), strict=True):
        places = apart(len(chain))[mask], _types(chain)[mask], classes[mask]
        found = np.ravel_multi_index(places, shape)
        counts += np.bincount(found, minlength=counts.size).reshape(shape)
    return counts


def _filled(counts: np.ndarray, strength: float) -> np.ndarray:
    """Return the share (..., types, K) of each class, filled up with that of all types."""
    filled = counts + strength * smoothed_shares(counts.sum(axis=1))[:, None]
    return filled / filled.sum(axis=-1, keepdims=True)
