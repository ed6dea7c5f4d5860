"""Read alignments of protein families: a3m, Stockholm and aligned FASTA.

Shapes: `M` sequences, `N` columns.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kft.data.proteins.fasta import checked_path, numbered_lines, open_text
from kft.messages import count_of, listed, shown

GAP = "-"
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
LETTERS = frozenset(RESIDUES + "BJOUXZ" + GAP)
# a3m writes an insertion in lower case and may fill the other rows with dots.
INSERTIONS = str.maketrans("", "", "abcdefghijklmnopqrstuvwxyz.")
FORMATS = ("a3m", "stockholm", "fasta")


@dataclass(frozen=True)
class Alignment:
    """An alignment of proteins, whose first sequence is the query.

    Attributes:
        names: Names of the M sequences; those without one are numbered from 1.
        rows: M strings of N letters: residues in upper case, and - for a gap.
        format: "a3m", "stockholm" or "fasta".
        inserted: Number of residues that were left out, because they are insertions relative to
            the query (lower case in a3m).

    Raises:
        ValueError: There is no sequence, rows differ in length, or a letter is not one of a
            protein; the message names the sequence.

    Example:
        >>> Alignment(("query", "other"), ("MKT", "M-T"))
        Alignment of 2 sequences with 3 columns, query 'query'
    """

    names: tuple[str, ...]
    rows: tuple[str, ...]
    format: str = "fasta"
    inserted: int = 0

    def __post_init__(self) -> None:
        if not self.rows or not self.rows[0]:
            raise ValueError("an alignment needs at least one sequence, received none.")
        if len(self.names) != len(self.rows):
            raise ValueError(
                f"names must be one for each of {count_of(len(self.rows), 'row')}, received "
                f"{len(self.names)}."
            )
        columns = len(self.rows[0])
        lengths = list(zip(self.names, map(len, self.rows), strict=True))
        other = [f"{name!r} {length}" for name, length in lengths if length != columns]
        if other:
            raise ValueError(
                f"all rows of an alignment must have the same length. The query "
                f"{self.names[0]!r} has {count_of(columns, 'column')}, but {len(other)} of "
                f"{len(self.rows)} rows have another length: {listed(other)}."
            )
        for name, row in zip(self.names, self.rows, strict=True):
            wrong = set(row) - LETTERS
            if wrong:
                letter = min(wrong)
                raise ValueError(
                    f"sequence {name!r}, column {row.index(letter) + 1}: {shown(letter)} is no "
                    "residue of a protein and no gap (-)."
                )

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return (
            f"Alignment of {count_of(len(self), 'sequence')} with "
            f"{count_of(self.columns, 'column')}, query {self.names[0]!r}"
        )

    @property
    def columns(self) -> int:
        """Number N of columns."""
        return len(self.rows[0])

    @property
    def query(self) -> str:
        """The first sequence, without gaps."""
        return self.rows[0].replace(GAP, "")

    @property
    def letters(self) -> np.ndarray:
        """The letters as an int8 array (M, N): 0 to 19 for `RESIDUES`, 20 for a gap.

        Letters that name no single residue (B, J, O, U, X, Z) count as gaps.
        """
        table = np.full(128, len(RESIDUES), dtype="int8")
        table[np.frombuffer(RESIDUES.encode(), dtype="uint8")] = np.arange(len(RESIDUES))
        joined = np.frombuffer("".join(self.rows).encode("ascii"), dtype="uint8")
        return table[joined].reshape(len(self), self.columns)

    def to_query(self) -> Alignment:
        """Leave out the columns in which the query has a gap.

        Returns:
            Alignment: One column for each residue of the query.

        Example:
            >>> Alignment(("a", "b"), ("M-T", "MKT")).to_query().rows
            ('MT', 'MT')
        """
        kept = [i for i, letter in enumerate(self.rows[0]) if letter != GAP]
        rows = tuple("".join([row[i] for i in kept]) for row in self.rows)
        lost = sum(len(row.replace(GAP, "")) for row in self.rows)
        lost -= sum(len(row.replace(GAP, "")) for row in rows)
        return Alignment(self.names, rows, self.format, self.inserted + lost)

    def take(self, positions: Iterable[int]) -> Alignment:
        """Return the sequences at these positions, with the query first.

        Args:
            positions: Positions from 0; the query is kept in any case.

        Example:
            >>> Alignment(("a", "b", "c"), ("MT", "MK", "MM")).take([2]).names
            ('a', 'c')
        """
        kept = [0, *(int(i) for i in positions if i != 0)]
        names, rows = (tuple(values[i] for i in kept) for values in (self.names, self.rows))
        return Alignment(names, rows, self.format, self.inserted)


def read_alignment(path: str | os.PathLike[str], format: str | None = None) -> Alignment:
    """Read an alignment of proteins, plain or gzipped.

    - a3m: residues in lower case are insertions relative to the query, and are left out; headers
      may be bare `>`.
    - Stockholm: several blocks, annotation lines are skipped, dots are gaps.
    - aligned FASTA: all rows have the same length, dots are gaps.

    Args:
        path: Path of the file.
        format: "a3m", "stockholm" or "fasta"; None finds it by the content: Stockholm by its first
            line, aligned FASTA if all rows have the same length, else a3m. A file that ends in
            .a3m is a3m.

    Returns:
        Alignment: The first sequence is the query.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file holds no alignment, rows differ in length, a letter is no residue, the
            query of an a3m file has a gap, or a line is not text. The message names the line or
            the sequence.

    Source: a3m as HH-suite defines it (Steinegger et al. 2019, BMC Bioinformatics 20:473);
        Stockholm as Pfam and HMMER do.

    Example:
        >>> read_alignment("family.a3m")  # doctest: +SKIP
        Alignment of 1,234 sequences with 145 columns, query 'sequence 1'
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, received {shown(format)}.")
    path = checked_path(path)
    with open_text(path) as file:
        lines = list(numbered_lines(file, path))
    if not lines:
        raise ValueError(f"{path} is empty; is it the right file?")
    if format == "stockholm" or (format is None and lines[0][1].startswith("# STOCKHOLM")):
        names, rows = _read_stockholm(lines, path)
        return _checked(path, names, [row.replace(".", GAP).upper() for row in rows], "stockholm")
    names, rows = _read_headers(lines, path)
    if format is None:
        equal = len(set(map(len, rows))) == 1
        is_fasta = equal and Path(path.name.removesuffix(".gz")).suffix.lower() != ".a3m"
        format = "fasta" if is_fasta else "a3m"
    if format == "fasta":
        return _checked(path, names, [row.replace(".", GAP).upper() for row in rows], format)
    aligned = [row.translate(INSERTIONS) for row in rows]
    inserted = sum(sum(map(str.islower, row)) for row in rows)
    gaps = aligned[0].count(GAP)
    if gaps:
        raise ValueError(
            f"{path}: the query {names[0]!r} has {count_of(gaps, 'gap')}. In a3m, each column is a "
            "residue of the query; put the query first, or give format='fasta' if the rows are "
            "aligned as they are."
        )
    return _checked(path, names, aligned, format, inserted)


