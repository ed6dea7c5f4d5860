"""Times an update of all weights of ESM-2 8M by Keras's AdamW, by kft's and by torch's, on PyTorch.

Command: KERAS_BACKEND=torch OMP_NUM_THREADS=1 python tests/benchmarks/benchmark_adamw.py
(`--tiny` is a smoke run).

Method: the same gradients on all sides, weight decay 0.01, each gradient clipped to norm 1 by
Keras's and kft's; median CPU milliseconds of updates in turns. "step adds" is by how much the peak
of the resident size grows in three training steps of one protein of 56 residues, one process each.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
import torch
from benchmark_remat import status

import kft
from kft.training.optimizers import AdamW

KINDS = {"keras.optimizers.AdamW": keras.optimizers.AdamW, "kft.training.optimizers.AdamW": AdamW}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--inside", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(memory_of_steps(options)))
        return
    print("| AdamW | update, ms | step adds, MiB |\n|---|---|---|")
    for name, milliseconds in updates(options).items():
        adds = f"{inside(name, options):.0f}" if name in KINDS else ""
        print(f"| {name} | {milliseconds:.0f} | {adds} |")


def made(options):
    name = "kft_esm2_tiny" if options.tiny else "esm2_t6_8M_UR50D"
    return kft.Model(kft.load(name, weights=False), kft.heads.Regression())


def updates(options):
    """Return the milliseconds of each side."""
    weights = made(options).trainable_variables
    gradients = [0.01 * torch.randn(tuple(v.shape)) for v in weights]
    sides = {}
    for name, kind in KINDS.items():
        optimizer = kind(1e-6, weight_decay=0.01, clipnorm=1.0)
        optimizer.build(weights)
        sides[name] = lambda optimizer=optimizer: optimizer.apply(gradients, weights)
    parameters = [torch.nn.Parameter(v.value.detach().clone()) for v in weights]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    for name, options_of in {"torch.optim.AdamW": {}, "the same, fused": {"fused": True}}.items():
        sides[name] = torch.optim.AdamW(parameters, 1e-6, weight_decay=0.01, **options_of).step
    seconds = {name: [] for name in sides}
    for _ in range(options.rounds + 1):
        for name, update in sides.items():
            begun = time.process_time()
            update()
            seconds[name].append(time.process_time() - begun)
    return {name: 1e3 * statistics.median(taken[1:]) for name, taken in seconds.items()}


def memory_of_steps(options):
    model = made(options)
    optimizer = KINDS[options.inside](1e-4, weight_decay=0.01, clipnorm=1.0)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "mse")
    before = status("VmRSS")
    for _ in range(3):
        model.train_on_batch(model.encode(["MKTAYIAK" * 7]), np.zeros((1, 1), "float32"))
    return status("VmHWM") - before


def inside(name, options):
    command = [sys.executable, __file__, "--inside", name, *["--tiny"] * options.tiny]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    main()
