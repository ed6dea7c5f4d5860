"""A submission that has been run: what checks look at."""

from __future__ import annotations

import ast
import linecache
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from kft.course.students import Student
from kft.course.submissions import Source
from kft.course.wrong import Wrong
from kft.messages import harmless


class Work:
    """The names that a submission has defined. `work.model` is the submission's `model`.

    A name that is missing, is still `...`, or is a function or a class with a body that is still
    `...`, raises `Wrong` with the line and, if its cell failed, the error of that cell.

    Args:
        source: The program.
        student: Whose it is.
        namespace: Names and values, as the program left them.
        failures: Why cells of the program did not run to their end: (line, reason).
    """

    def __init__(
        self,
        source: Source,
        student: Student,
        namespace: dict[str, Any],
        failures: list[tuple[int | None, str]],
    ) -> None:
        self.where = source
        self.source = source.text
        self.student = student
        self.namespace = namespace
        self.failures = failures
        self.module: ModuleType | None = None
        self._bound = _bindings(source)

    def draw(self, rng: np.random.Generator) -> Any:
        """Return data as another student has them.

        Args:
            rng: Generator that all that is random is drawn from.
        """
        return self.module.data(rng)  # type: ignore[union-attr]

    def generator(self, use: str = "data") -> np.random.Generator:
        """Return a new generator of the student; by default the one that `data` came from.

        Args:
            use: What is drawn.
        """
        return self.student.generator(use)

    def line_of(self, name: str) -> int | None:
        """Return the line that gives a name its last value, outside of functions.

        Args:
            name: The name. `layer.trainable` is looked for as it stands, in any line.

        Returns:
            Number of the line; None if the name is not in the program.
        """
        if name in self._bound:
            return self._bound[name].lineno
        lines = self.source.split("\n")
        return next((i for i, line in enumerate(lines, 1) if name in line), None)

    def calls(self, name: str) -> list[ast.Call]:
        """Return the calls of a function or method in the program.

        Args:
            name: Its name, without what stands before the last dot.
        """
        found = [node for node in ast.walk(self.tree()) if isinstance(node, ast.Call)]
        return [x for x in found if ast.unparse(x.func).rpartition(".")[2] == name]

    def tree(self) -> ast.Module:
        """Return the syntax tree of all cells that are Python."""
        body: list[ast.stmt] = []
        for first, code in self.where.cells:
            body += _parsed(first, code)
        return ast.Module(body, [])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        line = self.line_of(name) if name in self._bound else None
        if name not in self.namespace:
            why = self._failure(line) or "give it a value"
            raise Wrong(f"`{name}` is missing: {why}.", line)
        value = self.namespace[name]
        if gap := _gap_in(name, value, self._bound.get(name)):
            raise Wrong(f"`{gap[0]}` is still `...`: fill this gap.", gap[1])
        return value

    def _failure(self, line: int | None) -> str:
        """Return how the cell of a line failed, and what failed first."""
        cell = self.where.cell(line) if line else None
        own = [why for at, why in self.failures if at and self.where.cell(at) == cell]
        first = [why for _, why in self.failures][:1]
        return "; the first error was ".join(dict.fromkeys([*own[:1], *first]))


def _is_gap(function: ast.FunctionDef) -> bool:
    """Return whether the body of a function ends in `...`."""
    last = function.body[-1]
    value = last.value if isinstance(last, ast.Expr | ast.Return) else None
    return isinstance(value, ast.Constant) and value.value is ...


def _gap_in(name: str, value: Any, node: Any) -> tuple[str, int | None] | None:
    """Return name and line of what is still `...` in a value; None if nothing is.

    Args:
        name: Name of the value.
        value: The value.
        node: What gave it the name.
    """
    if value is ... or (isinstance(node, ast.FunctionDef) and _is_gap(node)):
        return name, getattr(node, "lineno", None)
    for method in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(method, ast.FunctionDef) and _is_gap(method):
            return f"{name}.{method.name}", method.lineno
    return None


def _parsed(first: int, code: str) -> list[ast.stmt]:
    """Return the statements of a cell, at the lines of the whole; none if it is no Python."""
    try:
        return ast.parse("\n" * (first - 1) + code).body
    except (SyntaxError, ValueError):
        return []


def _bindings(source: Source) -> dict[str, Any]:
    """Return the last statement of the program that binds each name, outside of functions."""
    bound: dict[str, Any] = {}
    nodes: list[Any] = [node for first, code in source.cells for node in _parsed(first, code)]
    for node in sorted(_outside(nodes), key=lambda node: node.lineno):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                bound[alias.asname or alias.name.partition(".")[0]] = node
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound[node.id] = node
    return bound


