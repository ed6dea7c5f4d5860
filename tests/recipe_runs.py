"""Running a recipe as its command does, for tests."""

import runpy
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[1] / "recipes"


def run(name, out, *options):
    """Runs a recipe and returns what it printed."""
    with pytest.MonkeyPatch.context() as patch, open(out / "printed", "w+") as printed:
        patch.setattr(sys, "argv", [f"{name}.py", "--out", str(out), *map(str, options)])
        patch.setattr(sys, "stdout", printed)
        patch.setattr(sys, "excepthook", sys.excepthook)  # recipes set it
        runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
        printed.seek(0)
        return printed.read()
