"""The model and the strategy of a run, from its settings and from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from kft.backbones import load, randomised
from kft.data import Dataset
from kft.data.inputs import InputKind
from kft.finetuning.settings import COLUMNS, IMAGES, PROTEINS, Settings
from kft.models import Model, PairBackbone, heads
from kft.models.heads import Head
from kft.preparation import Preparation
from kft.training import strategies
from kft.training.strategies import Strategy


def backbone_name(settings: Settings, data: Dataset) -> str:
    """Return the name of the backbone of a run, by the data if the settings name none.

    Args:
        settings: Settings of the run.
        data: Its data.

    Example:
        >>> from kft.data import load
        >>> backbone_name(Settings("digits"), load("digits"))
        'efficientnet_lite0'
    """
    usual = {
        InputKind.SEQUENCE: PROTEINS, InputKind.PAIR: PROTEINS, InputKind.TABLE: COLUMNS
    }  # fmt: skip
    return settings.backbone or usual.get(data.input_kind, IMAGES)


def strategy_name(settings: Settings, data: Dataset) -> str:
    """Return the name of the strategy of a run, by its backbone if the settings name none.

    Args:
        settings: Settings of the run.
        data: Its data.

    Example:
        >>> from kft.data import load
        >>> strategy_name(Settings("digits"), load("digits"))
        'lora'
    """
    new = backbone_name(settings, data) == COLUMNS
    return settings.strategy or ("from_scratch" if new else "lora")


def new_head(data: Dataset) -> Head:
    """Make the head of a run, by the task and the inputs of its data.

    Args:
        data: The data of the run.

    Example:
        >>> from kft.data import load
        >>> new_head(load("digits")).classes
        10
    """
    # Often a few positions of a protein are decisive, which have little weight in the mean.
    pooling = "attention" if data.input_kind is InputKind.SEQUENCE else "mean"
    return heads.for_data(data, pooling=pooling)


def described(settings: Settings, data: Dataset) -> dict[str, Any]:
    """Return what it takes to make the model and the strategy of a run, as plain values.

    Args:
        settings: Settings of the run.
        data: Its data.

    Raises:
        ValueError: The strategy or an option of it is unknown.

    Example:
        >>> from kft.data import load
        >>> described(Settings("amp"), load("amp"))["backbone"]
        'kft_esm2_tiny'
    """
    strategy = strategy_name(settings, data)
    strategies.get(strategy, **settings.options)  # now, not after the backbone is loaded
    backbone = backbone_name(settings, data)
    head, new = new_head(data), None
    if backbone == COLUMNS:
        new = keras.saving.serialize_keras_object(load(COLUMNS, weights=False, data=data))
    return {
        "backbone": backbone,
        "network": new,
        "revision": settings.revision,
        "image_size": settings.image_size,
        "head": keras.saving.serialize_keras_object(head),
        "classes": None if data.classes is None else list(data.classes),
        "target": data.target,
        "seed": settings.seed,
        "strategy": strategy,
        "options": settings.to_dict()["options"],
        **({"pairs": True} if data.input_kind is InputKind.PAIR else {}),
    }


def new_backbone(about: Mapping[str, Any]) -> keras.Model:
    """Load the backbone of a run, or make it where it is a new network for columns.

    Args:
        about: What `described` returned.
    """
    if about.get("network"):
        return randomised(keras.saving.deserialize_keras_object(about["network"]), about["seed"])
    return load(about["backbone"], image_size=about["image_size"], revision=about["revision"])


def new_model(about: Mapping[str, Any]) -> Model:
    """Make the model of a run as it is before the training.

    Args:
        about: What `described` returned.
    """
    backbone = new_backbone(about)
    if about.get("pairs"):
        backbone = PairBackbone(backbone)
    model = Model(backbone, keras.saving.deserialize_keras_object(about["head"]))
    model.set_names(about["classes"] or (), about["target"])
    return model


def strategy_of(about: Mapping[str, Any]) -> Strategy:
    """Make the strategy of a run.

    Args:
        about: What `described` returned.
    """
    return strategies.get(about["strategy"], **about["options"])


class _Column(NamedTuple):
    """A column of the rows that `PreparedRows` takes."""

    name: str
    levels: tuple[str, ...] | None  # of a category; None for numbers


class PreparedRows:
    """Encoder of rows that are prepared first, as those of the training were.

    Args:
        preparation: The steps.
        encode: Encoder of the prepared rows.
        missing: Words that mark a missing value in tables, as for `kft.data.read_table`.

    Attributes:
        missing: As the argument.
        filled: Number of missing values that were filled so far.
    """

    input_kind = InputKind.TABLE
    specials = (0, 0)

    def __init__(
        self,
        preparation: Preparation,
        encode: Any,
        missing: Sequence[str] | str | None = None,
    ):
        self.preparation, self.encode = preparation, encode
        self.missing, self.filled = missing, 0
        # For `kft.predict`, which reads columns that have levels as categories.
        self.columns = [
            _Column(name, () if category else None)
            for name, category in preparation.columns.items()
        ]

    def __call__(
        self,
        inputs: Sequence[Mapping[str, Any]],
        max_length: None = None,
        pad_lengths: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Prepare and encode rows, see `kft.data.inputs.Encoder`."""
        missing = [x is None or x != x for row in inputs for x in row.values()]
        self.filled += sum(missing)
        return self.encode(self.preparation.transform(inputs), max_length, pad_lengths, names)
