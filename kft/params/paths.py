"""Paths of layers and weights, and the patterns that find them."""

import difflib
import re
from dataclasses import dataclass, field

import keras

from kft.keras_internals import (
    Functional,
    own_trainable_weights,
    own_weights,
    sublayers_of,
    to_snake_case,
)
from kft.messages import listed

# Paths ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight of a model.

    Attributes:
        path: for example "block_0/query/kernel".
        variable: the `keras.Variable`.
        layer: the layer that owns it.
        frozen: it does not learn because its layer is marked so. Statistics of a
            BatchNormalization that learns get no gradient, yet move: they are not frozen.
    """

    path: str
    variable: keras.Variable = field(repr=False)
    layer: keras.layers.Layer
    frozen: bool

    @property
    def learns(self):
        """Whether it learns by gradient."""
        return self.variable.trainable and not self.frozen


def layers(model):
    """Lists all layers below a model, composite ones and those inside of them.

    Args:
        model: any built Keras model or layer.

    Returns:
        dict from path to layer, each layer before those inside of it. A layer that is reached
        twice has its first path only. Input layers are left out.

    Raises:
        ValueError: the model is not built, so its weights do not exist yet.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> list(layers(keras.Sequential([keras.Input((3,)), *dense])))
        ['hidden', 'out']
    """
    if not model.built:
        raise ValueError(
            f"model {model.name!r} is not built, so its weights do not exist yet: call it on one "
            f"batch first."
        )
    found, seen = {}, {id(model)}

    def walk(layer, prefix):
        below = sublayers(layer)
        for name, sublayer in zip(_names(layer, below), below, strict=True):
            if id(sublayer) not in seen:
                seen.add(id(sublayer))
                found[prefix + name] = sublayer
                walk(sublayer, f"{prefix}{name}/")

    walk(model, "")
    return found


def weights(model):
    """Lists all weights of a model; the states of seed generators are none.

    Args:
        model: any built Keras model or layer.

    Returns:
        list of `Weight`, in the order of `layers`. A weight that is shared comes once.

    Raises:
        ValueError: the model is not built.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> [(weight.path, weight.frozen) for weight in weights(model)]
        [('out/kernel', False), ('out/bias', False)]
    """
    found, seen = [], set()
    for path, layer in {"": model, **layers(model)}.items():
        gradient = {id(variable) for variable in own_trainable_weights(layer)}
        own = own_weights(layer)
        for name, variable in zip(_numbered([v.name for v in own]), own, strict=True):
            if id(variable) not in seen:
                seen.add(id(variable))
                by_gradient = id(variable) in gradient
                moves = model.trainable and variable.trainable if by_gradient else layer.trainable
                found.append(Weight(f"{path}/{name}".lstrip("/"), variable, layer, not moves))
    return found


def sublayers(layer):
    """What a layer holds directly, input layers left out."""
    # A layer is a torch module on torch, and `vars` does not list what is in it.
    below = sublayers_of(layer, recursive=False, include_self=False)
    return [sublayer for sublayer in below if not isinstance(sublayer, keras.layers.InputLayer)]


def _names(layer, below):
    """What sublayers are called in paths."""
    if isinstance(layer, Functional | keras.Sequential):
        return _numbered([sublayer.name for sublayer in below])
    # A layer that holds adapters is called as it was before (`kft.lora`).
    classes = [getattr(sublayer, "base_class", type(sublayer)) for sublayer in below]
    kinds = [to_snake_case(cls.__name__) for cls in classes]
    # Keras makes up "dense", then "dense_1": who has a "dense_0" chose the names.
    chosen = {k for k, s in zip(kinds, below, strict=True) if s.name == f"{k}_0"}
    names = [
        kind if kind not in chosen and re.fullmatch(rf"{kind}(_\d+)?", sublayer.name) else None
        for kind, sublayer in zip(kinds, below, strict=True)
    ]
    return _numbered([n or s.name for n, s in zip(names, below, strict=True)])


def _numbered(names):
    """Names told apart: the second "dense" becomes "dense_1"."""
    unique = []
    for name in names:
        numbered, i = name, 0
        while numbered in unique or (i and numbered in names):
            i += 1
            numbered = f"{name}_{i}"
        unique.append(numbered)
    return unique


def synchronise(model):
    """JAX's `fit` keeps the weights aside during an epoch; this puts them back into the model."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


