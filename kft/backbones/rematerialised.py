"""Rematerialisation, or gradient checkpointing: blocks that are computed again, not kept.

The gradient needs what every layer inside a block has computed. Of a block that is marked here,
training keeps the inputs alone, and computes the rest again when the gradient comes to the block:
about a third more time, and the memory of one block instead of all (Chen et al. 2016, "Training
deep nets with sublinear memory cost", arXiv:1604.06174, section 4).

Keras's own `keras.RematScope` has to be open while a layer is made, calls layers with keyword
arguments, which JAX and TensorFlow refuse, and draws other numbers for dropout the second time.
Here layers are marked at any time; `keras.remat` is called with the tensors that have a gradient
alone, and random states and statistics are those of the first time. On JAX on a processor, where
`keras.remat` saves no memory, `_in_branches` takes its place.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from kft.backbones.attention import on_processor
from kft.keras_internals import (
    autocast,
    inherited_scope,
    is_quantized,
    mask_of,
    own_non_trainable_weights,
    seed_generators,
    set_untracked,
    sublayers_of,
)


def blocks_of(model: keras.Model) -> list[keras.Layer]:
    """List the layers of a model's graph that are made of others, such as blocks of a transformer.

    Args:
        model: A backbone, or a model with one; without `stages` all layers of its graph count.

    Returns:
        The blocks in order; empty if there are none.
    """
    backbone: Any = getattr(model, "backbone", model)
    stages = getattr(backbone, "stages", None) or backbone.layers
    return [x for x in stages if sum(bool(part.weights) for part in _parts(x)) > 1]


def _parts(layer: keras.Layer) -> list[keras.Layer]:
    return sublayers_of(layer, include_self=False)


def is_marked(layer: keras.Operation) -> bool:
    """Return whether a layer is computed again for the gradient."""
    return getattr(layer, "_rematerialised", False)


def mark(layer: keras.Layer, enabled: bool = True) -> None:
    """Let a layer be computed again for the gradient, or no longer."""
    set_untracked(layer, _rematerialised=enabled)


def mark_blocks(model: keras.Model, enabled: bool = True) -> list[keras.Layer]:
    """Mark all blocks of a model, see `blocks_of`.

    Args:
        model: A built model.
        enabled: Whether they are computed again.

    Returns:
        The blocks.

    Raises:
        ValueError: There are none.
    """
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError(
            f"remat is for models with blocks, layers that are made of several others, and "
            f"{model.name} has none: leave it out."
        )
    for block in blocks:
        mark(block, enabled)
    return blocks


def rematerialised(layer: keras.Layer, call: Callable) -> Callable:
    """Return a function that calls a layer and keeps its inputs alone for the gradient.

    Args:
        layer: The layer.
        call: What is called in its place, with the same arguments.

    Returns:
        The function; symbolic tensors are passed on to `call`.
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        flat = keras.tree.flatten((args, kwargs))
        if any(isinstance(x, keras.KerasTensor) for x in flat):
            return call(*args, **kwargs)
        if any(mask_of(x) is not None for x in flat):
            raise ValueError(
                f"remat does not pass on Keras masks, and the inputs of {layer.name} have one: "
                f"call kft.remat(model, False)."
            )
        return _run(layer, call, args, kwargs)

    return run


def _run(layer: keras.Layer, call: Callable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    structure = (tuple(args), {"training": True, **kwargs})
    flat = keras.tree.flatten(structure)
    moved = [i for i, x in enumerate(flat) if _has_gradient(x)]
    backend, remat = keras.backend.backend(), keras.remat
    if backend == "jax" and on_processor():
        remat = _in_branches
    # TensorFlow would read weights again for the gradient, perhaps once they are updated, and
    # `_in_branches` has gradients of its arguments alone.
    learning = layer.trainable_variables if backend == "tensorflow" or remat is _in_branches else []
    with autocast(None):
        before = [(state, ops.copy(state.value)) for state in _states(layer)]
        values = [ops.convert_to_tensor(weight) for weight in learning]
    after: list[Any] | None = None  # of the first time

    def again(*tensors: Any) -> Any:
        nonlocal after
        filled, weights = list(flat), tensors[len(moved) :]
        for i, tensor in zip(moved, tensors, strict=False):
            filled[i] = tensor
        given, named = keras.tree.pack_sequence_as(structure, filled)
        known = [*before, *zip(learning, weights, strict=True)]
        with inherited_scope(known) as scope, _unfiltered(after is not None):
            outputs = call(*given, **named)
        states = [scope.get_current_value(state) for state, _ in before]
        if backend == "jax":  # a value of its trace may not leave by another way
            return outputs, states
        after = states if after is None else after
        return outputs

    outputs = remat(again)(*(flat[i] for i in moved), *values)
    if backend == "jax":
        outputs, after = outputs
    for (state, _), value in zip(before, after or (), strict=True):
        state.assign(value)
    return outputs


def _in_branches(function: Callable) -> Callable:
    """Return `jax.checkpoint` of a function that returns outputs and states, for a processor.

    XLA for processors begins every operation as early as it can, and so computes all blocks of
    `jax.checkpoint` again before the gradient has come to the first. The branch of a condition
    begins once all of its inputs are there, and one of them is the gradient of the outputs.
    """
    import jax
    from jax import numpy as jnp

    def gradients(tensors: tuple, of_outputs: Any) -> tuple:
        return jax.vjp(function, *tensors, has_aux=True)[1](of_outputs)

    def zeros(tensors: tuple, of_outputs: Any) -> tuple:
        return jax.tree.map(jnp.zeros_like, tensors)

    def forward(*tensors: Any) -> tuple[Any, tuple]:
        return function(*tensors), tensors

    def backward(tensors: tuple, of_all: Any) -> tuple:
        of_outputs, _ = of_all  # states have no gradient
        first = jax.tree.leaves(of_outputs)[0].ravel()[0]
        never = jnp.isinf(0 * first)  # which XLA cannot know
        return jax.lax.cond(never, zeros, gradients, tensors, of_outputs)

    computed = jax.custom_vjp(function)
    computed.defvjp(forward, backward)
    return computed


@contextmanager
def _unfiltered(disabled: bool) -> Iterator[None]:
    """Let errors pass through Keras's layers as they are, if `disabled`.

    torch ends the second computation by an error once it has all that it needs. Keras would add to
    it what the layers were called with, and keep all that from being freed.
    """
    filtered = disabled and keras.config.is_traceback_filtering_enabled()
    if filtered:
        keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


def _has_gradient(x: Any) -> bool:
    return ops.is_tensor(x) and "float" in keras.backend.standardize_dtype(x.dtype)


def _states(layer: keras.Layer) -> list[keras.Variable]:
    """List what a call may change: random states, and statistics such as those of a batch norm."""
    parts = [part for part in sublayers_of(layer) if not is_quantized(part)]
    statistics = [x for part in parts for x in own_non_trainable_weights(part)]
    return statistics + [g.state for part in parts for g in seed_generators(part)]
