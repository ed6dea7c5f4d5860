"""From two `kft finetune` to `kft fold`: runs for structures, their pages, and the folded chain."""

import html
import json
import re
import runpy
import shutil
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from models import esm2
from toy_chains import CHAINS, coordinates, data_of
from typer.testing import CliRunner

import kft
from kft import structure
from kft.cli import app
from kft.cli.fold import _chains
from kft.finetuning import Run, Settings, reading
from kft.plots import plot_chain, plot_confidence
from kft.plots.chain import trace

pytestmark = pytest.mark.once

TASKS = ("torsions", "distogram", "contacts")
SEQUENCE = "MKTAYIAKQRQI"


def shell(*arguments, status=0):
    done = CliRunner().invoke(app, [str(x) for x in arguments])
    assert done.exit_code == status, done.output
    return done


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run for each task, on toy chains in place of the data set "chains"."""
    folder = tmp_path_factory.mktemp("runs")
    backbone = str(kft.backbones.save(esm2(), folder / "backbone"))
    settings = {"backbone": backbone, "epochs": 1, "strategy": "head_only"}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reading.datasets, "load", lambda name, target: data_of(target))
        for task in TASKS:
            kft.finetune(Settings("chains", task=task, **settings), folder / task)
    return folder


# Runs ---------------------------------------------------------------------------------------------


def test_the_table_of_predictions_has_angles_or_scores_of_chains(runs):
    table = Run(runs / "torsions").predictions
    assert [x for x in table if "phi" in x] == ["true_phi", "predicted_phi"]
    numbers = table["true_psi"][0].split()
    assert numbers[0] == numbers[-1] == "NA" and len(numbers) == len(CHAINS[0])
    expected = np.rad2deg(structure.torsions(coordinates(CHAINS[0]))[1:-1, 1])
    np.testing.assert_allclose([float(x) for x in numbers[1:-1]], expected, atol=0.06)
    for task in ("distogram", "contacts"):
        run = Run(runs / task)
        assert list(run.predictions) == ["sequence", "residues", *run.scores["model"]]
        assert run.predictions["residues"].tolist() == [*map(len, CHAINS)]
    data = data_of("distogram")
    judged = kft.evaluate(run.model if task == "distogram" else Run(runs / "distogram").model, data)
    each = Run(runs / "distogram").predictions["log loss"].to_numpy()
    pairs = [mask.sum() for mask in data.test.masks]
    assert np.average(each, weights=pairs) == pytest.approx(judged["log loss"].value, rel=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_a_run_has_a_page(runs, task):
    run = Run(runs / task)
    page = kft.report(run).to_html()
    assert "table of parameters" not in page
    assert ("chains of the test split" if task != "torsions" else "residues of the test") in page
    assert ("phi and psi" in page) == (task == "torsions")
    assert "script-src" not in page, "a page without a chain runs no script"


def test_the_data_set_says_which_tasks_it_has(tmp_path):
    wrong = shell("finetune", "chains", "--task", "regression", "--out", tmp_path, status=1)
    assert "--task must be one of residue_classification, torsions, " in wrong.stderr
    wrong = shell("finetune", "digits", "--task", "torsions", "--out", tmp_path, status=1)
    assert "digits is a data set of kft for classification" in wrong.stderr


# kft fold -----------------------------------------------------------------------------------------


def test_a_sequence_is_folded_from_two_runs(runs, tmp_path):
    models = ("--models", runs / "torsions", "--models", runs / "distogram")
    fast = ("--starts", 1, "--iterations", 20)
    done = shell("fold", SEQUENCE, tmp_path / "a.pdb", *models, *fast, "--report", "--json")
    (result,) = json.loads(done.stdout)
    assert set(result) == {"written", "report", "energy", "expected_lddt"}
    assert "a: Fold of 12 residues: energy" in done.stderr
    chain = structure.read_structure(result["written"])
    assert chain.sequence == SEQUENCE
    same = kft.fold([Run(runs / x).model for x in TASKS[:2]], SEQUENCE, 1, 20).chain
    np.testing.assert_allclose(chain.coordinates, same.coordinates, atol=1e-3)
    np.testing.assert_allclose(chain.confidence, same.confidence, atol=0.01)
    assert "data-chain=" in (tmp_path / "a.html").read_text()


def test_each_record_of_a_file_is_folded(runs, tmp_path):
    fasta = tmp_path / "two.fasta"
    fasta.write_text(f">sp|P1 first\n{CHAINS[1]}\n>P/2\n{CHAINS[2]}\n")
    options = ("--models", runs / "torsions", "--starts", 1)
    shell("fold", fasta, tmp_path / "out", *options)
    assert {x.name for x in (tmp_path / "out").iterdir()} == {"sp_P1.pdb", "P_2.pdb"}
    assert structure.read_structure(tmp_path / "out" / "P_2.pdb").sequence == CHAINS[2]
    wrong = shell("fold", fasta, tmp_path / "one.pdb", *options, status=1)
    assert "OUT must be a folder, since" in wrong.stderr and "has 2 records" in wrong.stderr
    wrong = shell("fold", "nothing.fasta", tmp_path / "a.pdb", *options, status=1)
    assert "a string of residues or a FASTA file" in wrong.stderr
    long = "MKTAYIAKQR" * 50  # longer than the name of a file may be
    assert _chains(long, Path("a.cif")) == {Path("a.cif"): long}
    wrong = shell("fold", "MKT", tmp_path / "a.pdb", "--models", runs / "contacts", status=1)
    assert "received one of Contacts for contacts" in wrong.stderr
    fasta.write_text(">a\nMKT\n>a\nGAG\n")
    assert "two records of the name a" in shell("fold", fasta, tmp_path, *options, status=1).stderr


def test_the_recipe_folds_the_truth_or_what_models_predict(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kft.data, "load", lambda _: data_of("torsions"))
    models = ["--models", str(runs / "torsions"), str(runs / "distogram")]
    for options, first in (([], "distances and torsions"), (models, "predicted by the models")):
        given = ["fold.py", "--tiny", "--starts", "1", "--out", str(tmp_path), *options]
        monkeypatch.setattr(sys, "argv", given)
        runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "fold.py"), run_name="__main__")
        assert first in capsys.readouterr().out
        table = pd.read_csv(tmp_path / "scores.csv").set_index("method")
        assert table.loc["nearest training chain", "lDDT"].tolist() == [1.0, 1.0]
        better = table.loc[first, "lDDT"].to_numpy() > table.loc["helix", "lDDT"].to_numpy()
        assert options or better.all()


# The page -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fold():
    """A fold of the distances of a helix."""
    bins, known = structure.distogram(coordinates(SEQUENCE))
    predicted = structure.smoothed_distogram(bins, known)
    return structure.fold_chain(SEQUENCE, predicted, starts=1, iterations=50, name="<b>helix")


def test_the_page_of_a_fold_runs_its_own_script_alone(fold):
    page = kft.report(fold).to_html()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    view = json.loads(html.unescape(re.search(r'data-chain="([^"]*)"', page)[1]))
    assert len(view["colours"]) == len(view["labels"]) == len(SEQUENCE)
    assert [len(x) for x in view["curves"]] == [len(x) for x in view["residues"]]
    assert view["labels"][0].startswith("M1, expected lDDT ")
    assert "<b>helix" not in page and "Not in this report" not in page


def test_a_fold_is_compared_with_the_true_chain(fold):
    truth = structure.ProteinChain("true", SEQUENCE, coordinates(SEQUENCE))
    report = kft.report([fold, truth])
    found = structure.tm_score(fold.chain.coordinates[:, 1], truth.coordinates[:, 1])
    assert f"its TM-score {found:.2f}" in report.summary[0]
    page = report.to_html()
    assert all(x in page for x in ("observed contacts", "expected and observed", "GDT_TS"))
    other = structure.ProteinChain("other", "MKT", coordinates("MKT"))
    with pytest.raises(ValueError, match="with the same sequence: that of the fold differs"):
        kft.report([fold, other])
    with pytest.raises(ValueError, match="there is no fold"):
        kft.report(other)


# Figures ------------------------------------------------------------------------------------------


def test_the_curve_turns_the_chain_and_does_not_mirror_it():
    """Through each C-alpha; a break of the backbone is a gap."""
    rng = np.random.default_rng(0)
    for atoms in (coordinates(SEQUENCE), coordinates(SEQUENCE) * [1, 1, -1]):
        curves, residues = trace(atoms)
        assert residues[0][0] == 0 and residues[0][-1] == len(SEQUENCE) - 1
        assert not structure.is_mirrored(curves[0][::6], atoms[:, 1])
        assert structure.rmsd(curves[0][::6], atoms[:, 1]) < 1e-6
    broken = coordinates(SEQUENCE)
    broken[5:] += 20.0
    broken[9, 1] = np.nan
    assert [set(x) for x in trace(broken).residues] == [{*range(5)}, {*range(5, 9)}, {10, 11}]
    _, caption = plot_chain(broken, rng.uniform(0, 100, 12))
    assert "of 12 residues have an expected lDDT of at least 70" in caption


def test_wrong_values_of_figures_are_named():
    with pytest.raises(ValueError, match="confidence must be one number for each of 12"):
        plot_chain(coordinates(SEQUENCE), [1.0])
    with pytest.raises(ValueError, match=r"shape \(N, 3, 3\), received \(12, 3\)"):
        plot_chain(coordinates(SEQUENCE)[:, 1])
    with pytest.raises(ValueError, match="all are NaN"):
        plot_chain(np.full((3, 3, 3), np.nan))
    with pytest.raises(ValueError, match="at least 3 residues must have both, received 1"):
        plot_confidence([1.0, np.nan, 3.0], [1.0, 2.0, np.nan])


# In a browser -----------------------------------------------------------------------------------

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
TURN = """<!doctype html><meta charset="utf-8"><body>
<iframe style="width:390px;height:800px;border:0" srcdoc="{page}"></iframe>
<pre id="seen"></pre><script>
const drawn = () => new Promise(done => setTimeout(done, 100));
addEventListener("load", async () => {{
  const inside = document.querySelector("iframe"), page = inside.contentDocument;
  const canvas = page.querySelector("canvas"), said = page.querySelector(".said"), seen = {{}};
  // Without a screen nothing asks for frames.
  inside.contentWindow.requestAnimationFrame = draw => setTimeout(draw);
  const picture = page.querySelector("figure[data-chain] picture");
  seen.still = getComputedStyle(picture).display;
  const press = async key => {{
    canvas.dispatchEvent(new inside.contentWindow.KeyboardEvent("keydown", {{ key }}));
    await drawn();
    return canvas.toDataURL();
  }};
  const first = await press("+"), turned = await press("ArrowRight");
  const back = await press("ArrowLeft");
  seen.wide = canvas.width > 300;
  [seen.turned, seen.back] = [turned !== first, back === first];
  const box = canvas.getBoundingClientRect(), help = said.textContent;
  for (let x = box.left; x < box.right && said.textContent === help; x += 4)
    for (let y = box.top; y < box.bottom && said.textContent === help; y += 8) {{
      const at = {{ clientX: x, clientY: y }};
      canvas.dispatchEvent(new inside.contentWindow.PointerEvent("pointermove", at));
    }}
  seen.said = said.textContent;
  document.getElementById("seen").textContent = JSON.stringify(seen);
}});
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_a_browser_lets_the_chain_be_turned(fold, tmp_path):
    (tmp_path / "turn.html").write_text(
        TURN.format(page=html.escape(kft.report(fold).to_html())), "utf-8"
    )
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--no-first-run", "--enable-logging=stderr", "--v=0",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        (tmp_path / "turn.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert re.findall(r"CONSOLE.*", done.stderr) == []
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)[1]))
    assert re.fullmatch(r"[A-Z]\d+, expected lDDT \d+%", seen.pop("said"))
    assert seen == {"still": "none", "wide": True, "turned": True, "back": True}
