"""Compare a predicted chain with the true one, and predicted contacts with the true ones.

References: lDDT, Mariani et al. 2013, Bioinformatics 29:2722 (by biotite); TM-score, Zhang and
Skolnick 2004, Proteins 57:702; GDT_TS, Zemla 2003, Nucleic Acids Res. 31:3370; precision of
contacts, as in CASP.

Differences from the references: TM-score and GDT_TS look for the best superposition from fragments
of each length L, L/2, L/4, ... at each start, as the TM-score program does; GDT_TS takes the same
superpositions, refined at its own four distances.

Shapes: `N` residues. Coordinates are those of the C-alpha unless said otherwise, in angstrom.
"""

from __future__ import annotations

import numpy as np

from kft.arguments import check_integer
from kft.structure.files import biotite

SHORTEST_FRAGMENT = 4
ROUNDS = 20  # of refining a superposition
GDT_DISTANCES = (1.0, 2.0, 4.0, 8.0)
# Residues from one to the other of a pair, at least and at most, as in CASP.
RANGES: dict[str, tuple[int, int | None]] = {
    "all": (6, None),
    "medium": (12, 23),
    "long": (24, None),
}
PARTS = {"L": 1.0, "L/2": 0.5, "L/5": 0.2}  # likeliest pairs that are taken, by length of the chain
CLASH = 3.0  # angstrom between two C-alpha; bonded ones are 3.8 apart, 2.9 if cis


def rmsd(predicted: np.ndarray, true: np.ndarray) -> float:
    """Compute the root mean square deviation after the best superposition.

    Args:
        predicted: Floats (N, 3).
        true: Floats (N, 3); residues that are NaN are left out.

    Returns:
        float: In angstrom.

    Raises:
        ValueError: Shapes differ, `predicted` holds NaN, or fewer than 3 residues are known.

    Source: Kabsch 1976, Acta Cryst. A32:922.

    Example:
        >>> chain = np.random.default_rng(0).normal(size=(10, 3))
        >>> round(rmsd(chain + 5.0, chain), 6)
        0.0
    """
    predicted, true = _checked(predicted, true)
    moved = _superimposed(predicted[None], true[None], np.ones((1, len(true)), bool))[0]
    return float(np.sqrt(np.square(moved - true).sum(-1).mean()))


