"""ESM-2 against its two original implementations, on whatever backend runs the suite."""

import json

import keras
import models
import numpy as np
import pytest
import references
import torch
from keras import ops
from models import in_turn, same, values
from parity import assert_parity, assert_rounds_alike, errors

import kft
from kft.backbones import esm2

pytestmark = pytest.mark.usefixtures("optimised")


PARITY = [  # each value beside our own once; up to 300 residues in the long form
    (references.hugging_face, "two blocks", 0.2),
    (references.hugging_face, "20 heads of 16", 0.1),
    (references.fair, "two blocks", 0.1),
    (references.fair, "six deep", 0.1),
]
SHORT = [(*case, references.SHORT) for case in PARITY]
PARITY_LONG = [
    (reference, shape, scale)
    for reference in (references.hugging_face, references.fair)
    for shape, scale in [*((shape, 0.1) for shape in references.SHAPES), ("two blocks", 0.2)]
]


@pytest.mark.parametrize(
    ("reference", "shape", "scale", "lengths"),
    [
        *in_turn(SHORT, everywhere=SHORT[:1], backends=("jax", "torch", "tensorflow")),
        *(pytest.param(*c, references.LENGTHS, marks=pytest.mark.long) for c in PARITY_LONG),
    ],
)
def test_parity(reference, shape, scale, lengths, record_property):
    """Rule 6: beside float64, our float32 error is the reference's own."""
    token_ids = references.mixed_batch(lengths)
    model = references.telling(reference(*references.SHAPES[shape], scale=scale), token_ids)
    found = references.ours(references.from_reference(model), {"token_ids": token_ids})
    single = references.outputs(model, token_ids)
    truth = references.outputs(model.double(), token_ids)
    for part, *three in zip(references.PARTS, found, single, truth, strict=True):
        where = references.counted(part, token_ids)
        both = assert_parity(*(x[where] for x in three), part)
        record_property(part, str(both))


def test_padding_and_batch_order_change_nothing():
    """But for rounding: another length is another program."""
    backbone = references.from_reference(references.hugging_face(2, 64, 4))
    proteins = references.proteins((20, 9, 58, 20))
    together = np.asarray(backbone.predict_on_batch(esm2.encode(proteins)))
    other = backbone.predict_on_batch(esm2.encode([proteins[i] for i in (2, 3, 1, 0)]))
    for row, again in zip(together, np.asarray(other)[[3, 2, 0, 1]], strict=True):
        assert_rounds_alike(row, again)
    for i in (0, 3):
        (alone,) = np.asarray(backbone.predict_on_batch(esm2.encode([proteins[i]])))
        assert_rounds_alike(together[i, : len(alone)], alone)


def test_token_dropout_is_what_parity_rests_on():
    """Without it the numbers are those of another model: 12% off with no <mask> at all."""
    reference = references.hugging_face(2, 64, 4)
    backbone = references.from_reference(reference)
    config = {**backbone.get_config(), "token_dropout": False}
    other = esm2.ESM2.from_config(config)
    other.set_weights(backbone.get_weights())
    inputs = esm2.encode(["MKTAYIAKQR"])
    first = [ops.convert_to_numpy(b.stages[0](inputs["token_ids"])) for b in (backbone, other)]
    assert_rounds_alike(first[0], 0.88 * first[1], 4)


@pytest.mark.once
def test_alphabet_is_the_references():
    assert references.alphabet().all_toks == esm2.ALPHABET


@pytest.mark.once
def test_encode_is_the_references():
    proteins = ["MKTAYIAKQRQISFVKSHFSRQ", "AC<mask>D-.X", "o"]
    _, _, expected = references.alphabet().get_batch_converter()(
        [("", p.upper().replace("<MASK>", "<mask>")) for p in proteins]
    )
    found = esm2.encode(["mktayIAKQRQISFVKSHFSRQ", *proteins[1:]])["token_ids"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.once
def test_encode_cuts_and_says_so():
    with pytest.warns(UserWarning, match=r"2 of 3 sequences .* 5 residues cut"):
        found = esm2.encode(["MKTAY", "MK", "<mask>KTAYI"], max_length=3)["token_ids"]
    assert found.tolist() == [[0, 20, 15, 11, 2], [0, 20, 15, 2, 1], [0, 32, 15, 11, 2]]


@pytest.mark.once
@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([], ValueError, "empty"),
        (["MK", ""], ValueError, r"sequences\[1\] is empty"),
        (["MK", "MK1"], ValueError, r"sequences\[1\] has '1' at position 3"),
        (["MJK"], ValueError, r"sequences\[0\] has 'J' at position 2"),
        (["MK", "MKT", "A*C"], ValueError, r"sequences\[2\] has '\*' at position 2"),
        (["<mask>A<cls>"], ValueError, "'<' at position 8"),
        (["MK\0"], ValueError, "position 3"),
        (["ma\u00df"], ValueError, "'\u00df' at position 3"),
        (["M K"], ValueError, "' ' at position 2"),
        (["MK", 3], TypeError, r"sequences\[1\] must be a string .* received 3 \(int\)"),
        (["MK", None], TypeError, r"sequences\[1\]"),
        (["MK", float("nan")], TypeError, r"sequences\[1\]"),
        ("MKT", TypeError, r"write \[sequence\]"),
    ],
)
def test_bad_sequences(sequences, error, message):
    with pytest.raises(error, match=message):
        esm2.encode(sequences)


@pytest.mark.once
def test_max_length_below_one():
    with pytest.raises(ValueError, match="max_length must be an integer of at least 1"):
        esm2.encode(["MK"], max_length=0)


