"""One contract for every head with every pooling, and what sets them apart."""

import keras
import numpy as np
import pytest
from keras import ops

import kft
from kft.backbones.esm2 import ESM2
from kft.heads import POOLINGS, Classification, Pooling, Regression

B, L, D = 4, 7, 6
LENGTHS = (5, 1, 3, 2)  # residues; the first position is <cls>, then residues, <eos>, <pad>
HEADS = {
    "classification": (Classification, {"classes": 3}, "sparse_categorical_crossentropy"),
    "regression": (Regression, {"mean": 2.0, "std": 3.0}, "mean_squared_error"),
    "two targets": (Regression, {"targets": 2}, "mean_squared_error"),
}

every_head = pytest.mark.parametrize("kind", HEADS)
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


def make(kind, pooling, **options):
    cls, arguments, _ = HEADS[kind]
    return cls(**arguments, pooling=pooling, **options)


@pytest.fixture
def features():
    return np.random.default_rng(0).standard_normal((B, L, D)).astype("float32")


@pytest.fixture
def mask():
    return np.array([[1 <= i <= n for i in range(L)] for n in LENGTHS])


def randomise(head, seed=1):
    rng = np.random.default_rng(seed)
    for variable in head.weights:
        variable.assign(rng.standard_normal(variable.shape, dtype="float32"))
    return head


def call(layer, *inputs):
    return ops.convert_to_numpy(layer(*(None if x is None else ops.array(x) for x in inputs)))


@every_head
@every_pooling
def test_answers_start_at_the_prior(kind, pooling, features, mask):
    answers = call(make(kind, pooling), features, mask)
    expected = {"classification": (3, 1 / 3), "regression": (1, 2.0), "two targets": (2, 0.0)}
    units, prior = expected[kind]
    assert answers.shape == (B, units)
    assert answers.dtype == "float32"
    np.testing.assert_allclose(answers, np.full((B, units), prior), atol=1e-6)


@every_head
@every_pooling
def test_padding_and_company_change_nothing(kind, pooling, features, mask):
    head = make(kind, pooling)
    head(features, mask)
    answers = call(randomise(head), features, mask)
    assert np.ptp(answers, axis=0).min() > 1e-2  # they do differ
    order = [2, 0, 3, 1]
    longer = np.pad(features, ((0, 0), (0, 5), (0, 0)), constant_values=7.0)
    longer = call(head, longer[order], np.pad(mask, ((0, 0), (0, 5)))[order])
    np.testing.assert_allclose(longer, answers[order], atol=1e-6)
    if pooling != "cls":
        elsewhere = np.where(mask[..., None], features, 1e3)
        np.testing.assert_allclose(call(head, elsewhere, mask), answers, atol=1e-6)
    alone = call(head, features[1:2, :3], mask[1:2, :3])
    np.testing.assert_allclose(alone, answers[1:2], atol=1e-6)


@every_head
@every_pooling
def test_config_and_weights_make_the_same_head(kind, pooling, features, mask):
    head = make(kind, pooling, name="mine")
    head(features, mask)
    randomise(head)
    config = keras.saving.serialize_keras_object(head)
    again = keras.saving.deserialize_keras_object(config)
    again(features, mask)
    again.set_weights(head.get_weights())
    np.testing.assert_array_equal(call(again, features, mask), call(head, features, mask))
    assert (type(again), again.name, again.get_config()) == (type(head), "mine", head.get_config())


@every_head
@every_pooling
def test_answers_stay_float32_in_mixed_precision(kind, pooling, features, mask):
    head = make(kind, pooling, dtype="mixed_bfloat16")
    head(features, mask)
    randomise(head)
    full = make(kind, pooling)
    full(features, mask)
    full.set_weights(head.get_weights())
    answers = call(head, ops.cast(features, "bfloat16"), mask)
    assert answers.dtype == "float32"
    scale = 3.0 if kind == "regression" else 1.0
    np.testing.assert_allclose(answers, call(full, features, mask), atol=0.05 * scale)
    rounded = ops.convert_to_numpy(ops.cast(ops.cast(answers, "bfloat16"), "float32"))
    assert (answers != rounded).any()


