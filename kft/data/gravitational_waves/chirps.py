"""Simulated images of chirps, glitches and quiet noise in a gravitational-wave detector.

Everything is processed like real strain (strain.py): 32 s of coloured noise (detectors.py) are
whitened with the spectrum estimated from them, a signal (waveforms.py) is added, and the image is
computed. So a model trained on these images can be used on published strain, with
`kft.data.spectrogram`.

A stretch of 32 s gives six images, 4 s apart. Signals are whitened with the same estimated spectrum
and added to the whitened noise. This equals adding them before whitening, except for their small
effect on the median of the spectrum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import scipy.fft

from kft.arguments import check_choice, check_integer
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
from kft.data.task import Task

CLASSES = ("chirp", *sorted([*GLITCHES, "noise"]))
TARGETS = ("chirp_mass", "snr", "mass_1", "mass_2", "total_mass", "distance")
STRETCH = 32  # seconds of noise that are drawn and whitened at once
PER_STRETCH = 6  # images, with CONTEXT between their centres and 4 s left out at both ends
SPAN = 8  # seconds of a signal that are computed around the centre of its image
LEAST_IMAGES = 60  # ten stretches, so that each part has one
# Smallest and largest signal-to-noise ratio, drawn uniformly in its logarithm
SNR = {
    "chirp": (6, 40),  # larger if that is not visible, see `_draw_chirp`
    "blip": (8, 60),
    "koi_fish": (50, 300),
    "low_frequency_burst": (9, 60),
    "power_line": (14, 60),
    "scratchy": (18, 80),
    "whistle": (10, 60),
}
SEEN = 5  # smallest ratio of a chirp's loudest tile; in an image of noise it is 3.9 to 4.7
SHIFT = 0.3  # largest distance of a signal from the middle, as a fraction of the duration
FAINT = (3, 6)  # signal-to-noise ratio of glitches in the background
COLUMNS: list[tuple[str, Any]] = [
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
    images: int = 2000,
    detector: Literal["design", "early"] = "design",
    task: Literal["classification", "regression"] = "classification",
    target: str | None = None,
    size: int | Sequence[int] = 64,
    duration: float = 1.0,
    q: float | Sequence[float] = 8.0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    shifts: int = 0,
) -> Dataset:
    """Simulate images of a gravitational-wave detector: "chirp", six glitches and "noise".

    Image k depends only on the seed, the detector and k, so a larger set begins with a smaller.

    Args:
        images: Number of images, at least 60.
        detector: "design" or "early", which differ in their noise; see the module detectors.
        task: "classification" into equally frequent classes, or "regression" of chirps only.
        target: Target of a regression, one of `TARGETS`; None for "chirp_mass".
        size: Size in pixels, an integer or (height, width).
        duration: Duration of an image in seconds, up to 3.
        q: Quality factor of the tiles, or three for colour images; see `kft.data.spectrogram`.
        fractions: Fractions of train, valid and test.
        seed: Seed of the simulation, 0 or more.
        shifts: Number of further windows of each training image, with the signal elsewhere. With
            3, and the mean over windows, predictions on real strain are stable, see docs/images.md.

    Returns:
        The data set. Inputs are uint8 arrays (height, width) or (height, width, 3) as from
        `kft.data.spectrogram`. `parameters` of each split hold label, snr, masses (solar masses in
        the detector's frame), distance (Mpc), inclination (radians), time (of the merger or the
        middle of the glitch, seconds from the image's centre), and stretch of noise (the group).

    Raises:
        ValueError: An argument is out of range or unknown.

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
        "gravitational_waves",
        Task(task),
        train=everything.take(parts["train"]),
        valid=everything.take(parts["valid"]),
        test=everything.take(parts["test"]),
        source=f"simulated by kft: {images:,} images, detector {detector!r}, seed {seed}",
        licence="Apache-2.0 (kft)",
        citation=CITATION,
        checksum=hashlib.sha256(np.stack(everything.inputs).tobytes()).hexdigest(),
        classes=CLASSES if task == "classification" else None,
        notes=tuple(_notes(task, target, shifts)),
    )


Drawn = tuple[np.ndarray, tuple[Any, ...]]  # an image, and its row of the parameters
Look = tuple[tuple[int, int], float, tuple[float, ...]]  # as `check_image` returns it


def _all_of(drawn: Sequence[Drawn], target: str | None) -> Split:
    """Collect all windows; targets are a parameter, or the classes if it is None."""
    parameters = np.array([row for _, row in drawn], dtype=COLUMNS)
    targets = _numbers(parameters["label"]) if target is None else parameters[target]
    return Split([x for x, _ in drawn], targets, parameters["stretch"], parameters=parameters)


