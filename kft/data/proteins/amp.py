"""Antimicrobial and other peptides: a small data set that needs no network."""

import hashlib
from collections.abc import Sequence
from importlib import metadata, resources

import numpy as np

from kft.data.dataset import Dataset, Split
from kft.data.splits import KMER, SHARED, cluster_split
from kft.data.task import Task

CITATION = (
    "Mueller et al. 2017, modlAMP: Python for antimicrobial peptides, Bioinformatics 33:2753, "
    "doi 10.1093/bioinformatics/btx285; antimicrobial peptides from APD3, Wang et al. 2016, "
    "Nucleic Acids Research 44:D1087, doi 10.1093/nar/gkv1278"
)


def load_amp(fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Dataset:
    """Load antimicrobial peptides (class 1) and UniProt peptides (class 0), split by cluster.

    The file is part of the package modlamp, so no network is needed. Repeated peptides are kept
    once. Peptides in both classes are removed, since it is not known which label is right.

    Args:
        fractions: Fractions of train, valid and test.
        seed: Seed of the split. 0 gives the split of the published numbers.

    Returns:
        A classification. The groups are clusters of similar peptides, and the checksum is that of
        modlamp's CSV file.

    Raises:
        FileNotFoundError: The file is missing in the installed modlamp.
        ValueError: The file has another layout than expected.

    Source: see `CITATION`.

    Example:
        >>> data = load_amp()
        >>> data.classes
        ('UniProt', 'antimicrobial')
    """
    content, version = _read_modlamp()
    labels, rows, counts = _labels_by_peptide(content)
    peptides = [peptide for peptide, found in labels.items() if len(found) == 1]
    targets = np.array([min(labels[peptide]) for peptide in peptides], dtype=np.int32)
    parts, clusters = cluster_split(peptides, fractions, seed, stratify=targets)
    everything = Split(peptides, targets, groups=clusters)
    notes = (
        f"{rows - len(labels):,} of the {rows:,} rows repeat a peptide and were removed.",
        f"{len(labels) - len(peptides):,} peptides carry both labels and were removed.",
        _note_on_split(clusters, seed),
        _note_on_shortcut(peptides, targets),
    )
    return Dataset(
        name="amp",
        task=Task.CLASSIFICATION,
        train=everything.take(parts["train"]),
        valid=everything.take(parts["valid"]),
        test=everything.take(parts["test"]),
        source=f"AMPvsUniProt.csv of modlamp {version}: {counts[1]:,} antimicrobial peptides of "
        f"APD3 (January 2016) and {counts[0]:,} peptides drawn from UniProt",
        licence="BSD-3-Clause (modlamp)",
        citation=CITATION,
        checksum=hashlib.sha256(content).hexdigest(),
        classes=("UniProt", "antimicrobial"),
        notes=notes,
    )


def _note_on_split(clusters: np.ndarray, seed: int) -> str:
    return (
        f"Split by cluster, seed {seed}: peptides that share {SHARED:.0%} of the {KMER}-mers of "
        f"the shorter one are in one split; {len(clusters):,} peptides form {clusters.max() + 1:,} "
        f"clusters, the largest of {np.bincount(clusters).max():,}."
    )


def _note_on_shortcut(peptides: Sequence[str], targets: np.ndarray) -> str:
    begins_with_m = np.array([peptide[0] == "M" for peptide in peptides])
    return (
        f"Possible shortcut: {begins_with_m[targets == 0].mean():.0%} of the UniProt and "
        f"{begins_with_m[targets == 1].mean():.0%} of the antimicrobial peptides begin with M."
    )


def _read_modlamp() -> tuple[bytes, str]:
    """Return the bytes of the file and the version, without importing modlamp."""
    try:
        version = metadata.version("modlamp")
        file = resources.files("modlamp") / "data" / "AMPvsUniProt.csv"
        return file.read_bytes(), version
    except (metadata.PackageNotFoundError, ModuleNotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(
            "the data set 'amp' is the file data/AMPvsUniProt.csv of the package modlamp, which "
            f"was not found ({error}). Run `pip install modlamp`."
        ) from error


def _labels_by_peptide(content: bytes) -> tuple[dict[str, set[int]], int, list[int]]:
    """Return {peptide: set of its labels}, the number of rows, and the number of each label."""
    header, *lines = content.decode("ascii").splitlines()
    if header.split(",")[2:] != ["UniProt", "AMP"]:  # the names of labels 0 and 1
        raise ValueError(
            "modlamp's AMPvsUniProt.csv must begin with a line that ends in 'UniProt,AMP', "
            f"received {header!r}. Install modlamp 4.3.3, for which this was written."
        )
    labels: dict[str, set[int]] = {}
    counts = [0, 0]
    for line in filter(None, lines):
        peptide, label = line.split(",")
        labels.setdefault(peptide.strip(), set()).add(int(label))
        counts[int(label)] += 1
    return labels, sum(counts), counts
