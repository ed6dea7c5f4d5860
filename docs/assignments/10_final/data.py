"""A table of peptides from a laboratory: which sequence has how much `activity`?

Each row is a measurement: `sequence`, the `family` that it belongs to (an ancestor and its variants,
which differ from it in one to three residues), `activity` (a logarithm of a concentration: the higher, the
more active), `viability` and `turbidity` of the cells. What the laboratory did not write down: which number
it enters when an assay fails, that some rows were entered twice in another spelling, and that one column
was derived from the result.
"""

import numpy as np
import pandas as pd

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
FAILED = -999.0
LEAKS = ("viability", "turbidity")  # one of them is derived from the activity
FAMILIES, VARIANTS = (64, 72), (2, 4)  # variants of each besides the ancestor
LENGTHS = (15, 24)  # residues, so that all are padded alike and JAX compiles each network once
CHARGE = {"K": 1.0, "R": 1.0, "D": -1.0, "E": -1.0}
GREASY = set("AILMFVWY")


def activity(sequence):
    """What a peptide does, before its family and noise: charge and grease both help."""
    charge = sum(CHARGE.get(residue, 0.0) for residue in sequence)
    greasy = sum(residue in GREASY for residue in sequence) / len(sequence)
    return 0.5 * charge + 4.0 * greasy


def family(rng):
    """Draw an ancestor, whose composition is its own, and variants of it."""
    shares = rng.dirichlet(np.full(20, 2.0))
    ancestor = rng.choice(list(RESIDUES), int(rng.integers(*LENGTHS)), p=shares)
    rows = [ancestor]
    for _ in range(rng.integers(*VARIANTS)):
        variant = ancestor.copy()
        places = rng.choice(len(variant), int(rng.integers(1, 4)), replace=False)
        variant[places] = rng.choice(list(RESIDUES), len(places))
        rows.append(variant)
    return ["".join(row) for row in rows]


def data(rng):
    """{"table": DataFrame} with planted defects."""
    rows = []
    for number in range(rng.integers(*FAMILIES)):
        own = rng.normal(0, 0.6)  # of the family, by what no column tells
        for sequence in dict.fromkeys(family(rng)):
            value = activity(sequence) + own + rng.normal(0, 0.15)
            rows.append({"sequence": sequence, "family": f"f{number:02d}", "activity": value})
    table = pd.DataFrame(rows).drop_duplicates("sequence")
    table = table.sample(frac=1, random_state=int(rng.integers(2**31))).reset_index(drop=True)
    leak = str(rng.choice(LEAKS))
    other = LEAKS[1 - LEAKS.index(leak)]
    table[leak] = 100 / (1 + np.exp(table.activity - table.activity.mean())) + rng.normal(
        0, 1, len(table)
    )
    table[other] = rng.normal(50, 12, len(table))
    failed = rng.choice(len(table), int(rng.integers(8, 16)), replace=False)
    table.loc[failed, "activity"] = FAILED
    again = table.iloc[rng.choice(len(table), int(rng.integers(10, 20)), replace=False)].copy()
    again["sequence"] = again.sequence.str.lower()
    table = pd.concat([table, again])
    table = table.sample(frac=1, random_state=int(rng.integers(2**31))).reset_index(drop=True)
    return {"table": table[["sequence", "family", "viability", "turbidity", "activity"]].round(4)}


def leak_of(table):
    """The column that was derived from the result."""
    rows = table[table.activity != FAILED]
    return max(LEAKS, key=lambda name: abs(np.corrcoef(rows[name], rows.activity)[0, 1]))
