"""Two tasks of the FLIP benchmark, GB1 fitness and secondary structure, as published."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kft.data import fetch
from kft.data.dataset import Dataset, Split
from kft.data.proteins.fasta import Record, parse_fasta
from kft.data.splits import PARTS
from kft.data.task import Task

# Pinned to a commit, so that the file behind an address never changes.
BASE_URL = "https://github.com/J-SNACKKB/FLIP/raw/62cace8735f5610e2743cf06ce0f944b37fffaa6/splits"
SHA256 = {
    "gb1": "00a3c3d5be56ce35adfbec838db8ff549be369525e151a6978133da34b9fd86f",
    "secondary_structure": "2e9bbbfd18a055bcac7edd4e059a6bf4bb35ca3ad8f8fa4fc3106422652a4726",
}
FLIP = "Dallago et al. 2021, FLIP, bioRxiv 2021.11.09.467890, doi 10.1101/2021.11.09.467890"

# Protein G, domain B1, wild type. The construct of FLIP (PDB 5LDE, chain A) continues with a linker
# and another protein, which are not part of the experiment.
GB1_DOMAIN = "MQYKLILNGKTLKGETTTEAVDAATAEKVFKQYANDNGVDGEWTYDDATKTFTVTE"


def load_gb1(split: str = "three_vs_rest", crop: bool = False) -> Dataset:
    """Load the measured binding fitness of variants of protein GB1, mutated at four positions.

    The target is the fitness of a variant relative to the wild type, which has 1. In
    "three_vs_rest", models are trained on variants with up to three mutations and tested on those
    with four.

    Args:
        split: A split published by FLIP: "three_vs_rest", "one_vs_rest", "two_vs_rest",
            "low_vs_high" or "sampled".
        crop: True keeps the 56 residues of the GB1 domain, which contains the mutated positions;
            False keeps the 265 residues of the construct.

    Returns:
        A regression. `variable_positions` are the four mutated positions, counted from 0.

    Raises:
        ValueError: The split is unknown, or the file found is not the published one.
        ConnectionError: The file is not on this machine and could not be downloaded.

    Source: Dallago et al. 2021 (FLIP); Wu et al. 2016, eLife 5:e16965.

    Example:
        >>> load_gb1(crop=True).variable_positions  # doctest: +SKIP
        (38, 39, 40, 53)
    """
    path, url = _find("gb1")
    with zipfile.ZipFile(path) as archive:
        rows = _read_table(archive, split)
    sequences = [row["sequence"] for row in rows]
    notes = [f"Split {split!r} as published, validation records drawn from its training set."]
    wild_type = next(sequence for sequence in sequences if GB1_DOMAIN in sequence)
    if crop:
        start = wild_type.index(GB1_DOMAIN)
        sequences = [sequence[start : start + len(GB1_DOMAIN)] for sequence in sequences]
        cropped = f"Cropped to the GB1 domain, {len(GB1_DOMAIN)} of {len(wild_type)} residues"
        notes.append(f"{cropped}; the rest is the same in all variants.")
    targets = np.array([float(row["target"]) for row in rows])
    parts = [_part(row["set"], row["validation"]) for row in rows]
    train, valid, test = _by_part(Split(sequences, targets), parts)
    return Dataset(
        name="gb1",
        task=Task.REGRESSION,
        train=train,
        valid=valid,
        test=test,
        source=url,
        licence="Academic Free License 3.0 (FLIP); measurements CC BY 4.0 (Wu et al. 2016)",
        citation=f"{FLIP}; Wu et al. 2016, eLife 5:e16965, doi 10.7554/eLife.16965",
        checksum=SHA256["gb1"],
        notes=tuple(notes),
        variable_positions=_variable_positions(sequences),
        wild_type=GB1_DOMAIN if crop else wild_type,
    )


def load_secondary_structure() -> Dataset:
    """Load protein chains with the secondary structure of each residue, in three classes.

    Residues that are not resolved in the crystal have the label C in the file. They are False in
    `masks`, so that losses and scores leave them out.

    Returns:
        A residue classification into C (coil), E (strand) and H (helix), with masks.

    Raises:
        ValueError: The file found is not the published one.
        ConnectionError: The file is not on this machine and could not be downloaded.

    Source: Dallago et al. 2021 (FLIP); Klausen et al. 2019 (NetSurfP-2.0).

    Example:
        >>> load_secondary_structure().classes  # doctest: +SKIP
        ('C', 'E', 'H')
    """
    classes = ("C", "E", "H")
    path, url = _find("secondary_structure")
    with zipfile.ZipFile(path) as archive:
        sequences, labels, resolved = (
            {record.id: record for record in _read_fasta(archive, name)}
            for name in ("sequences.fasta", "sampled.fasta", "mask.fasta")
        )
    parts, targets, masks = [], [], []
    for name in sequences:
        attributes = dict(word.split("=") for word in labels[name].name.split()[1:])
        parts.append(_part(attributes["SET"], attributes["VALIDATION"]))
        targets.append(_positions(labels[name].sequence, classes))
        masks.append(_positions(resolved[name].sequence, ("0", "1")) == 1)
    chains = [record.sequence for record in sequences.values()]
    unresolved = 1 - np.concatenate(masks).mean()
    train, valid, test = _by_part(Split(chains, targets, masks=masks), parts)
    return Dataset(
        name="secondary_structure",
        task=Task.RESIDUE_CLASSIFICATION,
        train=train,
        valid=valid,
        test=test,
        source=url,
        licence="Academic Free License 3.0 (FLIP); structures CC0 (PDB)",
        citation=f"{FLIP}; Klausen et al. 2019, NetSurfP-2.0, Proteins 87:520, "
        "doi 10.1002/prot.25674; test chains Elnaggar et al. 2021, ProtTrans, "
        "doi 10.1109/TPAMI.2021.3095381",
        checksum=SHA256["secondary_structure"],
        classes=classes,
        notes=(
            "Split 'sampled' as published.",
            f"{unresolved:.1%} of the residues are not resolved: labelled C, False in masks.",
        ),
    )


def _find(name: str) -> tuple[Path, str]:
    url = f"{BASE_URL}/{name}/splits.zip"
    return fetch.find(f"flip/{name}/splits.zip", url, SHA256[name]), url


def _read_table(archive: zipfile.ZipFile, split: str) -> list[dict[str, str]]:
    """Read the rows of one split of GB1: sequence, target, set, validation."""
    tables = {name[7:-4] for name in archive.namelist() if name.endswith(".csv")}  # splits/X.csv
    if split not in tables:
        raise ValueError(
            f"`split` of gb1 must be one of {', '.join(sorted(tables))}; received {split!r}."
        )
    with archive.open(f"splits/{split}.csv") as file:
        return list(csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")))


def _read_fasta(archive: zipfile.ZipFile, name: str) -> Iterator[Record]:
    with archive.open(f"splits/{name}") as file:
        yield from parse_fasta(io.TextIOWrapper(file, encoding="utf-8"), name)


def _part(which: str, validation: str) -> str:
    """Return the part of a record: FLIP marks validation records inside of the training set."""
    return "valid" if which == "train" and validation == "True" else which


def _by_part(everything: Split, parts: Sequence[str]) -> list[Split]:
    """Split into train, valid and test."""
    return [everything.take(np.flatnonzero(np.array(parts) == name)) for name in PARTS]


def _positions(letters: str, classes: Sequence[str]) -> np.ndarray:
    """Return the position in `classes` of each of N letters, int32 (N,)."""
    codes = np.frombuffer(letters.encode(), dtype=np.uint8)
    table = np.full(256, -1, dtype=np.int32)  # `Dataset` raises an error for -1
    table[[ord(name) for name in classes]] = np.arange(len(classes))
    return table[codes]


def _variable_positions(sequences: Sequence[str]) -> tuple[int, ...]:
    residues = np.array([list(sequence) for sequence in sequences])  # (variants, residues)
    return tuple(np.flatnonzero((residues != residues[0]).any(axis=0)).tolist())
