"""Heads: what turns a backbone's output into an answer.

A head is a Keras layer called with the backbone's features and, where the backbone has one, the
mask of positions that count. "Chopping the head" is replacing it. A head says itself what it
answers (`task`, `per_residue`), by which loss it learns and by which metrics it is watched:

    model.compile("adam", head.make_loss(), metrics=head.make_metrics())           # per record
    model.compile("adam", head.make_loss(), weighted_metrics=head.make_metrics())  # per residue
"""

from kft.models.heads.base import POOLINGS, Pooling
from kft.models.heads.choosing import for_data
from kft.models.heads.hugging_face import Drawn, EsmClassification, EsmTokenClassification
from kft.models.heads.record import Classification, MultiLabel, Regression
from kft.models.heads.residue import ResidueClassification, ResidueRegression

__all__ = [
    "POOLINGS",
    "Classification",
    "Drawn",
    "EsmClassification",
    "EsmTokenClassification",
    "MultiLabel",
    "Pooling",
    "Regression",
    "ResidueClassification",
    "ResidueRegression",
    "for_data",
]
