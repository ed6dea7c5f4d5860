"""Prepare a data set: `prepare` changes it by steps that are fitted on its training part alone.

Nothing here imports Keras.
"""

from kft.preparation.columns import (
    DropColumns,
    Impute,
    InfiniteToMissing,
    Scale,
    SentinelToMissing,
)
from kft.preparation.preparing import PreparedDataset, prepare
from kft.preparation.records import (
    DropConflicts,
    DropDuplicates,
    DropTargets,
    Resplit,
    TransformTarget,
    WeightClasses,
)
from kft.preparation.steps import ColumnStep, DoneStep, Preparation, RecordStep, load

__all__ = [
    "ColumnStep",
    "DoneStep",
    "DropColumns",
    "DropConflicts",
    "DropDuplicates",
    "DropTargets",
    "Impute",
    "InfiniteToMissing",
    "Preparation",
    "PreparedDataset",
    "RecordStep",
    "Resplit",
    "Scale",
    "SentinelToMissing",
    "TransformTarget",
    "WeightClasses",
    "load",
    "prepare",
]
