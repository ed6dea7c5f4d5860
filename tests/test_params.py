"""Paths, patterns and freezing, on models of every kind Keras knows."""

import re

import keras
import numpy as np
import pytest
from models import (
    MODELS,
    Block,
    dense,
    make_cnn,
    make_esm,
    make_nested,
    make_sequential,
    make_shared,
    make_subclassed,
)  # fmt: skip

import kft
from kft import params

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
SEQUENCES = ["AAAAAA", "WWWWWW", "AWAWAW", "AAWAAW"]


@pytest.fixture(params=MODELS)
def case(request):
    make, pattern, count, learning = MODELS[request.param]
    return make(), pattern, count, learning


def ids(variables):
    return {id(variable) for variable in variables}


def learning(model):
    return [weight.path for weight in params.weights(model) if weight.trainable]


def batch(model):
    if isinstance(model, kft.Model):
        return model.encode(SEQUENCES)
    return X[:, :, None, None] * np.ones((6, 1)) if model.name == "cnn" else X


def train(model, **kwargs):
    if not model.compiled:
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=BACKEND == "jax")
    return model.fit(batch(model), np.arange(4.0)[:, None], verbose=0, **kwargs)


def coherent(model):
    """Keras, the flags, the variables and torch agree on what learns."""
    found = params.weights(model)
    assert ids(model.trainable_variables) == ids(w.variable for w in found if w.trainable)
    for path, layer in {"": model, **params.layers(model)}.items():
        own = ids(w for part in layer._flatten_layers() for w in part._trainable_variables)
        if own:
            learns = bool(own & ids(w.variable for w in found if w.trainable))
            assert (path, layer.trainable) == (path, learns)
            assert (path, params.is_frozen(layer)) == (path, not learns)
    if BACKEND == "torch":
        assert all(w.variable.value.requires_grad == w.trainable for w in found)
    return True


# Paths ----------------------------------------------------------------------------------------


def test_every_weight_and_every_layer_has_one_path(case):
    model, _, count, _ = case
    found = params.weights(model)
    assert len({w.path for w in found}) == len(found) == count
    assert sorted(ids(w.variable for w in found)) == sorted(ids(model.weights))
    layers = params.layers(model)
    inside = model._flatten_layers(include_self=False)
    inside = [x for x in inside if not isinstance(x, keras.layers.InputLayer)]
    assert ids(layers.values()) == ids(inside)
    assert len(layers) == len(ids(layers.values()))
    for weight in found:
        path, _, name = weight.path.rpartition("/")
        assert layers[path] is weight.layer
        assert name == weight.variable.name


def test_paths_do_not_count_what_the_process_made_before():
    paths = [w.path for w in params.weights(make_subclassed())]
    dense(1), Block(), keras.layers.BatchNormalization()
    assert [w.path for w in params.weights(make_subclassed())] == paths
    inside = ["scale", "count", *(f"{n}/{w}" for n in INNER for w in ("kernel", "bias"))]
    assert paths[:8] == [f"block/{w}" for w in inside]
    assert "batch_normalization/moving_mean" in paths
    assert "block/dropout" in params.layers(make_subclassed())


INNER = ("dense", "dense_1", "named")


@pytest.mark.once
def test_names_that_somebody_chose_are_kept():
    model = make_subclassed()
    model.first.inner[0].name = "dense_0"
    model.first.inner[1].name = "dense_1"
    found = [path for path in params.layers(model) if path.startswith("block/")]
    assert found == ["block/dense_0", "block/dense_1", "block/named", "block/dropout"]


@pytest.mark.once
def test_what_has_the_same_name_is_numbered():
    model = make_subclassed()
    for layer in model.first.inner[:2]:
        layer.name = "twin"
    model.first.inner[2].name = "twin_1"
    model.first.count._name = "scale"
    paths = [w.path for w in params.weights(model)]
    assert paths[:2] == ["block/scale", "block/scale_1"]
    assert list(params.layers(model))[1:4] == ["block/twin", "block/twin_2", "block/twin_1"]


def test_a_shared_layer_has_its_first_path():
    paths = list(params.layers(make_shared()))
    assert [path for path in paths if "shared" in path] == ["block/shared"]
    assert [path for path in paths if "tied" in path] == ["tied"]


@pytest.mark.once
def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="'nothing' is not built.* call it on one batch"):
        params.weights(keras.Sequential([dense(1)], name="nothing"))


