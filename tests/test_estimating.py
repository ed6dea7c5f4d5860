"""kft.estimate: what it measures, extrapolates, leaves as it was, and refuses."""

import numpy as np
import pytest
from keras import layers
from models import BACKBONES, dense, esm2, same, values

import kft
from kft.comparison import estimating

pytestmark = pytest.mark.once


def test_extrapolation_is_a_line_through_two_sizes(monkeypatch):
    """The first run pays for what all sizes share: its memory counts once."""
    sizes = []

    def costs(model, size, length):
        sizes.append(size)
        shared = 1000 if len(sizes) == 1 else 0
        return np.array([shared + 300 + 20 * size, 0.1 + 0.1 * size, 7, 0.25, 3.0])

    monkeypatch.setattr(estimating, "_costs", costs)
    found = kft.estimate(kft.Model(esm2(), kft.heads.Regression()), batch_size=50, length=9)
    assert sizes == [1, 1, 8]  # of 0.25 and 0.2 seconds, the largest within two seconds
    assert found.memory - found.forward_memory == 1000 + 300 + 20 * 50 - 7
    assert found.seconds == pytest.approx(0.1 + 0.1 * 50)
    assert (found.forward_seconds, found.compiling, found.measured) == (0.25, 3.0, 8)  # the same


def test_a_model_of_sequences_is_measured_and_left_as_it_was():
    model = kft.Model(esm2(), kft.heads.ResidueClassification(3), remat=True)
    kft.add_lora(model, 2)
    before = values(model)
    found = kft.estimate(model, batch_size=3, length=9)
    assert (found.batch_size, found.length, found.measured) == (3, 9, 3)
    assert found.forward_seconds > 0 and found.seconds > 0
    assert min(found.memory, found.forward_memory) > 2**20  # of the whole process
    assert same(values(model), before) and not model.compiled
    assert str(found).startswith("3 records of 9 residues, measured:\ntraining step")
    assert set(found.to_dict()) == set(estimating.Estimate.__dataclass_fields__)


def test_large_batches_are_extrapolated(monkeypatch):
    monkeypatch.setattr(estimating, "_SECONDS", 0.0)
    found = kft.estimate(kft.Model(esm2(), kft.heads.Regression()), batch_size=500, length=9)
    assert found.measured == 2
    assert "500 records of 9 residues, from batches of 2:" in str(found)


def test_images_and_refusals():
    model = kft.Model(BACKBONES["vit"](), dense(1))
    assert kft.estimate(model, batch_size=1).length is None
    with pytest.raises(ValueError, match="length is for models of sequences, received 9 for model"):
        kft.estimate(model, batch_size=1, length=9)
    model = kft.Model(esm2(), layers.Dense(1))
    with pytest.raises(ValueError, match="length must be the number of residues of each record"):
        kft.estimate(model, batch_size=1)
    model.trainable = False
    with pytest.raises(ValueError, match="No weight of model is trainable: unfreeze a layer"):
        kft.estimate(model, batch_size=1, length=9)
