"""`kft.evaluate`: what it finds, when it computes it, and what it says of what is not there."""

import json
from dataclasses import replace

import keras
import models
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import kft
from kft.comparison import Evaluation, learning_curve
from kft.comparison.folding import deal
from kft.data import Dataset, Split
from kft.evaluation.calibration import fit_temperature, judge_calibration, with_temperature

WHERE = {"source": "made up", "licence": "none", "citation": "", "checksum": ""}


class Counting(keras.Model):
    """Predicts the share of K of a sequence, and counts the records that it has predicted."""

    def __init__(self, spread=1.0):
        super().__init__()
        self.seen, self.spread = 0, spread

    @staticmethod
    def encode(sequences, max_length=None, pad_lengths=None, names=None):
        return {"share": np.array([[s.count("K") / len(s)] for s in sequences])}

    def predict_on_batch(self, inputs):
        self.seen += len(inputs["share"])
        return (0.5 + self.spread * (inputs["share"] - 0.5)).astype("float32")


def sequences(n, seed):
    """n sequences of 10 residues, of which some are K; and how many."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 10, n)
    return ["".join(rng.permuted(list("K" * k + "A" * (10 - k)))) for k in counts], counts / 10


def made(task="classification", noise=0.2, sizes=(20, 60, 80), seed=0, **columns):
    """Data whose truth follows the share of K."""
    parts = []
    for i, n in enumerate(sizes):
        inputs, shares = sequences(n, seed + i)
        truth = shares + noise * np.random.default_rng(seed + 9 + i).standard_normal(n)
        targets = truth if task == "regression" else (truth > 0.5).astype(int)
        parts.append(Split(inputs, targets, **(columns if i == 2 else {})) if n else None)
    classes = None if task == "regression" else ("few", "many")
    return Dataset("made", task, *parts, classes=classes, **WHERE)


@pytest.fixture(scope="module")
def judged():
    return kft.evaluate(Counting(), made(), resamples=100, by=["a", "b"] * 40)


@pytest.mark.once
def test_it_is_the_dict_of_scores_that_it_was(judged):
    assert list(judged) == ["AUROC", "accuracy", "MCC"] and judged.headline == "AUROC"
    assert judged["AUROC"].value > 0.8
    assert json.loads(json.dumps(judged)) == {k: list(v) for k, v in judged.items()}
    assert judged.scores == dict(judged) and not isinstance(judged.scores, Evaluation)
    assert judged.to_frame().loc["AUROC"].tolist() == list(judged["AUROC"])
    assert repr(judged) == str(judged.scores)
    assert str(judged).startswith(f"{judged!r}\n80 records of the test split")


@pytest.mark.once
def test_only_the_split_is_predicted_until_more_is_asked_for():
    model = Counting()
    found = kft.evaluate(model, made(), resamples=20, by=["a", "b"] * 40)
    repr(found), found.worst(3), found.groups, found.to_frame()
    assert model.seen == 80
    found.calibration, found.conformal, found.coverage, str(found), found.figures()
    assert model.seen == 80 + 60


@pytest.mark.once
def test_the_summary_says_what_was_found(judged):
    text = str(judged)
    assert "80 records of the test split of made; 95% intervals." in text
    assert "Calibration: ECE 0." in text and "With temperature 0." in text  # it is too careful
    assert "Prediction sets of 90% cover 0." in text
    assert "Groups: accuracy by group: a (n = 40)" in text


@pytest.mark.once
def test_the_worst_come_first_with_their_classes(judged):
    worst = judged.worst(80)
    assert worst["error"].is_monotonic_decreasing
    assert judged.worst(2).equals(worst.head(2))
    first = worst.iloc[0]
    share = first["input"].count("K") / 10
    assert first["target"] == ("few" if share > 0.5 else "many") != first["predicted"]
    assert first["error"] == pytest.approx(max(share, 1 - share))
    numbers = kft.evaluate(Counting(), made("regression"), resamples=20).worst(1).iloc[0]
    assert numbers["error"] == pytest.approx(abs(numbers["target"] - numbers["predicted"]))


@pytest.mark.once
def test_figures_suit_the_task(judged):
    assert list(judged.figures()) == ["confusion", "roc_pr", "reliability", "groups"]
    numbers = kft.evaluate(Counting(), made("regression"), resamples=20)
    assert list(numbers.figures()) == ["residuals"]
    for figure, caption in [*judged.figures().values(), *numbers.figures().values()]:
        assert "n = 80" in caption and "What stands out" in caption and figure.axes


@pytest.mark.once
def test_groups_may_be_a_column_of_the_parameters():
    table = np.array([("x", 0.1 * i) for i in range(80)], dtype=[("site", "U1"), ("age", float)])
    table["site"][40:] = "y"
    data = made(parameters=table)
    found = kft.evaluate(Counting(), data, resamples=20, by="site")
    assert found.groups.by == "site" and found.groups.table.index.tolist() == ["x", "y"]
    with pytest.raises(ValueError, match=r"columns of `parameters` .*\(site, age\).*'sex'"):
        found.audit("sex")
    with pytest.raises(ValueError, match="80 different numbers: cut them into classes"):
        found.audit("age")
    with pytest.raises(ValueError, match="each of the 80 records of the test split, received 2"):
        found.audit(["a", "b"])
    with pytest.raises(ValueError, match="by is missing"):
        _ = kft.evaluate(Counting(), data, resamples=20).groups


@pytest.mark.once
def test_without_a_valid_split_it_says_so():
    found = kft.evaluate(Counting(), made(sizes=(20, 0, 80)), resamples=20)
    text = str(found)
    assert "No temperature: made has no valid split." in text
    assert "Prediction sets: none, made has no valid split." in text
    with pytest.raises(ValueError, match="conformal sets cannot be made: made has no valid split"):
        _ = found.coverage
    on_valid = kft.evaluate(Counting(), made(), "valid", resamples=20)
    assert "the valid split is the one that is judged" in str(on_valid)
    with pytest.raises(ValueError, match="calibration is for probabilities"):
        _ = kft.evaluate(Counting(), made("regression"), resamples=20).calibration


@pytest.mark.once
def test_what_is_undefined_is_called_so():
    data = made()
    ones = data.test.take(np.flatnonzero(data.test.targets == 1))
    found = kft.evaluate(Counting(), replace(data, test=ones), resamples=20)
    assert str(found["AUROC"]) == "undefined" and "undefined" in str(found)
    assert "No record is few" in found.figures()["confusion"][1]
    assert "Undefined without records of both kinds: many" in found.figures()["roc_pr"][1]
    flat = kft.evaluate(Counting(0.0), made(), resamples=20)
    assert "The predictions hardly vary: the model has collapsed." in str(flat)
    assert "No temperature: every temperature that is lower" in str(flat)
    with pytest.raises(ValueError, match="predictions hold NaN or infinity in 80 of 80 records"):
        kft.evaluate(Counting(np.nan), data, resamples=20)


@pytest.mark.once
def test_transfer_ends_in_a_verdict():
    model, here = Counting(), made(noise=0.1)
    found = kft.evaluate(model, here, resamples=50)
    same = found.transfer(made(noise=0.1, seed=50))
    assert same.transferable and same.baseline == "the baseline majority class"
    other = made(noise=0.1, seed=50)
    turned = replace(other, test=replace(other.test, targets=1 - other.test.targets))
    assert "fine-tune: the model loses" in str(found.transfer(turned))
    assert found.transfer(other, "composition").baseline == "the baseline composition"
    with pytest.raises(ValueError, match="baseline must be one of constant, composition, kmers"):
        found.transfer(other, "forest")
    with pytest.raises(ValueError, match="new must have the task and classes of made"):
        found.transfer(made("regression"))
    with pytest.raises(ValueError, match="new must have a test split, made has none"):
        found.transfer(replace(other, test=None))


@pytest.mark.once
def test_residues_are_judged_by_chain():
    inputs, _ = sequences(12, 3)
    targets = [np.array([letter == "K" for letter in s]).astype(int) for s in inputs]
    targets[4] = 1 - targets[4]
    part = Split(inputs, targets, masks=[np.arange(10) < 8] * 12)
    data = Dataset(
        "chains", "residue_classification", part, part, part, classes=("A", "K"), **WHERE
    )

    model = kft.Model(models.esm2(), kft.heads.for_data(data))
    found = kft.evaluate(model, data, resamples=20, by=["x", "y"] * 6)
    assert found.groups.table["records"].tolist() == [48, 48]
    assert len(found.worst(3)) == 3 and len(found.worst(20)) == 12
    assert "96 residues of the test split" in str(found)
    assert np.isnan(found.calibration.p)  # residues of a chain are not independent


@pytest.mark.once
def test_outliers_are_far_from_the_training_data():
    data = made(sizes=(60, 60, 40))
    odd = Split(["WCWCWCWCWC", *data.test.inputs], np.append(1, data.test.targets))
    model = kft.Model(models.esm2(), kft.heads.Classification(2))
    found = kft.evaluate(model, replace(data, test=odd), resamples=20).outliers
    assert found["distance"].idxmax() == 0 and found.loc[0, "p"] == pytest.approx(1 / 61)
    assert 0.3 < found["p"][1:].mean() < 0.7
    with pytest.raises(ValueError, match="outliers need the features of a kft.Model"):
        _ = kft.evaluate(Counting(), data, resamples=20).outliers


# Calibration of a network -----------------------------------------------------------------------


def test_a_network_that_is_too_sure_gets_the_same_temperature_on_every_backend():
    """A linear network on the digits, its weights five times too large."""
    data = kft.data.load("digits")
    pixels = {name: np.stack(x.inputs).reshape(-1, 64) / 255 for name, x in data.splits.items()}
    fitted = LogisticRegression(C=0.1).fit(pixels["train"], data.train.targets)
    weights = [5 * fitted.coef_.T, 5 * fitted.intercept_]
    dense = keras.layers.Dense(10, activation="softmax")
    model = keras.Sequential([keras.layers.Input((64,)), dense])
    dense.set_weights(weights)
    found = kft.evaluate(
        model, data, resamples=20, encode=lambda images: np.stack(images).reshape(-1, 64) / 255
    ).calibration  # fmt: skip

    def softmax(name):
        logits = pixels[name] @ weights[0] + weights[1]
        return np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))

    truth, task = data.test.targets, "classification"
    temperature = fit_temperature(task, data.valid.targets, softmax("valid"))
    scaled = with_temperature(task, softmax("test"), temperature)
    before, after = (judge_calibration(task, truth, x).error for x in (softmax("test"), scaled))
    assert found.temperature == pytest.approx(temperature, rel=1e-4) and temperature > 1.5
    assert found.error.value == pytest.approx(before.value, abs=1e-5)
    assert found.after.error.value == pytest.approx(after.value, abs=2e-3)  # a bin may change
    assert after.value < before.value


# Folds ------------------------------------------------------------------------------------------


@pytest.mark.once
def test_folds_hold_every_record_once():
    data = made(sizes=(30, 12, 18))
    dealt = deal(data, 5, 2)
    assert len(dealt) == 10
    for repeat in (dealt[:5], dealt[5:]):
        tested = sorted(x for part in repeat for x in part.test.inputs)
        assert tested == sorted(x for part in data.splits.values() for x in part.inputs)
        assert [(len(p.train), len(p.valid), len(p.test)) for p in repeat] == [(36, 12, 12)] * 5
    assert deal(replace(data, valid=None), 2)[0].valid is None
    with pytest.raises(ValueError, match="folds must be at least 3 for made"):
        deal(data, 2)


@pytest.mark.once
def test_what_belongs_to_a_record_goes_with_it_into_its_fold():
    """Masks, weights, groups and parameters, where only some parts have them."""
    kind = np.dtype([("name", "U4")])

    def part(first, **options):
        names = [f"R{i}" for i in range(first, first + 6)]
        targets = [np.full(2, i % 2) for i in range(first, first + 6)]
        parameters = np.array([(name,) for name in names], kind)
        return Split(["MK"] * 6, targets, parameters=parameters, **options)

    masked = [np.array([True, False])] * 6
    groups = np.array(["a", "a", "b", "b", "c", "c"])
    train = part(0, masks=masked, groups=groups)
    test = part(6, weights=np.full(6, 2.0))
    about = dict.fromkeys(("source", "licence", "citation", "checksum"), "")
    data = Dataset("toy", "residue_classification", train, None, test, **about, classes=("x", "y"))
    seen = set()
    for one in deal(data, 3):
        for i, (name,) in enumerate(one.test.parameters):
            number = int(name[1:])
            assert one.test.targets[i].tolist() == [number % 2] * 2
            assert one.test.masks[i].tolist() == [True, number >= 6]
            assert one.test.weights[i] == (2.0 if number >= 6 else 1.0)
            seen.add(name)
        # Records of one group are in one fold, and those without are groups of their own.
        assert not set(one.test.groups) & set(one.train.groups)
    assert len(seen) == 12 and len(set(data.train.groups)) == 3


@pytest.mark.once
def test_a_comparison_on_folds_tests_with_the_correction(monkeypatch, tmp_path):
    monkeypatch.setenv("KFT_CACHE", str(tmp_path))
    data, backbone = made(sizes=(40, 12, 20)), models.esm2()
    options = {"seeds": 1, "controls": False, "epochs": 1, "verbose": False}
    found = kft.compare(backbone, data, ["linear_probe"], folds=4, repeats=1, **options)
    assert found.folds == 4 and found.records == 72
    assert "cross-validation of 72 records, 4 folds" in str(found)
    assert "Nadeau and Bengio" in found.null_hypothesis
    assert "One seed" not in found.recommendation
    one, other = found.score(found.best), found.score(found.rows[0])
    expected = one.against(other).p
    assert one.ratio == pytest.approx(18 / 36)
    assert found.standings[found.rows[0].name].p == pytest.approx(expected)
    assert found.to_frame()["seeds"].tolist() == [4] * len(found.rows)
    found.save(tmp_path / "out")
    assert found.copies.records == 72 and "without copies" in str(found)
    assert f"the {len(found.copies)} of 72 test records" in found.leakage
    price = found.best.price_of_copies["AUROC"]
    assert f"For {found.best.name} the difference is {price.interval()}." in found.leakage
    with pytest.raises(ValueError, match="copies must be True or False with folds"):
        kft.compare(backbone, data, ["linear_probe"], folds=4, copies=pd.DataFrame(), **options)
    with pytest.raises(ValueError, match="save_models must be False with folds"):
        kft.compare(backbone, data, ["linear_probe"], folds=4, save_models=True, **options)


# Learning curve ---------------------------------------------------------------------------------


@pytest.mark.once
def test_more_records_score_better_and_the_curve_says_how_many_are_needed():
    data, backbone = made(noise=0.02, sizes=(64, 20, 60)), models.esm2()
    copies = pd.DataFrame({"test": [0, 7], "train": [3, 3]})
    curve = learning_curve(backbone, data, counts=[4, 64], seeds=2, resamples=20, copies=copies)
    assert curve.metric == "AUROC" and list(curve.scores) == [4, 64]
    assert curve.scores[64].value > curve.scores[4].value
    assert curve.to_frame()["seeds"].tolist() == [2, 2]
    said = "Without copies is without the 2 of 60 test records that have a near copy in training."
    assert curve.remark == said and str(curve).endswith(said)
    rest = curve.without_copies
    others = replace(data, test=data.test.take([i for i in range(60) if i not in (0, 7)]))
    alone = learning_curve(backbone, others, counts=[4], seeds=2, resamples=20, copies=False)
    np.testing.assert_allclose(rest.seeds[4], alone.seeds[4])
    assert alone.without_copies is None and not alone.remark
    assert curve.to_frame()["score without copies"][64] == rest.scores[64].value
    reached = curve.scores[64].value
    assert curve.needed(reached) == (64, "measured")
    number, why = curve.needed((1 + reached) / 2)
    assert np.isnan(number) and "no power law fits" in why  # two numbers of records are too few
    with pytest.raises(ValueError, match="wanted must be a score below 1"):
        curve.needed(1.0)
    with pytest.raises(ValueError, match="counts must be an integer from 2 to 64, received 65"):
        learning_curve(backbone, data, counts=[65])
    with pytest.raises(ValueError, match="data must have a test split, made has none"):
        learning_curve(backbone, replace(data, test=None), counts=[4])