# Patterns -------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("block_1", ["block_1"]),
        ("block_1/query", ["block_1/query"]),
        ("block_10.query", ["block_10/query"]),
        ("head.pooling", ["head/pooling"]),
        ("score", ["head/pooling/score"]),
        (["block_1", "query"], ["block_0/query", "block_1", *(f"block_{i}/query" for i in R)]),
        (("final_norm", "head/dense"), ["final_norm", "head/dense"]),
        (re.compile("block_1$"), ["block_1"]),
        (re.compile("^block_1"), ["block_1", "block_10"]),
        (lambda path: path.endswith("_9/key"), ["block_9/key"]),
    ]
    if (R := range(2, 11))
    else [],
)
def test_patterns(eleven, pattern, paths):
    found = params.find(eleven, pattern)
    assert [path for path, _ in found] == paths
    assert all(params.layers(eleven)[path] is layer for path, layer in found)


@pytest.fixture(scope="module")
def eleven():
    return make_esm(11)


@pytest.mark.once
@pytest.mark.parametrize("do", [params.freeze, params.unfreeze, params.train_only, params.find])
@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("blok_10", ValueError, "'blok_10' matches none of the 109 layers .*similar are block_10"),
        ("block_3/qery", ValueError, "similar are block_3/query"),
        ("block", ValueError, "matches none"),
        ("lock_1", ValueError, "matches none"),
        (["block_1", "nowhere"], ValueError, "'nowhere' matches none.*print"),
        (re.compile("^query"), ValueError, r"'\^query' matches none.*it has embedding, .* more"),
        (lambda path: False, ValueError, "matches none of the 109 layers"),
        ("query/kernel", ValueError, "names a weight, but freezing acts on layers: write 'query'"),
        ("block_1.query.bias", ValueError, "write 'block_1/query'"),
        ("bias", ValueError, "name the layer, for example 'block_0/attention_norm|query'"),
        ("", ValueError, "is empty"),
        ([], ValueError, "empty list"),
        (3, TypeError, r"received 3 \(int\)"),
        (["head", None], TypeError, "received None"),
    ],
)
def test_bad_patterns(eleven, do, pattern, error, message):
    with pytest.raises(error, match=message):
        do(eleven, pattern)
    assert len(eleven.trainable_variables) == len(eleven.weights)


@pytest.mark.once
def test_a_layer_is_no_pattern(eleven):
    with pytest.raises(TypeError, match="give its path, 'block_1/key'"):
        params.freeze(eleven, eleven.get_layer("block_1").key)
    with pytest.raises(TypeError, match="no layer of this model"):
        params.freeze(eleven, dense(1))
    with pytest.raises(TypeError, match="received None: use unfreeze"):
        params.train_only(eleven, None)


# Freezing -------------------------------------------------------------------------------------


def test_freeze_unfreeze_and_train_only(case):
    model, pattern, _, count = case
    every = learning(model)
    names = params.freeze(model, pattern)
    assert names == [path for path, _ in params.find(model, pattern)]
    frozen = [
        w for n in names for p in params.layers(model)[n]._flatten_layers() for w in p.weights
    ]
    rest = [w.path for w in params.weights(model) if id(w.variable) not in ids(frozen)]
    assert learning(model) == [path for path in every if path in rest]
    assert len(learning(model)) == count
    assert coherent(model)

    assert params.unfreeze(model, pattern) == names
    assert learning(model) == every and coherent(model)

    assert params.train_only(model, pattern) == names
    assert learning(model) == [path for path in every if path not in rest]
    assert coherent(model)

    assert params.freeze(model) == [path for path in params.layers(model) if "/" not in path]
    assert learning(model) == [] == model.trainable_variables
    assert coherent(model)
    params.unfreeze(model, pattern)
    assert learning(model) == [path for path in every if path not in rest] and coherent(model)
    params.unfreeze(model)
    assert learning(model) == every and coherent(model)


@pytest.mark.parametrize("name", ["nested", "subclassed", "shared"])
def test_what_learns_moves_and_nothing_else(name):
    make, pattern, *_ = MODELS[name]
    model = make()
    params.freeze(model, pattern)
    before = params.digests(model, trainable=None)
    train(model)
    after = params.digests(model, trainable=None)
    moved = {path for path in before if after[path] != before[path]}
    assert moved <= params.digests(model, trainable=True).keys()
    assert any(path.startswith(("out", "head")) for path in moved)


def test_plain_keras_and_kft_mix():
    model = make_esm()
    model.backbone.trainable = False
    params.unfreeze(model, "block_1")
    only = [p for p in learning(model) if not p.startswith("head")]
    assert only and all(p.startswith("block_1/") for p in only) and coherent(model)
    assert model.backbone.trainable
    assert ids(model.backbone.trainable_variables) == ids(
        w.variable for w in params.weights(model) if w.path in only
    )
    # In Keras a model that does not learn keeps all below from learning, whatever their flags.
    model.trainable = False
    model.get_layer("block_0").trainable = True
    assert learning(model) == model.trainable_variables == []
    params.unfreeze(model, "head/dense")
    assert learning(model) == ["head/dense/kernel", "head/dense/bias"] and coherent(model)

    model = make_nested()
    model.get_layer("middle").trainable = False
    params.unfreeze(model, "inner/hidden")
    assert [p for p in learning(model) if "out" not in p] == [
        "middle/inner/hidden/kernel",
        "middle/inner/hidden/bias",
    ]
    assert coherent(model)


