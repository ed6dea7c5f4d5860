"""Automatic masks of a whole image, by a SAM that is prompted with a grid of points."""

from __future__ import annotations

from typing import Any

import numpy as np

from kft.arguments import check_instance
from kft.backbones.sam import Sam
from kft.data.images.pixels import find_range, read_pixels
from kft.segmentation.automatic import Crop, Found, Predict, Settings, find_masks
from kft.segmentation.predictor import Predictor


def segment_everything(sam: Sam, image: Any, settings: Settings | None = None) -> Found:
    """Find the masks of all objects of an image.

    Args:
        sam: The model.
        image: As for `Predictor.set_image`.
        settings: How masks are chosen, see `Settings`; None for those of the original. With
            `crop_layers` each crop is encoded by itself.

    Returns:
        The masks, the best first, which may overlap; `.labels` is their label image.

    Raises:
        ValueError: As for `Predictor.set_image`.
        TypeError: `sam` is no SAM, or `settings` are none.

    Example:
        >>> sam = Sam(1, 32, 2, image_size=64, prompt_width=32, decoder_hidden_width=32)
        >>> found = segment_everything(sam, np.zeros((20, 30), "uint8"), Settings(2))
        >>> found.labels.shape
        (20, 30)
    """
    if settings is not None:
        check_instance("settings", settings, Settings, "kft.segmentation.Settings")
    predictor = Predictor(sam).set_image(image)
    if predictor.shape is None:  # set_image sets it
        raise RuntimeError("The predictor has no image.")

    def of_crop(crop: Crop) -> Predict:
        x0, y0, x1, y1 = crop
        return _prompted(Predictor(sam).set_image(_pixels(sam, image)[y0:y1, x0:x1]))

    return find_masks(_prompted(predictor), predictor.shape, settings, of_crop)


def _prompted(predictor: Predictor) -> Predict:
    """Return the function from points to masks, IoU and stability."""

    def predict(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        found = predictor.predict(points)
        return found.masks, found.iou, found.stability

    return predict


def _pixels(sam: Sam, image: Any) -> np.ndarray:
    """Return 8 bits or floats from 0 to 1; of 16 bits, all crops have one black and one white."""
    value_range = sam.encode.value_range or find_range([image], called="image")
    pixels = read_pixels(image, "image", value_range)
    return pixels if pixels.dtype == np.uint8 else pixels / 255
