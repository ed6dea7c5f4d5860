"""Baselines learn what they can express, choose their penalty without test, and fit the task."""

import os
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kft.data
from kft.evaluation import baselines, fitted
from kft.evaluation.baselines import composition, constant, fit_all, kmers, one_hot, window
from kft.evaluation.metrics import score

pytestmark = pytest.mark.once

LETTERS = np.array(list(fitted.AMINO_ACIDS))
needs_flip = pytest.mark.skipif(
    not os.environ.get("KFT_DATA"), reason="KFT_DATA is unset: the FLIP files are not here"
)


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
    assert baseline.penalty in fitted.STRENGTHS and baseline.seconds > 0


def test_composition_counts_fractions_of_the_whole_length():
    rows = fitted.Composition().transform(["ACCX", "Y", ""])
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

    assert baseline.penalty == min(fitted.STRENGTHS, key=loss)
    both = Ridge(alpha=baseline.penalty).fit(
        np.concatenate([features(train), features(valid)]),
        np.concatenate([train.targets, valid.targets]),
    )
    np.testing.assert_allclose(
        baseline.predictions, both.predict(features(library.test)), atol=1e-3
    )


def test_penalty_means_the_same_for_both_models(charged, library):
    assert fitted.unfitted(charged, 10.0).C == 0.1
    assert fitted.unfitted(library, 10.0).alpha == 10.0


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
    features = make_pipeline(fitted.Composition(), StandardScaler())
    folds = fitted.folds_of(charged, features)
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
    charged.task = "unheard of"
    with pytest.raises(ValueError, match="'unheard of'"):
        fit_all(charged)


@pytest.mark.parametrize("fit", [constant, composition])
def test_an_empty_valid_is_no_valid(charged, fit):
    charged.valid = split([], [])
    empty = fit(charged)
    charged.valid = None
    np.testing.assert_array_equal(empty.predictions, fit(charged).predictions)


# Labels -----------------------------------------------------------------------------------------


@pytest.fixture
def labelled(charged):
    """Two labels that composition shows, of which a record may have both, and one without any."""
    acidic = [x.count("D") / len(x) > 0.1 for part in parts_of(charged) for x in part.inputs]
    basic = [x.count("K") / len(x) > 0.1 for part in parts_of(charged) for x in part.inputs]
    targets = np.array([acidic, basic, np.zeros(400)]).T.astype(int)
    for part, rows in zip(parts_of(charged), np.split(targets, [200, 300]), strict=True):
        part.targets = rows
    charged.task, charged.classes = "multilabel", ("acidic", "basic", "never")
    return charged


def parts_of(data):
    return data.train, data.valid, data.test


def test_each_label_has_a_model_of_its_own(labelled):
    names = ["label frequencies", "composition", "3-mers"]
    found = fit_all(labelled)
    assert [baseline.name for baseline in found] == names
    known = np.concatenate([labelled.train.targets, labelled.valid.targets])
    constant, linear, _ = found
    np.testing.assert_allclose(constant.predictions, np.tile(known.mean(axis=0), (100, 1)))
    assert constant.parameters == 3 and linear.parameters == 2 * 20 + 3
    assert linear.predictions.shape == (100, 3) and not linear.predictions[:, 2].any()
    assert 0.45 < headline(labelled, constant) < 0.55 and headline(labelled, linear) > 0.9
    assert linear.penalty in fitted.STRENGTHS
    both = (linear.predictions[:, :2] > 0.5).all(axis=1)
    assert both.any() and labelled.test.targets[both].sum(axis=1).mean() > 1.5


def test_labels_of_images_come_from_the_nearest():
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=(80, 2))
    images = rng.integers(0, 40, (80, 8, 8)) + 100 * targets[:, :1, None]
    images[:, :4] += 100 * targets[:, 1:, None]
    data = dataset("multilabel", images.astype("uint8"), targets, classes=("bright", "top"))
    data.value_range = None
    _, nearest = fit_all(data)
    assert headline(data, nearest) > 0.95 and nearest.predictions.shape == (20, 2)


# Residues ---------------------------------------------------------------------------------------


def classes_by_neighbour(chain):
    """0 at the start of a chain; then 1 behind the alphabet's first half, 2 behind the second."""
    halves = [1 + (fitted.AMINO_ACIDS.index(letter) >= 10) for letter in chain]
    return np.array([0, *halves[:-1]])


def chains(rng, number, wrong=0.0):
    """A split of chains, of which some labels are wrong, and a third of the residues is masked."""
    inputs = strings(rng, number, 2, 40)
    targets = []
    for chain in inputs:
        noise = rng.integers(3, size=len(chain))
        is_wrong = rng.random(len(chain)) < wrong
        targets.append(np.where(is_wrong, noise, classes_by_neighbour(chain)))
    masks = [rng.random(len(chain)) < 2 / 3 for chain in inputs]
    return SimpleNamespace(inputs=inputs, targets=targets, masks=masks, groups=None)


