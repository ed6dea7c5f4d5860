"""Deep Dream and feature visualisation: images that activate a stage of a vision backbone most.

References: Mordvintsev, Olah and Tyka 2015, "Inceptionism: going deeper into neural networks",
Google Research blog, with its code `google/deepdream`, dream.ipynb (`deepdream`); Mordvintsev 2016,
"DeepDreaming with TensorFlow", deepdream.ipynb of TensorFlow's examples (`calc_grad_tiled` and
`lap_normalize`: tiles, normalised frequencies); Olah, Mordvintsev and Schubert 2017, "Feature
visualization", Distill, doi:10.23915/distill.00007.

Differences from the reference: a tile has the image size of the backbone, and the grid of tiles is
shifted over the image instead of rolling the image under it. Beyond its edges the image is
continued by its reflection, so no tile contains both the left and the right edge. Frequencies are
bands between Gaussian blurs, not a Laplacian pyramid. Feature visualisations are made of pixels,
not in a Fourier basis, and are made robust by shifts and octaves only.

Only the gradient is computed by the backend, in float64. Images are resized with Pillow, and
everything random is drawn with numpy. Each step is rounded to much more than the difference between
backends in float64, so the same seed gives the same image on every backend (see docs/vision.md).

Shapes: `h` and `w` of the image, `H` and `W` of a tile, which are the backbone's image size, `C`
channels of a stage.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from scipy.ndimage import gaussian_filter

from kft.arguments import check_integer, check_number_above
from kft.data.images.pixels import read_pixels, resized_pixels
from kft.interpretation.activations import Activation, stages_of

if TYPE_CHECKING:
    from rich.progress import Progress

# If changing every pixel by 0.01 changes the activation by less than this fraction, the gradient is
# rounding error, and normalising it would paint noise.
LEAST = 1e-5
GRAIN = 2.0**-13  # what a step is rounded to, relative to the mean change of a pixel

# One image --------------------------------------------------------------------------------------


def dream(
    backbone: keras.Model,
    image: str | os.PathLike[str] | Any,
    stage: str,
    channel: int | None = None,
    steps: int = 10,
    octaves: int = 4,
    octave_scale: float = 1.4,
    step_size: float = 0.01,
    bands: int = 4,
    jitter: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> np.ndarray:
    """Change an image by gradient ascent so that a stage is activated more strongly (Deep Dream).

    The image is changed at several sizes, from small to large, in tiles of the backbone's size.

    Args:
        backbone: A vision backbone of kft, or a `kft.Model` with one.
        image: Path, PIL image, or array (h, w), (h, w, 3) or (h, w, 4) of integers 0 to 255 or
            floats 0 to 1. An image smaller than a tile is continued by its reflection.
        stage: Name of a stage. The mean square of its activations is maximised.
        channel: Number of a channel whose mean is maximised instead.
        steps: Steps of gradient ascent at each size.
        octaves: Number of sizes. Sizes with a side below 16 pixels are left out.
        octave_scale: Ratio of one size to the next, above 1.
        step_size: Mean change of a pixel per step, in the range 0 to 1 of pixels.
        bands: Frequency bands of the gradient that are scaled to equal strength. 1 leaves the
            gradient as it is, which results in fine patterns.
        jitter: Largest random shift of the grid of tiles in pixels, which hides the edges of
            tiles; None for a whole tile.
        seed: Seed of the shifts.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        Float32 array (h, w, 3) from 0 to 1, of the size of the image.

    Raises:
        TypeError: `image` is not an image, or the backbone does not take images.
        ValueError: The stage or channel is unknown, or does not depend on the image.
        FileNotFoundError: The file does not exist.

    Example:
        >>> import kft
        >>> backbone = kft.load("efficientnet_lite0", weights=False)
        >>> image = np.random.default_rng(0).random((20, 30, 3))
        >>> dream(backbone, image, "stem", steps=1, octaves=1).shape
        (20, 30, 3)
    """
    ascent = _ascent(backbone, stage, channel is None, step_size, bands, jitter, seed)
    start = read_pixels(image, "image", ascent.activation.value_range)
    return _dream(ascent, start, channel, steps, octaves, octave_scale, progress)


def _ascent(
    backbone: keras.Model,
    stage: str,
    squares: bool,
    step_size: float,
    bands: int,
    jitter: int | None,
    seed: int,
) -> _Ascent:
    check_number_above("step_size", step_size)
    check_integer("bands", bands)
    if jitter is not None:
        check_integer("jitter", jitter, 0)
    activation = Activation(backbone, stage, squares=squares)
    return _Ascent(activation, step_size, bands, jitter, np.random.default_rng(seed))


def _dream(
    ascent: _Ascent,
    pixels: np.ndarray,
    channel: int | None,
    steps: int,
    octaves: int,
    octave_scale: float,
    progress: bool,
) -> np.ndarray:
    check_integer("steps", steps)
    weights = ascent.activation.weights(channel)
    image = pixels.astype("float32") / np.float32(255)
    sizes = _sizes(image.shape[:2], octaves, octave_scale)
    with _bar(progress) as bar:
        task = bar.add_task(f"dreaming of {ascent.activation.stage}", total=steps * len(sizes))
        return ascent.octaves(image, sizes, steps, weights, lambda: bar.advance(task))


def _sizes(
    size: Sequence[int], octaves: int, octave_scale: float, least: int = 16
) -> list[tuple[int, ...]]:
    """Return (h, w) of each octave; the last is the size of the image."""
    check_integer("octaves", octaves)
    scale = check_number_above("octave_scale", octave_scale, 1)
    sizes = [
        tuple(max(1, round(side / scale**k)) for side in size) for k in reversed(range(octaves))
    ]
    return [each for each in sizes[:-1] if min(each) >= least] + sizes[-1:]


class _Ascent:
    """Gradient ascent on an image of any size, tile by tile."""

    def __init__(
        self,
        activation: Activation,
        step_size: float,
        bands: int,
        jitter: int | None,
        rng: np.random.Generator,
    ) -> None:
        self.activation, self.step_size, self.bands, self.rng = activation, step_size, bands, rng
        self.jitter = [side if jitter is None else min(jitter + 1, side) for side in self.tile]

    @property
    def tile(self) -> tuple[int, ...]:
        return self.activation.tile

    def octaves(
        self,
        image: np.ndarray,
        sizes: Sequence[tuple[int, ...]],
        steps: int,
        weights: np.ndarray,
        advance: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """Run gradient ascent at each size, and add the change at one size to the next."""
        detail = np.zeros((*sizes[0], 3), dtype="float32")
        for k, size in enumerate(sizes):
            base = _resized(image, size)
            result = np.clip(base + _resized(detail, size), 0, 1)
            for step in range(steps):
                result = self.step(result, weights, first=step == k == 0)
                advance()
            detail = result - base
        return result

    def step(self, image: np.ndarray, weights: np.ndarray, first: bool = False) -> np.ndarray:
        """Take one step. The first raises an error if the activation is constant."""
        value, gradient = self.gradient(image, weights)
        if first and 0.01 * np.abs(gradient).sum() <= LEAST * abs(value):
            raise _Constant(
                f"stage {self.activation.stage} has an activation of {value:.3g} for this image "
                f"and does not depend on its pixels, so there is no gradient: use another image, "
                f"channel or stage (the output of a norm has the same mean square for any input)."
            )
        gradient = _balanced(gradient, self.bands)
        gradient /= max(np.abs(gradient).mean(), np.finfo("float32").tiny)
        change = self.step_size * GRAIN * np.rint(gradient / GRAIN)
        return np.clip(image + change.astype("float32"), 0, 1)

    def gradient(self, image: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the mean value of all tiles, and their gradients, float64 (h, w, 3).

        The grid of tiles begins at a random place beyond the upper left corner, so each pixel is
        in one tile, at another place in each step.
        """
        before = [int(self.rng.integers(0, most)) for most in self.jitter]
        sides = list(zip(before, image.shape[:2], self.tile, strict=True))
        counts = [-(-(start + size) // side) for start, size, side in sides]
        after = [
            count * side - start - size
            for count, (start, size, side) in zip(counts, sides, strict=True)
        ]
        padded = np.pad(image, [*zip(before, after, strict=True), (0, 0)], mode="reflect")
        gradient, values = np.empty(padded.shape), []
        for place in np.ndindex(*counts):
            part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, self.tile, strict=True))
            value, gradient[part] = self.activation(padded[part], weights)
            values.append(value)
        inner = tuple(slice(start, start + size) for start, size, _ in sides)
        return float(np.mean(values)), gradient[inner]


