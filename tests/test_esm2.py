"""ESM-2 against its two original implementations, on whatever backend runs the suite."""

import json

import keras
import numpy as np
import pytest
import references
import torch
from keras import ops

import kft
from kft.backbones import esm2

pytestmark = pytest.mark.usefixtures("optimised")


@pytest.mark.parametrize(
    ("shape", "scale"),
    [("two blocks", 0.1), ("two blocks", 0.2), ("20 heads of 16", 0.1), ("six deep", 0.1)],
)
@pytest.mark.parametrize("reference", (references.hugging_face, references.fair))
def test_parity(reference, shape, scale, record_property):
    """Rule 6: beside float64, at most twice the reference's own float32 error + 1e-6."""
    token_ids = references.mixed_batch()
    model = reference(*references.SHAPES[shape], scale=scale)
    found = references.ours(references.from_reference(model), {"token_ids": token_ids})
    single = references.outputs(model, token_ids)
    truth = references.outputs(model.double(), token_ids)
    for part, a, b, t in zip(references.PARTS, found, single, truth, strict=True):
        where = references.counted(part, token_ids)
        error, theirs = np.abs(a - t)[where].max(), np.abs(b - t)[where].max()
        record_property(part, (float(error), float(theirs)))
        assert error <= 2 * theirs + 1e-6, part
        assert scale > 0.1 or error < 1e-4, part
        assert np.abs(t[where]).max() > 0.1, "the comparison is of numbers near zero"


def test_padding_and_batch_order_change_no_more_than_in_the_reference():
    model = references.hugging_face(2, 64, 4)
    backbone = references.from_reference(model)
    proteins = references.proteins((5, 58, 20, 40))
    together = esm2.encode(proteins[::-1], pad_lengths=(96,))["token_ids"][::-1].copy()
    assert together.shape == (4, 96)

    def change(run):
        """How far each protein's hidden states in the batch are from those it has alone."""
        batch = run(together)
        alone = [run(esm2.encode([p])["token_ids"])[0] for p in proteins]
        return max(np.abs(batch[i, : len(a)] - a).max() for i, a in enumerate(alone))

    ours_change = change(lambda ids: ops.convert_to_numpy(backbone({"token_ids": ids})))
    assert ours_change <= 2 * change(lambda ids: references.outputs(model, ids)[0]) + 1e-6


def test_token_dropout_is_what_parity_rests_on():
    """Without it the numbers are those of another model: 12% off with no <mask> at all."""
    reference = references.hugging_face(2, 64, 4)
    backbone = references.from_reference(reference)
    config = {**backbone.get_config(), "token_dropout": False}
    other = esm2.ESM2.from_config(config)
    other.set_weights(backbone.get_weights())
    inputs = esm2.encode(["MKTAYIAKQR"])
    first = [ops.convert_to_numpy(b.stages[0](inputs["token_ids"])) for b in (backbone, other)]
    np.testing.assert_allclose(first[0], 0.88 * first[1], rtol=1e-6)


def test_alphabet_is_the_references():
    assert references.alphabet().all_toks == esm2.ALPHABET


def test_encode_is_the_references():
    proteins = ["MKTAYIAKQRQISFVKSHFSRQ", "AC<mask>D-.X", "o"]
    _, _, expected = references.alphabet().get_batch_converter()(
        [("", p.upper().replace("<MASK>", "<mask>")) for p in proteins]
    )
    found = esm2.encode(["mktayIAKQRQISFVKSHFSRQ", *proteins[1:]])["token_ids"]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected.numpy())


def test_encode_cuts_and_says_so():
    with pytest.warns(UserWarning, match=r"2 of 3 sequences .* 5 residues were cut"):
        found = esm2.encode(["MKTAY", "MK", "<mask>KTAYI"], max_length=3)["token_ids"]
    assert found.tolist() == [[0, 20, 15, 11, 2], [0, 20, 15, 2, 1], [0, 32, 15, 11, 2]]


