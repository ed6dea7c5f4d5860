"""What all pre-training has in common: batches by step, the optimizer, the run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from kft.arguments import check_integer
from kft.params import fingerprint
from kft.programs import kept_programs
from kft.training.batching import Passes
from kft.training.callbacks import Resume, require_constant_learning_rate
from kft.training.optimizers import OptimizerFactory, WarmupCosine

# Settings under the names that version 0.1 wrote to `state.npz`.
EARLIER_NAMES = {"share": "mask_ratio", "ratio": "mask_ratio"}


class Steps(Passes):
    """Batches as `fit` takes them, each a function of the seed and its global step alone.

    A class of this kind has a method `batch(step)` and sets the attributes below.

    Args:
        seed: Int of at least 0.
        fresh: False shows the same batches in every epoch.

    Attributes:
        epoch: Current epoch; `batches[i]` is its step i.
        steps: Batches of an epoch.
        one_pass: Batches until each record has come once.
        fresh: See above.
    """

    steps: int
    one_pass: int

    def __init__(self, seed: int, fresh: bool):
        super().__init__()
        check_integer("seed", seed, 0)
        self.seed, self.fresh, self.epoch = seed, fresh, 0

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> Any:
        self.asked_for(index)
        return self.batch(self.epoch * self.steps * self.fresh + index)

    def go_to(self, epoch: int) -> None:
        """Make `epoch` the present one, for a training that continues.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self.epoch = epoch
        self.begin_pass()


@dataclass(frozen=True, eq=False)
class Pretraining:
    """Result of `pretrain` or `pretrain_images`.

    Attributes:
        model: The trained model, compiled: the backbone's `masked_lm`, or the
            `MaskedAutoencoder`; the backbone shares its weights.
        history: List of dicts, one per epoch: epoch, step (of the optimizer), residues or images
            seen, seconds since the beginning, learning_rate, loss, the scores, and loss and scores
            on the validation data as val_loss and so on.
    """

    model: keras.Model = field(repr=False)
    history: list[dict] = field(repr=False)


def check_settings(learning_rate: float, warmup: float, **counts: int) -> None:
    """Raise an error for settings out of range.

    Args:
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which it rises.
        **counts: Integers that must be above 0.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> check_settings(1e-3, 0.05, epochs=10)
    """
    for name, value in counts.items():
        check_integer(name, value)
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be above 0, received {learning_rate!r}.")
    if not 0 <= warmup < 1:
        raise ValueError(
            f"warmup must be a fraction of at least 0 and below 1, received {warmup!r}."
        )


def run(
    model: keras.Model,
    train: Steps,
    valid: Steps | None,
    settings: dict,
    seen: tuple[str, int],
    *,
    loss: Any,
    metrics: list,
    epochs: int,
    learning_rate: float,
    warmup: float,
    accumulate: int,
    optimizer: OptimizerFactory,
    out: Path | str | None,
    callbacks: Iterable[keras.callbacks.Callback],
    verbose: Any,
) -> Pretraining:
    """Train a model on `Steps`, and continue the training that `out` holds.

    Args:
        model: A keras.Model.
        train: `Steps` to train on; those of an epoch are filled up to whole steps of the optimizer.
        valid: `Steps` that are scored after every epoch, or None.
        settings: Dict of settings that must be the same when a training continues.
        seen: ("residues" or "images", their number in one pass over `train`), for the history.
        loss: As for `compile`.
        metrics: As for `compile`.
        epochs: Number of epochs.
        learning_rate: Highest learning rate.
        warmup: Fraction of the steps in which it rises.
        accumulate: Batches whose gradients are averaged for one optimizer step.
        optimizer: Called as `optimizer(learning_rate, variables)`, returns a Keras optimizer.
        out: Folder of `state.npz`; None keeps nothing.
        callbacks: Keras callbacks.
        verbose: As for Keras's `fit`.

    Returns:
        Pretraining.

    Raises:
        FloatingPointError: The loss or a weight is NaN or infinity.
    """
    steps = -(-train.steps // accumulate)
    train.steps = steps * accumulate
    total = steps * epochs
    schedule = WarmupCosine(learning_rate, total, int(warmup * total), accumulate=accumulate)
    made = optimizer(schedule, model.trainable_variables)
    made.gradient_accumulation_steps = accumulate if accumulate > 1 else None  # not 1
    require_constant_learning_rate(callbacks, made)
    model.compile(made, loss, metrics=metrics)
    settings = {**settings, "first weights": fingerprint(model, None), "steps": train.steps}
    state = Path(out) / "state.npz" if out else None
    resume = Resume(state, train, settings, EARLIER_NAMES)
    callbacks = [*callbacks, keras.callbacks.TerminateOnNaN(), resume]
    with kept_programs():
        model.fit(train, validation_data=valid, epochs=epochs, callbacks=callbacks, verbose=verbose)
    if resume.diverged:
        raise FloatingPointError(
            f"The loss or a weight is NaN or infinity in epoch {len(resume.logs) + 1}: lower "
            f"learning_rate, now {learning_rate}, or raise warmup."
        )
    return Pretraining(model, _history(resume.logs, train, steps, schedule, seen))


def _history(
    logs: Sequence[dict[str, Any]],
    train: Steps,
    steps: int,
    schedule: Callable[[Any], Any],
    seen: tuple[str, int],
) -> list[dict[str, Any]]:
    history_rows, seconds, (name, in_one_pass) = [], 0.0, seen
    for number, row in enumerate(logs, start=1):
        seconds += row["seconds"]
        done = {
            "step": number * steps,
            name: round(number * train.steps / train.one_pass * in_one_pass),
            "learning_rate": float(schedule(number * train.steps - 1)),
        }
        history_rows.append({**row, **done, "seconds": seconds})
    return history_rows
