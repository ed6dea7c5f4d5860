"""Mutations on their wild type: the check of each letter, the offset of positions, the mutant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kft.inference.mutations.notation import Change
from kft.messages import count_of, listed, shown
from kft.training.pretraining.vocabulary import RESIDUES


class WrongResidue(ValueError):
    """Error of a mutation whose position or letter is not that of the wild type."""


class Mutant(NamedTuple):
    """A mutant of a wild type.

    Attributes:
        sites: (position from 0, residue) of each residue that is replaced by another; None if
            residues are inserted or deleted.
        sequence: The whole mutant, where residues are inserted or deleted; else None.
        changes: Number of residues that are replaced, or of insertions and deletions.
    """

    sites: tuple[tuple[int, str], ...] | None
    sequence: str | None
    changes: int

    def apply(self, wild_type: str) -> str:
        """Return the sequence of the mutant.

        Args:
            wild_type: String of residues.
        """
        if self.sites is None:
            return self.sequence or ""
        residues = list(wild_type)
        for position, residue in self.sites:
            residues[position] = residue
        return "".join(residues)


def mutant_of(changes: Sequence[Change], wild_type: str, offset: int = 0) -> Mutant:
    """Put changes on a wild type, whose letters must be the ones that they name.

    Args:
        changes: Changes of one mutant, sorted by position.
        wild_type: String of N residues.
        offset: Number of the first residue, minus 1.

    Raises:
        WrongResidue: A position is outside of the wild type, or another residue is there.
        ValueError: A residue that is replaced is not one of the 20 standard ones, or all residues
            are deleted.

    Example:
        >>> from kft.inference.mutations.notation import parse
        >>> mutant_of(parse("K2R"), "MKT").sites
        ((1, 'R'),)
        >>> mutant_of(parse("K2_"), "MKT").sequence
        'MT'
    """
    for change in changes:
        for number, letter in change.named:
            _check_letter(number, letter, wild_type, offset)
    if all(len(change.inserted or "") == change.last - change.first + 1 for change in changes):
        return _replacing(
            (
                (change.first - offset - 1 + i, residue)
                for change in changes
                for i, residue in enumerate(change.inserted or "")
            ),
            wild_type,
            offset,
        )
    pieces: list[str] = []
    end = 0
    for change in changes:
        first, last = change.first - offset - 1, change.last - offset
        inserted = wild_type[first:last] * 2 if change.inserted is None else change.inserted
        pieces += [wild_type[end:first], inserted]
        end = last
    sequence = "".join([*pieces, wild_type[end:]])
    if not sequence:
        raise ValueError("all residues are deleted.")
    return Mutant(None, sequence, len(changes))


def replaced(sequence: str, wild_type: str, offset: int = 0) -> Mutant:
    """Return the mutant of a sequence that is as long as the wild type.

    Args:
        sequence: String of N residues.
        wild_type: String of N residues.
        offset: Number of the first residue, minus 1, for errors.

    Raises:
        ValueError: A replaced residue, or what replaces it, is not one of the 20 standard ones.

    Example:
        >>> replaced("MRT", "MKT").sites
        ((1, 'R'),)
    """
    if len(sequence) != len(wild_type):
        raise ValueError(
            f"sequence must have {count_of(len(wild_type), 'residue')} as the wild type, received "
            f"{len(sequence)}."
        )
    return _replacing(enumerate(sequence), wild_type, offset)


def _replacing(residues: Iterable[tuple[int, str]], wild_type: str, offset: int) -> Mutant:
    sites = tuple((i, residue) for i, residue in residues if residue != wild_type[i])
    for i, mutant in sites:
        for letter, whose in ((wild_type[i], "wild type"), (mutant, "mutant")):
            if letter not in RESIDUES:
                raise ValueError(
                    f"position {i + 1 + offset} of the {whose} is {letter!r}, which is not one of "
                    "the 20 standard residues."
                )
    return Mutant(sites, None, len(sites))


def _check_letter(number: int, letter: str, wild_type: str, offset: int) -> None:
    at = number - offset - 1
    if not 0 <= at < len(wild_type):
        raise WrongResidue(
            f"position {number} is outside of the wild type, whose positions are {1 + offset} to "
            f"{len(wild_type) + offset}."
        )
    if wild_type[at] != letter:
        raise WrongResidue(
            f"position {number} of the wild type: expected {letter}, found {wild_type[at]}."
        )


def fitting_offset(variants: Iterable[Sequence[Change]], wild_type: str, offset: int) -> str:
    """Say which offset would fit the letters that mutations name.

    Args:
        variants: Changes of each mutant.
        wild_type: String of residues.
        offset: The offset that does not fit.

    Returns:
        One sentence.

    Example:
        >>> from kft.inference.mutations.notation import parse
        >>> fitting_offset([parse("K12R"), parse("T13A")], "MKT", 0)
        'offset=10 would fit all 2 letters.'
    """
    named = {pair for changes in variants for change in changes for pair in change.named}
    places: dict[str, list[int]] = {}
    for i, letter in enumerate(wild_type, start=1):
        places.setdefault(letter, []).append(i)

    def votes(pairs: set[tuple[int, str]]) -> Counter[int]:
        return Counter(number - i for number, letter in pairs for i in places.get(letter, ()))

    found = votes(named)
    fits = sorted((k for k in found if found[k] == len(named)), key=lambda k: (abs(k - offset), k))
    if fits:
        each = listed([f"offset={k}" for k in fits], 3)
        return f"{each} would fit{f' all {len(named)} letters' if len(named) > 1 else ''}."
    best = max(found, key=lambda k: (found[k], -abs(k - offset)), default=offset)
    others = {(n, x) for n, x in named if n - best not in places.get(x, ())}
    second = votes(others)
    also = [k for k in second if second[k] == len(others)]
    fitting = f"offset={best} fits {found[best]} of {len(named)} letters"
    if also and found[best]:
        nearest = min(also, key=lambda k: abs(k - best))
        return (
            f"Two numberings may be mixed: {fitting}, offset={nearest} the other {len(others)}; "
            "score them apart."
        )
    return f"No offset fits all: {fitting}; is it another wild type ({shown(wild_type[:20])})?"
