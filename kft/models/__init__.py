"""Models: a backbone with a head, and the losses they learn by."""

from kft.models.graphs import Learner, flat
from kft.models.model import Model, replace_head
from kft.models.saved import load_model

__all__ = ["Learner", "Model", "flat", "load_model", "replace_head"]
