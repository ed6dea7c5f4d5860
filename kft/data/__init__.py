"""Data sets and readers: `load` a known one by name, or `read_table`, `read_pairs` and others.

`read_segmentation` reads images with the objects that are marked in them.

`spectrogram` computes an image from a gravitational-wave detector's strain.

To add a data set, write a file with a function that returns a `Dataset`, and give it a name with
`register`. Nothing here imports Keras.
"""

from __future__ import annotations

from collections.abc import Callable

from kft.data.dataset import Dataset, Split
from kft.data.energy.cities import load_two_cities
from kft.data.gravitational_waves.chirps import load_gravitational_waves
from kft.data.gravitational_waves.strain import spectrogram
from kft.data.images.digits import load_digits
from kft.data.images.folders import read_images
from kft.data.inputs import Encoder, InputKind
from kft.data.pair_splits import pair_classes, pair_split
from kft.data.pair_tables import read_pairs
from kft.data.proteins.alignments import Alignment, read_alignment
from kft.data.proteins.amp import load_amp
from kft.data.proteins.chains import load_chains
from kft.data.proteins.fasta import Record, read_fasta
from kft.data.proteins.flip import load_gb1, load_secondary_structure
from kft.data.registry import load, names, register, unregister
from kft.data.segmentation.cells import load_cells, simulate_cells
from kft.data.segmentation.dataset import Segmentation
from kft.data.segmentation.reading import read_segmentation
from kft.data.tables import read_csv, read_table
from kft.data.task import Task

__all__ = [
    "Alignment",
    "Dataset",
    "Encoder",
    "InputKind",
    "Record",
    "Segmentation",
    "Split",
    "Task",
    "load",
    "names",
    "pair_classes",
    "pair_split",
    "read_alignment",
    "read_csv",
    "read_fasta",
    "read_images",
    "read_pairs",
    "read_segmentation",
    "read_table",
    "register",
    "simulate_cells",
    "spectrogram",
    "unregister",
]

_OWN: dict[str, Callable[..., Dataset]] = {
    "amp": load_amp,
    "cells": load_cells,
    "chains": load_chains,
    "digits": load_digits,
    "gb1": load_gb1,
    "gravitational_waves": load_gravitational_waves,
    "secondary_structure": load_secondary_structure,
    "two_cities": load_two_cities,
}
for _name, _loader in _OWN.items():
    register(_name)(_loader)
