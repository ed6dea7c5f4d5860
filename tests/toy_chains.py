"""Chains of a helix with targets of their structure: torsions, contacts, distograms."""

import numpy as np

from kft import structure
from kft.data import Dataset, Split
from kft.data.proteins import chains

CHAINS = ["MKTAYIAKQRQISF", "GAGAVLK", "ACDEFGHIK", "WVLIMAKR"]
ABOUT = dict.fromkeys(("source", "licence", "citation", "checksum"), "")


def coordinates(sequence):
    """A wide helix, whose torsions vary with the residues: residues six apart touch."""
    turned = np.array([[0.05 * (ord(letter) % 5), 0.0, 0.0] for letter in sequence])
    return structure.rebuild(np.deg2rad([-95.0, -60.0, 180.0]) + turned)


def split_of(target, sequences=CHAINS):
    """The chains with their targets and masks."""
    pairs = [chains._target(target, x, coordinates(x)) for x in sequences]
    about = [(f"C{i}", coordinates(x)) for i, x in enumerate(sequences)]
    return Split(
        sequences,
        [values for values, _ in pairs],
        masks=[mask for _, mask in pairs],
        parameters=np.array(about, dtype=[("name", "U8"), ("coordinates", "O")]),
    )


def data_of(target):
    """A data set like "chains", whose splits are all the same."""
    task, classes = chains.TARGETS[target]
    part = split_of(target)
    return Dataset("toy", task, part, part, part, classes=classes, **ABOUT)
