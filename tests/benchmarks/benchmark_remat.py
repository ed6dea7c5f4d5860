"""Measures memory and time of a training step with `remat` and without.

Command: python tests/benchmarks/benchmark_remat.py [--backends jax torch tensorflow] [--steps 3]
(`--tiny` is a smoke run; `--batch 8 --length 1022`). It prints the table of docs/benchmarks.md.

Method: shapes of esm2_t6_8M_UR50D with random weights in float32, a linear head, Adam; LoRA of rank
8 on query and value, or all weights. One process per row, on one thread: the peak of the resident
size over the steps after the first, which compiles, less the resident size after loading; and the
median CPU seconds of these steps. The loss of the last step is compared between the two.
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
WORK = ("lora", "all weights")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--work", nargs="+", choices=WORK, default=WORK)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=1022)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--inside", choices=("on", "off"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.batch, options.length = 2, 30
    if options.inside:
        print(json.dumps(measure(options)))
        return
    print(f"B{options.batch} L{options.length}\n")
    print("| backend | trained | MiB without | MiB with remat | ratio | s without | s with remat | "
          "ratio | loss differs by |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for backend in options.backends:
        for work in options.work:
            off, on = (inside(backend, work, flag, options) for flag in ("off", "on"))
            print(
                f"| {backend} | {work} | {off['mib']:.0f} | {on['mib']:.0f} | "
                f"**{on['mib'] / off['mib']:.2f}** | {off['seconds']:.2f} | {on['seconds']:.2f} | "
                f"**{on['seconds'] / off['seconds']:.2f}** | {abs(on['loss'] - off['loss']):.0e} |",
                flush=True,
            )


def inside(backend, work, remat, options):
    sizes = ["--batch", str(options.batch), "--length", str(options.length)]
    case = ["--inside", remat, "--work", work, "--steps", str(options.steps), *sizes]
    one_thread = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "XLA_FLAGS": one_thread if backend == "jax" else "",
    }
    command = [sys.executable, __file__, *case, *(["--tiny"] if options.tiny else [])]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options):
    import keras

    import kft

    name = "kft_esm2_tiny" if options.tiny else "esm2_t6_8M_UR50D"
    backbone = kft.load(name, weights=False)
    model = kft.Model(backbone, kft.heads.Classification(2), remat=options.inside == "on")
    if options.work == ["lora"]:
        kft.add_lora(model, rank=8, seed=0)
    model.compile(keras.optimizers.Adam(1e-4), model.head.make_loss())
    rng = np.random.default_rng(0)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    sequences = ["".join(rng.choice(letters, options.length)) for _ in range(options.batch)]
    inputs, classes = model.encode(sequences), rng.integers(0, 2, options.batch)
    before, seconds = status("VmRSS"), []
    for i in range(options.steps + 1):
        if i == 1:  # the first compiles
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        started = time.process_time()
        loss = float(model.train_on_batch(inputs, classes))
        seconds.append(time.process_time() - started)
    mib = status("VmHWM") - before
    return {"mib": mib, "seconds": statistics.median(seconds[1:]), "loss": loss}


def status(name):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
