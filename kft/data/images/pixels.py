"""Pixels of images, given as files, PIL images or arrays.

A camera that writes 16 bits may use 12 of them, or 300 values in the middle. A value range says
which values are black and white. `find_range` finds it in the images that a model is trained with.
Without a value range, images of 16 bits are refused.

Pillow is imported when the first image is read, not with kft.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kft.data.inputs import listed_inputs
from kft.files import check_file

ImageLike = Any  # a path, a PIL image, or an array
Picture = Any  # a PIL image; Pillow is an optional package

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers

# Modes that Pillow converts to RGB without a relevant loss.
_EIGHT_BITS = frozenset("1 L LA P PA RGB RGBA RGBX CMYK YCbCr HSV LAB".split())
_DEEPEST = 65535  # the largest value of 16 bits
MOST_PIXELS = 100_000_000  # of an image, which then takes about a gigabyte while it is read
PERCENTILES = (0.1, 99.9)  # of all values, so that a few hot pixels do not determine white


@dataclass(frozen=True)
class Frame(os.PathLike):
    """One image of a file of several: a page of a TIFF stack, or a frame of an animation.

    It is an input like a path.

    Attributes:
        path: Path of the file.
        number: Number of the image in the file, from 0.

    Example:
        >>> Frame(Path("stack.tif"), 3)
        Frame(path=PosixPath('stack.tif'), number=3)
    """

    path: Path
    number: int

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return f"{self.path}, frame {self.number}"

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name


def opened(path: str | os.PathLike[str], decode: bool = True) -> Picture:
    """Open an image file and rotate the image by its EXIF data.

    Args:
        path: Path of the file.
        decode: Whether to read the pixels, without which the image is not rotated. A damaged file
            may have a valid header.

    Returns:
        The PIL image.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not one complete image of at most `MOST_PIXELS`; the message gives
            the reason.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    check_file(Path(path), "the image")
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            if isinstance(path, Frame):
                _go_to(picture, path.number)
            elif stack := _stack(picture):
                raise _Unusable(stack)
            if is_deep(picture):  # this is lost when Pillow decodes the pixels
                picture.info[_DEEP] = True
            return ImageOps.exif_transpose(picture) if decode else picture
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError("not an image format that Pillow reads") from error
    except _Unusable as error:
        raise ValueError(str(error)) from None
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"larger than {MOST_PIXELS:,} pixels: save a smaller copy, or cut it into tiles"
        ) from error
    except Exception as error:  # OSError, SyntaxError, struct.error: depends on the format
        raise ValueError(f"damaged: {error}") from error


class _Unusable(Exception):
    """Raised for a file without the one image that is asked for."""


def _go_to(picture: Any, number: int) -> None:
    """Go to one image of a file of several."""
    count = getattr(picture, "n_frames", 1)
    try:
        picture.seek(number)
    except EOFError:
        raise _Unusable(
            f"a file of {count:,} images, from 0 to {count - 1}, without number {number}"
        ) from None


def _stack(picture: Any) -> str | None:
    """Return why a PIL image is not one image, None if it is."""
    count = getattr(picture, "n_frames", 1)
    if picture.format in _WITH_PREVIEWS or count < 2:
        return None
    if picture.format == "TIFF":
        now = picture.tell()
        pages = []
        for page in range(count):
            picture.seek(page)
            pages.append(not picture.tag_v2.get(_PAGE_KIND, 0) & _SMALLER_COPY)
        picture.seek(now)
        count = sum(pages)
    if count < 2:
        return None
    return (
        f"a stack of {count:,} images (slices, channels or frames), but a model takes a single "
        f"one: choose one with kft.data.read_images(..., frames=0), or save the maximum of all "
        f"as a separate file or array"
    )


# Formats whose first image is the complete one: photographs with previews, images with layers
_WITH_PREVIEWS = {"MPO", "PSD"}
_PAGE_KIND, _SMALLER_COPY = 254, 1  # TIFF tag of a page, and its bit for a smaller copy
_DEEP = "more than 8 bits"  # key in `info` of PIL images


def is_deep(image: Any) -> bool:
    """Return whether an image has values of 16 bits, which need a value range.

    Args:
        image: PIL image or numpy array; for a file, the result of `opened`.

    Returns:
        Whether it has values of 16 bits.

    Example:
        >>> is_deep(np.zeros((8, 8), "uint16"))
        True
    """
    if isinstance(image, np.ndarray):
        return image.dtype.kind == "u" and image.dtype.itemsize == 2
    if image.mode.startswith("I;16") or image.info.get(_DEEP, False):
        return True
    # Colours of 16 bits, which Pillow decodes to 8 bits.
    return any(re.search(";16[BLN]", str(tile[3])) for tile in getattr(image, "tile", ()))


