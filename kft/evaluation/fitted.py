"""What a baseline returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Baseline:
    """What a baseline predicts on the test split, and what that cost.

    Attributes:
        name: For tables and legends.
        predictions: (N, K) probabilities of classes or labels, or (N,) values for regression,
            float64; for a residue task a list of N arrays (L, K) or (L,) with a row for every
            residue of the chain, masked or not, as `kft.predict` returns it; for pairs of residues
            a list of N arrays (L, L, K).
        seconds: Wall-clock time to choose the penalty, fit and predict.
        parameters: Number of fitted coefficients, intercepts included.
        penalty: Strength of the L2 penalty that did best on the validation split; None if none.
        given: Whether the predictions come with the data set, so that there are none for new
            records.
    """

    name: str
    predictions: np.ndarray | list[np.ndarray]
    seconds: float
    parameters: int
    penalty: float | None = None
    given: bool = False
