"""Simulated strain: its physics, its images, and the real event that they must agree with."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from spectrogram_features import features

from kft import data
from kft.data.gravitational_waves import chirps as gw
from kft.data.gravitational_waves import detectors, strain, waveforms

pytestmark = pytest.mark.once

RATE = strain.RATE


# ---- waveforms


def frequency_of(wave):
    return -np.diff(np.unwrap(np.angle(wave))) / (2 * np.pi) * RATE


@pytest.mark.parametrize("masses", [(1.4, 1.4), (2.0, 1.2)])
def test_early_inspiral_is_newtonian_and_tells_the_chirp_mass(masses):
    times = np.arange(-60, -30, 1 / RATE)
    f = frequency_of(waveforms.chirp(times, *masses))
    expected = waveforms.chirp_mass(*masses) * waveforms.SOLAR_MASS  # seconds
    # Peters 1964: pi f = (256 |t| / 5)^(-3/8) Mc^(-5/8); the corrections are a few percent
    newton = (256 / 5 * -times[:-1]) ** (-3 / 8) * expected ** (-5 / 8) / np.pi
    assert np.abs(f / newton - 1).max() < 0.06
    # Mc^5 = (5/96)^3 pi^-8 f^-11 fdot^3
    middle = slice(len(f) // 4, len(f) // 4 * 3)
    slope = np.polyfit(times[:-1][middle], f[middle], 1)[0]
    found = ((5 / 96) ** 3 * np.pi**-8 * f[middle].mean() ** -11 * slope**3) ** 0.2
    assert found == pytest.approx(expected, rel=0.04)


def test_more_than_newton_is_the_second_post_newtonian_order():
    """dv/dt, here once more from the coefficients of Blanchet et al. 1995 and by an ODE solver."""
    total, eta = 30 * waveforms.SOLAR_MASS, 0.24
    from scipy.integrate import solve_ivp

    def slope(t, v):
        series = 1 - (743 / 336 + 11 * eta / 4) * v**2 + 4 * np.pi * v**3
        series += (34103 / 18144 + 13661 * eta / 2016 + 59 * eta**2 / 18) * v**4
        return 32 * eta / (5 * total) * v**9 * series

    v, times, phases = waveforms._inspiral(0.2, 0.4, total, eta)
    solved = solve_ivp(slope, (times[0], 0), [0.2], rtol=1e-10, dense_output=True)
    np.testing.assert_allclose(solved.sol(times)[0][::500], v[::500], rtol=2e-4)
    cycles = np.trapezoid(solved.sol(times)[0] ** 3 / total, times)
    assert -phases[0] == pytest.approx(cycles, rel=1e-4)


def test_ring_down_of_the_first_event():
    frequency, damping = waveforms.ring_down(67.6, 0.67)  # 62 suns at a redshift of 0.09
    assert frequency == pytest.approx(250, abs=3)
    assert damping == pytest.approx(4.0e-3, abs=2e-4)
    assert waveforms.ring_down(62, 0.67)[0] == pytest.approx(frequency * 67.6 / 62)
    mass, spin = waveforms.remnant(35.6, 30.6)
    assert spin == pytest.approx(0.68, abs=0.02) and mass == pytest.approx(63.1, abs=0.5)


@pytest.mark.parametrize("masses", [(36.0, 29.0), (60.0, 12.0)])
def test_a_chirp_ends_in_its_ring_down(masses):
    times = np.arange(-1, 0.2, 1 / RATE)
    wave = waveforms.chirp(times, *masses)
    frequency, damping = waveforms.ring_down(*waveforms.remnant(*masses))
    tail = slice(*np.searchsorted(times, (5 * damping, 8 * damping)))
    assert frequency_of(wave)[tail] == pytest.approx(frequency, rel=0.01)
    fall = np.polyfit(times[tail], np.log(np.abs(wave[tail])), 1)[0]
    assert -1 / fall == pytest.approx(damping, rel=0.02)
    size = np.abs(wave)
    assert abs(times[size.argmax()]) < 1e-3
    assert (np.diff(size[: size.argmax()]) > -1e-3 * size.max()).all()  # grows until the peak
    assert np.abs(np.diff(size)).max() < 0.05 * size.max()  # and joins without a step
    eta = masses[0] * masses[1] / sum(masses) ** 2
    peak = size.max() * waveforms.MEGAPARSEC / (sum(masses) * waveforms.SOLAR_MASS)
    assert peak / np.sqrt(5 / np.pi / 4) == pytest.approx(eta * (1.45 + 0.44 * eta), rel=0.01)


def test_amplitude_is_that_of_the_quadrupole_formula():
    # h = 4 / r (G Mc / c^2)^(5/3) (pi f / c)^(2/3), in SI
    wave = waveforms.chirp(np.arange(-5, 0.5, 1 / RATE), 30, 30)
    i = RATE  # four seconds before the merger
    mass = 30 * 2**-0.2 * 1.98841e30 * 6.67430e-11 / 299792458**2
    f = frequency_of(wave)[i]
    expected = 4 / 3.0857e22 * mass ** (5 / 3) * (np.pi * f / 299792458) ** (2 / 3)
    assert abs(wave[i]) / expected == pytest.approx(1, rel=1e-3)


def test_orientation():
    assert waveforms.detector_response(0, 1, 0)[0] == 1
    assert waveforms.detector_response(np.pi / 2, 1, 0)[0] == 0.5  # edge on: half of h+, no hx
    assert waveforms.detector_response(np.pi / 2, 0, 1)[0] == pytest.approx(0)


# ---- noise


def test_noise_has_the_density_of_the_curve():
    n = 64 * RATE
    f = np.fft.rfftfreq(n, 1 / RATE)
    for curve in (detectors.design_curve, detectors.early_curve):
        noise = detectors.make_noise(curve(f), n, np.random.default_rng(0))
        at, found = scipy.signal.welch(noise, RATE, nperseg=2 * RATE)
        band = (at > 50) & (at < 2000)
        ratio = found[band] / curve(at[band])
        assert ratio.mean() == pytest.approx(1, abs=0.02)
        blocks = ratio[: len(ratio) // 50 * 50].reshape(-1, 50).mean(axis=1)
        assert np.abs(blocks - 1).max() < 0.15


def test_curves_at_published_points():
    f = np.array([215.0, 150.0])
    # The formulas of the table by hand: at f0, x = 1, and early 0.16 + 0.52 + 0.32
    assert detectors.design_curve(f)[0] / 1e-49 == pytest.approx(1 - 5 + 111 * 0.5 / 1.5)
    assert detectors.design_curve(f)[1] / 1e-49 == pytest.approx(50.56, abs=0.01)
    assert detectors.early_curve(f)[1] / 9e-46 == pytest.approx(1)


@pytest.mark.parametrize(("detector", "swell"), [("design", 0.04), ("early", 0.1)])
def test_whitened_noise_has_unit_variance(detector, swell):
    white = gw._stretch(5, detector, 0)[0]
    inside = white[4 * RATE : -4 * RATE]
    assert inside.std() == pytest.approx(1, abs=swell)
    spectrum = scipy.signal.welch(inside, RATE, nperseg=RATE)[1][30:1900]
    assert spectrum.mean() == pytest.approx(2 / RATE, rel=2 * swell)
    assert spectrum.max() < 6 * spectrum.mean()  # no line is left that dwarfs the rest


def test_snr_is_what_was_asked_for_and_falls_with_distance():
    _, _, density = gw._stretch(0, "design", 0)
    times = np.arange(-4, 4, 1 / RATE)
    row = {"time": 0.1}
    wave = gw._draw_chirp(times, density, 1.0, row, np.random.default_rng(3))
    # independently: whiten by the true density, whose noise then has unit variance
    f = np.fft.rfftfreq(len(times), 1 / RATE)
    white = np.fft.irfft(np.fft.rfft(wave) * (f >= 20) / np.sqrt(density * RATE / 2))
    assert np.sqrt((white**2).sum()) == pytest.approx(row["snr"], rel=1e-3)
    assert detectors.optimal_snr(wave / 2, density) == pytest.approx(row["snr"] / 2)
    again = row["distance"] * wave  # the wave from one megaparsec
    assert detectors.optimal_snr(again / (3 * row["distance"]), density) == pytest.approx(
        row["snr"] / 3
    )


def test_every_chirp_can_be_seen_and_noise_cannot():
    """The loudest tile of what is drawn, whitened by the estimated spectrum, beside noise's own."""
    white, response, density = gw._stretch(0, "design", 0)
    times, light, heavy = np.arange(-4, 4, 1 / RATE), [], []
    for seed in range(80):
        row = {"time": 0.2}
        wave = gw._draw_chirp(times, density, 1.0, row, np.random.default_rng(seed))
        ratio = strain.loudest_tile(gw._whitened(wave, response), 1.0)
        assert 4.5 < ratio < 50  # the estimated spectrum is not the true one
        (light if row["mass_1"] < 3 else heavy).append(row["snr"])
    assert len(light) > 5 and min(light) > 30  # spread over many tiles, so brought nearer
    assert 6 <= min(heavy) < 8 and np.median(heavy) < 30
    noise = [strain.loudest_tile(white[i * RATE : (i + 4) * RATE], 1.0) for i in range(4, 24, 2)]
    assert 3.5 < np.median(noise) < 4.8


