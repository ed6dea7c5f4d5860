"""Checks of images: files, sizes, channels, brightness, near-duplicates.

Equal images are found with other equal records (`kft.exploration.duplicates`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from kft.exploration.findings import Finding, error, info, warning
from kft.exploration.looks import Look
from kft.exploration.pairs import count_by_splits, sharing_pairs, splits_in_words
from kft.exploration.records import Records

BITS_APART = 10  # bits of the hash in which near-duplicates may differ
ALIKE = 0.99  # correlation of the small copies of near-duplicates
DIM = 0.02  # deviation, as a share of the range, below which an image shows nothing


def unreadable(records: Records) -> Iterator[Finding]:
    """Find files that are not complete images."""
    rows = [i for i, look in enumerate(records.looks) if look.problem]
    if rows:
        yield error(
            "unreadable-images", records.name,
            {"records": len(rows), "first": records.looks[rows[0]].problem},
            "Images cannot be read, so training would stop at them.",
            "Copy or export them again, or leave the records out.",
            rows,
        )  # fmt: skip


def sizes(records: Records) -> Iterator[Finding]:
    """Report sizes, and shapes that differ."""
    counts = Counter(f"{look.width} x {look.height}" for look in _readable(records))
    if not counts:
        return
    ratios = [look.width / look.height for look in _readable(records)]
    make = info if max(ratios) < 2 * min(ratios) else warning
    several = len(counts) > 1
    yield make(
        "image-sizes-differ" if several else "image-sizes", records.name,
        {"sizes": dict(counts.most_common(10)), "different": len(counts)},
        "Images have several sizes." if several else "All images have one size.",
        "They are resized to one size: pad, or crop, if the shape matters."
        if several else "Choose an image_size near it.",
    )  # fmt: skip


def channels(records: Records) -> Iterator[Finding]:
    """Find images with other channels or other bits than the rest."""
    kinds = [
        f"{look.channels} channels, {16 if look.deep else 8} bits" for look in records.looks
        if not look.problem
    ]  # fmt: skip
    counts = Counter(kinds)
    if len(counts) > 1:
        rows = [i for i, look in enumerate(records.looks) if not look.problem]
        rare = {kind for kind, _ in counts.most_common()[1:]}
        yield warning(
            "image-channels-differ", records.name, {"images": dict(counts)},
            "Some images have other channels or other bits than the rest.",
            "Convert them alike; check that the difference does not tell the class.",
            [row for row, kind in zip(rows, kinds, strict=True) if kind in rare],
        )  # fmt: skip


def blank(records: Records) -> Iterator[Finding]:
    """Find images that are of one colour, or nearly."""
    rows = [
        i for i, look in enumerate(records.looks)
        if not look.problem and not look.deep and look.deviation < DIM * 255
    ]  # fmt: skip
    rows += [i for i, look in enumerate(records.looks) if look.deep and look.deviation == 0]
    if rows:
        yield warning(
            "blank-images", records.name, {"records": len(rows)},
            "Images are of one colour, or nearly.",
            "Look at them: they may be failed exposures or placeholders.",
            sorted(rows),
        )  # fmt: skip


def brightness(records: Records) -> Iterator[Finding]:
    """Report the brightness, and images that are much darker or brighter than the rest."""
    means = np.array([look.mean for look in _readable(records)])
    if not len(means):
        return
    low, middle, high = np.quantile(means, [0.05, 0.5, 0.95])
    yield info(
        "image-brightness", records.name,
        {"5%": low, "median": middle, "95%": high, "range": "0 to 255"},
        "This is the mean brightness of the images.",
        "Normalise as the backbone was trained, which kft does.",
    )  # fmt: skip


def near_duplicates(records: Records) -> Iterator[Finding]:
    """Find different images that look alike, across splits if there are splits."""
    first, second = similar_images(records.looks)
    if records.parts is not None:
        across = records.parts[first] != records.parts[second]
        first, second = first[across], second[across]
    if not len(first):
        return
    rows = np.unique(np.concatenate([first, second]))
    evidence = {
        "pairs": len(first),
        "images": len(rows),
        "first pair": [int(first[0]), int(second[0])],
    }
    if records.parts is None:
        yield info(
            "near-duplicate-images", records.name, evidence,
            "Different images look alike (resized, compressed or of another brightness).",
            "Keep them in one split.", rows,
        )  # fmt: skip
    else:
        between = count_by_splits(records.parts, first, second)
        yield warning(
            "near-images-across-splits", records.name,
            {"records by pair of splits": between} | evidence,
            f"Images of different splits look alike ({splits_in_words(between)}), so the score on "
            "one of them is too high.",
            "Keep them in one split, with groups= of the subject, the plate or the film.", rows,
        )  # fmt: skip


def similar_images(seen: list[Look]) -> tuple[np.ndarray, np.ndarray]:
    """Find pairs of different images that look alike.

    Candidates have hashes of which one of four parts of 16 bits is equal, and at most ten bits
    differ. Their small copies must correlate by 0.99. Turned and mirrored copies are not found.

    Args:
        seen: A look at each image.

    Returns:
        Integer arrays (P,), the positions of the first and the second image of each pair.
    """
    hashes = np.array([look.hash for look in seen], dtype=np.uint64)
    usable = np.array([look.small is not None and look.deviation > 0 for look in seen], dtype=bool)
    at = np.flatnonzero(usable)
    words = [
        ((hashes[at] >> np.uint64(16 * part)) & np.uint64(0xFFFF)) + np.uint64(part << 16)
        for part in range(4)
    ]
    words_of_all = np.concatenate(words) if len(at) else np.zeros(0, dtype=np.uint64)
    first, second, _ = sharing_pairs(words_of_all, np.tile(at, 4))
    near = np.bitwise_count(hashes[first] ^ hashes[second]) <= BITS_APART
    pairs = [
        (i, j)
        for i, j in zip(first[near].tolist(), second[near].tolist(), strict=True)
        if seen[i].digest != seen[j].digest and _correlate(seen[i].small, seen[j].small) >= ALIKE
    ]
    return np.array([i for i, _ in pairs], dtype=int), np.array([j for _, j in pairs], dtype=int)


def _correlate(one: np.ndarray | None, other: np.ndarray | None) -> float:
    if one is None or other is None or not one.std() or not other.std():
        return 0.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _readable(records: Records) -> list[Look]:
    return [look for look in records.looks if not look.problem]


CHECKS = [unreadable, sizes, channels, blank, brightness, near_duplicates]
