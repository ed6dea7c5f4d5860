"""The walls of the house (docs/design.md): who may import whom, how long, under what name."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
NUMPY = "numpy side"  # knows no Keras and no backend

# Rooms by floor. A room imports only from lower floors, or what stands above it on its own floor.
FLOORS = (
    {
        "pixels": NUMPY,
        "data": NUMPY,
        "baselines": NUMPY,
        "exploration": NUMPY,
        "evaluation": NUMPY,
        "significance": NUMPY,
        "plots": NUMPY,
        "files": NUMPY,
        "backbones": None,
    },
    {
        "params": None,
        "losses": None,
        "heads": None,
        "callbacks": None,
        "batching": None,
        "lora": None,
        "model": None,
        "features": None,
        "frontier": None,
    },
    {
        "learning_rates": None,
        "probing": None,
        "strategies": None,
        "fitting": None,
        "pretraining": None,
        "scoring": None,
        "scaling": None,
        "activations": None,
        "dreaming": None,
        "segmentation": None,
    },
    {"runs": None, "results": None, "comparison": None, "reports": None},
    {"": None},  # kft/__init__.py, the public names
    {"cli": None, "recipe": None},
)
PLACE = {room: (f, i) for f, floor in enumerate(FLOORS) for i, room in enumerate(floor)}
NUMPY_SIDE = {room for floor in FLOORS for room, side in floor.items() if side == NUMPY}
NUMPY_SIDE |= {"backbones.checkpoints", "backbones.torch_files"}
BACKENDS = {"jax", "torch", "tensorflow"}
KERAS_SIDE = {"keras", "keras_hub", *BACKENDS}
# May import a backend, when they run.
BACKEND_BRANCHES = {"activations", "backbones.attention", "runs"}
NAMELESS = {"utils", "util", "common", "misc", "helpers"}


# What a source says -------------------------------------------------------------------------------


def imports(tree, package, known):
    """(line, imported module, whether it is imported with the module) wherever they stand."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        for name in _imported(node, package, known):
            yield node.lineno, name, id(node) not in inside


def _imported(node, package, known):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
        base = ".".join([*parents * bool(node.level), *([node.module] if node.module else [])])
        whole = [f"{base}.{alias.name}" for alias in node.names]
        return [name if name in known else base for name in whole]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", getattr(node.func, "id", None))
        if called in ("import_module", "__import__"):
            return [str(node.args[0].value)]
    return []


