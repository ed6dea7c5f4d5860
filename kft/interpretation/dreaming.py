"""Deep Dream and feature visualisation: images that a stage of a vision backbone answers to.

References: Mordvintsev, Olah and Tyka 2015, "Inceptionism: going deeper into neural networks",
Google Research blog, with its code `google/deepdream`, dream.ipynb; Mordvintsev 2016,
"DeepDreaming with TensorFlow", deepdream.ipynb of TensorFlow's examples (tiles, normalised
frequencies); Olah, Mordvintsev and Schubert 2017, "Feature visualization", Distill,
doi:10.23915/distill.00007.

Differences from the reference: a tile has the size that the backbone has, and the grid of tiles is
shifted over the image instead of rolling the image under it; what lies beyond the edges is the
image's reflection, so that no step sees the left edge beside the right one. Frequencies are bands
between Gaussian blurs, not a Laplacian pyramid. Feature visualisations are pixels, not a Fourier
basis, and nothing but shifts and octaves makes them robust.

Only the gradient is computed by the backend, in float64. Sizes change with Pillow, and all that is
random is drawn with numpy. Each step is rounded to far more than backends differ by in float64, so
that the same seed gives the same image on every backend (docs/vision.md tells why and how well).

Shapes: `h` and `w` of the image, `H` and `W` of a tile, which are the backbone's own, `C` channels
of a stage.
"""

import warnings
from numbers import Real

import numpy as np
from scipy.ndimage import gaussian_filter

from kft.data.images.pixels import read_pixels, resized_pixels
from kft.interpretation.activations import Activation, stages_of

# A change of every pixel by 0.01 that moves the activation by less than this share of it is
# rounding, and to normalise it would paint noise.
LEAST = 1e-5
GRAIN = 2.0**-13  # what a step is rounded to, of a pixel's mean change

# One image --------------------------------------------------------------------------------------


def dream(backbone, image, stage, channel=None, steps=10, octaves=4, octave_scale=1.4, rate=0.01,
          bands=4, jitter=None, seed=0, progress=True):  # fmt: skip
    """Changes an image so that a stage answers more strongly to what it sees in it (Deep Dream).

    Gradient ascent at several sizes, from the smallest on; what was painted at one is enlarged and
    painted on at the next, over the image's own details. An image of any size is worked on in tiles
    of the backbone's size, one after the other.

    Args:
        backbone: a kft vision backbone, convolutional or transformer, or a `kft.Model` with one.
        image: path, PIL image, or array (h, w), (h, w, 3) or (h, w, 4) of integers 0 to 255 or
            floats 0 to 1. One smaller than a tile is surrounded by its reflection.
        stage: name of a stage: the mean square of its activations is raised.
        channel: number of one channel, whose mean is raised instead.
        steps: of gradient ascent at each size, at least 1.
        octaves: sizes, at least 1; those at which a side would be less than 16 pixels are left out.
        octave_scale: ratio of one size to the next, above 1.
        rate: mean change of a pixel in a step, of the range 0 to 1: how strong the dream is.
        bands: frequency bands of the gradient that are brought to the same strength, at least 1;
            1 leaves the gradient as it is, which paints fine patterns above all.
        jitter: most pixels that the grid of tiles is shifted by, anew in each step, so that no edge
            of a tile is seen; None for a whole tile.
        seed: int that the shifts are drawn from.
        progress: show a bar on a terminal.

    Returns:
        float32 array (h, w, 3) from 0 to 1, of the size of the image.

    Raises:
        TypeError: no image, or a backbone that takes none.
        ValueError: an unknown stage or channel, numbers out of range, or an activation that does
            not depend on the image.
        FileNotFoundError: no such file.

    Source: Mordvintsev, Olah and Tyka 2015, dream.ipynb, `deepdream`; Mordvintsev 2016,
    `calc_grad_tiled` and `lap_normalize`.

    Example:
        >>> import kft
        >>> backbone = kft.load("efficientnet_lite0", weights=False)
        >>> image = np.random.default_rng(0).random((20, 30, 3))
        >>> dream(backbone, image, "stem", steps=1, octaves=1).shape
        (20, 30, 3)
    """
    _check(steps=steps, octaves=octaves, bands=bands)
    _check(0, jitter=0 if jitter is None else jitter)
    _check_above(octave_scale=(octave_scale, 1), rate=(rate, 0))
    activation = Activation(backbone, stage, squares=channel is None)
    weights = activation.weights(channel)
    image = read_pixels(image, "image", activation.value_range)
    image = image.astype("float32") / np.float32(255)
    ascent = _Ascent(activation, rate, bands, jitter, np.random.default_rng(seed))
    sizes = _sizes(image.shape[:2], octaves, octave_scale)
    with _bar(progress) as bar:
        task = bar.add_task(f"dreaming of {stage}", total=steps * len(sizes))
        return ascent.octaves(image, sizes, steps, weights, lambda: bar.advance(task))


