"""Scaling laws: how the loss falls with parameters, data and compute, fitted to your own runs.

Reference: Kaplan et al. 2020, "Scaling laws for neural language models", arXiv:2001.08361,
equations 1.1 to 1.3, with the irreducible loss of Henighan et al. 2020, "Scaling laws for
autoregressive generative modeling", arXiv:2010.14701, equation 1.1: L(x) = L0 + (x0 / x)^a.

Differences from the reference: none. Parameters are counted without the token embedding and the
output layer, and compute is 6 operations per parameter and token. The logarithm of the loss is
fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kft.arguments import check_integer
from kft.evaluation.metrics import Interval, interval

EXPONENTS = 1e-4, 4.0  # the smallest and the largest that are tried
STEPS = 12  # of Gauss-Newton; each reduces the error by about the size of the residuals


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law, L(x) = floor + (scale / x)^exponent.

    Attributes:
        exponent: The exponent with its interval.
        floor: The irreducible loss with its interval, in nats.
        scale: The x at which the reducible part of the loss is 1 nat.
        error: Root mean square of the residuals of log L.
    """

    exponent: Interval
    floor: Interval
    scale: float
    error: float

    def __call__(self, x: ArrayLike) -> np.ndarray:
        """Compute the loss at x.

        Args:
            x: Numbers of any shape.

        Returns:
            Float64 array of the shape of x, in nats.
        """
        return self.floor.value + (self.scale / np.asarray(x, float)) ** self.exponent.value


def fit_power_law(
    x: ArrayLike,
    losses: ArrayLike,
    *,
    runs: ArrayLike | None = None,
    floor: float | None = None,
    resamples: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
) -> PowerLaw:
    """Fit a power law with an irreducible term to the losses of several runs.

    Intervals come from a parametric bootstrap: noise of the size of the residuals, which is itself
    drawn with the degrees of freedom that the fit leaves. With few runs the floor and the exponent
    are hard to separate, and the intervals are wide.

    Args:
        x: Array (R,), parameters, residues or operations of each run, above 0.
        losses: Array (R,), losses in nats, above 0.
        runs: Array (R,), the run of each point. Points of one run have related errors, so they
            count as one in the error of the law. None if each point is a separate run.
        floor: The irreducible loss if it is known; None fits it, from 0 to the lowest loss.
        resamples: Number of bootstrap resamples.
        confidence: Confidence level of the intervals.
        seed: Seed of the resamples.

    Returns:
        The fitted law.

    Raises:
        ValueError: Numbers are not above 0, or there are too few different x or runs.

    Example:
        >>> x = np.array([1e4, 1e5, 1e6, 1e7, 1e8])
        >>> law = fit_power_law(x, 2.0 + (1e4 / x) ** 0.2, resamples=10)
        >>> round(law.exponent.value, 3), round(law.floor.value, 3)
        (0.2, 2.0)
    """
    x, losses = np.asarray(x, dtype=float), np.asarray(losses, dtype=float)
    fitted = 2 if floor is not None else 3
    number = np.unique(np.arange(len(x)) if runs is None else runs, return_inverse=True)[1]
    _check(x, losses, number, floor, fitted, resamples)
    x, losses, number = _in_order(x, losses, number)
    (exponent,), (height,), (found,) = _fit(x, losses[None], floor)
    if not 2e-4 < exponent < 3.9:
        raise ValueError(
            f"losses do not follow a decreasing power law: the best exponent is at the end of the "
            f"range that is tried, {exponent:.4f}. Check whether runs have diverged or not changed."
        )
    predicted = found + height * (x / x[0]) ** -exponent
    residuals = np.log(losses / predicted)
    noise = _noise(residuals, number, fitted, resamples, seed)
    exponents, _, floors = _fit(x, predicted * noise, floor)
    return PowerLaw(
        interval(float(exponent), exponents, confidence),
        interval(float(found), floors, confidence),
        float(np.exp(np.log(x[0]) + np.log(height) / exponent)),
        float(np.sqrt(np.mean(residuals**2))),
    )


def _noise(
    residuals: np.ndarray, runs: np.ndarray, fitted: int, resamples: int, seed: int
) -> np.ndarray:
    """Draw factors (resamples, R) for the losses, the same for all points of a run."""
    count = runs.max() + 1
    freedom = count - fitted
    error = np.sqrt(np.mean(residuals**2) * count / freedom)
    rng = np.random.default_rng(seed)
    # The size of the error is uncertain with few runs, so it is drawn too.
    sizes = error * np.sqrt(freedom / rng.chisquare(freedom, (resamples, 1)))
    return np.exp(sizes * rng.standard_normal((resamples, count))[:, runs])


def _check(
    x: np.ndarray,
    losses: np.ndarray,
    runs: np.ndarray,
    floor: float | None,
    fitted: int,
    resamples: int,
) -> None:
    if not x.shape == losses.shape == runs.shape or x.ndim != 1:
        raise ValueError(
            f"x, losses and runs must have the same length, received {x.shape}, {losses.shape} and "
            f"{runs.shape}."
        )
    if not (np.isfinite(x) & np.isfinite(losses) & (x > 0) & (losses > (floor or 0))).all():
        raise ValueError(
            f"x must be finite and above 0, losses finite and above {floor or 0}, received "
            f"{x.tolist()} and {losses.tolist()}."
        )
    check_integer("resamples", resamples)
    for what, given in (("x", x), ("runs", runs)):
        if (different := len(np.unique(given))) <= fitted:
            raise ValueError(
                f"{what} must have at least {fitted + 1} different values to fit the {fitted} "
                f"parameters of a power law and their errors, received {different}."
            )


