"""SAM for `kft.load`: published names, Hugging Face folders and the original torch files.

`kft_sam_tiny` ships with kft: a small SAM that was trained on simulated cells. The weights of the
published names are downloaded from the Hugging Face hub.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kft.backbones.checkpoints import Tensors, commit_of, hub_folder, read_safetensors
from kft.backbones.registry import Family, read_folder, refuse_revision, register
from kft.backbones.sam import weights as checkpoints
from kft.backbones.sam.model import Sam
from kft.backbones.sam.published import OWNER, PUBLISHED

SHIPPED = Path(__file__).parent / "shipped"  # Hugging Face folders, each with its model card


class SamFamily(Family):
    """The three published sizes of SAM, and any other size from a folder or file."""

    name = "SAM"
    options = ("revision",)
    model_types: ClassVar = {"sam": "SAM"}
    torch_layout = "original SAM"

    def names(self) -> list[str]:
        shipped = sorted(config.parent.name for config in SHIPPED.glob("*/config.json"))
        return [*shipped, *PUBLISHED]

    def load(self, name: str, weights: bool, dtype: str | None, **options: Any) -> Sam:
        revision = options.get("revision")
        if name not in PUBLISHED:
            if revision:
                refuse_revision(name)
            shipped = read_folder(SHIPPED / name, weights)
            return checkpoints.from_hugging_face(*shipped, name, dtype, name)
        if not weights:
            return Sam(**PUBLISHED[name], name=name, dtype=dtype)
        folder = hub_folder(f"{OWNER}/{name}", revision)
        sam = checkpoints.from_hugging_face(*read_folder(folder, True), name, dtype, name)
        sam.revision = commit_of(folder)
        return sam

    def read(self, name: str) -> tuple[dict, Tensors]:
        """Return config and tensors of a published name."""
        folder = hub_folder(f"{OWNER}/{name}") if name in PUBLISHED else SHIPPED / name
        return read_folder(folder, weights=False)[0], read_safetensors(folder)

    def from_folder(
        self,
        folder: Path,
        config: dict[str, Any],
        tensors: Mapping[str, np.ndarray] | None,
        source: str,
        dtype: str | None,
        **options: Any,
    ) -> Sam:
        return checkpoints.from_hugging_face(config, tensors, source, dtype)

    def reads_torch(self, checkpoint: Any) -> bool:
        return checkpoints.is_original(checkpoint)

    def from_torch(self, checkpoint: Any, path: Path, dtype: str | None, **options: Any) -> Sam:
        return checkpoints.from_original(checkpoint, str(path), dtype)


register(SamFamily())
