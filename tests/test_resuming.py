"""Tests of `kft.fit(resume=FILE)`: an interrupted training continues to the same weights."""

import dataclasses

import keras
import numpy as np
import pytest
from models import esm2

import kft
from kft.training import strategies

PROTEINS = ["MKTAYI", "GIGKFL", "ACDEFG", "KLMNPQ", "RSTVWY", "GGSSGG"]
DATA = kft.data.Dataset(
    "toy",
    "regression",
    kft.data.Split(PROTEINS, np.arange(6.0)),
    kft.data.Split(["MKTA", "GIGK"], [0.5, 1.5]),
    None,
    source="typed in",
    licence="none",
    citation="",
    checksum="",
)


class Stop(keras.callbacks.Callback):
    """Raise KeyboardInterrupt in an epoch, at its first batch, as Ctrl-C does."""

    def __init__(self, epoch):
        super().__init__()
        self.at, self.now = epoch, None

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.at:
            raise KeyboardInterrupt


def model():
    keras.utils.set_random_seed(0)
    return kft.Model(esm2(2), kft.heads.Regression())


def trained(strategy, **options):
    return kft.fit(model(), DATA, strategy, batch_size=2, verbose=0, **options)


def assert_same(one, other):
    assert one.best_epoch == other.best_epoch
    assert [r["val_loss"] for r in one.history] == [r["val_loss"] for r in other.history]
    for a, b in zip(one.model.variables, other.model.variables, strict=True):
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (a.value, b.value)))


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize(
    "strategy, stops",
    [
        pytest.param(  # of the whole model
            strategies.get("lora", rank=2, dropout=0.3, epochs=2), [1], id="lora"
        ),
        pytest.param(  # phases, optimizers of several ages
            strategies.get("gradual_unfreezing", epochs=6),
            [3],
            id="gradual_unfreezing",
            marks=pytest.mark.in_turn("torch"),
        ),
        pytest.param(  # on features that are computed once
            strategies.get("head_only", epochs=3),
            [2],
            id="head_only",
            marks=pytest.mark.in_turn("torch"),
        ),
    ],
)
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, strategy, stops):
    whole = trained(strategy)
    for epoch in stops:
        with pytest.raises(KeyboardInterrupt):
            trained(strategy, resume=tmp_path / "a.npz", callbacks=[Stop(epoch)])
    assert_same(trained(strategy, resume=tmp_path / "a.npz"), whole)


@pytest.mark.in_turn("torch")
def test_a_finished_training_is_not_repeated(tmp_path):
    strategy = strategies.get("head_only", epochs=2)
    whole = trained(strategy, resume=tmp_path / "a.npz")
    seen = Stop(0)
    assert_same(trained(strategy, resume=tmp_path / "a.npz", callbacks=[seen]), whole)
    assert seen.now is None


@pytest.mark.once
def test_a_file_of_another_training_is_an_error(tmp_path):
    strategy = strategies.get("head_only", epochs=1)
    trained(strategy, resume=tmp_path / "a.npz")
    with pytest.raises(ValueError, match="differs in its seed: name another file"):
        trained(strategy, resume=tmp_path / "a.npz", seed=1)
    other = dataclasses.replace(DATA, train=kft.data.Split(PROTEINS, np.arange(6.0)[::-1]))
    with pytest.raises(ValueError, match="differs in its data"):
        kft.fit(model(), other, strategy, batch_size=2, verbose=0, resume=tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"PK damaged")
    with pytest.raises(ValueError, match="is damaged"):
        trained(strategy, resume=tmp_path / "a.npz")
