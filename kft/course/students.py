"""Who a folder belongs to (`student.toml`), the data of a student, and `start`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.course.assignments import NOTEBOOK, TASK, Assignment, find, module_of
from kft.course.cards import card
from kft.files import check_file, write_text
from kft.messages import listed, shown

STUDENT = "student.toml"
_ID = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True)
class Student:
    """Who works on which assignment.

    Args:
        course: Name of the course.
        student_id: Name or number of the student.
        assignment: Name of the assignment, such as "03_freeze".
        backend: Backend of Keras that the student uses.
        kft: Version of kft that wrote the folder.
        keras: Version of Keras that wrote it.

    Raises:
        ValueError: `course` or `student_id` has other characters than letters, digits and `._@-`.
    """

    course: str
    student_id: str
    assignment: str
    backend: str
    kft: str
    keras: str

    def __post_init__(self) -> None:
        for name in ("course", "student_id"):
            if not _ID.fullmatch(str(value := getattr(self, name))):
                raise ValueError(
                    f"{name} must be 1 to 64 letters, digits and the signs . _ @ -, received "
                    f"{shown(value)}."
                )

    def generator(self, use: str = "data") -> np.random.Generator:
        """Return a new random generator that follows from the course, the student and the task.

        Args:
            use: What is drawn. Another use has another generator.

        Example:
            >>> ada = Student("kft", "ada", "01_explore", "torch", "0.1.0", "3.15.1")
            >>> bool(ada.generator().random() == ada.generator().random())
            True
        """
        return np.random.default_rng(int(self._digest(use), 16))

    @property
    def signature(self) -> str:
        """Sixteen digits that `start` writes, and that do not fit to another id."""
        return self._digest("signature")[:16]

    def _digest(self, use: str) -> str:
        key = json.dumps([self.course, self.student_id, self.assignment, use])
        return hashlib.sha256(key.encode()).hexdigest()


def write_student(folder: Path, student: Student) -> None:
    """Write student.toml.

    Args:
        folder: The folder of the student.
        student: Who that is.
    """
    values = {**asdict(student), "signature": student.signature}
    # A text in JSON is one in TOML.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    write_text(folder / STUDENT, "\n".join(["# Written by `kft assignment start`.", *lines, ""]))


def read_student(folder: Path) -> Student:
    """Read student.toml.

    Args:
        folder: The folder of the student.

    Raises:
        FileNotFoundError: The folder has no student.toml.
        ValueError: The file is damaged, or was changed since `start` wrote it.
    """
    path = folder / STUDENT
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} has no {STUDENT}: give a folder that `kft assignment start` wrote, with "
            f"all files in it."
        )
    try:
        values = tomllib.loads(check_file(path, STUDENT).read_text())
        signature = values.pop("signature")
        student = Student(**{key: str(value) for key, value in values.items()})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): run `kft assignment start` again in another folder, "
            f"and copy {STUDENT} from there."
        ) from None
    if signature != student.signature:
        raise ValueError(
            f"{path} was changed by hand: its signature is not that of student "
            f"{student.student_id!r} in course {student.course!r}. Run `kft assignment start` "
            f"with your own id, and copy {STUDENT} from there."
        )
    return student


def data() -> Any:
    """Return the data of the student in whose folder the program runs.

    They follow from the course, the id of the student and the assignment, the same on every
    backend and machine.

    Returns:
        What the assignment describes.

    Raises:
        FileNotFoundError: The working folder is not one that `kft assignment start` wrote.
    """
    student = read_student(Path.cwd())
    return draw(find(student.assignment), student.generator())


def draw(assignment: Assignment, rng: np.random.Generator) -> Any:
    """Return data of an assignment.

    Args:
        assignment: The assignment.
        rng: Generator that all that is random is drawn from.
    """
    return module_of(assignment.source("data.py"), "data.py").data(rng)


def start(
    assignment: str | int, student_id: str, course: str = "kft", out: str | Path | None = None
) -> Path:
    """Write a folder in which a student works on an assignment.

    Args:
        assignment: Number or name of the assignment.
        student_id: Name or number of the student, from which the data follow.
        course: Name of the course, from which they follow, too.
        out: Folder to write; None for `03_freeze_ID` here.

    Returns:
        The folder: assignment.ipynb and assignment.py (the same task, as a notebook and as text),
        DATA.md (what the data are), CHECK.md (how to check and to hand in) and student.toml.

    Raises:
        ValueError: There is no such assignment, or the id has other characters than letters,
            digits and `._@-`.
        FileExistsError: The folder exists and is not empty.
    """
    task = find(assignment)
    versions = {name: importlib.metadata.version(name) for name in ("kft", "keras")}
    student = Student(course, student_id, task.name, keras.backend.backend(), **versions)
    folder = Path(out) if out is not None else Path(f"{task.name}_{student_id}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"out is {folder}, which exists: give another folder, or remove it to start anew."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TASK, NOTEBOOK):
        shutil.copyfile(task.folder / name, folder / name)
    drawn = draw(task, student.generator())
    write_text(folder / "DATA.md", card(task, student.student_id, drawn))
    write_text(folder / "CHECK.md", _how_to_check(task))
    write_student(folder, student)
    return folder


def _how_to_check(task: Assignment) -> str:
    """Return the page that says how to check and hand in, and what gives points."""
    rows = [f"| {line.id} | {line.points:g} | {line.text} |" for line in task.lines]
    return "\n".join(
        [
            f"# {task.title}: check and hand in",
            "",
            f"Fill the gaps `...` under `# TODO` in {NOTEBOOK} or in {TASK} (one of the two), and "
            f"leave names as they are. Save it, and run in this folder:",
            "",
            "    kft assignment check",
            "",
            "or, in a cell of the notebook, `!kft assignment check`.",
            "",
            "It runs your file from its first line to its last in a copy of this folder, without "
            "network, with a limit of time and memory, and says for each line of the rubric "
            "whether it holds, and if not, where and why. Some lines are checked on other data "
            "once you have handed in: what you write must work for any data of this kind. Then "
            f"hand in this folder, with {STUDENT} in it.",
            "",
            "| line | points | what is asked for |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )  # fmt: skip


def of_one_student(students: Mapping[str, Student]) -> dict[str, str]:
    """Find submissions that say that they are of the same student.

    Args:
        students: Name of each submission -> its student.

    Returns:
        Name of the submission -> why it cannot be graded.
    """
    names: dict[tuple[str, str, str], list[str]] = {}
    for name, student in students.items():
        key = (student.course, student.student_id, student.assignment)
        names.setdefault(key, []).append(name)
    return {
        name: f"{listed(sorted(same), None)} are all of student {key[1]!r}: each student works on "
        f"data of their own; leave one of them"
        for key, same in names.items()
        if len(same) > 1
        for name in same
    }
