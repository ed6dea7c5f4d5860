"""kft: adapt scientific foundation models to your own small data set, in Keras 3.

Importing kft settles the Keras backend, imports Keras, and resolves every public name when it
is first used. `docs/design.md` tells how the parts fit together.
"""

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

from kft import earlier_paths

__version__ = "0.1.0"

BACKENDS = ("jax", "torch", "tensorflow")


def _choose_backend():
    """Sets KERAS_BACKEND where nothing else has chosen a backend that can be used."""
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
    why = "" if wanted is None else f" ({_keras_json()} asks for {wanted}, not installed)"
    print(f"kft: KERAS_BACKEND is not set{why}; using {installed[0]}.", file=sys.stderr)


def _keras_json():
    """Where Keras looks for it (keras/src/backend/config.py)."""
    home = os.path.expanduser("~")
    home = os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    return Path(os.environ.get("KERAS_HOME", home), "keras.json").expanduser()


def _import_keras():
    """Imports Keras without leaving behind a keras.json that nobody wrote.

    Keras's first import writes one that names tensorflow whatever the backend is, and the next
    program would take it for a choice.
    """
    if "keras" in sys.modules:
        return
    there = _keras_json().exists()
    try:
        importlib.import_module("keras")
    finally:
        if not there:
            _keras_json().unlink(missing_ok=True)


_choose_backend()
_import_keras()

# Where each public name lives. Modules are imported when a name of theirs is first used, except
# those that hold classes Keras must know before `keras.saving.load_model` can find them.
_HOME = {
    "load": "kft.backbones",
    "Model": "kft.models",
    "replace_head": "kft.models",
    "predict": "kft.inference",
    "embed": "kft.inference",
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
    "evaluate": "kft.comparison",
    "compare": "kft.comparison",
}
_MODULES = {
    "backbones": "kft.backbones",
    "baselines": "kft.evaluation.baselines",
    "callbacks": "kft.training.callbacks",
    "comparison": "kft.comparison",
    "data": "kft.data",
    "dreaming": "kft.interpretation.dreaming",
    "evaluation": "kft.evaluation",
    "heads": "kft.models.heads",
    "lora": "kft.lora",
    "losses": "kft.models.losses",
    "params": "kft.params",
    "plots": "kft.plots",
    "pretraining": "kft.training.pretraining",
    "scaling": "kft.evaluation.scaling",
    "scoring": "kft.inference.scoring",
    "strategies": "kft.training.strategies",
}

__all__ = sorted([*_HOME, *_MODULES, "__version__"])

earlier_paths.install()
for _module in (
    "kft.backbones",
    "kft.lora",
    "kft.models",
    "kft.models.heads",
    "kft.training.frontier",
    "kft.training.optimizers",
    "kft.training.pretraining",
):
    importlib.import_module(_module)


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"kft has no {name!r}; it has {', '.join(__all__)}.")
    globals()[name] = value
    return value


def __dir__():
    return __all__
