"""What a model computes for raw inputs, part by part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.arguments import (
    check_callable,
    check_flag,
    check_instance,
    check_integer,
    check_optional_integer,
)
from kft.data.inputs import EncoderInfo, InputKind, encoder_info
from kft.data.proteins.fasta import Skipped, warn_of_skipped
from kft.data.sequences import changes, warn_of_changes
from kft.inference.records import (
    Records,
    RowReader,
    Stretch,
    count_in_fasta,
    read_records,
    records_within,
    table_pairs,
    table_rows,
)
from kft.inference.windows import SMALLEST, cut, warn_of_windows
from kft.inference.writing import Part, Rows
from kft.messages import progress
from kft.programs import kept_programs
from kft.training.batching import batches, silent_cuts, warn_of_cut
from kft.training.features import Features, Source, kept
from kft.training.lengths import padded_length
from kft.training.memory import check_fits, check_memory, explained


@dataclass
class Stream:
    """The arrays that a model computes for raw inputs, part by part.

    Attributes:
        model: The model or backbone, from which the memory is estimated.
        source: What computes them.
        columns: Name of each array of the source -> whether it has a row per residue.
        encode: Function from raw inputs to arrays, or None for inputs that are arrays.
        inputs: As for `kft.predict`.
        batch_size: As for `kft.predict`.
        max_length: As for `kft.predict`.
        column: As for `kft.predict`.
        skip_invalid: As for `kft.predict`.
        verb: What is done, for the bar of progress.
        argument: What errors call `inputs`.
        window: As for `kft.predict`.
        stretch: The records that are computed; None for all.
    """

    model: keras.Model
    source: Source
    columns: dict[str, bool]
    encode: Callable[..., Any] | None
    inputs: Any
    batch_size: int
    max_length: int | None
    column: str | None
    skip_invalid: bool
    verb: str
    argument: str = "inputs"
    window: int | None = None
    stretch: Stretch | None = None
    _cut: list[int] = field(default_factory=list)
    _long: list[int] = field(default_factory=list)
    _changes: Counter[str] = field(default_factory=Counter)
    _skipped: list[Skipped] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size)
        check_optional_integer("max_length", self.max_length)
        self._check_window()
        check_flag("skip_invalid", self.skip_invalid)
        if self.column is not None:
            check_instance("column", self.column, str, "the name of a column")
        if self.encode is not None:
            check_callable("encode", self.encode, "a function")

    def parts(self, folder: Path | None = None) -> Iterator[Part]:
        """Compute one part after the other; warn at the end of what was cut, changed or skipped.

        Args:
            folder: Folder in which computed arrays are kept, and found by a later run; None keeps
                them in memory.

        Yields:
            Records, and {column: rows}.
        """
        skipped = self._skipped if self.skip_invalid else None
        read = self.read(skipped)
        if self.stretch is not None:
            read = records_within(self.stretch, read, skipped)
        seen, may_be_empty = 0, self.stretch is not None
        with progress() as bar:
            counted = None if bar.disable or self.stretch else count_in_fasta(self.inputs)
            task = bar.add_task(self.verb, total=counted)
            for part in read:
                bar.update(task, total=counted if part.total is None else part.total)
                count, valid = len(part.inputs), None
                if self.skip_invalid and self.encode is not None:
                    part, valid = self._without_invalid(part, self.encode)
                    bar.advance(task, count - len(part.inputs))
                if count and not len(part.inputs):
                    may_be_empty &= not part.in_table
                    continue  # none is valid
                seen += len(part.inputs)
                with kept_programs():
                    if self.window is None:
                        rows = self._rows(part, folder, lambda n: bar.advance(task, n))
                    else:
                        rows = self._rows_of_windows(part, self.window, folder)
                        bar.advance(task, len(part.inputs))
                if valid is not None:
                    rows = {name: _in_places(x, valid, count) for name, x in rows.items()}
                yield part, rows
        self._warn(seen, may_be_empty)

    def read(self, skipped: list[Skipped] | None) -> Iterator[Records]:
        """Read all records.

        Args:
            skipped: List to which invalid records of a FASTA file are added; None raises an error.
        """
        kind = self._check_kind()
        rows_of: RowReader | None = table_pairs if kind is InputKind.PAIR else None
        if kind is InputKind.TABLE:
            rows_of = partial(table_rows, self.encode)
        of_images = kind is InputKind.IMAGE
        return read_records(self.inputs, self.column, skipped, of_images, rows_of, self.argument)

    def _check_kind(self) -> InputKind | None:
        """Return the kind of the inputs; raise an error for files of those that no file holds."""
        kind = None if self.encode is None else encoder_info(self.encode).input_kind
        in_files = (None, *(one for one in InputKind if one is not InputKind.ROW))
        if kind not in in_files and isinstance(self.inputs, str | Path):
            raise TypeError(
                f"{self.argument} must be a list of {kind}s, received {str(self.inputs)!r}: write "
                f"[path]."
            )
        return kind

    def _without_invalid(
        self, part: Records, encode: Callable[..., Any]
    ) -> tuple[Records, list[int] | None]:
        """Return the records that can be encoded, and their positions if the others keep theirs."""
        valid, fits, info = [], 0, encoder_info(encode)
        for i, (x, called) in enumerate(zip(part.inputs, part.called, strict=True)):
            try:
                with silent_cuts():
                    encoded = encode([x], names=[called])
                tokens = self._tokens(encoded, info)
                if tokens > fits:
                    check_fits(self.model, tokens, 1, called)
                    fits = tokens
                valid.append(i)
            except (ValueError, TypeError, OSError) as error:
                self._skipped.append(Skipped(part.numbers[i], part.places[i], str(error)))
        if len(valid) == len(part.inputs):
            return part, None
        return part.take(valid), valid if part.in_table else None

    def _tokens(self, encoded: Any, info: EncoderInfo) -> int:
        """Return the tokens that one encoded input is padded to, 0 if inputs have no length."""
        if not info.input_kind.has_length:
            return 0
        tokens = next(iter(encoded.values())).shape[-1]
        if most := self.max_length or self.window:
            tokens = min(tokens, most + sum(info.specials))
        return padded_length(tokens)

    def _check_window(self) -> None:
        """Raise an error for a window that is not one, or for a model that cannot take windows."""
        if check_optional_integer("window", self.window, SMALLEST) is None:
            return
        kind = None if self.encode is None else encoder_info(self.encode).input_kind
        task = getattr(getattr(self.model, "head", None), "task", None)
        if kind is not InputKind.SEQUENCE or (task is not None and task.per_pair):
            raise ValueError(
                f"window is for models of one protein, and not for answers for pairs of residues, "
                f"received {self.window} for {self.model.name}: leave it out."
            )
        if self.max_length is not None:
            raise ValueError(
                f"window reads all residues, and max_length leaves the last ones out, received "
                f"window={self.window} and max_length={self.max_length}: give one of them."
            )

    def _rows_of_windows(self, part: Records, window: int, folder: Path | None) -> dict[str, Rows]:
        """Return the rows of all records of a part, those of long ones joined from windows."""
        windows = cut(part.inputs, part.called, window)
        pieces = replace(part, inputs=windows.pieces, called=windows.called)
        self._changes += changes(part.inputs)
        self._long += windows.long
        rows = self._rows(pieces, folder, lambda n: None)
        return {name: windows.joined(x, self.columns[name]) for name, x in rows.items()}

    def _rows(
        self, part: Records, folder: Path | None, advance: Callable[[int], None]
    ) -> dict[str, Rows]:
        """Return the rows of all records of a part, in the order of the records."""
        sizes = self.batch_size, None, self.max_length
        with silent_cuts():  # reported once, at the end
            records = batches(part.inputs, self.encode, *sizes, part.called)
        check_memory(self.model, records)
        self._cut += records.residues_cut
        self._changes += records.changes
        source = self.source if records.lengths is not None else replace(self.source, shapes=None)
        with explained(records):
            features: Features = kept(source, records, folder, math.inf, advance)
        count = len(records.inputs)
        found: dict[str, Rows] = {}
        for i, (name, per_residue) in enumerate(self.columns.items()):
            if per_residue and records.lengths is not None:
                rows = [(features.of(i, k), records.residues(k)) for k in range(count)]
                axes = features.shapes[i].count(None)  # 2 of pairs
                found[name] = [values[(at,) * axes] for values, at in rows]
            else:
                found[name] = features.values[i].reshape(count, *features.shapes[i])
        return found

    def _warn(self, seen: int, may_be_empty: bool) -> None:
        if self._skipped:
            if not seen and not may_be_empty:
                first = self._skipped[0]
                raise ValueError(f"no input is valid; the first, {first.place}: {first.reason}")
            origin = self.inputs if isinstance(self.inputs, str | Path) else self.argument
            warn_of_skipped(self._skipped, origin)
        warn_of_cut(self._cut, seen, self.max_length)
        warn_of_windows(self._long, seen, self.window or 0)
        warn_of_changes(self._changes, seen)


def _in_places(rows: Rows, valid: Sequence[int], count: int) -> Rows:
    """Return rows of `count` records, NaN (or for residues none) where one is invalid."""
    if isinstance(rows, list):
        places = [rows[0][:0]] * count
        for i, row in zip(valid, rows, strict=True):
            places[i] = row
        return places
    filled = np.full((count, *rows.shape[1:]), np.nan, dtype="float32")
    filled[valid] = rows
    return filled
