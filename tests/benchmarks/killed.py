"""Kills what writes files at random moments, lets it go on, and counts what was lost.

Command: KERAS_BACKEND=torch python tests/benchmarks/killed.py [WORK ...] [--kills 20]
Each work (embed, adapter, compare, pretrain, fit, finetune) runs in a process of its own, which is
killed with SIGKILL, or with --signal SIGINT as by Ctrl-C, at moments drawn at random, and then runs
to the end. It is compared with one that was never killed, and hidden files that are left next to
its own are counted. Processes are forked, so that each begins with everything imported: on torch
the work has been done once in the process that they come from, which other backends do not survive.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.insert(0, str(Path(__file__).parents[1]))
import interrupted
import keras
from models import strings

import kft
from kft.backbones.esm2.model import ESM2
from kft.comparison import study
from kft.data import Dataset, Split
from kft.finetuning import Settings
from kft.inference import embedding

BATCHES = 40  # of `embed`, and epochs of `fit`
FORK = multiprocessing.get_context("fork")


def backbone():
    return kft.backbones.randomised(ESM2(1, 64, 4), 0)


def bits(variables):
    """The content of variables, or of arrays."""
    return b"".join(keras.ops.convert_to_numpy(x).tobytes() for x in variables)


class Says:
    """Reports each step, so that it can be killed there."""

    def __init__(self, step, function):
        self.step, self.function = step, function

    def __call__(self, *args, **options):
        found = self.function(*args, **options)
        self.step()
        return found


class Epochs(keras.callbacks.Callback):
    """Reports each epoch, so that it can be killed there."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_epoch_end(self, epoch, logs=None):
        self.step()


# Works: each runs in `folder` to its end, calls `step` often, and returns what came out as bytes.


def embed(folder, step):
    """Embed proteins, layer by layer and residue by residue."""
    proteins = strings([20 + i % 30 for i in range(2 * BATCHES)])
    options = {"batch_size": 2, "layers": [0, 1], "per_residue": True}
    with mock.patch.object(embedding, "outputs_of", Says(step, embedding.outputs_of)):
        out = kft.embed(backbone(), proteins, out=folder / "out.npz", **options)
    columns = kft.load_embeddings(out).columns
    return b"".join(bits(columns[name]) for name in sorted(columns))


def adapter(folder, step):
    """Save adapters in turn, in which all numbers are the same, and load the last one."""

    def all_of(model, value=None):
        found = [w.variable for w in kft.params.weights(model) if w.trainable]
        for variable in found if value is not None else ():
            variable.assign(variable * 0 + value)
        return bits(found)

    def loaded():
        model = kft.Model(backbone(), kft.heads.Classification(3))
        kft.load_adapter(model, folder)
        return all_of(model)

    model = kft.Model(backbone(), kft.heads.Classification(3))
    kft.add_lora(model, 2, name="default", targets="all-linear")
    # Whole, or this or the comparison fails.
    mixed = (folder / "adapter_config.json").exists() and loaded() not in (
        all_of(model, 1),
        all_of(model, 2),
    )
    for value in [1, 2] * 10:
        all_of(model, value)
        kft.save_adapter(model, folder)
        step()
    return b"mixed" if mixed else loaded()


def compare(folder, step):
    """Compare three strategies from two seeds."""

    train = study.train

    def said(*args):
        *others, callbacks, file = args
        return train(*others, [*callbacks, Epochs(step)], file)

    proteins = strings([12] * 40)
    charges = [float(x.count("K") - x.count("E")) for x in proteins]
    parts = [Split(proteins[a:b], charges[a:b]) for a, b in ((0, 20), (20, 30), (30, 40))]
    about = dict.fromkeys(("source", "licence", "citation", "checksum"), "")
    options = {"epochs": 4, "controls": False, "out": folder, "save_models": True}
    options |= {"resamples": 50, "verbose": False}
    data = Dataset("charge", "regression", *parts, **about)
    with mock.patch.object(study, "train", said):
        found = kft.compare(backbone(), data, ["head_only", "lora", "full"], 2, **options)
    for row in found.rows:
        if row.error:
            return row.error.encode()
    predictions = [x for row in found.rows for x in row.predictions]
    models = map(kft.load_model, sorted((folder / "models").iterdir()))
    return bits(predictions) + b"".join(bits(model.weights) for model in models)


