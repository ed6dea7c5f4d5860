"""Fold a sequence from what models predict: distances, torsions, or both.

References: Senior et al. 2020, Nature 577:706. Differences from the reference: see
`kft.structure.folding`, whose descent this calls; the predictions are those of any backbone.

Shapes: `N` residues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kft.arguments import check_instance
from kft.data.proteins.geometry import BINS
from kft.data.task import Task
from kft.evaluation.structures import directions
from kft.inference.predicting import predict
from kft.params.paths import check_model
from kft.structure.folding import Fold, fold_chain

NEAREST = 2  # residues apart from which a distogram is trained, see `kft.data.load("chains")`


def fold(
    models: keras.Model | Sequence[keras.Model],
    sequence: str,
    starts: int = 8,
    iterations: int = 1000,
    seed: int = 0,
    name: str = "model",
) -> Fold:
    """Predict the distances or torsions of a chain, and find the chain that suits them best.

    Args:
        models: A `kft.Model` with the head `kft.heads.Distogram` (of 64 bins) or
            `kft.heads.Torsions`, or a list of such models; predictions of several with the same
            head are averaged. A distogram alone does not tell a chain from its mirror image, and
            torsions alone do not fix how its parts are placed: give one of each.
        sequence: String of N residues.
        starts: As for `kft.structure.fold_chain`.
        iterations: As for `kft.structure.fold_chain`.
        seed: As for `kft.structure.fold_chain`.
        name: Name of the chain.

    Returns:
        `kft.structure.Fold`. Its `chain`, which `kft.structure.write_structure` writes, has the
        expected lDDT of each residue in percent as confidence, if there is a distogram.

    Raises:
        TypeError: A model is none of Keras, or `sequence` is not a string.
        ValueError: A head is another, the sequence cannot be encoded, or as for
            `kft.structure.fold_chain`.

    Source: Senior et al. 2020.

    Example:
        >>> import kft
        >>> model = kft.Model(kft.load("esm2_t6_8M_UR50D", weights=False), kft.heads.Torsions())
        >>> fold(model, "MKTAYI", starts=1).chain
        ProteinChain 'model' of 6 residues
    """
    check_instance("sequence", sequence, str, "a string of residues")
    check_instance("name", name, str, "a string")
    several: list[Any] = list(models) if isinstance(models, list | tuple) else [models]
    if not several:
        raise ValueError("models must be at least one model, received none.")
    found: dict[str, list[np.ndarray]] = {Task.DISTOGRAM: [], Task.TORSIONS: []}
    for model in several:
        check_model(model, "models")
        task = _checked_task(model)
        model.encode([sequence], names=["sequence"])  # so that errors name the argument
        found[task] += predict(model, [sequence])
    if any(len(rows) != len(sequence) for each in found.values() for rows in each):
        raise ValueError(
            f"sequence must have one letter per residue, received {sequence!r:.40}: write "
            f"residues without spaces and special tokens."
        )
    distogram: np.ndarray | None = None
    angles: np.ndarray | None = None
    concentration: np.ndarray | float = 0.0
    if found[Task.DISTOGRAM]:
        distogram = np.mean(found[Task.DISTOGRAM], axis=0, dtype="float64")
        distogram[_apart(len(sequence)) < NEAREST] = np.nan
    if found[Task.TORSIONS]:
        vectors = np.mean(found[Task.TORSIONS], axis=0, dtype="float64")
        angles, concentration = directions(vectors), np.hypot(vectors[:, ::2], vectors[:, 1::2])
    options: Any = (starts, iterations, seed, name)
    return fold_chain(sequence, distogram, angles, concentration, *options)


def _apart(count: int) -> np.ndarray:
    number = np.arange(count)
    return abs(number[:, None] - number)


def _checked_task(model: Any) -> str:
    """Return the task of a model that can fold."""
    head: Any = getattr(model, "head", None)
    task = getattr(head, "task", None)
    if task == Task.TORSIONS or (task == Task.DISTOGRAM and head.units == BINS):
        return task
    raise ValueError(
        f"models must have the head kft.heads.Distogram of {BINS} bins or kft.heads.Torsions, "
        f"received one of {type(head).__name__}{f' for {task}' if task else ''}."
    )
