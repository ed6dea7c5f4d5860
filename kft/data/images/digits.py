"""Handwritten digits of 8 x 8 pixels, which come with scikit-learn."""

import hashlib
from collections.abc import Sequence

import numpy as np

from kft.data.dataset import Dataset, Split
from kft.data.splits import random_split
from kft.data.task import Task

CITATION = (
    "Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning "
    "Repository, doi 10.24432/C50P49; Garris et al. 1994, NIST Form-Based Handprint Recognition "
    "System, NISTIR 5469"
)


def load_digits(fractions: Sequence[float] = (0.7, 0.15, 0.15), seed: int = 0) -> Dataset:
    """Load the 1,797 handwritten digits of scikit-learn. No network is needed.

    Args:
        fractions: Fractions of train, valid and test.
        seed: Seed of the split.

    Returns:
        A classification into "0" to "9". Inputs are uint8 arrays (8, 8). The original values count
        the dark pixels in blocks of 4 x 4, from 0 to 16; they are scaled to 0 to 255 and rounded.

    Source: see `CITATION`.

    Example:
        >>> load_digits().train.inputs[0].shape
        (8, 8)
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    targets = digits.target.astype(np.int32)
    everything = Split(list(images), targets)
    parts = random_split(len(targets), fractions, seed, stratify=targets)
    return Dataset(
        name="digits",
        task=Task.CLASSIFICATION,
        train=everything.take(parts["train"]),
        valid=everything.take(parts["valid"]),
        test=everything.take(parts["test"]),
        source="the test set of the UCI digits, 13 writers, as distributed with scikit-learn",
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        citation=CITATION,
        checksum=hashlib.sha256(images.tobytes()).hexdigest(),
        classes=tuple("0123456789"),
        notes=(
            f"Split at random, seed {seed}, stratified by class.",
            "Possible shortcut: the writers are not known, so digits of one writer are in train, "
            "valid and test, and scores are too high for new writers.",
        ),
    )
