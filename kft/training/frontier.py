"""The frozen frontier: what no trainable weight can influence is computed once.

`split` cuts a functional model into a frozen and a learning part; `fit_frontier` computes the
frozen part of every record once, and trains the learning part with Keras's own `fit`.

Where n blocks are run forward and k of them backward for E epochs, with a backward pass that costs
two forward ones, training the whole takes E (n + 2k) block passes and training at the frontier
(n - k) + 3kE: the gain is at most E (n + 2k) / ((n - k) + 3kE).

Shapes: `B` records in a batch, `L` tokens, padding included.
"""

import sys
import warnings
from dataclasses import replace

import keras
import numpy as np

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
from kft.models.graphs import AUGMENTATION, Learner, flat
from kft.params.paths import synchronise
from kft.training.batching import Batches, batches, records_of
from kft.training.callbacks import FrozenGuard, insist_on_constant_rate
from kft.training.features import MEMORY_LIMIT, FeatureBatches, FrontierError, features_of

# Cutting ----------------------------------------------------------------------------------------


def split(model):
    """Cuts a model at its frozen frontier: `learning(frozen(x))` is `model(x)`.

    Everything that no trainable weight can influence goes into `frozen`, which ends in the tensors
    that cross the frontier; a mask that Keras hands from layer to layer crosses with its tensor.
    Both parts share the layers of the model. Functional models inside of it are opened.

    Args:
        model: a functional Keras model, with its layers marked by `layer.trainable`.

    Returns:
        (frozen, learning), two functional Keras models.

    Raises:
        TypeError: a model that is not functional.
        FrontierError: nothing learns; nothing that has weights is frozen.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> backbone.trainable = False
        >>> frozen, learning = kft.split(model)
        >>> [layer.name for layer in learning.layers if layer.weights]
        ['head']
    """
    model = flat(model)
    nodes = nodes_of(model)
    influenced, crossing, kept = set(), {}, []
    for node in nodes:
        if node.is_input:
            continue
        steady = {id(x): x for x in node.input_tensors if id(x) not in influenced}
        if len(steady) < len(node.input_tensors) or _learns(node.operation):
            influenced |= {id(x) for x in node.outputs}
            crossing |= steady
            kept.append(node)
    _check(model, nodes, kept)
    crossing |= {id(x): x for x in model.outputs if id(x) not in influenced}
    masks = {i: mask for i, x in crossing.items() if (mask := mask_of(x)) is not None}
    ends = {id(x): x for x in [*crossing.values(), *masks.values()]}
    names = {i: f"frontier_{k}" for k, i in enumerate(ends)}
    answers = {names[i]: x for i, x in ends.items()}
    frozen = keras.Model(model.input, answers, name=f"{model.name}_frozen")
    inputs = {
        i: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=names[i]) for i, x in ends.items()
    }
    tensors = {
        i: inputs[i] if i not in masks else _WithMask()([inputs[i], inputs[id(masks[i])]])
        for i in crossing
    }
    for node in kept:
        args, kwargs = node.arguments.fill_in(tensors)
        outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        tensors |= zip(map(id, node.outputs), outputs, strict=True)
    outputs = keras.tree.map_structure(lambda x: tensors[id(x)], model.output)
    by_name = {names[i]: x for i, x in inputs.items()}
    return frozen, Learner(by_name, outputs, name=f"{model.name}_learning")


def _learns(operation):
    """Whether training changes what an operation answers, or what it holds."""
    if not isinstance(operation, keras.Layer):
        return False
    parts = sublayers_of(operation)
    moves = [seed_generators(p) or own_non_trainable_weights(p) for p in parts if p.trainable]
    return bool(operation.trainable_variables) or any(moves)


def _check(model, nodes, kept):
    if not kept:
        raise FrontierError(f"No weight of {model.name} learns: unfreeze a layer first.")
    steady = [node.operation for node in nodes if node not in kept]
    if not any(getattr(operation, "weights", None) for operation in steady):
        raise FrontierError(
            f"Nothing in {model.name} is frozen that comes before the layers that learn: there "
            f"is no frontier. Freeze early layers, for example with kft.freeze."
        )


