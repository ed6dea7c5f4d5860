"""The backbone for rows of a table for `kft.load`: by the columns of a data set, or from a folder.

No weights are published. A network that was trained on one domain is written with
`kft.backbones.save` and read again from its folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from kft.backbones.checkpoints import Origin, Tensors, fill
from kft.backbones.registry import Family, register
from kft.backbones.tabular.model import MODEL_TYPE, DenseBackbone, tensor_name

SIZES = ("num_blocks", "width", "hidden_width")


class DenseFamily(Family):
    """Dense networks of any size; `data` is the option that brings the columns."""

    name = "dense networks"
    options = ("data",)
    model_types: ClassVar = {MODEL_TYPE: "dense network of kft"}

    def names(self) -> list[str]:
        return ["dense"]

    def load(self, name: str, weights: bool, dtype: str | None, **options: Any) -> DenseBackbone:
        data = options.get("data")
        if weights or data is None:
            raise ValueError(
                f"{name!r} has no published weights, and its columns are those of your data: write "
                f"kft.load({name!r}, weights=False, data=data), or give the folder of a saved one."
            )
        return DenseBackbone.for_data(data, name=name, dtype=dtype)

    def from_folder(
        self,
        folder: Path,
        config: dict[str, Any],
        tensors: Mapping[str, np.ndarray] | None,
        source: str,
        dtype: str | None,
        **options: Any,
    ) -> DenseBackbone:
        if options:
            raise ValueError(f"data is for 'dense'; {source} has columns of its own: leave it out.")
        try:
            sizes = {name: config[name] for name in ("columns", *SIZES)}
            backbone = DenseBackbone(**sizes, dtype=dtype)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{source} has a config.json that is damaged: {error}.") from error
        if tensors is None:
            return backbone
        tensors = tensors if isinstance(tensors, Tensors) else Tensors.of(tensors, source=source)
        variables = {v.path: v for v in backbone.weights}
        backbone.load_report = fill(
            variables,
            {path: Origin((tensor_name(path),), tuple(v.shape)) for path, v in variables.items()},
            tensors,
            names={name: name for name in tensors},
            source=source,
            kind="a dense network",
            skipped=re.compile(""),
        )
        return backbone


register(DenseFamily())
