"""The weights of any Keras model: their paths, which of them learn, and proof of which did not.

A path is the chain of layer names from the model down, then the weight's name, joined by "/":
"block_0/query/kernel". It is the same on every backend, in every process and after save and load.
Names in a functional or sequential model are those that Keras keeps in its file. Inside any other
layer, a name that Keras made up ("dense_7") counts on within one process, so it becomes the snake
case name of the class and the place among its like: "dense", "dense_1", "dense_2".

Freezing speaks Keras's own language, `layer.trainable`, so that kft and plain Keras code mix. In
Keras a variable learns if the model's and the variable's `trainable` are True; the layers between
them only hand the flag down when it is set.
"""

from kft.params.fingerprints import digest, digests, fingerprint
from kft.params.freezing import (
    by_hand,
    differences,
    freeze,
    is_frozen,
    sign,
    train_only,
    unfreeze,
)
from kft.params.paths import Weight, find, layers, weights
from kft.params.table import Parameters, parameters

__all__ = [
    "Parameters",
    "Weight",
    "by_hand",
    "differences",
    "digest",
    "digests",
    "find",
    "fingerprint",
    "freeze",
    "is_frozen",
    "layers",
    "parameters",
    "sign",
    "train_only",
    "unfreeze",
    "weights",
]