@keras.saving.register_keras_serializable("kft")
class _WithMask(keras.layers.Layer):
    """Gives a tensor back the mask that it was cut off from: [x, mask] -> x."""

    def call(self, pair):
        return pair[0]

    def compute_mask(self, pair, previous_mask):
        return pair[1]

    def compute_output_spec(self, pair):
        return keras.KerasTensor(pair[0].shape, dtype=pair[0].dtype)


def why_not(model):
    """Says why a model cannot be trained at its frontier, or is not worth it; None if it is.

    It is worth it where the frozen part holds at least a twentieth of the weights that tensors
    are multiplied with: a table that is looked up costs nothing to begin with.

    Args:
        model: a Keras model.

    Returns:
        A sentence, or None.
    """
    try:
        frozen, learning = split(model)
    except (FrontierError, TypeError) as error:
        return str(error)
    if augmenting := _augmenting(frozen):
        return augmenting
    once, often = _multiplied(frozen), _multiplied(learning)
    if once < 0.05 * (once + often):
        return "The frozen part is cheap: nearly all of the work lies beyond the frontier."
    return None


def _augmenting(frozen):
    random = [
        layer.name
        for layer in frozen.layers
        if isinstance(layer, AUGMENTATION)
        and any(seed_generators(part) for part in sublayers_of(layer))
    ]
    if random:
        return f"The frozen part is random: {', '.join(random)} must draw anew every epoch."
    return None


