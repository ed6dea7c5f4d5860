"""Read the user's own table (CSV, TSV) into a data set, with errors that name the line."""

import csv
import gzip
import hashlib
import io
import warnings
import zlib
from typing import NamedTuple

import numpy as np

from kft.data.columns import (
    READERS,
    note_alike,
    note_conflicts,
    number,
    read_classes,  # noqa: F401  for images.py
    read_numbers,  # noqa: F401
    task_of,
)
from kft.data.dataset import TASKS, Dataset, Split
from kft.data.proteins.fasta import GZIP_MAGIC, checked_path
from kft.data.sequences import STOP, Sequences, SequenceWarning, compared, is_dna, normal_forms
from kft.data.splits import (
    FRACTIONS,
    KMER,
    PARTS,
    SHARED,
    advice,
    cluster_split,
    group_split,
    random_split,
)

MISSING = {"na", "n/a", "#n/a", "nan", "null"}
MOST_NAMED = 10  # lines that an error lists
SPELLINGS = {"validation": "valid", "val": "valid"} | {part: part for part in PARTS}


def read_csv(
    path, inputs="sequence", target="y", split="random", groups=None, task=None,
    fractions=FRACTIONS, seed=0, sep=None, missing=None, dropna=False, decimal=None,
):  # fmt: skip
    """Read a table with one record per line, plain or gzipped, and split it.

    Sequences are compared, split and kept in one normal form: in upper case, without space around
    them and without one stop (*) at the end. What was changed or guessed is in `notes`, counted.
    Of numbers in another spelling (1,500 or 15% or 12 nM) no classes are made: they are an error.

    Args:
        path: a CSV or TSV file in UTF-8 whose first line names the columns.
        inputs: column of the sequences.
        target: column of the targets. For tasks of residues a letter for each residue, or words or
            numbers parted by spaces, NA where there is none.
        split: "random"; "cluster" (near copies stay on one side); the name of a column that says
            train, valid or test; or None: all in `train`, and `valid` and `test` are None.
        groups: column of groups that a split must not separate, or None.
        task: "classification" (also where numbers name classes), "regression",
            "residue_classification", "residue_regression", or None: by the targets.
        fractions: the shares of train, valid and test for "random" and "cluster".
        seed: integer, for "random" and "cluster".
        sep: the character between columns; None finds comma, tab or semicolon.
        missing: words that mark a missing value, as ("-999", "?"), () for none but empty cells;
            None takes NA, N/A, #N/A, NaN and null.
        dropna: True leaves lines out that lack a value, which else are an error.
        decimal: "." or ","; None takes commas only where semicolons separate the columns.

    Returns:
        Dataset: classes are in alphabetical, or for numbers in numerical order.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if `path` or a column is None.
        ValueError: if the file, a line, a column or an argument is wrong; lines are numbered as an
            editor shows them, so the header is line 1.

    Example:
        >>> data = read_csv("mine.csv", target="activity", split="cluster")  # doctest: +SKIP
    """
    check_arguments(split, groups, task)
    table = Table(path, sep, missing, decimal)
    by_column = split not in (None, "random", "cluster") and split in table.header
    columns = {"inputs": inputs, "target": target}
    columns |= {"groups": groups} if groups is not None else {}
    table.settle(columns | ({"split": split} if by_column else {}), dropna)
    found = _records(table, inputs, target, groups, task)
    return _parted(found, table, split, fractions, seed)


class _Records(NamedTuple):
    """What the columns of a table hold."""

    sequences: Sequences
    task: str
    targets: np.ndarray | list
    classes: tuple[str, ...] | None
    masks: list | None
    groups: np.ndarray | None


def _records(table, inputs, target, groups, task):
    sequences = _sequences(table, inputs)
    words = table.column(target, "target")
    task = task or task_of(table, target, words, sequences)
    targets, classes, *masks = READERS[task](table, target, words, sequences)
    note_conflicts(table, target, targets, sequences)
    names = None if groups is None else np.array(table.column(groups, "groups"))
    if groups is not None:
        note_alike(table, groups, dict.fromkeys(names.tolist()), "groups")
    return _Records(sequences, task, targets, classes, masks[0] if masks else None, names)