def _checked(
    path: Path, names: list[str], rows: list[str], format: str, inserted: int = 0
) -> Alignment:
    try:
        return Alignment(tuple(names), tuple(rows), format, inserted)
    except ValueError as error:
        raise ValueError(f"{path}, read as {format}: {error}") from None


def _read_headers(lines: list[tuple[int, str]], path: Path) -> tuple[list[str], list[str]]:
    """Return names and rows of a file in which each record begins with `>`."""
    number, first = lines[0]
    lines = [line for line in lines if not line[1].startswith("#")]  # a3m may open with a comment
    starts = [i for i, (_, line) in enumerate(lines) if line.startswith(">")]
    if not starts or starts[0]:
        raise ValueError(
            f"{path}, line {number}: expected '# STOCKHOLM' or a header that begins with '>', "
            f"received {shown(first.strip()[:40])}; is it an alignment?"
        )
    names, rows = [], []
    for count, (start, end) in enumerate(pairwise([*starts, len(lines)]), start=1):
        row = "".join("".join(line.split()) for _, line in lines[start + 1 : end])
        number, header = lines[start]
        if not row:
            raise ValueError(f"{path}, line {number}: no sequence follows the header.")
        names.append((header[1:].split() or [f"sequence {count}"])[0])
        rows.append(row)
    return names, rows


def _read_stockholm(lines: list[tuple[int, str]], path: Path) -> tuple[list[str], list[str]]:
    """Return names and rows of the first alignment of a Stockholm file."""
    pieces: defaultdict[str, list[str]] = defaultdict(list)
    for number, line in _until_end(lines, path):
        if line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 2:
            raise ValueError(
                f"{path}, line {number}: expected a name and a row of letters, received "
                f"{shown(line.strip()[:40])}."
            )
        pieces[words[0]].append(words[1])
    return list(pieces), ["".join(row) for row in pieces.values()]


def _until_end(lines: list[tuple[int, str]], path: Any) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        if line.strip() == "//":
            return
        yield number, line
    raise ValueError(
        f"{path}: the line // that ends a Stockholm alignment is missing; is the file complete?"
    )
