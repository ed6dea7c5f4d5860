"""Geometry of protein backbones: torsions, reconstruction, distances, contacts and distograms.

References: bins of distances and torsions, AlphaFold (Senior et al. 2020, Nature 577:706; Jumper et
al. 2021, supplement 1.9.8); position of the C-beta, trRosetta (Yang et al. 2020, PNAS 117:1496);
reconstruction from torsions, NeRF (Parsons et al. 2005, J. Comput. Chem. 26:1063).

Nothing is computed across a break of the backbone: torsions there are NaN, and pairs of residues on
either side are False in the masks.

Shapes: `N` residues; the three atoms of a residue are N, CA and C. Angstrom and radians.
"""

from __future__ import annotations

import numpy as np

from kft.arguments import check_integer, check_number_above
from kft.data.proteins.dssp import bonded

CONTACT = 8.0  # angstrom between two CB in contact
SEPARATION = 6  # residues apart from which a contact says something about the fold
BINS = 64
BOUNDARIES = np.linspace(2.3125, 21.6875, BINS - 1)  # angstrom between the bins of a distogram
# Ideal bonds N-CA, CA-C, C-N and angles at CA, C, N: Engh and Huber 1991, Acta Cryst. A47:392.
LENGTHS = np.array([1.458, 1.525, 1.329])
ANGLES = np.deg2rad([111.2, 116.2, 121.7])


def place_beta(coordinates: np.ndarray) -> np.ndarray:
    """Place the C-beta of each residue from N, CA and C, for glycine too.

    Args:
        coordinates: Floats (N, 3, 3), N, CA and C in angstrom; NaN where an atom is missing.

    Returns:
        float64 array (N, 3) in angstrom; NaN where an atom is missing.

    Source: Yang et al. 2020.

    Example:
        >>> ideal = np.array([[[-0.53, 1.36, 0.0], [0.0, 0.0, 0.0], [1.52, 0.0, 0.0]]])
        >>> float(np.linalg.norm(place_beta(ideal) - ideal[:, 1]).round(1))
        1.5
    """
    n, ca, c = _checked(coordinates).transpose(1, 0, 2)
    to_ca, to_c = ca - n, c - ca
    return -0.58273431 * np.cross(to_ca, to_c) + 0.56802827 * to_ca - 0.54067466 * to_c + ca


def pieces(coordinates: np.ndarray) -> np.ndarray:
    """Number the pieces of a chain between its breaks.

    Args:
        coordinates: Floats (N, 3, 3) as in `place_beta`. A missing C or N is a break too.

    Returns:
        int array (N,), from 0.

    Example:
        >>> chain = np.zeros((3, 3, 3))
        >>> chain[2] = 5.0
        >>> pieces(chain).tolist()
        [0, 0, 1]
    """
    return np.concatenate([[0], np.cumsum(~bonded(_checked(coordinates)))])[: len(coordinates)]


