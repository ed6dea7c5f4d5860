"""What the cells of a column are: numbers, classes, or one of these for each residue.

The readers take a `kft.data.tables.Table`, to name the line that is wrong and to note what they
changed; `words` are the cells of the column, one per record.
"""

import math
import re
from collections import Counter
from decimal import Decimal

import numpy as np

from kft.data.sequences import compared

NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
MARKS = (-100.0, *(sign * (10.0**digits - 1) for digits in (2, 3, 4, 5) for sign in (-1, 1)))
TRUTHS = {"true", "false", "yes", "no"}

_N = r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?"  # with a point or a comma
# How numbers are spelled beside what a CSV file calls a number, and what to do about it. The
# first that fits counts: "1,500" is more often 1500 than 1.5.
SPELLINGS = tuple(
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (r"[+-]?[0-9]{1,3}(?:[,' _’][0-9]{3})+(?:\.[0-9]+)?",
         "digits in groups of three: write 1500, not 1,500 (decimals take a point: if it is a "
         "decimal comma, say decimal=',')"),
        (r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?",
         "a decimal comma: decimals take a point, or say decimal=','"),
        (r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+", "a decimal comma: write 1500.5, not 1.500,5"),
        (rf"{_N}\s*[%‰]", "a share: write the number alone, without the sign"),
        (rf"{_N}\s*(?:±|\+/-|\+-)\s*{_N}|{_N}\([0-9]+\)",
         "a number with its error: keep the number, and the error in a column of its own"),
        (rf"(?:[<>≤≥~≈=]|<=|>=)\s*{_N}",
         "a bound: write a number, or leave out lines that have none"),
        (rf"[$€£¥]\s*{_N}|{_N}\s*[$€£¥]", "a sum of money: write the number alone"),
        (rf"{_N}\s*[x×*·]\s*10\s*\^?\s*[+-]?[0-9]+", "a power of ten: write 1.5e-3"),
    )
)  # fmt: skip
UNIT = re.compile(rf"(?:{_N}\s+|[+-]?[0-9]*[.,][0-9]+)([^\W\d_°]*[°µμ]?[^\W\d_][\w/^·.%-]*)")
OTHER_DIGITS = "digits or a minus sign other than 0-9 and -: write it in plain ASCII"
PLAIN = {ord("−"): "-", ord("–"): "-", ord("٫"): ".", 0xA0: " ", 0x202F: " ", 0x2009: " "}


def number(word, decimal="."):
    """Return the float that a cell spells, or None; float() takes more than a CSV number.

    Example:
        >>> number("1.5e3"), number("1,5", ","), number("1_5"), number("1,5")
        (1500.0, 1.5, None, None)
    """
    if decimal != ".":
        if "." in word:
            return None
        word = word.replace(decimal, ".")
    return float(word) if NUMBER.fullmatch(word) else None


def spelling(word):
    """Return what to do about a number in another spelling; None for what is none.

    Example:
        >>> spelling("15%")
        'a share: write the number alone, without the sign'
    """
    plain = word.translate(PLAIN)
    plain = "".join(str(int(c)) if c.isdecimal() else c for c in plain).strip()
    if NUMBER.fullmatch(plain):
        return None if plain == word else OTHER_DIGITS
    return next((remedy for pattern, remedy in SPELLINGS if pattern.fullmatch(plain)), None)


def spellings(words):
    """{word: what to do about it} of those distinct words that look like numbers."""
    found = {word: spelling(word) for word in dict.fromkeys(words)}
    units = {word: match[1] for word, remedy in found.items()
             if remedy is None and (match := UNIT.fullmatch(word))}  # fmt: skip
    if len(set(units.values())) == 1:  # "12 nM" in every line, not "1 leg" beside "2 legs"
        remedy = "a number with its unit: write the number alone, and the unit in the header"
        found.update(dict.fromkeys(units, remedy))
    return {word: remedy for word, remedy in found.items() if remedy}


def decimal_of(table, words):
    """The decimal sign of a column: what was said; a comma where semicolons separate cells."""
    if table.decimal is not None:
        return table.decimal
    if table.sep != ";" or any(NUMBER.fullmatch(word) and "." in word for word in words):
        return "."
    commas = [word for word in words if "," in word and number(word, ",") is not None]
    return "," if 2 * len(commas) > len([word for word in words if "," in word]) else "."


