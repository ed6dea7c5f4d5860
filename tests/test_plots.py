"""Figures show every model; captions say what the numbers say, whichever way they fall."""

import itertools
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from models import WITHOUT_KERAS
from PIL import Image

from kft.evaluation.metrics import Interval, score
from kft.plots import (
    Panel,
    plot_balance,
    plot_classification,
    plot_comparison,
    plot_confusion,
    plot_features,
    plot_learning_curve,
    plot_missing,
    plot_pretraining,
    plot_regression,
    plot_roc_pr,
    plot_scaling,
    plot_secondary_structure,
    save_figure,
)
from kft.plots.comparison import Point

pytestmark = pytest.mark.once


@pytest.fixture
def labels():
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=300)
    good = 1 / (1 + np.exp(-(4 * targets - 2 + rng.normal(size=300))))
    return targets, good, rng.random(300)


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=300)
    return targets, targets + 0.3 * rng.normal(size=300), targets + 3 * rng.normal(size=300)


def names_in_legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def texts(axes):
    legend = axes.get_legend()
    return [text.get_text() for text in (legend.get_texts() if legend else axes.texts)]


def test_classification_legend_holds_the_scores_of_all(labels):
    targets, good, poor = labels
    figure, _ = plot_classification(targets, {"net": good, "3-mers": np.stack([1 - poor, poor], 1)})
    roc, histogram = figure.axes
    scores = {name: score("classification", targets, p)["AUROC"] for name, p in
              (("net", good), ("3-mers", poor))}  # fmt: skip
    wanted = [f"{name}: {interval}" for name, interval in scores.items()]
    assert texts(roc) == [*wanted, "chance: 0.500"]
    assert texts(histogram) == [f"class {k} (n = {n})" for k, n in enumerate(np.bincount(targets))]
    for line, interval in zip(roc.lines, scores.values(), strict=False):
        x, y = line.get_xydata().T
        assert np.trapezoid(y, x) == pytest.approx(interval.value, abs=1e-12)


def test_histogram_shows_shares_of_each_class(labels):
    targets, good, _ = labels
    figure, _ = plot_classification(targets, {"net": good})
    for patch in figure.axes[1].patches:
        heights = patch.get_xy()[:, 1]
        assert 0 < heights.max() <= 100
    assert figure.axes[1].get_ylabel().endswith("(%)")


def test_caption_says_what_it_shows_and_how_it_was_made(labels):
    targets, good, poor = labels
    _, caption = plot_classification(
        targets, {"net": good, "3-mers": poor}, ("inert", "antimicrobial"), data="amp",
        split="valid", confidence=0.9, resamples=200, seed=7, groups=np.arange(300) // 2,
    )  # fmt: skip
    zeros, ones = np.bincount(targets)
    for words in (
        "net and 3-mers on the valid split of amp",
        f"n = 300: {ones} antimicrobial, {zeros} inert",
        "90% percentile bootstrap intervals over 200 resamples of whole groups",
        "seed 7",
        f"finds {np.mean(good[targets == 1] > 0.5):.0%} of the antimicrobial",
        f"wrongly calls {np.mean(good[targets == 0] > 0.5):.0%} of the inert records antimicrobial",
    ):
        assert words in caption


def test_caption_is_true_whichever_way_the_comparison_falls(labels, values):
    targets, good, poor = labels
    better = plot_classification(targets, {"net": good, "base": poor, "worse": 1 - good})[1]
    assert "above the best baseline (base): the gain is significant" in better
    below = plot_classification(targets, {"net": poor, "base": good})[1]
    assert "below the best baseline (base): the baseline is better" in below
    assert " -0." not in below  # "0.1 below", not "-0.1 below"
    same = plot_classification(targets, {"net": good, "base": good})[1]
    assert "is not significant" in same
    assert "no baseline" in plot_classification(targets, {"net": good})[1]
    targets, good, poor = values
    assert "the gain is significant" in plot_regression(targets, {"net": good, "base": poor})[1]
    assert "the baseline is better" in plot_regression(targets, {"net": poor, "base": good})[1]


