"""Images as a vision backbone takes them: opened, made RGB, resized, cropped, normalised.

Reference: `transformers` 5, `image_processing_backends.py` (`PilBackend`), `image_transforms.py`:
Pillow resizes the pixels as they are stored, 8 bits each, and the rest is arithmetic; for DINOv3
pixels are resized in float32.

Differences from the reference: one channel is repeated to three (the reference refuses it or
repeats it, depending on the model); a photograph is rotated by its EXIF data; images of 16 bits
are mapped from the range that is in use to 0 to 255, and like floating-point arrays keep their
precision, since each channel is then resized in float32 (Pillow opens files of 16-bit colours as
8).

Shapes: `B` images, `H` and `W` of the model's input, `h` and `w` of one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kft.data.images.encoding import PixelEncoder, named_images
from kft.data.images.pixels import RESAMPLING, read_pixels, resized_pixels

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}


@dataclass(frozen=True)
class ImageEncoder(PixelEncoder):
    """Function from images to the input of a vision backbone.

    Args:
        size: (H, W) of the model's input in pixels.
        resize: None resizes to (H, W), for any shape of the image; a number is the new length of
            the shorter side, and (height, width) the new size, in pixels: then the middle is cut
            out.
        resample: One of `RESAMPLING`.
        mean: Three numbers in units of 8-bit pixels, for (x - mean) / std.
        std: Three numbers in units of 8-bit pixels, for (x - mean) / std.
        in_float32: Whether images of 8 bits are resized in float32, not rounded to 8 bits again.
        value_range: (black, white) of images of 16 bits; None refuses them. `kft.fit` sets it, and
            a model is saved with it, so that new images are read as those that it was trained on.
            See `kft.data.images.pixels.find_range`.

    Raises:
        ValueError: Invalid sizes, `resample` or `value_range`.

    Example:
        >>> encode = ImageEncoder((4, 4), resize=5)
        >>> encode([np.zeros((10, 7), "uint8")])["images"].shape
        (1, 4, 4, 3)
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None = None
    resample: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET["mean"]
    std: tuple[float, float, float] = IMAGENET["std"]
    value_range: tuple[float, float] | None = None
    in_float32: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size must be (height, width) in pixels, received {self.size!r}.")
        height, width = self._pair(self.resize or self.size)
        if height < self.size[0] or width < self.size[1]:
            raise ValueError(
                f"resize must be at least size, or there is too little to cut out; received "
                f"resize={self.resize} and size={self.size}."
            )
        if self.resample not in RESAMPLING:
            raise ValueError(
                f"resample must be one of {', '.join(RESAMPLING)}, received {self.resample!r}."
            )

    def __call__(
        self,
        images: Sequence[Any] | np.ndarray,
        max_length: None = None,
        pad_lengths: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Encode images.

        Args:
            images: List of images of any size: paths, PIL images, or arrays (h, w), (h, w, 1),
                (h, w, 3) or (h, w, 4) of uint16, other integers 0 to 255 or floats 0 to 1; or
                one array of several, (B, h, w, channels). One channel is repeated to three;
                transparent parts become white.
            max_length: None; images have no length.
            pad_lengths: Ignored; images have no length.
            names: Name of each image in errors, None for "images[0]" and so on.

        Returns:
            {"images": float32 array (B, H, W, 3)}.

        Raises:
            TypeError: A single image instead of a list, or an element that is not an image.
            ValueError: No images, a file that is not an image or is a stack of several, 16 bits
                without a `value_range`, values out of range, other shapes.
            FileNotFoundError: No such file.
        """
        images, names = named_images(images, names, max_length)
        encoded = np.empty((len(images), *self.size, 3), dtype="float32")
        mean, std = (np.asarray(x, dtype="float32") for x in (self.mean, self.std))
        for row, image, name in zip(encoded, images, names, strict=True):
            pixels = self._cut(read_pixels(image, name, self.value_range))
            row[...] = (pixels - mean) / std
        return {"images": encoded}

    def resized(self, size: tuple[int, int]) -> "ImageEncoder":
        """Return the encoder for another size of the input; what is cut off scales with it.

        Args:
            size: (H, W) in pixels.
        """
        resize, ratio = self.resize, max(size) / max(self.size)
        if isinstance(resize, tuple):
            pairs = zip(resize, self.size, size, strict=True)
            height, width = (max(round(r * new / old), new) for r, old, new in pairs)
            resize = height, width
        elif resize is not None:
            resize = max(round(resize * ratio), *size)
        return replace(self, size=(size[0], size[1]), resize=resize)

    @staticmethod
    def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
        return (size, size) if isinstance(size, int) else size

    def _cut(self, pixels: np.ndarray) -> np.ndarray:
        """Resize and cut (h, w, 3) to (H, W, 3)."""
        (height, width), (h, w) = self.size, self._pair(self.resize or self.size)
        if isinstance(self.resize, int):
            # The longer side is cut down to an integer, as in the reference.
            was = pixels.shape[:2]
            longer = int(self.resize * max(was) / min(was))
            h, w = (self.resize, longer) if was[0] <= was[1] else (longer, self.resize)
        if self.in_float32:
            pixels = pixels.astype("float32")
        pixels = resized_pixels(pixels, h, w, self.resample)
        top, left = (h - height) // 2, (w - width) // 2
        return pixels[top : top + height, left : left + width]
