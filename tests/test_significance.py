"""Intervals hold the truth as often as they say, tests err as seldom as they say."""

import numpy as np
import pytest
from scipy import stats
from simulated import WORLDS, coverage, rejections

from kft.evaluation import metrics as evaluation
from kft.evaluation.significance import (
    Resampled,
    against_best,
    difference,
    resampled,
    within_one_error,
)

pytestmark = pytest.mark.once


def method(value, error=0.01, noise=0.0, seed=0):
    """A method of known score and error by records; `noise` is its part by seeds."""
    rng = np.random.default_rng(seed)
    records = value + rng.normal(0, error, 2000)
    spread = np.arange(-2, 3) / np.sqrt(2.5)  # of variance 1
    return Resampled(value + noise * np.sqrt(5) * spread, value, records, noise**2)


# Coverage and size --------------------------------------------------------------------------------


def doubt(share, count):
    """Three standard errors of a share that was counted on so many data sets."""
    return 3 * np.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize("sets", [20, pytest.param(300, marks=pytest.mark.long)])
def test_intervals_cover_and_the_test_keeps_its_level(sets):
    """Data sets of each of five worlds: 90% intervals, and a test at 5% under the null."""
    covered = [coverage(world, sets, resamples=200) for world in WORLDS.values()]
    rejected = [rejections(world, sets=sets, resamples=200)[0] for world in WORLDS.values()]
    for shares, expected in ((covered, 0.9), (rejected, 0.05)):
        assert abs(np.mean(shares) - expected) < doubt(expected, sets * len(shares)), shares
        assert np.abs(np.array(shares) - expected).max() < doubt(expected, sets) + 0.01, shares


@pytest.mark.parametrize("sets", [5, pytest.param(40, marks=pytest.mark.long)])
def test_of_many_equal_methods_hardly_any_is_called_worse(sets):
    """Five methods that are all equally good: Holm's p at 5%."""
    found = [rejections(world, 5, sets=sets, resamples=200)[1] for world in WORLDS.values()]
    assert np.mean(found) < 0.05 + doubt(0.05, sets * len(found)), found


# Scores over seeds --------------------------------------------------------------------------------


def test_the_value_is_the_mean_over_seeds():
    targets = np.array([0, 1, 0, 1, 1, 0])
    predictions = np.random.default_rng(0).random((3, 6))
    found = resampled("classification", targets, predictions, 50)
    each = [evaluation.score("classification", targets, p, resamples=50) for p in predictions]
    assert list(found) == ["AUROC", "accuracy", "MCC"]
    for name, one in found.items():
        np.testing.assert_allclose(one.seeds, [row[name].value for row in each])
        assert one.value == pytest.approx(np.mean(one.seeds))


def test_one_seed_has_the_interval_of_evaluation():
    rng = np.random.default_rng(1)
    targets, predictions, groups = rng.normal(size=40), rng.normal(size=40), np.arange(40) // 2
    one = resampled("regression", targets, [predictions], 300, groups=groups)["Spearman"]
    expected = evaluation.score("regression", targets, predictions, resamples=300, groups=groups)
    assert one.interval() == pytest.approx(expected["Spearman"])
    assert one.variance == 0


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(2)
    targets = rng.integers(2, size=200)
    same = np.clip(0.3 * targets + 0.7 * rng.random(200), 0, 1)
    weights = np.array([0.2, 1.0, 0.6])[:, None]
    other = weights * same + (1 - weights) * rng.random((3, 200))

    def width(predictions):
        interval = resampled("classification", targets, predictions, 500)["AUROC"].interval()
        return interval.high - interval.low

    assert width(other) > 1.5 * width([same] * 3)


def test_what_records_explain_is_not_counted_twice():
    """Seeds that differ by their errors on single records alone have no spread of their own."""
    world = WORLDS["AUROC, 5 seeds"]
    rng, shares = np.random.default_rng(0), []
    for _ in range(40):
        targets, _, _ = world.draw([1.0], rng)
        predictions = stats.norm.cdf(targets + rng.standard_normal((5, len(targets))))
        score = resampled("classification", targets, predictions, 200)["AUROC"]
        shares.append(score.variance / (score.seeds.var(ddof=1) / 5))
    assert np.median(shares) < 0.3


def test_draws_are_those_of_records_and_of_seeds():
    """Where seeds are all that matters, the interval is Student's; where they do not, as it was."""
    low, high = method(0.5, error=1e-6, noise=0.04).interval(0.9)[1:]
    assert high - low == pytest.approx(2 * 0.04 * stats.t.ppf(0.95, 4), rel=0.1)
    np.testing.assert_array_equal(method(0.5).draws, method(0.5).by_records)