def _parted(found, table, split, fractions, seed):
    """The data set of the records, split."""
    sequences, targets = found.sequences, found.targets
    parts, clusters, how = _split(
        table, split, sequences, found.groups, found.task, targets, fractions, seed
    )
    groups = found.groups if clusters is None else clusters
    everything = Split(sequences, targets, groups, found.masks)
    splits = dict.fromkeys(PARTS) | {part: everything.take(at) for part, at in parts.items()}
    return Dataset(
        name=table.path.name.split(".")[0],
        task=found.task,
        **splits,
        source=str(table.path),
        licence="not stated (your own file)",
        citation="",
        checksum=table.checksum,
        classes=found.classes,
        notes=(how, *table.notes, *_remarks(sequences, splits, found.task, targets)),
    )


def _sequences(table, inputs):
    """The sequences in normal form; what was changed is noted, and DNA is warned of at once."""
    cells = table.column(inputs, "inputs")
    sequences, notes = normal_forms(cells, "inputs")
    table.stops = {i for i, cell in enumerate(cells) if cell.endswith(STOP)}
    empty = [i for i, sequence in enumerate(sequences) if not sequence]
    if empty:
        table.fail(empty, f"column {inputs!r} is {cells[empty[0]]!r}, which holds no residue")
    if any(map(is_dna, sequences)):
        warnings.warn(f"{table.path}: {notes[-1]}", SequenceWarning, stacklevel=4)
    table.notes += notes
    return sequences