def pretrain(folder, step):
    """Pre-train a language model, which `Resume` keeps."""
    return interrupted.digest(interrupted.train(folder, [Epochs(step)], 20, 2)).encode()


def fit(folder, step):
    """Fine-tune by Keras's `fit` with `kft.callbacks.Resume`."""
    model = kft.Model(backbone(), kft.heads.Regression())
    kft.train_only(model, ["block_0", "head"])
    model.compile(keras.optimizers.Adam(1e-3), "mean_squared_error")
    train = kft.batches((strings([20] * 8), [i / 8 for i in range(8)]), model.encode, 4)
    resume = kft.callbacks.Resume(folder / "state.npz", train)
    callbacks = [resume, Epochs(step)]
    model.fit(train, epochs=BATCHES, shuffle=False, verbose=0, callbacks=callbacks)
    return bits([*model.variables, *model.optimizer.variables])


def finetune(folder, step):
    """Fine-tune all layers in two phases by `kft.finetune`."""
    table, model = folder / "a.csv", folder / "backbone"
    lines = [f"{x},{x.count('K')}" for x in strings([12] * 60)]
    table.write_text("\n".join(["sequence,y", *lines]))
    if not (folder / "run").exists():
        kft.backbones.save(backbone(), model)
    settings = Settings(table, target="y", backbone=model, strategy="gradual_unfreezing", epochs=12)
    run = kft.finetune(settings, folder / "run", baselines=False, log=lambda line: step())
    return bits(run.model.weights) + (folder / "run/predictions.csv").read_bytes()


WORKS = (embed, adapter, compare, pretrain, fit, finetune)


# Killing them -------------------------------------------------------------------------------------


def digest(work, folder, step):
    return hashlib.sha256(work(Path(folder), step)).hexdigest()


def say(work, folder, pipe):
    """Do some work, and send each step and at the end the digest."""

    def step():
        pipe.send("step")
        time.sleep(0.002)

    pipe.send(digest(work, folder, step))


def begin(work, folder):
    """The process that does some work in a folder, and the end of a pipe to hear it by."""
    hears, says = FORK.Pipe(duplex=False)
    process = FORK.Process(target=say, args=(work, folder, says))
    process.start()
    says.close()
    return process, hears


def ended(process, pipe):
    """The digest that a process says at its end, and the steps that it took."""
    said = []
    with contextlib.suppress(EOFError):
        while True:
            said.append(pipe.recv())
    process.join()
    if process.exitcode:
        sys.exit(f"The process ended with {process.exitcode}.")
    return said[-1], said.count("step")


def hidden(folder):
    return [path.name for path in Path(folder).rglob(".*")]


def killed(work, kills, by, rng):
    """Print a line on a work: how often the end was the same, and what was left."""
    began = time.monotonic()
    if keras.backend.backend() == "torch":
        with tempfile.TemporaryDirectory() as folder:
            digest(work, folder, lambda: None)
    with tempfile.TemporaryDirectory() as folder:
        whole, steps = ended(*begin(work, folder))
    same = left = after = again = 0
    for kill in range(1, kills + 1):
        with tempfile.TemporaryDirectory() as folder:
            process, pipe = begin(work, folder)
            for _ in range(rng.randrange(1, 3 * steps // 4)):
                pipe.recv()
            time.sleep(rng.uniform(0, 0.02))
            os.kill(process.pid, by)
            process.join()
            if not process.exitcode:
                sys.exit(f"kill {kill} hit nothing: the process ended with {process.exitcode}")
            left += bool(hidden(folder))
            found, taken = ended(*begin(work, folder))
            same, after, again = same + (found == whole), after + len(hidden(folder)), again + taken
    print(
        f"{work.__name__}: {same} of {kills} equal to one never killed; {left} times there were "
        f"hidden files, {after} files after the next run, which took {again / kills:.0f} of "
        f"{steps} steps; {time.monotonic() - began:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which the background ignores
    known = {work.__name__: work for work in WORKS}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "works", nargs="*", metavar="WORK", help=f"{', '.join(known)}; all by default"
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", type=signal.Signals.__getitem__, default=signal.SIGKILL)
    given = parser.parse_args()
    for name in given.works or known:
        killed(known[name], given.kills, given.signal, random.Random(0))
