"""Structures of proteins: geometry, contacts, co-evolution and scores. Nothing here imports Keras.

Coordinates are in angstrom, angles in radians.
"""

from __future__ import annotations

from kft.data.proteins.geometry import (
    bond_geometry,
    contacts,
    dihedral,
    distances,
    distogram,
    place_beta,
    rebuild,
    torsions,
)
from kft.structure.coevolution import (
    average_product_correction,
    direct_couplings,
    mutual_information,
    sequence_weights,
)
from kft.structure.files import ProteinChain, read_structure, write_structure
from kft.structure.folding import Fold, fold_chain, smoothed_distogram
from kft.structure.potts import simulate_family
from kft.structure.scores import (
    PARTS,
    RANGES,
    clashes,
    contact_precision,
    gdt_ts,
    is_mirrored,
    lddt,
    precision_by_range,
    rmsd,
    tm_score,
)

__all__ = [
    "PARTS",
    "RANGES",
    "Fold",
    "ProteinChain",
    "average_product_correction",
    "bond_geometry",
    "clashes",
    "contact_precision",
    "contacts",
    "dihedral",
    "direct_couplings",
    "distances",
    "distogram",
    "fold_chain",
    "gdt_ts",
    "is_mirrored",
    "lddt",
    "mutual_information",
    "place_beta",
    "precision_by_range",
    "read_structure",
    "rebuild",
    "rmsd",
    "sequence_weights",
    "simulate_family",
    "smoothed_distogram",
    "tm_score",
    "torsions",
    "write_structure",
]
