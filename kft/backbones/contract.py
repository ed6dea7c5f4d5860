"""Attributes of backbones, so that no other package has to distinguish kinds of backbones.

A backbone is a functional Keras model. Everything below is optional: the functions of this module
give the default for a model without the attribute, such as a plain Keras model or one of keras-hub.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np


@dataclass(frozen=True)
class ModuleNames:
    """What the layers of a model are called in the model of Hugging Face that PEFT wraps.

    Attributes:
        names: {path of a layer: its module without prefix}; a tuple of modules where the layer is
            several of them in one, their outputs side by side.
        older: {module: path} of names that modules had in earlier versions.
        prefixes: Possible prefixes of the names of modules in files, such as "esm.".
        prefix: Prefix of the names in the model with this head.
        head: {path of a weight of the head: its key} for a head that Hugging Face has too.
        task: PEFT's task type of this head; None if it has no such type.
        advice: For errors: which head of kft is the one that files of this architecture have.
        other_parts: Modules of Hugging Face's model through which the output of the backbone does
            not pass; their tensors are skipped.
    """

    names: Mapping[str, str | tuple[str, ...]]
    older: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    prefix: str = ""
    head: Mapping[str, str] = field(default_factory=dict)
    task: str | None = None
    advice: str | None = None
    other_parts: tuple[str, ...] = ()


class Backbone(Protocol):
    """The attributes and methods of a backbone.

    Attributes:
        stages: Layers in order, each its own node of the graph. `kft.strategies` trains the last
            ones first, and `kft.split` cuts between them.
        width: Size D of the output's last axis.
        encode: Function from a list of raw inputs (sequences, images) to the model's input.
        lora_targets: Patterns of the layers that `kft.add_lora` adapts by default.
        objectives: Names of the ways to pre-train it: "masked_language" for a backbone with
            `masked_lm`, "masked_autoencoding" for one whose first stage makes patches.
        keeps_adapters: Whether its config holds the adapters that are in it.
        published_heads: Layers that were published with the backbone and are not part of its graph,
            such as a language-model head. `kft.backbones.randomised` draws them too.

    A mask of the positions that heads use, symbolic bool (B, L), is an attribute too where they do
    not use all. A backbone for masked autoencoding also has a method `decoder_block`.
    """

    stages: Sequence[keras.Layer]
    width: int
    encode: Callable[..., dict[str, np.ndarray]]
    lora_targets: Sequence[Any]
    objectives: tuple[str, ...]
    keeps_adapters: bool
    published_heads: Sequence[keras.Layer]

    def fan_in(self, variable: keras.Variable) -> float | None:
        """Return how many numbers one output of a weight is summed over, see `fan_in`."""

    def module_names(
        self, paths: Iterable[str], head: keras.Layer | None, head_path: str
    ) -> ModuleNames:
        """Return the names of Hugging Face's modules.

        Args:
            paths: Paths of all layers of the model, as `kft.params.layers` has them.
            head: The head on the backbone, None without one.
            head_path: Path of the head.
        """

    def to_hugging_face(self, dtype: str | None, **options: Any) -> tuple[dict, dict]:
        """Return the content of config.json and {name: array}, for `kft.backbones.save`."""


# Defaults -----------------------------------------------------------------------------------------

QUERY_AND_VALUE = ("query", "value")

# {name of a class that is not of kft: function as `Backbone.module_names`}
FOREIGN_MODULE_NAMES: dict[str, Callable[..., ModuleNames]] = {}


def lora_targets(model: keras.Model) -> Sequence[Any]:
    """Return the patterns of the layers that are adapted by default, query and value if unsaid."""
    return getattr(_backbone_of(model), "lora_targets", QUERY_AND_VALUE)


def keeps_adapters(model: keras.Model) -> bool:
    """Return whether the config of a model's backbone, or of the model, holds its adapters."""
    return getattr(_backbone_of(model), "keeps_adapters", False)


def objectives(backbone: keras.Model) -> tuple[str, ...]:
    """Return the names of the ways to pre-train a backbone, none if unsaid."""
    return getattr(backbone, "objectives", ())


def published_heads(backbone: keras.Model) -> list[keras.Layer]:
    """Return the layers that were published with a backbone beyond its graph, none if unsaid."""
    return list(getattr(backbone, "published_heads", ()))


def module_names(
    model: keras.Model, paths: Sequence[str], head: keras.Layer | None, head_path: str
) -> ModuleNames:
    """Return what Hugging Face calls the layers of a model, by default their own paths."""
    backbone = _backbone_of(model)
    if hasattr(backbone, "module_names"):
        return backbone.module_names(paths, head, head_path)
    foreign = FOREIGN_MODULE_NAMES.get(type(backbone).__name__)
    if foreign is not None:
        return foreign(paths, head, head_path)
    return ModuleNames({path: path.replace("/", ".") for path in paths})


def fan_in(backbone: keras.Model, variable: keras.Variable) -> float | None:
    """Return how many numbers one output of a weight is summed over.

    Args:
        backbone: The model that the weight belongs to.
        variable: The weight.

    Returns:
        The rows of a dense kernel, half of height x width x channels of a convolution, D of a
        query, all heads of an attention's output, the columns of a table; None for weights that
        are not drawn, such as those of a normalisation.
    """
    own = getattr(backbone, "fan_in", default_fan_in)
    return own(variable)


def default_fan_in(variable: keras.Variable) -> float | None:
    """Return the fan-in of the weights of Keras's own layers, see `fan_in`."""
    shape = tuple(variable.shape)
    if variable.name == "embeddings":
        return shape[1]
    if variable.name != "kernel":
        return None
    if len(shape) == 4:
        # After convolutions come rectifiers, which set half of the activations to zero (He et al.
        # 2015); one that looks at each channel alone is (h, w, C, 1).
        depthwise = shape[-1] == 1 and shape[2] > 1
        return float(np.prod(shape[: 2 if depthwise else 3]) / 2)
    if len(shape) == 3 and not variable.path.endswith("attention_output/kernel"):
        return shape[0]  # (D, H, d) of a query
    return int(np.prod(shape[:-1]))  # (inputs, outputs), or (H, d, D) of an attention's output


def _backbone_of(model: keras.Model) -> keras.Model:
    return getattr(model, "backbone", model)
