"""Folding a chain from distances and torsions."""

import numpy as np
import pytest

from kft import structure
from kft.structure.folding import FIRST, WIDTH, _Energy, _interpolated

pytestmark = pytest.mark.once


def hairpin(count=24):
    """Two helices and a turn between them: coordinates (count, 3, 3)."""
    angles = np.tile(np.deg2rad([-60.0, -45.0, 180.0]), (count, 1))
    angles[count // 2 - 1 : count // 2 + 2, :2] = np.deg2rad([[-75, 140], [-90, 0], [-100, 130]])
    return structure.rebuild(angles)


@pytest.fixture(scope="module")
def targets():
    chain = hairpin()
    probabilities = structure.smoothed_distogram(*structure.distogram(chain))
    return chain, probabilities, structure.torsions(chain)


def test_gradient_is_that_of_the_energy(targets):
    _, probabilities, torsions = targets
    energy = _Energy("A" * 24, probabilities, torsions, 10.0)
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, 72)
    _, gradient = energy(angles)
    steps = 1e-6 * np.eye(72)
    numeric = [(energy(angles + step)[0] - energy(angles - step)[0]) / 2e-6 for step in steps]
    np.testing.assert_allclose(gradient, numeric, atol=1e-6 * abs(gradient).max())


def test_energy_is_lowest_at_the_bin_that_is_predicted():
    table = np.abs(np.arange(64) - 20.0)[None].repeat(5, 0)
    value, slope = _interpolated(table, np.array([20.0, 10.25, 30.5, -2.0, 70.0]))
    np.testing.assert_allclose(value, [0, 9.75, 10.5, 22, 43], atol=0.02)
    np.testing.assert_allclose(slope[1:], [-1, 1, -1, 0], atol=0.1)
    assert pytest.approx(2.15625) == FIRST and pytest.approx(0.3125) == WIDTH


def test_equally_likely_distances_do_not_pull():
    """Neither within the bins nor towards the last one, which is open and 10 angstrom wide."""
    flat = np.ones((24, 24, 64))
    flat[..., -1] = 10 / WIDTH
    flat /= flat.sum(axis=-1, keepdims=True)
    given, without = (_Energy("A" * 24, x, np.zeros((24, 3)), 1.0) for x in (flat, None))
    for chain in (hairpin(), structure.rebuild(np.full((24, 3), np.pi))):
        angles = np.nan_to_num(structure.torsions(chain)).ravel()
        np.testing.assert_allclose(given(angles)[1], without(angles)[1], atol=1e-9)


def test_true_distances_and_torsions_give_the_true_chain(targets):
    chain, probabilities, torsions = targets
    fold = structure.fold_chain("A" * 24, probabilities, torsions, starts=1, iterations=200)
    alpha = fold.chain.coordinates[:, 1]
    assert structure.lddt(alpha, chain[:, 1]).mean() > 0.98
    assert structure.rmsd(alpha, chain[:, 1]) < 0.5
    assert fold.expected_lddt.mean() > 0.6 and fold.chain.confidence.max() <= 100


def test_true_distances_alone_give_the_chain_and_not_its_mirror_image(targets):
    chain, probabilities, _ = targets
    fold = structure.fold_chain("A" * 24, probabilities, starts=2, iterations=300)
    alpha = fold.chain.coordinates[:, 1]
    assert not structure.is_mirrored(alpha, chain[:, 1])
    assert structure.rmsd(alpha, chain[:, 1]) < 1.5
    assert (np.diff(fold.energies) >= 0).all()


def test_torsions_alone_are_followed():
    torsions = np.tile(np.deg2rad([-60.0, -45.0, 180.0]), (24, 1))
    chain = structure.rebuild(torsions)  # a helix, in which nothing clashes
    fold = structure.fold_chain("A" * 24, torsions=torsions, starts=1)
    assert structure.rmsd(fold.chain.coordinates[:, 1], chain[:, 1]) < 0.1
    assert np.isnan(fold.expected_lddt).all() and not fold.chain.confidence.any()
    # Where a torsion is unknown, it is trans and of an L-amino acid, but for glycine.
    unknown = np.full((4, 3), np.nan)
    angles = structure.torsions(structure.fold_chain("AAGA", torsions=unknown).chain.coordinates)
    assert (angles[[1, 3], 0] < 0).all()
    np.testing.assert_allclose(abs(angles[1:, 2]), np.pi, atol=1e-3)


def test_same_seed_gives_the_same_chain(targets):
    _, probabilities, _ = targets
    folds = [
        structure.fold_chain("A" * 24, probabilities, starts=1, iterations=5, seed=seed)
        for seed in (0, 0, 1)
    ]
    same, other = (np.array_equal(folds[0].chains, fold.chains) for fold in folds[1:])
    assert same and not other


def test_moving_or_omitting_pairs_is_taken_as_it_is(targets):
    _, probabilities, torsions = targets
    some = probabilities.copy()
    some[2] = some[:, 2] = np.nan  # nothing is known of a residue
    fold = structure.fold_chain("A" * 24, some, torsions, starts=1, iterations=20)
    assert np.isfinite(fold.chains).all() and np.isnan(fold.expected_lddt[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give a distogram, torsions, or both"),
        ({"torsions": np.zeros((3, 3))}, r"torsions must have the shape \(4, 3\)"),
        ({"distogram": np.zeros((4, 4, 9))}, r"distogram must have the shape \(4, 4, 64\)"),
        ({"distogram": np.full((4, 4, 64), 0.5)}, "must add up to 1"),
        ({"distogram": np.full((4, 4, 64), np.inf)}, "distogram contains infinity"),
        ({"torsions": np.full((4, 3), np.inf)}, "torsions contains infinity"),
        ({"distogram": np.full((4, 4, 64), -0.5)}, "received negative numbers"),
        ({"torsions": np.zeros((4, 3)), "concentration": -1.0}, "concentration must be finite"),
        ({"torsions": np.zeros((4, 3)), "starts": 0}, "starts must be an integer of at least 1"),
        ({"torsions": np.zeros((4, 3)), "seed": -1}, "seed must be"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        structure.fold_chain("AAAA", **arguments)


def test_one_residue_folds():
    fold = structure.fold_chain("A", torsions=np.full((1, 3), np.nan), starts=1)
    assert fold.chain.coordinates.shape == (1, 3, 3)
    with pytest.raises(ValueError, match="at least one residue"):
        structure.fold_chain("", torsions=np.zeros((0, 3)))
