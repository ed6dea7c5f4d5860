"""Baselines learn what they can express, choose their penalty without test, and fit the task."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from kft import baselines
from kft.baselines import composition, constant, fit_all, kmers, one_hot
from kft.evaluation import score

pytestmark = pytest.mark.once

LETTERS = np.array(list(baselines.AMINO_ACIDS))


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # above all, that a fit did not converge
        yield


def split(inputs, targets, groups=None):
    return SimpleNamespace(inputs=list(inputs), targets=np.asarray(targets), groups=groups)


def dataset(task, inputs, targets, valid=True, classes=None, positions=None):
    """Half of the records to train, a quarter to valid, a quarter to test."""
    half, rest = len(inputs) // 2, len(inputs) * 3 // 4
    parts = [split(inputs[a:b], targets[a:b]) for a, b in ((0, half), (half, rest), (rest, None))]
    return SimpleNamespace(
        name="made up",
        task=task,
        train=parts[0],
        valid=parts[1] if valid else None,
        test=parts[2],
        classes=classes,
        variable_positions=positions,
    )


def strings(rng, number, low=20, high=40):
    return ["".join(rng.choice(LETTERS, rng.integers(low, high))) for _ in range(number)]


@pytest.fixture
def charged():
    """Class 1 holds more lysine, class 0 more aspartate."""
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=400)
    tails = ["".join(rng.choice(list("DDK" if y == 0 else "DKK"), 12)) for y in targets]
    inputs = [s + t for s, t in zip(strings(rng, 400), tails, strict=True)]
    return dataset("classification", inputs, targets, classes=("acidic", "basic"))


@pytest.fixture
def library():
    """Mutants of one protein at positions 1 and 3, whose effects add up; one position is dull."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(2, 20))
    drawn = rng.integers(20, size=(400, 2))
    inputs = [f"M{LETTERS[a]}K{LETTERS[b]}" for a, b in drawn]
    targets = effects[0, drawn[:, 0]] + effects[1, drawn[:, 1]] + 5
    return dataset("regression", inputs, targets + 0.1 * rng.normal(size=400))


def headline(data, baseline):
    scores = score(data.task, data.test.targets, baseline.predictions, resamples=20)
    return scores[scores.headline].value


def test_composition_tells_charges_apart(charged):
    baseline = composition(charged)
    assert baseline.name == "composition"
    assert headline(charged, baseline) > 0.8
    assert baseline.predictions.shape == (100, 2)
    assert baseline.parameters == 20 + 1
    assert baseline.penalty in baselines.STRENGTHS and baseline.seconds > 0


def test_composition_counts_fractions_of_the_whole_length():
    rows = baselines._Composition().transform(["ACCX", "Y", ""])
    assert rows[0, :2].tolist() == [0.25, 0.5] and rows[1, -1] == 1 and not rows[2].any()


def test_kmers_see_order_where_composition_sees_none():
    rng = np.random.default_rng(1)
    targets = rng.integers(2, size=400)
    words = [("KWD" if y else "DWK") for y in targets]
    inputs = [f"{s}{w}" for s, w in zip(strings(rng, 400), words, strict=True)]
    data = dataset("classification", inputs, targets, classes=("a", "b"))
    assert headline(data, kmers(data)) > 0.95
    assert headline(data, composition(data)) < 0.7
    assert kmers(data).name == "3-mers"


def test_kmers_have_a_coefficient_per_word_of_train_and_valid_and_an_intercept():
    data = dataset("regression", ["ACD", "ACD", "CDE", "EFG"], [0.0, 0.0, 1.0, 1.0])
    assert kmers(data, k=2).parameters == len({"AC", "CD", "DE"}) + 1


def test_one_hot_is_the_additive_model(library):
    baseline = one_hot(library)
    assert baseline.name == "one-hot, 2 positions"
    assert baseline.parameters == 2 * 20 + 1
    assert headline(library, baseline) > 0.98
    assert baseline.predictions.mean() == pytest.approx(library.test.targets.mean(), abs=0.1)


def test_one_hot_reads_only_the_positions_that_the_data_names(library):
    library.variable_positions = (3,)
    baseline = one_hot(library)
    assert baseline.name == "one-hot, 1 positions" and baseline.parameters == 21
    assert headline(library, baseline) < 0.95


def test_one_hot_accepts_residues_that_only_test_holds(library):
    library.test.inputs[0] = "MXKX"
    assert np.isfinite(one_hot(library).predictions).all()


