"""The frozen frontier: what no trainable weight can influence is computed once.

`split` cuts a functional model into a frozen and a learning part; `fit_frontier` computes the
frozen part of every record once, and trains the learning part with Keras's own `fit`.

Where n blocks are run forward and k of them backward for E epochs, with a backward pass that costs
two forward ones, training the whole takes E (n + 2k) block passes and training at the frontier
(n - k) + 3kE: the gain is at most E (n + 2k) / ((n - k) + 3kE).

Shapes: `B` records in a batch, `L` tokens, padding included.
"""

import hashlib
import json
import shutil
import sys
import tempfile
import weakref
from pathlib import Path

import keras
import numpy as np

from kft.batching import Batches, batches
from kft.model import AUGMENTATION, Learner, flat
from kft.params import fingerprint

MEMORY_LIMIT = 2 * 2**30  # bytes of features that stay in memory; more are mapped from a file


class FrontierError(ValueError):
    """A model that cannot be trained at a frozen frontier; the message says why."""


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
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth]]
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
    masks = {i: mask for i, x in crossing.items() if (mask := _mask(x)) is not None}
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
    return isinstance(operation, keras.Layer) and bool(operation.trainable_variables)


def _check(model, nodes, kept):
    if not kept:
        raise FrontierError(f"No weight of {model.name} learns: unfreeze a layer first.")
    steady = [node.operation for node in nodes if node not in kept]
    if not any(getattr(operation, "weights", None) for operation in steady):
        raise FrontierError(
            f"Nothing in {model.name} is frozen that comes before the layers that learn: there "
            f"is no frontier. Freeze early layers, for example with kft.freeze."
        )


def _mask(tensor):
    """The mask that Keras carries with a tensor, or None (as `Masking` and `Embedding` make)."""
    return getattr(tensor, "_keras_mask", None)


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
        and any(part._seed_generators for part in layer._flatten_layers())
    ]
    if random:
        return f"The frozen part is random: {', '.join(random)} must draw anew every epoch."
    return None


def _multiplied(model):
    tables = {
        id(weight)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Embedding)
        for weight in layer.weights
    }
    weights = {id(w): w for w in model.weights if len(w.shape) > 1 and id(w) not in tables}
    return sum(int(np.prod(w.shape)) for w in weights.values())


# Features ---------------------------------------------------------------------------------------


class _Features:
    """What `frozen` answers to each record, without padding.

    Per tensor: `values` is flat, one stretch after the other; `shapes` says how a record's is
    shaped, None where its tokens go; `pads` is what stands at a padded position.
    """

    def __init__(self, values, shapes, pads, lengths, temporary=None):
        self.values, self.shapes, self.pads, self.lengths = values, shapes, pads, lengths
        if temporary is not None:  # the folder goes with this object
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
        self.starts = [_starts(shape, lengths) for shape in shapes]

    def take(self, chosen, padded):
        """The features of some records, padded to so many tokens: {name: array (B, ...)}."""
        return {f"frontier_{i}": self._take(i, chosen, padded) for i in range(len(self.values))}

    def _take(self, i, chosen, padded):
        out = np.empty((len(chosen), *_filled(self.shapes[i], padded)), self.values[i].dtype)
        out[...] = self.pads[i]
        for row, record in zip(out, chosen, strict=True):
            row[_corner(self.shapes[i], self.lengths[record])] = self._of(i, record)
        return out

    def put(self, i, record, row):
        """Keeps what tensor i, padded, holds for one record."""
        self._of(i, record)[...] = row[_corner(self.shapes[i], self.lengths[record])]

    def _of(self, i, record):
        start, end = self.starts[i][record : record + 2]
        return self.values[i][start:end].reshape(_filled(self.shapes[i], self.lengths[record]))


def _filled(shape, length):
    return tuple(int(length) if n is None else n for n in shape)


def _corner(shape, length):
    return tuple(slice(int(length)) if n is None else slice(None) for n in shape)


def _starts(shape, lengths):
    fixed, tokens = int(np.prod([n for n in shape if n is not None])), shape.count(None)
    return np.concatenate([[0], np.cumsum(fixed * np.asarray(lengths, dtype="int64") ** tokens)])