def _in_order(
    x: np.ndarray, losses: np.ndarray, runs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort by x and number the runs in that order, so that the order given changes no interval."""
    order = np.lexsort((losses, np.round(np.log(x), 9)))
    first, runs = np.unique(runs[order], return_index=True, return_inverse=True)[1:]
    return x[order], losses[order], np.argsort(np.argsort(first))[runs]


# The fit ------------------------------------------------------------------------------------------
# Shapes: `K` fits at once, `R` points. Exponent, scale and floor compensate one another, and least
# squares in all three would stop at different places of a flat valley on different processors. So
# the other two are solved for a given exponent, which is easy, and the exponent is where the slope
# of the remaining sum of squares is zero (variable projection: Golub and Pereyra 1973).


def _fit(
    x: np.ndarray, losses: np.ndarray, floor: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit losses (K, R): exponents, heights above the floor at x[0], and floors, each (K,)."""
    distance, logs = np.log(x / x[0]), np.log(losses)
    tried = np.geomspace(*EXPONENTS, 48)
    left = [
        (_solve(np.full(len(logs), a), distance, logs, floor)[2] ** 2).sum(axis=1) for a in tried
    ]
    best = np.argmin(left, axis=0)
    low, high = tried[np.maximum(best - 1, 0)], tried[np.minimum(best + 1, len(tried) - 1)]
    for _ in range(45):  # halves the bracket down to the precision of float64
        middle = np.sqrt(low * high)
        rises = _slope(middle, distance, logs, floor) > 0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    exponent = np.sqrt(low * high)
    height, floors, _ = _solve(exponent, distance, logs, floor)
    return exponent, height, floors


def _slope(
    exponent: np.ndarray, distance: np.ndarray, logs: np.ndarray, floor: float | None
) -> np.ndarray:
    """Compute the derivative (K,) of half the sum of squares by the exponent, at the best fit."""
    height, floors, residuals = _solve(exponent, distance, logs, floor)
    power = height[:, None] * np.exp(-exponent[:, None] * distance)
    return -(residuals * distance * power / (floors[:, None] + power)).sum(axis=1)


def _solve(
    exponent: np.ndarray, distance: np.ndarray, logs: np.ndarray, floor: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve for heights and floors (K,) and residuals of log L (K, R), given exponents (K,)."""
    power = np.exp(-exponent[:, None] * distance)
    if floor is None:
        height, floors = _height_and_floor(exponent, distance, logs)
    else:
        floors = np.full(len(logs), float(floor))
        height = _height(power, logs, floors[:, None])
    return height, floors, np.log(floors[:, None] + height[:, None] * power) - logs


def _height_and_floor(
    exponent: np.ndarray, distance: np.ndarray, logs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # L = level + slope v, with v = (x^-a - 1) / a, which for small a is -log x: level and slope can
    # be separated where height and floor cannot. Gauss-Newton for log L is a regression with
    # weights 1 / L^2.
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
    # At an end of the range: no decrease, no floor, or a floor above the lowest loss.
    flat, least = np.exp(logs.mean(axis=1)), np.exp(logs.min(axis=1))
    kept = np.clip(floor, 0, least)
    at_end = kept != floor
    power = np.exp(-exponent[at_end, None] * distance)
    height[at_end] = _height(power, logs[at_end], kept[at_end, None])
    return np.where(slope <= 0, 0.0, height), np.where(slope <= 0, flat, kept)


def _height(power: np.ndarray, logs: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Fit the height above a known floor, by Gauss-Newton in its logarithm."""
    above = np.maximum(np.exp(logs) - floor, 1e-3 * np.exp(logs))
    weights = np.exp(-2 * logs)
    product = (above * power * weights).sum(axis=1, keepdims=True)
    log_height = np.log(product / (power**2 * weights).sum(axis=1, keepdims=True))
    for _ in range(STEPS):
        part = np.exp(log_height) * power
        fraction = part / (floor + part)
        change = fraction * (logs - np.log(floor + part))
        step = change.sum(axis=1, keepdims=True) / (fraction**2).sum(axis=1, keepdims=True)
        log_height = log_height + np.clip(step, -1, 1)
    return np.exp(log_height[:, 0])


def compute(parameters: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    """Compute the floating-point operations of a training: 6 per parameter and token.

    Args:
        parameters: Number of parameters.
        tokens: Number of tokens trained on.

    Returns:
        Number of operations, float64.

    Source: Kaplan et al. 2020, section 2.1.

    Example:
        >>> float(compute(1e6, 1e9))
        6000000000000000.0
    """
    return 6.0 * np.asarray(parameters, float) * np.asarray(tokens, float)


def frontier(
    operations: Sequence[ArrayLike], losses: Sequence[ArrayLike]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the epochs at which a loss was lower than any run reached with less compute.

    Args:
        operations: For each run, the operations after each of its epochs.
        losses: For each run, the losses at those epochs.

    Returns:
        Operations (P,), increasing; losses (P,), decreasing; and the number of the run (P,).

    Example:
        >>> at, loss, run = frontier([[1, 2], [3, 4]], [[2.9, 2.8], [2.85, 2.7]])
        >>> at.tolist(), run.tolist()
        ([1.0, 2.0, 4.0], [0, 0, 1])
    """
    runs = np.repeat(np.arange(len(losses)), [np.size(one) for one in losses])
    at, reached = (np.concatenate(each).astype(float) for each in (operations, losses))
    order = np.lexsort((reached, at))
    best = np.minimum.accumulate(reached[order])
    falls = order[np.r_[True, np.diff(best) < 0]]
    return at[falls], reached[falls], runs[falls]
