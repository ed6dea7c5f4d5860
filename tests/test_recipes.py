"""Every recipe runs from end to end on real data, and says what it saw."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import kft

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`full.py --tiny` on amp: its folder and what it printed."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch, open(out / "printed", "w") as printed:
        patch.setattr(sys, "argv", ["full.py", "--data", "amp", "--tiny", "--out", str(out)])
        patch.setattr(sys, "stdout", printed)
        runpy.run_path(str(RECIPES / "full.py"), run_name="__main__")
    return out


def test_scores_stand_beside_baselines(run):
    record = json.loads((run / "amp.json").read_text())
    assert record["backend"] == kft.model.keras.backend.backend()
    assert record["seed"] == 0
    assert record["records"] == {"train": 3234, "valid": 462, "test": 924}
    models = list(record["scores"])
    assert models[0] == "ESM-2, random start"
    assert {"composition", "3-mers"} <= set(models)
    for row in record["scores"].values():
        assert list(row) == ["AUROC", "accuracy", "MCC"]
        for interval in row.values():
            assert interval["low"] <= interval["value"] <= interval["high"]
    assert record["scores"]["3-mers"]["AUROC"]["value"] == pytest.approx(0.917, abs=0.01)
    cost = record["cost"]["ESM-2, random start"]
    assert cost["trainable"] == cost["parameters"] > 100_000
    assert cost["seconds"] > 0


def test_what_it_prints(run):
    printed = (run / "printed").read_text()
    for words in ("BSD-3-Clause", "95% intervals", "trainable", "seconds", "What stands out"):
        assert words in printed
    assert re.search(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", printed)


def test_figure_and_caption(run):
    assert (run / "amp.png").read_bytes().startswith(b"\x89PNG")
    caption = (run / "amp.txt").read_text()
    assert "n = 924" in caption
    assert json.loads((run / "amp.json").read_text())["caption"] == caption.strip()


class Known:
    """A model whose answers are known: the probability of class 1 is its input's share of K."""

    @staticmethod
    def encode(sequences, max_length=None, pad_lengths=None, names=None):
        return {"share": np.array([[s.count("K") / len(s)] for s in sequences])}

    @staticmethod
    def predict_on_batch(inputs):
        share = inputs["share"]
        return np.concatenate([1 - share, share], axis=1).astype("float32")


def test_evaluate():
    data = kft.data.load("amp")
    found = kft.evaluate(Known, data)
    share = [s.count("K") / len(s) for s in data.test.inputs]
    expected = kft.evaluation.score(
        "classification", data.test.targets, np.array(share, "float32"), groups=data.test.groups
    )
    assert found["AUROC"].value == pytest.approx(expected["AUROC"].value, abs=1e-6)
    assert found["AUROC"].low == pytest.approx(expected["AUROC"].low, abs=1e-6)
    assert kft.evaluate(Known, data, "valid")["AUROC"].value != found["AUROC"].value


def test_evaluate_names_the_splits():
    with pytest.raises(ValueError, match=r"train, valid, test for amp, received 'dev'"):
        kft.evaluate(Known, kft.data.load("amp"), "dev")
