"""Losses against numpy by hand and against Keras's own; what must not count does not."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.utils.class_weight import compute_class_weight

from kft.models.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    SquaredError,
    balanced,
)

B, L, K = 4, 6, 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def probabilities(rng, *shape):
    x = np.exp(rng.standard_normal(shape))
    return (x / x.sum(axis=-1, keepdims=True)).astype("float32")


# By hand ----------------------------------------------------------------------------------------


WEIGHT = [1.0, 5.0, 0.0]


@pytest.mark.parametrize(
    ("shape", "weight", "smoothing"),
    [((B,), None, 0.3), ((B, L), None, 0.0), ((B,), WEIGHT, 0.0), ((B, L), WEIGHT, 0.3)],
)
def test_cross_entropy_by_hand(rng, shape, weight, smoothing):
    p, y = probabilities(rng, *shape, K), rng.integers(0, K, shape)
    truth = (1 - smoothing) * np.eye(K)[y] + smoothing / K
    each_class = np.ones(K) if weight is None else np.array(weight)
    expected = -(truth * np.log(p)).sum(axis=-1) * each_class[y]
    loss = CrossEntropy(weight, smoothing)
    assert float(loss(y, p)) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(loss(y[..., None], p)) == pytest.approx(expected.mean(), rel=1e-5)
    each = CrossEntropy(weight, smoothing, reduction=None)(y, p)
    np.testing.assert_allclose(ops.convert_to_numpy(each), expected, rtol=1e-5)


def test_label_smoothing_of_one_record():
    """Szegedy et al. 2016: the truth [1, 0, 0, 0] becomes [0.925, 0.025, 0.025, 0.025]."""
    p = np.array([[0.7, 0.1, 0.1, 0.1]])
    expected = -0.925 * np.log(0.7) - 3 * 0.025 * np.log(0.1)
    assert float(CrossEntropy(label_smoothing=0.1)([0], p)) == pytest.approx(expected, rel=1e-5)
    expected = -0.95 * np.log(0.7) - 0.05 * np.log(0.3)
    p = np.array([[0.7]])
    assert float(BinaryCrossEntropy(None, 0.1)([[1]], p)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [None, [1.0, 5.0, 0.5]])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_binary_cross_entropy_by_hand(rng, weight, smoothing):
    p, y = rng.uniform(0.01, 0.99, (B, K)).astype("float32"), rng.integers(0, 2, (B, K))
    soft = y * (1 - smoothing) + smoothing / 2
    ones = soft * np.log(p) * (1.0 if weight is None else np.array(weight))
    expected = -(ones + (1 - soft) * np.log(1 - p)).mean()
    found = BinaryCrossEntropy(weight, smoothing)(y, p)
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(B,), (B, L)])
@pytest.mark.parametrize(("std", "targets"), [(2.0, 1), (2.0, K), ([1.0, 10.0, 100.0], K)])
def test_squared_and_absolute_error_by_hand(rng, shape, std, targets):
    y, answers = rng.standard_normal((2, *shape, targets)).astype("float32")
    expected = (((y - answers) / std) ** 2).mean()
    metric = AbsoluteError()
    for given in [y, y[..., 0]] if targets == 1 else [y]:
        assert float(SquaredError(std)(given, answers)) == pytest.approx(expected, rel=1e-5)
        metric.reset_state()
        metric.update_state(given, answers)
        assert float(metric.result()) == pytest.approx(np.abs(y - answers).mean(), rel=1e-5)


# Beside Keras's own -----------------------------------------------------------------------------


def test_the_same_as_kerass_own(rng):
    p, y = probabilities(rng, B, L, K), rng.integers(0, K, (B, L))
    smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    binary = rng.uniform(0.01, 0.99, (B, K)).astype("float32")
    labels, numbers = rng.integers(0, 2, (B, K)), rng.standard_normal((B, K))
    for ours, theirs, targets, answers in (
        (CrossEntropy(), keras.losses.SparseCategoricalCrossentropy(), y, p),
        (CrossEntropy(None, 0.2), lambda t, a: smooth(np.eye(K)[t], a), y, p),
        (BinaryCrossEntropy(), keras.losses.BinaryCrossentropy(), labels, binary),
        (BinaryCrossEntropy(None, 0.2), keras.losses.BinaryCrossentropy(label_smoothing=0.2),
         labels, binary),
        (SquaredError(), keras.losses.MeanSquaredError(), numbers, binary),
    ):  # fmt: skip
        expected = float(theirs(targets, answers))
        assert float(ours(targets, answers)) == pytest.approx(expected, rel=1e-5)


def test_class_weights_are_those_of_fit(rng):
    """Keras's `fit(class_weight=...)`, which neither PyDataset nor residues can have."""
    p, y = probabilities(rng, B, K), np.array([0, 1, 2, 1])
    weights = np.array([1.0, 3.0, 0.5])
    theirs = keras.losses.SparseCategoricalCrossentropy()(y, p, sample_weight=weights[y])
    assert float(CrossEntropy(weights)(y, p)) == pytest.approx(float(theirs), rel=1e-5)


