"""Embeds many short proteins in shards: memory by their number, and kills at random moments.

Command: python tests/benchmarks/benchmark_shards.py [--proteins 5000 20000] [--kills 10]
(`--tiny` is a smoke run). It prints the tables of docs/embeddings.md.

Method: the command `kft embed IN OUT --shard I/N` with kft_esm2_tiny, random proteins of 20 to 40
residues in a FASTA file, one thread. Memory is the largest resident size of the process of the
first shard, and of the one that merges all shards to HDF5; the number of shards is the same. For
the kills, the commands of all shards and then the merge run one after another; each kill is a
SIGKILL at a moment that is drawn from the time which an undisturbed run takes, after which the
commands are given again from the first. Where they come to their end before the next kill, their
file is compared, all names and numbers bit by bit, and they begin in a new folder.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

COMMAND = [sys.executable, "-m", "kft.cli"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--proteins", type=int, nargs="+", default=[5000, 20_000])
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--proteins-of-kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    if options.tiny:
        options.proteins, options.kills, options.proteins_of_kills = [20, 40], 1, 20
    with tempfile.TemporaryDirectory() as folder:
        memory(Path(folder), options)
        kills(Path(folder), options)


def fasta(folder, count):
    rng, path = random.Random(0), folder / f"{count}.fasta"
    with open(path, "w") as file:
        for i in range(count):
            residues = "".join(rng.choices("ACDEFGHIKLMNPQRSTVWY", k=rng.randint(20, 40)))
            file.write(f">P{i}\n{residues}\n")
    return path


def commands(source, out, shards):
    """The commands of all shards, and of the merge."""
    embed = [*COMMAND, "embed", str(source), str(out), "--backbone", "kft_esm2_tiny", "--shard"]
    merge = [*COMMAND, "embed", "--merge", str(out), str(merged(out))]
    return [*([*embed, f"{i}/{shards}"] for i in range(1, shards + 1)), merge]


def merged(out):
    return out.with_name(f"{out.name}.h5")


def begin(command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def ended(process):
    """Wait for a process, and return its largest resident size in MiB."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{process.args} ended with {process.returncode}")
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def memory(folder, options):
    print("| proteins | shards | MiB of a shard | MiB of the merge | s in all |")
    print("|---|---|---|---|---|")
    for count in options.proteins:
        started, out = time.perf_counter(), folder / f"out_{count}"
        sizes = [ended(begin(x)) for x in commands(fasta(folder, count), out, options.shards)]
        taken = time.perf_counter() - started
        print(
            f"| {count:,} | {options.shards} | {max(sizes[:-1]):.0f} | {sizes[-1]:.0f} | "
            f"{taken:.0f} |",
            flush=True,
        )


def kills(folder, options):
    rng = random.Random(options.seed)
    source = fasta(folder, options.proteins_of_kills)
    started, whole = time.perf_counter(), folder / "whole"
    for command in commands(source, whole, options.shards):
        ended(begin(command))
    seconds = time.perf_counter() - started
    out, hit, equal = folder / "killed", 0, []
    while hit < options.kills or not equal:
        moment = rng.uniform(0, seconds) if hit < options.kills else np.inf
        if run_until(commands(source, out, options.shards), moment):
            hit += 1
            continue
        equal.append(same(merged(whole), merged(out)))
        hidden = [path.name for path in folder.rglob(".*")]
        shutil.rmtree(out)
        merged(out).unlink()
    print(
        f"\n{hit} kills; {options.proteins_of_kills:,} proteins in {options.shards} shards take "
        f"{seconds:.0f} s undisturbed; {sum(equal)} of {len(equal)} merged files equal that of an "
        f"undisturbed run; {len(hidden)} hidden files are left."
    )


def run_until(given, moment):
    """Run commands in turn and kill the one that runs at a moment; return whether one was hit."""
    end = time.perf_counter() + moment
    for command in given:
        process = begin(command)
        try:
            process.wait(None if end == np.inf else max(0.0, end - time.perf_counter()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
    return False


def same(one, two):
    import kft

    first, second = kft.load_embeddings(one), kft.load_embeddings(two)
    return first.names == second.names and np.array_equal(first.values, second.values)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
