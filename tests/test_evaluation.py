"""Each metric equals scikit-learn's or scipy's, on every resample; intervals cover."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from kft.data.task import Task
from kft.evaluation import metrics as evaluation
from kft.evaluation.metrics import Interval, difference, score, table

pytestmark = pytest.mark.once


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def resamples_of(records, groups=None, number=20, seed=3):
    return np.concatenate(list(evaluation.resample(records, groups, number, seed)))


def chains_of(shape):
    """Targets of two chains, and numbers that are no probabilities."""
    targets, predictions = np.empty(2, object), np.empty(2, object)
    for i in range(2):
        targets[i], predictions[i] = np.zeros(shape[:1] * 2, int), np.ones(shape)
    return targets, predictions


def rows_of(counts):
    return np.repeat(np.arange(len(counts)), counts.astype(int))


def test_binary_metrics_equal_sklearn_on_each_resample(rng):
    targets = rng.integers(2, size=60)
    positive = np.round(np.clip(0.25 * targets + 0.7 * rng.random(60), 0, 1), 1)  # with ties
    counts = resamples_of(60)
    ours = evaluation._classification(targets, positive)(counts)
    for r, drawn in enumerate(map(rows_of, counts)):
        y, p = targets[drawn], positive[drawn]
        assert ours["AUROC"][r] == pytest.approx(metrics.roc_auc_score(y, p), abs=1e-12)
        assert ours["accuracy"][r] == pytest.approx(metrics.accuracy_score(y, p > 0.5), abs=1e-12)
        assert ours["MCC"][r] == pytest.approx(metrics.matthews_corrcoef(y, p > 0.5), abs=1e-12)


def test_multiclass_metrics_equal_sklearn_on_each_resample(rng):
    targets = rng.integers(4, size=80)
    probabilities = rng.dirichlet(np.ones(4), size=80) + np.eye(4)[targets] * 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    counts = resamples_of(80)
    ours = evaluation._classification(targets, probabilities)(counts)
    for r, drawn in enumerate(map(rows_of, counts)):
        y, p = targets[drawn], probabilities[drawn]
        called = p.argmax(axis=1)
        wanted = {
            "accuracy": metrics.accuracy_score(y, called),
            "MCC": metrics.matthews_corrcoef(y, called),
            "macro F1": metrics.f1_score(y, called, average="macro"),
            "macro AUROC": metrics.roc_auc_score(y, p, multi_class="ovr"),
        }
        assert {name: ours[name][r] for name in ours} == pytest.approx(wanted, abs=1e-12)


def test_regression_metrics_equal_scipy_on_each_resample(rng):
    targets = np.round(rng.normal(size=50), 1) + 1e6  # ties, and far from zero
    predictions = np.round(targets + rng.normal(size=50), 1)
    counts = resamples_of(50)
    ours = evaluation._regression(targets, predictions)(counts)
    for r, drawn in enumerate(map(rows_of, counts)):
        y, p = targets[drawn], predictions[drawn]
        wanted = {
            "Spearman": stats.spearmanr(y, p).statistic,
            "Pearson": stats.pearsonr(y, p).statistic,
            "RMSE": metrics.root_mean_squared_error(y, p),
            "MAE": metrics.mean_absolute_error(y, p),
        }
        assert {name: ours[name][r] for name in ours} == pytest.approx(wanted, abs=1e-9)


def test_label_metrics_equal_sklearn_on_each_resample(rng):
    targets = rng.integers(2, size=(60, 3))
    targets[:, 2] = np.arange(60) < 2  # a rare label, which some resamples do not hold
    probabilities = np.round(np.clip(0.3 * targets + 0.6 * rng.random((60, 3)), 0, 1), 1)
    counts = resamples_of(60)
    ours = evaluation._labels(targets, probabilities)(counts)
    undefined = 0
    for r, drawn in enumerate(map(rows_of, counts)):
        y, p = targets[drawn], probabilities[drawn]
        both = [k for k in range(3) if 0 < y[:, k].sum() < len(y)]
        named = [k for k in range(3) if y[:, k].any() or (p[:, k] > 0.5).any()]
        undefined += len(both) < 3
        wanted = {
            "macro AUROC": metrics.roc_auc_score(y[:, both], p[:, both], average="macro"),
            "macro F1": metrics.f1_score(y, p > 0.5, average="macro", labels=named),
            "subset accuracy": metrics.accuracy_score(y, p > 0.5),
        }
        assert {name: ours[name][r] for name in ours} == pytest.approx(wanted, abs=1e-12)
    assert undefined


@pytest.mark.parametrize(
    "task", [task for task in Task if task.level in ("record", "residue") and task != "torsions"]
)
@pytest.mark.parametrize("classes", [2, 4])
def test_a_task_names_its_metrics_the_headline_first(rng, task, classes):
    probabilities = rng.dirichlet(np.ones(classes), size=30)
    targets, predictions = {
        "class": (rng.integers(classes, size=30), probabilities),
        "labels": (rng.integers(2, size=(30, classes)), probabilities),
        "number": (rng.normal(size=30), rng.normal(size=30)),
    }[task.target]
    scores = score(task, targets, predictions, resamples=2, groups=np.arange(30))
    assert tuple(scores) == task.metrics(classes)
    assert scores.headline == task.headline(classes)


def test_interval_is_the_percentile_bootstrap_of_scipy(rng):
    targets = rng.normal(size=300)
    predictions = targets + rng.normal(size=300)
    ours = score("regression", targets, predictions, confidence=0.9, resamples=4000)["RMSE"]
    scipys = stats.bootstrap(
        ((predictions - targets) ** 2,),
        lambda squares, axis: np.sqrt(squares.mean(axis=axis)),
        method="percentile",
        confidence_level=0.9,
        n_resamples=4000,
        rng=1,
    ).confidence_interval
    assert [ours.low, ours.high] == pytest.approx(scipys, rel=0.01)


def test_headline_comes_first_and_shapes_are_alike():
    y, p = [0, 0, 1, 1], np.array([0.1, 0.6, 0.4, 0.9])
    flat, column = score("classification", y, p), score("classification", y, p[:, None])
    assert flat == column == score("classification", y, np.stack([1 - p, p], axis=1))
    assert flat.headline == "AUROC"
    assert score("classification", [0, 1, 2], np.eye(3)).headline == "accuracy"
    assert score("regression", [1.0, 2.0], [[1.0], [2.0]]).headline == "Spearman"


def test_95_percent_intervals_cover_the_truth():
    rng = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.5 * 0.6)  # Spearman of a normal pair correlated 0.6
    hits = 0
    for trial in range(200):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=200).T
        interval = score("regression", x, y, resamples=300, seed=trial)["Spearman"]
        hits += interval.low <= truth <= interval.high
    assert 0.90 <= hits / 200 <= 0.985


def test_seed_fixes_the_resamples_and_blocks_do_not_change_them(rng, monkeypatch):
    y, p = rng.normal(size=40), rng.normal(size=40)
    first = score("regression", y, p, seed=1)
    assert first != score("regression", y, p, seed=2)
    monkeypatch.setattr(evaluation, "_BLOCK", 40 * 7)
    again = score("regression", y, p, seed=1)
    assert all(again[name] == pytest.approx(first[name], abs=1e-12) for name in first)


def test_difference_is_paired(rng):
    targets = rng.normal(size=200)
    predictions = targets + rng.normal(size=200)
    nearly = predictions + 0.05 * rng.normal(size=200)
    assert difference("regression", targets, predictions, predictions)["RMSE"] == (0, 0, 0)
    gap = difference("regression", targets, predictions, nearly)["Spearman"]
    own = score("regression", targets, predictions)["Spearman"]
    other = score("regression", targets, nearly)["Spearman"]
    assert gap.value == pytest.approx(own.value - other.value)
    assert gap.high - gap.low < 0.5 * (own.high - own.low)


def test_groups_are_drawn_whole(rng):
    groups = np.repeat(list("abcdefghij"), 12)
    counts = resamples_of(120, groups).reshape(20, 10, 12)
    assert (counts == counts[:, :, :1]).all() and (counts.sum(axis=(1, 2)) == 120).all()
    # Twelve copies of ten records hold ten records' worth of information.
    y, p = np.repeat(rng.normal(size=10), 12), np.repeat(rng.normal(size=10), 12)
    alone, whole = (score("regression", y, p, groups=g)["RMSE"] for g in (None, groups))
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


def test_undefined_scores_are_said_to_be_undefined(rng):
    targets = rng.normal(size=30)
    mean = score("regression", targets, np.full(30, 0.1))
    assert str(mean["Spearman"]) == str(mean["Pearson"]) == "undefined"
    assert mean["RMSE"].low < mean["RMSE"].value < mean["RMSE"].high
    assert json.loads(json.dumps(mean.to_dict()))["Spearman"]["value"] is None
    one_class = score("classification", np.ones(5, int), rng.random(5))
    assert str(one_class["AUROC"]) == str(one_class["MCC"]) == "undefined"
    assert not math.isnan(one_class["accuracy"].value)
    constant = score("classification", [0, 1, 1, 1], np.full(4, 0.9))
    assert constant["AUROC"] == (0.5, 0.5, 0.5) and constant["MCC"] == (0, 0, 0)


def test_rounding_error_is_no_correlation(rng):
    measure = evaluation._regression(rng.normal(size=30), rng.normal(size=30))
    one_record_only = measure(7 * np.eye(30))
    assert np.isnan(one_record_only["Pearson"]).all()
    assert np.isnan(one_record_only["Spearman"]).all()


def test_resamples_of_one_class_are_left_out():
    interval = score("classification", [0, 1, 1], [0.2, 0.1, 0.9])["AUROC"]
    assert interval == (0.5, 0.0, 1.0)


def test_macro_metrics_pass_over_a_class_that_is_absent():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]])
    scores = score("classification", [0, 0, 1, 1], probabilities)
    assert scores["macro F1"].value == scores["macro AUROC"].value == 1.0


def test_numbers_print_at_a_readable_precision():
    assert str(Interval(0.9123, 0.895, 0.9278)) == "0.912 [0.895, 0.928]"
    assert str(Interval(1234.5, 1200.4, 1301.0)) == "1,234.5 [1,200.4, 1,301.0]"
    assert str(Interval(0.00123, 0.001, 0.00142)) == "0.00123 [0.001, 0.00142]"


def test_table_has_a_row_per_model_and_a_column_per_metric():
    y = [1.0, 2.0, 3.0, 4.0]
    frame = table({"model": score("regression", y, y), "mean": score("regression", y, [2.5] * 4)})
    assert list(frame.index) == ["model", "mean"]
    assert list(frame.columns) == ["Spearman", "Pearson", "RMSE", "MAE"]
    assert frame.loc["model", "Spearman"] == "1.000 [1.000, 1.000]"
    assert frame.loc["mean", "Spearman"] == "undefined"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ranking", [0, 1], [0, 1]), "one of classification, multilabel, regression.*'ranking'"),
        (("regression", [1, 2, 3], [1, 2]), "3 targets and 2 predictions"),
        (("regression", [1.0, 2, 3, 4], [1, np.nan, 3, np.nan]), "2 of 4 records.*index 1"),
        (("regression", [1.0, np.inf, 3], [1, 2, 3]), "targets hold NaN or infinity.*index 1"),
        (("regression", [1.0, 2.0], [[1, 2], [3, 4]]), r"\(N, 1\)"),
        (("regression", [1.0], [1.0]), "at least 2 test records"),
        (("multilabel", [0, 1], [0.2, 0.7]), r"\(N, K\), a column per label"),
        (("multilabel", [[0, 1], [1, 0]], [[0.2], [0.7]]), r"the shape of the targets, \(2, 2\)"),
        (("multilabel", [[0, 1], [1, 0]], [[0.2, 1.7], [0, 0]]), "between 0 and 1.*row 0"),
        (("multilabel", [[0, 1], [2, 0]], [[0.2, 0.7], [0, 0]]), "must be 0 or 1"),
        (("classification", [0, 1], [0.2, 1.7]), "between 0 and 1.*row 1"),
        (("classification", [0, 1], [[0.5, 0.5], [0.5, 0.4]]), "row 1 sum to 0.9"),
        (
            ("classification", [0, 1], np.ones((2, 1, 2))),
            r"\(N, K\) or \(N,\), received \(2, 1, 2\)",
        ),
        (("classification", [0, 2], [[0.5, 0.5], [0.5, 0.5]]), "classes 0 to 1.*index 1 is 2"),
        (("residue_classification", [0, 1], [0.5, 0.5]), "needs groups"),
        (("contacts", *chains_of((4, 3, 2))), r"chain 0 must be probabilities \(L, L, K\)"),
        (("contacts", *chains_of((9, 9, 2))), "predictions of chain 0 .* that sum to 1"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(*arguments)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        (np.zeros((4, 3)), r"sines and cosines \(N, 6\), received \(4, 3\) and \(4, 3\)"),
        (np.full((4, 6), np.nan), "predictions of torsions must not hold NaN or infinity"),
    ],
)
def test_predictions_that_are_no_angles_are_named(predictions, message):
    with pytest.raises(ValueError, match=message):
        score("torsions", np.zeros((4, 3)), predictions, groups=[0, 0, 1, 1])


def test_probabilities_of_other_classes_are_not_compared():
    with pytest.raises(ValueError, match="must have the same number of classes"):
        difference("classification", [0, 1] * 4, [0.2, 0.9] * 4, np.eye(3)[[0, 1] * 4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 95}, "confidence.*95"),
        ({"resamples": 0}, "resamples"),
        ({"groups": ["a"]}, "1 groups and 3 targets"),
        ({"groups": ["a", "a", "a"]}, "2 different groups"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        score("regression", [1.0, 2, 3], [1.0, 2, 3], **options)
