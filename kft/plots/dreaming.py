"""The grid of feature visualisations: images that activate channels of a vision backbone most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike

from kft.messages import count_of, listed
from kft.plots.style import DPI


def plot_features(
    images: ArrayLike, stages: Sequence[str], channels: Sequence[int] | None = None, how: str = ""
) -> tuple[Figure, str]:
    """Draw images that activate single channels of a vision backbone most, early stages on top.

    Args:
        images: Float array (stages, channels, h, w, 3) from 0 to 1, as returned by
            `kft.dreaming.feature_grid`.
        stages: Name of each row.
        channels: Number of each column; None counts from 0.
        how: How the images were made, a sentence for the caption.

    Returns:
        The figure, at most 900 pixels wide when saved, and its caption.

    Raises:
        ValueError: Images have another shape, or the numbers of names and of rows or columns
            differ.

    Source: Olah, Mordvintsev and Schubert 2017, "Feature visualization", Distill.

    Example:
        >>> images = np.random.default_rng(0).random((2, 3, 8, 8, 3))
        >>> figure, caption = plot_features(images, ["stem", "block_0"], how="Noise.")
        >>> "3 channels of each of 2 stages" in caption
        True
    """
    images = np.asarray(images, dtype=float)
    if images.ndim != 5 or images.shape[-1] != 3 or not images.size:
        raise ValueError(
            f"images must have the shape (stages, channels, h, w, 3), received {images.shape}."
        )
    channels = range(images.shape[1]) if channels is None else channels
    if (len(stages), len(channels)) != images.shape[:2]:
        raise ValueError(
            f"images has {images.shape[0]} rows and {images.shape[1]} columns, received "
            f"{len(stages)} stages and {len(channels)} channels."
        )
    rows, columns = images.shape[:2]
    names = 0.085 * max(map(len, stages)) + 0.4  # inches
    side = min(1.5, (7.5 - names) / columns)
    size = (columns * side + names, rows * side * images.shape[2] / images.shape[3] + 0.3)
    layout = ConstrainedLayoutEngine(
        w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01, compress=True
    )
    figure = Figure(figsize=size, dpi=DPI, layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False)
    for i, stage in enumerate(stages):
        axes[i, 0].set_ylabel(stage, fontsize=9, rotation=0, ha="right", va="center")
        for k, channel in enumerate(channels):
            ax = axes[i, k]
            ax.imshow(np.clip(images[i, k], 0, 1), interpolation="lanczos")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if i == 0:
                word = "channel " if side > 0.8 else ""  # in a narrow column the number alone
                ax.set_title(f"{word}{channel}", fontsize=9 if side > 0.5 else 7)
    return figure, _caption(images, stages, how)


def _caption(images: np.ndarray, stages: Sequence[str], how: str) -> str:
    rows, columns = images.shape[:2]
    alike = [_repetition(row) for row in images]
    shown = listed([f"{value:.2f}" for value in alike], None)
    most, least = stages[int(np.argmax(alike))], stages[int(np.argmin(alike))]
    grey = int(sum(np.ptp(image) == 0 for row in images for image in row))
    dead = f" {grey} grey: the noise did not activate the channel." if grey else ""
    which = "of one stage" if rows == 1 else f"of each of {rows} stages, early ones on top"
    subject = f"{count_of(columns, 'channel')} {which}"
    order = "" if rows == 1 else f"; patterns repeat most in {most} and least in {least}"
    out = (
        f"shifted by more than {_least_shift(images)} pixels, an image still correlates with "
        f"itself by up to {shown}{', from top to bottom' * (rows > 1)}{order}"
    )
    return (
        f"Images that most activate {subject}: they start from the same noise, and the channel's "
        f"mean activation is maximised. {how + ' ' if how else ''}n = {rows * columns} images of "
        f"{images.shape[2]} x {images.shape[3]} pixels; no data set is used.{dead} What stands "
        f"out: {out}."
    )


def _least_shift(images: np.ndarray) -> int:
    """Return the largest shift in pixels that reflects an image's smoothness, not its pattern."""
    return max(2, min(images.shape[2:4]) // 24)


def _repetition(images: np.ndarray) -> float:
    """Return the highest correlation of an image with itself when shifted, averaged over images.

    Computed from the power spectrum, by the theorem of Wiener and Khinchin.
    """
    grey = images.mean(axis=-1)
    grey = grey - grey.mean(axis=(1, 2), keepdims=True)
    products = np.fft.ifft2(np.abs(np.fft.fft2(grey)) ** 2).real  # (images, h, w), by shift
    down, across = (np.minimum(np.arange(n), n - np.arange(n)) for n in grey.shape[1:])
    far = np.hypot(down[:, None], across[None, :]) > _least_shift(images[None])
    power = np.maximum(products[:, 0, 0], np.finfo(float).tiny)
    return float((products[:, far].max(axis=1) / power).mean()) if far.any() else 0.0
