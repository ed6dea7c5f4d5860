"""Fold a chain by gradient descent on its torsions, from predicted distances and torsions.

The network of AlphaFold 1 predicts a distribution of the distance of each pair of residues and of
the torsions of each residue. Their negative log probability is a smooth energy of the chain, which
is minimised from several starts; the chain of the lowest energy is the prediction.

References: Senior et al. 2020, Nature 577:706, "Structure realization by gradient descent";
gradient of an energy with respect to torsions, Noguti and Go 1983, J. Phys. Soc. Jpn. 52:3685.

Differences from the reference: no reference distribution is subtracted from the distances, but the
probability of the last bin, which is open, is divided by its width; clashes of C-alpha are
penalised instead of Rosetta's van der Waals energy; bond lengths and angles are ideal. The gradient
is exact and computed in float64 by numpy, so that the same predictions give the same chain with
every backend.

Shapes: `K` best starts, `N` residues, `B` = 64 bins. Angstrom and radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeResult, minimize

from kft.arguments import check_integer, check_seed
from kft.data.proteins.geometry import BINS, BOUNDARIES, place_beta, rebuild
from kft.messages import count_of
from kft.structure.files import ProteinChain

WIDTH = BOUNDARIES[1] - BOUNDARIES[0]  # angstrom of a bin
FIRST = BOUNDARIES[0] - WIDTH / 2  # angstrom, centre of the first bin
FLOOR = 1e-30  # smallest probability of a bin
# The last bin is open: its probability is taken for that of the 10 angstrom behind the others.
# Counted as one bin it would attract all pairs of which little is known, and stretch the chain.
OPEN = 10.0 / WIDTH  # bins
NEAREST = 3.8  # angstrom between C-alpha of residues that are not neighbours
CLASH_WEIGHT = 10.0  # per square angstrom
# Means and concentrations of phi, psi and omega where they are not predicted: L-amino acids other
# than glycine have a negative phi, and peptide bonds are trans.
UNKNOWN = np.array([[-1.5, 2.0], [0.0, 0.0], [np.pi, 50.0]])
# Means of phi and psi of helix, strand and polyproline, around which random starts are drawn.
BASINS = np.deg2rad([[-63.0, -43.0], [-120.0, 135.0], [-65.0, 140.0]])
SHORT = 150  # steps after which the starts are compared
REFINED = 4  # best starts that are minimised to the end
LDDT_DISTANCES = (0.5, 1.0, 2.0, 4.0)
LDDT_RADIUS = 15.0


@dataclass(frozen=True, eq=False)
class Fold:
    """A chain folded from predictions.

    Attributes:
        chain: The chain of the lowest energy; its confidence is the expected lDDT in percent.
        energies: float64 array (K,), of the best starts, at most four, which were minimised to the
            end; lowest first.
        chains: float64 array (K, N, 3, 3), their chains, in the same order.
        expected_lddt: float64 array (N,), from 0 to 1, expected by the predicted distances; NaN
            without them.
    """

    chain: ProteinChain
    energies: np.ndarray
    chains: np.ndarray
    expected_lddt: np.ndarray

    def __repr__(self) -> str:
        return (
            f"Fold of {count_of(len(self.chain), 'residue')}: energy {self.energies[0]:.1f}, "
            f"the lowest of {len(self.energies)} best starts (the highest {self.energies[-1]:.1f})"
        )


def fold_chain(
    sequence: str,
    distogram: np.ndarray | None = None,
    torsions: np.ndarray | None = None,
    concentration: np.ndarray | float = 10.0,
    starts: int = 8,
    iterations: int = 1000,
    seed: int = 0,
    name: str = "model",
) -> Fold:
    """Find the chain that suits predicted distances and torsions best.

    Args:
        sequence: String of N residues.
        distogram: Floats (N, N, 64), probabilities of the distance between C-beta in the bins of
            `kft.structure.distogram`; NaN for pairs that are not known. None for torsions alone.
        torsions: Floats (N, 3), means of phi, psi and omega; NaN where unknown. None for distances
            alone.
        concentration: Of the von Mises distribution of each torsion, one number or an array (N, 3);
            0 for one that is not known.
        starts: Number of starts, each tried with its mirror image too if there are distances. The
            first is at `torsions` if they are given; the others, and what is unknown, are drawn at
            random from the usual regions of helix and strand.
        iterations: Largest number of steps from the best starts.
        seed: Seed of the starts.
        name: Name of the chain.

    Returns:
        Fold: The chain of the lowest energy, and those of the next best starts.

    Raises:
        ValueError: Shapes do not fit together, neither distances nor torsions are given, or an
            argument is out of range.

    Source: Senior et al. 2020.

    Example:
        >>> fold = fold_chain("AAAAA", torsions=np.tile([-1.1, -0.75, np.pi], (5, 1)), starts=1)
        >>> fold.chain
        ProteinChain 'model' of 5 residues
    """
    energy = _Energy(sequence, distogram, torsions, concentration)
    check_integer("starts", starts, 1)
    check_integer("iterations", iterations, 1)
    random = np.random.default_rng(check_seed("seed", seed))
    found = []
    for start in range(starts):
        angles = _drawn(len(sequence), random)
        if torsions is not None and start == 0:
            angles = np.where(np.isnan(energy.means), angles, energy.means)
        found.append(_descend(energy, angles, SHORT))
        if distogram is not None:
            # Distances do not tell a chain from its mirror image, so that one is tried, too: it is
            # the chain of the opposite torsions, whose residues then turn to their own hand.
            found.append(_descend(energy, -found[-1].x, SHORT))
    found.sort(key=lambda result: result.fun)
    best = [_descend(energy, result.x, iterations) for result in found[:REFINED]]
    ended = sorted(
        ((result.fun, rebuild(result.x.reshape(-1, 3))) for result in best),
        key=lambda pair: pair[0],
    )
    chains = np.array([coordinates for _, coordinates in ended])
    expected = _expected_lddt(chains[0], energy.probabilities)
    confidence = np.zeros(len(sequence)) if np.isnan(expected).all() else 100 * expected
    return Fold(
        ProteinChain(name, sequence, chains[0], confidence=np.nan_to_num(confidence)),
        np.array([value for value, _ in ended]),
        chains,
        expected,
    )


def _descend(energy: _Energy, angles: np.ndarray, iterations: int) -> OptimizeResult:
    """Minimise the energy from torsions (N, 3)."""
    options = {"maxiter": iterations, "maxcor": 20}
    return minimize(energy, angles.ravel(), method="L-BFGS-B", jac=True, options=options)


def smoothed_distogram(bins: np.ndarray, known: np.ndarray, width: float = 1.0) -> np.ndarray:
    """Turn known distances into probabilities of bins, as a perfect network would predict them.

    Args:
        bins: int (N, N), as `kft.structure.distogram` returns them.
        known: bool (N, N), as it returns them.
        width: Of the peak, in bins. Near it the energy is that of a normal distribution with this
            standard deviation; far from it, it rises linearly, so that it also pulls from afar.

    Returns:
        float64 array (N, N, 64); NaN for pairs that are not known. The last bin, which is open,
        stands for as many bins as in the energy of `fold_chain`.

    Example:
        >>> smoothed_distogram(np.array([[0, 9], [9, 0]]), ~np.eye(2, dtype=bool))[0, 1].argmax()
        np.int64(9)
    """
    apart = (np.arange(BINS) - np.asarray(bins)[..., None]) / width
    probabilities = np.exp(-np.sqrt(1 + apart**2))
    probabilities[..., -1] *= OPEN
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    return np.where(np.asarray(known)[..., None], probabilities, np.nan)


class _Energy:
    """Energy of torsions, and its gradient."""

    def __init__(
        self,
        sequence: str,
        distogram: np.ndarray | None,
        torsions: np.ndarray | None,
        concentration: np.ndarray | float,
    ):
        count = len(sequence)
        if not count:
            raise ValueError("sequence must have at least one residue.")
        if distogram is None and torsions is None:
            raise ValueError("give a distogram, torsions, or both; received neither.")
        self.means = _checked("torsions", torsions, (count, 3))
        self.concentration = np.broadcast_to(concentration, (count, 3)).astype("float64").copy()
        if not (np.isfinite(self.concentration) & (self.concentration >= 0)).all():
            raise ValueError("concentration must be finite numbers of at least 0.")
        unknown = np.isnan(self.means)
        self.target = np.where(unknown, UNKNOWN[:, 0], self.means)
        self.concentration = np.where(unknown, UNKNOWN[:, 1], self.concentration)
        glycine = np.array([letter == "G" for letter in sequence])
        self.concentration[glycine & unknown[:, 0], 0] = 0.0
        self.probabilities: np.ndarray | None = None
        self.first, self.second = np.triu_indices(count, 1)
        self.potential = np.zeros((0, BINS))
        if distogram is not None:
            self._read(_checked("distogram", distogram, (count, count, BINS)))
        self.near = np.triu_indices(count, 2)

    def _read(self, distogram: np.ndarray) -> None:
        """Keep the negative log probabilities (P, B) of the pairs that are known."""
        some = distogram[self.first, self.second]
        known = np.isfinite(some).all(axis=-1)
        if (some[known] < 0).any():
            raise ValueError("distogram must hold probabilities, received negative numbers.")
        self.first, self.second = self.first[known], self.second[known]
        total = some[known].sum(axis=-1, keepdims=True)
        if not (abs(total - 1) < 1e-3).all():
            raise ValueError("the probabilities of each pair in distogram must add up to 1.")
        density = some[known] / total
        density[:, -1] /= OPEN
        self.potential = -np.log(np.maximum(density, FLOOR))
        self.probabilities = distogram

    def __call__(self, angles: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the energy of torsions (3 N,), and its gradient."""
        angles = angles.reshape(-1, 3)
        turned = angles - self.target
        value = -float((self.concentration * np.cos(turned)).sum())
        gradient = self.concentration * np.sin(turned)
        atoms = rebuild(angles)
        beta = place_beta(atoms)
        pull = np.zeros((2, len(angles), 3))  # on C-alpha and on C-beta
        value += _clash(atoms[:, 1], self.near, pull[0])
        if len(self.potential):
            value += self._distances(beta, pull[1])
        return value, (gradient + _torques(atoms, beta, pull)).ravel()

    def _distances(self, beta: np.ndarray, pull: np.ndarray) -> float:
        """Return the energy of the distances, and add its gradient to `pull` (N, 3)."""
        first, second = self.first, self.second
        between = beta[first] - beta[second]
        distance = np.sqrt(np.square(between).sum(-1) + 1e-12)
        value, slope = _interpolated(self.potential, (distance - FIRST) / WIDTH)
        force = (slope / WIDTH / distance)[:, None] * between
        _scatter(pull, first, force)
        _scatter(pull, second, -force)
        return float(value.sum())


