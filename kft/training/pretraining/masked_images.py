"""Images with hidden patches: the inputs and targets of a masked autoencoder, in numpy.

Reference: He et al. 2021, "Masked autoencoders are scalable vision learners", arXiv:2111.06377,
section 3 (masking, reconstruction target) and its code, `models_mae.py`.

Differences from the reference: images are not cropped and flipped at random, since what is up or
right may matter in a scientific image; the number of hidden patches is rounded to the nearest, not
the number of visible ones down.

Shapes: `B` images in a batch, `H` and `W` their sides, `p` the side of a patch, `P` = H W / p^2
patches, `V` visible and `M` hidden ones, `N` = 3 p^2 numbers of a patch.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kft.arguments import check_integer
from kft.data.images.pixels import image_list
from kft.training.pretraining.training import Steps

MASK_RATIO = 0.75  # fraction of the patches that are hidden: He et al., figure 5
EPSILON = 1e-6  # added to a patch's variance, as in the reference's code


# Patches ------------------------------------------------------------------------------------------


def patchify(images: np.ndarray, patch_size: int) -> np.ndarray:
    """Cut images into patches, from left to right and from top to bottom.

    Args:
        images: Array (B, H, W, 3).
        patch_size: p; H and W are multiples of it.

    Returns:
        Array (B, P, N) of the same dtype; a patch is its pixels row by row, three numbers each.

    Example:
        >>> patchify(np.zeros((2, 32, 48, 3)), 16).shape
        (2, 6, 768)
    """
    p, (batch, height, width, channels) = patch_size, images.shape
    rows, columns = height // p, width // p
    cut = images.reshape(batch, rows, p, columns, p, channels)
    # (B, rows, p, columns, p, 3) -> (B, rows, columns, p, p, 3)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)


def unpatchify(patches: np.ndarray, patch_size: int, image_size: tuple[int, int]) -> np.ndarray:
    """Join patches to images, the inverse of `patchify`.

    Args:
        patches: Array (B, P, N).
        patch_size: p.
        image_size: (H, W).

    Returns:
        Array (B, H, W, 3).

    Example:
        >>> images = np.random.default_rng(0).random((2, 32, 48, 3))
        >>> bool((unpatchify(patchify(images, 16), 16, (32, 48)) == images).all())
        True
    """
    p, (height, width) = patch_size, image_size
    cut = patches.reshape(len(patches), height // p, width // p, p, p, -1)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(len(patches), height, width, -1)


def normalised(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalise patches to mean 0 and variance 1 each, which are a better target than pixels.

    Args:
        patches: Float array (..., N).

    Returns:
        Normalised patches (..., N), and their means and deviations (..., 1), such that
        `normalised * deviation + mean` is the patch; one without any contrast is all zeros.

    Source: He et al. 2021, section 3, "Reconstruction target", and section 4.1; the variance is
    that of a sample, and 1e-6 is added to it, as in the reference's code.

    Example:
        >>> patches, mean, deviation = normalised(np.arange(12.0).reshape(1, 12))
        >>> abs(float(patches.mean())) < 1e-6, float(mean[0, 0])
        (True, 5.5)
    """
    mean = patches.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + EPSILON)
    return (patches - mean) / deviation, mean, deviation


