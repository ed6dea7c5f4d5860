"""Read the user's own table (CSV, TSV) into a data set, with errors that name the line."""

import csv
import gzip
import hashlib
import io
import math
import zlib
from pathlib import Path

import numpy as np

from .dataset import TASKS, Dataset, Split
from .fasta import GZIP_MAGIC
from .splits import FRACTIONS, KMER, PARTS, SHARED, cluster_split, group_split, random_split

MISSING = {"", "na", "n/a", "#n/a", "nan", "null"}
SPELLINGS = {"validation": "valid", "val": "valid"} | {part: part for part in PARTS}


def read_csv(
    path,
    inputs="sequence",
    target="y",
    split="random",
    groups=None,
    task=None,
    fractions=FRACTIONS,
    seed=0,
    sep=None,
):
    """Read a table with one record per line, plain or gzipped, and split it.

    Numbers as targets make a regression and text makes a classification; say
    `task="classification"` if numbers name classes. A word among numbers is an error, not a class.

    Args:
        path: a CSV or TSV file in UTF-8 whose first line names the columns.
        inputs: column of the sequences.
        target: column of the targets. For "residue_classification", one letter per residue.
        split: "random"; "cluster" (near copies stay on one side); the name of a column that says
            train, valid or test; or None: all in `train`, and `valid` and `test` are None.
        groups: column of groups that a split must not separate, or None.
        task: "classification", "regression", "residue_classification", or None: by the targets.
        fractions: the shares of train, valid and test for "random" and "cluster".
        seed: integer, for "random" and "cluster".
        sep: the character between columns; None finds comma, tab or semicolon.

    Returns:
        Dataset: classes are in alphabetical, or for numbers in numerical order.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file, a line, a column or an argument is wrong; lines are numbered as an
            editor shows them, so the header is line 1.

    Example:
        >>> data = read_csv("mine.csv", target="activity", split="cluster")  # doctest: +SKIP
    """
    check_arguments(split, groups, task)
    table = Table(path, sep)
    sequences = table.column(inputs, "inputs")
    words = table.column(target, "target")
    task = task or task_of(table, target, words)
    targets, classes = _READ[task](table, target, words, sequences)
    names = None if groups is None else np.array(table.column(groups, "groups"))
    parts, clusters, how = _split(table, split, sequences, names, task, targets, fractions, seed)
    everything = Split(sequences, targets, groups=names if clusters is None else clusters)
    splits = dict.fromkeys(PARTS) | {part: everything.take(at) for part, at in parts.items()}
    return Dataset(
        name=table.path.name.split(".")[0],
        task=task,
        **splits,
        source=str(path),
        licence="not stated (your own file)",
        citation="",
        checksum=table.checksum,
        classes=classes,
        notes=(how, *_remarks(sequences, splits, task, targets)),
    )


class Table:
    """The cells of the file, each with the line it stands on."""

    def __init__(self, path, sep):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"`path` is {self.path}, which is not a file; check the name.")
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
        if self.header.count(name) != 1:
            problem = "twice" if name in self.header else "not"
            raise ValueError(
                f"`{argument}` is {name!r}, which is {problem} among the columns of {self.path}: "
                f"{', '.join(self.header)}. Columns were taken to be separated by {self.sep!r}; "
                "say `sep=` if they are not."
            )
        position = self.header.index(name)
        cells = [row[position].strip() for row in self.rows]
        for i, cell in enumerate(cells):
            if cell.lower() in MISSING:
                self.fail(
                    i, f"column {name!r} is {cell!r}, a missing value; fill or remove the line"
                )
        return cells

    def fail(self, i, problem):
        """Raise an error at the line where record i begins."""
        raise ValueError(f"{self.path}, line {self.lines[i]}: {problem}.")

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


def _number(word):
    try:
        return float(word)
    except ValueError:
        return None


def task_of(table, target, words):
    """Regression where all targets are numbers; some numbers are an error."""
    numeric = [_number(word) is not None for word in words]
    if any(numeric) and not all(numeric):
        i = numeric.index(False)
        table.fail(
            i,
            f"column {target!r} is {words[i]!r}, while other lines hold numbers; correct it "
            "(decimals take a point), or say task='classification' if they are names of classes",
        )
    return "regression" if all(numeric) else "classification"


def read_numbers(table, target, words, sequences):
    """The targets as float64 (records,), and no classes."""
    numbers = [_number(word) for word in words]
    for i, number in enumerate(numbers):
        if number is None or not math.isfinite(number):
            table.fail(i, f"column {target!r} is {words[i]!r}, not a finite number")
    return np.array(numbers), None


def read_classes(table, target, words, sequences):
    """The targets as int32 (records,), and the sorted classes."""
    numeric = all(_number(word) is not None for word in words)
    classes = tuple(sorted(set(words), key=float if numeric else None))
    if len(classes) < 2:
        raise ValueError(
            f"`target` column {target!r} of {table.path} holds only {classes[0]!r}; a "
            "classification needs at least two classes."
        )
    position = {name: i for i, name in enumerate(classes)}
    return np.array([position[word] for word in words], dtype=np.int32), classes


def _read_residue_classes(table, target, words, sequences):
    for i, (word, sequence) in enumerate(zip(words, sequences, strict=True)):
        if len(word) != len(sequence):
            table.fail(
                i,
                f"column {target!r} has {len(word)} letters for {len(sequence)} residues; give "
                "exactly one per residue",
            )
    classes = tuple(sorted(set("".join(words))))
    position = {name: i for i, name in enumerate(classes)}
    return [np.array([position[letter] for letter in word], dtype=np.int32) for word in words], (
        classes
    )


_READ = {
    "regression": read_numbers,
    "classification": read_classes,
    "residue_classification": _read_residue_classes,
}


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
    repeats = len(sequences) - len(set(sequences))
    if repeats:
        yield f"{repeats:,} lines repeat the sequence of an earlier line; they were kept."
    if splits["test"] is not None:
        known = set(splits["train"].inputs) | set(splits["valid"].inputs)
        leaked = sum(sequence in known for sequence in splits["test"].inputs)
        if leaked:
            yield (
                f"{leaked:,} test sequences are also in train or valid, so test scores flatter; "
                "split='cluster' keeps them apart."
            )
    if task == "regression" and (targets == targets.round()).all():
        yield (
            f"The targets are whole numbers with {len(set(targets))} values, read as a regression; "
            "say task='classification' if they are classes."
        )
