"""The course: assignments as they lie in docs/assignments, and submissions of all kinds, graded."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from assignments import cases, program, submit
from typer.testing import CliRunner

from kft import course
from kft.cli import app
from kft.course import assignments as catalogue
from kft.course import grading, running
from kft.course.assignments import assignments, find
from kft.course.authoring import task_of
from kft.course.cards import same
from kft.course.limits import Limits
from kft.course.running import Runner
from kft.course.students import draw, read_student
from kft.course.submissions import notebook_of, read_source, source_of_notebook
from kft.course.verdicts import judged
from kft.course.work import run

ASSIGNMENTS = assignments()
# A quarter of a minute each, or more.
SLOW = {"02_layers", "03_freeze", "05_esm2", "06_gravitational_waves", "08_sam", "10_final"}
each = pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=lambda x: x.name)
each_in_its_time = pytest.mark.parametrize(
    "assignment",
    [pytest.param(x, marks=[pytest.mark.long] if x.name in SLOW else []) for x in ASSIGNMENTS],
    ids=lambda x: x.name,
)


# The assignments as they lie there ----------------------------------------------------------------


@each_in_its_time
@pytest.mark.once
def test_the_solution_passes(assignment, tmp_path, monkeypatch):
    folder = submit(assignment, tmp_path / "ada")
    monkeypatch.chdir(folder)
    work = run(read_source(folder, assignment), read_student(folder))
    sources = {name: assignment.source(name) for name in ("checks.py", "data.py")}
    verdict = judged(work, assignment.lines, sources, with_hidden=True)
    assert verdict["failures"] == []
    assert {x["id"]: x["reason"] for x in verdict["results"] if x["reason"]} == {}


@each
@pytest.mark.once
def test_a_task_is_its_solution_with_gaps(assignment):
    """After a change of solution.py: python -m kft.course.authoring FOLDER."""
    assert assignment.source("assignment.py") == task_of(assignment.source("solution.py"))
    assert assignment.source("assignment.ipynb") == notebook_of(assignment.source("assignment.py"))


@each
@pytest.mark.once
def test_wrong_submissions_can_be_made_and_name_lines_of_the_rubric(assignment):
    known = {line.id for line in assignment.lines}
    wrong = cases(assignment)
    assert len(wrong) >= 10
    for case in wrong:
        assert program(assignment, case) != program(assignment) or case.files
        assert case.says and (case.loses == ["*"] or set(case.loses) <= known), case.name
    checks = catalogue.module_of(assignment.source("checks.py"), "checks.py")
    assert all(callable(getattr(checks, line.check)) for line in assignment.lines)
    assert "?" in assignment.source("oral.md")


@each_in_its_time
@pytest.mark.once
def test_data_follow_from_the_student(assignment, tmp_path, monkeypatch):
    folder = course.start(assignment.number, "ada", out=tmp_path / "ada")
    assert sorted(x.name for x in folder.iterdir()) == [
        "CHECK.md", "DATA.md", "assignment.ipynb", "assignment.py", "student.toml",
    ]  # fmt: skip
    monkeypatch.chdir(folder)
    ada = read_student(folder)
    data = course.data()
    assert same(data, draw(assignment, ada.generator()))
    assert not same(data, draw(assignment, replace(ada, student_id="ben").generator()))


# A small assignment, and what students hand in ----------------------------------------------------

SOLUTION = """# %%
# TODO: a number above 2
number = 3


# %%
def double(x):
    # TODO: twice x
    return 2 * x
"""
CHECKS = """
from kft.course import Wrong, hidden

def check_number(work, data):
    if not work.number > data["least"]:
        raise Wrong(f"{work.number} is too small.", work.line_of("number"))

@hidden
def check_double(work, data, rng):
    x = rng.random()
    if work.double(x) != 2 * x:
        raise Wrong(f"double({x}) is wrong.", work.line_of("double"))