@pytest.mark.once
def test_balanced_is_scikit_learns(rng):
    y = rng.choice(4, 200, p=[0.6, 0.3, 0.05, 0.05])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=y)
    np.testing.assert_allclose(balanced(y, 4), expected)
    assert balanced(y, 4)[y].mean() == pytest.approx(1.0)
    rows = [y[:50], y[50:120], y[120:]]
    np.testing.assert_allclose(balanced(rows, 4), expected)
    masks = [rng.uniform(size=len(row)) < 0.9 for row in rows]
    expected = compute_class_weight("balanced", classes=np.arange(4), y=y[np.concatenate(masks)])
    np.testing.assert_allclose(balanced(rows, 4, masks), expected)
    weights = np.array([0.5, 2.0, 0.0])
    each = np.repeat(weights, [50, 70, 80])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=y, sample_weight=each)
    np.testing.assert_allclose(balanced(rows, 4, weights=weights), expected)
    np.testing.assert_allclose(balanced(y, 4, weights=each), expected)


# What counts ------------------------------------------------------------------------------------

CASES = {
    "classes": (lambda **o: CrossEntropy([1.0, 2.0, 3.0], 0.1, **o), "class"),
    "numbers": (lambda **o: SquaredError([1.0, 2.0, 3.0], **o), "number"),
}


@pytest.mark.parametrize(("make", "kind"), CASES.values(), ids=CASES)
def test_masked_equals_subset(rng, make, kind):
    answers = probabilities(rng, B, L, K)
    y = rng.integers(0, K, (B, L)) if kind == "class" else rng.standard_normal((B, L, K))
    mask = rng.uniform(size=(B, L)) < 0.5
    loss = make()
    found = float(loss(y, answers, sample_weight=mask.astype("float32")))
    # All that count, as if they were so many records.
    assert found == pytest.approx(float(loss(y[mask], answers[mask])), rel=1e-5)
    elsewhere = np.where(mask if kind == "class" else mask[..., None], y, 1)
    again = float(loss(elsewhere, answers, sample_weight=mask.astype("float32")))
    assert again == found
    padded = np.pad(answers, ((0, 0), (0, 9), (0, 0)))  # zeros: no probability at all
    y = np.pad(y, ((0, 0), (0, 9)) + ((0, 0),) * (y.ndim - 2))
    weights = np.pad(mask.astype("float32"), ((0, 0), (0, 9)))
    assert float(loss(y, padded, sample_weight=weights)) == pytest.approx(found, rel=1e-5)
    assert float(loss(y, padded, sample_weight=0 * weights)) == 0.0


def test_an_absolute_error_counts_what_has_weight(rng):
    for targets in (1, K):
        y, answers = rng.standard_normal((2, B, L, targets)).astype("float32")
        mask = rng.uniform(size=(B, L)) < 0.5
        metric = AbsoluteError()
        given = y[..., 0] if targets == 1 else y
        metric.update_state(given, answers, mask.astype("float32"))
        expected = np.abs(y - answers)[mask].mean()
        assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


# In training ------------------------------------------------------------------------------------


class Answers(keras.layers.Layer):
    """Weights as they are, one row of answers per input."""

    def build(self, shape):
        self.rows = self.add_weight(shape=(2, 2), name="rows")

    def call(self, x):
        return self.activation(ops.take(self.rows, ops.cast(x[:, 0], "int32"), axis=0))


@pytest.mark.parametrize(
    ("loss", "targets", "activation"),
    [
        (CrossEntropy([0.5, 9.0], 0.1), np.array([1, 1]), None),
        (BinaryCrossEntropy([9.0, 1.0]), np.array([[1, 0], [1, 0]]), None),
        (SquaredError(3.0), np.array([[1.0, 2.0], [0.0, 0.0]]), None),
        (CrossEntropy([0.5, 9.0]), np.array([1, 1]), "softmax"),
    ],
)
def test_gradients_are_finite_where_probabilities_are_0_and_1(loss, targets, activation):
    """Compiled as the backend compiles, by plain descent of one step."""
    layer = Answers()
    layer.activation = keras.activations.get(activation)
    model = keras.Sequential([keras.Input((1,)), layer])
    rows = [[40.0, -40.0], [3.0, 1.0]] if activation else [[1.0, 0.0], [0.0, 1.0]]
    layer.rows.assign(rows)
    model.compile(keras.optimizers.SGD(1e-3), loss)
    value = model.train_on_batch(np.array([[0.0], [1.0]]), targets)
    step = ops.convert_to_numpy(layer.rows) - rows
    assert np.isfinite(value) and np.isfinite(step).all()
    if activation:  # wrong by 80 nats, and still told so: p is 1.8e-35
        assert value == pytest.approx(9.0 * (-np.log(1e-30) + 2.1269) / 2, rel=1e-4)


