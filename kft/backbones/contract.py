"""Attributes of backbones, so that no other package has to distinguish kinds of backbones.

`base.Backbone` lists them. Everything is optional: the functions of this module give the default
for a model without the attribute, such as a plain Keras model or one of keras-hub.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kft.keras_internals import Functional


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
    return default_module_names(paths)


def default_module_names(paths: Iterable[str]) -> ModuleNames:
    """Return the names of modules that are the paths of their layers."""
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


def check_no_prompts(model: keras.Model, called: str = "model") -> None:
    """Check that a model is none that takes prompts, which is a model by itself.

    Args:
        model: The model.
        called: Name of the argument, for the error.

    Raises:
        ValueError: It takes prompts.
    """
    if hasattr(model, "head_layers"):
        raise ValueError(
            f"{called} must not be a model that takes prompts, received {model.name}: it is a "
            f"model by itself, to which kft.segment gives images and prompts, and which kft.fit "
            f"trains as it is."
        )


def check_features(model: keras.Layer, called: str = "backbone") -> None:
    """Check that a model is a graph of layers with one output, the features that a head takes.

    Args:
        model: A Keras model or layer.
        called: Name of the argument, for the error.

    Raises:
        TypeError: It is no functional model.
        ValueError: Its output is not one tensor.
    """
    if not isinstance(model, Functional):
        remedy = (
            "once it is built, give keras.Model(model.inputs, model.outputs[0])"
            if isinstance(model, keras.Sequential)
            else "connect its layers from keras.Input to an output, and give keras.Model(input, "
            "output)"
        )
        raise TypeError(
            f"{called} must be a functional Keras model, such as from kft.load, received a "
            f"{type(model).__name__}: {remedy}."
        )
    if not isinstance(model.output, keras.KerasTensor):
        raise ValueError(
            f"{called} must have one tensor as output, the features, received {model.name} with a "
            f"{type(model.output).__name__} of {len(model.outputs)}: give keras.Model of its "
            f"inputs and one of its outputs, keras.Model(model.inputs, model.outputs[0])."
        )


def _backbone_of(model: keras.Model) -> keras.Model:
    return getattr(model, "backbone", model)
