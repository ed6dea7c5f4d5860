"""Runs: from a file to a folder, and from the folder to predictions."""

import dataclasses
import json
import warnings
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from models import esm2, strings
from PIL import Image

import kft
from kft.data import Split
from kft.files import only_writer
from kft.finetuning import Run, Settings, read_data, tuning
from kft.finetuning.reading import as_classes, read_whole

pytestmark = pytest.mark.once  # what depends on the backend is that of `fit` and `predict`

PEPTIDES = strings([9] * 60, "ACDEFGHIKLMNPQRSTVWY")
TABLE = pd.DataFrame(
    {
        "code": [f"{i:03d}" for i in range(60)],
        "peptide": PEPTIDES,
        "activity": [round(x.count("K") + 0.25 * i, 2) for i, x in enumerate(PEPTIDES)],
    }
)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return str(kft.backbones.save(esm2(), tmp_path_factory.mktemp("backbone")))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A table as spreadsheets in Europe write it, with half of the records to validate on."""
    path = tmp_path_factory.mktemp("data") / "assay.csv"
    split = ["train", "valid", "test"] * 20
    TABLE.assign(split=split).to_csv(path, sep=";", decimal=",", index=False)
    return path


@pytest.fixture(scope="module")
def settings(file, backbone):
    options = {"rank": 2, "dropout": 0.3, "targets": ("query", "value")}  # stored as a list
    return Settings(str(file), backbone=backbone, options=options, epochs=3)


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    return kft.finetune(settings, tmp_path_factory.mktemp("run"))


def weights(run):
    return [keras.ops.convert_to_numpy(v) for v in run.model.weights]


def test_a_run_predicts_each_row_of_a_new_file(run, file, tmp_path):
    new = TABLE.iloc[::-1].assign(note='ä; "x"')
    new.to_csv(tmp_path / "new.csv", sep=";", decimal=",", index=False)
    Run(run.folder).predict(tmp_path / "new.csv", out=tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv", sep=";", decimal=",", dtype={"code": str})
    pd.testing.assert_frame_equal(found[new.columns], new.reset_index(drop=True))
    added = found.columns[len(new.columns) :].tolist()
    assert added == [f"predicted_activity{end}" for end in ("", "_low", "_high")]
    expected = kft.predict(run.model, new["peptide"].tolist())[:, 0]
    np.testing.assert_allclose(found["predicted_activity"], expected, rtol=1e-6)
    assert (found["predicted_activity_low"] < found["predicted_activity"]).all()


def test_an_interrupted_run_is_usable_and_ends_with_the_same_weights(
    run, settings, tmp_path, monkeypatch
):
    end = tuning._Epochs.on_epoch_end

    def interrupted(self, epoch, logs=None):
        end(self, epoch, logs)
        if epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tuning._Epochs, "on_epoch_end", interrupted)
        kft.finetune(settings, tmp_path)
    with pytest.warns(UserWarning, match="best of its first 1 epoch"):
        assert Run(tmp_path).predict(PEPTIDES[:3]).shape == (3, 1)
    whole = kft.finetune(settings, tmp_path)
    assert all(map(np.array_equal, weights(whole), weights(Run(run.folder))))
    assert not (tmp_path / "training.npz").exists()


# The folder -------------------------------------------------------------------------------------


def test_the_folder_holds_all_that_was_done(run, file):
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        "config.json", "split.csv", "adapter", "history.csv", "predictions.csv", "scores.json",
        "findings.json", "log.txt",
    }  # fmt: skip
    config = json.loads((run.folder / "config.json").read_text())
    assert config["status"] == "finished" and config["data"]["inputs"] == "peptide"
    assert config["data"]["sha256"] == read_data(run.settings)[0].checksum
    split = pd.read_csv(run.folder / "split.csv")
    assert split["line"].tolist() == list(range(2, 62))
    assert split["split"].tolist() == ["train", "valid", "test"] * 20
    assert run.predictions["true_activity"].tolist() == TABLE["activity"][2::3].tolist()
    assert len(run.history) == 3
    assert {"mean", "one-hot, 9 positions"} < set(run.scores["baselines"])


def test_90_percent_of_the_validation_targets_are_in_the_intervals(run):
    data, _ = read_data(run.settings)
    table = run.predict(data.valid.inputs, as_frame=True)
    low, high = (table[f"predicted_activity_{end}"] for end in ("low", "high"))
    assert 0.9 <= np.mean((low <= data.valid.targets) & (data.valid.targets <= high)) <= 0.95


def test_a_finished_run_is_not_repeated_and_other_settings_are_an_error(run, settings, file):
    before = (run.folder / "config.json").read_bytes()
    said = []
    kft.finetune(settings, run.folder, log=said.append)
    assert "is finished already" in said[-1]
    as_paths = dataclasses.replace(settings, data=file, backbone=Path(settings.backbone))
    kft.finetune(as_paths, run.folder, log=said.append)
    assert "is finished already" in said[-1]
    with pytest.raises(ValueError, match="differs in its seed: name another folder"):
        kft.finetune(Settings(**{**settings.to_dict(), "seed": 1}), run.folder)
    assert (run.folder / "config.json").read_bytes() == before


def test_a_run_begins_again_only_when_told_and_leaves_other_files(tmp_path, backbone):
    TABLE.assign(split=["train", "valid", "test"] * 20).to_csv(tmp_path / "a.csv", index=False)
    settings = Settings(str(tmp_path / "a.csv"), backbone=backbone, strategy="linear_probe")
    folder = tmp_path / "run"
    kft.finetune(settings, folder, baselines=False)
    (folder / "notes.txt").write_text("mine")
    (folder / "preparation.json").write_text("left by an earlier run")
    table = TABLE.assign(activity=TABLE["activity"] + 1, split=["train", "valid", "test"] * 20)
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match="differs in its content of the data: name another folder"):
        kft.finetune(settings, folder)
    run = kft.finetune(settings, folder, overwrite=True, baselines=False)
    assert run.predictions["true_activity"].tolist() == table["activity"][2::3].tolist()
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "preparation.json").exists()
    frame = run.predict(TABLE[["code", "peptide"]], as_frame=True)  # the column is found by name
    assert frame["code"].tolist() == TABLE["code"].tolist()
    np.testing.assert_allclose(
        frame["predicted_activity"], run.predict(PEPTIDES).squeeze(), rtol=1e-5
    )


def test_a_run_that_was_stopped_at_once_says_so(run, tmp_path):
    config = json.loads((run.folder / "config.json").read_text())
    config["status"] = "training"
    (tmp_path / "config.json").write_text(json.dumps(config))
    stopped = Run(tmp_path)
    with pytest.raises(ValueError, match="no model yet, .* interrupted in the first epoch: run"):
        stopped.predict(PEPTIDES)
    assert stopped.text().endswith("is not finished: it has no scores yet.")


def test_a_second_process_in_the_folder_is_refused(settings, tmp_path):
    with only_writer(tmp_path), pytest.raises(BlockingIOError, match="another process is writing"):
        kft.finetune(settings, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_new_records_are_scored(run, tmp_path):
    TABLE.rename(columns={"activity": "measured"}).to_csv(tmp_path / "later.csv", index=False)
    scores = run.evaluate(tmp_path / "later.csv", target="measured")
    assert scores.headline == "Spearman" and np.isfinite(scores["RMSE"].value)


def test_a_folder_without_a_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no run in"):
        Run(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "esm"}')
    with pytest.raises(ValueError, match="is not the record of a run"):
        Run(tmp_path)
    (tmp_path / "config.json").write_text('{"kft_run": 99, "versions": {"kft": "9.1"}}')
    with pytest.raises(ValueError, match=r"later version of kft \(9\.1\)"):
        Run(tmp_path)


# Files and guesses ------------------------------------------------------------------------------


def fasta(table):
    rows = zip(table["code"], table["activity"], table["peptide"], strict=True)
    return "".join(f">{code} activity={y}\n{x}\n" for code, y, x in rows)


WRITERS = {
    "a.csv": lambda path: TABLE.to_csv(path, index=False),
    "a.tsv": lambda path: TABLE.to_csv(path, sep="\t", index=False),
    "a.txt": lambda path: TABLE.to_csv(path, sep=";", decimal=",", index=False),
    "a.xlsx": lambda path: TABLE.to_excel(path, index=False),
    "a.parquet": lambda path: TABLE.to_parquet(path, index=False),
    "a.jsonl": lambda path: TABLE.to_json(path, orient="records", lines=True),
    "a.fasta": lambda path: path.write_text(fasta(TABLE)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_any_file_is_read_and_its_columns_are_guessed(name, tmp_path):
    WRITERS[name](tmp_path / name)
    data, named = read_data(Settings(str(tmp_path / name), split="random"))
    assert (named.target, data.task, data.target) == ("activity", "regression", "activity")
    assert sorted(x for part in data.splits.values() for x in part.inputs) == sorted(PEPTIDES)
    y = [y for part in data.splits.values() for y in part.targets]
    np.testing.assert_allclose(sorted(y), sorted(TABLE["activity"]))
    assert any("'activity' was taken for the target" in note for note in data.notes)


def test_predictions_of_json_lines_are_json_lines(run, tmp_path):
    TABLE.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    run.predict(tmp_path / "a.jsonl", out=tmp_path / "out.jsonl")
    found = pd.read_json(tmp_path / "out.jsonl", lines=True, dtype={"code": str})
    assert found["code"].tolist() == TABLE["code"].tolist() and "predicted_activity" in found


def test_what_cannot_be_guessed_is_an_error_that_lists_the_columns(tmp_path):
    (tmp_path / "a.fasta").write_text(">P1 a description\nMKTAYI\n")
    with pytest.raises(ValueError, match="has no targets: the headers .* '>P1 activity=3.2'"):
        read_data(Settings(str(tmp_path / "a.fasta")))
    table = TABLE.rename(columns={"activity": "kd"}).assign(ki=1.5)
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match="several could be it: code, kd, ki"):
        read_data(Settings(str(tmp_path / "a.csv"), inputs="peptide", target=None, split="random"))
    table[["code", "kd"]].rename(columns={"code": "id"}).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ValueError, match=r"no column is left for the inputs \(id\)"):
        read_data(Settings(str(tmp_path / "b.csv"), target="kd"))
    with pytest.raises(FileNotFoundError, match="neither a file or folder"):
        read_data(Settings("no such file.csv"))


def test_two_columns_of_sequences_are_pairs(tmp_path):
    pairs = pd.DataFrame({"sequence_a": PEPTIDES, "sequence_b": PEPTIDES[::-1]})
    pairs["binds"] = np.arange(60) % 2
    pairs.to_csv(tmp_path / "a.csv", index=False)
    data, settings = read_data(Settings(str(tmp_path / "a.csv"), split="C1"))
    assert (settings.inputs, settings.target) == (["sequence_a", "sequence_b"], "binds")
    assert sorted(data.train.inputs + data.valid.inputs + data.test.inputs) == sorted(
        zip(PEPTIDES, PEPTIDES[::-1], strict=True)
    )
    assert "sequence_a, sequence_b were read as pairs" in " ".join(data.notes)
    other = pairs.rename(columns={"sequence_a": "bait", "sequence_b": "prey"})
    other.to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ValueError, match="bait, prey.* or two, for pairs of sequences"):
        read_data(Settings(str(tmp_path / "b.csv")))
    given = Settings(str(tmp_path / "b.csv"), inputs=["bait", "prey"])
    assert len(read_whole(given).train.inputs[0]) == 2
    with pytest.raises(ValueError, match="pairs are split by their proteins"):
        read_data(dataclasses.replace(given, groups="binds", target="binds"))


def columns(n=80):
    """A table of numbers and categories, with missing values and columns that are no inputs."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": range(n), "mass": rng.normal(80, 10, n).round(2)})
    table["detector"] = rng.choice(["a", "b"], n)
    table["note"] = [f"text {x}" for x in range(n)]
    table["empty"] = None
    table["label"] = np.where(table.mass + 5 * (table.detector == "a") > 82, "signal", "noise")
    table.loc[::7, "mass"] = None
    return table


