"""Making the files that students get from a solution: `python -m kft.course.authoring FOLDER`.

The task is the solution with gaps: in a function, what follows `# TODO` becomes `...`; elsewhere
the value of the next statement does. So a task and its solution can never differ elsewhere.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from kft.course.assignments import NOTEBOOK, TASK
from kft.course.submissions import notebook_of
from kft.files import write_text

_GAP = "# TODO"


def task_of(solution: str) -> str:
    """Return the text form of a task.

    Args:
        solution: The text of solution.py.

    Raises:
        ValueError: It has no gap, or a gap with nothing behind it; or, outside of a function, a gap
            above something else than `name = value`, of which more would be left in the task.

    Example:
        >>> print(task_of("# TODO: a number\\na = 1\\nb = 2"))
        # TODO: a number
        a = ...
        b = 2
    """
    lines = solution.split("\n")
    functions = [x for x in ast.walk(ast.parse(solution)) if isinstance(x, ast.FunctionDef)]
    gaps = [i for i, line in enumerate(lines, 1) if line.lstrip().startswith(_GAP)]
    if not gaps:
        raise ValueError(f"the solution has no gap: write `{_GAP}: what` above what is left out.")
    for gap in reversed(gaps):
        around = [x for x in functions if x.lineno < gap <= (x.end_lineno or 0)]
        body = around[-1].body if around else ast.parse(solution).body
        after = [node for node in body if node.lineno > gap]
        if not after:
            raise ValueError(f"nothing follows `{lines[gap - 1].strip()}` in line {gap}.")
        if not around and not isinstance(after[0], ast.Assign):
            raise ValueError(
                f"`{lines[gap - 1].strip()}` in line {gap} must stand above `name = value`: "
                f"outside of functions one statement is left out. Put what needs more into a "
                f"function."
            )
        last = after[-1] if around else after[0]
        first = _comment_end(lines, gap)
        lines[first : last.end_lineno] = [_left_out(after[0], bool(around), lines[gap - 1])]
    return "\n".join(lines)


def _comment_end(lines: list[str], gap: int) -> int:
    """Return the number of the last line of the comment that begins at a gap."""
    while lines[gap].lstrip().startswith("#") and not lines[gap].lstrip().startswith(_GAP):
        gap += 1
    return gap


def _left_out(node: ast.stmt, in_function: bool, comment: str) -> str:
    """Return what stands in the task for a statement of the solution."""
    indent = comment[: len(comment) - len(comment.lstrip())]
    if not in_function and isinstance(node, ast.Assign):
        target = node.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        return f"{', '.join(map(ast.unparse, names))} = {', '.join('...' for _ in names)}"
    return f"{indent}..."


def write_task(folder: Path) -> None:
    """Write assignment.py and assignment.ipynb of an assignment from its solution.py.

    Args:
        folder: The folder of the assignment.
    """
    task = task_of((folder / "solution.py").read_text())
    write_text(folder / TASK, task)
    write_text(folder / NOTEBOOK, notebook_of(task))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write_task(Path(name))
