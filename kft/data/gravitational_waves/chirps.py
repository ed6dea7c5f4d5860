"""Simulated images of chirps, glitches and quiet noise in a gravitational-wave detector.

Everything takes the path of real strain (strain.py): 32 s of coloured noise (detectors.py), its
spectrum estimated from itself, whitened, a signal (waveforms.py) put in, transformed. So a model
that learned here can be asked about published strain, by `kft.data.spectrogram`.

A stretch of 32 s serves six images, 4 s apart. Signals are whitened by the same estimated spectrum
and added to the whitened noise, which is the same as to add them before, but for what they would
move the spectrum's median.
"""

import hashlib
from functools import lru_cache

import numpy as np
import scipy.fft

from kft.data.dataset import Dataset, Split
from kft.data.gravitational_waves.detectors import (
    DETECTORS,
    draw_density,
    make_noise,
    optimal_snr,
    swell,
)
from kft.data.gravitational_waves.strain import (
    CONTEXT,
    RATE,
    check_image,
    draw,
    estimate_spectrum,
    loudest_tile,
    whiten,
    whitening_response,
)
from kft.data.gravitational_waves.waveforms import GLITCHES, chirp, chirp_mass, detector_response
from kft.data.splits import group_split

CLASSES = ("chirp", *sorted([*GLITCHES, "noise"]))
TARGETS = ("chirp_mass", "snr", "mass_1", "mass_2", "total_mass", "distance")
STRETCH = 32  # seconds of noise that are made and whitened at once
PER_STRETCH = 6  # images, with CONTEXT between their centres and 4 s left out at both ends
SPAN = 8  # seconds of a signal that are made around the centre of its image
LEAST_IMAGES = 60  # ten stretches, so that each part has one
# Least and greatest signal-to-noise ratio, drawn evenly in its logarithm
SNR = {
    "chirp": (6, 40),  # and more where that shows nothing, see `_draw_chirp`
    "blip": (8, 60),
    "koi_fish": (50, 300),
    "low_frequency_burst": (9, 60),
    "power_line": (14, 60),
    "scratchy": (18, 80),
    "whistle": (10, 60),
}
SEEN = 5  # least ratio of a chirp's loudest tile; that of an image of noise is 3.9 to 4.7
SHIFT = 0.3  # share of the duration by which a signal is off the middle at most
FAINT = (3, 6)  # of the glitches in the background
COLUMNS = [
    *(("label", "U20"), ("snr", float), ("mass_1", float), ("mass_2", float)),
    *(("chirp_mass", float), ("total_mass", float), ("distance", float)),
    *(("inclination", float), ("time", float), ("stretch", int)),
]
CITATION = (
    "simulated by kft after Zevin et al. 2017, Gravity Spy, Classical and Quantum Gravity "
    "34:064003, doi 10.1088/1361-6382/aa5cea, and Sathyaprakash & Schutz 2009, Living Reviews in "
    "Relativity 12:2, doi 10.12942/lrr-2009-2"
)


def load_gravitational_waves(
    images=2000,
    detector="design",
    task="classification",
    target=None,
    size=64,
    duration=1.0,
    q=8.0,
    fractions=(0.7, 0.15, 0.15),
    seed=0,
    shifts=0,
):
    """Simulate images of a gravitational-wave detector: "chirp", six glitches and "noise".

    Image k depends on the seed, the detector and k alone, so a larger set begins with a smaller.

    Args:
        images: how many, at least 60.
        detector: "design" or "early", which differ in their noise; see the module detectors.
        task: "classification" into equal numbers, or "regression" of chirps alone.
        target: of a regression, "chirp_mass" unless named: one of `TARGETS`.
        size: pixels, an integer or (height, width).
        duration: seconds that an image spans, up to 3.
        q: quality factor of the tiles, or three for images in colour; see `kft.data.spectrogram`.
        fractions: the shares of train, valid and test.
        seed: integer, 0 or more.
        shifts: further windows of each image in train, with the signal elsewhere: 3 and the mean
            over windows hold answers about real strain still, see docs/images.md.

    Returns:
        Dataset: inputs are uint8 arrays (height, width) or (height, width, 3) as of
        `kft.data.spectrogram`, and `parameters` of each split tells what was simulated: label, snr,
        masses (of the sun, as the detector sees them), distance (Mpc), inclination (radians),
        time (of the merger or the glitch's middle, seconds from the image's centre), stretch (of
        noise, which has one spectrum and is a group).

    Raises:
        ValueError: if an argument is out of range or unknown.

    Source: the modules strain, waveforms and detectors.

    Example:
        >>> load_gravitational_waves(images=60, size=32).train.inputs[0].shape
        (32, 32)
    """
    target = _check(images, detector, task, target, seed, shifts)
    look = check_image(size, duration, q)
    windows, parts = _planned(images, detector, task, fractions, seed, shifts)
    drawn = [x for k, n in enumerate(windows) for x in _windows(k, detector, task, seed, look, n)]
    everything = _all_of(drawn, target if task == "regression" else None)
    return Dataset(
        *("gravitational_waves", task),
        **{part: everything.take(at) for part, at in parts.items()},
        source=f"simulated by kft: {images:,} images, detector {detector!r}, seed {seed}",
        licence="Apache-2.0 (kft)",
        citation=CITATION,
        checksum=hashlib.sha256(np.stack(everything.inputs).tobytes()).hexdigest(),
        classes=CLASSES if task == "classification" else None,
        notes=tuple(_notes(task, target, shifts)),
    )