def test_a_difference_is_paired_by_records():
    """What is hard for both cancels, what seeds do to each does not."""
    hard = np.random.default_rng(0).normal(0, 0.1, 2000)
    one, other = (Resampled(np.full(5, v), v, v + hard, 1e-4) for v in (0.8, 0.7))
    gap = difference(one, other, 0.9)
    assert gap.value == pytest.approx(0.1)
    assert gap.high - gap.low == pytest.approx(2 * 0.0311, rel=0.1)  # of the sum of two t(4) / 100


def test_an_undefined_seed_is_left_out_and_seen():
    targets = np.array([0.1, 0.2, 0.3, 0.4])
    found = resampled("regression", targets, [[1, 2, 3, 4], [1, 1, 1, 1]], 50)["Spearman"]
    assert np.isnan(found.seeds[1]) and found.value == 1.0
    nothing = resampled("regression", targets, [[1, 1, 1, 1]], 50)["Spearman"]
    assert np.isnan(nothing.value) and str(nothing.interval()) == "undefined"


def test_draws_stay_in_the_range_of_the_metric():
    targets = np.array([0, 1] * 20)
    predictions = [np.array([0.1, 0.9] * 20), np.array([0.6, 0.4] * 10 + [0.1, 0.9] * 10)]
    draws = resampled("classification", targets, predictions, 200)["AUROC"].draws
    assert draws.min() >= 0 and draws.max() <= 1


def test_no_predictions():
    with pytest.raises(ValueError, match="at least one seed"):
        resampled("regression", [1.0, 2.0], [])


# Against the best ---------------------------------------------------------------------------------


def test_the_best_stands_alone():
    rows = against_best([method(0.7), method(0.9, seed=1), method(0.88, 0.02, seed=2)])
    assert rows[1].p == rows[1].corrected == 1.0
    assert rows[1].gap == (0, 0, 0)
    assert rows[0].gap.value == pytest.approx(-0.2) and rows[0].gap.high < 0
    assert rows[0].corrected < 1e-6 < rows[2].p


def test_p_is_that_of_welch():
    one, other = method(0.8, noise=0.02), method(0.9, noise=0.04, seed=1)
    known = np.var(one.by_records - other.by_records, ddof=1)
    total = known + 0.02**2 + 0.04**2
    freedom = total**2 / (0.02**4 / 4 + 0.04**4 / 4)
    expected = 2 * stats.t.sf(0.1 / np.sqrt(total), freedom)
    assert against_best([one, other])[0].p == pytest.approx(expected)
    # What records explain is taken off the seeds' variance, not off the doubt about it.
    less = other._replace(variance=other.variance / 2)
    total -= other.variance / 2
    freedom = total**2 / (0.02**4 / 4 + 0.04**4 / 4)
    expected = 2 * stats.t.sf(0.1 / np.sqrt(total), freedom)
    assert against_best([one, less])[0].p == pytest.approx(expected)


def test_p_is_corrected_by_holm_over_all_pairs():
    methods = [method(value, seed=i) for i, value in enumerate((0.9, 0.87, 0.86, 0.8))]
    pairs = {(i, j): against_best([methods[i], methods[j]])[1].p
             for i in range(4) for j in range(i + 1, 4)}  # fmt: skip
    ordered = sorted(pairs, key=pairs.get)
    expected = np.maximum.accumulate(
        [min(1, (6 - rank) * pairs[pair]) for rank, pair in enumerate(ordered)]
    )
    rows = against_best(methods)
    for i in (1, 2, 3):
        assert rows[i].corrected == pytest.approx(expected[ordered.index((0, i))])


def test_no_test_where_no_resample_differs():
    """A perfect score on four records: nothing is known of how it varies."""
    targets = [0, 0, 1, 1]
    rows = [
        resampled("classification", targets, [values], 100)["accuracy"]
        for values in ([0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1])
    ]
    standing = against_best(rows)[1]
    assert np.isnan(standing.p) and np.isnan(standing.corrected)
    assert standing.gap.value == -1


def test_equal_methods_and_undefined_ones():
    same = method(0.8)
    nothing = Resampled(np.array([np.nan]), np.nan, np.full(10, np.nan))
    rows = against_best([same, same, nothing])
    assert rows[1].p == 1.0 and rows[2] is None
    with pytest.raises(ValueError, match="no method has a score"):
        against_best([nothing])


# One standard error -------------------------------------------------------------------------------


def test_the_cheapest_within_one_error_of_the_best():
    methods = [method(0.895, seed=1), method(0.9, 0.01), method(0.88, seed=2)]
    assert within_one_error(methods, [5, 60, 1]) == 0
    assert within_one_error(methods, [70, 60, 1]) == 1
    methods[1] = method(0.9, 0.03)
    assert within_one_error(methods, [5, 60, 1]) == 2


def test_costs_are_one_per_method():
    with pytest.raises(ValueError, match="one number per method, 1, received 2"):
        within_one_error([method(0.9)], [1.0, 2.0])
