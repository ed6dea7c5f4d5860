"""The phases of kft.fit are one run to callbacks, and passes over records are whole ones."""

import random

import keras
import numpy as np
import pandas as pd
import pytest
from models import esm2, in_turn

import kft
from kft.training import callbacks, strategies

pytestmark = pytest.mark.usefixtures("as_written")

RECORDS = ["MKTAYI", "GSSWCA", "ACDEFG", "HIKLMN"], [0.0, 1.0, 0.5, 0.2]


def make():
    return kft.Model(esm2(), kft.heads.Regression())


def constant(_, variables):
    return keras.optimizers.SGD(0.1)


class Phases(strategies.Full):
    """Two phases: the head, then everything, of some epochs each."""

    counts = (2, 2)

    def phases(self, model):
        return [
            strategies.Phase("head", ("head",), self.counts[0], 1e-2, 0.0),
            strategies.Phase("all", None, self.counts[1], 1e-2, 0.0),
        ]


def fit(seen, strategy=None, epochs=None, make_optimizer=None, **options):
    strategy = strategy or Phases()
    model, made = make(), {"optimizer": make_optimizer} if make_optimizer else {}
    options = {"batch_size": 2, "verbose": 0, "callbacks": seen, **made, **options}
    return kft.fit(model, RECORDS, strategy, epochs, **options)


# Phases -------------------------------------------------------------------------------------------


class Told(keras.callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.epochs, self.calls, self.batches = [], [], 0

    def on_train_begin(self, logs=None):
        self.calls.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1

    def on_train_end(self, logs=None):
        self.calls.append("end")
        self.last = dict(logs or {})


@pytest.mark.in_turn("torch")
def test_callbacks_see_one_run(tmp_path):
    told, history = Told(), keras.callbacks.History()
    log, files = tmp_path / "log.csv", tmp_path / "{epoch:02d}.weights.h5"
    seen = [
        told, history, keras.callbacks.CSVLogger(log),
        keras.callbacks.ModelCheckpoint(files, save_weights_only=True),
    ]  # fmt: skip
    done = fit(seen)
    assert len(done.phases) == 2
    assert pd.read_csv(log).epoch.tolist() == told.epochs == history.epoch == [0, 1, 2, 3]
    np.testing.assert_allclose(pd.read_csv(log).loss, [row["loss"] for row in done.history], 1e-5)
    names = [path.name for path in sorted(tmp_path.glob("*.h5"))]
    assert names == [f"{i:02d}.weights.h5" for i in (1, 2, 3, 4)]
    assert told.calls == ["begin", "end"] and told.batches == 8
    assert told.params["epochs"] == 4 and told.last["loss"] == done.history[-1]["loss"]


def test_what_stops_one_phase_stops_the_run():
    class Stop(Told):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    told = Stop()
    done = fit([told])
    assert told.epochs == [0, 1] and told.calls == ["begin", "end"]
    assert [row["epoch"] for row in done.history] == [0, 1] and len(done.phases) == 1


def test_callbacks_of_batches_see_the_weights_at_the_frontier():
    class Weights(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = self.model.head.dense.kernel
            found.append(float(np.abs(keras.ops.convert_to_numpy(kernel)).sum()))

    found = []
    done = fit([Weights()], "head_only", 2)
    assert done.phases[0].why_not_computed_once is None  # it was trained at the frontier
    assert len(set(found)) == 4


# Learning rates that callbacks set ------------------------------------------------------------


def plateau(**options):
    return keras.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.5, patience=1, min_delta=1e9, **options
    )


@pytest.mark.in_turn("jax")
def test_a_constant_rate_falls_on_a_plateau_and_stays_down_in_the_next_phase():
    class Rates(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            several = getattr(self.model.optimizer, "optimizers", [self.model.optimizer])
            rates = {float(keras.ops.convert_to_numpy(x.learning_rate)) for x in several}
            found.append(rates.pop() if len(rates) == 1 else rates)

    found = []
    fit([plateau(), Rates()], make_optimizer=constant)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.05, 0.025], rtol=1e-6)


@pytest.mark.once
@pytest.mark.parametrize("strategy", ["gradual_unfreezing", None])
def test_where_the_rate_follows_a_schedule_it_is_refused_before_anything_is_done(strategy):
    for setting in (plateau(), keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate)):
        model, told = make(), Told()
        frozen = kft.fingerprint(model, None)
        with pytest.raises(ValueError, match=f"{type(setting).__name__} sets the learning rate"):
            kft.fit(model, RECORDS, strategy, 4, callbacks=[told, setting], verbose=0)
        assert told.calls == [] and kft.fingerprint(model, None) == frozen
        assert kft.parameters(model).frozen == 0


