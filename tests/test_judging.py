"""What judges a model holds what it says, equals the libraries, and refuses what is no number."""

import math

import judged
import numpy as np
import pandas as pd
import pytest
from crepes import ConformalClassifier, ConformalRegressor
from fairlearn.metrics import MetricFrame
from scipy import stats
from sklearn.metrics import accuracy_score, mean_absolute_error, roc_auc_score

from kft.evaluation.calibration import fit_temperature, judge_calibration, with_temperature
from kft.evaluation.conformal import fit_conformal
from kft.evaluation.crossvalidation import CrossValidated, corrected_t_test, folds
from kft.evaluation.groups import audit
from kft.evaluation.means import mean_interval, minus
from kft.evaluation.metrics import Interval, Scored, interval, resample, score
from kft.evaluation.outliers import detection, fit_outliers
from kft.evaluation.shares import share_interval
from kft.evaluation.significance import (
    against_best,
    difference,
    resampled,
    within_one_error,
    without,
)
from kft.evaluation.transfer import judge_transfer

pytestmark = pytest.mark.once


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def doubt(share, count):
    """Three standard errors of a share of so many sets."""
    return 3 * math.sqrt(share * (1 - share) / count)


# Coverage and levels ----------------------------------------------------------------------------


@pytest.mark.parametrize("sets", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_intervals_of_means_cover(sets):
    for name, share in judged.coverage_of_means(sets).items():
        assert abs(share - 0.9) < 0.02 + doubt(0.9, sets), (name, share)


@pytest.mark.parametrize("sets", [150, pytest.param(2000, marks=pytest.mark.long)])
def test_conformal_sets_cover_in_every_group_with_thresholds_by_group(sets):
    covered = judged.conformal_coverage(sets)
    for (task, by, part), share in covered.items():
        if by == "by group" or part == "all":
            assert abs(share - 0.9) < 0.02, (task, by, part, share)
    # One threshold for both kinds fails in each: what the groups are for.
    assert covered["regression", "one threshold", "group 1"] < 0.85


@pytest.mark.parametrize("sets", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_tests_hold_their_level_and_find_what_is_there(sets):
    for level, effect in (
        (judged.level_of_audit, {"effect": 2.5}),
        (lambda sets, **options: judged.level_of_audit(sets, 3, **options), {"effect": 2.5}),
        (judged.level_of_transfer, {"shift": 3.0}),
        (judged.level_of_calibration, {"sharpness": 3.0}),
    ):
        assert level(sets) < 0.05 + doubt(0.05, sets)
        assert level(sets // 3, **effect) > 0.8


def test_the_corrected_t_test_holds_its_level_where_the_naive_one_fails():
    corrected, naive = judged.levels_of_cross_validation(600)
    assert corrected < 0.05 + doubt(0.05, 600)
    assert naive > 0.3
    assert judged.levels_of_cross_validation(100, effect=1.0)[0] > 0.8


def test_a_biased_training_set_is_caught_and_a_balanced_one_is_not():
    caught = [
        sum(judged.faces(persons, seed).differs for seed in range(20))
        for persons in (judged.BIASED, judged.BALANCED)
    ]
    assert caught[0] >= 18
    assert caught[1] <= 3  # 1 is expected


# Intervals of means -----------------------------------------------------------------------------


def test_the_ends_of_a_share_are_as_improbable_as_stated():
    for hits, n in ((0, 5), (3, 8), (97, 100), (7, 7)):
        share, low, high = mean_interval(np.arange(n) < hits, confidence=0.9)
        seen = stats.binom.pmf(hits, n, [low, high]) / 2
        if hits:
            assert stats.binom.sf(hits, n, low) + seen[0] == pytest.approx(0.05)
        if hits < n:
            assert stats.binom.cdf(hits - 1, n, high) + seen[1] == pytest.approx(0.05)
        assert low <= share == hits / n <= high
    assert mean_interval([False] * 5).low == 0 and mean_interval([True] * 5).high == 1


def test_intervals_of_shares_cover_as_the_binomial_distribution_says():
    hits, truths = np.arange(101), np.linspace(0.5, 0.995, 100)
    ends = np.array([share_interval(k / 100, 100, 0.9) for k in hits])

    def coverage(truth):
        there = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
        return stats.binom.pmf(hits, 100, truth)[there].sum()

    assert coverage(0.97) == pytest.approx(0.921, abs=0.001)
    covered = [coverage(truth) for truth in truths]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)
    assert min(covered) > 0.86


def test_accuracies_have_the_interval_of_a_share_where_records_are_independent():
    targets, stated = np.arange(40) % 2, np.where(np.arange(40) < 38, np.arange(40) % 2, 0.5)
    right = (stated > 0.5) == targets
    weights = np.r_[np.ones(30), np.full(10, 3.0)]
    for weight in (None, weights):
        expected = mean_interval(right, weights=weight)
        found = score("classification", targets, stated, weights=weight)["accuracy"]
        one = resampled("classification", targets, [stated], weights=weight)["accuracy"]
        assert found == one.interval() == pytest.approx(expected)
    clusters = np.arange(40) // 4
    found = score("classification", targets, stated, groups=clusters)["accuracy"]
    assert found == pytest.approx(mean_interval(right, clusters))
    several = resampled("classification", targets, [stated, stated])["accuracy"].interval()
    draws = np.concatenate([x @ right / 40 for x in resample(40, None, 2000, 0)])
    assert several == pytest.approx(interval(several.value, draws, 0.95))
    part, _ = without("classification", targets, [stated], np.arange(40) < 20, weights=weights)
    assert part["accuracy"].interval() == pytest.approx(mean_interval(right[:20]))


# Weights of records -----------------------------------------------------------------------------


def test_a_record_of_weight_two_counts_twice_and_one_of_weight_0_not_at_all(rng):
    n = 60
    targets, by = rng.integers(2, size=n), rng.choice(["a", "b"], n)
    chances = np.clip(0.5 * targets + 0.6 * rng.random(n) - 0.05, 0, 1)
    weights = rng.integers(0, 3, n)
    again = np.repeat(np.arange(n), weights)
    whole = Scored(targets, chances, None, weights)
    repeated, task = Scored(targets[again], chances[again]), "classification"
    one, other = (
        audit(task, x, names, resamples=200) for x, names in ((whole, by), (repeated, by[again]))
    )
    np.testing.assert_allclose(one.table["accuracy"], other.table["accuracy"])
    np.testing.assert_allclose(one.table["AUROC"], other.table["AUROC"])
    assert one.gap.value == pytest.approx(other.gap.value)
    used = weights > 0
    alone = Scored(targets[used], chances[used], None, weights[used])
    assert audit(task, alone, by[used], resamples=200).p == one.p
    by_group = whole._replace(weights=np.where(by == "a", 5.0, 0.1))
    plain = audit(task, whole._replace(weights=None), by, resamples=200)
    assert audit(task, by_group, by, resamples=200).p == plain.p
    left_out = np.where(used, by, None)
    assert audit(task, whole, left_out, resamples=200).left_out == (~used).sum()
    one, other = (
        judge_calibration(task, *x[:2], weights=x.weights, resamples=50) for x in (whole, repeated)
    )
    assert one.error.value == pytest.approx(other.error.value)
    np.testing.assert_allclose(
        one.bins[["confidence", "right"]], other.bins[["confidence", "right"]]
    )
    assert one.bins["records"].sum() == used.sum()
    one, other = (fit_temperature(task, *x[:2], x.weights) for x in (whole, repeated))
    assert one == pytest.approx(other, rel=1e-4)
    equal = np.full(n, 7.0)
    assert mean_interval(targets == 1, weights=equal) == pytest.approx(mean_interval(targets == 1))
    assert mean_interval(chances, weights=equal) == pytest.approx(mean_interval(chances))
    for wrong, message in ((-1.0, "at least 0"), (0.0, "0 for every record|above 0")):
        nothing = whole._replace(weights=np.full(n, wrong))
        with pytest.raises(ValueError, match=message):
            audit(task, nothing, by)
        with pytest.raises(ValueError, match=message):
            judge_calibration(task, targets, chances, weights=nothing.weights)


def test_one_record_has_a_mean_and_no_interval_and_none_has_neither():
    assert mean_interval([2.5])[0] == 2.5
    assert str(mean_interval([2.5])) == "2.500 (no interval)"
    assert str(mean_interval([])) == "undefined"
    assert math.isnan(mean_interval([0.5, 0.7], ["a", "a"]).low)
    assert math.isnan(minus(mean_interval([2.5]), Interval(1, 0, 2)).low)


# Calibration ------------------------------------------------------------------------------------


def test_the_error_is_that_of_its_formula(rng):
    chances = rng.dirichlet([1, 1, 1], 200)
    targets = rng.integers(3, size=200)
    confidence, right = chances.max(axis=1), chances.argmax(axis=1) == targets
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    found = judge_calibration("classification", targets, chances, bins=10, resamples=20)
    assert found.error.value == pytest.approx(expected)
    assert found.bins["records"].sum() == 200


@pytest.mark.parametrize("shape", ["two columns", "one column", "three classes", "labels"])
def test_the_temperature_of_sharpened_probabilities_is_found(rng, shape):
    columns = 3 if shape in ("three classes", "labels") else 2
    logits = 1.5 * rng.standard_normal((4000, columns))
    task = "multilabel" if shape == "labels" else "classification"
    if shape == "labels":
        true = 1 / (1 + np.exp(-logits))
        targets = (rng.random(true.shape) < true).astype(int)
        sharp = 1 / (1 + np.exp(-3 * logits))
    else:
        true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        targets = (true.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1)
        sharp = np.exp(3 * logits) / np.exp(3 * logits).sum(axis=1, keepdims=True)
    if shape == "one column":
        true, sharp = true[:, 1], sharp[:, 1]
    found = fit_temperature(task, targets, sharp)
    assert found == pytest.approx(3, rel=0.1)
    np.testing.assert_allclose(with_temperature(task, sharp, 3.0), true, atol=2e-3)
    before, after = (
        judge_calibration(task, targets, values, resamples=50)
        for values in (sharp, with_temperature(task, sharp, found))
    )
    assert after.error.value < 0.3 * before.error.value
    assert after.error.low < 2 * after.expected


@pytest.mark.parametrize(
    ("targets", "stated"),
    [([0, 1, 1], [0.1, 0.8, 0.9]), ([1, 0], [0.1, 0.9]), ([0, 1], [0.5, 0.5])],
    ids=["all right", "all wrong", "all equal"],
)
def test_there_is_no_temperature_where_none_is_best(targets, stated):
    assert math.isnan(fit_temperature("classification", targets, stated))


def test_outcomes_in_groups_have_no_test_of_independent_ones():
    found = judge_calibration("classification", [0, 1, 1, 0], [0.1, 0.9, 0.9, 0.9],
                              groups=[0, 0, 1, 1])  # fmt: skip
    assert math.isnan(found.p) and not math.isnan(found.error.low)


# Conformal sets ---------------------------------------------------------------------------------


def test_the_interval_of_the_calibration_error_holds_it():
    stated = np.repeat([0.25, 0.45, 0.65, 0.85], 20)
    right = np.concatenate([np.arange(20) < 20 * share for share in (0.25, 0.45, 0.65, 0.85)])
    found = judge_calibration("classification", right.astype(int), stated).error
    assert found.value == pytest.approx(0, abs=1e-12)  # resamples are further off, all of them
    assert found.low <= found.value < found.high


def test_sets_and_intervals_are_those_of_crepes(rng):
    chances = rng.dirichlet([1, 1, 1], 150)
    targets = rng.integers(3, size=150)
    groups = np.arange(150) % 2
    numbers, predicted = rng.standard_normal((2, 150))
    old, new = slice(0, 100), slice(100, None)
    for by in (None, groups):
        before, after = (None, None) if by is None else (by[old], by[new])
        ours = fit_conformal("classification", targets[old], chances[old], 0.8, before)
        theirs = ConformalClassifier().fit(1 - chances[old][np.arange(100), targets[old]], before)
        expected = theirs.predict_set(1 - chances[new], after, confidence=0.8, smoothing=False)
        np.testing.assert_array_equal(ours.sets(chances[new], after), expected)
        ours = fit_conformal("regression", numbers[old], predicted[old], 0.8, before)
        theirs = ConformalRegressor().fit(numbers[old] - predicted[old], bins=before)
        expected = theirs.predict_int(predicted[new], bins=after, confidence=0.8)
        np.testing.assert_allclose(ours.intervals(predicted[new], after), expected)


def test_too_few_held_out_records_give_sets_of_everything():
    found = fit_conformal("classification", [0, 1, 1], [0.1, 0.9, 0.8], 0.9)
    assert found.thresholds == {None: math.inf}
    assert found.sets([0.999]).all()
    assert np.isinf(fit_conformal("regression", [1.0], [2.0]).intervals([0.0])).all()


def test_a_group_without_held_out_records_is_named():
    found = fit_conformal("regression", np.arange(40.0), np.zeros(40), groups=["a"] * 40)
    with pytest.warns(UserWarning, match="1 groups have no held-out records.*: b"):
        ends = found.intervals([0.0, 0.0], ["a", "b"])
    assert np.isinf(ends).tolist() == [[False, False], [True, True]]
    with pytest.raises(ValueError, match="groups must be given"):
        found.intervals([0.0])


def test_labels_have_no_conformal_sets():
    with pytest.raises(ValueError, match="task must be one of .*received 'multilabel'"):
        fit_conformal("multilabel", [[0, 1]], [[0.1, 0.9]])


@pytest.mark.parametrize(
    ("targets", "predictions", "options", "message"),
    [
        ([0, 1], [0.1, 0.9], {"confidence": 1.0}, "confidence must be between 0 and 1, received"),
        ([], [], {}, "targets must hold at least one held-out record, received none"),
        ([0, 1], [0.1], {}, "must have one entry per record, received 2 and 1"),
        ([0, 1], [0.1, 0.9], {"groups": ["a"]}, "one name per record: received 1 for 2"),
    ],
)
def test_held_out_records_that_give_no_sets_are_refused(targets, predictions, options, message):
    with pytest.raises(ValueError, match=message):
        fit_conformal("classification", targets, predictions, **options)


def test_classes_have_sets_and_numbers_have_intervals():
    classes = fit_conformal("classification", [0, 1], [0.1, 0.9])
    numbers = fit_conformal("regression", [0.0, 1.0], [0.1, 0.9])
    with pytest.raises(ValueError, match="intervals are for numbers, this task is classification"):
        classes.intervals([0.5])
    with pytest.raises(ValueError, match="sets are for classes, this task is regression"):
        numbers.sets([0.5])


# Groups -----------------------------------------------------------------------------------------


def test_scores_by_group_are_those_of_fairlearn(rng):
    targets, by = rng.integers(2, size=90), rng.choice(["a", "b", "c"], 90)
    chances = np.clip(0.3 * targets + 0.7 * rng.random(90), 0, 1)
    found = audit("classification", Scored(targets, chances), by, resamples=20).table
    options = {"y_true": targets, "sensitive_features": by}
    right = MetricFrame(metrics=accuracy_score, y_pred=chances > 0.5, **options).by_group
    area = MetricFrame(metrics=roc_auc_score, y_pred=chances, **options).by_group
    np.testing.assert_allclose(found["accuracy"], right)
    np.testing.assert_allclose(found["AUROC"], area)
    numbers = Scored(targets + chances, chances)
    errors = MetricFrame(
        metrics=mean_absolute_error, y_true=targets + chances, y_pred=chances, sensitive_features=by
    )
    found = audit("regression", numbers, by, resamples=20)
    np.testing.assert_allclose(found.table["MAE"], errors.by_group)
    assert found.gap.value == pytest.approx(errors.difference())


def test_groups_of_one_record_and_records_without_a_group_are_named():
    scored = Scored(np.array([0, 1, 1, 0, 1, 1]), np.array([0.1, 0.9, 0.2, 0.4, 0.8, 0.9]))
    found = audit("classification", scored, ["a", "a", "a", "b", "c", None], resamples=50)
    text = str(found)
    assert "Of one record, so left out of the gap: b, c." in text
    assert "Left out: 1 record without group" in text
    assert math.isnan(found.gap.value)  # one group of several records
    assert "b (n = 1) 1.000 (no interval)" in text or "b (n = 1) 1.000 [" in text
    assert math.isnan(found.table.loc["b", "AUROC"] if "AUROC" in found.table else math.nan)


def test_one_group_or_one_outcome_has_no_test():
    scored = Scored(np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.9, 0.1]))
    for by in (["a"] * 4, ["a", "a", "b", "b"]):
        found = audit("classification", scored, by, resamples=20)
        assert math.isnan(found.p) and not found.differs
        assert "No test" in str(found)
    with pytest.raises(ValueError, match="by must name the group of each of 4 records, received 2"):
        audit("classification", scored, ["a", "b"])
    with pytest.raises(ValueError, match="sex is missing in every record"):
        audit("classification", scored, [None] * 4, "sex")


