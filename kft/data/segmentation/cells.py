"""Simulated microscope images of cells, with the label image of each.

A cell is an ellipse whose outline varies with the angle in a few harmonics. A share of the cells is
placed in touch with an earlier one, or partly over it. Brightness, texture, uneven illumination,
blur and noise differ from image to image. Three styles imitate what microscopes record: bright
nuclei on black (fluorescence), cells with dark rims on grey (bright field), and dark nuclei in pale
tissue in colours (stained).

Only numpy and scipy draw and compute, so that images are equal on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from kft.arguments import check_choice, check_integer, check_seed
from kft.data.dataset import Split
from kft.data.label_images import checked_label_image, numbered
from kft.data.segmentation.dataset import Segmentation, checksum_of
from kft.data.splits import random_split
from kft.data.task import Task

STYLES = ("fluorescence", "bright_field", "stained")
SMALLEST = 16  # side of an image in pixels
LEAST_PIXELS = 6  # of a cell that is seen
MOST_HIDDEN = 0.5  # fraction of a cell that others may cover
MOST_CELLS = 150  # in an image of 256 x 256
ANGLES = 128  # at which an outline is computed
HARMONICS = np.arange(2, 6)  # of an outline
_WAVES = HARMONICS[:, None] * np.linspace(-math.pi, math.pi, ANGLES + 1)
CITATION = "simulated by kft, in the manner of Svoboda & Ulman 2017, IEEE TMI 36:310"


def load_cells(
    images: int = 200,
    size: int | Sequence[int] = 256,
    style: str | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Segmentation:
    """Simulate images of cells that touch and overlap, with label images.

    Image k depends only on the seed, the size, the style and k, so a larger set begins with a
    smaller one.

    Args:
        images: Number of images, at least 3.
        size: Size in pixels, an integer or (height, width), at least 16.
        style: "fluorescence", "bright_field", "stained", or None for all three in turn.
        fractions: Fractions of train, valid and test.
        seed: Seed of the simulation and of the split.

    Returns:
        The data set. Inputs are uint8 arrays (height, width), or (height, width, 3) where stained;
        targets are label images, uint16.

    Raises:
        ValueError: An argument is out of range or unknown.

    Example:
        >>> data = load_cells(images=6, size=64)
        >>> data.train.inputs[1].shape, data.train.targets[1].shape
        ((64, 64), (64, 64))
    """
    check_integer("images", images, 3)
    check_seed("seed", seed)
    shape = _checked_size(size)
    pairs = [simulate_cells(shape, style or STYLES[k % 3], [seed, k]) for k in range(images)]
    everything = Split([image for image, _ in pairs], [labels for _, labels in pairs])
    parts = random_split(images, fractions, seed)
    return Segmentation(
        "cells",
        Task.SEGMENTATION,
        train=everything.take(parts["train"]),
        valid=everything.take(parts["valid"]),
        test=everything.take(parts["test"]),
        source=f"simulated by kft: {images:,} images of {shape[1]} x {shape[0]}, seed {seed}",
        licence="Apache-2.0 (kft)",
        citation=CITATION,
        checksum=checksum_of(everything),
        notes=(f"Split at random, seed {seed}.",),
    )


def simulate_cells(
    size: int | Sequence[int] = 256, style: str = "fluorescence", seed: int | Sequence[int] = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate one image of cells.

    Args:
        size: Size in pixels, an integer or (height, width), at least 16.
        style: "fluorescence", "bright_field" or "stained".
        seed: Seed, an integer of at least 0 or several.

    Returns:
        The image, uint8 (height, width) or (height, width, 3); and its label image, uint16
        (height, width), with at least one cell. Cells are numbered from 1.

    Raises:
        ValueError: An argument is out of range or unknown.

    Example:
        >>> image, labels = simulate_cells(64, "stained", seed=1)
        >>> image.shape, image.dtype, labels.dtype
        ((64, 64, 3), dtype('uint8'), dtype('uint16'))
    """
    check_choice("style", style, STYLES)
    for one in seed if isinstance(seed, list | tuple) else (seed,):
        check_seed("seed", one)
    rng = np.random.default_rng(seed)
    shape = _checked_size(size)
    labels, depth = _draw_cells(shape, rng)
    pixels = {"fluorescence": _fluorescence, "bright_field": _bright_field, "stained": _stained}
    return pixels[style](labels, depth, rng), labels


