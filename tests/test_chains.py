"""The data set `chains`: counts, splits, labels from coordinates, its baseline, and damage."""

import os
import shutil
import sys
import warnings
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from dssp_labels import biotite_labels, chain_files, labelled_chains

from kft import data
from kft.data import Dataset, Split
from kft.data.proteins import chains as module
from kft.data.proteins.dssp import bonded, dssp
from kft.evaluation import baselines

pytestmark = pytest.mark.once


def _is_installed():
    try:
        return metadata.version("cgdms") == "1.0"
    except metadata.PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(
    not _is_installed(),
    reason="the package cgdms is not installed: pip install --no-deps cgdms==1.0",
)
needs_flip = pytest.mark.skipif(
    not os.environ.get("KFT_DATA"), reason="KFT_DATA is unset: the FLIP files are not here"
)

# Checked by hand against the torsions of the backbone (phi near -60 and psi near -45 in helices,
# psi near 135 in strands): three helices; and a sheet of three strands on two helices.
LOOKED_AT = {
    "5YIU_A": "CCCCCCCCHHHHHHHHHHHHHCCCHHHHHHHHCCCCHHHHHHHHHHHCC",
    "4WXA_A": "CCCCEEEEEEEECCCHHHHHHHHHHCCCCCCCCCCCEEEEEEEECCEEEEEEEECC"
    "HHHHHHHHHHHHHHHHHHHHHHHHHHCC",
}


@cache
def chains():
    return data.load("chains")


@cache
def files():
    return chain_files()


def names_in(which):
    [file] = [f for f in metadata.files("cgdms") if f.as_posix() == f"cgdms/datasets/{which}.txt"]
    return file.read_text().split()


def words(sequences):
    return {s[i : i + 8] for s in sequences for i in range(len(s) - 7)}


def letters(rows):
    return ["".join("CEH"[i] for i in row) for row in rows]


def chain(name):
    """(sequence, coordinates, letters of the labels) of one chain."""
    for split in chains().splits.values():
        for i in np.flatnonzero(split.parameters["name"] == name):
            coordinates = split.parameters["coordinates"][i]
            return split.inputs[i], coordinates, letters(split.targets)[i]
    raise KeyError(name)


# ---- the records


@needs_package
def test_counts_and_what_is_known_of_the_set():
    loaded = chains()
    assert {name: len(split) for name, split in loaded.splits.items()} == {
        "train": 1756,
        "valid": 195,
        "test": 200,
    }
    assert (loaded.task, loaded.classes) == ("residue_classification", ("C", "E", "H"))
    assert len(loaded.checksum) == 64 and "doi" in loaded.citation and "MIT" in loaded.licence
    lengths = [len(s) for split in loaded.splits.values() for s in split.inputs]
    assert (min(lengths), max(lengths)) == (20, 100)
    for split in loaded.splits.values():
        targets = np.concatenate(split.targets)
        assert targets.dtype == np.int32 and set(targets) == {0, 1, 2}
    assert "cgdms" not in sys.modules  # its files are read, its code is never run


@needs_package
def test_records_are_those_of_the_files():
    for split in chains().splits.values():
        for i, row in enumerate(split.parameters):
            sequence, prediction, numbers = files()[row["name"]]
            assert (split.inputs[i], row["PSIPRED prediction"]) == (sequence, prediction)
            assert row["coordinates"].dtype == np.float32
            expected = numbers[:, :9].reshape(-1, 3, 3)
            np.testing.assert_allclose(row["coordinates"], expected, rtol=1e-6)
            assert len(split.targets[i]) == len(split.masks[i]) == len(sequence)


@needs_package
def test_coordinates_travel_with_the_records():
    test = chains().test
    taken = test.take([5, 2])
    assert taken.parameters["coordinates"][1] is test.parameters["coordinates"][2]
    assert len(taken.parameters["coordinates"][0]) == len(taken.inputs[0])


# ---- the splits


@needs_package
def test_splits_have_no_chain_and_no_word_of_eight_residues_in_common():
    splits = list(chains().splits.values())
    for i, one in enumerate(splits):
        for other in splits[i + 1 :]:
            assert not set(one.parameters["name"]) & set(other.parameters["name"])
            assert not words(one.inputs) & words(other.inputs)
            assert not set(one.groups) & set(other.groups)


