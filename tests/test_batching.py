"""Batches: every record once per epoch, in the seed's order, in few shapes; bad records named."""

import random
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from parity import assert_rounds_alike

import kft
from kft.backbones.esm2.model import PAD, encode
from kft.training import batching, lengths


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
        orders.append(np.concatenate(batches.record_indices))
        batches.on_epoch_end()
    return orders


@pytest.mark.once
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


@pytest.mark.once
def test_the_order_follows_from_the_seed_and_the_epoch(many):
    first, second = epochs(kft.batches(many, encode, seed=3))
    again = epochs(kft.batches(many, encode, seed=3))
    np.testing.assert_array_equal([first, second], again)
    assert (first != second).mean() > 0.9
    assert (first != epochs(kft.batches(many, encode, seed=4))[0]).mean() > 0.9


@pytest.mark.once
def test_neighbours_change_from_epoch_to_epoch(many):
    batches = kft.batches(many * 4, encode, 16)
    pairs = []
    for _ in range(2):
        pairs.append(
            {frozenset((a, b)) for c in batches.record_indices for a in c for b in c if a < b}
        )
        batches.on_epoch_end()
    assert len(pairs[0] & pairs[1]) < 0.2 * len(pairs[0])


@pytest.fixture
def compiled(monkeypatch):
    """Batches as on a backend that compiles."""
    monkeypatch.setattr(lengths, "compiles_each_length", lambda: True)


@pytest.mark.once
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("seed", [0, None])
def test_little_is_padded_and_few_shapes_occur(many, seed):
    batches = kft.batches(many, encode, 16, seed=seed)
    shapes = [batches[i]["token_ids"].shape for i in range(len(batches))]
    tokens = sum(len(protein) + 2 for protein in many)
    assert 1 - tokens / sum(b * length for b, length in shapes) < 0.3  # unsorted: 0.7
    assert {length for _, length in shapes} <= set(batches.pad_lengths)
    assert len(set(shapes)) <= 16


def test_only_what_is_compiled_is_padded_to_few_lengths(many):
    batches = kft.batches(many, encode, 16)
    for i, indices in enumerate(batches.record_indices):
        tokens = max(len(many[record]) for record in indices) + 2
        if keras.backend.backend() == "jax":
            tokens = min(n for n in batches.pad_lengths if n >= tokens)
        assert batches[i]["token_ids"].shape == (len(indices), tokens)


@pytest.mark.once
@pytest.mark.usefixtures("compiled")
def test_evaluation_batches_hold_a_bounded_number_of_tokens():
    sizes = [20_000, 9_000, *[500] * 9, *[50] * 50]
    batches = kft.batches(["A" * n for n in sizes], encode, 32, seed=None)
    shapes = [batches[i]["token_ids"].shape for i in range(len(batches))]
    assert [b for b, _ in shapes[:2]] == [1, 1]  # nothing can be done about one this long
    assert batching.most_tokens() == 2048  # of a processor
    assert all(b * length <= batching.most_tokens() for b, length in shapes[2:])
    assert max(b for b, _ in shapes) == 32
    assert max(b for b, length in shapes if length == 512) == 4


@pytest.mark.once
def test_the_first_two_batches_differ_in_length_if_any_do(monkeypatch):
    """TensorFlow reads off them which sizes of a batch may vary."""
    monkeypatch.setattr(lengths, "compiles_each_length", lambda: False)
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


@pytest.mark.in_turn("torch")
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


@pytest.mark.usefixtures("as_written")
def test_a_plain_keras_model_takes_them_too():
    model = small_model(keras.Model)
    valid = kft.batches((INPUTS, TARGETS), encode, 4, seed=None)
    history = model.fit(kft.batches((INPUTS, TARGETS), encode, 4), validation_data=valid, verbose=0)
    assert model.evaluate(valid, verbose=0) == pytest.approx(history.history["val_loss"][0])


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("seed", [0, None])
def test_predict_of_a_kft_model_answers_in_the_order_of_the_records(seed):
    model = small_model()
    model.head.dense.kernel.assign(np.ones((4, 1)))
    mixed = [x for pair in zip(INPUTS[:8], INPUTS[12:], strict=True) for x in pair]
    batches = kft.batches(mixed, encode, 4, seed=seed)
    answers = model.predict(batches, verbose=0)
    batches.on_epoch_end()
    alone = [model.predict_on_batch(encode([x], pad_lengths=batches.pad_lengths)) for x in mixed]
    assert_rounds_alike(answers, np.concatenate(alone))
    assert np.ptp(answers) > 1e-3
    assert len(model.predict(batches, steps=2, verbose=0)) == 8


