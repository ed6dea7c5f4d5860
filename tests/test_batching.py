"""Batches: every record once per epoch, in the seed's order, in few shapes; bad records named."""

import random
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

import kft
from kft import batching
from kft.backbones.esm2 import PAD, encode


def proteins(n=1000, seed=0):
    """Strings of residues; lengths as of natural proteins, 3 to about 1,000."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(4.5, 0.8, n), 3, 2000).astype(int)
    return ["".join(rng.choice(list("LAGVSERTIDPKQNFYMHWC"), k)) for k in lengths]


@pytest.fixture(scope="module")
def many():
    return proteins()


def epochs(batches, n=2):
    """The order of the records in n epochs, as `fit` brings them about."""
    orders = []
    for _ in range(n):
        orders.append(np.concatenate(batches.chosen))
        batches.on_epoch_end()
    return orders


@pytest.mark.parametrize("seed", [0, None])
def test_every_record_comes_once_per_epoch_with_its_target(many, seed):
    batches = kft.batches((many, np.arange(1000)), encode, 32, seed=seed)
    for _ in range(2):
        seen = []
        for i in range(len(batches)):
            inputs, targets = batches[i]
            expected = encode([many[t] for t in targets])["token_ids"]
            np.testing.assert_array_equal(inputs["token_ids"][:, : expected.shape[1]], expected)
            assert (inputs["token_ids"][:, expected.shape[1] :] == PAD).all()
            seen += targets.tolist()
        assert sorted(seen) == list(range(1000))
        batches.on_epoch_end()


def test_the_order_follows_from_the_seed_and_the_epoch(many):
    first, second = epochs(kft.batches(many, encode, seed=3))
    again = epochs(kft.batches(many, encode, seed=3))
    np.testing.assert_array_equal([first, second], again)
    assert (first != second).mean() > 0.9
    assert (first != epochs(kft.batches(many, encode, seed=4))[0]).mean() > 0.9


def test_neighbours_change_from_epoch_to_epoch(many):
    batches = kft.batches(many * 4, encode, 16)
    pairs = []
    for _ in range(2):
        pairs.append({frozenset((a, b)) for c in batches.chosen for a in c for b in c if a < b})
        batches.on_epoch_end()
    assert len(pairs[0] & pairs[1]) < 0.2 * len(pairs[0])


@pytest.mark.parametrize("seed", [0, None])
def test_little_is_padded_and_few_shapes_occur(many, seed):
    batches = kft.batches(many, encode, 16, seed=seed)
    shapes = [batches[i]["token_ids"].shape for i in range(len(batches))]
    tokens = sum(len(protein) + 2 for protein in many)
    assert 1 - tokens / sum(b * length for b, length in shapes) < 0.3  # unsorted: 0.7
    assert {length for _, length in shapes} <= set(batching.PAD_LENGTHS)
    assert len(set(shapes)) <= 16


def test_evaluation_batches_hold_a_bounded_number_of_tokens():
    lengths = [20_000, 9_000, *[4_000] * 9, *[100] * 50]
    batches = kft.batches(["A" * n for n in lengths], encode, 32, seed=None)
    shapes = [batches[i]["token_ids"].shape for i in range(len(batches))]
    assert shapes[0] == (1, 20_002)  # nothing can be done about one this long
    assert all(b * length <= batching.MOST_TOKENS for b, length in shapes[1:])
    assert max(b for b, _ in shapes) == 32
    assert max(b for b, length in shapes if length == 4096) == 4


def test_the_first_two_batches_differ_in_length_if_any_do():
    """TensorFlow reads off them which sizes of a batch may vary."""
    inputs = ["A" * 60] * 12 + ["A" * 5] * 4
    for seed in (None, *range(10)):
        batches = kft.batches(inputs, encode, 4, seed=seed)
        for _ in range(3):
            assert batches[0]["token_ids"].shape != batches[1]["token_ids"].shape
            batches.on_epoch_end()


# In Keras ---------------------------------------------------------------------------------------

INPUTS = ["A" * 5] * 12 + ["M" * 14] * 8  # two lengths: 8 and 16 tokens
TARGETS = np.arange(20.0) / 20


def small_model(kind=kft.Model):
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    embedding = keras.layers.Embedding(33, 4, keras.initializers.RandomNormal(seed=0))
    backbone = keras.Model({"token_ids": token_ids}, embedding(token_ids))
    head = kft.heads.Regression()
    if kind is kft.Model:
        model = kft.Model(backbone, head)
    else:
        model = keras.Model(backbone.input, head(backbone.output))
    model.compile(keras.optimizers.SGD(0.3), "mean_squared_error")
    return model


def test_fit_is_reproducible_and_takes_the_order_of_the_seed():
    losses, orders = [], []
    for state in (1, 2):
        random.seed(state)  # Keras would shuffle with it
        served = []

        def spy(sequences, *args, served=served, **kwargs):
            served.append(len(sequences[0]))
            return encode(sequences, *args, **kwargs)

        batches = kft.batches((INPUTS, TARGETS), spy, 4, seed=5)
        served.clear()
        history = small_model().fit(batches, epochs=3, verbose=0)
        losses.append(history.history["loss"])
        orders.append(served[-15:])
    assert losses[0] == losses[1]
    assert losses[0][-1] < 0.8 * losses[0][0]
    # Keras ends an epoch before it begins the first.
    planned = epochs(kft.batches(INPUTS, encode, 4, seed=5), 4)[1:]
    assert orders[0] == orders[1] == [len(INPUTS[i]) for order in planned for i in order[::4]]


def test_a_plain_keras_model_takes_them_too():
    model = small_model(keras.Model)
    valid = kft.batches((INPUTS, TARGETS), encode, 4, seed=None)
    history = model.fit(kft.batches((INPUTS, TARGETS), encode, 4), validation_data=valid, verbose=0)
    assert model.evaluate(valid, verbose=0) == pytest.approx(history.history["val_loss"][0])


@pytest.mark.parametrize("seed", [0, None])
def test_predict_of_a_kft_model_answers_in_the_order_of_the_records(seed):
    model = small_model()
    model.head.dense.kernel.assign(np.ones((4, 1)))
    mixed = [x for pair in zip(INPUTS[:8], INPUTS[12:], strict=True) for x in pair]
    batches = kft.batches(mixed, encode, 4, seed=seed)
    answers = model.predict(batches, verbose=0)
    batches.on_epoch_end()
    alone = [model.predict_on_batch(encode([x], pad_lengths=batching.PAD_LENGTHS)) for x in mixed]
    np.testing.assert_allclose(answers, np.concatenate(alone), atol=1e-6)
    assert np.ptp(answers) > 1e-3
    assert len(model.predict(batches, steps=2, verbose=0)) == 8


# What may go in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        pd.Series(["MKT", "ga", "WW"], index=[7, 3, 0]),
        np.array(["MKT", "ga", "WW"]),
        np.array(["MKT", "ga", "WW"], dtype=object),
        ("MKT", "ga", "WW"),
    ],
    ids=["series", "array", "object array", "tuple"],
)
@pytest.mark.parametrize(
    "targets",
    [
        pd.Series([0.5, 1.5, 2.5], index=[9, 0, 4]),
        (0.5, 1.5, 2.5),
        np.array([0.5, 1.5, 2.5], dtype=object),
        pd.array([0.5, 1.5, 2.5], dtype="Float64"),
    ],
    ids=["series", "tuple", "object array", "nullable"],
)
def test_inputs_and_targets_of_many_kinds(inputs, targets):
    (encoded, given), *more = kft.batches((inputs, targets), encode, seed=None)
    assert not more
    np.testing.assert_array_equal(
        encoded["token_ids"], encode(["MKT", "GA", "WW"], pad_lengths=[8])["token_ids"]
    )
    np.testing.assert_array_equal(given, np.array([0.5, 1.5, 2.5], "float32"))
    assert given.dtype == "float32"


def test_a_split_and_classes_and_arrays():
    split = SimpleNamespace(inputs=["MKT", "GA"], targets=np.array([True, False]))
    assert kft.batches(split, encode, seed=None)[0][1].dtype == "int32"
    images = np.arange(48.0, dtype="float32").reshape(4, 2, 2, 3)
    batches = kft.batches((images, [0, 1, 2, 3]), lambda x: {"images": np.stack(x)}, 3, seed=1)
    for i in range(2):
        inputs, targets = batches[i]
        np.testing.assert_array_equal(inputs["images"], images[targets])


def test_max_length_warns_once_with_what_it_cuts():
    inputs = ["MKTAYI", "GA", "M<mask>TA", *["W" * 9] * 5000]
    with pytest.warns(UserWarning) as caught:
        batches = kft.batches(inputs, encode, max_length=4, seed=None)
    assert [str(w.message) for w in caught] == [
        "5001 of 5003 inputs were longer than max_length=4: 25002 residues were cut from their "
        "ends."
    ]
    assert caught[0].filename == __file__
    assert batches[0]["token_ids"].shape == (32, 8)  # and no further warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kft.batches(inputs[1:3], encode, max_length=4)


BAD = {
    "empty": (([], []), ValueError, "records is empty"),
    "bare string": ("MKTAYI", TypeError, r"one string, 'MKTAYI': write \[string\]"),
    "two strings": (("MKTAYI", "GSS"), TypeError, r"one string, 'MKTAYI': write \[string\]"),
    "lengths": ((["MK", "GS", "A"], [1.0, 2.0]), ValueError, "3 inputs and 2 targets"),
    "one number": ((["MK"], 1.0), ValueError, "1 inputs and 1.0 targets"),
    "NaN": ((["MK", "GS"], [1.0, np.nan]), ValueError, r"1 of 2 .* targets\[1\]"),
    "infinite": ((["MK", "GS"], [np.inf, 1]), ValueError, r"1 of 2 .* targets\[0\]"),
    "None target": ((["MK", "GS"], [1, None]), ValueError, r"1 of 2 .* targets\[1\]"),
    "pandas NA": (
        (["MK", "GS"], pd.array([True, None], dtype="boolean")),
        ValueError,
        r"1 of 2 .* targets\[1\]",
    ),
    "two per input": ((["MK", "GS"], [[1, 2], [3, np.nan]]), ValueError, r"targets\[1\]"),
    "labels": ((["MK", "GS"], ["yes", "no"]), TypeError, "targets must be numbers.*return_inverse"),
    "objects": ((["MK", "GS"], np.array(["yes", 1], dtype=object)), TypeError, "must be numbers"),
    "None first": (([None, "GS"], [1, 2]), TypeError, r"inputs\[0\] must be a string.*None"),
    "None later": ((["GS", None], [1, 2]), TypeError, r"inputs\[1\] must be a string.*None"),
    "NaN input": (([np.nan, "GS"], [1, 2]), TypeError, r"inputs\[0\] must be a string.*nan"),
    "digit": ((["GS", "MK1A"], [1, 2]), ValueError, r"inputs\[1\] has '1' at position 3"),
    "J": ((["J", "MKA"], [1, 2]), ValueError, r"inputs\[0\] has 'J' at position 1"),
    "stop": ((["GS", "MKA*"], [1, 2]), ValueError, r"inputs\[1\] has '\*' at position 4"),
    "no residue": ((["GS", ""], [1, 2]), ValueError, r"inputs\[1\] is empty"),
}


@pytest.mark.parametrize(("records", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_records_are_refused_at_once_and_named(records, error, message):
    with pytest.raises(error, match=message):
        kft.batches(records, encode)


def test_bad_sizes():
    with pytest.raises(ValueError, match="batch_size must be at least 1, received 0"):
        kft.batches(["MK"], encode, batch_size=0)
    with pytest.raises(ValueError, match="max_length must be at least 1 residue, received 0"):
        kft.batches(["MK"], encode, max_length=0)
    with pytest.raises(ValueError, match="P12345 has '7' at position 2"):
        kft.batches(["M7"], encode, names=["P12345"])