# Patterns -------------------------------------------------------------------------------------


def find(model, pattern):
    """Finds the layers that a pattern names.

    Args:
        model: any built Keras model.
        pattern: one of
            a string of whole names, "query" or "block_0/query" ("." separates too), which is
            compared with the end of each layer's path, so that "block_1" never means "block_10";
            a compiled `re`, searched in each layer's path;
            a callable, path -> bool;
            a list of those, each of which must match.

    Returns:
        list of (path, layer) in the order of `layers`. What lies inside of a layer that matches
        belongs to it and is not listed.

    Raises:
        ValueError: a pattern is empty, matches nothing, or names weights instead of layers.
        TypeError: a pattern of another kind.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> [path for path, layer in find(model, re.compile("^o"))]
        ['out']
    """
    everything, matched = layers(model), set()
    several = isinstance(pattern, list | tuple | set)
    if several and not pattern:
        raise ValueError("pattern is an empty list: name at least one layer.")
    for one in pattern if several else [pattern]:
        matches = _matcher(one, everything)
        hits = [path for path in everything if matches(path)]
        if not hits:
            raise ValueError(_nothing_matched(model, one, matches, list(everything)))
        matched.update(hits)
    return [
        (path, layer)
        for path, layer in everything.items()
        if path in matched and not matched.intersection(ancestors(path))
    ]


def by_pattern(name, given):
    """What an argument {pattern: value} says, as pairs.

    Args:
        name: of the argument, for the error.
        given: dict or None.

    Raises:
        TypeError: anything else, such as a pattern or a list of them.
    """
    if given is not None and not isinstance(given, dict):
        raise TypeError(
            f"{name} must be a dict {{pattern: value}}, which says what layers get that differ "
            f"from the others, received {given!r}."
        )
    return (given or {}).items()


def _matcher(pattern, everything):
    if isinstance(pattern, str):
        parts = _parts(pattern)
        if not parts:
            raise ValueError(f"pattern {pattern!r} is empty: write a layer's path.")
        return lambda path: _parts(path)[-len(parts) :] == parts
    if isinstance(pattern, re.Pattern):
        return lambda path: pattern.search(path) is not None
    if isinstance(pattern, keras.layers.Layer):
        path = next((p for p, layer in everything.items() if layer is pattern), None)
        advice = f"write its path, {path!r}" if path else "it is no layer of this model"
        raise TypeError(f"pattern must not be a layer, received {pattern}: {advice}.")
    if callable(pattern):
        return pattern
    raise TypeError(
        f"pattern must be a string, a compiled re, a callable or a list of those, received "
        f"{pattern!r} ({type(pattern).__name__})."
    )


def _parts(path):
    return [part for part in re.split("[/.]", path) if part]


def ancestors(path):
    """ "a" and "a/b" of "a/b/c"."""
    return [path[:i] for i, character in enumerate(path) if character == "/"]


def _nothing_matched(model, pattern, matches, paths):
    shown = repr(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
    weight = next((weight for weight in weights(model) if matches(weight.path)), None)
    if weight is not None:
        owner = weight.path.rpartition("/")[0]
        advice = f"write the layer, for example {owner!r}" if owner else "it is the model's own"
        if isinstance(pattern, str) and len(_parts(pattern)) > 1:
            advice = f"write {'/'.join(_parts(pattern)[:-1])!r}"
        return f"pattern {shown} names a weight, and freezing acts on layers: {advice}."
    near = paths
    if isinstance(pattern, str):
        wanted = "/".join(_parts(pattern))
        by_name = {part: path for path in reversed(paths) for part in path.split("/")[-1:]}
        last = difflib.get_close_matches(_parts(pattern)[-1], by_name, n=3)
        near = difflib.get_close_matches(wanted, paths, n=3) + [by_name[name] for name in last]
        near = list(dict.fromkeys(near)) or paths
    return (
        f"pattern {shown} matches none of the {len(paths)} layers of model {model.name!r}; "
        f"{'it has' if near is paths else 'near it are'} {listed(near, 5)}. "
        f"print(kft.parameters(model)) shows them."
    )
