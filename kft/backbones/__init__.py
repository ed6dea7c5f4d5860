"""Backbones: pre-trained models as functional Keras graphs, each with its ordered `stages`.

Each package in this folder is a family of backbones and registers itself when it is imported, see
`registry.Family`. `Backbone` is the base class of backbones.
"""

import importlib
import pkgutil

from kft.backbones.base import Backbone
from kft.backbones.contract import ModuleNames
from kft.backbones.initialisation import randomised
from kft.backbones.registry import (
    Family,
    load,
    names,
    read_checkpoint,
    register,
    save,
    unregister,
)

__all__ = [
    "Backbone",
    "Family",
    "ModuleNames",
    "load",
    "names",
    "randomised",
    "read_checkpoint",
    "register",
    "save",
    "unregister",
]

for _module in pkgutil.iter_modules(__path__):
    if _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")
