"""Every task from a file to scores: read, trained, scored, compared with baselines, predicted."""

import csv
import json
import pickle

import keras
import numpy as np
import pytest
from contracts import check_padded_records, check_scored, check_sequence_encoder
from models import BACKBONES, esm2
from parity import assert_rounds_alike

import kft
from kft.data import Dataset, Segmentation, Split, read_csv
from kft.data.inputs import InputKind, encoder_info, kind_of
from kft.data.splits import cluster_split, group_split, random_split
from kft.data.task import Task

LETTERS = "AGKELS"
LABELS = ("acidic", "basic")


def peptides(count, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(LETTERS), rng.integers(8, 14))) for _ in range(count)]


def labels_of(sequence):
    """Of the two labels a peptide may have both, one or none."""
    return [int(sequence.count("E") > 1), int(sequence.count("K") > 1)]


def charges_of(sequence):
    """A number per residue, NaN at the first one."""
    charges = [{"K": 1.0, "E": -1.0}.get(letter, 0.25) for letter in sequence]
    return [float("nan"), *charges[1:]]


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def columns(tmp_path):
    """A table with a column per label."""
    rows = [[x, *labels_of(x)] for x in peptides(120)]
    return write(tmp_path / "labels.csv", ["sequence", *LABELS], rows)


@pytest.fixture
def named(tmp_path):
    """The same labels, named in one column."""
    names = [";".join(n for n, v in zip(LABELS, labels_of(x), strict=True) if v)
             for x in peptides(120)]  # fmt: skip
    return write(tmp_path / "named.csv", ["sequence", "y"], zip(peptides(120), names, strict=True))


@pytest.fixture
def numbers(tmp_path):
    """A table with a number per residue."""
    rows = [[x, " ".join("NA" if y != y else f"{y:g}" for y in charges_of(x))]
            for x in peptides(120)]  # fmt: skip
    return write(tmp_path / "numbers.csv", ["sequence", "y"], rows)


# What a task is -----------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("task", list(Task))
def test_a_task_is_its_name(task):
    assert task == task.value and str(task) == f"{task}" == task.value
    assert repr(task) == repr(task.value) and hash(task) == hash(task.value)
    assert {task.value: 1}[task] == 1
    assert json.loads(json.dumps({"task": task})) == {"task": task.value}
    assert pickle.loads(pickle.dumps(task)) is task and Task(task.value) is task
    found = Task.of(task.target, task.level)
    assert found is (Task.CONTACTS if task.per_pair else task)  # the first of two of pairs
    if task.level != "pixel":
        like = "number" if task.target == "angles" else task.target
        assert task.per_record.target == like and task.per_record.level == "record"


@pytest.mark.once
@pytest.mark.once
def test_there_is_no_task_of_classes_for_pairs_of_proteins():
    assert Task.of("class", "pair") == Task.CONTACTS
    with pytest.raises(ValueError, match="no task with target 'labels' at level 'pair'"):
        Task.of("labels", "pair")
    assert Task.CONTACTS.baselines("sequence") == ("separation", "residue_pairs")


def test_an_unknown_task_lists_the_names():
    with pytest.raises(ValueError, match=r"task must be one of .*multilabel.*, received 'rank'"):
        Task("rank")


@pytest.mark.once
@pytest.mark.parametrize("task", [task for task in Task if task.level != "pixel"])
def test_the_head_of_a_task_has_its_loss(task):
    per_record = {
        "class": np.arange(4) % 2,
        "labels": np.eye(4, dtype=int),
        "number": np.arange(4.0),
    }
    targets = [np.arange(4)] * 4 if task.per_residue else per_record[task.target]
    masks = None
    if task.target == "angles":
        targets = [np.arange(12.0).reshape(4, 3) / 12] * 4
    if task.per_pair:
        targets, masks = [np.eye(4, dtype=int)] * 4, [np.ones((4, 4), bool)] * 4
    classes = tuple("abcd")[: 4 if task.target == "labels" else 2] if task.has_classes else None
    if task is Task.RESIDUE_CLASSIFICATION:
        classes = tuple("abcd")
    data = Dataset(
        "toy", task, Split(["ACDE"] * 4, targets, masks=masks), None, None, "", "", "", "",
        classes=classes,
    )  # fmt: skip
    head = kft.heads.for_data(data)
    assert head.task is task and type(head.make_loss()).__name__ == task.loss
    assert isinstance(head.make_loss(), getattr(kft.losses, task.loss))
    assert head.units == task.outputs(data.train.targets, data.classes)