def test_config_round_trip_and_stages():
    backbone = esm2.ESM2(3, 32, 4, hidden_width=48, token_dropout=False, name="mine")
    copy = esm2.ESM2.from_config(json.loads(json.dumps(backbone.get_config())))
    assert copy.get_config() == backbone.get_config()
    assert [s.name for s in copy.stages] == [
        "embedding", "block_0", "block_1", "block_2", "final_norm",
    ]  # fmt: skip
    assert copy.width == 32
    names = [layer.name for layer in copy.layers]
    assert [n for n in names if n in {s.name for s in copy.stages}] == [s.name for s in copy.stages]
    assert copy.count_params() == backbone.count_params()
    assert len(backbone.weights) == 2 + 1 + 3 * 16, "the heads must not be among the weights"


@pytest.mark.parametrize("part", ("backbone", "masked_lm", "contacts"))
def test_save_and_reload(part, tmp_path):
    backbone = references.from_reference(references.hugging_face(1, 32, 4))
    inputs = esm2.encode(["MKTAYI", "AC<mask>"])
    model = backbone if part == "backbone" else getattr(backbone, part)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")  # safe mode is the default
    assert type(again) is type(model)
    found, expected = (np.asarray(m.predict_on_batch(inputs)) for m in (again, model))
    np.testing.assert_array_equal(found, expected)
    if part == "backbone":  # with both heads, which are not among its weights
        for head in ("masked_lm", "contacts"):
            assert same(values(getattr(again, head)), values(getattr(model, head)))


def test_masked_lm_shares_the_table_and_the_blocks():
    backbone = references.from_reference(references.hugging_face(1, 32, 4))
    table = backbone.stages[0].tokens.embeddings
    assert sum(w is table for w in backbone.masked_lm.weights) == 1
    assert backbone.masked_lm.get_layer("block_0") is backbone.stages[1]
    inputs = esm2.encode(["MKT"])
    before = np.asarray(backbone.masked_lm.predict_on_batch(inputs))
    bias = ops.convert_to_numpy(backbone.masked_lm.get_layer("lm_head").bias)
    rows = ops.convert_to_numpy(table).copy()
    rows[5] *= 2  # the row of A, which the protein does not hold: only its logit may change
    table.assign(rows)
    after = np.asarray(backbone.masked_lm.predict_on_batch(inputs))
    assert_rounds_alike((after - bias)[..., 5], 2 * (before - bias)[..., 5])
    np.testing.assert_array_equal(np.delete(after, 5, -1), np.delete(before, 5, -1))


def test_contacts_see_weights_that_change():
    """The last block's weights are only borrowed: they must not be frozen into a trace."""
    backbone = references.from_reference(references.hugging_face(1, 32, 4))
    inputs = esm2.encode(["MKTAYIAKQR"])
    before = np.asarray(backbone.contacts.predict_on_batch(inputs))
    backbone.stages[-2].query.kernel.assign(ops.zeros((32, 32)))
    after = np.asarray(backbone.contacts.predict_on_batch(inputs))
    assert np.abs(after - before).max() > 1e-4


def test_mixed_bfloat16():
    reference = references.hugging_face(1, 64, 4)
    exact = references.from_reference(reference)
    config = {**exact.get_config(), "dtype": "mixed_bfloat16"}
    half = esm2.ESM2.from_config(config)
    half.set_weights(exact.get_weights())
    inputs = esm2.encode(references.proteins((58, 58)))
    assert half.output.dtype == "bfloat16"
    assert half.contacts.output.dtype == "float32"
    assert {w.dtype for w in half.weights} == {"float32"}
    a, b = (np.asarray(m.predict_on_batch(inputs), "float32") for m in (half, exact))
    where = inputs["token_ids"] != esm2.PAD
    # bfloat16 holds 8 bits: 0.4% per rounding. The reference in bfloat16 is as far away.
    ids = torch.tensor(inputs["token_ids"]).long()
    with torch.no_grad():
        theirs = reference.bfloat16().esm(ids, attention_mask=(ids != 1).long())[0]
    (error, _), (allowed, _) = errors(a, b), errors(theirs.float().numpy(), b)
    assert error <= 1.5 * allowed
    weights = half.stages[1](
        half.stages[0](inputs["token_ids"]), ops.convert_to_tensor(where), attend_only=True
    )
    # In bfloat16 the rows would sum to 1 only within 0.4%.
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    assert_rounds_alike(ops.convert_to_numpy(weights).sum(-1), np.ones(weights.shape[:-1]))


@pytest.mark.once
@pytest.mark.parametrize("sizes", ((0, 32, 4), (1, 30, 4), (1, 36, 4)))
def test_sizes_that_do_not_fit(sizes):
    with pytest.raises(ValueError, match="even multiple|num_blocks must be an integer"):
        esm2.ESM2(*sizes)


def test_random_weights_are_the_same_on_every_backend():
    """Drawn with numpy; a backend's own random stream would give others."""
    first = ops.convert_to_numpy(models.esm2(seed=3).stages[0].tokens.embeddings)
    expected = np.random.default_rng(3).standard_normal((33, 16), dtype="float32")
    assert_rounds_alike(first, expected / np.sqrt(16), 2)


@pytest.mark.once
def test_random_weights_keep_activations_at_one():
    backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
    inputs = esm2.encode(references.proteins((40,)))
    logits = ops.convert_to_numpy(backbone.masked_lm(inputs))
    assert 0.5 < logits.std() < 2
