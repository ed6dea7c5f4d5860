"""Callbacks: a guard of what is frozen, and the best weights over several calls of `fit`."""

import math

import keras
from keras.src.callbacks.monitor_callback import MonitorCallback

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
        self._check_compiled(self.model)
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
    def _check_compiled(model):
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