def _sizes(size, octaves, scale, least=16):
    """(h, w) of each octave, the last one the image's own."""
    sizes = [
        tuple(max(1, round(side / scale**k)) for side in size) for k in reversed(range(octaves))
    ]
    return [each for each in sizes[:-1] if min(each) >= least] + sizes[-1:]


class _Ascent:
    """Gradient ascent on an image of any size, tile by tile."""

    def __init__(self, activation, rate, bands, jitter, rng):
        self.activation, self.rate, self.bands, self.rng = activation, rate, bands, rng
        self.jitter = [side if jitter is None else min(jitter + 1, side) for side in self.tile]

    @property
    def tile(self):
        return self.activation.tile

    def octaves(self, image, sizes, steps, weights, advance=lambda: None):
        """Deep Dream's loop: what an octave adds is carried on to the next."""
        detail = np.zeros((*sizes[0], 3), dtype="float32")
        for k, size in enumerate(sizes):
            base = _resized(image, size)
            found = np.clip(base + _resized(detail, size), 0, 1)
            for step in range(steps):
                found = self.step(found, weights, first=step == k == 0)
                advance()
            detail = found - base
        return found

    def step(self, image, weights, first=False):
        """One step; the first one refuses an image that the activation does not depend on."""
        value, gradient = self.gradient(image, weights)
        if first and 0.01 * np.abs(gradient).sum() <= LEAST * abs(value):
            raise _Constant(
                f"stage {self.activation.stage} answers {value:.3g} to this image and does not "
                f"depend on its pixels, so there is no gradient to follow: take another image, "
                f"channel or stage (a norm's output has the same mean square whatever it is given)."
            )
        gradient = _balanced(gradient, self.bands)
        gradient /= max(np.abs(gradient).mean(), np.finfo("float32").tiny)
        change = self.rate * GRAIN * np.rint(gradient / GRAIN)
        return np.clip(image + change.astype("float32"), 0, 1)

    def gradient(self, image, weights):
        """Mean value of all tiles, and their gradients side by side, float64 (h, w, 3).

        The grid begins at a random place beyond the upper left corner, so that each pixel lies in
        one tile, and in each step elsewhere in it.
        """
        before = [int(self.rng.integers(0, most)) for most in self.jitter]
        sides = list(zip(before, image.shape[:2], self.tile, strict=True))
        counts = [-(-(start + size) // side) for start, size, side in sides]
        after = [
            count * side - start - size
            for count, (start, size, side) in zip(counts, sides, strict=True)
        ]
        padded = np.pad(image, [*zip(before, after, strict=True), (0, 0)], mode="reflect")
        found, values = np.empty(padded.shape), []
        for place in np.ndindex(*counts):
            part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, self.tile, strict=True))
            value, found[part] = self.activation(padded[part], weights)
            values.append(value)
        inner = tuple(slice(start, start + size) for start, size, _ in sides)
        return float(np.mean(values)), found[inner]


class _Constant(ValueError):
    """An activation that does not depend on the image."""


