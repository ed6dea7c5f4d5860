"""What is marked by hand, `layer.trainable = False`, is what learns, however it is trained."""

import copy
import warnings

import keras
import numpy as np
import pytest
from models import esm2, in_turn, values

import kft
from kft import params
from kft.training import strategies
from kft.training.strategies import AsMarked

pytestmark = pytest.mark.usefixtures("as_written")

SEQUENCES, TARGETS = ["MKTAYI", "GSSWCA", "ACDEFG", "HIKLMN"], [0.0, 1.0, 0.5, 0.2]
RECORDS = SEQUENCES, TARGETS


def make(blocks=1):
    model = kft.Model(esm2(blocks), kft.heads.Regression())
    model.head.dense.kernel.assign(np.ones((16, 1)))  # or nothing before it would get a gradient
    return model


def plain():
    layers = [keras.layers.Dense(4, name=name) for name in ("first", "second")]
    return keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1, name="out")])


def moved(before, after):
    return {path for path in before if not np.array_equal(before[path], after[path])}


def marks(model):
    return {w.path: w.frozen for w in params.weights(model)}


def with_keras(model):
    model.compile(keras.optimizers.SGD(0.1), "mean_squared_error")
    model.fit(kft.batches(RECORDS, model.encode, 2), epochs=1, verbose=0)


def with_kft(model):
    kft.fit(model, RECORDS, epochs=1, batch_size=2, verbose=0)


def with_frontier(model):
    model.compile(keras.optimizers.SGD(0.1), "mean_squared_error")
    kft.fit_frontier(model, RECORDS, epochs=1, batch_size=2, verbose=0)


HANDS = {
    "all but the head": lambda model: model.layers[:-1],
    "the backbone": lambda model: [model.backbone],
    "the embedding and a part of block_0": lambda model: [
        model.backbone.stages[0], model.backbone.stages[1].query
    ],
}  # fmt: skip


WAYS = [(train, hand) for train in (with_keras, with_kft, with_frontier) for hand in HANDS]


@pytest.mark.parametrize(("train", "hand"), in_turn(WAYS, everywhere=WAYS[5:6]))
def test_exactly_what_is_marked_learns(train, hand):
    model = make()
    for layer in HANDS[hand](model):
        layer.trainable = False
    frozen, marked = kft.fingerprint(model, trainable=False), marks(model)
    learning = {w.path for w in params.weights(model) if w.trainable}
    before = values(model)
    train(model)
    assert kft.fingerprint(model, trainable=False) == frozen
    # A bias of keys changes nothing that a softmax answers.
    assert moved(before, values(model)) >= {path for path in learning if "key/bias" not in path}
    assert moved(before, values(model)) <= learning
    assert marks(model) == marked


def test_the_style_of_plain_keras_models():
    model = plain()
    for layer in model.layers[:-1]:
        layer.trainable = False
    before = values(model)
    records = list(np.ones((8, 3), "float32")), np.ones(8)
    done = kft.fit(model, records, epochs=2, loss="mean_squared_error", verbose=0)
    assert moved(before, values(model)) == {"out/kernel", "out/bias"}
    assert done.strategy == AsMarked(2, 1e-3, 0.1)


def test_what_was_compiled_before_is_trained_as_it_is_marked_now():
    model = make()
    with_keras(model)
    model.backbone.trainable = False
    with pytest.raises(RuntimeError, match="call compile again"):
        kft.fit_frontier(model, RECORDS, verbose=0)
    before = values(model)
    with_kft(model)
    assert {path.partition("/")[0] for path in moved(before, values(model))} == {"head"}


def test_it_says_what_learns_for_how_long_and_how_fast(capsys):
    model = make()
    for layer in model.layers[:-1]:
        layer.trainable = False
    done = kft.fit(model, RECORDS, epochs=1, verbose=2)
    count = len(params.weights(model))
    out = capsys.readouterr().out
    assert f"Training the layers that are marked trainable: 2 of {count} weights, in head;" in out
    assert "for 1 epoch, with a learning rate of at most 0.001." in out
    assert done.phases[0].name == "as marked" and done.phases[0].trainable == 17


