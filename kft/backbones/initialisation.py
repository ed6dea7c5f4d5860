"""Random weights for a backbone, the same on every backend."""

import keras
import numpy as np

from kft.backbones import contract


def randomised(backbone: keras.Model, seed: int) -> keras.Model:
    """Draw every kernel and table of a backbone again, normal with deviation 1 / sqrt(inputs).

    Inputs are what one output is summed over, see `kft.backbones.contract.fan_in`, so that
    activations and logits start at a size of about 1. (With transformers' 0.02 at every width, a
    narrow ESM-2 does not improve in its first epochs.) The heads that were published with the
    backbone are drawn too. Numbers are drawn with numpy in the order of the weights: the same seed
    gives the same model on every backend. Biases become 0, norms keep what they start from.

    Args:
        backbone: The backbone, changed in place.
        seed: Int from which the weights are drawn.

    Returns:
        The backbone.

    Example:
        >>> import kft
        >>> backbone = kft.load("kft_esm2_tiny")
        >>> randomised(backbone, seed=0) is backbone
        True
    """
    rng = np.random.default_rng(seed)
    for part in [backbone, *contract.published_heads(backbone)]:
        for variable in part.weights:
            inputs = contract.fan_in(backbone, variable)
            if variable.name == "bias":  # keras-hub draws some
                variable.assign(np.zeros(variable.shape, dtype="float32"))
            elif inputs is not None:
                values = rng.standard_normal(variable.shape, dtype="float32")
                variable.assign(values / np.sqrt(inputs, dtype="float32"))
    return backbone
