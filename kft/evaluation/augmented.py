"""A linear model on residues and on a score that needs no labels, which few-shot models must beat.

Hsu, Nisonoff, Fannjiang and Listgarten 2022, "Learning protein fitness models from evolutionary and
assay-labeled data", Nature Biotechnology 40:1114: ridge regression on one-hot residues and on the
score of a model of sequences, whose coefficient is hardly penalised.

Differences from the reference: the score has deviation 1 before it is weighted, so that its penalty
does not depend on its unit; the penalty is chosen by the squared error, as for the other baselines,
where the reference takes Spearman's correlation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline, make_union

from kft.evaluation.baselines import one_hot_steps
from kft.evaluation.fitted import Baseline, fit_linear

if TYPE_CHECKING:
    from kft.data import Dataset

PENALTY = 1e-8  # of the score, as a fraction of that of a residue; by Hsu et al.


def augmented(data: Dataset, scores: Mapping[str, float]) -> Baseline:
    """Fit ridge regression on which residue is at each position, and on a zero-shot score.

    Args:
        data: A regression, as for `one_hot`.
        scores: {sequence: score} of all records, such as of `kft.score_mutations`.

    Returns:
        Baseline: its coefficient of the score is hardly penalised.

    Raises:
        ValueError: As for `one_hot`.

    Example:
        >>> from kft.data import Dataset, Split
        >>> parts = Split(["AA", "AC", "CA", "CC", "AD"], [2, 1, 1, 0, 5]), Split(["DD"], [8])
        >>> toy = Dataset("toy", "regression", parts[0], None, parts[1], source="typed in",
        ...               licence="none", citation="", checksum="")
        >>> scores = {"AA": 0.2, "AC": 0.1, "CA": 0.1, "CC": 0.0, "AD": 0.5, "DD": 0.8}
        >>> augmented(toy, scores).predictions.round(1)
        array([8.])
    """
    steps, positions = one_hot_steps(data)
    residues = make_pipeline(*steps[:-1], steps[-1].set_params(sparse_output=False))
    fitted = fit_linear("", [make_union(residues, _Score(scores))], data)
    return replace(fitted, name=f"zero-shot score and one-hot, {positions} positions")


class _Score(TransformerMixin, BaseEstimator):
    """Sequences -> their score (N, 1), of deviation 1 in training, weighted against the penalty."""

    def __init__(self, scores: Mapping[str, float]):
        self.scores = scores

    def fit(self, sequences: Sequence[str], targets: Any = None) -> _Score:
        known = self._looked_up(sequences)
        self.mean_, self.deviation_ = known.mean(), known.std() or 1.0
        return self

    def transform(self, sequences: Sequence[str]) -> np.ndarray:
        scaled = (self._looked_up(sequences) - self.mean_) / self.deviation_
        return scaled[:, None] / np.sqrt(PENALTY)

    def _looked_up(self, sequences: Sequence[str]) -> np.ndarray:
        return np.array([self.scores[sequence] for sequence in sequences], dtype="float64")
