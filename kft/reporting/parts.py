"""What a report is about, whichever objects it was given as."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

from kft.comparison import Comparison, Evaluation
from kft.data import Dataset
from kft.data.task import Task
from kft.evaluation.groups import GroupAudit
from kft.evaluation.metrics import Interval
from kft.evaluation.transfer import Transfer
from kft.exploration import Findings
from kft.params import Parameters, parameters
from kft.structure import Fold, ProteinChain
from kft.training.fitting import FitResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = Mapping[str, tuple["Figure", str]]  # name -> (figure, caption)
WORST = 10  # records shown that are predicted worst
MOST_CLASSES = 20  # classes counted in the table of splits


@dataclass(frozen=True)
class About:
    """What a data set is.

    Attributes:
        name: Its name.
        task: What is predicted, a `kft.data.task.Task`, or its name.
        target: Name of what is predicted, or None.
        inputs: What it is predicted from, such as "sequence".
        classes: Names of classes or labels.
        sizes: Number of records by split (rows); of classes also of each class.
        facts: Further pairs, such as ("licence", "CC BY 4.0"); empty values are left out.
        preparation: Sentences on how it was read, split, changed, and why.
    """

    name: str
    task: str
    target: str | None
    inputs: str
    classes: tuple[str, ...]
    sizes: pd.DataFrame
    facts: tuple[tuple[str, str], ...] = ()
    preparation: tuple[str, ...] = ()


@dataclass(frozen=True)
class Training:
    """One fine-tuning.

    Attributes:
        strategy: The strategy with its options.
        history: One row per epoch.
        phases: One row per phase: name, epochs, trainable, parameters, seconds.
        best_epoch: Epoch whose weights are kept, from 0, or None.
        seconds: Duration, or None.
        settings: Seed, batch size and the like.
    """

    strategy: str
    history: Sequence[Mapping[str, Any]]
    phases: pd.DataFrame
    best_epoch: int | None
    seconds: float | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Assessment:
    """How well a model predicts one split.

    Attributes:
        split: Name of the split.
        count: Number of records or residues that are scored, with the noun.
        scores: Metric -> interval, the headline metric first.
        others: Name of a baseline -> its scores.
        sentences: What else was found.
        figures: Function that draws the figures.
        worst: The records that are predicted worst, or None.
        groups: Scores by group, or None.
    """

    split: str
    count: str
    scores: Mapping[str, Interval]
    figures: Callable[[], Figures]
    others: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    sentences: tuple[str, ...] = ()
    worst: pd.DataFrame | None = None
    groups: GroupAudit | None = None


@dataclass(frozen=True)
class Architecture:
    """A model.

    Attributes:
        facts: Pairs such as ("backbone", "esm2_t6_8M_UR50D").
        parameters: Its parameters, or None.
    """

    facts: tuple[tuple[str, str], ...]
    parameters: Parameters | None = None


@dataclass(frozen=True)
class Parts:
    """The parts of a report; those that are None are not in it.

    Attributes:
        about: What the data are.
        findings: What `kft.explore` found.
        architecture: The model.
        training: Its training.
        assessment: Its predictions.
        comparison: Strategies and baselines on the same data.
        transfer: Whether the model works on other data.
        fold: A chain folded from predictions.
        truth: The true chain of `fold`.
        origin: Pairs that tell how it was made: versions, command, checksums.
        warnings: What else limits the results.
    """

    about: About | None = None
    findings: Findings | None = None
    architecture: Architecture | None = None
    training: Training | None = None
    assessment: Assessment | None = None
    comparison: Comparison | None = None
    transfer: Transfer | None = None
    fold: Fold | None = None
    truth: ProteinChain | None = None
    origin: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()

    def joined(self, other: Parts) -> Parts:
        """Return the parts of both.

        Args:
            other: Its parts go before, except those that it does not have.
        """
        found = {}
        for name in [one.name for one in fields(Parts)]:
            theirs = getattr(other, name)
            found[name] = getattr(self, name) if theirs is None or theirs == () else theirs
        return Parts(**{**found, "warnings": (*self.warnings, *other.warnings)})


def parts_of(subject: Any) -> Parts:
    """Return the parts of what `kft.report` was given.

    Args:
        subject: As for `kft.report`, but no folder of a run.

    Raises:
        TypeError: It is of a type that a report has no section for.
        ValueError: Two are of the same type, or of different data sets.
    """
    given = list(subject) if isinstance(subject, list | tuple) else [subject]
    if not given:
        raise ValueError("subject is an empty list: give at least one part of the work.")
    by_kind: dict[type, Any] = {}
    for one in given:
        kind = next((kind for kind in KINDS if isinstance(one, kind)), None)
        if kind is None:
            raise TypeError(
                f"subject must be the folder of a run or one or several of "
                f"{', '.join(kind.__name__ for kind in KINDS)}; received {type(one).__name__}."
            )
        if kind in by_kind:
            raise ValueError(
                f"subject holds two of the type {kind.__name__}: write a report for each."
            )
        by_kind[kind] = one
    _check_same_data(by_kind)
    _check_truth(by_kind.get(Fold), by_kind.get(ProteinChain))
    parts = Parts()
    for kind in KINDS:  # in this order: what a data set says goes before what others say of it
        if kind in by_kind:
            parts = parts.joined(KINDS[kind](by_kind[kind]))
    return parts


def _check_same_data(by_kind: Mapping[type, Any]) -> None:
    names = {
        kind.__name__: name
        for kind, name in (
            (kind, _name_of_data(by_kind[kind]))
            for kind in (Comparison, Evaluation, Dataset)
            if kind in by_kind
        )
    }
    if len(set(names.values())) > 1:
        each = ", ".join(f"{kind} of {name!r}" for kind, name in names.items())
        raise ValueError(f"subject must be about one data set, received {each}.")


def _check_truth(fold: Fold | None, truth: ProteinChain | None) -> None:
    if truth is not None and (fold is None or fold.chain.sequence != truth.sequence):
        raise ValueError(
            f"subject holds {truth!r}, which must be the true chain of a fold, with the same "
            f"sequence: {'there is no fold' if fold is None else 'that of the fold differs'}."
        )


def _name_of_data(one: Any) -> str:
    if isinstance(one, Comparison):
        return one.data
    return one.data.name if isinstance(one, Evaluation) else one.name


# From objects -----------------------------------------------------------------------------------


def about_of(data: Dataset) -> About:
    """Describe a data set.

    Args:
        data: A `kft.data.Dataset`.
    """
    steps = [str(done) for done in getattr(data, "steps", ())]  # of `kft.prepare`
    facts = [
        ("source", data.source),
        ("licence", data.licence),
        ("cite", data.citation),
        ("SHA-256 of the file", data.checksum),
    ]
    return About(
        data.name,
        data.task,
        data.target,
        str(data.input_kind),
        tuple(data.classes or ()),
        sizes_of(data.task, data.classes, {name: x.targets for name, x in data.splits.items()}),
        tuple((name, str(value)) for name, value in facts if value),
        (*data.notes, *steps),
    )


def sizes_of(task: str, classes: Sequence[str] | None, targets: Mapping[str, Any]) -> pd.DataFrame:
    """Count the records of each split, and of each class.

    Args:
        task: The task.
        classes: Names of the classes, or None.
        targets: Split -> targets of its records.
    """
    rows = {}
    for name, values in targets.items():
        row = {"records": len(values)}
        counted = Task(task).target == "class" and not Task(task).per_pair
        if classes is not None and len(classes) <= MOST_CLASSES and counted:
            flat = np.concatenate(values) if isinstance(values, list) and values else values
            marked = np.asarray(flat, int)
            counts = np.bincount(marked[marked >= 0], minlength=len(classes))
            row |= dict(zip(classes, map(int, counts), strict=True))
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _of_data(data: Dataset) -> Parts:
    return Parts(about=about_of(data))


def _of_findings(found: Findings) -> Parts:
    return Parts(findings=found)


def architecture_of(model: keras.Model) -> Architecture:
    """Describe a model.

    Args:
        model: Any built Keras model.
    """
    facts = []
    backbone, head = getattr(model, "backbone", None), getattr(model, "head", None)
    if backbone is not None:
        facts.append(("backbone", f"{backbone.name} ({type(backbone).__name__})"))
    else:
        facts.append(("model", f"{model.name} ({type(model).__name__})"))
    if head is not None:
        facts.append(("head", type(head).__name__))
    return Architecture(tuple(facts), parameters(model))


def _of_model(model: keras.Model) -> Parts:
    return Parts(architecture=architecture_of(model))


def _of_fit(done: FitResult) -> Parts:
    names = ("name", "epochs", "trainable", "parameters", "seconds")
    phases = [{name: getattr(phase, name) for name in names} for phase in done.phases]
    table = pd.DataFrame(phases, columns=list(names))
    training = Training(
        repr(done.strategy), done.history, table, done.best_epoch, done.seconds, done.settings
    )
    return Parts(training=training, architecture=architecture_of(done.model))


def _of_evaluation(found: Evaluation) -> Parts:
    figures = found.figures()
    _, count, *sentences = str(found).split("\n")  # the scores have a table
    assessment = Assessment(
        found.split,
        count.partition(" of the ")[0],
        found.scores,
        lambda: figures,
        sentences=tuple(x for x in sentences if not x.startswith("Groups: ")),
        worst=found.worst(WORST) if found.data.task.level != "pair" else None,
        groups=found.groups if "groups" in figures else None,
    )
    return Parts(
        about=about_of(found.data),
        assessment=assessment,
        architecture=architecture_of(found.model),
    )


def _of_comparison(comparison: Comparison) -> Parts:
    return Parts(comparison=comparison)


def _of_transfer(transfer: Transfer) -> Parts:
    return Parts(transfer=transfer)


def _of_fold(fold: Fold) -> Parts:
    return Parts(fold=fold)


def _of_chain(truth: ProteinChain) -> Parts:
    return Parts(truth=truth)


KINDS: dict[type, Callable[[Any], Parts]] = {
    Comparison: _of_comparison,
    Evaluation: _of_evaluation,
    keras.Model: _of_model,
    FitResult: _of_fit,
    Findings: _of_findings,
    Dataset: _of_data,
    Transfer: _of_transfer,
    Fold: _of_fold,
    ProteinChain: _of_chain,
}
