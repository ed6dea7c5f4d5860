"""The folder of a run: what its files are called, how they are written, and `Run`, which reads it.

config.json       settings, versions, checksum of the data, columns, classes, status
split.csv         for each record its split, and its line in the file
model.keras       the model; or adapter/, for LoRA, with the name of the backbone
history.csv       one row per epoch
predictions.csv   records of the test split, with their true targets
scores.json       scores on the test split, of the model and of baselines
preparation.json  of rows of a table: how missing values are filled
findings.json     what `kft.explore` found in the data
log.txt           the lines that were printed
training.npz      only while a training is not finished: the state from which it continues
"""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from kft.comparison.scoring import score_split
from kft.data.cells import Table
from kft.data.task import Task
from kft.evaluation.metrics import Interval, Scores
from kft.evaluation.metrics import table as score_table
from kft.files import atomic_write
from kft.finetuning.models import PreparedRows, new_model, strategy_of
from kft.finetuning.reading import as_classes, read_whole
from kft.finetuning.settings import Settings
from kft.inference import predict
from kft.inference.records import is_table
from kft.messages import count_of, harmless_cell, warn
from kft.models import load_model
from kft.preparation import load as load_preparation
from kft.training.resuming import restore_best

CONFIG, MODEL, ADAPTER, TRAINING = "config.json", "model.keras", "adapter", "training.npz"
SPLIT, HISTORY, PREDICTIONS = "split.csv", "history.csv", "predictions.csv"
SCORES, FINDINGS, LOG = "scores.json", "findings.json", "log.txt"
PREPARATION = "preparation.json"
FORMAT = 1  # of the folder; a change that earlier versions cannot read raises it


class Run:
    """One fine-tuning in its folder.

    Args:
        folder: The folder, which `finetune` has written.
        backbone: Where the backbone of an adapter is, if it is not where it was.

    Attributes:
        folder: Its path.
        config: Content of config.json.

    Raises:
        FileNotFoundError: There is no run in the folder.
        ValueError: It was written by a later version of kft, or is damaged.

    Example:
        `Run("run").predict("new.csv", out="predictions.csv")`
    """

    def __init__(self, folder: Path | str, backbone: str | None = None):
        self.folder, self.backbone = Path(folder), backbone
        self.config = read_config(self.folder)

    @property
    def settings(self) -> Settings:
        """The settings of the run."""
        return Settings.from_dict(self.config["settings"])

    @property
    def finished(self) -> bool:
        """Whether the training has ended and its results are written."""
        return self.config["status"] == "finished"

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Content of scores.json; empty while the run is not finished."""
        path = self.folder / SCORES
        return json.loads(path.read_text()) if path.exists() else {}

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """The predictions for the test split, with the true targets."""
        target = f"_{self.config['model']['target'] or 'target'}"
        words = dict.fromkeys((f"true{target}", f"predicted{target}", "prediction"), str)
        pairs = Task(self.config["data"]["task"]).per_pair  # then there are scores and no classes
        names = None if pairs else self.config["model"]["classes"]
        table = pd.read_csv(
            self.folder / PREDICTIONS, dtype=words if names else None, keep_default_na=not names
        )
        # As `harmless_cell` has written them, for spreadsheets.
        return table.replace({harmless_cell(name): name for name in names or ()})

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch."""
        return pd.read_csv(self.folder / HISTORY)

    @cached_property
    def model(self) -> keras.Model:
        """The fine-tuned model; of an interrupted training the best one so far, with a warning."""
        if (self.folder / MODEL).exists():
            model = load_model(self.folder / MODEL)
        elif self.finished:
            model = load_model(self.folder / ADAPTER, self.backbone)
        else:
            model = self._so_far()
        margins = self.config["result"].get("margins")
        if margins is not None:
            model.margins = tuple(margins)
        return model

    def _so_far(self) -> keras.Model:
        path = self.folder / TRAINING
        if not path.exists():
            raise ValueError(
                f"{self.folder} has no model yet, as its training was interrupted in the first "
                "epoch: run the same command again."
            )
        about = self.config["model"]
        model = strategy_of(about).prepare(new_model(about))
        epochs = restore_best(model, path)
        warnings.warn(
            f"{self.folder} is not finished: the best of its first {count_of(epochs, 'epoch')} is "
            "used. Run the same command again to train the rest.",
            stacklevel=2,
        )
        return model

    def predict(self, inputs: Any, **options: Any) -> Any:
        """Predict for new records.

        Args:
            inputs: As for `kft.predict`: a list, a DataFrame or a file.
            **options: As for `kft.predict`; by default the column, the batch size and the length
                are those of the training.

        Returns:
            As `kft.predict`. Predictions of numbers have two columns more, `_low` and `_high`, the
            interval that holds 90% of the targets where new records are like the validation split.
        """
        known: dict[str, Any] = {
            "column": self._column(inputs),
            "batch_size": self.settings.batch_size,
            "max_length": self.settings.max_length,
        }
        given = {name: value for name, value in options.items() if value is not None}
        if "window" in given:  # reads all residues
            known["max_length"] = None
        if not (self.folder / PREPARATION).exists():
            return predict(self.model, inputs, **{**known, **given})
        preparation = load_preparation(self.folder / PREPARATION)
        rows = PreparedRows(preparation, self.model.encode, self.settings.missing)
        found = predict(self.model, inputs, **{**known, "encode": rows, **given})
        if rows.filled:
            warn(f"{rows.filled:,} missing values were filled as in the training.")
        return found

    def evaluate(
        self,
        data: Path | str,
        target: str | None = None,
        sep: str | None = None,
        decimal: str | None = None,
    ) -> Scores:
        """Score the model on new records with targets.

        Args:
            data: Path of a table, or of any file that `finetune` reads.
            target: Column of the targets; None for that of the run.
            sep: Character between columns; None finds it.
            decimal: Decimal sign; None finds it.

        Returns:
            As `kft.evaluate`.

        Raises:
            ValueError: The new targets are of another task, or of classes that the model has not.
        """
        about, names = self.config["data"], columns_of(data)
        settings = self.settings
        if not names:  # no table
            settings = replace(settings, missing=None, dropna=False, categories=None)
        if settings.weights is not None and settings.weights not in names:
            warn(f"All records count alike: {data} has no column {settings.weights!r} of weights.")
            settings = replace(settings, weights=None)
        settings = replace(
            settings,
            data=str(data),
            target=target or self.config["model"]["target"] or self.settings.target,
            inputs=self._inputs(data),
            task=about["task"],
            split=None,
            groups=None,
            sep=sep,
            decimal=decimal,
        )
        new = as_classes(read_whole(settings), self.config["model"]["classes"])
        return score_split(new, "train", self.predict(new.train.inputs))

    def summary(self) -> dict[str, Any]:
        """Return status, sizes and scores as plain values, for JSON."""
        about = self.config
        return {
            "status": about["status"],
            "data": {name: about["data"][name] for name in ("source", "sha256", "task", "records")},
            "backbone": about["model"]["backbone"],
            "strategy": about["model"]["strategy"],
            "result": about["result"],
            "scores": self.scores,
        }

    def text(self) -> str:
        """Return the scores as a table, the model above the baselines."""
        if not self.scores:
            return f"{self.folder} is not finished: it has no scores yet."
        rows = {self.config["model"]["strategy"]: self.scores["model"]}
        rows |= self.scores.get("baselines", {})
        scores = {
            name: Scores({metric: _interval(x) for metric, x in of.items()})
            for name, of in rows.items()
        }
        title = (
            f"{self.config['data']['name']}, {count_of(self.scores['records'], 'record')} of test"
        )
        return f"{title}, with 95% intervals\n{score_table(scores).to_string()}"

    def _inputs(self, data: Any) -> str | list[str] | None:
        """The columns of the inputs, where the new data are a table that has them."""
        names = self.config["data"].get("inputs")
        if isinstance(names, list):
            return names
        return names if names is not None and names in columns_of(data) else None

    def _column(self, inputs: Any) -> str | None:
        column = self._inputs(inputs)
        return column if isinstance(column, str) else None


