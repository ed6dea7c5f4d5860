"""Changes of numeric targets that are undone in predictions and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kft.arguments import check_choice


@dataclass(frozen=True)
class TargetTransform:
    """A function of a numeric target, and its inverse.

    Args:
        kind: "log" (natural logarithm, of positive targets), "log1p" (of 1 + target, of targets
            that are not negative) or "standardize" (minus `mean`, divided by `deviation`).
        mean: For "standardize": mean of the training targets, one per target.
        deviation: For "standardize": their standard deviation, one per target.

    Raises:
        ValueError: `kind` is unknown.

    Example:
        >>> transform = TargetTransform.fitted("log1p", np.array([0.0, 9.0]))
        >>> transform.inverse(transform.forward(np.array([3.0]))).round(6).tolist()
        [3.0]
    """

    kind: str
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, list(_FUNCTIONS))
        for name in ("mean", "deviation"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a list, from JSON

    @classmethod
    def fitted(cls, kind: str, targets: np.ndarray) -> TargetTransform:
        """Return the transform for training targets.

        Args:
            kind: As for the class.
            targets: Numbers (N,) or (N, K), of the training part alone.

        Raises:
            ValueError: The targets are out of the range of a logarithm, or all the same.
        """
        if kind != "standardize":
            return cls(kind)
        mean, deviation = targets.mean(axis=0), targets.std(axis=0)
        if not np.all(deviation > 0):
            raise ValueError("kind='standardize' needs targets that differ, but all are the same.")
        return cls(kind, tuple(np.atleast_1d(mean).tolist()), tuple(np.atleast_1d(deviation)))

    def forward(self, targets: Any) -> np.ndarray:
        """Return targets as a model learns them.

        Args:
            targets: Numbers (N,) or (N, K).

        Raises:
            ValueError: A logarithm of one of them does not exist.
        """
        targets = np.asarray(targets, dtype="float64")
        least = {"log": 0.0, "log1p": -1.0}.get(self.kind, -np.inf)
        wrong = int((targets <= least).sum())
        if wrong:
            raise ValueError(
                f"kind={self.kind!r} needs targets above {least:g}, but {wrong:,} of "
                f"{targets.size:,} are not: choose another transform."
            )
        return _FUNCTIONS[self.kind][0](targets, np.array(self.mean), np.array(self.deviation))

    def inverse(self, values: Any) -> np.ndarray:
        """Return predictions in the unit of the targets, in the dtype of the values.

        Args:
            values: Predictions (N,) or (N, K).
        """
        values = np.asarray(values)
        mean, deviation = (np.array(x, dtype="float64") for x in (self.mean, self.deviation))
        return _FUNCTIONS[self.kind][1](values, mean, deviation).astype(values.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as JSON can hold them."""
        return {key: list(x) if isinstance(x, tuple) else x for key, x in asdict(self).items()}


_Function = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
_FUNCTIONS: dict[str, tuple[_Function, _Function]] = {
    "log": (lambda y, mean, deviation: np.log(y), lambda y, mean, deviation: np.exp(y)),
    "log1p": (lambda y, mean, deviation: np.log1p(y), lambda y, mean, deviation: np.expm1(y)),
    "standardize": (
        lambda y, mean, deviation: (y - mean) / deviation,
        lambda y, mean, deviation: y * deviation + mean,
    ),
}
