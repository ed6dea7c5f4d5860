"""Read FASTA files of any size, one record at a time."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

from kft.arguments import check_path
from kft.files import check_file
from kft.messages import warn

GZIP_MAGIC = b"\x1f\x8b"


class Record(NamedTuple):
    """One FASTA record.

    Attributes:
        name: Header without its `>`.
        sequence: Sequence as a single line.

    Example:
        >>> record = Record("sp|P02699|OPSD_BOVIN Rhodopsin", "MNGTEGPNFY")
        >>> record.id, record.description
        ('sp|P02699|OPSD_BOVIN', 'Rhodopsin')
    """

    name: str
    sequence: str

    @property
    def id(self) -> str:
        """First word of the name, by convention the identifier."""
        return self.name.split()[0]

    @property
    def description(self) -> str:
        """The name without its first word; "" if there is no more."""
        return self.name.partition(self.id)[2].strip()


class Skipped(NamedTuple):
    """A record that was left out.

    Attributes:
        number: Its place among the others: the line in a FASTA file.
        place: Where it is, such as "line 3".
        reason: What is wrong with it.
    """

    number: int
    place: str
    reason: str


def warn_of_skipped(skipped: Sequence[Skipped], origin: Any) -> None:
    """Warn once of all records that were left out, with the place and reason of each."""
    if skipped:
        lines = "".join(f"\n  {place}: {reason}" for _, place, reason in sorted(skipped))
        warn(f"{origin}: {len(skipped):,} invalid records were skipped:{lines}")


def read_fasta(path: str | os.PathLike[str], skip_invalid: bool = False) -> Iterator[Record]:
    """Read a FASTA file, plain or gzipped, one record at a time.

    Blank lines, Windows line ends, spaces in sequences and comment lines that begin with `;` are
    skipped. Letters are kept as they are, including lower case and stops, since a FASTA file may
    hold other sequences than proteins: `Split` and a backbone's `encode` normalise sequences.

    Args:
        path: Path of the file. Gzip is recognised by content, not by name.
        skip_invalid: Whether records without a name or a sequence are left out, with a warning at
            the end that lists them.

    Returns:
        Iterator of (name, sequence), in file order.

    Raises:
        FileNotFoundError: The file does not exist. Raised at once.
        TypeError: `path` is not a path. Raised at once.
        ValueError: A line is wrong: text before the first `>`, a header without name or sequence,
            bytes that are not text, a compressed file that ends early, or a file without records.
            Raised when the line is reached.

    Source: Pearson and Lipman 1988, PNAS 85:2444.

    Example:
        >>> for name, sequence in read_fasta("proteins.fasta.gz"):  # doctest: +SKIP
        ...     print(name, len(sequence))
    """
    return _records_of(checked_path(path), skip_invalid)


def _records_of(path: Path, skip_invalid: bool) -> Iterator[Record]:
    skipped: list[Skipped] | None = [] if skip_invalid else None
    for _, record in numbered_records(path, skipped):
        yield record
    warn_of_skipped(skipped or (), path)


def checked_path(path: Any) -> Path:
    """Check that a path leads to a file.

    Args:
        path: Path of a file.

    Returns:
        The path.

    Raises:
        FileNotFoundError: The file does not exist.
        TypeError: `path` is not a path.

    Example:
        >>> checked_path(None)
        Traceback (most recent call last):
        ...
        TypeError: `path` must be a path, received None (NoneType).
    """
    return check_file(check_path("`path`", path), "`path`")


def numbered_records(
    path: Path, skipped: list[Skipped] | None = None
) -> Iterator[tuple[int, Record]]:
    """Read the records of a FASTA file, each with the line of its header.

    Args:
        path: Path of the file.
        skipped: List to which records that are wrong are added; None raises an error for them.

    Yields:
        (line from 1, record).

    Raises:
        ValueError: As `read_fasta`.
    """
    with open_text(path) as lines:
        yield from _numbered_records(lines, path, skipped)


def open_text(path: Path) -> TextIO:
    """Open a text file, plain or gzipped.

    Bytes that cannot be decoded become surrogates, so that an error can name the line.
    """
    with path.open("rb") as file:
        opener = gzip.open if file.read(2) == GZIP_MAGIC else open
    return cast(TextIO, opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape"))


def parse_fasta(lines: Iterable[str], origin: Any) -> Iterator[Record]:
    """Parse lines of FASTA text.

    Args:
        lines: Lines of text.
        origin: Name of the file, for errors.

    Returns:
        Iterator of the records.

    Raises:
        ValueError: As `read_fasta`.

    Example:
        >>> list(parse_fasta([">a\\n", "MKT\\n", "AYI\\n"], "text"))
        [Record(name='a', sequence='MKTAYI')]
    """
    return (record for _, record in _numbered_records(lines, origin, None))


def _numbered_records(
    lines: Iterable[str], origin: Any, skipped: list[Skipped] | None
) -> Iterator[tuple[int, Record]]:
    """Yield (line of the header, record)."""
    name: str | None = None
    header_line, before = 0, 0  # before: the first line that is in no record
    pieces: list[str] = []
    for number, line in numbered_lines(lines, origin):
        if line.startswith(">"):
            if name is not None and _is_valid(name, pieces, origin, header_line, skipped):
                yield header_line, Record(name, "".join(pieces))
            name, header_line, pieces = line[1:].strip(), number, []
        elif name is not None:
            pieces += line.split()
        elif not before:
            before = number
            problem = f"expected a header that begins with '>', received {line[:40]!r}"
            _refuse(origin, number, f"{problem}; is this a FASTA file?", skipped)
    if name is None:
        raise ValueError(f"{origin} holds no FASTA record; is it the right file?")
    if _is_valid(name, pieces, origin, header_line, skipped):
        yield header_line, Record(name, "".join(pieces))


def numbered_lines(lines: Iterable[str], origin: Any) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) without blank lines and comments that begin with `;`.

    Raises:
        ValueError: A line is not text, or a compressed file is damaged.
    """
    number = 0
    try:
        for number, line in enumerate(lines, start=1):
            if "\0" in line or not (line.isascii() or _is_text(line)):
                raise ValueError(
                    f"{origin}, line {number}: holds bytes that are not text; save the file as "
                    "plain text (UTF-8)."
                )
            if line.strip() and not line.startswith(";"):
                yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{origin}, after line {number}: the compressed file is damaged or ends early "
            f"({error}); copy or download it again."
        ) from error


def _is_text(line: str) -> bool:
    try:
        line.encode("utf-8")  # fails for the surrogates that replace undecodable bytes
    except UnicodeEncodeError:
        return False
    return True


def _is_valid(
    name: str, pieces: Sequence[str], origin: Any, line: int, skipped: list[Skipped] | None
) -> bool:
    if name and pieces:
        return True
    if name:
        problem = f"no sequence follows the header {name[:40]!r}; add the sequence or remove the"
        _refuse(origin, line, f"{problem} header", skipped)
    else:
        _refuse(origin, line, "the header is empty; give the record a name", skipped)
    return False


def _refuse(origin: Any, line: int, problem: str, skipped: list[Skipped] | None) -> None:
    """Raise an error for a record, or note that it is skipped."""
    if skipped is None:
        raise ValueError(f"{origin}, line {line}: {problem}{'.' * (problem[-1] != '?')}")
    skipped.append(Skipped(line, f"line {line}", problem))
