"""Masked language modelling: what is hidden, what is learned, and that a kill loses nothing."""

import json
import math
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import interrupted
import keras
import numpy as np
import pytest
import references
import torch
from models import esm2
from parity import EPSILON, assert_rounds_alike

import kft
from kft.backbones.residue_tokens import ALPHABET, CLS, EOS, MASK, PAD, encode
from kft.files import Aside
from kft.inference import scoring
from kft.training import pretraining
from kft.training.optimizers import Muon, muon

once = pytest.mark.once
LETTERS = "LAGVSERTIDPKQNFYMHWC"


def protein(rng, length, letters=LETTERS):
    return "".join(rng.choice(list(letters), length))


@pytest.fixture
def small():
    return esm2(1, 32, 4)


# What is hidden -----------------------------------------------------------------------------------


@once
@pytest.mark.parametrize("given", [(), (0.3,)])
def test_masking_statistics(given):
    """On 100,000 residues, within four standard errors of 15% or what is given, 80%, 10%, 10%."""
    rng = np.random.default_rng(0)
    sequences = [protein(rng, n, LETTERS + "XBUZO") for n in rng.integers(100, 400, 500)]
    token_ids = encode(sequences)["token_ids"]
    shown, chosen = pretraining.hide(token_ids, np.random.default_rng(1), *given)
    standard = np.isin(token_ids, pretraining.STANDARD)
    assert standard.sum() > 100_000 * 20 / 25 and (token_ids == PAD).sum() > 10_000
    assert not (chosen & ~standard).any() and (shown[~chosen] == token_ids[~chosen]).all()

    def share(part, whole, expected):
        error = math.sqrt(expected * (1 - expected) / whole.sum())
        assert abs(part.sum() / whole.sum() - expected) < 4 * error

    share(chosen, standard, *(given or (0.15,)))
    share(chosen & (shown == MASK), chosen, 0.8)
    # One in twenty of those shown as another residue is drawn as it was.
    kept = chosen & (shown == token_ids)
    share(kept, chosen, 0.1 + 0.1 / 20)
    others = shown[chosen & (shown != MASK) & ~kept]
    assert np.isin(others, pretraining.STANDARD).all()
    counts = np.bincount(others, minlength=len(ALPHABET))[pretraining.STANDARD]
    assert counts.min() > 0.7 * counts.mean()


@once
def test_more_may_be_chosen_in_training_and_scores_stay_at_15_percent(small, monkeypatch):
    drawn = []
    original = pretraining.MaskedBatches.batch

    def batch(self, step):
        found = original(self, step)
        drawn.append((self.fresh, found[2].sum() / (found[0]["token_ids"] > PAD).sum()))
        return found

    monkeypatch.setattr(pretraining.MaskedBatches, "batch", batch)
    rng = np.random.default_rng(0)
    proteins = [protein(rng, 100) for _ in range(40)]
    pretraining.pretrain(small, proteins, proteins, epochs=1, mask_ratio=0.5, verbose=0)
    of_training, of_scores = ([x for fresh, x in drawn if fresh is kind] for kind in (True, False))
    assert np.mean(of_training) == pytest.approx(0.5 * 100 / 102, abs=0.03)
    assert np.mean(of_scores) == pytest.approx(0.15 * 100 / 102, abs=0.03)


