"""Submissions made from the solution of an assignment, right ones and those of wrong.toml."""

import tomllib
from dataclasses import dataclass, field

from kft import course
from kft.course.students import read_student
from kft.course.submissions import read_source


@dataclass
class Case:
    """A wrong submission: the solution with some text replaced.

    `loses` names the lines of the rubric that it loses ("*": all), and `says` what stands in the
    reason of one of them. `files` are further files of its folder.
    """

    name: str
    loses: list
    says: str
    replace: list = field(default_factory=list)
    files: dict = field(default_factory=dict)
    seconds: float = 600
    memory: float = 4


def cases(assignment):
    """The wrong submissions of an assignment."""
    return [Case(**case) for case in tomllib.loads(assignment.source("wrong.toml"))["case"]]


def program(assignment, case=None):
    """The program of the solution, or of a wrong submission."""
    text = assignment.source("solution.py")
    for old, new in case.replace if case else ():
        if text.count(old) != 1:
            raise ValueError(
                f"{assignment.name}, {case.name}: solution.py must have {old!r} once, it has it "
                f"{text.count(old)} times."
            )
        text = text.replace(old, new)
    return text


def submit(assignment, folder, case=None, student_id="ada"):
    """Write a submission: the solution, or a wrong one."""
    text = program(assignment, case)
    course.start(assignment.name, student_id, out=folder)
    (folder / "assignment.ipynb").unlink()
    (folder / "assignment.py").write_text(text)
    for name, content in (case.files if case else {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def run(runner, assignment, folder):
    """The verdict of a runner on the submission in a folder."""
    return runner.run(folder, read_source(folder, assignment), read_student(folder), assignment)


def problems(case, verdict):
    """What is wrong with the verdict on a wrong submission."""
    lost = {x.id for x in verdict.results if not x.points}
    everything = {x.id for x in verdict.results}
    expected = everything if case.loses == ["*"] else set(case.loses)
    if lost != expected:
        yield f"loses {sorted(lost)}, expected {sorted(expected)}"
    reasons = [x.reason for x in verdict.results if x.reason]
    if not any(case.says in reason for reason in reasons):
        yield f"no reason says {case.says!r}: {sorted(set(reasons))}"
