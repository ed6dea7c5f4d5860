"""Figures of images: what a masked autoencoder makes of hidden patches."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

COLUMNS = ("original", "what is seen", "reconstructed")


def plot_reconstructions(
    original: ArrayLike,
    masked: ArrayLike,
    reconstructed: ArrayLike,
    patch_size: int,
    images: str = "images that were not trained on",
    shown: int = 6,
    lent: bool = True,
) -> tuple[Figure, str]:
    """Draw images, what is left of them and how they were completed, as He et al. 2021, figure 2.

    Args:
        original, masked, reconstructed: float (B, H, W, 3) in [0, 1]; a patch that differs from
            the original in `masked` is taken for hidden.
        patch_size: pixels of a patch's side.
        images: what the images are, for the caption.
        shown: how many are drawn at most; the numbers of the caption are those of all.
        lent: whether each hidden patch was given the mean and the deviation of the true one.

    Returns:
        The figure, two triples of images beside each other, and its caption.

    Raises:
        ValueError: other shapes, or no hidden patch.

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
    caption = _caption(original, masked, reconstructed, patch_size, images, shown, lent)
    count = min(shown, len(original))
    rows, pairs = -(-count // 2), min(count, 2)
    figure = Figure(figsize=(4.4 * pairs, 1.45 * rows + 0.3), dpi=120, layout="constrained")
    # A narrow empty column parts the triples.
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


def _caption(original, masked, reconstructed, patch_size, images, shown, lent):
    cut = [_patches(np.asarray(x, float), patch_size) for x in (original, masked, reconstructed)]
    hidden = (cut[0] != cut[1]).any(axis=-1)  # (B, P)
    if not hidden.any():
        raise ValueError("masked is the original everywhere: there is no hidden patch to look at.")
    true, answer = cut[0][hidden], cut[2][hidden]  # (patches, numbers)
    error = np.sqrt(np.mean((true - answer) ** 2))
    flat = np.sqrt(np.mean((true - true.mean(axis=-1, keepdims=True)) ** 2))
    each = [
        np.mean((x[h] - y[h]) ** 2) < np.mean((x[h] - x[h].mean(axis=-1, keepdims=True)) ** 2)
        for x, y, h in zip(cut[0], cut[2], hidden, strict=True)
        if h.any()
    ]
    count = min(shown, len(original))
    some = f"the first {count} are drawn" if count < len(original) else "all are drawn"
    given = (
        " Each hidden patch was lent the brightness and the contrast of the true one, since the "
        "model predicts patterns without them."
        if lent
        else ""
    )
    said = f"{error / flat:.0%} of it" if flat > 0 else "where that is no error at all"
    return (
        f"Images as they are, as a masked autoencoder saw them and as it completed them: "
        f"{images}, n = {len(original)}, of which {some}. {hidden.mean():.0%} of the patches of "
        f"{patch_size} x {patch_size} pixels are hidden; visible ones are shown as they were."
        f"{given} What stands out: at hidden patches the root mean squared error is {error:.3f} of "
        f"the range from black to white, beside {flat:.3f} where each is filled with its own mean, "
        f"{said}; the reconstruction is the better one in {sum(each)} of {len(each)} images."
    )


def _patches(images, p):
    """(B, H, W, C) -> (B, patches, numbers)."""
    batch, height, width, channels = images.shape
    cut = images.reshape(batch, height // p, p, width // p, p, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, p * p * channels)
