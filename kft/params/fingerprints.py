"""Digests of weights: proof that what is frozen did not move."""

import hashlib

import keras

from kft.keras_internals import sublayers_of
from kft.params.paths import find, synchronise, weights

_UNSAID = object()  # None says "all"


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


def digests(model, pattern=_UNSAID, trainable=_UNSAID):
    """Digests each weight, to see which of them moved.

    Args:
        model: any built Keras model.
        pattern, trainable: which weights, see `fingerprint`.

    Returns:
        dict from path to `digest`, in the order of `weights`.

    Raises:
        ValueError, TypeError: see `fingerprint`.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> list(digests(model)), list(digests(model, "out"))
        ([], ['out/kernel', 'out/bias'])
    """
    synchronise(model)
    return {weight.path: digest(weight.variable) for weight in _chosen(model, pattern, trainable)}


def fingerprint(model, pattern=_UNSAID, trainable=_UNSAID):
    """Digests a model's weights into one string, to prove that they did not move.

    Args:
        model: any built Keras model.
        pattern: whose weights, the layers that `freeze` would take: a path, a list of them, a
            compiled `re` or a callable, see `find`; None for those of all layers. True and False
            are taken for `trainable`.
        trainable: False for the frozen weights among them; True for the others, statistics of a
            BatchNormalization that learns among them; None for both. If it is not said, False
            without a pattern, and None with one.

    Returns:
        str of 64 hexadecimal digits: sha256 over path, dtype, shape and bytes of each weight in
        order of paths; the same on every backend for the same values.

    Raises:
        ValueError: the model is not built, or a pattern that matches nothing.
        TypeError: `trainable` is none of True, False and None, or a pattern of another kind.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> before = fingerprint(model, "out")
        >>> before == fingerprint(model, trainable=True)
        True
        >>> changed = model.layers[0].bias.assign([0.0, 0.5])
        >>> fingerprint(model, "out") == before
        False
    """
    found = sorted(digests(model, pattern, trainable).items())
    lines = (f"{path} {value}\n" for path, value in found)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _chosen(model, pattern, trainable):
    """The weights that are meant."""
    if isinstance(pattern, bool):
        if trainable is not _UNSAID:
            raise TypeError(
                f"pattern must name layers, received {pattern!r} beside {trainable=}: write one "
                f"of the two."
            )
        pattern, trainable = None, pattern
    if trainable is _UNSAID:
        trainable = False if pattern is _UNSAID else None
    if trainable not in (True, False, None):
        raise TypeError(
            f"trainable must be True, False or None, received {trainable!r}: layers are named by "
            f"pattern, as in kft.freeze."
        )
    chosen = [w for w in weights(model) if trainable is None or w.frozen != trainable]
    if pattern is _UNSAID or pattern is None:
        return chosen
    inside = {id(x) for _, layer in find(model, pattern) for x in sublayers_of(layer)}
    return [weight for weight in chosen if id(weight.layer) in inside]
