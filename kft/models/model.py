"""A model: a backbone and a head in one functional Keras graph."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.arguments import check_instance, check_path
from kft.backbones.copies import (
    Copied,
    adapters_of,
    flags,
    marked,
    names_of,
    restore,
)
from kft.files import check_file
from kft.keras_internals import sublayers_of
from kft.lora.owned import join
from kft.models.graphs import Learner, flat, node_of
from kft.models.heads import Pooling
from kft.params import Pattern, find, layers, weights
from kft.params.paths import check_model, listed


@keras.saving.register_keras_serializable("kft")
class Model(Learner):
    """Backbone with a head, as one functional Keras model.

    The layers of both are in one flat graph, so that a single block can be frozen, inspected or cut
    off. Frozen layers run in inference mode, see `Learner`.

    `copy.deepcopy(model)` makes a copy that shares nothing with the model.
    `keras.models.clone_model(model)` makes a plain functional model with new weights, without
    `backbone` and `encode`.

    Args:
        backbone: A kft backbone, for example from `kft.load`, or any functional Keras model. Its
            layers are shared, not copied.
        head: A layer that is called with the backbone's output and, if the backbone has one, its
            `position_mask`, for example `kft.heads.Regression()`.
        name: Name of the Keras model.

    Attributes:
        backbone: The backbone.
        head: The head.

    Raises:
        ValueError: The backbone has a layer with the name of the head.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Classification(2))
        >>> kft.predict(model, ["MKTAYI", "GSS"]).shape
        (2, 2)
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: keras.layers.Layer,
        name: str = "model",
        **kwargs: Any,
    ):
        check_instance("backbone", backbone, keras.Model, "a Keras model, such as from kft.load")
        check_instance("head", head, keras.layers.Layer, "a Keras layer, such as of kft.heads")
        check_instance("name", name, str, "a string")
        mask = getattr(backbone, "position_mask", None)
        inputs = [backbone.output] if mask is None else [backbone.output, mask]
        names = {layer.name for layer in backbone.layers}
        if getattr(head, "name", None) in names:
            raise ValueError(
                f"The backbone has a layer named {head.name!r}, as the head has: give the head "
                f"another name, for example name='new_head'."
            )
        pooling = getattr(head, "pooling", None)
        if isinstance(pooling, Pooling) and not (
            pooling.kind == "attention" or pooling.name in names
        ):
            # A separate node: with the backbone frozen, only vectors are kept for the head.
            inputs = [pooling(*inputs)]
        super().__init__(backbone.input, head(*inputs), name=name, **kwargs)
        # Not a tracked attribute: its layers are in this graph already, and would be listed twice.
        self.__dict__["backbone"] = backbone
        self.head = head
        join(self)  # the backbone may have adapters, each with a head

    keeps_head = True  # its config includes adapters in the head, whatever layers that has

    @property
    def encode(self) -> Any:
        """The backbone's `encode`; None if it takes arrays as they are."""
        return getattr(self.backbone, "encode", None)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
    ) -> Any:
        """Run Keras's `predict`; for `kft.batches`, return rows in the order of the records."""
        chosen = getattr(x, "chosen", None)  # of `kft.batches`, which plan the next epoch later
        outputs = super().predict(x, batch_size, verbose, steps, callbacks)
        if chosen is None:
            return outputs
        order = np.argsort(np.concatenate(chosen[:steps]))
        return keras.tree.map_structure(lambda rows: rows[order], outputs)

    def _in_head(self) -> dict[str, keras.Layer]:
        """Return {path: layer} of the head, with "" for the head itself."""
        return {"": self.head, **layers(self.head)}

    def get_config(self) -> dict:
        """Return the config from which the model is rebuilt."""
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            "exchanged": adapters_of(self._in_head()),
            **flags(self),
            **({} if isinstance(self.backbone, Copied) else names_of(self)),
        }

    def get_compile_config(self) -> dict:
        """Return the config from which the model is compiled."""
        config = super().get_compile_config()
        # Keras stores what "auto" means on this backend. On torch, the True of the others would
        # trace for a minute.
        return config and {**config, "jit_compile": "auto"}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.Model:
        """Rebuild a model from its config."""
        parts = {
            part: keras.saving.deserialize_keras_object(config[part], custom_objects)
            for part in ("backbone", "head")
        }
        model = cls(**parts, name=config["name"])
        restore(model._in_head(), config.get("exchanged", {}))
        # Layers are frozen as they were, since the optimizer's state must fit the model.
        if "frozen" in config:  # an older file, with Keras's paths, whose numbers may differ
            for layer in sublayers_of(model, include_self=False):
                layer.trainable = layer.path not in config["frozen"]
        return marked(model, config)


