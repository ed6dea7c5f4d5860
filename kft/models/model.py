"""A model: a backbone and a head in one functional Keras graph."""

import keras
import numpy as np

from kft.backbones.copies import (
    Copied,
    adapters_of,
    flags,
    marked,
    names_of,
    restore,
)
from kft.keras_internals import sublayers_of
from kft.lora.owned import join
from kft.models.graphs import Learner, flat, node_of
from kft.params import find, layers, weights
from kft.params.paths import listed


@keras.saving.register_keras_serializable("kft")
class Model(Learner):
    """A backbone with a head on top; everything else is Keras.

    The layers of both stand side by side in one flat graph, so that a single block can be
    frozen, looked at or cut off. Frozen layers run in inference mode, see `Learner`.

    `copy.deepcopy(model)` makes another one that shares nothing with it. `clone_model` of Keras
    does too, with new weights, but a plain functional model without `backbone` and `encode`.

    Args:
        backbone: a kft backbone, for example of `kft.load`, or any functional Keras model. Its
            layers are shared, not copied.
        head: a layer that is called with the backbone's output and, where the backbone has one,
            its `residue_mask`, for example `kft.heads.Regression()`.

    Attributes:
        backbone, head: the two parts.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Classification(2))
        >>> kft.predict(model, ["MKTAYI", "GSS"]).shape
        (2, 2)
    """

    def __init__(self, backbone, head, name="model", **kwargs):
        mask = getattr(backbone, "residue_mask", None)
        inputs = [backbone.output] if mask is None else [backbone.output, mask]
        names = {layer.name for layer in backbone.layers}
        if getattr(head, "name", None) in names:
            raise ValueError(
                f"The backbone has a layer named {head.name!r}, as the head is: give the head "
                f"another name, for example name='new_head'."
            )
        pooling = getattr(head, "pooling", None)
        if pooling is not None and pooling.kind != "attention" and pooling.name not in names:
            # A node of its own: with the backbone frozen, the head learns from vectors alone.
            inputs = [pooling(*inputs)]
        super().__init__(backbone.input, head(*inputs), name=name, **kwargs)
        # Not as a tracked attribute: its layers are already layers of this graph, and would be
        # listed twice.
        vars(self)["backbone"] = backbone
        self.head = head
        join(self)  # the backbone may have adapters, and each has a head of its own

    keeps_head = True  # its config tells of adapters in the head, whatever that is made of

    @property
    def encode(self):
        """The backbone's `encode`; None where it takes arrays as they are."""
        return getattr(self.backbone, "encode", None)

    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Keras's `predict`. Answers to batches of `kft.batches` come in the records' order."""
        chosen = getattr(x, "chosen", None)  # of `kft.batches`; planned anew afterwards
        answers = super().predict(x, batch_size, verbose, steps, callbacks)
        if chosen is None:
            return answers
        order = np.argsort(np.concatenate(chosen[:steps]))
        return keras.tree.map_structure(lambda answer: answer[order], answers)

    def _in_head(self):
        """{path: layer} of the head, "" for itself."""
        return {"": self.head, **layers(self.head)}

    def get_config(self):
        return {
            "name": self.name,
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "head": keras.saving.serialize_keras_object(self.head),
            "exchanged": adapters_of(self._in_head()),
            **flags(self),
            **({} if isinstance(self.backbone, Copied) else names_of(self)),
        }

    def get_compile_config(self):
        config = super().get_compile_config()
        # Keras writes down what "auto" means on the present backend. On torch, the True of the
        # others would trace for a minute.
        return config and {**config, "jit_compile": "auto"}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            part: keras.saving.deserialize_keras_object(config[part], custom_objects)
            for part in ("backbone", "head")
        }
        model = cls(**parts, name=config["name"])
        restore(model._in_head(), config.get("exchanged", {}))
        # A model is frozen as it was, or the optimizer's state would not fit it.
        if "frozen" in config:  # an older file, by Keras's paths, which may count on in a process
            for layer in sublayers_of(model, include_self=False):
                layer.trainable = layer.path not in config["frozen"]
        return marked(model, config)


def replace_head(model, head, features=None):
    """Chops a model's head and puts another one on its backbone.

    Layers are shared, so the backbone keeps what it has learned, and what is frozen stays frozen.
    kft's heads start from zero weights (Dosovitskiy et al. 2021, section 3.2).

    Args:
        model: a `kft.Model`, or any functional Keras model.
        head: a layer that is called with the features, for example `kft.heads.Classification(10)`.
        features: pattern of the one layer whose output the head is to take, see `kft.freeze`.
            None takes what the last layer with weights takes, which is to be chopped with all
            that follows it. A `kft.Model` knows its head, and takes None alone.

    Returns:
        A `kft.Model` that is not compiled.

    Raises:
        TypeError: a model that is not functional.
        ValueError: the pattern matches no layer, or several, or is given with a `kft.Model`; a
            model without a layer to chop; a head named as a layer of the backbone.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> kft.replace_head(model, kft.heads.Classification(10)).output_shape
        (None, 10)
    """
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


def _features(model, graph, pattern):
    if pattern is not None:
        found = [layer for path, layer in find(model, pattern) if layer in graph.layers]
        if len(found) != 1:
            raise ValueError(
                f"features must match one layer of the graph, received {pattern!r}, which matches "
                f"{len(found)}: {', '.join(layer.name for layer in found)}. The layers are "
                f"{', '.join(layer.name for layer in graph.layers)}."
            )
        return node_of(graph, found[0]).output_tensors[0]
    weighted = [layer for layer in graph.layers if layer.weights]
    if not weighted:
        raise ValueError(f"{model.name} has no layer with weights that could be its head.")
    return node_of(graph, weighted[-1]).input_tensors[0]


def load_saved(path):
    """Loads what `model.save` wrote, in Keras's safe mode, and looks at its weights.

    Args:
        path: of a `.keras` file.

    Returns:
        The model.

    Raises:
        ValueError: the file is none of Keras's, or holds weights that are no finite numbers.

    Example:
        `load_saved("amp.keras")`
    """
    model = keras.saving.load_model(path)
    found = [
        (weight.path, keras.ops.convert_to_numpy(weight.variable)) for weight in weights(model)
    ]
    wrong = [name for name, x in found if not np.isfinite(x.astype("float32")).all()]
    if wrong:
        raise ValueError(
            f"{path}: {listed(wrong, 3)} hold values that are no finite numbers: the file is of a "
            f"training that diverged. Take an earlier one, or train anew with a smaller "
            f"learning rate."
        )
    return model