@pytest.mark.once
def test_segmentation_is_refused_where_records_or_residues_are_scored(tmp_path):
    """By all that is for records or residues; `kft.segmentation` is named."""
    labels = np.eye(8, dtype="uint16")
    part = Split([np.zeros((8, 8), "uint8")] * 4, [labels] * 4)
    about = dict.fromkeys(("source", "licence", "citation", "checksum"), "")
    data = Segmentation("toy", "segmentation", part, part, part, **about)
    task = Task.SEGMENTATION
    assert not task.has_classes and task.baselines("image") == () and task.headline() == "SA"
    path = write(tmp_path / "a.csv", ["sequence", "y"], [["MKT", 1], ["MKS", 2]])
    model = kft.Model(BACKBONES["vit"](), kft.heads.Regression())
    for call in (
        lambda: kft.heads.for_data(data), lambda: kft.evaluation.score(task, [1, 0], [1, 0]),
        lambda: read_csv(path, task="segmentation"), lambda: task.loss,
        lambda: kft.explore(data), lambda: kft.prepare(data), lambda: kft.baselines.constant(data),
        lambda: kft.evaluate(model, data), lambda: kft.fit(model, data, epochs=1),
        lambda: kft.compare(model.backbone, data, ["linear_probe"]),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match="kft.segmentation"):
            call()


# What an input is ---------------------------------------------------------------------------------


@pytest.mark.once
def test_a_split_says_what_its_inputs_are(tmp_path):
    image = np.zeros((4, 5, 3), "uint8")
    for inputs, kind in (
        (["MKT", "GSS"], "sequence"), ([image, image], "image"), ([tmp_path, tmp_path], "image"),
        ([np.zeros(3), np.ones(3)], "row"), ([{"a": image}, {"a": image}], "row"), ([], "sequence"),
    ):  # fmt: skip
        split = Split(inputs, np.zeros(len(inputs)))
        assert split.input_kind is InputKind(kind) is kind_of(inputs) and split.input_kind == kind
        assert split.take([]).input_kind == kind
    assert repr(Split([np.zeros(3)] * 2, [0, 1])) == "Split(2 records)"
    data = Dataset("toy", "regression", Split([], []), Split([image], [1.0]), None, "", "", "", "")
    assert data.input_kind == "image"


@pytest.mark.once
def test_encoders_state_what_they_take():
    backbone = esm2()
    check_sequence_encoder(backbone.encode)
    info = encoder_info(backbone.encode)
    assert (info.input_kind, info.specials) == ("sequence", (1, 1))


def plain(before, after):
    """An encoder that is a plain function, with so many special tokens."""

    def encode(inputs, max_length=None, pad_lengths=None, names=None):
        rows = [[30] * before + [ord(c) - 60 for c in x[:max_length]] + [31] * after
                for x in inputs]  # fmt: skip
        length = max(map(len, rows))
        length = next((n for n in pad_lengths or () if n >= length), length)
        return {"token_ids": np.array([row + [0] * (length - len(row)) for row in rows], "int32")}

    encode.specials = (before, after)
    return encode


@pytest.mark.filterwarnings("ignore:.*longer than max_length")
@pytest.mark.parametrize("specials", [(0, 0), (1, 0), (2, 1), (1, 1)])
def test_special_tokens_are_where_the_encoder_says(specials):
    check_sequence_encoder(plain(*specials))
    inputs = ["ACDEF", "GH", "KLMAAA"]
    targets = [np.array([ord(c) for c in x], "float64") for x in inputs]
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    table = keras.layers.Embedding(40, 4)
    backbone = keras.Model({"token_ids": token_ids}, table(token_ids))
    backbone.encode = plain(*specials)
    model = kft.Model(backbone, kft.heads.ResidueRegression())
    # The embedding of a letter is its number, and so is the prediction.
    table.embeddings.assign(np.tile(np.arange(40.0)[:, None], (1, 4)))
    model.head.dense.kernel.assign(np.full((4, 1), 0.25))
    model.head.dense.bias.assign([60.0])
    check_padded_records(model, inputs)
    found = kft.predict(model, inputs)
    for rows, target in zip(found, targets, strict=True):
        assert_rounds_alike(rows[:, 0], target)
    records = kft.batches((inputs, targets), backbone.encode, seed=None)
    encoded, given, weights = records[0]
    assert weights.sum() == sum(map(len, inputs))
    assert (given[weights > 0] == (encoded["token_ids"] + 60)[weights > 0]).all()
    cut = kft.predict(model, inputs, max_length=5)
    assert [len(rows) for rows in cut] == [5, 2, 5]


