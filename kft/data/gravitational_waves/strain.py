"""Images from the strain of a gravitational-wave detector: whitening, constant-Q transform.

The images are like those of Gravity Spy, in grey: time to the right, the logarithm of frequency
upwards, and brightness for the energy of a tile in units of the median energy of its row, so quiet
noise is near 1.

Papers: Chatterji, Blackburn, Martin & Katsavounidis 2004, Class. Quantum Grav. 21:S1809 (the
transform and its bisquare windows); Allen et al. 2012, Phys. Rev. D 85:122006, appendix B (the
median spectrum); Zevin et al. 2017, Class. Quantum Grav. 34:064003 (energies shown up to 25.5).

Differences from the reference: one Q for all images, so that images can be compared, where the
search keeps the best of several; pixels hold the mean energy over their width, not one sample.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
import scipy.fft

from kft.arguments import check_integer

RATE = 4096  # Hz, sampling rate of all computations; the images end at a quarter of it
LOWEST, HIGHEST = 20.0, 1024.0  # Hz, the edges of an image
CONTEXT = 4.0  # seconds around the centre that are transformed, and whose median is the unit
BRIGHTEST = 25.5  # energy that is white (255)
SEGMENT = 4.0  # seconds of a segment of the spectrum; resolves lines to a quarter of a hertz
SHORTEST = 8.0  # seconds of strain that a spectrum needs
DEAD = 0.005  # seconds on a straight line from which on strain is taken as missing
MOST = 5  # gaps that a message names
LONGEST_IMAGE = 3.0  # seconds: longer images would reach the ends of the context


def spectrogram(
    strain: np.ndarray,
    sample_rate: int,
    time: float | Sequence[float],
    size: int | Sequence[int] = 64,
    duration: float = 1.0,
    q: float | Sequence[float] = 8.0,
) -> np.ndarray | list[np.ndarray]:
    """Compute an image like those of "gravitational_waves" from real or simulated strain.

    The spectrum is estimated from the strain itself: give 16 seconds or more (at least 8) around
    the time of interest. The unit of the strain does not matter. If strain is missing (NaN,
    infinite, or filled with zeros or a straight line), only the complete stretch around the time
    is used, with a warning.

    Args:
        strain: Array (T,), strain as published, neither whitened nor filtered.
        sample_rate: Samples per second in Hz, a whole number of at least 4096.
        time: Centre of the image in seconds after the first sample; for a published file, the GPS
            time of interest minus that of the start. Or n such times; strain is whitened once.
        size: Size in pixels, an integer or (height, width).
        duration: Duration of the image in seconds, up to 3.
        q: Quality factor of the tiles, frequency over bandwidth: larger for finer frequencies and
            coarser times. One number, or three for the channels of a colour image.

    Returns:
        Uint8 array (height, width), or (height, width, 3) for three `q`: ten times the energy in
        units of the row's median, at most 255. Rows are evenly spaced in the logarithm of
        frequency, from 1024 Hz at the top to 20 Hz. For n times, a list of n arrays.

    Raises:
        TypeError: The strain is not an array of real numbers.
        ValueError: The strain is too short, constant, missing near the time, or has more than one
            dimension; or another argument is out of range.

    Example:
        >>> strain = np.random.default_rng(0).normal(size=16 * 4096)
        >>> spectrogram(strain, 4096, time=8.0).shape
        (64, 64)
    """
    strain, rate = _check_strain(strain, sample_rate)
    size, duration, qs = check_image(size, duration, q)
    times = _check_times(time, len(strain) / rate)
    gaps = find_gaps(strain, rate)
    whole = [_stretch_around(t, len(strain), rate, gaps) for t in times]
    if gaps:
        begin, end = np.array(sorted(set(whole))).T / rate
        used = " and ".join(f"{b:.3f} to {e:.3f} s" for b, e in zip(begin, end, strict=True))
        warnings.warn(f"{_missing(gaps, rate)}: only {used} is used.", stacklevel=2)
    strain, images = strain.astype(np.float64), []
    white = {(b, e): _whitened(strain[b:e], rate) for b, e in set(whole)}
    for t, (begin, end) in zip(times, whole, strict=True):
        first = round((t - begin / rate - CONTEXT / 2) * RATE)
        context = white[begin, end][first : first + round(CONTEXT * RATE)]
        images.append(draw(context, size, duration, qs))
    return images if np.ndim(time) else images[0]


def _whitened(strain: np.ndarray, rate: int) -> np.ndarray:
    """Whiten a complete stretch and resample it to RATE."""
    strain = strain - strain.mean()
    strain /= np.abs(strain).max()
    if rate != RATE:
        common = int(np.gcd(rate, RATE))
        from scipy.signal import resample_poly

        # Without a line subtracted, the slow variation would cause ringing at the ends.
        strain = resample_poly(strain, RATE // common, rate // common, padtype="line")
    return whiten(strain, *estimate_spectrum(strain))


def find_gaps(strain: np.ndarray, rate: float) -> list[tuple[int, int]]:
    """Find where strain is missing: NaN, infinite, or on a straight line for 5 ms and more.

    Gaps are usually filled with zeros, another constant, or a line from edge to edge.

    Args:
        strain: Array (T,).
        rate: Samples per second in Hz.

    Returns:
        Pairs (first sample, the sample after the last), in order.

    Example:
        >>> strain = np.random.default_rng(0).normal(size=4096)
        >>> strain[1000:2000] = 0
        >>> find_gaps(strain, 4096)
        [(1000, 2000)]
    """
    strain = np.asarray(strain)
    precision = np.finfo(strain.dtype).eps if strain.dtype.kind == "f" else 0
    lost = ~np.isfinite(strain)
    strain = np.where(lost, 0, strain).astype(np.float64)
    bends = np.abs(np.diff(strain, 2))
    rounding = 4 * precision * np.abs(strain).max(initial=0)
    for begin, end in _runs(bends <= rounding):
        if end - begin + 2 >= DEAD * rate:  # n samples on a line give n - 2 zeros
            lost[begin : end + 2] = True
    return _runs(lost)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Find (first, after the last) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _stretch_around(
    time: float, samples: int, rate: int, gaps: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Find (first sample, after the last) of the stretch without gaps around a time.

    Raises ValueError if a gap is so near that it would be in the image.
    """
    edges = [0, *[edge for gap in gaps for edge in gap], samples]
    usable: list[tuple[float, float]] = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if end - begin >= SHORTEST * rate:
            margin = _margin((end - begin) / rate)
            usable.append((begin / rate + margin, end / rate - margin))
            if usable[-1][0] <= time <= usable[-1][1]:
                return begin, end
    could = " or ".join(f"{first:.3f} to {last:.3f}" for first, last in usable)
    raise ValueError(
        f"{_missing(gaps, rate)}, too near to `time` {time:g}: an image needs {SHORTEST:g} s or "
        "more without a gap, and cannot be at their ends. "
        + (f"Take a time from {could} s, or other strain." if could else "Take other strain.")
    )


