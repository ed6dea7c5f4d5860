"""Blocks that are computed again for the gradient: same training, copies, files, refusals."""

import copy

import keras
import numpy as np
import pytest
from keras import layers
from models import esm2, perturb, perturb_adapters, strings, values
from parity import assert_rounds_alike

import kft
from kft.backbones import rematerialised

RECORDS = strings([7, 5, 9]), np.array([0.5, -1.0, 1.0])


@pytest.fixture
def again(monkeypatch):
    """The names of the layers that are computed again, in the order in which training asks."""
    names, run = [], rematerialised._run

    def noted(layer, *others):
        names.append(layer.name)
        return run(layer, *others)

    monkeypatch.setattr(rematerialised, "_run", noted)
    return names


def proteins(remat):
    """An ESM-2 with LoRA, whose dropout draws random numbers inside of the blocks."""
    model = kft.Model(perturb(esm2(2)), kft.heads.Regression(), remat=remat)
    kft.add_lora(model, 2, dropout=0.4)
    perturb_adapters(model)
    return model, model.encode(RECORDS[0])


def statistics(remat):
    """Blocks with batch norm, which updates its statistics, and dropout, of a plain backbone."""
    x = keras.Input((4,), name="x")
    blocks = [
        keras.Sequential(
            [layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.3, seed=i)]
        )
        for i in range(2)
    ]
    model = kft.Model(keras.Model(x, blocks[1](blocks[0](x))), layers.Dense(1), remat=remat)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(rng.standard_normal(weight.shape))
    return model, rng.standard_normal((3, 4)).astype("float32")


@pytest.mark.parametrize("make", [proteins, statistics])
def test_the_same_training(make, again):
    ends = []
    for remat in (False, True):
        model, inputs = make(remat)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        for _ in range(2):
            model.train_on_batch(inputs, RECORDS[1])
        ends.append(values(model))
        assert len(set(again)) == (2 if remat else 0)
    for (path, before), after in zip(ends[0].items(), ends[1].values(), strict=True):
        assert_rounds_alike(after, before, what=path)
    count = len(again)
    model.predict_on_batch(inputs)
    assert len(again) == count  # nothing has a gradient


def test_frozen_and_at_the_frontier(again):
    model = kft.Model(esm2(3), kft.heads.Regression())
    assert kft.remat(model) == ["block_0", "block_1", "block_2"]
    kft.freeze(model, ["embedding", "block_0"])
    model.compile("sgd", "mse")
    kft.fit_frontier(model, RECORDS, verbose=0)
    assert set(again) == {"block_1", "block_2"}


def marked(model):
    return [layer.name for layer in model.layers if rematerialised.is_marked(layer)]


@pytest.mark.once
def test_switched_kept_and_shared(tmp_path, again):
    backbone = kft.load("kft_esm2_tiny", remat=True)
    names = marked(backbone)
    assert names == ["block_0", "block_1", "block_2"]
    model = kft.Model(backbone, kft.heads.Regression())
    model.save(tmp_path / "model.keras")
    again_from_file = kft.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    for one in (model, again_from_file, clone, copy.deepcopy(model), backbone.masked_lm):
        assert marked(one) == names
    again_from_file.compile("sgd", "mse")
    again_from_file.train_on_batch(model.encode(RECORDS[0]), RECORDS[1])
    assert again == names
    kft.remat(again_from_file, False)
    again_from_file.train_on_batch(model.encode(RECORDS[0]), RECORDS[1])
    assert again == names
    again_from_file.save(tmp_path / "model.keras")
    assert not marked(kft.load_model(tmp_path / "model.keras"))


@pytest.mark.once
def test_what_was_traced_is_traced_again(again):
    model, inputs = proteins(False)
    model.compile("sgd", "mse")
    model.train_on_batch(inputs, RECORDS[1])
    kft.remat(model.backbone)
    assert model.train_function is None
    model.train_on_batch(inputs, RECORDS[1])
    assert again == ["block_0", "block_1"]


@pytest.mark.filterwarnings("ignore:.*does not support masking")
def test_refusals():
    x = keras.Input((4,))
    plain = keras.Model(x, layers.Dense(2)(x), name="plain")
    with pytest.raises(TypeError, match="model must be a backbone of kft or a kft.Model, which"):
        kft.remat(plain)
    with pytest.raises(ValueError, match="remat is for models with blocks, .* and model has none"):
        kft.Model(plain, layers.Dense(1), remat=True)
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    block = keras.Sequential([layers.Dense(4), layers.Dense(4)], name="block")
    features = block(layers.Embedding(5, 4, mask_zero=True)(tokens))
    model = kft.Model(keras.Model(tokens, features), layers.Dense(1), pooling=None, remat=True)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="remat does not pass on Keras masks, .* of block have"):
        model.train_on_batch(np.ones((2, 3), "int32"), np.zeros((2, 3, 1)))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the others keep to the order")
def test_blocks_are_not_computed_again_too_early():
    """XLA's own account of the memory of a step, by which `jax.checkpoint` saves nothing."""
    import jax

    def temporary(remat):
        model = kft.Model(esm2(4), kft.heads.Regression(), remat=remat)
        inputs = model.encode(strings([126] * 4))

        def loss(trainable):
            states = [x.value for x in model.non_trainable_variables]
            return model.stateless_call(trainable, states, inputs, training=True)[0].sum()

        step = jax.jit(jax.grad(loss)).lower([x.value for x in model.trainable_variables])
        return step.compile().memory_analysis().temp_size_in_bytes

    assert temporary(True) < 0.6 * temporary(False)
