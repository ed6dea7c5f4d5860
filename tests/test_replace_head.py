"""Chopping the head: on kft's models and on any functional Keras model, there and back."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import esm2, moved, same, values
from parity import assert_rounds_alike

import kft
from kft import params

RNG = np.random.default_rng(0)
SEQUENCES = ["MKTAYI", "GSS", "ACDEFG"]


def with_head(head):
    return kft.Model(esm2(2), head)


@pytest.mark.in_turn("torch")
def test_classification_to_regression_and_back():
    first = with_head(kft.heads.Classification(3))
    kft.freeze(first, "block_0")
    before = values(first.backbone)
    second = kft.replace_head(first, kft.heads.Regression(2, mean=[1.0, 5.0], std=[2.0, 3.0]))
    # Zero weights: every protein gets the prior.
    np.testing.assert_array_equal(kft.predict(second, SEQUENCES), [[1.0, 5.0]] * 3)
    third = kft.replace_head(second, kft.heads.Classification(4))
    assert_rounds_alike(kft.predict(third, SEQUENCES), np.full((3, 4), 0.25))
    assert third.backbone is first.backbone and same(before, values(third.backbone))
    for model in (second, third):
        assert {w.path.split("/")[0] for w in params.weights(model) if w.frozen} == {"block_0"}
        assert not model.compiled
    residues = kft.replace_head(third, kft.heads.ResidueClassification(2))
    assert [len(rows) for rows in kft.predict(residues, SEQUENCES)] == [6, 3, 6]


def network(kind):
    """A trained network with a head of two layers, in one of the ways that Keras writes it."""
    body = [
        layers.Conv2D(4, 3, activation="relu", name="conv"),
        layers.GlobalAveragePooling2D(name="mean"),
        layers.Dropout(0.1, name="dropout"),
        layers.Dense(3, name="logits"),
        layers.Softmax(name="softmax"),
    ]
    if kind == "sequential":
        return keras.Sequential([keras.Input((8, 8, 1)), *body])
    x = inputs = keras.Input((8, 8, 1))
    if kind == "nested":
        base = keras.Sequential([keras.Input((8, 8, 1)), *body[:2]], name="base")
        body = [base, *body[2:]]
    for layer in body:
        x = layer(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize("kind", ["functional", "sequential", "nested"])
def test_any_functional_model(kind):
    model = network(kind)
    images = RNG.random((5, 8, 8, 1)).astype("float32")
    chopped = kft.replace_head(model, kft.heads.Regression(mean=2.0))
    assert isinstance(chopped, kft.Model)
    np.testing.assert_array_equal(ops.convert_to_numpy(chopped(images)), np.full((5, 1), 2.0))
    names = [w.path for w in params.weights(chopped)]
    assert not [name for name in names if "logits" in name]
    assert [name for name in names if name.endswith("conv/kernel")]
    # The new head sees what the old one saw.
    old = model.get_layer("logits")
    same_head = kft.replace_head(model, layers.Dense(3, name="again"))
    same_head.head.set_weights(old.get_weights())
    expected = ops.convert_to_numpy(ops.softmax(same_head(images)))
    assert_rounds_alike(expected, ops.convert_to_numpy(model(images)))


def test_features_may_be_named():
    model = network("functional")
    chopped = kft.replace_head(model, kft.heads.Classification(2, pooling="max"), features="conv")
    images = RNG.random((5, 8, 8, 1)).astype("float32")
    head = chopped.head
    head.dense.kernel.assign(np.eye(4, 2))
    maps = ops.convert_to_numpy(model.get_layer("conv")(images))  # (B, 6, 6, 4)
    logits = maps.max(axis=(1, 2))[:, :2]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert_rounds_alike(ops.convert_to_numpy(chopped(images)), expected)


@pytest.mark.usefixtures("as_written")
def test_a_chopped_network_learns_and_is_saved(tmp_path):
    images = list(RNG.random((16, 8, 8, 1)).astype("float32"))
    kinds = np.array([image.mean() > 0.5 for image in images]).astype("int32")
    model = kft.replace_head(network("functional"), kft.heads.Classification(2))
    before = values(model)
    done = kft.fit(model, (images, kinds), "head_only", 3, batch_size=8, verbose=0)
    assert done.phases[0].why_not_computed_once is None
    assert moved(before, values(model)) == {"head"}
    assert done.history[-1]["loss"] < done.history[0]["loss"]
    model.save(tmp_path / "chopped.keras")
    loaded = keras.saving.load_model(tmp_path / "chopped.keras")
    x = np.stack(images)
    one, other = (ops.convert_to_numpy(m(x)) for m in (model, loaded))
    assert_rounds_alike(other, one)
    assert_rounds_alike(kft.predict(model, images), one)


@pytest.mark.once
def test_what_cannot_be_chopped():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match="must be a functional or Sequential Keras model"):
        kft.replace_head(Own(), kft.heads.Regression())
    x = keras.Input((3,))
    with pytest.raises(ValueError, match="has no layer with weights that could be its head"):
        kft.replace_head(keras.Model(x, layers.ReLU()(x)), kft.heads.Regression())
    with pytest.raises(ValueError, match="features must match one layer"):
        kft.replace_head(network("functional"), kft.heads.Regression(), features=["conv", "mean"])
    with pytest.raises(ValueError, match="similar are conv"):
        kft.replace_head(network("functional"), kft.heads.Regression(), features="conf")


@pytest.mark.once
def test_a_name_that_the_backbone_has_is_said_and_its_pooling_is_not_in_the_way():
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="head")(x)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    model = keras.Model(inputs, layers.Dense(3, name="out")(x))
    with pytest.raises(ValueError, match="has a layer named 'head'.*give the head another name"):
        kft.replace_head(model, kft.heads.Regression())
    chopped = kft.replace_head(model, kft.heads.Regression(name="new"))
    assert chopped.output_shape == (None, 1)


@pytest.mark.once
def test_features_of_a_kft_model_are_its_backbones():
    with pytest.raises(ValueError, match="features is for plain Keras models"):
        kft.replace_head(
            with_head(kft.heads.Regression()), kft.heads.Regression(), features="block_0"
        )
