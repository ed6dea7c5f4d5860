"""The normal form of a sequence: what is encoded, compared, split and stored."""

import warnings
from collections import Counter

STOP = "*"
GAPS = str.maketrans("", "", "-.")

# Letters of DNA and RNA; all but U are residues of proteins too. A peptide of A, C, G, T and N
# alone is rare from six letters on (none of the 4,620 in `amp`), and in a file of DNA all are.
NUCLEOTIDES = frozenset("ACGTUN")
SHORTEST = 6  # letters from which DNA is told from a peptide

_SAID = {
    "case": "{} of {} sequences held lower-case letters, which are read as upper case.",
    "stop": "{} of {} sequences ended in a stop (*), which was left out.",
    "space": "{} of {} sequences had spaces around them, which were left out.",
    "dna": (
        "{} of {} sequences consist of A, C, G, T, U and N alone, which looks like DNA or RNA: "
        "each letter is taken for an amino acid; translate genes into proteins first."
    ),
}


class SequenceWarning(UserWarning):
    """Says how many sequences were brought to normal form, or look like no protein."""


class Sequences(list):
    """Strings in normal form, of which it was said what was changed.

    Example:
        >>> Sequences(["MKT", "GSS"])[0]
        'MKT'
    """


def normal(sequence):
    """Return a sequence in normal form: upper case, no space around it, no stop at its end.

    Args:
        sequence: string of residues; "<mask>" may stand among them.

    Returns:
        str: in upper case but for "<mask>"; of several stops one is left out.

    Example:
        >>> normal(" mktay<MASK>* ")
        'MKTAY<mask>'
    """
    text = sequence.strip()
    if text.endswith(STOP):
        text = text[:-1].rstrip()
    # `upper` would make residues of letters beyond ASCII (the German sharp s becomes "SS").
    return text.upper().replace("<MASK>", "<mask>") if text.isascii() else text


def compared(sequence):
    """Return what sequences are compared by: the normal form without gaps.

    Example:
        >>> compared("mk--tay")
        'MKTAY'
    """
    return normal(sequence).translate(GAPS)


def is_dna(sequence):
    """Return whether a sequence in normal form has letters of DNA or RNA alone.

    Example:
        >>> is_dna("ATGACCNNA"), is_dna("MKTAYI"), is_dna("AAAAAAA")
        (True, False, False)
    """
    if len(sequence) < SHORTEST:
        return False
    letters = set(sequence)
    return len(letters) > 1 and letters <= NUCLEOTIDES


def changes(sequences):
    """Count what `normal` changes, and what looks like no protein.

    Args:
        sequences: list of strings; of `Sequences` it was said already, and the count is empty.

    Returns:
        Counter: of "case", "stop", "space" and "dna".

    Example:
        >>> sorted(changes(["mkt", "GSS*", "GIG"]).items())
        [('case', 1), ('stop', 1)]
    """
    found = Counter()
    if isinstance(sequences, Sequences):
        return found
    for sequence in sequences:
        form = normal(sequence)
        if form != sequence:
            text = sequence.strip()
            found["space"] += text != sequence
            found["stop"] += text.endswith(STOP)
            found["case"] += text.removesuffix(STOP).rstrip() != form
        found["dna"] += is_dna(form)
    return +found


def said(found, total):
    """Return a sentence for each of the `changes` of so many sequences.

    Example:
        >>> said(changes(["mkt", "GIG"]), 2)
        ['1 of 2 sequences held lower-case letters, which are read as upper case.']
    """
    return [text.format(f"{found[key]:,}", f"{total:,}") for key, text in _SAID.items()
            if found[key]]  # fmt: skip


def warn_of_changes(found, total, stacklevel=2):
    """Warn once of all `changes` of so many sequences."""
    if found:
        warnings.warn(" ".join(said(found, total)), SequenceWarning, stacklevel=stacklevel + 1)


def normal_forms(sequences, name="sequences"):
    """Bring sequences to normal form.

    Args:
        sequences: list of strings.
        name: what errors call the list.

    Returns:
        tuple: `Sequences`; and sentences that say what was changed, with the counts.

    Raises:
        TypeError: None, one string in place of a list, or an element that is no string.

    Example:
        >>> normal_forms(["MKT*"])
        (['MKT'], ['1 of 1 sequences ended in a stop (*), which was left out.'])
    """
    sequences = checked(sequences, name)
    notes = said(changes(sequences), len(sequences))
    return Sequences(map(normal, sequences)), notes


def checked(sequences, name="sequences"):
    """Return sequences as a list, or raise TypeError for what is no list of strings.

    Example:
        >>> checked(("MKT", "GSS"))
        ['MKT', 'GSS']
    """
    sequences = listed(sequences, name)
    for i, sequence in enumerate(sequences):
        if not isinstance(sequence, str):
            raise TypeError(
                f"`{name}[{i}]` must be a string of residues, got {sequence!r:.40} "
                f"({type(sequence).__name__})."
            )
    return sequences


def listed(sequences, name="sequences"):
    """Return a list as it is and other iterables as a list; one string or None is a TypeError.

    Example:
        >>> listed(x for x in ("MKT", "GSS"))
        ['MKT', 'GSS']
    """
    if isinstance(sequences, str | bytes):
        raise TypeError(f"{name} must be a list of strings, received one string: write [sequence].")
    if isinstance(sequences, list):
        return sequences
    try:
        return list(sequences)
    except TypeError:
        raise TypeError(
            f"{name} must be a list of strings, received {sequences!r:.40} "
            f"({type(sequences).__name__})."
        ) from None
