"""Weights of records: in batches, training, a linear probe, tables and scores."""

import keras
import numpy as np
import pytest
from models import esm2
from parity import assert_rounds_alike
from sklearn import metrics

import kft

SEQUENCES = ["MKTAYI", "GSS", "AAKWYVLLLDKA", "WYVLL", "LLD", "KKAAW"]
TARGETS = np.array([0.0, 1.0, 0.5, 0.2, 0.1, 0.3], "float32")
WEIGHTS = np.array([1.0, 0.0, 3.0, 0.5, 2.0, 1.0])


@pytest.mark.usefixtures("as_written")
def test_training_is_that_of_keras_with_sample_weight():
    losses, outputs = [], []
    for way in ("kft", "keras"):
        model = kft.Model(esm2(), kft.heads.Regression())
        model.backbone.trainable = False
        model.compile(keras.optimizers.SGD(0.1), "mse", weighted_metrics=["mae"])
        if way == "kft":
            batches = kft.batches((SEQUENCES, TARGETS, WEIGHTS), model.encode)
            history = model.fit(batches, epochs=3, verbose=0)
        else:
            x = model.encode(SEQUENCES, pad_lengths=(16,))
            arguments = {"sample_weight": WEIGHTS, "epochs": 3, "shuffle": False, "verbose": 0}
            history = model.fit(x, TARGETS, **arguments)
        losses.append([history.history["loss"], history.history["mae"]])
        outputs.append(kft.predict(model, SEQUENCES))
    assert_rounds_alike(*map(np.array, losses))
    assert_rounds_alike(*outputs)


@pytest.mark.in_turn("jax")
def test_weights_at_the_frontier_and_in_the_whole():
    data = kft.data.Split(SEQUENCES, TARGETS, weights=WEIGHTS)
    outputs, logged = [], []
    for frontier in (True, False):
        model = kft.Model(esm2(), kft.heads.Regression())
        done = kft.fit(model, data, "head_only", 2, frontier=frontier, verbose=0)
        outputs.append(kft.predict(model, SEQUENCES))
        logged.append(done.history[-1]["mean_absolute_error"])
    assert_rounds_alike(*outputs)
    others = np.flatnonzero(WEIGHTS)  # a record of weight 0 is not there
    model = kft.Model(esm2(), kft.heads.Regression())
    part = data.take(others)
    done = kft.fit(model, part, "head_only", 2, verbose=0, batch_size=6)
    np.testing.assert_allclose(done.history[-1]["mean_absolute_error"], logged, rtol=1e-4)


@pytest.mark.once
@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_a_linear_probe_counts_a_record_of_weight_two_twice(kind):
    sequences = SEQUENCES * 2
    # Every sequence with two answers, of different weight.
    targets = (np.arange(12) + np.arange(12) // 6) % 2 if kind == "classes" else np.arange(12) / 7
    weights = np.array([1, 2, 1, 3, 1, 2, 3, 1, 2, 1, 1, 1])
    repeated = np.repeat(np.arange(12), weights)
    task, classes, head = {
        "classes": ("classification", ("no", "yes"), lambda: kft.heads.Classification(2)),
        "numbers": ("regression", None, kft.heads.Regression),
    }[kind]
    results = []
    for train in (
        kft.data.Split(sequences, targets, weights=weights),
        kft.data.Split([sequences[i] for i in repeated], targets[repeated]),
        kft.data.Split(sequences, targets),
    ):
        valid = kft.data.Split(SEQUENCES, targets[6:])
        data = kft.data.Dataset("x", task, train, valid, None, "", "", "", "", classes)
        model = kft.Model(esm2(), head())
        kft.fit(model, data, "linear_probe", verbose=0)
        results.append(kft.predict(model, SEQUENCES))
    np.testing.assert_allclose(results[0], results[1], atol=1e-3)
    assert np.abs(results[2] - results[1]).max() > 0.01


@pytest.mark.once
def test_residues_have_the_weight_of_their_record():
    targets = [np.zeros(len(x), int) for x in SEQUENCES]
    batches = kft.batches((SEQUENCES, targets, WEIGHTS), esm2().encode, seed=None)
    order, weights = np.concatenate(batches.record_indices), batches[0][2]
    for record, row in zip(order, weights, strict=False):
        assert row.max() == WEIGHTS[record] and (row > 0).sum() in (0, len(SEQUENCES[record]))


@pytest.mark.once
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1, -1, 1, 1, 1], "at least 0, received -1 for record 2"),
        ([1, 1, 1, np.nan, 1, 1], "received nan for record 3"),
        ([1, 1], "one number for each of the 6 records"),
        (["a"] * 6, "must be numbers"),
        ([0] * 6, "above 0, received 0 for all 6"),
    ],
)
def test_wrong_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        kft.fit(kft.Model(esm2(), kft.heads.Regression()), (SEQUENCES, TARGETS, weights), verbose=0)
    if any(weights):
        with pytest.raises(ValueError, match=message):
            kft.data.Split(SEQUENCES, TARGETS, weights=weights)


