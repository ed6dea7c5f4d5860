"""Small models that several tests use, and what tests ask of any model."""

import numpy as np
from keras import ops

import kft
from kft import params
from kft.backbones.esm2 import ESM2


def esm2(blocks=1, width=16, heads=2, seed=0, **options):
    """A small ESM-2 with random weights, those of published sizes in scale."""
    return kft.backbones.randomised(ESM2(blocks, width, heads, **options), seed)


def values(model):
    """{path: array} of all weights, adapters and statistics included."""
    return {w.path: ops.convert_to_numpy(w.variable.value).copy() for w in params.weights(model)}


def same(one, two):
    """Whether two `values` hold the same bits under the same paths."""
    return one.keys() == two.keys() and all(np.array_equal(one[path], two[path]) for path in one)


def moved(before, after):
    """The stages and layers, by the first part of their path, of which any weight differs."""
    return {
        path.partition("/")[0] for path in before if not np.array_equal(before[path], after[path])
    }


def perturb(model, scale=0.2, seed=7, learning=False):
    """Adds noise to all weights of a model, or to those that learn, and returns the model."""
    rng = np.random.default_rng(seed)
    for weight in params.weights(model):
        if weight.learns or not learning:
            noise = scale * rng.standard_normal(weight.variable.shape)
            noise = np.abs(noise) if "variance" in weight.path else noise
            current = ops.convert_to_numpy(weight.variable.value)
            weight.variable.assign((current + noise).astype("float32"))
    return model


def strings(lengths, letters="ACDEFGHIKL", seed=0):
    """Random sequences of the given lengths."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(letters), n)) for n in lengths]