# What may go in ---------------------------------------------------------------------------------


@pytest.mark.once
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
@pytest.mark.filterwarnings("ignore:1 of 3 sequences held lower-case")
def test_inputs_and_targets_of_many_kinds(inputs, targets):
    batches = kft.batches((inputs, targets), encode, seed=None)
    (encoded, given), *more = batches
    assert not more
    np.testing.assert_array_equal(
        encoded["token_ids"],
        encode(["MKT", "GA", "WW"], pad_lengths=batches.pad_lengths)["token_ids"],
    )
    np.testing.assert_array_equal(given, np.array([0.5, 1.5, 2.5], "float32"))
    assert given.dtype == "float32"


@pytest.mark.once
def test_a_split_and_classes_and_arrays():
    split = SimpleNamespace(inputs=["MKT", "GA"], targets=np.array([True, False]))
    assert kft.batches(split, encode, seed=None)[0][1].dtype == "int32"
    images = np.arange(48.0, dtype="float32").reshape(4, 2, 2, 3)
    batches = kft.batches((images, [0, 1, 2, 3]), lambda x: {"images": np.stack(x)}, 3, seed=1)
    for i in range(2):
        inputs, targets = batches[i]
        np.testing.assert_array_equal(inputs["images"], images[targets])


@pytest.mark.once
def test_max_length_warns_once_with_what_it_cuts():
    inputs = ["MKTAYI", "GA", "M<mask>TA", *["W" * 9] * 5000]
    with pytest.warns(UserWarning) as caught:
        batches = kft.batches(inputs, encode, max_length=4, seed=None)
    assert [str(w.message) for w in caught] == [
        "5001 of 5003 inputs were longer than max_length=4: 25,002 residues cut from their ends."
    ]
    assert caught[0].filename == __file__
    assert batches[0]["token_ids"].shape == (32, batches.padded_length(6))  # no further warning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kft.batches(inputs[1:3], encode, max_length=4)


BAD = {
    "empty": (([], []), ValueError, "records is empty"),
    "bare string": ("MKTAYI", TypeError, r"one string, 'MKTAYI': write \[input\]"),
    "two strings": (("MKTAYI", "GSS"), TypeError, r"one string, 'MKTAYI': write \[input\]"),
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
    "stop": ((["GS", "MKA*C"], [1, 2]), ValueError, r"inputs\[1\] has '\*' at position 4"),
    "no residue": ((["GS", ""], [1, 2]), ValueError, r"inputs\[1\] is empty"),
    "ragged": ((["MK", "GSA"], [[1, 2], [1, 2, 3]]), ValueError, "lists of different lengths"),
}


