"""The program of a submission, read from a notebook or from its text form."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from kft.course.assignments import NOTEBOOK, TASK, Assignment
from kft.files import check_file, read_json

_CELL = re.compile(r"^# %%.*$", re.M)
_MAGIC = re.compile(r"^(?=\s*[%!?])", re.M)  # of IPython, no Python
_LARGEST = 2**20  # bytes of a submission's program


@dataclass(frozen=True)
class Source:
    """The code of a submission.

    Args:
        name: Name of the file.
        cells: (line where it begins, code) of each cell with code. Lines are those of the text
            form; a notebook's count through its cells with code.

    Attributes:
        name: Name of the file.
        cells: The cells.
    """

    name: str
    cells: tuple[tuple[int, str], ...]

    @property
    def text(self) -> str:
        """The whole code, each line at its number."""
        lines: list[str] = []
        for first, code in self.cells:
            lines += [""] * (first - 1 - len(lines)) + code.split("\n")
        return "\n".join(lines)

    def place(self, line: int) -> str:
        """Say where a line is, as the student finds it.

        Args:
            line: Number of the line in `text`.

        Example:
            >>> Source("assignment.ipynb", ((1, "a = 1\\nb = 2"), (4, "c = 3"))).place(5)
            'assignment.ipynb, code cell 2, line 2'
        """
        if not self.name.endswith(".ipynb"):
            return f"{self.name}, line {line}"
        number = self.cell(line)
        return f"{self.name}, code cell {number}, line {line - self.cells[number - 1][0] + 1}"

    def cell(self, line: int) -> int:
        """Return the number of the cell with code that a line is in, from 1.

        Args:
            line: Number of the line in `text`.
        """
        return max(sum(first <= line for first, _ in self.cells), 1)

    def code(self) -> list[str]:
        """Return the code of the cells without empty ones, to compare files."""
        return [code.strip() for _, code in self.cells if code.strip()]


def source_of_text(text: str, name: str = TASK) -> Source:
    """Read the text form, whose cells begin with `# %%`.

    Args:
        text: The text.
        name: Name of the file.

    Example:
        >>> source_of_text("# %% [markdown]\\n# Task\\n# %%\\na = 1").cells
        ((4, 'a = 1'),)
    """
    cells, first, markdown = [], 1, False
    for line, mark in [*_marks(text), (text.count("\n") + 2, "")]:
        code = "\n".join(text.split("\n")[first - 1 : line - 1])
        if not markdown and code.strip():
            cells.append((first, code))
        first, markdown = line + 1, "[markdown]" in mark
    return Source(name, tuple(cells))


def _marks(text: str) -> list[tuple[int, str]]:
    """Return (number, text) of the lines that begin cells."""
    return [(text.count("\n", 0, x.start()) + 1, x[0]) for x in _CELL.finditer(text)]


def source_of_notebook(notebook: dict, name: str = NOTEBOOK) -> Source:
    """Read a notebook; lines for IPython, such as `%matplotlib`, become comments.

    Args:
        notebook: The content of the file.
        name: Name of the file.

    Raises:
        ValueError: It is no notebook of format 4.
    """
    cells, first = [], 1
    try:
        for cell in notebook["cells"]:
            code = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
            if cell["cell_type"] == "code":
                cells.append((first, _MAGIC.sub("# ", code)))
                first += code.count("\n") + 2
    except (KeyError, TypeError):
        raise ValueError(
            f"{name} is no notebook of format 4: save it again in Jupyter, or hand in {TASK}."
        ) from None
    return Source(name, tuple(cells))


def read_source(folder: Path, assignment: Assignment) -> Source:
    """Read the program of a submission.

    Args:
        folder: The folder of the submission, with assignment.ipynb, assignment.py or both.
        assignment: The assignment; the file that differs from its task is read.

    Raises:
        FileNotFoundError: The folder has neither file.
        ValueError: Both files were filled, and differ; or one is damaged.
    """
    found = [read_file(folder / name) for name in (NOTEBOOK, TASK) if (folder / name).exists()]
    if not found:
        raise FileNotFoundError(
            f"{folder} has neither {NOTEBOOK} nor {TASK}: hand in one of them, under this name."
        )
    task = source_of_text(assignment.source(TASK)).code()
    filled = [source for source in found if source.code() != task] or found[-1:]
    if len(filled) == 2 and filled[0].code() != filled[1].code():
        raise ValueError(
            f"{NOTEBOOK} and {TASK} were both filled, and differ: remove the one that is not to "
            f"be graded."
        )
    return filled[-1]


def read_file(path: Path) -> Source:
    """Read a notebook or its text form.

    Args:
        path: The file.

    Raises:
        ValueError: It is damaged, or larger than 1 MiB of code.
    """
    check_file(path, path.name)
    if path.suffix == ".ipynb":  # pictures may be in it
        return source_of_notebook(read_json(path), path.name)
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} has more than {_LARGEST:,} bytes: hand in code alone.")
    try:
        return source_of_text(
            path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"), path.name
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}): save it as UTF-8.") from None


def notebook_of(source: str) -> str:
    """Return the notebook of a text form, as stored in the folder of an assignment.

    Args:
        source: The text form (py:percent).

    Raises:
        ImportError: jupytext is not installed.
    """
    import jupytext

    notebook = jupytext.reads(source, "py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # the same in each run
    return json.dumps(json.loads(jupytext.writes(notebook, "ipynb")), indent=1) + "\n"