def residues(wrong=0.0):
    rng = np.random.default_rng(2)
    return SimpleNamespace(
        name="made up",
        task="residue_classification",
        classes=("start", "first", "second"),
        train=chains(rng, 60, wrong),
        valid=chains(rng, 30, wrong),
        test=chains(rng, 30, wrong),
    )


RESIDUE_FITS = {
    "constant": constant,
    "residue": lambda data: window(data, width=1),
    "window": lambda data: window(data, width=3),
    "drawn": lambda data: window(data, width=3, rows=500),
}
every_residue_fit = pytest.mark.parametrize("fit", RESIDUE_FITS.values(), ids=RESIDUE_FITS)


def in_one_row(rows, masks):
    return np.concatenate([row[mask] for row, mask in zip(rows, masks, strict=True)])


def accuracy(data, baseline):
    """Of the residues that count."""
    test = data.test
    chain = np.repeat(np.arange(len(test.inputs)), [mask.sum() for mask in test.masks])
    targets, answers = (in_one_row(x, test.masks) for x in (test.targets, baseline.predictions))
    return score(data.task, targets, answers, groups=chain, resamples=20)["accuracy"].value


def assert_same(found, expected):
    for a, b in zip(found.predictions, expected.predictions, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_window_sees_neighbours_and_a_residue_does_not():
    data = residues()
    assert accuracy(data, window(data, width=3)) == 1.0
    assert accuracy(data, window(data)) > 0.95
    assert accuracy(data, window(data, width=1)) < 0.65
    assert accuracy(data, constant(data)) < 0.65


def test_windows_end_with_the_chain():
    letters, chain = baselines._windows(["ACD", "W", "", "éF"], 5)
    assert [row.tobytes().decode() for row in letters] == [
        "  ACD", " ACD ", "ACD  ", "  W  ", "  ?F ", " ?F  "
    ]  # fmt: skip
    assert chain.tolist() == [0, 0, 0, 1, 3, 3]
    assert [row.tobytes() for row in baselines._windows(["AC", "D"], 1)[0]] == [b"A", b"C", b"D"]


def test_what_is_no_amino_acid_is_nothing():
    data = residues()
    data.test = SimpleNamespace(inputs=["AC", "XAC", "ACUé"])
    bare, before, behind = window(data, width=3).predictions
    np.testing.assert_array_equal(before[1:], bare)
    np.testing.assert_array_equal(behind[:2], bare)


def test_the_window_is_logistic_regression_on_the_residues_that_count():
    """Put together by hand: the features, the penalty that does best on valid, the fit on both."""
    data = residues(wrong=0.5)
    baseline = window(data, width=3)

    def features(part, masks):
        rows = []
        for sequence, mask in zip(part.inputs, masks, strict=True):
            padded = f" {sequence} "
            for i in np.flatnonzero(mask):
                rows.append(np.concatenate([x == LETTERS for x in padded[i : i + 3]]))
        return np.array(rows, dtype=float)

    x, xv = (features(part, part.masks) for part in (data.train, data.valid))
    y, yv = (in_one_row(part.targets, part.masks) for part in (data.train, data.valid))

    def loss(strength):
        model = LogisticRegression(C=1 / strength, max_iter=10_000).fit(x, y)
        return -model.predict_log_proba(xv)[np.arange(len(yv)), yv].mean()

    penalty = min(fitted.STRENGTHS, key=loss)
    assert baseline.penalty == penalty
    assert penalty not in (fitted.STRENGTHS[0], fitted.STRENGTHS[-1])
    assert baseline.name == "3-residue window"
    assert baseline.parameters == 3 * (3 * 20 + 1) and baseline.seconds > 0
    both = LogisticRegression(C=1 / penalty, max_iter=10_000)
    both.fit(np.concatenate([x, xv]), np.concatenate([y, yv]))
    everywhere = [np.ones(len(chain), dtype=bool) for chain in data.test.inputs]
    np.testing.assert_allclose(
        np.concatenate(baseline.predictions),
        both.predict_proba(features(data.test, everywhere)),
        atol=1e-3,
    )


@every_residue_fit
def test_what_is_masked_does_not_matter(fit):
    data = residues()
    expected = fit(data)
    for part in (data.train, data.valid, data.test):
        part.targets = [
            np.where(m, y, (y + 1) % 3) for m, y in zip(part.masks, part.targets, strict=True)
        ]
    assert_same(fit(data), expected)
    for part in (data.train, data.valid):
        part.masks = None  # now the wrong labels count
    assert not np.allclose(fit(data).predictions[0], expected.predictions[0])


@every_residue_fit
def test_every_residue_of_every_chain_is_predicted_in_order(fit):
    data = residues()
    found = fit(data)
    assert [rows.shape for rows in found.predictions] == [(len(x), 3) for x in data.test.inputs]
    for rows in found.predictions:
        assert rows.dtype == np.float64 and rows.base is None
        np.testing.assert_allclose(rows.sum(axis=1), 1)
    data.test = SimpleNamespace(inputs=data.test.inputs[::-1])  # neither targets nor masks are read
    assert_same(fit(data), replace(found, predictions=found.predictions[::-1]))


def test_constant_predicts_how_frequent_classes_are_among_residues_that_count():
    data = residues()
    counted = [in_one_row(part.targets, part.masks) for part in (data.train, data.valid)]
    frequencies = np.bincount(np.concatenate(counted)) / sum(map(len, counted))
    baseline = constant(data)
    assert baseline.name == "majority class" and baseline.parameters == 3
    for rows in baseline.predictions:
        np.testing.assert_allclose(rows, np.tile(frequencies, (len(rows), 1)))


def test_the_draw_is_that_of_the_seed():
    data = residues(wrong=0.5)
    first = window(data, width=3, rows=300, seed=0)
    assert_same(window(data, width=3, rows=300, seed=0), first)
    other = window(data, width=3, rows=300, seed=1)
    assert not np.allclose(other.predictions[0], first.predictions[0])
    assert_same(window(data, width=3, seed=0), window(data, width=3, seed=1))  # all are taken


def test_the_draw_is_from_both_splits_alike_and_of_what_counts():
    data = residues()
    for part, number in ((data.train, 0), (data.valid, 1)):
        part.targets = [np.where(mask, number, 2) for mask in part.masks]
    drawn = baselines._by_residue(data, width=1, rows=600, seed=0)
    assert set(drawn.train.targets) == {0} and set(drawn.valid.targets) == {1}
    sizes = [len(part.inputs) for part in (drawn.train, drawn.valid)]
    share = sum(m.sum() for m in data.train.masks) / sum(
        m.sum() for part in (data.train, data.valid) for m in part.masks
    )
    assert sum(sizes) == 600 and sizes[0] / 600 == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("named", [False, True])
def test_without_valid_the_penalty_comes_from_folds_that_keep_chains_whole(named):
    data = residues(wrong=0.5)
    data.valid = None
    if named:  # two chains each
        data.train.groups = np.array([f"family {i // 2}" for i in range(len(data.train.inputs))])
    drawn = baselines._by_residue(data, width=1, rows=10**6, seed=0)
    chain = np.repeat(np.arange(len(data.train.inputs)), [m.sum() for m in data.train.masks])
    expected = data.train.groups[chain] if named else chain
    np.testing.assert_array_equal(drawn.train.groups, expected)
    drawn.train.inputs = np.arange(len(chain))[:, None]
    folds = fitted.folds_of(drawn, StandardScaler(with_mean=False, with_std=False))
    held = [set(expected[rows.ravel().astype(int)]) for _, _, rows, _ in folds]
    assert len(held) == 5 and sum(map(len, held)) == len(set.union(*held)) == len(set(expected))
    missing = window(data, width=3)
    data.valid = split([], [])  # as `Split` holds an empty list
    assert_same(window(data, width=3), missing)


def test_two_classes_and_one_that_train_lacks():
    data = residues()
    for part in (data.train, data.valid):
        part.targets = [np.minimum(y, 1) for y in part.targets]
    for baseline in fit_all(data):
        rows = np.concatenate(baseline.predictions)
        assert rows.shape[1] == 3 and not rows[:, 2].any()


def test_fit_all_for_residues():
    lines = []
    fitted = fit_all(residues(), progress=lines.append)
    assert [b.name for b in fitted] == ["majority class", "residue", "15-residue window"]
    assert lines == ["baseline 1/3: constant", "baseline 2/3: residue", "baseline 3/3: window"]
    assert [b.parameters for b in fitted] == [3, 3 * 21, 3 * 301]


@pytest.mark.parametrize("width", [0, -1, 2, 14])
def test_a_window_has_a_middle(width):
    with pytest.raises(
        ValueError, match=f"width must be (odd|an integer of at least 1),.*received {width}"
    ):
        window(residues(), width=width)


def test_bad_residue_input_is_named(charged):
    data = residues()
    message = "classification or multilabel or regression, .*'residue_class"
    for fit in (composition, kmers, one_hot):
        with pytest.raises(ValueError, match=message):
            fit(data)
    message = "residue_classification or residue_regression, received.*'classification'"
    with pytest.raises(ValueError, match=message):
        window(charged)
    with pytest.raises(ValueError, match="rows must be an integer of at least 1, received 0"):
        window(data, rows=0)
    for part in (data.train, data.valid):
        part.masks = [np.zeros(len(chain), dtype=bool) for chain in part.inputs]
    for fit in (constant, window):
        with pytest.raises(ValueError, match="'made up' has no residue with a target outside"):
            fit(data)
    data.test = None
    with pytest.raises(ValueError, match="no test split"):
        window(data)


@needs_flip
def test_local_sequence_tells_of_secondary_structure():
    """On a few chains of the real data, the order that all have: frequency, residue, window."""
    whole = kft.data.load("secondary_structure")
    sizes = {"train": 60, "valid": 20, "test": 40}
    data = replace(whole, **{part: whole.splits[part].take(range(n)) for part, n in sizes.items()})
    fitted = fit_all(data)
    frequency, alone, around = (accuracy(data, baseline) for baseline in fitted)
    assert frequency + 0.05 < alone and alone + 0.05 < around < 0.68