class Table:
    """The cells of the file, each with the line it stands on.

    Args:
        path, sep, missing, decimal: see `read_csv`.

    Attributes:
        notes: list of sentences, to which readers of columns add what they changed.
        stops: positions of records whose sequence lost a stop.
    """

    def __init__(self, path, sep, missing=None, decimal=None):
        self.path = checked_path(path)
        self.missing, self.decimal = _checked_missing(missing), decimal
        if decimal not in (None, ".", ","):
            raise ValueError(f"`decimal` must be '.', ',' or None; got {decimal!r}.")
        self.notes, self.stops = [], set()
        content = self.path.read_bytes()
        self.checksum = hashlib.sha256(content).hexdigest()
        text = self._decode(content)
        if not text.strip():
            raise ValueError(f"{path} is empty; its first line should name the columns.")
        first = text.splitlines()[0]
        self.sep = sep or max(",\t;", key=first.count)
        (_, header), *rows = self._rows(text)
        self.header = [name.strip() for name in header]
        if not rows:
            raise ValueError(f"{path} has a header but no records; add at least one line.")
        self.lines = [line for line, _ in rows]
        self.rows = [row for _, row in rows]

    def column(self, name, argument):
        """The stripped, non-empty cells of a column."""
        self.settle({argument: name})
        return self._cells(name)

    def settle(self, columns, dropna=False):
        """Refuse missing cells, all of them at once, or leave their lines out.

        Args:
            columns: {argument: name of the column}.
            dropna: True leaves the lines out and notes how many.
        """
        for argument, name in columns.items():
            self._check_name(name, argument)
        lacking = {
            name: [i for i, cell in enumerate(self._cells(name)) if self.is_missing(cell)]
            for name in dict.fromkeys(columns.values())
        }
        lacking = {name: found for name, found in lacking.items() if found}
        if not lacking:
            return
        if not dropna:
            self._fail_missing(lacking)
        dropped = set().union(*lacking.values())
        if len(dropped) == len(self.rows):
            raise ValueError(f"{self.path}: every line has a missing cell; `dropna` leaves none.")
        counts = ", ".join(f"{name!r} {len(found):,}" for name, found in lacking.items())
        self.notes.append(
            f"{len(dropped):,} of {len(self.rows):,} lines with a missing cell were left out "
            f"(column {counts})."
        )
        kept = [i for i in range(len(self.rows)) if i not in dropped]
        self.lines, self.rows = [self.lines[i] for i in kept], [self.rows[i] for i in kept]

    def is_missing(self, cell):
        """Whether a cell marks a missing value: empty, or a word of `missing`."""
        if not cell:
            return True
        if self.missing is None:
            return cell.lower() in MISSING
        value = number(cell)
        return cell in self.missing or (
            value is not None and any(number(word) == value for word in self.missing)
        )

    def fail(self, rows, problem):
        """Raise an error at the line where a record begins; of several positions at the first."""
        rows = [rows] if isinstance(rows, int) else rows
        also = f" (and {self._places(rows[1:])} likewise)" * (len(rows) > 1)
        raise ValueError(f"{self.path}, line {self.lines[rows[0]]}: {problem}{also}.")

    def _check_name(self, name, argument):
        if not isinstance(name, str):
            raise TypeError(
                f"`{argument}` must be the name of a column, got {name!r}; columns of {self.path} "
                f"are {', '.join(self.header)}."
            )
        if self.header.count(name) != 1:
            problem = "twice" if name in self.header else "not"
            raise ValueError(
                f"`{argument}` is {name!r}, which is {problem} among the columns of {self.path}: "
                f"{', '.join(self.header)}. Columns were taken to be separated by {self.sep!r}; "
                "say `sep=` if they are not."
            )

    def _cells(self, name):
        position = self.header.index(name)
        return [row[position].strip() for row in self.rows]

    def _fail_missing(self, lacking):
        """Name the first missing cell and the lines of all."""
        i, name = min((found[0], name) for name, found in lacking.items())
        total = sum(map(len, lacking.values()))
        cell = self._cells(name)[i]
        more = ""
        if total > 1:
            where = "; ".join(
                f"column {other!r}, {self._places(found)}" for other, found in lacking.items()
            )
            more = f" ({total:,} cells are missing: {where})"
        said = f"say missing=() if {cell!r} is a value, " if cell and self.missing is None else ""
        raise ValueError(
            f"{self.path}, line {self.lines[i]}: column {name!r} is {cell!r}, a missing value"
            f"{more}; fill them, {said}or dropna=True to leave such lines out."
        )

    def _places(self, rows):
        """The lines of records, the first ten by number."""
        named = ", ".join(str(self.lines[i]) for i in rows[:MOST_NAMED])
        more = f" and {len(rows) - MOST_NAMED:,} more" * (len(rows) > MOST_NAMED)
        return f"line{'s' * (len(rows) > 1)} {named}{more}"

    def _decode(self, content):
        if content[:2] == GZIP_MAGIC:
            try:
                content = gzip.decompress(content)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(
                    f"{self.path}: the compressed file is damaged or ends early ({error}); copy "
                    "or download it again."
                ) from error
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise ValueError(
                f"{self.path}, line {line}: holds bytes that are not text in UTF-8; save the table "
                "as CSV (UTF-8)."
            ) from error

    def _rows(self, text):
        """Yield (line on which the row begins, cells), blank lines left out."""
        # newline="" leaves line ends inside of quotes to the csv module
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.sep, strict=True)
        begin, width = 1, None
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    width = width or len(row)
                    if len(row) != width:
                        raise ValueError(
                            f"{self.path}, line {begin}: has {len(row)} columns, the header has "
                            f"{width}; quote cells that contain {self.sep!r}."
                        )
                    yield begin, row
                begin = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{self.path}, line {begin}: {error}; look for an unclosed quote."
            ) from error


def check_arguments(split, groups, task):
    """Refuse a task that is none, and groups beside clusters."""
    if task is not None and task not in TASKS:
        raise ValueError(f"`task` must be None or one of {', '.join(TASKS)}; got {task!r}.")
    if split == "cluster" and groups is not None:
        raise ValueError(
            f"`groups` is {groups!r} but `split` is 'cluster', which makes its own groups; say "
            "split='random' to split by your groups, or leave `groups` out."
        )