@every_head
@every_pooling
def test_every_weight_of_the_head_learns(kind, pooling, features, mask):
    inputs = keras.Input((L, D)), keras.Input((L,), dtype="bool")
    head = make(kind, pooling)
    model = keras.Model(inputs, head(*inputs))
    model.compile(keras.optimizers.SGD(0.1), HEADS[kind][2])
    shape = (B, 2) if kind == "two targets" else (B,)
    targets = np.array([0, 1, 2, 1]) if kind == "classification" else np.ones(shape)
    before = head.get_weights()
    for _ in range(2):  # at first the zero kernel hides the pooling from the loss
        model.train_on_batch((features, mask), targets)
    after = head.get_weights()
    assert len(after) == 2 + (pooling == "attention")
    for old, new in zip(before, after, strict=True):
        assert (old != new).any()


def test_a_regression_answers_in_the_unit_of_the_targets(features, mask):
    head = Regression(mean=2.0, std=3.0)
    head(features, mask)
    head.dense.bias.assign([1.0])
    np.testing.assert_allclose(call(head, features, mask), np.full((B, 1), 5.0), atol=1e-6)


# Pooling ----------------------------------------------------------------------------------------


def test_mean_pooling_is_the_mean_of_the_residues(features, mask):
    expected = [f[1 : 1 + n].mean(axis=0) for f, n in zip(features, LENGTHS, strict=True)]
    np.testing.assert_allclose(call(Pooling("mean"), features, mask), expected, atol=1e-6)


def test_mean_pooling_of_a_backbone_leaves_special_tokens_out():
    backbone = kft.backbones.randomised(ESM2(1, 16, 2), seed=0)
    sequences = ["MKTAY", "G", "AC<mask>D"]
    pooled = Pooling()(backbone.output, backbone.residue_mask)
    model = keras.Model(backbone.input, [backbone.output, pooled])
    hidden, answers = model.predict_on_batch(backbone.encode(sequences))
    expected = [h[1 : 1 + n].mean(axis=0) for h, n in zip(hidden, (5, 1, 4), strict=True)]
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_attention_pooling_starts_as_the_mean_and_weighs_by_its_score(features, mask):
    pooling = Pooling("attention")
    np.testing.assert_allclose(
        call(pooling, features, mask), call(Pooling("mean"), features, mask), atol=1e-6
    )
    direction = np.linspace(-2, 2, D, dtype="float32")
    pooling.score.kernel.assign(direction[:, None])
    scores = np.where(mask, features @ direction, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = (weights[..., None] * features).sum(axis=1)
    np.testing.assert_allclose(call(pooling, features, mask), expected, atol=1e-5)


def test_cls_pooling_is_the_first_position(features, mask):
    np.testing.assert_array_equal(call(Pooling("cls"), features, mask), features[:, 0])


@every_pooling
def test_without_a_mask_every_position_counts(pooling, features):
    expected = features[:, 0] if pooling == "cls" else features.mean(axis=1)
    np.testing.assert_allclose(call(Pooling(pooling), features), expected, atol=1e-6)
    inputs = keras.Input((None, D))
    model = keras.Model(inputs, Pooling(pooling)(inputs))
    np.testing.assert_allclose(call(model, features), expected, atol=1e-6)


# Bad arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make_head", [Pooling, Regression, lambda p: Classification(2, p)])
def test_an_unknown_pooling_lists_the_known(make_head):
    arguments = {"pooling": "max"} if make_head is Regression else {}
    with pytest.raises(ValueError, match="one of mean, cls, attention, received 'max'"):
        make_head(**arguments) if arguments else make_head("max")


@pytest.mark.parametrize("classes", [1, 0, -3])
def test_fewer_than_two_classes(classes):
    with pytest.raises(ValueError, match=f"classes must be at least 2, received {classes}"):
        Classification(classes)


@pytest.mark.parametrize("bad", [{"targets": 0}, {"std": 0.0}, {"std": -1.0}, {"std": np.nan}])
def test_a_regression_that_cannot_be(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ValueError, match=rf"received .*{name}={value}"):
        Regression(**bad)
