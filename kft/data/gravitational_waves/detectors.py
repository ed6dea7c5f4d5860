"""Two simulated detectors: their sensitivity, and the noise that they produce.

Curves are the fits of Sathyaprakash & Schutz 2009, Living Rev. Relativ. 12:2, table 1: "design" is
Advanced LIGO and "early" is the first LIGO, which is insensitive below 40 Hz. Added are lines of
mains, calibration and suspension, an excess at low frequencies that differs between stretches, a
slow variation of the amplitude, and faint glitches in the background.

The early detector differs from the design detector in this: its seismic wall is at 40 Hz instead of
20, its suspension lines are at 344 Hz instead of 500, it has more and broader lines, which are
visible as beats in every image, its amplitude varies three times as much, and every third image
has a faint glitch in the background instead of every tenth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft

from kft.data.gravitational_waves.strain import LOWEST, RATE


@dataclass(frozen=True)
class Detector:
    """Parameters of the noise of a detector.

    Attributes:
        name: Short name.
        curve: Function from frequencies in Hz to the one-sided density in 1/Hz.
        lines: (frequency in Hz, log10 of the largest height above the curve) of the known lines.
        width: Smallest and largest width of a line in Hz. A spectrum of 32 s resolves 0.25 Hz;
            lines wider than a tenth of that are not removed by whitening, and beat.
        wandering: Number of further lines at random frequencies.
        knee: Smallest and largest frequency in Hz below which the excess rises above the curve.
        swell: Largest relative change of the amplitude within a stretch.
        glitchiness: Probability of a faint glitch in the background of an image.
    """

    name: str
    curve: Callable[[np.ndarray], np.ndarray]
    lines: tuple[tuple[float, float], ...]
    width: tuple[float, float]
    wandering: int
    knee: tuple[float, float]
    swell: float
    glitchiness: float


def design_curve(frequencies: np.ndarray) -> np.ndarray:
    """Compute the noise density of Advanced LIGO at design sensitivity.

    Args:
        frequencies: Array (F,) in Hz. The fit is valid from 20 Hz; below, seismic noise is added.

    Returns:
        Array (F,), the one-sided density in 1/Hz.

    Source: Sathyaprakash & Schutz 2009, table 1, "Adv. LIGO".

    Example:
        >>> float(design_curve(np.array([215.0]))[0])
        3.3e-48
    """
    x = np.maximum(frequencies, 20.0) / 215
    fit = x**-4.14 - 5 / x**2 + 111 * (1 - x**2 + x**4 / 2) / (1 + x**2 / 2)
    return 1e-49 * fit * _wall(frequencies, 20.0)


def early_curve(frequencies: np.ndarray) -> np.ndarray:
    """Compute the noise density of the first LIGO.

    Args:
        frequencies: Array (F,) in Hz. The fit is valid from 40 Hz and is used from 32 Hz.

    Returns:
        Array (F,), the one-sided density in 1/Hz.

    Source: Sathyaprakash & Schutz 2009, table 1, "Initial LIGO".

    Example:
        >>> float(early_curve(np.array([150.0]))[0])
        9e-46
    """
    x = np.maximum(frequencies, 32.0) / 150
    fit = (4.49 * x) ** -56 + 0.16 * x**-4.52 + 0.52 + 0.32 * x**2
    return 9e-46 * fit * _wall(frequencies, 32.0)


def _wall(frequencies: np.ndarray, edge: float) -> np.ndarray:
    """Return the factor of ground motion below the edge, as steep and high as in real data."""
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


def draw_density(
    detector: Detector, frequencies: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the density of one stretch: the curve, an excess at low frequencies, and lines.

    Args:
        detector: The detector.
        frequencies: Array (F,) in Hz, evenly spaced from 0.
        rng: Random generator.

    Returns:
        Array (F,), the one-sided density in 1/Hz.

    Example:
        >>> frequencies = np.arange(0, 2048.25, 0.25)
        >>> density = draw_density(DETECTORS["design"], frequencies, np.random.default_rng(0))
        >>> bool((density >= design_curve(frequencies)).all())
        True
    """
    density = detector.curve(frequencies)
    knee, power = np.exp(rng.uniform(*np.log(detector.knee))), rng.uniform(3, 9)
    density = density * (1 + (knee / np.maximum(frequencies, 8.0)) ** power)
    # Broad maxima, as from scattered or clipped light
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


def make_noise(
    density: np.ndarray, samples: int, rng: np.random.Generator, rate: float = RATE
) -> np.ndarray:
    """Draw stationary Gaussian noise of a given density.

    Args:
        density: One-sided density in 1/Hz, at the frequencies of a real Fourier transform of this
            length.
        samples: Number of samples, an even number.
        rng: Random generator.
        rate: Samples per second in Hz.

    Returns:
        Array (samples,), the strain.

    Example:
        >>> make_noise(np.full(5, 1e-46), 8, np.random.default_rng(0)).shape
        (8,)
    """
    white = scipy.fft.rfft(rng.standard_normal(samples))
    return scipy.fft.irfft(white * np.sqrt(density * rate / 2), samples)


def swell(samples: int, size: float, rng: np.random.Generator, rate: float = RATE) -> np.ndarray:
    """Draw a slowly varying factor of the noise's amplitude, with periods from 3 to 20 s.

    Args:
        samples: Number of samples.
        size: Largest difference from 1.
        rng: Random generator.
        rate: Samples per second in Hz.

    Returns:
        Array (samples,) of factors around 1.

    Example:
        >>> swell(4096, 0.1, np.random.default_rng(0)).shape
        (4096,)
    """
    times = np.arange(0, samples, 64) / rate
    slow = np.zeros(len(times))
    for _ in range(3):
        turns = times / np.exp(rng.uniform(np.log(3), np.log(20))) + rng.uniform()
        slow += rng.uniform(0, size / 2) * np.sin(2 * np.pi * turns)
    return np.interp(np.arange(samples) / rate, times, 1 + slow)


def optimal_snr(wave: np.ndarray, density: np.ndarray, rate: float = RATE) -> float:
    """Compute the signal-to-noise ratio of a matched filter for a known signal.

    rho^2 is 4 times the integral of |h(f)|^2 / S(f), here from 20 Hz to half of the rate.

    Args:
        wave: Array (T,), the strain of the signal.
        density: One-sided density in 1/Hz, at the frequencies of a real Fourier transform of the
            wave.
        rate: Samples per second in Hz.

    Returns:
        The signal-to-noise ratio.

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
