"""The learning-rate range test (Smith 2017, "Cyclical learning rates", section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.arguments import check_callable, check_instance, check_integer, check_number_above
from kft.keras_internals import compile_arguments
from kft.models.graphs import Learner, flat
from kft.params.paths import check_model
from kft.training.optimizers import OptimizerFactory, adamw


@dataclass(frozen=True, eq=False)
class RangeTest:
    """Result of the range test.

    Attributes:
        learning_rates: float64 (S,), the learning rate of each step.
        losses: float64 (S,), the loss of each step's batch, before the step.
        smooth: float64 (S,), the running average of the losses, corrected for its start.
        suggestion: The learning rate at which `smooth` falls fastest.
    """

    learning_rates: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    smooth: np.ndarray = field(repr=False)
    suggestion: float

    def plot(self) -> tuple[Any, str]:
        """Draw the losses over the learning rates.

        Returns:
            (figure, caption), see `kft.plots.plot_learning_rates`.
        """
        from kft.plots import plot_learning_rates

        return plot_learning_rates(self.learning_rates, self.losses, self.smooth, self.suggestion)


def find_learning_rate(
    model: keras.Model,
    batches: keras.utils.PyDataset,
    smallest: float = 1e-6,
    largest: float = 1.0,
    steps: int = 100,
    optimizer: OptimizerFactory = adamw,
) -> RangeTest:
    """Try rising learning rates, one batch each, and restore everything.

    A good highest learning rate is where the loss falls fastest. Weights, statistics, random
    states, the compiled optimizer and the order of the batches are afterwards what they were.

    Args:
        model: A functional Keras model with its trainable layers marked; compiled with a loss, or
            a `kft.Model` whose head has a loss.
        batches: Batches of `kft.batches`, or any indexable batches of (inputs, targets).
        smallest: First learning rate; the next ones rise geometrically.
        largest: Last learning rate.
        steps: Most learning rates; it ends early when the loss has grown fourfold.
        optimizer: Called as `optimizer(learning_rate, variables)`, returns a Keras optimizer.

    Returns:
        `RangeTest`; `.suggestion` is the learning rate, `.plot()` draws the figure.

    Raises:
        ValueError: Learning rates that do not rise, fewer than 10 steps, no loss, no trainable
            weight.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> backbone.trainable = False
        >>> train = kft.batches((["MKTAYI", "GSS"], [0.0, 1.0]), backbone.encode)
        >>> found = kft.find_learning_rate(model, train, steps=10)
        >>> len(found.learning_rates) <= 10
        True
    """
    check_model(model)
    check_number_above("largest", largest, check_number_above("smallest", smallest))
    check_integer("steps", steps, 10)
    check_callable("optimizer", optimizer, "a function that makes an optimizer")
    check_instance("batches", batches, (keras.utils.PyDataset, Sequence), "batches of kft.batches")
    if not len(batches):
        raise ValueError("batches is empty: give at least one batch.")
    if not model.trainable_variables:
        raise ValueError(f"No weight of {model.name} is trainable: unfreeze a layer first.")
    growth = (largest / smallest) ** (1 / (steps - 1))
    ramp = keras.optimizers.schedules.ExponentialDecay(smallest, 1, growth)
    graph = flat(model)
    # A separate model over the same layers, so that the given one stays compiled as it is.
    learner = Learner(graph.input, graph.output)
    learner.compile(optimizer(ramp, learner.trainable_variables), loss_of(model))
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
            f"The loss is {losses[-1]} at the learning rate {smallest:g} already: check the "
            f"targets, or begin with a smaller learning rate."
        )
    return _read(np.geomspace(smallest, largest, steps)[: len(losses)], np.array(losses))


def loss_of(model: keras.Model) -> Any:
    """Find the loss that a model is compiled with, or the loss of its kft head.

    Args:
        model: A Keras model.

    Returns:
        The loss, in any form that `compile` takes.

    Raises:
        ValueError: The model has neither.
    """
    if model.compiled:
        return compile_arguments(model)["loss"]
    if hasattr(getattr(model, "head", None), "make_loss"):
        return model.head.make_loss()
    raise ValueError(
        f"{model.name} has no loss: give `loss`, for example 'mean_squared_error' for numbers, "
        f"'sparse_categorical_crossentropy' for probabilities of classes or 'binary_crossentropy' "
        f"for those of labels; or compile the model with a loss, or use a head of kft.heads, which "
        f"have one."
    )


def _read(learning_rates: np.ndarray, losses: np.ndarray) -> "RangeTest":
    # The running average of Adam, started at zero and corrected for that.
    weight = 0.9 ** np.arange(len(losses))
    averages = [
        np.average(losses[: i + 1], weights=weight[: i + 1][::-1]) for i in range(len(losses))
    ]
    smooth = np.where(np.isfinite(averages), averages, np.inf)
    falling = max(int(np.argmin(smooth)), 1)
    slopes = np.diff(smooth[: falling + 1]) / np.diff(np.log(learning_rates[: falling + 1]))
    suggestion = float(learning_rates[int(np.argmin(slopes))])
    return RangeTest(learning_rates, losses, smooth, suggestion)
