"""Intervals of means: of a share of records, of an error, and of the difference of two.

The share of records with a property has Wilson's interval (JASA 22:209, 1927), which is right for a
handful of records and for shares of 0 and 1, where a bootstrap gives an interval of no width. All
other means, and all means over records in groups, have the percentile bootstrap of
`kft.evaluation.metrics`. The interval of a difference is made of the intervals of its two parts
(Newcombe, Statistics in Medicine 17:873, 1998; Zou and Donner, Statistics in Medicine 27:1693,
2008).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from kft.evaluation.metrics import Interval, interval, resample

UNDEFINED = Interval(math.nan, math.nan, math.nan)


def mean_interval(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Compute a mean over records with its interval.

    Args:
        values: (N,) booleans, whose mean is a share, or numbers.
        groups: (N,) names; records of a group are not independent. None for single records.
        confidence: Confidence level of the interval.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        The mean; its ends are NaN where no interval exists, that is for one record or one group.
        All NaN if there are no records.

    Example:
        >>> print(mean_interval([True] * 6))
        1.000 [0.610, 1.000]
    """
    values = np.asarray(values)
    if not len(values):
        return UNDEFINED
    single = groups is None or len(np.unique(np.asarray(groups))) == len(values)
    if values.dtype == bool and single:
        return _wilson(float(values.mean()), len(values), confidence)
    values = values.astype(np.float64)
    if len(values) < 2 or (groups is not None and len(np.unique(np.asarray(groups))) < 2):
        return Interval(float(values.mean()), math.nan, math.nan)
    draws = [
        counts @ values / counts.sum(axis=1)
        for counts in resample(len(values), groups, resamples, seed)
    ]
    return interval(float(values.mean()), np.concatenate(draws), confidence)


def minus(one: Interval, other: Interval) -> Interval:
    """Compute the difference of two independent estimates, with its interval.

    Args:
        one: The first, with its interval.
        other: The second, with an interval of the same confidence.

    Returns:
        The difference, with an interval of that confidence; the ends are NaN if an end is.

    Example:
        >>> print(minus(Interval(0.9, 0.8, 1.0), Interval(0.5, 0.4, 0.6)))
        0.400 [0.259, 0.541]
    """
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value, value - below, value + above)


def _wilson(share: float, n: int, confidence: float) -> Interval:
    z = float(norm.ppf((1 + confidence) / 2))
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))