@needs_package
def test_test_is_the_list_of_the_package_and_what_is_near_it_is_removed_by_name():
    loaded = chains()
    assert list(loaded.test.parameters["name"]) == names_in("val")
    kept = {*loaded.train.parameters["name"], *loaded.valid.parameters["name"]}
    removed = set(names_in("train")) - kept
    assert len(removed) == 53 and kept <= set(names_in("train"))
    of_test = words(loaded.test.inputs)
    assert all(words([files()[name][0]]) & of_test for name in removed)
    [note] = [note for note in loaded.notes if "53 training chains" in note]
    assert "a word of 8 residues" in note and all(name in note for name in removed)
    copies = {files()[name][0] for name in removed} & set(loaded.test.inputs)
    assert len(copies) == 2


@needs_package
def test_another_seed_draws_other_validation_chains_alone(monkeypatch):
    monkeypatch.setattr(module, "dssp", lambda atoms, sequence: "C" * len(sequence))  # not needed
    one, other = chains(), data.load("chains", seed=1)
    assert one.test.inputs == other.test.inputs
    valid = [set(d.valid.parameters["name"]) for d in (one, other)]
    both = [v | set(d.train.parameters["name"]) for v, d in zip(valid, (one, other), strict=True)]
    assert valid[0] != valid[1] and both[0] == both[1] and len(other.valid) == 195
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, received None"):
        data.load("chains", seed=None)


@needs_package
def test_residues_next_to_a_break_are_masked():
    loaded, masked = chains(), {}
    for split in loaded.splits.values():
        for name, mask in zip(split.parameters["name"], split.masks, strict=True):
            if not mask.all():
                masked[name] = np.flatnonzero(~mask).tolist()
    assert masked == {
        "1YM0_B": list(range(11)),  # the first ten are in reverse order
        "2CMP_A": [1, 2],
        "1LDT_L": [39, 40],
        "3RM2_L": list(range(5)),
    }
    [note] = [note for note in loaded.notes if "break" in note]
    assert all(name in note for name in masked) and "20 residues" in note
    for name, positions in masked.items():
        atoms = chain(name)[1]
        gaps = np.linalg.norm(atoms[1:, 0] - atoms[:-1, 2], axis=-1) > 2
        assert sorted({*np.flatnonzero(gaps), *(np.flatnonzero(gaps) + 1)}) == positions


# ---- labels from coordinates


@needs_package
@pytest.mark.parametrize("name", LOOKED_AT)
def test_labels_of_chains_that_were_looked_at(name):
    sequence, coordinates, labels = chain(name)
    assert labels == LOOKED_AT[name]
    # Where a chain lies in space says nothing of its structure.
    turned = coordinates @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] + 30
    assert dssp(turned, sequence) == labels


@needs_package
def test_labels_agree_with_biotite():
    pytest.importorskip("biotite", reason="needs the extra kft[structure]")
    for name in LOOKED_AT:
        _, coordinates, labels = chain(name)
        found = biotite_labels(coordinates)
        assert np.mean([a == b for a, b in zip(found, labels, strict=True)]) > 0.94


@needs_package
@needs_flip
def test_labels_agree_with_those_of_dssp():
    compared = list(labelled_chains())
    assert len(compared) == 466
    right = [
        a == b
        for sequence, _, coordinates, labels in compared
        for a, b in zip(dssp(coordinates, sequence), labels, strict=True)
    ]
    assert np.mean(right) > 0.997  # biotite's annotate_sse, from CA alone: 0.824


def helix(count, phi=-57.0, psi=-47.0):
    """(count, 3, 3): an ideal helix, atom by atom from bond lengths and angles."""
    torsions = {"N": (psi, 1.33, 116.2), "CA": (180.0, 1.46, 121.7), "C": (phi, 1.53, 111.0)}
    atoms = [np.array([0.0, 0, 0]), np.array([1.46, 0, 0]), np.array([2.0, 1.42, 0])]
    for i in range(3, 3 * count):
        torsion, length, angle = torsions[("N", "CA", "C")[i % 3]]
        a, b, c = atoms[-3:]
        along = (c - b) / np.linalg.norm(c - b)
        normal = np.cross(b - a, along)
        normal /= np.linalg.norm(normal)
        t, w = np.radians(torsion), np.radians(angle)
        step = [-np.cos(w), np.sin(w) * np.cos(t), np.sin(w) * np.sin(t)]
        atoms.append(c + length * (np.array([along, np.cross(normal, along), normal]).T @ step))
    return np.array(atoms).reshape(count, 3, 3)


def test_an_ideal_helix_is_one_and_an_extended_chain_is_none():
    assert dssp(helix(12), "A" * 12) == "C" + "H" * 10 + "C"
    assert dssp(helix(12, -139, 135), "A" * 12) == "C" * 12
    assert dssp(helix(12, -49, -26), "A" * 12) == "C" + "H" * 10 + "C"  # of three residues a turn


