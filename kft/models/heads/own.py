"""Heads of your own: any Keras layer or function, and the features that it is called with.

Shapes: `B` inputs in a batch, `L` positions, `D` width, `K` outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from kft.arguments import check_choice
from kft.keras_internals import set_untracked
from kft.messages import shown
from kft.models.graphs import WithMask
from kft.models.heads.base import Head, Pooling

# "attention" has weights, which must be in the head.
OWN_POOLINGS = ("auto", "mean", "max", "cls", None)


def as_head(
    head: keras.Layer | Callable, features: Any, mask: Any, pooling: str | None
) -> tuple[keras.Layer, list[Any], str | None]:
    """Return a head as a layer, with the symbolic tensors that it is called with.

    Args:
        head: Keras layer, or function of symbolic features (and of `position_mask`, if it has an
            argument of that name), which becomes a functional model named "head".
        features: Symbolic float (B, D), (B, L, D) or (B, height, width, D).
        mask: Symbolic bool (B, L), the positions that belong to the input; None for all.
        pooling: One of `OWN_POOLINGS`, see `kft.Model`.

    Returns:
        The layer; the tensors; and the pooling that was put before it, None for none.

    Raises:
        TypeError: `head` is a class, or neither a layer nor a function.
        ValueError: The pooling is unknown, or given with a head that takes the mask.
    """
    check_choice("pooling", pooling, OWN_POOLINGS)
    if isinstance(head, type) or not (isinstance(head, keras.Layer) or callable(head)):
        raise TypeError(
            f"head must be a Keras layer, such as keras.layers.Dense(1), or a function of the "
            f"features, received {shown(head)} ({type(head).__name__})."
        )
    given = [features] if mask is None else [features, mask]
    if _takes_mask(head):
        if pooling not in ("auto", None):
            raise ValueError(
                f"pooling must be left out for a head that takes the mask of positions, received "
                f"{pooling!r}: {getattr(head, 'name', head)} pools by itself. kft's heads have an "
                f"argument of their own, for example kft.heads.Regression(pooling={pooling!r})."
            )
        if not isinstance(head, keras.Layer):
            head = _as_model(head, given)
        return head, [given] if _has_inputs(head) else given, None
    if pooling == "auto":
        pooling = None if len(features.shape) == 2 or _pools(head, features) else "mean"
    if pooling is not None:
        features = Pooling(pooling, name="head_pooling")(features, mask)
    elif mask is not None and len(features.shape) == len(mask.shape) + 1:
        features = WithMask(name="head_features")([features, mask])
    if not isinstance(head, keras.Layer):
        head = _as_model(head, [features])
    if _has_inputs(head) or isinstance(head, keras.Sequential):
        _without_output_mask(head)
    return head, [features], pooling


def _without_output_mask(head: keras.Model) -> None:
    """Let a model hand the mask of its input to its layers, without a warning of Keras.

    Keras warns that a model has no mask for its output, which nothing here would use.
    """
    head.supports_masking = True
    set_untracked(head, compute_mask=lambda inputs, previous_mask=None: None)


def _has_inputs(head: keras.Layer) -> bool:
    """Return whether a head is a functional model, which takes its inputs as one list."""
    return isinstance(head, keras.Model) and bool(getattr(head, "inputs", None))


def _takes_mask(head: keras.Layer | Callable) -> bool:
    """Return whether a head is called with the features and the mask of positions."""
    if isinstance(head, Head):
        return True
    if isinstance(head, keras.Layer) and _has_inputs(head):
        return len(head.inputs) == 2
    call = head.call if isinstance(head, keras.Layer) else head
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [x for x in inspect.signature(call).parameters.values() if x.kind in positional]
    # Keras's own layers may have other optional arguments, such as `initial_state`.
    return len(names) > 1 and (
        names[1].name.endswith("_mask") or names[1].default is inspect.Parameter.empty
    )


def _as_model(function: Callable, tensors: list[Any]) -> keras.Model:
    """Return the functional model whose layers a function connects."""
    names = ("features", "position_mask")[: len(tensors)]
    inputs = [
        keras.Input(batch_shape=x.shape, dtype=x.dtype, name=name)
        for name, x in zip(names, tensors, strict=True)
    ]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], function(*inputs), name="head")


def _pools(head: keras.Layer | Callable, features: Any) -> bool:
    """Return whether a head turns the features of all positions into one answer per input.

    The head itself is not built, since its weights may have to fit pooled features.
    """
    features = keras.KerasTensor(features.shape, dtype=features.dtype)
    try:
        if not isinstance(head, keras.Layer):
            shape = head(features).shape
        else:
            try:
                shape = head.compute_output_shape(features.shape)
            except NotImplementedError:  # of a layer that states no shape a copy is called
                shape = type(head).from_config(head.get_config())(features).shape
    except Exception:  # it takes no positions; what is wrong otherwise is seen when it is called
        return False
    return len(shape) == 2