class _Constant(ValueError):
    """An activation that does not depend on the image."""


def _balanced(gradient: np.ndarray, bands: int) -> np.ndarray:
    """Scale each frequency band of a gradient (h, w, 3) to a deviation of 1, and add the bands.

    Band k is what a Gaussian blur of 2^k pixels removes from one of 2^(k-1); the last band is the
    remainder. Most of the gradient's energy is in the finest bands, which the eye hardly sees.
    """
    if bands == 1:
        return gradient.copy()
    total, rest = np.zeros_like(gradient), gradient
    for k in range(bands):
        blurred = np.zeros_like(gradient)
        if k < bands - 1:
            blurred = gaussian_filter(gradient, (2.0**k, 2.0**k, 0), truncate=3)
        band = rest - blurred
        total += band / max(float(band.std()), np.finfo("float32").tiny)
        rest = blurred
    return total


def _resized(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize a float32 image (h, w, 3) of any range to (*size, 3)."""
    height, width = size
    return resized_pixels(np.ascontiguousarray(image), height, width, "bicubic")


# Features ---------------------------------------------------------------------------------------


def feature_grid(
    backbone: keras.Model,
    stages: str | Sequence[str] | None = None,
    channels: int | Sequence[int] = 4,
    size: int | None = None,
    steps: int = 20,
    octaves: int = 3,
    octave_scale: float = 1.4,
    step_size: float = 0.01,
    bands: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> np.ndarray:
    """Make images that activate single channels most, from early to late stages.

    Args:
        backbone: A vision backbone of kft, or a `kft.Model` with one.
        stages: Names of stages; None for all, in order.
        channels: Number of channels of each stage, the first ones, or a list of their numbers.
        size: Side of the images in pixels; None for seven eighths of the backbone's image size,
            which fits into one tile with every shift.
        steps: As for `dream`.
        octaves: As for `dream`.
        octave_scale: As for `dream`.
        step_size: As for `dream`.
        bands: As for `dream`.
        seed: Seed of the noise, with which all images begin, and of the shifts.
        progress: Whether to show a progress bar on a terminal.

    Returns:
        Float32 array (stages, channels, h, w, 3) from 0 to 1. If the noise does not activate a
        channel at all, its image is grey, with a warning.

    Raises:
        TypeError: The backbone takes no images.
        ValueError: A stage or channel is unknown, or a number is out of range.

    Example:
        >>> import kft
        >>> backbone = kft.load("efficientnet_lite0", weights=False)
        >>> feature_grid(backbone, ["stem"], 2, size=32, steps=1, octaves=1).shape
        (1, 2, 32, 32, 3)
    """
    known = stages_of(backbone)
    stages = known if stages is None else [stages] if isinstance(stages, str) else list(stages)
    tile = getattr(backbone, "backbone", backbone).image_size
    jitter = min(tile) // 8
    shape = [side - jitter if size is None else check_integer("size", size) for side in tile]
    noise = np.random.default_rng(seed).normal(0.5, 0.1, (*shape, 3)).clip(0, 1).astype("float32")
    check_integer("steps", steps)
    sizes = _sizes(shape, octaves, octave_scale)
    numbers = _channel_numbers(channels)
    if not (stages and numbers):
        raise ValueError(f"stages and channels must not be empty, received {stages}, {channels}.")
    ascents = [_ascent(backbone, x, False, step_size, bands, jitter, seed) for x in stages]
    pairs = [(ascent, number) for ascent in ascents for number in numbers]
    images = _grown(pairs, noise, sizes, steps, seed, progress)
    return np.stack(images).reshape(len(stages), len(numbers), *noise.shape)


def _channel_numbers(channels: Any) -> Sequence[int]:
    if channels is None or np.isscalar(channels):
        return range(check_integer("channels", channels))
    return list(channels)


def _grown(
    pairs: Sequence[tuple[_Ascent, int]],
    noise: np.ndarray,
    sizes: Sequence[tuple[int, ...]],
    steps: int,
    seed: int,
    progress: bool,
) -> list[np.ndarray]:
    """Make the image of each channel, from the same noise and with the same shifts."""
    weights = [ascent.activation.weights(number) for ascent, number in pairs]
    images = []
    with _bar(progress) as bar:
        task = bar.add_task("growing features", total=len(pairs) * steps * len(sizes))
        for (ascent, number), chosen in zip(pairs, weights, strict=True):
            ascent.rng = np.random.default_rng(seed)
            try:
                image = ascent.octaves(noise, sizes, steps, chosen, lambda: bar.advance(task))
            except _Constant:
                image = np.full_like(noise, 0.5)
                warnings.warn(
                    f"channel {number} of stage {ascent.activation.stage} is not activated by "
                    f"noise: its image is grey.",
                    stacklevel=3,
                )
            images.append(image)
    return images


def _bar(progress: bool) -> Progress:
    """Return a progress bar on stderr that disappears at the end; empty if not on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not (progress and console.is_terminal))
