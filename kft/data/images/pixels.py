"""Pixels of images, whatever they come as: files, PIL images or arrays.

Of 16 bits a camera uses what it likes: 12 of them, or 300 values in the middle. What is black and
what is white is therefore told by a value range, which `find_range` reads off the images that a
model is trained with; without one they are refused.

Pillow is imported when an image is first read, not with kft.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers

# Modes that Pillow turns into RGB without a loss that matters.
_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr",
               "HSV", "LAB"}  # fmt: skip
_DEEPEST = 65535  # the largest value of 16 bits
PERCENTILES = (0.1, 99.9)  # of all values: a few hot pixels do not tell what is white


def opened(path, decode=True):
    """The PIL image in a file, turned the way its EXIF data say.

    Args:
        path: of a file.
        decode: False neither reads the pixels nor turns them: of a damaged file the header may be
            whole.

    Raises:
        FileNotFoundError: no such file.
        ValueError: why it is no whole image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if stack := _stack(picture):
                raise _Stack(stack)
            if is_deep(picture):  # Pillow forgets it with the first pixel that it decodes
                picture.info[_DEEP] = True
            return ImageOps.exif_transpose(picture) if decode else picture
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError("not an image that Pillow knows") from error
    except _Stack as error:
        raise ValueError(str(error)) from None
    except Image.DecompressionBombError as error:
        raise ValueError("larger than Pillow decodes") from error
    except Exception as error:  # OSError, SyntaxError, struct.error: by the format and the damage
        raise ValueError(f"damaged: {error}") from error


class _Stack(Exception):
    """A file of several images."""


def _stack(picture):
    """Why a PIL image is not one image, None if it is."""
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
        f"a stack of {count:,} images (slices, channels or frames), of which a model takes one: "
        f"write the slice that is meant, or their maximum, as a file or an array of its own"
    )


# Formats whose first image is the whole one: photographs with previews, pictures with layers
_WITH_PREVIEWS = {"MPO", "PSD"}
_PAGE_KIND, _SMALLER_COPY = 254, 1  # tag of a page of a TIFF file, and its bit: of an earlier page
_DEEP = "more than 8 bits"  # key in the `info` of PIL images


def is_deep(image):
    """Whether an image has values of 16 bits, which mean nothing without a value range.

    Args:
        image: PIL image or numpy array; of a file what `opened` returns.
    """
    if isinstance(image, np.ndarray):
        return image.dtype.kind == "u" and image.dtype.itemsize == 2
    if image.mode.startswith("I;16") or image.info.get(_DEEP, False):
        return True
    # Colours of 16 bits, which Pillow decodes to 8.
    return any(re.search(";16[BLN]", str(tile[3])) for tile in getattr(image, "tile", ()))


def opened_as(name, path, decode=True):
    """The same, with errors that name the file and what it is called."""
    try:
        return opened(path, decode)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{name} is {str(path)!r}, which is no file (from {Path.cwd()})."
        ) from None
    except ValueError as error:
        raise ValueError(f"{name}, {path}, cannot be read as an image: {error}.") from error


def wrong_mode(picture):
    """Why the pixels of a PIL image cannot be used, None if they can."""
    if picture.mode in _EIGHT_BITS or picture.mode.startswith("I;16"):
        return None
    return (
        f"pixels of mode {picture.mode!r}, whose range is not known: give an array of uint16, or "
        f"of floats from 0 to 1"
    )


def check_mode(picture, name):
    """Raises ValueError for a PIL image whose pixels cannot be used."""
    if why := wrong_mode(picture):
        raise ValueError(f"{name} has {why}.")


def looked_at(image, name):
    """Whether an image has 16 bits; raises what `read_pixels` would, of a file as the header tells.

    Args:
        image, name: as for `read_pixels`. The pixels of a file are not decoded.
    """
    if isinstance(image, str | os.PathLike):
        check_mode(opened_as(name, image, decode=False), name)
    else:
        read_pixels(image, name, (0, _DEEPEST))
    return _may_be_deep(image, name)


