"""Reports: what is in them, that no text of the data can do harm, and how a browser shows them."""

import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from models import esm2, strings

import kft
from kft.comparison.results import Comparison, Row
from kft.data import Dataset, Split
from kft.data.task import Task
from kft.evaluation.metrics import Scored
from kft.evaluation.significance import resampled
from kft.evaluation.transfer import judge_transfer
from kft.exploration import Findings
from kft.finetuning import Settings
from kft.finetuning.tuning import truth
from kft.inference.naming import with_predictions
from kft.plots import plot_confusion, plot_correlation, plot_history, save_figure
from kft.reporting import drawing
from kft.reporting.document import Picture
from kft.reporting.folders import _scored, parts_of_run

pytestmark = pytest.mark.once

EVIL = "<script>alert(1)</script>\"'><img src=http://127.0.0.1:9/x.png onerror=alert(2)>"
CLASSES = (EVIL, r"=cmd|'/C calc'!A0 $\frac{x \x1b[31m" + "\x1b[31mred\u202e")
SECTIONS = [
    "question", "data", "exploration", "preparation", "model", "training", "assessment", "groups",
    "comparison", "limits", "repeat",
]  # fmt: skip


@pytest.fixture(scope="module")
def data():
    inputs = strings([8, 12] * 30)
    targets = np.arange(60) % 2
    parts = [Split(inputs[i::3], targets[i::3]) for i in range(3)]
    about = {"source": EVIL, "licence": CLASSES[1], "citation": EVIL, "checksum": "ab" * 32}
    return Dataset(
        EVIL, "classification", *parts, classes=CLASSES, notes=(EVIL,), target=EVIL, **about
    )


def compared(data):
    """A comparison of predictions that are drawn, without a training."""
    rng, targets, rows = np.random.default_rng(0), data.test.targets, []
    for name, kind, size in ((EVIL, "baseline", 0.5), (CLASSES[1], "strategy", 2.0)):
        drawn = [
            1 / (1 + np.exp(-size * (2 * targets - 1) - rng.normal(size=len(targets))))
            for _ in range(1 + (kind == "strategy"))
        ]
        scores = resampled("classification", targets, drawn, resamples=50)
        rows.append(Row(name, kind, scores, 3, 30, 1.5, 2**20, predictions=drawn))
    return Comparison(data.name, len(targets), tuple(rows), (0, 1), 0.95, {"backend": EVIL})


@pytest.fixture(scope="module")
def parts(data):
    """Whatever a report can have, with hostile text wherever data bring text along."""
    table = pd.DataFrame({EVIL: np.r_[np.arange(59.0), -999], "y": [*CLASSES] * 30})
    found = kft.explore(table, target="y")
    done = kft.fit(kft.Model(esm2(), kft.heads.for_data(data)), data, "head_only", 2, verbose=0)
    by = pd.Series([*CLASSES] * 10, name=EVIL)
    judged = kft.evaluate(done.model, data, by=by, resamples=20)
    return [data, found, done, judged, compared(data)]


