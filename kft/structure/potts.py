"""Simulated protein families: sequences drawn from a Potts model with known couplings.

In a family that evolves under a fold, residues in contact change together. A Potts model is the
simplest distribution with such pairs, so that methods that look for them can be tested.

Shapes: `M` sequences, `N` columns, `P` coupled pairs.
"""

from __future__ import annotations

import numpy as np

from kft.arguments import check_integer, check_number_above, check_seed
from kft.data.proteins.alignments import RESIDUES, Alignment


def simulate_family(
    sequences: int = 2000,
    columns: int = 40,
    coupled: int = 60,
    strength: float = 2.5,
    sweeps: int = 30,
    seed: int = 0,
) -> tuple[Alignment, np.ndarray]:
    """Draw a protein family in which known pairs of columns change together.

    Each coupled pair prefers a random matching of the 20 residues: for each residue of one column
    one of the other. Columns have preferences of their own. Sequences are drawn by Gibbs sampling,
    each from an independent chain.

    Args:
        sequences: Number M of sequences, the query included.
        columns: Number N of columns, at least 2.
        coupled: Number P of coupled pairs, at most N (N - 1) / 2, drawn at random.
        strength: Mean energy of a matching pair in units of the temperature; those of the pairs
            are drawn from 0.7 to 1.3 times the mean.
        sweeps: Number of times that each column is drawn anew.
        seed: Seed of the pairs, the preferences and the sequences.

    Returns:
        The alignment, and a bool array (N, N), True for the coupled pairs.

    Raises:
        ValueError: An argument is out of range.

    Source: Potts model as in Morcos et al. 2011, PNAS 108:E1293.

    Example:
        >>> family, couplings = simulate_family(sequences=10, columns=8, coupled=5, seed=0)
        >>> family, int(couplings.sum()) // 2
        (Alignment of 10 sequences with 8 columns, query 'query', 5)
    """
    check_integer("sequences", sequences, 1)
    check_integer("columns", columns, 2)
    check_integer("coupled", coupled, 0, columns * (columns - 1) // 2)
    check_integer("sweeps", sweeps, 1)
    strength = check_number_above("strength", strength, 0)
    random = np.random.default_rng(check_seed("seed", seed))
    letters = len(RESIDUES)
    first, second = np.triu_indices(columns, 1)
    chosen = np.sort(random.choice(len(first), coupled, replace=False))
    couplings = np.zeros((columns, columns), dtype=bool)
    strengths = strength * random.uniform(0.7, 1.3, couplings.shape)
    matching: dict[int, list[tuple[int, np.ndarray]]] = {i: [] for i in range(columns)}
    for i, j in zip(first[chosen], second[chosen], strict=True):
        couplings[i, j] = couplings[j, i] = True
        strengths[j, i] = strengths[i, j]
        forward = random.permutation(letters)  # residue of i -> residue of j
        matching[i].append((j, np.argsort(forward)))  # what j's residue asks of i
        matching[j].append((i, forward))
    fields = random.normal(0, 0.5, (columns, letters))
    state = random.integers(letters, size=(sequences, columns))
    rows = np.arange(sequences)
    for _ in range(sweeps):
        for column in range(columns):
            energy = np.repeat(fields[column][None], sequences, axis=0)  # (M, 20)
            for other, wanted in matching[column]:
                energy[rows, wanted[state[:, other]]] += strengths[column, other]
            total = np.exp(energy).cumsum(axis=1)
            drawn = random.random((sequences, 1)) * total[:, -1:]
            state[:, column] = (total < drawn).sum(axis=1)
    text = np.array(list(RESIDUES))[state]
    names = ("query", *(f"sequence {i + 1}" for i in range(1, sequences)))
    return Alignment(names, tuple(map("".join, text))), couplings