# Transfer ---------------------------------------------------------------------------------------


def test_verdicts_in_words(rng):
    truth = rng.standard_normal(200)
    good, bad = truth + 0.5 * rng.standard_normal(200), rng.standard_normal(200)
    source, mean = Scored(truth, good), np.zeros(200)
    same = judge_transfer("regression", source, source, mean, "the mean", resamples=99)
    assert same.transferable and same.verdict.startswith("transferable: no fine-tuning needed.")
    lost = judge_transfer("regression", source, Scored(truth, bad), mean, resamples=99)
    assert lost.transferable is False and lost.p_loss == 0.01
    assert "fine-tune: the model loses 0." in str(lost)
    better = judge_transfer("regression", source, source, truth, "an oracle", resamples=99)
    assert better.verdict == "fine-tune: the model is not shown to be better than an oracle there."
    for words in ("Null hypothesis 1", "Alternative: it scores lower", "p = 0.01"):
        assert words in str(lost)


def test_a_score_that_is_undefined_leaves_it_undecided():
    here = Scored(np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.2, 0.7]))
    there = Scored(np.array([1, 1, 1]), np.array([0.9, 0.8, 0.7]))
    found = judge_transfer("classification", here, there, np.full(3, 0.5), resamples=20)
    assert found.transferable is None
    assert "undecided: AUROC is undefined" in str(found)
    assert "p = undefined" in str(found)
    with pytest.raises(ValueError, match="predictions hold NaN or infinity in 1 of 3 records"):
        there = there._replace(predictions=np.array([0.9, math.nan, 0.7]))
        judge_transfer("classification", here, there, np.full(3, 0.5))