def test_the_loudest_tile_has_the_ratio_of_a_matched_filter():
    times = np.arange(-2, 2, 1 / RATE)
    packet = waveforms.sine_gaussian(times, 150.0, 8.0)
    packet *= 10 / np.sqrt((packet**2).sum())
    apart = np.roll(packet, RATE // 2) + np.roll(packet, -RATE // 2)
    assert strain.loudest_tile(packet, 1.0) == pytest.approx(9.7, abs=0.2)
    assert strain.loudest_tile(3 * packet, 1.0) == pytest.approx(29, abs=0.6)
    # The other way to have a larger ratio shows nothing more, and what lies outside nothing.
    assert strain.loudest_tile(apart, 2.0) == pytest.approx(9.7, abs=0.2)
    assert strain.loudest_tile(apart, 0.5) < 1


def test_a_matched_filter_finds_what_was_put_in():
    """The ratio is that of real filtering: mean rho and unit scatter over noise."""
    white, response, density = gw._stretch(1, "design", 0)
    times = np.arange(-4, 4, 1 / RATE)
    wave = waveforms.chirp(times, 30, 25).real
    wave *= 12 / detectors.optimal_snr(wave, density)
    template = np.fft.irfft(np.fft.rfft(wave) * response)
    template /= np.sqrt((template**2).sum())
    signal = np.fft.irfft(np.fft.rfft(wave) * response)
    assert (signal * template).sum() == pytest.approx(12, rel=0.15)  # the density is estimated
    scatter = scipy.signal.fftconvolve(white[4 * RATE : -4 * RATE], template[::-1], "valid").std()
    assert scatter == pytest.approx(1, abs=0.2)


# ---- images


def white_image(signal=None, seed=0, **options):
    noise = np.random.default_rng(seed).normal(size=16 * RATE)
    return data.spectrogram(noise if signal is None else noise + signal, RATE, 8.0, **options)


def test_noise_is_about_one_and_rows_are_alike():
    image = np.mean([white_image(seed=seed) for seed in range(8)], axis=0) / 10
    assert image.mean() == pytest.approx(1 / np.log(2), rel=0.1)  # mean over median, exponential
    assert np.median(white_image()) / 10 == pytest.approx(1, abs=0.3)
    assert image[30:].mean() == pytest.approx(image[:30].mean(), rel=0.2)


@pytest.mark.parametrize(("frequency", "late"), [(50, -0.25), (200, 0.0), (640, 0.3)])
def test_a_sine_gaussian_lands_in_its_tile(frequency, late):
    times = np.arange(16 * RATE) / RATE - 8.0 - late
    packet = waveforms.sine_gaussian(times, frequency, 8.0) * np.sqrt(frequency / 20)
    image = white_image(packet, size=(80, 100)).astype(float)
    loud = np.maximum(image - 150, 0)  # noise does not reach it
    row = np.average(np.arange(80), weights=loud.sum(axis=1))
    column = np.average(np.arange(100), weights=loud.sum(axis=0))
    assert strain.row_frequencies(80)[round(row)] == pytest.approx(frequency, rel=0.08)
    assert (column + 0.5) / 100 - 0.5 == pytest.approx(late, abs=0.025)


def test_rows_fall_from_high_to_low():
    f = strain.row_frequencies(64)
    assert f[0] == pytest.approx(993, abs=10) and f[-1] == pytest.approx(20.6, abs=0.5)
    np.testing.assert_allclose(f[1:] / f[:-1], f[1] / f[0])


def test_rate_unit_and_length_change_little():
    """The same signal in the same noise: at 16384 Hz, in other units, from a shorter stretch."""
    fast = np.random.default_rng(1).normal(size=16 * 4 * RATE)
    times = np.arange(len(fast)) / (4 * RATE) - 8
    fast += 2.5 * waveforms.sine_gaussian(times, 150, 8)
    slow = scipy.signal.resample(fast, len(fast) // 4)
    reference = data.spectrogram(slow, RATE, 8.0).astype(int)

    def differ(image):
        return np.abs(image.astype(int) - reference).mean() / reference.mean()

    assert differ(data.spectrogram(fast, 4 * RATE, 8.0)) < 0.02
    assert differ(data.spectrogram(slow * 1e-21, RATE, 8.0)) == 0
    assert differ(data.spectrogram((slow * 1e-21).astype(np.float32), RATE, 8)) < 0.02
    assert differ(data.spectrogram(slow[4 * RATE :][: 8 * RATE], RATE, 4.0)) < 0.5
    assert differ(white_image(seed=1)) > 0.5  # what another noise makes


def test_three_q_are_channels():
    image = white_image(q=(4, 8, 16), size=(32, 48))
    assert image.shape == (32, 48, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[..., 1], white_image(size=(32, 48)))


NOISE = np.random.default_rng(0).normal(size=16 * RATE)
GAP = np.where(np.arange(16 * RATE) == 5 * RATE, np.nan, NOISE)
WRONG = {
    "nan": ((GAP, RATE, 8.0), {}, "is missing .* from 5.000 to 5.000 s"),
    "short": ((NOISE[: 5 * RATE], RATE, 2.5), {}, "has 20,480 samples, 5 s at 4096 Hz"),
    "edge": ((NOISE, RATE, 1.0), {}, "`time` must be from 4 to 12, in seconds after the first"),
    "gps": ((NOISE, RATE, 1126259462.4), {}, "For GPS times subtract"),
    "nan time": ((NOISE, RATE, np.nan), {}, "`time` must be"),
    "shape": ((NOISE.reshape(2, -1), RATE, 8.0), {}, r"one dimension.*\(2, 32768\)"),
    "rate": ((NOISE, 2048, 8.0), {}, "`sample_rate` must be a whole number of Hz, at least 4096"),
    "half rate": ((NOISE, 4096.5, 8.0), {}, "`sample_rate` must be a whole number"),
    "nan rate": ((NOISE, np.nan, 8.0), {}, "`sample_rate` must be a whole number"),
    "constant": ((NOISE * 0 + 1, RATE, 8.0), {}, "is constant"),
    "text": ((["a"], RATE, 8.0), {}, "must be an array of real numbers"),
    "size": ((NOISE, RATE, 8.0), {"size": 4}, "size must be an integer from 8 to 2048, received 4"),
    "duration": ((NOISE, RATE, 8.0), {"duration": 5}, "`duration` must be from 0.1 to 3"),
    "q": ((NOISE, RATE, 8.0), {"q": (4, 8)}, "`q` must be one number from 4 to 64 or three"),
}


@pytest.mark.parametrize(("arguments", "options", "message"), WRONG.values(), ids=WRONG)
def test_wrong_strain(arguments, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        data.spectrogram(*arguments, **options)


# ---- the data set


@pytest.fixture(scope="module")
def small():
    return data.load("gravitational_waves", images=96, size=32)


def by_number(loaded):
    """Images and parameters in the order in which they were made."""
    rows = [row for split in loaded.splits.values() for row in split.parameters.tolist()]
    images = [image for split in loaded.splits.values() for image in split.inputs]
    return {str(row): image.tobytes() for row, image in zip(rows, images, strict=True)}


def test_the_data_set_keeps_the_contract(small):
    assert small.classes[0] == "chirp" and len(small.classes) == 8
    every = np.concatenate([split.targets for split in small.splits.values()])
    assert np.bincount(every).tolist() == [12] * 8
    for split in small.splits.values():
        assert all(x.shape == (32, 32) and x.dtype == np.uint8 for x in split.inputs)
        assert [small.classes[t] for t in split.targets] == split.parameters["label"].tolist()
        np.testing.assert_array_equal(split.groups, split.parameters["stretch"])
    stretches = [set(split.groups.tolist()) for split in small.splits.values()]
    assert sum(map(len, stretches)) == len(set.union(*stretches)) == 16
    assert "doi" in small.citation and len(small.checksum) == 64 and small.licence
    assert "32 x 32 pixels" in repr(small.train)


def test_the_same_seed_gives_the_same_images_however_many(small):
    fewer = data.load("gravitational_waves", images=60, size=32)
    assert by_number(fewer).items() <= by_number(small).items()
    assert len(by_number(fewer)) == 60
    other = data.load("gravitational_waves", images=60, size=32, seed=1)
    assert not set(by_number(fewer).values()) & set(by_number(other).values())


def test_parameters_are_physical(small):
    rows = np.concatenate([split.parameters for split in small.splits.values()])
    chirps = rows[rows["label"] == "chirp"]
    assert (chirps["snr"] >= 6).all()
    assert (chirps["mass_1"] >= chirps["mass_2"]).all() and (chirps["mass_2"] > 1).all()
    product, total = chirps["mass_1"] * chirps["mass_2"], chirps["mass_1"] + chirps["mass_2"]
    np.testing.assert_allclose(chirps["chirp_mass"], product**0.6 / total**0.2)
    assert ((chirps["distance"] > 1) & (chirps["distance"] < 2e4)).all()
    assert np.isnan(rows[rows["label"] == "blip"]["mass_1"]).all()
    assert (rows[rows["label"] == "noise"]["snr"] == 0).all()


def test_a_regression_holds_chirps_alone():
    loaded = data.load("gravitational_waves", images=60, size=16, task="regression", target="snr")
    assert loaded.task == "regression" and loaded.classes is None
    for split in loaded.splits.values():
        np.testing.assert_array_equal(split.targets, split.parameters["snr"])
        assert set(split.parameters["label"]) == {"chirp"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 10}, "images must be an integer of at least 60, received 10"),
        ({"detector": "virgo"}, "detector must be one of design, early; received 'virgo'"),
        ({"target": "snr"}, "whose target is the class"),
        ({"task": "regression", "target": "spin"}, "target must be one of None, chirp_mass"),
        ({"seed": -1}, "seed must be an integer of at least 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        data.load("gravitational_waves", **options)


# ---- the real event


@pytest.mark.skipif("KFT_DATA" not in os.environ, reason="needs KFT_DATA")
@pytest.mark.parametrize("images", [360, pytest.param(720, marks=pytest.mark.long)])
def test_simulation_teaches_to_recognise_the_first_event(images):
    from sklearn.ensemble import ExtraTreesClassifier

    path = Path(os.environ["KFT_DATA"], "gwosc", "GW150914.npz")
    if not path.is_file():
        pytest.skip("needs the strain around GW150914 in KFT_DATA")
    simulated = data.load("gravitational_waves", images=images)
    forest = ExtraTreesClassifier(200, min_samples_leaf=2, random_state=0)
    forest.fit(features(simulated.train.inputs), simulated.train.targets)
    assert forest.score(features(simulated.test.inputs), simulated.test.targets) > 0.8
    with np.load(path) as file:
        event = float(file["tevent"] - file["gps_start"])
        for name in ("H1", "L1"):
            at = [event, *[t for t in np.arange(4.0, 28.0, 1.0) if abs(t - event) > 1]]
            real = [data.spectrogram(file[name], int(file["fs"]), t) for t in at]
            called = forest.predict(features(real)) == 0
            assert called[0], name
            assert not called[1:].any(), name
