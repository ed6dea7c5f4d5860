"""Long proteins in overlapping windows: cutting, joining, what is said, refusals."""

import itertools

import numpy as np
import pytest
from models import esm2, perturb, strings

import kft
from kft.inference import windows

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def backbone():
    return perturb(esm2())


def test_every_residue_is_in_the_window_whose_middle_is_nearest():
    for length in range(1, 60):
        for window in (8, 9, 12):
            at = windows.starts(length, window)
            ends = windows.borders(length, at, window)
            assert all(b - a <= window // 2 for a, b in itertools.pairwise(at))
            assert at[-1] + window >= length
            owner = np.repeat(np.arange(len(at)), np.diff(ends))
            assert len(owner) == length
            middles = np.array(at) + (min(window, length) - 1) / 2
            distance = np.abs(np.arange(length)[:, None] - middles)  # (residues, windows)
            nearest = distance.min(axis=1)
            assert np.all(distance[np.arange(length), owner] <= nearest + 0.5)


def test_embeddings_are_those_of_the_windows(backbone):
    short, long = strings([10, 25])
    with pytest.warns(UserWarning, match="1 of 2 proteins have more than 10 residues, up to 25"):
        found = kft.embed(backbone, [short, long], window=10, per_residue=True)
    assert [len(rows) for rows in found] == [10, 25]
    assert np.array_equal(found[0], kft.embed(backbone, [short], per_residue=True)[0])
    pieces = kft.embed(backbone, [long[i : i + 10] for i in (0, 5, 10, 15)], per_residue=True)
    expected = np.concatenate([pieces[0][:7], pieces[1][2:7], pieces[2][2:7], pieces[3][2:]])
    np.testing.assert_allclose(found[1], expected, rtol=1e-5, atol=1e-6)
    with pytest.warns(UserWarning, match="in windows of 10"):
        pooled = kft.embed(backbone, [long], window=10)
    means = np.stack([piece.mean(axis=0) for piece in pieces])
    expected = np.average(means, axis=0, weights=[7, 5, 5, 8])
    np.testing.assert_allclose(pooled[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*were read in windows")
def test_predictions_tables_and_masks(backbone, tmp_path):
    long = "mkt<mask>" + strings([20])[0] + "*"
    model = kft.Model(backbone, kft.heads.ResidueClassification(3))
    with pytest.warns(UserWarning, match="ended in a stop"):
        [rows] = kft.predict(model, [long], window=8)
    assert rows.shape == (24, 3)
    (tmp_path / "long.fasta").write_text(f">a\nMKT\n>b\n{strings([30])[0]}\n>c\nMK1\n")
    model = kft.Model(backbone, kft.heads.Regression())
    with pytest.warns(UserWarning, match="'1' at position 3"):
        table = kft.predict(
            model, tmp_path / "long.fasta", as_frame=True, window=12, skip_invalid=True
        )
    assert table["id"].tolist() == ["a", "b"]
    kft.embed(backbone, ["MKT", strings([30])[0]], out=tmp_path / "out", shard="1/1", window=8)
    with pytest.raises(ValueError, match="is of another window"):
        kft.embed(backbone, ["MKT", strings([30])[0]], out=tmp_path / "out", shard="1/1", window=9)


def test_refusals(backbone):
    with pytest.raises(ValueError, match="window reads all residues, .* max_length leaves"):
        kft.embed(backbone, ["MKT"], window=8, max_length=5)
    with pytest.raises(ValueError, match="window is for models of one protein.* received 8 for"):
        kft.embed(kft.PairBackbone(backbone), [("MKT", "GSS")], window=8)