def _interval(values: dict[str, float | None]) -> Interval:
    return Interval(*(math.nan if x is None else x for x in values.values()))


def columns_of(inputs: Any) -> list[str]:
    """Return the names of the columns of a table; none for a list or a FASTA file.

    Args:
        inputs: As for `kft.predict`.
    """
    if hasattr(inputs, "columns"):
        return list(map(str, inputs.columns))
    if isinstance(inputs, str | Path) and Path(inputs).is_file() and is_table(Path(inputs)):
        return Table(inputs, None).header
    return []


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of a run.

    Args:
        folder: The folder of the run.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It was written by a later version of kft, or is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no run in {str(folder)!r} (from {Path.cwd()}): give a folder that "
            "`kft finetune --out FOLDER` has written."
        )
    try:
        config = json.loads(path.read_text())
        written = config["kft_run"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the record of a run of kft, or is damaged.") from error
    if written > FORMAT:
        raise ValueError(
            f"{path} was written by a later version of kft ({config['versions']['kft']}): install "
            "that version."
        )
    return config


def is_run(path: Path | str) -> bool:
    """Return whether a path is the folder of a run, and not of an adapter or a backbone."""
    try:
        read_config(Path(path))
    except (OSError, ValueError):
        return False
    return True


def trained_model(path: Path | str) -> keras.Model:
    """Load a fine-tuned model, whichever way it was kept.

    Args:
        path: Folder of a run; or a .keras file or the folder of an adapter, for `kft.load_model`.

    Raises:
        ValueError: It is none of these.

    Example:
        `trained_model("run").predict(...)`
    """
    return Run(path).model if is_run(path) else load_model(path)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all; NaN is written as null."""
    with atomic_write(path) as stream:
        text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
        stream.write((text + "\n").encode())


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file, whole or not at all."""
    with atomic_write(path) as stream:
        stream.write(table.to_csv(index=False).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Scores):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(x) for x in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
