"""Muon: beside torch's, and with what kft asks of an optimizer."""

import interrupted
import keras
import numpy as np
import pytest
import torch
from models import esm2, in_turn

import kft
from kft.backbones.residue_tokens import encode
from kft.training import pretraining
from kft.training.optimizers import Muon, Optimizers, muon
from kft.training.pretraining import STANDARD


@pytest.mark.parametrize(("dtype", "close"), [(None, 0.02), ("bfloat16", 0.05)])
def test_muon_is_torchs(dtype, close):
    """Ten steps of torch's Muon, which rounds to bfloat16, with decay, tall and wide."""
    rng = np.random.default_rng(0)
    for shape in ((24, 64), (64, 24)):
        start = rng.normal(0, 1, shape).astype("float32")
        ours, theirs = keras.Variable(start), torch.nn.Parameter(torch.tensor(start))
        options = {"momentum": 0.95, "nesterov": True, "weight_decay": 0.1}
        optimizer = muon(0.02, [ours], clipnorm=None, dtype=dtype, **options)
        optimizer.build([ours])
        reference = torch.optim.Muon([theirs], lr=0.02, adjust_lr_fn="match_rms_adamw", **options)
        for _ in range(10):
            gradient = rng.normal(0, 1e-3, shape).astype("float32")
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [ours])
            theirs.grad = torch.tensor(gradient)
            reference.step()
        moved = theirs.detach().numpy() - start
        error = keras.ops.convert_to_numpy(ours.value) - start - moved
        assert np.linalg.norm(error) < close * np.linalg.norm(moved)


def test_muon_rounds_where_it_is_told_to():
    """In bfloat16 an update is another one, and nearly the same: JAX rounds the factors, too."""
    gradient = np.random.default_rng(0).normal(size=(24, 64)).astype("float32")
    exact, rounded = (
        keras.ops.convert_to_numpy(
            Muon(dtype=dtype).zeropower_via_newtonschulz5(keras.ops.convert_to_tensor(gradient), 5)
        )
        for dtype in (None, "bfloat16")
    )
    assert exact.dtype == rounded.dtype == np.float32
    assert 1e-4 < np.linalg.norm(rounded - exact) / np.linalg.norm(exact) < 0.1


def test_muon_turns_matrices_and_leaves_tables_to_adam(as_written):
    model = esm2(1, 32, 4).masked_lm
    batches = pretraining.masked_batches(interrupted.proteins(), encode, tokens=256, crop=32)
    before = {v.path: keras.ops.convert_to_numpy(v.value).copy() for v in model.trainable_variables}
    model.compile(
        muon(1e-3, model.trainable_variables, weight_decay=0.0), pretraining.MaskedCrossEntropy()
    )
    model.train_on_batch(*batches.batch(0))
    moved = {
        v.path: keras.ops.convert_to_numpy(v.value) - before[v.path]
        for v in model.trainable_variables
    }
    # A first step of Adam moves everything by the rate; Muon's largest singular value is about 1,
    # times a fifth of the rate and the root of the longer side.
    table = moved["embedding/tokens/embeddings"][STANDARD]
    assert np.median(np.abs(table)) == pytest.approx(1e-3, rel=1e-3)
    singular = np.linalg.svd(moved["block_0/feedforward_in/kernel"], compute_uv=False)
    assert 0.7 < singular.max() / (0.2e-3 * 128**0.5) < 1.3


@pytest.mark.parametrize("dtype", in_turn(["float32", "bfloat16"]))
def test_muon_takes_weights_of_any_dtype_and_lets_norms_be(dtype):
    """Of zero gradients only decay is left, and only where a matrix or a table is."""
    kernel, table, norm = variables = [
        keras.Variable(np.ones(shape, "float32"), dtype=dtype, name=name)
        for shape, name in (((4, 8), "kernel"), ((4, 8), "embeddings"), ((8,), "gamma"))
    ]
    optimizer = muon(0.1, variables, weight_decay=0.5)
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros_like(v.value) for v in variables], variables)
    for variable, left in ((kernel, 0.95), (table, 0.95), (norm, 1.0)):
        value = keras.ops.convert_to_numpy(keras.ops.cast(variable.value, "float32"))
        np.testing.assert_allclose(value, left, atol=4e-3)


@pytest.mark.once
def test_muon_is_saved_as_it_was():
    optimizer = muon(1e-3, [], adam_beta_2=0.98, dtype="bfloat16")
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert again.dtype == "bfloat16" and again.adam_beta_2 == 0.98


def test_velocities_of_muon_go_from_phase_to_phase(as_written):
    """A later phase must not begin with Adam's velocities at zero and its step count high."""
    model = kft.Model(esm2(), kft.heads.Regression())
    data = ["MKTAYIAKQR", "GSLEVDPKQN"] * 4, np.arange(8, dtype="float32")
    kept = []

    class Noted(Optimizers):
        def keep(self):
            super().keep()
            kept.append({path: sorted(slots) for path, slots in self.slots.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kft.training.fitting.Optimizers", Noted)
        kft.fit(model, data, "head_only", epochs=1, batch_size=4, optimizer=muon, verbose=0)
    (slots,) = kept
    assert sorted(map(len, slots.values())) == [1, 2]  # momentum; and of the bias its velocity
