"""What a comparison says, whichever way it falls."""

import dataclasses

import numpy as np
import pytest

from kft.comparison.results import Comparison, Row
from kft.evaluation.metrics import Interval
from kft.evaluation.significance import Resampled
from kft.plots import plot_comparison
from kft.plots.comparison import Point

pytestmark = pytest.mark.once


def row(name, value, seconds=1.0, kind="strategy", error=0.01, **options):
    rng = np.random.default_rng(len(name))
    score = Resampled(np.full(3, value), value, value + rng.normal(0, error, 500))
    return Row(name, kind, {"AUROC": score}, 10, 100, seconds, 2**30, **options)


def comparison(*rows, seeds=(0, 1, 2)):
    chance = row("majority class", 0.5, 0.01, "baseline", error=0.0)
    return Comparison("amp", 924, (chance, *rows), seeds, 0.95, {"backend": "jax"})


FULL, PROBE = row("full", 0.94, 100.0), row("linear_probe", 0.935, 2.0)
SCRATCH = row("from_scratch", 0.90, 110.0, "control")


def test_the_cheaper_of_two_that_are_close_is_recommended():
    found = comparison(PROBE, FULL)
    assert found.recommended is PROBE and found.best is FULL
    assert "full scores highest" in found.recommendation
    assert "linear_probe lies within one standard error (0.010) of it at 2% of the time" in (
        found.recommendation
    )


def test_the_best_is_recommended_where_nothing_is_close():
    found = comparison(row("linear_probe", 0.8, 2.0), FULL)
    assert found.recommended is FULL
    assert "nothing cheaper comes within one standard error" in found.recommendation


def test_a_baseline_that_does_as_well_is_said_to():
    found = comparison(row("3-mers", 0.94, 1.0, "baseline"), FULL)
    assert found.recommended.name == "3-mers"
    assert "no strategy is worth its cost" in found.recommendation


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.80, "above zero: they helped"),
        (0.94, "this test set does not show that they helped"),
        (0.99, "random weights are a better start"),
    ],
)
def test_what_pretraining_was_worth(value, words):
    found = comparison(FULL, row("from_scratch", value, 110.0, "control"))
    assert words in found.recommendation


@pytest.mark.parametrize(
    ("value", "word"), [(0.5, "chance is 0.500."), (0.7, "Warning: that is above")]
)
def test_shuffled_labels(value, word):
    control = row("full, shuffled labels", value, 1.0, "control", shuffled_labels=True)
    found = comparison(FULL, control)
    assert word in found.recommendation
    assert ("Warning" in found.recommendation) == (value > 0.5)
    assert control not in found.candidates and control.name not in found.standings


def test_one_shuffle_is_no_ground_for_a_warning():
    control = row("full, shuffled labels", 0.7, 1.0, "control", shuffled_labels=True)
    assert "Warning" not in comparison(FULL, control, seeds=(0,)).recommendation


def test_a_method_that_lost_seeds_is_marked_and_not_recommended():
    lost = row("lora", 0.97, 1.0)
    score = lost.scores["AUROC"]._replace(seeds=np.array([0.97, np.nan, np.nan]))
    lost = Row("lora", "strategy", {"AUROC": score}, 10, 100, 1.0, error="seed 1: diverged")
    found = comparison(lost, FULL)
    assert found.recommended is FULL and found.best is FULL
    assert "lora (without 2 seeds)" in str(found)
    assert found.to_frame().loc["lora", "seeds"] == 1


def test_a_score_that_is_undefined_is_not_told_twice():
    """The mean has no rank correlation, and has lost no seed."""
    score = row("mean", 0.5, 1.0).scores["AUROC"]._replace(value=np.nan, seeds=np.array([np.nan]))
    score = score._replace(by_records=np.full_like(score.by_records, np.nan))
    found = str(comparison(FULL, Row("mean", "baseline", {"AUROC": score}, 1, 1, 0.1)))
    assert "undefined" in found and "without" not in found


