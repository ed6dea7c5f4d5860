"""FrozenGuard stops what touches frozen weights; KeepBest finds its way back over all phases."""

import keras
import numpy as np
import pytest

from kft import params
from kft.training.callbacks import FrozenGuard, KeepBest

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X[:, :1] - X[:, 1:2]


def compile_(model, optimizer="sgd", **kwargs):
    # Only on JAX is it faster for models of this size; on torch it would import the compiler.
    model.compile(optimizer, "mse", jit_compile=keras.backend.backend() == "jax", **kwargs)


def make_model(optimizer="sgd", **kwargs):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dense(1, name="out"),
        ],
        name="small",
    )
    params.freeze(model, "hidden")
    if optimizer:
        compile_(model, optimizer, **kwargs)
    return model


def fit(model, *callbacks, epochs=1, **kwargs):
    kwargs = {"batch_size": 4, "verbose": 0, **kwargs}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **kwargs)


class Do(keras.callbacks.Callback):
    """Does something to the model at the end of an epoch."""

    def __init__(self, do):
        super().__init__()
        self.do = do

    def on_epoch_end(self, epoch, logs=None):
        self.do(self.model)


def multiple():
    maps = {"out/.*": keras.optimizers.Adam(0.1)}
    chosen = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1), maps)
    return keras.optimizers.MultiOptimizer(chosen)


def scaled():
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0)


# FrozenGuard ----------------------------------------------------------------------------------


def test_the_guard_lets_pass_what_is_in_order_and_stops_what_is_not():
    model, guard = make_model(), FrozenGuard()
    before = params.digests(model, trainable=None)
    fit(model, guard, epochs=2)
    fit(model, guard)
    after = params.digests(model, trainable=None)
    still = {path for path in before if before[path] == after[path]}
    assert still == {"hidden/kernel", "hidden/bias"}
    model.get_layer("out").trainable = False
    with pytest.raises(RuntimeError, match=r"\(frozen since: out/kernel, out/bias\): call compile"):
        fit(model, guard)
    model.get_layer("hidden").trainable = True
    said = "frozen since: out/kernel, out/bias; unfrozen since: hidden/kernel, hidden/bias"
    with pytest.raises(RuntimeError, match=f"model 'small' was compiled for other .*{said}"):
        fit(model, guard)
    assert params.digests(model, trainable=None) == after


@pytest.mark.parametrize("make", [keras.optimizers.Adam, multiple, scaled])
def test_an_optimizer_that_was_built_and_then_not_used(make):
    """As `keras.saving.load_model` leaves it; also those that hold other optimizers."""
    model, guard = make_model(make()), FrozenGuard()
    guard.set_model(model)
    model.get_layer("norm").trainable = False
    guard.on_train_begin()  # in time: the optimizer will be built for what is marked
    model.optimizer.build(model.trainable_variables)
    guard.on_train_begin()
    model.get_layer("norm").trainable = True
    with pytest.raises(RuntimeError, match=r"\(unfrozen since: norm/gamma, norm/beta\)"):
        guard.on_train_begin()


def test_a_change_before_the_first_fit_is_in_time():
    model = make_model()
    model.get_layer("out").trainable = False
    before = params.fingerprint(model)
    fit(model, FrozenGuard())
    assert params.fingerprint(model) == before


def test_a_frozen_weight_that_moved_is_named():
    def move(model):
        bias = model.get_layer("hidden").bias
        bias.assign(bias + 1e-6)

    with pytest.raises(RuntimeError, match="1 of 2 frozen weights moved .*: hidden/bias. "):
        fit(make_model(), FrozenGuard(), Do(move), epochs=2)
    model = make_model()
    model.trainable = False
    guard = FrozenGuard()
    guard.set_model(model)
    guard.on_train_begin()
    for weight in model.weights:
        weight.assign(weight + 1)
    with pytest.raises(RuntimeError, match="8 of 8 .*norm/gamma, norm/beta, .* and 3 more"):
        guard.on_train_end()


def test_frozen_statistics_are_guarded():
    model = make_model()
    model.get_layer("norm").trainable = False
    compile_(model)
    fit(model, FrozenGuard())
    with pytest.raises(RuntimeError, match="1 of 6 .*: norm/moving_mean. "):
        fit(model, FrozenGuard(), Do(lambda m: m.get_layer("norm").moving_mean.assign([1.0] * 4)))


def test_the_guard_forgets_a_training_that_failed():
    def fail(model):
        model.get_layer("hidden").bias.assign([1.0] * 4)
        raise KeyboardInterrupt

    model, guard = make_model(), FrozenGuard()
    with pytest.raises(KeyboardInterrupt):
        fit(model, guard, Do(fail))
    fit(model, guard)