def replace_head(model: keras.Model, head: keras.layers.Layer, features: Any = None) -> Model:
    """Remove a model's head and put another one on its backbone.

    Layers are shared, so the backbone keeps its trained weights, and frozen layers stay frozen.
    kft's heads start from zero weights (Dosovitskiy et al. 2021, section 3.2).

    Args:
        model: A `kft.Model`, or any functional Keras model.
        head: A layer that is called with the features, for example `kft.heads.Classification(10)`.
        features: Pattern of the one layer whose output the head is called with, see `kft.freeze`.
            None takes the input of the last layer with weights, which is removed with all that
            follows it. For a `kft.Model` only None is allowed, since its head is known.

    Returns:
        The new model, not compiled.

    Raises:
        TypeError: The model is not functional.
        ValueError: The pattern matches no layer or several, or is given with a `kft.Model`; the
            model has no layer to remove; or the backbone has a layer with the head's name.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> kft.replace_head(model, kft.heads.Classification(10)).output_shape
        (None, 10)
    """
    check_model(model)
    if isinstance(model, Model):
        if features is not None:
            raise ValueError(
                f"features is for plain Keras models, received {features!r} with a kft.Model, "
                f"whose heads take the output of its backbone."
            )
        return Model(model.backbone, head, name=model.name)
    graph = flat(model)
    tensor = _features(model, graph, features)
    backbone = keras.Model(graph.input, tensor, name=f"{model.name}_backbone")
    return Model(backbone, head, name=model.name)


def _features(model: keras.Model, graph: keras.Model, pattern: Pattern | None) -> keras.KerasTensor:
    if pattern is not None:
        matching = [layer for path, layer in find(model, pattern) if layer in graph.layers]
        if len(matching) != 1:
            raise ValueError(
                f"features must match one layer of the graph, received {pattern!r}, which matches "
                f"{len(matching)}: {', '.join(layer.name for layer in matching)}. The layers are "
                f"{', '.join(layer.name for layer in graph.layers)}."
            )
        return node_of(graph, matching[0]).output_tensors[0]
    weighted = [layer for layer in graph.layers if layer.weights]
    if not weighted:
        raise ValueError(f"{model.name} has no layer with weights that could be its head.")
    return node_of(graph, weighted[-1]).input_tensors[0]


def load_saved(path: str | Path) -> keras.Model:
    """Load a model from a `.keras` file, in Keras's safe mode, and check its weights.

    Args:
        path: Path of a file that `model.save` wrote.

    Returns:
        The model.

    Raises:
        ValueError: The file was not written by Keras, or a weight is NaN or infinite.

    Example:
        >>> model = load_saved("amp.keras")  # doctest: +SKIP
    """
    if not zipfile.is_zipfile(check_file(check_path("path", path), "path")):
        raise ValueError(
            f"{path} is not a .keras file, which model.save writes: it is damaged, cut off, or of "
            f"another kind."
        )
    try:
        model = keras.saving.load_model(path)
    except RecursionError:
        raise ValueError(f"{path} is damaged: its configuration is nested too deeply.") from None
    arrays = [
        (weight.path, keras.ops.convert_to_numpy(weight.variable)) for weight in weights(model)
    ]
    wrong = [name for name, x in arrays if not np.isfinite(x.astype("float32")).all()]
    if wrong:
        raise ValueError(
            f"{path}: {listed(wrong, 3)} hold NaN or infinity: the training that wrote the file "
            f"has diverged. Use an earlier file, or train again with a smaller learning rate."
        )
    return model
