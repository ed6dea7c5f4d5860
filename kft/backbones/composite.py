"""Layers made of layers, some of which were frozen, or exchanged for others of their kind.

`kft.add_lora` exchanges a dense layer for one with adapters. A layer that is rebuilt from its
config makes its parts anew, so those that were exchanged or frozen stand in the config.
"""

import keras

from kft.keras_internals import sublayers_of


class Composite(keras.layers.Layer):
    """A layer whose exchanged and frozen parts survive `get_config` and `from_config`.

    Args:
        exchanged: {name of a part: its config}, as `exchanged` returns it; None for none.
        frozen_parts: names of the parts that do not learn.
    """

    def __init__(self, exchanged=None, frozen_parts=(), **kwargs):
        super().__init__(**kwargs)
        vars(self)["_exchanged"], vars(self)["_frozen_parts"] = exchanged or {}, frozen_parts

    def part(self, layer):
        """The layer itself, or what was in its place when the config was written."""
        layer = deserialized(self._exchanged, layer)
        if layer.name in self._frozen_parts:
            layer.trainable = False
        return layer

    def get_config(self):
        found = exchanged(parts(self))
        for layer in parts(self):  # whose own parts were
            if isinstance(layer, Composite) and "exchanged" in layer.get_config():
                found[layer.name] = keras.saving.serialize_keras_object(layer)
                found[layer.name].pop("build_config", None)
        frozen = [layer.name for layer in parts(self) if not layer.trainable]
        told = {"exchanged": found, "frozen_parts": frozen}
        return {**super().get_config(), **{key: value for key, value in told.items() if value}}


def parts(layer):
    """The layers that a layer holds directly."""
    return sublayers_of(layer, recursive=False, include_self=False)


def exchanged(layers):
    """The configs, by name, of those layers that have adapters."""
    found = [layer for layer in layers if getattr(layer, "adapters", None)]
    configs = {layer.name: keras.saving.serialize_keras_object(layer) for layer in found}
    for config in configs.values():
        config.pop("build_config", None)  # whoever it is a part of builds it
    return configs


def deserialized(configs, layer):
    """What `configs` has in the place of a layer, the layer itself if nothing."""
    if layer.name not in configs:
        return layer
    return keras.saving.deserialize_keras_object(configs[layer.name])
