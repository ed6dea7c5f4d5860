"""The settings of a run, which determine its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

# Backbones, if none is named. Nothing is pre-trained for columns of any meaning.
PROTEINS, IMAGES, COLUMNS = "kft_esm2_tiny", "efficientnet_lite0", "dense"


@dataclass(frozen=True)
class Settings:
    """Settings of a fine-tuning, see `finetune`.

    Args:
        data: Name of `kft.data.names()`, or the path of a table, FASTA file or folder of images.
        target: Column to predict, or list of columns of 0 and 1, one per label; None guesses it.
        inputs: Column of the sequences or image paths, list of columns of numbers and
            categories, or of two columns of sequences, whose pairs are the inputs; None guesses it.
        backbone: Name or path for `kft.load`; None for the small ESM-2 that kft brings, for images
            EfficientNet-Lite0, for columns of numbers and categories a new network ("dense").
        revision: Commit, tag or branch of the hub for the backbone; None for the latest. The commit
            that was used is in the record of the run.
        strategy: Name of `kft.strategies.names()`; None for "lora", with a new network
            "from_scratch".
        options: Options of the strategy, such as {"rank": 4}.
        split: "random", "cluster" or the name of a column; None guesses the column, else takes
            "cluster" for sequences and "random" for images.
        groups: Column of groups that a split must not separate, or None.
        task: As for `kft.data.read_table`; of the data set "chains" which of its targets is
            predicted: "residue_classification", "torsions", "contacts" or "distogram".
        sep: Character between the columns of a text file; None finds it.
        decimal: Decimal sign of a text file, "." or ","; None finds it.
        missing: Words that mark a missing value, as for `kft.data.read_table`; so they do in new
            records. None takes NA and the like.
        dropna: Whether lines with missing values are left out.
        weights: Column of how much each record counts in the loss and in scores, or None.
        categories: Columns of `inputs` that hold categories, although their cells are numbers.
        seed: Seed of the split, new weights, the order of batches and dropout.
        epochs: Epochs; None for those of the strategy.
        learning_rate: Highest learning rate; None for that of the strategy.
        batch_size: Records per batch.
        max_length: Residues to keep of each sequence; None keeps all.
        image_size: Side of the images in pixels; None for that of the backbone.

    Example:
        >>> Settings("mine.csv", target="y", strategy="lora").batch_size
        32
    """

    data: str
    target: str | Sequence[str] | None = None
    inputs: str | Sequence[str] | None = None
    backbone: str | None = None
    revision: str | None = None
    strategy: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    groups: str | None = None
    task: str | None = None
    sep: str | None = None
    decimal: str | None = None
    missing: str | Sequence[str] | None = None
    dropna: bool = False
    weights: str | None = None
    categories: Sequence[str] | None = None
    seed: int = 0
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int = 32
    max_length: int | None = None
    image_size: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, as they are read from JSON: tuples become lists."""
        values = {**asdict(self), "options": dict(self.options)}
        return json.loads(json.dumps(values, default=str))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Return settings from what `to_dict` gave, perhaps in another version of kft.

        Args:
            values: Name -> value; names that this version does not know are left out.
        """
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
