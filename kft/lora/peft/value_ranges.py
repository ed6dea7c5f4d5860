"""The values of 16-bit images that are black and white for an adapter, in its file's metadata."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import keras

from kft.data.images.pixels import checked_range
from kft.messages import shown

KEY = "kft_value_range"


def metadata_of(model: keras.Model) -> dict[str, str]:
    """Return the entry of the metadata for a model; {} if its backbone has no `value_range`."""
    value_range = getattr(getattr(model, "backbone", model), "value_range", None)
    return {} if value_range is None else {KEY: json.dumps(value_range)}


def from_metadata(folder: Path, metadata: Mapping[str, str]) -> tuple[float, float] | None:
    """Return (black, white) of the metadata, None if they do not have it.

    Args:
        folder: Name of the adapter in errors.
        metadata: The metadata.

    Raises:
        ValueError: The entry is damaged.
    """
    entry = metadata.get(KEY)
    try:
        return None if entry is None else checked_range(json.loads(entry))
    except (ValueError, RecursionError):
        raise ValueError(
            f"{folder}: {KEY} in the metadata must be [black, white], two rising numbers from 0 to "
            f"65535, received {shown(entry)}. Copy or save the adapter again."
        ) from None


def give(model: keras.Model, folder: Path, value_range: tuple[float, float] | None) -> None:
    """Set the `value_range` of an adapter in a model that takes images and has none.

    Args:
        model: The model.
        folder: What the warning calls the adapter.
        value_range: (black, white), or None.

    Warns:
        UserWarning: The model has another one, which it keeps.
    """
    backbone = getattr(model, "backbone", model)
    if value_range is None or not hasattr(backbone, "value_range"):
        return
    if backbone.value_range is None:
        backbone.value_range = value_range
    elif backbone.value_range != value_range:
        theirs, ours = (
            "{:,g} for black and {:,g} for white".format(*x)
            for x in (value_range, backbone.value_range)
        )
        warnings.warn(
            f"{folder} was trained on images of 16 bits with {theirs}, and {model.name} keeps "
            f"{ours}, in which such images look different to the adapter: set `value_range` of "
            f"the backbone to {value_range} to use the adapter's.",
            stacklevel=3,
        )
