"""What the README, the pages and the docstrings show is run as it stands there."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in PAGES
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
    if page.name != "design.md"  # its list of public names is no program
]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "kft").rglob("*.py"))
]


@pytest.mark.once
def test_there_are_examples():
    assert len(BLOCKS) > 0
    assert "kft.models.model" in MODULES


@pytest.mark.once
@pytest.mark.parametrize("block", BLOCKS)
def test_page(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "a page", "exec"), {})


@pytest.mark.once
@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(module, globs=vars(module).copy(), optionflags=flags)
    assert failed == 0
