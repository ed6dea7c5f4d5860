"""Peptides: does one kill bacteria (`antimicrobial`, 1 or 0)?

The table has a row for each peptide. It is a sample of peptides of modlamp. As in any data base of
proteins, some rows are near copies of others: the same peptide of another animal, with a residue
changed or two. Nothing in the table says which.
"""

import numpy as np
import pandas as pd

import kft

FAMILIES, COPIES = 120, 45
LENGTHS = (15, 24)  # residues: padded alike, so that JAX compiles each network once
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")


def data(rng):
    """{"table": DataFrame} of peptides, near copies among them."""
    amp = kft.data.load("amp")
    sequences = amp.train.inputs + amp.test.inputs
    labels = np.concatenate([amp.train.targets, amp.test.targets])
    _, first = np.unique(np.concatenate([amp.train.groups, amp.test.groups]), return_index=True)
    kept, wanted = [], {0: FAMILIES // 2, 1: FAMILIES // 2}
    for i in rng.permutation(first):
        apart = all(differing(sequences[i], sequences[k]) > 7 for k in kept)
        if LENGTHS[0] <= len(sequences[i]) <= LENGTHS[1] and wanted[labels[i]] and apart:
            wanted[labels[i]] -= 1
            kept.append(i)
    rows = [(sequences[i], int(labels[i])) for i in kept]
    rows += [(changed(sequences[i], rng), int(labels[i])) for i in rng.choice(kept, COPIES, False)]
    table = pd.DataFrame(rows, columns=["sequence", "antimicrobial"])
    table = table.drop_duplicates("sequence")
    return {"table": table.iloc[rng.permutation(len(table))].reset_index(drop=True)}


def changed(sequence, rng):
    """A near copy: a residue is changed, or two that are next to each other."""
    letters, place = list(sequence), int(rng.integers(len(sequence) - 1))
    for i in range(place, place + int(rng.integers(1, 3))):
        letters[i] = str(rng.choice(LETTERS))
    return "".join(letters)


def differing(one, other):
    """In how many residues two sequences differ; their length, if these are not the same."""
    if len(one) != len(other):
        return max(len(one), len(other))
    return sum(a != b for a, b in zip(one, other, strict=True))


def near(one, other):
    """Whether two sequences are near copies: they differ in at most three residues."""
    return differing(one, other) <= 3