@pytest.mark.once
def test_other_trainings_refuse_it_too():
    model = make()
    model.backbone.trainable = False
    falling = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model.compile(keras.optimizers.SGD(falling), "mean_squared_error")
    with pytest.raises(ValueError, match="follows a schedule"):
        kft.fit_frontier(model, RECORDS, callbacks=[plateau()], verbose=0)
    with pytest.raises(ValueError, match="follows a schedule"):
        kft.pretraining.pretrain(
            esm2(), RECORDS[0], steps=2, epochs=1, tokens=64, crop=16,
            callbacks=[plateau()], verbose=0,
        )  # fmt: skip
    inner = {"a": keras.optimizers.SGD(falling)}
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(), inner)
    )
    for optimizer in (several, keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(falling))):
        with pytest.raises(ValueError, match="follows a schedule"):
            callbacks.require_constant_learning_rate([plateau()], optimizer)


# Passes over the records ----------------------------------------------------------------------


COUNT = 6  # batches of two records


def counts(kind, batches, steps, epochs, **options):
    """(E, 12), how often each record was shown by the end of each epoch.

    Each record has a weight of its own, that a step of size 1 along the sum of the answers moves
    by 1 whenever the record is shown.
    """
    inputs = keras.Input((2 * COUNT,))
    head = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    if kind is kft.Model:
        model = kft.Model(keras.Model(inputs, keras.layers.Identity()(inputs)), head)
    else:
        model = keras.Model(inputs, head(inputs))
    model.compile(keras.optimizers.SGD(1.0), lambda y_true, y_pred: 2 * y_pred[:, 0])
    found = []

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            found.append(-keras.ops.convert_to_numpy(head.kernel)[:, 0].round().astype(int))

    options = {"steps_per_epoch": steps, "epochs": epochs, "verbose": 0, **options}
    model.fit(batches, callbacks=[Note()], **options)
    return np.array(found)


def one_each(seed=0):
    return kft.batches(
        (list(np.eye(2 * COUNT, dtype="float32")), np.zeros(2 * COUNT)), None, 2, seed
    )


@pytest.mark.parametrize(("kind", "shuffle"), [(kft.Model, None), (keras.Model, True)])
@pytest.mark.parametrize("steps", in_turn([1, 2, 3, None], everywhere=[2]))
def test_each_record_comes_once_before_any_comes_again(kind, shuffle, steps):
    random.seed(1)  # plain Keras shuffles with it
    options = {} if shuffle is None else {"shuffle": shuffle}
    epochs = 2 * COUNT // (steps or COUNT)
    found = counts(kind, one_each(), steps, epochs, **options)
    for number, seen in enumerate(found, start=1):
        shown = 2 * number * (steps or COUNT)
        assert seen.sum() == shown and np.ptp(seen) <= 1


def test_the_order_is_that_of_whole_epochs():
    whole = one_each()
    whole.on_epoch_end()  # Keras ends an epoch before it begins the first
    found = counts(kft.Model, one_each(), 2, 3)
    np.testing.assert_array_equal(
        [set(np.flatnonzero(seen)) for seen in found],
        [set(np.concatenate(whole.record_indices[: 2 * k])) for k in (1, 2, 3)],
    )


@pytest.mark.once
def test_a_pass_ends_where_a_fit_begins_or_where_it_is_told():
    batches = one_each()
    for index in (0, 1, 0):
        batches[index]
    batches.on_epoch_end()  # by hand, with no epoch of Keras begun
    assert batches.epoch == 1
    batches.on_epoch_begin()
    batches[0]
    batches.on_epoch_end()
    assert batches.epoch == 1
    batches.on_epoch_begin()
    for index in range(1, COUNT):
        batches[index]
    batches.on_epoch_end()
    assert batches.epoch == 2
    batches.on_epoch_begin()
    assert batches.num_batches == COUNT  # so does Keras when a fit begins
    batches.on_epoch_end()
    assert batches.epoch == 3


@pytest.mark.once
def test_batches_of_a_pretraining_go_on_within_a_pass_too():
    masked = kft.pretraining.masked_batches(RECORDS[0] * 8, esm2().encode, 64, 16)
    assert len(masked) > 1
    for index in range(len(masked)):
        assert masked.epoch == 0
        masked.on_epoch_begin()
        masked[index]
        masked.on_epoch_end()
    assert masked.epoch == 1


@pytest.mark.once
def test_a_training_that_is_resumed_needs_whole_epochs():
    inputs = keras.Input((2 * COUNT,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mean_squared_error")
    batches = one_each()
    resume = callbacks.Resume(None, batches)
    with pytest.raises(ValueError, match="6 batches here, received steps_per_epoch=2"):
        model.fit(batches, steps_per_epoch=2, verbose=0, callbacks=[resume])
