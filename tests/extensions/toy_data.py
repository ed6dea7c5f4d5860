"""A data set of one's own: how often K is in a sequence."""

import hashlib

import numpy as np

import kft
from kft.data import Dataset, Split
from kft.data.splits import group_split


@kft.data.register("toy_counts")
def load_toy_counts(records=96, seed=0):
    """Draw sequences of 6 to 12 letters, in groups of two that differ in their last letter.

    Args:
        records: Number of sequences, even.
        seed: Int from which sequences and split are drawn.
    """
    rng = np.random.default_rng(seed)
    sequences = []
    for length in rng.integers(6, 13, records // 2):
        start = "".join(rng.choice(list("ACDEGK"), length - 1))
        sequences += [start + "L", start + "K"]
    targets = np.array([float(sequence.count("K")) for sequence in sequences])
    groups = np.arange(records) // 2
    everything = Split(sequences, targets, groups=groups)
    parts = group_split(groups, seed=seed)
    return Dataset(
        name="toy_counts",
        task="regression",
        train=everything.take(parts["train"]),
        valid=everything.take(parts["valid"]),
        test=everything.take(parts["test"]),
        source=f"drawn by numpy, seed {seed}",
        licence="none needed",
        citation="none",
        checksum=hashlib.sha256("".join(sequences).encode()).hexdigest(),
        notes=("Sequences that differ in one letter only are on one side of the split.",),
    )
