"""kft: adapt scientific foundation models to your own small data set, in Keras 3.

Importing kft chooses the Keras backend and imports Keras. Each public name is imported when it is
first used. `docs/api.md` lists the public names, `docs/design.md` explains how the parts fit
together.
"""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kft import earlier_paths
from kft.native_logs import without_native_logs

__version__ = "0.1.0"

BACKENDS = ("jax", "torch", "tensorflow")


def _choose_backend() -> None:
    """Set KERAS_BACKEND, unless a backend that is installed has been chosen already."""
    if os.environ.get("KERAS_BACKEND") or "keras" in sys.modules:
        return
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if not installed:
        commands = "\n".join(f'    pip install "kft[{name}]"' for name in BACKENDS)
        raise ModuleNotFoundError(
            f"kft runs on JAX, PyTorch or TensorFlow, and none of them is installed. Choose one:\n"
            f"{commands}"
        )
    try:
        wanted = json.loads(_keras_json().read_text())["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        wanted = None
    if wanted in installed:
        return
    os.environ["KERAS_BACKEND"] = installed[0]
    if {"--help", "-h"} & set(sys.argv[1:]):  # of `kft` or a recipe: nothing is computed
        return
    why = "" if wanted is None else f" ({_keras_json()} asks for {wanted}, not installed)"
    print(f"kft: KERAS_BACKEND is not set{why}; using {installed[0]}.", file=sys.stderr)


def _keras_json() -> Path:
    """Return the path of Keras's configuration file, as keras/src/backend/config.py finds it."""
    home = os.path.expanduser("~")
    home = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    return Path(os.environ.get("KERAS_HOME", home), "keras.json").expanduser()


def _import_keras() -> None:
    """Import Keras without leaving a new keras.json behind.

    The first import of Keras writes one that names tensorflow, with any backend. The next
    program would take it for the user's choice.
    """
    if "keras" in sys.modules:
        return
    there = _keras_json().exists()
    try:
        with without_native_logs():
            importlib.import_module("keras")
            if os.environ.get("KERAS_BACKEND") == "tensorflow":  # which looks for GPUs later
                sys.modules["tensorflow"].config.list_physical_devices("GPU")
    finally:
        if not there:
            _keras_json().unlink(missing_ok=True)


# The module of each public name. A module is imported when one of its names is first used, except
# modules with classes that must be registered before `keras.saving.load_model` can find them.
_HOME = {
    "load": "kft.backbones",
    "Model": "kft.models",
    "PairBackbone": "kft.models",
    "load_model": "kft.models",
    "remat": "kft.models",
    "replace_head": "kft.models",
    "predict": "kft.inference",
    "embed": "kft.inference",
    "fold": "kft.inference",
    "load_embeddings": "kft.inference",
    "merge_embeddings": "kft.inference",
    "search": "kft.inference.search",
    "build_index": "kft.inference.search",
    "load_index": "kft.inference.search",
    "score_mutations": "kft.inference.mutations",
    "scan": "kft.inference.mutations",
    "segment": "kft.segmentation.predictor",
    "segment_everything": "kft.segmentation.predictor",
    "batches": "kft.training.batching",
    "freeze": "kft.params",
    "unfreeze": "kft.params",
    "train_only": "kft.params",
    "parameters": "kft.params",
    "fingerprint": "kft.params",
    "add_lora": "kft.lora",
    "merge_lora": "kft.lora",
    "unmerge_lora": "kft.lora",
    "save_adapter": "kft.lora",
    "load_adapter": "kft.lora",
    "split": "kft.training.frontier",
    "fit_frontier": "kft.training.frontier",
    "find_learning_rate": "kft.training.range_test",
    "fit": "kft.training.fitting",
    "fit_contacts": "kft.training.contacts",
    "estimate": "kft.comparison",
    "evaluate": "kft.comparison",
    "compare": "kft.comparison",
    "crossover": "kft.comparison",
    "explore": "kft.exploration",
    "prepare": "kft.preparation",
    "finetune": "kft.finetuning",
    "report": "kft.reporting",
}
_MODULES = {
    "backbones": "kft.backbones",
    "baselines": "kft.evaluation.baselines",
    "callbacks": "kft.training.callbacks",
    "comparison": "kft.comparison",
    "course": "kft.course",
    "data": "kft.data",
    "dreaming": "kft.interpretation.dreaming",
    "evaluation": "kft.evaluation",
    "exploration": "kft.exploration",
    "finetuning": "kft.finetuning",
    "heads": "kft.models.heads",
    "lora": "kft.lora",
    "losses": "kft.models.losses",
    "mutations": "kft.inference.mutations",
    "params": "kft.params",
    "plots": "kft.plots",
    "preparation": "kft.preparation",
    "pretraining": "kft.training.pretraining",
    "reporting": "kft.reporting",
    "scaling": "kft.evaluation.scaling",
    "scoring": "kft.inference.scoring",
    "segmentation": "kft.segmentation",
    "strategies": "kft.training.strategies",
    "structure": "kft.structure",
}

if TYPE_CHECKING:  # the same names for type checkers and editors (tests/test_public_names.py)
    from kft import backbones as backbones
    from kft import comparison as comparison
    from kft import course as course
    from kft import data as data
    from kft import evaluation as evaluation
    from kft import exploration as exploration
    from kft import finetuning as finetuning
    from kft import lora as lora
    from kft import params as params
    from kft import plots as plots
    from kft import preparation as preparation
    from kft import reporting as reporting
    from kft import segmentation as segmentation
    from kft import structure as structure
    from kft.backbones import load as load
    from kft.comparison import compare as compare
    from kft.comparison import crossover as crossover
    from kft.comparison import estimate as estimate
    from kft.comparison import evaluate as evaluate
    from kft.evaluation import baselines as baselines
    from kft.evaluation import scaling as scaling
    from kft.exploration import explore as explore
    from kft.finetuning import finetune as finetune
    from kft.inference import embed as embed
    from kft.inference import fold as fold
    from kft.inference import load_embeddings as load_embeddings
    from kft.inference import merge_embeddings as merge_embeddings
    from kft.inference import mutations as mutations
    from kft.inference import predict as predict
    from kft.inference import scoring as scoring
    from kft.inference.mutations import scan as scan
    from kft.inference.mutations import score_mutations as score_mutations
    from kft.inference.search import build_index as build_index
    from kft.inference.search import load_index as load_index
    from kft.inference.search import search as search
    from kft.interpretation import dreaming as dreaming
    from kft.lora import add_lora as add_lora
    from kft.lora import load_adapter as load_adapter
    from kft.lora import merge_lora as merge_lora
    from kft.lora import save_adapter as save_adapter
    from kft.lora import unmerge_lora as unmerge_lora
    from kft.models import Model as Model
    from kft.models import PairBackbone as PairBackbone
    from kft.models import heads as heads
    from kft.models import load_model as load_model
    from kft.models import losses as losses
    from kft.models import remat as remat
    from kft.models import replace_head as replace_head
    from kft.params import fingerprint as fingerprint
    from kft.params import freeze as freeze
    from kft.params import parameters as parameters
    from kft.params import train_only as train_only
    from kft.params import unfreeze as unfreeze
    from kft.preparation import prepare as prepare
    from kft.reporting import report as report
    from kft.segmentation.predictor import segment as segment
    from kft.segmentation.predictor import segment_everything as segment_everything
    from kft.training import callbacks as callbacks
    from kft.training import pretraining as pretraining
    from kft.training import strategies as strategies
    from kft.training.batching import batches as batches
    from kft.training.contacts import fit_contacts as fit_contacts
    from kft.training.fitting import fit as fit
    from kft.training.frontier import fit_frontier as fit_frontier
    from kft.training.frontier import split as split
    from kft.training.range_test import find_learning_rate as find_learning_rate

__all__ = sorted([*_HOME, *_MODULES, "__version__"])

# What needs no Keras: `kft data` and `kft explore` start without it.
_WITHOUT_KERAS = {
    "baselines", "data", "evaluation", "exploration", "explore", "plots", "scaling", "structure",
}  # fmt: skip

earlier_paths.install()
_started = False


def _start() -> None:
    """Choose the backend, and import Keras and the modules whose classes its files may name."""
    global _started
    if _started:
        return
    _started = True
    _choose_backend()
    _import_keras()
    for module in (
        "kft.backbones",
        "kft.lora",
        "kft.models",
        "kft.models.heads",
        "kft.segmentation.training",
        "kft.training.frontier",
        "kft.training.optimizers",
        "kft.training.pretraining",
    ):
        importlib.import_module(module)


def _is_command() -> bool:
    """Return whether Python was started as the command `kft`, whose help needs no Keras."""
    return Path(sys.argv[0]).stem == "kft" or "kft.cli" in sys.orig_argv[1:]


if not _is_command():
    _start()


if not TYPE_CHECKING:  # otherwise a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name in {*_HOME, *_MODULES} - _WITHOUT_KERAS:
            _start()
        if name in _HOME:
            value = getattr(importlib.import_module(_HOME[name]), name)
        elif name in _MODULES:
            value = importlib.import_module(_MODULES[name])
        else:
            raise AttributeError(f"kft has no {name!r}; it has {', '.join(__all__)}.")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
