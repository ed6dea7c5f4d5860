"""Which layers learn: freeze, unfreeze, train_only, and what they leave behind."""

import warnings

import keras

from kft.keras_internals import (
    own_non_trainable_weights,
    own_trainable_weights,
    sublayers_of,
)
from kft.params.paths import ancestors, find, layers, listed, sublayers, synchronise, weights

# Functions (model, layers) that are called before layers wake: an adapter keeps what they were
# (`kft.lora`).
BEFORE_WAKING = []


def freeze(model, pattern=None):
    """Lets layers, and all that is inside of them, learn no more.

    A model that was compiled is compiled no more if that changes it: Keras would go on training
    what was marked before, or stop with an obscure error.

    Args:
        model: any built Keras model.
        pattern: which layers, see `find`; None for all.

    Returns:
        list of the paths of the layers that matched, the outermost of each.

    Raises:
        ValueError, TypeError: see `find`.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> freeze(model, "hidden")
        ['hidden']
        >>> [weight.path for weight in weights(model) if weight.learns]
        ['out/kernel', 'out/bias']
    """
    return _mark(model, pattern, learns=False)


def unfreeze(model, pattern=None):
    """Lets layers, and all that is inside of them, learn again; see `freeze`.

    Args:
        model: any built Keras model.
        pattern: which layers, see `find`; None for all.

    Returns:
        list of the paths of the layers that matched, the outermost of each.

    Raises:
        ValueError, TypeError: see `find`.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> model.trainable = False
        >>> unfreeze(model, "out")
        ['out']
        >>> [weight.path for weight in weights(model) if weight.learns]
        ['out/kernel', 'out/bias']
    """
    return _mark(model, pattern, learns=True)


def train_only(model, pattern):
    """Lets layers, and all that is inside of them, learn, and nothing else; see `freeze`.

    Args:
        model: any built Keras model.
        pattern: which layers, see `find`.

    Returns:
        list of the paths of the layers that matched, the outermost of each.

    Raises:
        ValueError, TypeError: see `find`.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> train_only(model, ["block_5", "head"])
        ['block_5', 'head']
    """
    if pattern is None:
        raise TypeError("pattern must name layers, received None: unfreeze(model) is for all.")
    return _mark(model, pattern, learns=True, others=False)


def _mark(model, pattern, learns, others=None):
    """Marks what matches; `others` is for the rest, None leaves it as it is."""
    if pattern is None:
        matched = [(path, layer) for path, layer in layers(model).items() if "/" not in path]
    else:
        matched = find(model, pattern)
    below = [sublayers_of(layer) for _, layer in matched]
    chosen = {id(layer) for part in below for layer in part}
    if pattern is None:
        chosen.add(id(model))
    synchronise(model)
    for tell in BEFORE_WAKING if learns else ():
        tell(model, [layer for part in below for layer in part])
    before = _awake(model)
    _set_flags(model, *_plan(model, chosen, learns, others))
    after = _awake(model)
    anew = pattern is None and learns  # all learn, as in a new model: nothing is chosen by that
    _sign(model, None if anew else "the user", chosen if others is None else None)
    if before != after and getattr(model, "compiled", False):
        _uncompile(model)
        warnings.warn(
            f"model {model.name!r} was compiled, and what learns has changed since: "
            f"{_difference(before, after)}. It is not compiled any more: call compile again "
            f"before fit.",
            stacklevel=3,
        )
    return [path for path, _ in matched]


def _plan(model, chosen, learns, others):
    """What each layer's flag and each variable shall be: two dicts by id, and the order to set."""
    order, wanted, flags, weighted = _parents_first(model), {}, {}, set()
    for layer in order:
        for variable in own_trainable_weights(layer):
            if id(layer) in chosen:  # wins where a variable is shared
                wanted[id(variable)] = learns
            else:
                kept = model.trainable and variable.trainable
                wanted.setdefault(id(variable), kept if others is None else others)
    for layer in reversed(order):
        below = sublayers(layer)
        counts = [wanted[id(variable)] for variable in own_trainable_weights(layer)]
        counts += [flags[id(sublayer)] for sublayer in below if id(sublayer) in weighted]
        if counts:
            weighted.add(id(layer))
        elif below:
            counts = [flags[id(sublayer)] for sublayer in below]
        elif id(layer) in chosen:  # Dropout and the like: what was asked
            counts = [learns]
        else:
            counts = [model.trainable and layer.trainable if others is None else others]
        flags[id(layer)] = any(counts)
    return wanted, flags, order


