"""The learning-rate range test (Smith 2017, "Cyclical learning rates", section 3.3)."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kft.keras_internals import compile_arguments
from kft.models.graphs import Learner, flat
from kft.training.optimizers import adamw


@dataclass(frozen=True, eq=False)
class LearningRates:
    """What the range test saw.

    Attributes:
        rates: float64 (S,), the learning rate of each step.
        losses: float64 (S,), the loss of each step's batch, before the step.
        smooth: float64 (S,), the losses' running average, corrected for its start.
        suggestion: the rate at which `smooth` falls fastest.
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray
    suggestion: float

    def plot(self):
        """The figure and its caption, see `kft.plots.plot_learning_rates`."""
        from kft.plots import plot_learning_rates

        return plot_learning_rates(self.rates, self.losses, self.smooth, self.suggestion)


def find_learning_rate(model, batches, smallest=1e-6, largest=1.0, steps=100, make=adamw):
    """Tries rising learning rates, one batch each, and puts everything back.

    A good highest rate is where the loss falls fastest. Weights, statistics, random states, the
    compiled optimizer and the order of the batches are afterwards what they were.

    Args:
        model: a functional Keras model with the layers marked that are to learn; compiled with a
            loss, or a `kft.Model` whose head knows its loss.
        batches: batches of `kft.batches`, or any indexable batches of (inputs, targets).
        smallest, largest: first and last learning rate, rising geometrically.
        steps: how many rates at most; it ends early when the loss has grown fourfold.
        make: the optimizer, called as `make(rate schedule, variables)`.

    Returns:
        `LearningRates`; `.suggestion` is the rate, `.plot()` the figure and its caption.

    Raises:
        ValueError: rates that do not rise, fewer than 10 steps, no loss, nothing that learns.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> backbone.trainable = False
        >>> train = kft.batches((["MKTAYI", "GSS"], [0.0, 1.0]), backbone.encode)
        >>> found = kft.find_learning_rate(model, train, steps=10)
        >>> len(found.rates) <= 10
        True
    """
    if not 0 < smallest < largest or steps < 10:
        raise ValueError(
            f"The range test needs 0 < smallest < largest and at least 10 steps, received "
            f"{smallest=}, {largest=}, {steps=}."
        )
    if not model.trainable_variables:
        raise ValueError(f"No weight of {model.name} learns: unfreeze a layer first.")
    growth = (largest / smallest) ** (1 / (steps - 1))
    ramp = keras.optimizers.schedules.ExponentialDecay(smallest, 1, growth)
    graph = flat(model)
    # A model of its own over the same layers: what the given one was compiled to stays as it is.
    learner = Learner(graph.input, graph.output)
    learner.compile(make(ramp, learner.trainable_variables), loss_of(model))
    kept = [(v, ops.convert_to_numpy(v.value)) for v in model.variables]
    losses = []
    try:
        for i in range(steps):
            logs = learner.train_on_batch(*batches[i % len(batches)], return_dict=True)
            losses.append(float(logs["loss"]))
            if not np.isfinite(losses[-1]) or losses[-1] > 4 * max(min(losses), 1e-12):
                break
    finally:
        for variable, value in kept:
            variable.assign(value)
    if len(losses) < 2 or not np.isfinite(losses[:2]).all():
        raise ValueError(
            f"The loss was {losses[-1]} at the rate {smallest:g} already: look at the targets, or "
            f"begin with a smaller rate."
        )
    return _read(np.geomspace(smallest, largest, steps)[: len(losses)], np.array(losses))


def loss_of(model):
    """The loss that a model is compiled with, or that its kft head asks for.

    Raises:
        ValueError: there is neither.
    """
    if model.compiled:
        return compile_arguments(model)["loss"]
    if hasattr(getattr(model, "head", None), "make_loss"):
        return model.head.make_loss()
    raise ValueError(
        f"There is no loss to follow: compile {model.name} with one, or use a kft head."
    )


def _read(rates, losses):
    # The running average of Adam, started at zero and corrected for that.
    weight = 0.9 ** np.arange(len(losses))
    smooth = [np.average(losses[: i + 1], weights=weight[: i + 1][::-1]) for i in range(len(rates))]
    smooth = np.where(np.isfinite(smooth), smooth, np.inf)
    falling = max(int(np.argmin(smooth)), 1)
    slopes = np.diff(smooth[: falling + 1]) / np.diff(np.log(rates[: falling + 1]))
    return LearningRates(rates, losses, smooth, float(rates[int(np.argmin(slopes))]))