def read_pixels(image, name, value_range=None):
    """The pixels of any image.

    One channel is repeated to three, what is transparent is laid over white, a photograph is turned
    the way its EXIF data say. Of 16 bits the precision is kept where the image is grey or an array:
    Pillow opens files of 16-bit colours as 8 bits.

    Args:
        image: path, PIL image, or array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of uint16,
            of other integers from 0 to 255, or of floats from 0 to 1.
        name: what errors call it.
        value_range: (black, white) of images of 16 bits, see `find_range`; what lies beyond is
            black or white. Images of 8 bits and floats have one of their own.

    Returns:
        array (h, w, 3), uint8, or float32 from 0 to 255.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no image, is damaged or holds several; 16 bits without a value
            range; values out of range, other channels.
        TypeError: what is no image.
    """
    image, deep = _loaded(image, name)
    if not deep:
        return _three_channels(_as_pixels(image, name), name)
    if value_range is None:
        raise ValueError(f"{name} has {UNKNOWN_RANGE}")
    black, white = checked_range(value_range)
    pixels = image.astype("float64")
    scaled = ((pixels - black) * (255 / (white - black))).clip(0, 255)
    if pixels.ndim == 3 and pixels.shape[-1] == 4:  # how much is seen has no black and no white
        scaled[..., 3] = pixels[..., 3] * (255 / _DEEPEST)
    return _three_channels(scaled.astype("float32"), name)


UNKNOWN_RANGE = (
    "values of 16 bits, of which a camera may use a few only, and it is not known which are black "
    "and white. kft.fit finds that in its training images; without it say "
    "`backbone.value_range = (black, white)`, which `data.value_range` of kft.data.read_images or "
    "kft.data.images.pixels.find_range(images) tells."
)


def checked_range(value_range):
    """(black, white) as floats.

    Raises:
        ValueError: no two numbers from 0 to 65,535 that rise.
    """
    try:
        black, white = (float(value) for value in value_range)
    except (TypeError, ValueError):
        black = white = 0.0
    if not 0 <= black < white <= _DEEPEST:
        raise ValueError(
            f"value_range must be (black, white), two rising numbers from 0 to {_DEEPEST} as the "
            f"images of 16 bits hold them; received {value_range!r}."
        )
    return black, white


def find_range(images, percentiles=PERCENTILES, called="images"):
    """The values of 16-bit images that are black and white: percentiles over all their pixels.

    Args:
        images: list of paths, PIL images or arrays; those of 8 bits and floats are passed over.
        percentiles: (lower, upper), rising, from 0 to 100: shares of all values in all images.
        called: what errors call the list.

    Returns:
        (black, white), floats from 0 to 65535; None if no image has 16 bits.

    Raises:
        ValueError: percentiles that do not rise; what `read_pixels` raises.

    Example:
        >>> find_range([np.arange(100, 4000, dtype="uint16").reshape(60, 65)])
        (103.0, 3996.0)
    """
    lower, upper = _checked_percentiles(percentiles)
    counts, found = np.zeros(_DEEPEST + 1, dtype=np.int64), False
    for i, image in enumerate(images):
        if _may_be_deep(image, f"{called}[{i}]"):
            values, found = _loaded(image, f"{called}[{i}]")
            counts += np.bincount(_colours(values).ravel(), minlength=_DEEPEST + 1)
    if not found:
        return None
    below = np.cumsum(counts)
    # The first value with at least this share of all at or below it; at 0 the least there is.
    at = [max(1, int(np.ceil(share / 100 * below[-1]))) for share in (lower, upper)]
    black, white = (int(value) for value in np.searchsorted(below, at))
    if black == white:  # one value throughout: it is black
        black, white = (black, white + 1) if white < _DEEPEST else (black - 1, white)
    return float(black), float(white)


def _may_be_deep(image, name):
    """Whether an image has 16 bits, without decoding a file; False of what is no image."""
    if isinstance(image, str | os.PathLike):
        return is_deep(opened_as(name, image, decode=False))
    if isinstance(image, np.ndarray) or hasattr(image, "getbands"):  # as PIL's have
        return is_deep(image)
    return str(getattr(image, "dtype", "")).endswith("uint16")


