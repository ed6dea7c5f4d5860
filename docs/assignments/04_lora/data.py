"""An instrument that was repaired, and peptides.

The instrument turned 12 readings x into 8 quantities y = x W, with the known matrix `kernel` W.
Since a repair its matrix is another one, and nobody knows by how much: `train_x` and `train_y`,
`test_x` and `test_y` were measured afterwards. A repair touches few parts, so the change should have a low rank.
`peptides` are sequences, `charges` their net charges for each residue.
"""

import numpy as np

READINGS, QUANTITIES = 12, 8
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")
CHARGE = {"K": 1, "R": 1, "D": -1, "E": -1}


def data(rng):
    """{"kernel", "train_x", "train_y", "test_x", "test_y", "peptides", "charges"}."""
    kernel = rng.normal(0, 0.3, (READINGS, QUANTITIES))
    rank = int(rng.integers(2, 5))
    left = np.linalg.qr(rng.normal(size=(READINGS, rank)))[0]
    right = np.linalg.qr(rng.normal(size=(QUANTITIES, rank)))[0]
    change = (left * rng.uniform(0.8, 1.5, rank)) @ right.T
    x = rng.normal(size=(384, READINGS))
    y = x @ (kernel + change) + rng.normal(0, 0.1, (384, QUANTITIES))
    x, y, kernel = (values.astype("float32") for values in (x, y, kernel))
    peptides = ["".join(rng.choice(LETTERS, rng.integers(8, 15))) for _ in range(96)]
    charges = [sum(CHARGE.get(letter, 0) for letter in p) / len(p) for p in peptides]
    return {
        "kernel": kernel,
        "train_x": x[:256],
        "train_y": y[:256],
        "test_x": x[256:],
        "test_y": y[256:],
        "peptides": peptides,
        "charges": np.array(charges, dtype="float32"),
    }
