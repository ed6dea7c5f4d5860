"""What an adapter's file says about the model around it: head, names, size of images.

It is an entry of the metadata of adapter_model.safetensors, from which `kft.load_model` makes the
model again. PEFT ignores it.
"""

import json
from collections.abc import Mapping
from typing import Any

import keras

KEY = "kft_model"
NAMES = ("classes", "target_name")


def metadata_of(model: keras.Model) -> dict[str, str]:
    """Return the entry for a `kft.Model` with a kft head; {} for any other model."""
    head = getattr(model, "head", None)
    if not getattr(head, "keeps_adapters", False):
        return {}
    config = keras.saving.serialize_keras_object(head)
    # Adapters, and what is frozen, are what `kft.load_adapter` adds.
    for key in ("exchanged", "frozen_parts"):
        config["config"].pop(key, None)
    record = {name: getattr(model, name, None) for name in NAMES}
    transform = getattr(model, "target_transform", None)
    if transform is not None:
        record["target_transform"] = transform.get_config()
    image_size = getattr(model.backbone, "image_size", None)
    return {KEY: json.dumps({"head": config, "image_size": image_size, **record})}


def from_metadata(about: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the entry of a file's metadata, None if it has none."""
    return json.loads(about[KEY]) if KEY in about else None
