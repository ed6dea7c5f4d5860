"""Signals in a gravitational-wave detector: chirps of compact binaries, and glitches.

Chirp: inspiral by TaylorT4 at second post-Newtonian order (Blanchet, Damour, Iyer, Will & Wiseman
1995, Phys. Rev. Lett. 74:3515; Boyle et al. 2007, Phys. Rev. D 76:124038), then the merger as a
shrinking light ring, which ends in the ring-down (McWilliams 2019, Phys. Rev. Lett. 122:191102),
whose frequency and damping follow from the final mass and spin (Pan et al. 2011, Phys. Rev. D
84:124052, equation 29; Berti, Cardoso & Will 2006, Phys. Rev. D 73:064030, table VIII).
Glitches: simple forms of six classes of Gravity Spy (Zevin et al. 2017, Class. Quantum Grav.
34:064003), after their descriptions and pictures there.

Not included in chirps: spins and tides of the components, eccentric orbits, modes above the
quadrupole, and the cosmic redshift (masses are those in the detector's frame).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SOLAR_MASS = 4.925490947e-6  # seconds, G M / c^3
MEGAPARSEC = 3.0856775814913673e22 / 299792458  # seconds
SPEED_AT_MERGER = 0.45  # of light, at the end of the inspiral: a few cycles before the peak
LIGHTEST_RING = 1800.0  # Hz: a ring-down above is out of the band, and the chirp is faded out
FADE = 1e-3  # duration of this fade in seconds


def chirp_mass(mass_1: float, mass_2: float) -> float:
    """Compute the chirp mass, (m1 m2)^(3/5) / (m1 + m2)^(1/5), which an inspiral determines best.

    Args:
        mass_1: Mass of one body, in any unit.
        mass_2: Mass of the other body.

    Returns:
        The chirp mass in the same unit.

    Example:
        >>> round(chirp_mass(1.4, 1.4), 3)
        1.219
    """
    return (mass_1 * mass_2) ** 0.6 / (mass_1 + mass_2) ** 0.2


def remnant(mass_1: float, mass_2: float) -> tuple[float, float]:
    """Compute the mass and the spin of the black hole that two bodies without spin form.

    Args:
        mass_1: Mass of one body in solar masses.
        mass_2: Mass of the other body.

    Returns:
        Mass in solar masses, and dimensionless spin from 0 to 1.

    Source: Pan et al. 2011, equation 29.

    Example:
        >>> mass, spin = remnant(38.8, 33.4)
        >>> round(float(mass), 1), round(float(spin), 2)
        (68.8, 0.68)
    """
    total = mass_1 + mass_2
    eta = mass_1 * mass_2 / total**2
    mass = total * (1 + (np.sqrt(8 / 9) - 1) * eta - 0.4333 * eta**2 - 0.4392 * eta**3)
    return mass, np.sqrt(12) * eta - 3.871 * eta**2 + 4.028 * eta**3


def ring_down(mass: float, spin: float) -> tuple[float, float]:
    """Compute frequency and damping time of the mode l = m = 2, n = 0 of a black hole.

    Args:
        mass: Mass in solar masses, in the detector's frame.
        spin: Dimensionless spin, 0 to 1.

    Returns:
        Frequency in Hz, and damping time in seconds.

    Source: Berti, Cardoso & Will 2006, equation E1 and table VIII.

    Example:
        >>> frequency, damping = ring_down(67.6, 0.67)
        >>> round(frequency), round(1000 * damping, 1)
        (250, 4.0)
    """
    frequency = (1.5251 - 1.1568 * (1 - spin) ** 0.1292) / (2 * np.pi * mass * SOLAR_MASS)
    quality = 0.7000 + 1.4187 * (1 - spin) ** -0.4990
    return frequency, quality / (np.pi * frequency)


def chirp(times: np.ndarray, mass_1: float, mass_2: float) -> np.ndarray:
    """Compute the wave of a circular binary seen face on from a distance of one megaparsec.

    Args:
        times: Array (T,) in seconds, increasing; 0 is the peak, or the end of the inspiral if the
            ring-down is out of band.
        mass_1: Mass of one body in solar masses, in the detector's frame.
        mass_2: Mass of the other body.

    Returns:
        Complex array (T,) without unit. The real part is h+, minus the imaginary part is hx.

    Source: see the module.

    Example:
        >>> times = np.arange(-4096, 2048) / 4096
        >>> float(times[np.abs(chirp(times, 36, 29)).argmax()])
        0.0
    """
    total = (mass_1 + mass_2) * SOLAR_MASS
    eta = mass_1 * mass_2 / (mass_1 + mass_2) ** 2
    ring, damping = ring_down(*remnant(mass_1, mass_2))
    rings = ring < LIGHTEST_RING
    last = SPEED_AT_MERGER if rings else min(SPEED_AT_MERGER, _speed(LIGHTEST_RING, total))
    first = 0.85 * (256 * eta * max(-times[0], 0.1) / (5 * total)) ** -0.125
    v, before, phases = _inspiral(min(first, 0.5 * last), last, total, eta)
    after, omega, size = _merger(last, total, eta, ring, damping)
    after = after if rings else 0.0
    start = -after  # of the merger: `after` seconds before the peak
    wave = np.zeros(len(times), dtype=complex)
    early = (times <= start) & (times >= start + before[0])
    at = times[early] - start
    # amplitude 4 eta M v^2 / r of either polarisation, face on; phase twice the orbit's
    amplitude = 4 * eta * total / MEGAPARSEC * np.interp(at, before, v) ** 2
    if not rings:
        amplitude *= np.sin(np.pi / 2 * np.clip(-at / FADE, 0, 1)) ** 2
    wave[early] = amplitude * np.exp(-2j * np.interp(at, before, phases))
    if rings:
        late = times > start
        grid = np.linspace(0, after + 25 * damping, 4096)
        orbit = np.concatenate([[0], np.cumsum(omega((grid[1:] + grid[:-1]) / 2)) * grid[1]])
        at = np.minimum(times[late] - start, grid[-1])
        peak = 4 * eta * total / MEGAPARSEC * last**2
        wave[late] = peak * size(at) * np.exp(-2j * np.interp(at, grid, orbit))
        wave[late] *= at < grid[-1]
    return wave


def detector_response(
    inclination: float, antenna_plus: float, antenna_cross: float
) -> tuple[float, float]:
    """Compute the amplitude and the phase with which a detector measures a binary.

    h = F+ (1 + cos^2 i)/2 h+ + Fx cos i hx.

    Args:
        inclination: Angle of the orbit's axis to the line of sight, in radians.
        antenna_plus: F+ of the detector, -1 to 1.
        antenna_cross: Fx of the detector, -1 to 1.

    Returns:
        Factor of the amplitude, 1 for a binary face on and overhead; and phase in radians.

    Source: Sathyaprakash & Schutz 2009, Living Rev. Relativ. 12:2, section 2.3.

    Example:
        >>> detector_response(0.0, 1.0, 0.0)[0]
        1.0
    """
    plus = antenna_plus * (1 + np.cos(inclination) ** 2) / 2
    cross = antenna_cross * np.cos(inclination)
    return float(np.hypot(plus, cross)), float(np.arctan2(cross, plus))


def _speed(frequency: float, total: float) -> float:
    """Compute the orbital speed (of light) at a frequency of the wave, total mass in seconds."""
    return (np.pi * total * frequency) ** (1 / 3)


def _sweep(v: Any, total: float, eta: float) -> Any:
    """Compute the growth of the orbital frequency, d omega / dt, after Blanchet et al. 1995."""
    series = 1 - (743 / 336 + 11 / 4 * eta) * v**2 + 4 * np.pi * v**3
    series += (34103 / 18144 + 13661 / 2016 * eta + 59 / 18 * eta**2) * v**4
    return 96 / 5 * eta * v**11 * series / total**2


def _inspiral(
    first: float, last: float, total: float, eta: float, n: int = 4096
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute speeds, the (negative) times before the last, and the orbital phases."""
    v: np.ndarray = np.geomspace(first, last, n)
    slope = 3 * v**2 / total / _sweep(v, total, eta)  # dt / dv, as omega = v^3 / M
    return v, _until(slope, v), _until(slope * v**3 / total, v)


