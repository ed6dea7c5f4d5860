"""The section on a chain that was folded from predictions, perhaps with its true chain."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from kft import structure
from kft.data.proteins.geometry import CONTACT
from kft.messages import count_of
from kft.plots import plot_chain, plot_confidence, plot_contacts, plot_ramachandran
from kft.plots.chain import BANDS, colours_of, trace
from kft.reporting.document import Block, Code, Molecule, Paragraph, Picture, Table, table_of
from kft.reporting.parts import Parts
from kft.structure import Fold, ProteinChain

ALIKE = 0.5  # TM-score above which two chains have the same fold


def in_short(fold: Fold, truth: ProteinChain | None) -> str:
    """Say how certain, and how right, a fold is.

    Args:
        fold: The fold.
        truth: The true chain, or None.
    """
    said = f"{fold.chain.name}, {count_of(len(fold.chain), 'residue')}, was folded"
    if _confidence(fold) is not None:
        said += f" with a mean expected lDDT of {100 * np.nanmean(fold.expected_lddt):.0f}%"
    if truth is not None:
        scores = scores_of(fold, truth)
        said += f"; compared with the true chain its lDDT is {scores['lDDT (%)']:.0f}%"
        said += f" and its TM-score {scores['TM-score']:.2f}"
    return f"{said}."


def scores_of(fold: Fold, truth: ProteinChain) -> dict[str, float]:
    """Compare a fold with the true chain.

    Args:
        fold: The fold.
        truth: The true chain.

    Returns:
        Name of a score -> its value; deviations are in angstrom.
    """
    pair = fold.chain.coordinates[:, 1], truth.coordinates[:, 1]
    return {
        "lDDT (%)": 100 * float(np.nanmean(structure.lddt(*pair))),
        "TM-score": structure.tm_score(*pair),
        "GDT_TS (%)": 100 * structure.gdt_ts(*pair),
        "RMSD (angstrom)": structure.rmsd(*pair),
        "mirrored": structure.is_mirrored(*pair),
        "clashes": structure.clashes(pair[0]),
    }


def blocks(parts: Parts) -> list[Block]:
    """Write the section.

    Args:
        parts: The parts of the report.

    Returns:
        Its blocks; none if there is no fold.
    """
    fold, truth = parts.fold, parts.truth
    if fold is None:
        return []
    written: list[Block] = [Code(fold.chain.sequence), _drawing(fold), _starts(fold)]
    if truth is not None:
        scores = pd.DataFrame([scores_of(fold, truth)])
        written.append(table_of("The chain compared with the true one.", scores))
    torsions = structure.torsions(fold.chain.coordinates)
    if np.isfinite(torsions[:, :2]).all(axis=1).any():
        drawn = plot_ramachandran(torsions, fold.chain.sequence, fold.chain.name)
        written.append(Picture("phi and psi", *drawn))
    return written if truth is None else [*written, *_compared(fold, truth)]


def limits(fold: Fold) -> list[str]:
    """Say what limits a fold.

    Args:
        fold: The fold.
    """
    said = []
    if _confidence(fold) is not None:
        said.append(
            "The expected lDDT is what the predicted distances lead one to expect: where they are "
            "certain and wrong, it is too high."
        )
    if len(fold.energies) > 1 and min(_alike(fold)) < ALIKE:
        said.append(
            "The best starts have ended in different folds: the predictions do not fix one."
        )
    return said


def _confidence(fold: Fold) -> np.ndarray | None:
    """Return the expected lDDT (N,) in percent, None where no distances were predicted."""
    return None if np.isnan(fold.expected_lddt).all() else 100 * fold.expected_lddt


def _alike(fold: Fold) -> list[float]:
    """Return the TM-scores of the other starts to the best."""
    if len(fold.chain) < 3:
        return [1.0] * (len(fold.chains) - 1)
    return [structure.tm_score(x[:, 1], fold.chains[0][:, 1]) for x in fold.chains[1:]]


def _starts(fold: Fold) -> Block:
    if len(fold.energies) == 1:
        return Paragraph(f"Folded from one start, to an energy of {fold.energies[0]:,.1f}.")
    frame = pd.DataFrame({"energy": fold.energies, "TM-score to the best": [1.0, *_alike(fold)]})
    caption = "The best starts of the descent, and how similar their chains are."
    table = table_of(caption, frame)
    rows = tuple((f"{i + 1}", *row) for i, row in enumerate(table.rows))
    return Table(caption, ("start", *table.columns), rows, frozenset({1, 2}))


def _drawing(fold: Fold) -> Molecule:
    chain, confidence = fold.chain, _confidence(fold)
    curves, residues = trace(chain.coordinates)
    labels = [f"{letter}{i}" for i, letter in zip(chain.numbers, chain.sequence, strict=True)]
    if confidence is not None:
        labels = [
            f"{label}, expected lDDT {value:.0f}%"
            for label, value in zip(labels, confidence, strict=True)
        ]
    view = {
        "curves": [curve.round(2).tolist() for curve in curves],
        "residues": [at.tolist() for at in residues],
        "colours": colours_of(confidence, len(chain)),
        "labels": labels,
    }
    legend = tuple((f"expected lDDT {text}%", colour) for _, text, colour in BANDS)
    drawn = plot_chain(chain.coordinates, confidence, chain.name)
    return Molecule("the chain", *drawn, json.dumps(view), legend if confidence is not None else ())


def _compared(fold: Fold, truth: ProteinChain) -> list[Block]:
    """Draw the contacts beside the true ones, and the observed lDDT beside the expected one."""
    written: list[Block] = []
    contacts, known = structure.contacts(truth.coordinates)
    if contacts.any():
        distances, _ = structure.distances(fold.chain.coordinates)
        drawn = plot_contacts(
            -distances, contacts, known, per_length=contacts.sum() / 2 / len(contacts),
            name=fold.chain.name,
            how=f"The likeliest are the nearest pairs of the folded chain, as many as there are "
            f"true contacts, which are nearer than {CONTACT:g} angstrom.",
        )  # fmt: skip
        written.append(Picture("contacts", *drawn))
    confidence = _confidence(fold)
    if confidence is not None:
        observed = 100 * structure.lddt(fold.chain.coordinates[:, 1], truth.coordinates[:, 1])
        drawn = plot_confidence(confidence, observed, fold.chain.name)
        written.append(Picture("expected and observed lDDT", *drawn))
    return written