"""
RUBRIC = """
title = "Small"
lecture = "0"
minutes = 1
line = [
    { id = "number", points = 1, text = "A number.", check = "check_number" },
    { id = "double", points = 2, text = "A function.", check = "check_double" },
]
"""
FIRST = "# %%\nnumber = 3\n# %%\n"
DOUBLE = "# %%\ndef double(x):\n    return 2 * x\n"
SUBMISSIONS = {  # name: (program, points, words of the reason)
    "right": (FIRST + DOUBLE, 3, ""),
    "a_gap": (FIRST + "def double(x):\n    # TODO\n    ...\n", 1, "`double` is still `...`"),
    "a_gap_in_a_class": (
        FIRST + "class double:\n    def __new__(cls, x):\n        ...\n",
        1, "`double.__new__` is still `...`",
    ),
    "needs_a_gap": (
        FIRST + "def double(x):\n    # TODO\n    ...\ntwice = double(2)\n# %%\ntwice + 1\n",
        1, "assignment.py, line 9 needs `double`, which is still `...` (TypeError: unsupported",
    ),
    "an_error": ("# %%\n1 / 0\nnumber = 3\n" + DOUBLE, 2, "ZeroDivisionError: division by zero"),
    "no_python": ("# %%\nnumber = = 3\n" + DOUBLE, 2, "SyntaxError"),
    "error_in_function": (FIRST + "def double(x):\n    return x.y\n", 1, "has no attribute 'y'"),
    "own_data": (f"# %%\ndata = 3\n{FIRST}{DOUBLE}", 0, "not the data of student 'own_data'"),
    "exit": (f"{FIRST}exit(0)\n{DOUBLE}", 1, "was ended by exit() (assignment.py, line 4)"),
    "hard_exit": (f"{FIRST}import os; os._exit(0)\n{DOUBLE}", 0, "with exit status 0"),
    "crash": (f"{FIRST}import os; os.abort()\n{DOUBLE}", 0, "crashed (SIGABRT)"),
    "loop": (f"{FIRST}while True: pass\n{DOUBLE}", 0, "longer than 2 s, at assignment.py, line 4"),
    "memory": (
        f"{FIRST}import numpy\nx = [numpy.ones(2**27) for _ in range(20)]\n{DOUBLE}",
        0, "more than 2 GiB of memory",
    ),
    "prints": (f"{FIRST}while True: print('x' * 1000)\n{DOUBLE}", 0, "printed more than 10 MiB"),
    "network": (
        f"{FIRST}import socket; socket.create_connection(('127.0.0.1', 9))\n{DOUBLE}",
        3, "there is no network here",
    ),
    "kills": (f"{FIRST}import os; os.kill(os.getppid(), 9)\n{DOUBLE}", 3, "cannot send signals"),
    "writes": (f"{FIRST}open('../../x', 'w')\n{DOUBLE}", 3, "writes in its own folder"),
    "replaces": (
        f"{FIRST}import kft.course.work as w\nw.outcome = lambda *_: ('', '')\n{DOUBLE}",
        0, "it replaces code that the checks use: kft.course.work.outcome",
    ),
    "forges": (
        f"""{FIRST}import os
for fd in range(3, 64):
    try: os.write(fd, b'{{"token": "", "verdict": {{}}}}\\n{{"ended": 0}}\\n')
    except OSError: pass
