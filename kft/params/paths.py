"""Paths of layers and weights, and the patterns that find them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, ItemsView, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from kft.arguments import check_instance
from kft.keras_internals import (
    Functional,
    own_trainable_weights,
    own_weights,
    sublayers_of,
    to_snake_case,
)
from kft.messages import listed

Pattern = str | re.Pattern[str] | Callable[[str], bool] | Iterable[Any]  # see `find`

# Paths ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Weight:
    """One weight of a model.

    Attributes:
        path: Its path, for example "block_0/query/kernel".
        variable: The variable.
        layer: The layer that owns it.
        frozen: Whether training leaves it as it is, because of `trainable`. The statistics of a
            trainable BatchNormalization have no gradient but change: they are not frozen.
    """

    path: str
    variable: keras.Variable = field(repr=False)
    layer: keras.layers.Layer
    frozen: bool

    @property
    def trainable(self) -> bool:
        """Whether it is trained by gradient."""
        return self.variable.trainable and not self.frozen


def check_model(model: object, name: str = "model") -> None:
    """Check that an argument is a Keras model or layer.

    Args:
        model: What was given.
        name: Name of the argument, for the error.

    Raises:
        TypeError: It is something else.

    Example:
        >>> check_model("esm2")
        Traceback (most recent call last):
        ...
        TypeError: model must be a Keras model, received 'esm2' (str).
    """
    check_instance(name, model, keras.layers.Layer, "a Keras model")


def layers(model: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """List all layers of a model, composite layers and those inside of them.

    Args:
        model: Any built Keras model or layer.

    Returns:
        Path -> layer, each layer before those inside of it. A layer that is used twice has its
        first path only. Input layers are left out.

    Raises:
        ValueError: The model is not built, so its weights do not exist yet.

    Example:
        >>> dense = [keras.layers.Dense(2, name="hidden"), keras.layers.Dense(1, name="out")]
        >>> list(layers(keras.Sequential([keras.Input((3,)), *dense])))
        ['hidden', 'out']
    """
    check_model(model)
    if not model.built:
        raise ValueError(
            f"model {model.name!r} is not built, so its weights do not exist yet: call it on one "
            f"batch first."
        )
    by_path: dict[str, keras.layers.Layer] = {}
    seen = {id(model)}

    def walk(layer: keras.layers.Layer, prefix: str) -> None:
        below = sublayers(layer)
        for name, sublayer in zip(_names(layer, below), below, strict=True):
            if id(sublayer) not in seen:
                seen.add(id(sublayer))
                by_path[prefix + name] = sublayer
                walk(sublayer, f"{prefix}{name}/")

    walk(model, "")
    return by_path


def weights(model: keras.layers.Layer) -> list[Weight]:
    """List all weights of a model, without the states of seed generators.

    Args:
        model: Any built Keras model or layer.

    Returns:
        The weights in the order of `layers`. A shared weight is listed once.

    Raises:
        ValueError: The model is not built.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> [(weight.path, weight.frozen) for weight in weights(model)]
        [('out/kernel', False), ('out/bias', False)]
    """
    check_model(model)
    result: list[Weight] = []
    seen: set[int] = set()
    for path, layer in {"": model, **layers(model)}.items():
        gradient = {id(variable) for variable in own_trainable_weights(layer)}
        own = own_weights(layer)
        for name, variable in zip(_numbered([v.name for v in own]), own, strict=True):
            if id(variable) not in seen:
                seen.add(id(variable))
                by_gradient = id(variable) in gradient
                moves = model.trainable and variable.trainable if by_gradient else layer.trainable
                result.append(Weight(f"{path}/{name}".lstrip("/"), variable, layer, not moves))
    return result


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """List the layers directly inside of a layer, without input layers."""
    # On torch a layer is a torch module, and `vars` does not list what is in it.
    below = sublayers_of(layer, recursive=False, include_self=False)
    return [sublayer for sublayer in below if not isinstance(sublayer, keras.layers.InputLayer)]


def _names(layer: keras.layers.Layer, below: Sequence[keras.layers.Layer]) -> list[str]:
    """Return the names of sublayers in paths."""
    if isinstance(layer, Functional | keras.Sequential):
        # A layer of a reference with groups of layers may state its path, "encoder/blocks/0".
        return _numbered([getattr(sublayer, "path_in_model", sublayer.name) for sublayer in below])
    # A layer with adapters keeps its name (`kft.lora`).
    classes = [getattr(sublayer, "base_class", type(sublayer)) for sublayer in below]
    kinds = [to_snake_case(cls.__name__) for cls in classes]
    # Keras makes up "dense", then "dense_1": if there is a "dense_0", the user chose the names.
    chosen = {k for k, s in zip(kinds, below, strict=True) if s.name == f"{k}_0"}
    names = [
        kind if kind not in chosen and re.fullmatch(rf"{kind}(_\d+)?", sublayer.name) else None
        for kind, sublayer in zip(kinds, below, strict=True)
    ]
    return _numbered([n or s.name for n, s in zip(names, below, strict=True)])


def _numbered(names: Iterable[str]) -> list[str]:
    """Make names unique: the second "dense" becomes "dense_1"."""
    names = list(names)
    unique: list[str] = []
    for name in names:
        numbered, i = name, 0
        while numbered in unique or (i and numbered in names):
            i += 1
            numbered = f"{name}_{i}"
        unique.append(numbered)
    return unique


def synchronise(model: keras.Model) -> None:
    """Copy the present weights into the model: JAX's `fit` does so only after an epoch."""
    check_model(model)
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


