"""Raw inputs in parts, and what a model computes for the records of each part."""

from __future__ import annotations

import gzip
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from kft.data import read_fasta
from kft.data.inputs import InputKind, encoder_info
from kft.data.proteins.fasta import GZIP_MAGIC
from kft.data.sequences import warn_of_changes
from kft.inference.writing import Part, Rows
from kft.messages import progress
from kft.training.batching import Batches, batches, listed_inputs, silent_cuts, warn_of_cut
from kft.training.features import Features, Source, kept

CHUNK = 8192  # records of a FASTA file that are in memory at a time


@dataclass
class Stream:
    """The arrays that a model computes for raw inputs, part by part.

    Attributes:
        source: What computes them.
        columns: Name of each array of the source -> whether it has a row per residue.
        encode: The backbone's `encode`, or None for inputs that are arrays.
        inputs, batch_size, max_length: As for `kft.predict`.
        verb: What is done, for the bar of progress.
    """

    source: Source
    columns: dict[str, bool]
    encode: Callable[..., Any] | None
    inputs: Any
    batch_size: int
    max_length: int | None
    verb: str
    _cut: list[int] = field(default_factory=list)
    _changes: Counter[str] = field(default_factory=Counter)

    def parts(self, folder: Path | None = None) -> Iterator[Part]:
        """Compute one part after the other; warn at the end of what was cut or changed.

        Args:
            folder: Folder in which computed arrays are kept, and found by a later run; None keeps
                them in memory.

        Yields:
            Names of records, and {column: rows}.
        """
        info = encoder_info(self.encode)
        other = self.encode is not None and info.input_kind is not InputKind.SEQUENCE
        if other and isinstance(self.inputs, str | Path):
            raise TypeError(
                f"inputs must be a list of {info.input_kind}s, received {str(self.inputs)!r}: "
                f"write [path]."
            )
        seen = 0
        with progress() as bar:
            total = None if bar.disable else _count(self.inputs)
            task = bar.add_task(self.verb, total=total)
            for names, called, part in _parts(self.inputs):
                with silent_cuts():  # reported once, at the end
                    records = batches(
                        part, self.encode, self.batch_size, None, self.max_length, called
                    )
                self._cut += records.cut
                self._changes += records.changes
                seen += len(part)
                features = kept(
                    self.source, records, folder, math.inf, lambda n: bar.advance(task, n)
                )
                yield names, self._rows(features, records)
        warn_of_cut(self._cut, seen, self.max_length)
        warn_of_changes(self._changes, seen)

    def _rows(self, features: Features, records: Batches) -> dict[str, Rows]:
        """Return the rows of all records of a part, in the order of the records."""
        count = len(records.inputs)
        found: dict[str, Rows] = {}
        for i, (name, per_residue) in enumerate(self.columns.items()):
            if per_residue and records.lengths is not None:
                found[name] = [features.of(i, k)[records.residues(k)] for k in range(count)]
            else:
                found[name] = features.values[i].reshape(count, *features.shapes[i])
        return found


def _parts(inputs: Any) -> Iterator[tuple[list[str], list[str], Any]]:
    """Yield (names, names for errors, inputs); a FASTA file in chunks."""
    if not isinstance(inputs, str | Path):
        inputs = listed_inputs(inputs)
        names = [f"inputs[{i}]" for i in range(len(inputs))]
        yield names, names, inputs
        return
    if not os.path.isfile(inputs):
        raise FileNotFoundError(
            f"inputs is {str(inputs)[:60]!r}, which is not a file: give the path of a FASTA file, "
            f"or a list of raw inputs."
        )
    records = read_fasta(inputs)
    while chunk := list(islice(records, CHUNK)):
        names, sequences = map(list, zip(*chunk, strict=True))
        yield names, [f"record {record.id}" for record in chunk], sequences


def _count(inputs: Any) -> int | None:
    """Return the number of records, or None where it takes reading them."""
    if not isinstance(inputs, str | Path):
        return len(inputs) if hasattr(inputs, "__len__") else None
    if not os.path.isfile(inputs):
        return None
    with open(inputs, "rb") as file:
        opener: Any = gzip.open if file.read(2) == GZIP_MAGIC else open
    with opener(inputs, "rb") as lines:
        return sum(line.startswith(b">") for line in lines)
