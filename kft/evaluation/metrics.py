"""Scores of predictions with bootstrap intervals.

A resample of the test set is represented by counts: how often each record was drawn. Every metric
here is a function of counts (R, N) and gives its values on all R resamples at once, so that two
thousand resamples of six thousand records take about a second. The score itself is the same
function with every count equal to one. The tests compare each metric with scikit-learn's or
scipy's.

Shapes: `R` resamples, `N` test records (residues, for a per-residue task), `K` classes or labels,
`U` distinct values.

The interval is the percentile bootstrap of Efron and Tibshirani, "An Introduction to the
Bootstrap" (1993), chapter 13; whole clusters are drawn when `groups` is given (Field and Welsh,
"Bootstrapping clustered data", 2007). Shares of independent records have the interval of
`kft.evaluation.shares`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kft.arguments import check_integer, check_weights
from kft.data.task import Task
from kft.evaluation.shares import independent_records, share_interval

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]

SHARES = ("accuracy", "subset accuracy")  # metrics that are shares of the records
_BLOCK = 200_000  # counts held at once: bounds memory, and small blocks stay in the cache


class Interval(NamedTuple):
    """A score and the two ends of its interval; all NaN if the score is undefined.

    The ends alone are NaN if there is a score but no interval, as for one record.

    Example:
        >>> print(Interval(0.912, 0.895, 0.928))
        0.912 [0.895, 0.928]
        >>> print(Interval(float("nan"), float("nan"), float("nan")))
        undefined
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined"
        largest = max(abs(number) for number in self if not math.isnan(number))
        digits = ",.1f" if largest >= 100 else ".3f" if largest >= 0.01 or largest == 0 else ".3g"
        if math.isnan(self.low):
            return f"{self.value:{digits}} (no interval)"
        return f"{self.value:{digits}} [{self.low:{digits}}, {self.high:{digits}}]"


class Scores(dict[str, Interval]):
    """Metric name -> `Interval`, the headline metric of the task first.

    Args:
        scores: The scores.
        score_without_copies: Scores on the test records without a near copy in training, see
            `kft.evaluate`; None if no record has one, or none was looked for.
        price_of_copies: Scores on all records minus those without copies, with paired intervals.
        remark: Sentences on the near copies, "" if there is nothing to say.

    Example:
        >>> scores = score("regression", [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
        >>> scores.headline, scores["Spearman"].value
        ('Spearman', 1.0)
    """

    def __init__(
        self,
        scores: Mapping[str, Interval],
        score_without_copies: Mapping[str, Interval] | None = None,
        price_of_copies: Mapping[str, Interval] | None = None,
        remark: str = "",
    ):
        super().__init__(scores)
        self.score_without_copies = score_without_copies
        self.price_of_copies = price_of_copies
        self.remark = remark

    @property
    def headline(self) -> str:
        """Name of the metric that the task is judged by."""
        return next(iter(self))

    def __str__(self) -> str:
        line = ", ".join(f"{name} {interval}" for name, interval in self.items())
        return f"{line}\n{self.remark}" if self.remark else line

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """Return plain numbers for JSON, which has no NaN: None if undefined."""
        return {
            name: {key: None if math.isnan(x) else float(x) for key, x in row._asdict().items()}
            for name, row in self.items()
        }


class Scored(NamedTuple):
    """What is scored: targets and predictions of records or residues.

    Attributes:
        targets: As for `score`.
        predictions: As for `score`.
        groups: As for `score`.
        weights: As for `score`.
        owners: (N,) position of the record of each in its split; None if it is not known.
    """

    targets: np.ndarray
    predictions: np.ndarray
    groups: np.ndarray | None = None
    weights: np.ndarray | None = None
    owners: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Scored:
        """Return some of them.

        Args:
            rows: (N,) booleans, or positions.
        """
        columns: dict[str, Any] = {
            name: np.asarray(column)[rows]
            for name, column in self._asdict().items()
            if column is not None
        }
        return self._replace(**columns)


