"""Callbacks: a guard of frozen weights, the best weights, a file to resume from, several phases."""

import json
import math
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from kft.arguments import check_instance
from kft.files import atomic_write, ensure_writable, remove_unfinished
from kft.keras_internals import (
    MonitorCallback,
    is_default,
    learning_rate_of,
    optimizer_weights,
    set_initial_epoch,
)
from kft.messages import count_of, listed
from kft.params import digest, digests, weights


class FrozenGuard(keras.callbacks.Callback):
    """A callback that stops a training that would change, or has changed, frozen weights.

    Before training it compares the weights that the optimizer was built for with those that are
    marked trainable now: after a change of `trainable` without a new `compile`, TensorFlow trains
    the old layers, torch the new ones, and JAX stops with an obscure error. After training it
    compares the digest of each frozen weight with the one before.

    Raises:
        RuntimeError: In `fit`, at its begin or its end; the message names the weights.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = keras.ops.ones((4, 3)), keras.ops.ones((4, 1))
        >>> history = model.fit(x, y, verbose=0, callbacks=[FrozenGuard()])
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[str, str] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.check_compiled(self.model)
        self.before = digests(self.model)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        now = [weight for weight in weights(self.model) if weight.path in self.before]
        moved = [w.path for w in now if digest(w.variable) != self.before[w.path]]
        if moved:
            raise RuntimeError(
                f"{len(moved)} of {len(self.before)} frozen weights moved in training: "
                f"{listed(moved, 5)}. A callback or a custom layer assigned to them or marked "
                f"them trainable: check both. The weights of the model have changed; load them "
                f"again."
            )

    @staticmethod
    def check_compiled(model: keras.Model) -> None:
        """Raise an error where a model was compiled for other weights than are trainable now.

        Args:
            model: A Keras model.

        Raises:
            RuntimeError: Layers were marked differently since `compile`.
        """
        # An optimizer that is not built will be built for the weights that are trainable by then.
        # Those that wrap others (LossScaleOptimizer, MultiOptimizer) list all variables.
        if not getattr(model.optimizer, "built", False):
            return
        paths = {id(weight.variable): weight.path for weight in weights(model)}
        compiled = {id(v): paths.get(id(v), v.path) for v in optimizer_weights(model.optimizer)}
        marked = {id(v): paths.get(id(v), v.path) for v in model.trainable_variables}
        frozen = [path for key, path in compiled.items() if key not in marked]
        unfrozen = [path for key, path in marked.items() if key not in compiled]
        if frozen or unfrozen:
            what = {"frozen": frozen, "unfrozen": unfrozen}
            changed = "; ".join(f"{k} since: {listed(v, 5)}" for k, v in what.items() if v)
            raise RuntimeError(
                f"model {model.name!r} was compiled for other weights than are trainable now "
                f"({changed}): call compile again, after the last change of trainable."
            )


class KeepBest(MonitorCallback):
    """A callback that keeps the weights of the best epoch, over all calls of `fit` with it.

    All weights of the model are kept, frozen ones and statistics of BatchNormalization included;
    the optimizer's state is not.

    Args:
        monitor: Name in the logs of an epoch.
        mode: "min" or "max", which values are better; "auto" takes it from Keras for the loss and
            Keras's metrics.

    Attributes:
        best: Best value so far, None before there is one.
        epoch: Epoch of the best value, from 0 over all calls of `fit`.

    Raises:
        ValueError: Unknown mode; in `fit`, no `monitor` in the logs of an epoch.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x, y = keras.ops.ones((4, 3)), keras.ops.ones((4, 1))
        >>> best = KeepBest(monitor="loss")
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[best])
        >>> best.restore() == best.epoch
        True
    """

    def __init__(self, monitor: str = "val_loss", mode: Literal["auto", "min", "max"] = "auto"):
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be auto, min or max, received {mode!r}.")
        super().__init__(monitor, mode)
        self.epoch: int | None = None
        self._ended = 0
        self._weights: dict[str, np.ndarray] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if self.monitor not in logs:
            raise ValueError(
                f"monitor is {self.monitor!r}, and the logs of epoch {epoch} hold "
                f"{', '.join(logs) or 'nothing'}: choose one of them, or give fit "
                f"validation_data at every epoch."
            )
        value = float(logs[self.monitor])
        if not math.isnan(value) and self.improves(value):
            self.best, self.epoch = value, self._ended
            self._weights = {
                weight.path: keras.ops.convert_to_numpy(weight.variable).copy()
                for weight in weights(self.model)
            }
        self._ended += 1

    def get_state(self) -> dict[str, Any]:
        """Return what the callback has kept, for `set_state`.

        Returns:
            Dict of `best`, `epoch`, `ended` (epochs so far) and `weights` (arrays by path).
        """
        return {
            "best": self.best,
            "epoch": self.epoch,
            "ended": self._ended,
            "weights": self._weights,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what another callback has kept.

        Args:
            state: Of `get_state`; other names in it are ignored.
        """
        self.best, self.epoch, self._ended = state["best"], state["epoch"], state["ended"]
        self._weights = dict(state["weights"])

    def restore(self) -> int:
        """Set the weights of the model to those of the best epoch.

        Returns:
            The epoch, from 0 over all calls of `fit`.

        Raises:
            RuntimeError: No epoch was kept.
            ValueError: The model has other weights by now.
        """
        if self.epoch is None:
            why = (
                f"{self.monitor!r} was NaN after {count_of(self._ended, 'epoch')}, so training has "
                "diverged: lower the learning rate"
                if self._ended
                else "no epoch has ended: give this callback to fit first"
            )
            raise RuntimeError(f"there are no weights to restore; {why}.")
        present = {weight.path: weight.variable for weight in weights(self.model)}
        if present.keys() != self._weights.keys():
            other = sorted(present.keys() ^ self._weights.keys())
            raise ValueError(
                f"the weights of the model are not those that were kept: {listed(other, 5)} were "
                f"added or removed. Restore before layers are changed."
            )
        for path, variable in present.items():
            variable.assign(self._weights[path])
        return self.epoch


