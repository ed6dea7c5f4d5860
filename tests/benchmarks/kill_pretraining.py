"""Kills a small pre-training at ten random moments, lets it go on, and compares the bits.

Command: KERAS_BACKEND=torch python tests/benchmarks/kill_pretraining.py
Each process is killed with SIGKILL at a batch drawn at random, or a moment later, every third one
while it writes its file; the next one goes on from that file to the end.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from interrupted import BATCHES, EPOCHS

PROGRAM = Path(__file__).parents[1] / "interrupted.py"


def begin(folder):
    return subprocess.Popen(
        [sys.executable, PROGRAM, folder], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def last_line(process):
    lines = process.communicate()[0].split("\n")
    return next(line for line in reversed(lines) if line)


def wait_for_writing(folder, seconds=5):
    end = time.monotonic() + seconds
    while not list(folder.glob("*.part")) and time.monotonic() < end:
        pass


def main(kills=10):
    rng = random.Random(0)
    backend = os.environ.get("KERAS_BACKEND", "the default backend")
    with tempfile.TemporaryDirectory() as folder:
        whole = last_line(begin(folder))
    print(f"{backend}, without interruption: {whole[:16]}", flush=True)
    for kill in range(1, kills + 1):
        with tempfile.TemporaryDirectory() as folder:
            process, writes = begin(folder), kill % 3 == 0
            drawn = rng.randrange(EPOCHS * BATCHES - 1)
            last = f"batch {drawn // BATCHES * BATCHES + BATCHES - 1 if writes else drawn}"
            while (line := process.stdout.readline()) and line.strip() != last:
                pass
            if writes:
                wait_for_writing(Path(folder))
            else:
                time.sleep(rng.uniform(0, 0.01))
            process.send_signal(signal.SIGKILL)
            done = [last, *process.stdout.read().split("\n")]
            batches = [line for line in done if line.startswith("batch")]
            if process.wait() != -signal.SIGKILL:
                sys.exit(f"kill {kill} hit nothing: the process ended with {process.returncode}")
            half = ", while it wrote" if list(Path(folder).glob("*.part")) else ""
            found = last_line(begin(folder))
        same = "the same bits" if found == whole else "OTHER BITS"
        print(f"kill {kill:>2} after {batches[-1]}{half}: {found[:16]}, {same}", flush=True)
        if found != whole:
            sys.exit(1)


if __name__ == "__main__":
    main()
