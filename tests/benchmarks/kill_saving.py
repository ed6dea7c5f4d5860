"""Kills `kft.save_adapter` over an adapter twenty times: it is the old or the new as a whole.

Command: KERAS_BACKEND=torch python tests/benchmarks/kill_saving.py [KILLS]
A process saves two adapters in turn, of which every weight is 1 or 2, into one folder, and is
killed with SIGKILL at a moment drawn at random. Then the folder is loaded.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path


def model_of(value=None):
    """A model whose adapter and head, and what they are scaled by, is one number."""
    import kft
    from kft.backbones.esm2.model import ESM2

    model = kft.Model(kft.backbones.randomised(ESM2(1, 64, 4), 0), kft.heads.Classification(3))
    if value is not None:
        kft.add_lora(model, value, alpha=value, name="default", targets="all-linear")
        for weight in kft.params.weights(model):
            if weight.trainable:
                weight.variable.assign(weight.variable * 0 + value)
    return model


def save(folder):
    """Saves the two in turn until it is killed."""
    import kft

    models = [model_of(1), model_of(2)]
    while True:
        for model in models:
            kft.save_adapter(model, folder)
            print("saved", flush=True)


def state(folder):
    """The one number that all of a loaded adapter is; None if there are several."""
    import numpy as np

    import kft

    model = model_of()
    kft.load_adapter(model, folder)
    values = [
        np.unique(np.asarray(w.variable.numpy())) for w in kft.params.weights(model) if w.trainable
    ]
    ranks = {x.settings.rank for _, y in kft.lora.owned.adapted(model)
             for x in y.adapters.values() if x.settings.rank}  # fmt: skip
    found = {float(x) for each in values for x in each} | {float(rank) for rank in ranks}
    return found.pop() if len(found) == 1 else None


def main(kills=20):
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, __file__, "--save", folder], stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()  # one adapter is there
        for kill in range(1, kills + 1):
            if process is None:
                process = subprocess.Popen(
                    [sys.executable, __file__, "--save", folder], stdout=subprocess.PIPE, text=True
                )
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            process, left = None, sorted(p.name for p in Path(folder).glob(".*"))
            found = state(folder)
            print(f"kill {kill:>2}: {'whole, ' + str(found) if found else 'MIXED'}; it left "
                  f"{', '.join(left) or 'nothing'}", flush=True)  # fmt: skip
            if found is None:
                sys.exit(1)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "torch")
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--save"]:
        save(sys.argv[2])
    main(*map(int, sys.argv[1:]))