def _balanced(gradient, bands):
    """Brings each frequency band of a gradient (h, w, 3) to a deviation of 1, and adds them.

    Band k is what a Gaussian blur of 2^k pixels takes away from one of 2^(k-1); the last one is
    what remains. The gradient's energy lies in the finest bands, the eye's interest in the others.
    """
    if bands == 1:
        return gradient.copy()
    total, rest = np.zeros_like(gradient), gradient
    for k in range(bands):
        last = k == bands - 1
        blurred = 0 if last else gaussian_filter(gradient, (2.0**k, 2.0**k, 0), truncate=3)
        band = rest - blurred
        total += band / max(float(band.std()), np.finfo("float32").tiny)
        rest = blurred
    return total


def _resized(image, size):
    """float32 (h, w, 3) of any range -> (*size, 3)."""
    return resized_pixels(np.ascontiguousarray(image), *size, "bicubic")


# Features ---------------------------------------------------------------------------------------


def feature_grid(backbone, stages=None, channels=4, size=None, steps=20, octaves=3,
                 octave_scale=1.4, rate=0.01, bands=4, seed=0, progress=True):  # fmt: skip
    """What single channels answer to most, early to late: images grown from noise.

    Args:
        backbone: a kft vision backbone, or a `kft.Model` with one.
        stages: names of stages; None for all, in order.
        channels: so many of each stage, the first ones (channels have no order), or a list of
            their numbers.
        size: pixels of a side; None for seven eighths of the backbone's image size, which one tile
            holds wherever it is shifted to.
        steps, octaves, octave_scale, rate, bands: see `dream`.
        seed: int that noise and shifts are drawn from; all images begin as the same noise.
        progress: show a bar on a terminal.

    Returns:
        float32 array (stages, channels, h, w, 3) from 0 to 1. A channel that does not answer to the
        noise at all, which is told by a warning, is grey.

    Raises:
        TypeError: a backbone that takes no images.
        ValueError: an unknown stage or channel, or numbers out of range.

    Source: Olah, Mordvintsev and Schubert 2017, "Feature visualization", section "The enemy of
    feature visualization" (transformations, frequencies).

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
    size = tuple(side - jitter for side in tile) if size is None else (size, size)
    _check(steps=steps, octaves=octaves, bands=bands, size=size[0])
    _check_above(octave_scale=(octave_scale, 1), rate=(rate, 0))
    if channels is None or np.isscalar(channels):
        _check(channels=channels)
        channels = range(channels)
    if not (stages and len(channels)):
        raise ValueError(f"stages and channels must not be empty, received {stages}, {channels}.")
    activations = [Activation(backbone, stage, squares=False) for stage in stages]
    wanted = [(each, c, each.weights(c)) for each in activations for c in channels]
    noise = np.random.default_rng(seed).normal(0.5, 0.1, (*size, 3)).clip(0, 1).astype("float32")
    sizes, found = _sizes(size, octaves, octave_scale), []
    with _bar(progress) as bar:
        task = bar.add_task("growing features", total=len(wanted) * steps * len(sizes))
        for activation, channel, weights in wanted:
            ascent = _Ascent(activation, rate, bands, jitter, np.random.default_rng(seed))
            try:
                image = ascent.octaves(noise, sizes, steps, weights, lambda: bar.advance(task))
            except _Constant:
                image = np.full_like(noise, 0.5)
                told = f"channel {channel} of stage {activation.stage} does not answer to noise"
                warnings.warn(f"{told}: its image is grey.", stacklevel=2)
            found.append(image)
    return np.stack(found).reshape(len(stages), len(channels), *noise.shape)


# Arguments --------------------------------------------------------------------------------------


def _check(least=1, **counts):
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, received {value!r}.")


def _check_above(**pairs):
    for name, (value, least) in pairs.items():
        if not isinstance(value, Real) or not least < value < np.inf:
            raise ValueError(f"{name} must be a number above {least}, received {value!r}.")


def _bar(progress):
    """A bar on stderr that goes when it is done; none where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not (progress and console.is_terminal))
