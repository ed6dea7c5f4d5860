"""Kill `kft finetune` at random moments, and start it again, until it is done.

    python tests/benchmarks/kill_finetune.py --kills 10 --interrupts 5

Moments are drawn between the first file of a run and its end. After each kill (SIGKILL, then
Ctrl-C, which is SIGINT) the folder must hold a run that predicts, or
none whose first epoch has ended. Each run must end with the weights of one that was left alone.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import keras
import numpy as np

from kft import backbones
from kft.backbones.esm2.model import ESM2
from kft.finetuning import Run

RNG = np.random.default_rng(0)


def write_table(path):
    proteins = ["".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), 12)) for _ in range(200)]
    lines = [f"{x},{x.count('K') + RNG.normal():.3f}" for x in proteins]
    path.write_text("\n".join(["sequence,y", *lines]) + "\n")


def command(table, out):
    options = ["--strategy", "lora", "--option", "dropout=0.2", "--epochs", "40", "--no-baselines"]
    options += ["--backbone", table.parent / "backbone"]
    return [sys.executable, "-m", "kft.cli", "finetune", table, "--out", out, *options]


def start(table, out, log):
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    return subprocess.Popen(
        list(map(str, command(table, out))), env=environment, stdout=log, stderr=log
    )


def training_begins(process, out):
    """Wait until the run has been recorded, which is when its training begins."""
    while process.poll() is None and not (out / "config.json").exists():
        time.sleep(0.1)
    return time.perf_counter()


def state(out):
    """What the folder is good for, after a kill."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run = Run(out)
            run.predict(["MKTAYIAKQR"])
        except FileNotFoundError:
            return "no run yet"
        except ValueError as error:
            assert "no model yet" in str(error), error
            return "no epoch yet"
        return "finished" if run.finished else "usable"


def weights(out):
    return [keras.ops.convert_to_numpy(v) for v in Run(out).model.weights]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--interrupts", type=int, default=5)
    args = parser.parse_args()
    # A program that runs in the background ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signals = [signal.SIGKILL] * args.kills + [signal.SIGINT] * args.interrupts
    with tempfile.TemporaryDirectory() as name, open(Path(name, "log"), "w") as log:
        folder = Path(name)
        write_table(folder / "a.csv")
        backbones.save(backbones.randomised(ESM2(2, 32, 4), 0), folder / "backbone")
        process = start(folder / "a.csv", folder / "whole", log)
        began = training_begins(process, folder / "whole")
        assert process.wait() == 0
        seconds = time.perf_counter() - began
        print(f"From its record to its end a run takes {seconds:.0f} s.", flush=True)
        whole, number, counts = weights(folder / "whole"), 0, {}
        while True:
            out = folder / f"run {number}"
            process = start(folder / "a.csv", out, log)
            training_begins(process, out)
            try:
                limit = RNG.uniform(0, 1) * seconds if signals else None
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                process.send_signal(signals.pop(0))
                code = process.wait()
                found = state(out)
                counts[found] = counts.get(found, 0) + 1
                print(f"exit {code}: {found}", flush=True)
                if found != "finished":
                    continue
            same = all(map(np.array_equal, whole, weights(out)))
            print(f"run {number} is finished, exit {code}: same weights {same}", flush=True)
            assert same and (code == 0 or found == "finished")
            number += 1
            if not signals:
                break
        print(counts)


if __name__ == "__main__":
    main()