@once
def test_each_protein_comes_once_in_a_pass_in_batches_of_few_shapes():
    rng = np.random.default_rng(0)
    sequences = [protein(rng, n) for n in rng.integers(5, 120, 300)]
    batches = pretraining.masked_batches(sequences, encode, tokens=512, crop=64)
    seen, shapes = [], set()
    for step in range(batches.one_pass):
        inputs, targets, weights = batches.batch(step)
        assert inputs["token_ids"].dtype == targets.dtype == "int32"
        assert targets.shape == (*weights.shape, 2) and inputs["token_ids"].shape == weights.shape
        shapes.add(weights.shape)
        seen += [bytes(row[row != PAD].astype("int8")) for row in targets[..., 0]]
    assert shapes <= {(512 // n, n) for n in (8, 16, 32, 48, 64)} and len(shapes) > 2
    rows = [bytes(row) for row in batches.rows]
    assert {row for row in rows if len(row) <= 64} <= set(seen)
    assert len(rows) <= len(seen) < len(rows) + 512 // 64
    assert len(batches) == batches.one_pass


def reversed_encode(sequences, max_length=None, pad_lengths=None, names=None):
    """The same tokens with other ids: 32 minus those of ESM-2."""
    found = encode(sequences, max_length, pad_lengths, names)["token_ids"]
    return {"token_ids": 32 - found}


@pytest.mark.once  # numbers of tokens
def test_an_encoder_states_its_own_alphabet(small):
    """The same residues are hidden, and the same predictions scored."""
    encoder = reversed_encode
    encoder.alphabet = ALPHABET[::-1]
    encoder.pad = {"token_ids": 32 - PAD}
    proteins = [protein(np.random.default_rng(i), 20 + i) for i in range(8)]
    one, two = (pretraining.masked_batches(proteins, e, 64, 32) for e in (encode, encoder))
    assert not np.array_equal(one.rows[0], two.rows[0])
    for (x, y, w), (other_x, other_y, other_w) in zip(one, two, strict=True):
        letters = 32 - other_x["token_ids"]
        np.testing.assert_array_equal(x["token_ids"], letters)
        np.testing.assert_array_equal(w, other_w)
        np.testing.assert_array_equal(y[..., 1], other_y[..., 1])
    other = esm2(1, 32, 4)
    other.masked_lm.set_weights(small.masked_lm.get_weights())
    scores = scoring.masked_score(small, proteins), scoring.fill(small, ["MK<mask>TAY"])
    x = keras.Input((None,), dtype="int32", name="token_ids")
    logits = keras.ops.flip(other.masked_lm({"token_ids": 32 - x}), axis=-1)
    model = keras.Model({"token_ids": x}, logits)
    mirrored = SimpleNamespace(masked_lm=model, encode=encoder)
    again = scoring.masked_score(mirrored, proteins), scoring.fill(mirrored, ["MK<mask>TAY"])
    np.testing.assert_allclose(again[0].perplexity, scores[0].perplexity, rtol=1e-5)
    assert again[0].masked == scores[0].masked
    assert again[1][0][0].residues == scores[1][0][0].residues
    for method in ("uniform", "residue frequencies", "Markov model"):
        found = (scoring.reference_scores(proteins, proteins, e)[method] for e in (encode, encoder))
        np.testing.assert_allclose(*(x.perplexity for x in found), rtol=1e-6)


@once
@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({}, "at most 127 tokens, with <mask> .* received 0 tokens, pad=None, without <mask>"),
        ({"alphabet": ALPHABET}, "received 33 tokens, pad=None"),
        ({"alphabet": ALPHABET[:-1], "pad": {"token_ids": 1}}, "received 32 .* without <mask>"),
        ({"alphabet": [*ALPHABET, *"0" * 99], "pad": {"token_ids": 1}}, "received 132 tokens"),
    ],
)
def test_an_encoder_without_an_alphabet_is_named(stated, message):
    def other(sequences, max_length=None, pad_lengths=None, names=None):
        return encode(sequences, max_length, pad_lengths, names)

    vars(other).update(stated)
    with pytest.raises(ValueError, match=message):
        pretraining.masked_batches(["MKTAYI"] * 4, other, 64, 32)
    with pytest.raises(ValueError, match=message):
        scoring.reference_scores(["MKTAYI"], ["MKTAYI"], other)


@once
def test_crops_move_and_only_true_ends_are_marked():
    sequences = [protein(np.random.default_rng(0), 100)]
    batches = pretraining.masked_batches(sequences, encode, tokens=16, crop=16)
    whole, starts = batches.rows[0].astype("int32").tolist(), set()
    for step in range(1000):
        row = batches.batch(step)[1][0, :, 0].tolist()
        start = next(i for i in range(len(whole)) if whole[i : i + 16] == row)
        starts.add(start)
        assert (CLS in row) == (start == 0) and (EOS in row) == (start == len(whole) - 16)
    assert starts == set(range(len(whole) - 15))


