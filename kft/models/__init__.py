"""Models: a backbone with a head, and the losses they learn by."""

from kft.models.graphs import Learner, flat
from kft.models.model import Model, load_saved, per_residue, replace_head

__all__ = ["Learner", "Model", "flat", "load_saved", "per_residue", "replace_head"]
