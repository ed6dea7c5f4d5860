"""Which steps answer the findings of `kft.explore`, and why."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kft.data.dataset import Dataset
from kft.data.inputs import InputKind
from kft.exploration.findings import Finding, Findings, Severity
from kft.preparation.columns import (
    DropColumns,
    Impute,
    InfiniteToMissing,
    Scale,
    SentinelToMissing,
)
from kft.preparation.records import (
    DropConflicts,
    DropDuplicates,
    DropTargets,
    Resplit,
    TransformTarget,
    WeightClasses,
)
from kft.preparation.steps import Step

# What is split again, by the first of these that is found.
_SPLITS = {
    "groups-across-splits": "group",
    "similar-across-splits": "cluster",
    "class-not-in-train": "random",
    "class-shift": "random",
}
_COPIES = tuple(
    code
    for what in ("row", "sequence", "image")
    for code in (f"duplicate-{what}s", f"{what}s-across-splits")
)
_MISSING = (
    "missing-values",
    "missing-words",
    "missing-together",
    "missing-tells-target",
    "suspected-sentinel",
    "infinite-values",
)
_SCALES = ("scaled-on-all-data", "different-scales")
_FAR = ("outliers", "isolated-values")
SKEWED = 2.0  # skewness from which a positive target is transformed

Planned = tuple[Step, str, tuple[str, ...]]  # step, reason, codes that it answers


def plan(data: Dataset, findings: Findings) -> tuple[list[tuple[Step, str]], tuple[str, ...]]:
    """Return the steps that answer findings.

    Args:
        data: The data set.
        findings: What `kft.explore` found in it.

    Returns:
        The steps with their reasons, in the order in which they are done; and the codes of
        warnings and errors that none of them answers.
    """
    steps = list(_of_records(data, findings))
    if data.input_kind is InputKind.TABLE:
        steps += _of_columns(data, findings)
    steps += _of_targets(data, findings)
    answered = {code for _, _, codes in steps for code in codes}
    worse = findings.at_least(Severity.WARNING).codes
    return [x[:2] for x in steps], tuple(code for code in worse if code not in answered)


def _of_records(data: Dataset, findings: Findings) -> Iterator[Planned]:
    for code, how in _SPLITS.items():
        found = findings.of(code)
        if found:
            yield Resplit(how), _reason(found), tuple(_SPLITS)
            break
    conflicts = list(findings.of("conflicting-labels"))
    if conflicts and data.task.has_classes:
        yield DropConflicts(), _reason(conflicts), ("conflicting-labels",)
        conflicts = []
    copies = [*conflicts, *(x for x in findings if x.code in _COPIES)]
    if copies:
        yield DropDuplicates(), _reason(copies), (*_COPIES, "conflicting-labels")


def _of_columns(data: Dataset, findings: Findings) -> Iterator[Planned]:
    columns = list(data.train.inputs[0])
    out: dict[str, Finding] = {}
    for finding in findings:
        out |= dict.fromkeys((x for x in _superfluous(finding) if x in columns), finding)
    if out and len(out) < len(columns):
        found = list(out.values())
        yield DropColumns(tuple(out)), _reason(found), tuple(x.code for x in found)
    sentinels = [x for x in findings.of("suspected-sentinel") if _subject(x) in columns]
    for finding in sentinels:
        if _subject(finding) not in out:
            step = SentinelToMissing(_subject(finding), float(finding.evidence["value"]))
            yield step, _reason([finding]), ("suspected-sentinel",)
    infinite = findings.of("infinite-values")
    if infinite:
        names = tuple(_subject(x) for x in infinite if _subject(x) not in out)
        yield InfiniteToMissing(names), _reason(infinite), ("infinite-values",)
    missing = [x for x in findings if x.code in _MISSING]
    if missing:
        yield Impute(), _reason(missing), _MISSING
    yield from _scales(data, findings, set(out))


def _superfluous(finding: Finding) -> list[str]:
    """Return the columns that a finding says to leave out."""
    evidence = finding.evidence
    if finding.code == "constant-column":
        return list(evidence["values"])
    if finding.code == "empty-column":
        return list(evidence["columns"])
    if finding.code == "equal-columns":
        return [pair.rpartition(" = ")[2] for pair in evidence["pairs"]]
    return [_subject(finding)] if finding.code == "identifier" else []


def _scales(data: Dataset, findings: Findings, out: set[str]) -> Iterator[Planned]:
    """Scale columns with outliers by median and quartiles, all others by mean and deviation."""
    numbers = [
        name
        for name, value in data.train.inputs[0].items()
        if not isinstance(value, str) and value is not None and name not in out
    ]
    found = [x for x in findings if x.code in (*_SCALES, *_FAR)]
    if not found:
        return
    far = {name for x in findings.of("outliers") for name in x.evidence["records"]}
    far |= {_subject(x) for x in findings.of("isolated-values")}
    robust = tuple(name for name in numbers if name in far)
    if robust:
        reason = _reason([x for x in found if x.code in _FAR])
        yield Scale("robust", robust), reason, (*_FAR, *_SCALES)
    standard = tuple(name for name in numbers if name not in far)
    if standard and any(x.code in _SCALES for x in found):
        reason = _reason([x for x in found if x.code in _SCALES])
        yield Scale("standard", standard), reason, _SCALES


def _of_targets(data: Dataset, findings: Findings) -> Iterator[Planned]:
    if data.task == "regression":
        for finding in findings.of("suspected-sentinel"):
            if not _is_column(data, _subject(finding)):
                value = float(finding.evidence["value"])
                yield DropTargets(value), _reason([finding]), ("suspected-sentinel",)
        least = min(np.min(part.targets) for part in data.splits.values() if len(part))
        skewed = [x for x in findings.of("target-distribution") if x.evidence["skewness"] >= SKEWED]
        if skewed and least >= 0 and data.target_transform is None:
            yield TransformTarget("log1p"), _reason(skewed), ("target-distribution",)
    imbalance = findings.of("class-imbalance")
    if imbalance and data.task.target == "class":
        yield WeightClasses(), _reason(imbalance), ("class-imbalance",)


def _is_column(data: Dataset, name: str) -> bool:
    return data.input_kind is InputKind.TABLE and name in data.train.inputs[0]


def _subject(finding: Finding) -> str:
    """Return the name of the column that a finding is about, of which the subject is the repr."""
    try:
        return str(ast.literal_eval(finding.subject))
    except (ValueError, SyntaxError):
        return finding.subject


def _reason(found: Iterable[Any]) -> str:
    """Return what findings mean, each sentence once."""
    return " ".join(dict.fromkeys(finding.meaning for finding in found))
