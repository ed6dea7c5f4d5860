"""The private parts of Keras that kft needs; no other module of kft touches them.

Written for Keras 3.15 and 3.16. `tests/test_keras_internals.py` names what another version lacks.
"""

import functools
import gc
import inspect
import itertools
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import keras
from keras.src.backend import AutocastScope
from keras.src.backend.common.dtypes import BIT64_TO_BIT32_DTYPE
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.masking import get_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.callbacks import monitor_callback
from keras.src.models import Functional
from keras.src.quantizers.utils import should_quantize_layer
from keras.src.saving import serialization_lib
from keras.src.utils.naming import to_snake_case

__all__ = [
    "ClippedAdamW",
    "Functional",
    "GraphModel",
    "MonitorCallback",
    "attention_settings",
    "autocast",
    "averages_of",
    "batches_seen",
    "change_class",
    "compile_arguments",
    "dequantised",
    "float64_is_kept",
    "functional_of",
    "inbound_nodes",
    "inherited_scope",
    "is_default",
    "is_quantized",
    "learning_rate_of",
    "mask_of",
    "models_in_use",
    "nodes_of",
    "optimizer_weights",
    "origin_of",
    "own_non_trainable_weights",
    "own_trainable_weights",
    "own_weights",
    "passes_filters",
    "remove_seed_generator",
    "remove_weight",
    "seed_generators",
    "set_attention_settings",
    "set_direction",
    "set_initial_epoch",
    "set_untracked",
    "sublayers_of",
    "take_own_policy",
    "to_snake_case",
    "torch_device",
    "training_of_call",
    "unlocked",
]

# Layers -------------------------------------------------------------------------------------------


def sublayers_of(
    layer: keras.Layer, recursive: bool = True, include_self: bool = True
) -> list[keras.Layer]:
    """List a layer and the layers inside it.

    Args:
        layer: Any Keras layer or model.
        recursive: Whether layers inside of those that it holds directly are listed too.
        include_self: Whether the layer itself comes first.

    Returns:
        The layers, each once.
    """
    return list(layer._flatten_layers(recursive=recursive, include_self=include_self))


def own_trainable_weights(layer: keras.Layer) -> list[keras.Variable]:
    """List the weights that a layer holds itself and made as trainable, frozen now or not."""
    return list(layer._trainable_variables)


def own_non_trainable_weights(layer: keras.Layer) -> list[keras.Variable]:
    """List the weights that a layer holds itself and that never get a gradient."""
    return list(layer._non_trainable_variables)


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """List the weights of a layer itself, without those of the layers inside it."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def seed_generators(layer: keras.Layer) -> list[keras.random.SeedGenerator]:
    """List the seed generators that a layer holds itself."""
    return list(layer._seed_generators)


@contextmanager
def unlocked(layer: keras.Layer) -> Iterator[None]:
    """Let a layer that is built take new weights and seed generators meanwhile."""
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def remove_weight(layer: keras.Layer, variable: keras.Variable) -> None:
    """Remove a weight from the layer that holds it."""
    layer._untrack_variable(variable)


def remove_seed_generator(layer: keras.Layer, generator: keras.random.SeedGenerator) -> None:
    """Remove a seed generator from the layer that holds it."""
    with unlocked(layer):
        layer._tracker.untrack(generator)


def set_untracked(layer: keras.Layer, **attributes: Any) -> None:
    """Set attributes of a layer that Keras does not track, as it tracks weights, layers and lists.

    Args:
        layer: Any Keras layer or model.
        **attributes: Their values by name.
    """
    vars(layer).update(attributes)


def change_class(layer: keras.Layer, cls: type) -> None:
    """Make a layer an instance of another class that has the same constructor arguments."""
    layer.__class__ = cls
    # What Keras's constructor notes about `call`.
    layer._call_signature = inspect.signature(layer.call)
    layer.call_signature_parameters = list(layer._call_signature.parameters)
    layer._call_has_training_arg = "training" in layer.call_signature_parameters
    layer._call_has_context_arg = {"training": layer._call_has_training_arg}


def is_quantized(layer: keras.Layer) -> bool:
    """Return whether the weights of a layer are quantized."""
    return getattr(layer, "_is_quantized", False)


def dequantised(layer: keras.layers.Dense | keras.layers.EinsumDense, dtype: str) -> Any:
    """Return the kernel of a layer that is quantized to int8 as a float tensor of its shape."""
    # Gradients with respect to scales are never asked for, and would cost as much as the kernel's.
    scale = keras.ops.stop_gradient(keras.ops.cast(layer.kernel_scale, dtype))
    if isinstance(layer, keras.layers.EinsumDense):
        scale = layer._adjust_scale_for_dequant(scale)
    return keras.ops.divide(keras.ops.cast(layer._kernel, dtype), scale)


def take_own_policy(layer: keras.Layer) -> None:
    """Give a built layer its policy of a `DTypePolicyMap` instead of the map.

    Keras's `quantize` derives a policy from the name of the layer's, which a map has not.
    """
    if isinstance(layer.dtype_policy, keras.dtype_policies.DTypePolicyMap):
        layer._dtype_policy = layer.dtype_policy[layer.path]


def passes_filters(layer: keras.Layer, filters: Any) -> bool:
    """Return whether Keras's `quantize` would quantize a layer with these `filters`."""
    return should_quantize_layer(layer, filters)


