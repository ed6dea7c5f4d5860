"""Heads: layers that turn a backbone's output into predictions.

A head is a Keras layer called with the backbone's features and, where the backbone has one, the
mask of positions that belong to the input. It states its task (`task`, a `kft.data.task.Task`) and
makes the loss and metrics that suit it:

    model.compile("adam", head.make_loss(), metrics=head.make_metrics())           # per record
    model.compile("adam", head.make_loss(), weighted_metrics=head.make_metrics())  # per residue
"""

from kft.models.heads.base import POOLINGS, Head, Pooling
from kft.models.heads.choosing import for_data
from kft.models.heads.hugging_face import Drawn, EsmClassification, EsmTokenClassification
from kft.models.heads.pair import Contacts, Distogram
from kft.models.heads.reading import published
from kft.models.heads.record import Classification, MultiLabel, Regression
from kft.models.heads.residue import ResidueClassification, ResidueRegression, Torsions

__all__ = [
    "POOLINGS",
    "Classification",
    "Contacts",
    "Distogram",
    "Drawn",
    "EsmClassification",
    "EsmTokenClassification",
    "Head",
    "MultiLabel",
    "Pooling",
    "Regression",
    "ResidueClassification",
    "ResidueRegression",
    "Torsions",
    "for_data",
    "published",
]
