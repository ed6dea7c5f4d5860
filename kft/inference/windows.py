"""Long proteins in overlapping windows: cutting them, and joining what a model computes.

Shapes: `N` residues of a protein, `W` of a window, `D` numbers per residue or protein.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kft.data.sequences import Sequences, normal
from kft.messages import warn

SMALLEST = 8  # residues of a window
_MASK, _STAND_IN = "<mask>", "\0"  # a residue of several characters, and one in its place


@dataclass(frozen=True)
class Windows:
    """The windows of some proteins; a protein that is not longer than one is its only window.

    Attributes:
        pieces: Residues of each window, in normal form.
        called: What errors call each window.
        starts: For each protein, the first residue of each of its windows.
        lengths: Number of residues of each protein.
        window: W.
    """

    pieces: Sequences
    called: list[str]
    starts: list[list[int]]
    lengths: list[int]
    window: int

    @property
    def long(self) -> list[int]:
        """Lengths of the proteins that have several windows."""
        return [n for n, at in zip(self.lengths, self.starts, strict=True) if len(at) > 1]

    def joined(
        self, rows: Sequence[np.ndarray] | np.ndarray, per_residue: bool
    ) -> list | np.ndarray:
        """Join the rows of the windows to those of the proteins.

        Args:
            rows: One row per window, (D,), or (W, D) with `per_residue`.
            per_residue: Whether a residue has the row of the window whose middle is nearest to it;
                else a protein has the mean over its windows, weighted by the number of residues
                whose nearest window it is.

        Returns:
            List of arrays (N, D), or one array (proteins, D).
        """
        found, first = [], 0
        for at, length in zip(self.starts, self.lengths, strict=True):
            some = rows[first : first + len(at)]
            ends = borders(length, at, self.window)
            if per_residue:
                parts = zip(some, at, ends[:-1], ends[1:], strict=True)
                found.append(np.concatenate([x[a - i : b - i] for x, i, a, b in parts]))
            else:
                found.append(np.average(some, axis=0, weights=np.diff(ends)).astype("float32"))
            first += len(at)
        return found if per_residue else np.stack(found)


def starts(length: int, window: int) -> list[int]:
    """Return the first residue of each window, from 0; neighbours overlap by half or more.

    Args:
        length: N.
        window: W.

    Example:
        >>> starts(10, 12), starts(25, 10)
        ([0], [0, 5, 10, 15])
    """
    if length <= window:
        return [0]
    return [*range(0, length - window, window // 2), length - window]


def borders(length: int, at: Sequence[int], window: int) -> list[int]:
    """Return where the residues of one window end and those of the next begin, with both ends.

    Args:
        length: N.
        at: As `starts` returns them.
        window: W.

    Example:
        >>> borders(25, [0, 5, 10, 15], 10)
        [0, 7, 12, 17, 25]
    """
    between = [(a + b + window) // 2 for a, b in itertools.pairwise(at)]
    return [0, *between, length]


def cut(sequences: Sequence[str], called: Sequence[str], window: int) -> Windows:
    """Cut proteins into windows.

    Args:
        sequences: Strings of residues.
        called: What errors call each.
        window: W.

    Example:
        >>> cut(["MKTAYIGSSLA", "gss"], ["a", "b"], 8).pieces
        ['MKTAYIGS', 'AYIGSSLA', 'GSS']
    """
    texts = [normal(x).replace(_MASK, _STAND_IN) for x in sequences]
    lengths = list(map(len, texts))
    all_starts = [starts(n, window) for n in lengths]
    pieces, names = Sequences(), []
    for text, name, at in zip(texts, called, all_starts, strict=True):
        pieces += [text[i : i + window].replace(_STAND_IN, _MASK) for i in at]
        several = len(at) > 1
        names += [f"{name}, residues {i + 1} to {i + window}" if several else name for i in at]
    return Windows(pieces, names, all_starts, lengths, window)


def warn_of_windows(lengths: Sequence[int], total: int, window: int) -> None:
    """Warn once of all proteins that were read in windows.

    Args:
        lengths: Numbers of residues of these proteins.
        total: Number of all proteins.
        window: W.
    """
    if lengths:
        warn(
            f"{len(lengths):,} of {total:,} proteins have more than {window:,} residues, up to "
            f"{max(lengths):,}, and were read in windows of {window:,} that overlap by half: no "
            f"residue saw those further away."
        )
