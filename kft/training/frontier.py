"""The frozen frontier: frozen features are computed once per record, the rest is trained on them.

Where n blocks are run forward and k of them backward for E epochs, and a backward pass costs two
forward ones, training the whole model takes E (n + 2k) block passes and training at the frontier
(n - k) + 3kE: the speed-up is at most E (n + 2k) / ((n - k) + 3kE).

Shapes: `B` records in a batch, `L` tokens, padding included.
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kft.arguments import check_integer, check_optional_integer, check_path, check_seed
from kft.backbones.contract import check_no_prompts
from kft.data.images.pixels import find_range
from kft.keras_internals import (
    compile_arguments,
    is_default,
    mask_of,
    nodes_of,
    own_non_trainable_weights,
    seed_generators,
    sublayers_of,
)
from kft.models.graphs import AUGMENTATION, Learner, WithMask, flat
from kft.params.paths import check_model, synchronise
from kft.training.batching import Batches, batches, records_of
from kft.training.callbacks import (
    FrozenGuard,
    check_callbacks,
    require_constant_learning_rate,
)
from kft.training.features import MEMORY_LIMIT, FeatureBatches, FrontierError, features_of
from kft.training.memory import check_memory

# Cutting ----------------------------------------------------------------------------------------


def split(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cut a model at its frozen frontier: `trainable(frozen(x))` is `model(x)`.

    `frozen` is the part that no trainable weight can influence. Its outputs are the tensors at the
    frontier, each with its Keras mask. Both parts share the layers of the model. Functional models
    inside it are flattened.

    Args:
        model: A functional Keras model, with its trainable layers marked by `layer.trainable`.

    Returns:
        (frozen, trainable), two functional Keras models.

    Raises:
        TypeError: The model is not functional.
        FrontierError: Nothing is trainable; nothing that has weights is frozen.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> backbone.trainable = False
        >>> frozen, trainable = kft.split(model)
        >>> [layer.name for layer in trainable.layers if layer.weights]
        ['head']
    """
    check_model(model)
    model = flat(model)
    nodes, kept, crossing = _cut(model)
    _check(model, nodes, kept)
    masks = {i: mask for i, x in crossing.items() if (mask := mask_of(x)) is not None}
    ends = {id(x): x for x in [*crossing.values(), *masks.values()]}
    names = {i: f"frontier_{k}" for k, i in enumerate(ends)}
    outputs = {names[i]: x for i, x in ends.items()}
    frozen = keras.Model(model.input, outputs, name=f"{model.name}_frozen")
    inputs = {
        i: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=names[i]) for i, x in ends.items()
    }
    tensors = {
        i: inputs[i] if i not in masks else WithMask()([inputs[i], inputs[id(masks[i])]])
        for i in crossing
    }
    for node in kept:
        args, kwargs = node.arguments.fill_in(tensors)
        outputs_of_node = keras.tree.flatten(node.operation(*args, **kwargs))
        tensors |= zip(map(id, node.outputs), outputs_of_node, strict=True)
    output = keras.tree.map_structure(lambda x: tensors[id(x)], model.output)
    by_name = {names[i]: x for i, x in inputs.items()}
    return frozen, Learner(by_name, output, name=f"{model.name}_trainable")


def _cut(model: keras.Model) -> tuple[list[Any], list[Any], dict[int, Any]]:
    """All nodes of a graph in order, those after the frontier, and the tensors at it by id."""
    nodes = nodes_of(model)
    influenced: set[int] = set()
    crossing: dict[int, Any] = {}
    kept = []
    for node in nodes:
        if node.is_input:
            continue
        unchanged = {id(x): x for x in node.input_tensors if id(x) not in influenced}
        if len(unchanged) < len(node.input_tensors) or _changes(node.operation):
            influenced |= {id(x) for x in node.outputs}
            crossing |= unchanged
            kept.append(node)
    crossing |= {id(x): x for x in model.outputs if id(x) not in influenced}
    return nodes, kept, crossing


def _changes(operation: keras.Operation) -> bool:
    """Whether training changes the outputs of an operation, or its variables."""
    if not isinstance(operation, keras.Layer):
        return False
    parts = sublayers_of(operation)
    changing = [seed_generators(p) or own_non_trainable_weights(p) for p in parts if p.trainable]
    return bool(operation.trainable_variables) or any(changing)