def opened_as(name: str, path: str | os.PathLike[str], decode: bool = True) -> Picture:
    """Open an image file as `opened`, with errors that name the argument and the file.

    Args:
        name: Name of the argument, for errors.
        path: Path of the file.
        decode: As for `opened`.

    Returns:
        The PIL image.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not one complete image.
    """
    try:
        return opened(path, decode)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{name} is {str(path)!r}, which is not a file (in {Path.cwd()})."
        ) from None
    except ValueError as error:
        raise ValueError(f"{name}, {path}, cannot be read as an image: {error}.") from error


def wrong_mode(picture: Picture) -> str | None:
    """Return why the pixels of a PIL image cannot be used, None if they can.

    Args:
        picture: A PIL image.

    Returns:
        The reason, or None.
    """
    if picture.mode in _EIGHT_BITS or picture.mode.startswith("I;16"):
        return None
    return (
        f"pixels of mode {picture.mode!r}, whose range is unknown: give an array of uint16, or of "
        f"floats from 0 to 1"
    )


def check_mode(picture: Picture, name: str) -> None:
    """Check that the pixels of a PIL image can be used.

    Args:
        picture: A PIL image.
        name: Name of the argument, for the error.

    Raises:
        ValueError: They cannot be used.
    """
    if why := wrong_mode(picture):
        raise ValueError(f"{name} has {why}.")


def looked_at(image: ImageLike, name: str) -> bool:
    """Check an image as `read_pixels` does, without decoding files.

    Args:
        image: As for `read_pixels`.
        name: Name of the argument, for errors.

    Returns:
        Whether the image has values of 16 bits.

    Raises:
        FileNotFoundError: As `read_pixels`.
        ValueError: As `read_pixels`.
        TypeError: As `read_pixels`.
    """
    if isinstance(image, str | os.PathLike):
        check_mode(opened_as(name, image, decode=False), name)
    else:
        read_pixels(image, name, (0, _DEEPEST))
    return _may_be_deep(image, name)


def read_pixels(
    image: ImageLike, name: str, value_range: Sequence[float] | None = None
) -> np.ndarray:
    """Read the pixels of an image.

    A single channel is repeated to three, transparent pixels are placed over white, and
    photographs are rotated by their EXIF data. 16 bits keep their precision in grey images and
    arrays; files of 16-bit colours are opened by Pillow with 8 bits.

    Args:
        image: Path, PIL image, or array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of uint16,
            of other integers from 0 to 255, or of floats from 0 to 1.
        name: Name of the argument, for errors.
        value_range: (black, white) for images of 16 bits, see `find_range`. Values outside become
            black or white. Images of 8 bits and floats do not need it.

    Returns:
        Array (h, w, 3), uint8, or float32 from 0 to 255.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not an image, is damaged or holds several images; the image has 16
            bits and there is no value range; values are out of range, or channels are wrong.
        TypeError: `image` is not an image.

    Example:
        >>> read_pixels(np.zeros((8, 8)), "image").shape
        (8, 8, 3)
    """
    image, deep = _loaded(image, name)
    if not deep:
        return _three_channels(_as_pixels(image, name), name)
    if value_range is None:
        raise ValueError(f"{name} has {UNKNOWN_RANGE}")
    black, white = checked_range(value_range)
    pixels = image.astype("float64")
    scaled = ((pixels - black) * (255 / (white - black))).clip(0, 255)
    if pixels.ndim == 3 and pixels.shape[-1] == 4:  # opacity does not depend on the value range
        scaled[..., 3] = pixels[..., 3] * (255 / _DEEPEST)
    return _three_channels(scaled.astype("float32"), name)


def read_as_stored(image: ImageLike, name: str) -> np.ndarray:
    """Read the pixels of an image with the depth that they are stored with.

    Args:
        image: As for `read_pixels`.
        name: Name of the argument, for errors.

    Returns:
        Array (h, w) of grey values or (h, w, 3) of colours; for files uint8 or uint16.
        Transparent pixels are placed over white.

    Raises:
        FileNotFoundError: As `read_pixels`.
        ValueError: As `read_pixels`.
        TypeError: As `read_pixels`.

    Example:
        >>> read_as_stored(np.full((8, 8, 3), 7, "uint16"), "image").shape
        (8, 8)
    """
    pixels, deep = _loaded(image, name)
    if not deep:
        pixels = _as_pixels(pixels, name) if pixels.dtype.kind != "f" else pixels
    if pixels.ndim == 3 and pixels.shape[-1] == 4 and pixels.dtype.kind == "u":
        most = np.iinfo(pixels.dtype).max
        alpha = pixels[..., 3:] / most
        pixels = np.rint(pixels[..., :3] * alpha + most * (1 - alpha)).astype(pixels.dtype)
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3):
        raise ValueError(f"{name} has shape {pixels.shape}: expected 1, 3 or 4 channels.")
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels


