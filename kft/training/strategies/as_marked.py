"""Training of the layers that are marked trainable, as they are."""

from dataclasses import dataclass, replace

import keras

from kft.lora import names as adapter_names
from kft.params import weights
from kft.params.paths import ancestors
from kft.training.strategies.phases import Phase, PhaseAsMarked, paths_of, stages_and_head
from kft.training.strategies.registry import Strategy, get, names


@dataclass(frozen=True)
class AsMarked(Strategy):
    """Train the layers that are marked trainable: what `kft.fit` does without a strategy.

    When: You have chosen the trainable layers yourself, by `layer.trainable` or `kft.freeze`.

    Args:
        epochs: Number of epochs; None takes that of a similar strategy: `lora` where there are
            adapters, `full` where all weights are trainable, `head_only` where only weights of the
            head are, else `last_blocks`.
        learning_rate: Highest learning rate; None takes that of the similar strategy.
        warmup: Fraction of the steps in which the learning rate rises.

    Example:
        >>> AsMarked(epochs=2, learning_rate=1e-3).warmup
        0.1
    """

    epochs: int | None = None
    learning_rate: float | None = None
    warmup: float = 0.1

    def filled(self, model: keras.Model) -> tuple["AsMarked", str]:
        """Fill in the epochs and the learning rate where they are None.

        Args:
            model: A functional Keras model, with its layers marked.

        Returns:
            The strategy with numbers, and the name of the strategy that they are taken from.

        Raises:
            ValueError: No layer is marked trainable.
        """
        if not model.trainable_variables:
            raise ValueError(
                f"No weight of {model.name} is marked trainable, so there is nothing to train: "
                f"call kft.unfreeze(model), set layer.trainable = True, or name a strategy, one "
                f"of {', '.join(names())}."
            )
        name = _most_similar(model)
        taken = {
            option: getattr(get(name), option)
            for option in ("epochs", "learning_rate")
            if getattr(self, option) is None
        }
        return replace(self, **taken), name

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the one phase, in which `trainable` of every layer stays as it is.

        Args:
            model: A functional Keras model, with its layers marked.

        Returns:
            List of one `Phase`.

        Raises:
            ValueError: No layer is marked trainable.
        """
        filled, _ = self.filled(model)
        paths = dict.fromkeys(w.path.rpartition("/")[0] for w in weights(model) if w.trainable)
        options: tuple = filled.epochs, filled.learning_rate, filled.warmup
        return [PhaseAsMarked("as marked", tuple(paths), *options)]


def _most_similar(model: keras.Model) -> str:
    """The name of the strategy that trains about as many layers as are marked."""
    all_weights = weights(model)
    if adapter_names(model):
        return "lora"
    if not any(weight.frozen for weight in all_weights):
        return "full"
    head_paths = paths_of(model, stages_and_head(model)[1])
    in_head = [
        any(part in head_paths for part in ancestors(w.path)) for w in all_weights if w.trainable
    ]
    return "head_only" if all(in_head) else "last_blocks"