""", 0, "",
    ),
    "another_right": (FIRST + DOUBLE, 3, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def runner():
    with Runner("torch", Limits()) as runner:
        yield runner


@pytest.fixture
def small(tmp_path, monkeypatch, runner):
    """A folder with the small assignment as the only one; one process serves all tests."""

    def one(backend, limits):
        assert backend == runner.backend
        runner.limits = limits
        return nullcontext(runner)

    monkeypatch.setattr(grading, "Runner", one)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    folder = tmp_path / "known" / "11_small"
    folder.mkdir(parents=True)
    (folder / "solution.py").write_text(SOLUTION)
    (folder / "assignment.py").write_text(task_of(SOLUTION))
    (folder / "assignment.ipynb").write_text(notebook_of(task_of(SOLUTION)))
    (folder / "data.py").write_text("def data(rng):\n    return {'least': rng.random() + 1}\n")
    (folder / "checks.py").write_text(CHECKS)
    (folder / "rubric.toml").write_text(RUBRIC)
    monkeypatch.setattr(catalogue, "_PLACES", (folder.parent,))
    return folder


def hand_in(place, name, text):
    folder = course.start("small", name, out=place / name)
    (folder / "assignment.py").write_text(text)
    return folder


@pytest.mark.once
def test_each_submission_costs_only_itself(small, tmp_path):
    place = tmp_path / "in"
    for name, (text, _, _) in SUBMISSIONS.items():
        hand_in(place, name, text)
    out = tmp_path / "out" / "grades.csv"
    course.grade(place, out, only=set(SUBMISSIONS) - {"loop"}, memory=2)
    rows = course.grade(place, out, only=["loop"], seconds=2).set_index("student")
    for name, (_, points, says) in SUBMISSIONS.items():
        feedback = (tmp_path / "out" / "feedback" / f"{name}_11_small.md").read_text()
        assert rows.total[name] == points, feedback
        assert says in feedback, name
    assert rows.index.tolist() == sorted(SUBMISSIONS)
    assert rows.loc["right", ["number", "double", "of"]].tolist() == [1, 2, 3]
    assert rows.backend_version.all() and rows.keras.all() and rows.kft.all()


@pytest.mark.once
def test_graded_again_the_grades_are_the_same_and_one_can_be_graded_alone(small, tmp_path):
    place, out = tmp_path / "in", tmp_path / "grades.csv"
    for name in ("ada", "ben"):
        hand_in(place, name, FIRST)
    (place / "cleo").mkdir()
    (place / "cleo" / "a.txt").write_text("")
    course.grade(place, out)
    before = out.read_text()
    course.grade(place, out)
    assert out.read_text() == before
    (place / "ben" / "assignment.py").write_text(FIRST + DOUBLE)
    course.grade(place, out, only=["ben"])
    after = pd.read_csv(out, index_col="student")
    assert after.total.tolist()[:2] == [1, 3]
    assert "cleo has no student.toml" in after.problem["cleo"]
    with pytest.raises(ValueError, match="only names dora, of whom there is no submission"):
        course.grade(place, out, only=["dora"])


@pytest.mark.once
def test_an_id_is_that_of_one_student(small, tmp_path):
    place = tmp_path / "in"
    ada = hand_in(place, "ada", FIRST)
    for name in ("ben", "cleo"):
        hand_in(place, name, FIRST)
    toml = (ada / "student.toml").read_text()
    (place / "ben" / "student.toml").write_text(toml)
    changed = (place / "cleo" / "student.toml").read_text().replace('"cleo"', '"dora"')
    (place / "cleo" / "student.toml").write_text(changed)
    rows = course.grade(place, tmp_path / "grades.csv").set_index("folder")
    assert "ada and ben are all of student 'ada'" in rows.problem["ada"]
    assert rows.problem["ada"] == rows.problem["ben"]
    assert (
        "was changed by hand: its signature is not that of student 'dora'" in rows.problem["cleo"]
    )
    assert np.isnan(rows.total).all() if "total" in rows else True


@pytest.mark.once
def test_what_a_student_sees(small, tmp_path):
    def shell(*arguments, status=0):
        done = CliRunner().invoke(app, ["assignment", *map(str, arguments)])
        assert done.exit_code == status, done.output
        return done.output

    assert "11  Small (lecture 0; 1 minute, 3 points)" in shell("list")
    assert "there are 11_small" in shell("start", "12", "--student-id", "ada", status=1)
    assert "student_id must be" in shell("start", "11", "--student-id", "a/b", status=1).replace(
        "--student-id", "student_id"
    )
    folder = tmp_path / "ada"
    shell("start", "11", "--student-id", "ada", "--out", folder)
    assert "which exists" in shell("start", "11", "--student-id", "ada", "--out", folder, status=1)
    said = shell("check", folder, status=1)
    assert "open  number: A number.\n        `number` is still `...`: fill this gap." in said
    assert "1 more line" in said and "double: " not in said
    notebook = json.loads((folder / "assignment.ipynb").read_text())
    notebook["cells"][0]["source"] = "%matplotlib inline\ndisplay(1)\nnumber = 3"
    (folder / "assignment.ipynb").write_text(json.dumps(notebook))
    assert "  ok  number" in shell("check", folder)
    (folder / "assignment.py").write_text(FIRST)
    assert "were both filled, and differ" in shell("check", folder, status=1)


@pytest.mark.once
def test_broken_checks_are_not_the_student_s_fault(small, tmp_path):
    (small / "checks.py").write_text("check_number = 1 / 0")
    hand_in(tmp_path / "in", "ada", FIRST)
    row = course.grade(tmp_path / "in", tmp_path / "grades.csv").iloc[0]
    assert "the checks of 11_small failed" in row.problem
    assert ("ZeroDivisionError" in row.problem and "total" not in row) or np.isnan(row.total)


@pytest.mark.once
def test_a_line_of_a_notebook_is_named_as_it_is_found():
    cells = [
        {"cell_type": "markdown", "source": "# Task"},
        {"cell_type": "code", "source": ["a = 1\n", "b = 2"]},
        {"cell_type": "code", "source": "c = 3"},
    ]
    source = source_of_notebook({"cells": cells})
    assert [source.place(x) for x in (2, 4)] == [
        "assignment.ipynb, code cell 1, line 2", "assignment.ipynb, code cell 2, line 1",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no notebook of format 4"):
        source_of_notebook({"worksheets": []})


@pytest.mark.once
def test_gaps():
    head = "a, b = 1, 2\n# TODO: two\n# numbers\n"
    function = "def f(x):\n    # TODO\n    y = x\n    return y\n"
    task = f"{head}c, d = ..., ...\n\n\ndef f(x):\n    # TODO\n    ...\n"
    assert task_of(f"{head}c, d = 3, 4\n\n\n{function}") == task
    with pytest.raises(ValueError, match="has no gap"):
        task_of("a = 1")
    with pytest.raises(ValueError, match="in line 1 must stand above `name = value`"):
        task_of("# TODO: a sum\nprint(1)\na = 1")  # `a = 1` would be left in the task


@pytest.mark.once
def test_find_takes_numbers_and_names():
    assert find(1) == find("01") == find("01_explore") == find("explore") == ASSIGNMENTS[0]
    with pytest.raises(ValueError, match="there is no assignment '99'; there are 01_explore"):
        find("99")


@pytest.mark.once
def test_the_process_that_runs_submissions_ends_by_itself():
    server = running._Server("torch")
    server.end()
    assert server._process.returncode == 0  # not killed, so that what it has to write is written
    assert not server.processes()
