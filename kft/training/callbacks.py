"""Callbacks: a guard of what is frozen, the best weights, a file to resume from, runs of phases."""

import json
import math
import time
import zipfile
from functools import partial
from pathlib import Path

import keras
import numpy as np
from keras.src.callbacks.monitor_callback import MonitorCallback

from kft.files import atomic_write, ensure_writable, remove_unfinished
from kft.params import digest, digests, weights
from kft.params.paths import listed


class FrozenGuard(keras.callbacks.Callback):
    """Stops a training that would touch, or has touched, what is frozen.

    Before training it compares what the optimizer was built for with what is marked now: after a
    change of `trainable` without a new `compile`, TensorFlow trains the old layers, torch the new
    ones, and JAX stops with an obscure error. After training it compares the digest of each
    frozen weight with the one before.

    Raises:
        RuntimeError: in `fit`, at its begin or its end; the message names the weights.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = keras.ops.ones((4, 3)), keras.ops.ones((4, 1))
        >>> history = model.fit(x, y, verbose=0, callbacks=[FrozenGuard()])
    """

    def __init__(self):
        super().__init__()
        self.before = {}

    def on_train_begin(self, logs=None):
        self.check_compiled(self.model)
        self.before = digests(self.model)

    def on_train_end(self, logs=None):
        now = [weight for weight in weights(self.model) if weight.path in self.before]
        moved = [w.path for w in now if digest(w.variable) != self.before[w.path]]
        if moved:
            raise RuntimeError(
                f"{len(moved)} of {len(self.before)} frozen weights moved in training: "
                f"{listed(moved, 5)}. Something assigned to them, or marked them as learning "
                f"meanwhile: look at the callbacks and at custom layers. The model's weights are "
                f"no longer those that it began with; load them again."
            )

    @staticmethod
    def check_compiled(model):
        """Raises where a model was compiled for other weights than those marked now."""
        # An optimizer that is not built will be built for what is marked by then. Those that wrap
        # others (LossScaleOptimizer, MultiOptimizer) know all variables themselves.
        if not getattr(model.optimizer, "built", False):
            return
        paths = {id(weight.variable): weight.path for weight in weights(model)}
        compiled = {id(v): paths.get(id(v), v.path) for v in model.optimizer._trainable_variables}
        marked = {id(v): paths.get(id(v), v.path) for v in model.trainable_variables}
        frozen = [path for key, path in compiled.items() if key not in marked]
        unfrozen = [path for key, path in marked.items() if key not in compiled]
        if frozen or unfrozen:
            what = {"frozen": frozen, "unfrozen": unfrozen}
            said = "; ".join(f"{k} since: {listed(v, 5)}" for k, v in what.items() if v)
            raise RuntimeError(
                f"model {model.name!r} was compiled for other weights than those marked now "
                f"({said}): call compile again, after the last change of trainable."
            )


class KeepBest(MonitorCallback):
    """Keeps the weights of the best epoch, over all calls of `fit` that it is given to.

    All of the model's weights are kept, whatever learns in the present phase, statistics of
    BatchNormalization included; the optimizer's state is not.

    Args:
        monitor: name in the logs of an epoch.
        mode: "min" or "max" says which values are better; "auto" asks Keras, which knows the
            loss and its own metrics.

    Attributes:
        best: the best value so far, None before there is one.
        epoch: its epoch, counted from 0 over all calls of `fit`.

    Raises:
        ValueError: unknown mode; in `fit`, no `monitor` in the logs of an epoch.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = keras.ops.ones((4, 3)), keras.ops.ones((4, 1))
        >>> best = KeepBest(monitor="loss")
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[best])
        >>> best.restore() == best.epoch
        True
    """

    def __init__(self, monitor="val_loss", mode="auto"):
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be auto, min or max, received {mode!r}.")
        super().__init__(monitor, mode)
        self.epoch = None
        self._ended = 0
        self._weights = {}

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"monitor is {self.monitor!r}, and the logs of epoch {epoch} hold "
                f"{', '.join(logs) or 'nothing'}: choose one of them, or give fit "
                f"validation_data at every epoch."
            )
        if self.monitor_op is None:
            self._set_monitor_op()
        value = float(logs[self.monitor])
        if not math.isnan(value) and self._is_improvement(value, self.best):
            self.best, self.epoch = value, self._ended
            self._weights = {
                weight.path: keras.ops.convert_to_numpy(weight.variable).copy()
                for weight in weights(self.model)
            }
        self._ended += 1

    def restore(self):
        """Puts the weights of the best epoch back into the model.

        Returns:
            int, the epoch, counted from 0 over all calls of `fit`.

        Raises:
            RuntimeError: there is none to go back to.
            ValueError: the model has other weights by now.
        """
        if not self._weights:
            why = (
                f"{self.monitor!r} was a number in none of {self._ended} epochs, so training has "
                f"diverged: lower the learning rate"
                if self._ended
                else "no epoch has ended: give this callback to fit first"
            )
            raise RuntimeError(f"there are no weights to restore; {why}.")
        present = {weight.path: weight.variable for weight in weights(self.model)}
        if present.keys() != self._weights.keys():
            other = sorted(present.keys() ^ self._weights.keys())
            raise ValueError(
                f"the model's weights are not those that were kept: {listed(other, 5)} came or "
                f"went. Restore before layers are changed."
            )
        for path, variable in present.items():
            variable.assign(self._weights[path])
        return self.epoch


