"""Intervals of shares: how many of the records have a property, such as being predicted right.

A bootstrap of a share near 0 or 1 is too narrow, and has no width if all records are alike. The
mid-P interval holds a share `p` unless so few, or so many, records as were seen are improbable at
`p`, where the number that was seen counts half (Lancaster, JASA 56:223, 1961; Berry and Armitage,
The Statistician 44:417, 1995). Records with weights count as the number of equally weighted ones
that are as uncertain (Kish, "Survey Sampling", 1965, 11.7).

No such interval holds exactly its confidence: of 100 records there are 101 possible shares.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import betainc


def independent_records(
    count: int, groups: ArrayLike | None = None, weights: ArrayLike | None = None
) -> float | None:
    """Return how many independent records of equal weight the records are worth.

    Args:
        count: Number N of records.
        groups: (N,) names; None for single records.
        weights: (N,) numbers of at least 0; None for all alike.

    Returns:
        The number; None if there are none with a weight above 0, or if a group holds several
        records, which then are not independent.

    Example:
        >>> independent_records(3), independent_records(3, weights=[1.0, 1.0, 0.0])
        (3.0, 2.0)
    """
    if groups is not None and len(np.unique(np.asarray(groups))) < count:
        return None
    each = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    return float(each.sum() ** 2 / (each**2).sum()) if each.any() else None


def share_interval(share: float, records: float, confidence: float) -> tuple[float, float]:
    """Compute the mid-P interval of a share.

    Args:
        share: Share of the records with the property, from 0 to 1.
        records: Number of independent records, see `independent_records`.
        confidence: Confidence level, between 0 and 1.

    Returns:
        The two ends.

    Example:
        >>> low, high = share_interval(1.0, 6, 0.95)
        >>> round(low, 3), high
        (0.607, 1.0)
    """
    tail = (1 - confidence) / 2
    hits = share * records
    low, high = _least(hits, records, tail), 1 - _least(records - hits, records, tail)
    return float(min(share, low)), float(max(share, high))


def _least(hits: float, records: float, tail: float) -> float:
    """Return the share at which as many hits, or more, have the probability `tail`."""
    if hits <= 0:
        return 0.0
    if hits >= records:
        return float((2 * tail) ** (1 / records))
    misses = records - hits

    def excess(p: float) -> float:
        as_many, more = betainc(hits, misses + 1, p), betainc(hits + 1, misses, p)
        return float(as_many + more) / 2 - tail

    return float(brentq(excess, 0.0, 1.0))