@pytest.mark.parametrize(
    ("sequences", "error", "message"),
    [
        ([], ValueError, "empty"),
        (["MK", ""], ValueError, r"sequences\[1\] is empty"),
        (["MK", "MK1"], ValueError, r"sequences\[1\] has '1' at position 3"),
        (["MJK"], ValueError, r"sequences\[0\] has 'J' at position 2"),
        (["MK", "MKT", "A*"], ValueError, r"sequences\[2\] has '\*' at position 2"),
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


def test_max_length_below_one():
    with pytest.raises(ValueError, match="at least 1"):
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
    backbone = references.from_reference(references.hugging_face(2, 32, 4))
    inputs = esm2.encode(["MKTAYI", "AC<mask>"])
    model = backbone if part == "backbone" else getattr(backbone, part)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")  # safe mode is the default
    assert type(again) is type(model)
    found = (
        references.ours(again, inputs)
        if part == "backbone"
        else [ops.convert_to_numpy(again(inputs))]
    )
    expected = references.ours(backbone, inputs) if part == "backbone" else [
        ops.convert_to_numpy(model(inputs))
    ]  # fmt: skip
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_masked_lm_shares_the_table_and_the_blocks():
    backbone = references.from_reference(references.hugging_face(1, 32, 4))
    table = backbone.stages[0].tokens.embeddings
    assert sum(w is table for w in backbone.masked_lm.weights) == 1
    assert backbone.masked_lm.get_layer("block_0") is backbone.stages[1]
    inputs = esm2.encode(["MKT"])
    before = np.asarray(backbone.masked_lm.predict_on_batch(inputs))
    bias = ops.convert_to_numpy(backbone.masked_lm.get_layer("lm_head").bias)
    values = ops.convert_to_numpy(table)
    values[5] *= 2  # the row of A, which the protein does not hold: only its logit may change
    table.assign(values)
    after = np.asarray(backbone.masked_lm.predict_on_batch(inputs))
    np.testing.assert_allclose((after - bias)[..., 5], 2 * (before - bias)[..., 5], rtol=1e-4)
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
    reference = references.hugging_face(2, 64, 4)
    exact = references.from_reference(reference)
    config = {**exact.get_config(), "dtype": "mixed_bfloat16"}
    half = esm2.ESM2.from_config(config)
    half.set_weights(exact.get_weights())
    inputs = esm2.encode(references.proteins((58, 20)))
    hidden = half(inputs)
    assert keras.backend.standardize_dtype(hidden.dtype) == "bfloat16"
    assert {w.dtype for w in half.weights} == {"float32"}
    a, b = (ops.convert_to_numpy(ops.cast(m(inputs), "float32")) for m in (half, exact))
    where = inputs["token_ids"] != esm2.PAD
    # bfloat16 holds 8 bits: 0.4% per rounding. The reference in bfloat16 is as far away.
    ids = torch.tensor(inputs["token_ids"]).long()
    with torch.no_grad():
        theirs = reference.bfloat16().esm(ids, attention_mask=(ids != 1).long())[0]
    allowed = 2 * np.abs(theirs.float().numpy() - b)[where].max()
    assert np.abs(a - b)[where].max() <= allowed
    assert keras.backend.standardize_dtype(half.contacts(inputs).dtype) == "float32"
    weights = half.contacts.get_layer("attention_0")(
        half.stages[0](inputs["token_ids"]), ops.convert_to_tensor(where)
    )
    # In bfloat16 the rows would sum to 1 only within 0.4%.
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(ops.sum(weights, -1)), 1.0, atol=1e-5)


@pytest.mark.parametrize("sizes", ((0, 32, 4), (1, 30, 4), (1, 36, 4)))
def test_sizes_that_do_not_fit(sizes):
    with pytest.raises(ValueError, match="even multiple"):
        esm2.ESM2(*sizes)


def test_random_weights_are_the_same_on_every_backend():
    """Drawn with numpy; a backend's own random stream would give others."""
    backbone = kft.load("esm2_t6_8M_UR50D", weights=False, seed=3)
    first = ops.convert_to_numpy(backbone.stages[0].tokens.embeddings)
    expected = np.random.default_rng(3).standard_normal((33, 320), dtype="float32")
    np.testing.assert_allclose(first, expected / np.sqrt(320), rtol=1e-6)


def test_random_weights_keep_activations_at_one():
    backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
    inputs = esm2.encode(references.proteins((40,)))
    logits = ops.convert_to_numpy(backbone.masked_lm(inputs))
    assert 0.5 < logits.std() < 2