@pytest.fixture(scope="module")
def page(parts, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    kft.report(parts, path, question=EVIL, title=CLASSES[1], command=EVIL)
    return path


class Reader(HTMLParser):
    """What a browser would see: elements, their attributes and texts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


# Content ----------------------------------------------------------------------------------------


def test_all_sections_are_there_in_order(page):
    assert [x["id"] for x in Reader(page.read_text()).all("section")] == SECTIONS


def test_what_was_not_given_is_left_out_and_named(data):
    report = kft.report(data)
    assert [x.key for x in report.sections] == [
        "question",
        "data",
        "preparation",
        "limits",
        "repeat",
    ]
    text = report.to_html()
    for title in ("Exploration", "Model", "Training", "Assessment", "Groups", "Comparison"):
        assert f"<li>{title}: " in text


def test_numbers_are_those_of_the_results(page, parts):
    text = html.unescape(page.read_text())
    _, found, done, judged, comparison = parts
    for interval in judged.values():
        assert str(interval) in text
    assert f"{kft.parameters(done.model).total:,}" in text
    assert all(finding.meaning in text or "\x1b" in finding.meaning for finding in found[:3])
    assert str(comparison.interval(comparison.rows[1])) in text
    assert "ab" * 32 in text and f"kft {kft.__version__}" in text and "torch" in text
    assert str(judged.groups.table["records"].iloc[0].astype(int)) in text


def test_each_figure_has_alternative_text_and_says_what_stands_out(page, parts):
    reader = Reader(page.read_text())
    images, captions = reader.all("img"), reader.all("figcaption")
    assert len(images) == len(captions) >= 6
    for image in images:
        assert image["alt"].startswith("Figure, ") and len(image["alt"]) > 30
    assert page.read_text().count("What stands out:</strong>") == len(captions)


def test_what_is_not_of_one_data_set_has_its_own_words(data, parts, tmp_path, monkeypatch):
    truth, noise = np.random.default_rng(0).normal(size=(2, 40))
    here, there = Scored(truth, truth + noise), Scored(truth, noise)
    transfer = judge_transfer("regression", here, there, noise[::-1], resamples=20)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)], name="plain")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "a b.py"), "--fast"])
    (tmp_path / "a b.py").touch()
    report = kft.report([transfer, model, parts[4]], tmp_path / "report.md")
    assert report.title == parts[4].data  # there is no data set to be named after
    assert f"On other data: {transfer.verdict}" in report.summary
    text = (tmp_path / "report.md").read_text()
    assert r"plain \(Sequential\)" in text
    assert f"python '{tmp_path / 'a b.py'}' --fast" in text  # how to repeat it
    assert "Which way of fine-tuning predicts the target" in html.unescape(report.to_html())
    shown = report._repr_html_()  # in a notebook
    assert shown.startswith('<iframe srcdoc="') and html.escape("<!doctype html>") in shown.lower()


def test_findings_alone_name_the_report_and_say_that_nothing_is_wrong():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(200, 2)), columns=["a", "b"])
    table["c"] = table["a"] + rng.normal(0, 0.5, 200)
    table["y"] = table["b"] + rng.normal(size=200)
    found = kft.explore(table, target="y")
    assert not len(found.at_least("warning"))
    report = kft.report(found)
    assert report.title == found.name
    text = html.unescape(report.to_html())
    assert "Nothing was found that may mislead a model or a score." in text
    assert "Columns that correlate most" in text


def test_two_of_a_kind_of_other_data_or_of_an_unknown_type_are_errors(parts, data, tmp_path):
    with pytest.raises(ValueError, match="two of the type Findings"):
        kft.report([parts[1], parts[1]])
    with pytest.raises(ValueError, match="one data set, received Comparison of 'b'"):
        kft.report([data, replace(parts[4], data="b")])
    with pytest.raises(TypeError, match=r"subject must be .* received dict"):
        kft.report({})
    with pytest.raises(ValueError, match=r"must be one of \.html"):
        kft.report(data, tmp_path / "report.pdf")
    with pytest.raises(FileNotFoundError, match="no run"):
        kft.report(tmp_path)


def test_the_same_parts_give_the_same_page(data, parts):
    assert kft.report([data, parts[1]]).to_html() == kft.report([data, parts[1]]).to_html()


# Harm -------------------------------------------------------------------------------------------


def test_texts_of_the_data_are_texts_in_the_page(page):
    text = page.read_text()
    reader = Reader(text)
    assert not reader.all("script") and not reader.all("iframe")
    assert all(not name.startswith("on") for _, found in reader.tags for name in found)
    assert EVIL in reader.texts[reader.texts.index("name") + 1 :]
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[31mred" in text


def test_the_page_forbids_itself_requests_and_makes_none(page):
    reader = Reader(page.read_text())
    policy = next(x for x in reader.all("meta") if x.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"] and "img-src data:;" in policy["content"]
    named = [
        value
        for _, found in reader.tags
        for name, value in found.items()
        if name in ("src", "srcset", "href")
    ]
    assert len(named) > 20 and all(value.startswith(("data:", "#")) for value in named)


def test_markdown_and_notebook_hold_the_same_and_no_markup_of_the_data(parts, tmp_path):
    report = kft.report(parts, question=EVIL)
    text = report.save(tmp_path / "a b.md").read_text()
    titles = re.findall(r"^## (.*)$", text, re.M)
    assert len(titles) == len(SECTIONS)
    images = re.findall(r"^!\[.*\]\(<(.*)>\)$", text, re.M)
    assert len(images) >= 6 and all((tmp_path / image).stat().st_size for image in images)
    notebook = json.loads(report.save(tmp_path / "a.ipynb").read_text())
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    assert [key for key in cells if key in SECTIONS] == SECTIONS
    for found in (text, *("".join(cell["source"]) for cell in cells.values())):
        outside = re.sub(r"^(`{3,}).*?^\1$", "", found, flags=re.S | re.M)
        assert "<script" not in outside and "<img" not in outside and "\x1b" not in found
        assert "$" not in outside.replace("<span>$</span>", "")
    wanted = re.findall(r"attachment:([\w.]+)", cells["assessment"]["source"])
    assert wanted and set(wanted) == set(cells["assessment"]["attachments"])


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path):
    figure = Figure()
    ax = figure.subplots()
    ax.set_xticks([0, 1], [r"$\frac{$", "\x1b[31m"])
    ax.set(title=r"$\evil{$", yscale="log", ylim=(1e-3, 1))
    save_figure(figure, "caption", tmp_path / "a.png")  # would raise an error otherwise
    assert [x.get_text() for x in ax.get_xticklabels()] == [r"$\frac{$", r"\x1b[31m"]
    assert any(x.get_parse_math() for x in ax.get_yticklabels())


# Parts ------------------------------------------------------------------------------------------


def test_findings_are_read_as_they_were_written(parts):
    found = parts[1]
    again = Findings.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert list(again.figures()) == list(found.figures())
    captions = [[caption for _, caption in x.figures().values()] for x in (again, found)]
    assert captions[0] == captions[1]
    with pytest.raises(ValueError, match="Findings.to_json"):
        Findings.from_json('{"a": 1}')


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([3.0, 2.0, 1.0], "falls from 3 to 1 in epoch 3, the last: more epochs may"),
        ([3.0, 1.0, 2.0], "falls from 3 to 1 in epoch 2, and is 2 at the end: the model begins"),
        ([1.0, 2.0], "lowest after the first epoch, 1"),
        ([1.0, np.nan], "is NaN or infinite in epoch 2"),
        ([1.0], "after its only epoch"),
        ([3.0, 2.0, 2.1], "falls from 3 to 2 in epoch 2, and is 2.1 at the end."),
    ],
)
def test_the_caption_of_curves_says_how_they_run(losses, said):
    history = [{"phase": 0, "loss": 1.0, "val_loss": x, "accuracy": 0.5} for x in losses]
    figure, caption = plot_history(history, phases=["head"])
    assert said in caption and len(figure.axes) == 2
    with pytest.raises(ValueError, match="history has no epoch"):
        plot_history([])
    several = [row | {"phase": i} for i, row in enumerate(history)]
    axes = plot_history(several, phases=["head"] * len(several))[0].axes[0]
    lines = [x for x in axes.lines if x.get_linestyle() == ":"]
    assert len(lines) == len(several) - 1  # one where a phase ends and the next begins


PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], "float32")


def test_a_figure_for_a_desk_is_whole_after_that_for_a_phone():
    names = ["noise", "signal of two black holes"]
    table = pd.DataFrame([[1, 0.1], [0.1, 1]], index=names, columns=names)
    for figure, _ in (plot_correlation(table), plot_confusion([0, 1], [0, 1], names)):
        drawing.narrow_svg(figure)
        drawing.svg(figure)
        boxes = [ax.get_tightbbox() for ax in figure.axes]
        assert min(box.x0 for box in boxes) >= 0 and min(box.y0 for box in boxes) >= 0


@pytest.mark.parametrize(
    ("task", "targets", "predictions"),
    [
        ("classification", np.array([0, 1, 1]), PROBABILITIES),
        ("multilabel", np.array([[0, 1], [0, 0], [1, 1]]), PROBABILITIES),
        ("regression", np.array([0.5, -1.0, 2.0]), np.array([0.4, -2.0, 1e-9])),
        ("residue_classification", [np.array([0, 1]), np.array([1])],
         [PROBABILITIES[:2], PROBABILITIES[2:]]),
        ("residue_regression", [np.array([0.5, 1.0]), np.array([2.0])],
         [np.array([[1.0], [2.0]]), np.array([[3.0]])]),
    ],
)  # fmt: skip
def test_what_was_predicted_is_read_from_the_table_of_a_run(task, targets, predictions, tmp_path):
    """The files of a run are those that `finetune` writes, with its own functions."""
    kind = Task(task)
    classes = ["=a", "b"] if kind.has_classes else None
    masks = [np.array([True, False]), np.array([True])] if kind.per_residue else None
    inputs = ["MK", "G"] if kind.per_residue else ["MK", "G", "AC"]
    part = Split(inputs, targets, masks=masks)
    data = Dataset("a", task, part, None, part, "", "", "", "", classes and tuple(classes))
    model = SimpleNamespace(head=SimpleNamespace(task=kind), target_name="y", classes=classes)
    table = pd.DataFrame({"true_y": truth(data, part)})
    rows = predictions if kind.per_residue else np.asarray(predictions)
    with_predictions(table, model, rows).to_csv(tmp_path / "a.csv", index=False)
    read = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    if classes:
        read = read.replace({"'=a": "=a"})
    scored, record = _scored(read, kind, classes, "y")
    if kind.per_residue:
        keep = np.concatenate(masks)
        targets, predictions = np.concatenate(targets)[keep], np.concatenate(predictions)[keep]
        assert record.tolist() == [0, 1]
    np.testing.assert_array_equal(scored.targets, targets)
    np.testing.assert_allclose(scored.predictions, np.squeeze(predictions), rtol=1e-6)


def test_predictions_stand_beside_columns_whose_names_repeat():
    table = pd.DataFrame([[1, 2], [3, 4]], columns=["x", "x"])
    model = SimpleNamespace(
        head=SimpleNamespace(task=Task("multilabel")), target_name="y", classes=["a", "b"]
    )
    rows = np.array([[0.9, 0.2], [np.nan, np.nan]])  # the second record was skipped
    found = with_predictions(table, model, rows)
    assert list(found)[:2] == ["x", "x"] and found.iloc[:, :2].to_numpy().tolist() == [
        [1, 2],
        [3, 4],
    ]
    assert found["predicted_y"].tolist()[0] == "a" and pd.isna(found["predicted_y"][1])


@pytest.mark.parametrize(("truth", "classes"), [("HCH", ["C", "H"]), ("0.5 1 2", None)])
def test_residues_beyond_max_length_have_no_prediction(truth, classes):
    task = Task("residue_classification" if classes else "residue_regression")
    names = [f"probability_{x}" for x in classes] if classes else ["predicted_y"]
    table = pd.DataFrame({"true_y": [truth] * 2} | {name: ["0.5 0.5", "0.5"] for name in names})
    scored, record = _scored(table, task, classes, "y")
    assert len(scored.targets) == len(scored.predictions) == 3
    assert record.tolist() == [0, 0, 1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose data are gone: the folder has all that the report needs."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    inputs = strings(rng.integers(6, 9, 45))
    table = pd.DataFrame({"peptide": inputs, "activity": [x.count("K") + 0.5 for x in inputs]})
    table.assign(split=["train", "valid", "test"] * 15).to_csv(folder / "a.csv", index=False)
    backbone = str(kft.backbones.save(esm2(), folder / "backbone"))
    settings = Settings(str(folder / "a.csv"), backbone=backbone, strategy="head_only", epochs=2)
    command = ["kft", "finetune", "a b.csv"]
    done = kft.finetune(settings, folder / "run", baselines=False, command=command)
    (folder / "a.csv").unlink()
    return done


def test_a_run_is_reported_from_its_folder(run, tmp_path):
    report = kft.report(run.folder, tmp_path / "report.html")
    absent = ("preparation", "groups", "comparison")
    found = [x.key for x in report.sections if x.key not in absent]
    assert found == [x for x in SECTIONS if x not in absent]
    text = html.unescape((tmp_path / "report.html").read_text())
    assert "kft finetune 'a b.csv'" in text and run.config["data"]["digest"] in text
    assert report.summary[0].startswith("Spearman ")
    assert sum(isinstance(x, Picture) for one in report.sections for x in one.blocks) >= 3


PREDICTED = {  # the table of predictions, how many were scored, the figures, the worst record
    "classification": (
        {
            "true_y": ["a", "b", "b"],
            "predicted_y": ["a", "a", "b"],
            "probability_a": [0.9, 0.8, 0.3],
            "probability_b": [0.1, 0.2, 0.7],
        },
        "3 records", {"confusion", "roc_pr", "reliability"}, (1, 0.8),
    ),
    "multilabel": (
        {
            "true_y": ["a;b", "", "b"],
            "predicted_y": ["a", "", "b"],
            "probability_a": [0.9, 0.2, 0.3],
            "probability_b": [0.1, 0.2, 0.7],
        },
        "3 records", {"roc_pr", "reliability"}, (0, 0.5),
    ),
    "residue_classification": (
        {
            "true_y": ["ab", "b-"],
            "predicted_y": ["aa", "bb"],
            "probability_a": ["0.9 0.8", "0.2 0.2"],
            "probability_b": ["0.1 0.2", "0.8 0.8"],
        },
        "3 residues", {"confusion", "roc_pr", "reliability"}, (0, 0.5),
    ),
    "regression": (
        {"true_y": ["1 2", "3 4"], "predicted_y_1": [1.0, 3.0], "predicted_y_2": [2.0, 6.0]},
        "2 records", set(), (1, 1.0),
    ),
    "torsions": (
        {
            "sequence": ["MKT", "GS"],
            **{f"true_{x}": ["170.0 -60.0 NA", "10.0 20.0"] for x in ("phi", "psi", "omega")},
            **{f"predicted_{x}": ["-170.0 -60.0 5.0", "14.0 20.0"]
               for x in ("phi", "psi", "omega")},
        },
        "4 residues", {"ramachandran"}, (0, 10.0),
    ),
    "contacts": (
        {"residues": [30, 40], "precision of long L": [0.5, 0.1]},
        "2 chains", set(), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PREDICTED)
def test_predictions_of_every_task_are_read_counted_and_drawn(run, kind, tmp_path):
    columns, count, figures, worst = PREDICTED[kind]
    task = Task(kind)
    if task.per_pair:  # scores, of which the headline tells the worst
        columns = {task.headline(): list(columns.values())[1]}
    config = json.loads((run.folder / "config.json").read_text())
    config["data"]["task"] = kind
    config["model"] |= {"classes": ["a", "b"] if "probability_a" in columns else None}
    config["model"]["target"] = "y"
    config["result"]["margins"] = [0.5, 1.5] if kind == "regression" else None
    (tmp_path / "config.json").write_text(json.dumps(config))
    pd.DataFrame(columns).to_csv(tmp_path / "predictions.csv", index=False)
    interval = {"value": 0.5, "low": None, "high": None}
    scores = {"split": "test", "model": {"score": interval}, "baselines": {"mean": {}}}
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    found = parts_of_run(tmp_path).assessment
    assert found.count == count and set(found.figures()) == figures
    if worst is not None:
        assert (found.worst.index[0], found.worst["error"].iloc[0]) == pytest.approx(worst)
    assert (kind == "regression") == any("as wide on each side" in x for x in found.sentences)
    assert not [x for x in found.worst if x.startswith("probability_")]


def test_a_run_that_is_interrupted_or_cannot_be_loaded_is_reported_with_a_warning(run, tmp_path):
    config = json.loads((run.folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))  # its model is gone
    found = parts_of_run(tmp_path)
    assert (
        found.training is None
        and found.assessment is None
        and found.architecture.parameters is None
    )
    assert dict(found.architecture.facts)["trainable"] == f"{config['result']['trainable']:,}"
    (text,) = found.warnings
    assert text.startswith("The model could not be loaded for its table of parameters: ")
    (tmp_path / "config.json").write_text(json.dumps(config | {"status": "training", "result": {}}))
    first, _ = parts_of_run(tmp_path).warnings
    assert first.startswith("The training was interrupted and is not finished")
    assert "The training was interrupted" in html.unescape(kft.report(tmp_path).to_html())


# In a browser -----------------------------------------------------------------------------------

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
WATCH = """<!doctype html><meta charset="utf-8"><body>
<iframe style="width:390px;height:800px;border:0" srcdoc="{page}"></iframe>
<iframe style="width:1280px;height:800px;border:0" srcdoc="{page}"></iframe>
<pre id="seen"></pre><script>
addEventListener("load", () => {{
  const seen = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    page.querySelectorAll("details").forEach(one => one.open = true);
    const images = [...page.images], count = test => images.filter(test).length;
    return {{
      width: frame.clientWidth, needs: root.scrollWidth, images: images.length,
      sections: page.querySelectorAll("section").length,
      broken: count(x => !x.complete || !x.naturalWidth), narrow: count(x => x.naturalWidth < 700)
    }};
  }});
  document.getElementById("seen").textContent = JSON.stringify(seen);
}});
</script>"""


def browse(text, folder):
    """What a browser measures in a page at two widths, its errors, and the hosts it asked for."""
    watch, log = folder / "watch.html", folder / "net.json"
    watch.write_text(WATCH.format(page=html.escape(text)))
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--no-first-run", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--dump-dom",
        watch.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    asked = re.findall(r'"url":"(https?://127[^"]*)', log.read_text())
    return json.loads(html.unescape(seen[1])), re.findall(r"CONSOLE.*", done.stderr), asked


@in_browser
def test_a_browser_shows_it_on_a_phone_and_a_desk(page, tmp_path):
    seen, errors, asked = browse(page.read_text(), tmp_path)
    assert errors == [] and asked == []
    assert [x["width"] for x in seen] == [390, 1280]
    for one in seen:
        assert one["needs"] <= one["width"], "it scrolls sideways"
        assert one["broken"] == 0 and one["images"] >= 6 and one["sections"] == len(SECTIONS)
    assert seen[0]["narrow"] > seen[1]["narrow"], "figures are drawn for phones"


@in_browser
def test_the_browser_sees_what_is_wrong(tmp_path):
    wrong = """<!doctype html><section><img src="http://127.0.0.1:9/x.png">
        <p style="width:2000px">a</p><script>no_such_function()</script></section>"""
    seen, errors, asked = browse(wrong, tmp_path)
    assert [x["broken"] for x in seen] == [1, 1] and seen[0]["needs"] >= 2000
    assert any("no_such_function" in x for x in errors) and asked
