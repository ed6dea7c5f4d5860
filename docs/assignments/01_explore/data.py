"""Measurements of a laboratory: does a peptide stay in solution (`soluble`, 1 or 0)?

Each row is a measurement. `split` says whether it is for training or for the test. What the
laboratory did not write down: which number its machine stores when a sensor fails, that some
rows were entered twice, and that one column was filled in after the result was known.
"""

import numpy as np
import pandas as pd

FEATURES = ["ph", "temperature", "salt", "length", "charge", "hydrophobicity"]
MISSING = -999.0
LEAKS = ["turbidity", "pellet_weight", "recovered"]  # each is measured after the result


def data(rng):
    """{"table": DataFrame} with planted defects."""
    n = int(rng.integers(560, 700))
    table = pd.DataFrame(
        {
            "ph": rng.normal(7, 1, n),
            "temperature": rng.uniform(4, 60, n),
            "salt": rng.gamma(2, 50, n),
            "length": rng.integers(8, 50, n).astype(float),
            "charge": rng.normal(0, 3, n),
            "hydrophobicity": rng.normal(0.2, 0.4, n),
        }
    ).round(3)
    unsure = rng.logistic(0, 1, n)
    drive = (
        0.9 * table.charge.abs() - 4.0 * table.hydrophobicity - 0.06 * table.temperature + unsure
    )
    table["soluble"] = (drive > np.quantile(drive, rng.uniform(0.8, 0.88))).astype(int)
    leak = str(rng.choice(LEAKS))
    table[leak] = (table.soluble * 2.0 + rng.normal(0, 0.2, n)).round(3)
    for name in rng.choice(FEATURES[:5], 3, replace=False):
        table.loc[rng.choice(n, int(rng.integers(10, 40)), replace=False), name] = MISSING
    table["split"] = np.where(rng.random(n) < 0.75, "train", "test")
    again = table.sample(int(rng.integers(20, 45)), random_state=int(rng.integers(2**31)))
    again["split"] = np.where(rng.random(len(again)) < 0.5, "train", "test")
    table = pd.concat([table, again]).sample(frac=1, random_state=int(rng.integers(2**31)))
    return {"table": table.reset_index(drop=True)}


def leak_of(table):
    """The column that was filled in after the result."""
    return next(name for name in LEAKS if name in table)
