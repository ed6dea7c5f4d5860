"""A simulated interactome: proteins with planted motifs, and which of them interact."""

import numpy as np
import pandas as pd

GROUPS = {"+": "KR", "-": "DE", "a": "FWY", "h": "ILMV", "p": "NQST", "s": "AGP"}
MOTIFS = (
    "+a+a+a+a",
    "-h-h-h-h",
    "ppaappaa",
    "sshhsshh",
    "+s+s+p+p",
    "-a-a-s-s",
    "hphphphp",
    "a+-a+-a+",
)


def interactome(proteins, pairs, seed=0):
    """Simulate proteins with planted motifs and pairs of them, half of which interact.

    Args:
        proteins: Number of proteins.
        pairs: Number of pairs.
        seed: Int from which they are drawn.

    Returns:
        Table with the columns `sequence_a`, `sequence_b` and `interacts`.
    """
    rng = np.random.default_rng(seed)
    carried, sequences = [], []

    def drawn_from(motif):
        return "".join(rng.choice(list(GROUPS[group])) for group in motif)

    for _ in range(proteins):
        # One protein in five carries two motifs, and so has more partners.
        motifs = rng.choice(len(MOTIFS), 1 + (rng.random() < 0.2), replace=False)
        letters = "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), 24))
        at = sorted(rng.choice(24, len(motifs), replace=False))
        pieces = [letters[i:j] for i, j in zip([0, *at], [*at, 24], strict=True)]
        planted = [drawn_from(MOTIFS[m]) for m in motifs]
        ends = "".join(x + y for x, y in zip(planted, pieces[1:], strict=True))
        sequences.append(pieces[0] + ends)
        carried.append(set(motifs.tolist()))
    first, second = np.triu_indices(proteins, 1)
    # Motifs 0 and 1 bind each other, 2 and 3, and so on.
    binds = np.array([
        any(m ^ 1 in carried[j] for m in carried[i]) for i, j in zip(first, second, strict=True)
    ])  # fmt: skip
    drawn = [rng.permutation(np.flatnonzero(binds == which))[: pairs // 2] for which in (0, 1)]
    at = rng.permutation(np.concatenate(drawn))
    columns = {"sequence_a": first[at], "sequence_b": second[at]}
    table = pd.DataFrame({name: [sequences[i] for i in side] for name, side in columns.items()})
    return table.assign(interacts=np.where(binds[at], "yes", "no"))