@once
def test_batches_follow_from_seed_and_step_alone():
    sequences = interrupted.proteins()
    options = {"tokens": 128, "crop": 32, "steps": 3}
    one, two = (pretraining.masked_batches(sequences, encode, **options) for _ in range(2))
    other = pretraining.masked_batches(sequences, encode, **options, seed=1)
    fixed = pretraining.masked_batches(sequences, encode, **options, fresh=False)

    def flat(batch):
        return [array.tolist() for array in (batch[0]["token_ids"], *batch[1:])]

    for _ in range(2):
        one.on_epoch_end()
    two.go_to(2)
    assert flat(one[1]) == flat(two[1]) == flat(two.batch(7)) != flat(two[2])
    assert flat(other.batch(7)) != flat(two[1])
    first = flat(fixed[1])
    fixed.on_epoch_end()
    assert flat(fixed[1]) == first
    # The second pass hides other residues of the same proteins.
    passes = [two.batch(step) for step in (0, two.one_pass)]
    assert flat(passes[0]) != flat(passes[1])


@once
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("steps", [2, 3, 7, 23, 149])  # of 150 in a pass
def test_each_epoch_begins_with_two_lengths(seed, steps):
    """TensorFlow takes a length that the first two batches share for that of all.

    Wherever in a pass over the proteins an epoch begins, at its last batch too.
    """
    rng = np.random.default_rng(0)
    sequences = [protein(rng, n) for n in [*rng.integers(40, 60, 200), *rng.integers(5, 20, 300)]]
    batches = pretraining.masked_batches(sequences, encode, 128, 64, steps=steps, seed=seed)
    assert batches.one_pass == 150
    for epoch in range(batches.one_pass):
        first, second = (batches.batch(epoch * steps + i)[2].shape[1] for i in range(2))
        assert first != second
    seen = np.concatenate([rows for _, rows in batches._mixed(1)])
    assert set(seen.tolist()) == set(range(len(sequences)))


def of_two_lengths(short=16, long=4):
    """Proteins that fill 8 tokens, two in a batch, and 16 tokens, one in a batch."""
    rng = np.random.default_rng(0)
    return [protein(rng, n) for n in [6] * short + [14] * long]


@once
def test_each_epoch_begins_with_two_lengths_though_one_is_rare():
    """4 batches of another length are too few for 6 epochs: some second batch is padded further."""
    batches = pretraining.masked_batches(of_two_lengths(), encode, 16, 16, steps=2)
    assert batches.one_pass == 12
    found = [[batches.batch(2 * epoch + i) for i in range(2)] for epoch in range(12)]
    lengths = [[weights.shape[1] for _, _, weights in pair] for pair in found]
    assert [sorted(pair) for pair in lengths] == [[8, 16]] * 12
    # What was padded further holds the same proteins, with nothing to answer there.
    wide = [batch for pair in found for batch in pair if batch[2].shape == (2, 16)]
    assert len(wide) == 4
    for inputs, targets, weights in wide:
        assert (inputs["token_ids"][:, 8:] == PAD).all() and not weights[:, 8:].any()
        assert (targets[:, 7, 0] == EOS).all()
    # Where all have one length, it stays.
    alike = pretraining.masked_batches(of_two_lengths(long=0), encode, 16, 16, steps=2)
    assert {alike.batch(step)[2].shape for step in range(16)} == {(2, 8)}


@pytest.mark.in_turn("tensorflow")  # whose `fit` looks at the shapes of the first batches
def test_a_fit_may_begin_in_any_epoch(small, as_written):
    """In the epochs 4 and 5 all batches are of one length, before others come."""
    batches = pretraining.masked_batches(of_two_lengths(), encode, 16, 16, steps=2)
    batches.go_to(4)
    small.masked_lm.compile("sgd", pretraining.MaskedCrossEntropy())
    assert len(small.masked_lm.fit(batches, epochs=4, verbose=0).history["loss"]) == 4


@once
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": []}, "sequences is empty: give at least one protein"),
        ({"sequences": ["MKT", "MK1"]}, r"sequences\[1\] has '1' at position 3"),
        ({"crop": 4}, "crop must be an integer of at least 8"),
        ({"crop": None}, "crop must be an integer of at least 8"),
        ({"tokens": 16}, "tokens must be an integer of at least 32"),
        ({"steps": 1}, "steps must be an integer of at least 2"),
        ({"mask_ratio": 15}, "mask_ratio must be above 0 and below 1, received 15"),
        ({"mask_ratio": "0.3"}, "mask_ratio must be above 0 and below 1, received '0.3'"),
        ({"seed": -1}, "seed must be an integer of at least 0, received -1"),
        ({"sequences": ["XXXX", "B"]}, "No sequence has one of the 20 standard residues"),
    ],
)
def test_bad_input_is_refused(change, message):
    options = {"sequences": ["MKT"], "encode": encode, "crop": 32, **change}
    with pytest.raises(ValueError, match=message):
        pretraining.masked_batches(**options)