def test_a_control_under_another_name_that_scores_highest():
    found = comparison(FULL, row("scratch", 0.99, 200.0, "control"))
    assert found.best.name == "scratch" and "full minus scratch" in found.recommendation
    assert "scratch scores highest" in found.figure()[1]


def test_where_no_strategy_has_a_score():
    found = comparison(Row("lora", "strategy", error="seed 0: no"))
    assert "is worth its cost" not in found.recommendation


@pytest.mark.parametrize("name", ["../up", "/tmp/absolute", "two words", "", "."])
def test_any_name_of_data_is_written_into_the_folder(name, tmp_path):
    found = dataclasses.replace(comparison(FULL), data=name)
    assert all(path.parent == tmp_path for path in found.save(tmp_path))


def test_failures_and_a_single_seed_are_said():
    found = comparison(FULL, Row("lora", "strategy", error="ValueError: no"), seeds=(0,))
    assert "Failed: lora (ValueError: no)." in found.recommendation
    assert "One seed does not show" in found.recommendation
    assert "1 seed," in str(found)
    assert np.isnan(found.to_frame().loc["lora", "gap"])


def test_the_table_says_what_the_frame_says():
    found = comparison(PROBE, FULL, SCRATCH)
    frame, said = found.to_frame(), str(found)
    assert list(frame.index) == ["majority class", "linear_probe", "full", "from_scratch"]
    assert frame.loc["full", ["AUROC", "gap", "p corrected"]].tolist() == [0.94, 0.0, 1.0]
    assert frame.loc["from_scratch", "gap"] == pytest.approx(-0.04)
    assert frame.loc["linear_probe", "recommended"] and frame["recommended"].sum() == 1
    line = next(line for line in said.splitlines() if "from_scratch" in line)
    assert "0.900 [" in line and "-0.040" in line and "1.0 GB" in line


def test_the_caption_says_what_stands_out():
    figure, caption = comparison(PROBE, FULL, SCRATCH).figure()
    assert "full scores highest, AUROC 0.940" in caption
    assert "linear_probe reaches 0.935 in 2.0 s and lies within one standard error" in caption
    assert "3 seeds" in caption and "n = 924" in caption
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert "majority class  0.500 (below)" in labels
    assert len(labels) == 4


def test_labels_do_not_overlap():
    score = Interval(0.9, 0.8, 0.95)
    points = [Point(str(i), "strategy", 1.0 + i, score, [0.9]) for i in range(9)]
    figure, _ = plot_comparison(points, "AUROC")
    places = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    assert np.diff(places).min() > 0.05 and places[-1] <= 1.0


def test_nothing_to_draw():
    nothing = Interval(np.nan, np.nan, np.nan)
    with pytest.raises(ValueError, match="at least one method with a score"):
        plot_comparison([Point("a", "strategy", 1.0, nothing, [])])


def test_predictions_that_come_with_the_data_are_not_recommended():
    given = row("PSIPRED prediction of the package", 0.99, 0.1, "baseline", given=True)
    found = comparison(PROBE, given)
    assert found.best is PROBE and found.recommended is PROBE
    assert "PSIPRED prediction of the package: these predictions come with" in found.recommendation
    assert given.name in found.to_frame().index
    figure, caption = found.figure()
    assert f"At the left edge, without a training: {given.name}." in caption
    ax = figure.axes[0]
    (mark,) = [line for line in ax.lines if line.get_marker() == "s" and line.get_xdata().size]
    ((pixel, _),) = mark.get_transform().transform(mark.get_xydata())
    place = ax.transAxes.inverted().transform((pixel, 0))[0]
    np.testing.assert_allclose(place, 0.02)  # majority class is below the axis


def test_nothing_was_trained():
    given = Point("given", "baseline", np.nan, Interval(0.9, 0.8, 0.95), [0.9])
    _, caption = plot_comparison([given], "AUROC")
    assert "given scores highest, AUROC 0.900 [0.800, 0.950], without a training." in caption
