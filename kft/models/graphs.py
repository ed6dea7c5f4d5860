"""Functional graphs of layers: `Learner`, whose frozen layers run in inference mode; flattening."""

import os
import warnings
from typing import Any

import keras

from kft.backbones.batch_order import OrderedFit
from kft.backbones.copies import (
    adapters_of,
    flags,
    lost,
    marked,
    names_of,
    restore,
    without_flags,
)
from kft.keras_internals import functional_of, nodes_of, seed_generators, sublayers_of
from kft.messages import listed
from kft.models.exporting import export
from kft.params import is_frozen, layers


@keras.saving.register_keras_serializable("kft")
class Learner(OrderedFit):
    """A functional Keras model whose frozen layers run in inference mode.

    Keras does so only for BatchNormalization. Here a layer of the graph in which everything is
    frozen, see `kft.params.is_frozen`, is called with `training=False`: its dropout is inactive,
    and its output can be computed once.
    """

    def run_graph(self, run: Any, inputs: Any, operation_fn: Any, call_fn: Any) -> Any:
        dropping = []

        def in_mode(operation: keras.Operation) -> Any:
            call = operation_fn(operation)
            # Keras computes shapes and clones models with this method, too.
            cloned = isinstance(call, keras.Operation)
            if (
                cloned
                and call is not operation
                and _inactive(operation)
                and _has_dropout(operation)
            ):
                dropping.append(operation.name)
            if (
                call_fn
                or cloned
                or call == operation.compute_output_spec
                or not _inactive(operation)
            ):
                return call
            return lambda *args, **kwargs: operation(*args, **{**kwargs, "training": False})

        outputs = super().run_graph(run, inputs, in_mode, call_fn)
        if dropping and "__init__" in vars(type(self)):
            warnings.warn(
                f"The clone of {self.name} is a plain functional model, in which the dropout of "
                f"{listed(dict.fromkeys(dropping), 3)} is active in training although the layers "
                f"are frozen. copy.deepcopy(model) makes a {type(self).__name__}, where it is not.",
                stacklevel=4,
            )
        return outputs

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write the model as a file that runs without Keras, see `kft.models.export`."""
        export(self, filepath, format, verbose, input_signature, **kwargs)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Return None: the layers inside pass Keras's masks to each other."""
        return

    keeps_adapters = True  # its config includes the adapters of all its layers

    def get_config(self) -> dict[str, Any]:
        adapters = adapters_of(layers(self))
        adapted = {"exchanged": adapters} if adapters else {}
        return {**super().get_config(), **adapted, **flags(self), **names_of(self)}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> keras.Model:
        plain = {k: v for k, v in without_flags(config).items() if k != "exchanged"}
        model = super().from_config(plain, custom_objects)
        model = marked(model, {"inner_names": config.get("inner_names", ())})
        restore(layers(model), config.get("exchanged", {}))
        by_name = {layer.name: layer for layer in model.layers}
        for layer in model.layers:
            if hasattr(layer, "borrow"):
                if layer.lender not in by_name:
                    raise lost(layer.name, layer.lender, model.name)
                layer.borrow(by_name[layer.lender])
        return marked(model, config)


def _inactive(operation: keras.Operation) -> bool:
    """Return whether a layer of the graph is frozen and runs in inference mode."""
    # Augmentation is part of the data: it stays active.
    return (
        isinstance(operation, keras.Layer)
        and not isinstance(operation, AUGMENTATION)
        and is_frozen(operation)
    )


def _has_dropout(layer: keras.Layer) -> bool:
    return any(seed_generators(x) and getattr(x, "rate", None) for x in sublayers_of(layer))


# The base class of Keras's augmentation layers, which Keras does not export.
AUGMENTATION = keras.layers.RandomBrightness.__base__


@keras.saving.register_keras_serializable("kft", name="_WithMask")  # its name in earlier files
class WithMask(keras.layers.Layer):
    """A layer that gives features a Keras mask: [features, mask] -> features."""

    def call(self, pair: Any) -> Any:
        """Return the features."""
        return pair[0]

    def compute_mask(self, pair: Any, previous_mask: Any) -> Any:
        """Return the mask."""
        return pair[1]

    def compute_output_spec(self, pair: Any) -> Any:
        """Return the shape and dtype of the features."""
        return keras.KerasTensor(pair[0].shape, dtype=pair[0].dtype)


def flat(model: keras.Model) -> Learner:
    """Return a functional model as a `Learner` in which no functional model is a layer.

    Args:
        model: A functional or Sequential Keras model.

    Returns:
        A model that shares the layers, or the model itself if it is flat already.

    Raises:
        TypeError: The model is not functional.
    """
    model = _graph(model)
    if model is None:
        raise TypeError(
            "model must be a functional or Sequential Keras model that is built: only these have a "
            "graph of layers. Build it from keras.Input."
        )
    if isinstance(model, Learner) and not any(_graph(layer) for layer in model.layers):
        return model
    tensors = {id(x): x for x in model.inputs}
    run_again(model, tensors)
    outputs = keras.tree.map_structure(lambda x: tensors[id(x)], model.output)
    return Learner(model.input, outputs, name=model.name)


def _graph(layer: keras.Layer) -> keras.Model | None:
    """Return the layer, or the model inside a Sequential, if it only runs its graph; else None."""
    layer = functional_of(layer)
    runs = getattr(type(layer), "call", None)
    return layer if getattr(runs, "__qualname__", "") == "Functional.call" else None


def run_again(model: keras.Model, tensors: dict[int, Any]) -> None:
    """Call every layer of a graph once more, symbolically; functional models are flattened.

    Args:
        model: A functional model.
        tensors: {id of an input of the model: the tensor in its place}, to which the outputs of
            all nodes are added.
    """
    for node in nodes_of(model):
        if node.is_input:
            continue
        args, kwargs = node.arguments.fill_in(tensors)
        inner = _graph(node.operation)
        if inner is None:
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        else:
            inside = dict(zip(map(id, inner.inputs), keras.tree.flatten(args), strict=True))
            run_again(inner, inside)
            outputs = [inside[id(x)] for x in inner.outputs]
        tensors |= zip(map(id, node.outputs), outputs, strict=True)


def node_of(graph: keras.Model, layer: keras.Layer) -> Any:
    """Return the first node of a functional model that calls a layer.

    Args:
        graph: A functional Keras model.
        layer: A layer of it, which may have nodes in other models.

    Returns:
        A Keras node: `input_tensors` and `output_tensors` are those of this model.
    """
    return next(node for node in nodes_of(graph, outputs_first=True) if node.operation is layer)
