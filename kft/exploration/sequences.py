"""Checks of sequences: lengths, letters, similar ones across splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pandas as pd

from kft.data.sequences import STOP, compared, is_dna
from kft.data.splits import are_variants
from kft.exploration.findings import Finding, error, info, warning
from kft.exploration.pairs import count_by_splits, splits_in_words
from kft.exploration.records import Kind, Records
from kft.exploration.similarity import IDENTITY, MOST_ALIGNED, K, similar_sequences

STANDARD = "ACDEFGHIKLMNPQRSTVWY"
LONG = 1022  # residues that ESM-2 was trained with
FEW_LETTERS = 0.5  # share of one residue from which a sequence has low complexity
ADVICE_SPLIT = (  # on the terminal and on pages
    "Split by cluster, kft.data.read_csv(..., split='cluster') or kft finetune --split cluster, or "
    "by a group of variants."
)


def lengths(records: Records) -> Iterator[Finding]:
    """Report lengths, the composition, and sequences that are empty or very long."""
    for name in records.of(Kind.SEQUENCE):
        forms = _forms(records, name)
        sizes = np.array([len(form) for form in forms])
        quartiles = np.quantile(sizes, [0, 0.25, 0.5, 0.75, 1]).round().astype(int).tolist()
        counts = Counter("".join(forms))
        total = max(1, sum(counts.values()))
        yield info(
            "sequence-lengths", repr(name),
            {"min, quartiles, max": ", ".join(map(str, quartiles)),
             "composition": {x: n / total for x, n in counts.most_common(25)}},
            f"Column {name!r} is read as sequences of residues.",
            "Batches put similar lengths together; compare composition with that of your proteins.",
        )  # fmt: skip
        empty, long = np.flatnonzero(sizes == 0), np.flatnonzero(sizes > LONG)
        if len(empty):
            yield error(
                "empty-sequences", repr(name), {"records": len(empty)},
                "Sequences without residues have no features.",
                "Leave these records out.",
                empty,
            )  # fmt: skip
        if len(long):
            yield info(
                "long-sequences", repr(name), {"records": len(long), "longest": int(sizes.max())},
                f"Sequences are longer than the {LONG:,} residues that ESM-2 was trained with.",
                "Keep the first residues, max_length or --max-length, or cut proteins into "
                "domains; memory grows with the square.",
                long,
            )  # fmt: skip


def letters(records: Records) -> Iterator[Finding]:
    """Find unusual letters, other spellings, DNA, and sequences of hardly more than one residue."""
    for name in records.of(Kind.SEQUENCE):
        texts = [x if isinstance(x, str) else "" for x in records.inputs[name]]
        forms = [compared(text) for text in texts]
        unusual = [i for i, form in enumerate(forms) if not set(form) <= set(STANDARD)]
        if unusual:
            counts = Counter(c for i in unusual for c in forms[i] if c not in STANDARD)
            yield warning(
                "unusual-letters", repr(name), {"records": len(unusual), "letters": dict(counts)},
                "Letters other than those of the 20 amino acids are in some sequences.",
                "X, B, Z, U and O are read by ESM-2; correct other letters or leave records out.",
                unusual,
            )  # fmt: skip
        spelled = [
            i for i, text in enumerate(texts)
            if text != text.strip().upper() or text.endswith(STOP) or "-" in text or "." in text
        ]  # fmt: skip
        if spelled:
            yield info(
                "sequence-spelling", repr(name), {"records": len(spelled)},
                "Sequences hold lower case, spaces, gaps or stops.",
                "They are compared in upper case without these; lower case may mark masked parts.",
                spelled,
            )  # fmt: skip
        dna = [i for i, form in enumerate(forms) if is_dna(form)]
        if dna:
            yield warning(
                "looks-like-dna", repr(name), {"records": len(dna), "share": len(dna) / len(forms)},
                "Sequences of A, C, G, T, U and N alone look like DNA or RNA.",
                "Translate genes into proteins first.",
                dna,
            )  # fmt: skip
        low = [i for i, form in enumerate(forms) if _is_low(form)]
        if low:
            yield info(
                "low-complexity", repr(name), {"records": len(low)},
                f"One residue is more than {FEW_LETTERS:.0%} of a sequence.",
                "Check that they are not tags, linkers or placeholders.",
                low,
            )  # fmt: skip


def _is_low(form: str) -> bool:
    return len(form) >= 10 and max(map(form.count, set(form))) > FEW_LETTERS * len(form)


def similar(records: Records) -> Iterator[Finding]:
    """Find similar sequences, across splits if there are splits."""
    for name in records.of(Kind.SEQUENCE):
        forms = _forms(records, name)
        if len(forms) > 2 and are_variants([form for form in forms if form]):
            yield info(
                "variants-of-one", repr(name), {"records": len(forms)},
                "All sequences are variants of one protein.",
                "Split by mutated position or number of mutations; one-hot is a strong baseline.",
            )  # fmt: skip
            continue
        try:
            pairs = similar_sequences(forms, records.parts)
        except ImportError as problem:
            yield info(
                "similarity-not-searched", repr(name), {}, "Similar sequences were not searched.",
                f"{str(problem)[0].upper()}{str(problem)[1:]}",
            )  # fmt: skip
            continue
        if len(pairs):
            yield _similar(records, name, pairs)


def _similar(records: Records, name: str, pairs: pd.DataFrame) -> Finding:
    rows = np.unique(pairs[["first", "second"]].to_numpy())
    closest = pairs.iloc[0]
    evidence = {
        "pairs": len(pairs),
        "sequences": len(rows),
        "highest identity": float(closest["identity"]),
        "its rows": [int(closest["first"]), int(closest["second"])],
        "pairs aligned": pairs.attrs["aligned"],
        "candidates": pairs.attrs["candidates"],
    }
    limit = (
        f" Only the {MOST_ALIGNED:,} pairs with most common {K}-mers were aligned."
        if pairs.attrs["aligned"] == MOST_ALIGNED
        else ""
    )
    if records.parts is None:
        return info(
            "similar-sequences", repr(name), evidence,
            f"Different sequences are at least {IDENTITY:.0%} identical.{limit}",
            ADVICE_SPLIT, rows,
        )  # fmt: skip
    between = count_by_splits(records.parts, *pairs[["first", "second"]].to_numpy().T)
    return warning(
        "similar-across-splits", repr(name), {"records by pair of splits": between} | evidence,
        f"Sequences of different splits are at least {IDENTITY:.0%} identical "
        f"({splits_in_words(between)}), so one split holds relatives of another.{limit}",
        ADVICE_SPLIT, rows,
    )  # fmt: skip


def _forms(records: Records, name: str) -> list[str]:
    return [compared(x) if isinstance(x, str) else "" for x in records.inputs[name]]


CHECKS = [lengths, letters, similar]
