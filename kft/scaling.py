"""Scaling laws: how the loss falls with parameters, data and compute, from one's own runs.

Reference: Kaplan et al. 2020, "Scaling laws for neural language models", arXiv:2001.08361,
equations 1.1 to 1.3, with the irreducible loss of Henighan et al. 2020, "Scaling laws for
autoregressive generative modeling", arXiv:2010.14701, equation 1.1: L(x) = L0 + (x0 / x)^a.

Differences from the reference: none. Parameters are counted without the token table and what
reads it, and compute as 6 operations per parameter and token. Fits are to the logarithm of the
loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import least_squares

from kft.evaluation import Interval, interval


@dataclass(frozen=True)
class PowerLaw:
    """L(x) = floor + (scale / x)^exponent.

    Attributes:
        exponent, floor: with their intervals; the floor is the irreducible loss, in nats.
        scale: x at which the part that can be reduced is 1 nat.
        error: root mean square of the residuals of log L.
    """

    exponent: Interval
    floor: Interval
    scale: float
    error: float

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """The loss at x, float64 of the shape of x."""
        return self.floor.value + (self.scale / np.asarray(x, float)) ** self.exponent.value


def fit_power_law(
    x: ArrayLike, losses: ArrayLike, *, runs: ArrayLike | None = None, floor: float | None = None,
    resamples: int = 500, confidence: float = 0.95, seed: int = 0,
) -> PowerLaw:  # fmt: skip
    """Fits a power law with an irreducible term to the losses of several runs.

    Intervals are from a parametric bootstrap: noise of the residuals' size, which is itself drawn
    for the degrees of freedom that the fit leaves. Few runs tell the floor and the exponent badly
    apart, and the intervals say so.

    Args:
        x: (R,) parameters, residues or operations of each run, above 0.
        losses: (R,) nats, above 0.
        runs: (R,) which run each belongs to, where some are of the same: those err together, so
            that they say no more of the law's error than one. None if each is a run of its own.
        floor: the irreducible loss where it is known; None fits it, at least 0.
        resamples, confidence, seed: of the intervals.

    Returns:
        PowerLaw.

    Raises:
        ValueError: numbers that are not above 0, or too few different x or runs.

    Example:
        >>> x = np.array([1e4, 1e5, 1e6, 1e7, 1e8])
        >>> law = fit_power_law(x, 2.0 + (1e4 / x) ** 0.2, resamples=10)
        >>> round(law.exponent.value, 3), round(law.floor.value, 3)
        (0.2, 2.0)
    """
    x, losses = np.asarray(x, dtype=float), np.asarray(losses, dtype=float)
    fitted = 2 if floor is not None else 3
    runs = np.unique(np.arange(len(x)) if runs is None else runs, return_inverse=True)[1]
    _check(x, losses, runs, floor, fitted, resamples)
    best = _fit(x, losses, floor)
    if not 2e-4 < best[1] < 3.9:
        raise ValueError(
            f"These losses follow no power law that falls: the best exponent lies at the end of "
            f"what is tried, {best[1]:.4f}. Look at the runs: have they diverged, or not changed?"
        )
    predicted = _law(best, x)
    residuals = np.log(losses / predicted)
    count = runs.max() + 1
    freedom = count - fitted
    error = np.sqrt(np.mean(residuals**2) * count / freedom)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        # Few runs know the size of their own error badly: it is drawn too.
        size = error * np.sqrt(freedom / rng.chisquare(freedom))
        noise = np.exp(size * rng.standard_normal(count)[runs])
        draws.append(_fit(x, predicted * noise, floor, best))
    draws = np.array(draws)
    return PowerLaw(
        interval(float(best[1]), draws[:, 1], confidence),
        interval(float(best[2]), draws[:, 2], confidence),
        float(np.exp(best[0])),
        float(np.sqrt(np.mean(residuals**2))),
    )


def _check(x, losses, runs, floor, fitted, resamples):
    if not x.shape == losses.shape == runs.shape or x.ndim != 1:
        raise ValueError(
            f"x, losses and runs must be of one length, received {x.shape}, {losses.shape} and "
            f"{runs.shape}."
        )
    if not (np.isfinite(x) & np.isfinite(losses) & (x > 0) & (losses > (floor or 0))).all():
        raise ValueError(
            f"x must be finite and above 0, losses finite and above {floor or 0}, received "
            f"{x.tolist()} and {losses.tolist()}."
        )
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, received {resamples!r}.")
    for what, given in (("x", x), ("runs", runs)):
        if (different := len(np.unique(given))) <= fitted:
            raise ValueError(
                f"{different} different {what} cannot tell {fitted} numbers of a power law and "
                f"their errors: give at least {fitted + 1}."
            )


def _law(parameters: np.ndarray, x: np.ndarray) -> np.ndarray:
    log_scale, exponent, floor = parameters
    # While it is fitted it may try what no number holds.
    return floor + np.exp(np.minimum(exponent * (log_scale - np.log(x)), 700))


def _fit(x, losses, floor, start=None) -> np.ndarray:
    """(log scale, exponent, floor) of the least squares of log L, the best of several starts."""
    known = [] if floor is None else [floor]
    highest = losses.min() * (1 - 1e-6)
    found = []
    for share in (0.0, 0.5, 0.9) if start is None else (None,):
        if share is None:
            first = np.clip(start, [-np.inf, 1e-3, 0], [np.inf, 3, 0.999 * highest])
        else:
            guess = floor if known else share * highest
            slope, height = np.polyfit(np.log(x), np.log(np.maximum(losses - guess, 1e-9)), 1)
            exponent = float(np.clip(-slope, 1e-3, 3))
            first = np.array([height / exponent, exponent, guess])
        free = 3 - len(known)
        bounds = ([-np.inf, 1e-4, -1e-12][:free], [np.inf, 4, highest][:free])
        one = least_squares(
            lambda p: np.log(np.maximum(_law([*p, *known], x), 1e-12) / losses),
            first[:free], bounds=bounds, x_scale="jac", max_nfev=2000,
        )  # fmt: skip
        found.append((one.cost, np.array([*one.x, *known])))
    return min(found, key=lambda pair: pair[0])[1]


def compute(parameters: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """Floating-point operations of a training: 6 per parameter and token (Kaplan et al. 2.1)."""
    return 6.0 * np.asarray(parameters, float) * np.asarray(tokens, float)


def frontier(operations: Sequence[ArrayLike], losses: Sequence[ArrayLike]):
    """Where more compute gave a lower loss than any run had reached before.

    Args:
        operations: of each run, those after each of its epochs.
        losses: the losses there.

    Returns:
        operations (P,), rising, losses (P,), falling, and the number of the run (P,) of each.
    """
    runs = np.repeat(np.arange(len(losses)), [len(one) for one in losses])
    at, reached = (np.concatenate(each).astype(float) for each in (operations, losses))
    order = np.lexsort((reached, at))
    best = np.minimum.accumulate(reached[order])
    falls = order[np.r_[True, np.diff(best) < 0]]
    return at[falls], reached[falls], runs[falls]
