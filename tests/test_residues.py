"""A target for every residue, from records to scores: only residues that count are counted."""

import dataclasses
import os
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from parity import assert_rounds_alike

import kft
import kft.inference.records
from kft.backbones.esm2.model import ESM2, encode

CHAINS = ["MKTAYIAKQR", "GA", "AC<mask>D", "WWWWWWWWWWWWWWWWWWWWWW", "KLMAAA"]
SIZES = (10, 2, 4, 22, 6)
HEADS = {
    "classes": lambda: kft.heads.ResidueClassification(3),
    "numbers": lambda: kft.heads.ResidueRegression(2, mean=[1.0, 50.0], std=[0.5, 20.0]),
    "one number": lambda: kft.heads.ResidueRegression(mean=50.0, std=20.0),
}
every_head = pytest.mark.parametrize("kind", HEADS)


def make_model(kind="classes", head=None):
    """A table of residues that serves as backbone, and a head that is not zero; compiled."""
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    table = keras.layers.Embedding(33, 8)
    backbone = keras.Model({"token_ids": token_ids}, table(token_ids))
    backbone.encode = encode
    model = kft.Model(backbone, head or HEADS[kind]())
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(0.5 * rng.standard_normal(variable.shape, dtype="float32"))
    loss, metrics = model.head.make_loss(), model.head.make_metrics()
    model.compile(keras.optimizers.SGD(0.1), loss, weighted_metrics=metrics)
    return model


@pytest.fixture(scope="module")
def model():
    """One for all tests that do not train it: it is compiled once."""
    return make_model()


def records_for(head, seed=1):
    rng = np.random.default_rng(seed)
    if head.task == "residue_classification":
        targets = [rng.integers(0, 3, n) for n in SIZES]
    else:
        shape = () if head.targets == 1 else (head.targets,)
        targets = [50 + 20 * rng.standard_normal((n, *shape)) for n in SIZES]
    masks = [rng.uniform(size=n) < 0.6 for n in SIZES]
    return SimpleNamespace(inputs=CHAINS, targets=targets, masks=masks)


def answers_of_each(model, max_length=None):
    """Of each chain alone: what its residues get."""
    found = []
    for chain, n in zip(CHAINS, SIZES, strict=True):
        tokens = model.encode([chain], max_length, pad_lengths=[24])
        found.append(model.predict_on_batch(tokens)[0, 1 : 1 + min(n, max_length or n)])
    return found


# Training ---------------------------------------------------------------------------------------


@every_head
@pytest.mark.usefixtures("as_written")
def test_only_residues_that_count_are_counted(kind):
    """The loss and the metric are those of the counted residues, put together by hand."""
    model = make_model(kind)
    records = records_for(model.head)
    batches = kft.batches(records, model.encode, 8, seed=None)
    loss, metric = model.test_on_batch(*batches[0])
    found = np.concatenate(
        [a[m] for a, m in zip(answers_of_each(model), records.masks, strict=True)]
    )
    truth = np.concatenate([t[m] for t, m in zip(records.targets, records.masks, strict=True)])
    assert float(loss) == pytest.approx(float(model.head.make_loss()(truth, found)), rel=1e-5)
    if model.head.task == "residue_classification":
        assert float(metric) == pytest.approx((found.argmax(axis=1) == truth).mean(), rel=1e-5)
        expected = -np.log(found[np.arange(len(truth)), truth]).mean()
        assert float(loss) == pytest.approx(expected, rel=1e-5)
    else:
        apart = np.abs(found - truth.reshape(found.shape))
        assert float(metric) == pytest.approx(apart.mean(), rel=1e-5)


@every_head
@pytest.mark.usefixtures("as_written")
def test_targets_without_weight_change_no_step(kind):
    """One step of training from the same start, with other targets at what does not count."""
    left = []
    for other in (False, True):
        model = make_model(kind)
        x, y, weights = kft.batches(records_for(model.head), model.encode, 8, seed=None)[0]
        nothing = weights == 0
        assert nothing[:, 0].all() and nothing.sum() > weights.sum()
        if other:
            y[nothing] = 1
        loss = model.train_on_batch(x, y, weights)
        left.append([np.array(loss[0]), *map(ops.convert_to_numpy, model.weights)])
    for a, b in zip(*left, strict=True):
        np.testing.assert_array_equal(a, b)


def test_more_padding_changes_nothing(model):
    ((x, y, weights),) = kft.batches(records_for(model.head), model.encode, 8, seed=None)
    expected = model.test_on_batch(x, y, weights)
    wider = [np.pad(y, ((0, 0), (0, 16))), np.pad(weights, ((0, 0), (0, 16)))]
    tokens = np.pad(x["token_ids"], ((0, 0), (0, 16)), constant_values=1)
    found = model.test_on_batch({"token_ids": tokens}, *wider)
    assert_rounds_alike(found, expected)


# Predictions ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*longer than max_length")
@pytest.mark.parametrize("max_length", [None, 5])
def test_predict_answers_for_each_residue(model, max_length):
    found = kft.predict(model, CHAINS, batch_size=2, max_length=max_length)
    assert isinstance(found, list)
    assert [rows.shape for rows in found] == [(min(n, max_length or n), 3) for n in SIZES]
    for rows, alone in zip(found, answers_of_each(model, max_length), strict=True):
        assert rows.dtype == "float32" and rows.base is None
        assert_rounds_alike(rows, alone)
        assert np.ptp(alone) > 0.1


