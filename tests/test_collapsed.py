"""A model whose answers hardly vary is never the best, and is named wherever a best is."""

import json

import numpy as np
import pytest

import kft
from kft import plots
from kft.comparison.results import Comparison, Row
from kft.comparison.scoring import constant_seeds
from kft.evaluation import metrics as evaluation
from kft.evaluation.significance import resampled
from kft.plots.comparison import Point

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
TARGETS = RNG.normal(size=120)
ALIKE = TARGETS.mean() + 1e-4 * (TARGETS + 0.5 * RNG.normal(size=120))  # ranks well, says nothing
VARIED = TARGETS + 1.5 * RNG.normal(size=120)


def row(name, answers, kind="strategy", seconds=10.0, **options):
    constant = sum(evaluation.hardly_varies(TARGETS, one) for one in answers)
    constant = 0 if kind == "baseline" else constant
    scores = resampled("regression", TARGETS, answers, 200)
    return Row(name, kind, scores, 10, 100, seconds, predictions=answers, constant_seeds=constant,
               **options)  # fmt: skip


def comparison(*rows, seeds=(0, 1)):
    return Comparison("toy", len(TARGETS), rows, seeds, 0.95, {})


MEAN = row("mean", [np.full(120, TARGETS.mean())], "baseline", 0.1)
COUNTS = row("3-mers", [VARIED], "baseline", 1.0)
LORA = row("lora", [ALIKE, ALIKE])
FULL = row("full", [VARIED, VARIED], seconds=50.0)


def test_the_case_of_the_issue():
    """Spearman is high, RMSE is the mean's, and a baseline is recommended."""
    assert LORA.scores["Spearman"].value > 0.8 > COUNTS.scores["Spearman"].value
    assert LORA.scores["RMSE"].value == pytest.approx(MEAN.scores["RMSE"].value, rel=1e-3)
    found = comparison(MEAN, COUNTS, LORA)
    assert found.best is COUNTS and found.recommended is COUNTS
    assert "no strategy is worth its cost" in found.recommendation
    assert "Predictions hardly vary: lora." in found.recommendation


def test_screen_table_and_figure_say_what_the_record_says(tmp_path):
    found = comparison(MEAN, COUNTS, LORA)
    record = json.loads((found.save(tmp_path)[3]).read_text())
    said = "no strategy is worth its cost on this test set"
    assert said in record["recommendation"] and record["rows"]["lora"]["constant seeds"] == 2
    lines = {name: next(x for x in str(found).splitlines() if name in x) for name in
             ("lora", "3-mers", "mean")}  # fmt: skip
    assert "predictions hardly vary" in lines["lora"] and "highest" not in lines["lora"]
    assert "3-mers (recommended)" in lines["3-mers"] and "highest" in lines["3-mers"]
    assert "hardly" not in lines["mean"]  # the mean is meant to be one number
    assert said in str(found)
    figure, caption = found.figure()
    assert said in caption and "3-mers scores highest" in caption
    assert "Predictions hardly vary, so their scores mean little: lora." in caption
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert any(label.startswith("lora") and "hardly vary" in label for label in labels)


def test_gaps_and_tests_are_to_the_best_that_counts():
    found = comparison(MEAN, COUNTS, LORA, FULL)
    frame = found.to_frame()
    assert "lora" not in found.standings and np.isnan(frame.loc["lora", "gap"])
    assert frame.loc["3-mers", "gap"] == 0.0


def test_a_single_seed_that_collapsed_is_named():
    one = row("lora", [TARGETS + 0.1 * VARIED, ALIKE])
    found = comparison(COUNTS, one, FULL)
    assert one in found.candidates and found.best is not one and found.recommended is not one
    assert "Predictions hardly vary: lora (1 of 2 seeds)." in found.recommendation


def test_where_all_have_collapsed_nothing_is_recommended():
    found = comparison(MEAN, LORA)
    assert found.best is None and found.recommended is None
    assert "Recommended: nothing." in found.recommendation
    assert not found.to_frame()["recommended"].any()
    assert "the predictions of all methods hardly vary" in found.figure()[1]
    assert "predictions hardly vary" in str(found)


def test_controls_that_collapsed_are_no_yardstick():
    scratch = row("from_scratch", [ALIKE, ALIKE], "control")
    found = comparison(COUNTS, FULL, scratch)
    assert "minus from_scratch" not in found.recommendation
    shuffled = row("full, shuffled labels", [ALIKE, ALIKE], "control", shuffled_labels=True)
    assert "shuffled labels (" not in comparison(COUNTS, FULL, shuffled).recommendation


@pytest.mark.parametrize(
    ("targets", "answers", "constant"),
    [
        (TARGETS, ALIKE, True),
        (TARGETS, ALIKE[:, None], True),
        (1000 * TARGETS, VARIED, True),
        (TARGETS, VARIED, False),
        (TARGETS, 0.02 * TARGETS, False),
        ([0, 1, 0, 1], [[0.5, 0.5]] * 4, True),
        ([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.501], True),
        ([0, 1, 0, 1], [[0.9, 0.1], [0.6, 0.4]] * 2, False),  # all called 0, and still told apart
        ([0, 1, 2, 1], [[0.2, 0.5, 0.3]] * 4, True),
        ([0, 1, 2, 1], np.eye(3)[[0, 1, 2, 2]], False),
    ],
)
def test_what_hardly_varies(targets, answers, constant):
    assert evaluation.hardly_varies(targets, answers) is constant


def test_seeds_of_residue_tasks_are_looked_at_where_residues_count():
    rows = [np.array([0, 1, 1]), np.array([1, 0])]
    split = kft.data.Split(["MKT", "GS"], rows, masks=[np.array([1, 1, 0], bool)] * 1
                           + [np.array([1, 1], bool)])  # fmt: skip
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    data = kft.data.Dataset("toy", "residue_classification", split, split, split,
                            classes=("a", "b"), **about)  # fmt: skip
    same = [np.full((3, 2), 0.5), np.full((2, 2), 0.5)]
    same[0][2] = [0.9, 0.1]  # masked
    told = [np.eye(2)[row] for row in rows]
    assert constant_seeds(data, [same, told]) == 1


def test_figures_of_predictions_say_so():
    _, caption = plots.plot_regression(TARGETS, {"lora": ALIKE, "3-mers": VARIED})
    assert "the predictions of lora hardly vary" in caption and "above the best" not in caption
    kinds = (TARGETS > 0).astype(int)
    alike = 0.5 + 1e-4 * TARGETS
    _, caption = plots.plot_classification(kinds, {"lora": alike, "3-mers": VARIED > 0.5})
    assert "the predictions of lora hardly vary" in caption


def test_a_figure_of_points_alone():
    score = evaluation.Interval
    points = [Point("lora", "strategy", 1.0, score(0.9, 0.8, 1.0), [0.9]),
              Point("full", "strategy", 9.0, score(0.7, 0.6, 0.8), [0.7])]  # fmt: skip
    _, caption = plots.plot_comparison(points, "Spearman", collapsed=["lora"])
    assert "full scores highest" in caption and "mean little: lora." in caption