@pytest.mark.once
@pytest.mark.parametrize(("records", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_records_are_refused_at_once_and_named(records, error, message):
    with pytest.raises(error, match=message):
        kft.batches(records, encode)


@pytest.mark.once
def test_several_targets_per_record_stay_one_array():
    for targets in ([[1.0, 2.0], [3.0, 4.0]], np.array([[1.0, 2.0], [3.0, 4.0]])):
        (_, given), *more = kft.batches((["MK", "GS"], targets), encode, seed=None)
        assert not more
        np.testing.assert_array_equal(given, [[1.0, 2.0], [3.0, 4.0]])


# Records that are arrays ------------------------------------------------------------------------


@pytest.mark.once
def test_arrays_are_stacked_without_an_encoder():
    images = np.arange(48.0).reshape(4, 2, 2, 3)
    for given, dtype in ((images.astype("float32"), "float32"), (images, "float32"),
                         (images.astype("uint8"), "uint8")):  # fmt: skip
        batches = kft.batches((given, [0, 1, 2, 3]), None, 3, seed=1)
        assert (batches.lengths, batches.padded(0)) == (None, None)
        for i in range(2):
            inputs, targets = batches[i]
            np.testing.assert_array_equal(inputs, images[targets])
            assert inputs.dtype == dtype
    parts = [{"a": image, "b": k} for k, image in enumerate(images)]
    inputs, targets = kft.batches((parts, [0, 1, 2, 3]), None, 4, seed=1)[0]
    np.testing.assert_array_equal(inputs["a"], images[targets])
    np.testing.assert_array_equal(inputs["b"], targets)


@pytest.mark.usefixtures("as_written")
def test_only_sequences_have_residues():
    batches = kft.batches([np.zeros(3), np.ones(3)], None, batch_size=2)
    with pytest.raises(ValueError, match="record 1 is not a sequence"):
        batches.residues(1)
    batches = kft.batches((["MKT"], [np.zeros(3)]), encode)
    with pytest.raises(ValueError, match=r"length must be the tokens .* received None"):
        batches.targets_of(0, None)


@pytest.mark.in_turn("jax")
def test_a_functional_keras_model_is_served():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3)).astype("float32")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, kft.heads.Regression()(inputs))
    model.compile(keras.optimizers.Adam(0.1), model.layers[-1].make_loss())
    batches = kft.batches((x, x.sum(axis=1)), None, 8)
    history = model.fit(batches, epochs=12, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < 0.1 * history[0]


BAD_ARRAYS = {
    "strings": (["MKT", "GA"], TypeError, r"inputs\[0\] must be an array .* received 'MKT'"),
    "None": ([np.ones(2), None], TypeError, r"inputs\[1\] must be an array .* received NoneType"),
    "shapes": (
        [np.ones(2), np.ones(3)],
        ValueError,
        r"inputs\[1\] has shape \(3,\), and inputs\[0",
    ),
    "keys": ([{"a": np.ones(2)}, {"b": np.ones(2)}], ValueError, r"inputs\[1\] has shape {'b'"),
}


@pytest.mark.once
@pytest.mark.parametrize(("inputs", "error", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_cannot_be_stacked(inputs, error, message):
    with pytest.raises(error, match=message):
        kft.batches(inputs, None)


# Targets of residues ----------------------------------------------------------------------------

CHAINS = ["MKTAY", "GA", "AC<mask>D", "WWWWWWWWWWWW"]  # of 5, 2, 4 and 12 residues
SIZES = (5, 2, 4, 12)


def chains(width=(), dtype="int32", seed=0):
    """Records with targets above 0 at every residue, some of them masked."""
    rng = np.random.default_rng(seed)
    return SimpleNamespace(
        inputs=CHAINS,
        targets=[rng.integers(1, 9, (n, *width)).astype(dtype) for n in SIZES],
        masks=[rng.uniform(size=n) < 0.6 for n in SIZES],
    )


@pytest.mark.once
@pytest.mark.parametrize("max_length", [None, 4])
@pytest.mark.parametrize("dtype", ["int64", "float64"])
@pytest.mark.parametrize("width", [(), (2,)])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.filterwarnings("ignore:.*longer than max_length")
def test_targets_stand_at_the_tokens_of_their_residues(max_length, dtype, width, masked):
    records = chains(width, dtype)
    if not masked:
        records.masks = None
    batches = kft.batches(records, encode, 2, seed=3, max_length=max_length)
    for i, chosen in enumerate(batches.record_indices):
        inputs, targets, weights = batches[i]
        length = inputs["token_ids"].shape[1]
        assert batches.padded(i) == length
        assert (targets.shape, weights.shape) == ((2, length, *width), (2, length))
        assert targets.dtype == {"int64": "int32", "float64": "float32"}[dtype]
        assert weights.dtype == "float32"
        for row, k in enumerate(chosen):
            n = min(SIZES[k], max_length or 99)
            mask = (records.masks or [np.ones(s, bool) for s in SIZES])[k][:n]
            expected = np.zeros(length)
            expected[1 : n + 1] = mask
            np.testing.assert_array_equal(weights[row], expected)
            at = records.targets[k][:n]
            np.testing.assert_array_equal(targets[row, 1 : n + 1][mask], at[mask])
            assert not targets[row][expected == 0].any()


@pytest.mark.once
def test_targets_of_residues_in_a_pair_and_as_objects():
    records = chains()
    rows = np.empty(4, dtype=object)
    rows[:] = records.targets
    for given in (records.targets, tuple(records.targets), rows, pd.Series(records.targets)):
        inputs, targets, weights = kft.batches((CHAINS, given), encode, seed=None)[0]
        assert weights.sum() == sum(SIZES) == (inputs["token_ids"] > 3).sum()
        assert targets.sum() == sum(map(np.sum, records.targets))


@pytest.mark.once
def test_masked_residues_may_lack_a_target():
    records = chains(dtype="float64")
    for row, mask in zip(records.targets, records.masks, strict=True):
        row[~mask] = np.nan
    _, targets, weights = kft.batches(records, encode, seed=None)[0]
    assert np.isfinite(targets).all() and 0 < weights.sum() < sum(SIZES)


def broken(**changes):
    records = chains(dtype="float64")
    for name, (index, value) in changes.items():
        getattr(records, name)[index] = value
    return records


HOLE = np.array([1.0, np.nan])
BAD_RESIDUES = {
    "too few": (broken(targets=(1, np.ones(1))), r"inputs\[1\] has 2 residues, targets of shape"),
    "letters": (broken(targets=(2, np.ones(9))), r"inputs\[2\] has 4 residues.* \(9,\)"),
    "missing": (broken(targets=(1, HOLE), masks=(1, HOLE > 9)), None),
    "NaN": (broken(targets=(1, HOLE), masks=(1, HOLE < HOLE + 1)), None),
    "counted NaN": (
        broken(targets=(1, HOLE), masks=(1, np.ones(2, bool))),
        r"inputs\[1\] at residue 2 is missing",
    ),
    "None": (
        broken(targets=(1, np.array([None, 1], object)), masks=(1, np.ones(2, bool))),
        r"inputs\[1\] at residue 1 is missing",
    ),
    "one number": (
        broken(targets=(2, 1.0)),
        r"mixes arrays with single values, targets\[2\] is 1.0",
    ),
    "widths": (broken(targets=(3, np.ones((12, 2)))), r"inputs\[3\] .*\(12, 2\).*expected \(12,\)"),
    "short mask": (
        broken(masks=(0, np.ones(4, bool))),
        r"inputs\[0\] has 5 residues.*mask of shape",
    ),
    "count": ((CHAINS, [np.ones(5)]), "4 inputs and 1 targets"),
    "arrays": ((list(np.ones((2, 3))), [np.ones(3)] * 2), "inputs have no residues"),
}


@pytest.mark.once
@pytest.mark.parametrize(("records", "message"), BAD_RESIDUES.values(), ids=BAD_RESIDUES)
def test_bad_targets_of_residues_are_refused_and_named(records, message):
    stack = None if isinstance(records, tuple) and records[0] is not CHAINS else encode
    if message is None:
        kft.batches(records, stack)
        return
    with pytest.raises(ValueError, match=message):
        kft.batches(records, stack)


@pytest.mark.once
def test_residue_targets_and_masks_of_the_wrong_type():
    with pytest.raises(TypeError, match=r"the mask of inputs\[1\] must be bool.* received float64"):
        kft.batches(broken(masks=(1, np.ones(2))), encode)
    with pytest.raises(TypeError, match="targets must be numbers, received <U1"):
        kft.batches(broken(targets=(1, np.array(["C", "E"]))), encode)
    records = chains()
    records.masks = records.masks[:2]
    with pytest.raises(ValueError, match="4 inputs and 2 masks"):
        kft.batches(records, encode)


@pytest.mark.once
def test_bad_sizes():
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, received 0"):
        kft.batches(["MK"], encode, batch_size=0)
    with pytest.raises(ValueError, match="max_length must be an integer of at least 1, received 0"):
        kft.batches(["MK"], encode, max_length=0)
    with pytest.raises(ValueError, match="P12345 has '7' at position 2"):
        kft.batches(["M7"], encode, names=["P12345"])
