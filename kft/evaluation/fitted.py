"""What all baselines share: their result, the choice of a penalty, a linear model on features."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from kft.data.task import Task
from kft.evaluation.each_label import EachLabel

if TYPE_CHECKING:
    from kft.data import Dataset
    from kft.data.dataset import Split

RECORD_TASKS = tuple(task for task in Task if task.level == "record")
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
STRENGTHS = (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2)  # of the L2 penalty; of equals the first wins


@dataclass(frozen=True)
class Baseline:
    """What a baseline predicts on the test split, and what that cost.

    Attributes:
        name: For tables and legends.
        predictions: (N, K) probabilities of classes or labels, or (N,) values for regression,
            float64; for a residue task a list of N arrays (L, K) or (L,) with a row for every
            residue of the chain, masked or not, as `kft.predict` returns it.
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


def fit_linear(name: str, steps: list[BaseEstimator], data: Any) -> Baseline:
    """Choose the penalty, fit on all labels outside test, predict test.

    Args:
        name: Name of the baseline.
        steps: Transformers of scikit-learn from inputs to features.
        data: A data set with targets per record.
    """
    start = time.perf_counter()
    checked_task(data, RECORD_TASKS)
    features = make_pipeline(*steps)
    folds = folds_of(data, features)
    penalty = min(STRENGTHS, key=lambda strength: held_out_loss(data, strength, folds))
    inputs, targets = all_but_test(data)
    model = unfitted(data, penalty).fit(features.fit_transform(inputs), targets)
    predictions = predicted(data, model, features.transform(test_of(data).inputs))
    parameters = model.coef_.size + np.size(model.intercept_)
    return Baseline(name, predictions, time.perf_counter() - start, parameters, penalty)


def outside_test(data: Dataset) -> list[Split]:
    """Return the training and the validation split, those that have records.

    Args:
        data: A data set.
    """
    return [part for part in (data.train, data.valid) if part is not None and len(part.inputs)]


def all_but_test(data: Dataset) -> tuple[list, np.ndarray]:
    """Return the inputs of training and validation split, and the targets that are used.

    Args:
        data: A data set.
    """
    splits = outside_test(data)
    inputs = [record for split in splits for record in split.inputs]
    if Task(data.task).per_residue:
        targets = [np.concatenate(split.targets)[marked_residues(split)] for split in splits]
    else:
        targets = [split.targets for split in splits]
    return inputs, np.concatenate(targets)


def unfitted(data: Dataset, penalty: float) -> Any:
    """Return a model that is not fitted yet.

    Args:
        data: A data set.
        penalty: Strength of the L2 penalty.
    """

    # scikit-learn names the strength of the penalty in opposite ways: C = 1 / alpha.
    def logistic() -> LogisticRegression:
        return LogisticRegression(C=1 / penalty, max_iter=10_000)

    target = Task(data.task).target
    if target == "labels":
        return EachLabel(logistic)
    return logistic() if target == "class" else Ridge(alpha=penalty)


def folds_of(data: Dataset, features: BaseEstimator) -> list[tuple]:
    """Return what the penalty is chosen on: (features, targets, held-out features, targets).

    Args:
        data: A data set.
        features: Transformer of scikit-learn from inputs to features.
    """
    train, targets = features.fit_transform(data.train.inputs), np.asarray(data.train.targets)
    if data.valid is not None and len(data.valid.inputs):
        return [(train, targets, features.transform(data.valid.inputs), data.valid.targets)]
    # Without groups every record is one: then this is plain five-fold cross-validation.
    groups = np.arange(len(targets)) if data.train.groups is None else data.train.groups
    parts = GroupKFold(min(5, len(np.unique(groups)))).split(train, groups=groups)
    return [(train[fit], targets[fit], train[held], targets[held]) for fit, held in parts]


def held_out_loss(data: Dataset, penalty: float, folds: list[tuple]) -> float:
    """Return the held-out negative log likelihood or squared error, the mean over folds.

    Args:
        data: A data set.
        penalty: Strength of the L2 penalty.
        folds: What `folds_of` returns.
    """
    losses, target = [], Task(data.task).target
    for train, targets, held_out, held_out_targets in folds:
        predictions = predicted(data, unfitted(data, penalty).fit(train, targets), held_out)
        if target == "number":
            losses.append(np.square(predictions - held_out_targets).mean())
            continue
        if target == "class":
            likelihood = predictions[np.arange(len(predictions)), held_out_targets]
        else:
            likelihood = np.where(held_out_targets, predictions, 1 - predictions)
        losses.append(-np.log(np.maximum(likelihood, 1e-12)).mean())
    return float(np.mean(losses))


def predicted(data: Dataset, model: Any, features: Any) -> np.ndarray:
    """Return values (N,), or probabilities (N, K) with a zero for classes that train lacks.

    Args:
        data: A data set.
        model: A fitted model of scikit-learn.
        features: Features (N, ...).
    """
    target = Task(data.task).target
    if target == "number":
        return np.asarray(model.predict(features), dtype=np.float64)
    if target == "labels":
        return model.predict_proba(features)
    probabilities = np.zeros((features.shape[0], len(data.classes or ())))
    probabilities[:, model.classes_] = model.predict_proba(features)
    return probabilities


def marked_residues(split: Split) -> np.ndarray:
    """Return whether the target of each residue is used, of all chains in one array.

    Args:
        split: A split with targets per residue.
    """
    if split.masks is None:
        return np.ones(sum(map(len, split.inputs)), dtype=bool)
    return np.concatenate(split.masks)


def test_of(data: Dataset) -> Split:
    """Return the test split, or raise an error if there is none.

    Args:
        data: A data set.
    """
    if data.test is None:
        raise ValueError(f"data set {data.name!r} has no test split to predict; split it first")
    return data.test


def checked_task(data: Dataset, tasks: Iterable[Task]) -> Task:
    """Return the task of a data set, or raise an error if there is nothing to fit or predict.

    Args:
        data: A data set.
        tasks: The tasks that are possible.
    """
    if data.task not in list(tasks):
        raise ValueError(
            f"expected a data set for {' or '.join(tasks)}, received one for {data.task!r}; "
            "fit_all picks the baselines that suit a task, and kft.segmentation has its own"
        )
    test_of(data)
    task = Task(data.task)
    if task.per_residue and not any(marked_residues(part).any() for part in outside_test(data)):
        raise ValueError(
            f"data set {data.name!r} has no residue with a target outside test: its masks are all "
            "False"
        )
    return task


class Composition(TransformerMixin, BaseEstimator):
    """Sequences -> fraction of each amino acid (N, 20); other letters count in the length only."""

    def fit(self, sequences: Sequence[str], targets: Any = None) -> Composition:
        """Return the transformer as it is: nothing is fitted.

        Args:
            sequences: List of N sequences.
            targets: Not used.
        """
        return self

    def transform(self, sequences: Sequence[str]) -> np.ndarray:
        """Return the fractions, float (N, 20).

        Args:
            sequences: List of N sequences.
        """
        counts = np.array([[s.count(letter) for letter in AMINO_ACIDS] for s in sequences], float)
        return counts / np.maximum([len(s) for s in sequences], 1)[:, None]
