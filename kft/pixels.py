"""Pixels of images, whatever they come as: files, PIL images or arrays.

Pillow is imported when an image is first read, not with kft.
"""

import os
from pathlib import Path

import numpy as np

RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers

# Modes that Pillow turns into RGB without a loss that matters.
_EIGHT_BITS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr",
               "HSV", "LAB"}  # fmt: skip


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
            return ImageOps.exif_transpose(picture) if decode else picture
    except FileNotFoundError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError("not an image that Pillow knows") from error
    except Image.DecompressionBombError as error:
        raise ValueError("larger than Pillow decodes") from error
    except Exception as error:  # OSError, SyntaxError, struct.error: by the format and the damage
        raise ValueError(f"damaged: {error}") from error


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
        f"pixels of mode {picture.mode!r}, whose range is not known: give an array of floats from "
        f"0 to 1"
    )


def check_mode(picture, name):
    """Raises ValueError for a PIL image whose pixels cannot be used."""
    if why := wrong_mode(picture):
        raise ValueError(f"{name} has {why}.")


def read_pixels(image, name):
    """The pixels of any image.

    One channel is repeated to three, what is transparent is laid over white, a photograph is turned
    the way its EXIF data say. Of 16 bits the precision is kept where the image is grey: Pillow
    opens colours of 16 bits as 8.

    Args:
        image: path, PIL image, or array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of integers 0 to
            255 or floats 0 to 1.
        name: what errors call it.

    Returns:
        array (h, w, 3), uint8, or float32 from 0 to 255.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no image or is damaged, values out of range, other channels.
        TypeError: what is no image.
    """
    from PIL import Image

    if isinstance(image, str | os.PathLike):
        image = opened_as(name, image)
    if isinstance(image, Image.Image):
        check_mode(image, name)
        if image.mode.startswith("I;16"):
            image = np.asarray(image, dtype="float32") / np.float32(65535)
        else:
            image = _over_white(image)
    return _three_channels(_as_pixels(image, name), name)


def _over_white(image):
    """An 8-bit PIL image of any mode -> uint8 (h, w, 3)."""
    from PIL import Image

    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _as_pixels(image, name):
    """An array -> uint8, or float32 from 0 to 255."""
    try:
        array = np.asarray(image)
    except Exception as error:  # a tensor on a device, for one
        raise TypeError(f"{name} is no array ({error}): give a path or an array.") from error
    kind = array.dtype.kind
    if kind not in "buif" or array.ndim not in (2, 3) or not array.size:
        raise TypeError(
            f"{name} must be a path, a PIL image or an array (height, width) or (height, width, "
            f"channels), received {type(image).__name__} of {array.dtype} {array.shape}."
        )
    if kind == "b":
        return array.astype("uint8") * np.uint8(255)
    low, high = array.min(), array.max()
    most = 1 if kind == "f" else 255
    if not (low >= 0 and high <= most):  # NaN included
        raise ValueError(
            f"{name} has values from {low} to {high}: integers must lie within 0 to 255, floats "
            f"within 0 to 1. Divide by the largest value that can occur, 65535 of 16 bits."
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
