"""What learns in full with an adapter: the head, and whatever else is woken beside it.

As with PEFT's `modules_to_save`, each adapter has weights of its own there, which begin as the
base's and are switched with it (`layers.Adapted` keeps them). A head belongs to every adapter from
the start; another layer to the adapter that counts when the layer is woken.
"""

import warnings
import weakref

import keras
import numpy as np
from keras.src.models import Functional

from kft.backbones.esm2.model import ESM2, MaskedLM
from kft.lora.kinds import LoRAWhole, kind_of
from kft.lora.layers import Adapted, Settings
from kft.params import layers
from kft.params.freezing import BEFORE_UNFREEZING
from kft.params.paths import ancestors, listed

FULL = Settings(0, 0.0, full=True)


def adapted(model):
    """[(path, layer)] of the layers of a model that hold adapters."""
    return [(path, x) for path, x in layers(model).items() if isinstance(x, Adapted)]


def names(model):
    """The names of a model's adapters, in the order in which they were added.

    Args:
        model: any built Keras model.

    Returns:
        list of strings, empty if there are none.
    """
    return list(dict.fromkeys(name for _, layer in adapted(model) for name in layer.adapters))


def low_rank(layer):
    """Whether an adapter of the layer is more than a copy of its weights."""
    return any(not x.settings.full for x in getattr(layer, "adapters", {}).values())


# Heads ------------------------------------------------------------------------------------------


def head_of(model):
    """Paths of the head: `model.head`, or the dense layers that make a plain model's outputs."""
    head = getattr(model, "head", None)
    heads = [head]
    if head is None and not isinstance(model, ESM2 | MaskedLM):
        heads = [_behind(output) for output in getattr(model, "outputs", None) or ()]
    return [path for path, layer in layers(model).items() if any(layer is x for x in heads)]


def head_paths(model):
    """All paths of the head and of what is in it."""
    head = head_of(model)
    return {p for p in layers(model) if p in head or set(ancestors(p)) & set(head)}


def _behind(output):
    """The dense layer that makes an output, layers without weights aside; None for any other."""
    layer = output._keras_history.operation
    if isinstance(layer, Functional | keras.Sequential):
        return _behind(layer.outputs[output._keras_history.tensor_index])
    if getattr(layer, "weights", None):
        dense = isinstance(layer, keras.layers.Dense) and not low_rank(layer)
        return layer if dense else None
    before = layer._inbound_nodes[0].input_tensors
    return _behind(before[0]) if len(before) == 1 else None


def head_settings(model):
    """{path: `Settings`} of the layers of the head that have weights of their own."""
    head = head_paths(model)
    return {p: FULL for p, layer in layers(model).items() if p in head and has_weights(layer)}


def has_weights(layer):
    """Whether a layer has weights itself, those of the layers in it aside."""
    return bool(layer._trainable_variables)


def join(model):
    """Gives a new head its part in the adapters that its backbone has already.

    Args:
        model: a model whose head may be new to them.
    """
    _WITH_HEADS.add(model)
    there = names(model)
    if not there:
        return
    everything, shares = layers(model), _shares(model)
    for path in head_settings(model):
        for name in there:
            hold(everything[path], name)
        everything[path].use(shares)


def _shares(model):
    """{name: share} of the adapters that count."""
    return {n: share for _, layer in adapted(model) for n, share in layer.active.items()}


def beside(model, changed):
    """The layers of heads that other models have on these layers: Keras keeps no list of them."""
    wanted, found = {id(layer) for layer in changed}, []
    for other in list(_WITH_HEADS):
        if other is not model and any(id(x) in wanted for x in other._flatten_layers()):
            everything = layers(other)
            found += [everything[path] for path in head_settings(other)]
    return found


_WITH_HEADS = weakref.WeakSet()  # of `kft.Model`


def hold(layer, name):
    """Lets an adapter have all weights of a layer; they begin as the base's."""
    if not isinstance(layer, Adapted):
        (kind_of(layer) or LoRAWhole).take_over(layer)
    if name not in layer.adapters:
        layer.add_adapter(name, FULL, np.random.default_rng(0))


# Layers that are woken ----------------------------------------------------------------------------


def counting(model):
    """The name of the one adapter that counts alone and as it is; None if there is no such."""
    shares = _shares(model)
    return next(iter(shares)) if list(shares.values()) == [1.0] else None


def _before_waking(model, woken):
    if not any(isinstance(x, Adapted) for x in model._flatten_layers()):
        return
    name = counting(model)
    for layer in woken if name else ():
        if (
            has_weights(layer)
            and not low_rank(layer)
            and name not in getattr(layer, "adapters", ())
        ):
            hold(layer, name)
            layer.use({name: 1.0})


BEFORE_UNFREEZING.append(_before_waking)


def take_strays(model):
    """Gives layers that were woken by hand to the adapter that counts, and says so.

    What they were before is not known: it is what they are now that the base keeps.
    """
    name = counting(model)
    if name is None:
        return
    strays = {
        path: layer
        for path, layer in layers(model).items()
        if model.trainable and not isinstance(layer, Adapted)
        and any(v.trainable for v in layer._trainable_variables)
    }  # fmt: skip
    if not strays:
        return
    for layer in strays.values():
        hold(layer, name)
        layer.use({name: 1.0})
    warnings.warn(
        f"{len(strays)} layers of {model.name} ({listed(strays, 3)}) learn, and not by "
        f"kft.unfreeze since the adapter {name!r} was added: it has them from now on, and the base "
        f"keeps them as they are. Wake layers with kft.unfreeze, so that what they were is kept.",
        stacklevel=4,
    )