def _check(model: keras.Model, nodes: Sequence[Any], kept: Sequence[Any]) -> None:
    if not kept:
        raise FrontierError(f"No weight of {model.name} is trainable: unfreeze a layer first.")
    operations_before = [node.operation for node in nodes if node not in kept]
    if not any(getattr(operation, "weights", None) for operation in operations_before):
        raise FrontierError(
            f"Nothing in {model.name} is frozen before its trainable layers, so there is no "
            f"frontier: freeze early layers, for example with kft.freeze."
        )


def why_not(model: keras.Model) -> str | None:
    """Explain why a model cannot be trained at its frontier, or would not be faster.

    It is faster where the frozen part has at least a twentieth of the weights that inputs are
    multiplied by. Embedding tables are not counted, since looking up rows costs little.

    Args:
        model: A Keras model.

    Returns:
        A sentence, or None where training at the frontier is possible and faster.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> why_not(model).startswith("Nothing in")
        True
        >>> model.layers[0].trainable = False
        >>> why_not(model) is None
        True
    """
    try:
        frozen, trainable = split(model)
    except (FrontierError, TypeError) as error:
        return str(error)
    if augmenting := _augmenting(frozen):
        return augmenting
    once, often = _multiplied(frozen), _multiplied(trainable)
    if once < 0.05 * (once + often):
        return "The frozen part is cheap: nearly all of the work is after the frontier."
    return None


def _augmenting(frozen: keras.Model) -> str | None:
    random = [
        layer.name
        for layer in frozen.layers
        if isinstance(layer, AUGMENTATION)
        and any(seed_generators(part) for part in sublayers_of(layer))
    ]
    if random:
        return (
            f"The frozen part is random: {', '.join(random)} must draw new numbers in every epoch."
        )
    return None


def _multiplied(model: keras.Model) -> int:
    tables = {
        id(weight)
        for layer in sublayers_of(model)
        if isinstance(layer, keras.layers.Embedding)
        for weight in layer.weights
    }
    weights = {id(w): w for w in model.weights if len(w.shape) > 1 and id(w) not in tables}
    return sum(int(np.prod(w.shape)) for w in weights.values())


# Training ---------------------------------------------------------------------------------------


def fit_frontier(
    model: keras.Model,
    data: Any,
    validation_data: Any = None,
    epochs: int = 1,
    batch_size: int = 32,
    max_length: int | None = None,
    seed: int = 0,
    cache: Path | str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    callbacks: Iterable[keras.callbacks.Callback] = (),
    verbose: Any = "auto",
    initial_epoch: int = 0,
    encode: Callable | None = None,
) -> keras.callbacks.History:
    """Train a compiled model at its frozen frontier: Keras's `fit` on frozen features.

    Each record is encoded once, and its frozen features are computed once, in inference mode and
    without padding; all epochs read the features. Callbacks see the whole model. The weights, the
    optimizer's state and the history are those of `model.fit` up to rounding; with equal padding
    bit by bit, unless XLA fuses operations of both parts.

    Args:
        model: A compiled functional Keras model with frozen layers.
        data: A `kft.data.Dataset`, records as for `kft.batches`, or batches made by it.
        validation_data: Records or batches; None takes those of a data set.
        epochs: Number of epochs, counted from 0, as for Keras's `fit`.
        batch_size: Number of records per batch, where `data` are not batches.
        max_length: Number of residues to keep of each sequence, where `data` are not batches; None
            keeps all.
        seed: Int that determines the order of the batches, where `data` are not batches.
        cache: Folder in which features are kept for the next run with the same frozen weights and
            the same records, None to keep none. It may grow large and can be deleted at any time.
        memory_limit: Size of all features, in bytes, above which they are read from a file.
        callbacks: Keras callbacks; they see the whole model.
        verbose: As for Keras's `fit`.
        initial_epoch: Epoch at which a training is continued.
        encode: As for `kft.fit`.

    Returns:
        keras.callbacks.History of the whole model.

    Raises:
        ValueError: The model is not compiled; records that do not fit; a callback sets a learning
            rate that follows a schedule.
        RuntimeError: `trainable` of a layer has changed since `compile`.
        FrontierError: Nothing is trainable, nothing is frozen, the frozen part is random, or there
            is no room for its features; the message states which. Train with `model.fit` then.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> backbone.trainable = False
        >>> model.compile("adam", "mean_squared_error")
        >>> records = ["MKTAYI", "GSS"], [0.0, 1.0]
        >>> history = kft.fit_frontier(model, records, epochs=3, verbose=0)
        >>> len(history.history["loss"])
        3
    """
    check_model(model)
    check_no_prompts(model)
    check_sizes(batch_size, max_length, seed)
    check_cache(cache, memory_limit)
    check_integer("epochs", epochs)
    check_integer("initial_epoch", initial_epoch, 0)
    callbacks = check_callbacks(callbacks)
    if not model.compiled:
        raise ValueError("model must be compiled: call model.compile(optimizer, loss) first.")
    FrozenGuard.check_compiled(model)
    require_constant_learning_rate(callbacks, model.optimizer)
    train, valid = as_batches(
        model, data, seed, batch_size, max_length, validation_data, encode=encode
    )
    frozen, trainable = split(model)
    if augmenting := _augmenting(frozen):
        raise FrontierError(augmenting)

    def computed(part: Batches) -> FeatureBatches:
        return FeatureBatches(part, features_of(frozen, part, cache, memory_limit))

    options = {"epochs": epochs, "callbacks": callbacks, "verbose": verbose}
    features, valid_features = computed(train), valid and computed(valid)
    return train_as(
        model, trainable, features, valid_features, initial_epoch=initial_epoch, **options
    )


