"""Intervals of means: of a share of records, of an error, and of the difference of two.

The share of records with a property has the interval of `kft.evaluation.shares`, which is right for
a handful of records and for shares of 0 and 1, where a bootstrap gives an interval of no width. All
other means, and all means over records in groups, have the percentile bootstrap of
`kft.evaluation.metrics`. The interval of a difference is made of the intervals of its two parts
(Newcombe, Statistics in Medicine 17:873, 1998; Zou and Donner, Statistics in Medicine 27:1693,
2008).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from kft.arguments import check_weights
from kft.evaluation.metrics import Interval, interval, resample
from kft.evaluation.shares import independent_records, share_interval

UNDEFINED = Interval(math.nan, math.nan, math.nan)


def mean_interval(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    weights: ArrayLike | None = None,
) -> Interval:
    """Compute a mean over records with its interval.

    Args:
        values: (N,) booleans, whose mean is a share, or numbers.
        groups: (N,) names; records of a group are not independent. None for single records.
        confidence: Confidence level of the interval.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
        weights: (N,) numbers of at least 0, how much each record counts; None for all alike.

    Returns:
        The mean; its ends are NaN where no interval exists, that is for one record or one group.
        All NaN if there are no records, or none with a weight above 0.

    Raises:
        ValueError: A weight is negative or NaN, or there are not N.

    Example:
        >>> print(mean_interval([True] * 6))
        1.000 [0.607, 1.000]
    """
    values = np.asarray(values)
    each = np.ones(len(values))
    names = None if groups is None else np.asarray(groups)
    if weights is not None:
        each = check_weights("weights", weights, len(values))
        used = each > 0
        values, each = values[used], each[used]
        names = None if names is None else names[used]
    if not len(values):
        return UNDEFINED
    records = independent_records(len(values), names, each)
    is_share, values = values.dtype == bool, values.astype(np.float64)
    mean = float(each @ values / each.sum())
    if is_share and records is not None:
        return Interval(mean, *share_interval(mean, records, confidence))
    if len(values) < 2 or (names is not None and len(np.unique(names)) < 2):
        return Interval(mean, math.nan, math.nan)
    draws = [
        counts @ (each * values) / (counts @ each)
        for counts in resample(len(values), names, resamples, seed)
    ]
    return interval(mean, np.concatenate(draws), confidence)


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
