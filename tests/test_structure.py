"""Geometry, files and scores of structures."""

import numpy as np
import pytest
import tmtools

from kft import structure
from kft.data.proteins.geometry import ANGLES, BOUNDARIES, LENGTHS, pieces
from kft.plots import plot_confidence, plot_contacts, plot_ramachandran

pytestmark = pytest.mark.once


def helix(count=30, seed=0):
    """A helix with some noise in its torsions: coordinates (count, 3, 3)."""
    angles = np.tile(np.deg2rad([-60.0, -45.0, 180.0]), (count, 1))
    angles += np.random.default_rng(seed).normal(0, 0.15, angles.shape) * [1, 1, 0.2]
    return structure.rebuild(angles)


def rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def test_a_helix_is_right_handed():
    chain = structure.rebuild(np.tile(np.deg2rad([-57.0, -47.0, 180.0]), (20, 1)))
    alpha = chain[:, 1]
    rise = np.linalg.norm((alpha[14:18] - alpha[0:4]).mean(0)) / 14
    assert 1.4 < rise < 1.6  # angstrom per residue
    axis = alpha[16:].mean(0) - alpha[:4].mean(0)
    turn = np.cross(alpha[5] - alpha[4], alpha[6] - alpha[5]) @ axis
    assert turn > 0
    beta = structure.place_beta(chain)
    np.testing.assert_allclose(np.linalg.norm(beta - alpha, axis=-1), 1.53, atol=0.02)


def test_rebuilding_from_torsions_lengths_and_angles_gives_the_same_chain():
    chain = helix() @ rotation(0) + 5.0
    rebuilt = structure.rebuild(structure.torsions(chain), *structure.bond_geometry(chain))
    for atom in range(3):
        assert structure.rmsd(rebuilt[:, atom], chain[:, atom]) < 1e-6


def test_torsions_and_distances_do_not_change_when_the_chain_is_moved():
    chain, moved = helix(), helix() @ rotation(1) + [10.0, -3.0, 1.0]
    np.testing.assert_allclose(structure.torsions(moved), structure.torsions(chain), atol=1e-9)
    for function in (structure.distances, structure.distogram, structure.contacts):
        for a, b in zip(function(moved), function(chain), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)
    mirrored = structure.torsions(chain * [1, 1, -1])
    np.testing.assert_allclose(mirrored[1:-1], -structure.torsions(chain)[1:-1], atol=1e-9)


def test_nothing_is_computed_across_a_break():
    chain = helix(20)
    chain[10:] += 30.0
    chain[3, 2] = np.nan
    assert pieces(chain).tolist() == [0] * 4 + [1] * 6 + [2] * 10
    unknown = np.isnan(structure.torsions(chain))
    assert unknown[10].tolist() == [True, False, True]
    assert unknown[9].tolist() == [False, True, False]
    for function in (structure.distances, structure.distogram, structure.contacts):
        _, known = function(chain)
        assert not known[:10, 10:].any() and not known[3].any()
        assert known[11:, 11:].any()


def test_bins_of_a_distogram():
    assert len(BOUNDARIES) == 63
    np.testing.assert_allclose([BOUNDARIES[0], BOUNDARIES[-1]], [2.3125, 21.6875])
    chain = helix(60)
    values, _ = structure.distances(chain)
    bins, known = structure.distogram(chain)
    assert bins.min() == 0 and bins.max() == 63
    inner = (bins > 0) & (bins < 63)
    assert (values[inner] >= BOUNDARIES[bins[inner] - 1]).all()
    assert (values[inner] <= BOUNDARIES[bins[inner]]).all()
    assert not known.diagonal().any()


def test_contacts_are_near_and_apart():
    found, known = structure.contacts(helix(12), cutoff=8.0, separation=4)
    values, _ = structure.distances(helix(12))
    apart = abs(np.subtract.outer(np.arange(12), np.arange(12))) >= 4
    np.testing.assert_array_equal(known, apart)
    np.testing.assert_array_equal(found, (values < 8.0) & apart)


@pytest.mark.parametrize("noise", [0.1, 1.0, 3.0])
def test_scores_agree_with_their_definitions_and_tmtools(noise):
    true = helix(60)[:, 1]
    random = np.random.default_rng(3)
    predicted = (true + random.normal(0, noise, true.shape)) @ rotation(2) + 4.0
    predicted[:20] = true[:20]  # another place: a superposition of all is not the best
    near, far = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (true, predicted))
    counts = (near < 15) & ~np.eye(60, dtype=bool)
    close = (abs(near - far)[:, :, None] < [0.5, 1, 2, 4]).mean(axis=-1)
    kept = [close[i][counts[i]].mean() for i in range(60)]
    np.testing.assert_allclose(structure.lddt(predicted, true), kept, atol=1e-6)
    second = tmtools.tm_align(predicted, true, "A" * 60, "A" * 60).tm_norm_chain1
    assert structure.tm_score(predicted, true) >= second - 0.02 or noise == 3.0
    assert structure.tm_score(predicted, true) == pytest.approx(
        structure.tm_score(predicted @ rotation(5), true), abs=1e-9
    )


