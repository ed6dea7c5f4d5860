"""The weights of any Keras model: their paths, which are trainable, and which have changed.

A path is the chain of layer names from the model down to the weight, joined by "/", for example
"block_0/query/kernel". It is the same on every backend, in every process and after save and load.
Names in a functional or sequential model are those in Keras's files. Inside any other layer, Keras
numbers the names it makes up ("dense_7") through the whole process, so they are replaced by the
name of the class in snake case and a number within that layer: "dense", "dense_1", "dense_2".

Freezing uses Keras's own `layer.trainable`, so kft and plain Keras code can be mixed. In Keras a
variable is trained if `trainable` is True for the model and for the variable; setting the flag of
a layer sets it for everything inside.
"""

from kft.params.fingerprints import digest, digests, fingerprint
from kft.params.freezing import (
    differences,
    freeze,
    is_frozen,
    record_marks,
    train_only,
    unfreeze,
    user_marks,
)
from kft.params.paths import Pattern, Weight, find, layers, weights
from kft.params.table import Parameters, parameters

__all__ = [
    "Parameters",
    "Pattern",
    "Weight",
    "differences",
    "digest",
    "digests",
    "find",
    "fingerprint",
    "freeze",
    "is_frozen",
    "layers",
    "parameters",
    "record_marks",
    "train_only",
    "unfreeze",
    "user_marks",
    "weights",
]