def check_sizes(batch_size: int, max_length: int | None, seed: int) -> None:
    """Check the arguments from which batches are made.

    Args:
        batch_size: As for `kft.batches`.
        max_length: As for `kft.batches`.
        seed: As for `kft.batches`.

    Raises:
        ValueError: One of them is of another type, or out of range.
    """
    check_integer("batch_size", batch_size)
    check_optional_integer("max_length", max_length)
    check_seed("seed", seed)


def check_cache(cache: Path | str | None, memory_limit: int) -> None:
    """Check the arguments that say where features are kept.

    Args:
        cache: As for `fit_frontier`.
        memory_limit: As for `fit_frontier`.

    Raises:
        TypeError: `cache` is not a path.
        NotADirectoryError: `cache` is a file.
        ValueError: `memory_limit` is no number of bytes.
    """
    if cache is not None and check_path("cache", cache).is_file():
        raise NotADirectoryError(f"cache must be a folder or a new name, and {cache} is a file.")
    check_integer("memory_limit", memory_limit, 0)


def as_batches(
    model: keras.Model,
    data: Any,
    seed: int,
    batch_size: int,
    max_length: int | None,
    validation_data: Any = None,
    encode: Callable | None = None,
) -> tuple[Batches, Batches | None]:
    """Make batches to train on and, where there are records for it, batches to validate on.

    For a model that has seen no images of 16 bits yet, the value range is set, see
    `fit_value_range`.

    Args:
        model: A Keras model.
        data: A `kft.data.Dataset`, records as for `kft.batches`, or batches made by it.
        seed: Int that determines the order of the batches.
        batch_size: Number of records per batch.
        max_length: Number of residues to keep of each sequence; None keeps all.
        validation_data: Records or batches; None takes those of a data set.
        encode: As for `kft.fit`.

    Returns:
        Batches to train on, and batches to validate on or None.
    """
    if encode is None:
        fit_value_range(model, data)
        encode = getattr(model, "encode", None)
    if hasattr(data, "train"):
        validation_data = data.valid if validation_data is None else validation_data
        data = data.train

    def made(records: Any, order: int | None) -> Batches:
        if isinstance(records, Batches):
            return records
        made_now = batches(records, encode, batch_size, order, max_length)
        check_memory(model, made_now, training=True)
        return made_now

    return made(data, seed), None if validation_data is None else made(validation_data, None)


