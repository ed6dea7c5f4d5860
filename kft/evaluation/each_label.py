"""Classifiers of several labels, one per label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier


class EachLabel:
    """One classifier per label; for a label that is the same in all records, a constant.

    Args:
        make: Function that returns a classifier which is not fitted yet.
    """

    def __init__(self, make: Callable[[], Any]):
        self.make = make

    def fit(self, features: Any, targets: np.ndarray) -> EachLabel:
        """Fit one classifier per column of the targets (N, K)."""
        self.models = []
        for column in targets.T:
            alike = column.min() == column.max()
            model = DummyClassifier(strategy="prior") if alike else self.make()
            self.models.append(model.fit(features, column))
        return self

    def predict_proba(self, features: Any) -> np.ndarray:
        """Return the probability of each label, (N, K)."""
        result = np.zeros((features.shape[0], len(self.models)))
        for k, model in enumerate(self.models):
            if 1 in model.classes_:
                probabilities = np.asarray(model.predict_proba(features))
                result[:, k] = probabilities[:, list(model.classes_).index(1)]
        return result

    def predict(self, features: Any) -> np.ndarray:
        """Return 1 for each label whose probability is above 0.5, (N, K)."""
        return (self.predict_proba(features) > 0.5).astype(int)

    @property
    def coef_(self) -> np.ndarray:
        """Coefficients of all labels, in one array."""
        fitted = [model.coef_.ravel() for model in self.models if hasattr(model, "coef_")]
        return np.concatenate(fitted) if fitted else np.zeros(0)

    @property
    def intercept_(self) -> np.ndarray:
        """A number per label."""
        return np.zeros(len(self.models))