def _checked_size(size: int | Sequence[int]) -> tuple[int, int]:
    sides = size if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2:
        raise ValueError(f"size must be an integer or (height, width), received {size!r}.")
    height, width = (check_integer("size", side, SMALLEST) for side in sides)
    return height, width


# Where the cells are ------------------------------------------------------------------------------


def _draw_cells(shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the label image, and at each pixel how far it is inside of its cell, 0 to 1.

    A cell that is drawn covers what it overlaps. It is left out if it would hide too much.
    """
    height, width = shape
    scale = math.sqrt(height * width)
    radius = max(3.0, scale * math.exp(rng.uniform(math.log(0.018), math.log(0.07))))
    cells = rng.uniform(0.03, 0.5) * height * width / (math.pi * radius**2)
    most = max(1, round(MOST_CELLS * height * width / 256**2))
    count = int(np.clip(round(cells), 1, most))
    together, closeness = rng.uniform(0, 0.8), rng.uniform(0.7, 1.0)
    spread, roughness = rng.uniform(0.05, 0.3), rng.uniform(0.01, 0.12)
    labels = np.zeros(shape, dtype=np.int32)
    depth = np.zeros(shape, dtype=np.float32)
    whole, visible = np.zeros((2, count + 1))  # areas of the cells in pixels
    placed: list[tuple[float, float, float]] = []  # x, y and radius
    for number in range(1, count + 1):
        r = max(2.5, radius * math.exp(spread * rng.standard_normal()))
        margin = 0.0 if placed else 0.25  # the first cell is seen for certain
        x, y = rng.uniform(margin, 1 - margin, 2) * (width, height)
        if placed and rng.random() < together:
            x0, y0, r0 = placed[rng.integers(len(placed))]
            angle, distance = rng.uniform(0, 2 * math.pi), closeness * (r + r0)
            x, y = x0 + distance * math.cos(angle), y0 + distance * math.sin(angle)
            x, y = float(np.clip(x, 0, width - 1)), float(np.clip(y, 0, height - 1))
        window, inside = _cell(x, y, r, roughness, shape, rng)
        mask = inside > 0
        under = np.bincount(labels[window][mask], minlength=count + 1)
        left = visible - under
        area = int(under.sum())
        if area < LEAST_PIXELS or (left < (1 - MOST_HIDDEN) * whole)[1:].any():
            continue
        whole[number] = left[number] = area
        visible = left
        labels[window][mask] = number
        depth[window][mask] = inside[mask]
        placed.append((x, y, r))
    return checked_label_image(numbered(labels)[0], "labels"), depth


def _cell(
    x: float, y: float, r: float, roughness: float, shape: tuple[int, int], rng: np.random.Generator
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return a window of the image, and how far its pixels are inside of a cell: 1 in the middle.

    Pixels outside of the cell have values of at most 0.
    """
    stretch = rng.uniform(1, 1.35)  # half axes are r * stretch and r / stretch
    turn = rng.uniform(0, 2 * math.pi)
    heights = roughness * rng.standard_normal(4) * 2 / HARMONICS
    phases = rng.uniform(0, 2 * math.pi, 4)
    outline = 1 + heights @ np.cos(_WAVES + phases[:, None])  # (ANGLES + 1,)
    reach = r * stretch * float(outline.max()) + 1
    top, left = max(0, math.floor(y - reach)), max(0, math.floor(x - reach))
    bottom = min(shape[0], math.ceil(y + reach) + 1)
    right = min(shape[1], math.ceil(x + reach) + 1)
    down = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    across = np.arange(left, right, dtype=np.float32) - np.float32(x)
    cosine, sine = math.cos(turn), math.sin(turn)
    along = (cosine * across + sine * down) / (r * stretch)
    athwart = (cosine * down - sine * across) / (r / stretch)
    at = (np.arctan2(athwart, along) + math.pi) * (ANGLES / (2 * math.pi))
    edge = outline.astype(np.float32)[np.rint(at).astype(np.int32)]
    return (slice(top, bottom), slice(left, right)), 1 - np.sqrt(along**2 + athwart**2) / edge


# What the microscope records ----------------------------------------------------------------------


def _smooth(shape: tuple[int, int], cells: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a random field with about `cells` hills along the longer side, of variance about 1.

    Numbers of a coarse grid are interpolated linearly: two products with narrow matrices.
    """
    longer = max(shape)
    steps = [max(2, round(cells * side / longer) + 1) for side in shape]
    grid = rng.standard_normal(steps, dtype=np.float32)
    rows, columns = (_interpolation(n, side) for n, side in zip(steps, shape, strict=True))
    return rows @ grid @ columns.T  # (H, h) (h, w) (w, W)


def _interpolation(steps: int, side: int) -> np.ndarray:
    """Return the matrix (side, steps) of linear interpolation."""
    at = np.linspace(0, steps - 1, side, dtype=np.float32)[:, None]
    return np.maximum(0, 1 - np.abs(at - np.arange(steps, dtype=np.float32)))


def _per_cell(labels: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a factor for each cell, 0 for background; return it at each pixel, (H, W)."""
    factors = np.exp(spread * rng.standard_normal(int(labels.max()) + 1, dtype=np.float32))
    factors[0] = 0
    return factors[labels]


def _textured(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a factor at each pixel: a texture with grains of a fraction of a cell."""
    area = np.count_nonzero(labels) / int(labels.max())
    grains = max(labels.shape) / max(2.0, rng.uniform(0.2, 0.6) * math.sqrt(area))
    return 1 + rng.uniform(0.05, 0.3) * _smooth(labels.shape, grains, rng)


def _recorded(light: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Blur light of 0 to about 1, light it unevenly, add noise; return uint8 of its shape."""
    sigma = rng.uniform(0.3, 1.2)
    even = 1 + rng.uniform(0, 0.25) * _smooth(shape, 2, rng)
    noise = rng.uniform(0.005, 0.05)
    channels = light if light.ndim == 3 else light[None]
    recorded = []
    for channel in channels:
        seen = ndimage.gaussian_filter(channel, sigma, truncate=2.5) * even
        grain = rng.standard_normal(shape, dtype=np.float32)
        seen += noise * np.sqrt(np.maximum(seen, 0.05)) * grain  # more where there is more light
        recorded.append((255 * seen).clip(0, 255).astype(np.uint8))
    return np.stack(recorded, axis=-1) if light.ndim == 3 else recorded[0]


def _fluorescence(labels: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bright cells on a dark background, with some light from out of focus."""
    exposure, background = math.exp(rng.uniform(math.log(0.12), math.log(0.9))), rng.uniform(0, 0.1)
    profile = np.minimum(1, 0.6 + depth / rng.uniform(0.2, 0.8))
    light = _per_cell(labels, rng.uniform(0.05, 0.5), rng) * profile * _textured(labels, rng)
    light = exposure * (light + background)
    haze = rng.uniform(0, 0.1) * exposure * np.abs(_smooth(labels.shape, 6, rng))
    return _recorded(light + haze, labels.shape, rng)


def _bright_field(labels: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cells with a rim on a grey background; brighter or darker than it, or nearly equal."""
    background, contrast = rng.uniform(0.4, 0.8), rng.uniform(-0.25, 0.25)
    inside = (labels > 0).astype(np.float32)
    rim = inside * np.exp(-depth / rng.uniform(0.05, 0.25))
    body = _per_cell(labels, 0.2, rng) * contrast * _textured(labels, rng)
    light = background + body - rng.uniform(0.15, 0.4) * rim
    return _recorded(light.astype(np.float32), labels.shape, rng)


def _stained(labels: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nuclei that are stained blue to purple in pale pink tissue; absorption by Beer's law."""
    # How much red, green and blue are absorbed.
    tissue = (np.array([0.10, 0.45, 0.20]) * rng.uniform(0.5, 1.3, 3)).astype(np.float32)
    stain = (np.array([0.75, 0.85, 0.35]) * rng.uniform(0.7, 1.3, 3)).astype(np.float32)
    amount = _per_cell(labels, 0.25, rng) * np.minimum(1, 0.7 + depth) * _textured(labels, rng)
    fibres = np.maximum(0, 0.7 + 0.4 * _smooth(labels.shape, rng.uniform(8, 30), rng))
    absorbed = np.multiply.outer(tissue, fibres) + np.multiply.outer(stain, amount)  # (3, H, W)
    return _recorded(0.95 * np.exp(-absorbed), labels.shape, rng)
