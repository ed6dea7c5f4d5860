"""The parts of a report on a run, from the files of its folder; its data are not read again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kft.data.task import ANGLES, Task
from kft.evaluation.calibration import judge_calibration
from kft.evaluation.metrics import Interval, Scored
from kft.exploration import Findings
from kft.finetuning import Run
from kft.finetuning.folder import FINDINGS, HISTORY, PREDICTIONS
from kft.messages import count_of, listed
from kft.plots import (
    plot_confusion,
    plot_ramachandran,
    plot_reliability,
    plot_residuals,
    plot_roc_pr,
)
from kft.reporting.parts import (
    WORST,
    About,
    Architecture,
    Assessment,
    Figures,
    Parts,
    Training,
    architecture_of,
)

RESAMPLES = 1000


def parts_of_run(folder: Path | str) -> Parts:
    """Return the parts of a report on a run.

    Args:
        folder: Folder that `kft finetune` has written.

    Raises:
        FileNotFoundError: There is no run in the folder.
        ValueError: It was written by a later version of kft, or is damaged.
    """
    run = Run(folder)
    findings = run.folder / FINDINGS
    warnings = []
    if not run.finished:
        warnings.append(
            "The training was interrupted and is not finished: the same command continues it."
        )
    architecture, problem = _architecture(run)
    if problem:
        warnings.append(problem)
    return Parts(
        about=_about(run.config),
        findings=Findings.from_json(findings.read_text()) if findings.exists() else None,
        architecture=architecture,
        training=_training(run),
        assessment=_assessment(run) if (run.folder / PREDICTIONS).exists() else None,
        origin=_origin(run.config),
        warnings=tuple(warnings),
    )


def _about(config: Mapping[str, Any]) -> About:
    data, model = config["data"], config["model"]
    inputs = data.get("inputs")
    facts = (("source", data["source"]), ("SHA-256 of the file", data["sha256"]))
    return About(
        data["name"],
        data["task"],
        model["target"],
        f"columns {listed(inputs, 20)}" if isinstance(inputs, list) else inputs or "input",
        tuple(model["classes"] or ()),
        pd.DataFrame.from_dict(data["records"], orient="index", columns=["records"]),
        tuple((name, str(value)) for name, value in facts if value),
        tuple(data["notes"]),
    )


def _architecture(run: Run) -> tuple[Architecture, str]:
    """Return what the model is, and a sentence if it cannot be loaded."""
    about, result = run.config["model"], run.config["result"]
    facts = [("backbone", about["backbone"])]
    try:
        table = architecture_of(run.model).parameters
    except (ValueError, OSError, ImportError) as error:
        if result:
            facts += [(x, f"{result[x]:,}") for x in ("parameters", "trainable")]
        reason = f"The model could not be loaded for its table of parameters: {error}"
        return Architecture(tuple(facts)), reason
    return Architecture(tuple(facts), table), ""


def _training(run: Run) -> Training | None:
    path = run.folder / HISTORY
    if not path.exists():
        return None
    settings, result = run.config["settings"], run.config["result"]
    options = ", ".join(f"{name}={value!r}" for name, value in settings["options"].items())
    history = pd.read_csv(path) if path.stat().st_size > 2 else pd.DataFrame()
    names = ("seed", "epochs", "learning_rate", "batch_size", "max_length", "image_size")
    return Training(
        run.config["model"]["strategy"] + f" ({options})" * bool(options),
        [{str(name): x for name, x in row.items()} for row in history.to_dict(orient="records")],
        pd.DataFrame(),
        result.get("best_epoch"),
        result.get("seconds"),
        {name: settings[name] for name in names if settings[name] is not None},
    )


def _origin(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    pairs = [
        ("command", shlex.join(config["command"])),
        ("backend", config["backend"]),
        ("versions", versions),
        ("seed", str(config["settings"]["seed"])),
        ("digest of the records", config["data"]["digest"]),
    ]
    return tuple((name, value) for name, value in pairs if value)


# What was predicted -----------------------------------------------------------------------------


def _assessment(run: Run) -> Assessment:
    config, table, scores = run.config, run.predictions, run.scores
    task, classes = Task(config["data"]["task"]), config["model"]["classes"]
    target = config["model"]["target"]
    about = {"data": config["data"]["name"], "split": scores["split"]}
    figures: Callable[[], Figures]
    if task.per_pair:
        count, figures = count_of(len(table), "chain"), dict
        worst = table.sort_values(task.headline()).head(WORST)
    elif task.target == "angles":
        errors, figures = _errors_of_angles(table), partial(_figures_of_angles, table, about)
        count = f"{sum(map(len, errors)):,} residues"
        means = [row.mean() if len(row) else np.nan for row in errors]
        worst = _with_errors(table, pd.Series(means, table.index))
    else:
        scored, record = _scored(table, task, classes, target)
        count = f"{len(scored.targets):,} {'residues' if task.per_residue else 'records'}"
        figures = partial(_figures, scored, task, classes, target, about)
        worst = _worst(table, task, scored, record)
    sentences = []
    if config["result"].get("margins"):
        share = config["result"]["coverage"]
        widths = ", ".join(f"{x:.3g}" for x in config["result"]["margins"])
        sentences.append(
            f"Predictions come with an interval of {share:.0%}, as wide on each side as the errors "
            f"on the validation split demand: {widths}."
        )
    return Assessment(
        scores["split"],
        count,
        {name: _interval(x) for name, x in scores["model"].items()},
        figures,
        {
            name: {metric: _interval(x) for metric, x in row.items()}
            for name, row in scores.get("baselines", {}).items()
        },
        tuple(sentences),
        worst,
    )


def _interval(values: Mapping[str, float | None]) -> Interval:
    numbers = (values[name] for name in Interval._fields)
    return Interval(*(np.nan if x is None else x for x in numbers))


def _scored(
    table: pd.DataFrame, task: Task, classes: list[str] | None, target: str | None
) -> tuple[Scored, np.ndarray]:
    """Return targets and predictions of records or residues, and the row of each."""
    truth = table[f"true_{target or 'target'}"]
    if classes is None:
        first = f"predicted_{target}" if target else "prediction"
        several = [x for x in table if str(x).startswith(f"{first}_")]
        names = [first] if first in table else [x for x in several if str(x)[-1].isdigit()]
    else:
        names = [x for x in table if str(x).startswith("probability_")][: len(classes)]
    numbers = [_numbers(table[name]) for name in names]
    lengths = [len(x) for x in numbers[0]]  # targets of residues beyond them have no prediction
    record = np.repeat(np.arange(len(table)), lengths)
    columns = np.stack([np.concatenate(x) for x in numbers], axis=1)  # (N, K)
    if classes is None:
        given = _numbers(truth)
        if task.per_residue:
            given = [x[:n] for x, n in zip(given, lengths, strict=True)]
        targets = np.concatenate(given).reshape(len(columns), -1)
        kept = np.isfinite(targets).all(axis=1)  # other residues are not scored
        targets, columns, record = targets[kept], columns[kept], record[kept]
        if targets.shape[1] == 1:
            targets, columns = targets[:, 0], columns[:, 0]
        return Scored(targets, columns), record
    if task.target == "labels":
        sets = [set(str(x).split(";")) for x in truth.fillna("")]
        return Scored(np.array([[x in of for x in classes] for of in sets], int), columns), record
    words = truth.astype(str)
    if not task.per_residue:
        return Scored(np.array([classes.index(x) for x in words]), columns), record
    between = None if all(len(x) == 1 for x in classes) else " "
    cells = [list(cell) if between is None else cell.split(between) for cell in words]
    flat = [x for cell, n in zip(cells, lengths, strict=True) for x in cell[:n]]
    kept = np.array([x in classes for x in flat])  # others are not scored
    targets = np.array([classes.index(x) for x, here in zip(flat, kept, strict=True) if here])
    return Scored(targets, columns[kept], record[kept]), record[kept]


def _numbers(cells: pd.Series) -> list[np.ndarray]:
    """Return the numbers in each cell, of which residues have many, separated by spaces."""
    return [np.array(str(x).replace("NA", "nan").split(), dtype=float) for x in cells]


def _figures(
    scored: Scored, task: Task, classes: list[str] | None, target: str | None, about: dict[str, str]
) -> Figures:
    if classes is None:
        if np.ndim(scored.targets) > 1:
            return {}
        return {"residuals": plot_residuals(*scored[:2], target or "target", **about)}
    found = {}
    if task.target == "class":
        called = np.asarray(scored.predictions).argmax(axis=1)
        found["confusion"] = plot_confusion(scored.targets, called, classes, **about)
    found["roc_pr"] = plot_roc_pr(*scored[:2], classes, **about)
    calibration = judge_calibration(task, *scored[:2], groups=scored.groups, resamples=RESAMPLES)
    found["reliability"] = plot_reliability(calibration, **about)
    return found


def _angles(table: pd.DataFrame, kind: str) -> list[np.ndarray]:
    """Return the angles (residues, 3) of each record in degrees; NaN where they are not scored."""
    columns = [_numbers(table[f"{kind}_{name}"]) for name in ANGLES]
    return [np.stack(angles, axis=1) for angles in zip(*columns, strict=True)]


def _errors_of_angles(table: pd.DataFrame) -> list[np.ndarray]:
    """Return for each record the mean absolute error, in degrees, of each residue with targets."""
    pairs = zip(_angles(table, "true"), _angles(table, "predicted"), strict=True)
    errors = [abs((true[: len(row)] - row + 180) % 360 - 180).mean(axis=1) for true, row in pairs]
    return [row[np.isfinite(row)] for row in errors]


def _figures_of_angles(table: pd.DataFrame, about: dict[str, str]) -> Figures:
    angles = _angles(table, "predicted")
    residues = [x[: len(row)] for x, row in zip(table["sequence"], angles, strict=True)]
    drawn = plot_ramachandran(
        np.deg2rad(np.concatenate(angles)),
        "".join(residues),
        f"the {about['split']} split of {about['data']}",
        "As the model predicts them.",
    )
    return {"ramachandran": drawn}


def _worst(table: pd.DataFrame, task: Task, scored: Scored, record: np.ndarray) -> pd.DataFrame:
    """Return the records that are predicted worst, as `kft.evaluate` defines it."""
    targets, predictions = scored.targets, np.asarray(scored.predictions, float)
    if task.target == "number":
        errors = abs(targets - predictions).reshape(len(targets), -1).mean(axis=1)
    elif task.target == "labels":
        errors = ((predictions > 0.5) != targets).mean(axis=1)
    elif task.per_residue:
        errors = (predictions.argmax(axis=1) != targets).astype(float)
    else:
        errors = 1 - predictions[np.arange(len(targets)), targets]
    return _with_errors(table, pd.Series(errors).groupby(record).mean())


def _with_errors(table: pd.DataFrame, errors: pd.Series) -> pd.DataFrame:
    """Return the records of the largest errors, the largest first."""
    by_record = errors.sort_values(ascending=False).head(WORST)
    columns = [x for x in table if not str(x).startswith("probability_")]
    return table.loc[by_record.index, columns].assign(error=by_record)
