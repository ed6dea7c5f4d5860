"""A strategy of one's own: the head first, then the layer norms with it."""

from dataclasses import dataclass

import keras

import kft


@kft.strategies.register("toy_norms")
@dataclass(frozen=True)
class ToyNorms(kft.strategies.Strategy):
    """Train the head for one epoch, then the head and all layer norms.

    Args:
        epochs: Number of epochs in all.
        learning_rate: Highest learning rate.
    """

    epochs: int = 4
    learning_rate: float = 1e-2

    def phases(self, model):
        layers = kft.params.layers(model).items()
        norms = [path for path, x in layers if isinstance(x, keras.layers.LayerNormalization)]
        head = model.head.name
        phases = [kft.strategies.Phase("head", (head,), 1, self.learning_rate)]
        if self.epochs > 1:
            name, trainable = "norms and head", (*norms, head)
            more = kft.strategies.Phase(name, trainable, self.epochs - 1, self.learning_rate)
            phases.append(more)
        return phases