def hide_patches(
    batch: int, patches: int, mask_ratio: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the hidden patches of each image, all with the same probability.

    Args:
        batch: B.
        patches: P.
        mask_ratio: Fraction of the patches that are hidden; their number is rounded.
        rng: Numpy generator.

    Returns:
        visible: int32 (B, V), positions of the patches that the encoder sees, rising.
        hidden: int32 (B, M), positions of the others, rising.

    Raises:
        ValueError: A ratio outside (0, 1), or so few patches that all or none would be hidden.

    Example:
        >>> visible, hidden = hide_patches(2, 16, 0.75, np.random.default_rng(0))
        >>> visible.shape, hidden.shape
        ((2, 4), (2, 12))
    """
    count = hidden_count(patches, mask_ratio)
    order = np.argsort(rng.random((batch, patches)), axis=1)
    hidden, visible = np.sort(order[:, :count], axis=1), np.sort(order[:, count:], axis=1)
    return visible.astype("int32"), hidden.astype("int32")


def hidden_count(patches: int, mask_ratio: float) -> int:
    """Compute the number of hidden patches.

    Args:
        patches: P.
        mask_ratio: Fraction of the patches that are hidden.

    Returns:
        M.

    Raises:
        ValueError: See `hide_patches`.

    Example:
        >>> hidden_count(16, 0.75)
        12
    """
    if not (isinstance(mask_ratio, int | float | np.number) and 0 < mask_ratio < 1):
        raise ValueError(f"mask_ratio must be above 0 and below 1, received {mask_ratio!r}.")
    count = round(patches * mask_ratio)
    if not 0 < count < patches:
        raise ValueError(
            f"An image has too few patches, {patches}: with mask_ratio={mask_ratio} {count} of "
            f"them would be hidden, and at least one has to be hidden and one to be seen. Take "
            f"smaller patches, larger images or another mask_ratio."
        )
    return count


# Batches ------------------------------------------------------------------------------------------


class MaskedImageBatches(Steps):
    """Batches of images with hidden patches, as `fit` takes them; see `masked_image_batches`.

    `batch(step)` is the batch of a global step, a function of the seed and the step alone; an epoch
    has `steps` batches, and `batches[i]` is step i of the present epoch.

    Args:
        images: List of images.
        encode: The `encode` of a `VisionTransformer`.
        batch_size: Number of images per batch, at most the number of all.
        patch_size: p.
        mask_ratio: Fraction of the patches that are hidden.
        normalise: Whether the target is each patch with mean 0 and variance 1, or its pixels.
        steps: Batches of an epoch; None for one pass over all images.
        seed: Int that decides order and masks.
        fresh: False shows the same batches in every epoch.

    Attributes:
        epoch: Present epoch.
        one_pass: Batches until each image has come once.
    """

    def __init__(
        self,
        images: Any,
        encode: Any,
        batch_size: int,
        patch_size: int,
        mask_ratio: float,
        normalise: bool,
        steps: int | None,
        seed: int,
        fresh: bool,
    ):
        super().__init__(seed, fresh)
        self.images, self.encode = image_list(images), encode
        encode(self.images[:1])  # raises where there are none
        encode.check(self.images, [f"images[{i}]" for i in range(len(self.images))])
        self.patch_size, self.mask_ratio, self.normalise = patch_size, mask_ratio, normalise
        self.patches = _patches_of(encode.size, patch_size)
        hidden_count(self.patches, mask_ratio)
        self.batch_size = min(batch_size, len(self.images))
        self.one_pass = -(-len(self.images) // self.batch_size)
        self.steps = steps or self.one_pass
        self._order: tuple[int | None, np.ndarray] = (None, np.array([]))

    def batch(self, step: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Make the batch of a global step: inputs and targets (B, M, N)."""
        turn, index = divmod(step, self.one_pass)
        if self._order[0] != turn:
            self._order = turn, self._mixed(turn)
        chosen = self._order[1][index * self.batch_size : (index + 1) * self.batch_size]
        names = [f"images[{i}]" for i in chosen]
        images = self.encode([self.images[i] for i in chosen], names=names)["images"]
        rng = np.random.default_rng((self.seed, 1, step))
        visible, hidden = hide_patches(len(chosen), self.patches, self.mask_ratio, rng)
        targets = patchify(images, self.patch_size)
        targets = np.take_along_axis(targets, hidden[..., None], axis=1)
        if self.normalise:
            targets = normalised(targets)[0]
        return {"images": images, "visible": visible, "hidden": hidden}, targets

    def _mixed(self, turn: int) -> np.ndarray:
        """The order of the images in a pass."""
        rng = np.random.default_rng((self.seed, 0, turn))
        order = rng.permutation(len(self.images))
        # Filled up, so that all steps are alike; for a score each image comes once.
        missing = (self.one_pass * self.batch_size - len(order)) * self.fresh
        return np.concatenate([order, rng.choice(len(order), missing)])


def masked_image_batches(
    images: Iterable,
    encode: Callable,
    batch_size: int = 64,
    *,
    patch_size: int,
    mask_ratio: float = MASK_RATIO,
    normalise: bool = True,
    steps: int | None = None,
    seed: int = 0,
    fresh: bool = True,
) -> MaskedImageBatches:
    """Make the batches of masked autoencoding, which the `fit` of a `masked_autoencoder` takes.

    Args:
        images: List of images of any kind and size, see `kft.backbones.vision.images`; files are
            read again in every epoch.
        encode: The `encode` of a `VisionTransformer`.
        batch_size: Number of images per batch, at most the number of all.
        patch_size: p, of the backbone, `autoencoder.patch_size`.
        mask_ratio: Fraction of the patches that are hidden.
        normalise: Whether the target is each patch with mean 0 and variance 1, or the pixels as
            the encoder gets them.
        steps: Batches of an epoch; None for one pass over all images.
        seed: Int that decides order and masks, by numpy, the same on every backend.
        fresh: False shows the same batches in every epoch, for validation.

    Returns:
        MaskedImageBatches of ({"images": float32 (B, H, W, 3), "visible": int32 (B, V), "hidden":
        int32 (B, M)}, targets float32 (B, M, N)); targets are those of the hidden patches.

    Raises:
        ValueError: No images, one that cannot be read, a ratio outside (0, 1), too few patches, a
            patch size that does not divide the image size.
        TypeError: One image in place of a list.

    Example:
        >>> from kft.backbones.vision.images import ImageEncoder
        >>> pictures = list(np.zeros((5, 20, 20), "uint8"))
        >>> batches = masked_image_batches(pictures, ImageEncoder((32, 32)), 4, patch_size=8)
        >>> inputs, targets = batches[0]
        >>> inputs["visible"].shape, inputs["hidden"].shape, targets.shape, len(batches)
        ((4, 4), (4, 12), (4, 12, 192), 2)
    """
    check_integer("batch_size", batch_size)
    if steps is not None:
        check_integer("steps", steps)
    return MaskedImageBatches(
        images, encode, batch_size, patch_size, mask_ratio, normalise, steps, seed, fresh
    )


def _patches_of(size: Sequence[int], patch_size: int) -> int:
    if any(side % patch_size for side in size):
        raise ValueError(
            f"patch_size must divide both sides of the encoded images, {size}, received "
            f"{patch_size!r}: give that of the backbone."
        )
    return size[0] // patch_size * (size[1] // patch_size)


def digest(images: list) -> str:
    """Compute a digest of images, by which a training that continues recognises its data.

    Of a file the digest covers name and size: to read all would take as long as an epoch.

    Args:
        images: List of images of any kind.

    Returns:
        Hexadecimal digest.

    Example:
        >>> len(digest([np.zeros((4, 4), "uint8")]))
        64
    """
    hasher = hashlib.sha256()
    for image in images:
        if isinstance(image, str | os.PathLike):
            hasher.update(f"{Path(image).name} {Path(image).stat().st_size}".encode())
        else:
            array = np.asarray(image)
            hasher.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    return hasher.hexdigest()
