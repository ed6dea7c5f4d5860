"""A model beside the baselines: scores with intervals, a table, a figure, and what it cost."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np

from kft import baselines, evaluation, plots
from kft.model import predict


def evaluate(model, data, split="test", batch_size=32, resamples=1000, max_length=None):
    """Scores a model on one split of a data set, with 95% bootstrap intervals.

    Args:
        model: a `kft.Model` whose head answers the data set's task.
        data: a `kft.data.Dataset`.
        split: "train", "valid" or "test".
        batch_size: most records per batch.
        resamples: bootstrap resamples; whole groups are drawn where the split has groups, and
            whole chains where residues are scored.
        max_length: residues to keep of each protein, None for all; what is cut is not scored.

    Returns:
        `kft.evaluation.Scores`, metric name -> interval, the task's headline metric first. Of
        residues, those count that the split's `masks` mark.

    Raises:
        ValueError: unknown or absent split; a head that answers another task or other classes.

    Example:
        `kft.evaluate(model, kft.data.load("amp"))["AUROC"].value`
    """
    if split not in data.splits:
        raise ValueError(
            f"split must be one of {', '.join(data.splits)} for {data.name}, received {split!r}."
        )
    _check_head(model, data)
    records = data.splits[split]
    targets, groups = records.targets, records.groups
    answers = predict(model, records.inputs, batch_size, max_length)
    if data.task.startswith("residue"):
        targets, answers, groups = _counted_residues(records, answers)
    return evaluation.score(data.task, targets, answers, groups=groups, resamples=resamples)


def _check_head(model, data):
    head = getattr(model, "head", None)
    task, classes = getattr(head, "task", None), getattr(head, "classes", None)
    if task is None:
        return  # a head of the user's own: what it answers is seen when it is scored
    if task != data.task or (classes is not None and classes != len(data.classes)):
        wanted = data.task + (f" into {len(data.classes)} classes" if data.classes else "")
        received = task + (f" into {classes} classes" if classes else "")
        raise ValueError(
            f"model.head must answer {data.name}, {wanted}, received {type(head).__name__}, which "
            f"answers {received}: kft.heads.for_data(data) builds the head that fits."
        )


def _counted_residues(records, answers):
    """Targets, answers and group of each residue that counts and was not cut, of all chains."""
    lengths = [len(rows) for rows in answers]
    masks = records.masks or [np.ones(n, dtype=bool) for n in lengths]
    kept = [mask[:n] for mask, n in zip(masks, lengths, strict=True)]
    targets = [row[:n][mask] for row, n, mask in zip(records.targets, lengths, kept, strict=True)]
    answers = [rows[mask] for rows, mask in zip(answers, kept, strict=True)]
    chains = np.arange(len(lengths)) if records.groups is None else records.groups
    groups = np.repeat(chains, [mask.sum() for mask in kept])
    return np.concatenate(targets), np.concatenate(answers), groups


def report(model, data, name, seconds, out, settings=None):
    """Sets a trained model beside baselines fitted now, prints a table, and writes what it saw.

    Args:
        model: a trained `kft.Model`.
        data: the `kft.data.Dataset` it was trained on; its test split is scored.
        name: what to call the model in the table and the figure.
        seconds: what training took.
        out: folder for `<data>.png` with its caption in `<data>.txt`, and `<data>.json`.
        settings: dict of whatever else should stand in the JSON.

    Returns:
        dict that the JSON file holds.
    """
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)  # a log has room for the table
    others = baselines.fit_all(data, progress=lambda line: console.print(f"  {line}"))
    answers = {name: predict(model, data.test.inputs)}
    answers |= {other.name: other.predictions for other in others}
    scores = {
        row: evaluation.score(data.task, data.test.targets, values, groups=data.test.groups)
        for row, values in answers.items()
    }
    cost = {name: (_count(model.trainable_weights), _count(model.weights), seconds)}
    cost |= {other.name: (other.parameters, other.parameters, other.seconds) for other in others}

    console.print(_table(data, scores, cost))
    figure, caption = _figure(data, answers)
    out = Path(out)
    picture = plots.save_figure(figure, caption, out / f"{data.name}.png")
    console.print(f"\n{caption}\n")
    record = {
        "data": data.name,
        "checksum": data.checksum,
        "records": {part: len(split) for part, split in data.splits.items()},
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        "python": platform.python_version(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **(settings or {}),
        "scores": {row: values.to_dict() for row, values in scores.items()},
        "cost": {
            row: dict(zip(("trainable", "parameters", "seconds"), values, strict=True))
            for row, values in cost.items()
        },
        "caption": caption,
    }
    written = out / f"{data.name}.json"
    written.write_text(json.dumps(record, indent=2) + "\n")
    console.print(f"Written: {picture}, its caption beside it, and {written}.")
    return record


def _count(weights):
    return sum(int(np.prod(w.shape)) for w in weights)


def _table(data, scores, cost):
    from rich.table import Table

    metrics = list(next(iter(scores.values())))
    table = Table(title=f"{data.name}: test split, {len(data.test):,} records, 95% intervals")
    table.add_column("model")
    for title in (*metrics, "trainable / all parameters", "seconds"):
        table.add_column(title, justify="right")
    for row, values in scores.items():
        trainable, parameters, seconds = cost[row]
        table.add_row(
            row,
            *map(str, values.values()),
            f"{trainable:,} / {parameters:,}",
            f"{seconds:.1f}",
        )
    return table


def _figure(data, answers):
    options = {"data": data.name, "groups": data.test.groups}
    if data.task == "classification":
        return plots.plot_classification(data.test.targets, answers, data.classes, **options)
    return plots.plot_regression(data.test.targets, answers, **options)