@pytest.mark.once
def test_a_column_of_weights(tmp_path):
    sequences = ["ACDEFGHIKLMNPQRSTVWY"[i:] + "ACDEFGHIKLMNPQRSTVWY"[:i] for i in range(20)]
    rows = [f"{x},{i / 7},{1 + i % 3}" for i, x in enumerate(sequences)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["sequence,y,trust", *rows]))
    data = kft.data.read_csv(path, weights="trust")
    for part in data.splits.values():
        expected = [1 + sequences.index(x) % 3 for x in part.inputs]
        assert part.weights.tolist() == expected
    path.write_text(path.read_text().replace(",2.0,3", ",2.0,-3"))
    with pytest.raises(ValueError, match=r"line 16: column 'trust' is '-3'; a weight must be"):
        kft.data.read_csv(path, weights="trust")


@pytest.mark.once
def test_scores_are_those_of_sklearn_with_sample_weight():
    rng = np.random.default_rng(0)
    weights = rng.choice([0.0, 0.5, 1.0, 3.0], 60)
    classes, p = rng.integers(0, 2, 60), np.round(rng.random(60), 1)
    scores = kft.evaluation.score("classification", classes, p, resamples=10, weights=weights)
    kept = {"sample_weight": weights}
    assert np.isclose(scores["AUROC"].value, metrics.roc_auc_score(classes, p, **kept))
    assert np.isclose(scores["accuracy"].value, metrics.accuracy_score(classes, p > 0.5, **kept))
    assert np.isclose(scores["MCC"].value, metrics.matthews_corrcoef(classes, p > 0.5, **kept))
    numbers = rng.standard_normal(60)
    scores = kft.evaluation.score("regression", numbers, p, resamples=10, weights=weights)
    assert np.isclose(scores["MAE"].value, metrics.mean_absolute_error(numbers, p, **kept))
    assert np.isclose(scores["RMSE"].value ** 2, metrics.mean_squared_error(numbers, p, **kept))
    covariance = np.cov(numbers, p, aweights=weights)
    pearson = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    assert np.isclose(scores["Pearson"].value, pearson)
    # Whole weights count records.
    whole = rng.integers(0, 3, 60)
    again = np.repeat(np.arange(60), whole)
    one = kft.evaluation.score("regression", numbers, p, resamples=10, weights=whole)
    two = kft.evaluation.score("regression", numbers[again], p[again], resamples=10)
    assert np.isclose(one["Spearman"].value, two["Spearman"].value)


@pytest.mark.once
def test_evaluate_uses_the_weights_of_the_split():
    model = kft.Model(esm2(), kft.heads.Regression())
    part = kft.data.Split(SEQUENCES, TARGETS, weights=WEIGHTS)
    data = kft.data.Dataset("x", "regression", part, None, part, "", "", "", "")
    mae = kft.evaluate(model, data, resamples=10)["MAE"].value
    errors = np.abs(kft.predict(model, SEQUENCES)[:, 0] - TARGETS)
    assert np.isclose(mae, np.average(errors, weights=WEIGHTS))


@pytest.mark.once
def test_evaluate_says_where_weights_are_not_used():
    model = kft.Model(esm2(), kft.heads.Regression())
    part = kft.data.Split(SEQUENCES, TARGETS, weights=np.r_[0.0, WEIGHTS[1:]])
    data = kft.data.Dataset("x", "regression", part, part, part, "", "", "", "")
    found = kft.evaluate(model, data, resamples=10)
    assert found.conformal.records == {None: int((part.weights > 0).sum())}
    assert "of the records, which count alike here: weights are not used." in str(found)
    assert found.figures()["residuals"][1].endswith("count alike here: weights are not used.")
