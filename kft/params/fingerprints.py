"""Digests of weights: proof that what is frozen did not move."""

import hashlib

import keras

from kft.params.paths import synchronise, weights


def digest(variable, values=None):
    """Digests one variable: sha256 over its dtype, shape and bytes, as hex.

    Args:
        variable: a `keras.Variable`.
        values: numpy array to take in place of what the variable holds now.

    Returns:
        str of 64 hexadecimal digits, the same on every backend for the same values.

    Example:
        >>> digest(keras.Variable([1.0, 2.0])) == digest(keras.Variable([1.0, 2.5]))
        False
    """
    head = f"{variable.dtype} {tuple(variable.shape)} ".encode()
    values = keras.ops.convert_to_numpy(variable) if values is None else values
    return hashlib.sha256(head + values.tobytes()).hexdigest()


def digests(model, trainable=False):
    """Digests each weight, to see which of them moved.

    Args:
        model: any built Keras model.
        trainable: False for the frozen weights, True for the others, None for all.

    Returns:
        dict from path to `digest`, in the order of `weights`.

    Raises:
        ValueError: the model is not built.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> list(digests(model)), list(digests(model, trainable=True))
        ([], ['out/kernel', 'out/bias'])
    """
    synchronise(model)
    chosen = [w for w in weights(model) if trainable is None or w.frozen != trainable]
    return {weight.path: digest(weight.variable) for weight in chosen}


def fingerprint(model, trainable=False):
    """Digests a model's weights into one string, to prove that they did not move.

    Args:
        model: any built Keras model.
        trainable: False for the frozen weights; True for the others, statistics of a
            BatchNormalization that learns among them; None for all.

    Returns:
        str of 64 hexadecimal digits: sha256 over path, dtype, shape and bytes of each weight in
        order of paths; the same on every backend for the same values.

    Raises:
        ValueError: the model is not built.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> before = fingerprint(model, trainable=None)
        >>> changed = model.layers[0].bias.assign([0.0, 0.5])
        >>> fingerprint(model, trainable=None) == before
        False
    """
    lines = (f"{path} {value}\n" for path, value in sorted(digests(model, trainable).items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
