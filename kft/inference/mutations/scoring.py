"""Scores of mutants of a protein by a language model that has seen no measured one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from kft.arguments import (
    check_choice,
    check_flag,
    check_instance,
    check_integer,
    check_optional_integer,
)
from kft.data.inputs import encoder_info
from kft.data.sequences import Sequences, changes, normal, warn_of_changes
from kft.inference.mutations.methods import (
    METHODS,
    OF_SEQUENCES,
    WILD_TYPE,
    Protein,
    joint_masked_marginal,
    wild_type_marginal,
)
from kft.inference.mutations.numbering import WrongResidue, fitting_offset
from kft.inference.mutations.tables import COUNT, PROBLEM, SCORE, Row, read_mutations, read_rows
from kft.messages import listed, shown, warn
from kft.training.batching import most_tokens
from kft.training.pretraining import encoded, language_model, vocabulary_of
from kft.training.pretraining.vocabulary import RESIDUES

WINDOW = 1024  # tokens that ESM-2 was trained on, <cls> and <eos> included
SMALLEST_WINDOW = 8
LARGEST_OFFSET = 10**6
OTHERS = "XBUZO"  # letters that a wild type may have, at which no mutant is scored


def score_mutations(
    backbone: keras.Model,
    wild_type: str,
    mutations: Any,
    method: str = "masked_marginal",
    *,
    offset: int = 0,
    window: int | None = WINDOW,
    column: str | None = None,
    skip_invalid: bool = False,
    tokens: int | None = None,
    overlapping: bool = False,
) -> pd.DataFrame:
    """Score mutants of a protein without any measurements: how likely they are, by their sequence.

    Args:
        backbone: An ESM-2 or ESM-C whose `masked_lm` was trained.
        wild_type: String of N residues.
        mutations: List of strings such as "A23V", "A23V:C45D", "A23_" (a deletion),
            "A23_C25delinsQS" or "p.Ala23Val" (see `kft.inference.mutations.parse`); or a DataFrame
            or the path of a table with the columns of ProteinGym: `mutant`, `mutated_sequence` or
            both. `DMS_score` and `DMS_score_bin` become numbers.
        method: Name of the score; `kft.inference.mutations.methods` defines each.
            "masked_marginal" hides one site at a time and sums over sites (ProteinGym);
            "joint_masked_marginal" hides all sites together (Meier et al. 2021, equation 1);
            "wild_type_marginal" and "mutant_marginal" hide none; "pseudo_log_likelihood",
            "pseudo_perplexity" and its estimate "one_pass_pseudo_perplexity" score the whole
            sequence, also with insertions and deletions.
        offset: Number of the first residue of `wild_type`, minus 1, in the numbering of
            `mutations`.
        window: Tokens that the model is shown of a longer protein, around each site as in
            ProteinGym ("optimal"); None shows the whole protein.
        column: Column of a table that holds the mutations; None takes `mutant`.
        skip_invalid: True goes on where a row cannot be scored, with one warning; its score is NaN
            and `problem` has the reason.
        tokens: Tokens of a batch, which affect only time and memory; None for 2,048 on a processor
            and 16,384 on a graphics card.
        overlapping: True reads a longer protein in windows that overlap by half, and takes the
            weighted mean, as ProteinGym ("overlapping"); for "wild_type_marginal" alone.

    Returns:
        DataFrame with the rows and columns of `mutations` in their order, and `mutations` (how many
        residues are replaced, or how many insertions and deletions there are), `score` (natural
        logarithm of a ratio of probabilities, or a difference of perplexities; higher is likelier,
        the wild type has 0) and `problem` (empty for a row that was scored).

    Raises:
        TypeError: `mutations` or `wild_type` is of another kind.
        ValueError: A mutation cannot be read or does not fit the wild type; the message names the
            row, the position, what was expected and found, and the offset that would fit.

    Example:
        >>> import kft
        >>> backbone = kft.load("kft_esm2_tiny")
        >>> table = kft.score_mutations(backbone, "MKTAYIAKQR", ["K2R", "K2R:T3S", "p.Ala4Val"])
        >>> table.mutations.tolist()
        [1, 2, 1]
        >>> table.columns.tolist()
        ['mutant', 'mutations', 'score', 'problem']
    """
    check_choice("method", method, METHODS)
    check_offset(offset)
    check_flag("skip_invalid", skip_invalid)
    check_flag("overlapping", overlapping)
    if overlapping and method != wild_type_marginal.__name__:
        raise ValueError(
            f"overlapping must be False for method={method!r}: only wild_type_marginal has no "
            "position in the middle of its windows."
        )
    protein, letters = _protein(backbone, wild_type, window, tokens)
    protein = protein._replace(overlapping=overlapping)
    table, places = read_mutations(mutations, column)
    rows = [_scorable(row, method, protein) for row in read_rows(table, column, letters, offset)]
    _report(rows, places, letters, offset, skip_invalid)
    table[COUNT] = [0 if row.mutant is None else row.mutant.changes for row in rows]
    mutants = list(dict.fromkeys(row.mutant for row in rows if row.mutant is not None))
    mutants = [mutant for mutant in mutants if mutant != WILD_TYPE]
    found = METHODS[method](protein, mutants) if mutants else np.zeros(0)
    scores = {WILD_TYPE: 0.0, **dict(zip(mutants, found, strict=True))}
    table[SCORE] = [np.nan if row.mutant is None else scores[row.mutant] for row in rows]
    table[PROBLEM] = ["" if row.problem is None else str(row.problem) for row in rows]
    return table


def check_offset(offset: int) -> int:
    """Check the number of the first residue, minus 1.

    Args:
        offset: What was given.

    Raises:
        ValueError: It is not an integer of at most a million.

    Example:
        >>> check_offset(-5)
        -5
    """
    return check_integer("offset", offset, -LARGEST_OFFSET, LARGEST_OFFSET)


def protein_letters(name: str, sequence: str) -> str:
    """Check that an argument is one protein, and return it in normal form.

    Args:
        name: Name of the argument, for the error.
        sequence: String of residues.

    Raises:
        TypeError: It is not a string.
        ValueError: It is empty, or has gaps, "<mask>" or what is no residue.

    Example:
        >>> protein_letters("wild_type", "mkta")
        'MKTA'
    """
    check_instance(name, sequence, str, "a string of residues")
    letters, changed = normal(sequence), changes([sequence])
    del changed["case"]  # lower case is fine, as in `encode`
    warn_of_changes(changed, 1)
    wrong = sorted(set(letters) - set(RESIDUES) - set(OTHERS))
    if wrong or not letters:
        raise ValueError(
            f"{name} must be a string of residues, without gaps and <mask>; received "
            f"{shown(sequence)}{f' with {listed(map(repr, wrong))}' if wrong else ''}."
        )
    return letters


def _protein(
    backbone: keras.Model, wild_type: str, window: int | None, tokens: int | None
) -> tuple[Protein, str]:
    """Return the wild type encoded, and its residues as a string in normal form."""
    language_model(backbone)
    check_optional_integer("window", window, SMALLEST_WINDOW)
    tokens = check_optional_integer("tokens", tokens, 1) or most_tokens()
    letters = protein_letters("wild_type", wild_type)
    (row,) = encoded(Sequences([letters]), backbone.encode)
    vocabulary = vocabulary_of(backbone.encode)
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    specials = encoder_info(backbone.encode).specials
    token_ids = row.astype("int32")
    return Protein(backbone, vocabulary, ids, token_ids, *specials, window, tokens), letters


def _scorable(row: Row, method: str, protein: Protein) -> Row:
    """Return a row, with a problem if the method cannot score its mutant."""
    if row.mutant is None:
        return row
    reason = None
    if row.mutant.sites is None and method not in OF_SEQUENCES:
        others = listed(OF_SEQUENCES, None)
        reason = f"{method} cannot score insertions and deletions, as {others} can."
    elif method == joint_masked_marginal.__name__ and protein.span(row.mutant) is None:
        reason = (
            f"its sites do not fit in window={protein.window} together; set window=None, or use "
            "masked_marginal."
        )
    return row if reason is None else row._replace(mutant=None, problem=ValueError(reason))


def _report(
    rows: Sequence[Row], places: Sequence[str], wild_type: str, offset: int, skip_invalid: bool
) -> None:
    """Raise an error of all rows that cannot be scored, or warn of them; and of repeated ones."""
    wrong = [i for i, row in enumerate(rows) if row.problem is not None]
    if wrong:
        first = rows[wrong[0]].problem
        message = f"{places[wrong[0]]}: {first}"
        if len(wrong) > 1:
            message += f" {len(wrong):,} of {len(rows):,} rows cannot be scored."
        if any(isinstance(rows[i].problem, WrongResidue) for i in wrong):
            message += " " + fitting_offset((row.changes for row in rows), wild_type, offset)
        if not skip_invalid:
            if len(wrong) < len(rows):
                message += " Set skip_invalid=True to score the others."
            raise ValueError(message)
        warn(f"mutations: {len(wrong):,} of {len(rows):,} rows are not scored; {message}")
    mutants = [row.mutant for row in rows if row.mutant is not None]
    if repeated := len(mutants) - len(set(mutants)):
        warn(
            f"mutations: {repeated:,} of {len(rows):,} rows are the mutant of an earlier row, and "
            "have its score."
        )
