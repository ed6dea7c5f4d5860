"""Figures of images: how a masked autoencoder reconstructs hidden patches."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from kft.plots.style import new_figure

COLUMNS = ("original", "masked", "reconstructed")


def plot_reconstructions(
    original: ArrayLike,
    masked: ArrayLike,
    reconstructed: ArrayLike,
    patch_size: int,
    images: str = "images that were not trained on",
    shown: int = 6,
    rescaled: bool = True,
) -> tuple[Figure, str]:
    """Draw images, their masked versions and their reconstructions, as He et al. 2021, figure 2.

    Args:
        original: Float array (B, H, W, 3) from 0 to 1.
        masked: Array of the same shape. A patch that differs from the original is hidden.
        reconstructed: Array of the same shape.
        patch_size: Side of a patch in pixels.
        images: What the images are, for the caption.
        shown: Largest number of images that are drawn. The caption's numbers are those of all.
        rescaled: Whether each reconstructed patch was given the mean and the standard deviation of
            the true one.

    Returns:
        The figure, with two triples of images per row, and its caption.

    Raises:
        ValueError: Shapes differ, or no patch is hidden.

    Example:
        >>> original = np.random.default_rng(0).random((2, 16, 16, 3))
        >>> masked = original.copy()
        >>> masked[:, :8] = 0.5
        >>> figure, caption = plot_reconstructions(original, masked, original, 8)
        >>> "n = 2" in caption and "0.000" in caption
        True
    """
    original, masked, reconstructed = (np.asarray(x) for x in (original, masked, reconstructed))
    shapes = {x.shape for x in (original, masked, reconstructed)}
    if len(shapes) > 1 or original.ndim != 4 or not len(original):
        raise ValueError(
            f"original, masked and reconstructed must have one shape (B, H, W, 3), received "
            f"{original.shape}, {masked.shape} and {reconstructed.shape}."
        )
    caption = _caption(original, masked, reconstructed, patch_size, images, shown, rescaled)
    count = min(shown, len(original))
    rows, pairs = -(-count // 2), min(count, 2)
    figure = new_figure(4.4 * pairs, 1.45 * rows + 0.3)
    # A narrow empty column separates the triples.
    widths = [1, 1, 1, 0.15, 1, 1, 1][: 3 if pairs == 1 else 7]
    axes = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    for ax in axes.flat:
        ax.axis("off")
    for i in range(count):
        for k, pictures in enumerate((original, masked, reconstructed)):
            ax = axes[i // 2, 4 * (i % 2) + k]
            ax.imshow(np.clip(pictures[i], 0, 1), interpolation="nearest")
            if i < 2:
                ax.set_title(COLUMNS[k], fontsize=9)
    return figure, caption


def _caption(
    original: np.ndarray,
    masked: np.ndarray,
    reconstructed: np.ndarray,
    patch_size: int,
    images: str,
    shown: int,
    rescaled: bool,
) -> str:
    cut = [_patches(np.asarray(x, float), patch_size) for x in (original, masked, reconstructed)]
    hidden = (cut[0] != cut[1]).any(axis=-1)  # (B, P)
    if not hidden.any():
        raise ValueError("masked equals original everywhere: no patch is hidden.")
    true, predicted = cut[0][hidden], cut[2][hidden]  # (patches, numbers)
    error = np.sqrt(np.mean((true - predicted) ** 2))
    flat = np.sqrt(np.mean((true - true.mean(axis=-1, keepdims=True)) ** 2))
    each = [
        np.mean((x[h] - y[h]) ** 2) < np.mean((x[h] - x[h].mean(axis=-1, keepdims=True)) ** 2)
        for x, y, h in zip(cut[0], cut[2], hidden, strict=True)
        if h.any()
    ]
    count = min(shown, len(original))
    drawn = f"the first {count} are drawn" if count < len(original) else "all are drawn"
    scale = (
        " Each reconstructed patch has the brightness and the contrast of the true one, since the "
        "model predicts patches without them."
        if rescaled
        else ""
    )
    ratio = f" ({error / flat:.0%} of it)" if flat > 0 else ""
    return (
        f"Original images, the same with hidden patches, and the reconstructions of a masked "
        f"autoencoder: {images}, n = {len(original)}; {drawn}. {hidden.mean():.0%} of the patches "
        f"of {patch_size} x {patch_size} pixels are hidden; visible patches are drawn unchanged."
        f"{scale} What stands out: at hidden patches the root mean squared error is {error:.3f} of "
        f"the range from black to white, compared with {flat:.3f} when each is filled with its own "
        f"mean{ratio}; the reconstruction is better in {sum(each)} of {len(each)} images."
    )


def _patches(images: np.ndarray, p: int) -> np.ndarray:
    """Cut images (B, H, W, C) into patches (B, patches, numbers)."""
    batch, height, width, channels = images.shape
    cut = images.reshape(batch, height // p, p, width // p, p, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, p * p * channels)
