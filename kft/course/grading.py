"""Checking a folder, and grading many: grades.csv and a feedback file for each student."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kft.course.assignments import Assignment, find
from kft.course.limits import Limits
from kft.course.running import Runner
from kft.course.students import STUDENT, Student, of_one_student, read_student
from kft.course.submissions import read_source
from kft.course.verdicts import Verdict, none_of
from kft.files import write_text
from kft.messages import count_of, harmless, harmless_cell, listed

FEEDBACK = "feedback"  # folder next to grades.csv
_BACKENDS = ("jax", "torch", "tensorflow")


@dataclass(frozen=True)
class Grade:
    """The grade of a submission.

    Attributes:
        folder: Name of the submission's folder.
        student: Whose it is; None if that cannot be read.
        assignment: The assignment; None if that cannot be read.
        verdict: What came of it; None if it could not be graded.
        problem: Why it could not be graded; empty if it was.
    """

    folder: str
    student: Student | None
    assignment: Assignment | None
    verdict: Verdict | None
    problem: str = ""

    @property
    def name(self) -> str:
        """The id of the student, or the folder where there is none."""
        return self.student.student_id if self.student else self.folder


def check(folder: str | Path, seconds: float = 600, memory: float = 4) -> Grade:
    """Check the folder of a student, without hidden checks.

    Args:
        folder: The folder that `start` wrote.
        seconds: Seconds that the program may run.
        memory: GiB of memory that it may take.

    Returns:
        The grade, of the lines that students can check.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or the checks cannot run here.
    """
    folder = Path(folder)
    student = read_student(folder)
    assignment = find(student.assignment)
    source = read_source(folder, assignment)
    backend = os.environ.get("KERAS_BACKEND") or student.backend
    _check_backend(backend)
    try:
        with Runner(backend, Limits(seconds, memory)) as runner:
            verdict = runner.run(folder, source, student, assignment, with_hidden=False)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    return Grade(folder.name, student, assignment, verdict)


def grade(
    folder: str | Path,
    out: str | Path,
    seconds: float = 600,
    memory: float = 4,
    only: Iterable[str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Grade all submissions of a folder.

    Each is run in a process of its own, in a copy of its folder, on the backend that its student
    uses, and costs only itself whatever it does. The same submissions get the same grades again.

    Args:
        folder: Folder with a folder for each submission, as `start` wrote it and the student filled
            it; or one submission.
        out: CSV file to write. Files `feedback/STUDENT_ASSIGNMENT.md` are written next to it.
        seconds: Seconds that each may run.
        memory: GiB of memory that each may take.
        only: Ids of the students to grade again; the rows of others stay as they are in `out`.
        progress: Called with a line of text for each submission.

    Returns:
        The table in `out`: a row for each submission, with points for each line of the rubric, the
        total, what there was to say in `problem`, and the versions of kft, Keras and the backend.

    Raises:
        FileNotFoundError: The folder has no submission.
        ValueError: `only` names a student without submission.
    """
    folder, out = Path(folder), Path(out)
    places = _submissions(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    grades = _all_grades(places, Limits(seconds, memory), only, progress)
    for one in grades:
        path = out.parent / FEEDBACK / f"{_file_name(one)}.md"
        path.parent.mkdir(exist_ok=True)
        write_text(path, feedback(one))
    rows = pd.DataFrame([_row(one) for one in grades])
    if only is not None and out.exists():
        before = pd.read_csv(out, dtype=dict.fromkeys(_TEXT, str))
        rows = pd.concat([before[~before["folder"].isin(rows["folder"])], rows])
    lines = [name for name in rows.columns if name not in (*_FIRST, *_LAST)]
    rows = rows.reindex(columns=[*_FIRST, *lines, *_LAST])
    rows = rows.sort_values(["student", "assignment", "folder"])
    rows = rows.reset_index(drop=True)
    write_text(out, rows.to_csv(index=False))
    return rows


_FIRST = ("student", "course", "assignment", "folder")
_LAST = ("total", "of", "problem", "kft", "keras", "backend", "backend_version")
_TEXT = (*_FIRST, *_LAST[2:])


def _submissions(folder: Path) -> dict[str, Path]:
    """Return name -> folder of each submission, also of one that lies deeper than its name."""
    if (folder / STUDENT).exists():
        return {folder.name: folder}
    inside = sorted(x for x in folder.iterdir() if x.is_dir() and not x.name.startswith("."))
    found = {}
    for place in inside:
        marks = list(place.rglob(STUDENT))
        if any(place.iterdir()) and place.name != FEEDBACK:
            found[place.name] = marks[0].parent if len(marks) == 1 else place
    if not found:
        raise FileNotFoundError(
            f"{folder} has no submissions: put the folder of each student into it, with {STUDENT}."
        )
    return found


def _all_grades(
    places: dict[str, Path],
    limits: Limits,
    only: Iterable[str] | None,
    progress: Callable[[str], None],
) -> list[Grade]:
    """Grade submissions, with one server for each backend."""
    students: dict[str, Student] = {}
    problems: dict[str, str] = {}
    for name, place in places.items():
        try:
            students[name] = read_student(place)
        except (OSError, ValueError) as error:
            problems[name] = str(error)
    problems |= of_one_student(students)
    chosen = list(places) if only is None else _chosen(set(only), students)
    grades = []
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for number, name in enumerate(chosen, 1):
            if name in problems:
                one = Grade(name, students.get(name), None, None, problems[name])
            else:
                one = _graded(name, places[name], students[name], limits, runners, stack)
            grades.append(one)
            progress(f"{number} of {len(chosen)}: {summary(one)}")
    return grades


def _chosen(only: set[str], students: dict[str, Student]) -> list[str]:
    """Return the names of the submissions of some students."""
    known = {student.student_id for student in students.values()}
    if unknown := only - known:
        raise ValueError(
            f"only names {listed(sorted(unknown))}, of whom there is no submission; there are "
            f"{listed(sorted(known), 20)}."
        )
    return [name for name, student in students.items() if student.student_id in only]


def _graded(
    name: str,
    place: Path,
    student: Student,
    limits: Limits,
    runners: dict[str, Runner],
    stack: ExitStack,
) -> Grade:
    """Grade a submission."""
    try:
        assignment = find(student.assignment)
        _check_backend(student.backend)
    except ValueError as error:
        return Grade(name, student, None, None, str(error))
    try:
        source = read_source(place, assignment)
    except (OSError, ValueError) as error:
        return Grade(name, student, assignment, none_of(assignment, str(error)))
    if student.backend not in runners:
        runners[student.backend] = stack.enter_context(Runner(student.backend, limits))
    try:
        verdict = runners[student.backend].run(place, source, student, assignment)
    except RuntimeError as error:
        return Grade(name, student, assignment, None, str(error))
    return Grade(name, student, assignment, verdict)


def _check_backend(backend: str) -> None:
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {listed(_BACKENDS)}, received {backend!r}.")
    if not importlib.util.find_spec(backend):
        raise ValueError(
            f"the backend {backend} is not installed here: pip install 'kft[{backend}]', and run "
            f"this again."
        )


def _row(one: Grade) -> dict[str, object]:
    """Return the row of a submission in grades.csv."""
    student, verdict = one.student, one.verdict
    row: dict[str, object] = {
        "student": harmless_cell(one.name),
        "course": student.course if student else "",
        "assignment": student.assignment if student else "",
        "folder": harmless_cell(one.folder),
    }
    if verdict:
        row |= {result.id: float(result.points) for result in verdict.results}
        row |= {"total": float(verdict.points), "of": float(verdict.of)}
    problem = one.problem or (verdict.stopped if verdict else "")
    row["problem"] = harmless_cell(harmless(problem))
    backend = student.backend if student and verdict else None
    row |= {name: importlib.metadata.version(name) for name in ("kft", "keras")}
    row |= {
        "backend": backend or "",
        "backend_version": importlib.metadata.version(backend) if backend else "",
    }
    return row


def _file_name(one: Grade) -> str:
    """Return the name of the feedback file, which leads nowhere else."""
    name = f"{one.name}_{one.student.assignment}" if one.student else one.folder
    return re.sub(r"[^\w.@-]", "_", name).lstrip(".")


# For people ---------------------------------------------------------------------------------------


def summary(one: Grade) -> str:
    """Return a line on a submission.

    Args:
        one: Its grade.
    """
    if one.verdict is None:
        return f"{one.folder}: not graded: {one.problem}"
    why = f"; {one.verdict.stopped}" if one.verdict.stopped else ""
    points = f"{one.verdict.points:g} of {one.verdict.of:g} points"
    return f"{one.name}: {points} in {one.verdict.seconds:.0f} s{why}"


def feedback(one: Grade) -> str:
    """Return the page that a student gets, in Markdown.

    Args:
        one: The grade.
    """
    title = one.assignment.title if one.assignment else one.folder
    lines = [f"# {title}: {one.name}", ""]
    if one.verdict is None:
        return "\n".join([*lines, f"Not graded: {one.problem}", ""])
    verdict = one.verdict
    lines += [f"{verdict.points:g} of {verdict.of:g} points.", ""]
    if verdict.stopped:
        lines += [f"Your program was stopped: {verdict.stopped}", ""]
    if verdict.output:
        lines += [
            "Its last lines of output:",
            "",
            *(f"    {x}" for x in verdict.output.split("\n")),
        ]
        lines += [""]
    if verdict.failures:
        lines += ["Cells that did not run to their end:", ""]
        lines += [*(f"- {reason}" for reason in verdict.failures), ""]
    for result in verdict.results:
        lines += [f"## {result.id}: {result.points:g} of {result.of:g}", "", result.text, ""]
        if result.reason and result.reason != verdict.stopped:
            where = f" ({result.place})" if result.place else ""
            lines += [f"{harmless(result.reason)}{where}", ""]
    return "\n".join(lines)


def report_of_check(one: Grade) -> str:
    """Return what `kft assignment check` prints.

    Args:
        one: The grade.
    """
    verdict = one.verdict
    if verdict is None or one.assignment is None:
        return one.problem
    lines = [f"{one.assignment.title}, student {one.name}", ""]
    if verdict.stopped:
        lines += [f"Your program was stopped: {verdict.stopped}"]
        lines += [f"    {line}" for line in verdict.output.splitlines()]
        return "\n".join(lines)
    lines += [f"Failed: {reason}" for reason in verdict.failures]
    lines += [""] if verdict.failures else []
    for result in verdict.results:
        mark = "open" if result.reason else "  ok"
        lines.append(f"{mark}  {result.id}: {result.text}")
        if result.reason:
            where = f" ({result.place})" if result.place else ""
            lines.append(f"        {harmless(result.reason)}{where}")
    late = len(one.assignment.lines) - len(verdict.results)
    lines += ["", f"{verdict.points:g} of {verdict.of:g} points that you can check yourself"]
    if late:
        more = count_of(late, "more line is", "more lines are")
        lines[-1] += f"; {more} checked on other data when you have handed in"
    return "\n".join(lines) + "."
