"""Kills what writes files at random moments, lets it go on, and counts what was lost.

Command: KERAS_BACKEND=torch python tests/benchmarks/killed.py [KILLS [WORK ...]]
Each work (embed, adapter, fit) runs in a process of its own, which is killed with SIGKILL KILLS
times (20 unless given), at moments drawn at random, and then runs to the end. It is compared with
one that was never killed, and hidden files that are left next to its own are counted.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

BATCHES = 40  # of `embed`, and epochs of `fit`


def backbone():
    import kft
    from kft.backbones.esm2.model import ESM2

    return kft.backbones.randomised(ESM2(1, 64, 4), 0)


class Say:
    """Reports each step, so that it can be killed there."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args, **options):
        found = self.function(*args, **options)
        print("step", flush=True)
        time.sleep(0.002)
        return found


def embed(folder):
    """Embeds proteins, layer by layer and residue by residue; returns the content of the file."""
    from models import strings

    import kft
    from kft.inference import embedding

    embedding.outputs_of = Say(embedding.outputs_of)
    proteins = strings([20 + i % 30 for i in range(2 * BATCHES)])
    options = {"batch_size": 2, "layers": [0, 1], "per_residue": True}
    out = kft.embed(backbone(), proteins, out=folder / "out.npz", **options)
    columns = kft.load_embeddings(out).columns
    return b"".join(x.tobytes() for name in sorted(columns) for x in columns[name])


def adapter(folder):
    """Saves adapters in turn, in which all numbers are the same; returns those of the folder."""
    import keras

    import kft

    def all_of(model, value=None):
        found = [w.variable for w in kft.params.weights(model) if w.trainable]
        for variable in found if value is not None else ():
            variable.assign(variable * 0 + value)
        return b"".join(keras.ops.convert_to_numpy(x).tobytes() for x in found)

    model = kft.Model(backbone(), kft.heads.Classification(3))
    kft.add_lora(model, 2, name="default", targets="all-linear")
    if (folder / "adapter_config.json").exists():  # whole, or this or the comparison fails
        loaded = kft.Model(backbone(), kft.heads.Classification(3))
        kft.load_adapter(loaded, folder)
        if all_of(loaded) not in (all_of(model, 1), all_of(model, 2)):
            sys.exit("mixed")
    save = Say(kft.save_adapter)
    for value in [1, 2] * 10:
        all_of(model, value)
        save(model, folder)
    loaded = kft.Model(backbone(), kft.heads.Classification(3))
    kft.load_adapter(loaded, folder)
    return all_of(loaded)


def fit(folder):
    """Fine-tunes with `Resume`; returns the weights and the state of the optimizer."""
    import keras
    from models import strings

    import kft

    class Epochs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            print("step", flush=True)

    model = kft.Model(backbone(), kft.heads.Regression())
    kft.train_only(model, ["block_0", "head"])
    model.compile(keras.optimizers.Adam(1e-3), "mean_squared_error")
    train = kft.batches((strings([20] * 8), [i / 8 for i in range(8)]), model.encode, 4)
    resume = kft.callbacks.Resume(folder / "state.npz", train)
    model.fit(train, epochs=BATCHES, shuffle=False, verbose=0, callbacks=[resume, Epochs()])
    variables = [*model.variables, *model.optimizer.variables]
    return b"".join(keras.ops.convert_to_numpy(x).tobytes() for x in variables)


WORKS = {"embed": embed, "adapter": adapter, "fit": fit}


def begin(work, folder):
    command = [sys.executable, __file__, "--run", work, folder]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def hidden(folder):
    return [path.name for path in Path(folder).rglob(".*")]


def ended(process):
    """The digest that a process prints at its end, and the steps that it took."""
    lines = process.communicate()[0].split()
    if process.returncode:
        sys.exit(f"The process ended with {process.returncode}.")
    return lines[-1], lines.count("step")


def killed(work, kills, rng):
    """One line on a work: how often the end was the same, and what was left."""
    with tempfile.TemporaryDirectory() as folder:
        whole, steps = ended(begin(work, folder))
    same = left = after = again = 0
    for kill in range(1, kills + 1):
        with tempfile.TemporaryDirectory() as folder:
            process = begin(work, folder)
            for _ in range(rng.randrange(1, steps // 2)):
                process.stdout.readline()
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode != -signal.SIGKILL:
                sys.exit(f"kill {kill} hit nothing: the process ended with {process.returncode}")
            left += bool(hidden(folder))
            found, taken = ended(begin(work, folder))
            same, after, again = same + (found == whole), after + len(hidden(folder)), again + taken
    print(
        f"{work}: {same} of {kills} equal to one never killed; {left} times there were hidden "
        f"files, {after} files after the next run, which took {again / kills:.0f} of {steps} steps",
        flush=True,
    )


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "torch")
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--run"]:
        content = WORKS[sys.argv[2]](Path(sys.argv[3]))
        print(hashlib.sha256(content).hexdigest())
    else:
        count = int(sys.argv[1]) if sys.argv[1:] else 20
        for name in sys.argv[2:] or WORKS:
            killed(name, count, random.Random(0))
