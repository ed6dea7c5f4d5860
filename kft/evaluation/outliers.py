"""Is a new record like those that the model was trained on? A score per record, from its features.

The score is the Mahalanobis distance of the features, such as `kft.embed` computes them, to those
of the training records: how far the record is from their mean, in units of their own spread in that
direction. The covariance is that of Ledoit and Wolf (Journal of Multivariate Analysis 88:365,
2004), which exists with fewer records than features too.

Sources: Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples"
(NeurIPS 2018), here with one mean for all classes, so that regressions have it as well; Bates et
al., Annals of Statistics 51:149 (2023), for the p-values.

Shapes: `N` records, `D` features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.covariance import LedoitWolf

from kft.evaluation.metrics import Interval, score


@dataclass(frozen=True, eq=False)
class Outliers:
    """Scores of how far records are from the training data, see `fit_outliers`.

    Attributes:
        estimate: The fitted `sklearn.covariance.LedoitWolf`.
        scale: (D,) standard deviation of each feature, by which features are divided.
        reference: Sorted distances of held-out records, for p-values; empty without any.
    """

    estimate: LedoitWolf
    scale: np.ndarray
    reference: np.ndarray

    def score(self, features: ArrayLike) -> np.ndarray:
        """Compute the distance of records to the training data.

        Args:
            features: (N, D), of the same kind as those in `fit_outliers`.

        Returns:
            (N,), at least 0; larger is less like the training data. No unit.

        Raises:
            ValueError: The shape is another, or a feature is NaN or infinite.
        """
        features = _checked("features", features, len(self.scale))
        return np.sqrt(self.estimate.mahalanobis(features / self.scale))

    def p_values(self, features: ArrayLike) -> np.ndarray:
        """Compute p-values of "the record is like the held-out ones".

        Args:
            features: As for `score`.

        Returns:
            (N,): the share of held-out records that are as far away; the least is 1 over their
            number plus 1.

        Raises:
            ValueError: There were no held-out records, or as for `score`.

        Example:
            >>> records = np.random.default_rng(0).normal(size=(200, 3))
            >>> found = fit_outliers(records[:100], records[100:])
            >>> found.p_values([[9.0, 9.0, 9.0]]).round(4).tolist()
            [0.0099]
        """
        if not len(self.reference):
            raise ValueError("p-values need held-out records: give them to `fit_outliers`.")
        nearer = np.searchsorted(self.reference, self.score(features), side="left")
        return (1 + len(self.reference) - nearer) / (1 + len(self.reference))


def fit_outliers(features: ArrayLike, held_out: ArrayLike | None = None) -> Outliers:
    """Learn what training records look like.

    Args:
        features: (N, D) of training records.
        held_out: (M, D) of records of the same kind that are not among them, for p-values.

    Returns:
        `Outliers`.

    Raises:
        ValueError: There are fewer than two records, a feature is NaN or infinite, or all records
            have the same features.

    Example:
        >>> found = fit_outliers(np.random.default_rng(0).normal(size=(500, 3)))
        >>> found.score([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]).round().tolist()
        [0.0, 9.0]
    """
    features = _checked("features", features)
    if len(features) < 2:
        raise ValueError(f"features must be of at least two records, received {len(features)}.")
    scale = features.std(axis=0)
    if not scale.any():
        raise ValueError("features must differ between records: all of them are the same.")
    scale = np.where(scale > 0, scale, scale[scale > 0].min())  # a constant feature says nothing
    found = Outliers(LedoitWolf().fit(features / scale), scale, np.empty(0))
    if held_out is None:
        return found
    return Outliers(found.estimate, scale, np.sort(found.score(held_out)))


def detection(
    inside: ArrayLike,
    outside: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Compute how well scores tell records from outside from those like the training data.

    Args:
        inside: (N,) scores of records like the training data, none of which were trained on.
        outside: (M,) scores of records known to be of another kind.
        confidence: Confidence level of the interval.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        The AUROC with its interval: the chance that a record from outside has the larger score.

    Raises:
        ValueError: A score is NaN or infinite, or there are fewer than two in all.

    Example:
        >>> round(detection([1.0, 2.0, 3.0], [2.5, 4.0]).value, 3)
        0.833
    """
    inside, outside = np.asarray(inside, dtype=float), np.asarray(outside, dtype=float)
    scores = np.concatenate([inside, outside])
    if not np.isfinite(scores).all():
        raise ValueError("inside and outside must be finite scores, received NaN or infinity.")
    ranks = np.unique(scores, return_inverse=True)[1] / len(scores)  # between 0 and 1
    targets = np.repeat([0, 1], [len(inside), len(outside)])
    return score("classification", targets, ranks, confidence, resamples, seed)["AUROC"]


def _checked(name: str, features: ArrayLike, width: int | None = None) -> np.ndarray:
    checked = np.asarray(features, dtype=np.float64)
    if checked.ndim != 2 or width not in (None, checked.shape[1]):
        expected = "(records, features)" if width is None else f"(records, {width})"
        raise ValueError(f"{name} must have the shape {expected}, received {checked.shape}.")
    wrong = ~np.isfinite(checked).all(axis=1)
    if wrong.any():
        raise ValueError(
            f"{name} hold NaN or infinity in {wrong.sum()} of {len(checked)} records, first at "
            f"index {wrong.argmax()}."
        )
    return checked