def score(
    task: str,
    targets: ArrayLike,
    predictions: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Scores:
    """Score predictions, each metric with a percentile bootstrap interval.

    Accuracies, which are shares of the records, have mid-P intervals where records are independent:
    a bootstrap is too narrow near 0 and 1 (`kft.evaluation.shares`).

    All metrics use the same resamples, which depend only on `seed`, `resamples`, the number of
    records and `groups`: two models scored with the same seed are scored on the same resamples.

    A score is undefined (NaN, printed as "undefined") if its formula is 0/0: AUROC and MCC if the
    targets have one class, Spearman and Pearson if targets or predictions are constant, as those of
    a mean predictor are. MCC of a constant prediction is 0, as in scikit-learn. Macro averages are
    taken over the classes or labels for which the metric is defined. Resamples in which a metric is
    undefined are left out of its interval.

    Args:
        task: A `kft.data.task.Task` or its name. For tasks of residues, residues of all chains are
            in one array, and `groups` names the chain.
        targets: (N,) classes, integers from 0; (N, K) labels, 0 or 1; or (N,) real values.
        predictions: Probabilities (N, K) of classes or labels, or (N,) or (N, 1) of class 1; for
            regression (N,) or (N, 1) in the unit of the targets.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Number of bootstrap resamples.
        seed: The only source of randomness.
        groups: (N,) names; whole groups are drawn instead of single records. Records of one cluster
            or chain are not independent; if they were drawn singly, intervals would be too narrow.
        weights: (N,) numbers of at least 0, how much each record counts, as `sample_weight` of
            scikit-learn; None for all alike.

    Returns:
        For two classes AUROC, accuracy, MCC; for more classes accuracy, MCC, macro F1, macro AUROC
        (each class against the others); for labels macro AUROC, macro F1 (a label is predicted if
        its probability is above 0.5) and subset accuracy (all labels of a record are right); for
        numbers Spearman, Pearson, RMSE and MAE (the last two in the unit of the targets).

    Raises:
        ValueError: The task is unknown, lengths differ, a value is NaN or not a probability, a
            class is out of range, a weight is negative or NaN, or there are fewer than two records
            or groups, or two with a weight above 0.

    Example:
        >>> scores = score("classification", [0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])
        >>> scores["AUROC"].value, scores["accuracy"].value
        (0.75, 0.5)
    """
    _check_options(confidence, resamples)
    values, draws = bootstrap(task, targets, predictions, resamples, seed, groups, weights)
    records = independent_records(len(np.asarray(targets)), groups, weights)
    return Scores(
        {name: interval_of(name, values[name], draws[name], confidence, records) for name in values}
    )


def difference(
    task: str,
    targets: ArrayLike,
    predictions: ArrayLike,
    reference: ArrayLike,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Scores:
    """Score `predictions` minus score of `reference`, with paired bootstrap intervals.

    Both are scored on the same resamples, so that what makes a resample hard for both cancels.
    An interval that contains 0 means that this test set cannot distinguish the two.

    Args:
        task: As for `score`.
        targets: As for `score`.
        predictions: Those of the model of interest, as for `score`.
        reference: Those of the model that it is compared with, as for `score`.
        confidence: As for `score`.
        resamples: As for `score`.
        seed: As for `score`.
        groups: As for `score`.
        weights: As for `score`.

    Returns:
        Differences of the metrics of `score`; positive if `predictions` score higher (which is
        worse for RMSE and MAE).

    Raises:
        ValueError: As `score`.

    Example:
        >>> gain = difference("regression", [1, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1])
        >>> gain["Spearman"].value
        2.0
    """
    _check_options(confidence, resamples)
    options: Any = (resamples, seed, groups, weights)
    values, draws = bootstrap(task, targets, predictions, *options)
    other_values, other_draws = bootstrap(task, targets, reference, *options)
    if values.keys() != other_values.keys():
        raise ValueError("predictions and reference must have the same number of classes")
    return Scores(
        {
            name: interval(
                values[name] - other_values[name], draws[name] - other_draws[name], confidence
            )
            for name in values
        }
    )


def hardly_varies(targets: ArrayLike, predictions: ArrayLike) -> bool:
    """Return whether a model predicts (nearly) the same for every record, so has collapsed.

    This is so if the standard deviation of its predictions is less than a hundredth of that of the
    targets. A regression then has nearly the RMSE of a constant, even if its rank correlation is
    high.

    Args:
        targets: (N,) classes, integers from 0; (N, K) labels; or (N,) real values.
        predictions: As for `score`.

    Example:
        >>> hardly_varies([1.0, 2.0, 3.0], [2.001, 2.002, 2.003])
        True
    """
    targets, predictions = np.asarray(targets), np.asarray(predictions, dtype=np.float64)
    predictions = predictions.reshape(len(predictions), -1)  # (N, K)
    if targets.dtype.kind in "biu" and targets.ndim == 1 and predictions.shape[1] > 1:
        targets = np.eye(int(targets.max()) + 1)[targets.astype(int)]  # (N, K), one-hot
    spread = np.asarray(targets, dtype=np.float64).std(axis=0).max()
    return bool(predictions.std(axis=0).max() < 0.01 * spread)


def table(scores: Mapping[str, Scores]) -> pd.DataFrame:
    """Make a table of the scores of several models, one row per model, one column per metric.

    Args:
        scores: Name of the model -> its `Scores`.

    Returns:
        pandas.DataFrame of strings such as "0.912 [0.895, 0.928]", in the order given.

    Example:
        >>> frame = table({"mean": score("regression", [1.0, 2.0, 4.0], [2.0, 2.0, 2.0])})
        >>> frame.loc["mean", "Spearman"]
        'undefined'
    """
    rows = [{metric: str(interval) for metric, interval in row.items()} for row in scores.values()]
    return pd.DataFrame(rows, index=list(scores))


def bootstrap(
    task: str,
    targets: ArrayLike,
    predictions: ArrayLike,
    resamples: int,
    seed: int,
    groups: ArrayLike | None,
    weights: ArrayLike | None = None,
    kept: ArrayLike | None = None,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return each metric's value on the test set and its (R,) values on the resamples.

    With `kept`, all records are resampled and only some of them are scored, so that the values
    on all records and on these are of the same resamples.

    Args:
        task: As for `score`.
        targets: As for `score`.
        predictions: As for `score`.
        resamples: As for `score`.
        seed: As for `score`.
        groups: As for `score`.
        weights: As for `score`.
        kept: Booleans (N,), the records that are scored; None scores all.

    Raises:
        ValueError: As `score`.
    """
    task = Task.named(task, "task")
    if task.per_residue and groups is None:
        raise ValueError(
            f"{task} needs groups, the chain of each residue: residues of one chain are not "
            "independent"
        )
    targets, predictions = np.asarray(targets), np.asarray(predictions, dtype=np.float64)
    _check_lengths(task, targets, predictions, groups)
    each = np.ones(len(targets))
    if weights is not None:
        each = check_weights("weights", weights, len(targets))
        # A resample of records without weight would have no score.
        used = np.flatnonzero(each)
        targets, predictions, each = targets[used], predictions[used], each[used]
        kept = None if kept is None else np.asarray(kept)[used]
        groups = None if groups is None else np.asarray(groups)[used]
        _check_lengths(task, targets, predictions, groups)
    measure = measure_of(task, targets, predictions)
    scored = each if kept is None else each * np.asarray(kept, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # resamples without a record to score
        values = {name: float(x[0]) for name, x in measure(scored[None]).items()}
        blocks = [
            measure(counts * scored) for counts in resample(len(scored), groups, resamples, seed)
        ]
    return values, {name: np.concatenate([block[name] for block in blocks]) for name in values}


def measure_of(task: Task, targets: np.ndarray, predictions: np.ndarray) -> Measure:
    """Return a function that computes the metrics of a task for any choice of the records.

    Args:
        task: As for `score`.
        targets: As for `score`.
        predictions: As for `score`.

    Returns:
        Function from counts (R, N), how often each of R choices holds each record, to
        {metric name: array (R,)}.

    Example:
        >>> measure = measure_of(Task("regression"), np.array([1.0, 2.0]), np.array([1.0, 3.0]))
        >>> measure(np.array([[1.0, 0.0], [1.0, 1.0]]))["MAE"]
        array([0. , 0.5])
    """
    return _MEASURES[task.target](targets, predictions)


def resample(
    records: int, groups: ArrayLike | None, resamples: int, seed: int
) -> Iterator[np.ndarray]:
    """Draw resamples of the records, in blocks that bound the memory.

    Args:
        records: Number N of records.
        groups: As for `score`.
        resamples: As for `score`.
        seed: As for `score`.

    Yields:
        Counts (r, N), float64: how often each resample holds each record.

    Raises:
        ValueError: There are fewer than two records or groups.
    """
    unit = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    units = records if unit is None else int(unit.max()) + 1
    if units < 2:
        raise ValueError(f"groups must hold at least 2 different groups, received {units}")
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // records)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(units, size=(rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        yield (counts if unit is None else counts[:, unit]).astype(np.float64)


def interval(value: float, draws: np.ndarray, confidence: float) -> Interval:
    """Return a value with the percentile interval of its draws, without undefined ones."""
    draws = draws[~np.isnan(draws)]
    if math.isnan(value) or not len(draws):
        return Interval(math.nan, math.nan, math.nan)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def interval_of(
    metric: str, value: float, draws: np.ndarray, confidence: float, records: float | None
) -> Interval:
    """Return the value of a metric with its interval: mid-P of a share, else of its draws.

    Args:
        metric: Name of the metric.
        value: Its value.
        draws: Array (R,), its values on the resamples.
        confidence: Confidence level.
        records: Number of independent records, see `kft.evaluation.shares`, or None.
    """
    if metric not in SHARES or records is None or math.isnan(value):
        return interval(value, draws, confidence)
    return Interval(value, *share_interval(value, records, confidence))


def _classification(targets: np.ndarray, predictions: np.ndarray) -> Measure:
    """Return counts (R, N) -> metrics of class probabilities, each (R,)."""
    probabilities = _check_probabilities(predictions)
    classes = probabilities.shape[1]
    targets = _check_classes(targets, classes)
    truth = np.eye(classes)[targets]  # (N, K), one-hot
    predicted_class = np.eye(classes)[probabilities.argmax(axis=1)]  # (N, K), one-hot
    columns = [1] if classes == 2 else range(classes)  # for two, AUROC of class 0 is the same
    ranks = {column: _midranks(probabilities[:, column]) for column in columns}

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        total = counts.sum(axis=1)  # (R,)
        true, predicted, hit = (
            counts @ tally for tally in (truth, predicted_class, truth * predicted_class)
        )
        auroc = [_auroc(counts, truth[:, k], ranks[k](counts)) for k in columns]
        accuracy = hit.sum(axis=1) / total
        mcc = _mcc(total, true, predicted, hit)
        if classes == 2:
            return {"AUROC": auroc[0], "accuracy": accuracy, "MCC": mcc}
        return {
            "accuracy": accuracy,
            "MCC": mcc,
            "macro F1": _mean_where_defined(_divide(2 * hit, true + predicted)),
            "macro AUROC": _mean_where_defined(np.stack(auroc, axis=1)),
        }

    return measure


def _regression(targets: np.ndarray, predictions: np.ndarray) -> Measure:
    """Return counts (R, N) -> metrics of real-valued predictions, each (R,)."""
    if predictions.ndim > 2 or (predictions.ndim == 2 and predictions.shape[1] != 1):
        raise ValueError(
            f"predictions of a regression must be (N,) or (N, 1), received {predictions.shape}"
        )
    targets, predictions = targets.astype(np.float64), predictions.reshape(-1)
    _check_finite("targets", targets)
    _check_finite("predictions", predictions)
    target_ranks, predicted_ranks = _midranks(targets), _midranks(predictions)
    squares, errors = (predictions - targets) ** 2, np.abs(predictions - targets)
    # Shifting x and y leaves their correlation as it is; around the mean its rounding is least.
    x, y = targets - targets.mean(), predictions - predictions.mean()
    terms = np.stack([x, y, x * x, y * y, x * y], axis=1)  # (N, 5)

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        total = counts.sum(axis=1)
        middle = (total[:, None] + 1) / 2  # the mean of any n ranks, ties or not
        a, b = target_ranks(counts) - middle, predicted_ranks(counts) - middle
        products = [np.einsum("rn,rn->r", counts * u, v) for u, v in ((a, a), (b, b), (a, b))]
        zero = np.zeros_like(total)  # the ranks are centred in each resample
        return {
            "Spearman": _correlation(total, np.stack([zero, zero, *products])),
            "Pearson": _correlation(total, (counts @ terms).T),
            "RMSE": np.sqrt(counts @ squares / total),
            "MAE": counts @ errors / total,
        }

    return measure


def _labels(targets: np.ndarray, predictions: np.ndarray) -> Measure:
    """Return counts (R, N) -> metrics of the probabilities of labels, each (R,)."""
    probabilities = predictions.reshape(targets.shape)
    _check_finite("predictions", probabilities)
    _check_between_0_and_1(probabilities)
    truth = targets.astype(np.float64)  # (N, K)
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(
            f"targets of labels must be 0 or 1, received {truth.min()} and {truth.max()} among them"
        )
    predicted_labels = (probabilities > 0.5).astype(np.float64)  # (N, K)
    exact = (predicted_labels == truth).all(axis=1).astype(np.float64)  # (N,)
    ranks = [_midranks(column) for column in probabilities.T]

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        total = counts.sum(axis=1)  # (R,)
        true, predicted, hit = (
            counts @ tally for tally in (truth, predicted_labels, truth * predicted_labels)
        )
        auroc = [_auroc(counts, truth[:, k], rank(counts)) for k, rank in enumerate(ranks)]
        return {
            "macro AUROC": _mean_where_defined(np.stack(auroc, axis=1)),
            "macro F1": _mean_where_defined(_divide(2 * hit, true + predicted)),
            "subset accuracy": counts @ exact / total,
        }

    return measure


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], Measure]] = {
    "class": _classification,
    "labels": _labels,
    "number": _regression,
}


def _midranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return counts (R, N) -> ranks (R, N) of each record within each resample.

    The values are sorted once. In a resample, copies of a record and records with equal values
    are tied and share the mean of their ranks, as in `scipy.stats.rankdata`.
    """
    _, tie = np.unique(values, return_inverse=True)  # (N,) index of the value among the U
    order = np.argsort(tie, kind="stable")
    starts = np.flatnonzero(np.diff(tie[order], prepend=-1))

    def ranks(counts: np.ndarray) -> np.ndarray:
        size = np.add.reduceat(counts[:, order], starts, axis=1)  # (R, N) -> (R, U)
        return (np.cumsum(size, axis=1) - (size - 1) / 2)[:, tie]  # (R, U) -> (R, N)

    return ranks


def _auroc(counts: np.ndarray, positive: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Mann-Whitney U of the positives over its maximum (Hanley and McNeil 1982)."""
    positives = counts @ positive
    negatives = counts.sum(axis=1) - positives
    rank_sum = np.einsum("rn,rn->r", counts * positive, ranks)
    return _divide(rank_sum - positives * (positives + 1) / 2, positives * negatives)


def _mcc(total: np.ndarray, true: np.ndarray, predicted: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Matthews correlation of K classes (Gorodkin 2004), from class totals, each (R, K)."""
    covariance = hit.sum(axis=1) * total - (true * predicted).sum(axis=1)
    spread_true = total**2 - (true**2).sum(axis=1)
    spread_predicted = total**2 - (predicted**2).sum(axis=1)
    mcc = _divide(covariance, np.sqrt(spread_true * spread_predicted))
    return np.where((spread_predicted == 0) & (spread_true > 0), 0.0, mcc)


def _correlation(total: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Pearson correlation (R,) from the sums (5, R) of x, y, x*x, y*y and x*y over n = total."""
    x, y, xx, yy, xy = sums
    spread_x, spread_y = xx - x**2 / total, yy - y**2 / total
    # The spread of a constant is rounding error, and must become 0.
    spread_x = np.where(spread_x > 1e-12 * xx, spread_x, 0.0)
    spread_y = np.where(spread_y > 1e-12 * yy, spread_y, 0.0)
    return np.clip(_divide(xy - x * y / total, np.sqrt(spread_x * spread_y)), -1.0, 1.0)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with NaN ("undefined") and no warning where the denominator is 0."""
    return np.divide(
        numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0
    )


def _mean_where_defined(values: np.ndarray) -> np.ndarray:
    return _divide(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))


def _check_options(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, such as 0.95; received {confidence}")
    check_integer("resamples", resamples)


def _check_lengths(
    task: Task, targets: np.ndarray, predictions: np.ndarray, groups: ArrayLike | None
) -> None:
    if targets.ndim != (2 if task.target == "labels" else 1):
        expected = "(N, K), a column per label" if task.target == "labels" else "(N,)"
        raise ValueError(f"targets must be {expected}, received shape {targets.shape}")
    if predictions.ndim == 0 or len(predictions) != len(targets):
        received = len(predictions) if predictions.ndim else "a single number"
        raise ValueError(
            f"targets and predictions must have one entry per test record: "
            f"received {len(targets)} targets and {received} predictions"
        )
    if task.target == "labels" and predictions.size != targets.size:
        raise ValueError(
            f"predictions of labels must have the shape of the targets, {targets.shape}, received "
            f"{predictions.shape}"
        )
    if len(targets) < 2:
        raise ValueError(f"a bootstrap needs at least 2 test records, received {len(targets)}")
    if groups is not None and len(np.asarray(groups)) != len(targets):
        raise ValueError(
            f"groups must have one entry per test record: "
            f"received {len(np.asarray(groups))} groups and {len(targets)} targets"
        )


def _check_finite(name: str, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{name} hold NaN or infinity in {len(bad)} of {len(values)} records, "
            f"first at index {bad[0]}"
        )


def _check_probabilities(predictions: np.ndarray) -> np.ndarray:
    """Return probabilities (N, K), or raise an error that describes what is wrong with them."""
    _check_finite("predictions", predictions)
    if predictions.ndim == 1 or predictions.shape[1:] == (1,):
        positive = predictions.reshape(-1)
        predictions = np.stack([1 - positive, positive], axis=1)
    if predictions.ndim != 2:
        raise ValueError(f"probabilities must be (N, K) or (N,), received {predictions.shape}")
    _check_between_0_and_1(predictions)
    sums = predictions.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > 1e-3)  # wide enough for half precision
    if len(wrong):
        raise ValueError(
            f"the probabilities of a record must sum to 1, but those of row {wrong[0]} sum to "
            f"{sums[wrong[0]]:.4g} ({len(wrong)} of {len(sums)} rows are wrong)"
        )
    return predictions


def _check_between_0_and_1(predictions: np.ndarray) -> None:
    outside = np.flatnonzero(((predictions < -1e-6) | (predictions > 1 + 1e-6)).any(axis=1))
    if len(outside):
        raise ValueError(
            f"predictions must be probabilities between 0 and 1, but row {outside[0]} is "
            f"{predictions[outside[0]]}; apply a softmax or sigmoid to logits first"
        )


def _check_classes(targets: np.ndarray, classes: int) -> np.ndarray:
    """Return targets as int64, or raise an error that names one that is not a class."""
    numbers = targets.astype(np.float64)
    _check_finite("targets", numbers)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= classes) | (numbers != np.floor(numbers)))
    if len(wrong):
        raise ValueError(
            f"targets must be classes 0 to {classes - 1}, one per column of the probabilities, "
            f"but the target at index {wrong[0]} is {targets[wrong[0]]}"
        )
    return numbers.astype(np.int64)
