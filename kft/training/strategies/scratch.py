"""The control: training from random weights."""

from dataclasses import dataclass

import keras
import numpy as np

from kft.backbones import randomised
from kft.lora import names as adapter_names
from kft.lora import remove
from kft.models import Model
from kft.params import weights
from kft.training.strategies.phases import Phase
from kft.training.strategies.registry import Strategy


@dataclass(frozen=True)
class FromScratch(Strategy):
    """Train all weights of a re-initialised copy; the given model keeps its weights.

    When: To find out whether pre-training helped: the score of a fine-tuned model minus that of
    this control is the contribution of the pre-trained weights.

    Args:
        epochs: Number of epochs; random weights need more than pre-trained ones.
        learning_rate: Highest learning rate; random weights need a higher one.
        warmup: Fraction of the steps in which the learning rate rises.
        seed: Int from which the weights are drawn, None for the seed of `kft.fit`.

    Example:
        >>> FromScratch(seed=1).epochs
        20
    """

    epochs: int = 20
    learning_rate: float = 1e-3
    warmup: float = 0.1
    seed: int | None = None

    def prepare(self, model: keras.Model) -> keras.Model:
        """Make a copy with new weights, without adapters.

        Args:
            model: A `kft.Model`, or any functional Keras model.

        Returns:
            The copy.
        """
        return _reinitialised(model, self.seed or 0)

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the one phase.

        Args:
            model: The copy that `prepare` returned.

        Returns:
            List of one `Phase`.
        """
        return [Phase("all weights", None, self.epochs, self.learning_rate, self.warmup)]


def _reinitialised(model: keras.Model, seed: int) -> keras.Model:
    """Copy a model with new weights: for a backbone of kft, those of `kft.load(weights=False)`.

    In other models each matrix, unless its initializer sets it to one constant value, is drawn by
    numpy from a normal distribution with standard deviation 1 / sqrt(inputs).
    """
    if isinstance(model, Model):
        copy = Model.from_config(model.get_config())
    else:
        copy = keras.models.clone_model(model)
    if adapter_names(copy):
        remove(copy)
    rng = np.random.default_rng(seed)
    given = {weight.path: weight.variable for weight in weights(model)}
    for weight in weights(copy):
        if isinstance(weight.layer, keras.layers.Normalization):  # statistics of the data
            weight.variable.assign(given[weight.path].value)
            continue
        shape = weight.variable.shape
        if np.ptp(keras.ops.convert_to_numpy(weight.variable.value).astype("float32")) > 0:
            table = isinstance(weight.layer, keras.layers.Embedding)
            inputs = shape[-1] if table else int(np.prod(shape[:-1]))
            drawn = rng.standard_normal(shape, dtype="float32") / np.sqrt(max(inputs, 1))
            weight.variable.assign(drawn.astype("float32"))
    if hasattr(getattr(copy, "backbone", None), "stages"):
        randomised(copy.backbone, seed)
    return copy