def _margin(seconds: float) -> float:
    """Return the distance of an image from the ends of a stretch, which whitening changes."""
    return CONTEXT / 2 + segment_of(seconds) / 2


def _missing(gaps: Sequence[tuple[int, int]], rate: int) -> str:
    named = ", ".join(f"{begin / rate:.3f} to {end / rate:.3f} s" for begin, end in gaps[:MOST])
    more = f" and in {len(gaps) - MOST:,} more places" if len(gaps) > MOST else ""
    return f"`strain` is missing (not finite, or on a straight line) from {named}{more}"


def segment_of(seconds: float) -> float:
    """Return the length of the segments from which a spectrum is estimated.

    Args:
        seconds: Length of the strain in seconds.

    Returns:
        Length of a segment in seconds.

    Example:
        >>> segment_of(32.0)
        4.0
    """
    return min(SEGMENT, seconds / 4)


def estimate_spectrum(strain: np.ndarray, rate: float = RATE) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the one-sided power spectral density by Welch's method with a median average.

    A loud signal in one segment hardly changes the median, unlike the mean.

    Args:
        strain: Array (T,).
        rate: Samples per second in Hz.

    Returns:
        Frequencies (F,) in Hz, and densities (F,) in the strain's unit squared per Hz.

    Source: Allen et al. 2012, equations B11 to B13 for the bias of the median.

    Example:
        >>> frequencies, density = estimate_spectrum(np.random.default_rng(0).normal(size=65536))
        >>> round(float(frequencies[1]), 2)
        0.25
    """
    from scipy.signal import welch

    segment = round(segment_of(len(strain) / rate) * rate)
    return welch(strain, rate, nperseg=segment, average="median")


def whiten(
    strain: np.ndarray,
    frequencies: np.ndarray,
    density: np.ndarray,
    rate: float = RATE,
    taper: float = 1.0,
) -> np.ndarray:
    """Divide by the amplitude spectrum, so that the noise is white with unit variance.

    Args:
        strain: Array (T,).
        frequencies: Array (F,) in Hz, at which the density is given.
        density: Array (F,), one-sided power spectral density.
        rate: Samples per second in Hz.
        taper: Seconds that are faded at each end, so that low frequencies do not leak into others.

    Returns:
        Array (T,), without frequencies below 20 Hz.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=16 * 4096)
        >>> round(float(whiten(noise, *estimate_spectrum(noise))[8192:-8192].std()), 1)
        1.0
    """
    # Here and above: scipy.signal is imported when needed, not with kft.
    from scipy.signal.windows import tukey

    n = len(strain)
    strain = (strain - np.mean(strain)) * tukey(n, min(1.0, 2 * taper * rate / n))
    response = whitening_response(scipy.fft.rfftfreq(n, 1 / rate), frequencies, density, rate)
    return scipy.fft.irfft(scipy.fft.rfft(strain) * response, n)


def whitening_response(
    at: np.ndarray, frequencies: np.ndarray, density: np.ndarray, rate: float = RATE
) -> np.ndarray:
    """Compute the frequency response that makes noise white with unit variance.

    Args:
        at: Array (N,) in Hz, the frequencies of the response.
        frequencies: Array (F,) in Hz, at which the density is given.
        density: Array (F,), one-sided power spectral density of the noise.
        rate: Samples per second in Hz.

    Returns:
        Real array (N,).

    Example:
        >>> at = np.array([0.0, 100.0])
        >>> whitening_response(at, at, np.full(2, 1 / 2048)).round(3).tolist()
        [0.0, 1.0]
    """
    amplitude = np.sqrt(np.interp(at, frequencies, density) * rate / 2)
    ramp = np.clip((at - 0.75 * LOWEST) / (0.25 * LOWEST), 0, 1)
    return np.sin(np.pi / 2 * ramp) ** 2 / np.maximum(amplitude, np.finfo(float).tiny)


def draw(
    white: np.ndarray, size: tuple[int, int], duration: float, qs: Sequence[float]
) -> np.ndarray:
    """Compute the image of the centre of whitened strain.

    Args:
        white: Array (16384,), 4 s of whitened strain.
        size: (height, width) in pixels.
        duration: Duration of the image in seconds.
        qs: Quality factors, one per channel.

    Returns:
        Uint8 array (height, width), or (height, width, channels).

    Example:
        >>> draw(np.random.default_rng(0).normal(size=16384), (32, 48), 1.0, [8.0]).shape
        (32, 48)
    """
    spectrum = scipy.fft.rfft(np.asarray(white, dtype=np.float32))
    height, width = size
    channels = [_energies(spectrum, height, width, float(duration), float(q)) for q in qs]
    image = np.rint(np.minimum(channels, BRIGHTEST) * (255 / BRIGHTEST)).astype(np.uint8)
    return image[0] if len(qs) == 1 else np.moveaxis(image, 0, -1)


def row_frequencies(height: int) -> np.ndarray:
    """Compute the centre frequencies of the rows of an image.

    Args:
        height: Number of rows.

    Returns:
        Array (height,) in Hz, from the top row down.

    Example:
        >>> row_frequencies(2).round().tolist()
        [383.0, 53.0]
    """
    edges = np.geomspace(HIGHEST, LOWEST, height + 1)
    return np.sqrt(edges[1:] * edges[:-1])


def _energies(
    spectrum: np.ndarray, height: int, width: int, duration: float, q: float
) -> np.ndarray:
    """Compute the mean energy in each pixel in units of its row's median, (height, width)."""
    energies = np.empty((height, width))
    for rows, _, energy in _tile_energies(spectrum, height, width, q):
        samples = energy.shape[1]
        # Every second sample is enough for the median: half of the samples are independent.
        energy /= np.median(energy[:, ::2], axis=1, keepdims=True)
        total = np.concatenate(
            [np.zeros((len(rows), 1)), np.cumsum(energy, axis=1, dtype=float)], 1
        )
        # Pixel borders in samples, half a sample later, since a sample is centred at its time.
        borders = (CONTEXT / 2 + np.linspace(-0.5, 0.5, width + 1) * duration) / CONTEXT
        borders = borders * samples + 0.5
        before = np.floor(borders).astype(int)
        sums = total[:, before] + (borders - before) * energy[:, before]
        energies[rows] = np.diff(sums, axis=1) / np.diff(borders)
    return energies