def test_a_proline_binds_nothing_and_a_break_ends_a_helix():
    atoms = helix(12)
    assert dssp(atoms[:7], "AAAAAAA") == "CHHHHHC"
    assert dssp(atoms[:7], "AAAAAPA") == "CCCCCCC"  # one turn less, and two make a helix
    apart = atoms.copy()
    apart[6:] += 4.0
    assert bonded(apart).tolist() == [True] * 5 + [False] + [True] * 5
    assert dssp(apart, "A" * 12) != dssp(atoms, "A" * 12)


def test_missing_atoms_bind_nothing_and_warn_of_nothing():
    atoms = helix(12)
    atoms[5] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(dssp(atoms, "A" * 12)) == 12
        assert dssp(np.full((4, 3, 3), np.nan), "MKTA") == "CCCC"
        assert dssp(np.zeros((6, 3, 3)), "MKTAYI") == "CCCCCC"
        assert (dssp(np.zeros((0, 3, 3)), ""), dssp(np.zeros((1, 3, 3)), "M")) == ("", "C")


def test_coordinates_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"`coordinates`.*the 4 residues.*received \(3, 3, 3\)"):
        dssp(np.zeros((3, 3, 3)), "MKTA")


# ---- the prediction of the package, as a baseline


@needs_package
def test_the_prediction_of_the_package_is_a_baseline():
    loaded = chains()
    fits = baselines.suited(loaded)
    assert list(fits) == ["constant", "residue", "window", "PSIPRED prediction"]
    found = fits["PSIPRED prediction"](loaded)
    assert found.name == "PSIPRED prediction of the package" and found.parameters == 0
    predicted = letters([row.argmax(axis=1) for row in found.predictions])
    assert predicted == list(loaded.test.parameters["PSIPRED prediction"])
    right = np.concatenate(
        [
            (row.argmax(axis=1) == target)[mask]
            for row, target, mask in zip(
                found.predictions, loaded.test.targets, loaded.test.masks, strict=True
            )
        ]
    )
    assert right.mean() == pytest.approx(0.743, abs=5e-4)  # a prediction, no observation


def toy(prediction="CCH", field="PSIPRED prediction"):
    rows = np.array([(prediction,)], dtype=[(field, "U9")])
    part = Split(["AAG"], [[0, 1, 1]], parameters=rows)
    return Dataset(
        "toy", "residue_classification", part, None, part, source="typed in", licence="none",
        citation="", checksum="", classes=("C", "H"),
    )  # fmt: skip


def test_a_prediction_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="letters C, H for each of the 3 residues.*'CCX'"):
        baselines.published(toy("CCX"), "PSIPRED prediction")
    with pytest.raises(ValueError, match="each of the 3 residues.*'CC'"):
        baselines.published(toy("CC"), "PSIPRED prediction")
    with pytest.raises(ValueError, match=r"\(PSIPRED prediction\), received 'other'"):
        baselines.published(toy(), "other")
    plain = replace(toy(), test=Split(["AAG"], [[0, 1, 1]]))
    assert list(baselines.suited(plain)) == ["constant", "residue", "window"]
    assert list(baselines.suited(toy(field="name"))) == ["constant", "residue", "window"]


# ---- a package that is absent or damaged


def test_without_the_package_the_error_gives_the_command(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps cgdms==1\.0"):
        data.load("chains")


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A folder that stands before the installed package, with copies of the files that are read."""
    package = metadata.distribution("cgdms")
    site = Path(package.locate_file("."))
    for folder in ("cgdms/datasets", "cgdms/protein_data/train_val", "cgdms-1.0.dist-info"):
        shutil.copytree(site / folder, tmp_path / folder)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@needs_package
def test_a_damaged_file_is_named(copied):
    path = copied / "cgdms/protein_data/train_val/1CTF_A.txt"
    sound = path.read_bytes()
    path.write_bytes(sound.replace(b"1", b"2", 1))
    with pytest.raises(ValueError, match=r"1CTF_A\.txt is damaged.*--force-reinstall cgdms==1\.0"):
        data.load("chains")
    path.unlink()
    with pytest.raises(ValueError, match=r"1CTF_A\.txt cannot be read"):
        data.load("chains")
    path.write_bytes(sound)
    record = copied / "cgdms-1.0.dist-info/RECORD"
    lines = record.read_text().splitlines(keepends=True)
    record.write_text("".join(line for line in lines if "1CTF_A" not in line))
    with pytest.raises(ValueError, match=r"are not those of version 1\.0.*expected 4314"):
        data.load("chains")
