"""Strain that is missing for a part: never an image of nothing, and never in silence."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from kft import data
from kft.data.gravitational_waves import strain

pytestmark = pytest.mark.once

RATE = strain.RATE
NOISE = np.random.default_rng(0).normal(size=32 * RATE)


def spoiled(begin, end, fill=0.0, noise=NOISE, rate=RATE):
    """Strain with something else from `begin` to `end`, in seconds."""
    found = noise.copy()
    at = slice(round(begin * rate), round(end * rate))
    if fill == "line":
        found[at] = np.linspace(found[at.start - 1], found[at.stop], at.stop - at.start)
    else:
        found[at] = fill
    return found


FILLS = {"zero": 0.0, "nan": np.nan, "infinite": -np.inf, "number": -999.0, "line": "line"}


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_what_is_whole_is_used_alone(fill):
    """Zeros for 18 of 32 s have made a black image: the median spectrum was that of the zeros."""
    with pytest.warns(UserWarning, match=r"missing .*from 14.000 to 32.000 s: .* 0.000 to 14.000"):
        found = data.spectrogram(spoiled(14, 32, 0.0 if fill == "line" else fill), RATE, 7.0)
    np.testing.assert_array_equal(found, data.spectrogram(NOISE[: 14 * RATE], RATE, 7.0))
    assert found.mean() > 5
    with pytest.warns(UserWarning, match=r"14.000 to 15.000 s"):
        found = data.spectrogram(spoiled(14, 15, fill), RATE, 24.0)
    np.testing.assert_array_equal(found, data.spectrogram(NOISE[15 * RATE :], RATE, 9.0))


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_a_gap_at_the_time_is_refused(fill):
    """It has made a white image."""
    for time in (14.2, 15.5, 17.0, 18.9):
        with pytest.raises(ValueError, match=r"from 16.000 to 17.000 s.*Take a time from 4.000"):
            data.spectrogram(spoiled(16, 17, fill), RATE, time)


def test_rate_type_and_length_of_a_gap():
    short = spoiled(16, 16.006)
    for given, rate in (
        (short, RATE), (short.astype("float32"), RATE), (spoiled(16, 16.006, np.nan), RATE),
        (np.rint(short * 1000).astype("int32"), RATE), (short * 1e-21, RATE),
        (spoiled(16, 16.006, 0.0, np.random.default_rng(1).normal(size=128 * RATE), 4 * RATE),
         4 * RATE),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"from 16.000 to 16.006 s"):
            data.spectrogram(given, rate, 16.1)
    assert strain.find_gaps(spoiled(16, 16.004), RATE) == []  # a glitch, as any other
    lonely = spoiled(16, 16 + 1 / RATE, np.nan)
    assert strain.find_gaps(lonely, RATE) == [(16 * RATE, 16 * RATE + 1)]


def test_too_little_is_left():
    twice = spoiled(20, 21, np.nan, noise=spoiled(7, 8))
    with pytest.raises(ValueError, match=r"7.000 to 8.000 s, 20.000 to 21.000 s, too near to"):
        data.spectrogram(twice, RATE, 4.0)  # 7 s are no spectrum
    many = NOISE.copy()
    many[::RATE] = np.nan
    with pytest.raises(ValueError, match=r"and in 27 more places.*Take other strain"):
        data.spectrogram(many, RATE, 16.0)
    with pytest.raises(ValueError, match="constant"):
        data.spectrogram(NOISE * 0, RATE, 16.0)


def test_several_times_are_each_as_alone():
    times = [5.0, 6.25, 25.5]
    found = data.spectrogram(NOISE, RATE, times)
    for time, image in zip(times, found, strict=True):
        np.testing.assert_array_equal(image, data.spectrogram(NOISE, RATE, time))
    with pytest.warns(UserWarning, match=r"only 0.000 to 14.000 s and 15.000 to 32.000 s"):
        both = data.spectrogram(spoiled(14, 15), RATE, [7.0, 24.0])
    np.testing.assert_array_equal(both[1], data.spectrogram(NOISE[15 * RATE :], RATE, 9.0))
    for wrong, message in (
        ([], "empty list"),
        ([5.0, 0.5], "received 0.5"),
        ([5.0, None], "received None"),
    ):
        with pytest.raises(ValueError, match=message):
            data.spectrogram(NOISE, RATE, wrong)


@pytest.mark.skipif("KFT_DATA" not in os.environ, reason="needs KFT_DATA")
def test_real_strain_has_no_gap():
    path = Path(os.environ["KFT_DATA"], "gwosc", "GW150914.npz")
    if not path.is_file():
        pytest.skip("needs the strain around GW150914 in KFT_DATA")
    with np.load(path) as file:
        for name in ("H1", "L1"):
            fast = scipy.signal.resample(file[name].astype("float64"), 4 * len(file[name]))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert strain.find_gaps(file[name], RATE) == []
                assert strain.find_gaps(fast, 4 * RATE) == []
                assert strain.find_gaps(fast.astype("float32"), 4 * RATE) == []
