"""The profile of a column of numbers: its distribution, and suspected marks of missing values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import skew

BINS = 30
QUARTILES = ("min", "lower quartile", "median", "upper quartile", "max")
MOST_MARKS = 4  # marks of missing values that one column can have
LEAST_REPEATS = 3  # how often a mark must occur
MOST_STEPS = 5  # between 0 and the next value, in steps between the others
OFTEN, ZERO_APART = 0.2, 0.15  # how often 0 occurs, and how far it is from the others
FAR = 2  # times the range of the others by which an isolated value is apart from them
MOST_STEP = 2  # between neighbours that may be ordinary, such as the counts 0, 2 and 3


@dataclass(frozen=True, eq=False)
class Profile:
    """Statistics of a column of numbers; all but the counts are without suspected sentinels.

    Attributes:
        records: Number of values, missing ones included.
        missing: Number of NaN.
        infinite: Number of infinite values.
        distinct: Number of different finite values.
        sentinels: Suspected marks of missing values -> how often each occurs.
        quartiles: Minimum, lower quartile, median, upper quartile and maximum; NaN if there are no
            values.
        mean: Mean.
        deviation: Standard deviation.
        skewness: Third standardised moment; 0 for a constant.
        far: Number of values more than three interquartile ranges outside of the quartiles.
        isolated: The few values that are further from all others than these are from each other.
        counts: Array (BINS,), the histogram.
        edges: Array (BINS + 1,), its edges.
    """

    records: int
    missing: int
    infinite: int
    distinct: int
    sentinels: dict[float, int]
    quartiles: tuple[float, ...]
    mean: float
    deviation: float
    skewness: float
    far: int
    isolated: tuple[float, ...]
    counts: np.ndarray
    edges: np.ndarray

    @property
    def constant(self) -> bool:
        """Whether all values that are not missing are equal."""
        return self.distinct == 1

    @property
    def present(self) -> int:
        """Number of finite values, suspected sentinels included."""
        return self.records - self.missing - self.infinite


def profile(values: np.ndarray) -> Profile:
    """Return the profile of a column.

    Args:
        values: Float array (N,); NaN marks a missing value.

    Returns:
        The profile.

    Example:
        >>> profile(np.array([0.5, -999, 1.5, 2.5, -999, -999])).sentinels
        {-999.0: 3}
    """
    finite = np.sort(values[np.isfinite(values)])
    first = np.flatnonzero(np.diff(finite, prepend=np.nan) != 0)  # where each value begins
    distinct, repeats = finite[first], np.diff(first, append=len(finite))
    sentinels, low, high = suspected_sentinels(distinct, repeats)
    begin, end = int(repeats[:low].sum()), len(finite) - int(repeats[high:].sum())
    rest = finite[begin:end]
    missing = int(np.isnan(values).sum())
    if not len(rest):
        nothing = (np.nan,) * 5, np.nan, np.nan, 0.0, 0, (), np.zeros(0), np.zeros(0)
        return Profile(len(values), missing, len(values) - missing, 0, {}, *nothing)
    quartiles = tuple(float(x) for x in _at(rest, np.array([0, 0.25, 0.5, 0.75, 1])))
    reach = 3 * (quartiles[3] - quartiles[1])
    inside = np.searchsorted(rest, [quartiles[1] - reach, quartiles[3] + reach])
    varies = rest[0] < rest[-1]
    counts, edges = _histogram(rest)
    mean, deviation = float(rest.mean()), float(rest.std())
    skewness = float(skew(rest)) if varies and deviation > 0 else 0.0
    return Profile(
        len(values),
        missing,
        len(values) - missing - len(finite),
        len(distinct),
        sentinels,
        quartiles,
        mean,
        deviation,
        skewness,
        int(inside[0] + len(rest) - inside[1]) if reach > 0 else 0,
        _isolated(rest),
        counts,
        edges,
    )


def suspected_sentinels(
    distinct: np.ndarray, repeats: np.ndarray
) -> tuple[dict[float, int], int, int]:
    """Find marks of missing values by their shape: repeated, at an end, and apart from the rest.

    A mark occurs at least three times, and one of these holds:

    - it is further from the nearest other value than the central 98% of these are from each other;
    - it is the only negative value, and a whole number;
    - it is 0, all others are positive, and hardly any is near 0: the least (or, if more than 20%
      are 0, their 5% quantile) is further from 0 than 15% of their central 90%, and by more than
      five of the steps between them.

    Args:
        distinct: Sorted array (D,) of different values.
        repeats: Integer array (D,), how often each occurs.

    Returns:
        The marks with their counts; and the range of positions in `distinct` of the other values.

    Example:
        >>> suspected_sentinels(np.array([-1.0, 2, 3, 4, 5, 6]), np.array([9, 1, 2, 1, 1, 1]))
        ({-1.0: 9}, 1, 6)
    """
    found: dict[float, int] = {}
    low, high = 0, len(distinct)
    while high - low > 2 and len(found) < MOST_MARKS:
        if _is_mark(distinct[low:high], repeats[low:high]):
            found[float(distinct[low])] = int(repeats[low])
            low += 1
        elif _is_mark(-distinct[low:high][::-1], repeats[low:high][::-1], mirrored=True):
            high -= 1
            found[float(distinct[high])] = int(repeats[high])
        else:
            break
    return found, low, high


def _is_mark(distinct: np.ndarray, repeats: np.ndarray, mirrored: bool = False) -> bool:
    """Return whether the first value is a mark.

    Args:
        distinct: Increasing array.
        repeats: How often each value occurs.
        mirrored: Whether signs are turned, so that the first value was the largest.
    """
    mark, others, weights = distinct[0], distinct[1:], repeats[1:]
    if repeats[0] < LEAST_REPEATS or len(others) < 2 or mark != round(mark):
        return False
    total = np.cumsum(weights)
    at = np.searchsorted(total, np.array([0.01, 0.05, 0.95, 0.99]) * total[-1])
    lowest, low, high, highest = others[np.minimum(at, len(others) - 1)]
    if len(others) < 5:  # -9 beside 0, 1 and 2
        lowest, highest = others[0], others[-1]
    if others[0] - mark > max(highest - lowest, MOST_STEP):
        return True
    if mirrored or len(others) < 5:
        return False
    if mark < 0 <= others[0]:
        return True
    if mark != 0 or others[0] <= 0:
        return False
    near = int(total[np.searchsorted(others, low / 2) - 1]) if others[0] < low / 2 else 0
    if repeats[0] <= 3 * near or others[0] <= MOST_STEPS * np.median(np.diff(others)):
        return False
    often = repeats[0] > OFTEN * (repeats[0] + total[-1])
    return bool((others[0] if not often else low) > ZERO_APART * (high - low))


def _isolated(rest: np.ndarray) -> tuple[float, ...]:
    """Return the few values, at most 1%, that are apart from the rest by twice its range."""
    few = max(1, len(rest) // 100)
    if len(rest) < 10:
        return ()
    at_low, at_high = rest[: few + 1], rest[-few - 1 :]
    for values in (at_low, -at_high[::-1]):
        gaps = np.diff(values)
        cut = int(gaps.argmax())
        others = rest[cut + 1 :] if values is at_low else rest[: len(rest) - cut - 1]
        if gaps[cut] > FAR * np.ptp(others) > 0:
            apart = values[: cut + 1] if values is at_low else -values[: cut + 1]
            return tuple(float(x) for x in apart)
    return ()


def _at(ordered: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the quantiles of a sorted array, without sorting it again."""
    return ordered[np.round(shares * (len(ordered) - 1)).astype(int)]


def _histogram(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the histogram of a sorted array between its 0.5% and 99.5% quantiles."""
    low, high = _at(ordered, np.array([0.005, 0.995]))
    if low == high:
        low, high = ordered[0], ordered[-1]
    if low == high or not np.isfinite(high - low):
        return np.array([len(ordered)]), np.array([low - 0.5, low + 0.5])
    edges = np.linspace(low, high, BINS + 1)
    positions = np.searchsorted(ordered, edges)
    positions[-1] = np.searchsorted(ordered, edges[-1], side="right")
    return np.diff(positions), edges