def attention_settings(layer: keras.layers.MultiHeadAttention) -> tuple[float, Any]:
    """Return the dropout and the scale of the scores of an attention layer."""
    return layer._dropout, layer._inverse_sqrt_key_dim


def set_attention_settings(
    layer: keras.layers.MultiHeadAttention, dropout: float, scale: Any
) -> None:
    """Set what `attention_settings` returns."""
    layer._dropout, layer._inverse_sqrt_key_dim = dropout, scale


# Graphs -------------------------------------------------------------------------------------------


class GraphModel(keras.Model):
    """A functional model whose subclasses can change how its graph is run."""

    def run_graph(self, run: Callable, inputs: Any, operation_fn: Callable, call_fn: Any) -> Any:
        """Run the operations of the graph.

        Keras does so to compute outputs and shapes, and to clone the model.

        Args:
            run: Keras's own function, called with the three arguments below.
            inputs: Nested tensors, or symbolic ones.
            operation_fn: Function from an operation to what is called in its place.
            call_fn: None, or a function that is called with the operation and its arguments.

        Returns:
            The outputs, nested as those of the model.
        """
        return run(inputs, operation_fn, call_fn)

    def _run_through_graph(
        self, inputs: Any, operation_fn: Any = lambda op: op, call_fn: Any = None
    ) -> Any:
        run = super()._run_through_graph
        return self.run_graph(run, inputs, operation_fn, call_fn)

    def stateless_call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as Keras does, and note whether it is in training."""
        set_untracked(self, _stateless_training=kwargs.get("training"))
        try:
            return super().stateless_call(*args, **kwargs)
        finally:
            set_untracked(self, _stateless_training=None)

    def quantized_call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model as without an int8 policy, under which its layers are quantized."""
        return self.call(*args, **kwargs)

    @property
    def in_training(self) -> bool:
        """Whether the model is being called with `training=True`."""
        # `stateless_call`, which JAX trains with, opens no context of a call.
        return True in (training_of_call(), vars(self).get("_stateless_training"))


def training_of_call() -> bool | None:
    """Return `training` of the layer call that runs; None outside of a call or if not given."""
    return getattr(get_global_attribute("current_call_ctx"), "training", None)


def functional_of(model: keras.Layer) -> keras.Layer:
    """Return the functional model inside of a built `Sequential`; any other layer is returned."""
    return getattr(model, "_functional", model)


def nodes_of(model: keras.Model, outputs_first: bool = False) -> list[Any]:
    """List the nodes of a functional model from its inputs to its outputs, or the other way."""
    by_depth = model._nodes_by_depth
    depths = sorted(by_depth, reverse=not outputs_first)
    return [node for depth in depths for node in by_depth[depth]]


def origin_of(tensor: keras.KerasTensor) -> tuple[keras.Operation, int]:
    """Return the operation that a symbolic tensor is an output of, and the output's number."""
    history = tensor._keras_history
    return history.operation, history.tensor_index


def inbound_nodes(operation: keras.Operation) -> list[Any]:
    """List the nodes in which an operation was called."""
    return list(operation._inbound_nodes)


def mask_of(tensor: Any) -> Any:
    """Return the mask that Keras carries with a tensor; None if there is none."""
    return get_keras_mask(tensor)


# Training -----------------------------------------------------------------------------------------


