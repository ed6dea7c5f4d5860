"""Functional graphs of layers: `Learner`, whose frozen layers run in inference mode; flattening."""

import warnings

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
from kft.params import is_frozen, layers
from kft.params.paths import listed


@keras.saving.register_keras_serializable("kft")
class Learner(OrderedFit):
    """A functional Keras model whose frozen layers run in inference mode.

    Keras does so for BatchNormalization alone. Here a whole layer of the graph, frozen as
    `kft.params.is_frozen` says, is called with `training=False`: its dropout rests, and what it
    answers can be computed once.
    """

    def run_graph(self, run, inputs, operation_fn, call_fn):
        wakes = []

        def in_mode(operation):
            call = operation_fn(operation)
            # Keras asks for shapes through here, too, and clones models.
            cloned = isinstance(call, keras.Operation)
            if cloned and call is not operation and _rests(operation) and _drops(operation):
                wakes.append(operation.name)
            if call_fn or cloned or call == operation.compute_output_spec or not _rests(operation):
                return call
            return lambda *args, **kwargs: operation(*args, **{**kwargs, "training": False})

        outputs = super().run_graph(run, inputs, in_mode, call_fn)
        if wakes and "__init__" in vars(type(self)):
            warnings.warn(
                f"The clone of {self.name} is a plain functional model, in which the dropout of "
                f"{listed(dict.fromkeys(wakes), 3)} is active in training although the layers "
                f"are frozen. copy.deepcopy(model) makes a {type(self).__name__}, where it is not.",
                stacklevel=4,
            )
        return outputs

    def compute_mask(self, inputs, previous_mask=None):
        """None: the layers inside hand on Keras's masks themselves."""
        return

    keeps_adapters = True  # its config tells of the adapters in it, whosever layers they are

    def get_config(self):
        found = adapters_of(layers(self))
        adapted = {"exchanged": found} if found else {}
        return {**super().get_config(), **adapted, **flags(self), **names_of(self)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        about = {k: v for k, v in without_flags(config).items() if k != "exchanged"}
        model = super().from_config(about, custom_objects)
        model = marked(model, {"inner_names": config.get("inner_names", ())})
        restore(layers(model), config.get("exchanged", {}))
        by_name = {layer.name: layer for layer in model.layers}
        for layer in model.layers:
            if hasattr(layer, "borrow"):
                if layer.lender not in by_name:
                    raise lost(layer.name, layer.lender, model.name)
                layer.borrow(by_name[layer.lender])
        return marked(model, config)


def _rests(operation):
    # Augmentation is part of the data: it goes on.
    return (
        isinstance(operation, keras.Layer)
        and not isinstance(operation, AUGMENTATION)
        and is_frozen(operation)
    )


def _drops(layer):
    return any(seed_generators(x) and getattr(x, "rate", 0) for x in sublayers_of(layer))


# The class that Keras's layers for images share, which it does not export.
AUGMENTATION = keras.layers.RandomBrightness.__base__


def flat(model):
    """A functional model as a `Learner` in which no functional model is a layer.

    Args:
        model: a functional or Sequential Keras model.

    Returns:
        A `Learner` that shares the layers, or the model itself where it is one already.

    Raises:
        TypeError: a model that is not functional.
    """
    model = _graph(model)
    if model is None:
        raise TypeError(
            "model must be a functional Keras model that is built: the layers of any other form "
            "no graph that could be cut."
        )
    if isinstance(model, Learner) and not any(_graph(layer) for layer in model.layers):
        return model
    tensors = {id(x): x for x in model.inputs}
    _run_anew(model, tensors)
    outputs = keras.tree.map_structure(lambda x: tensors[id(x)], model.output)
    return Learner(model.input, outputs, name=model.name)


def _graph(layer):
    """The layer itself, or the model inside of a Sequential, if its graph says all it does."""
    layer = functional_of(layer)
    runs = getattr(type(layer), "call", None)
    return layer if getattr(runs, "__qualname__", "") == "Functional.call" else None


def _run_anew(model, tensors):
    """Calls every layer of the graph once more, symbolically; functional ones are opened."""
    for node in nodes_of(model):
        if node.is_input:
            continue
        args, kwargs = node.arguments.fill_in(tensors)
        inner = _graph(node.operation)
        if inner is None:
            outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        else:
            inside = dict(zip(map(id, inner.inputs), keras.tree.flatten(args), strict=True))
            _run_anew(inner, inside)
            outputs = [inside[id(x)] for x in inner.outputs]
        tensors |= zip(map(id, node.outputs), outputs, strict=True)


def node_of(graph, layer):
    """The first node of a functional model that calls a layer; the layer itself may have others.

    Args:
        graph: a functional Keras model.
        layer: a layer of it.

    Returns:
        A Keras node: `input_tensors` and `output_tensors` are those of this model.
    """
    return next(node for node in nodes_of(graph, outputs_first=True) if node.operation is layer)