def marks(values):
    """Count numbers (99, -999, ..., -100) that look like marks of missing values.

    Args:
        values: array of numbers.

    Returns:
        dict: the mark and how often it occurs. It is further from all other values than they are
        from each other, or the only negative number.

    Example:
        >>> marks([0.5, -999, 1.5, -999])
        {-999.0: 2}
    """
    values = np.asarray(values, dtype="float64")
    candidates = np.isin(values, MARKS)
    others = values[~candidates]
    found = {}
    if not len(others) or not candidates.any():
        return found
    for mark in sorted(set(values[candidates].tolist())):
        alone = mark < 0 <= others.min()
        if alone or np.abs(others - mark).min() > np.ptp(others):
            found[mark] = int((values == mark).sum())
    return found


# The task ---------------------------------------------------------------------------------------


def task_of(table, target, words, sequences=None):
    """The task that a column's cells tell; what looks like neither numbers nor classes is an error.

    Args:
        table: the `Table`.
        target: name of the column.
        words: its cells.
        sequences: for proteins, to see targets of residues.

    Returns:
        "regression" where all cells are numbers, a task of residues where each cell has one entry
        per residue, else "classification".
    """
    rows = [_entries(word) for word in words]
    task = None if sequences is None else _residue_task(table, target, words, rows, sequences)
    if task is not None:
        return task
    decimal = decimal_of(table, words)
    numeric = [number(w, decimal) is not None or bool(INFINITE.fullmatch(w)) for w in words]
    if all(numeric):
        return "regression"
    odd = spellings(words)
    if any(numeric):
        wrong = [i for i, is_number in enumerate(numeric) if not is_number]
        remedy = odd.get(
            words[wrong[0]],
            "correct it (decimals take a point), name it in `missing` if it marks a missing value",
        )
        table.fail(
            wrong,
            f"column {target!r} is {words[wrong[0]]!r}, while other lines hold numbers; {remedy}, "
            "or say task='classification' if they are names of classes",
        )
    _refuse_other_spellings(table, target, words, odd)
    if sequences is not None and 2 * sum(_are_numbers(table, row) for row in rows) > len(words):
        _rows(table, target, words, sequences, "numbers", _entries)  # too many or too few
    distinct = len(set(words))
    if distinct > max(10, len(words) / 2):
        raise ValueError(
            f"{table.path}: column {target!r} holds {distinct:,} different words in "
            f"{len(words):,} lines, such as {words[0]!r}, too many to be classes; name another "
            "column as `target`, or say task='classification' if they are."
        )
    return "classification"


def _refuse_other_spellings(table, target, words, odd):
    """A column of which most cells look like numbers in another spelling would become classes."""
    if 2 * len(odd) > len(set(words)):
        wrong = [i for i, word in enumerate(words) if word in odd]
        table.fail(
            wrong,
            f"column {target!r} is {words[wrong[0]]!r}, {odd[words[wrong[0]]]}; or say "
            "task='classification' if such cells are names of classes",
        )


def _residue_task(table, target, words, rows, sequences):
    """The task where every cell has one entry per residue, None where cells are no such rows."""

    def fit(rows):
        return [_fits(table, i, row, sequences[i]) for i, row in enumerate(rows)]

    numbers = [
        right and _are_numbers(table, row) for row, right in zip(rows, fit(rows), strict=True)
    ]
    if 2 * sum(numbers) > len(words):
        table.notes.append(
            f"Column {target!r} has a number for each residue, read as residue_regression; say "
            "task='residue_classification' if the numbers name classes."
        )
        return "residue_regression"
    # Words of the length of each protein are no names, if lengths or words are many or letters few.
    lengths, letters = {len(word) for word in words}, set("".join(words))
    many = (len(words) > 2 and len(lengths) > 1) or len(set(words)) > max(10, len(words) / 2)
    many = many or (min(lengths) >= 10 and len(letters) <= 8)
    if many and all(fit(words)) and not any(map(str.isdigit, letters)):
        table.notes.append(
            f"Column {target!r} has one letter per residue, read as residue_classification; say "
            "task='classification' if each cell is the name of one class."
        )
        return "residue_classification"
    return None


def _fits(table, i, row, sequence):
    """Whether there is one entry per residue; one for a stop that was left out is left out too."""
    return len(row) - len(sequence) in ((0, 1) if i in table.stops else (0,))


def _are_numbers(table, row):
    """Whether the entries of a cell are several numbers, some perhaps missing."""
    decimal = decimal_of(table, row)
    found = [number(entry, decimal) is not None for entry in row]
    return sum(found) > 1 and all(
        is_number or _is_missing(table, entry)
        for is_number, entry in zip(found, row, strict=True)
    )  # fmt: skip


def _is_missing(table, entry):
    return entry == "None" or table.is_missing(entry)


