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

from kft.evaluation.metrics import Interval, interval

EXPONENTS = 1e-4, 4.0  # the smallest and the largest that are tried
STEPS = 12  # of Gauss-Newton, each of which leaves about as much as the residuals are large


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
        floor: the irreducible loss where it is known; None fits it, from 0 to the lowest loss.
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
    x, losses, runs = _in_order(x, losses, runs)
    (exponent,), (height,), (found,) = _fit(x, losses[None], floor)
    if not 2e-4 < exponent < 3.9:
        raise ValueError(
            f"These losses follow no power law that falls: the best exponent lies at the end of "
            f"what is tried, {exponent:.4f}. Look at the runs: have they diverged, or not changed?"
        )
    predicted = found + height * (x / x[0]) ** -exponent
    residuals = np.log(losses / predicted)
    count = runs.max() + 1
    freedom = count - fitted
    error = np.sqrt(np.mean(residuals**2) * count / freedom)
    rng = np.random.default_rng(seed)
    # Few runs know the size of their own error badly: it is drawn too.
    sizes = error * np.sqrt(freedom / rng.chisquare(freedom, (resamples, 1)))
    noise = np.exp(sizes * rng.standard_normal((resamples, count))[:, runs])
    exponents, _, floors = _fit(x, predicted * noise, floor)
    return PowerLaw(
        interval(float(exponent), exponents, confidence),
        interval(float(found), floors, confidence),
        float(np.exp(np.log(x[0]) + np.log(height) / exponent)),
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


def _in_order(x, losses, runs):
    """By x, and runs as they then come: the same noise meets a run wherever it was given."""
    order = np.lexsort((losses, np.round(np.log(x), 9)))
    first, runs = np.unique(runs[order], return_index=True, return_inverse=True)[1:]
    return x[order], losses[order], np.argsort(np.argsort(first))[runs]


# The fit ------------------------------------------------------------------------------------------
# Legend: K fits at once, R points. Exponent, scale and floor make up for one another, and least
# squares of all three stop somewhere in a flat valley, each processor elsewhere. So the other two
# are solved for a given exponent, which is easy, and the exponent is where the slope of what is
# left vanishes (variable projection: Golub and Pereyra 1973).


def _fit(x, losses, floor):
    """Exponent, height (of the part above the floor, at x[0]) and floor, (K,), of losses (K, R)."""
    distance, logs = np.log(x / x[0]), np.log(losses)
    tried = np.geomspace(*EXPONENTS, 48)
    left = [
        (_solve(np.full(len(logs), a), distance, logs, floor)[2] ** 2).sum(axis=1) for a in tried
    ]
    best = np.argmin(left, axis=0)
    low, high = tried[np.maximum(best - 1, 0)], tried[np.minimum(best + 1, len(tried) - 1)]
    for _ in range(45):  # halves a bracket of half an e-fold to below what float64 holds
        middle = np.sqrt(low * high)
        rises = _slope(middle, distance, logs, floor) > 0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    exponent = np.sqrt(low * high)
    return exponent, *_solve(exponent, distance, logs, floor)[:2]


def _slope(exponent, distance, logs, floor):
    """Of half the sum of squares with the exponent, (K,): height and floor are at their best."""
    height, floor, residuals = _solve(exponent, distance, logs, floor)
    power = height[:, None] * np.exp(-exponent[:, None] * distance)
    return -(residuals * distance * power / (floor[:, None] + power)).sum(axis=1)


def _solve(exponent, distance, logs, floor):
    """Height and floor (K,), and residuals of log L (K, R), for given exponents (K,)."""
    power = np.exp(-exponent[:, None] * distance)
    if floor is None:
        height, floor = _height_and_floor(exponent, distance, logs)
    else:
        floor = np.full(len(logs), float(floor))
        height = _height(power, logs, floor[:, None])
    return height, floor, np.log(floor[:, None] + height[:, None] * power) - logs


def _height_and_floor(exponent, distance, logs):
    # L = level + slope v, with v = (x^-a - 1) / a, which for small a is -log x: the two stay apart
    # where height and floor do not. Gauss-Newton of log L is a regression with weights 1 / L^2.
    exponent = exponent[:, None]
    v, predicted = np.expm1(-exponent * distance) / exponent, np.exp(logs)
    for _ in range(STEPS):
        weights = predicted**-2
        weights /= weights.sum(axis=1, keepdims=True)
        aim = predicted * (1 + logs - np.log(predicted))
        centred = v - (weights * v).sum(axis=1, keepdims=True)
        slope = (weights * centred * aim).sum(axis=1) / (weights * centred**2).sum(axis=1)
        mean = (weights * aim).sum(axis=1)
        line = mean[:, None] + slope[:, None] * centred
        predicted = np.maximum(line, 0.1 * np.exp(logs))
    exponent = exponent[:, 0]
    height = slope / exponent
    floor = line[:, 0] - height  # at x[0], v is 0
    # At an end: nothing that falls, no floor, or one that a run would have broken through.
    flat, least = np.exp(logs.mean(axis=1)), np.exp(logs.min(axis=1))
    kept = np.clip(floor, 0, least)
    at_end = kept != floor
    power = np.exp(-exponent[at_end, None] * distance)
    height[at_end] = _height(power, logs[at_end], kept[at_end, None])
    return np.where(slope <= 0, 0.0, height), np.where(slope <= 0, flat, kept)


def _height(power, logs, floor):
    """By Gauss-Newton in its logarithm, above a floor that is known."""
    above = np.maximum(np.exp(logs) - floor, 1e-3 * np.exp(logs))
    log_height = np.log((above * power / np.exp(2 * logs)).sum(axis=1, keepdims=True)
                        / (power**2 / np.exp(2 * logs)).sum(axis=1, keepdims=True))  # fmt: skip
    for _ in range(STEPS):
        part = np.exp(log_height) * power
        share = part / (floor + part)
        change = share * (logs - np.log(floor + part))
        step = change.sum(axis=1, keepdims=True) / (share**2).sum(axis=1, keepdims=True)
        log_height = log_height + np.clip(step, -1, 1)
    return np.exp(log_height[:, 0])


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