def distances(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the distances between the C-beta of all residues.

    Args:
        coordinates: Floats (N, 3, 3) as in `place_beta`.

    Returns:
        Two arrays (N, N): distances in angstrom, float64, 0 where one is unknown; bool, False
        where an atom is missing, or a break lies between the two residues.

    Example:
        >>> values, known = distances(np.zeros((2, 3, 3)))
        >>> values.tolist(), bool(known.all())
        ([[0.0, 0.0], [0.0, 0.0]], True)
    """
    beta = place_beta(coordinates)
    values = np.linalg.norm(beta[:, None] - beta[None], axis=-1)
    piece = pieces(coordinates)
    known = np.isfinite(values) & (piece[:, None] == piece[None])
    return np.where(known, values, 0.0), known


def contacts(
    coordinates: np.ndarray, cutoff: float = CONTACT, separation: int = SEPARATION
) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of residues that are in contact.

    Args:
        coordinates: Floats (N, 3, 3) as in `place_beta`.
        cutoff: Distance of two C-beta in angstrom below which they are in contact.
        separation: Number of residues from one to the other, at least 1; nearer pairs are False in
            the mask.

    Returns:
        Two bool arrays (N, N): whether a pair is in contact, and whether that is known and counts.

    Example:
        >>> found, known = contacts(np.zeros((8, 3, 3)))
        >>> int(found.sum()), int(known.sum())  # (0, 6), (0, 7), (1, 7), in both orders
        (6, 6)
    """
    check_number_above("cutoff", cutoff, 0)
    check_integer("separation", separation, 1)
    values, known = distances(coordinates)
    number = np.arange(len(values))
    known &= abs(number[:, None] - number[None]) >= separation
    return (values < cutoff) & known, known


def distogram(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put the distances between the C-beta of all residues into 64 bins.

    Args:
        coordinates: Floats (N, 3, 3) as in `place_beta`.

    Returns:
        Two arrays (N, N): int32 bins, 0 below 2.3125 and 63 above 21.6875 angstrom; bool, False
        where the distance is unknown, and on the diagonal.

    Source: Jumper et al. 2021, supplement 1.9.8.

    Example:
        >>> bins, known = distogram(np.zeros((2, 3, 3)))
        >>> bins.tolist(), known.tolist()
        ([[0, 0], [0, 0]], [[False, True], [True, False]])
    """
    values, known = distances(coordinates)
    np.fill_diagonal(known, False)
    return np.searchsorted(BOUNDARIES, values).astype("int32"), known


def dihedral(
    first: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> np.ndarray:
    """Compute the dihedral angle of four points.

    Args:
        first: Floats (..., 3).
        second: As `first`.
        third: As `first`.
        fourth: As `first`.

    Returns:
        float64 array (...), from -pi to pi; positive if, looking from the second to the third
        point, the last bond is turned clockwise from the first. NaN if a point is NaN.

    Example:
        >>> points = [[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]]
        >>> float(np.rad2deg(dihedral(*map(np.array, points))))
        90.0
    """
    before, axis, after = second - first, third - second, fourth - third
    left, right = np.cross(before, axis), np.cross(axis, after)
    length = np.linalg.norm(axis, axis=-1)
    return np.arctan2(length * (before * right).sum(-1), (left * right).sum(-1))


def torsions(coordinates: np.ndarray) -> np.ndarray:
    """Compute phi, psi and omega of each residue.

    Args:
        coordinates: Floats (N, 3, 3) as in `place_beta`.

    Returns:
        float64 array (N, 3) in radians: phi (C of the residue before, N, CA, C), psi (N, CA, C, N
        of the next residue) and omega (CA and C of the residue before, N, CA; pi is trans). NaN at
        the ends of the chain, at breaks, and where an atom is missing.

    Source: IUPAC-IUB 1970, Biochemistry 9:3471; omega belongs to the second residue of the bond,
        as in AlphaFold.

    Example:
        >>> torsions(np.zeros((1, 3, 3))).tolist()
        [[nan, nan, nan]]
    """
    coordinates = _checked(coordinates)
    n, ca, c = coordinates.transpose(1, 0, 2)
    angles = np.full((len(coordinates), 3), np.nan)
    angles[1:, 0] = dihedral(c[:-1], n[1:], ca[1:], c[1:])
    angles[:-1, 1] = dihedral(n[:-1], ca[:-1], c[:-1], n[1:])
    angles[1:, 2] = dihedral(ca[:-1], c[:-1], n[1:], ca[1:])
    broken = ~bonded(coordinates)
    angles[1:][broken, 0] = angles[:-1][broken, 1] = angles[1:][broken, 2] = np.nan
    return angles


def bond_geometry(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Measure the bonds of a backbone and the angles between them.

    Args:
        coordinates: Floats (N, 3, 3) as in `place_beta`.

    Returns:
        Two float64 arrays (N, 3): lengths of N-CA, CA-C and C-N of the next residue, in angstrom;
        angles at CA, at C and at N of the next residue, in radians. NaN after the last residue.

    Example:
        >>> lengths, angles = bond_geometry(rebuild(np.full((4, 3), np.pi)))
        >>> bool(np.allclose(lengths[:3], LENGTHS)), bool(np.allclose(angles[:3], ANGLES))
        (True, True)
    """
    atoms = _checked(coordinates).reshape(-1, 3)  # (3N, 3)
    bonds = np.diff(atoms, axis=0)  # (3N - 1, 3)
    sizes = np.linalg.norm(bonds, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = -(bonds[:-1] * bonds[1:]).sum(-1) / (sizes[:-1] * sizes[1:])
    lengths, angles = np.full((2, len(atoms)), np.nan)
    lengths[: len(sizes)] = sizes
    angles[: len(cosine)] = np.arccos(np.clip(cosine, -1, 1))
    return lengths.reshape(-1, 3), angles.reshape(-1, 3)


def rebuild(
    torsions: np.ndarray, lengths: np.ndarray | None = None, angles: np.ndarray | None = None
) -> np.ndarray:
    """Place the atoms of a backbone from its torsions (NeRF).

    Args:
        torsions: Floats (..., N, 3), phi, psi and omega in radians, as `torsions` returns them. The
            phi and omega of the first residue and the psi of the last are not used; NaN elsewhere
            is taken as pi (trans, extended).
        lengths: Floats (N, 3) as `bond_geometry` returns them; None for ideal lengths. NaN is
            taken as ideal.
        angles: Floats (N, 3) as `bond_geometry` returns them; None for ideal angles.

    Returns:
        float64 array (..., N, 3, 3), N, CA and C in angstrom. The first N is at the origin.

    Raises:
        ValueError: Shapes do not fit together, or a torsion is infinite.

    Source: Parsons et al. 2005. Each bond is the one before, turned by its torsion and bent by
        its angle; products of all turns are taken pairwise, in log2(3 N) steps.

    Example:
        >>> chain = rebuild(np.full((10, 3), np.pi))  # extended
        >>> float(np.linalg.norm(chain[9, 1] - chain[0, 1]).round(1))  # 3.6 per residue
        32.8
    """
    turned = np.array(torsions, dtype="float64")
    if turned.ndim < 2 or turned.shape[-1] != 3 or not turned.shape[-2]:
        raise ValueError(f"torsions must have the shape (N, 3), received {turned.shape}.")
    if np.isinf(turned).any():
        raise ValueError("torsions contains infinity; write NaN for what is not known.")
    count = turned.shape[-2]
    turned[np.isnan(turned)] = np.pi
    bond = _or_ideal("lengths", lengths, LENGTHS, count).ravel()[:-1]  # (3N - 1,)
    bend = _or_ideal("angles", angles, ANGLES, count).ravel()[:-2]  # (3N - 2,)
    # A bond turns about the one before it: CA-C not at all, C-N by psi, N-CA by omega, CA-C by phi.
    turn = np.zeros((*turned.shape[:-2], count, 3))
    turn[..., 0] = turned[..., 1]
    turn[..., :-1, 1] = turned[..., 1:, 2]
    turn[..., :-1, 2] = turned[..., 1:, 0]
    turn = np.concatenate([np.zeros((*turn.shape[:-2], 1)), _flat(turn)[..., : len(bend) - 1]], -1)
    frames = _running_product(_turns(turn, np.pi - bend))  # (..., 3N - 2, 3, 3)
    steps = np.empty((*turn.shape[:-1], len(bond), 3))
    steps[..., 0, :] = [1.0, 0.0, 0.0]
    steps[..., 1:, :] = frames[..., 0]  # each bond lies along the first axis of its frame
    atoms = np.zeros((*turn.shape[:-1], 3 * count, 3))
    atoms[..., 1:, :] = np.cumsum(steps * bond[:, None], axis=-2)
    return atoms.reshape(*turn.shape[:-1], count, 3, 3)


def _turns(turn: np.ndarray, bend: np.ndarray) -> np.ndarray:
    """Return rotations (..., 3, 3): by `turn` about the first axis, `bend` about the third."""
    rotations = np.zeros((*turn.shape, 3, 3))
    cos, sin = np.cos(turn), np.sin(turn)
    rotations[..., 0, 0] = np.cos(bend)
    rotations[..., 0, 1] = -np.sin(bend)
    rotations[..., 1, 0] = cos * np.sin(bend)
    rotations[..., 1, 1] = cos * np.cos(bend)
    rotations[..., 1, 2] = -sin
    rotations[..., 2, 0] = sin * np.sin(bend)
    rotations[..., 2, 1] = sin * np.cos(bend)
    rotations[..., 2, 2] = cos
    return rotations


def _running_product(matrices: np.ndarray) -> np.ndarray:
    """Return the products of the first 1, 2, ... matrices (..., K, 3, 3)."""
    products, step = matrices.copy(), 1
    while step < products.shape[-3]:
        products[..., step:, :, :] = products[..., :-step, :, :] @ products[..., step:, :, :]
        step *= 2
    return products


def _flat(values: np.ndarray) -> np.ndarray:
    return values.reshape(*values.shape[:-2], -1)


def _checked(coordinates: np.ndarray) -> np.ndarray:
    coordinates = np.asarray(coordinates, dtype="float64")
    if coordinates.ndim != 3 or coordinates.shape[1:] != (3, 3):
        raise ValueError(
            f"coordinates must have the shape (N, 3, 3), with N, CA and C of N residues; received "
            f"{coordinates.shape}."
        )
    return coordinates


def _or_ideal(name: str, values: np.ndarray | None, ideal: np.ndarray, count: int) -> np.ndarray:
    """Return (N, 3) values, with the ideal ones where they are not known."""
    if values is None:
        return np.tile(ideal, (count, 1))
    given = np.asarray(values, dtype="float64")
    if given.shape != (count, 3):
        raise ValueError(f"{name} must have the shape ({count}, 3), received {given.shape}.")
    return np.where(np.isnan(given), ideal, given)
