"""Screens of single features: how well one number or letter alone tells the target.

A feature is scored by AUROC (the best of each class against the rest) or Spearman's correlation,
and by the accuracy of the most frequent class of each of its values, held out in two halves and
compared with the most frequent class overall. P-values are corrected by Bonferroni's rule.

Shapes: `N` records.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, norm, rankdata

from kft.exploration.records import Records, as_floats

MOST_CLASSES = 50  # classes that are screened against the rest
LEAST = 10  # records that a class needs
BINS = 256


@dataclass(frozen=True)
class Screen:
    """How well one feature tells the target.

    Attributes:
        strength: AUROC from 0.5 to 1 for classes, |Spearman's correlation| for numbers.
        p: P-value of it, not corrected.
        told: The class that the feature tells best; None for numbers.
        accuracy: Held-out accuracy; NaN for numbers.
        majority: Share of the most frequent class; NaN for numbers.
        p_accuracy: P-value of the accuracy against the majority, not corrected; 1 for numbers.
    """

    strength: float
    p: float
    told: str | None = None
    accuracy: float = np.nan
    majority: float = np.nan
    p_accuracy: float = 1.0

    @property
    def gain(self) -> float:
        """Share of the errors of guessing the largest class that it saves; NaN for numbers."""
        return (self.accuracy - self.majority) / (1 - self.majority) if self.majority < 1 else 0.0

    def evidence(self, tests: int) -> dict[str, object]:
        """Return the numbers as evidence of a finding.

        Args:
            tests: Number of features screened, by which p-values are multiplied.

        Returns:
            Name -> number.
        """
        p = min(1.0, self.p * tests)
        if self.told is None:
            return {"Spearman": self.strength, "p, corrected": p}
        return {
            "AUROC": self.strength,
            "for class": self.told,
            "p, corrected": p,
            "accuracy": self.accuracy,
            "majority": self.majority,
            "p of accuracy, corrected": min(1.0, self.p_accuracy * tests),
        }


def screen(records: Records, feature: np.ndarray) -> Screen | None:
    """Score a feature.

    Args:
        records: The records.
        feature: Float array (n,), one value for each record of `records.drawn`; NaN is a value of
            its own.

    Returns:
        The score, or None if the feature or the target does not vary.
    """
    at = records.drawn
    if records.target is None or len(at) < 2 * LEAST:
        return None
    known = np.isfinite(feature)
    if known.sum() < 2 * LEAST or feature[known].min() == feature[known].max():
        return None
    if not records.has_classes:
        goal = as_floats(records.target.iloc[at])
        strength, p = spearman(feature[known], goal[known])
        return Screen(strength, p)
    codes = records.classes[0][at]
    names = records.classes[1]
    sizes = np.bincount(codes[known], minlength=len(names))
    tested = [k for k in np.argsort(-sizes)[:MOST_CLASSES] if sizes[k] >= LEAST]
    if len(tested) < 1 or sizes.max() == sizes.sum():
        return None
    ranks = rankdata(feature[known])
    best, p, told = 0.5, 1.0, 0
    for k in tested:
        value, chance = _auroc_of_ranks(ranks, codes[known] == k)
        if abs(value - 0.5) > abs(best - 0.5):
            best, p, told = value, chance, int(k)
    p = min(1.0, p * (len(tested) if len(tested) > 2 else 1))
    accuracy, majority, p_accuracy = held_out_accuracy(feature, codes)
    return Screen(max(best, 1 - best), p, str(names[told]), accuracy, majority, p_accuracy)


def auroc(values: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Return the AUROC of values for a class, and its two-sided p-value.

    Args:
        values: Float array (N,).
        positive: Bool array (N,).

    Returns:
        The AUROC, and the p-value of Mann and Whitney's test with the correction for ties.

    Example:
        >>> auroc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True]))[0]
        1.0
    """
    return _auroc_of_ranks(rankdata(values), positive)


def _auroc_of_ranks(ranks: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    n, k = len(ranks), int(positive.sum())
    if not 0 < k < n:
        return 0.5, 1.0
    value = (ranks[positive].sum() - k * (k + 1) / 2) / (k * (n - k))
    # The variance of a rank sum of k of n ranks without replacement is k (n - k) / n times their
    # sample variance.
    variance = k * (n - k) / n * ranks.var(ddof=1) / (k * (n - k)) ** 2
    if variance <= 0:
        return 0.5, 1.0
    return float(value), float(2 * norm.sf(abs(value - 0.5) / np.sqrt(variance)))


def spearman(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return the size of Spearman's correlation, and its p-value for large N.

    Args:
        one: Float array (N,).
        other: Float array (N,).

    Returns:
        |correlation| and the two-sided p-value.

    Example:
        >>> spearman(np.arange(4.0), -np.arange(4.0))[0]
        1.0
    """
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0, 1.0
    value = float(abs(np.corrcoef(rankdata(one), rankdata(other))[0, 1]))
    value = min(round(value, 12), 1.0)
    z = np.arctanh(min(value, 1 - 1e-15)) * np.sqrt(max(len(one) - 3, 0))  # Fisher's
    return value, float(2 * norm.sf(z))


def held_out_accuracy(feature: np.ndarray, codes: np.ndarray) -> tuple[float, float, float]:
    """Return how often the most frequent class of a value is right, on the other half.

    Args:
        feature: Float array (N,); values are joined into bins of equal size if they are many.
        codes: Integer array (N,) of classes.

    Returns:
        The accuracy, the share of the most frequent class, and the one-sided p-value of the
        difference (binomial test).
    """
    bins = _binned(feature)
    half = np.random.default_rng(0).permutation(len(codes)) % 2 == 0
    classes = int(codes.max()) + 1
    right = 0
    for part in (half, ~half):
        counts = np.zeros((int(bins.max()) + 1, classes))
        np.add.at(counts, (bins[part], codes[part]), 1)
        overall = counts.sum(axis=0).argmax()
        guess = np.where(counts.any(axis=1), counts.argmax(axis=1), overall)
        right += int((guess[bins[~part]] == codes[~part]).sum())
    majority = float(np.bincount(codes).max() / len(codes))
    return right / len(codes), majority, float(binom.sf(right - 1, len(codes), majority))


def _binned(feature: np.ndarray) -> np.ndarray:
    """Return a bin per value: values themselves if they are few, else of equal size."""
    values, bins = np.unique(feature, return_inverse=True)
    most = int(min(BINS, max(2, len(feature) // 10)))
    if len(values) <= most:
        return bins
    edges = np.quantile(feature[np.isfinite(feature)], np.linspace(0, 1, most + 1)[1:-1])
    return np.where(np.isfinite(feature), np.searchsorted(edges, feature, side="right"), most)
