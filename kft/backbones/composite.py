"""Layers that contain other layers, which may be frozen or hold adapters.

`kft.add_lora` turns a dense layer into one with adapters. A layer that is rebuilt from its config
makes its parts again, so the config also has those with adapters and lists those that are frozen.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from kft.keras_internals import set_untracked, sublayers_of


class Composite(keras.layers.Layer):
    """A layer whose parts keep their adapters, and stay frozen, in `from_config(get_config())`.

    Args:
        exchanged: {name of a part: its config} of parts with adapters; None for none.
        frozen_parts: Names of the parts that are frozen.
        **kwargs: Arguments of `keras.Layer`.
    """

    keeps_adapters = True  # its config holds the adapters of its parts

    def __init__(
        self,
        exchanged: Mapping[str, dict] | None = None,
        frozen_parts: Sequence[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        set_untracked(self, _exchanged=exchanged or {}, _frozen_parts=frozen_parts)

    @property
    def quantization_mode(self) -> None:
        """None, under an int8 policy too: its parts are quantized."""
        return None

    def part(self, layer: keras.Layer) -> keras.Layer:
        """Return a part, or the one with adapters that the config has in its place."""
        layer = deserialized(self._exchanged, layer)
        if layer.name in self._frozen_parts:
            layer.trainable = False
        return layer

    def get_config(self) -> dict[str, Any]:
        found = exchanged(parts(self))
        for layer in parts(self):  # whose own parts have adapters
            if isinstance(layer, Composite) and "exchanged" in layer.get_config():
                found[layer.name] = keras.saving.serialize_keras_object(layer)
                found[layer.name].pop("build_config", None)
        frozen = [layer.name for layer in parts(self) if not layer.trainable]
        own = {"exchanged": found, "frozen_parts": frozen}
        return {**super().get_config(), **{key: value for key, value in own.items() if value}}


def parts(layer: keras.Layer) -> list[keras.Layer]:
    """Return the layers that a layer holds directly."""
    return sublayers_of(layer, recursive=False, include_self=False)


def exchanged(layers: Iterable[keras.Layer]) -> dict[str, dict]:
    """Return {name: config} of those layers that have adapters."""
    adapted = [layer for layer in layers if getattr(layer, "adapters", None)]
    configs = {layer.name: keras.saving.serialize_keras_object(layer) for layer in adapted}
    for config in configs.values():
        config.pop("build_config", None)  # the layer that it is a part of builds it
    return configs


def deserialized(configs: Mapping[str, dict], layer: keras.Layer) -> keras.Layer:
    """Return the layer that `configs` has under the name of a layer, or the layer itself."""
    if layer.name not in configs:
        return layer
    return keras.saving.deserialize_keras_object(configs[layer.name])
