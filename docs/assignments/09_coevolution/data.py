"""A simulated protein family whose contacts are known, and chains of ideal geometry.

`family` is an alignment: its rows are proteins, its columns places in the protein. `contacts` is True
for the pairs of columns that touch each other. As in real databases, some proteins were sequenced
many times: a part of the rows are near copies of a few others. `chains` are protein chains with
their torsions (phi, psi, omega, in radians): mostly helices, strands and loops, which the residues
prefer. `coordinates` are N, CA and C of one more chain, `sequence`, in angstrom.
"""

import numpy as np

from kft import structure
from kft.data import Dataset, Split
from kft.data.proteins.alignments import RESIDUES, Alignment

COLUMNS, PAIRS, ROWS = 24, 32, 450
COPIES, CHANGED = (70, 110), 2  # near copies of each of three rows; residues that differ
# Residues that prefer a structure, the means of phi and psi and their spread in degrees, its length
KINDS = (
    ("AELKMQR", (-63, -43), 8, (5, 9)),  # helix
    ("VIYTFWC", (-120, 135), 12, (3, 6)),  # strand
    ("GPDNSH", (-75, 150), 20, (1, 3)),  # loop
)
CHAINS = {"train": 70, "valid": 20, "test": 40}


def simulated_family(rng):
    """Draw an alignment with near copies in it, and its pairs in contact."""
    family, contacts = structure.simulate_family(
        ROWS, COLUMNS, PAIRS, sweeps=12, seed=int(rng.integers(2**31))
    )
    rows = list(family.rows)
    for parent in rng.choice(np.arange(1, ROWS), 3, replace=False):
        for _ in range(rng.integers(*COPIES)):
            row = np.array(list(rows[parent]))
            row[rng.choice(COLUMNS, CHANGED, replace=False)] = rng.choice(list(RESIDUES), CHANGED)
            rows.append("".join(row))
    order = np.r_[0, 1 + rng.permutation(len(rows) - 1)]
    names = tuple(f"protein {i}" for i in range(len(rows)))
    return Alignment(names, tuple(rows[i] for i in order)), contacts


def chain(rng, length=None):
    """Draw a sequence and its torsions, of 14 to 20 residues or of `length`."""
    length = length or int(rng.integers(14, 21))
    letters, angles = [], []
    while len(letters) < length:
        residues, means, spread, sizes = KINDS[rng.integers(len(KINDS))]
        count = rng.integers(*sizes)
        letters += list(rng.choice(list(residues), count))
        omega = rng.normal(180, 4, count)
        angles.append(
            np.column_stack([*(rng.normal(mean, spread, count) for mean in means), omega])
        )
    return "".join(letters[:length]), np.deg2rad(np.concatenate(angles)[:length])


def split_of(rng, count):
    """Draw chains, with the torsions that follow from their coordinates."""
    drawn = [chain(rng) for _ in range(count)]
    targets = [structure.torsions(structure.rebuild(angles)) for _, angles in drawn]
    masks = [np.isfinite(angles).all(axis=1) for angles in targets]
    return Split([letters for letters, _ in drawn], targets, masks=masks)


def data(rng):
    """{"family", "contacts", "chains", "sequence", "coordinates"}."""
    family, contacts = simulated_family(rng)
    chains = Dataset(
        "chains",
        "torsions",
        **{name: split_of(rng, count) for name, count in CHAINS.items()},
        source="simulated",
        licence="Apache-2.0 (kft)",
        citation="",
        checksum="",
    )
    sequence, angles = chain(rng, 16)
    return {
        "family": family,
        "contacts": contacts,
        "chains": chains,
        "sequence": sequence,
        "coordinates": structure.rebuild(angles),
    }
