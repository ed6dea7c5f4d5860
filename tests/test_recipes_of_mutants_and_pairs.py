"""The recipes few_labels and interaction run from end to end, and say what they saw."""

from itertools import product

import pandas as pd
import pytest
from models import esm2
from recipe_runs import run

import kft


@pytest.mark.in_turn("torch")
def test_few_labels_of_your_own_table(tmp_path):
    rows = [(f"MKTAY{x}{y}", float(i)) for i, (x, y) in enumerate(product("ACDEF", "GHIKLMN"))]
    pd.DataFrame(rows, columns=["variant", "y"]).to_csv(tmp_path / "mine.csv", index=False)
    printed = run(
        "few_labels", tmp_path, "--csv", tmp_path / "mine.csv", "--inputs", "variant", "--target",
        "y", "--wild-type", "MKTAYIA", "--backbone", "kft_esm2_tiny", "--sizes", 8, "--seeds", 1,
        "--method", "wild_type_marginal",
    )  # fmt: skip
    assert "Better than zero-shot" in printed and (tmp_path / "few_labels.png").exists()
    methods = pd.read_csv(tmp_path / "few_labels.csv").method.tolist()
    assert methods == ["zero-shot", "one-hot ridge", "augmented ridge", "linear_probe"]


@pytest.mark.in_turn("torch")
def test_interaction(tmp_path):
    kft.backbones.save(esm2(), tmp_path / "small")
    small = "--backbone", tmp_path / "small"
    printed = run("interaction", tmp_path, "--tiny", "--splits", "C1", "C3", *small)
    table = pd.read_csv(tmp_path / "interaction.csv")
    assert set(table.method) >= {"degree of proteins", "5 similar pairs", "linear_probe"}
    at = table[table.method == "degree of proteins"].set_index("split").AUROC
    assert at["C3"].startswith("0.500") and not at["C1"].startswith("0.500")
    assert "AUROC by split" in printed
