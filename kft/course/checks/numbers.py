"""Whether numbers are right: equal to others, below a baseline, the gradient of a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kft.course.wrong import Wrong
from kft.messages import shown


def equal_numbers(
    name: str,
    found: Any,
    expected: Any,
    tolerance: float = 1e-5,
    line: int | None = None,
    why: str = "",
) -> None:
    """Check that numbers are those that they must be.

    Args:
        name: What they are called in the reason.
        found: A number, an array or a tensor of any backend.
        expected: The right numbers, of the same shape.
        tolerance: Largest difference allowed, as a share of the largest of the right numbers.
        line: Line of the submission to blame.
        why: What the right numbers are, such as "W x + s (x A) B".

    Raises:
        Wrong: The shape or a number differs, or `found` does not hold numbers.

    Example:
        >>> equal_numbers("slope", 2.0, 2.000001)
        >>> equal_numbers("slope", [1.0, 2.0], [1.0, 3.0], why="the gradient")
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: slope must be the gradient: 1 of 2 numbers differ, the most by 1.
    """
    rule = f"must be {why}" if why else "is wrong"
    right = np.asarray(expected, "float64")
    values = _array(name, found, line)
    if values.shape != right.shape:
        raise Wrong(f"{name} must have shape {right.shape}, received {values.shape}.", line)
    difference = np.abs(values - right)
    allowed = tolerance * max(float(np.abs(right).max(initial=0)), 1e-300)
    wrong = ~(difference <= allowed)  # NaN is wrong, too
    if wrong.any():
        most = float(np.nanmax(np.where(wrong, difference, np.nan)))
        found_so = f"{wrong.sum():,} of {right.size:,} numbers differ, the most by {most:.3g}"
        if not right.shape:
            found_so = f"received {values:,.0f}" if values % 1 == 0 else f"received {values:g}"
        raise Wrong(f"{name} {rule}: {found_so}.", line)


def _array(name: str, values: Any, line: int | None) -> np.ndarray:
    """Return values of any backend as float64."""
    if hasattr(values, "detach"):  # a tensor of torch
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values, "float64")
    except (TypeError, ValueError):
        raise Wrong(f"{name} must be numbers, received {shown(values)}.", line) from None


def below_baseline(
    scores: Sequence[float],
    baseline: float | Sequence[float],
    standard_errors: float = 2,
    line: int | None = None,
    name: str = "loss",
    higher_is_better: bool = False,
) -> None:
    """Check that scores over seeds are better than a baseline by so many standard errors.

    Args:
        scores: A score for each seed, at least three.
        baseline: Score of the baseline, or one for each seed.
        standard_errors: Standard errors of the mean difference by which it must be better.
        line: Line of the submission to blame.
        name: What the score is called.
        higher_is_better: True for an accuracy, False for a loss.

    Raises:
        Wrong: There are too few scores, all are the same, or they are not better.

    Example:
        >>> below_baseline([0.50, 0.52, 0.49], 0.69)
        >>> below_baseline([0.60, 0.75, 0.66], 0.69)
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: loss 0.67 is not better than the baseline 0.69 by 2 standard \
errors (0.0872).
    """
    values = _array(name, scores, line)
    if values.ndim != 1 or len(values) < 3:
        raise Wrong(f"{name} must be a list with one number for each of at least 3 seeds.", line)
    if not np.isfinite(values).all():
        raise Wrong(f"{name} has numbers that are not finite: {shown(values.tolist())}.", line)
    if len(set(values.tolist())) == 1:
        raise Wrong(f"{name} is the same for each seed, {values[0]:g}: train anew for each.", line)
    gains = (values - np.asarray(baseline, "float64")) * (1 if higher_is_better else -1)
    needed = standard_errors * gains.std(ddof=1) / np.sqrt(len(gains))
    if not gains.mean() > needed:
        raise Wrong(
            f"{name} {values.mean():.3g} is not better than the baseline {np.mean(baseline):.3g} "
            f"by {standard_errors:g} standard errors ({needed:.3g}).",
            line,
        )


def follows_differences(
    function: Callable[[np.ndarray], float],
    gradient: Any,
    at: np.ndarray,
    rng: np.random.Generator,
    name: str = "the gradient",
    tolerance: float = 1e-4,
    line: int | None = None,
) -> None:
    """Check a gradient against central differences of its function, computed in float64.

    Args:
        function: Function of an array of the shape of `at`; it computes in float64.
        gradient: What is said to be its gradient at `at`.
        at: The point.
        rng: Draws the directions.
        name: What the gradient is called.
        tolerance: Largest difference allowed, as a share of the gradient's norm.
        line: Line of the submission to blame.

    Raises:
        Wrong: The shape is another, or the slope in a direction differs.

    Example:
        >>> x, rng = np.array([1.0, 2.0]), np.random.default_rng(0)
        >>> follows_differences(lambda x: (x**2).sum(), 2 * x, x, rng)
        >>> follows_differences(lambda x: (x**2).sum(), x, x, rng)
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: the gradient is wrong: its slope in a direction is ..., by \
differences it is ....
    """
    at = np.asarray(at, "float64")
    values = _array(name, gradient, line)
    if values.shape != at.shape:
        raise Wrong(f"{name} must have shape {at.shape}, received {values.shape}.", line)
    step = 1e-5 * max(float(np.abs(at).max(initial=0)), 1e-3)
    for _ in range(4):
        direction = rng.standard_normal(at.shape)
        direction /= np.linalg.norm(direction)
        slope = (function(at + step * direction) - function(at - step * direction)) / (2 * step)
        said = float((values * direction).sum())
        if not abs(said - slope) <= tolerance * max(float(np.linalg.norm(values)), abs(slope)):
            raise Wrong(
                f"{name} is wrong: its slope in a direction is {said:.4g}, by differences it is "
                f"{slope:.4g}.",
                line,
            )
