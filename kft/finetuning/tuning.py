"""`finetune`: from a file and a few settings to a run, which an interruption does not lose."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from kft.arguments import check_callable, check_flag, check_instance, check_path
from kft.comparison.progress import duration
from kft.comparison.runs import digest_of_data
from kft.comparison.scoring import baseline_rows, score_split, scored_part
from kft.data import Dataset, Split
from kft.data.task import ANGLES, OF_TABLES, Task
from kft.evaluation.metrics import Scores
from kft.evaluation.structures import measure_pairs
from kft.exploration import explore
from kft.files import atomic_write, ensure_writable, only_writer
from kft.finetuning import folder as files
from kft.finetuning.folder import Run, write_json, write_table
from kft.finetuning.models import described, new_model, strategy_of
from kft.finetuning.reading import filled, read_data
from kft.finetuning.settings import Settings
from kft.inference import predict
from kft.inference.naming import with_harmless_words, with_predictions
from kft.lora import save_adapter
from kft.messages import count_of, harmless
from kft.preparation import PreparedDataset
from kft.training import strategies
from kft.training.fitting import FitResult, fit

LOSSES = {"loss": "training loss", "val_loss": "validation loss"}  # what Keras calls them
# What can be done with a run; pairs of residues are in no table.
PREDICT = "New records: kft predict {out} NEW.csv --out OUT.csv"
NEXT = dict.fromkeys(
    (Task.TORSIONS, Task.DISTOGRAM), "Fold a chain: kft fold SEQUENCE OUT.pdb --models {out}"
) | {Task.CONTACTS: 'In Python: kft.finetuning.Run("{out}").predict(["MKTAYI"])'}
COVERAGE = 0.9  # of the intervals of predicted numbers
Log = Callable[[str], None]


def finetune(
    settings: Settings,
    out: Path | str,
    *,
    overwrite: bool = False,
    baselines: bool = True,
    log: Log | None = None,
    command: Sequence[str] = (),
) -> Run:
    """Fine-tune a backbone on a file, and write all of it to a folder.

    A run that was interrupted, by whatever, continues after its last complete epoch when it is
    called again with the same settings and data. One that is finished is not repeated.

    Args:
        settings: What is trained on what.
        out: Folder of the run, see `kft.finetuning.folder`.
        overwrite: True begins again where the folder holds a run already.
        baselines: Whether baselines are scored next to the model.
        log: Function that is called with each line of progress, such as `print`; None for none.
            The lines are written to log.txt in any case.
        command: Words of the command line, for the record.

    Returns:
        The run.

    Raises:
        ValueError: The folder holds a run with other settings or data, or the data are wrong.
        OSError: Something cannot be read or written; `BlockingIOError` if another process is
            writing to the folder.

    Example:
        `finetune(Settings("mine.csv", target="y"), "run").predict("new.csv", out="out.csv")`
    """
    check_instance("settings", settings, Settings, "kft.finetuning.Settings")
    check_flag("overwrite", overwrite)
    check_flag("baselines", baselines)
    if log is not None:
        check_callable("log", log, "a function")
    out = check_path("out", out)
    read, named = read_data(settings)
    if read.test is None:
        raise ValueError(f"{read.name} has no test split to score: split it first.")
    ensure_writable(out)  # wrong data leave no folder
    lines = _Lines(out / files.LOG, log)
    with only_writer(out):
        if overwrite:
            _remove(out)
        return _trained(settings, read, named, out, baselines, lines, command)


def _trained(
    settings: Settings,
    read: Dataset,
    named: Settings,
    out: Path,
    baselines: bool,
    log: Log,
    command: Sequence[str],
) -> Run:
    """Begin a run, or go on with that of the folder, and write its results."""
    data = filled(read)
    checksum = digest_of_data(data)
    earlier = _earlier(out, settings, checksum)
    if earlier is not None and earlier.finished:
        log(f"{out} is finished already: nothing to do (overwrite=True begins again).")
        return earlier
    for note in data.notes:
        log(note)
    config = _config(settings, data, checksum, command)
    config["data"]["inputs"] = named.inputs
    if earlier is not None:  # with the revision of the backbone that it began with
        config["model"] = earlier.config["model"]
    model = new_model(config["model"])
    config["model"]["revision"] = getattr(model.backbone, "revision", None)
    write_table(out / files.SPLIT, split_table(data))
    if earlier is None:
        write_json(out / files.CONFIG, config)
    if isinstance(data, PreparedDataset):
        data.preparation.save(out / files.PREPARATION)
    _explore(read, out, log)
    about = config["model"]
    log(f"Training, backbone {about['backbone']}, strategy {about['strategy']}.")
    done = fit(
        model,
        data,
        strategy_of(config["model"]),
        settings.epochs,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        max_length=settings.max_length,
        seed=settings.seed,
        callbacks=[_Epochs(log, out / files.TRAINING)],
        verbose=0,
        resume=out / files.TRAINING,
    )
    _write_results(done, data, config, out, baselines, log)
    return Run(out)


def _remove(out: Path) -> None:
    """Remove the files of an earlier run, and nothing else."""
    names = (files.CONFIG, files.MODEL, files.TRAINING, files.SPLIT, files.HISTORY)
    results = (files.PREPARATION, files.PREDICTIONS, files.SCORES, files.FINDINGS, files.LOG)
    for name in names + results:
        (out / name).unlink(missing_ok=True)
    for folder in (files.ADAPTER, f"{files.TRAINING}.features"):
        shutil.rmtree(out / folder, ignore_errors=True)


def _earlier(out: Path, settings: Settings, checksum: str) -> Run | None:
    """Return the run that the folder holds, which must be of the same settings and data."""
    if not (out / files.CONFIG).exists():
        return None
    run = Run(out)
    then, now = run.settings.to_dict(), settings.to_dict()  # both with settings that are new
    differ = [name for name in now if then[name] != now[name]]
    if run.config["data"]["digest"] != checksum:
        differ.append("content of the data")
    if differ:
        raise ValueError(
            f"{out} holds a run that differs in its {', '.join(differ)}: name another folder in "
            "`out`, or begin again with overwrite=True."
        )
    return run


def _config(
    settings: Settings, data: Dataset, checksum: str, command: Sequence[str]
) -> dict[str, Any]:
    """Return the content of config.json before the training."""
    packages = ("kft", "keras", "numpy", keras.backend.backend())
    return {
        "kft_run": files.FORMAT,
        "status": "training",
        "command": list(command),
        "versions": {"python": platform.python_version()} | {x: version(x) for x in packages},
        "backend": keras.backend.backend(),
        "settings": settings.to_dict(),
        "data": {
            "name": data.name,
            "source": data.source,
            "sha256": data.checksum,
            "digest": checksum,
            "task": str(data.task),
            "records": {name: len(part) for name, part in data.splits.items()},
            "notes": list(data.notes),
        },
        "model": described(settings, data),
        "result": {},
    }


def split_table(data: Dataset) -> pd.DataFrame:
    """Return a table of the records: the split of each, and its line in the file.

    Args:
        data: A `kft.data.Dataset`.

    Returns:
        Columns split, line (if the data come from a table) and the sequence or path (if the inputs
        are such), in the order of the file.

    Example:
        >>> from kft.data import load
        >>> split_table(load("digits")).columns.tolist()
        ['split']
    """
    parts = []
    for name, part in data.splits.items():
        table = _records(part)
        table.insert(0, "split", name)
        parts.append(table)
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values("line", kind="stable") if "line" in table else table


def _records(part: Split) -> pd.DataFrame:
    """Return a table that tells which records a split has."""
    table = pd.DataFrame(index=range(len(part)))
    if part.lines is not None:
        table["line"] = part.lines
    if part.inputs and isinstance(part.inputs[0], str | PathLike):
        kind = "sequence" if isinstance(part.inputs[0], str) else "path"
        table[kind] = [str(x) for x in part.inputs]
    return table


def _explore(data: Dataset, out: Path, log: Log) -> None:
    path = out / files.FINDINGS
    if path.exists():  # of an interrupted call
        return
    if data.task not in OF_TABLES:
        log(f"The data are not explored, since kft.explore does not take {data.task}.")
        return
    found = explore(data)
    with atomic_write(path) as stream:
        stream.write(found.to_json().encode())
    severe = found.at_least("warning")
    if len(severe):
        log(
            f"{count_of(len(severe), 'finding')} on the data may matter: "
            f"{', '.join(severe.codes)}. See kft.report, or {path}."
        )


class _Lines:
    """Printer of lines that also appends them to a file."""

    def __init__(self, path: Path, log: Log | None):
        self.path, self.log = path, log

    def __call__(self, line: str) -> None:
        line = harmless(line, keep="\n")
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
        if self.log is not None:
            self.log(line)


class _Epochs(keras.callbacks.Callback):
    """One line per epoch: its losses, and how long the rest takes."""

    def __init__(self, log: Log, kept: Path):
        super().__init__()
        self.log, self.kept = log, kept

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.began, self.done = time.perf_counter(), 0
        if self.kept.exists():
            self.log(f"The training continues from {self.kept}.")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.done += 1
        left = (self.params["epochs"] - epoch - 1) * (time.perf_counter() - self.began) / self.done
        numbers = "  ".join(
            f"{name} {logs[key]:.4g}" for key, name in LOSSES.items() if logs and key in logs
        )
        rest = f"  about {duration(left)} left" if left else ""
        self.log(f"epoch {epoch + 1}/{self.params['epochs']}  {numbers}{rest}")


# Results ----------------------------------------------------------------------------------------


def _write_results(
    done: FitResult,
    data: Dataset,
    config: dict[str, Any],
    out: Path,
    baselines: bool,
    log: Log,
) -> None:
    """Write model, predictions and scores; the state of the training is removed at the very end."""
    sizes = config["settings"]["batch_size"], config["settings"]["max_length"]
    test = data.splits["test"]
    _save(done, out, whole=bool(config["model"].get("network")))
    write_table(out / files.HISTORY, pd.DataFrame(done.history))
    rows: Any = predict(done.model, test.inputs, *sizes)
    write_table(out / files.PREDICTIONS, _table_of_predictions(done.model, data, test, rows))
    scores: dict[str, Any] = {"split": "test", "records": len(test)}
    scores["model"] = score_split(data, "test", rows)
    if baselines:
        scored = baseline_rows(data, 1000, log, sizes[1])
        scores["baselines"] = {
            row.name: Scores({k: x.interval() for k, x in row.scores.items()})
            for row in scored
            if row.scores
        }
    write_json(out / files.SCORES, scores)
    last = done.phases[-1]
    config["result"] = {
        "trainable": last.trainable,
        "parameters": last.parameters,
        "seconds": done.seconds,
        "epochs": len(done.history),
        "best_epoch": done.best_epoch,
        "margins": _margins(done.model, data, sizes),
        "coverage": COVERAGE,
    }
    config["status"] = "finished"
    write_json(out / files.CONFIG, config)
    (out / files.TRAINING).unlink(missing_ok=True)
    if data.task.target == "number" and config["result"]["margins"] is None:
        log("Predictions get no intervals, which need 9 validation records of one number each.")
    log(f"Scores on the {count_of(len(test), 'record')} of the test split: {scores['model']}")
    log(f"Written to {out}. All of it on one page: kft report {out}")
    log(NEXT.get(data.task, PREDICT).format(out=out))


def _table_of_predictions(
    model: keras.Model, data: Dataset, test: Split, rows: Any
) -> pd.DataFrame:
    """Return a row for each record with its truth and its predictions; of pairs, its scores."""
    table = _records(test)
    if data.task.per_pair:
        scored = scored_part(data, "test", rows)
        measure = measure_pairs(data.task, scored.targets, scored.predictions)
        return table.assign(residues=[len(row) for row in rows], **measure(np.eye(len(rows))))
    kept = table.shape[1]
    if data.task.target == "angles":
        degrees = [np.rad2deg(row).round(1) for row in test.targets]
        for k, name in enumerate(ANGLES):
            cells = zip(degrees, _masks(test), strict=True)
            table[f"true_{name}"] = [_residues(row[:, k], mask, None) for row, mask in cells]
    else:
        table[f"true_{data.target or 'target'}"] = truth(data, test)
    return with_harmless_words(with_predictions(table, model, rows), model, kept)


def _save(done: FitResult, out: Path, whole: bool) -> None:
    """Write the adapter, or the whole model where its backbone is trained or in no other file."""
    if isinstance(done.strategy, strategies.LoRA) and not whole:
        save_adapter(done.model, out / files.ADAPTER)
        return
    unfinished = out / f".{files.MODEL}"  # Keras needs the ending
    done.model.save(unfinished, include_optimizer=False)
    unfinished.replace(out / files.MODEL)


def truth(data: Dataset, part: Split) -> list[Any]:
    """Return the targets of a split as cells of a table, in the words of the user's file.

    Args:
        data: The data set.
        part: One of its splits.

    Returns:
        Names of classes; of several labels or numbers, and of residues, they are joined in a cell,
        where a residue that is not scored has "-" or "NA".

    Example:
        >>> from kft.data import load
        >>> data = load("digits")
        >>> truth(data, data.test)[:2] == [data.classes[k] for k in data.test.targets[:2]]
        True
    """
    names = data.classes
    if data.task.per_residue:
        return [_residues(*pair, names) for pair in zip(part.targets, _masks(part), strict=True)]
    if data.task.target == "labels" and names is not None:
        return [
            ";".join(name for name, x in zip(names, row, strict=True) if x) for row in part.targets
        ]
    if names is not None:
        return [names[int(k)] for k in part.targets]
    return [
        x.item() if np.ndim(x) == 0 else " ".join(map(str, x)) for x in np.asarray(part.targets)
    ]


def _masks(part: Split) -> list[np.ndarray]:
    return part.masks or [np.ones(len(row), bool) for row in part.targets]


def _residues(row: np.ndarray, mask: np.ndarray, names: Sequence[str] | None) -> str:
    words = [names[int(k)] if names else str(k) for k in row]
    between, masked = ("", "-") if names and all(len(x) == 1 for x in names) else (" ", "NA")
    return between.join(word if m else masked for word, m in zip(words, mask, strict=True))


def _margins(
    model: keras.Model, data: Dataset, sizes: tuple[int, int | None]
) -> list[float] | None:
    """Return for each predicted number how far 90% of the validation targets are from it at most.

    Such margins are those of split conformal prediction (Lei et al. 2018, section 2.2). As the
    validation split also chooses the best epoch, they may be a little too narrow.
    """
    valid = data.valid
    few = valid is None or len(valid) < 1 / (1 - COVERAGE) - 1
    if data.task.has_classes or data.task.level != "record" or few or valid is None:
        return None
    predictions = np.asarray(predict(model, valid.inputs, *sizes)).reshape(len(valid), -1)
    errors = np.sort(abs(predictions - np.asarray(valid.targets).reshape(predictions.shape)), 0)
    rank = min(int(np.ceil((len(valid) + 1) * COVERAGE)), len(valid))
    return errors[rank - 1].tolist()