def test_regression_shows_the_intervals_of_all_and_names_the_undefined(values):
    targets, good, poor = values
    predictions = {"net": good[:, None], "ridge": poor, "mean": np.zeros(300)}
    figure, caption = plot_regression(targets, predictions, "fitness", "log enrichment", data="gb1")
    left, right = figure.axes
    scores = {name: score("regression", targets, p) for name, p in predictions.items()}
    assert texts(right) == [f"{name}: {row['Spearman']}" for name, row in scores.items()]
    assert texts(right)[2] == "mean: undefined"
    bars = [bar.get_width() for bar in right.patches]
    assert bars == [scores[name]["Spearman"].value for name in ("net", "ridge")]
    assert left.get_xlabel() == "measured fitness (log enrichment)"
    np.testing.assert_allclose(left.collections[0].get_offsets(), np.stack([targets, good], 1))
    assert "undefined for mean" in caption and "each point is one record" in caption
    hits = len(set(np.argsort(-good)[:30]) & set(np.argsort(-targets)[:30])) / 30
    assert f"{hits:.0%} are among the 30 measured highest (10% by chance)" in caption


def test_caption_counts_hits_at_the_upper_end():
    targets = np.arange(100)
    right_on_top = np.where(targets < 50, 49 - targets, targets)
    caption = plot_regression(targets, {"net": right_on_top}, resamples=20)[1]
    assert "Of the 10 records predicted highest in target, 100% are among" in caption


def test_many_points_become_a_density():
    targets = np.random.default_rng(0).normal(size=2000)
    figure, caption = plot_regression(targets, {"net": targets}, resamples=20)
    assert "hexagon" in caption and figure.axes[0].collections[0].get_array().sum() == 2000


def test_degenerate_results_still_make_a_figure(values):
    _, caption = plot_classification([1, 1, 1], {"net": [0.2, 0.8, 0.9], "base": [0.1, 0.2, 0.3]})
    assert "undefined" in caption and "one class" in caption
    _, caption = plot_regression(values[0], {"mean": np.zeros(300)})
    assert "Its predictions are all the same" in caption


def test_nothing_is_clipped_or_overlaps(values, labels):
    """Every text lies inside the figure, even with long names."""
    long = "last 2 blocks, ESM-2 8M, seed 3"
    figures = [
        plot_regression(values[0], {long: values[1], "mean": np.zeros(300)})[0],
        plot_classification(labels[0], {long: labels[1], "3-mers": labels[2]})[0],
    ]
    for figure in figures:
        figure.draw_without_rendering()
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert box.x0 >= 0 and box.y0 >= 0
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        legend = figure.axes[0].get_legend()
        if legend:  # it hides no more of the curves than their lower right
            assert legend.get_window_extent().x0 > figure.axes[0].get_window_extent().x0
        first, second = (axes.get_tightbbox() for axes in figure.axes[:2])
        assert first.x1 <= second.x0