def _until(slope: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Integrate a slope over v up to the last v, where the integral is zero."""
    steps = (slope[1:] + slope[:-1]) / 2 * np.diff(v)
    return np.concatenate([[0], np.cumsum(steps)]) - steps.sum()


def _merger(
    v: float, total: float, eta: float, ring: float, damping: float
) -> tuple[float, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Compute the time from the end of the inspiral to the peak, orbital frequency and amplitude.

    Frequency, McWilliams 2019, equations 9 to 11: omega^4 rises like tanh of time over the damping
    time to that of the ring-down, starting with the value and slope at the end of the inspiral.
    Amplitude: a cubic from there to the peak of numerical relativity, r h22 / M = 1.45 eta for a
    light companion (Bernuzzi, Nagar & Zenginoglu 2011, Phys. Rev. D 84:084026) and 0.39 for equal
    masses, then a sech with the damping of the ring-down.
    """
    start, end, growth = v**3 / total, np.pi * ring, _sweep(v, total, eta)
    ratio = (end**4 - start**4) / (2 * damping * start**3 * growth)
    after = damping / 2 * np.log(max(ratio - 1, 1.1))
    offset = np.tanh(-after / damping)
    rise = (end**4 - start**4) / (1 - offset)
    peak = np.sqrt(5 / (4 * np.pi)) * (1.45 + 0.44 * eta) / (4 * v**2)
    slope = 2 / 3 * growth / start * after  # of v^2, over the time to the peak

    def omega(t: np.ndarray) -> np.ndarray:
        return (start**4 + rise * (np.tanh((t - after) / damping) - offset)) ** 0.25

    def size(t: np.ndarray) -> np.ndarray:
        s = np.minimum(t / after, 1)
        cubic = (1 + 2 * s) * (1 - s) ** 2 + s * (1 - s) ** 2 * slope + s**2 * (3 - 2 * s) * peak
        return cubic / np.cosh(np.maximum(t - after, 0) / damping)

    return after, omega, size


# Glitches: functions of the times (T,) from their middle, in seconds, and a random generator ------


def sine_gaussian(
    times: np.ndarray, frequency: float, quality: float, phase: float = 0.0
) -> np.ndarray:
    """Compute exp(-(2 pi f t / Q)^2 / 2) cos(2 pi f t + phase).

    Args:
        times: Array (T,) in seconds, increasing.
        frequency: Frequency f in Hz.
        quality: Quality factor Q.
        phase: Phase in radians.

    Returns:
        Array (T,), with a largest amplitude of 1.

    Example:
        >>> float(sine_gaussian(np.array([0.0]), 100.0, 8.0)[0])
        1.0
    """
    wave = np.zeros(len(times))
    # Beyond six standard deviations it is below 1e-8 and not computed.
    reach = 6 * quality / (2 * np.pi * frequency)
    near = slice(*np.searchsorted(times, (-reach, reach)))
    turns = 2 * np.pi * frequency * times[near]
    wave[near] = np.exp(-((turns / quality) ** 2) / 2) * np.cos(turns + phase)
    return wave


def _blip(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a blip: a few milliseconds, from tens to hundreds of hertz."""
    frequency, quality = np.exp(rng.uniform(np.log(90), np.log(400))), rng.uniform(1.0, 2.5)
    return sine_gaussian(times, frequency, quality, rng.uniform(0, 2 * np.pi))


def _koi_fish(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a koi fish: a loud blip with low frequencies and weaker parts before and after it."""
    turn = rng.uniform(0, 2 * np.pi, 6)
    head = sine_gaussian(times, rng.uniform(120, 350), rng.uniform(1.2, 2.5), turn[0])
    body = sine_gaussian(times, rng.uniform(25, 45), rng.uniform(3, 7), turn[1])
    fish = head + rng.uniform(0.3, 0.8) * body
    for i in range(int(rng.integers(2, 5))):
        late = rng.choice([-1, 1]) * rng.uniform(0.02, 0.15)
        fin = sine_gaussian(times - late, rng.uniform(40, 140), rng.uniform(2, 5), turn[2 + i % 4])
        fish = fish + rng.uniform(0.08, 0.3) * fin
    return fish


def _low_frequency_burst(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a burst below about 50 Hz, some tenths of a second long."""
    middle, length = rng.uniform(20, 38), rng.uniform(0.06, 0.25)
    hump = np.zeros(len(times))
    for _ in range(4):
        quality = 2 * np.pi * middle * length * rng.uniform(0.4, 1)
        late, turn = rng.normal(0, length / 2), rng.uniform(0, 2 * np.pi)
        hump += sine_gaussian(times - late, middle * rng.uniform(0.85, 1.2), quality, turn)
    return hump


def _scratchy(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw many short bursts at medium frequencies, over most of a second."""
    length, middle = rng.uniform(0.25, 0.8), np.exp(rng.uniform(np.log(90), np.log(250)))
    scratches = np.zeros(len(times))
    spacing = rng.uniform(0.02, 0.05)
    for late in np.arange(-length, length, spacing):
        late += rng.normal(0, spacing / 5)
        frequency = middle * np.exp(rng.normal(0, 0.18))
        turn, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.2)
        scratches += size * sine_gaussian(times - late, frequency, rng.uniform(5, 10), turn)
    return scratches


def _whistle(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a radio beat that falls to a lowest frequency and rises again, like a V or U."""
    lowest, length = np.exp(rng.uniform(np.log(120), np.log(500))), rng.uniform(0.06, 0.3)
    steep, bend = rng.uniform(500, 1100), rng.uniform(1.0, 2.0)
    side = np.where(times < 0, 1.0, rng.uniform(0.6, 1.6))  # one arm is steeper than the other
    x = np.abs(times) / length * side
    frequency = np.minimum(lowest + steep * x**bend, 1800)
    turns = 2 * np.pi * np.cumsum(frequency) * (times[1] - times[0])
    return np.exp(-((x / 0.9) ** 4)) * np.cos(turns)


def _power_line(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a signal of the mains at 60 Hz with overtones, some tenths of a second long."""
    length, frequency = rng.uniform(0.07, 0.3), 60 + rng.normal(0, 1)
    quality = 2 * np.pi * frequency * length
    tone = sine_gaussian(times, frequency, quality, rng.uniform(0, 2 * np.pi))
    for overtone, most in ((2, 0.4), (3, 0.3)):
        turn = rng.uniform(0, 2 * np.pi)
        part = sine_gaussian(times, overtone * frequency, overtone * quality, turn)
        tone = tone + rng.uniform(0, most) * part
    return tone


GLITCHES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "blip": _blip,
    "koi_fish": _koi_fish,
    "low_frequency_burst": _low_frequency_burst,
    "power_line": _power_line,
    "scratchy": _scratchy,
    "whistle": _whistle,
}