def loudest_tile(white: np.ndarray, duration: float) -> float:
    """Compute the signal-to-noise ratio of a signal's loudest tile, which an image can show.

    Args:
        white: Array (16384,), 4 s of a whitened signal without noise.
        duration: Seconds around the middle that are searched.

    Returns:
        The square root of twice the energy in units of the noise's mean energy. A signal within
        one tile has the ratio of a matched filter, a signal spread over many tiles less.

    Source: Chatterji et al. 2004, section 4 (there the square root of the energy minus that of the
    noise).

    Example:
        >>> from kft.data.gravitational_waves.waveforms import sine_gaussian
        >>> packet = sine_gaussian(np.arange(-2, 2, 1 / RATE), 200.0, 8.0)
        >>> packet *= 10 / np.sqrt((packet**2).sum())  # the ratio of a matched filter
        >>> round(loudest_tile(packet, 1.0), 1)
        9.7
    """
    spectrum, loudest = scipy.fft.rfft(np.asarray(white, dtype=np.float32)), 0.0
    for _, windows, energy in _tile_energies(spectrum, 64, 64, 8.0):
        samples = energy.shape[1]
        noise = len(white) * (windows**2).sum(axis=1, keepdims=True) / samples**2
        half = round(duration / 2 / CONTEXT * samples)
        inside = energy[:, samples // 2 - half : samples // 2 + half] / noise
        loudest = max(loudest, inside.max())
    return float(np.sqrt(2 * loudest))


def _tile_energies(
    spectrum: np.ndarray, height: int, width: int, q: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield rows, windows and energies (rows, samples) of all tiles, in groups of rows."""
    for rows, bins, windows, samples in _tiles(height, width, q):
        # A window around its frequency, moved to zero: the inverse transform is the tile's
        # envelope, and zeros after the window interpolate it exactly.
        moved = np.zeros((len(rows), samples), dtype=np.complex64)
        moved[:, : windows.shape[1]] = spectrum[bins] * windows
        yield rows, windows, np.abs(scipy.fft.ifft(moved, axis=1)) ** 2


@lru_cache(maxsize=16)
def _tiles(
    height: int, width: int, q: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
    """Group rows by the length of their transform: (rows, bins, windows, samples).

    The window of frequency f is bisquare, (1 - x^2)^2 with x = (f' - f) / (f sqrt(11) / Q), as in
    Chatterji et al. 2004, section 3.
    """
    groups: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for row, frequency in enumerate(row_frequencies(height)):
        half = frequency * np.sqrt(11) / q * CONTEXT  # in bins of the context's spectrum
        bins = np.arange(np.ceil(frequency * CONTEXT - half), frequency * CONTEXT + half)
        window = (1 - ((bins - frequency * CONTEXT) / half) ** 2) ** 2
        # Energy has twice the bandwidth of the envelope, and each pixel needs a sample.
        samples = 2 ** int(np.ceil(np.log2(max(4 * half, 2 * width, 256))))
        groups.setdefault(samples, []).append((row, bins.astype(int), window))
    packed = []
    for samples, members in groups.items():
        longest = max(len(bins) for _, bins, _ in members)
        starts = np.array([bins[0] for _, bins, _ in members])
        # Shorter rows are padded with windows of zero.
        bins = np.minimum(starts[:, None] + np.arange(longest), round(CONTEXT * RATE / 2))
        windows = np.zeros((len(members), longest), dtype=np.float32)
        for line, (_, _, window) in zip(windows, members, strict=True):
            line[: len(window)] = window
        packed.append((np.array([row for row, _, _ in members]), bins, windows, samples))
    return packed


def _check_strain(strain: Any, sample_rate: Any) -> tuple[np.ndarray, int]:
    strain = np.asarray(strain)
    if strain.dtype.kind not in "fiu":
        raise TypeError(f"`strain` must be an array of real numbers, received {strain.dtype}.")
    if strain.ndim != 1:
        raise ValueError(
            f"`strain` must have one dimension, the samples of one detector; received the shape "
            f"{strain.shape}. Call spectrogram once per detector."
        )
    if (
        not isinstance(sample_rate, Real)
        or not float(sample_rate) >= RATE
        or float(sample_rate) % 1
    ):
        raise ValueError(
            f"`sample_rate` must be a whole number of Hz, at least {RATE}, as images reach "
            f"{HIGHEST:g} Hz; received {sample_rate!r}. Published strain has 4096 and 16384 Hz."
        )
    rate = int(float(sample_rate))
    if len(strain) < SHORTEST * rate:
        raise ValueError(
            f"`strain` has {len(strain):,} samples, {len(strain) / rate:.3g} s at {rate} Hz; the "
            f"spectrum of its noise needs at least {SHORTEST:g} s, preferably 16 or more."
        )
    if np.all(strain == strain[0]):
        raise ValueError("`strain` is constant, which real strain never is. Check the file.")
    return strain, rate


def _check_times(time: Any, seconds: float) -> list[float]:
    """Return the times as a list of floats."""
    times = list(time) if np.ndim(time) == 1 else [time]
    margin = _margin(seconds)
    for one in times:
        if not isinstance(one, Real) or not margin <= float(one) <= seconds - margin:
            raise ValueError(
                f"`time` must be from {margin:g} to {seconds - margin:g}, in seconds after the "
                f"first sample, since the strain lasts {seconds:g} s and its ends are lost; "
                f"received {one!r}. For GPS times subtract that of the first sample, or read a "
                "longer stretch."
            )
    if not times:
        raise ValueError("`time` is an empty list: give at least one time.")
    return [float(one) for one in times]


def check_image(
    size: Any, duration: Any, q: Any
) -> tuple[tuple[int, int], float, tuple[float, ...]]:
    """Check the arguments of an image.

    Args:
        size: As for `spectrogram`.
        duration: As for `spectrogram`.
        q: As for `spectrogram`.

    Returns:
        (height, width), duration and a tuple of quality factors.

    Raises:
        ValueError: An argument is out of range.
    """
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size must be an integer or (height, width), received {size!r}.")
    height, width = (check_integer("size", side, 8, 2048) for side in pair)
    if not isinstance(duration, Real) or not 0.1 <= float(duration) <= LONGEST_IMAGE:
        raise ValueError(
            f"`duration` must be from 0.1 to {LONGEST_IMAGE:g} seconds, received {duration!r}."
        )
    qs = tuple(q) if isinstance(q, (tuple, list)) else (q,)
    # Below 4 the window of the lowest row would reach zero, and that of the highest Nyquist's rate
    if len(qs) not in (1, 3) or not all(isinstance(x, Real) and 4 <= float(x) <= 64 for x in qs):
        raise ValueError(f"`q` must be one number from 4 to 64 or three of them, received {q!r}.")
    return (height, width), float(duration), qs
