"""Weights that are trained in full with an adapter: the head, and layers that are unfrozen.

As with PEFT's `modules_to_save`, each adapter has a copy of these weights, which starts as the
base's and is switched with the adapter (`layers.Adapted` keeps it). A head belongs to every adapter
from the start; another layer to the adapter that is active when the layer is unfrozen.
"""

import warnings
import weakref
from collections.abc import Iterable

import keras
import numpy as np

from kft.keras_internals import (
    Functional,
    inbound_nodes,
    is_quantized,
    origin_of,
    own_trainable_weights,
    sublayers_of,
)
from kft.lora.kinds import LoRAWhole, kind_of
from kft.lora.layers import Adapted, Settings
from kft.messages import listed
from kft.params import layers
from kft.params.freezing import BEFORE_UNFREEZING
from kft.params.paths import ancestors

FULL = Settings(0, 0.0, full=True)


def adapted(model: keras.Layer) -> list[tuple[str, Adapted]]:
    """Return [(path, layer)] of the layers of a model that hold adapters."""
    return [(path, x) for path, x in layers(model).items() if isinstance(x, Adapted)]


def names(model: keras.Model) -> list[str]:
    """List the adapters of a model.

    Args:
        model: Any built Keras model.

    Returns:
        Names in the order in which the adapters were added, empty if there are none.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> _ = kft.add_lora(backbone, rank=2, name="soluble")
        >>> kft.lora.names(backbone)
        ['soluble']
    """
    return list(dict.fromkeys(name for _, layer in adapted(model) for name in layer.adapters))


def check_unmerged(model: keras.Model) -> None:
    """Check that no adapters are merged.

    Raises:
        ValueError: Some are.
    """
    if any(layer.merged for _, layer in adapted(model)):
        raise ValueError(f"{model.name} has merged adapters: call kft.unmerge_lora first.")


def low_rank(layer: keras.Layer) -> bool:
    """Return whether an adapter of the layer is more than a copy of its weights."""
    return any(not x.settings.full for x in getattr(layer, "adapters", {}).values())


# Heads ------------------------------------------------------------------------------------------


def head_of(model: keras.Model) -> list[str]:
    """Return paths of the head: `model.head`, or the dense layers that make a model's outputs."""
    head = getattr(model, "head", None)
    heads = [head]
    if head is None:
        heads = [_dense_before(output) for output in getattr(model, "outputs", None) or ()]
    return [path for path, layer in layers(model).items() if any(layer is x for x in heads)]


def head_paths(model: keras.Model) -> set[str]:
    """Return the paths of the head and of all layers inside it."""
    head = head_of(model)
    return {p for p in layers(model) if p in head or set(ancestors(p)) & set(head)}


def _dense_before(output: keras.KerasTensor) -> keras.Layer | None:
    """The dense layer that makes an output, but for layers without weights; None for any other."""
    layer, number = origin_of(output)
    if isinstance(layer, Functional | keras.Sequential):
        return _dense_before(layer.outputs[number])
    if getattr(layer, "weights", None):
        dense = isinstance(layer, keras.layers.Dense) and not low_rank(layer)
        return layer if dense else None
    before = inbound_nodes(layer)[0].input_tensors
    return _dense_before(before[0]) if len(before) == 1 else None


def head_settings(model: keras.Model) -> dict[str, Settings]:
    """Return {path: settings} of the layers of the head that have their own weights."""
    head = head_paths(model)
    return {p: FULL for p, layer in layers(model).items() if p in head and has_weights(layer)}


def check_head(model: keras.Model) -> None:
    """Check that a head, of which each adapter has a copy, is not quantized.

    Raises:
        ValueError: It is.
    """
    everything = layers(model)
    if wrong := [path for path in head_settings(model) if is_quantized(everything[path])]:
        raise ValueError(
            f"{listed(wrong, 3)} of {model.name} is quantized, and a head is trained in full with "
            f"an adapter: put a new head on it with kft.replace_head, or leave it out with the "
            f"argument filters of quantize."
        )


def has_weights(layer: keras.Layer) -> bool:
    """Return whether a layer itself has weights, not counting the layers inside it."""
    return bool(own_trainable_weights(layer))


def join(model: keras.Model) -> None:
    """Give a new head its part in the adapters that its backbone has already.

    Args:
        model: A model whose head may be new.
    """
    _WITH_HEADS.add(model)
    there = names(model)
    if not there:
        return
    everything, active = layers(model), active_adapters(model)
    for path in head_settings(model):
        for name in there:
            hold(everything[path], name)
        everything[path].use(active)


def active_adapters(model: keras.Model) -> dict[str, float]:
    """Return {name: weight} of the active adapters of a model."""
    return {n: weight for _, layer in adapted(model) for n, weight in layer.active.items()}


def heads_on(model: keras.Model, changed: Iterable[keras.Layer]) -> list[keras.Layer]:
    """Return the layers of heads that other models have on changed layers.

    Args:
        model: The model whose layers were changed.
        changed: The changed layers.
    """
    wanted, in_heads = {id(layer) for layer in changed}, []
    for other in list(_WITH_HEADS):
        if other is not model and any(id(x) in wanted for x in sublayers_of(other)):
            everything = layers(other)
            in_heads += [everything[path] for path in head_settings(other)]
    return in_heads


_WITH_HEADS: weakref.WeakSet = weakref.WeakSet()  # of `kft.Model`


def hold(layer: keras.Layer, name: str) -> None:
    """Let an adapter have a copy of all weights of a layer, which starts as the base's.

    Args:
        layer: A built layer.
        name: Name of the adapter.
    """
    if not isinstance(layer, Adapted):
        (kind_of(layer) or LoRAWhole).attach(layer)
    if name not in layer.adapters:
        layer.add_adapter(name, FULL, np.random.default_rng(0))


# Layers that are unfrozen -------------------------------------------------------------------------


def only_active(model: keras.Model) -> str | None:
    """Return the name of the one adapter that is active, with weight 1; None if there is none."""
    active = active_adapters(model)
    return next(iter(active)) if list(active.values()) == [1.0] else None


def _before_unfreezing(model: keras.Model, unfrozen: Iterable[keras.Layer]) -> None:
    if not any(isinstance(x, Adapted) for x in sublayers_of(model)):
        return
    name = only_active(model)
    if name is None:
        return
    for layer in unfrozen:
        new = has_weights(layer) and not low_rank(layer)
        if new and name not in getattr(layer, "adapters", ()):
            hold(layer, name)
            layer.use({name: 1.0})


BEFORE_UNFREEZING.append(_before_unfreezing)


def claim_unfrozen(model: keras.Model) -> None:
    """Give layers that were unfrozen by `layer.trainable` to the active adapter, with a warning.

    Their weights before they were unfrozen are not known: the base keeps the present ones.

    Args:
        model: A model with adapters or without.

    Warns:
        UserWarning: There are such layers.
    """
    name = only_active(model)
    if name is None:
        return
    unfrozen = {
        path: layer
        for path, layer in layers(model).items()
        if model.trainable
        and not isinstance(layer, Adapted)
        and any(v.trainable for v in own_trainable_weights(layer))
    }
    if not unfrozen:
        return
    for layer in unfrozen.values():
        hold(layer, name)
        layer.use({name: 1.0})
    warnings.warn(
        f"{len(unfrozen)} layers of {model.name} ({listed(unfrozen, 3)}) are trainable, and were "
        f"not unfrozen by kft.unfreeze since the adapter {name!r} was added: they belong to it "
        f"from now on, and the base keeps their present weights. Use kft.unfreeze, so that the "
        f"base keeps their weights from before.",
        stacklevel=4,
    )
