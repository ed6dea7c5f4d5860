"""Digests of weights, to prove that frozen weights have not changed."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np

from kft.keras_internals import sublayers_of
from kft.params.paths import Pattern, Weight, find, synchronise, weights

_NOT_GIVEN: Any = object()  # None means "all"


def digest(variable: keras.Variable, values: np.ndarray | None = None) -> str:
    """Compute the sha256 digest of one variable from its dtype, shape and bytes.

    Args:
        variable: The variable.
        values: Array to use instead of the variable's present values.

    Returns:
        64 hexadecimal digits, the same on every backend for the same values.

    Example:
        >>> digest(keras.Variable([1.0, 2.0])) == digest(keras.Variable([1.0, 2.5]))
        False
    """
    head = f"{variable.dtype} {tuple(variable.shape)} ".encode()
    values = keras.ops.convert_to_numpy(variable) if values is None else values
    return hashlib.sha256(head + values.tobytes()).hexdigest()


def digests(
    model: keras.Model,
    pattern: Pattern | bool | None = _NOT_GIVEN,
    trainable: bool | None = _NOT_GIVEN,
) -> dict[str, str]:
    """Compute the digest of each weight, to see which of them change.

    Args:
        model: Any built Keras model.
        pattern: Layers whose weights are digested, see `fingerprint`.
        trainable: Whether trainable or frozen weights are digested, see `fingerprint`.

    Returns:
        Path -> `digest`, in the order of `weights`.

    Raises:
        ValueError: As `fingerprint`.
        TypeError: As `fingerprint`.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> list(digests(model)), list(digests(model, "out"))
        ([], ['out/kernel', 'out/bias'])
    """
    synchronise(model)
    return {weight.path: digest(weight.variable) for weight in _chosen(model, pattern, trainable)}


def fingerprint(
    model: keras.Model,
    pattern: Pattern | bool | None = _NOT_GIVEN,
    trainable: bool | None = _NOT_GIVEN,
) -> str:
    """Compute one digest of a model's weights, to prove that they have not changed.

    Args:
        model: Any built Keras model.
        pattern: Layers whose weights are digested: a path, a list of paths, a compiled `re` or a
            callable, see `find`; None for all layers. A bool is taken as `trainable`.
        trainable: False for frozen weights; True for all others, which include the statistics of
            a trainable BatchNormalization; None for both. The default is False without a pattern,
            and None with one.

    Returns:
        64 hexadecimal digits: sha256 over path, dtype, shape and bytes of each weight in order of
        paths. It is the same on every backend for the same values.

    Raises:
        ValueError: The model is not built, or the pattern matches nothing.
        TypeError: `trainable` is not True, False or None, or the pattern has a wrong type.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> before = fingerprint(model, "out")
        >>> before == fingerprint(model, trainable=True)
        True
        >>> changed = model.layers[0].bias.assign([0.0, 0.5])
        >>> fingerprint(model, "out") == before
        False
    """
    values = digests(model, pattern, trainable)
    lines = (f"{path} {values[path]}\n" for path in sorted(values))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _chosen(model: keras.Model, pattern: Any, trainable: Any) -> list[Weight]:
    """Return the weights that match."""
    if isinstance(pattern, bool):
        if trainable is not _NOT_GIVEN:
            raise TypeError(
                f"pattern must name layers, received {pattern!r} together with {trainable=}: give "
                f"one of the two."
            )
        pattern, trainable = None, pattern
    if trainable is _NOT_GIVEN:
        trainable = False if pattern is _NOT_GIVEN else None
    if trainable not in (True, False, None):
        raise TypeError(
            f"trainable must be True, False or None, received {trainable!r}: name layers in "
            f"pattern, as for kft.freeze."
        )
    chosen = [w for w in weights(model) if trainable is None or w.frozen != trainable]
    if pattern is _NOT_GIVEN or pattern is None:
        return chosen
    inside = {id(x) for _, layer in find(model, pattern) for x in sublayers_of(layer)}
    return [weight for weight in chosen if id(weight.layer) in inside]
