"""From zero-shot to few-shot: scores by number of labels, and from which on they beat zero-shot."""

import re
import warnings
from dataclasses import replace

import models
import numpy as np
import pandas as pd
import pytest

import kft
from kft.comparison import Crossover, labels
from kft.data import Dataset, Split
from kft.evaluation import baselines
from kft.evaluation.augmented import augmented
from kft.evaluation.significance import Resampled, against, against_best

WILD_TYPE = "MKTAYIAKQR"
ORDER = "ACDEFGHIKLMNPQRSTVWY"


def mutants(count: int, seed: int) -> list[str]:
    """Double mutants of the wild type at its last five positions."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        letters = list(WILD_TYPE)
        for position in rng.choice(5, 2, replace=False):
            letters[5 + position] = rng.choice(list(ORDER))
        found.append("".join(letters))
    return found


def made(count: int = 60, tests: int = 40) -> Dataset:
    """A regression whose target is additive, with noise."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(10, 20))

    def part(n: int, seed: int) -> Split:
        sequences = mutants(n, seed)
        values = [sum(effects[i, ORDER.index(x)] for i, x in enumerate(s)) for s in sequences]
        return Split(sequences, np.array(values) + rng.normal(0, 0.1, n))

    return Dataset(
        "made", "regression", part(count, 1), part(20, 2), part(tests, 3), source="simulated",
        licence="none", citation="", checksum="", wild_type=WILD_TYPE,
    )  # fmt: skip


OPTIONS = {"seeds": 2, "resamples": 50, "verbose": False}


@pytest.mark.filterwarnings("ignore:.*longer than max_length")
@pytest.mark.once
@pytest.mark.parametrize("strategy", ["linear_probe", "head_only"])
def test_features_that_are_computed_once_give_the_same_predictions(strategy, monkeypatch):
    data, backbone = made(), models.esm2()
    strategy = kft.strategies.get(strategy, **({"epochs": 2} if strategy == "head_only" else {}))
    orders = labels.orders_of(data, 2, 16)
    given = (backbone, data, strategy, [16], orders, kft.heads.for_data, {"batch_size": 8}, 8)
    once = labels.predictions(*given)
    embedded = []
    monkeypatch.setattr(labels, "embed", lambda *args: embedded.append(args))
    monkeypatch.setattr(labels, "_on_features", lambda *args: None)
    each = labels.predictions(*given)
    assert not embedded
    assert len(once[16]) == 2 and not np.allclose(*once[16])
    np.testing.assert_allclose(once[16], each[16], rtol=1e-3, atol=1e-4)


@pytest.mark.once
def test_a_strategy_that_trains_the_backbone_sees_sequences():
    data, backbone = made(), models.esm2()
    for name, pooling, alone in (
        ("linear_probe", "mean", True),
        ("lora", "mean", False),
        ("full", "mean", False),
        ("head_only", "attention", False),
    ):
        head, strategy = kft.heads.Regression(pooling=pooling), kft.strategies.get(name)
        found = labels._on_features(backbone, data, strategy, head, {"batch_size": 8}, None)
        assert (found is not None) == alone


@pytest.mark.once
def test_the_table_has_each_method_and_size_beside_the_zero_shot_score():
    data, backbone = made(), models.esm2()
    found = kft.crossover(backbone, data, [8, 48], method="wild_type_marginal", **OPTIONS)
    table = found.to_frame()
    assert table.labels.tolist() == [0, 8, 48, 8, 48, 8, 48]
    assert table.method.tolist() == [
        "zero-shot", *["one-hot ridge"] * 2, *["augmented ridge"] * 2, *["linear_probe"] * 2
    ]  # fmt: skip
    mutants = pd.DataFrame({"mutated_sequence": data.test.inputs})
    scored = kft.score_mutations(backbone, WILD_TYPE, mutants, "wild_type_marginal")
    expected = scored.score.corr(pd.Series(data.test.targets), method="spearman")
    assert found.metric == "Spearman" and np.isclose(table.score[0], expected)
    assert (table.low <= table.score).all() and (table.score <= table.high).all()
    assert np.allclose(table.gain[1:], table.score[1:] - expected)
    many = table[(table.method == "one-hot ridge") & (table.labels == 48)]
    assert many.score.item() > 0.6  # the target is additive
    figure, caption = found.plot()
    assert "Better than zero-shot" in caption and "What stands out: zero-shot" in caption
    assert re.search(r"48 .*one-hot ridge .*\[", caption)
    level = figure.axes[0].get_lines()[-1]
    assert np.allclose(level.get_ydata(), expected)
    assert str(found).startswith("made: Spearman on 40 test records")