class Resume(keras.callbacks.Callback):
    """Keeps a training in one file, and goes on from there after it was stopped or killed.

    At the end of each epoch, weights, the optimizer's state, states of random generators and the
    logs so far are written aside and renamed, so that the file is whole at any moment. A training
    that is killed and begun again ends, on a CPU, with the same bits as one that was not, where its
    batches follow from their epoch and index alone, as those of `kft.batches` and
    `kft.pretraining.masked_batches` do; a plain `keras.Model` shuffles them with Python's `random`,
    unless `fit` is told `shuffle=False`, and kft's own models do not. Epochs that are done are not
    run again: `fit` with the same number of epochs runs the rest. An epoch that was stopped in its
    middle is run anew. States of other callbacks are not kept, and not the phases of `kft.fit`,
    which makes batches of its own.

    Args:
        path: of the file; None keeps nothing but the logs.
        batches: what `fit` is given, so that it goes on with the right epoch; None where every
            epoch has the same data.
        about: dict of what else must not differ when it goes on, numbers and strings.

    Attributes:
        logs: list of dicts, one per epoch, those before an interruption included: epoch, seconds
            and what Keras logged.
        diverged: whether a loss or a weight was no number any more; such an epoch is not kept.

    Raises:
        ValueError: in `fit`, where the file is damaged or belongs to another training, or where
            `steps_per_epoch` is not the number of the batches.
        OSError: in `fit`, before the first epoch, where nothing can be written there.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x, y = keras.ops.ones((4, 3)), keras.ops.ones((4, 1))
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for epochs in (1, 3):
        ...     resume = Resume(f"{folder.name}/state.npz")
        ...     _ = model.fit(x, y, epochs=epochs, shuffle=False, verbose=0, callbacks=[resume])
        ...     len(resume.logs)
        1
        3
        >>> folder.cleanup()
    """

    def __init__(self, path, batches=None, about=None):
        super().__init__()
        self.path = None if path is None else Path(path)
        self.batches, self.about = batches, about or {}
        self.logs, self.diverged = [], False

    def on_train_begin(self, logs=None):
        self.model._initial_epoch = None  # of a training that ended with an error
        self._check_whole_epochs()
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self.logs, self.diverged = [], False
        # Now: a callback that changes the rate changes the optimizer's settings, too.
        self.signature = self._signature()
        if self.path is not None:
            ensure_writable(self.path.parent)
            remove_unfinished(self.path)
            if self.path.exists():
                self._restore()
        self.began = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.model._initial_epoch = None  # Keras has read it
        self.seen = 0
        if self.batches is not None:  # Keras may have ended an epoch of theirs before the first
            self.batches.go_to(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.seen = batch + 1

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in (logs or {}).items()}
        values = [keras.ops.convert_to_numpy(v.value) for v in self._variables()]
        weights = values[: len(self.model.variables)]
        numbers = [logs.get("loss", 0.0), *(x for x in weights if x.dtype.kind not in "biu")]
        if not all(np.isfinite(np.asarray(x, "float32")).all() for x in numbers):
            self.diverged = self.model.stop_training = True
        if self.diverged or self.seen < (self.params.get("steps") or 0):
            return  # stopped within the epoch, which is run anew
        now = time.perf_counter()
        self.logs.append({"epoch": epoch, "seconds": now - self.began, **logs})
        self.began = now
        if self.path is not None:
            self._keep(values)

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None  # no epoch was left, and none has begun

    def _variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def _check_whole_epochs(self):
        steps = self.params.get("steps")
        if self.batches is not None and steps and steps != len(self.batches):
            raise ValueError(
                f"Resume needs epochs in which each record comes once, {len(self.batches)} batches "
                f"here, received steps_per_epoch={steps}: leave it out, and give more epochs."
            )

    def _signature(self):
        """What the training is: its weights, its optimizer, and what else it was told."""
        optimizer = keras.saving.serialize_keras_object(self.model.optimizer)["config"]
        found = {
            "weights": [f"{v.name} {tuple(v.shape)} {v.dtype}" for v in self.model.variables],
            "optimizer": {key: value for key, value in optimizer.items() if key != "name"},
            **self.about,
        }
        return json.loads(json.dumps(found, default=repr))

    def _keep(self, values):
        # numpy's files know no bfloat16; float32 holds it exactly.
        arrays = {
            str(i): x.astype("float32") if x.dtype.name == "bfloat16" else x
            for i, x in enumerate(values)
        }
        said = {"signature": self.signature, "logs": self.logs}
        with atomic_write(self.path) as stream:
            np.savez(stream, about=json.dumps(said), **arrays)

    def _restore(self):
        variables = self._variables()
        with open(self.path, "rb") as stream:
            try:
                with np.load(stream) as kept:
                    said = json.loads(str(kept["about"]))
                    values = [kept[str(i)] for i in range(len(kept.files) - 1)]
                then, logs = said["signature"], said["logs"]
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(
                    f"{self.path} is damaged ({error}): remove it to begin anew."
                ) from error
        now = self.signature
        differ = [name for name in {**now, **then} if now.get(name) != then.get(name)]
        if differ or len(values) != len(variables):
            raise ValueError(
                f"{self.path} belongs to another training, which differs in its "
                f"{' and '.join(differ) or 'weights'}: name another file, or remove this one. "
                f"(Another number of epochs or steps is another optimizer where the learning rate "
                f"follows a schedule.)"
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.logs = logs
        # As Keras's own BackupAndRestore does: there is no public way.
        self.model._initial_epoch = self.logs[-1]["epoch"] + 1


class OneRun(keras.callbacks.Callback):
    """Shows several calls of `fit` to callbacks as one run.

    They begin once and end once, by `finish`, and are told the epochs of all calls; that the epochs
    number on is up to `initial_epoch` of each call.

    Args:
        callbacks: of Keras.
        epochs: of all calls together.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = keras.ops.ones((4, 3)), keras.ops.ones((4, 1))
        >>> seen = keras.callbacks.History()
        >>> run = OneRun([seen], epochs=3)
        >>> for begin, end in ((0, 1), (1, 3)):
        ...     _ = model.fit(x, y, initial_epoch=begin, epochs=end, verbose=0, callbacks=[run])
        >>> run.finish()
        >>> seen.epoch
        [0, 1, 2]
    """

    def __init__(self, callbacks, epochs):
        super().__init__()
        self.callbacks, self.epochs = list(callbacks), epochs
        self._begun, self._logs = False, None
        hooks = {hook for hook in dir(keras.callbacks.Callback) if hook.startswith("on_")}
        for hook in hooks - {"on_train_begin", "on_train_end"}:
            # One that none of them has stays Keras's own, so that it need not wait for each batch.
            if not all(getattr(getattr(x, hook), "_is_default", False) for x in self.callbacks):
                setattr(self, hook, partial(self._forward, hook))

    def _forward(self, hook, *args, **kwargs):
        for callback in self.callbacks:
            getattr(callback, hook)(*args, **kwargs)

    def set_model(self, model):
        super().set_model(model)
        self._forward("set_model", model)

    def set_params(self, params):
        super().set_params({**params, "epochs": self.epochs})
        self._forward("set_params", self.params)

    def on_train_begin(self, logs=None):
        if not self._begun:
            self._begun = True
            self._forward("on_train_begin", logs)

    def on_train_end(self, logs=None):
        self._logs = logs

    def finish(self):
        """Ends the run, if it has begun."""
        if self._begun:
            self._forward("on_train_end", self._logs)


def insist_on_constant_rate(callbacks, optimizer):
    """Refuses callbacks that set the learning rate where it follows a schedule.

    Keras would raise a TypeError in the epoch in which one of them sets it for the first time.

    Args:
        callbacks: of Keras.
        optimizer: what they would set the rate of; optimizers that hold others are looked into.

    Raises:
        ValueError: the first such callback.

    Example:
        >>> insist_on_constant_rate([keras.callbacks.ReduceLROnPlateau()], keras.optimizers.SGD())
    """
    setting = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
    found = next((type(x).__name__ for x in callbacks if isinstance(x, setting)), None)
    if found and _follows_schedule(optimizer):
        raise ValueError(
            f"{found} sets the learning rate, which follows a schedule here: leave the callback "
            f"out, or take an optimizer of a constant rate; for kft.fit that is for example "
            f"make=lambda schedule, variables: keras.optimizers.AdamW(1e-3)."
        )


def _follows_schedule(optimizer):
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    inner = getattr(optimizer, "optimizers", [optimizer])
    schedule = keras.optimizers.schedules.LearningRateSchedule
    return any(isinstance(getattr(x, "_learning_rate", None), schedule) for x in inner)