@pytest.mark.once
def test_special_tokens_that_are_not_stated_are_an_error():
    encode = plain(0, 0)
    del encode.specials
    with pytest.raises(ValueError, match="has 3 residues, targets of shape \\(5,\\)"):
        kft.batches((["ACDEF"], [np.zeros(5)]), encode)


# Reading labels -----------------------------------------------------------------------------------


@pytest.mark.once
def test_labels_are_read_from_columns_and_from_names(columns, named):
    by_columns = read_csv(columns, target=list(LABELS), split=None)
    by_names = read_csv(named, task="multilabel", split=None)
    for data in (by_columns, by_names):
        assert data.task == "multilabel" and data.classes == LABELS
        assert data.train.targets.tolist() == [labels_of(x) for x in data.train.inputs]
        assert data.train.targets.dtype == "int32"
    empty = sum(not any(labels_of(x)) for x in by_names.train.inputs)
    assert empty and any(f"separated by ';'; {empty} of 120 records have none" in note
                         for note in by_names.notes)  # fmt: skip
    assert "labels" in str(by_names) and "acidic, basic" in str(by_names)


@pytest.mark.once
@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ([["1", "0"], ["2", "1"]], {}, "line 3: column 'a' is '2'; expected 0 or 1"),
        ([["1", "0"], ["", "1"]], {}, "line 3: column 'a' is '', a missing value"),
        ([["1", "0"], ["x", "1"]], {}, "'x'; expected 0 or 1"),
        ([["1", "0"]], {"target": ["a", "a"]}, "names column 'a' twice"),
        ([["1", "0"]], {"target": ["a", "c"]}, "`target\\[1\\]` is 'c', which is not among"),
        ([["1", "0"]], {"target": []}, "is an empty list"),
        ([["1", "0"]], {"task": "regression"}, "a list of columns, which is for task='multilabel'"),
        ([["", "0"]], {"target": "a", "task": "multilabel"}, "names no label"),
        ([["NA", "0"]], {"target": "a", "task": "multilabel"}, "is 'NA', a missing value"),
    ],
)
def test_labels_that_cannot_be_read(tmp_path, cells, options, message):
    path = write(tmp_path / "x.csv", ["sequence", "a", "b"], [["MKT", *row] for row in cells])
    with pytest.raises(ValueError, match=message):
        read_csv(path, **{"target": ["a", "b"], "split": None} | options)


@pytest.mark.once
def test_words_for_labels_and_labels_that_say_nothing(tmp_path):
    rows = [["MKT", "True", "0"], ["GSS", "no", "0.0"], ["GIG", "yes", "false"]]
    path = write(tmp_path / "x.csv", ["sequence", "a", "b"], rows)
    data = read_csv(path, target=("a", "b"), split=None)
    assert data.train.targets.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert any("Label 'b' is false for all 3 records" in note for note in data.notes)


@pytest.mark.once
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros((2, 3), int), "names 2 labels; give an array \\(records, 2\\)"),
        (np.array([[0, 2], [1, 0]]), "from 0 to 2; a label is 0 or 1"),
        (np.zeros((2, 2)), "needs integers, 0 or 1"),
        (np.zeros(2, int), "targets of shape \\(2,\\)"),
    ],
)
def test_labels_that_do_not_fit_the_data_set(targets, message):
    split = Split(["MKT", "GSS"], targets)
    with pytest.raises(ValueError, match=message):
        Dataset("toy", "multilabel", split, None, None, "", "", "", "", classes=LABELS)


@pytest.mark.once
def test_labels_are_kept_in_balance_by_every_split():
    rng = np.random.default_rng(0)
    labels = rng.random((1000, 3)) < [0.5, 0.1, 0.02]
    groups = rng.integers(0, 300, 1000)
    sequences = ["".join(rng.choice(list("ACDEFGHIKL"), 20)) for _ in range(1000)]
    for parts in (
        random_split(1000, stratify=labels.astype(int)),
        group_split(groups, stratify=labels.astype(int)),
        cluster_split(sequences, stratify=labels.astype(int))[0],
    ):
        assert sorted(np.concatenate(list(parts.values()))) == list(range(1000))
        for at in parts.values():
            away = np.abs(labels[at].mean(axis=0) - labels.mean(axis=0))
            assert (away < [0.04, 0.02, 0.015]).all()  # two of 100 have the third label


@pytest.mark.once
def test_data_sets_of_tables_are_scored(columns, numbers):
    check_scored(read_csv(columns, target=list(LABELS)))
    check_scored(read_csv(numbers))


# From end to end ----------------------------------------------------------------------------------