def read(folder):
    """{dotted name: (path, tree)} of every module under a package's folder."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        if parts[-1] == "__init__":
            del parts[-1]
        modules[".".join(parts)] = path, ast.parse(path.read_text())
    return modules


def edges(modules):
    """(importing, line, imported, whether at module level), names with the package in front."""
    for name, (path, tree) in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for line, imported, at_module_level in imports(tree, package, modules):
            yield name, line, imported, at_module_level


# What is wrong with it ----------------------------------------------------------------------------


def inside(name):
    """ "backbones.esm2" of "kft.backbones.esm2", "" of "kft", None of what is not ours."""
    return name.partition(".")[2] if name.split(".")[0] == "kft" else None


def room(name):
    return inside(name).split(".")[0]


def wrong_floors(modules):
    for name in modules:
        if room(name) not in PLACE:
            yield f"{name} has no floor: give it one in FLOORS and in docs/design.md"
    for name, line, imported, _ in edges(modules):
        if inside(imported) is None or room(name) == room(imported) != "":
            continue
        here, there = PLACE.get(room(name)), PLACE.get(room(imported))
        if here and (there is None or there >= here):
            yield f"{name}:{line} imports {imported}, which is not below it"


def wrong_sides(modules):
    for name, line, imported, at_module_level in edges(modules):
        top = imported.split(".")[0]
        numpy_side = {inside(name), room(name)} & NUMPY_SIDE
        if numpy_side and top in KERAS_SIDE:
            yield f"{name}:{line} imports {imported}, and is on the numpy side"
        elif top in BACKENDS and (at_module_level or inside(name) not in BACKEND_BRANCHES):
            yield f"{name}:{line} imports the backend {imported}"


def circles(modules):
    """Circles of modules, those inside of a package and those closed by functions included."""
    graph = {name: set() for name in modules}
    for name, _, imported, _ in edges(modules):
        if imported in graph:
            graph[name].add(imported)
    while graph:
        free = {name for name, needed in graph.items() if not needed & graph.keys()}
        if not free:
            yield f"a circle among {', '.join(sorted(graph))}"
            return
        graph = {name: needed for name, needed in graph.items() if name not in free}


# What is imported under another name than it is installed by.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow"}


def undeclared(modules, declared, extras=()):
    """Third-party imports that an installation of these requirements need not bring.

    What an extra brings may be imported by a function, but not with a module.
    """
    known, optional = (
        {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in lines}
        for lines in (declared, extras)
    )
    for name, line, imported, at_module_level in edges(modules):
        top = imported.split(".")[0]
        distribution = DISTRIBUTIONS.get(top, top).lower().replace("_", "-")
        brought = known | BACKENDS | (set() if at_module_level else optional)
        if top not in {"kft", *sys.stdlib_module_names} and distribution not in brought:
            yield f"{name}:{line} imports {top}, which pyproject.toml does not require"


def too_long(path, tree, most_lines=500):
    lines = len(path.read_text().splitlines())
    if lines > most_lines:
        yield f"{path.name} has {lines} lines, more than {most_lines}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > 60:
                yield f"{path.name}:{node.lineno} {node.name} has {lines} lines, more than 60"


def ill_made(path, tree):
    if not ast.get_docstring(tree):
        yield f"{path.name} does not say what lives in it"
    if {path.stem, path.parent.name} & NAMELESS:
        yield f"{path} has a name that says nothing"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield f"{path.name}:{node.lineno} asserts; raise an error that helps instead"


# The house as it stands ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def house():
    return read(ROOT / "kft")


def test_imports_go_down(house):
    assert list(wrong_floors(house)) == []


def test_no_circles(house):
    assert list(circles(house)) == []


def test_the_numpy_side_knows_no_keras_and_nobody_a_backend(house):
    assert list(wrong_sides(house)) == []


def test_what_is_imported_is_required(house):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    users = [line for name in ("vision", "structure") for line in extras[name]]
    assert list(undeclared(house, project["dependencies"], users)) == []


def test_files_and_functions_are_short():
    found = []
    for folder, most_lines in (("kft", 500), ("tests", 500), ("recipes", 120)):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found += too_long(path, ast.parse(path.read_text()), most_lines)
    assert found == []


def test_files_say_what_they_are_and_do_not_assert(house):
    modules = [*house.values(), *read(ROOT / "recipes").values()]
    assert [wrong for path, tree in modules for wrong in ill_made(path, tree)] == []


# A house that is wrong ----------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path):
    """Builds a package `kft` of made-up sources: {relative path: source}."""

    def build(sources):
        folder = tmp_path / "kft"
        for name, source in {"__init__": "", **sources}.items():
            path = folder / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return read(folder)

    return build


BAD_FLOORS = {
    "a higher floor": ({"heads": "from kft.model import Model"}, "kft.heads:1 imports kft.model"),
    "in a function": (
        {"plots": "def f():\n    from kft import lora", "lora": ""},
        "kft.plots:2 imports kft.lora",
    ),
    "below on its floor": ({"data": "import kft.plots", "plots": ""}, "kft.data:1 imports"),
    "relative": ({"heads": "from . import model", "model": ""}, "kft.heads:1 imports kft.model"),
    "from a package": (
        {"data/amp": "from ..evaluation import score", "evaluation": ""},
        "kft.data.amp:1 imports kft.evaluation",
    ),
    "the top": ({"comparison": "import kft"}, "kft.comparison:1 imports kft"),
    "by name": (
        {"heads": "import importlib\nimportlib.import_module('kft.cli')"},
        "kft.heads:2 imports kft.cli",
    ),
    "nowhere": ({"gadgets": ""}, "kft.gadgets has no floor"),
}


@pytest.mark.parametrize(("sources", "message"), BAD_FLOORS.values(), ids=BAD_FLOORS)
def test_a_wrong_floor_is_caught(built, sources, message):
    (found,) = wrong_floors(built(sources))
    assert found.startswith(message)


def test_what_is_allowed_is_not_caught(built):
    sources = {
        "model": "from kft.heads import Pooling\nfrom kft.backbones.esm2 import ESM2\nimport keras",
        "heads": "import keras",
        "backbones/__init__": "from . import esm2\nfrom kft.backbones import esm2",
        "backbones/esm2": "import keras",
        "backbones/attention": "def f():\n    import torch",
    }
    house = built(sources)
    assert [*wrong_floors(house), *wrong_sides(house), *circles(house)] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data/amp", "def f():\n    import keras"),
        ("evaluation", "from torch import nn"),
        ("backbones/torch_files", "import torch"),
        ("backbones/checkpoints", "from keras import ops"),
        ("backbones/esm2", "def f():\n    import jax.numpy"),
        ("backbones/attention", "import torch"),
        ("model", "import tensorflow as tf"),
    ],
)
def test_the_wrong_side_is_caught(built, module, source):
    (found,) = wrong_sides(built({module: source}))
    assert f"{source.count(chr(10)) + 1} imports" in found


def test_an_undeclared_import_is_caught(built):
    house = built({"runs": "import ml_dtypes\nimport sklearn.metrics\nimport psutil\nimport os"})
    (found,) = undeclared(house, ["ml-dtypes>=0.5", "scikit-learn"])
    assert found.startswith("kft.runs:3 imports psutil")


def test_what_an_extra_brings_is_imported_by_functions_alone(built):
    house = built({"plots": "import PIL\ndef f():\n    from PIL import Image"})
    (found,) = undeclared(house, ["numpy"], ["pillow>=10"])
    assert found.startswith("kft.plots:1 imports PIL")


def test_a_circle_is_caught_even_in_a_function(built):
    sources = {
        "data/a": "from .b import x",
        "data/b": "def f():\n    from kft.data import a",
        "plots": "",
    }
    (found,) = circles(built(sources))
    assert found == "a circle among kft.data.a, kft.data.b"


def test_what_is_long_or_ill_made_is_caught(built, tmp_path):
    body = "    x = 1\n" * 60
    source = f'"""Doc."""\n\ndef short():\n{body[:-10]}\n\ndef long():\n{body}' + "y = 1\n" * 400
    path, tree = built({"utils": source})["kft.utils"]
    assert [wrong.split(" has")[0] for wrong in too_long(path, tree)] == [
        "utils.py",
        "utils.py:65 long",
    ]
    assert "name that says nothing" in next(ill_made(path, tree))
    path = tmp_path / "bare.py"
    path.write_text("assert 1")
    (first, second) = ill_made(path, ast.parse(path.read_text()))
    assert "does not say" in first and "bare.py:1 asserts" in second
