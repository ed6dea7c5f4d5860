"""Models: a backbone with a head, and the losses they learn by."""

from kft.models.exporting import export
from kft.models.graphs import Learner, flat
from kft.models.model import Model, per_residue, replace_head
from kft.models.pairs import PairBackbone
from kft.models.rematerialisation import remat
from kft.models.saved import load_model

__all__ = [
    "Learner",
    "Model",
    "PairBackbone",
    "export",
    "flat",
    "load_model",
    "per_residue",
    "remat",
    "replace_head",
]
