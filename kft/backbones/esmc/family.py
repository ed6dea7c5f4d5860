"""ESM-C for `kft.load`: published names and Hugging Face folders.

The weights of the published names (MIT licence) are downloaded from the Hugging Face hub.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kft.backbones.checkpoints import Tensors, commit_of, hub_folder
from kft.backbones.esmc.model import ESMC, PUBLISHED
from kft.backbones.esmc.weights import from_hugging_face
from kft.backbones.registry import Family, read_folder, register


class ESMCFamily(Family):
    """ESM-C of any size."""

    name = "ESM-C"
    options = ("revision",)
    model_types: ClassVar = {"esmc": "ESM-C"}
    classifiers: ClassVar = {
        "EsmcForSequenceClassification": (
            "kft>EsmClassification",
            {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
        ),
        "EsmcForTokenClassification": ("kft>EsmTokenClassification", {"dense": "score"}),
    }

    def names(self) -> list[str]:
        return list(PUBLISHED)

    def load(self, name: str, weights: bool, dtype: str | None, **options: Any) -> ESMC:
        revision = options.pop("revision", None)
        if not weights:
            return ESMC(*PUBLISHED[name], dtype=dtype)
        folder = hub_folder(f"biohub/{name}", revision)
        backbone = from_hugging_face(*read_folder(folder, True), name, dtype)
        backbone.revision = commit_of(folder)
        return backbone

    def read(self, name: str) -> tuple[dict, Tensors]:
        """Return config and tensors of a published name."""
        config, tensors = read_folder(hub_folder(f"biohub/{name}"), weights=True)
        return config, tensors or Tensors({})

    def from_folder(
        self,
        folder: Path,
        config: dict[str, Any],
        tensors: Mapping[str, np.ndarray] | None,
        source: str,
        dtype: str | None,
        **options: Any,
    ) -> ESMC:
        return from_hugging_face(config, tensors, source, dtype)


register(ESMCFamily())
