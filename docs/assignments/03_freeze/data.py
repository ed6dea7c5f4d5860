"""Digits that a network knows, digits that it has never seen, and peptides.

`old_images` and `old_labels` are 8 by 8 pixels of five digits, for the first training. `images`
and `labels` are the same for five other digits: few to train on, and `test_images` with
`test_labels` to judge by. Labels count from 0 to 4; `old_digits` and `new_digits` say which digits they stand for.
`peptides` are sequences with `antimicrobial` 0 or 1, and `test_peptides` with `test_antimicrobial`
belong to other clusters of similar sequences.
"""

import numpy as np
from sklearn.datasets import load_digits

import kft

PER_CLASS = 6  # new images to train on


def data(rng):
    """Which digits are old and new, and which peptides are drawn, follow from the student."""
    digits = load_digits()
    pictures = (digits.images[..., None] / 16).astype("float32")
    order = rng.permutation(10)
    parts = {}
    for part, kinds in (("old", order[:5]), ("new", order[5:])):
        chosen = rng.permutation(np.flatnonzero(np.isin(digits.target, kinds)))
        labels = np.array([list(kinds).index(digit) for digit in digits.target[chosen]])
        parts[part] = pictures[chosen], labels
    images, labels = parts["new"]
    few = np.concatenate([np.flatnonzero(labels == k)[:PER_CLASS] for k in range(5)])
    rest = np.setdiff1d(np.arange(len(labels)), few)
    amp = kft.data.load("amp")
    train, test = (
        part.take(rng.choice(len(part), 160, replace=False)) for part in (amp.train, amp.test)
    )
    return {
        "old_digits": order[:5],
        "new_digits": order[5:],
        "old_images": parts["old"][0],
        "old_labels": parts["old"][1],
        "images": images[few],
        "labels": labels[few],
        "test_images": images[rest],
        "test_labels": labels[rest],
        "peptides": train.inputs,
        "antimicrobial": train.targets,
        "test_peptides": test.inputs,
        "test_antimicrobial": test.targets,
    }
