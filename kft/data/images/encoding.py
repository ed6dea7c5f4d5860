"""What the encoders of images share: how a list of them is checked, and what a config holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kft.data.images.pixels import UNKNOWN_RANGE, checked_range, image_list, looked_at
from kft.data.inputs import InputKind


class PixelEncoder:
    """Base of the functions from images to the input of a model: data classes with `value_range`.

    Attributes:
        value_range: (black, white) of images of 16 bits, see `kft.data.images.pixels.find_range`;
            None refuses them. `kft.fit` sets it, and a model is saved with it, so that new images
            are read as those that it was trained on.
    """

    value_range: tuple[float, float] | None

    # No fields: what an encoder states about itself, see `kft.data.inputs.Encoder`.
    input_kind = InputKind.IMAGE
    specials = (0, 0)
    changes = None
    deterministic = True

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):  # lists, where a config came from JSON
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        if self.value_range is not None:
            object.__setattr__(self, "value_range", checked_range(self.value_range))

    def check(self, images: Sequence[Any], names: Sequence[str]) -> None:
        """Check images by their headers, so that errors do not come in the middle of an epoch.

        The pixels of files are not decoded, which would take as long as an epoch: damaged ones
        raise a ValueError that names the file when they are read. `read_images` decodes all.

        Args:
            images: List of images, as for encoding.
            names: Name of each image in errors.

        Raises:
            ValueError: An image that cannot be encoded.
        """
        deep = [name for image, name in zip(images, names, strict=True) if looked_at(image, name)]
        if deep and self.value_range is None:
            raise ValueError(
                f"{len(deep):,} of {len(images):,} images, {deep[0]} first, have {UNKNOWN_RANGE}"
            )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as JSON can hold them, from which the same encoder can be made."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


def named_images(
    images: Sequence[Any] | np.ndarray, names: Sequence[str] | None, max_length: None
) -> tuple[list[Any], Sequence[str]]:
    """Check the arguments of an encoder.

    Args:
        images: Images to encode.
        names: Name of each image in errors, None for "images[0]" and so on.
        max_length: None; images have no length.

    Returns:
        The images as a list, and the name of each.

    Raises:
        TypeError: A single image instead of a list.
        ValueError: No images, or `max_length` is not None.
    """
    if max_length is not None:
        raise ValueError(f"max_length is for sequences, received {max_length} with images.")
    images = image_list(images)
    if not images:
        raise ValueError("images is empty: give at least one.")
    return images, names or [f"images[{i}]" for i in range(len(images))]
