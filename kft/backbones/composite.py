"""Layers made of layers, some of which were exchanged for others of their kind.

`kft.add_lora` exchanges a dense layer for one with adapters. A layer that is rebuilt from its
config makes its parts anew, so those that were exchanged stand in the config.
"""

import keras


class Composite(keras.layers.Layer):
    """A layer whose exchanged parts survive `get_config` and `from_config`.

    Args:
        exchanged: {name of a part: its config}, as `exchanged` returns it; None for none.
    """

    def __init__(self, exchanged=None, **kwargs):
        super().__init__(**kwargs)
        vars(self)["_exchanged"] = exchanged or {}

    def part(self, layer):
        """The layer itself, or what was in its place when the config was written."""
        return deserialized(self._exchanged, layer)

    def get_config(self):
        found = exchanged(parts(self))
        for layer in parts(self):  # whose own parts were
            if isinstance(layer, Composite) and "exchanged" in layer.get_config():
                found[layer.name] = keras.saving.serialize_keras_object(layer)
                found[layer.name].pop("build_config", None)
        return {**super().get_config(), **({"exchanged": found} if found else {})}


def parts(layer):
    """The layers that a layer holds directly."""
    return layer._flatten_layers(recursive=False, include_self=False)


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


def adapters_of(model):
    """{path: config} of the layers in a model that hold adapters, wherever they are inside.

    Paths are Keras's own (`layer.path`), which are those of `kft.params` but for what stands in a
    functional model inside of the graph: unique in one backbone, and the same when it is rebuilt.
    """
    found = [layer for layer in model._flatten_layers() if getattr(layer, "adapters", None)]
    configs = {layer.path: keras.saving.serialize_keras_object(layer) for layer in found}
    for config in configs.values():
        config.pop("build_config", None)
    return configs


def restore(model, configs):
    """Gives layers the adapters that `adapters_of` found in a model of the same architecture.

    The classes come from Keras's registry: the rooms of `backbones` do not know `lora`.
    """
    by_path = {layer.path: layer for layer in model._flatten_layers()}
    for path, config in configs.items():
        kind = keras.saving.get_registered_object(config["registered_name"])
        told = config["config"]
        if not getattr(by_path[path], "adapters", None):  # its own config may have told already
            kind.take_over(by_path[path])
        by_path[path].resume(told["adapters"], told["active"], told["merged"])