def test_a_table_of_numbers_and_categories(tmp_path):
    columns().to_csv(tmp_path / "a.csv", index=False, na_rep="NA")
    run = kft.finetune(Settings(str(tmp_path / "a.csv"), epochs=1), tmp_path / "run")
    about = run.config["model"]
    assert (about["backbone"], about["strategy"]) == ("dense", "from_scratch")
    assert run.config["data"]["inputs"] == ["mass", "detector"]
    notes = " ".join(run.config["data"]["notes"])
    assert "Left out as names, texts or empty: id, note, empty." in notes
    assert "missing values filled" in notes
    assert {"linear model", "random forest"} < set(run.scores["baselines"])
    new = columns().drop(columns=["label", "note"])
    new.loc[1, "detector"] = None
    new.to_csv(tmp_path / "new.csv", index=False)
    with pytest.warns(UserWarning, match="13 missing values were filled as in the training"):
        Run(run.folder).predict(tmp_path / "new.csv", out=tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    pd.testing.assert_frame_equal(found[new.columns], pd.read_csv(tmp_path / "new.csv"))
    np.testing.assert_allclose(found.probability_noise + found.probability_signal, 1, rtol=1e-5)
    with pytest.warns(UserWarning, match="12 missing values were filled"):
        scores = run.evaluate(tmp_path / "a.csv")
    assert 0 <= scores["accuracy"].value <= 1


def test_marks_of_missing_values_categories_and_weights(tmp_path):
    def written(table, name):
        table.to_csv(tmp_path / name, index=False, na_rep="-999")
        return tmp_path / name

    table = columns().drop(columns=["note", "empty"])
    table["detector"] = np.where(table.detector == "a", 0, 7)
    file = written(table.assign(sure=np.where(table.index < 40, 0.5, 2)), "a.csv")
    marks = {"missing": ["-999"], "weights": "sure", "categories": ["detector"]}
    run = kft.finetune(Settings(str(file), epochs=1, **marks), tmp_path / "run", baselines=False)
    data, settings = read_data(run.settings)
    assert settings.inputs == ["mass", "detector"] and set(data.train.weights) == {0.5, 2}
    assert {x["detector"] for x in data.train.inputs} == {"0", "7"}
    assert run.settings == Settings.from_dict(run.settings.to_dict())
    assert kft.finetune(run.settings, tmp_path / "run").finished
    new = written(table.drop(columns="label"), "new.csv")
    with pytest.warns(UserWarning, match="12 missing values were filled as in the training"):
        run.predict(new, out=tmp_path / "out.csv")
    with pytest.warns(UserWarning) as said:
        run.evaluate(written(table, "measured.csv"))
    assert any("has no column 'sure' of weights" in str(warning.message) for warning in said)
    for source in ("digits", str(tmp_path)):
        with pytest.raises(ValueError, match=r"^missing is \['-999'\], but .*leave it out\.$"):
            read_data(Settings(source, missing=["-999"]))


def test_columns_are_named_and_adapters_of_a_new_network_are_stored_whole(tmp_path):
    columns().to_csv(tmp_path / "a.csv", index=False)
    given = {"inputs": "mass", "target": "label", "strategy": "lora", "epochs": 1}
    settings = Settings(str(tmp_path / "a.csv"), **given)
    run = kft.finetune(settings, tmp_path / "run", baselines=False)
    assert run.config["data"]["inputs"] == ["mass"]
    again = Run(run.folder).predict([{"mass": 80.0}, {"mass": 99.0}])
    np.testing.assert_array_equal(again, run.predict([{"mass": 80.0}, {"mass": 99.0}]))
    wrong = dataclasses.replace(settings, inputs=None, backbone="dense", data="digits", target=None)
    with pytest.raises(ValueError, match="data must hold rows of a table"):
        kft.finetune(wrong, tmp_path / "other")


def test_lines_that_are_no_json_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"sequence": "MKT", "y": 1}\n[1]\n')
    with pytest.raises(ValueError, match="line 2: expected one JSON object"):
        read_data(Settings(str(tmp_path / "a.jsonl")))