@pytest.mark.once
@pytest.mark.parametrize("chunk", [2, 100])
def test_predictions_in_files(model, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(kft.inference.records, "CHUNK", chunk)
    fasta = tmp_path / "in.fasta"
    fasta.write_text("".join(f">P{i}, one\n{c}\n" for i, c in enumerate(CHAINS)))
    found = kft.predict(model, fasta, batch_size=2)
    stacked = np.concatenate(found)

    table = pd.read_csv(kft.predict(model, fasta, out=tmp_path / "out.csv"), dtype=str)
    columns = [f"probability_{k}" for k in range(3)]
    assert table.columns.tolist() == ["id", "description", "prediction", *columns]
    assert table.id.tolist() == [f"P{i}," for i in range(5)]
    for i, rows in enumerate(found):
        assert table.prediction[i] == "".join(map(str, rows.argmax(axis=1)))
        numbers = [table[name][i].split() for name in columns]
        np.testing.assert_allclose(np.array(numbers, "float32").T, rows, rtol=1e-5)

    for suffix in ("npz", "h5"):
        archive = kft.load_embeddings(kft.predict(model, fasta, out=tmp_path / f"out.{suffix}"))
        assert list(map(len, archive.values)) == list(SIZES)
        assert archive.names == [f"P{i}, one" for i in range(5)]
        np.testing.assert_allclose(np.concatenate(archive.values[:]), stacked, rtol=1e-5)
    out = kft.predict(model, fasta, out=tmp_path / "out.parquet")
    assert pd.read_parquet(out).prediction.tolist() == table.prediction.tolist()
    with pytest.raises(ValueError, match="a table, which pandas.read_parquet reads"):
        kft.load_embeddings(out)


# Scores -----------------------------------------------------------------------------------------


def data_of(records, groups=None):
    split = kft.data.Split(records.inputs, records.targets, groups, records.masks)
    about = {"source": "", "licence": "", "citation": "", "checksum": "", "classes": tuple("CEH")}
    return kft.data.Dataset("toy", "residue_classification", split, None, split, **about)


@pytest.fixture
def toy():
    rng = np.random.default_rng(2)
    inputs = ["".join(rng.choice(list("LAGVSERT"), n)) for n in (10, 3, 7, 25, 12, 8)]
    return SimpleNamespace(
        inputs=inputs,
        targets=[rng.integers(0, 3, len(x)) for x in inputs],
        masks=[rng.uniform(size=len(x)) < 0.6 for x in inputs],
    )


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*longer than max_length")
@pytest.mark.parametrize("max_length", [None, 9])
@pytest.mark.parametrize("groups", [None, ["a", "a", "b", "c", "c", "d"]])
@pytest.mark.parametrize("masked", [True, False])
def test_evaluate_scores_what_counts_chain_by_chain(model, toy, max_length, groups, masked):
    if not masked:
        toy.masks = None
    found = kft.evaluate(model, data_of(toy, groups), max_length=max_length, resamples=50)
    truth, answers, names = [], [], []
    for i, rows in enumerate(kft.predict(model, toy.inputs, max_length=max_length)):
        for k, row in enumerate(rows):
            if toy.masks is None or toy.masks[i][k]:
                truth.append(toy.targets[i][k])
                answers.append(row)
                names.append(i if groups is None else groups[i])
    expected = kft.evaluation.score(
        "residue_classification", truth, answers, groups=names, resamples=50
    )
    for name, interval in expected.items():
        np.testing.assert_allclose(found[name], interval, rtol=1e-6)


@pytest.mark.once
def test_a_head_that_does_not_answer_the_data(toy):
    data = data_of(toy)
    for head, message in (
        (
            kft.heads.Classification(3),
            "received Classification, which predicts classification with 3",
        ),
        (
            kft.heads.Regression(),
            "received Regression, which predicts regression: use a model with the head",
        ),
        (kft.heads.ResidueClassification(8), "residue_classification with 8 classes"),
    ):
        with pytest.raises(
            ValueError, match="must predict toy, residue_classification with 3"
        ) as e:
            kft.evaluate(make_model(head=head), data)
        assert message in str(e.value)


# Real data --------------------------------------------------------------------------------------


def long(split, n):
    """The first n chains that fill a batch of 128 tokens: one shape, compiled once."""
    return split.take([i for i, chain in enumerate(split.inputs) if len(chain) > 94][:n])


@pytest.mark.in_turn("torch")
@pytest.mark.skipif("KFT_DATA" not in os.environ, reason="needs KFT_DATA")
@pytest.mark.filterwarnings("ignore:.*longer than max_length")
def test_secondary_structure_from_end_to_end():
    """100 chains of which 126 residues, 128 tokens, are kept."""
    data = kft.data.load("secondary_structure")
    data = dataclasses.replace(
        data, train=long(data.train, 100), valid=None, test=long(data.test, 40)
    )
    model = kft.Model(kft.backbones.randomised(ESM2(1, 32, 2), 0), kft.heads.for_data(data))
    loss, metrics = model.head.make_loss(), model.head.make_metrics()
    model.compile(keras.optimizers.Adam(0.01), loss, weighted_metrics=metrics)
    train = kft.batches(data.train, model.encode, 20, seed=0, max_length=126)
    history = model.fit(train, epochs=6, verbose=0).history
    assert history["loss"][0] < np.log(3) + 0.1
    assert history["loss"][-1] < 0.95 * history["loss"][0]
    scores = kft.evaluate(model, data, batch_size=20, max_length=126, resamples=50)
    counted = np.concatenate(
        [t[:126][m[:126]] for t, m in zip(data.test.targets, data.test.masks, strict=True)]
    )
    majority = np.bincount(counted).max() / len(counted)
    assert scores["accuracy"].low < scores["accuracy"].value < scores["accuracy"].high
    assert scores["accuracy"].value > majority + 0.02
    assert scores["macro AUROC"].value > 0.6
