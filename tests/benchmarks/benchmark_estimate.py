"""Compares what `kft.estimate` says with real trainings, on twelve cases.

Command: python tests/benchmarks/benchmark_estimate.py [--backends jax torch tensorflow]
(`--tiny` is a smoke run). It prints the table of docs/benchmarks.md.

Method: shapes of esm2_t6_8M_UR50D with random weights, four cases on each backend. Two processes
per case, on one thread: one calls `kft.estimate`, which may run no step of more than half a second
and so extrapolates the larger batches; the other trains ten batches by `model.fit` with kft's
AdamW. Real seconds are the median of a step after the first two, real memory the peak of the
process. Both sides count CPU seconds, since the machine may be shared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

BACKENDS = ("torch", "jax", "tensorflow")
CASES = [  # what is trained, records, residues
    ("lora", 8, 56),
    ("all weights", 16, 56),
    ("lora", 16, 254),
    ("all weights", 4, 510),
]
TINY = [("lora", 4, 8)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        side, case = options.inside
        print(json.dumps({"estimated": estimated, "real": real}[side](options, *json.loads(case))))
        return
    print(
        "| backend | trained | batch | MiB estimated | real | ratio | s estimated | real | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for backend in options.backends:
        for case in TINY if options.tiny else CASES:
            (mib, seconds), (real_mib, real_seconds) = (
                inside(backend, side, case, options) for side in ("estimated", "real")
            )
            work, batch, length = case
            print(
                f"| {backend} | {work} | B{batch} L{length} | {mib:.0f} | {real_mib:.0f} | "
                f"**{mib / real_mib:.2f}** | {seconds:.3f} | {real_seconds:.3f} | "
                f"**{seconds / real_seconds:.2f}** |",
                flush=True,
            )


def inside(backend, side, case, options):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
    more = ["--tiny"] if options.tiny else []
    command = [sys.executable, __file__, *more, "--inside", side, json.dumps(case)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def model_for(options, work):
    import kft

    name = "kft_esm2_tiny" if options.tiny else "esm2_t6_8M_UR50D"
    model = kft.Model(kft.load(name, weights=False), kft.heads.Regression())
    if work == "lora":
        kft.add_lora(model)
    return model


def estimated(options, work, batch, length):
    import kft
    from kft.comparison import estimating

    time.perf_counter = time.process_time
    estimating._SECONDS = 0.5
    found = kft.estimate(model_for(options, work), batch, length)
    return found.memory / 2**20, found.seconds


def real(options, work, batch, length):
    import keras

    from kft.comparison.estimating import PeakMemory
    from kft.training.optimizers import adamw

    class Times(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.ends = []

        def on_train_batch_end(self, batch, logs=None):
            self.ends.append(time.process_time())

    model, times = model_for(options, work), Times()
    model.compile(adamw(1e-6, model.trainable_variables), "mse")
    rng = np.random.default_rng(0)
    letters = list("ACDEFGHIKLMNPQRSTVWY")
    proteins = ["".join(rng.choice(letters, length)) for _ in range(batch)]
    inputs = {name: np.tile(x, (10, 1)) for name, x in model.encode(proteins).items()}
    with PeakMemory() as memory:
        targets = rng.standard_normal((10 * batch, 1))
        model.fit(inputs, targets, batch_size=batch, callbacks=[times], verbose=0)
    return memory.peak / 2**20, statistics.median(np.diff(times.ends)[1:])


if __name__ == "__main__":
    main()