def _features(frozen, base, cache, memory_limit):
    """Computes, or finds in the folder `cache`, the features of all records of `base`."""
    inputs = batches(base.inputs, base.encode, base.batch_size, None, base.max_length)
    if cache is None:
        return _computed(frozen, inputs, None, memory_limit)
    folder = Path(cache) / _key(frozen, inputs)
    if not folder.is_dir():
        Path(cache).mkdir(parents=True, exist_ok=True)
        # Computed aside and renamed: a folder under its own name is complete.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".computing-") as aside:
            inside = Path(aside) / folder.name
            inside.mkdir()
            _computed(frozen, inputs, inside, memory_limit)
            inside.rename(folder)
    about = json.loads((folder / "about.json").read_text())
    count = range(len(about["shapes"]))
    values = [np.load(folder / f"values_{i}.npy", mmap_mode="r") for i in count]
    pads = [np.load(folder / f"pad_{i}.npy") for i in count]
    return _Features(values, list(map(tuple, about["shapes"])), pads, _lengths(inputs))


def _lengths(inputs):
    return np.zeros(len(inputs.inputs), "int64") if inputs.lengths is None else inputs.lengths


def _key(frozen, inputs):
    """A digest of all that features depend on: weights, graph, encoded inputs, backend."""
    digest = hashlib.sha256(fingerprint(frozen, trainable=None).encode())
    about = [keras.backend.backend(), frozen.get_config()]
    digest.update(json.dumps(about, sort_keys=True, default=repr).encode())
    for i in range(len(inputs)):
        for x in [*keras.tree.flatten(inputs[i]), inputs.chosen[i]]:
            digest.update(f"{x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return digest.hexdigest()[:32]


def _computed(frozen, inputs, folder, memory_limit):
    from rich.console import Console
    from rich.progress import track

    console, features = Console(stderr=True), None
    steps = track(
        range(len(inputs)),
        "computing what is frozen",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for step in steps:
        answers = _answers(frozen, inputs[step])
        if features is None:
            _check_steady(frozen, inputs[step], answers)
            features = _empty(frozen, answers, inputs, folder, memory_limit)
        chosen, padded = inputs.chosen[step], inputs.padded(step)
        shortest = int(np.argmin(features.lengths[chosen]))
        for i, answer in enumerate(answers):
            _check_shape(frozen, features.shapes[i], answer, padded)
            for record, row in zip(chosen, answer, strict=True):
                features.put(i, record, row)
            if None in features.shapes[i] and features.lengths[chosen[shortest]] < padded:
                last = [slice(-1, None) if n is None else slice(None) for n in features.shapes[i]]
                features.pads[i] = answer[shortest][tuple(last)].copy()
    if folder is not None:
        (folder / "about.json").write_text(json.dumps({"shapes": features.shapes}))
        for i, pad in enumerate(features.pads):
            np.save(folder / f"pad_{i}.npy", pad)
    return features


def _answers(frozen, encoded):
    """The tensors that cross the frontier, in the order of their names' numbers."""
    found = frozen.predict_on_batch(encoded)
    arrays = [
        keras.ops.convert_to_numpy(found[f"frontier_{i}"]) for i in range(len(frozen.outputs))
    ]
    # numpy has no bfloat16 of its own; float32 holds the same numbers.
    return [x.astype("float32") if x.dtype.name == "bfloat16" else x for x in arrays]


def _check_steady(frozen, encoded, answers):
    for old, new in zip(answers, _answers(frozen, encoded), strict=True):
        if not np.array_equal(old, new, equal_nan=old.dtype.kind == "f"):
            raise FrontierError(
                "The frozen part is random: it answers the same batch in two ways, so that it "
                "cannot be computed once."
            )


def _empty(frozen, answers, inputs, folder, memory_limit):
    """Features to be filled, in memory or in files."""
    lengths = _lengths(inputs)
    shapes = []
    for i, answer in enumerate(answers):
        symbolic = frozen.output[f"frontier_{i}"].shape[1:]
        # Arrays as inputs are of one shape, whatever the graph leaves open.
        shapes.append(tuple(symbolic if inputs.lengths is not None else answer.shape[1:]))
    sizes = [int(_starts(shape, lengths)[-1]) for shape in shapes]
    types = [answer.dtype for answer in answers]
    total = sum(size * dtype.itemsize for size, dtype in zip(sizes, types, strict=True))
    temporary = None
    if folder is None and total > memory_limit:
        _check_room(Path(tempfile.gettempdir()), total)
        temporary = folder = Path(tempfile.mkdtemp(prefix="kft-features-"))
    if folder is None:
        values = [np.empty(size, dtype) for size, dtype in zip(sizes, types, strict=True)]
    else:
        _check_room(folder, total)
        values = [
            np.lib.format.open_memmap(folder / f"values_{i}.npy", "w+", dtype, (size,))
            for i, (size, dtype) in enumerate(zip(sizes, types, strict=True))
        ]
    pads = [np.zeros((), dtype) for dtype in types]
    return _Features(values, shapes, pads, lengths, temporary)


def _check_room(folder, total):
    free = shutil.disk_usage(folder).free
    if total > 0.9 * free:
        raise FrontierError(
            f"The features take {total / 2**30:.1f} GiB and {folder} has {free / 2**30:.1f} GiB "
            f"free: name another folder as `cache`, or train with frontier=False."
        )


def _check_shape(frozen, shape, answer, padded):
    if answer.shape[1:] != _filled(shape, padded or 0):
        raise FrontierError(
            f"A tensor of the frontier has shape {answer.shape[1:]} in a batch of {padded} tokens, "
            f"expected {shape} with None for the tokens: it cannot be kept record by record."
        )


# Training ---------------------------------------------------------------------------------------


class _FrontierBatches(keras.utils.PyDataset):
    """The batches of `base`, with features in place of inputs."""

    def __init__(self, base, features):
        super().__init__()
        self.base, self.features = base, features

    def __len__(self):
        return len(self.base)

    def __getitem__(self, index):
        _, *rest = self.base[index]
        x = self.features.take(self.base.chosen[index], self.base.padded(index))
        return (x, *rest)

    def on_epoch_end(self):
        self.base.on_epoch_end()


def fit_frontier(
    model, train, validation_data=None, epochs=1, cache=None, memory_limit=MEMORY_LIMIT,
    callbacks=(), verbose="auto",
):  # fmt: skip
    """Trains a compiled model at its frozen frontier: Keras's `fit` on what can change.

    The frozen part is computed once for every record, in inference mode and without padding.
    Callbacks see the whole model. The weights, the optimizer's state and the history are those
    that `model.fit` would have left, to rounding; at equal padding bit by bit.

    Args:
        model: a compiled functional Keras model, some of it frozen.
        train: batches of `kft.batches`, with targets.
        validation_data: such batches, or None.
        epochs: how many.
        cache: folder in which features are kept for the next run with the same frozen weights and
            the same inputs, None to keep none. It may grow large and can be deleted at any time.
        memory_limit: bytes of features above which they are mapped from a file.
        callbacks, verbose: as for Keras's `fit`.

    Returns:
        keras.callbacks.History of the whole model.

    Raises:
        TypeError: data that are no batches of `kft.batches`; a model that is not functional.
        ValueError: a model that is not compiled.
        FrontierError: nothing learns, nothing is frozen, the frozen part is random, or there is
            no room for its features; the message says which. Train with `model.fit` then.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> backbone.trainable = False
        >>> model.compile("adam", "mean_squared_error")
        >>> train = kft.batches((["MKTAYI", "GSS"], [0.0, 1.0]), backbone.encode)
        >>> history = kft.fit_frontier(model, train, epochs=3, verbose=0)
        >>> len(history.history["loss"])
        3
    """
    for data in (train, validation_data):
        if data is not None and not isinstance(data, Batches):
            raise TypeError(
                f"fit_frontier takes batches of kft.batches, received {type(data).__name__}: "
                f"features are kept for each record, and it must know the records."
            )
    if not model.compiled:
        raise ValueError("model must be compiled: call model.compile(optimizer, loss) first.")
    frozen, learning = split(model)
    if augmenting := _augmenting(frozen):
        raise FrontierError(augmenting)
    computed = [
        data and _FrontierBatches(data, _features(frozen, data, cache, memory_limit))
        for data in (train, validation_data)
    ]
    return train_as(model, learning, *computed, epochs, callbacks, verbose)


def train_as(model, learner, train, validation_data, epochs, callbacks, verbose):
    """Trains `learner`, which shares a compiled model's layers, as if it were that model.

    Optimizer, loss and metrics are the model's own, so that their state is there afterwards, and
    callbacks see the model.

    Args:
        model: a compiled Keras model.
        learner: a model that takes the inputs of the batches; may be `model` itself.
        train, validation_data: a keras.utils.PyDataset each, or None for the second.
        epochs, callbacks, verbose: as for Keras's `fit`.

    Returns:
        keras.callbacks.History of the model.
    """
    options = {"validation_data": validation_data, "epochs": epochs, "verbose": verbose}
    if learner is model:
        return model.fit(train, callbacks=list(callbacks), shuffle=False, **options)
    learner.compile(**{**model._compile_config.config, "optimizer": model.optimizer})
    model.stop_training = False
    if verbose == "auto":
        options["verbose"] = 1 if sys.stdout.isatty() else 2
    seen = keras.callbacks.CallbackList(
        [*callbacks, _Stop(learner)],
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


class _Stop(keras.callbacks.Callback):
    """Hands on that a callback of the whole model has asked to stop."""

    def __init__(self, learning):
        super().__init__()
        self.learning = learning

    def on_epoch_end(self, epoch, logs=None):
        self.learning.stop_training |= self.model.stop_training