def test_groups_of_two_data_sets_are_drawn_apart_whatever_their_names(rng):
    """Group 0 of the one is not group 0 of the other: other names give the same test."""
    truth, noise = rng.normal(size=(2, 60))
    groups = np.repeat(np.arange(12), 5)
    here, there = Scored(truth, truth + noise, groups), Scored(truth, noise, groups)
    renamed = there._replace(groups=groups + 100)
    found, other = (
        judge_transfer("regression", here, one, noise[::-1], resamples=50)
        for one in (there, renamed)
    )
    assert found == other and not math.isnan(found.p_loss)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"level": 1.0}, "level must be between 0 and 1, such as 0.05; received 1.0"),
        ({"groups": np.arange(6)}, {}, "must both have groups, or neither"),
        (
            {"targets": np.arange(6) % 3, "predictions": np.eye(3)[[0, 1, 2] * 2]},
            {},
            "must have the same number of classes",
        ),
    ],
)
def test_data_that_cannot_be_compared_are_refused(change, options, message):
    source = Scored(np.array([0, 1] * 3), np.linspace(0.1, 0.9, 6))
    with pytest.raises(ValueError, match=message):
        other = source._replace(**change)
        judge_transfer("classification", source, other, np.full(6, 0.5), resamples=20, **options)