def test_penalty_is_the_best_on_valid_and_the_fit_uses_both(library):
    baseline = one_hot(library)
    eye = np.eye(20)

    def features(part):
        index = [[list(LETTERS).index(s[i]) for i in (1, 3)] for s in part.inputs]
        return eye[index].reshape(len(index), 40)

    train, valid = library.train, library.valid

    def loss(strength):
        model = Ridge(alpha=strength).fit(features(train), train.targets)
        return np.square(model.predict(features(valid)) - valid.targets).mean()

    assert baseline.penalty == min(baselines.STRENGTHS, key=loss)
    both = Ridge(alpha=baseline.penalty).fit(
        np.concatenate([features(train), features(valid)]),
        np.concatenate([train.targets, valid.targets]),
    )
    np.testing.assert_allclose(
        baseline.predictions, both.predict(features(library.test)), atol=1e-3
    )


def test_penalty_means_the_same_for_both_models(charged, library):
    assert baselines._linear(charged, 10.0).C == 0.1
    assert baselines._linear(library, 10.0).alpha == 10.0


@pytest.mark.parametrize("fit", [constant, composition, kmers])
def test_targets_of_test_are_never_read(charged, fit):
    first = fit(charged)
    charged.test.targets = None
    again = fit(charged)
    assert replace(again, predictions=0, seconds=0) == replace(first, predictions=0, seconds=0)
    np.testing.assert_array_equal(again.predictions, first.predictions)


def test_without_valid_the_penalty_comes_from_folds_that_keep_groups_whole(charged):
    charged.valid = None
    charged.train.groups = np.arange(200) // 2
    features = baselines.make_pipeline(baselines._Composition(), baselines.StandardScaler())
    folds = baselines._folds(charged, features)
    rows = features.transform(charged.train.inputs)  # no two records have the same
    assert sum(len(held) for _, _, held, _ in folds) == 200 and len(folds) == 5
    for _, _, held, _ in folds:
        held = {row.tobytes() for row in held}
        pairs = [{row.tobytes() in held for row in pair} for pair in rows.reshape(100, 2, 20)]
        assert all(len(pair) == 1 for pair in pairs)
    assert headline(charged, composition(charged)) > 0.8


def test_constant_predicts_the_mean_or_the_class_frequencies(charged, library):
    frequencies = np.bincount(np.append(charged.train.targets, charged.valid.targets)) / 300
    np.testing.assert_allclose(constant(charged).predictions, np.tile(frequencies, (100, 1)))
    mean = np.append(library.train.targets, library.valid.targets).mean()
    np.testing.assert_allclose(constant(library).predictions, np.full(100, mean))
    assert constant(library).name == "mean" and constant(library).parameters == 1


def test_a_class_that_train_lacks_gets_no_probability(charged):
    charged.classes = ("acidic", "basic", "never seen")
    for baseline in (constant(charged), composition(charged)):
        assert baseline.predictions.shape == (100, 3)
        assert not baseline.predictions[:, 2].any()
        np.testing.assert_allclose(baseline.predictions.sum(axis=1), 1)


def test_three_classes(charged):
    for part in (charged.train, charged.valid, charged.test):
        part.targets = np.where(np.arange(len(part.targets)) % 3 == 0, 2, part.targets)
    charged.classes = ("acidic", "basic", "other")
    assert composition(charged).predictions.shape == (100, 3)


def test_fit_all_picks_what_suits_the_data_and_reports(charged, library):
    lines = []
    names = [baseline.name for baseline in fit_all(charged, progress=lines.append)]
    assert names == ["majority class", "composition", "3-mers"]
    assert lines == ["baseline 1/3: constant", "baseline 2/3: composition", "baseline 3/3: kmers"]
    names = [baseline.name for baseline in fit_all(library)]
    assert names == ["mean", "one-hot, 2 positions", "3-mers"]
    library.test.inputs[0] += "A"
    assert [b.name for b in fit_all(library)] == ["mean", "composition", "3-mers"]


def test_bad_input_is_named(charged, library):
    with pytest.raises(ValueError, match="one length, received lengths 32 to 51"):
        one_hot(charged)
    with pytest.raises(ValueError, match="k must be 1 to 4.*received 5"):
        kmers(library, k=5)
    for part in (library.train, library.valid):
        part.inputs = ["MAKA"] * len(part.inputs)
    with pytest.raises(ValueError, match="all the same"):
        one_hot(library)
    library.test = None
    with pytest.raises(ValueError, match="no test split"):
        constant(library)
    charged.task = "residue_classification"
    with pytest.raises(ValueError, match="'residue_classification'"):
        fit_all(charged)
