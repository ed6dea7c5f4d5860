"""What came of a submission: points and reasons, line by line of the rubric."""

from __future__ import annotations

import inspect
import time
from dataclasses import asdict, dataclass
from typing import Any

from kft.course.assignments import Assignment, Line, module_of
from kft.course.cards import same
from kft.course.work import Work, outcome
from kft.course.wrong import is_hidden


@dataclass(frozen=True)
class Result:
    """What came of a line of the rubric.

    Attributes:
        id: Id of the line.
        points: Points that the submission gets.
        of: Points that the line gives.
        text: What the line asks for.
        reason: Why it does not hold, in a sentence; empty if it holds.
        place: File and line to blame; empty if there is none.
    """

    id: str
    points: float
    of: float
    text: str
    reason: str = ""
    place: str = ""


@dataclass(frozen=True)
class Verdict:
    """What came of a submission.

    Attributes:
        results: A result for each line of the rubric; for students' own checks, each line that
            is not decided by hidden checks.
        stopped: Why the submission was not run to its end; empty if it was.
        failures: Errors of its cells.
        output: The last lines that it printed, of one that was stopped.
        seconds: How long it ran, in seconds.
        processor_seconds: How much of that it computed, on all cores together.
    """

    results: tuple[Result, ...]
    stopped: str = ""
    failures: tuple[str, ...] = ()
    output: str = ""
    seconds: float = 0.0
    processor_seconds: float = 0.0

    @property
    def points(self) -> float:
        """The sum of its points."""
        return sum(result.points for result in self.results)

    @property
    def of(self) -> float:
        """The sum of the points that there are."""
        return sum(result.of for result in self.results)


def judged(work: Work, lines: tuple[Line, ...], sources: dict[str, str], with_hidden: bool) -> dict:
    """Run the checks of an assignment on a submission.

    Args:
        work: The submission, which has been run.
        lines: The lines of the rubric.
        sources: Text of "checks.py" and of "data.py".
        with_hidden: Whether hidden checks run, too.

    Returns:
        `results`, `failures` and `processor_seconds` of a `Verdict`, as plain values.
    """
    checks = module_of(sources["checks.py"], "checks.py")
    work.module = module_of(sources["data.py"], "data.py")
    data = work.draw(work.generator())
    foreign = _not_own(work, data)
    results = []
    for line in lines:
        check = getattr(checks, line.check)
        if is_hidden(check) and not with_hidden:
            continue
        reason, place = foreign or outcome(work, check, *_arguments(check, work, data, line))
        points = 0 if reason else line.points
        results.append(Result(line.id, points, line.points, line.text, reason, place))
    return {
        "results": [asdict(result) for result in results],
        "failures": [reason for _, reason in work.failures],
        "processor_seconds": time.process_time(),
    }


def _arguments(check: Any, work: Work, data: Any, line: Line) -> list[Any]:
    """Return what a check takes: the submission, the data, and a generator if it asks for one."""
    arguments = [work, data, work.generator(f"check {line.id}")]
    return arguments[: len(inspect.signature(check).parameters)]


def _not_own(work: Work, data: Any) -> tuple[str, str] | None:
    """Return why nothing counts if the submission's `data` are not those of the student."""
    if "data" not in work.namespace or same(work.namespace["data"], data):
        return None
    line = work.line_of("data")
    reason = (
        f"`data` are not the data of student {work.student.student_id!r}: take them with "
        f"`data = course.data()` and change copies alone."
    )
    return reason, work.where.place(line) if line else ""


def none_of(assignment: Assignment, reason: str, **more: Any) -> Verdict:
    """Return the verdict on a submission that was not run to its end.

    Args:
        assignment: The assignment.
        reason: Why.
        more: Further attributes of the verdict.
    """
    results = tuple(
        Result(line.id, 0, line.points, line.text, reason) for line in assignment.lines
    )  # fmt: skip
    return Verdict(results, reason, **more)
