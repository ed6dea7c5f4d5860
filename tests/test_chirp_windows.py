"""Several windows of the same simulated strain, to train with."""

import numpy as np
import pytest

from kft import data

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def plain():
    return data.load("gravitational_waves", images=60, size=32)


@pytest.fixture(scope="module")
def several():
    return data.load("gravitational_waves", images=60, size=32, shifts=2)


def test_only_training_images_have_further_windows(plain, several):
    assert len(several.train) == 3 * len(plain.train)
    assert len(several.notes) == len(plain.notes) + 1 and "2 further windows" in several.notes[0]
    for part in ("valid", "test"):
        one, other = plain.splits[part], several.splits[part]
        np.testing.assert_array_equal(one.inputs, other.inputs)
        assert str(one.parameters.tolist()) == str(other.parameters.tolist())  # NaN included
    np.testing.assert_array_equal(several.train.inputs[::3], plain.train.inputs)
    np.testing.assert_array_equal(several.train.targets[1::3], plain.train.targets)
    np.testing.assert_array_equal(several.train.groups[2::3], plain.train.groups)


def test_the_signal_is_the_same_and_stands_elsewhere(several):
    parameters = several.train.parameters.reshape(-1, 3)
    times = parameters["time"]
    assert np.abs(times).max() <= 0.3 + 1e-3 and np.ptp(times, axis=1).min() > 0
    assert times[:, 1:].std() == pytest.approx(0.6 / np.sqrt(12), rel=0.2)  # evenly
    for name in parameters.dtype.names:
        if name != "time":
            assert all(str(row[0]) == str(value) for row in parameters[name] for value in row)


def test_the_picture_moves_with_its_time(several):
    """Columns of 1/32 s: a loud glitch is found where the parameters say."""
    loud = several.train.parameters["label"] == "koi_fish"
    assert loud.sum() >= 9
    for image, row in zip(np.array(several.train.inputs)[loud],
                          several.train.parameters[loud], strict=True):  # fmt: skip
        light = np.minimum(image.astype(float).sum(axis=0), 3000) ** 2
        middle = (light * (np.arange(32) + 0.5)).sum() / light.sum() / 32 - 0.5
        assert abs(middle - row["time"]) < 0.12


def test_the_seed_draws_the_windows(several):
    again = data.load("gravitational_waves", images=60, size=32, shifts=2)
    assert again.checksum == several.checksum
    masses = data.load("gravitational_waves", images=60, size=32, task="regression", shifts=1)
    assert len(masses.train) == 2 * 42 and len(masses.test) == 6
    np.testing.assert_array_equal(masses.train.targets[::2], masses.train.targets[1::2])
    with pytest.raises(ValueError, match="shifts must be an integer of at least 0, received -1"):
        data.load("gravitational_waves", shifts=-1)
