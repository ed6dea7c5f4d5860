"""Strain of a gravitational-wave detector to an image: spectrum, whitening, constant-Q transform.

The images are those of Gravity Spy in grey: time to the right, the logarithm of frequency upwards,
brightness the energy of a tile in units of the median energy of its row, so quiet noise is near 1.

Papers: Chatterji, Blackburn, Martin & Katsavounidis 2004, Class. Quantum Grav. 21:S1809 (the
transform and its bisquare windows); Allen et al. 2012, Phys. Rev. D 85:122006, appendix B (the
median spectrum); Zevin et al. 2017, Class. Quantum Grav. 34:064003 (energies shown up to 25.5).

Differences from the reference: one Q for all images where the search keeps the best of several, so
that images can be compared; pixels hold the mean energy over their width, not one sample of it.
"""

import warnings
from functools import lru_cache
from numbers import Real

import numpy as np
import scipy.fft

RATE = 4096  # Hz, at which all is computed; the images end at a quarter of it
LOWEST, HIGHEST = 20.0, 1024.0  # Hz, the edges of an image
CONTEXT = 4.0  # seconds around the centre that are transformed, and whose median is the unit
BRIGHTEST = 25.5  # energy that is white (255)
SEGMENT = 4.0  # seconds of a segment of the spectrum; resolves lines to a quarter of a hertz
SHORTEST = 8.0  # seconds of strain below which a spectrum is guesswork
DEAD = 0.005  # seconds on a straight line from which strain is missing: a detector never rests
MOST = 5  # gaps that are named
LONGEST_IMAGE = 3.0  # seconds: further out the transform meets the ends of its context


def spectrogram(strain, sample_rate, time, size=64, duration=1.0, q=8.0):
    """Turn real or simulated strain into the kind of image that "gravitational_waves" holds.

    The spectrum is estimated from the strain itself, so give 16 seconds or more (8 at least) around
    the time of interest. The unit of the strain does not matter. Where strain is missing (NaN,
    infinite, or filled with zeros or a straight line), only the stretch around the time that is
    whole is used, which a warning says.

    Args:
        strain: array (T,), strain as published, neither whitened nor filtered.
        sample_rate: samples per second in Hz, a whole number, at least 4096.
        time: centre of the image in seconds after the first sample; for a published file the GPS
            time of interest minus that of the file's start. Or a list of n such times, of which the
            strain is whitened once.
        size: pixels, an integer or (height, width).
        duration: seconds that the image spans, up to 3.
        q: quality factor of the tiles: their frequency over their bandwidth, larger for finer
            frequencies and coarser times. One number, or three for the channels of a colour image.

    Returns:
        uint8 array (height, width), or (height, width, 3) for three `q`: ten times the energy in
        units of the row's median, at most 255. The top row is near 1024 Hz, the bottom row near
        20 Hz, rows are evenly spaced in the logarithm of frequency. For a list of times a list of
        n such arrays.

    Raises:
        TypeError: if the strain is not an array of real numbers.
        ValueError: if the strain is not of one dimension, is too short, constant, or missing so
            near to the time that it would be in the image; or if the sample rate, time, size,
            duration or q cannot be used.

    Source: see the module.

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
        warnings.warn(f"{_said(gaps, rate)}: of it only {used} is used.", stacklevel=2)
    strain, found = strain.astype(np.float64), []
    white = {(b, e): _whitened(strain[b:e], rate) for b, e in set(whole)}
    for t, (begin, end) in zip(times, whole, strict=True):
        first = round((t - begin / rate - CONTEXT / 2) * RATE)
        context = white[begin, end][first : first + round(CONTEXT * RATE)]
        found.append(draw(context, size, duration, qs))
    return found if np.ndim(time) else found[0]


def _whitened(strain, rate):
    """A whole stretch, whitened and at RATE."""
    strain = strain - strain.mean()
    strain /= np.abs(strain).max()
    if rate != RATE:
        common = np.gcd(rate, RATE)
        from scipy.signal import resample_poly

        # The detector's slow wander would ring at the ends if it did not start and end at zero.
        strain = resample_poly(strain, RATE // common, rate // common, padtype="line")
    return whiten(strain, *estimate_spectrum(strain))


def find_gaps(strain, rate):
    """Find where strain is missing: NaN, infinite, or on a straight line for 5 ms and more.

    Whoever fills a gap fills it with zeros, another number, or a line from edge to edge.

    Args:
        strain: array (T,).
        rate: samples per second, Hz.

    Returns:
        list of (first sample, the sample after the last one), in order.

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
        if end - begin + 2 >= DEAD * rate:  # n samples on a line bend n - 2 times not
            lost[begin : end + 2] = True
    return _runs(lost)


