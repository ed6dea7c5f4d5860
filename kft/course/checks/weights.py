"""Whether weights of a model moved that should stay, or stayed that should learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from kft.course.wrong import Wrong
from kft.messages import listed, shown
from kft.params.fingerprints import digests
from kft.params.paths import Pattern


def frozen_unmoved(
    model: Any,
    before: Mapping[str, str] | keras.Model,
    line: int | None = None,
    pattern: Pattern | None = None,
) -> None:
    """Check that weights of a model are those that they were.

    Args:
        model: The model after training.
        before: `kft.params.digests` of the model before, or a model with the same weights.
        line: Line of the submission to blame.
        pattern: Layers that were to stay, as for `kft.freeze`; None for all in `before`.

    Raises:
        Wrong: A weight has moved or is no longer there.

    Example:
        >>> layers = [keras.layers.Dense(2, name="base"), keras.layers.Dense(1, name="head")]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> before = digests(model, None)
        >>> changed = model.get_layer("base").bias.assign([1.0, 1.0])
        >>> frozen_unmoved(model, before)
        Traceback (most recent call last):
        ...
        kft.course.wrong.Wrong: weights that were to stay frozen have moved: base/bias.
    """
    earlier, now = _both(model, before, line, pattern)
    if lost := [path for path in earlier if path not in now]:
        raise Wrong(f"weights that were to stay are no longer in the model: {listed(lost)}.", line)
    if moved := [path for path, value in earlier.items() if now[path] != value]:
        raise Wrong(f"weights that were to stay frozen have moved: {listed(moved)}.", line)


def has_learned(
    model: Any,
    before: Mapping[str, str] | keras.Model,
    line: int | None = None,
    pattern: Pattern | None = None,
) -> None:
    """Check that each weight of a model that should learn has moved.

    Args:
        model: The model after training.
        before: As for `frozen_unmoved`.
        line: Line of the submission to blame.
        pattern: Layers that were to learn; None for all in `before`.

    Raises:
        Wrong: A weight has not moved.
    """
    earlier, now = _both(model, before, line, pattern)
    if still := [path for path, value in earlier.items() if now.get(path) == value]:
        raise Wrong(f"weights that should have learned have not moved: {listed(still)}.", line)


def _both(
    model: Any, before: Any, line: int | None, pattern: Pattern | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests before, of the layers that a pattern names, and now."""
    if not isinstance(model, keras.Model):
        raise Wrong(f"a Keras model is expected, received {shown(model)}.", line)
    now = digests(model, None)
    earlier = digests(before, None) if isinstance(before, keras.Model) else dict(before)
    if pattern is not None:
        try:
            chosen = set(digests(model, pattern))
        except ValueError as error:
            raise Wrong(f"the model lacks the layers {pattern!r}: {error}", line) from None
        earlier = {path: value for path, value in earlier.items() if path in chosen}
    if not earlier:
        raise Wrong(f"the model lacks the layers {pattern!r}.", line)
    return earlier, now
