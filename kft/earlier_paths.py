"""Module paths of earlier versions: `import kft.heads` gives `kft.models.heads`."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "kft.activations": "kft.interpretation.activations",
    "kft.baselines": "kft.evaluation.baselines",
    "kft.batching": "kft.training.batching",
    "kft.callbacks": "kft.training.callbacks",
    "kft.dreaming": "kft.interpretation.dreaming",
    "kft.features": "kft.training.features",
    "kft.fitting": "kft.training.fitting",
    "kft.frontier": "kft.training.frontier",
    "kft.heads": "kft.models.heads",
    "kft.learning_rates": "kft.training.optimizers",
    "kft.losses": "kft.models.losses",
    "kft.model": "kft.models.model",
    "kft.pixels": "kft.data.images.pixels",
    "kft.pretraining": "kft.training.pretraining",
    "kft.probing": "kft.training.probing",
    "kft.results": "kft.comparison.results",
    "kft.runs": "kft.comparison.runs",
    "kft.scaling": "kft.evaluation.scaling",
    "kft.scoring": "kft.inference.scoring",
    "kft.significance": "kft.evaluation.significance",
    "kft.strategies": "kft.training.strategies",
}


class Finder(MetaPathFinder, Loader):
    """Finder of modules that were moved, and of modules inside of moved packages."""

    def __init__(self) -> None:
        self.specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec whose origin is the present name, None for any other module."""
        for old, new in MOVED.items():
            if name == old or name.startswith(f"{old}."):
                return ModuleSpec(name, self, origin=new + name.removeprefix(old))
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module by its present name."""
        module = importlib.import_module(str(spec.origin))
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own spec: the import system has set that of the earlier path."""
        module.__spec__ = next(s for s in self.specs.values() if s and s.name == module.__name__)


def install() -> None:
    """Make `import` find the earlier paths.

    The finder comes first, or Python would find a module under both names and load it twice.
    """
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
