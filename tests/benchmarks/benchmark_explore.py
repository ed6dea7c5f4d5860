"""How long `kft.explore` takes, and how much memory above that of the data.

Commands:
    python tests/benchmarks/benchmark_explore.py table        (1,000,000 records x 30 columns)
    python tests/benchmarks/benchmark_explore.py table --records 10000000 --columns 10
    python tests/benchmarks/benchmark_explore.py sequences    (100,000 of them)
"""

import argparse
import threading
import time

import numpy as np
import pandas as pd
import psutil

from kft.exploration import explore


def table(records, columns, seed=0):
    """A table like that of the Higgs challenge: some columns are -999 where they do not apply."""
    rng = np.random.default_rng(seed)
    jets = rng.choice([0, 1, 2, 3], records, p=[0.4, 0.31, 0.2, 0.09])
    frame = {"jets": jets}
    for i in range(columns - 2):
        values = rng.gamma(2 + i % 3, 30, records) if i % 2 else rng.normal(i, 2, records)
        if i % 3 == 0:
            values[jets <= i % 2] = -999.0
        frame[f"x{i}"] = values
    frame["y"] = np.where(rng.random(records) < 0.34 + 0.05 * jets, "s", "b")
    return pd.DataFrame(frame)


def sequences(records, seed=0):
    """Families of five proteins with mutations, of 50 to 500 residues, in three splits."""
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
    texts = []
    for _ in range(-(-records // 5)):
        parent = rng.choice(letters, int(rng.integers(50, 500)))
        for _ in range(5):
            changed = rng.random(len(parent)) < 0.15
            texts.append(
                np.where(changed, rng.choice(letters, len(parent)), parent).tobytes().decode()
            )
    split = rng.choice(["train", "valid", "test"], records, p=[0.8, 0.1, 0.1])
    return pd.DataFrame(
        {"sequence": texts[:records], "split": split, "y": rng.integers(0, 2, records)}
    )


class Peak:
    """Largest memory of the process while it runs, above that at its beginning."""

    def __enter__(self):
        self.process = psutil.Process()
        self.before = self.most = self.process.memory_info().rss
        self.running = True
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while self.running:
            self.most = max(self.most, self.process.memory_info().rss)
            time.sleep(0.01)

    def __exit__(self, *_):
        self.running = False
        self.thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=["table", "sequences"])
    parser.add_argument("--records", type=int)
    parser.add_argument("--columns", type=int, default=30)
    given = parser.parse_args()
    if given.kind == "table":
        data, options = table(given.records or 1_000_000, given.columns), {"target": "y"}
    else:
        data, options = sequences(given.records or 100_000), {"target": "y", "split": "split"}
    with Peak() as peak:
        begin, used = time.perf_counter(), time.process_time()
        found = explore(data, **options)
        seconds, used = time.perf_counter() - begin, time.process_time() - used
    print(
        f"| {len(data):,} x {data.shape[1]} | {seconds:.1f} s | {used:.1f} s of processors | ",
        end="",
    )
    print(f"{(peak.most - peak.before) / 2**30:.2f} GB more | {peak.most / 2**30:.2f} GB in all |")
    print(f"{len(found.of('suspected-sentinel'))} columns with sentinels; {', '.join(found.codes)}")


if __name__ == "__main__":
    main()