@pytest.mark.in_turn("torch")
def test_a_second_plain_fit_trains_what_the_strategy_left_and_says_so(capsys):
    model = make()
    kft.fit(model, RECORDS, "head_only", 1, verbose=0)
    before = values(model)
    done = kft.fit(model, RECORDS, epochs=1, verbose=2)
    out = capsys.readouterr().out
    assert moved(before, values(model)) == {"head/dense/kernel", "head/dense/bias"}
    assert "weights, in head;" in out and "Some layers were frozen by kft" in out
    assert isinstance(done.strategy, AsMarked)


@pytest.mark.once
def test_epochs_and_rate_are_those_of_the_strategy_that_trains_as_much():
    def told(model):
        strategy, name = AsMarked().filled(model)
        own = strategies.get(name)
        assert (strategy.epochs, strategy.learning_rate) == (own.epochs, own.learning_rate)
        return name

    model = make(2)
    assert told(model) == "full"
    kft.freeze(model, "embedding")
    assert told(model) == "last_blocks"
    kft.train_only(model, "head")
    assert told(model) == "head_only"
    kft.add_lora(model, rank=2)
    assert told(model) == "lora"
    stack = plain()
    stack.layers[0].trainable = False
    assert told(stack) == "last_blocks"
    given, name = AsMarked(3, 0.5).filled(stack)
    assert (given.epochs, given.learning_rate, name) == (3, 0.5, "last_blocks")


@pytest.mark.once
def test_nothing_to_learn_is_an_error_before_anything_is_done():
    model = make()
    model.trainable = False
    with pytest.raises(ValueError, match="No weight of model is marked trainable.*head_only"):
        kft.fit(model, RECORDS, verbose=0)
    with pytest.raises(ValueError, match="learning_rate must be a number above 0, received -1"):
        kft.fit(make(), RECORDS, learning_rate=-1.0)


# Strategies over marks made by hand ---------------------------------------------------------------

OVERRIDDEN = {
    "full": "now trainable: embedding, block_0, final_norm",
    "last_blocks": "now trainable: block_1, final_norm",
}


@pytest.mark.parametrize("name", OVERRIDDEN)
@pytest.mark.in_turn("torch")
def test_a_strategy_that_goes_over_marks_made_by_hand_says_so(name):
    model = make(1 if name == "full" else 2)
    model.backbone.trainable = False
    strategy = strategies.get(name, **({"blocks": 1} if name == "last_blocks" else {}))
    with pytest.warns(UserWarning, match=rf"'{name}' .*by hand: {OVERRIDDEN[name]}\."):
        kft.fit(model, RECORDS, strategy, 1, verbose=0)
    kft.fit(model, RECORDS, "head_only", 1, verbose=0)  # those were kft's own marks


def test_what_was_marked_to_learn_and_is_frozen_is_said_too():
    model = make(2)
    kft.train_only(model, ["block_1", "head"])
    with pytest.warns(UserWarning, match="by hand: now frozen: block_1"):
        kft.fit(model, RECORDS, "head_only", 1, verbose=0)


@pytest.mark.once
def test_marks_of_kft_itself_and_marks_that_agree_are_not_spoken_of():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was compiled, and its trainable layers")
        model = make(2)
        for name in ("linear_probe", "head_only", "gradual_unfreezing", "last_blocks", "full"):
            epochs = None if name == "linear_probe" else 1
            strategy = strategies.get(name, **({"blocks": 1} if name == "last_blocks" else {}))
            kft.fit(model, RECORDS, strategy, epochs, verbose=0)
        unfreezing = strategies.get("gradual_unfreezing", epochs=2)
        unfreezing.phases(model)[0].mark(model)
        kft.fit(model, RECORDS, unfreezing, verbose=0)
        kft.freeze(model, ["embedding", "block_0"])
        kft.unfreeze(model)  # as it was made: nothing is chosen by that
        kft.fit(model, RECORDS, "head_only", 1, verbose=0)
        kft.unfreeze(model)
        model.backbone.trainable = False
        kft.fit(model, RECORDS, "head_only", 1, verbose=0)  # the same marks
        kft.add_lora(model, rank=2)
        kft.fit(model, RECORDS, strategies.get("lora", rank=2), 1, verbose=0)
        kft.lora.remove(model)
        kft.fit(model, RECORDS, "full", 1, verbose=0)


