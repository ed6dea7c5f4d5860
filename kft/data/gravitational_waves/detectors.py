"""Two simulated detectors: how sensitive they are, and the noise that they make.

Curves are the fits of Sathyaprakash & Schutz 2009, Living Rev. Relativ. 12:2, table 1: "design" is
Advanced LIGO and "early" is the first LIGO, which is deaf below 40 Hz. On the curve come lines of
mains, calibration and suspension, an excess at low frequencies that differs from stretch to
stretch, noise that slowly swells and ebbs, and faint glitches in the background.

The shift between the two: the early detector's wall stands at 40 Hz and not at 20, its wires sing
at 344 Hz where fused silica sings at 500, it has more lines, and so broad that they beat in every
image, it swells three times as much, and every third image has a faint glitch in the background
where the other's tenth has one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft

from kft.data.gravitational_waves.strain import LOWEST, RATE


@dataclass(frozen=True)
class Detector:
    """Hold what the noise of a detector is drawn from.

    Args:
        name: short name.
        curve: function of frequencies in Hz to the one-sided density in 1/Hz.
        lines: (frequency in Hz, log10 of the largest height over the curve) of the known lines.
        width: Hz, least and greatest width of a line. A spectrum of 32 s resolves 0.25 Hz: what is
            wider than a tenth of it is not whitened away, and beats.
        wandering: how many more lines stand at random frequencies.
        knee: Hz, least and greatest frequency below which the excess rises over the curve.
        swell: largest relative rise and fall of the amplitude within a stretch.
        glitchiness: probability of a faint glitch in the background of an image.
    """

    name: str
    curve: Callable
    lines: tuple
    width: tuple
    wandering: int
    knee: tuple
    swell: float
    glitchiness: float


def design_curve(frequencies):
    """Return the density of Advanced LIGO's noise at design sensitivity, 1/Hz.

    Args:
        frequencies: Hz (F,). The fit holds from 20 Hz; below, a wall of seismic noise continues it.

    Source: Sathyaprakash & Schutz 2009, table 1, "Adv. LIGO".

    Example:
        >>> float(design_curve(np.array([215.0]))[0])
        3.3e-48
    """
    x = np.maximum(frequencies, 20.0) / 215
    fit = x**-4.14 - 5 / x**2 + 111 * (1 - x**2 + x**4 / 2) / (1 + x**2 / 2)
    return 1e-49 * fit * _wall(frequencies, 20.0)


def early_curve(frequencies):
    """Return the density of the first LIGO's noise, 1/Hz.

    Args:
        frequencies: Hz (F,). The fit holds from 40 Hz and is used from 32 Hz.

    Source: Sathyaprakash & Schutz 2009, table 1, "Initial LIGO".

    Example:
        >>> float(early_curve(np.array([150.0]))[0])
        9e-46
    """
    x = np.maximum(frequencies, 32.0) / 150
    fit = (4.49 * x) ** -56 + 0.16 * x**-4.52 + 0.52 + 0.32 * x**2
    return 9e-46 * fit * _wall(frequencies, 32.0)


def _wall(frequencies, edge):
    """Ground motion below the edge; no steeper and higher than what real files hold."""
    return (edge / np.clip(frequencies, 8.0, edge)) ** 12


DETECTORS = {
    "design": Detector(
        "design",
        design_curve,
        lines=(
            *((60.0, 3.5), (120.0, 2), (180.0, 2.5), (300.0, 1.5)),  # mains
            *((35.9, 3), (36.7, 3), (331.9, 3), (1083.7, 2)),  # calibration
            *((302.2, 2), (303.3, 2), (500.0, 4), (501.7, 4), (508.5, 4), (1000.3, 4)),  # violin
        ),
        width=(0.02, 0.1),
        wandering=3,
        knee=(12.0, 55.0),
        swell=0.1,
        glitchiness=0.1,
    ),
    "early": Detector(
        "early",
        early_curve,
        lines=(
            *((60.0 * n, 4 - 0.3 * n) for n in range(1, 9)),
            *((46.7, 3), (393.1, 3)),
            *((343.1, 4.5), (344.5, 4.5), (347.0, 4.5), (686.7, 3.5), (693.5, 3.5)),
        ),
        width=(0.1, 0.5),
        wandering=8,
        knee=(35.0, 70.0),
        swell=0.3,
        glitchiness=0.35,
    ),
}


def draw_density(detector, frequencies, rng):
    """Draw the density of one stretch: the curve, its excess at low frequencies, and its lines.

    Args:
        detector: Detector.
        frequencies: Hz (F,), evenly spaced from 0.
        rng: numpy random generator.

    Returns:
        array (F,): one-sided density, 1/Hz.

    Example:
        >>> frequencies = np.arange(0, 2048.25, 0.25)
        >>> density = draw_density(DETECTORS["design"], frequencies, np.random.default_rng(0))
        >>> bool((density >= design_curve(frequencies)).all())
        True
    """
    density = detector.curve(frequencies)
    knee, power = np.exp(rng.uniform(*np.log(detector.knee))), rng.uniform(3, 9)
    density = density * (1 + (knee / np.maximum(frequencies, 8.0)) ** power)
    # Broad hills, as of light scattered or of beams that clip
    for _ in range(3):
        middle, width = np.exp(rng.uniform(np.log(60), np.log(1500))), rng.uniform(0.1, 0.6)
        hill = np.exp(-((np.log(np.maximum(frequencies, 1.0) / middle) / width) ** 2) / 2)
        density = density * (1 + rng.uniform(0, 1) * hill)
    lines = [(f + rng.normal(0, 0.05), rng.uniform(most - 2, most)) for f, most in detector.lines]
    lines += [(rng.uniform(25, 1200), rng.uniform(0, 2)) for _ in range(detector.wandering)]
    step = frequencies[1]
    for frequency, height in lines:
        width = rng.uniform(*detector.width)
        near = slice(int((frequency - 1) / step), int((frequency + 1) / step) + 2)
        line = np.exp(-(((frequencies[near] - frequency) / width) ** 2) / 2)
        density[near] *= 1 + 10**height * line
    return density


def make_noise(density, samples, rng, rate=RATE):
    """Draw stationary Gaussian noise of a one-sided density.

    Args:
        density: 1/Hz, at the frequencies of a real Fourier transform of this length.
        samples: how many, an even number.
        rng: numpy random generator.
        rate: samples per second, Hz.

    Returns:
        array (samples,): strain.

    Example:
        >>> make_noise(np.full(5, 1e-46), 8, np.random.default_rng(0)).shape
        (8,)
    """
    white = scipy.fft.rfft(rng.standard_normal(samples))
    return scipy.fft.irfft(white * np.sqrt(density * rate / 2), samples)


def swell(samples, size, rng, rate=RATE):
    """Draw a slow factor of the noise's amplitude around 1, of periods from 3 to 20 s."""
    times = np.arange(0, samples, 64) / rate
    slow = np.zeros(len(times))
    for _ in range(3):
        turns = times / np.exp(rng.uniform(np.log(3), np.log(20))) + rng.uniform()
        slow += rng.uniform(0, size / 2) * np.sin(2 * np.pi * turns)
    return np.interp(np.arange(samples) / rate, times, 1 + slow)


def optimal_snr(wave, density, rate=RATE):
    """Return the signal-to-noise ratio of a matched filter that knows the signal.

    rho^2 = 4 times the integral of |h(f)|^2 / S(f), here from 20 Hz to half of the rate.

    Args:
        wave: strain (T,).
        density: one-sided, 1/Hz, at the frequencies of a real Fourier transform of the wave.
        rate: samples per second, Hz.

    Returns:
        float.

    Source: Allen et al. 2012, Phys. Rev. D 85:122006, equation 2.5 and those after it.

    Example:
        >>> t = np.arange(-2, 2, 1 / 4096)
        >>> pulse = 1e-21 * np.exp(-((t / 0.01) ** 2)) * np.cos(2 * np.pi * 200 * t)
        >>> round(optimal_snr(pulse, np.full(8193, 1e-46)), 2)
        11.2
    """
    spectrum = np.abs(scipy.fft.rfft(wave) / rate) ** 2
    first = int(np.ceil(LOWEST * len(wave) / rate))
    return float(np.sqrt(4 * (spectrum[first:] / density[first:]).sum() * rate / len(wave)))
