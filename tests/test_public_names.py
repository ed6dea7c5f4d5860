"""The public names: what type checkers see, and what docs/api.md lists."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import kft
from kft.earlier_paths import MOVED

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]


def static_view(source):
    """{name: module} of the imports for type checkers, of a package's source."""
    blocks = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    names = {}
    for node in blocks[0].body:
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            is_module = importlib.util.find_spec(node.module).submodule_search_locations and (
                importlib.util.find_spec(whole)
            )
            names[alias.asname] = (whole, None) if is_module else (node.module, alias.name)
    return names


def test_type_checkers_see_the_names_that_are_there():
    expected = {name: (module, name) for name, module in kft._HOME.items()}
    expected |= {name: (module, None) for name, module in kft._MODULES.items()}
    assert static_view((ROOT / "kft" / "__init__.py").read_text()) == expected


def test_every_public_name_resolves():
    assert set(dir(kft)) == {*kft._HOME, *kft._MODULES, "__version__"}
    for name in kft.__all__:
        assert getattr(kft, name) is not None
    with pytest.raises(AttributeError, match="kft has no 'forest'; it has Model, "):
        kft.forest  # noqa: B018


def test_the_package_tells_type_checkers_that_it_is_typed():
    assert (ROOT / "kft" / "py.typed").exists()


# The API reference --------------------------------------------------------------------------------

API = (ROOT / "docs" / "api.md").read_text()
RENDERED = re.findall(r"^::: ([\w.]+)$", API, re.M)


def test_the_reference_names_what_exists():
    assert RENDERED
    for name in RENDERED:
        importlib.import_module(name)
    for name in re.findall(r"`kft\.([\w.]+)`", API):
        value = kft
        for part in name.split("."):
            value = getattr(value, part)


def test_the_reference_lists_every_public_name():
    named = set(re.findall(r"`kft\.(\w+)`", API))
    assert named >= {*kft._HOME, *kft._MODULES}
    assert set(RENDERED) >= {*kft._HOME.values(), *kft._MODULES.values()}
    for name, module in kft._HOME.items():
        home = importlib.import_module(module)
        assert name in getattr(home, "__all__", vars(home))


def test_every_public_function_of_the_reference_has_a_docstring():
    without = []
    for name in RENDERED:
        module = importlib.import_module(name)
        for attribute in getattr(module, "__all__", vars(module)):
            value = getattr(module, attribute)
            own = getattr(value, "__module__", "").startswith("kft")
            public = not attribute.startswith("_") and own and callable(value)
            if public and not inspect.getdoc(value):
                without.append(f"{name}.{attribute}")
    assert without == []


# The form of docstrings, and types ----------------------------------------------------------------

PRETRAINING = "kft.training.pretraining"
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "kft").rglob("*.py"))
]


def public_functions(module):
    """(name, function) of the public functions and methods that a module defines."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value):
            for inner, method in vars(value).items():
                if inspect.isfunction(method) and not inner.startswith("_"):
                    yield f"{name}.{inner}", method


def public_classes(module):
    """(name, class) of the public classes that a module defines."""
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        if inspect.isclass(value) and own and not name.startswith("_"):
            yield name, value


def untyped(function):
    """What has no type in the signature of a function."""
    for name, parameter in inspect.signature(function).parameters.items():
        if name != "self" and parameter.annotation is inspect.Parameter.empty:
            yield f"argument {name} has no type"
    if inspect.signature(function).return_annotation is inspect.Signature.empty:
        yield "the result has no type"


def entries(doc, section):
    """The names that a section of a docstring describes; None without the section."""
    lines = re.search(rf"^{section}:\n((?:    .*\n|\n)*)", doc + "\n", re.M)
    return lines and re.findall(r"^    \*{0,2}(\w[\w, ]*): \S", lines[1], re.M)


def wrong_form(function):
    """What is wrong with the docstring of a function."""
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    doc = inspect.getdoc(function)
    if not doc:
        yield "no docstring"
        return
    documented = entries(doc, "Args")
    if documented is not None and documented != names:
        yield f"Args lists {documented}, the signature {names}"


def wrong_form_of_class(kind):
    """What is wrong with the docstring of a class."""
    doc = inspect.getdoc(kind)
    if not doc:
        yield "no docstring"
        return
    for section in ("Args", "Attributes"):
        for entry in entries(doc, section) or []:
            if "," in entry:
                yield f"{section} describes {entry!r} in one entry"


def test_public_functions_are_typed_and_documented():
    found = []
    for name in MODULES:
        module = importlib.import_module(name)
        for inner, function in public_functions(module):
            wrong = [*untyped(function), *wrong_form(function)]
            found += [f"{name}.{inner}: {problem}" for problem in wrong]
        for inner, kind in public_classes(module):
            found += [f"{name}.{inner}: {problem}" for problem in wrong_form_of_class(kind)]
    assert found == []


def test_a_wrong_form_is_found():
    def both(first, second: int):
        """Do something.

        Args:
            first, second: Numbers.
        """

    class Pair:
        """Two numbers.

        Attributes:
            first, second: Numbers.
        """

    assert [*wrong_form_of_class(Pair)] == ["Attributes describes 'first, second' in one entry"]
    assert [*untyped(both), *wrong_form(both)] == [
        "argument first has no type",
        "the result has no type",
        "Args lists ['first, second'], the signature ['first', 'second']",
    ]


def test_earlier_module_paths_are_the_moved_modules():
    for earlier, now in [*MOVED.items(), ("kft.pretraining.training", f"{PRETRAINING}.training")]:
        module = importlib.import_module(earlier)
        assert module is importlib.import_module(now)
        assert (module.__name__, module.__spec__.name) == (now, now)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("kft.heads.absent")