def test_save_writes_png_and_caption(values, tmp_path):
    figure, caption = plot_regression(values[0], {"net": values[1]}, quantity="ΔG", unit="kJ/mol")
    path = save_figure(figure, caption, tmp_path / "new" / "figure.v1.png")
    assert path == tmp_path / "new" / "figure.v1.png"
    assert (tmp_path / "new" / "figure.v1.txt").read_text(encoding="utf-8") == caption + "\n"
    with Image.open(path) as image:
        assert image.size[0] == 1200
        assert image.info["Description"] == caption
    drawing = save_figure(figure, caption, tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert f"<dc:description>{caption}</dc:description>" in drawing
    with pytest.raises(ValueError, match=r"end in \.png or \.svg"):
        save_figure(figure, caption, tmp_path / "figure.pdf")


def test_a_caption_below_changes_nothing_above_it(values, tmp_path):
    """Legends outside of the axes stay where they are, and so does the figure afterwards."""
    figure, caption = plot_scaling({"data": panel()}, "Three runs. " * 20)
    plain, below, again = (tmp_path / f"{name}.png" for name in ("plain", "below", "again"))
    save_figure(figure, caption, plain)
    save_figure(figure, caption, below, caption_below=True)
    save_figure(figure, caption, again)
    assert plain.read_bytes() == again.read_bytes()
    first, second = (np.asarray(Image.open(path).convert("L")) for path in (plain, below))
    assert second.shape[1] == first.shape[1]
    np.testing.assert_array_equal(second[: len(first)], first)
    added = second[len(first) :]
    margin = round(0.1 * figure.dpi)
    assert (added < 128).any()
    for edge in (added[:margin], added[-margin:], added[:, :margin], added[:, -margin:]):
        assert (edge == 255).all()  # no line of the caption is cut


def test_bad_input_is_named(labels):
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_regression([1.0, 2.0], {})
    with pytest.raises(ValueError, match="two classes, received 3"):
        plot_classification([0, 1, 2], {"net": np.eye(3)}, ("a", "b", "c"))


def test_tables_import_neither_matplotlib_nor_keras_and_plots_no_pyplot():
    code = f"""{WITHOUT_KERAS}
import importlib
for names in (["kft.evaluation", "kft.evaluation.baselines"], ["kft.plots"]):
    for name in names:
        importlib.import_module(name)
    print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    tables, plots = (set(line.split()) for line in done.stdout.splitlines())
    assert not tables & {"matplotlib", "keras"}
    assert "matplotlib.figure" in plots
    assert not plots & {"matplotlib.pyplot", "keras"}


# Pre-training -------------------------------------------------------------------------------------


def curve(*values):
    rows = zip(range(1, 9), values, strict=False)
    return [{"residues": 1e6 * i, "perplexity": v - 0.5, "val_perplexity": v} for i, v in rows]


def test_pretraining_names_the_best_and_the_worst_run():
    runs = {"wide": curve(19, 18, 17.2), "deep": curve(19, 17.5, 16.8), "fast": curve(19.5, 19)}
    held_out = "400 proteins of other families"
    figure, caption = plot_pretraining(runs, {"residue frequencies": 18.0}, held_out)
    assert "deep ends at 16.80 (residue frequencies: 18.00); the worst, fast, at" in caption
    assert "on 400 proteins of other families, after each epoch of 3 pre-trainings" in caption
    axes = figure.axes[0]
    assert names_in_legend(figure) == ["wide", "deep", "fast"]
    assert axes.get_xlabel() == "residues seen (millions)"
    np.testing.assert_allclose(axes.lines[1].get_data()[1], [19, 17.5, 16.8])


def test_one_pretraining_shows_training_too():
    figure, caption = plot_pretraining({"this run": curve(18, 17)}, {})
    assert "one pre-training" in caption and "worst" not in caption
    assert names_in_legend(figure) == ["this run", "on the training proteins"]
    assert "held out, after each epoch" in caption
    rows = [{"residues": 1e6, "perplexity": 25.0}, {"residues": 2e6, "perplexity": 24.0}]
    figure, caption = plot_pretraining({"at its beginning": rows}, {"frequencies": 18.0})
    assert "trained on, during each epoch" in caption
    low, high = figure.axes[0].get_ylim()
    assert low < 18 and high > low
    with pytest.raises(ValueError, match="at least one run"):
        plot_pretraining({}, {})


def law(x):
    return 2 + (100 / np.asarray(x)) ** 0.5


def panel():
    x = np.array([1e3, 1e4, 1e5])
    return Panel(
        x, law(x), law, Interval(0.5, 0.4, 0.6), Interval(2.0, 1.9, 2.1), [(x, law(x) + 1)]
    )


def test_scaling_shows_runs_and_laws_and_says_what_is_unsure():
    sure, x = panel(), panel().x
    unsure = sure._replace(exponent=Interval(0.2, 0.0, 0.9), floor=Interval(2.0, 0.5, 2.5))
    figure, caption = plot_scaling({"parameters": sure, "data": unsure}, "Three runs of one.")
    for ax in figure.axes:
        behind, line, runs = ax.lines
        np.testing.assert_allclose(line.get_ydata(), law(line.get_xdata()))
        np.testing.assert_allclose(runs.get_ydata(), law(x))
        assert behind.get_ydata()[0] > runs.get_ydata()[0]
    for words in (
        "Three runs of one. ", "parameters, exponent 0.500 [0.400, 0.600]", "largest exponent for "
        "parameters", f"from {law(1e3):.3f} to {law(1e5):.3f} nats",
        "determine the irreducible loss for data poorly, and with it the exponent",
    ):  # fmt: skip
        assert words in caption
    assert [ax.get_title() for ax in figure.axes] == [
        f"a = {each.exponent}\nL₀ = {each.floor}" for each in (sure, unsure)
    ]


# What holds for all figures -----------------------------------------------------------------------


def many_points():
    names = [f"lora(rank={rank})" for rank in range(20)]
    return [Point(n, "strategy", 60.0, Interval(0.9, 0.89, 0.91), [0.9, 0.9]) for n in names]


def crowded():
    """Figures with more of everything than has room beside the data, or with equal values."""
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=60)
    chances = {f"baseline number {i}": rng.random(60) for i in range(7)}
    shares = pd.DataFrame({name: [0.99, 1.0] for name in ("all", "signal", "noise")})
    shares.index = ["mass", "energy"]
    counts = pd.DataFrame({f"group {i}": [10, 20] for i in range(12)}, index=["no", "yes"])
    runs = {f"run {i} of width 128": curve(19, 17 + 0.1 * i) for i in range(9)}
    levels = {"residue frequencies": 18.0, "pairs of residues": 18.01}
    return {
        "comparison": plot_comparison(many_points(), "AUROC", chosen="lora(rank=3)", error=0.01),
        "classification": plot_classification(targets, chances, resamples=10),
        "pretraining": plot_pretraining(runs, levels),
        "missing": plot_missing(shares),
        "balance": plot_balance(counts),
        "features": plot_features(rng.random((1, 12, 8, 8, 3)), ["stage_12_block_3_of_all"]),
        "structure": plot_secondary_structure("MKTAY", [0] * 5, {"probe": [0] * 5}),
    }


@pytest.fixture(scope="module")
def drawn():
    figures = {name: figure for name, (figure, _) in crowded().items()}
    for figure in figures.values():
        figure.draw_without_rendering()
    return figures


def test_no_text_is_cut_and_no_legend_hides_data(drawn):
    for name, figure in drawn.items():
        for part in (*figure.axes, *figure.legends):
            box = part.get_tightbbox()
            assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, (name, part)
            assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, (name, part)
        for legend in figure.legends:
            area = legend.get_window_extent()
            assert not any(area.overlaps(ax.get_window_extent()) for ax in figure.axes), name


def test_labels_that_coincide_are_set_apart(drawn):
    for name in ("comparison", "pretraining"):
        # Of the text alone, without the line from it to its point.
        boxes = [Text.get_window_extent(text) for text in drawn[name].axes[0].texts]
        boxes = sorted(boxes, key=lambda box: box.y0)
        assert len(boxes) > 1
        assert all(low.y1 <= high.y0 + 2 for low, high in itertools.pairwise(boxes)), name
    marks = [line.get_xydata() for line in drawn["missing"].axes[0].lines]
    assert (marks[0][:, 0] == marks[1][:, 0]).all() and (marks[0][:, 1] != marks[1][:, 1]).all()


def test_no_two_entries_of_a_legend_look_alike(drawn):
    bars = [container[0] for container in drawn["balance"].axes[0].containers]
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == len(bars) == 12
    lines = [line for line in drawn["pretraining"].axes[0].lines if line.get_label()[0] != "_"]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 9


LONG = "Saccharomyces cerevisiae, grown in a medium without nitrogen, sample "


@pytest.mark.parametrize("classes", [2, 40, 70])
def test_long_names_of_classes_have_room(classes):
    names = [f"{LONG}{k}" for k in range(classes)]
    targets = np.arange(4 * classes) % classes
    probabilities = np.eye(classes)[targets]
    figures = [plot_confusion(targets, targets, names)[0]]
    figures.append(plot_roc_pr(targets, probabilities, names)[0])
    counts = pd.DataFrame(1, index=names[:9], columns=names[:3])
    figures += [plot_balance(counts)[0], plot_missing(counts.assign(all=0.5)[["all"]])[0]]
    for figure in figures:
        figure.draw_without_rendering()
        parts = [ax.get_tightbbox() for ax in figure.axes]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(parts, 2))
        assert all(ax.get_window_extent().width > figure.bbox.width / 5 for ax in figure.axes[:1])
        for part in parts:
            assert part.x0 >= 0 and part.x1 <= figure.bbox.width + 1
            assert part.y0 >= 0 and part.y1 <= figure.bbox.height + 1
        drawn = [x.get_text() for x in figure.axes[0].get_yticklabels()]
        assert len(set(drawn)) == len(drawn)


def test_numbers_at_the_axis_do_not_overlap():
    counts = {n: Interval(0.5, 0.4, 0.6) for n in (90, 100, 110, 500, 520, 2000)}
    figure, _ = plot_learning_curve({"a": counts}, "accuracy")
    figure.draw_without_rendering()
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["90", "500", "2,000"]
