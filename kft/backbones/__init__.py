"""Backbones: pre-trained models as functional Keras graphs, each with its ordered `stages`.

Each package in this folder is a family of backbones and registers itself when it is imported, see
`registry.Family`. The attributes of backbones are in `contract`.
"""

import importlib
import pkgutil

from kft.backbones.contract import Backbone, ModuleNames
from kft.backbones.initialisation import randomised
from kft.backbones.registry import Family, load, names, register, save, unregister

__all__ = [
    "Backbone",
    "Family",
    "ModuleNames",
    "load",
    "names",
    "randomised",
    "register",
    "save",
    "unregister",
]

for _module in pkgutil.iter_modules(__path__):
    if _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")