UNKNOWN_RANGE = (
    "values of 16 bits, of which a camera may use only a part, and it is not known which are black "
    "and white. kft.fit finds them in its training images. Without kft.fit, set "
    "`backbone.value_range = (black, white)` to the `data.value_range` of kft.data.read_images, or "
    "to the result of kft.data.images.pixels.find_range(images)."
)


def checked_range(value_range: Sequence[float]) -> tuple[float, float]:
    """Check a value range.

    Args:
        value_range: (black, white), two increasing numbers from 0 to 65,535.

    Returns:
        (black, white) as floats.

    Raises:
        ValueError: It is not such a pair.
    """
    try:
        black, white = (float(value) for value in value_range)
    except (TypeError, ValueError):
        black = white = 0.0
    if not 0 <= black < white <= _DEEPEST:
        raise ValueError(
            f"value_range must be (black, white), two increasing numbers from 0 to {_DEEPEST}; "
            f"received {value_range!r}."
        )
    return black, white


def find_range(
    images: Iterable[ImageLike],
    percentiles: Sequence[float] = PERCENTILES,
    called: str = "images",
) -> tuple[float, float] | None:
    """Find the values of 16-bit images that are black and white, as percentiles of all pixels.

    Args:
        images: Paths, PIL images or arrays; images of 8 bits and floats are skipped.
        percentiles: (lower, upper), increasing, from 0 to 100, over all values of all images.
        called: Name of the argument, for errors.

    Returns:
        (black, white), floats from 0 to 65535; None if no image has 16 bits.

    Raises:
        ValueError: Percentiles do not increase, or an image cannot be read.

    Example:
        >>> find_range([np.arange(100, 4000, dtype="uint16").reshape(60, 65)])
        (103.0, 3996.0)
    """
    lower, upper = _checked_percentiles(percentiles)
    counts, deep = np.zeros(_DEEPEST + 1, dtype=np.int64), False
    for i, image in enumerate(images):
        if _may_be_deep(image, f"{called}[{i}]"):
            values, deep = _loaded(image, f"{called}[{i}]")
            counts += np.bincount(_colours(values).ravel(), minlength=_DEEPEST + 1)
    if not deep:
        return None
    below = np.cumsum(counts)
    # The first value with at least this percentage of all values at or below it.
    at = [max(1, int(np.ceil(percent / 100 * below[-1]))) for percent in (lower, upper)]
    black, white = (int(value) for value in np.searchsorted(below, at))
    if black == white:  # all values are equal: black
        black, white = (black, white + 1) if white < _DEEPEST else (black - 1, white)
    return float(black), float(white)


def _may_be_deep(image: ImageLike, name: str) -> bool:
    """Return whether an image has 16 bits, without decoding files; False for anything else."""
    if isinstance(image, str | os.PathLike):
        return is_deep(opened_as(name, image, decode=False))
    if isinstance(image, np.ndarray) or hasattr(image, "getbands"):  # as PIL's have
        return is_deep(image)
    return str(getattr(image, "dtype", "")).endswith("uint16")


def _checked_percentiles(percentiles: Sequence[float]) -> tuple[float, float]:
    try:
        lower, upper = (float(value) for value in percentiles)
    except (TypeError, ValueError):
        lower = upper = 0.0
    if not 0 <= lower < upper <= 100:
        raise ValueError(
            f"percentiles must be (lower, upper), two increasing numbers from 0 to 100; received "
            f"{percentiles!r}."
        )
    return lower, upper