def test_classes_are_numbered_as_in_the_model(backbone, tmp_path):
    hostile = ["=1+1", "+b"]
    table = TABLE.assign(
        kind=[hostile[i % 2] for i in range(60)], split=["train", "valid", "test"] * 20
    )
    table.to_csv(tmp_path / "a.csv", index=False)
    settings = Settings(
        str(tmp_path / "a.csv"), target="kind", backbone=backbone, strategy="linear_probe"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rare classes, perhaps
        run = kft.finetune(settings, tmp_path / "run", baselines=False)
    truth = run.predictions["true_kind"].tolist()
    assert truth == table["kind"][2::3].tolist()
    text = (run.folder / "predictions.csv").read_text()
    assert ",=" not in text and ",'=1+1," in text
    read = dataclasses.replace(settings, split="none")
    data = kft.finetuning.reading.as_classes(read_data(read)[0], ("b", "+b", "=1+1"))
    assert [data.classes[k] for k in data.train.targets] == table["kind"].tolist()
    with pytest.raises(ValueError, match="classes that the model does not know: "):
        kft.finetuning.reading.as_classes(data, ("a", "b"))


def test_a_folder_of_images_is_read_whole_for_scoring(tmp_path):
    for kind, value in (("cat", 60), ("dog", 180)):
        (tmp_path / kind).mkdir()
        for i in range(4):
            pixels = np.full((8, 8, 3), value + i, dtype="uint8")
            Image.fromarray(pixels).save(tmp_path / kind / f"{i}.png")
    data = read_whole(Settings(str(tmp_path)))
    assert (len(data.train), data.test, data.classes) == (8, None, ("cat", "dog"))


def test_an_image_that_is_missing_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("well,y\na.png,1\nb.PNG,2\n")
    with pytest.raises(FileNotFoundError, match="names 2 of 2 images that do not exist"):
        read_data(Settings(str(tmp_path / "a.csv")))


def test_labels_and_residues_are_numbered_as_in_the_model():
    about = dict.fromkeys(("source", "licence", "citation", "checksum"), "")
    labels = Split(["MK", "GS"], np.array([[1, 0], [1, 1]]))
    data = kft.data.Dataset("a", "multilabel", labels, None, None, **about, classes=("x", "z"))
    found = as_classes(data, ["z", "y", "x"])
    assert found.train.targets.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert found.classes == ("z", "y", "x")
    residues = Split(["MK", "GST"], [np.array([0, 1]), np.array([1, 1, 0])])
    data = kft.data.Dataset(
        "a", "residue_classification", residues, None, None, **about, classes=("H", "C")
    )
    found = as_classes(data, ["C", "E", "H"])
    assert [row.tolist() for row in found.train.targets] == [[2, 0], [0, 0, 2]]
    with pytest.raises(ValueError, match="that the model does not know: 'E'|not know: H"):
        as_classes(data, ["C", "E"])


def test_wrong_data_leave_no_folder(tmp_path):
    (tmp_path / "a.csv").write_text("sequence,y\nMKT,1\nGSS,\n")
    with pytest.raises(ValueError, match="missing"):
        kft.finetune(Settings(str(tmp_path / "a.csv"), target="y"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