def _entries(word):
    """What stands in one cell, parted by spaces, or within brackets by commas: [1, 2], (1; 2)."""
    inside = re.fullmatch(r"[\[({](.*)[\])}]", word, re.DOTALL)
    if inside or re.search(r"\s", word):
        # "0,1 0,2" has decimal commas, "0.1, 0.2" and "0.1,0.2" have none
        text = (inside[1] if inside else word).strip()
        sign = r"\s+" if re.search(r"\s", text) else r"[,;]"
        return [entry.strip(",;") for entry in re.split(sign, text) if entry.strip(",;")]
    return word.split(";") if ";" in word else word.split(",")


# The targets ------------------------------------------------------------------------------------


def read_numbers(table, target, words, sequences):
    """The targets as float64 (records,), and no classes."""
    decimal = decimal_of(table, words)
    numbers = [number(word, decimal) for word in words]
    wrong = [i for i, x in enumerate(numbers) if x is None or not math.isfinite(x)]
    if wrong:
        word = words[wrong[0]]
        remedy = spellings(words).get(word)
        table.fail(
            wrong,
            f"column {target!r} is {word!r}, not a finite number" + f": {remedy}" * bool(remedy),
        )
    _note_decimals(table, target, words, decimal)
    _note_marks(table, target, numbers, "lines")
    return np.array(numbers), None


def _note_decimals(table, target, words, decimal):
    commas = [word for word in words if decimal in word]
    if decimal != "." and commas:
        table.notes.append(
            f"Column {target!r} has decimal commas, read as points ({len(commas):,} numbers; "
            f"{commas[0]!r} is {number(commas[0], decimal):g}); say decimal='.' if they are none."
        )


def _note_marks(table, target, numbers, where):
    for mark, count in marks(numbers).items():
        table.notes.append(
            f"{mark:g} stands in {count:,} of {len(numbers):,} {where} of column {target!r} and "
            "looks like a mark of missing values; it is read as a number. Say "
            f"missing=('{mark:g}',), and dropna=True to leave these lines out, if it is one."
        )


def read_classes(table, target, words, sequences):
    """The targets as int32 (records,), and the sorted classes."""
    words = _one_spelling(table, target, words)
    numeric = all(number(word) is not None for word in words)
    classes = tuple(sorted(set(words), key=Decimal if numeric else None))
    if len(classes) < 2:
        raise ValueError(
            f"`target` column {target!r} of {table.path} holds only {classes[0]!r}; a "
            "classification needs at least two classes."
        )
    if numeric:
        _note_marks(table, target, [number(word) for word in words], "lines")
    note_alike(table, target, classes, "classes")
    position = {name: i for i, name in enumerate(classes)}
    return np.array([position[word] for word in words], dtype=np.int32), classes


def _one_spelling(table, target, words):
    """True, TRUE and true are one class, and so are 1 and 1.0; a note says how many changed."""
    counts = Counter(words)
    numeric = all(number(word) is not None for word in counts)
    kinds = {}

    def rank(word):  # the most frequent first, then True before TRUE and 1 before 1.0
        return -counts[word], word != word.capitalize(), len(word), word

    for word in sorted(counts, key=rank):
        truth = word.lower() if word.lower() in TRUTHS else word
        kinds.setdefault(Decimal(word) if numeric else truth, []).append(word)
    chosen = {word: kind[0] for kind in kinds.values() for word in kind}
    changed = sum(word != chosen[word] for word in words)
    if changed:
        several = [kind for kind in kinds.values() if len(kind) > 1]
        table.notes.append(
            f"{changed:,} cells of column {target!r} were in another spelling of the same class: "
            + "; ".join(f"{', '.join(kind[1:])} is {kind[0]}" for kind in several)
            + "."
        )
    return [chosen[word] for word in words]


def note_alike(table, column, names, what):
    """Notes names that differ in case alone: a class or group that was meant to be one."""
    kinds = {}
    for name in names:
        kinds.setdefault(name.casefold(), []).append(name)
    alike = [kind for kind in kinds.values() if len(kind) > 1]
    if alike:
        table.notes.append(
            f"{len(alike):,} {what} of column {column!r} are spelled in several ways, such as "
            f"{' and '.join(map(repr, alike[0]))}, and were kept apart; make them one if they are."
        )


# A target for each residue ----------------------------------------------------------------------


