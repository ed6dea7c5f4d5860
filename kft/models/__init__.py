"""Models: a backbone with a head, and the losses they learn by."""

from kft.models.exporting import export
from kft.models.graphs import Learner, flat
from kft.models.model import Model, load_saved, per_residue, replace_head

__all__ = ["Learner", "Model", "export", "flat", "load_saved", "per_residue", "replace_head"]
