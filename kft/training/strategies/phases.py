"""Phases of a training, and the groups of layers that phases use: blocks and head."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import keras

from kft.models import flat
from kft.params import find, layers, record_marks, train_only, unfreeze, weights
from kft.params.paths import by_pattern


@dataclass(frozen=True)
class Phase:
    """A number of epochs in which the same layers are trainable.

    Attributes:
        name: Name of the phase, for the log.
        trainable_layers: Paths of the trainable layers, with all layers inside them; None for all
            layers.
        epochs: Number of epochs; 0 where the head is solved for in closed form.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises to it.
        learning_rate_multipliers: {path of a weight: multiplier of its learning rate}, 1 for the
            weights that are not named.
        rows: Largest number of training rows to solve for the head with, where `epochs` is 0.

    Example:
        >>> phase = Phase("head", ("head",), epochs=2, learning_rate=1e-3)
        >>> phase.warmup
        0.1
    """

    name: str
    trainable_layers: tuple[str, ...] | None
    epochs: int
    learning_rate: float
    warmup: float = 0.1
    learning_rate_multipliers: dict[str, float] = field(default_factory=dict, repr=False)
    rows: int = 200_000

    def mark(self, model: keras.Model) -> None:
        """Freeze all layers of a model except those that are trainable in this phase.

        Args:
            model: The model that the phase was made for.
        """
        chosen = self.trainable_layers
        if chosen is None:
            unfreeze(model)
        else:
            train_only(model, lambda path: path in chosen)
        record_marks(model)


@dataclass(frozen=True)
class PhaseAsMarked(Phase):
    """A phase in which `trainable` of every layer stays as it is."""

    def mark(self, model: keras.Model) -> None:
        """Change nothing.

        Args:
            model: The model that the phase was made for.
        """


def blocks_and_head(
    model: keras.Model,
) -> tuple[list[list[keras.layers.Layer]], list[keras.layers.Layer]]:
    """Find the groups of layers that are unfrozen together, and the layers of the head.

    A stage that has no matrix, such as a norm or dropout, goes with the stage before it.

    Args:
        model: A `kft.Model`, or any functional Keras model.

    Returns:
        List of groups of layers, from the input on; and the list of the head's layers.

    Raises:
        ValueError: No layer before the head has weights.
    """
    stages, head = stages_and_head(model)
    groups: list[list[keras.layers.Layer]] = []
    for stage in stages:
        if groups and all(len(w.shape) < 2 for w in stage.weights):
            groups[-1].append(stage)
        else:
            groups.append([stage])
    if not groups:
        raise ValueError(f"{model.name} has no layers with weights before its head.")
    return groups, head


def stages_and_head(
    model: keras.Model,
) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]]:
    """Find the layers before the head, and those of the head.

    Args:
        model: A `kft.Model`, or any functional Keras model, whose head is its last layer with
            weights.

    Returns:
        List of the layers before the head, in order, and list of the head's layers.
    """
    if hasattr(model, "head_layers"):  # a model by itself, such as a SAM
        return model.stages, model.head_layers
    backbone, head = getattr(model, "backbone", None), getattr(model, "head", None)
    stages, heads = getattr(backbone, "stages", None), [head]
    if stages is None:
        everything = flat(backbone or model).layers
        stages = [x for x in everything if not isinstance(x, keras.layers.InputLayer)]
        if head is None:
            # Layers without weights that feed the head, dropout above all, belong to it.
            last = max(i for i, layer in enumerate(stages) if layer.weights)
            while last and not stages[last - 1].weights:
                last -= 1
            stages, heads = stages[:last], stages[last:]
    return stages, heads


def paths_of(model: keras.Model, chosen: Sequence[keras.layers.Layer]) -> tuple[str, ...]:
    """List the paths of some layers, in the order of `kft.params.layers`.

    Args:
        model: Any built Keras model.
        chosen: Layers of it; others are left out.

    Returns:
        Tuple of paths.
    """
    wanted = {id(layer) for layer in chosen}
    return tuple(path for path, layer in layers(model).items() if id(layer) in wanted)


def multipliers_of(
    model: keras.Model, layer_decay: float, given: dict | None = None
) -> dict[str, float]:
    """Compute the multipliers of the learning rates of all weights.

    Args:
        model: A `kft.Model`, or any functional Keras model.
        layer_decay: Ratio of the learning rates of neighbouring blocks, see `LastBlocks`.
        given: {pattern of layers: multiplier}, multiplied with the decay.

    Returns:
        {path of a weight: multiplier}, for the weights whose multiplier is not 1.

    Raises:
        TypeError: `given` is not a dict.
        ValueError: A pattern matches nothing.
    """
    groups, _ = blocks_and_head(model)
    by_id = {
        id(w): layer_decay**depth
        for depth, group in enumerate(reversed(groups), 1)
        for layer in group
        for w in layer.weights
    }
    for pattern, factor in by_pattern("learning_rate_multipliers", given):
        for _, layer in find(model, pattern):
            by_id |= {id(w): by_id.get(id(w), 1.0) * factor for w in layer.weights}
    return {w.path: f for w in weights(model) if (f := by_id.get(id(w.variable), 1.0)) != 1.0}
