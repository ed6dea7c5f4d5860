"""A scan of a protein: the score of each replacement of one residue by another."""

from __future__ import annotations

import keras
import pandas as pd

from kft.inference.mutations.scoring import (
    WINDOW,
    check_offset,
    protein_letters,
    score_mutations,
)
from kft.messages import shown, warn
from kft.training.pretraining.vocabulary import RESIDUES


def scan(
    backbone: keras.Model,
    sequence: str,
    method: str = "masked_marginal",
    *,
    offset: int = 0,
    window: int | None = WINDOW,
    tokens: int | None = None,
) -> pd.DataFrame:
    """Score all 19 replacements of each residue of a protein.

    `kft.plots.plot_scan` draws the result.

    Args:
        backbone: An ESM-2 or ESM-C whose `masked_lm` was trained.
        sequence: String of N residues, the wild type.
        method: As for `kft.score_mutations`; those that need a pass for each residue of each
            mutant take 19 N times N passes.
        offset: Number of the first residue, minus 1.
        window: As for `kft.score_mutations`.
        tokens: Tokens of a batch, which affect only time and memory; None for 2,048 on a processor
            and 16,384 on a graphics card.

    Returns:
        DataFrame with 19 N rows: `mutant` (such as "A23V"), `position` in the numbering of the
        offset, `wild_type`, `residue`, and `score` (higher is likelier, the wild type has 0).
        Residues that are not one of the 20 standard ones are left out, with a warning.

    Raises:
        TypeError: `sequence` is not a string.
        ValueError: It is not a protein, or an option is out of range.

    Example:
        >>> import kft
        >>> table = kft.scan(kft.load("kft_esm2_tiny"), "MKTAYIAKQR", offset=23)
        >>> len(table), table.mutant[0], int(table.position.max())
        (190, 'M24L', 33)
    """
    check_offset(offset)
    letters = protein_letters("sequence", sequence)
    rows = [
        (f"{letter}{i}{residue}", i, letter, residue)
        for i, letter in enumerate(letters, start=offset + 1)
        for residue in RESIDUES
        if letter in RESIDUES and residue != letter
    ]
    if not rows:
        raise ValueError(f"sequence must have a standard residue, received {shown(sequence)}.")
    if skipped := sum(letter not in RESIDUES for letter in letters):
        warn(f"sequence: {skipped} of {len(letters)} residues are no standard ones, left out.")
    table = pd.DataFrame(rows, columns=["mutant", "position", "wild_type", "residue"])
    scored = score_mutations(
        backbone, letters, table.mutant, method, offset=offset, window=window, tokens=tokens
    )
    table["score"] = scored.score
    return table
