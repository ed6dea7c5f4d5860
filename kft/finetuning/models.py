"""The model and the strategy of a run, from its settings and from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from kft.backbones import load
from kft.data import Dataset
from kft.data.inputs import InputKind
from kft.finetuning.settings import IMAGES, PROTEINS, Settings
from kft.models import Model, PairBackbone, heads
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
    of_proteins = data.input_kind in (InputKind.SEQUENCE, InputKind.PAIR)
    return settings.backbone or (PROTEINS if of_proteins else IMAGES)


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
    strategies.get(settings.strategy, **settings.options)  # now, not after the backbone is loaded
    # Often a few positions of a protein are decisive, which have little weight in the mean.
    pooling = "attention" if data.input_kind is InputKind.SEQUENCE else "mean"
    head = heads.for_data(data, pooling=pooling)
    return {
        "backbone": backbone_name(settings, data),
        "revision": settings.revision,
        "image_size": settings.image_size,
        "head": keras.saving.serialize_keras_object(head),
        "classes": None if data.classes is None else list(data.classes),
        "target": data.target,
        "seed": settings.seed,
        "strategy": settings.strategy,
        "options": dict(settings.options),
        **({"pairs": True} if data.input_kind is InputKind.PAIR else {}),
    }


def new_model(about: Mapping[str, Any]) -> Model:
    """Make the model of a run as it is before the training.

    Args:
        about: What `described` returned.
    """
    backbone = load(about["backbone"], image_size=about["image_size"], revision=about["revision"])
    if about.get("pairs"):
        backbone = PairBackbone(backbone)
    keras.utils.set_random_seed(about["seed"])  # of the new weights of the head
    model = Model(backbone, keras.saving.deserialize_keras_object(about["head"]))
    model.set_names(about["classes"] or (), about["target"])
    return model


def strategy_of(about: Mapping[str, Any]) -> Strategy:
    """Make the strategy of a run.

    Args:
        about: What `described` returned.
    """
    return strategies.get(about["strategy"], **about["options"])
