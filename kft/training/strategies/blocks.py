"""Strategies that train blocks of the backbone: the last ones, one after the other, or all."""

from dataclasses import dataclass

import keras
import numpy as np

from kft.arguments import check_integer
from kft.lora import names as adapter_names
from kft.training.strategies.phases import Phase, blocks_and_head, multipliers_of, paths_of
from kft.training.strategies.registry import Strategy


@dataclass(frozen=True)
class LastBlocks(Strategy):
    """Train the head and the last blocks; early blocks stay frozen.

    When: There are hundreds to thousands of records, and the task is similar to pre-training. Early
    layers have general features, late layers features that are specific to a task.

    Args:
        blocks: Number of trained blocks, counted from the end.
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.
        layer_decay: Ratio of the learning rates of neighbouring blocks: the last block has
            `layer_decay` times the rate of the head, the one before it `layer_decay` squared.
        learning_rate_multipliers: {pattern of layers: multiplier of their learning rate}.

    Example:
        >>> LastBlocks(blocks=1, learning_rate_multipliers={"head": 10.0}).epochs
        10
    """

    blocks: int = 2
    epochs: int = 10
    learning_rate: float = 3e-4
    warmup: float = 0.1
    layer_decay: float = 1.0
    learning_rate_multipliers: dict | None = None

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the one phase.

        Args:
            model: A `kft.Model`, or any functional Keras model.

        Returns:
            List of one `Phase`.

        Raises:
            ValueError: The model has too few blocks.
        """
        groups, head = blocks_and_head(model)
        if check_integer("blocks", self.blocks) >= len(groups):
            raise ValueError(
                f"blocks must be 1 to {len(groups) - 1} for {model.name}, received "
                f"{self.blocks!r}: the strategy 'full' trains everything."
            )
        late = [layer for group in groups[-self.blocks :] for layer in group]
        name = f"head and last {self.blocks} blocks" if self.blocks > 1 else "head and last block"
        return [
            Phase(
                name,
                paths_of(model, [*late, *head]),
                self.epochs,
                self.learning_rate,
                self.warmup,
                multipliers_of(model, self.layer_decay, self.learning_rate_multipliers),
            )
        ]


@dataclass(frozen=True)
class GradualUnfreezing(Strategy):
    """Train the head first and unfreeze one more block per phase (Howard and Ruder 2018).

    When: Full fine-tuning is unstable or forgets: late blocks are trained before early ones change.

    Args:
        epochs: Total number of epochs: one per phase, and the remaining ones in the last phase.
            With fewer epochs than phases, several blocks are unfrozen at once.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.
        layer_decay: As in `LastBlocks`; the paper uses 1/2.6 on four layers.
        learning_rate_multipliers: {pattern of layers: multiplier of their learning rate}.

    Example:
        >>> GradualUnfreezing(epochs=4).layer_decay
        0.9
    """

    epochs: int = 10
    learning_rate: float = 3e-4
    warmup: float = 0.1
    layer_decay: float = 0.9
    learning_rate_multipliers: dict | None = None

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the phases, one for the head and one per block.

        Args:
            model: A `kft.Model`, or any functional Keras model.

        Returns:
            List of `Phase`.

        Raises:
            ValueError: `epochs` is less than 1.
        """
        groups, head = blocks_and_head(model)
        steps = [head, *reversed(groups)]
        check_integer("epochs", self.epochs)
        parts = np.array_split(np.arange(len(steps)), min(self.epochs, len(steps)))
        multipliers = multipliers_of(model, self.layer_decay, self.learning_rate_multipliers)
        phases: list[Phase] = []
        trainable: tuple[str, ...] = ()
        for i, part in enumerate(parts):
            new = paths_of(model, [layer for k in part for layer in steps[k]])
            trainable += new
            epochs = 1 if i + 1 < len(parts) else self.epochs - len(parts) + 1
            name = f"{'and ' * bool(i)}{', '.join(new)}"
            phases.append(
                Phase(name, trainable, epochs, self.learning_rate, self.warmup, multipliers)
            )
        return phases


@dataclass(frozen=True)
class Full(Strategy):
    """Train all weights for a few epochs, with a warm-up.

    When: There are thousands of records, or the task is unlike pre-training.

    Args:
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.
        layer_decay: Ratio of the learning rates of neighbouring blocks, see `LastBlocks`.
        learning_rate_multipliers: {pattern of layers: multiplier of their learning rate}.

    Example:
        >>> Full(layer_decay=0.8).learning_rate
        0.0001
    """

    epochs: int = 5
    learning_rate: float = 1e-4
    warmup: float = 0.1
    layer_decay: float = 1.0
    learning_rate_multipliers: dict | None = None

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the one phase.

        Args:
            model: A `kft.Model`, or any functional Keras model, without adapters.

        Returns:
            List of one `Phase`.

        Raises:
            ValueError: The model has adapters.
        """
        if adapter_names(model):
            raise ValueError(
                f"{model.name} has adapters, and the kernels of adapted layers are never "
                f"trainable: use the strategy 'lora', or call kft.lora.remove(model) first."
            )
        multipliers = multipliers_of(model, self.layer_decay, self.learning_rate_multipliers)
        return [
            Phase("all weights", None, self.epochs, self.learning_rate, self.warmup, multipliers)
        ]
