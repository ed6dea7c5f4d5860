"""A small pre-training that is killed and goes on: what a test and a benchmark share.

As a program, `python tests/interrupted.py FOLDER`, it says each batch that it has done.
"""

import hashlib
import sys

import keras
import numpy as np

from kft.backbones import randomised
from kft.backbones.esm2.model import ESM2
from kft.training import pretraining

EPOCHS, STEPS, ACCUMULATE = 4, 5, 2
BATCHES = STEPS * ACCUMULATE  # of an epoch


def proteins(count=60, seed=0):
    """Padded or cropped to 16 and 32 tokens: a program is compiled for two shapes."""
    rng = np.random.default_rng(seed)
    # Batches of both are as many: TensorFlow needs two lengths where an epoch begins.
    lengths = np.where(np.arange(count) % 3, rng.integers(10, 15, count), 38)
    return ["".join(rng.choice(list("LAGVSERTIDPK"), n)) for n in lengths]


class Say(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        print(f"batch {self.epoch * BATCHES + batch}", flush=True)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def train(folder, callbacks=(), epochs=EPOCHS, steps=STEPS):
    """Trains to the end, from where the folder says; returns what came out."""
    backbone = randomised(ESM2(1, 32, 4), seed=0)
    return pretraining.pretrain(
        backbone, proteins(), epochs=epochs, steps=steps, accumulate=ACCUMULATE, tokens=128,
        crop=32, learning_rate=1e-2, out=folder, callbacks=callbacks, verbose=0,
    )  # fmt: skip


def digest(done):
    """Of every bit of the weights, the optimizer's state and the logs, seconds aside."""
    variables = [*done.model.variables, *done.model.optimizer.variables]
    logs = [{k: v for k, v in row.items() if k != "seconds"} for row in done.history]
    found = hashlib.sha256(repr(logs).encode())
    for variable in variables:
        found.update(keras.ops.convert_to_numpy(variable.value).tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    print(digest(train(sys.argv[1], [Say()])))