def looked_into(image: ImageLike, name: str) -> tuple[str, int | None, bool]:
    """Decode an image and describe its pixels.

    Args:
        image: As for `read_pixels`.
        name: Name of the argument, for errors.

    Returns:
        A digest that is equal for images with equal pixels, in any file format; the largest
        value of an image of 16 bits, else None; and whether it is a file of 16-bit colours, of
        which Pillow reads the upper 8 bits.
    """
    from PIL import Image

    pixels, deep = _loaded(image, name)
    brightest = int(_colours(pixels).max()) if deep else None
    colours = deep and isinstance(image, Image.Image) and not image.mode.startswith("I;16")
    if not deep:
        pixels = _three_channels(_as_pixels(pixels, name), name)
    elif pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    digest = hashlib.sha256(f"{pixels.dtype} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest(), brightest, colours


def _colours(values: np.ndarray) -> np.ndarray:
    """Return the values without the opacity channel."""
    return values[..., :3] if values.ndim == 3 and values.shape[-1] == 4 else values


def _loaded(image: ImageLike, name: str) -> tuple[np.ndarray, bool]:
    """Return an image as an array, and whether it has 16 bits; then the array is uint16.

    A file of 8 bits in any mode gives uint8 (h, w, 3).
    """
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        image = opened_as(name, image)
    if isinstance(image, Image.Image):
        if stack := _stack(image):
            raise ValueError(f"{name} is {stack}; for a PIL image, give image.copy().")
        check_mode(image, name)
        if not is_deep(image):
            return _over_white(image), False
        if not image.mode.startswith("I;16"):
            image = image.convert("RGBA" if "A" in image.getbands() else "RGB")
            return np.asarray(image).astype("uint16") * np.uint16(_DEEPEST // 255), True
    array = _as_array(image, name)
    deep = is_deep(array)
    return array.astype("uint16") if deep else array, deep  # in the native byte order


def _over_white(image: Picture) -> np.ndarray:
    """Convert an 8-bit PIL image of any mode to uint8 (h, w, 3), over white."""
    from PIL import Image

    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _as_array(image: ImageLike, name: str) -> np.ndarray:
    try:
        array = np.asarray(image)
    except Exception as error:  # for example a tensor on a device
        raise TypeError(f"{name} is not an array ({error}): give a path or an array.") from error
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        raise TypeError(
            f"{name} must be a path, a PIL image or an array (height, width) or (height, width, "
            f"channels), received {type(image).__name__} of {array.dtype} {array.shape}."
        )
    return array


def _as_pixels(array: np.ndarray, name: str) -> np.ndarray:
    """Convert an array that has not 16 bits to uint8, or to float32 from 0 to 255."""
    kind = array.dtype.kind
    if kind == "b":
        return array.astype("uint8") * np.uint8(255)
    low, high = array.min(), array.max()
    most = 1 if kind == "f" else 255
    if not (low >= 0 and high <= most):  # NaN included
        raise ValueError(
            f"{name} has values from {low} to {high}: integers must be within 0 to 255, floats "
            f"within 0 to 1. Give images of 16 bits as uint16, as read from the camera."
        )
    if kind == "f":
        return array.astype("float32") * np.float32(255)
    return array.astype("uint8")


def _three_channels(pixels: np.ndarray, name: str) -> np.ndarray:
    """Convert (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) to (h, w, 3)."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    channels = pixels.shape[-1]
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    if channels == 4:
        alpha = pixels[..., 3:].astype("float32") / 255
        over = pixels[..., :3] * alpha + 255 * (1 - alpha)
        return over if pixels.dtype != "uint8" else np.rint(over).astype("uint8")
    if channels != 3:
        raise ValueError(
            f"{name} has shape {pixels.shape}: expected 1, 3 or 4 channels in the last axis. If "
            f"the channels come first, give image.transpose(1, 2, 0)."
        )
    return pixels


def resized_pixels(
    pixels: np.ndarray, height: int, width: int, resample: str = "bilinear"
) -> np.ndarray:
    """Resize pixels with Pillow.

    Args:
        pixels: Array (h, w, 3), uint8 or float32.
        height: New height in pixels.
        width: New width in pixels.
        resample: Name of the filter, one of `RESAMPLING`.

    Returns:
        Array (height, width, 3) of the same dtype.

    Example:
        >>> resized_pixels(np.zeros((8, 8, 3), "uint8"), 4, 6).shape
        (4, 6, 3)
    """
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    method = Image.Resampling[resample.upper()]
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize((width, height), method))
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((width, height), method))
        for channel in np.moveaxis(pixels, -1, 0)  # each of mode "F"
    ]
    return np.stack(channels, axis=-1)


def image_list(images: Sequence[Any] | np.ndarray) -> list[Any]:
    """Return a list of images, which is what functions that take images expect.

    Args:
        images: List of images, or one array of several, (B, h, w, channels).

    Raises:
        TypeError: A single image.

    Example:
        >>> len(image_list(np.zeros((2, 8, 8, 3))))
        2
    """
    if isinstance(images, np.ndarray) and (
        images.ndim < 3 or (images.ndim == 3 and images.shape[-1] in (1, 3, 4))
    ):
        raise TypeError("images must be a list of images, received one: write [image].")
    return listed_inputs(images, "images")
