"""A file from which `kft.fit` continues: weights, optimizer, phases, logs and the best weights.

Frozen features are in a folder next to it until the phase that computes them has ended.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.files import atomic_write, ensure_writable, remove_unfinished
from kft.params import weights
from kft.training.batching import Batches
from kft.training.callbacks import KeepBest
from kft.training.optimizers import Optimizers


class Resumption(keras.callbacks.Callback):
    """A callback that keeps a training of several phases in one file, and continues it.

    At the end of each epoch all that the next one depends on is written to another file, which is
    then renamed, so that the file is whole at any moment. On the same backend and processor a
    training that was killed ends with the same weights as one that was not. States of callbacks of
    the user are not kept.

    Args:
        path: Path of the file; None keeps nothing.
        settings: Numbers and strings that must be the same when the training continues.
        best: The callback that keeps the best weights, or None.
        optimizers: The optimizers of all phases.

    Attributes:
        rows: One dict per epoch that was kept: phase, epoch, and what Keras logged.
        reports: One dict per phase that has ended.
    """

    def __init__(
        self,
        path: Path | str | None,
        settings: Mapping[str, Any],
        best: KeepBest | None,
        optimizers: Optimizers,
    ):
        super().__init__()
        self.path = None if path is None else Path(path)
        self.settings = json.loads(json.dumps(settings, default=repr))
        self.best, self.optimizers = best, optimizers
        self.rows: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self._optimizer: list[np.ndarray] | None = None
        self._phase, self._seen = 0, 0
        self._before: dict[str, Any] = {}

    def open(self, model: keras.Model) -> None:
        """Read the file, if there is one, and set the weights that it holds.

        Args:
            model: The model, prepared by its strategy.

        Raises:
            OSError: The file cannot be written.
            ValueError: It is damaged or belongs to another training.
        """
        if self.path is None:
            return
        ensure_writable(self.path.parent)
        remove_unfinished(self.path)
        self.settings["weights"] = [f"{w.path} {tuple(w.variable.shape)}" for w in weights(model)]
        if not self.path.exists():
            return
        about, arrays = read(self.path)
        differ = [k for k, value in self.settings.items() if about["settings"].get(k) != value]
        if differ or len(arrays["model"]) != len(model.variables):
            raise ValueError(
                f"{self.path} belongs to another training, which differs in its "
                f"{' and '.join(differ) or 'weights'}: name another file, or remove this one."
            )
        for variable, value in zip(model.variables, arrays["model"], strict=True):
            variable.assign(value)
        self.rows, self.reports = about["rows"], about["reports"]
        self._optimizer = arrays["optimizer"]
        self.optimizers.since = about["since"]
        self.optimizers.steps = {int(phase): steps for phase, steps in about["steps"].items()}
        self.optimizers.reduction = about["reduction"]
        self.optimizers.slots = {}
        for (path, slot), value in zip(about["slots"], arrays["slots"], strict=True):
            self.optimizers.slots.setdefault(path, {})[slot] = value
        if self.best is not None and about["best"] is not None:
            self.best.set_model(model)  # as Keras does in a phase that is not run any more
            self.best.set_state({**about["best"], "weights": _best(about, arrays)})

    @property
    def features(self) -> Path | None:
        """Folder of the frozen features of the present phase; None if nothing is kept."""
        return None if self.path is None else self.path.with_name(f"{self.path.name}.features")

    def forget_features(self) -> None:
        """Remove the frozen features, when the phase that they were computed for has ended."""
        if self.features is not None:
            shutil.rmtree(self.features, ignore_errors=True)

    def begin(self, phase: int, reports: Sequence[Mapping[str, Any]]) -> int:
        """Begin a phase, or continue it.

        Args:
            phase: Number of the phase, from 0.
            reports: Of the phases before it.

        Returns:
            How many of its epochs were kept.
        """
        self._phase, self.reports = phase, [dict(report) for report in reports]
        own = self.optimizers
        slots = [(path, name, x) for path, of in own.slots.items() for name, x in of.items()]
        self._before = {
            "since": dict(own.since),
            "steps": dict(own.steps),
            "reduction": own.reduction,
            "slots": slots,
        }
        return sum(row["phase"] == phase for row in self.rows)

    def restore(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Give the optimizer of the phase that is continued the state that was kept.

        Args:
            optimizer: As it was made for this phase, and built.
        """
        for variable, value in zip(optimizer.variables, self._optimizer or (), strict=False):
            variable.assign(value)
        self._optimizer = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._seen = batch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.path is None or self._seen < (self.params.get("steps") or 0):
            return  # stopped within the epoch, which is run again
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"phase": self._phase, "epoch": epoch, **numbers})
        self._write(self.path)

    def _write(self, path: Path) -> None:
        best = None if self.best is None else self.best.get_state()
        kept = {} if best is None else best.pop("weights")
        slots = self._before["slots"]
        arrays = {
            "model": [keras.ops.convert_to_numpy(v.value) for v in self.model.variables],
            "optimizer": [
                keras.ops.convert_to_numpy(v.value) for v in self.model.optimizer.variables
            ],
            "slots": [value for _, _, value in slots],
            "best": list(kept.values()),
        }
        about = {
            **self._before,
            "slots": [(weight, name) for weight, name, _ in slots],
            "settings": self.settings,
            "rows": self.rows,
            "reports": self.reports,
            "best": None if best is None else {**best, "paths": list(kept)},
        }
        # numpy's files have no bfloat16; float32 holds it exactly.
        named = {
            f"{kind} {i}": x.astype("float32") if x.dtype.name == "bfloat16" else x
            for kind, values in arrays.items()
            for i, x in enumerate(values)
        }
        with atomic_write(path) as stream:
            np.savez(stream, about=np.array(json.dumps(about)), **named)


