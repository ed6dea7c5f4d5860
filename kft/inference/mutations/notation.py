"""Notations of mutations: `A23V`, `A23V:C45D`, `A23_`, `A23_C25delinsQS`, and HGVS for proteins.

HGVS is read by `mavehgvs` (Rubin et al. 2021, "MAVE-HGVS"), in the form for proteins.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from mavehgvs import MaveHgvsParseError, Variant

from kft.messages import shown
from kft.training.pretraining.vocabulary import RESIDUES

THREE_LETTERS = {
    "Ala": "A", "Arg": "R", "Asn": "N", "Asp": "D", "Cys": "C", "Gln": "Q", "Glu": "E",
    "Gly": "G", "His": "H", "Ile": "I", "Leu": "L", "Lys": "K", "Met": "M", "Phe": "F",
    "Pro": "P", "Ser": "S", "Thr": "T", "Trp": "W", "Tyr": "Y", "Val": "V", "Ter": "*",
}  # fmt: skip
WILD_TYPE = ("WT", "_WT", "WILD TYPE", "WILD-TYPE", "WILD_TYPE", "=", "P.=", "_SY", "P.(=)")
FORMS = "A23V, A23V:C45D, A23_ or A23del, A23_C25delinsQS, or HGVS such as p.Ala23Val"

_SEPARATOR = re.compile(r"\s*[:;,/+]\s*|\s+")
_ONE = re.compile(r"([A-Z])(-?\d+)([A-Z*=_-])")
_RANGE = re.compile(
    r"([A-Z])(-?\d+)(?:_([A-Z])(-?\d+))?(delins|del|ins|dup)([A-Z*]*)", re.IGNORECASE
)
_CODE = re.compile("|".join(THREE_LETTERS))


class Change(NamedTuple):
    """One change of a protein, in the numbering of the user.

    Attributes:
        first: Number of the first residue that is replaced; of an insertion, of the residue
            behind it.
        last: Number of the last residue that is replaced; of an insertion `first - 1`.
        named: (number, letter) of the residues of the wild type that the notation names.
        inserted: Residues in their place; None for a duplication, which has them twice.
    """

    first: int
    last: int
    named: tuple[tuple[int, str], ...]
    inserted: str | None


def parse(text: str) -> tuple[Change, ...]:
    """Read a mutation, or several separated by ":".

    Args:
        text: One-letter code, such as "A23V:C45D" (also separated by ";", ",", "/", "+" or
            spaces); "_" or "-" as the mutant is a deletion; ranges as in HGVS with "del", "ins",
            "delins" and "dup"; or HGVS for proteins, such as "p.[Ala23Val;Cys45Asp]". "WT" and
            "p.=" are the wild type.

    Returns:
        The changes, sorted by position; none for the wild type.

    Raises:
        ValueError: The text has another form, changes a residue twice, ends the protein, or
            brings in what is not one of the 20 standard residues.

    Example:
        >>> parse("A23V")
        (Change(first=23, last=23, named=((23, 'A'),), inserted='V'),)
        >>> parse("p.Ala23Val") == parse("A23V")
        True
    """
    if not isinstance(text, str):
        raise ValueError(f"{shown(text)} is not a string; expected {FORMS}.")
    text = text.strip()
    if not text:
        raise ValueError(f"no mutation is given; expected {FORMS}, or WT.")
    if text.upper() in WILD_TYPE:
        return ()
    parts = _letters_of_hgvs(text) if text.startswith("p.") else _SEPARATOR.split(text)
    changes = [_of_letters(part, text) for part in parts]
    changes.sort(key=lambda change: change[:2])
    for one, other in pairwise(changes):
        if other.first <= one.last or (one.first, one.last) == (other.first, other.last):
            raise ValueError(f"{shown(text)} changes position {other.first} twice.")
    for change in changes:
        _check_inserted(change, text)
    return tuple(changes)


def _of_letters(part: str, text: str) -> Change:
    if single := _ONE.fullmatch(part.upper()):
        letter, at, mutant = single[1], int(single[2]), single[3]
        inserted = {"_": "", "-": "", "=": letter}.get(mutant, mutant)
        return Change(at, at, ((at, letter),), inserted)
    found = _RANGE.fullmatch(part)
    if not found:
        where = f" in {shown(text)}" * (part != text)
        raise ValueError(f"{shown(part)}{where} is not a known notation; expected {FORMS}.")
    letter, number, end_letter, end, kind, residues = found.groups()
    named = [(int(number), letter.upper())]
    if end:
        named.append((int(end), end_letter.upper()))
    return _of_range(named, kind.lower(), residues.upper(), text)


def _of_range(named: list[tuple[int, str]], kind: str, residues: str, text: str) -> Change:
    """Make the change of a range of which the first and last residue are named."""
    first, last = named[0][0], named[-1][0]
    if last < first:
        raise ValueError(f"{shown(text)}: position {last} stands after {first}; exchange them.")
    if kind == "ins":
        if last != first + 1:
            raise ValueError(
                f"{shown(text)}: an insertion is between two neighbours, such as A23_C24insGS."
            )
        first, last = last, first
    if (kind in ("ins", "delins")) != bool(residues):
        expected = "no residues" if residues else "residues"
        raise ValueError(f"{shown(text)}: expected {expected} after {kind!r}.")
    inserted = None if kind == "dup" else residues
    return Change(first, last, tuple(named), inserted)


def _letters_of_hgvs(text: str) -> list[str]:
    """Return the variants of a text in HGVS with one-letter codes."""
    # Parentheses, of a consequence that was not measured, are not part of MAVE-HGVS.
    plain = re.sub(r"^p\.\((.*)\)$", r"p.\1", text)
    try:
        Variant(plain)
    except MaveHgvsParseError:
        raise ValueError(
            f"{shown(text)} is not HGVS for proteins as MAVE-HGVS writes it; expected for example "
            "p.Ala23Val, p.[Ala23Val;Cys45Asp] or p.Ala23_Cys25del."
        ) from None
    if "fs" in plain:
        raise ValueError(f"{shown(text)} is a frame shift: the residues behind it are not known.")
    parts = plain.removeprefix("p.").strip("[]").split(";")
    return [_CODE.sub(lambda found: THREE_LETTERS[found[0]], part) for part in parts]


def _check_inserted(change: Change, text: str) -> None:
    for letter in change.inserted or "":
        if letter == "*":
            raise ValueError(f"{shown(text)} has a stop (*) as the mutant, which ends the protein.")
        if letter not in RESIDUES:
            raise ValueError(
                f"{shown(text)} has {letter!r} as the mutant, which is not one of the 20 standard "
                "residues."
            )