# Patterns -------------------------------------------------------------------------------------


def find(
    model: keras.layers.Layer, pattern: Pattern, called: str | None = None
) -> list[tuple[str, keras.layers.Layer]]:
    """Find the layers that match a pattern.

    Args:
        model: Any built Keras model.
        pattern: A string of whole names, "query" or "block_0/query" ("." separates too), which is
            compared with the end of each layer's path, so "block_1" does not match "block_10"; or
            a compiled `re`, searched in each layer's path; or a callable, path -> bool; or a list
            of those, each of which must match.
        called: Name of the argument, which begins the message of an error.

    Returns:
        Pairs (path, layer) in the order of `layers`. Layers inside of a layer that matches are not
        listed.

    Raises:
        ValueError: A pattern is empty, matches nothing, or names weights instead of layers.
        TypeError: A pattern has a wrong type.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> [path for path, layer in find(model, re.compile("^o"))]
        ['out']
    """
    try:
        return _found(model, pattern)
    except (TypeError, ValueError) as error:
        if called is None:
            raise
        raise type(error)(f"{called}: {error}") from None


def _found(model: keras.layers.Layer, pattern: Pattern) -> list[tuple[str, keras.layers.Layer]]:
    everything = layers(model)
    matched: set[str] = set()
    patterns = list(pattern) if isinstance(pattern, list | tuple | set) else [pattern]
    if not patterns:
        raise ValueError("pattern is an empty list: name at least one layer.")
    for one in patterns:
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


def by_pattern(name: str, given: dict[Any, Any] | None) -> ItemsView[Any, Any]:
    """Check an argument of the form {pattern: value} and return its pairs.

    Args:
        name: Name of the argument, for the error.
        given: What was given; None for no pairs.

    Returns:
        Pairs (pattern, value).

    Raises:
        TypeError: It is no dict, but for example a pattern or a list of patterns.

    Example:
        >>> list(by_pattern("ranks", {"query": 16}))
        [('query', 16)]
    """
    if given is not None and not isinstance(given, dict):
        raise TypeError(
            f"{name} must be a dict {{pattern: value}} for layers that differ from the others, "
            f"received {given!r}."
        )
    return (given or {}).items()


def _matcher(pattern: Any, everything: dict[str, keras.layers.Layer]) -> Callable[[str], bool]:
    if isinstance(pattern, str):
        parts = _parts(pattern)
        if not parts:
            raise ValueError(f"pattern {pattern!r} is empty: write a layer's path.")
        # A group, "encoder" in "encoder/blocks/0", is found as all its layers.
        return lambda path: any(
            _parts(one)[-len(parts) :] == parts for one in (path, *ancestors(path))
        )
    if isinstance(pattern, re.Pattern):
        return lambda path: pattern.search(path) is not None
    if isinstance(pattern, keras.layers.Layer):
        path = next((p for p, layer in everything.items() if layer is pattern), None)
        advice = f"give its path, {path!r}" if path else "it is no layer of this model"
        raise TypeError(f"pattern must not be a layer, received {pattern}: {advice}.")
    if callable(pattern):
        return pattern
    raise TypeError(
        f"pattern must be a string, a compiled re, a callable or a list of those, received "
        f"{pattern!r} ({type(pattern).__name__})."
    )


def _parts(path: str) -> list[str]:
    return [part for part in re.split("[/.]", path) if part]


def ancestors(path: str) -> list[str]:
    """List the paths above a path: "a" and "a/b" for "a/b/c"."""
    return [path[:i] for i, character in enumerate(path) if character == "/"]


def _nothing_matched(
    model: keras.layers.Layer, pattern: Any, matches: Callable[[str], bool], paths: list[str]
) -> str:
    shown = repr(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)
    weight = next((weight for weight in weights(model) if matches(weight.path)), None)
    if weight is not None:
        owner = weight.path.rpartition("/")[0]
        advice = f"name the layer, for example {owner!r}" if owner else "it is the model's own"
        if isinstance(pattern, str) and len(_parts(pattern)) > 1:
            advice = f"write {'/'.join(_parts(pattern)[:-1])!r}"
        return f"pattern {shown} names a weight, but freezing acts on layers: {advice}."
    near = paths
    if isinstance(pattern, str):
        wanted = "/".join(_parts(pattern))
        by_name = {part: path for path in reversed(paths) for part in path.split("/")[-1:]}
        last = difflib.get_close_matches(_parts(pattern)[-1], by_name, n=3)
        near = difflib.get_close_matches(wanted, paths, n=3) + [by_name[name] for name in last]
        near = list(dict.fromkeys(near)) or paths
    return (
        f"pattern {shown} matches none of the {len(paths)} layers of model {model.name!r}; "
        f"{'it has' if near is paths else 'similar are'} {listed(near, 5)}. "
        f"print(kft.parameters(model)) shows all."
    )
