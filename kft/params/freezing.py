"""Which layers are trainable: freeze, unfreeze, train_only, and what the user marked by hand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import keras

from kft.keras_internals import (
    own_non_trainable_weights,
    own_trainable_weights,
    sublayers_of,
)
from kft.messages import listed
from kft.params.paths import (
    Pattern,
    ancestors,
    find,
    layers,
    sublayers,
    synchronise,
    weights,
)

# Functions (model, layers) that are called before layers are made trainable, so that an adapter can
# keep their present weights (`kft.lora`).
BEFORE_UNFREEZING: list[Callable[[keras.Model, Sequence[keras.layers.Layer]], None]] = []


def freeze(model: keras.Model, pattern: Pattern | None = None) -> list[str]:
    """Freeze layers and everything inside of them.

    If this changes a compiled model, the model is no longer compiled: Keras would go on training
    the same weights as before, or stop with an unclear error.

    Args:
        model: Any built Keras model.
        pattern: Layers to freeze, see `find`; None for all.

    Returns:
        Paths of the layers that matched, the outermost only.

    Raises:
        ValueError: The pattern matches no layer.
        TypeError: The pattern has a wrong type.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> freeze(model, "hidden")
        ['hidden']
        >>> [weight.path for weight in weights(model) if weight.trainable]
        ['out/kernel', 'out/bias']
    """
    return _mark(model, pattern, trainable=False)


def unfreeze(model: keras.Model, pattern: Pattern | None = None) -> list[str]:
    """Make layers and everything inside of them trainable, see `freeze`.

    Args:
        model: Any built Keras model.
        pattern: Layers to unfreeze, see `find`; None for all.

    Returns:
        Paths of the layers that matched, the outermost only.

    Raises:
        ValueError: The pattern matches no layer.
        TypeError: The pattern has a wrong type.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> model.trainable = False
        >>> unfreeze(model, "out")
        ['out']
        >>> [weight.path for weight in weights(model) if weight.trainable]
        ['out/kernel', 'out/bias']
    """
    return _mark(model, pattern, trainable=True)


def train_only(model: keras.Model, pattern: Pattern) -> list[str]:
    """Make layers and everything inside of them trainable, and freeze all others; see `freeze`.

    Args:
        model: Any built Keras model.
        pattern: Layers to train, see `find`.

    Returns:
        Paths of the layers that matched, the outermost only.

    Raises:
        ValueError: The pattern matches no layer.
        TypeError: The pattern is None or has a wrong type.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> train_only(model, ["block_5", "head"])
        ['block_5', 'head']
    """
    if pattern is None:
        raise TypeError("pattern must name layers, received None: use unfreeze(model) for all.")
    return _mark(model, pattern, trainable=True, others=False)


def _mark(
    model: keras.Model, pattern: Pattern | None, trainable: bool, others: bool | None = None
) -> list[str]:
    """Mark the layers that match, and all others by `others`; None leaves those as they are."""
    if pattern is None:
        found = layers(model)  # the path of an outermost layer may have several parts
        matched = [
            (path, layer) for path, layer in found.items() if not _beginnings(path) & found.keys()
        ]
    else:
        matched = find(model, pattern)
    below = [sublayers_of(layer) for _, layer in matched]
    chosen = {id(layer) for part in below for layer in part}
    if pattern is None:
        chosen.add(id(model))
    synchronise(model)
    for call in BEFORE_UNFREEZING if trainable else ():
        call(model, [layer for part in below for layer in part])
    before = _states(model)
    _set_flags(model, *_plan(model, chosen, trainable, others))
    after = _states(model)
    reset = pattern is None and trainable  # as in a new model: that is no choice of the user
    _record(model, None if reset else "the user", chosen if others is None else None)
    if before != after and getattr(model, "compiled", False):
        _uncompile(model)
        warnings.warn(
            f"model {model.name!r} was compiled, and its trainable layers have changed since: "
            f"{_difference(before, after)}. It is no longer compiled: call compile again before "
            f"fit.",
            stacklevel=3,
        )
    return [path for path, _ in matched]


def _beginnings(path: str) -> set[str]:
    """Return the paths that a path begins with: "a" and "a/b" of "a/b/c"."""
    parts = path.split("/")
    return {"/".join(parts[:i]) for i in range(1, len(parts))}


def _plan(
    model: keras.Model, chosen: AbstractSet[int], trainable: bool, others: bool | None
) -> tuple[dict[int, bool], dict[int, bool], list[keras.layers.Layer]]:
    """Return `trainable` for each variable and each layer, by id, and the order to set them in."""
    order = _parents_first(model)
    wanted: dict[int, bool] = {}
    flags: dict[int, bool] = {}
    weighted: set[int] = set()
    for layer in order:
        for variable in own_trainable_weights(layer):
            if id(layer) in chosen:  # wins where a variable is shared
                wanted[id(variable)] = trainable
            else:
                kept = model.trainable and variable.trainable
                wanted.setdefault(id(variable), kept if others is None else others)
    for layer in reversed(order):
        below = sublayers(layer)
        inside = [wanted[id(variable)] for variable in own_trainable_weights(layer)]
        inside += [flags[id(sublayer)] for sublayer in below if id(sublayer) in weighted]
        if inside:
            weighted.add(id(layer))
        elif below:
            inside = [flags[id(sublayer)] for sublayer in below]
        elif id(layer) in chosen:  # Dropout and the like
            inside = [trainable]
        else:
            inside = [model.trainable and layer.trainable if others is None else others]
        flags[id(layer)] = any(inside)
    return wanted, flags, order


def _set_flags(
    model: keras.Model,
    wanted: Mapping[int, bool],
    flags: Mapping[int, bool],
    order: Iterable[keras.layers.Layer],
) -> None:
    # Setting a flag sets those of the layers inside, hence from the top, and shared leaves last.
    # Variables are never made trainable directly: a layer's setter may keep some of them frozen.
    for layer in sorted(order, key=lambda x: (0, 0) if sublayers(x) else (1, flags[id(x)])):
        # On TensorFlow, setting an attribute to its present value does nothing, and would not set
        # the flags of the layers inside.
        layer.trainable = not flags[id(layer)]
        layer.trainable = flags[id(layer)]
    for layer in order:
        for variable in own_trainable_weights(layer):
            if variable.trainable and not wanted[id(variable)]:
                variable.trainable = False


def _parents_first(model: keras.Model) -> list[keras.layers.Layer]:
    """List the model and all layers in it, each after all layers that contain it."""
    order: list[keras.layers.Layer] = []
    seen: set[int] = set()

    def visit(layer: keras.layers.Layer) -> None:
        if id(layer) not in seen:
            seen.add(id(layer))
            for sublayer in sublayers(layer):
                visit(sublayer)
            order.append(layer)

    visit(model)
    # kft.Model holds its backbone's layers, and also the backbone, which is a model of its own.
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, keras.layers.Layer):
        visit(backbone)
    return order[::-1]


def _states(model: keras.Model) -> dict[str, bool]:
    """Return {path: whether training can change it} of weights, and of layers without (path/)."""
    states = {weight.path: not weight.frozen for weight in weights(model)}
    for path, layer in layers(model).items():
        if not layer.weights and not sublayers(layer):
            states[f"{path}/"] = layer.trainable
    return states


def _difference(before: Mapping[str, bool], after: Mapping[str, bool]) -> str:
    """Describe the difference of two `_states`: "now frozen: block_0; now trainable: head"."""
    weighted = [path for path in before if not path.endswith("/")]
    # Dropout and the like are of interest only where nothing else has changed.
    if any(before[path] != after[path] for path in weighted):
        before = {path: before[path] for path in weighted}
    parts = []
    for state, name in ((False, "frozen"), (True, "trainable")):
        changed = {path for path in before if before[path] != after[path] == state}
        if changed:
            parts.append(f"now {name}: {listed(_outermost(changed, before), 4)}")
    return "; ".join(parts)


def _outermost(changed: AbstractSet[str], paths: Iterable[str]) -> list[str]:
    """Return the outermost layers in which everything has changed, or single weights."""
    mixed = {layer for path in paths if path not in changed for layer in ancestors(path)}
    candidates = [[*ancestors(path), path] for path in paths if path in changed]
    return list(dict.fromkeys(next(p for p in c if p not in mixed) for c in candidates))


# Who has marked it ---------------------------------------------------------------------------


def _record(model: keras.Model, who: str | None, chosen: AbstractSet[int] | None = None) -> None:
    """Record for each weight, or those of layers chosen by id, who has marked it, and how."""
    for weight in weights(model):
        if chosen is None or id(weight.layer) in chosen:
            weight.variable._kft_marked = None if who is None else (who, weight.frozen)


def record_marks(model: keras.Model) -> None:
    """Record that kft, not the user, chose which layers are trainable now; see `user_marks`.

    Args:
        model: Any built Keras model.
    """
    _record(model, "kft")


def user_marks(model: keras.Model) -> dict[str, bool]:
    """Find the weights that the user marked, with `kft.freeze` and the like or `layer.trainable`.

    Weights that a strategy or `kft.add_lora` has marked are left out, and so are weights that are
    trainable because nobody has marked them. In a copy, or a model read from a file, everything
    frozen is taken as marked by the user if the user marked any of it.

    Args:
        model: Any built Keras model.

    Returns:
        Path of each such weight -> whether it is frozen.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> model.layers[0].trainable = False
        >>> user_marks(model)
        {'hidden/kernel': True, 'hidden/bias': True}
    """
    marks = {}
    for weight in weights(model):
        who, frozen = getattr(weight.variable, "_kft_marked", None) or ("nobody", False)
        if who == "the user" or weight.frozen != frozen:
            marks[weight.path] = weight.frozen
    return marks


def differences(before: Mapping[str, bool], after: Mapping[str, bool]) -> str:
    """Describe which layers are frozen now and which are trainable now.

    Args:
        before: Path of each weight -> whether it was trainable.
        after: The same weights -> whether they are trainable now.

    Returns:
        A string such as "now frozen: block_0; now trainable: head", empty if nothing differs.

    Example:
        >>> differences({"out/bias": True}, {"out/bias": False})
        'now frozen: out'
    """
    return _difference(before, after)


def _uncompile(model: keras.Model) -> None:
    """Undo `compile`, so that `fit` asks for it, and reset what Keras's `compile` resets."""
    model.compiled, model.optimizer = False, None
    model.train_function = model.test_function = model.predict_function = None


def is_frozen(layer: keras.layers.Layer) -> bool:
    """Tell whether training can change nothing in a layer.

    Args:
        layer: Any Keras layer or model.

    Returns:
        True if the layer has weights and all of them are frozen, see `Weight`. For a layer without
        weights, for example Dropout, True if its `trainable` is False.

    Example:
        >>> is_frozen(keras.layers.Dropout(0.1)), is_frozen(keras.layers.ReLU(trainable=False))
        (False, True)
    """
    none = True
    for part in sublayers_of(layer):
        moving = [variable.trainable for variable in own_trainable_weights(part)]
        moving += [part.trainable] * len(own_non_trainable_weights(part))
        if any(moving):
            return False
        none = none and not moving
    return not (none and layer.trainable)
