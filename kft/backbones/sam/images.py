"""Images as SAM takes them: the longer side resized to the model's, the rest filled up.

Reference: `segment-anything` 1.0, `utils/transforms.py` (`ResizeLongestSide`, Pillow's bilinear
filter on 8 bits) and `Sam.preprocess`.

Differences from the reference: images of 16 bits and floats keep their precision, see
`kft.data.images.pixels`; images are filled up with the mean before they are normalised, which gives
the zeros that the reference fills up with after it.

Shapes: `B` images, `S` side of the model's input, `h` and `w` of one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kft.backbones.sam.encoder import PIXEL_MEAN
from kft.data.images.encoding import PixelEncoder, named_images
from kft.data.images.pixels import read_pixels, resized_pixels


def sizes_within(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the (height, width) of an image whose longer side is resized to `size`.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        size: S.

    Example:
        >>> sizes_within(520, 696, 1024)
        (765, 1024)
    """
    ratio = size / max(height, width)
    return max(int(height * ratio + 0.5), 1), max(int(width * ratio + 0.5), 1)


@dataclass(frozen=True)
class SamImages(PixelEncoder):
    """Function from images to the input of a SAM.

    Args:
        size: S in pixels.
        mean: What images are filled up with: three numbers in units of 8-bit pixels.
        value_range: (black, white) of images of 16 bits, see `kft.data.images.pixels.find_range`;
            None refuses them.

    Example:
        >>> SamImages(8)([np.zeros((10, 5), "uint8")])["images"].shape
        (1, 8, 8, 3)
    """

    size: int
    mean: tuple[float, float, float] = PIXEL_MEAN
    value_range: tuple[float, float] | None = None

    def __call__(
        self,
        images: Sequence[Any] | np.ndarray,
        max_length: None = None,
        pad_lengths: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Encode images.

        Args:
            images: List of images of any size, see `kft.data.images.pixels.read_pixels`.
            max_length: None; images have no length.
            pad_lengths: Ignored; images have no length.
            names: Name of each image in errors, None for "images[0]" and so on.

        Returns:
            {"images": float32 array (B, S, S, 3), pixels from 0 to 255}.

        Raises:
            TypeError, ValueError, FileNotFoundError: As for `read_pixels`.
        """
        images, names = named_images(images, names, max_length)
        pairs = zip(images, names, strict=True)
        read = (read_pixels(image, name, self.value_range) for image, name in pairs)
        return {"images": np.stack([self.fitted(pixels) for pixels in read])}

    def fitted(self, pixels: np.ndarray) -> np.ndarray:
        """Resize the pixels of one image and fill them up.

        Args:
            pixels: (h, w, 3), uint8 or float32 from 0 to 255.

        Returns:
            Float32 array (S, S, 3).
        """
        h, w = sizes_within(pixels.shape[0], pixels.shape[1], self.size)
        encoded = np.empty((self.size, self.size, 3), dtype="float32")
        encoded[...] = np.asarray(self.mean, dtype="float32")
        encoded[:h, :w] = resized_pixels(pixels, h, w)
        return encoded