def test_a_variable_that_sleeps_alone_is_not_woken():
    model = make_sequential()
    sleeper = model.get_layer("a").bias
    sleeper.trainable = False
    params.freeze(model, "b")
    params.freeze(model)
    params.unfreeze(model, "b")
    assert "a/bias" not in learning(model)
    model = make_sequential()
    model.get_layer("a").bias.trainable = False
    params.train_only(model, "out")
    params.unfreeze(model, "b")
    assert learning(model) == [f"{n}/{w}" for n in ("b", "out") for w in ("kernel", "bias")]


def test_layers_without_weights_bear_the_flag_that_was_asked():
    model = make_cnn()
    drop, norm = model.get_layer("drop_1"), model.get_layer("norm_1")
    assert not params.is_frozen(drop)
    params.freeze(model, ["drop_1", "norm_1"])
    assert params.is_frozen(drop) and params.is_frozen(norm)
    assert not params.is_frozen(model.get_layer("pool"))
    params.unfreeze(model, "drop_1")
    assert not params.is_frozen(drop) and params.is_frozen(norm)
    params.train_only(model, "out")
    assert params.is_frozen(drop) and params.is_frozen(model.get_layer("pool"))
    # Nor does a seed count as a weight.
    assert drop.variables and not drop.weights


def test_statistics_are_frozen_with_their_layer_only():
    model = make_cnn()
    statistics = ["norm_1/moving_mean", "norm_1/moving_variance"]
    frozen = {w.path for w in params.weights(model) if w.frozen}
    assert not frozen.intersection(statistics) and not set(learning(model)).intersection(statistics)
    params.freeze(model, "norm_1")
    assert {w.path for w in params.weights(model) if w.frozen}.issuperset(statistics)
    # Without gamma and beta nothing learns by gradient, and yet it moves.
    bare = keras.layers.BatchNormalization(center=False, scale=False)
    bare.build((None, 3))
    still = keras.Sequential([keras.Input((3,)), dense(3, trainable=False), bare])
    assert not params.is_frozen(bare) and not params.is_frozen(still)
    bare.trainable = False
    assert params.is_frozen(bare)


# Freezing what is compiled --------------------------------------------------------------------


def test_a_change_after_compile_asks_for_compile():
    model = make_nested()
    train(model)
    with pytest.warns(UserWarning, match="was compiled.*since: now frozen: middle/inner. It"):
        params.freeze(model, "inner")
    assert not model.compiled and model.optimizer is None
    assert len(model.predict_on_batch(batch(model))) == 4
    with pytest.raises(ValueError, match=r"You must call `compile\(\)`"):
        model.fit(batch(model), np.ones((4, 1)), verbose=0)
    before = params.fingerprint(model)
    train(model, epochs=2)
    assert params.fingerprint(model) == before
    with pytest.warns(UserWarning, match="since: now trainable: middle/inner/hidden. It is"):
        params.unfreeze(model, "hidden")
    first = params.digest(model.get_layer("middle").layers[0].get_layer("hidden").kernel)
    train(model)
    assert params.digest(model.get_layer("middle").layers[0].get_layer("hidden").kernel) != first


@pytest.mark.once
def test_the_warning_says_what_changed():
    model = make_cnn()
    for act, pattern, said in (
        (params.freeze, "drop_1", "now frozen: drop_1. It is"),
        (params.freeze, ["conv_1", "drop_1"], "now frozen: conv_1. It is"),
        (
            params.train_only,
            ["conv_1", "pool"],
            "now frozen: norm_1, conv_10, out; now train",
        ),
        (params.unfreeze, None, "now trainable: norm_1, conv_10, out"),
    ):
        model.compile("sgd", "mse")
        with pytest.warns(UserWarning, match=f"since: {said}") as caught:
            act(model, pattern)
        assert [w.filename for w in caught] == [__file__]


def test_no_change_leaves_it_compiled():
    model = make_nested()
    model.get_layer("middle").trainable = False
    model.compile("sgd", "mse")
    optimizer = model.optimizer
    params.freeze(model, "inner")
    params.freeze(model, ["after", "hidden"])
    params.train_only(model, "out")
    params.unfreeze(model, "out")
    assert model.compiled and model.optimizer is optimizer
    with pytest.raises(ValueError, match="matches none"):
        params.freeze(model, "nowhere")
    assert model.compiled