def _planned(
    images: int, detector: str, task: str, fractions: Sequence[float], seed: int, shifts: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the number of windows of each image, and {part: positions of its windows}."""
    strata = None
    if task == "classification":
        strata = _numbers([_label(k, detector, seed) for k in range(images)])
    parts = group_split(np.arange(images) // PER_STRETCH, fractions, seed, strata)
    windows = np.ones(images, dtype=int)
    windows[parts["train"]] += shifts
    image = np.repeat(np.arange(images), windows)
    return windows, {part: np.flatnonzero(np.isin(image, at)) for part, at in parts.items()}


def _numbers(labels: Sequence[str] | np.ndarray) -> np.ndarray:
    return np.array([CLASSES.index(label) for label in labels], dtype=np.int32)


def _notes(task: str, target: str, shifts: int) -> Iterator[str]:
    if shifts:
        yield (
            f"Each image in train has {shifts} further windows of the same strain, with the signal "
            "at another place."
        )
    if task == "regression":
        yield f"The target is {target}; each image shows a chirp."
    yield (
        f"Up to {PER_STRETCH} images come from one stretch of noise of {STRETCH} s. They do not "
        "overlap but share its spectrum, so a stretch is a group, which is not split."
    )
    yield (
        f"The SNR is that of an optimal filter on the {SPAN} s around the image. A binary of "
        "neutron stars lasts longer, so its SNR in a search would be larger."
    )


@lru_cache(maxsize=2)
def _stretch(number: int, detector: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw whitened noise; return it with the response for signals and the true density.

    The last stretches are cached for the images that share them.
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


def _windows(k: int, detector: str, task: str, seed: int, look: Look, count: int) -> list[Drawn]:
    """Draw image k and its row of the parameters, and other windows of the same strain."""
    number, place = divmod(k, PER_STRETCH)
    noise, response, density = _stretch(number, detector, seed)
    rng = _generator(seed, detector, 1, k)
    label = "chirp" if task == "regression" else _label(k, detector, seed)
    row: dict[str, Any] = dict.fromkeys([name for name, _ in COLUMNS], np.nan)
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
    images = []
    for time in (row["time"], *rng.uniform(-SHIFT, SHIFT, count - 1) * duration):
        move = round((row["time"] - time) * RATE)
        moved = _middle(white, CONTEXT, move)
        parameters = tuple((row | {"time": row["time"] - move / RATE}).values())
        images.append((draw(moved, size, duration, qs), parameters))
    return images


def _whitened(signal: np.ndarray, response: np.ndarray, span: float = CONTEXT) -> np.ndarray:
    """Whiten a signal and return its middle, by default as long as an image's context."""
    return _middle(scipy.fft.irfft(scipy.fft.rfft(signal) * response, len(signal)), span)


def _middle(samples: np.ndarray, span: float, move: int = 0) -> np.ndarray:
    """Return the middle `span` seconds, moved by a number of samples."""
    half, middle = round(span * RATE / 2), len(samples) // 2 + move
    return samples[middle - half : middle + half]


def _label(k: int, detector: str, seed: int) -> str:
    """Return the class of image k: each class is once in every len(CLASSES) images."""
    block, place = divmod(k, len(CLASSES))
    return CLASSES[_generator(seed, detector, 2, block).permutation(len(CLASSES))[place]]


def _draw_chirp(
    times: np.ndarray,
    density: np.ndarray,
    duration: float,
    row: dict[str, Any],
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw the strain of a binary, at the distance that gives the signal-to-noise ratio drawn.

    The energy of light bodies is spread over many tiles. They are moved nearer until the loudest
    tile is as visible as Gravity Spy's triggers: images of chirps that show nothing would train a
    model to call quiet noise a chirp.
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


def _snr(least: float, greatest: float, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(least), np.log(greatest))))


def _generator(seed: int, detector: str, purpose: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(DETECTORS).index(detector), purpose, number])


def _check(
    images: int, detector: str, task: str, target: str | None, seed: int, shifts: int
) -> str:
    """Check what is to be simulated and return the target."""
    check_integer("images", images, LEAST_IMAGES)
    check_choice("detector", detector, DETECTORS)
    check_choice("task", task, ("classification", "regression"))
    check_choice("target", target, (None, *TARGETS))
    check_integer("seed", seed, 0)
    check_integer("shifts", shifts, 0)
    if task == "classification" and target is not None:
        raise ValueError(
            f"target is {target!r} but task is 'classification', whose target is the class; use "
            "task='regression', or leave target out."
        )
    return target or "chirp_mass"