# Outliers ---------------------------------------------------------------------------------------


def test_distances_are_in_units_of_the_spread(rng):
    mixed = rng.standard_normal((2000, 3)) @ np.array([[1, 0.9, 0], [0, 1, 0], [0, 0, 9.0]])
    found = fit_outliers(mixed[:1000], mixed[1000:])
    expected = stats.chi2(3).cdf(found.score(mixed[1000:]) ** 2)
    assert stats.kstest(expected, "uniform").pvalue > 0.01
    assert stats.kstest(found.p_values(mixed[1000:]), "uniform").statistic < 0.01
    along, across = [[3.0, 3.0, 0.0]], [[3.0, -3.0, 0.0]]
    assert found.score(across) > 2 * found.score(along)


def test_features_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="features hold NaN or infinity in 1 of 2 records"):
        fit_outliers([[1.0, 2.0], [math.nan, 2.0]])
    with pytest.raises(ValueError, match="all of them are the same"):
        fit_outliers(np.ones((4, 2)))
    with pytest.raises(ValueError, match="at least two records, received 1"):
        fit_outliers(np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"shape \(records, features\), received \(4,\)"):
        fit_outliers(np.arange(4.0))
    with pytest.raises(ValueError, match=r"shape \(records, 4\), received \(3, 2\)"):
        fit_outliers(np.eye(4)).score(np.ones((3, 2)))
    with pytest.raises(ValueError, match="p-values need held-out records"):
        fit_outliers(np.eye(4)).p_values(np.eye(4))
    with pytest.raises(ValueError, match="must be finite scores"):
        detection([1.0, math.nan], [2.0])
    assert math.isnan(detection([1.0, 2.0], []).value)