@once
def test_one_string_is_no_list():
    with pytest.raises(TypeError, match="received one string, 'MKT': write"):
        pretraining.masked_batches("MKT", encode, crop=32)


@once
@pytest.mark.parametrize(
    "change", [{"epochs": 1.5}, {"learning_rate": math.nan}, {"accumulate": 0}, {"warmup": 1}]
)
def test_bad_settings_are_refused(small, change):
    with pytest.raises(ValueError, match=next(iter(change))):
        pretraining.pretrain(small, ["MKTAYI"], **change)
    with pytest.raises(ValueError, match=r"received Model: of a kft\.Model give model\.backbone"):
        pretraining.pretrain(kft.Model(small, kft.heads.Regression()), ["MKTAYI"])


# What is learned ----------------------------------------------------------------------------------


def test_loss_and_scores_count_what_they_should():
    rng = np.random.default_rng(0)
    token_ids = encode([protein(rng, 60) for _ in range(4)])["token_ids"]
    shown, chosen = pretraining.hide(token_ids, rng)
    logits = rng.normal(0, 2, (*token_ids.shape, 33)).astype("float32")
    targets = np.stack([token_ids, shown == MASK], axis=-1).astype("int32")
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    each = -np.take_along_axis(logs, token_ids[..., None], -1)[..., 0]
    loss = pretraining.MaskedCrossEntropy()(targets, logits, chosen.astype("float32"))
    assert float(loss) == pytest.approx(each[chosen].mean(), rel=1e-5)
    assert (shown == MASK).sum() < chosen.sum()
    right = (logits.argmax(-1) == token_ids)[shown == MASK].mean()
    for metric, expected in (
        (pretraining.Perplexity(), np.exp(each[shown == MASK].mean())),
        (pretraining.MaskedAccuracy(), right),
    ):
        metric.update_state(targets[:1], logits[:1])
        # A batch of another length: each <mask> counts alike all the same.
        beyond = [(0, 0), (0, 40), (0, 0)]
        metric.update_state(np.pad(targets[1:], beyond), np.pad(logits[1:], beyond))
        assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_loss_curve_is_the_references(optimised, as_written):
    """20 steps of SGD beside transformers with plain torch, from the same weights and masks."""
    reference = references.hugging_face(2, 32, 4)
    backbone = references.from_reference(reference)
    batches = pretraining.masked_batches(interrupted.proteins(), encode, tokens=256, crop=32)
    model = backbone.masked_lm
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), pretraining.MaskedCrossEntropy())
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
    ours, theirs = [], []
    for step in range(20):
        inputs, targets, weights = batches.batch(step)
        ours.append(float(model.train_on_batch(inputs, targets, weights)))
        ids = torch.tensor(inputs["token_ids"]).long()
        labels = torch.tensor(np.where(weights > 0, targets[..., 0], -100)).long()
        loss = reference(ids, attention_mask=(ids != PAD).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        theirs.append(float(loss.detach()))
    assert theirs[0] - theirs[-1] > 0.3, "nothing moved that could differ"
    # Measured: 1.1 epsilons of the loss. Keras's AdamW means another epsilon than torch's does.
    assert_rounds_alike(ours, theirs, what="the losses")


@pytest.mark.once
def test_a_family_is_learned_and_scores_say_so(small):
    """Proteins of one motif: their residues can be told from their neighbours."""
    rng = np.random.default_rng(0)
    family = [("MKTAYIAKQR" * 5)[i:] for i in rng.integers(0, 10, 64)]
    before = scoring.masked_score(small, family[:8])
    done = pretraining.pretrain(
        small,
        family,
        family[:8],
        epochs=3,
        steps=60,
        tokens=512,
        crop=64,
        learning_rate=1e-2,
        verbose=0,
    )
    after = scoring.masked_score(small, family[:8])
    plain = scoring.reference_scores(family[:8], family, encode)
    assert after.masked == before.masked == plain["uniform"].masked > 20
    assert plain["uniform"].perplexity.value == pytest.approx(20)
    assert plain["uniform"].accuracy.value == pytest.approx(0.05)
    assert before.perplexity.value > 15
    assert after.perplexity.high < plain["residue frequencies"].perplexity.low
    assert plain["Markov model"].perplexity.value < 4
    assert [row["epoch"] for row in done.history] == [0, 1, 2]
    assert done.history[-1]["val_perplexity"] < done.history[0]["val_perplexity"] < 15
    assert done.history[-1]["step"] == 180 and done.history[-1]["learning_rate"] < 1e-4
    assert 0 < done.history[0]["seconds"] < done.history[-1]["seconds"]


@pytest.mark.in_turn("torch")
def test_another_optimizer_learns_too(small):
    family = ["MKTAYIAKQR" * 5] * 32
    done = pretraining.pretrain(
        small, family, epochs=2, steps=10, tokens=256, crop=64, learning_rate=1e-2, accumulate=2,
        optimizer=muon, verbose=0,
    )  # fmt: skip
    assert isinstance(done.model.optimizer, Muon)
    assert done.history[-1]["loss"] < 0.8 * done.history[0]["loss"]


@pytest.mark.in_turn("tensorflow")
def test_batches_go_into_fit_unchanged(small, as_written):
    batches = pretraining.masked_batches(interrupted.proteins(), small.encode, 128, 32, steps=2)
    small.masked_lm.compile("adam", pretraining.MaskedCrossEntropy(),
                            metrics=[pretraining.Perplexity()])  # fmt: skip
    history = small.masked_lm.fit(batches, epochs=2, verbose=0).history
    assert len(history["loss"]) == 2 and history["perplexity"][0] > 1


def test_accumulated_gradients_are_one_step_of_their_mean(as_written):
    """Two batches of one protein each, beside their mean computed as one batch."""
    moved = []
    for accumulate in (1, 2):
        backbone = esm2(1, 32, 4)
        batches = pretraining.masked_batches(["MKTAYIAKQRGG" * 5], backbone.encode, 64, 64)
        model, parts = backbone.masked_lm, [batches.batch(step) for step in range(2)]
        steps = accumulate if accumulate > 1 else None
        model.compile(
            keras.optimizers.SGD(0.1, gradient_accumulation_steps=steps),
            pretraining.MaskedCrossEntropy(),
        )
        before = model.get_weights()
        if accumulate == 2:
            for part in parts:
                model.train_on_batch(*part)
        else:  # each counts alike, whatever the number of its <mask>
            ids, targets, weights = (
                np.concatenate([np.asarray(x) for x in xs])
                for xs in zip(*((p[0]["token_ids"], *p[1:]) for p in parts), strict=True)
            )
            model.train_on_batch({"token_ids": ids}, targets, weights / weights.sum(1)[:, None])
        moved.append([a - b for a, b in zip(model.get_weights(), before, strict=True)])
    for one, two, weight in zip(*moved, before, strict=True):
        # A gradient rounds by its largest, and a weight when the step is added to it.
        allowed = EPSILON * (64 * max(np.abs(one).max(), 1e-3) + 2 * np.abs(weight).max())
        np.testing.assert_allclose(two, one, atol=allowed)
    assert max(np.abs(one).max() for one in moved[0]) > 1e-2


class Watch(keras.callbacks.Callback):
    """The optimizer's rate and the token table at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.rates, self.tables = [], []

    def on_epoch_end(self, epoch, logs=None):
        table = self.model.stages[0].tokens.embeddings.value
        self.tables.append(keras.ops.convert_to_numpy(table).copy())
        self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))


@pytest.mark.in_turn("torch")
def test_the_rate_follows_steps_not_batches(as_written):
    """With accumulated gradients it falls as slowly, and what learns moves to the end."""
    found = {}
    for accumulate in (1, 2):
        watch = Watch()
        done = pretraining.pretrain(
            esm2(1, 32, 4), interrupted.proteins(), epochs=3, steps=2,
            tokens=64, crop=32, learning_rate=1e-2, accumulate=accumulate,
            callbacks=[watch], verbose=0,
        )  # fmt: skip
        moved = [np.abs(b - a).max() for a, b in pairwise(watch.tables)]
        found[accumulate] = watch.rates, [row["learning_rate"] for row in done.history], moved
    for one, two in zip(found[1][:2], found[2][:2], strict=True):
        assert one == pytest.approx(two)
    assert min(found[2][2]) > 0.1 * min(found[1][2]) > 0


@once
def test_a_mask_of_the_users_own_is_no_question(small):
    sequences = ["MKT<mask>AYIAKQRGGSLEV<mask>"] * 8
    batches = pretraining.masked_batches(sequences, encode, 256, 32)
    for step in range(20):
        inputs, targets, weights = batches.batch(step)
        assert (
            not targets[targets[..., 0] == MASK][:, 1].any()
            and not weights[targets[..., 0] == MASK].any()
        )
        assert (inputs["token_ids"] == MASK).sum() > targets[..., 1].sum() > 0
    plain = scoring.reference_scores(sequences, sequences, encode)
    assert plain["uniform"].perplexity.value == pytest.approx(20)
    assert scoring.masked_score(small, sequences).masked == plain["uniform"].masked


def test_nothing_hidden_is_not_perfect():
    targets = np.zeros((1, 4, 2), "int32")
    for metric in (pretraining.Perplexity(), pretraining.MaskedAccuracy()):
        metric.update_state(targets, np.zeros((1, 4, 33), "float32"))
        assert math.isnan(float(metric.result()))


@once
def test_each_protein_is_validated_once():
    sequences = interrupted.proteins(50)
    batches = pretraining.masked_batches(sequences, encode, 256, 64, fresh=False)
    targets = [batches[i][1][..., 0] for i in range(len(batches))]
    found = [row[row != PAD].tolist() for rows in targets for row in rows]
    assert sorted(found) == sorted(encode([x])["token_ids"][0].tolist() for x in sequences)
    few = pretraining.masked_batches(sequences[:3], encode, 8192, 64)
    assert [len(few[i][2]) for i in range(len(few))] == [3]


@pytest.mark.in_turn("torch")
def test_divergence_is_an_error(small, as_written):
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        pretraining.pretrain(
            small, interrupted.proteins(), epochs=2, steps=4, tokens=128, crop=32,
            learning_rate=1e30, warmup=0.0, verbose=0,
        )  # fmt: skip


# A kill loses nothing -----------------------------------------------------------------------------


@pytest.mark.in_turn("torch")
def test_killed_in_an_epoch_it_ends_with_the_same_bits(tmp_path):
    whole = interrupted.digest(interrupted.train(tmp_path / "whole"))
    program = Path(interrupted.__file__)
    command = [sys.executable, program, tmp_path / "killed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.strip() == "batch 25":  # in the middle of the third epoch
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    state = tmp_path / "killed" / "state.npz"
    assert state.exists()
    half = Aside(state)
    half.path.write_bytes(b"half")
    half.close(keep=True)  # what a kill leaves while it writes
    assert len(list(state.parent.iterdir())) == 2
    done = interrupted.train(tmp_path / "killed")
    assert list(state.parent.iterdir()) == [state]
    assert len(done.history) == interrupted.EPOCHS
    assert interrupted.digest(done) == whole


@once
def test_another_training_does_not_go_on_from_it(tmp_path):
    sequences = interrupted.proteins()
    options = {"epochs": 1, "steps": 2, "tokens": 128, "crop": 32, "out": tmp_path, "verbose": 0}

    def pretrain(sequences=sequences, valid=sequences[:9], heads=4, seed=0, **changes):
        backbone = esm2(1, 32, heads, seed)
        return pretraining.pretrain(backbone, sequences, valid, **{**options, **changes})

    pretrain()
    for change, what in (
        ({"sequences": [row[::-1] for row in sequences]}, "proteins"),
        ({"valid": sequences[:8]}, "validation"),
        ({"valid": None}, "validation"),
        ({"heads": 8}, "backbone"),
        ({"seed": 1}, "first weights"),
        ({"learning_rate": 1e-5}, "optimizer"),
        ({"epochs": 2}, "optimizer.*follows a schedule"),
        ({"tokens": 256}, "tokens"),
    ):
        with pytest.raises(ValueError, match=f"another training, which differs in its .*{what}"):
            pretrain(**change)
    assert len(pretrain().history) == 1
    (tmp_path / "state.npz").write_bytes((tmp_path / "state.npz").read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged"):
        pretrain()
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        pretrain(out=tmp_path / "file")


@once
def test_a_training_that_an_earlier_version_began_goes_on(tmp_path):
    """Version 0.1 had other names for settings and modules."""
    options = {"epochs": 2, "steps": 2, "tokens": 128, "crop": 32, "verbose": 0, "mask_ratio": 0.3}

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def pretrain(**changes):
        given = {**options, "out": tmp_path, **changes}
        return pretraining.pretrain(esm2(1, 32, 4), interrupted.proteins(), **given)

    with pytest.raises(KeyboardInterrupt):
        pretrain(callbacks=[Stop()])
    state = tmp_path / "state.npz"
    with np.load(state) as kept:
        arrays = dict(kept)
    about = json.loads(str(arrays.pop("about")))
    signature = about["signature"]
    signature["share"] = signature.pop("mask_ratio")
    schedule = signature["optimizer"]["learning_rate"]
    schedule["module"] = "kft.learning_rates"
    schedule["config"]["rate"] = schedule["config"].pop("learning_rate")
    np.savez(state, about=json.dumps(about), **arrays)
    with pytest.raises(ValueError, match="differs in its mask_ratio"):
        pretrain(mask_ratio=0.2)
    with pytest.raises(ValueError, match="differs in its optimizer"):
        pretrain(learning_rate=1e-5)
    found = pretrain()
    assert [row["epoch"] for row in found.history] == [0, 1]
    whole = pretrain(out=None)
    assert interrupted.digest(found) == interrupted.digest(whole)


class Interrupt(keras.callbacks.Callback):
    """Stops in the middle of an epoch: by Ctrl-C, or as a callback asks Keras to."""

    def __init__(self, epoch, error=None):
        super().__init__()
        self.at, self.error = epoch, error

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (self.at, 1):
            if self.error is not None:
                raise self.error
            self.model.stop_training = True


@pytest.mark.in_turn("torch")
def test_what_is_stopped_within_an_epoch_runs_it_anew(tmp_path, as_written):
    size = {"epochs": 2, "steps": 2}
    whole = interrupted.digest(interrupted.train(tmp_path / "whole", **size))
    stopped = interrupted.train(tmp_path / "stopped", [Interrupt(1)], **size)
    assert len(stopped.history) == 1  # a stop that was asked for is no error
    with pytest.raises(KeyboardInterrupt):
        interrupted.train(tmp_path / "stopped", [Interrupt(1, KeyboardInterrupt)], **size)
    assert interrupted.digest(interrupted.train(tmp_path / "stopped", **size)) == whole


@pytest.mark.in_turn("torch")  # files and counters
def test_an_error_leaves_nothing_to_the_next_training(small, tmp_path, as_written):
    options = {"tokens": 128, "crop": 32, "verbose": 0}
    sequences = interrupted.proteins()
    with pytest.raises(KeyboardInterrupt):
        pretraining.pretrain(small, sequences, epochs=2, steps=3, out=tmp_path, **options,
                             callbacks=[Interrupt(1, KeyboardInterrupt)])  # fmt: skip
    assert len(pretraining.pretrain(small, sequences, epochs=1, steps=3, **options).history) == 1


@once
def test_a_full_disk_is_an_error_and_leaves_nothing(small, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        pretraining.pretrain(small, interrupted.proteins(), epochs=1, steps=2, tokens=128, crop=32,
                             out=tmp_path, verbose=0)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once  # counters
def test_the_next_fit_begins_at_its_beginning(small, tmp_path, as_written):
    resume = kft.callbacks.Resume(tmp_path / "state.npz")
    batches = pretraining.masked_batches(interrupted.proteins(), small.encode, 128, 32, steps=2)
    small.masked_lm.compile("sgd", pretraining.MaskedCrossEntropy())
    for _ in range(2):
        small.masked_lm.fit(batches, epochs=2, verbose=0, callbacks=[resume])
    assert len(resume.logs) == 2
    assert len(small.masked_lm.fit(batches, epochs=2, verbose=0).history["loss"]) == 2