def fit_value_range(model: keras.Model, data: Any) -> None:
    """Set which values of 16-bit images are black and white, from the training data.

    A model that has a range keeps it, since its weights were trained in these units.

    Args:
        model: Model with a backbone that takes images; any other is left as it is.
        data: A `kft.data.Dataset`, whose `value_range` is taken; or records as for `kft.batches`,
            from which it is computed, with a warning that states it.
    """
    encode: Any = getattr(model, "encode", None)
    if not hasattr(encode, "value_range") or isinstance(data, Batches):
        return
    known = getattr(data, "value_range", None)
    if encode.value_range is not None:
        if known not in (None, encode.value_range):
            warnings.warn(
                f"{model.name} keeps its value range for images of 16 bits, "
                f"{_described(encode.value_range)}, but the data have {_described(known)}: to use "
                f"the range of the data, set model.backbone.value_range = data.value_range.",
                stacklevel=4,
            )
        return
    if known is None:
        inputs = records_of(getattr(data, "train", data))[0]
        known = find_range(inputs, called="inputs")
        if known is None:
            return
        warnings.warn(
            f"The values of black and white in 16-bit images were computed from the "
            f"{len(inputs):,} images for training: {_described(known)}. {model.name} keeps them; "
            f"to choose others, set model.backbone.value_range = (black, white) before training.",
            stacklevel=4,
        )
    backbone = getattr(model, "backbone", model)
    backbone.encode = replace(encode, value_range=known)


def _described(value_range: tuple[float, float]) -> str:
    return "{:,g} for black and {:,g} for white".format(*value_range)


def train_as(
    model: keras.Model,
    learner: keras.Model,
    train: keras.utils.PyDataset,
    validation_data: keras.utils.PyDataset | None,
    epochs: int,
    callbacks: Iterable[keras.callbacks.Callback],
    verbose: Any,
    initial_epoch: int = 0,
) -> keras.callbacks.History:
    """Train `learner`, which shares the layers of a compiled model, as if it were that model.

    Optimizer, loss and metrics are the model's own, so that it has their state afterwards, and
    callbacks see the model.

    Args:
        model: A compiled Keras model.
        learner: A model that takes the inputs of the batches; may be `model` itself.
        train: Batches to train on.
        validation_data: Batches to validate on, or None.
        epochs: As for Keras's `fit`.
        callbacks: Keras callbacks.
        verbose: As for Keras's `fit`.
        initial_epoch: As for Keras's `fit`.

    Returns:
        keras.callbacks.History of the model.
    """
    options = {
        "validation_data": validation_data,
        "epochs": epochs,
        "verbose": verbose,
        "initial_epoch": initial_epoch,
    }
    if learner is model:
        return model.fit(train, callbacks=list(callbacks), shuffle=False, **options)
    learner.compile(**{**compile_arguments(model), "optimizer": model.optimizer})
    model.stop_training = False
    if verbose == "auto":
        options["verbose"] = 1 if sys.stdout.isatty() else 2
    seen = keras.callbacks.CallbackList(
        [_Weights(learner, callbacks), *callbacks, _Stop(learner)],
        add_history=True,
        add_progbar=options["verbose"] != 0,
        model=model,
        verbose=options["verbose"],
        epochs=epochs,
        steps=len(train),
    )
    learner.history = None  # Keras's fit returns it; the history is the model's
    learner.fit(train, callbacks=seen, shuffle=False, **options)
    return model.history


class _Weights(keras.callbacks.Callback):
    """A callback that updates the model's weights after each batch, for callbacks that read them.

    On JAX, Keras keeps the weights outside of the model during an epoch.
    """

    def __init__(self, learner: keras.Model, callbacks: Iterable[keras.callbacks.Callback]):
        super().__init__()
        at_batches = (
            "on_train_batch_begin",
            "on_train_batch_end",
            "on_batch_begin",
            "on_batch_end",
        )
        hooks = [getattr(callback, hook) for callback in callbacks for hook in at_batches]
        if not all(is_default(hook) for hook in hooks):
            self.on_train_batch_end = lambda batch, logs=None: synchronise(learner)


class _Stop(keras.callbacks.Callback):
    """A callback that stops `learner` where a callback of the whole model has asked to stop."""

    def __init__(self, learner: keras.Model):
        super().__init__()
        self.learner = learner

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.learner.stop_training |= self.model.stop_training
