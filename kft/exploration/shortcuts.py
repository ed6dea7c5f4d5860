"""Shortcuts: simple properties of sequences and images that tell the target alone.

A model may learn such a property in place of what it is meant to learn: peptides cut from the
beginning of proteins begin with M, images of one class come from one camera.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kft.data.sequences import compared
from kft.exploration.findings import Finding, info, warning
from kft.exploration.records import Kind, Records
from kft.exploration.screens import screen
from kft.exploration.sequences import STANDARD
from kft.messages import listed

SIGNIFICANT = 0.01
STRONG = 0.75  # AUROC or correlation from which a property is named at all
# AUROC or correlation from which a property is called a shortcut. A class may well differ in
# composition or brightness, and must then be told by it nearly alone; it should not differ in the
# first letter or in the kind of file.
LIMITS = {"end": 0.65, "length": 0.8, "composition": 0.95, "file": 0.65, "pixels": 0.95}
MOST_GAIN = 0.5  # of the errors of guessing the largest class, that an ordinary property saves
MAY_DIFFER = ("composition", "pixels")


def shortcuts(records: Records) -> Iterator[Finding]:
    """Screen simple properties of sequences and images for those that tell the target."""
    if records.target is None:
        return
    features = {**_of_sequences(records), **_of_images(records)}
    screens = {name: screen(records, values) for name, (_, values) in features.items()}
    found = {name: result for name, result in screens.items() if result is not None}
    ordinary = {}
    for name in sorted(found, key=lambda name: -found[name].strength):
        result, kind = found[name], features[name][0]
        if result.p * len(found) >= SIGNIFICANT:
            continue
        enough = kind not in MAY_DIFFER or not result.gain < MOST_GAIN
        if result.strength >= LIMITS[kind] and enough:
            yield warning(
                "shortcut", name,
                result.evidence(len(found)) | _shares(records, features[name][1]),
                f"The {name} alone tells much of the target.",
                "Remove it or balance it, compare with a baseline of it alone, and test on data "
                "without it.",
            )  # fmt: skip
        elif result.strength >= STRONG:
            ordinary[name] = result
    if ordinary:
        best = next(iter(ordinary))
        yield info(
            "simple-properties", listed(ordinary), ordinary[best].evidence(len(found)),
            f"Simple properties tell part of the target, the {best} the most.",
            "Use this score as a baseline.",
        )  # fmt: skip


def _shares(records: Records, feature: np.ndarray) -> dict[str, object]:
    """Return the share of each class that has a property that is there or not, as evidence."""
    if not records.has_classes or not set(np.unique(feature)) <= {0.0, 1.0}:
        return {}
    codes, names = records.classes
    codes = codes[records.drawn]
    shares = {str(name): float(feature[codes == k].mean()) for k, name in enumerate(names[:20])}
    return {"share by class": shares}


def _of_sequences(records: Records) -> dict[str, tuple[str, np.ndarray]]:
    """Return properties of sequences by name: first and last letter, length, composition."""
    features: dict[str, tuple[str, np.ndarray]] = {}
    for column in records.of(Kind.SEQUENCE):
        texts = records.inputs[column].iloc[records.drawn]
        forms = [compared(x) if isinstance(x, str) else "" for x in texts]
        of = "" if len(records.of(Kind.SEQUENCE)) == 1 else f" of {column}"
        length = np.array([len(form) for form in forms], dtype=float)
        features[f"length{of}"] = "length", length
        for letter in STANDARD:
            for place, at in {"first": 0, "last": -1}.items():
                has = np.array([bool(form) and form[at] == letter for form in forms], dtype=float)
                features[f"{place} letter {letter}{of}"] = "end", has
            count = np.array([form.count(letter) for form in forms])
            features[f"share of {letter}{of}"] = "composition", count / np.maximum(length, 1)
    return features


def _of_images(records: Records) -> dict[str, tuple[str, np.ndarray]]:
    """Return properties of images by name: size, channels, file, brightness."""
    if not records.of(Kind.IMAGE):
        return {}
    seen = [records.looks[i] for i in records.drawn]
    features: dict[str, tuple[str, np.ndarray]] = {}
    for name in ("width", "height", "channels", "deep", "size"):
        values = np.array([getattr(look, name) for look in seen], dtype=float)
        features["file size" if name == "size" else name] = "file", values
    for suffix in {look.suffix for look in seen}:
        has = np.array([look.suffix == suffix for look in seen], dtype=float)
        features[f"file format {suffix}"] = "file", has
    for name, what in {
        "mean": "mean brightness", "deviation": "contrast", "border": "brightness of the border"
    }.items():  # fmt: skip
        features[what] = "pixels", np.array([getattr(look, name) for look in seen])
    return features


CHECKS = [shortcuts]
