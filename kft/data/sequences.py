"""The normal form of a sequence: what is encoded, compared, split and stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kft.data.inputs import listed_inputs
from kft.messages import warn

STOP = "*"
GAPS = str.maketrans("", "", "-.")

# Letters of DNA and RNA; all but U are residues of proteins too. A peptide of A, C, G, T and N
# alone is rare from six letters on (none of the 4,620 in `amp`), and in a file of DNA all are.
NUCLEOTIDES = frozenset("ACGTUN")
SHORTEST = 6  # letters from which DNA is distinguished from a peptide

_SENTENCES = {
    "case": "{} of {} sequences held lower-case letters, which are read as upper case.",
    "stop": "{} of {} sequences ended in a stop (*), which was left out.",
    "space": "{} of {} sequences had spaces around them, which were left out.",
    "dna": (
        "{} of {} sequences consist of A, C, G, T, U and N alone, which looks like DNA or RNA: "
        "each letter is taken for an amino acid; translate genes into proteins first."
    ),
}


class SequenceWarning(UserWarning):
    """Warning of how many sequences were brought to normal form, or do not look like proteins."""


class Sequences(list):
    """List of strings in normal form; what was changed in them has been reported.

    Example:
        >>> Sequences(["MKT", "GSS"])[0]
        'MKT'
    """


class Pairs(list):
    """List of pairs of strings in normal form; what was changed in them has been reported.

    Example:
        >>> Pairs([("MKT", "GSS")])[0]
        ('MKT', 'GSS')
    """


def normal(sequence: str) -> str:
    """Return a sequence in normal form: upper case, no space around it, no stop at its end.

    Args:
        sequence: String of residues; "<mask>" may be among them.

    Returns:
        str: upper case except for "<mask>"; of several stops one is left out.

    Example:
        >>> normal(" mktay<MASK>* ")
        'MKTAY<mask>'
    """
    text = sequence.strip()
    if text.endswith(STOP):
        text = text[:-1].rstrip()
    # `upper` would turn letters beyond ASCII into residues (the German sharp s becomes "SS").
    return text.upper().replace("<MASK>", "<mask>") if text.isascii() else text


def compared(sequence: str) -> str:
    """Return the form in which sequences are compared: the normal form without gaps.

    Example:
        >>> compared("mk--tay")
        'MKTAY'
    """
    return normal(sequence).translate(GAPS)


def compared_pair(pair: Iterable[str]) -> tuple[str, ...]:
    """Return the form in which pairs are compared: that of each sequence, in alphabetical order.

    Example:
        >>> compared_pair(("MKT", "gs-s"))
        ('GSS', 'MKT')
    """
    return tuple(sorted(map(compared, pair)))


def is_dna(sequence: str) -> bool:
    """Return whether a sequence in normal form has no other letters than those of DNA or RNA.

    Example:
        >>> is_dna("ATGACCNNA"), is_dna("MKTAYI"), is_dna("AAAAAAA")
        (True, False, False)
    """
    if len(sequence) < SHORTEST:
        return False
    letters = set(sequence)
    return len(letters) > 1 and letters <= NUCLEOTIDES


def changes(sequences: Iterable[str]) -> Counter:
    """Count what `normal` changes, and what does not look like a protein.

    Args:
        sequences: List of strings. Changes of `Sequences` have been reported; their count is empty.

    Returns:
        Counter: counts of "case", "stop", "space" and "dna".

    Example:
        >>> sorted(changes(["mkt", "GSS*", "GIG"]).items())
        [('case', 1), ('stop', 1)]
    """
    counts: Counter[str] = Counter()
    if isinstance(sequences, Sequences):
        return counts
    for sequence in sequences:
        form = normal(sequence)
        if form != sequence:
            text = sequence.strip()
            counts["space"] += text != sequence
            counts["stop"] += text.endswith(STOP)
            counts["case"] += text.removesuffix(STOP).rstrip() != form
        counts["dna"] += is_dna(form)
    return +counts


def sentences(counts: Counter, total: int) -> list[str]:
    """Return a sentence for each kind of `changes`.

    Args:
        counts: The `changes`.
        total: Number of sequences.

    Example:
        >>> sentences(changes(["mkt", "GIG"]), 2)
        ['1 of 2 sequences held lower-case letters, which are read as upper case.']
    """
    kinds = [key for key in _SENTENCES if counts[key]]
    return [_SENTENCES[key].format(f"{counts[key]:,}", f"{total:,}") for key in kinds]


def warn_of_changes(counts: Counter, total: int) -> None:
    """Warn once of all `changes` in `total` sequences."""
    if counts:
        warn(" ".join(sentences(counts, total)), SequenceWarning)


def normal_forms(sequences: Any, name: str = "sequences") -> tuple[Sequences, list[str]]:
    """Bring sequences to normal form.

    Args:
        sequences: List of strings.
        name: Name of the list in errors.

    Returns:
        tuple: `Sequences`; and sentences on what was changed, with counts.

    Raises:
        TypeError: For None, one string in place of a list, or an element that is not a string.

    Example:
        >>> normal_forms(["MKT*"])
        (['MKT'], ['1 of 1 sequences ended in a stop (*), which was left out.'])
    """
    sequences = checked(sequences, name)
    notes = sentences(changes(sequences), len(sequences))
    return Sequences(map(normal, sequences)), notes


def checked(sequences: Any, name: str = "sequences") -> list[str]:
    """Return sequences as a list; raise TypeError if they are not a list of strings.

    Example:
        >>> checked(("MKT", "GSS"))
        ['MKT', 'GSS']
    """
    sequences = listed_inputs(sequences, name)
    for i, sequence in enumerate(sequences):
        if not isinstance(sequence, str):
            raise TypeError(
                f"`{name}[{i}]` must be a string of residues, received {sequence!r:.40} "
                f"({type(sequence).__name__})."
            )
    return sequences


def checked_pairs(pairs: Any, name: str = "pairs") -> list[tuple[str, str]]:
    """Return pairs as a list of tuples; raise TypeError if they are not pairs of strings.

    Args:
        pairs: List of N pairs (tuples or lists) of strings.
        name: Name of the list in errors.

    Example:
        >>> checked_pairs([["MKT", "GSS"]])
        [('MKT', 'GSS')]
    """
    pairs = listed_inputs(pairs, name)
    for i, pair in enumerate(pairs):
        a_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if not a_pair or not all(isinstance(sequence, str) for sequence in pair):
            raise TypeError(
                f"`{name}[{i}]` must be a pair of strings of residues, (first, second), received "
                f"{pair!r:.60}."
            )
    return [tuple(pair) for pair in pairs]