class Resume(keras.callbacks.Callback):
    """A callback that keeps a training in one file, and continues it after an interruption.

    At the end of each epoch, weights, the optimizer's state, states of random generators and the
    logs so far are written to another file that is then renamed, so that the file is whole at any
    moment. A training that is killed and started again ends, on a CPU, with the same bits as one
    that was not, if its batches depend on their epoch and index alone, as those of `kft.batches`
    and `kft.pretraining.masked_batches` do; a plain `keras.Model` shuffles them with Python's
    `random` unless `fit` is given `shuffle=False`, and kft's own models do not. Epochs that are
    done are not run again: `fit` with the same number of epochs runs the rest. An epoch that was
    stopped in its middle is run again. States of other callbacks are not kept, and not the phases
    of `kft.fit`, which makes batches of its own.

    Args:
        path: Path of the file; None keeps nothing but the logs.
        batches: Batches that `fit` is given, so that it continues with the right epoch; None where
            every epoch has the same data.
        settings: Dict of settings, numbers and strings, that must be the same when it continues.
        earlier_names: {name that earlier versions wrote: present name in `settings`}.

    Attributes:
        logs: List of dicts, one per epoch, those before an interruption included: epoch, seconds
            and what Keras logged.
        diverged: Whether a loss or a weight was NaN or infinity; such an epoch is not kept.

    Raises:
        ValueError: In `fit`, where the file is damaged or belongs to another training, or where
            `steps_per_epoch` is not the number of the batches.
        OSError: In `fit`, before the first epoch, where the file cannot be written.

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

    def __init__(
        self,
        path: Path | str | None,
        batches: keras.utils.PyDataset | None = None,
        settings: dict | None = None,
        earlier_names: dict[str, str] | None = None,
    ):
        super().__init__()
        self.path = None if path is None else Path(path)
        self.batches, self.settings = batches, settings or {}
        self.earlier_names = earlier_names or {}
        self.logs: list[dict] = []
        self.diverged = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        set_initial_epoch(self.model, None)  # of a training that ended with an error
        self._check_whole_epochs()
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self.logs, self.diverged = [], False
        # Now: a callback that changes the learning rate changes the settings of the optimizer, too.
        self.signature = self._signature()
        if self.path is not None:
            ensure_writable(self.path.parent)
            remove_unfinished(self.path)
            if self.path.exists():
                self._restore(self.path)
        self.began = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        set_initial_epoch(self.model, None)  # Keras has read it
        self.seen = 0
        if self.batches is not None:  # Keras may have ended an epoch of theirs before the first
            self.batches.go_to(epoch)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.seen = batch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {name: float(value) for name, value in (logs or {}).items()}
        values = [keras.ops.convert_to_numpy(v.value) for v in self._variables()]
        weights = values[: len(self.model.variables)]
        numbers = [logs.get("loss", 0.0), *(x for x in weights if x.dtype.kind not in "biu")]
        if not all(np.isfinite(np.asarray(x, "float32")).all() for x in numbers):
            self.diverged = self.model.stop_training = True
        if self.diverged or self.seen < (self.params.get("steps") or 0):
            return  # stopped within the epoch, which is run again
        now = time.perf_counter()
        self.logs.append({"epoch": epoch, "seconds": now - self.began, **logs})
        self.began = now
        if self.path is not None:
            self._keep(self.path, values)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        set_initial_epoch(self.model, None)  # no epoch was left, and none has begun

    def _variables(self) -> list[keras.Variable]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def _check_whole_epochs(self) -> None:
        steps = self.params.get("steps")
        if self.batches is not None and steps and steps != len(self.batches):
            raise ValueError(
                f"Resume needs epochs in which each record comes once, {len(self.batches)} batches "
                f"here, received steps_per_epoch={steps}: leave it out, and give more epochs."
            )

    def _signature(self) -> dict[str, Any]:
        """The settings that identify the training: weights, optimizer and `settings`."""
        optimizer = keras.saving.serialize_keras_object(self.model.optimizer)["config"]
        signature = {
            "weights": [f"{v.name} {tuple(v.shape)} {v.dtype}" for v in self.model.variables],
            "optimizer": {key: value for key, value in optimizer.items() if key != "name"},
            **self.settings,
        }
        return json.loads(json.dumps(signature, default=repr))

    def _keep(self, path: Path, values: Sequence[np.ndarray]) -> None:
        # numpy's files have no bfloat16; float32 holds it exactly.
        arrays: dict[str, Any] = {
            str(i): x.astype("float32") if x.dtype.name == "bfloat16" else x
            for i, x in enumerate(values)
        }
        record = {"signature": self.signature, "logs": self.logs}
        with atomic_write(path) as stream:
            np.savez(stream, about=json.dumps(record), **arrays)

    def _restore(self, path: Path) -> None:
        variables = self._variables()
        with open(path, "rb") as stream:
            try:
                with np.load(stream) as kept:
                    record = json.loads(str(kept["about"]))
                    values = [kept[str(i)] for i in range(len(kept.files) - 1)]
                then, logs = record["signature"], record["logs"]
            except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                raise ValueError(
                    f"{path} is damaged ({error}): remove it to begin again."
                ) from error
        now = _current(self.signature)
        then = {self.earlier_names.get(k, k): v for k, v in _current(then).items()}
        differ = [name for name in {**now, **then} if now.get(name) != then.get(name)]
        if differ or len(values) != len(variables):
            raise ValueError(
                f"{path} belongs to another training, which differs in its "
                f"{' and '.join(differ) or 'weights'}: name another file, or remove this one. "
                f"(Another number of epochs or steps is another optimizer where the learning rate "
                f"follows a schedule.)"
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.logs = logs
        # As Keras's own BackupAndRestore does: there is no public way.
        set_initial_epoch(self.model, self.logs[-1]["epoch"] + 1)


def _current(stored: Any) -> Any:
    """A signature in the names of this version, whatever version has written it."""
    if isinstance(stored, list):
        return [_current(x) for x in stored]
    if not isinstance(stored, dict):
        return stored
    name = str(stored.get("registered_name"))
    if name.startswith("kft>"):  # a schedule, for example
        config = keras.saving.deserialize_keras_object(stored).get_config()
        return {"registered_name": name, "config": _current(json.loads(json.dumps(config)))}
    return {key: _current(value) for key, value in stored.items()}


class OneRun(keras.callbacks.Callback):
    """A callback that shows several calls of `fit` to other callbacks as one run.

    They begin once and end once, by `finish`, and receive the number of epochs of all calls. For
    epochs that number on, give `initial_epoch` to each call.

    Args:
        callbacks: Keras callbacks.
        epochs: Epochs of all calls together.

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

    def __init__(self, callbacks: Iterable[keras.callbacks.Callback], epochs: int):
        super().__init__()
        self.callbacks, self.epochs = list(callbacks), epochs
        self._begun = False
        self._logs: dict[str, Any] | None = None
        hooks = {hook for hook in dir(keras.callbacks.Callback) if hook.startswith("on_")}
        for hook in hooks - {"on_train_begin", "on_train_end"}:
            # A hook that none of them defines stays Keras's, which need not wait for each batch.
            if not all(is_default(getattr(x, hook)) for x in self.callbacks):
                setattr(self, hook, partial(self._forward, hook))

    def _forward(self, hook: str, *args: Any, **kwargs: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(*args, **kwargs)

    def set_model(self, model: keras.Model) -> None:
        """Give the model to all callbacks."""
        super().set_model(model)
        self._forward("set_model", model)

    def set_params(self, params: dict[str, Any]) -> None:
        """Give the settings of `fit` to all callbacks, with the number of all epochs."""
        super().set_params({**params, "epochs": self.epochs})
        self._forward("set_params", self.params)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._begun:
            self._begun = True
            self._forward("on_train_begin", logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._logs = logs

    def finish(self) -> None:
        """End the run, if it has begun."""
        if self._begun:
            self._forward("on_train_end", self._logs)


def check_callbacks(callbacks: Any) -> list[keras.callbacks.Callback]:
    """Return callbacks as a list, after checking that they are callbacks.

    Args:
        callbacks: What was given.

    Raises:
        TypeError: It is not a list of instances of `keras.callbacks.Callback`.
    """
    expected = "a list of keras.callbacks.Callback"
    found = list(check_instance("callbacks", callbacks, Iterable, expected))
    for i, callback in enumerate(found):
        if isinstance(callback, type):
            raise TypeError(
                f"callbacks[{i}] must be an object, received the class {callback.__name__}: write "
                f"{callback.__name__}()."
            )
        check_instance(f"callbacks[{i}]", callback, keras.callbacks.Callback, "a Keras callback")
    return found


def require_constant_learning_rate(
    callbacks: Iterable[keras.callbacks.Callback], optimizer: keras.optimizers.Optimizer
) -> None:
    """Raise an error for callbacks that set the learning rate where it follows a schedule.

    Keras would raise a TypeError in the epoch in which one of them sets it for the first time.

    Args:
        callbacks: Keras callbacks.
        optimizer: A Keras optimizer, or one that holds others.

    Raises:
        ValueError: There is such a callback; the message names the first.

    Example:
        >>> callback = keras.callbacks.ReduceLROnPlateau()
        >>> require_constant_learning_rate([callback], keras.optimizers.SGD())
    """
    setting = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
    name = next((type(x).__name__ for x in callbacks if isinstance(x, setting)), None)
    if name and _follows_schedule(optimizer):
        raise ValueError(
            f"{name} sets the learning rate, which follows a schedule here: leave the callback "
            f"out, or take an optimizer with a constant learning rate; for kft.fit for example "
            f"optimizer=lambda learning_rate, variables: keras.optimizers.AdamW(1e-3)."
        )


def _follows_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    inner = getattr(optimizer, "optimizers", [optimizer])
    schedule = keras.optimizers.schedules.LearningRateSchedule
    return any(isinstance(learning_rate_of(x), schedule) for x in inner)
