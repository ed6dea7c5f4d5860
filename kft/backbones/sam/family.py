"""SAM for `kft.load`: published names, Hugging Face folders and the original torch files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kft.backbones.checkpoints import commit_of, hub_folder
from kft.backbones.registry import Family, read_folder, register
from kft.backbones.sam import weights as checkpoints
from kft.backbones.sam.model import Sam
from kft.backbones.sam.published import OWNER, PUBLISHED


class SamFamily(Family):
    """The three published sizes of SAM, and any other size from a folder or file."""

    name = "SAM"
    options = ("revision",)
    model_types: ClassVar = {"sam": "SAM"}
    torch_layout = "original SAM"

    def names(self) -> list[str]:
        return list(PUBLISHED)

    def load(self, name: str, weights: bool, dtype: str | None, **options: Any) -> Sam:
        if not weights:
            return Sam(**PUBLISHED[name], name=name, dtype=dtype)
        folder = hub_folder(f"{OWNER}/{name}", options.get("revision"))
        sam = self.from_folder(folder, *read_folder(folder, True), name, dtype)
        sam.revision = commit_of(folder)
        return sam

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
