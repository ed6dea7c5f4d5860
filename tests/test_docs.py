"""What the README, the pages and the docstrings show is run as it stands there."""

import dataclasses
import doctest
import importlib
import re
from pathlib import Path

import pytest

import kft

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "docs" / "assignments" / "README.md"]
# Each block goes on where the one before it ends.
ONE_PROGRAM = ("extending.md", "preparing.md", "segmentation.md", "zero_shot.md")


def programs(page):
    """The blocks of a page that are programs."""
    if page.name == "design.md":  # its list of public names is no program
        return []
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    return ["\n".join(blocks)] if page.name in ONE_PROGRAM else blocks


BLOCKS = [
    pytest.param(block, id=f"{page.name}-{i}")
    for page in PAGES
    for i, block in enumerate(programs(page))
]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "kft").rglob("*.py"))
]


@pytest.mark.once
def test_there_are_examples():
    assert len(BLOCKS) > 0
    assert "kft.models.model" in MODULES


@pytest.fixture
def unregistered():
    """What a page registers is removed again."""
    registries = [
        kft.backbones.registry._FAMILIES, kft.data.registry._LOADERS,
        kft.strategies.registry._STRATEGIES,
    ]  # fmt: skip
    before = [registry.copy() for registry in registries]
    yield
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        (registry.extend if isinstance(registry, list) else registry.update)(content)


@pytest.fixture
def fewer_peptides(monkeypatch):
    """An eighth of the 2,589 peptides that many pages begin with."""
    load = kft.data.load

    def few(name, **options):
        data = load(name, **options)
        if name != "amp":
            return data
        return dataclasses.replace(
            data, **{part: x.take(range(0, len(x), 8)) for part, x in data.splits.items()}
        )

    monkeypatch.setattr(kft.data, "load", few)


@pytest.mark.once
@pytest.mark.parametrize("block", BLOCKS)
def test_page(block, tmp_path, monkeypatch, unregistered, fewer_peptides):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KFT_CACHE", str(tmp_path))
    exec(compile(block, "a page", "exec"), {})


@pytest.mark.once
@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, _ = doctest.testmod(module, globs=vars(module).copy(), optionflags=flags)
    assert failed == 0
