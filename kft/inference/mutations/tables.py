"""The mutations that are to be scored: lists and tables, with what is wrong in each row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kft.data.cells import Table
from kft.data.inputs import listed_inputs
from kft.data.sequences import normal
from kft.data.spreadsheets import is_frame
from kft.inference.mutations.notation import Change, parse
from kft.inference.mutations.numbering import Mutant, mutant_of, replaced
from kft.messages import harmless, listed, shown
from kft.training.pretraining.vocabulary import RESIDUES

# Columns of ProteinGym's tables.
MUTANT, SEQUENCE = "mutant", "mutated_sequence"
MEASURED = ("DMS_score", "DMS_score_bin")
ADDED = COUNT, SCORE, PROBLEM = "mutations", "score", "problem"  # columns of the result


def read_mutations(mutations: Any, column: str | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Read the mutations of a list, DataFrame or file.

    Args:
        mutations: As for `kft.score_mutations`.
        column: As for `kft.score_mutations`.

    Returns:
        The table, whose columns `mutant` or `mutated_sequence` (or both) hold the mutants; and what
        errors call each row.

    Raises:
        TypeError: `mutations` is one string, or no list.
        ValueError: It is empty, has no column of mutants, or measured scores that are no numbers.
    """
    if is_frame(mutations):
        table = mutations.copy()
        places = [f"row {harmless(label)}" for label in table.index]
    elif isinstance(mutations, str | Path) and os.path.isfile(mutations):
        file = Table(mutations, None)
        table = pd.DataFrame(file.rows, columns=file.header)
        places = [f"{file.path}, {file.place} {line}" for line in file.lines]
    else:
        table = pd.DataFrame(
            {MUTANT: pd.Series(listed_inputs(mutations, "mutations"), dtype=object)}
        )
        if hasattr(mutations, "iloc"):
            table.index = mutations.index
        places = [f"mutations[{i}]" for i in range(len(table))]
    if not len(table):
        raise ValueError("mutations is empty: give at least one mutation.")
    _check_columns(table, column)
    for name in MEASURED:
        if name in table:
            table[name] = _numbers(table[name], places)
    return table, places


def _check_columns(table: pd.DataFrame, column: str | None) -> None:
    """Check that there is a column of mutants, once, and none that the result has."""
    columns = [str(name) for name in table.columns]
    if column is not None and column not in columns:
        raise ValueError(
            f"column must be one of the columns of mutations, {listed(columns, 20)}; received "
            f"{shown(column)}."
        )
    if column is None and not {MUTANT, SEQUENCE} & set(columns):
        raise ValueError(
            f"mutations must have a column {MUTANT!r} or {SEQUENCE!r}, or name its own with "
            f"column=; it has {listed(columns, 20)}."
        )
    for name in (*ADDED, MUTANT, SEQUENCE):
        if columns.count(name) > (name not in ADDED):
            why = "which the result adds" if name in ADDED else "more than once"
            raise ValueError(f"mutations has a column {name!r}, {why}: rename it.")


def _numbers(values: pd.Series, places: Sequence[str]) -> pd.Series:
    numbers = pd.to_numeric(values.replace("", np.nan), errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & ~values.isna() & (values.astype(str) != ""))
    if len(wrong):
        raise ValueError(
            f"{places[wrong[0]]}: {values.name} must be a number, received "
            f"{shown(values.iloc[wrong[0]])} ({len(wrong):,} of {len(values):,} are none)."
        )
    return numbers


class Row(NamedTuple):
    """What one row says.

    Attributes:
        changes: What its notation names; none if it cannot be read, or there is none.
        mutant: Its mutant; None if it has a problem.
        problem: The problem.
    """

    changes: tuple[Change, ...] = ()
    mutant: Mutant | None = None
    problem: ValueError | None = None


def read_rows(table: pd.DataFrame, column: str | None, wild_type: str, offset: int) -> list[Row]:
    """Read the mutant of each row.

    Args:
        table: The table, of `read_mutations`.
        column: As for `kft.score_mutations`.
        wild_type: String of residues.
        offset: As for `kft.score_mutations`.
    """
    column = MUTANT if column is None else column
    missing = [None] * len(table)
    notations = list(table[column]) if column in table else missing
    sequences = list(table[SEQUENCE]) if SEQUENCE in table else missing
    return [
        _read_row(notation, sequence, column in table, wild_type, offset)
        for notation, sequence in zip(notations, sequences, strict=True)
    ]


def _read_row(notation: Any, sequence: Any, has_notation: bool, wild_type: str, offset: int) -> Row:
    changes: tuple[Change, ...] = ()
    try:
        if has_notation:
            changes = parse(notation)
            mutant = mutant_of(changes, wild_type, offset)
        if isinstance(sequence, str):
            whole = _of_sequence(normal(sequence), wild_type, offset)
            if has_notation and mutant.apply(wild_type) != whole.apply(wild_type):
                raise ValueError(f"{SEQUENCE} is not what {notation} makes of wild_type.")
            mutant = whole if not has_notation else mutant
        elif not has_notation:
            raise ValueError(f"{SEQUENCE} must be a string, received {shown(sequence)}.")
    except ValueError as error:
        return Row(changes, None, error)
    return Row(changes, mutant)


def _of_sequence(sequence: str, wild_type: str, offset: int) -> Mutant:
    if len(sequence) == len(wild_type):
        return replaced(sequence, wild_type, offset)
    wrong = sorted(set(sequence) - set(RESIDUES))
    if wrong or not sequence:
        raise ValueError(
            f"{SEQUENCE} must hold standard residues alone, received "
            f"{listed(map(repr, wrong)) if wrong else 'none'}."
        )
    return Mutant(None, sequence, 1)
