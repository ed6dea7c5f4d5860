"""Near copies of test records in training: equal records, similar ones, and groups on both sides.

A model that has learnt a record by heart predicts its near copy well, so the score is too high for
new records. `kft.evaluate` and `kft.compare` also give the score without such test records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from kft.arguments import check_share
from kft.data.inputs import InputKind, kind_of, listed_inputs
from kft.data.sequences import compared, compared_pair
from kft.data.splits import are_variants
from kft.exploration.images import ALIKE
from kft.exploration.looks import SMALL, Look, looks
from kft.exploration.similarity import IDENTITY, align_pair, candidate_pairs

COVERAGE = 0.8  # share of a test sequence that must be aligned
COSINE = 0.95  # of centred embeddings of near copies
NEAREST = 3  # candidates of each test sequence that are aligned
BLOCK = 10_000_000  # numbers that are held at once
COLUMNS = ["test", "train", "identity", "coverage", "how"]
NOTE_VARIANTS = (
    "All sequences are variants of one protein, so identity tells nothing: near copies are "
    "variants that differ from a training variant at one position."
)
NOTE_PAIRS = (
    "Of pairs only equal ones, in either order, are near copies; kft.data.pair_classes tells in "
    "which test pairs a protein was seen."
)

Match = tuple[int, int, float, float, str]  # the columns of the table
Search = tuple[Callable[[list, list], Iterable[Match]], list, list]  # of its two lists


def near_copies(
    train: Any,
    test: Any,
    identity: float = IDENTITY,
    coverage: float = COVERAGE,
    embed: Callable[[list], np.ndarray] | None = None,
    cosine: float = COSINE,
) -> pd.DataFrame:
    """Find the test records that have a near copy in training, each with its nearest one.

    Near copies are, in this order: equal records (sequences regardless of case and gaps, images by
    their pixels, rows of a table of at least two columns); similar sequences, which share 6-mers
    and are then aligned; images that look alike (resized, compressed, of another brightness);
    records whose embeddings are close, if `embed` is given; and records of a group that is in
    training too, if `train` and `test` have groups.

    If all sequences are variants of one protein, nearly all have an identity above 90%. Then near
    copies are the variants that differ from a training variant at one position.

    Args:
        train: List of training inputs, or a `kft.data.Split`, which also has groups.
        test: List of test inputs, or a `kft.data.Split`.
        identity: Least identity of two sequences, from 0 to 1: equal residues of their alignment
            by the length of the shorter one.
        coverage: Least share of the test sequence that is aligned, from 0 to 1.
        embed: Function of a list of inputs that returns their embeddings (N, D), such as
            `functools.partial(kft.embed, backbone)`; None compares no embeddings.
        cosine: Least cosine of two embeddings, from which the mean of those of training is
            subtracted.

    Returns:
        Table with one row per test record that has a near copy: test and train (positions from 0),
        identity (of images the correlation of small copies, of embeddings the cosine, of groups
        NaN), coverage (of sequences and equal records, else NaN) and how ("equal", "alignment",
        "substitution", "image", "embedding" or "group"). `attrs["note"]` is a sentence if all
        sequences are variants of one protein, else "".

    Raises:
        ImportError: biotite, which aligns sequences, is missing.
        TypeError: The inputs of `train` and `test` are of different kinds.
        ValueError: A limit is not between 0 and 1, or `embed` returns arrays of a wrong shape.

    Example:
        >>> found = near_copies(["GIGKFLHSAKKF", "MKTAYIAKQRLLGDFF"], ["MKTAYIAKQRLLGDFW", "WWWW"])
        >>> found.values.tolist()
        [[0, 1, 0.9375, 1.0, 'alignment']]
    """
    for name, limit in {"identity": identity, "coverage": coverage, "cosine": cosine}.items():
        check_share(name, limit)
    seen, new = listed_inputs(train, "train"), listed_inputs(test, "test")
    searches, note = _searches(seen, new, identity, coverage) if seen and new else ([], "")
    if embed is not None and seen:
        searches.append((partial(_close_embeddings, embed=embed, cosine=cosine), seen, new))
    matches: list[Match] = []
    rest = np.arange(len(new))
    for search, known, wanted in searches:
        found = list(search(known, [wanted[i] for i in rest])) if len(rest) else []
        matches += [(int(rest[i]), *match) for i, *match in found]  # type: ignore[misc]
        rest = np.delete(rest, [match[0] for match in found])
    groups = [getattr(part, "groups", None) for part in (train, test)]
    if groups[0] is not None and groups[1] is not None:
        matches += _of_known_groups(groups[0], groups[1], rest)
    table = pd.DataFrame(matches, columns=COLUMNS).sort_values("test", ignore_index=True)
    table.attrs["note"] = note
    return table.astype({"test": int, "train": int, "identity": float, "coverage": float})


def _searches(
    train: list, test: list, identity: float, coverage: float
) -> tuple[list[Search], str]:
    """Return the searches that suit the kind of the inputs, and what is to be said about them."""
    kinds = {kind_of(train), kind_of(test)}
    if len(kinds) > 1:
        raise TypeError(
            f"train and test must hold inputs of one kind, received {' and '.join(sorted(kinds))}s."
        )
    if kinds == {InputKind.IMAGE}:
        return [(_similar_images, train, test)], ""
    if kinds <= {InputKind.ROW, InputKind.TABLE}:
        return [(_equal, [*map(_row_key, train)], [*map(_row_key, test)])], ""
    if kinds == {InputKind.PAIR}:
        return [(_equal, [*map(compared_pair, train)], [*map(compared_pair, test)])], NOTE_PAIRS
    forms = [*map(compared, train)], [*map(compared, test)]
    if all(forms[0]) and all(forms[1]) and are_variants([*forms[0], *forms[1]]):
        return [(_equal, *forms), (_near_variants, *forms)], NOTE_VARIANTS
    aligned = partial(_aligned, identity=identity, coverage=coverage)
    return [(_equal, *forms), (aligned, *forms)], ""


def _row_key(row: Any) -> Any:
    """Return what is equal for equal rows; None for one column: equal numbers are no copies."""
    values = sorted(row.items()) if isinstance(row, dict) else np.ravel(row).tolist()
    return repr(values) if len(values) > 1 else None


def _equal(train: list, test: list) -> Iterator[Match]:
    first = {key: i for i, key in reversed(list(enumerate(train)))}
    for i, key in enumerate(test):
        if key and key in first:
            yield i, first[key], 1.0, 1.0, "equal"


def _aligned(train: list, test: list, identity: float, coverage: float) -> Iterator[Match]:
    """Align each test sequence with those of training that share most of its k-mers."""
    parts = np.repeat([0, 1], [len(train), len(test)])
    pairs = candidate_pairs([*train, *test], parts)  # first is of training, second of test
    pairs = pairs.sort_values(["second", "shared"], ascending=[True, False], kind="stable")
    pairs = pairs.groupby("second").head(NEAREST)
    for second, rows in _shown(list(pairs.groupby("second")["first"]), "aligning"):
        i = int(second) - len(train)
        several = [(align_pair(train[j], test[i]), j) for j in rows]
        near = [(a, j) for a, j in several if a.identity >= identity and a.coverage >= coverage]
        if near:
            best, j = max(near, key=lambda found: found[0].identity)
            yield i, j, *best, "alignment"


def _near_variants(train: list, test: list) -> Iterator[Match]:
    """Compare variants of one protein by the positions at which they differ."""
    known, new = (np.array([[*form.encode()] for form in part], "uint8") for part in (train, test))
    size = known.shape[1]
    varied = (np.vstack([known, new]) != known[0]).any(axis=0)
    known, new = known[:, varied], new[:, varied]
    for i, row in enumerate(_shown(list(new), "comparing variants")):
        differences = (known != row).sum(axis=1)
        j = int(differences.argmin())
        if differences[j] <= 1:
            yield i, j, 1 - differences[j] / size, 1.0, "substitution"


def _similar_images(train: list, test: list) -> Iterator[Match]:
    """Compare the pixels of images, and the small grey copies of those that are not equal."""
    seen = looks(_shown([*train, *test], "looking at images"))
    known, new = seen[: len(train)], seen[len(train) :]
    equal = list(_equal([look.digest for look in known], [look.digest for look in new]))
    yield from equal
    rest = np.setdiff1d(np.arange(len(new)), [match[0] for match in equal])
    others = _centred([new[i] for i in rest])
    for i, j, correlation, coverage, how in _nearest(_centred(known), others, ALIKE, "image"):
        yield int(rest[i]), j, correlation, coverage, how


def _centred(seen: Sequence[Look]) -> np.ndarray:
    """Return the small copies of images minus their means, 0 for images that cannot be read."""
    nothing = np.zeros((SMALL, SMALL), dtype="uint8")
    small = [nothing if look.small is None else look.small for look in seen]
    rows = np.array(small, dtype="float32").reshape(len(small), SMALL * SMALL)
    return rows - rows.mean(axis=1, keepdims=True)


def _close_embeddings(
    train: list, test: list, embed: Callable[[list], np.ndarray], cosine: float
) -> Iterator[Match]:
    known, new = (np.asarray(embed(part), dtype="float32") for part in (train, test))
    expected = [(len(part), known.shape[-1]) for part in (train, test)]
    if [known.shape, new.shape] != expected:
        raise ValueError(
            f"embed must return arrays (N, D), for train and test {expected[0]} and {expected[1]}, "
            f"received {known.shape} and {new.shape}."
        )
    middle = known.mean(axis=0)
    return _nearest(known - middle, new - middle, cosine, "embedding")


def _nearest(known: np.ndarray, new: np.ndarray, least: float, how: str) -> Iterator[Match]:
    """Find the row of `known` with the largest cosine to each row of `new`, block by block."""
    known, new = (
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        for rows in (known, new)
    )
    step = max(1, BLOCK // len(known))
    for start in range(0, len(new), step):
        cosines = new[start : start + step] @ known.T  # (test, train)
        nearest = cosines.argmax(axis=1)
        for i, j in enumerate(nearest):
            if cosines[i, j] >= least:
                yield start + i, int(j), min(1.0, float(cosines[i, j])), np.nan, how


def _of_known_groups(train: Sequence, test: Sequence, rows: np.ndarray) -> Iterator[Match]:
    first = {str(group): i for i, group in reversed(list(enumerate(train)))}
    for i in rows:
        if str(test[i]) in first:
            yield int(i), first[str(test[i])], np.nan, np.nan, "group"


def _shown(steps: Sequence, label: str) -> Iterator[Any]:
    """Go through steps with a bar of progress, on a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(steps, label, console=console, transient=True, disable=not console.is_terminal)