def test_a_confident_mistake_is_corrected():
    """At 30 nats Keras's own loss has no gradient on some backends."""
    layer = Answers()
    layer.activation = keras.activations.softmax
    model = keras.Sequential([keras.Input((1,)), layer])
    layer.rows.assign([[15.0, -15.0], [0.0, 0.0]])
    model.compile(keras.optimizers.SGD(1.0), CrossEntropy())
    loss = model.train_on_batch(np.zeros((2, 1)), np.array([1, 1]))
    assert loss == pytest.approx(30.0, rel=1e-5)
    step = ops.convert_to_numpy(layer.rows)[0] - [15.0, -15.0]
    np.testing.assert_allclose(step, [-1.0, 1.0], rtol=1e-4)


@pytest.mark.once
@pytest.mark.parametrize(
    ("cls", "given"),
    [
        (CrossEntropy, {"class_weight": [1.0, 2.0], "label_smoothing": 0.1}),
        (BinaryCrossEntropy, {"positive_weight": [3.0], "label_smoothing": 0.2}),
        (SquaredError, {"std": [1.0, 2.0]}),
    ],
)
def test_config(cls, given):
    again = keras.losses.deserialize(keras.losses.serialize(cls(**given)))
    assert type(again) is cls
    assert {name: getattr(again, name) for name in given} == given
    assert again.reduction == "mean_with_sample_weight"
    metric = keras.metrics.deserialize(keras.metrics.serialize(AbsoluteError("mae")))
    assert (type(metric), metric.name) == (AbsoluteError, "mae")


# Bad arguments ----------------------------------------------------------------------------------

ROWS, WIDE = np.full((2, 2), 0.5), np.full((2, 5, 2), 0.5)
BAD = {
    "string": (lambda: CrossEntropy("balanced"), "kft.losses.balanced"),
    "dict": (lambda: CrossEntropy({0: 1.0}), "class_weight must be a list of numbers"),
    "negative": (lambda: CrossEntropy([1.0, -1.0]), "class_weight must be one number of at least"),
    "all zero": (lambda: BinaryCrossEntropy([0.0, 0.0]), "positive_weight must be one number"),
    "smoothing": (lambda: CrossEntropy(None, 1.0), "label_smoothing .* below 1, received 1.0"),
    "below": (lambda: BinaryCrossEntropy(None, -0.1), "label_smoothing must be at least 0"),
    "std": (lambda: SquaredError(0.0), "std must be one positive number.* received 0.0"),
    "count": (lambda: CrossEntropy([1.0] * 3)([0, 1], ROWS), "each of the 2 outputs, received 3"),
    "labels": (
        lambda: BinaryCrossEntropy([1.0] * 3)(ROWS, ROWS),
        "positive_weight must hold .* each of the 2 outputs, received 3",
    ),
    "stds": (lambda: SquaredError([1.0] * 3)(ROWS, ROWS), "std must hold .*2 outputs, received 3"),
    "one-hot": (lambda: CrossEntropy()(ROWS, ROWS), r"received shape \(2, 2\).*numpy.argmax"),
    "residues": (lambda: CrossEntropy()(np.ones((2, 5)), ROWS), "need a per-residue head"),
    "no residues": (lambda: CrossEntropy()([0, 1], WIDE), r"\(2, 5, 2\), received shape \(2,\)"),
    "numbers": (
        lambda: SquaredError()([0, 1], ROWS),
        r"the predictions, \(2, 2\), received \(2,\)",
    ),
    "two": (lambda: BinaryCrossEntropy()(np.ones((2, 1)), ROWS), r"received \(2, 1\)"),
    "absent": (lambda: balanced([0, 2], 3), "class 1 occurs in none of the 2 targets"),
    "no class": (lambda: balanced([0, 3], 3), "classes 0 to 2, received 3"),
    "fraction": (lambda: balanced([0, 0.5], 2), "classes 0 to 1, received 0.5"),
}


@pytest.mark.once
@pytest.mark.parametrize(("do", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be(do, message):
    with pytest.raises(ValueError, match=message):
        do()