def test_scores_of_equal_and_of_mirrored_chains():
    true = helix(40)[:, 1]
    moved = true @ rotation(7) - 3.0
    assert structure.rmsd(moved, true) < 1e-6
    assert structure.tm_score(moved, true) == pytest.approx(1)
    assert structure.gdt_ts(moved, true) == 1
    assert structure.lddt(moved, true).min() == 1
    mirror = moved * [1, 1, -1]
    assert structure.is_mirrored(mirror, true) and not structure.is_mirrored(moved, true)
    assert structure.lddt(mirror, true).min() == 1
    assert structure.tm_score(mirror, true) < 0.7


def test_gdt_counts_residues_within_four_distances():
    true = np.cumsum(np.full((40, 3), 2.2), axis=0) + helix(40)[:, 1]
    predicted = true.copy()
    predicted[30:] += [0.0, 0.0, 50.0]  # a quarter is far away
    assert structure.gdt_ts(predicted, true) == 0.75


def test_unknown_residues_are_left_out():
    true = helix(30)[:, 1]
    predicted = true.copy()
    true[4] = np.nan
    assert structure.rmsd(predicted, true) < 1e-6
    assert np.isnan(structure.lddt(predicted, true)).tolist() == [i == 4 for i in range(30)]
    with pytest.raises(ValueError, match="predicted contains NaN"):
        structure.rmsd(true, predicted)
    with pytest.raises(ValueError, match="the same shape"):
        structure.tm_score(predicted[1:], true)
    with pytest.raises(ValueError, match="at least 3 residues"):
        structure.gdt_ts(predicted[:2], predicted[:2])


def test_clashes():
    chain = helix(10)[:, 1]
    assert structure.clashes(chain) == 0
    chain[7] = chain[2] + 0.5
    assert structure.clashes(chain) == 1


def test_precision_of_contacts():
    chain = helix(30)
    found, known = structure.contacts(chain, cutoff=12.0)
    values, _ = structure.distances(chain)
    assert structure.contact_precision(-values, found, known, per_length=0.2) == 1
    first, second = np.nonzero(np.triu(known))
    middle = (second - first >= 7) & (second - first <= 8)
    expected = found[first, second][middle].mean()
    random = np.random.default_rng(0).normal(size=found.shape)
    assert structure.contact_precision(random, found, known, 7, 8, 100) == pytest.approx(expected)
    assert np.isnan(structure.contact_precision(-values, found, known, nearest=29))
    with pytest.raises(ValueError, match="NaN"):
        structure.contact_precision(values * np.nan, found, known)


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chain.pdb", "chain.cif", "chain.ent"])
def test_written_chains_are_read_again(tmp_path, name):
    chain = structure.ProteinChain(
        "x", "MKTAYIAKQR", helix(10).round(3), confidence=np.arange(10.0)
    )
    read = structure.read_structure(structure.write_structure(tmp_path / name, chain))
    assert (read.name, read.sequence) == ("chain_A", chain.sequence)
    assert read.numbers == chain.numbers and read.breaks == ()
    np.testing.assert_allclose(read.coordinates, chain.coordinates, atol=2e-3)
    np.testing.assert_array_equal(read.confidence, chain.confidence)


ATOMS = ("N", "CA", "C")
LINE = (
    "{kind:6}{serial:5d} {atom:^4}{alt}{name:>3} {chain}{number:4d}{code}   "
    "{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{b:6.2f}          {atom:>2.1}\n"
)


def pdb(chain, **changes):
    """Lines of a PDB file of a chain of alanines; `changes` maps (residue, atom) to fields."""
    text = ""
    for i, atoms in enumerate(chain):
        for atom, place in zip(ATOMS, atoms, strict=True):
            fields = {
                "kind": "ATOM", "serial": 1, "atom": atom, "alt": " ", "name": "ALA", "chain": "A",
                "number": i + 1, "code": " ", "occupancy": 1.0, "b": 0.0,
            }  # fmt: skip
            fields |= dict(zip("xyz", place, strict=True)) | changes.get(f"{i}{atom}", {})
            text += LINE.format(**fields) if fields["kind"] else ""
    return text


def test_alternative_locations_missing_atoms_and_modified_residues(tmp_path):
    chain, path = helix(6), tmp_path / "x.pdb"
    changes = {f"0{atom}": {"name": "MSE", "kind": "HETATM"} for atom in ATOMS}
    changes |= {f"1{atom}": {"name": "UNK"} for atom in ATOMS}
    first = {"2CA": {"alt": "A", "occupancy": 0.3}, "4C": {"kind": ""}}
    lines = pdb(chain, **changes, **first).splitlines(True)
    second = pdb(chain + 1.0, **{"2CA": {"alt": "B", "occupancy": 0.7}}).splitlines(True)[7]
    path.write_text("".join([*lines[:8], second, *lines[8:], "END\n"]))
    with pytest.warns(UserWarning) as warned:
        read = structure.read_structure(path)
    messages = " ".join(str(w.message) for w in warned)
    assert "1 residue read as X: UNK 2" in messages
    assert "broken after 5" in messages
    assert read.sequence == "MXAAAA"
    np.testing.assert_allclose(read.coordinates[2, 1], chain[2, 1] + 1.0, atol=1e-3)
    assert np.isnan(read.coordinates[4, 2]).all()