def _checked_percentiles(percentiles):
    try:
        lower, upper = (float(value) for value in percentiles)
    except (TypeError, ValueError):
        lower = upper = 0.0
    if not 0 <= lower < upper <= 100:
        raise ValueError(
            f"percentiles must be (lower, upper), two rising numbers from 0 to 100; received "
            f"{percentiles!r}."
        )
    return lower, upper


def looked_into(image, name):
    """What is to be known of an image before it is used.

    Args:
        image, name: as for `read_pixels`.

    Returns:
        tuple: a digest (str) that two images share if and only if their pixels are alike,
        whatever their format; the largest value of an image of 16 bits, else None; and whether it
        is a file of 16-bit colours, of which Pillow reads the upper 8 bits.
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
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest(), brightest, colours


def _colours(values):
    """Without the channel that says how much is seen."""
    return values[..., :3] if values.ndim == 3 and values.shape[-1] == 4 else values


def _loaded(image, name):
    """The image as an array, and whether it has 16 bits: then the array is uint16.

    One of 8 bits in a file comes as uint8 (h, w, 3), whatever its mode.
    """
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        image = opened_as(name, image)
    if isinstance(image, Image.Image):
        if stack := _stack(image):
            raise ValueError(f"{name} is {stack}; of a PIL image give image.copy().")
        check_mode(image, name)
        if not is_deep(image):
            return _over_white(image), False
        if not image.mode.startswith("I;16"):
            image = image.convert("RGBA" if "A" in image.getbands() else "RGB")
            return np.asarray(image).astype("uint16") * np.uint16(_DEEPEST // 255), True
    array = _as_array(image, name)
    deep = is_deep(array)
    return array.astype("uint16") if deep else array, deep  # in this machine's order of bytes


def _over_white(image):
    """An 8-bit PIL image of any mode -> uint8 (h, w, 3)."""
    from PIL import Image

    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _as_array(image, name):
    try:
        array = np.asarray(image)
    except Exception as error:  # a tensor on a device, for one
        raise TypeError(f"{name} is no array ({error}): give a path or an array.") from error
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        raise TypeError(
            f"{name} must be a path, a PIL image or an array (height, width) or (height, width, "
            f"channels), received {type(image).__name__} of {array.dtype} {array.shape}."
        )
    return array


def _as_pixels(array, name):
    """An array that is not of 16 bits -> uint8, or float32 from 0 to 255."""
    kind = array.dtype.kind
    if kind == "b":
        return array.astype("uint8") * np.uint8(255)
    low, high = array.min(), array.max()
    most = 1 if kind == "f" else 255
    if not (low >= 0 and high <= most):  # NaN included
        raise ValueError(
            f"{name} has values from {low} to {high}: integers must lie within 0 to 255, floats "
            f"within 0 to 1. Give images of 16 bits as uint16, as the camera made them."
        )
    if kind == "f":
        return array.astype("float32") * np.float32(255)
    return array.astype("uint8")


def _three_channels(pixels, name):
    """(h, w), (h, w, 1), (h, w, 3) or (h, w, 4) -> (h, w, 3)."""
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
            f"{name} has shape {pixels.shape}: expected 1, 3 or 4 channels in the last axis. Of "
            f"channels first give image.transpose(1, 2, 0)."
        )
    return pixels


def resized_pixels(pixels, height, width, resample="bilinear"):
    """Pixels of `read_pixels` for another height and width, by Pillow.

    Args:
        pixels: array (h, w, 3), uint8 or float32.
        height, width: in pixels.
        resample: one of `RESAMPLING`.

    Returns:
        array (height, width, 3) of the same dtype.
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
    one = "images must be a list of images, received one: write [image]."
    if isinstance(images, str | os.PathLike) or hasattr(images, "convert"):  # as PIL's have
        raise TypeError(one)
    if isinstance(images, np.ndarray) and (
        images.ndim < 3 or (images.ndim == 3 and images.shape[-1] in (1, 3, 4))
    ):
        raise TypeError(one)
    return list(images)