def _all_of(drawn, target):
    """A split of all windows, whose targets are a parameter, or the classes if it is None."""
    parameters = np.array([row for _, row in drawn], dtype=COLUMNS)
    targets = _numbers(parameters["label"]) if target is None else parameters[target]
    return Split([x for x, _ in drawn], targets, parameters["stretch"], parameters=parameters)


def _planned(images, detector, task, fractions, seed, shifts):
    """How many windows each image has, and {part: positions of its windows}."""
    strata = None
    if task == "classification":
        strata = _numbers([_label(k, detector, seed) for k in range(images)])
    parts = group_split(np.arange(images) // PER_STRETCH, fractions, seed, strata)
    windows = np.ones(images, dtype=int)
    windows[parts["train"]] += shifts
    image = np.repeat(np.arange(images), windows)
    return windows, {part: np.flatnonzero(np.isin(image, at)) for part, at in parts.items()}


def _numbers(labels):
    return np.array([CLASSES.index(label) for label in labels], dtype=np.int32)


def _notes(task, target, shifts):
    if shifts:
        yield (
            f"Each image in train comes with {shifts} further windows of the same strain, in which "
            "the signal stands elsewhere."
        )
    if task == "regression":
        yield f"The target is {target}; an image holds a chirp each."
    yield (
        f"Up to {PER_STRETCH} images come from one stretch of noise of {STRETCH} s. They do not "
        "overlap but share its spectrum, so a stretch is a group and on one side of the split."
    )
    yield (
        f"The SNR is that of an optimal filter on the {SPAN} s around the image. A binary of "
        "neutron stars is heard for longer, so that more would be found in a search."
    )


@lru_cache(maxsize=2)
def _stretch(number, detector, seed):
    """Whitened noise, the response that whitens a signal likewise, and the true density.

    Kept for the images that share it; those come one after the other.
    """
    kind = DETECTORS[detector]
    rng = _generator(seed, detector, 0, number)
    samples, span = STRETCH * RATE, SPAN * RATE
    frequencies = scipy.fft.rfftfreq(samples, 1 / RATE)
    density = draw_density(kind, frequencies, rng)
    noise = make_noise(density, samples, rng) * swell(samples, kind.swell, rng)
    spectrum = estimate_spectrum(noise)
    response = whitening_response(scipy.fft.rfftfreq(span, 1 / RATE), *spectrum)
    return whiten(noise, *spectrum), response, density[:: STRETCH // SPAN]


def _windows(k, detector, task, seed, look, count):
    """Image k and its row of the parameters, then the same of other windows of its strain."""
    number, place = divmod(k, PER_STRETCH)
    noise, response, density = _stretch(number, detector, seed)
    rng = _generator(seed, detector, 1, k)
    label = "chirp" if task == "regression" else _label(k, detector, seed)
    row = dict.fromkeys([name for name, _ in COLUMNS], np.nan)
    row |= {"label": label, "snr": 0.0, "stretch": number}
    row["time"] = rng.uniform(-SHIFT, SHIFT) * look[1]
    times = np.arange(-SPAN / 2, SPAN / 2, 1 / RATE)
    signal = np.zeros(len(times))
    if label == "chirp":
        signal += _draw_chirp(times, density, look[1], row, rng)
    elif label != "noise":
        row["snr"] = _snr(*SNR[label], rng)
        wave = GLITCHES[label](times - row["time"], rng)
        signal += wave * row["snr"] / optimal_snr(wave, density)
    if rng.uniform() < DETECTORS[detector].glitchiness:
        kind = GLITCHES[rng.choice(sorted(GLITCHES))]
        wave = kind(times - rng.uniform(-0.5, 0.5) * look[1], rng)
        signal += wave * _snr(*FAINT, rng) / optimal_snr(wave, density)
    centre = 4 * RATE + (2 * place + 1) * round(CONTEXT * RATE / 2)
    white = noise[centre - len(signal) // 2 : centre + len(signal) // 2]
    if signal.any():
        white = white + _whitened(signal, response, SPAN)
    size, duration, qs = look
    rng = _generator(seed, detector, 3, k)
    found = []
    for time in (row["time"], *rng.uniform(-SHIFT, SHIFT, count - 1) * duration):
        move = round((row["time"] - time) * RATE)
        moved = _middle(white, CONTEXT, move)
        parameters = tuple((row | {"time": row["time"] - move / RATE}).values())
        found.append((draw(moved, size, duration, qs), parameters))
    return found


def _whitened(signal, response, span=CONTEXT):
    """The middle of a signal, by default as long as an image's context."""
    return _middle(scipy.fft.irfft(scipy.fft.rfft(signal) * response, len(signal)), span)


def _middle(samples, span, move=0):
    """The middle of so many seconds, moved by so many samples."""
    half, middle = round(span * RATE / 2), len(samples) // 2 + move
    return samples[middle - half : middle + half]


def _label(k, detector, seed):
    """Each class once in every len(CLASSES) images, in a random order."""
    block, place = divmod(k, len(CLASSES))
    return CLASSES[_generator(seed, detector, 2, block).permutation(len(CLASSES))[place]]


def _draw_chirp(times, density, duration, row, rng):
    """The strain of a binary at the distance at which it has the ratio that was drawn.

    Light bodies spread their energy over many tiles. They are brought nearer until the loudest
    one stands out as Gravity Spy's triggers do: an image that shows nothing, called a chirp, would
    teach that quiet noise is one.
    """
    kind = rng.uniform()
    if kind < 0.15:  # two neutron stars
        masses = rng.uniform(1.1, 2.2, 2)
    elif kind < 0.25:  # a neutron star and a black hole
        masses = np.array([np.exp(rng.uniform(np.log(5), np.log(20))), rng.uniform(1.1, 2.2)])
    else:  # two black holes
        masses = np.exp(rng.uniform(np.log(5), np.log(80), 2))
    heavy, light = float(max(masses)), float(min(masses))
    inclination = float(np.arccos(rng.uniform(-1, 1)))
    antenna = np.sqrt(rng.uniform(0.05, 1)) * np.exp(2j * np.pi * rng.uniform())
    factor, turn = detector_response(inclination, antenna.real, antenna.imag)
    turn += rng.uniform(0, 2 * np.pi)
    wave = factor * (chirp(times - row["time"], heavy, light) * np.exp(1j * turn)).real
    wave *= np.sin(np.pi / 2 * np.clip((times - times[0]) / 0.5, 0, 1)) ** 2  # begins in silence
    from_one = optimal_snr(wave, density)  # megaparsec
    seen = loudest_tile(_whitened(wave, 1 / np.sqrt(density * RATE / 2)), duration) / from_one
    snr = _snr(*SNR["chirp"], rng) * max(1, SEEN / (SNR["chirp"][0] * seen))
    distance = from_one / snr
    row |= {"snr": snr, "mass_1": heavy, "mass_2": light, "total_mass": heavy + light}
    row |= {"chirp_mass": chirp_mass(heavy, light), "distance": distance}
    row["inclination"] = inclination
    return wave / distance


def _snr(least, greatest, rng):
    return float(np.exp(rng.uniform(np.log(least), np.log(greatest))))


def _generator(seed, detector, purpose, number):
    return np.random.default_rng([seed, list(DETECTORS).index(detector), purpose, number])


def _check(images, detector, task, target, seed, shifts):
    """Refuse what cannot be simulated, and return the target."""
    if not isinstance(images, (int, np.integer)) or images < LEAST_IMAGES:
        raise ValueError(
            f"`images` must be an integer, at least {LEAST_IMAGES} so that they can be split; got "
            f"{images!r}."
        )
    for name, value, valid in (
        ("detector", detector, tuple(DETECTORS)),
        ("task", task, ("classification", "regression")),
        ("target", target, (None, *TARGETS)),
    ):
        if value not in valid:
            raise ValueError(
                f"`{name}` must be one of {', '.join(map(str, valid))}; got {value!r}."
            )
    for name, value in (("seed", seed), ("shifts", shifts)):
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"`{name}` must be an integer, 0 or more; got {value!r}.")
    if task == "classification" and target is not None:
        raise ValueError(
            f"`target` is {target!r} but `task` is 'classification', whose target is the class; "
            "say task='regression', or leave `target` out."
        )
    return target or "chirp_mass"