def test_files_that_hold_no_single_chain(tmp_path):
    path, chain = tmp_path / "x.pdb", helix(3)
    two = pdb(chain) + pdb(chain + 9.0).replace("ALA A", "ALA B")
    path.write_text(two + "END\n")
    with pytest.raises(ValueError, match=r"2 chains of proteins: A, B; give one"):
        structure.read_structure(path)
    assert structure.read_structure(path, chain="B").name == "x_B"
    with pytest.raises(ValueError, match="no chain 'C'; it has A, B"):
        structure.read_structure(path, chain="C")
    with pytest.raises(ValueError, match="model 2"):
        structure.read_structure(path, chain="A", model=2)
    path.write_text("HEADER    nothing\nEND\n")
    with pytest.raises(ValueError, match="cannot be read as pdb|no residue of a protein"):
        structure.read_structure(path)
    path.write_text(pdb(chain)[:70] + "ATOM      x  broken\n")
    with pytest.raises(ValueError, match="cannot be read as pdb"):
        structure.read_structure(path)
    only = {f"{i}{atom}": {"kind": ""} for i in range(3) for atom in ("N", "C")}
    path.write_text(pdb(chain, **only))
    with pytest.raises(ValueError, match="a trace of CA is not enough"):
        structure.read_structure(path)
    cif = tmp_path / "x.cif"
    cif.write_text("data_x\nloop_\n_atom_site.id\n")
    with pytest.raises(ValueError, match="cannot be read as mmcif"):
        structure.read_structure(cif)
    with pytest.raises(ValueError, match="must end in one of .pdb"):
        structure.write_structure(tmp_path / "x.txt", structure.ProteinChain("x", "MKT", chain))


def test_one_residue(tmp_path):
    chain = structure.ProteinChain("x", "M", helix(1).round(3))
    read = structure.read_structure(structure.write_structure(tmp_path / "x.pdb", chain))
    assert read.sequence == "M" and np.isnan(structure.torsions(read.coordinates)).all()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"coordinates must have the shape \(N, 3, 3\)"):
        structure.torsions(np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"torsions must have the shape \(N, 3\)"):
        structure.rebuild(np.zeros(3))
    with pytest.raises(ValueError, match="torsions contains infinity"):
        structure.rebuild(np.full((2, 3), np.inf))
    with pytest.raises(TypeError, match=r"chain must be a kft.structure.ProteinChain"):
        structure.write_structure("x.pdb", 5)
    with pytest.raises(ValueError, match=r"lengths must have the shape \(2, 3\)"):
        structure.rebuild(np.zeros((2, 3)), lengths=LENGTHS)
    with pytest.raises(ValueError, match="coordinates must have the shape"):
        structure.ProteinChain("x", "MK", np.zeros((3, 3, 3)))
    for name in ("numbers", "confidence"):
        with pytest.raises(ValueError, match=f"{name} must be one for each of 2 residues"):
            structure.ProteinChain("x", "MK", np.zeros((2, 3, 3)), **{name: [1.0]})
    assert ANGLES.shape == (3,)


def test_what_a_pdb_file_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    chain = structure.ProteinChain("x", "MKT", helix(3) + 10_000.0)
    with pytest.raises(ValueError, match=r"below 10,000 angstrom; write .*x.cif instead"):
        structure.write_structure(tmp_path / "x.pdb", chain)
    assert not (tmp_path / "x.pdb").exists()
    read = structure.read_structure(structure.write_structure(tmp_path / "x.cif", chain))
    np.testing.assert_allclose(read.coordinates, chain.coordinates, atol=2e-3)


def test_figures_of_a_chain():
    contacts, _ = structure.contacts(helix(12))
    for shapes in ({"truth": np.zeros((3, 3), bool)}, {"known": np.ones((2, 12), bool)}):
        with pytest.raises(ValueError, match=r"must have the same shape \(N, N\), received"):
            plot_contacts(contacts * 1.0, **shapes)
    with pytest.raises(ValueError, match="no pair of residues is at least 6 apart"):
        plot_contacts(np.zeros((4, 4)))
    figure, caption = plot_contacts(contacts * 1.0, name="a helix")
    assert "likeliest" in caption and "among the" not in caption  # nothing to compare with
    assert len(figure.axes[0].collections) == 1
    with pytest.raises(ValueError, match=r"the same shape \(N,\), received \(2,\) and \(3,\)"):
        plot_confidence([60.0, 70.0], [50.0, 60.0, 70.0])
    with pytest.raises(ValueError, match=r"torsions must have the shape \(2, 2\) or \(2, 3\)"):
        plot_ramachandran(np.zeros((3, 3)), "MK")
    with pytest.raises(ValueError, match="no residue has both phi and psi"):
        plot_ramachandran(np.full((2, 3), np.nan), "MK")