@pytest.mark.once
def test_labels_outside_of_those_counted_are_not_seen():
    """No validation split, and no training record beyond the number of labels."""
    data, backbone = made(), models.esm2()
    found = kft.crossover(backbone, data, [8], **OPTIONS | {"seeds": 1})
    order = labels.orders_of(data, 1, 8)[0]
    targets = np.full(len(data.train), 1e3)
    targets[order] = data.train.targets[order]
    other = replace(
        data, train=replace(data.train, targets=targets), valid=Split([WILD_TYPE], [99.0])
    )
    again = kft.crossover(backbone, other, [8], **OPTIONS | {"seeds": 1})
    for method, by_size in found.scores.items():
        assert by_size[8].value == again.scores[method][8].value, method


@pytest.mark.once
def test_the_score_is_another_feature_that_is_hardly_penalised():
    """The reference is ridge regression in closed form, its penalty by feature."""
    data = replace(made(), valid=None)
    scores = {s: float(np.sin(i)) for i, s in enumerate([*data.train.inputs, *data.test.inputs])}
    fitted = augmented(data, scores)
    plain = baselines.one_hot(data)
    assert "one-hot, 5 positions" in fitted.name and fitted.parameters == plain.parameters + 1

    letters = sorted({(i, s[i]) for s in data.train.inputs for i in range(5, 10)})

    def features(sequences):
        one_hot = [[float(s[i] == x) for i, x in letters] for s in sequences]
        return np.hstack([one_hot, [[scores[s]] for s in sequences]])

    x, y = features(data.train.inputs), data.train.targets
    centre = x.mean(axis=0)
    penalty = np.diag([*[fitted.penalty] * len(letters), 0.0])
    weights = np.linalg.solve(
        (x - centre).T @ (x - centre) + penalty, (x - centre).T @ (y - y.mean())
    )
    expected = (features(data.test.inputs) - centre) @ weights + y.mean()
    np.testing.assert_allclose(fitted.predictions, expected, atol=1e-4)


def scored(value: float, spread: float = 0.01) -> Resampled:
    return Resampled(
        np.array([value]), value, value + np.random.default_rng(0).normal(0, spread, 200) * value
    )


@pytest.mark.once
def test_a_method_beats_zero_shot_from_the_number_on_from_which_it_always_does():
    curves = {
        "early": {8: scored(0.5), 16: scored(0.2), 32: scored(0.6), 64: scored(0.7)},
        "never": {8: scored(0.1), 16: scored(0.2), 32: scored(0.3), 64: scored(0.3)},
        "worse": {8: scored(0.9), 64: scored(0.1)},
    }
    found = Crossover("toy", 10, "Spearman", scored(0.3), "masked_marginal", curves)
    assert found.needed == {"early": 32, "never": None, "worse": None}
    assert "early from 32 labels, never at no number tried" in str(found)


@pytest.mark.once
def test_the_test_against_a_reference_is_that_against_the_best():
    best, other = scored(0.9), scored(0.5)
    assert against(best, [other])[0] == against_best([best, other])[1]
    three = against(best, [other, scored(0.85), scored(0.9)])
    assert three[0].corrected == pytest.approx(3 * three[0].p) and three[2].p == 1.0


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"sizes": [8, 61]}, "sizes must be an integer from 2 to 60, received 61"),
        ({}, {"sizes": []}, "sizes must be a list of numbers of labels"),
        ({}, {"strategies": "lora"}, r"write \['lora'\]"),
        ({"wild_type": None}, {}, "wild_type must be the sequence of the protein"),
        ({"test": None}, {}, "data set 'made' has no test split"),
        ({}, {"wild_type": "MKTAYIAKQ"}, "insertions and deletions"),
    ],
)
def test_wrong_arguments_are_named(change, options, message):
    with pytest.raises(ValueError, match=message):
        kft.crossover(models.esm2(), replace(made(), **change), **{"sizes": [8]} | options)


@pytest.mark.once
def test_data_of_another_kind_are_refused():
    part = Split(["MK", "KM"], [0, 1])
    classes = Dataset(
        "toy", "classification", part, None, part, source="", licence="", citation="",
        checksum="", classes=("a", "b"), wild_type="MK",
    )  # fmt: skip
    with pytest.raises(ValueError, match="data must hold one measured number per record"):
        kft.crossover(models.esm2(), classes)


@pytest.mark.once
def test_what_fails_is_named_and_the_rest_is_scored():
    data = made()
    longer = replace(data, test=Split([WILD_TYPE + "A", *mutants(20, 5)], np.arange(21.0)))
    options = OPTIONS | {"method": "one_pass_pseudo_perplexity", "sizes": [8]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = kft.crossover(models.esm2(), longer, **options)
    said = " ".join(str(x.message) for x in caught)
    assert re.search("one-hot ridge has failed.*sequences of one length.*augmented ridge has", said)
    assert list(found.scores) == ["linear_probe"] and "one-hot ridge: ValueError" in str(found)