def _outside(nodes: list[Any]) -> list[Any]:
    """Return all nodes that have a line, except those inside functions and classes."""
    found = []
    inner = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    for node in nodes:
        found.append(node)
        if not isinstance(node, inner):
            found += _outside(list(ast.iter_child_nodes(node)))
    return [node for node in found if hasattr(node, "lineno")]


# Running ------------------------------------------------------------------------------------------


def run(source: Source, student: Student) -> Work:
    """Run the program of a submission cell by cell, in the working folder.

    A cell that raises an error is noted, and the next one runs; `exit()` ends the program.

    Args:
        source: The program.
        student: Whose it is.
    """
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    if source.name.endswith(".ipynb"):
        namespace["display"] = print  # which notebooks know without an import
    failures: list[tuple[int | None, str]] = []
    linecache.cache[source.name] = (
        len(source.text), None, source.text.splitlines(keepends=True), source.name,
    )  # fmt: skip
    for first, code in source.cells:
        try:
            program = compile("\n" * (first - 1) + code, source.name, "exec", dont_inherit=True)
            exec(program, namespace)
        except SystemExit:
            line = line_of_error(source)
            here = f" ({source.place(line)})" if line else ""
            failures.append((line, f"the program was ended by exit(){here}, before its last cell"))
            break
        except BaseException as error:
            line = error.lineno if isinstance(error, SyntaxError) else line_of_error(source, error)
            failures.append((line, _why_failed(source, namespace, error, line)))
    return Work(source, student, namespace, failures)


def _why_failed(
    source: Source, namespace: dict[str, Any], error: BaseException, line: int | None
) -> str:
    """Return why a cell failed: by which gap that is still open, or by which error."""
    lines = _lines_of_error(source, error)
    if lines and (gap := _gap_behind(source, namespace, lines[0])):
        return f"{source.place(lines[0])} needs `{gap}`, which is still `...` ({told(error)})"
    return told(error) + (f" ({source.place(line)})" if line else "")


def _gap_behind(source: Source, namespace: dict[str, Any], line: int) -> str:
    """Return the gap that the statement at a line depends on; empty if there is none.

    A statement depends on the names that it uses, and these on the statements that gave them
    their values.
    """
    gaps: dict[str, str] = {}  # name -> the gap that its value depends on
    for node in (node for first, code in source.cells for node in _parsed(first, code)):
        names = [x for x in ast.walk(node) if isinstance(x, ast.Name)]
        used = [x.id for x in names if isinstance(x.ctx, ast.Load)]
        behind = next((gaps[name] for name in used if gaps.get(name)), "")
        if node.lineno <= line <= (node.end_lineno or 0):
            return behind
        given = [x.id for x in names if isinstance(x.ctx, ast.Store)]
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            given = [node.name]
        for name in given:
            gap = _gap_in(name, namespace.get(name), node)
            gaps[name] = gap[0] if gap else behind
    return ""


def line_of_error(source: Source, error: BaseException | None = None) -> int | None:
    """Return the line of a submission that an error comes from; None if it comes from elsewhere.

    Args:
        source: The program.
        error: The error; None for the one that is being handled.
    """
    lines = _lines_of_error(source, error or sys.exc_info()[1])
    return lines[-1] if lines else None


def _lines_of_error(source: Source, error: BaseException | None) -> list[int]:
    """Return the lines of a submission that led to an error, the outermost first."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    return [x.lineno for x in frames if x.filename == source.name and x.lineno]


def told(error: BaseException) -> str:
    """Return an error in a line.

    Args:
        error: The error.

    Example:
        >>> told(ValueError("no such column"))
        'ValueError: no such column'
    """
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        text = error.msg
    most = 300
    text = harmless(text if len(text) <= most else f"{text[:most]}…")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# Checking -----------------------------------------------------------------------------------------


def outcome(work: Work, check: Callable[..., Any], *arguments: Any) -> tuple[str, str]:
    """Run a check.

    Args:
        work: The submission.
        check: The check.
        arguments: What it gets.

    Returns:
        The reason why it does not hold and the place of the line to blame; both empty if it holds.
    """
    try:
        check(*arguments)
    except Wrong as wrong:
        return str(wrong), work.where.place(wrong.line) if wrong.line else ""
    except BaseException as error:
        line = line_of_error(work.where, error)
        if line:
            return f"running it raised {told(error)}.", work.where.place(line)
        return f"what the submission holds cannot be checked: {told(error)}.", ""
    return "", ""