# Cross-validation -------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("stratified", [False, True])
def test_every_record_is_tested_once_per_repeat_and_groups_stay_together(grouped, stratified):
    groups, classes = np.arange(60) // 3, (np.arange(60) // 3) % 2
    options = {"groups": groups if grouped else None, "stratify": classes if stratified else None}
    first, second = folds(60, 5, 2, **options)
    assert (first != second).any()
    for places in (first, second):
        assert np.bincount(places).tolist() == [12] * 5
        if grouped:
            assert all(len(set(places[groups == group])) == 1 for group in groups)
        if stratified:
            shares = [classes[places == fold].mean() for fold in range(5)]
            assert max(shares) - min(shares) < 0.3
    np.testing.assert_array_equal(first, folds(60, 5, **options)[0])


def test_too_many_folds_are_refused():
    with pytest.raises(ValueError, match="k must be at most the number of groups, 3, received 4"):
        folds(9, 4, groups=np.arange(9) // 3)
    with pytest.raises(ValueError, match="k must be an integer of at least 2, received 1"):
        folds(9, 1)


def test_where_no_class_has_a_record_for_each_fold_classes_do_not_count():
    (dealt,) = folds(9, 3, stratify=np.arange(9) // 2)
    (same,) = folds(9, 3)
    np.testing.assert_array_equal(dealt, same)


def test_the_corrected_test_is_that_of_the_paper():
    differences = np.array([0.03, 0.01, 0.04, -0.01, 0.02])
    t = differences.mean() / math.sqrt((1 / 5 + 0.25) * differences.var(ddof=1))
    found = corrected_t_test(differences, 0.25)
    assert (found.t, found.p) == pytest.approx((t, 2 * stats.t.sf(t, 4)))
    naive = stats.ttest_1samp(differences, 0)
    assert found.t == pytest.approx(naive.statistic * math.sqrt(0.2 / 0.45))


def test_differences_that_do_not_vary_have_no_test():
    assert corrected_t_test([0.0] * 5, 0.25).p == 1
    assert math.isnan(corrected_t_test([0.1] * 5, 0.25).p)
    assert math.isnan(corrected_t_test([0.1], 0.25).mean.low)
    with pytest.raises(ValueError, match="one finite number per fold"):
        corrected_t_test([0.1, math.nan], 0.25)


def test_methods_on_folds_are_compared_like_others(rng):
    base = rng.normal(0.7, 0.05, 10)
    good, same, bad = (CrossValidated(base + x, 0.25, (0, 1)) for x in (0.1, 0.0995, 0.0))
    bad = CrossValidated(bad.seeds + rng.normal(0, 0.01, 10), 0.25, (0, 1))
    standings = against_best([good, same, bad])
    assert standings[0].p == 1 and standings[2].corrected < 0.01
    assert difference(good, bad).low > 0
    assert within_one_error([good, same, bad], [9, 1, 0]) == 1
    records = resampled("regression", base, [base], 10)["Spearman"]
    with pytest.raises(TypeError, match="must all be scored on folds"):
        difference(good, records)
    undefined = CrossValidated(np.full(10, math.nan), 0.25)
    assert str(undefined.interval()) == "undefined" and math.isnan(undefined.error)
    assert against_best([good, undefined])[1] is None


def test_a_table_of_groups_keeps_the_order_of_names():
    scored = Scored(np.arange(4.0), np.zeros(4))
    found = audit("regression", scored, pd.Series(["b", "a", "b", "a"]), resamples=20)
    assert found.table.index.tolist() == ["a", "b"]
