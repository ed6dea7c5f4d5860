"""Baselines: what a linear model on plain counts reaches, in seconds, on the same splits.

A fine-tuned model has to beat these to be worth its cost, so they are made as strong as the labels
outside test allow: the strength of the L2 penalty is chosen on `data.valid` (by five-fold
cross-validation on `data.train` where there is none), then the model is fitted on both. The test
split is used once, to predict. All models are scikit-learn's; they are the baselines of the FLIP
benchmark (Dallago et al. 2021) and older: amino-acid composition, k-mers, one-hot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

if TYPE_CHECKING:
    from kft.data import Dataset

TASKS = ("classification", "regression")
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
STRENGTHS = (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2)  # of the L2 penalty; of equals the first wins


@dataclass(frozen=True)
class Baseline:
    """What a baseline predicts on the test split, and what that cost.

    Attributes:
        name: for tables and legends.
        predictions: (N, K) probabilities for classification, (N,) values for regression, float64.
        seconds: wall-clock time to choose the penalty, fit and predict.
        parameters: number of fitted coefficients, intercepts included.
        penalty: strength of the L2 penalty that did best on the validation split; None if none.
    """

    name: str
    predictions: np.ndarray
    seconds: float
    parameters: int
    penalty: float | None = None


def constant(data: Dataset) -> Baseline:
    """Predict the same for every record: the mean target, or how frequent each class is.

    Args:
        data: a data set for classification or regression.

    Returns:
        The `Baseline`. Its Spearman correlation is undefined and its AUROC is 0.5.

    Raises:
        ValueError: the task is neither classification nor regression; there is no test split.

    Example:
        `evaluation.score(data.task, data.test.targets, constant(data).predictions)`
    """
    start = time.perf_counter()
    _check(data)
    classifies = data.task == "classification"
    model = DummyClassifier(strategy="prior") if classifies else DummyRegressor(strategy="mean")
    targets = _all_but_test(data)[1]
    model.fit(np.zeros((len(targets), 1)), targets)
    predictions = _predict(data, model, np.zeros((len(data.test.inputs), 1)))
    parameters = len(model.classes_) if classifies else 1
    name = "majority class" if classifies else "mean"
    return Baseline(name, predictions, time.perf_counter() - start, parameters)


def composition(data: Dataset) -> Baseline:
    """Fit a linear model on the fraction of each of the 20 amino acids.

    Args:
        data: a data set of protein sequences for classification or regression.

    Returns:
        The `Baseline`, of logistic regression or ridge regression.

    Raises:
        ValueError: the task is neither classification nor regression; there is no test split.

    Example:
        `composition(kft.data.load("amp")).predictions[:, 1]`
    """
    # Fractions differ in scale (few Trp, many Leu), and one penalty should weigh them alike.
    return _fit_linear("composition", [_Composition(), StandardScaler()], data)


def kmers(data: Dataset, k: int = 3) -> Baseline:
    """Fit a linear model on how often each word of k residues occurs.

    Args:
        data: a data set of protein sequences for classification or regression.
        k: length of the words; words never seen outside test are ignored.

    Returns:
        The `Baseline`, of logistic regression or ridge regression.

    Raises:
        ValueError: k is below 1 or longer than every training sequence; the task is neither
            classification nor regression; there is no test split.

    Example:
        `kmers(kft.data.load("amp"), k=3).parameters`
    """
    longest = max(map(len, data.train.inputs))
    if not 1 <= k <= longest:
        raise ValueError(f"k must be 1 to {longest}, the longest training sequence; received {k}")
    words = CountVectorizer(analyzer="char", ngram_range=(k, k), lowercase=False, dtype=np.float64)
    return _fit_linear(f"{k}-mers", [words], data)


def one_hot(data: Dataset) -> Baseline:
    """Fit a linear model on which residue stands at each position: the additive model.

    Args:
        data: a data set whose sequences all have one length. The positions are
            `data.variable_positions`, or else those at which the training sequences differ.

    Returns:
        The `Baseline`, of logistic regression or ridge regression.

    Raises:
        ValueError: sequences of several lengths; training sequences that are all the same; the
            task is neither classification nor regression; there is no test split.

    Example:
        `one_hot(kft.data.load("gb1")).name`  # "one-hot, 4 positions"
    """
    lengths = _lengths(data)
    if len(lengths) > 1:
        raise ValueError(
            f"one_hot needs sequences of one length, received lengths {min(lengths)} to "
            f"{max(lengths)}; align them first, or use composition or kmers"
        )
    positions = data.variable_positions
    if positions is None:
        letters = _letters(data.train.inputs)
        positions = np.flatnonzero((letters != letters[0]).any(axis=0))
    if not len(positions):
        raise ValueError("one_hot needs training sequences that differ, but they are all the same")
    # An unseen residue is a row of zeros: it is predicted from the other positions.
    encoder = OneHotEncoder(handle_unknown="ignore")
    name = f"one-hot, {len(positions)} positions"
    return _fit_linear(name, [_Residues(tuple(positions)), encoder], data)


def fit_all(data: Dataset, progress: Callable[[str], None] | None = None) -> list[Baseline]:
    """Fit the baselines that suit the data, the simplest first.

    Args:
        data: a data set for classification or regression.
        progress: called with one line before each fit, such as `print`.

    Returns:
        The constant predictor; one-hot for regression on sequences of one length, composition
        for all else; 3-mers. (3-mers see what one-hot cannot: mutations that meet within three
        residues. On GB1 they are the stronger of the two.)

    Raises:
        ValueError: the task is neither classification nor regression; there is no test split.

    Example:
        `baselines = fit_all(kft.data.load("amp"), progress=print)`
    """
    _check(data)
    aligned = data.task == "regression" and len(_lengths(data)) == 1
    fits = [constant, one_hot if aligned else composition, kmers]
    fitted = []
    for number, fit in enumerate(fits, start=1):
        if progress is not None:
            progress(f"baseline {number}/{len(fits)}: {fit.__name__}")
        fitted.append(fit(data))
    return fitted


class _Composition(TransformerMixin, BaseEstimator):
    """Sequences -> fraction of each amino acid (N, 20); other letters count in the length only."""

    def fit(self, sequences: Sequence[str], targets: Any = None) -> _Composition:
        return self

    def transform(self, sequences: Sequence[str]) -> np.ndarray:
        counts = np.array([[s.count(letter) for letter in AMINO_ACIDS] for s in sequences], float)
        return counts / np.maximum([len(s) for s in sequences], 1)[:, None]


class _Residues(TransformerMixin, BaseEstimator):
    """Sequences of one length -> the letters at the given positions (N, P)."""

    def __init__(self, positions: tuple[int, ...]):
        self.positions = positions

    def fit(self, sequences: Sequence[str], targets: Any = None) -> _Residues:
        return self

    def transform(self, sequences: Sequence[str]) -> np.ndarray:
        return _letters(sequences)[:, list(self.positions)]


def _fit_linear(name: str, steps: list[BaseEstimator], data: Dataset) -> Baseline:
    """Choose the penalty, fit on all labels outside test, predict test."""
    start = time.perf_counter()
    _check(data)
    features = make_pipeline(*steps)
    folds = _folds(data, features)
    penalty = min(STRENGTHS, key=lambda strength: _loss(data, strength, folds))
    inputs, targets = _all_but_test(data)
    model = _linear(data, penalty).fit(features.fit_transform(inputs), targets)
    predictions = _predict(data, model, features.transform(data.test.inputs))
    parameters = model.coef_.size + np.size(model.intercept_)
    return Baseline(name, predictions, time.perf_counter() - start, parameters, penalty)


def _all_but_test(data: Dataset) -> tuple[list[str], np.ndarray]:
    splits = [split for split in (data.train, data.valid) if split is not None]
    inputs = [sequence for split in splits for sequence in split.inputs]
    return inputs, np.concatenate([split.targets for split in splits])


def _linear(data: Dataset, penalty: float) -> LogisticRegression | Ridge:
    # scikit-learn names the strength of the penalty in opposite ways: C = 1 / alpha.
    if data.task == "classification":
        return LogisticRegression(C=1 / penalty, max_iter=10_000)
    return Ridge(alpha=penalty)


def _folds(data: Dataset, features: BaseEstimator) -> list[tuple]:
    """What the penalty is chosen on, as rows of (features, targets, held-out features, targets)."""
    train, targets = features.fit_transform(data.train.inputs), np.asarray(data.train.targets)
    if data.valid is not None and len(data.valid.inputs):
        return [(train, targets, features.transform(data.valid.inputs), data.valid.targets)]
    # Without a group of its own, a record is one: then this is plain five-fold cross-validation.
    groups = np.arange(len(targets)) if data.train.groups is None else data.train.groups
    parts = GroupKFold(min(5, len(np.unique(groups)))).split(train, groups=groups)
    return [(train[fit], targets[fit], train[held], targets[held]) for fit, held in parts]


def _loss(data: Dataset, penalty: float, folds: list[tuple]) -> float:
    """Mean over folds of the held-out negative log likelihood or squared error."""
    losses = []
    for train, targets, held_out, held_out_targets in folds:
        predictions = _predict(data, _linear(data, penalty).fit(train, targets), held_out)
        if data.task == "classification":
            likelihood = predictions[np.arange(len(predictions)), held_out_targets]
            losses.append(-np.log(np.maximum(likelihood, 1e-12)).mean())
        else:
            losses.append(np.square(predictions - held_out_targets).mean())
    return float(np.mean(losses))


def _predict(data: Dataset, model: Any, features: Any) -> np.ndarray:
    """Return values (N,), or probabilities (N, K) with a zero for classes that train lacks."""
    if data.task == "regression":
        return np.asarray(model.predict(features), dtype=np.float64)
    probabilities = np.zeros((features.shape[0], len(data.classes)))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities


def _letters(sequences: Sequence[str]) -> np.ndarray:
    """Return sequences of one length as letters (N, L)."""
    return np.array([list(sequence) for sequence in sequences])


def _lengths(data: Dataset) -> set[int]:
    splits = (data.train, data.valid, data.test)
    return {len(sequence) for split in splits if split is not None for sequence in split.inputs}


def _check(data: Dataset) -> None:
    if data.task not in TASKS:
        raise ValueError(
            f"baselines exist for {' and '.join(TASKS)}, received a data set for {data.task!r}"
        )
    if data.test is None:
        raise ValueError(f"data set {data.name!r} has no test split to predict; split it first")
