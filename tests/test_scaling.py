"""Power laws: what was put in comes out, with intervals that hold it."""

import numpy as np
import pytest

from kft.evaluation import scaling

pytestmark = pytest.mark.once

X = np.geomspace(1e4, 4e6, 7)


def law(x, exponent=0.35, floor=2.2, scale=5e3):
    return floor + (scale / x) ** exponent


@pytest.mark.parametrize(("exponent", "floor"), [(0.08, 0.0), (0.35, 2.2), (1.0, 1.0)])
def test_an_exact_law_is_found(exponent, floor):
    found = scaling.fit_power_law(X, law(X, exponent, floor), resamples=5)
    assert found.exponent.value == pytest.approx(exponent, rel=1e-3)
    assert found.floor.value == pytest.approx(floor, abs=2e-3)
    assert found.error < 1e-5
    np.testing.assert_allclose(found(X), law(X, exponent, floor), rtol=1e-4)


def test_a_known_floor_is_kept():
    found = scaling.fit_power_law(X[:4], law(X[:4]), floor=2.2, resamples=5)
    assert found.floor == (2.2, 2.2, 2.2)
    assert found.exponent.value == pytest.approx(0.35, rel=1e-3)


def test_intervals_hold_the_truth():
    rng, held = np.random.default_rng(0), []
    for _ in range(20):
        losses = law(X) * np.exp(rng.normal(0, 0.003, len(X)))
        found = scaling.fit_power_law(X, losses, resamples=40).exponent
        assert found.low < found.value < found.high
        held.append(found.low <= 0.35 <= found.high)
        assert np.ptp(found[1:]) < 0.5
    assert np.mean(held) >= 0.8  # 95% but for three standard errors of 20


@pytest.mark.parametrize("floor", [None, 2.1])
def test_no_rounding_and_no_order_moves_an_interval(floor):
    """Few and noisy runs tell exponent and floor badly apart, and yet the answer is one."""
    rng = np.random.default_rng(3)
    losses = law(X, 0.3) * np.exp(rng.normal(0, 0.003, len(X)))
    runs = np.array([0, 0, 1, 2, 3, 4, 5])

    def numbers(order=slice(None), noise=0.0):
        nearly = losses * (1 + noise * rng.standard_normal(len(X)))
        found = scaling.fit_power_law(
            X[order], nearly[order], runs=runs[order], floor=floor, resamples=60
        )
        return [*found.exponent, *found.floor, found.scale, found.error]

    expected = numbers()
    assert expected[2] > 1.1 * expected[1]
    for _ in range(3):
        np.testing.assert_allclose(numbers(rng.permutation(len(X)), 1e-12), expected, rtol=1e-6)


def test_no_other_law_is_nearer():
    """Also where the floor is at an end: none, or the lowest loss."""
    rng, floors = np.random.default_rng(0), []
    for exponent, floor in ((0.2, -0.1), (0.35, 2.2), (1.5, 2.2)):
        losses = law(X, exponent, floor) * np.exp(rng.normal(0, 0.01, len(X)))
        found = scaling.fit_power_law(X, losses, resamples=1)
        best = (found.exponent.value, found.floor.value, np.log(found.scale))
        floors.append(found.floor.value / losses.min())
        for step in 1e-3 * rng.standard_normal((200, 3)):
            a, least, scale = best * (1 + step)
            tried = least + np.exp(a * (scale - np.log(X)))
            error = np.sqrt(np.mean(np.log(losses / tried) ** 2))
            assert least > losses.min() or error > found.error * (1 - 1e-9)
    assert min(floors) == 0 and max(floors) == pytest.approx(1)


def test_more_noise_means_wider_intervals():
    noise = np.random.default_rng(0).normal(0, 1, len(X))
    widths = [
        np.ptp(scaling.fit_power_law(X, law(X) * np.exp(s * noise), resamples=60).exponent[1:])
        for s in (1e-4, 1e-2)
    ]
    assert widths[1] > 10 * widths[0]


@pytest.mark.parametrize(
    ("x", "losses", "message"),
    [
        ([1.0, 2, 3], [3.0, 2, 1], "at least 4"),
        ([1.0, 1, 1, 1, 2, 2], [3.0, 3, 3, 3, 2, 2], "x must have at least 4 .*received 2"),
        ([1.0, 2, 3, 0], [3.0, 2, 1, 1], "above 0"),
        ([1.0, 2, 3, 4], [3.0, 2, np.nan, 1], "losses finite"),
        ([1.0, 2, 3, 4], [1.0, 2, 3, 4], "do not follow"),
        ([1.0, 2, 3, 4], [3.0, 2, 1], "the same length"),
    ],
)
def test_bad_input(x, losses, message):
    with pytest.raises(ValueError, match=message):
        scaling.fit_power_law(x, losses)


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="runs must have at least 4 different values .*received 3"):
        scaling.fit_power_law(X, law(X), runs=[0, 0, 0, 1, 1, 2, 2])


def test_compute_and_its_frontier():
    assert scaling.compute(1e6, 2e7) == 1.2e14
    small = [1.0, 2.0, 4.0, 8.0], [5.0, 4.0, 3.5, 3.4]
    large = [4.0, 8.0, 16.0], [4.5, 3.0, 2.0]
    at, least, of = scaling.frontier(*zip(small, large, strict=True))
    assert at.tolist() == [1, 2, 4, 8, 16]
    assert least.tolist() == [5, 4, 3.5, 3, 2]
    assert of.tolist() == [0, 0, 0, 1, 1]


def test_points_of_one_run_err_together():
    """Each point told thrice is no more than once; taken for runs of their own they seem to be."""
    losses = law(X) * np.exp(np.random.default_rng(0).normal(0, 0.003, len(X)))
    thrice = np.repeat(X, 3), np.repeat(losses, 3)
    one = scaling.fit_power_law(X, losses, resamples=100)
    same = scaling.fit_power_law(*thrice, runs=np.repeat(np.arange(len(X)), 3), resamples=100)
    blind = scaling.fit_power_law(*thrice, resamples=100)
    assert one.exponent.value == pytest.approx(same.exponent.value, rel=1e-3)
    assert np.ptp(same.exponent[1:]) == pytest.approx(np.ptp(one.exponent[1:]), rel=0.05)
    assert np.ptp(blind.exponent[1:]) < 0.7 * np.ptp(one.exponent[1:])
