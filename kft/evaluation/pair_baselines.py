"""Baselines for pairs of proteins that show what is known without looking at both sequences.

A model of interactions may score well because it knows which proteins have many partners, or
because pairs like the test pair were in training (Park and Marcotte 2012; Bernett, Blumenthal and
List 2024, "Cracking the black box of deep sequence-based protein-protein interaction prediction").
`degree` and `similar_pairs` do only this: a model has to beat them on the same split.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import StandardScaler, normalize

from kft.data.sequences import compared
from kft.evaluation.fitted import (
    AMINO_ACIDS,
    RECORD_TASKS,
    Baseline,
    Composition,
    all_but_test,
    checked_task,
    fit_linear,
    test_of,
)

if TYPE_CHECKING:
    from kft.data import Dataset

NEAREST = 5  # pairs of training whose targets are averaged
BLOCK = 256  # test pairs that are compared at a time
Pair = tuple[str, str]


def degree(data: Dataset) -> Baseline:
    """Predict from how the training pairs of each protein turn out, whatever its partner.

    Of each protein the mean target of its training pairs, drawn towards that of all as if by one
    more pair, so that a protein without any has the mean of all; the prediction is the mean of
    both.

    Args:
        data: A data set of pairs.

    Returns:
        Baseline: without coefficients.

    Raises:
        ValueError: Targets are given per residue, or there is no test split.

    Example:
        `degree(kft.data.read_pairs("mine.csv", split="C1")).predictions`
    """
    start = time.perf_counter()
    pairs, values = _known(data)
    total = values.mean(axis=0)
    sums: dict[str, np.ndarray] = defaultdict(lambda: total)
    counts: Counter[str] = Counter()
    for pair, value in zip(pairs, values, strict=True):
        for protein in set(map(compared, pair)):
            sums[protein] = sums[protein] + value
            counts[protein] += 1
    predictions = [
        np.mean([sums[x] / (counts[x] + 1) for x in map(compared, pair)], axis=0)
        for pair in test_of(data).inputs
    ]
    return Baseline("degree of proteins", np.array(predictions), time.perf_counter() - start, 0)


def similar_pairs(data: Dataset, k: int = 3) -> Baseline:
    """Predict from the training pairs that are most similar.

    Two pairs are as similar as their proteins, in the better of both orders: the product of the
    cosines of their counts of words.

    Args:
        data: A data set of pairs.
        k: Length of the longest words that are counted; all shorter ones are too.

    Returns:
        Baseline: the mean target of the nearest pairs, weighted by similarity.

    Raises:
        ValueError: As for `degree`.

    Example:
        `similar_pairs(kft.data.read_pairs("mine.csv")).predictions`
    """
    start = time.perf_counter()
    pairs, values = _known(data)
    asked = test_of(data).inputs
    sides = _counts([*pairs, *asked], k)
    known, new = [side[: len(pairs)] for side in sides], [side[len(pairs) :] for side in sides]
    rows = []
    for at in range(0, len(asked), BLOCK):
        block = [side[at : at + BLOCK] for side in new]
        (aa, ab), (ba, bb) = [[(one @ other.T).toarray() for other in known] for one in block]
        similarity = np.maximum(aa * bb, ab * ba)
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]
        weights = np.take_along_axis(similarity, nearest, axis=1) + 1e-6  # where none is similar
        weights /= weights.sum(axis=1, keepdims=True)
        rows.append(np.einsum("bn,bn...->b...", weights, values[nearest]))
    seconds = time.perf_counter() - start
    return Baseline(f"{NEAREST} similar pairs", np.concatenate(rows), seconds, 0)


def pair_composition(data: Dataset) -> Baseline:
    """Fit a linear model on the amino acids of both proteins, in a form without order.

    Args:
        data: A data set of pairs.

    Returns:
        Baseline: of logistic regression or ridge regression on the products of the fractions of
        amino acids of both, and their sums.

    Raises:
        ValueError: As for `degree`.

    Example:
        `pair_composition(kft.data.read_pairs("mine.csv")).parameters`
    """
    return fit_linear("composition of both", [_Compositions(), StandardScaler()], data)


def _known(data: Dataset) -> tuple[list[Pair], np.ndarray]:
    """Return the pairs outside of test, and their targets: float (N,), or (N, K) of classes."""
    task = checked_task(data, RECORD_TASKS)
    pairs, targets = all_but_test(data)
    if task.target == "class":
        return pairs, np.eye(len(data.classes or ()))[targets]
    return pairs, targets.astype("float64")


def _counts(pairs: Sequence[Pair], k: int) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return the counts of k-mers of the first and of the second proteins, each of length 1."""
    forms = [[compared(protein) for protein in pair] for pair in pairs]
    proteins = {protein: i for i, protein in enumerate(dict.fromkeys(chain.from_iterable(forms)))}
    words = CountVectorizer(analyzer="char", ngram_range=(1, k), lowercase=False, dtype=float)
    rows = normalize(words.fit_transform(proteins))
    first, second = zip(*forms, strict=True)
    return rows[[proteins[x] for x in first]], rows[[proteins[x] for x in second]]


class _Compositions(TransformerMixin, BaseEstimator):
    """Pairs -> sums and products of the fractions of amino acids of both, (N, 20 + 210)."""

    def fit(self, pairs: Sequence[Pair], targets: object = None) -> _Compositions:
        return self

    def transform(self, pairs: Sequence[Pair]) -> np.ndarray:
        first, second = (Composition().transform(side) for side in zip(*pairs, strict=True))
        products = first[:, :, None] * second[:, None, :]
        products = products + products.transpose(0, 2, 1)  # the order makes no difference
        above = np.triu_indices(len(AMINO_ACIDS))
        return np.hstack([first + second, products[:, above[0], above[1]]])