def lddt(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Compute the lDDT of each residue, which needs no superposition.

    It is the fraction of distances of up to 15 angstrom that are kept to within 0.5, 1, 2 and 4
    angstrom, averaged over the four. A mirror image has the same lDDT.

    Args:
        predicted: Floats (N, 3).
        true: Floats (N, 3); NaN where a residue is unknown.

    Returns:
        float64 array (N,), from 0 to 1; NaN where a residue is unknown.

    Raises:
        ImportError: biotite is not installed.
        ValueError: As in `rmsd`.

    Source: Mariani et al. 2013.

    Example:
        >>> chain = np.cumsum(np.ones((10, 3)), axis=0)
        >>> lddt(chain, chain).mean()  # doctest: +SKIP
        1.0
    """
    shape = np.asarray(true).shape
    known = np.isfinite(np.asarray(true, dtype="float64")).all(-1) if len(shape) == 2 else None
    predicted, true = _checked(predicted, true)
    values = np.full(shape[0], np.nan)
    values[known] = biotite("structure").lddt(
        true, predicted, aggregation=np.arange(len(true)), exclude_same_residue=False
    )
    return values


def tm_score(predicted: np.ndarray, true: np.ndarray) -> float:
    """Compute the TM-score of a model whose residues are those of the true chain.

    Args:
        predicted: Floats (N, 3).
        true: Floats (N, 3); residues that are NaN are left out.

    Returns:
        float: From 0 to 1; above 0.5 for the same fold. Chains of fewer than about 40 residues
        score low, since the distance scale has a floor of 0.5 angstrom.

    Raises:
        ValueError: As in `rmsd`.

    Source: Zhang and Skolnick 2004.

    Example:
        >>> chain = np.cumsum(np.ones((30, 3)), axis=0)
        >>> round(tm_score(chain, chain), 6)
        1.0
    """
    predicted, true = _checked(predicted, true)
    scale = _tm_scale(len(true))
    squared = _searched(predicted, true, np.array([max(scale, 4.5)]))
    return float((1 / (1 + squared / scale**2)).mean(axis=-1).max())


def gdt_ts(predicted: np.ndarray, true: np.ndarray) -> float:
    """Compute GDT_TS: the mean share of residues within 1, 2, 4 and 8 angstrom.

    Each share is that of the superposition that is best for it.

    Args:
        predicted: Floats (N, 3).
        true: Floats (N, 3); residues that are NaN are left out.

    Returns:
        float: From 0 to 1.

    Raises:
        ValueError: As in `rmsd`.

    Source: Zemla 2003.

    Example:
        >>> chain = np.cumsum(np.ones((30, 3)), axis=0)
        >>> gdt_ts(chain, chain)
        1.0
    """
    predicted, true = _checked(predicted, true)
    squared = _searched(predicted, true, np.array(GDT_DISTANCES))
    near = [(squared <= distance**2).mean(axis=-1).max() for distance in GDT_DISTANCES]
    return float(np.mean(near))


def clashes(alpha: np.ndarray, distance: float = CLASH) -> int:
    """Count the pairs of C-alpha that are too near to each other.

    Args:
        alpha: Floats (N, 3).
        distance: In angstrom. Neighbours in sequence are not counted.

    Returns:
        int: Number of pairs.

    Example:
        >>> clashes(np.zeros((4, 3)))
        3
    """
    alpha = np.asarray(alpha, dtype="float64")
    first, second = np.triu_indices(len(alpha), 2)
    return int((np.linalg.norm(alpha[first] - alpha[second], axis=-1) < distance).sum())


def is_mirrored(predicted: np.ndarray, true: np.ndarray) -> bool:
    """Return whether the mirror image of a model fits the true chain better than the model.

    Args:
        predicted: Floats (N, 3).
        true: Floats (N, 3); residues that are NaN are left out.

    Raises:
        ValueError: As in `rmsd`.

    Example:
        >>> chain = np.random.default_rng(0).normal(size=(10, 3))
        >>> is_mirrored(chain * [1, 1, -1], chain)
        True
    """
    return rmsd(np.asarray(predicted) * [1.0, 1.0, -1.0], true) < rmsd(predicted, true)


def contact_precision(
    scores: np.ndarray,
    contacts: np.ndarray,
    known: np.ndarray,
    nearest: int = 6,
    farthest: int | None = None,
    per_length: float = 1.0,
) -> float:
    """Compute the fraction of contacts among the likeliest pairs of one chain.

    Args:
        scores: Floats (N, N), symmetric; the higher, the likelier a contact.
        contacts: bool (N, N), whether a pair is in contact.
        known: bool (N, N), the pairs that count, as `kft.structure.contacts` returns it.
        nearest: Smallest number of residues from one to the other.
        farthest: Largest number of residues from one to the other; None for no limit.
        per_length: The N times `per_length` likeliest pairs are taken, at least one, or all if
            there are fewer: 1 for precision at L, 0.2 for L/5.

    Returns:
        float: NaN if no pair is that far apart, or none of them is in contact.

    Raises:
        ValueError: Shapes differ, or scores of pairs that count are NaN.

    Source: CASP; Rao et al. 2020, doi 10.1101/2020.12.15.422761.

    Example:
        >>> truth = np.zeros((8, 8), bool)
        >>> truth[0, 7] = truth[7, 0] = True
        >>> contact_precision(truth * 1.0, truth, np.ones((8, 8), bool), per_length=1 / 8)
        1.0
    """
    scores, contacts, known = (np.asarray(values) for values in (scores, contacts, known))
    if scores.ndim != 2 or not scores.shape == contacts.shape == known.shape:
        raise ValueError(
            "scores, contacts and known must have the same shape (N, N), received "
            f"{scores.shape}, {contacts.shape} and {known.shape}."
        )
    check_integer("nearest", nearest, 1)
    first, second = np.triu_indices(len(scores), nearest)
    counts = known[first, second]
    if farthest is not None:
        counts &= second - first <= check_integer("farthest", farthest, nearest)
    first, second = first[counts], second[counts]
    values, truth = scores[first, second].astype("float64"), contacts[first, second]
    if np.isnan(values).any():
        raise ValueError(f"scores of {int(np.isnan(values).sum())} pairs are NaN.")
    if not truth.any():
        return float("nan")
    most = max(1, round(per_length * len(scores)))
    return float(truth[np.argsort(-values, kind="stable")[:most]].mean())


def precision_by_range(
    scores: np.ndarray, contacts: np.ndarray, known: np.ndarray
) -> dict[str, float]:
    """Compute the precision of contacts of all, medium and long range, at L, L/2 and L/5.

    Args:
        scores: As for `contact_precision`.
        contacts: As for `contact_precision`.
        known: As for `contact_precision`.

    Returns:
        Name such as "long L/5" -> precision, see `contact_precision`. Pairs of all ranges are at
        least 6 residues apart, of medium range 12 to 23, of long range at least 24.

    Raises:
        ValueError: As for `contact_precision`.

    Example:
        >>> truth = np.zeros((30, 30), bool)
        >>> truth[0, 29] = truth[29, 0] = True
        >>> found = precision_by_range(truth * 1.0, truth, np.ones((30, 30), bool))
        >>> found["long L/5"].__round__(2), found["medium L"]
        (0.17, nan)
    """
    return {
        f"{name} {part}": contact_precision(scores, contacts, known, *limits, share)
        for name, limits in RANGES.items()
        for part, share in PARTS.items()
    }


def _checked(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 arrays (n, 3), of the residues that are known in `true`."""
    predicted, true = (np.asarray(values, dtype="float64") for values in (predicted, true))
    if predicted.shape != true.shape or true.ndim != 2 or true.shape[1] != 3:
        raise ValueError(
            "predicted and true must have the same shape (N, 3), received "
            f"{predicted.shape} and {true.shape}."
        )
    known = np.isfinite(true).all(axis=-1)
    if not np.isfinite(predicted[known]).all():
        raise ValueError("predicted contains NaN or infinity where the true chain is known.")
    if known.sum() < 3:
        raise ValueError(f"at least 3 residues must be known, received {int(known.sum())}.")
    return predicted[known], true[known]


def _tm_scale(length: int) -> float:
    """Return d0 of the TM-score in angstrom."""
    return max(1.24 * np.cbrt(length - 15) - 1.8, 0.5)


def _searched(predicted: np.ndarray, true: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Return squared distances (S, N) of the residues in many superpositions.

    Each begins with a fragment, and is refined with the residues within one of `distances`.
    """
    chosen, length = [], len(true)
    size = length
    while True:
        for start in range(0, length - size + 1, max(1, size // 4)):
            fragment = np.zeros(length, dtype=bool)
            fragment[start : start + size] = True
            chosen.append(fragment)
        if size <= SHORTEST_FRAGMENT:
            break
        size = max(size // 2, SHORTEST_FRAGMENT)
    starts = np.array(chosen)
    found = []
    for distance in distances:
        masks = starts
        for _ in range(ROUNDS):
            mobile, fixed = (np.repeat(x[None], len(masks), axis=0) for x in (predicted, true))
            moved = _superimposed(mobile, fixed, masks)
            squared = np.square(moved - true).sum(axis=-1)
            found.append(squared)
            near = squared <= distance**2
            # Three points fix a superposition: where fewer are near, the nearest three are taken.
            third = np.partition(squared, 2, axis=-1)[:, 2:3]
            again = np.where(near.sum(-1, keepdims=True) < 3, squared <= third, near)
            masks, before = np.unique(again, axis=0), masks
            if np.array_equal(masks, before):
                break
    return np.concatenate(found)


def _superimposed(mobile: np.ndarray, fixed: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Move each of S chains (S, N, 3) onto the other, by the residues in its mask (S, N)."""
    weights = masks[..., None] / masks.sum(axis=1)[:, None, None]
    centre, goal = (np.sum(x * weights, axis=1, keepdims=True) for x in (mobile, fixed))
    covariance = ((mobile - centre) * weights).transpose(0, 2, 1) @ (fixed - goal)  # (S, 3, 3)
    left, _, right = np.linalg.svd(covariance)
    flip = np.ones((len(mobile), 1, 3))
    flip[:, 0, 2] = np.sign(np.linalg.det(left @ right))  # a rotation, never a mirror image
    return (mobile - centre) @ ((left * flip) @ right) + goal
