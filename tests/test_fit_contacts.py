"""`kft.fit_contacts`: the regression on attention maps is scikit-learn's, and finds contacts."""

import numpy as np
import pytest
from models import esm2, esmc
from sklearn.linear_model import LogisticRegression

import kft
from kft import structure
from kft.data import Split

RNG = np.random.default_rng(0)
SEQUENCES = ["".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), n)) for n in (30, 24)]


def maps_of(backbone, sequence):
    """The symmetric, corrected attention maps (H, N, N), in numpy."""
    head = backbone.contacts.get_layer("contact_head")
    kernel, bias = (w.numpy() if hasattr(w, "numpy") else np.array(w) for w in head.get_weights())
    found = []
    for k in range(len(kernel)):  # the logit of a head that looks at one map alone
        head.set_weights([np.eye(len(kernel))[:, [k]].astype("float32"), np.zeros(1)])
        p = backbone.contacts.predict_on_batch(backbone.encode([sequence]))[0].astype("float64")
        found.append(np.log(p / (1 - p)))
    head.set_weights([kernel, bias])
    return np.array(found)


def chains_that_touch_where(backbone, k):
    """Chains whose contacts are the pairs of which map `k` is high."""
    targets, masks = [], []
    for sequence in SEQUENCES:
        number = np.arange(len(sequence))
        mask = abs(number[:, None] - number) >= 6
        values = maps_of(backbone, sequence)[k]
        targets.append(((values > np.quantile(values[mask], 0.9)) & mask).astype(int))
        masks.append(mask)
    return Split(SEQUENCES, targets, masks=masks)


def test_the_regression_finds_the_map_that_tells_the_contacts():
    backbone = kft.backbones.randomised(esm2(), 0)
    chains = chains_that_touch_where(backbone, 1)
    used = kft.fit_contacts(backbone, chains, C=10.0)
    rows, truth = [], []
    for sequence, target, mask in zip(SEQUENCES, chains.targets, chains.masks, strict=True):
        first, second = np.nonzero(np.triu(mask))
        rows.append(maps_of(backbone, sequence)[:, first, second].T)
        truth.append(target[first, second])
    expected = LogisticRegression(
        l1_ratio=1.0, C=10.0, solver="liblinear", max_iter=1000, random_state=0
    )
    expected.fit(np.concatenate(rows), np.concatenate(truth))
    assert used == np.count_nonzero(expected.coef_) > 0
    for sequence, target, mask in zip(SEQUENCES, chains.targets, chains.masks, strict=True):
        found = backbone.contacts.predict_on_batch(backbone.encode([sequence]))[0]
        share = structure.contact_precision(
            found, target == 1, mask, per_length=target.sum() / 2 / len(target)
        )
        assert share > 0.8


@pytest.mark.once
def test_a_fitted_head_is_saved(tmp_path):
    """Also where the file of the backbone held none, as that of this one."""
    backbone = kft.load("kft_esm2_tiny")
    kft.backbones.save(backbone, tmp_path / "without")
    with pytest.warns(UserWarning, match=r"no weights for backbone\.contacts"):
        kft.load(tmp_path / "without")
    kft.fit_contacts(backbone, chains_that_touch_where(esm2(), 0), C=100.0)
    kft.backbones.save(backbone, tmp_path / "with")
    again = kft.load(tmp_path / "with")
    encoded = backbone.encode(SEQUENCES)
    np.testing.assert_array_equal(
        *(x.contacts.predict_on_batch(encoded) for x in (again, backbone))
    )


@pytest.mark.once
def test_errors_say_what_is_wrong():
    backbone = esm2()
    chains = chains_that_touch_where(backbone, 0)
    with pytest.raises(ValueError, match="a contact head, as ESM-2 has, received 'esmc'"):
        kft.fit_contacts(esmc(), chains)
    with pytest.raises(ValueError, match=r"targets and masks \(residues, residues\)"):
        kft.fit_contacts(backbone, Split(SEQUENCES, chains.targets))
    nothing = Split(SEQUENCES, [0 * x for x in chains.targets], masks=chains.masks)
    with pytest.raises(ValueError, match="pairs in contact and pairs apart, received"):
        kft.fit_contacts(backbone, nothing)