def read(path: Path | str) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Read the file of a `Resumption`.

    Args:
        path: Path of the file.

    Returns:
        What was kept in words and numbers, and the arrays by kind: model, optimizer, slots, best.

    Raises:
        ValueError: The file is damaged.
    """
    with open(path, "rb") as stream:
        try:
            with np.load(stream) as kept:
                about = json.loads(str(kept["about"]))
                arrays: dict[str, list[np.ndarray]] = {
                    kind: [] for kind in ("model", "optimizer", "slots", "best")
                }
                for name in kept.files:
                    if name != "about":
                        arrays[name.partition(" ")[0]].append(kept[name])
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is damaged ({error}): remove it to begin again.") from error
    return about, arrays


def restore_best(model: keras.Model, path: Path | str) -> int:
    """Give a model the best weights that an interrupted training has kept so far.

    Args:
        model: The model, prepared by its strategy.
        path: Path of the file of `kft.fit`'s `resume`.

    Returns:
        The number of epochs that had ended.

    Raises:
        ValueError: The file is damaged, or of another model.
    """
    about, arrays = read(path)
    best = _best(about, arrays) if about["best"] else {}
    present = {weight.path: weight.variable for weight in weights(model)}
    if best and best.keys() == present.keys():
        for name, value in best.items():
            present[name].assign(value)
        return len(about["rows"])
    if len(arrays["model"]) != len(model.variables):
        raise ValueError(f"{path} holds the weights of another model than {model.name}.")
    for variable, value in zip(model.variables, arrays["model"], strict=True):
        variable.assign(value)
    return len(about["rows"])


def _best(about: Mapping[str, Any], arrays: Mapping[str, list[np.ndarray]]) -> dict:
    return dict(zip(about["best"]["paths"], arrays["best"], strict=True))


def digest_of_records(records: tuple[Batches, Batches | None]) -> str:
    """Return a digest of inputs (of files their paths), targets and weights.

    Args:
        records: Batches to train on, and to validate on or None.
    """
    digest = hashlib.sha256()
    for part in records:
        for column in () if part is None else (part.inputs, part.targets, part.weights):
            for value in [] if column is None else column:
                array = np.asarray(str(value) if isinstance(value, PathLike) else value)
                content = repr(value).encode() if array.dtype == object else array.tobytes()
                digest.update(f"{array.dtype} {array.shape} ".encode() + content)
    return digest.hexdigest()