# KeepBest -------------------------------------------------------------------------------------


def play(best, model, values, name="val_loss"):
    """Epochs that end with these values, the weights being their numbers in order."""
    best.set_model(model)
    for value in values:
        play.count += 1
        for weight in model.weights:
            weight.assign(keras.ops.full(weight.shape, float(play.count)))
        best.on_epoch_end(0, {name: value, "loss": 0.0})


play.count = 0


def once(*values):
    """A case of what no backend has to do with."""
    return pytest.param(*values, marks=pytest.mark.once)


@pytest.mark.parametrize(
    ("mode", "name", "phases", "epoch", "value"),
    [
        ("auto", "val_loss", [[3.0, 2.0, 2.5], [1.5, 1.7]], 3, 1.5),
        once("auto", "val_loss", [[3.0, 1.0, 2.5], [1.5, 1.0]], 1, 1.0),
        once("max", "val_accuracy", [[0.1, 0.9], [0.5]], 1, 0.9),
        once("min", "val_accuracy", [[0.2, 0.9], [0.1, 0.5]], 2, 0.1),
        once("auto", "val_accuracy", [[0.2], [0.1, 0.5]], 2, 0.5),
        once("auto", "val_loss", [[float("nan"), 3.0], [float("nan"), 4.0]], 1, 3.0),
        once("auto", "val_loss", [[float("inf"), float("nan")]], 0, float("inf")),
    ],
)
def test_the_best_epoch_over_all_phases(mode, name, phases, epoch, value):
    model = make_model(metrics=["accuracy"])
    fit(model)
    best, play.count = KeepBest(name, mode), -1
    for phase, values in enumerate(phases):
        if phase:
            model.get_layer("hidden").trainable = True
            compile_(model, metrics=["accuracy"])
        play(best, model, values, name)
    assert (best.best, best.epoch) == (value, epoch)
    assert best.restore() == epoch
    assert {float(v) for w in model.get_weights() for v in w.ravel()} == {float(epoch)}


@pytest.mark.in_turn("torch")
def test_real_phases_end_where_they_were_best():
    model, best = make_model(None), KeepBest()
    rng = np.random.default_rng(0)
    drawn = [0.1 * rng.standard_normal(w.shape) + (w.ndim < 2) * w for w in model.get_weights()]
    model.set_weights(drawn)
    losses, states = [], []
    keep = Do(lambda m: states.append(m.get_weights()))
    for rate in (0.05, 10.0):
        model.get_layer("hidden").trainable = bool(losses)
        compile_(model, keras.optimizers.SGD(rate))
        losses += fit(model, best, keep, epochs=3, validation_data=(X, Y)).history["val_loss"]
    epoch = int(np.nanargmin(losses))
    assert 0 < epoch < 5
    assert best.restore() == epoch == best.epoch
    assert best.best == losses[epoch]
    for weight, kept in zip(model.get_weights(), states[epoch], strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_weights_of_bfloat16_come_back():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")])
    best = KeepBest("loss")
    best.set_model(model)
    before = params.fingerprint(model, None)
    best.on_epoch_end(0, {"loss": 1.0})
    model.layers[0].kernel.assign(model.layers[0].kernel + 1)
    assert params.fingerprint(model, None) != before
    best.restore()
    assert params.fingerprint(model, None) == before


@pytest.mark.once
def test_there_may_be_nothing_to_restore():
    best = KeepBest()
    with pytest.raises(RuntimeError, match="there are no weights to restore; no epoch has ended"):
        best.restore()
    model = make_model()
    best.set_model(model)
    best.on_epoch_end(0, {"val_loss": float("nan")})
    with pytest.raises(RuntimeError, match="1 epochs have ended|no weights to restore"):
        best.restore()
    assert best.best is None and best.epoch is None


@pytest.mark.once
def test_what_keep_best_refuses():
    with pytest.raises(ValueError, match="mode must be auto, min or max, received 'best'"):
        KeepBest(mode="best")
    with pytest.raises(ValueError, match="'val_loss', and the logs of epoch 0 hold loss: choose"):
        fit(make_model(), KeepBest())
    with pytest.raises(ValueError, match="mode='max'"):
        play(KeepBest("val_f1"), make_model(), [1.0], "val_f1")
    best, model = KeepBest(), make_model()
    play(best, model, [1.0])
    model.pop()
    with pytest.raises(ValueError, match="out/bias, out/kernel were added or removed"):
        best.restore()
