"""A pattern means the same everywhere: `kft.fingerprint` takes what `kft.freeze` takes."""

import re

import keras
import numpy as np
import pytest
from models import esm2

import kft
from kft import params

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def model():
    model = kft.Model(esm2(2), kft.heads.Classification(2))
    kft.train_only(model, ["head", "block_1/query"])
    return model


PATTERNS = [
    "head", ["head"], ("head", "block_0"), ["query"], re.compile("^block"), None,
    lambda path: path.endswith("norm"), "block_1", {"head", "embedding"},
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_weights_are_those_that_freeze_would_freeze(model, pattern):
    other = kft.Model(esm2(2), kft.heads.Classification(2))
    kft.freeze(other, pattern)
    frozen = [w.path for w in params.weights(other) if w.frozen]
    assert list(params.digests(model, pattern)) == frozen
    asleep = [w.path for w in params.weights(model) if w.frozen and w.path in frozen]
    assert list(params.digests(model, pattern, trainable=False)) == asleep
    awake = list(params.digests(model, pattern, trainable=True))
    assert sorted(awake + asleep) == sorted(frozen)


def test_a_fingerprint_of_the_head_is_of_the_head():
    model = kft.Model(esm2(), kft.heads.Classification(2))
    of_head, of_all = kft.fingerprint(model, ["head"]), kft.fingerprint(model, None)
    assert kft.fingerprint(model, "head") == of_head != of_all
    kernel = model.backbone.stages[1].query.kernel
    kernel.assign(np.ones(kernel.shape))
    assert kft.fingerprint(model, ["head"]) == of_head
    assert kft.fingerprint(model, None) != of_all
    model.head.dense.bias.assign([1.0, 0.0])
    assert kft.fingerprint(model, ["head"]) != of_head


def test_without_a_pattern_it_is_as_documented(model):
    learns = [w.path for w in params.weights(model) if not w.frozen]
    frozen = [w.path for w in params.weights(model) if w.frozen]
    assert list(params.digests(model)) == list(params.digests(model, trainable=False)) == frozen
    assert list(params.digests(model, False)) == frozen  # as the second argument once was
    assert list(params.digests(model, True)) == learns
    assert list(params.digests(model, trainable=None)) == [w.path for w in params.weights(model)]


@pytest.mark.parametrize(
    "wrong, error, said",
    [
        ({"trainable": ["head"]}, TypeError, r"True, False or None, received \['h"),
        ({"trainable": "head"}, TypeError, "name layers in pattern"),
        ({"pattern": True, "trainable": False}, TypeError, "give one of the two"),
        ({"pattern": "haed"}, ValueError, "similar are head"),
        ({"pattern": []}, ValueError, "an empty list"),
        ({"pattern": 3}, TypeError, "pattern must be a string"),
        ({"pattern": [True]}, TypeError, "pattern must be a string"),
        ({"pattern": "head/dense/kernel"}, ValueError, "names a weight"),
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(model, wrong, error, said):
    with pytest.raises(error, match=said):
        kft.fingerprint(model, **wrong)


def test_a_layer_is_no_pattern(model):
    with pytest.raises(TypeError, match="give its path, 'head'"):
        kft.fingerprint(model, model.head)
    with pytest.raises(TypeError, match="it is no layer of this model"):
        kft.fingerprint(model, keras.layers.Dense(1))


@pytest.mark.parametrize("wrong", [["query"], "query", 4, ("query", 4)], ids=str)
def test_values_by_pattern_are_a_dict(wrong):
    model = kft.Model(esm2(3), kft.heads.Classification(2))
    for option in ("ranks", "alphas"):
        with pytest.raises(TypeError, match=rf"{option} must be a dict \{{pattern: value\}}"):
            kft.add_lora(model, **{option: wrong})
    for name in ("last_blocks", "gradual_unfreezing", "full"):
        with pytest.raises(TypeError, match="learning_rate_multipliers must be a dict"):
            kft.strategies.get(name, learning_rate_multipliers=wrong).phases(model)