def read_residue_classes(table, target, words, sequences):
    """The targets as int32 (residues,) each, the sorted classes, and masks where some are missing.

    A cell is a letter per residue, or words parted by spaces.
    """
    rows = _rows(table, target, words, sequences, "letters", list, _entries)
    counted = {e for row in rows for e in row if not _is_missing(table, e)}
    if len(counted) < 2:
        raise ValueError(
            f"`target` column {target!r} of {table.path} holds only "
            f"{', '.join(map(repr, counted)) or 'missing values'}; a classification of residues "
            "needs at least two classes."
        )
    numeric = all(number(entry) is not None for entry in counted)
    classes = tuple(sorted(counted, key=Decimal if numeric else None))
    if numeric:
        _refuse_marks(table, target, [[number(e) or 0.0 for e in row] for row in rows])
    position = {name: i for i, name in enumerate(classes)}
    targets = [np.array([position.get(e, 0) for e in row], dtype=np.int32) for row in rows]
    masks = [np.array([e in position for e in row]) for row in rows]
    return targets, classes, _noted(table, target, masks)


def read_residue_numbers(table, target, words, sequences):
    """The targets as float64 (residues,) each, no classes, and masks where some are missing."""
    rows = _rows(table, target, words, sequences, "numbers", _entries)
    flat = [entry for row in rows for entry in row]
    decimal = decimal_of(table, flat)
    numbers = [[np.nan if _is_missing(table, e) else number(e, decimal) for e in row]
               for row in rows]  # fmt: skip
    for i, row in enumerate(numbers):
        if None in row or np.isinf(row).any():
            at = next(k for k, x in enumerate(row) if x is None or math.isinf(x))
            remedy = spelling(rows[i][at])
            table.fail(
                i,
                f"column {target!r} is {rows[i][at]!r} at residue {at + 1}, not a finite number"
                + f": {remedy}" * bool(remedy),
            )
    _note_decimals(table, target, flat, decimal)
    _refuse_marks(table, target, numbers)
    targets = [np.array(row, dtype="float64") for row in numbers]
    return targets, None, _noted(table, target, [~np.isnan(row) for row in targets])


def _rows(table, target, words, sequences, what, *ways):
    """The entries of each cell, exactly one per residue, by the first of the ways that fits."""
    rows, wrong = [], []
    for i, (word, sequence) in enumerate(zip(words, sequences, strict=True)):
        found = [way(word) for way in ways]
        row = next((row for row in found if _fits(table, i, row, sequence)), None)
        if row is None:
            wrong.append(i)
            row = found[0]
        rows.append(row if i in wrong[-1:] else row[: len(sequence)])
    if wrong:
        table.fail(
            wrong,
            f"column {target!r} has {len(rows[wrong[0]])} {what} for "
            f"{len(sequences[wrong[0]])} residues; give exactly one per residue",
        )
    return rows


def _refuse_marks(table, target, numbers):
    """999 among values near 1 would be learned as a value."""
    if table.missing is not None:
        return  # what is missing was said
    flat = np.array([x for row in numbers for x in row])
    flat = flat[~np.isnan(flat)]
    for mark, count in marks(flat).items():
        i = next(i for i, row in enumerate(numbers) if mark in row)
        table.fail(
            i,
            f"column {target!r} holds {mark:g}, as do {count:,} of {len(flat):,} residues in all, "
            "which looks like a mark of missing values and would be learned; say "
            f"missing=('{mark:g}',) to leave these residues out, or missing=() if it is a value",
        )


def _noted(table, target, masks):
    """The masks, and a note on what they leave out; None where nothing is and nothing was said."""
    left_out = sum(int((~mask).sum()) for mask in masks)
    if not left_out:
        return None if table.missing is None else masks
    table.notes.append(
        f"{left_out:,} of {sum(map(len, masks)):,} residues have no target in column {target!r} "
        "and are False in the masks."
    )
    return masks


READERS = {
    "regression": read_numbers,
    "classification": read_classes,
    "residue_classification": read_residue_classes,
    "residue_regression": read_residue_numbers,
}


def note_conflicts(table, target, targets, sequences):
    """Notes sequences that stand in several lines with different targets."""
    lines = {}
    for i, sequence in enumerate(sequences):
        lines.setdefault(compared(sequence), []).append(i)
    values = [np.asarray(x).tobytes() for x in targets]
    apart = [found for found in lines.values() if len({values[i] for i in found}) > 1]
    if apart:
        first = apart[0][0]
        other = next(i for i in apart[0] if values[i] != values[first])
        table.notes.append(
            f"{len(apart):,} sequences stand in several lines with different values of column "
            f"{target!r}, {sum(map(len, apart)):,} lines in all (the first in lines "
            f"{table.lines[first]} and {table.lines[other]}); all were kept. Keep one line each, "
            "or the mean of their values."
        )