def _set_flags(model, wanted, flags, order):
    # A flag is handed down when it is set, hence from the top, and sharing leaves last. Variables
    # are never woken by hand: a layer's own setter may know which of them have to sleep.
    for layer in sorted(order, key=lambda x: (0, 0) if sublayers(x) else (1, flags[id(x)])):
        # TensorFlow's layers take an attribute that is set to its present value for no change, and
        # would hand nothing down.
        layer.trainable = not flags[id(layer)]
        layer.trainable = flags[id(layer)]
    for layer in order:
        for variable in own_trainable_weights(layer):
            if variable.trainable and not wanted[id(variable)]:
                variable.trainable = False


def _parents_first(model):
    """The model and all that is below it, each layer after all that it is inside of."""
    order, seen = [], set()

    def visit(layer):
        if id(layer) not in seen:
            seen.add(id(layer))
            for sublayer in sublayers(layer):
                visit(sublayer)
            order.append(layer)

    visit(model)
    # kft.Model holds its backbone's layers, and the backbone, a model of its own, beside them.
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, keras.layers.Layer):
        visit(backbone)
    return order[::-1]


def _awake(model):
    """{path: whether it can change} of all weights, and of layers that have none (path + "/")."""
    awake = {weight.path: not weight.frozen for weight in weights(model)}
    for path, layer in layers(model).items():
        if not layer.weights and not sublayers(layer):
            awake[f"{path}/"] = layer.trainable
    return awake


def _difference(before, after):
    """ "block_0 learn no more; head learn now", of two states of `_awake`."""
    weighted = [path for path in before if not path.endswith("/")]
    # Dropout and the like are of interest only where nothing else has changed.
    if any(before[path] != after[path] for path in weighted):
        before = {path: before[path] for path in weighted}
    said = []
    for state, verb in ((False, "learn no more"), (True, "learn now")):
        changed = {path for path in before if before[path] != after[path] == state}
        if changed:
            said.append(f"{listed(_outermost(changed, before), 4)} {verb}")
    return "; ".join(said)


def _outermost(changed, paths):
    """The outermost layers all of whose paths have changed, or the weights themselves."""
    mixed = {layer for path in paths if path not in changed for layer in ancestors(path)}
    candidates = [[*ancestors(path), path] for path in paths if path in changed]
    return list(dict.fromkeys(next(p for p in c if p not in mixed) for c in candidates))


# Who has marked it ---------------------------------------------------------------------------


def _sign(model, who, chosen=None):
    """Notes at each weight, or those of the layers chosen by id, who has marked it, and how."""
    for weight in weights(model):
        if chosen is None or id(weight.layer) in chosen:
            weight.variable._kft_marked = None if who is None else (who, weight.frozen)


def sign(model):
    """Notes that the present marks of a model are kft's own, not chosen by hand; see `by_hand`.

    Args:
        model: any built Keras model.
    """
    _sign(model, "kft")


def by_hand(model):
    """What was marked by hand: by `kft.freeze` and its like, or by `layer.trainable` itself.

    Not what a strategy, `kft.add_lora` or the like have marked on their own, and not what learns
    because nobody has said anything. In a copy, or a model that is read from a file, everything
    that is frozen counts as marked by hand if anything that is frozen was.

    Args:
        model: any built Keras model.

    Returns:
        dict from the path of each such weight to whether it is frozen.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> model = keras.Sequential([keras.Input((3,)), *dense])
        >>> model.layers[0].trainable = False
        >>> by_hand(model)
        {'hidden/kernel': True, 'hidden/bias': True}
    """
    found = {}
    for weight in weights(model):
        who, frozen = getattr(weight.variable, "_kft_marked", None) or ("nobody", False)
        if who == "the user" or weight.frozen != frozen:
            found[weight.path] = weight.frozen
    return found


def differences(before, after):
    """Says which layers' weights learn no more and which learn now.

    Args:
        before, after: dicts from the path of a weight to whether it learns, of the same weights.

    Returns:
        A string such as "block_0 learn no more; head learn now", empty where none differs.
    """
    return _difference(before, after)


def _uncompile(model):
    """As before `compile`, so that `fit` asks for it; what Keras's `compile` resets is reset."""
    model.compiled, model.optimizer = False, None
    model.train_function = model.test_function = model.predict_function = None


def is_frozen(layer):
    """Whether nothing in a layer can change in training.

    Args:
        layer: any Keras layer or model.

    Returns:
        True if the layer has weights and each of them is frozen, see `Weight`; for a layer
        without weights, for example Dropout, whether its `trainable` is False.

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
