"""The assignments: their folders, titles and rubrics.

An assignment is a folder `03_freeze` below `docs/assignments`, or, in an installed package, below
`kft/course/shipped`. `docs/assignments/README.md` says what is in it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from kft.files import check_file
from kft.messages import listed, shown

_PLACES = (
    Path(__file__).parent / "shipped",  # of an installed package
    Path(__file__).parents[2] / "docs" / "assignments",  # of a clone
)
TASK, NOTEBOOK = "assignment.py", "assignment.ipynb"


@dataclass(frozen=True)
class Line:
    """A line of a rubric.

    Attributes:
        id: Short name, which is a column of grades.csv.
        points: Points that it gives.
        text: What is asked for.
        check: Name of the function of checks.py that decides.
    """

    id: str
    points: float
    text: str
    check: str


@dataclass(frozen=True)
class Assignment:
    """An assignment: a folder with a task, data, checks and a rubric.

    Args:
        folder: Its folder, whose name begins with its number, such as `03_freeze`.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @property
    def number(self) -> int:
        """The number that the name begins with."""
        return int(self.name.partition("_")[0])

    @property
    def title(self) -> str:
        """What the assignment is called."""
        return self._rubric["title"]

    @property
    def lecture(self) -> str:
        """The lecture that it belongs to."""
        return self._rubric["lecture"]

    @property
    def minutes(self) -> int:
        """Minutes that a student needs."""
        return self._rubric["minutes"]

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines of the rubric."""
        return tuple(Line(**line) for line in self._rubric["line"])

    @property
    def points(self) -> float:
        """The sum of the points of all lines."""
        return sum(line.points for line in self.lines)

    @cached_property
    def _rubric(self) -> dict[str, Any]:
        path = check_file(self.folder / "rubric.toml", "the rubric")
        rubric = tomllib.loads(path.read_text())
        wanted = {"title", "lecture", "minutes", "line"}
        if set(rubric) != wanted:
            raise ValueError(
                f"{path} must have {listed(sorted(wanted), None)}, received "
                f"{listed(sorted(rubric), None)}."
            )
        wanted = {"id", "points", "text", "check"}
        for line in rubric["line"]:
            if set(line) != wanted:
                raise ValueError(
                    f"each [[line]] of {path} must have {listed(sorted(wanted), None)}, received "
                    f"{shown(line)}."
                )
        return rubric

    def source(self, name: str) -> str:
        """Return the text of a file of the folder.

        Args:
            name: Name of the file, such as "checks.py".

        Raises:
            FileNotFoundError: There is no such file.
        """
        return check_file(self.folder / name, f"{name} of assignment {self.name}").read_text()


def module_of(source: str, name: str) -> ModuleType:
    """Run the text of a module, and return the module.

    Args:
        source: The text.
        name: What its tracebacks call it.

    Example:
        >>> module_of("def data(rng): return rng.random()", "data.py").data.__name__
        'data'
    """
    module = ModuleType(name.removesuffix(".py"))
    module.__file__ = name
    exec(compile(source, name, "exec", dont_inherit=True), module.__dict__)
    return module


def assignments() -> list[Assignment]:
    """Return all assignments, in the order of their numbers.

    Raises:
        FileNotFoundError: This installation has none.

    Example:
        >>> [assignment.number for assignment in assignments()][:2]
        [1, 2]
    """
    folders = [
        rubric.parent
        for place in _PLACES
        for rubric in place.glob("[0-9]*_*/rubric.toml")
    ]  # fmt: skip
    if not folders:
        raise FileNotFoundError(
            f"this installation of kft has no assignments: none in "
            f"{listed(_PLACES, None)}. Install kft from a release or from a clone."
        )
    return sorted(map(Assignment, folders), key=lambda assignment: assignment.number)


def find(name: str | int) -> Assignment:
    """Return the assignment of a number or a name.

    Args:
        name: A number (3, "3", "03"), or the name of the folder, with or without its number.

    Raises:
        ValueError: There is no such assignment.

    Example:
        >>> find(1) == find("01") == find("explore") == find("01_explore")
        True
    """
    known = assignments()
    text = str(name)
    for assignment in known:
        number, _, word = assignment.name.partition("_")
        if text in (assignment.name, word, number, number.lstrip("0")):
            return assignment
    raise ValueError(
        f"there is no assignment {shown(name)}; there are {listed([x.name for x in known], None)}."
    )
