"""What import-linter, deptry and ruff (`make lint`) cannot see: sizes, and where imports stand."""

import ast
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def long_parts(path, most_lines):
    """The file, if it has more than `most_lines`, and its functions of more than 60."""
    source = path.read_text()
    if (lines := len(source.splitlines())) > most_lines:
        yield f"{path.name} has {lines} lines, more than {most_lines}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, FUNCTIONS) and (lines := code_lines(node)) > 60:
            yield f"{path.name}:{node.lineno} {node.name} has {lines} lines, more than 60"


def code_lines(function):
    """Lines of a function without its signature, of a line per argument, and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def imported_with_the_module(path, packages):
    """Imports of `packages` that run when the file is imported, not when a function is called."""
    nodes = [ast.parse(path.read_text())]
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        for name in names:
            if name.split(".")[0] in packages:
                yield f"{path.name}:{node.lineno} imports {name}"
        nodes += [x for x in ast.iter_child_nodes(node) if not isinstance(x, FUNCTIONS)]


@pytest.mark.parametrize(("folder", "most_lines"), [("kft", 700), ("tests", 700), ("recipes", 120)])
def test_files_and_functions_are_short(folder, most_lines):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert [found for path in paths for found in long_parts(path, most_lines)] == []


def test_what_extras_bring_is_imported_by_functions_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {"pillow": "PIL", "scikit-image": "skimage"}
    packages = {
        names.get(name, name.replace("-", "_"))
        for extra in ("jax", "torch", "tensorflow", "vision", "structure", "tables", "segmentation")
        for line in project["optional-dependencies"][extra]
        for name in [line.partition(">")[0]]
    }
    assert {"jax", "keras_hub", "PIL"} <= packages
    paths = sorted((ROOT / "kft").rglob("*.py"))
    assert [found for path in paths for found in imported_with_the_module(path, packages)] == []


def test_both_checks_see_what_is_wrong(tmp_path):
    path = tmp_path / "bad.py"
    body = "    x = 1\n" * 60  # after another line
    path.write_text(f"if True:\n    from PIL import Image\n\ndef f():\n    import PIL\n{body}")
    assert list(imported_with_the_module(path, {"PIL"})) == ["bad.py:2 imports PIL"]
    assert list(long_parts(path, 60)) == [
        "bad.py has 65 lines, more than 60", "bad.py:4 f has 61 lines, more than 60",
    ]  # fmt: skip
