"""The sections of a report, each a function of its parts; one without its part is left out."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import keras

from kft.comparison.printing import cells, columns
from kft.data.task import Task
from kft.evaluation.metrics import Interval
from kft.messages import count_of, listed
from kft.params.table import COLUMNS
from kft.plots import plot_history
from kft.reporting import folds
from kft.reporting.document import (
    Block,
    Code,
    Facts,
    Items,
    Paragraph,
    Picture,
    Section,
    Table,
    table_of,
    written,
)
from kft.reporting.parts import Figures, Parts

MANY_LINES = 8  # of a table of parameters, above which it is folded
FEW = 100  # records below which a score depends much on which they are
PACKAGES = ("kft", "keras", "numpy", "pandas", "scikit-learn")


class Part(NamedTuple):
    """A section that a report may have.

    Attributes:
        key: As in `Section`.
        title: Its title.
        write: Function that returns its blocks, none if its part is absent.
        absent: What to give for it to be there; "" if it is of another kind of work.
    """

    key: str
    title: str
    write: Callable[[Parts], list[Block]]
    absent: str


def sections_of(parts: Parts, question: str | None, command: str | None) -> list[Section]:
    """Write all sections that there are parts for.

    Args:
        parts: The parts.
        question: The question, or None for one that the parts suggest.
        command: The command that made the results, or None.
    """
    found = [Section("question", "Question", tuple(_question(parts, question)))]
    missing = []
    only_folded = parts == Parts(fold=parts.fold, truth=parts.truth)
    for part in PARTS:
        if blocks := part.write(parts):
            found.append(Section(part.key, part.title, tuple(blocks)))
        elif part.absent and not only_folded:
            missing.append(f"{part.title}: {part.absent}")
    found.append(Section("limits", "Limits", tuple(_limits(parts, missing))))
    found.append(Section("repeat", "How to repeat this", tuple(_repeat(parts, command))))
    return found


def in_short(parts: Parts) -> list[str]:
    """Say the results in a few sentences.

    Args:
        parts: The parts.
    """
    said = []
    if parts.comparison is not None:
        said.append(parts.comparison.recommendation.partition(". ")[0].rstrip(".") + ".")
    if (found := parts.assessment) is not None:
        name, score = next(iter(found.scores.items()))
        text = f"{name} {score} on {found.count} of the {found.split} split."
        if others := _others(found.others, name):
            best = max(others, key=lambda x: others[x].value)
            text += f" The best baseline, {best}, reaches {others[best]}."
        said.append(text)
    if found is not None and found.groups is not None and found.groups.differs:
        said.append(f"The model does not work equally well for each {found.groups.by}.")
    if parts.transfer is not None:
        said.append(f"On other data: {parts.transfer.verdict}")
    if parts.fold is not None:
        said.append(folds.in_short(parts.fold, parts.truth))
    if parts.findings is not None:
        severe = parts.findings.at_least("warning")
        if len(severe):
            said.append(f"{count_of(len(severe), 'finding')} on the data may matter: see below.")
    return said


def _others(scores: Mapping[str, Mapping[str, Interval]], metric: str) -> dict[str, Interval]:
    """Return one score of each baseline that has it."""
    found = {name: row[metric] for name, row in scores.items() if metric in row}
    return {name: score for name, score in found.items() if score.value == score.value}


# Sections ---------------------------------------------------------------------------------------


def _question(parts: Parts, question: str | None) -> Iterator[Block]:
    about = parts.about
    target = about.target if about is not None else None
    name = about.name if about is not None else None
    if parts.comparison is not None:
        name = parts.comparison.data
    where = f" in {name}" if name else ""
    what = target or "the target"
    if question is not None:
        yield Paragraph(question)
    elif parts.comparison is not None:
        yield Paragraph(
            f"Which way of fine-tuning predicts {what}{where} best for records that were not "
            "trained on, and is it worth its cost?"
        )
    elif parts.assessment is not None or parts.training is not None:
        yield Paragraph(
            f"How well does the model predict {what}{where} for records that it was not trained on?"
        )
    elif parts.fold is not None:
        yield Paragraph(f"What is the fold of {parts.fold.chain.name}?")
    else:
        yield Paragraph(f"What are the data{where} like, and are they fit for training?")
    if about is not None:
        classes = about.classes
        kind = "labels" if Task(about.task).target == "labels" else "classes"
        outputs = f": {len(classes)} {kind}, {listed(classes, 10)}" if classes else ""
        yield Facts((("task", f"{about.task} from the {about.inputs}{outputs}"),))


def _data(parts: Parts) -> list[Block]:
    about = parts.about
    if about is None:
        return []
    caption = "Number of records by split"
    if about.sizes.shape[1] > 1:
        caption += ", and by class"
    return [
        Facts((("name", about.name), *about.facts)),
        table_of(f"{caption}.", about.sizes, "split"),
    ]


def _exploration(parts: Parts) -> list[Block]:
    found = parts.findings
    if found is None:
        return []
    severe = found.at_least("warning")
    rest = [one for one in found if one not in list(severe)]
    blocks: list[Block] = []
    if len(severe):
        blocks.append(_table_of_findings("What may mislead a model or a score.", list(severe)))
    else:
        blocks.append(Paragraph("Nothing was found that may mislead a model or a score."))
    if rest:
        caption = f"{count_of(len(rest), 'finding')} that describe the data."
        blocks.append(_table_of_findings(caption, rest, folded=True))
    blocks += _pictures(found.figures())
    related = found.summary.related()
    if len(related):
        caption = (
            "Columns that correlate most; the covariance is in the unit of one times the other."
        )
        blocks.append(table_of(caption, related, folded=True))
    return blocks


def _table_of_findings(caption: str, found: list, folded: bool = False) -> Table:
    rows = tuple(
        (str(x.severity), x.code, x.subject, x.numbers, f"{x.meaning} {x.advice}") for x in found
    )
    names = ("severity", "code", "about", "evidence", "what it means, and what to do")
    return Table(caption, names, rows, folded=folded)


def _preparation(parts: Parts) -> list[Block]:
    if parts.about is None or not parts.about.preparation:
        return []
    return [
        Paragraph("How the records were read, split and changed, and why:"),
        Items(parts.about.preparation),
    ]


def _model(parts: Parts) -> list[Block]:
    model = parts.architecture
    if model is None:
        return []
    blocks: list[Block] = [Facts(model.facts)]
    table = model.parameters
    if table is not None:
        share = table.trainable / max(table.total, 1)
        blocks.append(
            Table(
                f"Parameters: {table.total:,}, of which {table.trainable:,} ({share:.2%}) were "
                "trainable at the end. Neighbours that are alike share a line.",
                COLUMNS,
                tuple(tuple(line) for line in table.lines),
                frozenset({2}),
                folded=len(table.lines) > MANY_LINES,
            )
        )
    return blocks


def _training(parts: Parts) -> list[Block]:
    done = parts.training
    if done is None:
        return []
    pairs = [("strategy", done.strategy)]
    left_out = ("strategy", "data")
    pairs += [
        (name.replace("_", " "), written(value))
        for name, value in done.settings.items()
        if value is not None and name not in left_out
    ]
    if done.seconds is not None:
        pairs.append(("time", f"{done.seconds:,.1f} s"))
    blocks: list[Block] = [Facts(tuple(pairs))]
    if len(done.phases):
        blocks.append(table_of("Phases of the training, with their seconds.", done.phases))
    if done.history:
        names = list(done.phases["name"]) if "name" in done.phases else []
        drawn = plot_history(
            done.history,
            best_epoch=done.best_epoch,
            phases=names,
            data=parts.about.name if parts.about is not None else "the data",
        )
        blocks.append(Picture("training curves", *drawn))
    else:
        blocks.append(Paragraph("The head was solved for in closed form: there are no epochs."))
    return blocks


def _assessment(parts: Parts) -> list[Block]:
    found = parts.assessment
    if found is None:
        blocks: list[Block] = []
    else:
        rows = [_row("the model", found.scores, found.scores)]
        rows += [_row(name, row, found.scores) for name, row in found.others.items()]
        caption = f"Scores on {found.count} of the {found.split} split, with 95% intervals."
        numbers = frozenset(range(1, len(found.scores) + 1))
        marked = frozenset({0} if len(rows) > 1 else ())
        blocks = [Table(caption, ("", *found.scores), tuple(rows), numbers, marked)]
        blocks += [Paragraph(text) for text in found.sentences]
        blocks += _pictures({x: y for x, y in found.figures().items() if x != "groups"})
        if found.worst is not None and len(found.worst):
            caption = f"The {len(found.worst)} records that are predicted worst, by position."
            blocks.append(table_of(caption, found.worst, "record"))
    if parts.transfer is not None:
        blocks += [Paragraph(line) for line in str(parts.transfer).split("\n")]
    return blocks


def _row(
    name: str, scores: Mapping[str, Interval], metrics: Mapping[str, Interval]
) -> tuple[str, ...]:
    return (name, *(str(scores[metric]) if metric in scores else "" for metric in metrics))


def _groups(parts: Parts) -> list[Block]:
    audit = None if parts.assessment is None else parts.assessment.groups
    if audit is None or parts.assessment is None:
        return []
    names = [x for x in audit.table if not str(x).endswith((" low", " high")) and x != "records"]
    table = audit.table[["records"]].astype(int)
    for name in names:
        ends = audit.table[[name, f"{name} low", f"{name} high"]]
        table[name] = [str(Interval(*row)) for row in ends.itertuples(index=False)]
    caption = f"Scores of each {audit.by}, with {audit.confidence:.0%} intervals."
    drawn = parts.assessment.figures()
    return [
        Paragraph(_without_rows(str(audit)), "warning" if audit.differs else "plain"),
        table_of(caption, table, audit.by),
        *_pictures({name: one for name, one in drawn.items() if name == "groups"}),
    ]


def _without_rows(text: str) -> str:
    """Return what an audit says without the scores of each group, which the table has."""
    _, gap, rest = text.partition("Gap between ")
    return gap + rest or text


def _comparison(parts: Parts) -> list[Block]:
    found = parts.comparison
    if found is None:
        return []
    rows = tuple(tuple(cells(found, row)) for row in found.rows)
    at = frozenset(i for i, row in enumerate(found.rows) if row is found.recommended)
    where = "cross-validation" if found.folds else "test split"
    caption = (
        f"{where.capitalize()} of {found.records:,} records, {found.trainings}, "
        f"{found.confidence:.0%} intervals. The recommended method is set off."
    )
    names = ("method", *columns(found))
    return [
        Paragraph(found.recommendation, "result"),
        Table(caption, names, rows, frozenset(range(1, len(names))), at),
        Picture("score against cost", *found.figure()),
        *[Paragraph(found.leakage, "warning")] * bool(found.leakage),
        Paragraph(found.null_hypothesis),
    ]


def _pictures(drawn: Figures) -> list[Block]:
    return [Picture(TITLES.get(name, name), *one) for name, one in drawn.items()]


TITLES = {
    "distributions": "distributions of the columns",
    "missing": "missing values",
    "correlation": "correlations",
    "balance": "records by class",
    "confusion": "confusion matrix",
    "roc_pr": "ROC and precision-recall curves",
    "reliability": "calibration",
    "residuals": "residuals",
    "groups": "scores by group",
    "ramachandran": "phi and psi",
}

COMPARE = "kft compare (in Python kft.compare)"

PARTS = (
    Part("data", "Data", _data, "the data set was not given."),
    Part("exploration", "Exploration", _exploration, "what kft.explore found was not given."),
    Part("preparation", "Preparation", _preparation, "the data set names no step."),
    Part("model", "Model", _model, "no model was given."),
    Part("training", "Training", _training, "what kft.fit returns was not given."),
    Part("assessment", "Assessment", _assessment, "what kft.evaluate returns was not given."),
    Part(
        "groups",
        "Groups",
        _groups,
        "it was not tested whether the model works equally well for all groups; in Python see "
        "kft.evaluate(..., by=...).",
    ),
    Part(
        "comparison",
        "Comparison",
        _comparison,
        f"other strategies were not compared, see {COMPARE}.",
    ),
    Part("fold", "Fold", folds.blocks, ""),
)


# The end ----------------------------------------------------------------------------------------


def _limits(parts: Parts, missing: list[str]) -> Iterator[Block]:
    said = list(parts.warnings)
    if parts.assessment is not None or parts.comparison is not None:
        said.append(
            "Scores hold for records like those of the split they were taken on. For others, such "
            "as of another laboratory or family, they may be lower."
        )
    sizes = {} if parts.about is None else dict(parts.about.sizes["records"])
    test = parts.comparison.records if parts.comparison is not None else sizes.get("test")
    if test is not None and test < FEW:
        said.append(f"The test split has {count_of(int(test), 'record')}: scores are uncertain.")
    if parts.training is not None and parts.comparison is None:
        said.append(
            f"One training does not show how much the scores vary with the seed, see {COMPARE}."
        )
    if parts.fold is not None:
        said += folds.limits(parts.fold)
    if parts.findings is not None:
        said += [x.meaning for x in parts.findings.at_least("warning")]
    yield Items(tuple(said)) if said else Paragraph("No limit is known beyond what is missing.")
    if missing:
        yield Paragraph("Not in this report:")
        yield Items(tuple(missing))


def _repeat(parts: Parts, command: str | None) -> Iterator[Block]:
    pairs = dict(parts.origin)
    command = command or pairs.pop("command", None) or _program()
    if command:
        yield Code(command, "shell")
    if not pairs:
        pairs = _origin(parts)
    if parts.about is not None:
        pairs |= {x: value for x, value in parts.about.facts if x.startswith("SHA-256")}
    yield Facts(tuple(pairs.items()))


def _program() -> str | None:
    """Return the command of the running program, if it is a script."""
    script = Path(sys.argv[0] or ".")
    if script.suffix != ".py" or not script.is_file() or script.name == "__main__.py":
        return None
    return shlex.join(["python", *sys.argv])


def _origin(parts: Parts) -> dict[str, str]:
    backend = keras.backend.backend()
    versions = []
    for name in (*PACKAGES, backend):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # a copy that is not installed
            continue
    pairs = {
        "backend": backend,
        "versions": ", ".join([f"python {platform.python_version()}", *versions]),
        "machine": platform.platform(),
    }
    if parts.training is not None and "seed" in parts.training.settings:
        pairs["seed"] = str(parts.training.settings["seed"])
    if parts.comparison is not None:
        pairs["seeds"] = listed(parts.comparison.seeds, None)
        kept = ("batch_size", "max_length", "data", "backbone")
        names = {"data": "digest of the data", "backbone": "digest of the backbone"}
        settings = parts.comparison.settings
        pairs |= {names.get(x, x): str(settings[x]) for x in kept if settings.get(x) is not None}
        pairs |= {f"strategy {x}": y for x, y in settings.get("strategies", {}).items()}
    return pairs
