"""What every pre-training shares: batches that follow from their step, the optimizer, the run."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kft.params import fingerprint
from kft.training.batching import Passes
from kft.training.callbacks import Resume, insist_on_constant_rate
from kft.training.optimizers import WarmupCosine


class Steps(Passes):
    """Batches as `fit` takes them, each a function of the seed and its global step alone.

    A class of this kind has a method `batch(step)` and sets the attributes below.

    Attributes:
        epoch: the present epoch; `batches[i]` is step i of it.
        steps: batches of an epoch.
        one_pass: batches until each record has come once.
        fresh: False shows the same in every epoch.
    """

    def __init__(self, seed, fresh):
        super().__init__()
        if not (isinstance(seed, int | np.integer) and seed >= 0):
            raise ValueError(f"seed must be an integer of at least 0, received {seed!r}.")
        self.seed, self.fresh, self.epoch = seed, fresh, 0

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        self.asked_for(index)
        return self.batch(self.epoch * self.steps * self.fresh + index)

    def go_to(self, epoch):
        """Makes `epoch` the present one, for a training that goes on."""
        self.epoch = epoch
        self.begin_pass()


@dataclass(frozen=True, eq=False)
class Pretraining:
    """What `pretrain` or `pretrain_images` did.

    Attributes:
        model: what was trained, compiled: the backbone's `masked_lm`, or the `MaskedAutoencoder`;
            the backbone shares its weights.
        history: list of dicts, one per epoch: epoch, step (of the optimizer), residues or images
            seen, seconds since the beginning, learning rate, loss, the scores, and the same of what
            is validated on as val_loss and so on.
    """

    model: keras.Model
    history: list[dict]


def check_settings(rate, warmup, **counts):
    """Refuses settings that no training has.

    Raises:
        ValueError: a rate, a share or a count that is none.
    """
    for name, value in counts.items():
        if not (isinstance(value, int | np.integer) and value > 0):
            raise ValueError(f"{name} must be an integer above 0, received {value!r}.")
    if not rate > 0:
        raise ValueError(f"rate must be above 0, received {rate!r}.")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup must be a share of at least 0 and below 1, received {warmup!r}.")


def run(
    model, train, valid, about, seen, *, loss, metrics, epochs, rate, warmup, accumulate, make, out,
    callbacks, verbose,
):  # fmt: skip
    """Trains a model on `Steps`, from where `out` says.

    Args:
        model: a keras.Model.
        train, valid: `Steps`; those of an epoch of `train` are filled up to whole steps of the
            optimizer. `valid` may be None.
        about: dict of what else must not differ when a training goes on.
        seen: name and number of what one pass over `train` shows, for the history.
        loss, metrics: of `compile`.
        epochs, rate, warmup, accumulate, make, out, callbacks, verbose: see `pretrain`.

    Returns:
        Pretraining.

    Raises:
        FloatingPointError: the loss is no number any more.
    """
    steps = -(-train.steps // accumulate)
    train.steps = steps * accumulate
    total = steps * epochs
    schedule = WarmupCosine(rate, total, int(warmup * total), accumulate=accumulate)
    optimizer = make(schedule, model.trainable_variables)
    optimizer.gradient_accumulation_steps = accumulate if accumulate > 1 else None  # not 1
    insist_on_constant_rate(callbacks, optimizer)
    model.compile(optimizer, loss, metrics=metrics)
    about = {**about, "first weights": fingerprint(model, None), "steps": train.steps}
    resume = Resume(Path(out) / "state.npz" if out else None, train, about)
    callbacks = [*callbacks, keras.callbacks.TerminateOnNaN(), resume]
    model.fit(train, validation_data=valid, epochs=epochs, callbacks=callbacks, verbose=verbose)
    if resume.diverged:
        raise FloatingPointError(
            f"The loss or a weight was no number in epoch {len(resume.logs) + 1}: lower the rate, "
            f"now {rate}, or raise warmup."
        )
    return Pretraining(model, _history(resume.logs, train, steps, schedule, seen))


def _history(logs, train, steps, schedule, seen):
    found, seconds, (name, in_one_pass) = [], 0.0, seen
    for number, row in enumerate(logs, start=1):
        seconds += row["seconds"]
        done = {
            "step": number * steps,
            name: round(number * train.steps / train.one_pass * in_one_pass),
            "rate": float(schedule(number * train.steps - 1)),
        }
        found.append({**row, **done, "seconds": seconds})
    return found