@pytest.mark.once
def test_who_has_marked_it():
    model = make()
    assert params.user_marks(model) == {}
    model.backbone.trainable = False
    assert set(params.user_marks(model).values()) == {True}
    params.record_marks(model)
    assert params.user_marks(model) == {}
    kft.unfreeze(model, "final_norm")
    assert params.user_marks(model) == {"final_norm/gamma": False, "final_norm/beta": False}
    kft.freeze(model, "final_norm")  # asked for, though kft had it so
    assert set(params.user_marks(model)) == {"final_norm/gamma", "final_norm/beta"}
    kft.unfreeze(model)
    assert params.user_marks(model) == {}


def reloaded(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


COPIES = {
    "file": reloaded,
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "clone": lambda model, _: keras.models.clone_model(model),
    "backbone": lambda model, _: copy.deepcopy(model.backbone),
}


@pytest.mark.once
@pytest.mark.parametrize("how", COPIES)
def test_marks_of_kft_itself_are_not_spoken_of_in_a_copy(how, tmp_path):
    model = make(2)
    kft.fit(model, RECORDS, strategies.get("last_blocks", blocks=1), 1, verbose=0)
    other = COPIES[how](model, tmp_path)
    frozen = {path for path, asleep in marks(other).items() if asleep}
    assert any("block_0" in path for path in frozen)
    assert params.user_marks(other) == {}
    if how in ("file", "deepcopy"):  # again, and a strategy that wakes what was frozen is silent
        other = COPIES[how](other, tmp_path)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*by hand")
            kft.fit(other, RECORDS, "full", 1, verbose=0)
    # What a user has frozen, in the copy or before it was made, is.
    with pytest.warns(UserWarning, match="was compiled"):
        kft.freeze(model, "block_1/query")
    again = COPIES[how](model, tmp_path)
    marked = {path for path, asleep in params.user_marks(again).items() if asleep}
    assert any("block_1/query" in path for path in marked)


# Others that train or look ------------------------------------------------------------------------


@pytest.mark.once
def test_what_only_looks_leaves_marks_as_they_are():
    model = make()
    model.backbone.stages[0].trainable = False
    before, hand = marks(model), params.user_marks(model)
    batches = kft.batches(RECORDS, model.encode, 2)
    kft.find_learning_rate(model, batches, steps=10)
    kft.predict(model, SEQUENCES)
    kft.embed(model, SEQUENCES)
    kft.split(model)
    kft.fingerprint(model)
    kft.parameters(model)
    assert marks(model) == before and params.user_marks(model) == hand
    other = kft.replace_head(model, kft.heads.Classification(2))
    assert {path for path, frozen in marks(other).items() if frozen} == {
        path for path, frozen in before.items() if frozen
    }


@pytest.mark.once
def test_compare_says_that_marks_of_the_backbone_do_not_count(tmp_path, capsys):
    backbone = esm2()
    backbone.stages[0].trainable = False
    split = kft.data.Split(SEQUENCES * 3, np.array(TARGETS * 3))
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    data = kft.data.Dataset("toy", "regression", split, split, split, **about)
    options = {"seeds": 1, "controls": False, "resamples": 20, "out": tmp_path}
    kft.compare(backbone, data, ["linear_probe"], **options)
    assert "1 of 19 weights of the backbone are frozen by hand" in capsys.readouterr().out
    assert backbone.stages[0].trainable is False
    for one in (None, AsMarked()):
        with pytest.raises(ValueError, match="strategies must choose the trainable layers"):
            kft.compare(backbone, data, {"mine": one}, **options)
