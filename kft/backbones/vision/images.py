"""Images as a vision backbone takes them: opened, made RGB, resized, cropped, normalised.

Reference: `transformers` 5, `image_processing_backends.py` (`PilBackend`), `image_transforms.py`:
Pillow resizes the pixels as they are stored, 8 bits each, and the rest is arithmetic.

Differences from the reference: one channel is repeated to three (the reference refuses it or
repeats it, by model); a photograph is turned the way its EXIF data say; images of 16 bits are
brought from the range that is in use to 0 to 255, and
like floating-point arrays keep their precision, since each channel is then resized in float32
(Pillow opens files of 16-bit colours as 8).

Shapes: `B` images, `H` and `W` of the model's input, `h` and `w` of one image.
"""

import os
from dataclasses import asdict, dataclass, replace

import numpy as np

from kft.data.images.pixels import (
    RESAMPLING,
    UNKNOWN_RANGE,
    checked_range,
    looked_at,
    read_pixels,
    resized_pixels,
)
from kft.data.inputs import InputKind

IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
HALF = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}


@dataclass(frozen=True)
class ImageEncoder:
    """Turns images into what a vision backbone takes.

    Args:
        size: (H, W) of the model's input.
        resize: None resizes to (H, W), whatever the image's form; a number brings the shorter side
            to so many pixels, and (height, width) resizes to these: then the middle is cut out.
        resample: one of `RESAMPLING`.
        mean, std: three numbers each, in units of 8-bit pixels: (x - mean) / std.
        value_range: (black, white) of images of 16 bits; None refuses them. `kft.fit` sets it, and
            a model is saved with it, so that new images are seen as those were that it learned
            from. See `kft.data.images.pixels.find_range`.

    Raises:
        ValueError: sizes, a `resample` or a `value_range` that cannot be.

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

    # No fields: what an encoder states about itself, see `kft.data.inputs.Encoder`.
    input_kind = InputKind.IMAGE
    specials = (0, 0)
    changes = None

    def __post_init__(self):
        for name in ("size", "resize", "mean", "std"):  # lists, where a config came from JSON
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        if self.value_range is not None:
            object.__setattr__(self, "value_range", checked_range(self.value_range))
        if len(self.size) != 2 or min(self.size) < 1:
            raise ValueError(f"size must be (height, width) in pixels, received {self.size!r}.")
        height, width = self._pair(self.resize or self.size)
        if height < self.size[0] or width < self.size[1]:
            raise ValueError(
                f"resize must be no less than size, or there is too little to cut out; received "
                f"resize={self.resize} and size={self.size}."
            )
        if self.resample not in RESAMPLING:
            raise ValueError(
                f"resample must be one of {', '.join(RESAMPLING)}, received {self.resample!r}."
            )

    def __call__(self, images, max_length=None, pad_lengths=None, names=None):
        """Encodes images.

        Args:
            images: list of images of any size: paths, PIL images, or arrays (h, w), (h, w, 1),
                (h, w, 3) or (h, w, 4) of uint16, other integers 0 to 255 or floats 0 to 1; or
                one array of several, (B, h, w, channels). One channel is repeated to three; what
                is transparent is laid over white.
            max_length, pad_lengths: None; images have no length.
            names: what errors call each image, None for "images[0]" and so on.

        Returns:
            {"images": float32 array (B, H, W, 3)}.

        Raises:
            TypeError: a bare image, or what is none.
            ValueError: no images, a file that is no image or a stack of several, 16 bits without
                a `value_range`, values out of range, other shapes.
            FileNotFoundError: no such file.
        """
        if max_length is not None:
            raise ValueError(f"max_length is for sequences, received {max_length} with images.")
        images = listed(images)
        names = names or [f"images[{i}]" for i in range(len(images))]
        if not images:
            raise ValueError("images is empty: give at least one.")
        encoded = np.empty((len(images), *self.size, 3), dtype="float32")
        for row, image, name in zip(encoded, images, names, strict=True):
            pixels = self._cut(read_pixels(image, name, self.value_range))
            row[...] = (pixels - np.float32(self.mean)) / np.float32(self.std)
        return {"images": encoded}

    def check(self, images, names):
        """Raises now what encoding would raise in the middle of an epoch, as far as headers tell.

        Of a file the pixels are not decoded, which would take as long as an epoch: what is damaged
        there is a ValueError that names the file when its turn comes. `read_images` decodes all.
        """
        deep = [n for x, n in zip(images, names, strict=True) if looked_at(x, n)]
        if deep and self.value_range is None:
            raise ValueError(
                f"{len(deep):,} of {len(images):,} images, {deep[0]} first, have {UNKNOWN_RANGE}"
            )

    def get_config(self):
        """dict of what JSON knows, from which the same encoder can be made."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def resized(self, size):
        """The same for another size of the model's input; what is cut off grows with it."""
        resize, ratio = self.resize, max(size) / max(self.size)
        if isinstance(resize, tuple):
            pairs = zip(resize, self.size, size, strict=True)
            resize = tuple(max(round(r * new / old), new) for r, old, new in pairs)
        elif resize is not None:
            resize = max(round(resize * ratio), *size)
        return replace(self, size=tuple(size), resize=resize)

    @staticmethod
    def _pair(size):
        return (size, size) if isinstance(size, int) else size

    def _cut(self, pixels):
        """(h, w, 3) -> (H, W, 3)."""
        (height, width), (h, w) = self.size, self._pair(self.resize or self.size)
        if isinstance(self.resize, int):
            # The longer side is cut down to an integer, as in the reference.
            was = pixels.shape[:2]
            longer = int(self.resize * max(was) / min(was))
            h, w = (self.resize, longer) if was[0] <= was[1] else (longer, self.resize)
        pixels = resized_pixels(pixels, h, w, self.resample)
        top, left = (h - height) // 2, (w - width) // 2
        return pixels[top : top + height, left : left + width]


def listed(images):
    """A list of images; a TypeError where it is one image."""
    one = "images must be a list of images, received one: write [image]."
    if isinstance(images, str | os.PathLike) or hasattr(images, "convert"):  # as PIL's have
        raise TypeError(one)
    if isinstance(images, np.ndarray) and (
        images.ndim < 3 or (images.ndim == 3 and images.shape[-1] in (1, 3, 4))
    ):
        raise TypeError(one)
    return list(images)