def _checked_missing(missing):
    """The words as a tuple; a single word is one, and None stays."""
    if missing is None:
        return None
    words = tuple(missing) if isinstance(missing, list | tuple | set) else (missing,)
    for word in words:
        if not isinstance(word, str):
            raise TypeError(
                f"`missing` must hold words as the file has them, such as ('NA', '-999'); got "
                f"{word!r}."
            )
    return tuple(word.strip() for word in words)


def _split(table, split, sequences, groups, task, targets, fractions, seed):
    """{name: positions}, the clusters where the split made any, and a sentence that says how."""
    strata = targets if task == "classification" else None
    clusters = None
    if split is None:
        parts, how = {"train": np.arange(len(sequences))}, "Not split: every record is in train."
    elif split == "cluster":
        parts, clusters = cluster_split(sequences, fractions, seed, strata)
        how = (
            f"Split by cluster, seed {seed}: sequences that share {SHARED:.0%} of the {KMER}-mers "
            f"of the shorter are on one side ({clusters.max() + 1:,} clusters)."
        )
    elif split == "random" and groups is None:
        parts = random_split(len(sequences), fractions, seed, strata)
        how = f"Split at random, seed {seed}."
    elif split == "random":
        parts = group_split(groups, fractions, seed, strata)
        how = f"Split at random by group, seed {seed}."
    else:
        parts, how = read_parts(table, split, groups), f"Split by column {split!r}."
    return parts, clusters, how


def read_parts(table, split, groups):
    """{part: positions} as a column says them."""
    if split not in table.header:
        raise ValueError(
            f"`split` must be 'random', 'cluster', None or a column of {table.path}: "
            f"{', '.join(table.header)}; got {split!r}."
        )
    cells = table.column(split, "split")
    parts, home = {part: [] for part in PARTS}, {}
    for i, cell in enumerate(cells):
        part = SPELLINGS.get(cell.lower())
        if part is None:
            table.fail(i, f"column {split!r} is {cell!r}; expected train, valid or test")
        parts[part].append(i)
        if groups is not None and home.setdefault(groups[i], part) != part:
            table.fail(
                i,
                f"group {str(groups[i])!r} is in {part} here but in {home[groups[i]]} before; "
                "keep each group on one side",
            )
    for part, positions in parts.items():
        if not positions:
            raise ValueError(
                f"`split` column {split!r} of {table.path} puts no record into {part}; mark some "
                f"lines {part!r}, or say split='random'."
            )
    return parts


def _remarks(sequences, splits, task, targets):
    """Sentences about what looks odd but may be meant."""
    gaps = sum("-" in sequence or "." in sequence for sequence in sequences)
    if gaps:
        yield (
            f"{gaps:,} sequences hold gaps (- or .): they are compared without them, and encoded "
            "with them."
        )
    repeats = len(sequences) - len(set(map(compared, sequences)))
    if repeats:
        yield f"{repeats:,} lines repeat the sequence of an earlier line; they were kept."
    if splits["test"] is not None:
        known = set(map(compared, splits["train"].inputs + splits["valid"].inputs))
        leaked = sum(compared(sequence) in known for sequence in splits["test"].inputs)
        if leaked:
            yield (
                f"{leaked:,} test sequences are also in train or valid, so test scores flatter; "
                f"{advice(sequences)}."
            )
    values = np.concatenate(targets) if isinstance(targets, list) else np.asarray(targets)
    if task.endswith("regression") and (values == values.round())[~np.isnan(values)].all():
        kind = task.replace("regression", "classification")
        yield (
            f"The targets are whole numbers with {len(set(values[~np.isnan(values)]))} values, "
            f"read as a {task.replace('_', ' ')}; say task={kind!r} if they are classes."
        )