def inherited_scope(values: Iterable[tuple[keras.Variable, Any]]) -> keras.StatelessScope:
    """Return a scope in which variables keep their values, also those of the scope around it.

    Args:
        values: (variable, value) of variables with another value within the scope.
    """
    scope = keras.StatelessScope(values)
    if in_stateless_scope():
        scope.state_mapping = {**get_stateless_scope().state_mapping, **scope.state_mapping}
    return scope


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return the arguments that a model was compiled with."""
    return dict(model._compile_config.config)


def set_initial_epoch(model: keras.Model, epoch: int | None) -> None:
    """Set the epoch that `fit` begins with, once its callbacks have begun."""
    model._initial_epoch = epoch


def optimizer_weights(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """List the weights that an optimizer was built for; none if it is not built."""
    return list(getattr(optimizer, "_trainable_variables", None) or ())


def batches_seen(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Return the number of batches that an optimizer has seen, by which its schedule goes.

    `iterations` are the steps, of which there are fewer where gradients are accumulated.
    """
    return optimizer._iterations


class ClippedAdamW(keras.optimizers.AdamW):
    """Keras's AdamW, which clips a gradient by the method `clipped`."""

    def clipped(self, gradient: Any) -> Any:
        """Return a gradient of norm `clipnorm` at most."""
        return super()._clip_by_norm(gradient)

    def _clip_by_norm(self, values: Any, axes: Any = None) -> Any:
        return self.clipped(values)


def averages_of(
    optimizer: keras.optimizers.Adam, variable: keras.Variable
) -> tuple[keras.Variable, keras.Variable]:
    """Return Adam's averages of the gradient of a weight, and of its square."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return the learning rate of an optimizer, a variable or a schedule; None if it has none."""
    return getattr(optimizer, "_learning_rate", None)


class MonitorCallback(monitor_callback.MonitorCallback):
    """A callback that follows one value of the logs, as `EarlyStopping` and its like do."""

    def improves(self, value: float) -> bool:
        """Return whether a value is better than the best so far."""
        if self.monitor_op is None:
            self._set_monitor_op()
        return bool(self._is_improvement(value, self.best))


def set_direction(metric: keras.metrics.Metric, direction: str) -> None:
    """Set whether less ("down") or more ("up") of a metric is better, for Keras's callbacks."""
    metric._direction = direction


def is_default(method: Callable) -> bool:
    """Return whether a method of a callback is that of Keras, which does nothing."""
    return getattr(method, "_is_default", False)


_NOTED: weakref.WeakSet = weakref.WeakSet()
_NOTING = ("compile", "make_train_function", "make_test_function", "make_predict_function")


def models_in_use() -> list[keras.Model]:
    """List the models of the process that were compiled or have run `fit`, `evaluate`, `predict`.

    Keras keeps no list of them. What such a model has traced goes on computing with its layers as
    they were then, so that whoever changes a layer has to find the models that hold it.
    """
    return list(_NOTED)


def _note_models() -> None:
    """Change the methods with which a model is compiled or traced so that they note the model."""
    for name in _NOTING:
        # Where it is defined: Keras compares `compile` of a model's class with that one.
        cls = next(cls for cls in keras.Model.__mro__ if name in vars(cls))
        if not hasattr(vars(cls)[name], "notes_models"):
            setattr(cls, name, _noting(vars(cls)[name]))
    # Models that were made before kft was imported. Types are few, and objects half a million.
    objects = gc.get_objects()
    types = list(map(type, objects))
    of_models = {kind for kind in set(types) if issubclass(kind, keras.Model)}
    if of_models:
        _NOTED.update(itertools.compress(objects, map(of_models.__contains__, types)))


def _noting(method: Callable) -> Callable:
    @functools.wraps(method)
    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        _NOTED.add(self)
        return method(self, *args, **kwargs)

    vars(noting)["notes_models"] = True
    return noting


# Precision ----------------------------------------------------------------------------------------


def autocast(dtype: str | None) -> AbstractContextManager:
    """Let weights be cast to a dtype when they are read meanwhile, None for their own."""
    return AutocastScope(dtype)


@contextmanager
def float64_is_kept() -> Iterator[None]:
    """Let Keras keep float64 meanwhile, which it converts to float32 on JAX and torch."""
    before = BIT64_TO_BIT32_DTYPE["float64"]
    BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    try:
        yield
    finally:
        BIT64_TO_BIT32_DTYPE["float64"] = before


def torch_device() -> str:
    """Return the device that Keras computes on with torch."""
    from keras.src.backend.torch.core import get_device

    return get_device()


# Saving -------------------------------------------------------------------------------------------


class _TensorFlowIfImported:
    """TensorFlow for Keras's serialisation, which asks whether an object is of its classes.

    Keras imports it for that on any backend, which takes seconds. As long as nobody else has
    imported it, no object is of its classes.
    """

    @property
    def available(self) -> bool:
        return hasattr(sys.modules.get("tensorflow"), "TypeSpec")

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.modules["tensorflow"], name)


serialization_lib.tf = _TensorFlowIfImported()
_note_models()
