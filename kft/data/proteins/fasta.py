"""Read FASTA files of any size, one record at a time."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kft.arguments import check_path
from kft.files import check_file

GZIP_MAGIC = b"\x1f\x8b"


class Record(NamedTuple):
    """One FASTA record.

    Attributes:
        name: Header without its `>`.
        sequence: Sequence as a single line.

    Example:
        >>> record = Record("sp|P02699|OPSD_BOVIN Rhodopsin", "MNGTEGPNFY")
        >>> record.id
        'sp|P02699|OPSD_BOVIN'
    """

    name: str
    sequence: str

    @property
    def id(self) -> str:
        """First word of the name, by convention the identifier."""
        return self.name.split()[0]


def read_fasta(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Read a FASTA file, plain or gzipped, one record at a time.

    Blank lines, Windows line ends, spaces in sequences and comment lines that begin with `;` are
    skipped. Letters are kept as they are, including lower case and stops, since a FASTA file may
    hold other sequences than proteins: `Split` and a backbone's `encode` normalise sequences.

    Args:
        path: Path of the file. Gzip is recognised by content, not by name.

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
    return _stream(checked_path(path))


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


def _stream(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        opener = gzip.open if file.read(2) == GZIP_MAGIC else open
    # Undecodable bytes become surrogates, so that an error can name the line.
    with opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape") as lines:
        yield from parse_fasta(lines, path)


def parse_fasta(lines: Iterable[str], origin: Any) -> Iterator[Record]:
    """Parse lines of FASTA text.

    Args:
        lines: Lines of text.
        origin: Name of the file, for errors.

    Yields:
        The records.

    Raises:
        ValueError: As `read_fasta`.

    Example:
        >>> list(parse_fasta([">a\\n", "MKT\\n", "AYI\\n"], "text"))
        [Record(name='a', sequence='MKTAYI')]
    """
    name: str | None = None
    header_line = 0
    pieces: list[str] = []
    for number, line in _numbered(lines, origin):
        if line.startswith(">"):
            if name is not None:
                yield _record(name, pieces, origin, header_line)
            name, header_line, pieces = line[1:].strip(), number, []
        elif name is None:
            raise ValueError(
                f"{origin}, line {number}: expected a header that begins with '>', received "
                f"{line[:40]!r}; is this a FASTA file?"
            )
        else:
            pieces += line.split()
    if name is None:
        raise ValueError(f"{origin} holds no FASTA record; is it the right file?")
    yield _record(name, pieces, origin, header_line)


def _numbered(lines: Iterable[str], origin: Any) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) without blank lines and comments."""
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


def _record(name: str, pieces: Sequence[str], origin: Any, line: int) -> Record:
    if not name:
        raise ValueError(f"{origin}, line {line}: the header is empty; give the record a name.")
    if not pieces:
        raise ValueError(
            f"{origin}, line {line}: no sequence follows the header {name[:40]!r}; add the "
            "sequence or remove the header."
        )
    return Record(name, "".join(pieces))
