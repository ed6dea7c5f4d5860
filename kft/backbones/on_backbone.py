"""Models that share the layers of a backbone, such as its language model."""

from typing import Any

import keras

from kft.backbones.batch_order import OrderedFit
from kft.backbones.copies import flags


class OnBackbone(OrderedFit):
    """A functional model that shares the layers of a backbone and is rebuilt from its config.

    Args:
        backbone: The backbone.
        output: Symbolic output, computed from the input of the backbone.
        name: Name of the Keras model.

    Attributes:
        stages: The stages of the backbone that are part of it.
    """

    keeps_adapters = True

    def __init__(self, backbone: keras.Model, output: keras.KerasTensor, name: str):
        super().__init__(backbone.input, output, name=name)
        self.stages = [stage for stage in backbone.stages if stage in self.layers]
        # The backbone itself must not be an attribute: it refers to this model, and Keras's loading
        # follows every circle.
        self._backbone_config = backbone.get_config

    def get_config(self) -> dict[str, Any]:
        return {"backbone": self._backbone_config(), **flags(self)}