def compared(data, tmp_path, **options):
    return kft.compare(
        esm2(), data, ["linear_probe", "head_only"], 2, epochs=1, resamples=50, verbose=False,
        out=tmp_path / "compared", **options,
    )  # fmt: skip


@pytest.mark.usefixtures("as_written")
@pytest.mark.once
def test_labels_from_end_to_end(columns, tmp_path):
    data = read_csv(columns, target=list(LABELS))
    model = kft.Model(esm2(), kft.heads.for_data(data))
    assert isinstance(model.head, kft.heads.MultiLabel) and model.head.labels == 2
    done = kft.fit(model, data, "linear_probe", verbose=0)
    scores = kft.evaluate(done.model, data, "train", resamples=50)
    assert tuple(scores) == Task.MULTILABEL.metrics()
    assert scores["macro AUROC"].value > 0.7
    assert scores["macro AUROC"].low < scores["macro AUROC"].value < scores["macro AUROC"].high
    before = kft.predict(model, data.test.inputs)
    again = kft.fit(model, data, "head_only", epochs=2, learning_rate=0.01, verbose=0)
    assert (
        again.history[-1]["loss"] < np.log(2)
        and (kft.predict(model, data.test.inputs) != before).any()
    )
    written = kft.predict(model, data.test.inputs, out=tmp_path / "out.csv").read_text()
    probabilities = ",".join(f"probability_{label}" for label in LABELS)
    assert written.startswith(f"sequence,prediction,{probabilities}\n")


@pytest.mark.once
@pytest.mark.usefixtures("as_written")
def test_labels_are_compared(columns, tmp_path):
    found = compared(read_csv(columns, target=list(LABELS)), tmp_path)
    assert [row.name for row in found.rows] == [
        "label frequencies", "composition", "3-mers", "linear_probe", "head_only", "from_scratch",
        "linear_probe, shuffled labels",
    ]  # fmt: skip
    assert not any(row.error for row in found.rows)
    assert found.metric == "macro AUROC"
    scores = {row.name: found.score(row).value for row in found.rows}
    assert scores["label frequencies"] == 0.5 < scores["composition"]
    assert "chance is 0.500" in found.recommendation
    assert (tmp_path / "compared" / "labels.csv").exists()


@pytest.mark.once
def test_a_head_of_other_labels_is_refused(columns):
    data = read_csv(columns, target=list(LABELS))
    for labels, message in ((3, "multilabel with 2 labels, received MultiLabel.* with 3 labels"),):
        model = kft.Model(esm2(), kft.heads.MultiLabel(labels))
        with pytest.raises(ValueError, match=message):
            kft.evaluate(model, data)
        with pytest.raises(ValueError, match="predicts 3 labels; the targets of the train split"):
            kft.fit(model, data, "head_only", verbose=0)


@pytest.mark.usefixtures("as_written")
@pytest.mark.in_turn("tensorflow")
def test_numbers_of_residues_from_end_to_end(numbers, tmp_path):
    data = read_csv(numbers)
    assert data.task == "residue_regression" and not data.train.masks[0][0]
    model = kft.Model(esm2(), kft.heads.for_data(data))
    marked = np.concatenate(
        [t[m] for t, m in zip(data.train.targets, data.train.masks, strict=True)]
    )
    assert model.head.mean == pytest.approx(marked.mean())
    kft.fit(model, data, "linear_probe", verbose=0)
    scores = kft.evaluate(model, data, resamples=50)
    assert tuple(scores) == Task.RESIDUE_REGRESSION.metrics()
    assert scores["Spearman"].value > 0.8 and scores["MAE"].value <= scores["RMSE"].value
    assert scores["RMSE"].low < scores["RMSE"].value < scores["RMSE"].high
    found = kft.predict(model, data.test.inputs)
    assert [rows.shape for rows in found] == [(len(x), 1) for x in data.test.inputs]
    again = kft.fit(model, data, "head_only", epochs=1, verbose=0)
    assert np.isfinite(again.history[-1]["loss"])


@pytest.mark.once
@pytest.mark.usefixtures("as_written")
def test_numbers_of_residues_are_compared(numbers, tmp_path):
    found = compared(read_csv(numbers), tmp_path)
    assert [row.name for row in found.rows][:3] == ["mean", "residue", "15-residue window"]
    assert not any(row.error for row in found.rows) and found.metric == "Spearman"
    rows = {row.name: row for row in found.rows}
    assert found.score(rows["residue"]).value > 0.85
    assert found.score(rows["linear_probe"]).value > 0.8
    assert abs(found.score(rows["linear_probe, shuffled labels"]).value) < 0.3
    assert rows["residue"].scores["MAE"].value < 0.1
