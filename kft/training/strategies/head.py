"""Strategies that train the head on a frozen backbone."""

from dataclasses import dataclass

import keras

from kft.training.strategies.phases import Phase, paths_of, stages_and_head
from kft.training.strategies.registry import Strategy


@dataclass(frozen=True)
class LinearProbe(Strategy):
    """Solve for the head on features of the frozen backbone, in closed form.

    When: First. It takes seconds, and shows how much the features of the backbone contain and which
    score a more expensive strategy has to exceed.

    Args:
        rows: Largest number of training rows (records, or residues for a per-residue head). If
            there are more, this many are drawn at random.

    Example:
        >>> LinearProbe(rows=1000).rows
        1000
    """

    rows: int = 200_000

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the one phase, which has no epochs.

        Args:
            model: A `kft.Model`, or any functional Keras model.

        Returns:
            List of one `Phase`.
        """
        _, heads = stages_and_head(model)
        # Not the pooling layer: its weights have no closed form.
        solved = paths_of(model, [getattr(head, "dense", head) for head in heads])
        return [Phase("solve for the head", solved, 0, 0.0, rows=self.rows)]


@dataclass(frozen=True)
class HeadOnly(Strategy):
    """Train the head by gradient on a frozen backbone.

    When: There are a few hundred records, or the head is more than one linear layer. Frozen
    features are computed once, so that an epoch takes little time.

    Args:
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which the learning rate rises.

    Example:
        >>> HeadOnly(epochs=5).learning_rate
        0.001
    """

    epochs: int = 20
    learning_rate: float = 1e-3
    warmup: float = 0.1

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the one phase.

        Args:
            model: A `kft.Model`, or any functional Keras model.

        Returns:
            List of one `Phase`.
        """
        head = paths_of(model, stages_and_head(model)[1])
        return [Phase("head", head, self.epochs, self.learning_rate, self.warmup)]