def _runs(flags):
    """(first, after the last) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _stretch_around(time, samples, rate, gaps):
    """(first sample, after the last) of the stretch without a gap in which an image is made.

    Raises ValueError where a gap is so near that it would be in the image.
    """
    edges, usable = [0, *[edge for gap in gaps for edge in gap], samples], []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if end - begin >= SHORTEST * rate:
            margin = _margin((end - begin) / rate)
            usable.append((begin / rate + margin, end / rate - margin))
            if usable[-1][0] <= time <= usable[-1][1]:
                return begin, end
    could = " or ".join(f"{first:.3f} to {last:.3f}" for first, last in usable)
    raise ValueError(
        f"{_said(gaps, rate)}, too near to `time` {time:g}: an image is made of {SHORTEST:g} s or "
        "more without a gap, and not at their ends. "
        + (f"Take a time from {could} s, or other strain." if could else "Take other strain.")
    )


def _margin(seconds):
    """How far from the ends of a stretch an image may be: whitening spoils them."""
    return CONTEXT / 2 + segment_of(seconds) / 2


def _said(gaps, rate):
    named = ", ".join(f"{begin / rate:.3f} to {end / rate:.3f} s" for begin, end in gaps[:MOST])
    more = f" and in {len(gaps) - MOST:,} more places" if len(gaps) > MOST else ""
    return f"`strain` is missing (no number, or on a straight line) from {named}{more}"


def segment_of(seconds):
    """The length in seconds of the segments from which the spectrum of a stretch is estimated."""
    return min(SEGMENT, seconds / 4)


def estimate_spectrum(strain, rate=RATE):
    """Estimate the one-sided power spectral density by Welch's method with a median average.

    The median over segments, unlike the mean, is not moved by a loud signal in one of them.

    Args:
        strain: array (T,).
        rate: samples per second, Hz.

    Returns:
        tuple: frequencies in Hz (F,) and densities in the strain's unit squared per Hz (F,).

    Source: Allen et al. 2012, equations B11 to B13 for the bias of the median.

    Example:
        >>> frequencies, density = estimate_spectrum(np.random.default_rng(0).normal(size=65536))
        >>> round(float(frequencies[1]), 2)
        0.25
    """
    from scipy.signal import welch

    segment = round(segment_of(len(strain) / rate) * rate)
    return welch(strain, rate, nperseg=segment, average="median")


def whiten(strain, frequencies, density, rate=RATE, taper=1.0):
    """Divide by the amplitude spectrum, so that the noise is white and of unit variance.

    Args:
        strain: array (T,).
        frequencies: Hz (F,), where the density is known.
        density: one-sided power spectral density (F,).
        rate: samples per second, Hz.
        taper: seconds at either end that are faded, as a cut would spill the loud low frequencies
            over all others.

    Returns:
        array (T,): without what lies below 20 Hz.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=16 * 4096)
        >>> round(float(whiten(noise, *estimate_spectrum(noise))[8192:-8192].std()), 1)
        1.0
    """
    # Here and above: scipy.signal is loaded when it is needed, not with kft.
    from scipy.signal.windows import tukey

    n = len(strain)
    strain = (strain - np.mean(strain)) * tukey(n, min(1.0, 2 * taper * rate / n))
    response = whitening_response(scipy.fft.rfftfreq(n, 1 / rate), frequencies, density, rate)
    return scipy.fft.irfft(scipy.fft.rfft(strain) * response, n)


def whitening_response(at, frequencies, density, rate=RATE):
    """The real response at these frequencies that makes noise of this density white, variance 1."""
    amplitude = np.sqrt(np.interp(at, frequencies, density) * rate / 2)
    ramp = np.clip((at - 0.75 * LOWEST) / (0.25 * LOWEST), 0, 1)
    return np.sin(np.pi / 2 * ramp) ** 2 / np.maximum(amplitude, np.finfo(float).tiny)


def draw(white, size, duration, qs):
    """Turn 4 s of whitened strain into the uint8 image of its centre, one channel per Q."""
    spectrum = scipy.fft.rfft(np.asarray(white, dtype=np.float32))
    channels = [_energies(spectrum, *size, float(duration), float(q)) for q in qs]
    image = np.rint(np.minimum(channels, BRIGHTEST) * (255 / BRIGHTEST)).astype(np.uint8)
    return image[0] if len(qs) == 1 else np.moveaxis(image, 0, -1)


def row_frequencies(height):
    """The centre frequencies in Hz of the rows of an image, from the top row down."""
    edges = np.geomspace(HIGHEST, LOWEST, height + 1)
    return np.sqrt(edges[1:] * edges[:-1])


def _energies(spectrum, height, width, duration, q):
    """Mean energy in each pixel, in units of the median of its row: (height, width)."""
    energies = np.empty((height, width))
    for rows, _, energy in _tile_energies(spectrum, height, width, q):
        samples = energy.shape[1]
        # Every second sample tells the median as well: they are twice as many as are independent.
        energy /= np.median(energy[:, ::2], axis=1, keepdims=True)
        total = np.concatenate(
            [np.zeros((len(rows), 1)), np.cumsum(energy, axis=1, dtype=float)], 1
        )
        # Pixel borders in samples, half a sample later as a sample stands for the time around it.
        borders = (CONTEXT / 2 + np.linspace(-0.5, 0.5, width + 1) * duration) / CONTEXT
        borders = borders * samples + 0.5
        before = np.floor(borders).astype(int)
        sums = total[:, before] + (borders - before) * energy[:, before]
        energies[rows] = np.diff(sums, axis=1) / np.diff(borders)
    return energies


def loudest_tile(white, duration):
    """The signal-to-noise ratio of a signal's loudest tile: what an image can show of it.

    Args:
        white: array (16384,), 4 s of a whitened signal without noise.
        duration: seconds around the middle that are looked at.

    Returns:
        float: the square root of twice the energy in units of the noise's mean energy, so that a
        signal that fits into one tile has the ratio of a matched filter, and one that is spread
        over many less.

    Source: Chatterji et al. 2004, section 4 (there the square root of the energy itself, less the
    noise's).

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


def _tile_energies(spectrum, height, width, q):
    """The energy of every tile of the context: (rows, windows, energy (rows, samples)) a group."""
    for rows, bins, windows, samples in _tiles(height, width, q):
        # A window around its frequency, moved to zero: the transform back is the tile's envelope,
        # and the zeros beside the window interpolate it exactly.
        moved = np.zeros((len(rows), samples), dtype=np.complex64)
        moved[:, : windows.shape[1]] = spectrum[bins] * windows
        yield rows, windows, np.abs(scipy.fft.ifft(moved, axis=1)) ** 2


@lru_cache(maxsize=16)
def _tiles(height, width, q):
    """Rows in groups of one transform length: (rows, bins, windows, samples).

    The window of frequency f is bisquare, (1 - x^2)^2 with x = (f' - f) / (f sqrt(11) / Q), as in
    Chatterji et al. 2004, section 3.
    """
    groups = {}
    for row, frequency in enumerate(row_frequencies(height)):
        half = frequency * np.sqrt(11) / q * CONTEXT  # in bins of the context's spectrum
        bins = np.arange(np.ceil(frequency * CONTEXT - half), frequency * CONTEXT + half)
        window = (1 - ((bins - frequency * CONTEXT) / half) ** 2) ** 2
        # Energy has twice the bandwidth of the envelope; and no pixel should fall between samples.
        samples = 2 ** int(np.ceil(np.log2(max(4 * half, 2 * width, 256))))
        groups.setdefault(samples, []).append((row, bins.astype(int), window))
    packed = []
    for samples, members in groups.items():
        longest = max(len(bins) for _, bins, _ in members)
        starts = np.array([bins[0] for _, bins, _ in members])
        # Rows shorter than the longest go on with windows of zero, wherever that reads.
        bins = np.minimum(starts[:, None] + np.arange(longest), round(CONTEXT * RATE / 2))
        windows = np.zeros((len(members), longest), dtype=np.float32)
        for line, (_, found, window) in zip(windows, members, strict=True):
            line[: len(found)] = window
        packed.append((np.array([row for row, _, _ in members]), bins, windows, samples))
    return packed


def _check_strain(strain, sample_rate):
    strain = np.asarray(strain)
    if strain.dtype.kind not in "fiu":
        raise TypeError(f"`strain` must be an array of real numbers, got {strain.dtype}.")
    if strain.ndim != 1:
        raise ValueError(
            f"`strain` must have one dimension, the samples of one detector; got the shape "
            f"{strain.shape}. Call spectrogram once per detector."
        )
    if not isinstance(sample_rate, Real) or not sample_rate >= RATE or sample_rate % 1:
        raise ValueError(
            f"`sample_rate` must be a whole number of Hz, at least {RATE}, as images reach "
            f"{HIGHEST:g} Hz; got {sample_rate!r}. Published strain comes at 4096 and 16384 Hz."
        )
    rate = int(sample_rate)
    if len(strain) < SHORTEST * rate:
        raise ValueError(
            f"`strain` has {len(strain):,} samples, {len(strain) / rate:.3g} s at {rate} Hz; the "
            f"spectrum of its noise needs at least {SHORTEST:g} s, better 16 or more."
        )
    if np.all(strain == strain[0]):
        raise ValueError("`strain` is constant; a detector's strain never is. Check the file.")
    return strain, rate


def _check_times(time, seconds):
    """The times as a list of floats."""
    times, margin = list(time) if np.ndim(time) == 1 else [time], _margin(seconds)
    for one in times:
        if not isinstance(one, Real) or not margin <= one <= seconds - margin:
            raise ValueError(
                f"`time` must lie from {margin:g} to {seconds - margin:g}, in seconds after the "
                f"first sample, as the strain lasts {seconds:g} s and whitening spoils its ends; "
                f"got {one!r}. For GPS times subtract that of the first sample, or read a longer "
                "stretch."
            )
    if not times:
        raise ValueError("`time` is an empty list: give at least one time.")
    return [float(one) for one in times]


def check_image(size, duration, q):
    """Check what an image should be like and return (height, width), duration and a tuple of Q."""
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, (int, np.integer)) and 8 <= n <= 2048 for n in pair):
        raise ValueError(
            f"`size` must be an integer or (height, width), each from 8 to 2048; got {size!r}."
        )
    if not isinstance(duration, Real) or not 0.1 <= duration <= LONGEST_IMAGE:
        raise ValueError(
            f"`duration` must lie from 0.1 to {LONGEST_IMAGE:g} seconds, got {duration!r}."
        )
    qs = tuple(q) if isinstance(q, (tuple, list)) else (q,)
    # Below 4 the window of the lowest row would reach zero and that of the highest the Nyquist rate
    if len(qs) not in (1, 3) or not all(isinstance(x, Real) and 4 <= x <= 64 for x in qs):
        raise ValueError(f"`q` must be one number from 4 to 64 or three of them, got {q!r}.")
    return tuple(map(int, pair)), duration, qs
