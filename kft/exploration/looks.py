"""What is looked at in an image: size, file, brightness, a small copy and a perceptual hash."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.fft import dctn

from kft.data.images.pixels import is_deep, opened, read_pixels, resized_pixels

SMALL = 32  # height and width of the small copy
_ALL_16_BITS = (0, 65535)


@dataclass(frozen=True, eq=False)
class Look:
    """Properties of an image.

    Attributes:
        problem: Why it cannot be read; then all other properties are 0 or empty.
        digest: Equal for images with equal pixels, in any file format.
        width: In pixels.
        height: In pixels.
        channels: Number of channels of the image as stored.
        deep: Whether values have 16 bits.
        mean: Mean brightness, from 0 to 255.
        deviation: Standard deviation of the brightness.
        border: Mean brightness of the outermost pixels.
        suffix: Of the file, in lower case; "" for an image in memory.
        size: Bytes of the file; 0 for an image in memory.
        small: uint8 array (32, 32), a small grey copy.
        hash: 64 bits of the lowest frequencies of the small copy (a perceptual hash).
    """

    problem: str = ""
    digest: str | None = None
    width: int = 0
    height: int = 0
    channels: int = 0
    deep: bool = False
    mean: float = 0.0
    deviation: float = 0.0
    border: float = 0.0
    suffix: str = ""
    size: int = 0
    small: np.ndarray | None = None
    hash: int = 0


def looks(images: Iterable[Any]) -> list[Look]:
    """Look at images, each of which is decoded once.

    Args:
        images: Paths, PIL images or arrays, as for `kft.data.images.pixels.read_pixels`.

    Returns:
        A look at each.

    Example:
        >>> looks([np.zeros((8, 6), "uint8")])[0].width
        6
    """
    return [_look(image, f"image {i}") for i, image in enumerate(images)]


def _look(image: Any, name: str) -> Look:
    suffix, size = "", 0
    try:
        if isinstance(image, str | os.PathLike):
            suffix, size = Path(image).suffix.lower(), Path(image).stat().st_size
            image = opened(image)
        deep = is_deep(image)
        pixels = read_pixels(image, name, _ALL_16_BITS)
    except (ValueError, TypeError, OSError) as problem:
        return Look(problem=str(problem), suffix=suffix, size=size)
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    grey = pixels.astype("float32").mean(axis=-1)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    small = resized_pixels(pixels, SMALL, SMALL).mean(axis=-1)
    shape = np.shape(image)
    channels = len(image.getbands()) if hasattr(image, "getbands") else (*shape, 1)[2]
    return Look(
        digest=digest.hexdigest(),
        width=pixels.shape[1],
        height=pixels.shape[0],
        channels=int(channels),
        deep=deep,
        mean=float(grey.mean()),
        deviation=float(grey.std()),
        border=float(border.mean()),
        suffix=suffix,
        size=size,
        small=np.rint(small).astype("uint8"),
        hash=_hash(small),
    )


def _hash(small: np.ndarray) -> int:
    """Return which of the 8 x 8 lowest frequencies are above their median, as 64 bits.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010).
    """
    low = dctn(small.astype("float64"), norm="ortho")[:8, :8].ravel()
    bits = np.round(low, 3) > np.median(np.round(low[1:], 3))
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