def _multiplied(model):
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
    model, data, validation_data=None, epochs=1, batch_size=32, max_length=None, seed=0,
    cache=None, memory_limit=MEMORY_LIMIT, callbacks=(), verbose="auto", initial_epoch=0,
):  # fmt: skip
    """Trains a compiled model at its frozen frontier: Keras's `fit` on what can change.

    The frozen part is computed once for every record, in inference mode and without padding.
    Callbacks see the whole model. The weights, the optimizer's state and the history are those
    that `model.fit` would have left, to rounding; at equal padding bit by bit, unless XLA fuses
    operations of both parts.

    Args:
        model: a compiled functional Keras model, some of it frozen.
        data: a `kft.data.Dataset`, records as for `kft.batches`, or batches made by it.
        validation_data: records or batches; None takes those of a data set.
        epochs, callbacks, verbose, initial_epoch: as for Keras's `fit`.
        batch_size, max_length, seed: as for `kft.batches`, where batches are not given.
        cache: folder in which features are kept for the next run with the same frozen weights and
            the same inputs, None to keep none. It may grow large and can be deleted at any time.
        memory_limit: bytes of features above which they are mapped from a file.

    Returns:
        keras.callbacks.History of the whole model.

    Raises:
        ValueError: a model that is not compiled; records that do not fit; a callback that sets a
            learning rate which follows a schedule.
        RuntimeError: what learns has changed since `compile`.
        FrontierError: nothing learns, nothing is frozen, the frozen part is random, or there is
            no room for its features; the message says which. Train with `model.fit` then.

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
    if not model.compiled:
        raise ValueError("model must be compiled: call model.compile(optimizer, loss) first.")
    FrozenGuard.check_compiled(model)
    callbacks = list(callbacks)
    insist_on_constant_rate(callbacks, model.optimizer)
    train, valid = as_batches(model, data, seed, batch_size, max_length, validation_data)
    frozen, learning = split(model)
    if augmenting := _augmenting(frozen):
        raise FrontierError(augmenting)
    computed = [
        part and FeatureBatches(part, features_of(frozen, part, cache, memory_limit))
        for part in (train, valid)
    ]
    return train_as(model, learning, *computed, epochs, callbacks, verbose, initial_epoch)


def as_batches(model, data, seed, batch_size, max_length, valid=None):
    """Batches to train on and, where there are any, batches to validate on, else None.

    Args:
        model: whose `encode` is used; without one, records are arrays.
        data: a `kft.data.Dataset`, records as for `kft.batches`, or batches made by it.
        seed, batch_size, max_length: as for `kft.batches`.
        valid: records or batches; None takes those of a data set.

    Of a model that sees images of 16 bits for the first time, the value range is set, see
    `learn_range`.
    """
    train = data
    if hasattr(data, "train"):
        data, valid = data.train, data.valid if valid is None else valid
    learn_range(model, train)
    encode = getattr(model, "encode", None)
    return [
        part
        if part is None or isinstance(part, Batches)
        else batches(part, encode, batch_size, order, max_length)
        for part, order in ((data, seed), (valid, None))
    ]


def learn_range(model, data):
    """Sets which values of 16-bit images are black and white, as the training data use them.

    A model that knows a range keeps it: what it has learned is in these units.

    Args:
        model: with a backbone that takes images, or any other, which is left as it is.
        data: a `kft.data.Dataset`, whose `value_range` is taken; or records as for `kft.batches`,
            in which it is found, and said.
    """
    encode = getattr(model, "encode", None)
    if not hasattr(encode, "value_range") or isinstance(data, Batches):
        return
    known = getattr(data, "value_range", None)
    if encode.value_range is not None:
        if known not in (None, encode.value_range):
            warnings.warn(
                f"{model.name} takes {_said(encode.value_range)} in images of 16 bits, which is "
                f"kept, and the data say {_said(known)}: say model.backbone.value_range = "
                f"data.value_range if these are to be seen in their own.",
                stacklevel=4,
            )
        return
    if known is None:
        inputs = records_of(getattr(data, "train", data))[0]
        known = find_range(inputs, called="inputs")
        if known is None:
            return
        warnings.warn(
            f"Which values of 16-bit images are black and white was found in the {len(inputs):,} "
            f"images for training: {_said(known)}. {model.name} keeps it; to choose it say "
            f"model.backbone.value_range = (black, white) before.",
            stacklevel=4,
        )
    backbone = getattr(model, "backbone", model)
    backbone.encode = replace(encode, value_range=known)


def _said(value_range):
    return "{:,g} for black and {:,g} for white".format(*value_range)


def train_as(
    model, learner, train, validation_data, epochs, callbacks, verbose, initial_epoch=0
):  # fmt: skip
    """Trains `learner`, which shares a compiled model's layers, as if it were that model.

    Optimizer, loss and metrics are the model's own, so that their state is there afterwards, and
    callbacks see the model.

    Args:
        model: a compiled Keras model.
        learner: a model that takes the inputs of the batches; may be `model` itself.
        train, validation_data: a keras.utils.PyDataset each, or None for the second.
        epochs, callbacks, verbose, initial_epoch: as for Keras's `fit`.

    Returns:
        keras.callbacks.History of the model.
    """
    options = {"validation_data": validation_data, "epochs": epochs, "verbose": verbose,
               "initial_epoch": initial_epoch}  # fmt: skip
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
    """Lets callbacks that are called at every batch see weights on JAX, which keeps them aside."""

    def __init__(self, learning, callbacks):
        super().__init__()
        of_batches = (
            "on_train_batch_begin",
            "on_train_batch_end",
            "on_batch_begin",
            "on_batch_end",
        )
        hooks = [getattr(callback, hook) for callback in callbacks for hook in of_batches]
        if not all(is_default(hook) for hook in hooks):
            self.on_train_batch_end = lambda batch, logs=None: synchronise(learning)


class _Stop(keras.callbacks.Callback):
    """Hands on that a callback of the whole model has asked to stop."""

    def __init__(self, learning):
        super().__init__()
        self.learning = learning

    def on_epoch_end(self, epoch, logs=None):
        self.learning.stop_training |= self.model.stop_training
