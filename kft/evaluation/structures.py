"""Scores of predicted torsions, contacts and distograms, by chain where pairs are scored.

Precision of contacts as in CASP and Rao et al. 2020 (doi 10.1101/2020.12.15.422761), see
`kft.structure.contact_precision`.

Shapes: `R` resamples, `N` residues or chains, `L` residues of a chain, `K` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from kft.data.task import ANGLES, Task
from kft.structure.scores import contact_precision

Measure = Callable[[np.ndarray], dict[str, np.ndarray]]
UNKNOWN = -1  # class of a pair that is not scored
PRECISIONS = {"precision at L": 1.0, "precision at L/2": 0.5, "precision at L/5": 0.2}
FLOOR = 1e-30  # of a probability in a logarithm, as in kft.losses


def directions(vectors: np.ndarray) -> np.ndarray:
    """Return the angles of predicted vectors.

    Args:
        vectors: Floats (..., 6), the sine and cosine of phi, psi and omega, of any length.

    Returns:
        Array (..., 3) in radians, from -pi to pi.

    Example:
        >>> directions(np.array([0.0, 2.0, 1.0, 0.0, 0.0, -1.0])).round(2).tolist()
        [0.0, 1.57, 3.14]
    """
    return np.arctan2(vectors[..., ::2], vectors[..., 1::2])


def vectors(angles: np.ndarray) -> np.ndarray:
    """Return the unit vectors of angles, the reverse of `directions`.

    Args:
        angles: Floats (..., 3) in radians.

    Returns:
        Array (..., 6).

    Example:
        >>> vectors(np.zeros(3)).tolist()
        [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    """
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(*angles.shape[:-1], -1)


def measure_angles(targets: np.ndarray, predictions: np.ndarray) -> Measure:
    """Return counts (R, N) -> metrics of torsions, each (R,); errors are in degrees.

    Args:
        targets: Radians (N, 3).
        predictions: Vectors (N, 6).

    Raises:
        ValueError: Shapes do not fit together, or a value is NaN.
    """
    expected = (len(targets), 2 * len(ANGLES))
    if targets.shape != (len(targets), len(ANGLES)) or predictions.shape != expected:
        raise ValueError(
            f"targets must be angles (N, 3), and predictions their sines and cosines (N, 6), "
            f"received {targets.shape} and {predictions.shape}."
        )
    apart = targets - directions(predictions)
    if not np.isfinite(apart).all():
        raise ValueError("targets and predictions of torsions must not hold NaN or infinity.")
    cosine = np.cos(apart)
    degrees = np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        total = counts.sum(axis=1)
        found = {"mean cosine": counts @ cosine.mean(axis=1) / total}
        return found | {
            f"MAE {name}": counts @ degrees[:, k] / total for k, name in enumerate(ANGLES)
        }

    return measure


def as_chains(rows: Iterable[np.ndarray]) -> np.ndarray:
    """Return arrays of different sizes, one per chain, as one array (N,) of objects.

    Args:
        rows: The arrays.
    """
    rows = list(rows)
    found = np.empty(len(rows), dtype=object)
    for i, row in enumerate(rows):
        found[i] = row
    return found


def measure_pairs(task: Task, targets: np.ndarray, predictions: np.ndarray) -> Measure:
    """Return counts (R, N) of chains -> metrics of contacts or a distogram, each (R,).

    The log loss, accuracy and likelihood (the geometric mean of the probability of the true class)
    are of all pairs of the chains drawn; a precision is a mean over those that have a contact.

    Args:
        task: "contacts" or "distogram".
        targets: Objects (N,): classes (L, L) of each chain, `UNKNOWN` where a pair is not scored.
        predictions: Objects (N,): probabilities (L, L, K) of each chain.

    Raises:
        ValueError: Shapes do not fit together, or numbers are not probabilities.
    """
    sums = np.zeros((len(targets), 3))  # pairs, their losses, and how many are right
    precisions = {name: np.full(len(targets), np.nan) for name in PRECISIONS}
    for i, (classes, probabilities) in enumerate(zip(targets, predictions, strict=True)):
        probabilities = np.asarray(probabilities)
        if probabilities.shape[:-1] != classes.shape:
            raise ValueError(
                f"predictions of chain {i} must be probabilities (L, L, K) for targets of shape "
                f"{classes.shape}, received {probabilities.shape}."
            )
        first, second = np.triu_indices(len(classes), 1)
        known = classes[first, second] != UNKNOWN
        first, second = first[known], second[known]
        true, some = classes[first, second], probabilities[first, second]  # (P,), (P, K)
        if not (abs(some.sum(axis=-1) - 1) < 1e-3).all():  # also of NaN
            raise ValueError(f"predictions of chain {i} must be probabilities that sum to 1.")
        likelihood = some[np.arange(len(true)), true]
        losses = -np.log(np.maximum(likelihood, FLOOR))
        sums[i] = len(true), losses.sum(), (some.argmax(axis=-1) == true).sum()
        if task == Task.CONTACTS:
            truth = classes == 1, classes != UNKNOWN
            for name, part in PRECISIONS.items():
                precisions[name][i] = contact_precision(
                    probabilities[..., 1], *truth, nearest=1, per_length=part
                )

    def measure(counts: np.ndarray) -> dict[str, np.ndarray]:
        pairs, losses, right = (counts @ sums).T
        loss = losses / pairs
        if task == Task.DISTOGRAM:
            return {"likelihood": np.exp(-loss), "log loss": loss, "accuracy": right / pairs}
        found = {}
        for name, values in precisions.items():
            there = ~np.isnan(values)
            with np.errstate(invalid="ignore"):  # NaN where no chain that was drawn has a contact
                found[name] = counts[:, there] @ values[there] / counts[:, there].sum(axis=1)
        return found | {"log loss": loss}

    return measure