def _interpolated(table: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate rows (P, B) at places (P,) by cubic splines of Catmull and Rom.

    Below the first bin the value rises linearly; above the last it is constant.

    Returns:
        Values and slopes, both (P,).
    """
    inside = np.clip(place, 0, BINS - 1)
    left = np.minimum(inside.astype(int), BINS - 2)
    t = inside - left
    rows = np.arange(len(table))
    p0, p1, p2, p3 = (table[rows, np.clip(left + k, 0, BINS - 1)] for k in (-1, 0, 1, 2))
    a, b, c = (3 * (p1 - p2) + p3 - p0) / 2, p0 - 2.5 * p1 + 2 * p2 - p3 / 2, (p2 - p0) / 2
    value, slope = ((a * t + b) * t + c) * t + p1, (3 * a * t + 2 * b) * t + c
    below = np.minimum(place, 0)
    slope = np.where(place > BINS - 1, 0.0, slope) - (below < 0) * (slope + 1.0)
    return value - below, slope


def _clash(alpha: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], pull: np.ndarray) -> float:
    """Return the energy of C-alpha that are too near, and add its gradient to `pull` (N, 3)."""
    first, second = pairs
    between = alpha[first] - alpha[second]
    distance = np.sqrt(np.square(between).sum(-1) + 1e-12)
    missing = np.maximum(NEAREST - distance, 0.0)
    some = np.flatnonzero(missing)
    force = (-2 * CLASH_WEIGHT * missing[some] / distance[some])[:, None] * between[some]
    _scatter(pull, first[some], force)
    _scatter(pull, second[some], -force)
    return CLASH_WEIGHT * float(np.square(missing).sum())


def _torques(atoms: np.ndarray, beta: np.ndarray, pull: np.ndarray) -> np.ndarray:
    """Turn gradients of positions into those of torsions.

    A torsion turns all atoms behind its bond, so its gradient is the torque on them about the bond.

    Args:
        atoms: Floats (N, 3, 3).
        beta: Floats (N, 3); a C-beta moves with the C of its residue.
        pull: Floats (2, N, 3), gradients at C-alpha and C-beta.

    Returns:
        Floats (N, 3) for phi, psi and omega; those that no atom depends on are 0.
    """
    count = len(atoms)
    force, torque = np.zeros((2, count, 3, 3))
    force[:, 1], force[:, 2] = pull
    torque[:, 1], torque[:, 2] = np.cross(atoms[:, 1], pull[0]), np.cross(beta, pull[1])
    places = atoms.reshape(-1, 3)
    behind, turning = (np.cumsum(x.reshape(-1, 3)[::-1], axis=0)[::-1] for x in (force, torque))
    bonds = np.diff(places, axis=0)[:-1]  # (3 N - 2, 3): those that something lies behind
    bonds /= np.linalg.norm(bonds, axis=-1, keepdims=True)
    about = turning[2:] - np.cross(places[1:-1], behind[2:])
    slopes = np.concatenate([(bonds * about).sum(-1), [0.0, 0.0]]).reshape(count, 3)
    gradient = np.zeros((count, 3))
    gradient[1:, 0] = slopes[1:, 0]  # N-CA
    gradient[:-1, 1] = slopes[:-1, 1]  # CA-C
    gradient[1:, 2] = slopes[:-1, 2]  # C-N
    return gradient


def _scatter(total: np.ndarray, where: np.ndarray, values: np.ndarray) -> None:
    """Add values (P, 3) to the rows of `total` (N, 3) at `where` (P,)."""
    for axis in range(3):
        total[:, axis] += np.bincount(where, values[:, axis], minlength=len(total))


def _drawn(count: int, random: np.random.Generator) -> np.ndarray:
    """Return random torsions (N, 3) of the usual regions, with trans peptide bonds."""
    angles = np.full((count, 3), np.pi)
    angles[:, :2] = BASINS[random.integers(len(BASINS), size=count)]
    angles[:, :2] += random.normal(0, np.deg2rad(20), (count, 2))
    return angles


def _checked(name: str, values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if values is None:
        return np.full(shape, np.nan)
    values = np.asarray(values, dtype="float64")
    if values.shape != shape:
        raise ValueError(
            f"{name} must have the shape {shape} for a sequence of "
            f"{count_of(shape[0], 'residue')}, received {values.shape}."
        )
    if np.isinf(values).any():
        raise ValueError(f"{name} contains infinity; write NaN for what is not known.")
    return values


def _expected_lddt(coordinates: np.ndarray, probabilities: np.ndarray | None) -> np.ndarray:
    """Return the lDDT (N,) of the C-beta that the predicted distances lead one to expect."""
    count = len(coordinates)
    if probabilities is None:
        return np.full(count, np.nan)
    beta = place_beta(coordinates)
    distance = np.linalg.norm(beta[:, None] - beta[None], axis=-1)
    centres = FIRST + WIDTH * np.arange(BINS)
    counts = (centres < LDDT_RADIUS) * np.nan_to_num(probabilities)  # (N, N, B)
    counts[np.arange(count), np.arange(count)] = 0.0
    off = abs(distance[..., None] - centres)
    kept = np.mean([off < limit for limit in LDDT_DISTANCES], axis=0)
    with np.errstate(invalid="ignore"):
        return (counts * kept).sum((1, 2)) / counts.sum((1, 2))
