"""Other models that hold the layers that an adapter changes.

A backbone may be part of several models. What they have traced goes on computing with a layer as it
was, and what they were compiled for may not be what is trainable now.
"""

import functools
import re
import warnings
from collections.abc import Iterable
from typing import NoReturn

import keras

from kft.backbones import contract
from kft.keras_internals import models_in_use, optimizer_weights, sublayers_of
from kft.lora.owned import adapted, head_paths
from kft.params import layers
from kft.params.paths import ancestors


def trainable_ids(model: keras.Model) -> set[int]:
    """Return the ids of a model's trainable variables."""
    return {id(v) for v in model.trainable_variables}


def retrace(model: keras.Model, paths: Iterable[str], uncompile: bool = False) -> None:
    """Let every model that holds changed layers trace them again.

    Models that were compiled for other variables are not compiled any more.

    Args:
        model: The model whose layers were changed.
        paths: Paths of the changed layers.
        uncompile: Whether trainable weights changed, so that no model may stay compiled.

    Warns:
        UserWarning: A model is not compiled any more.
    """
    for_others = _retraced(model, paths, uncompile)
    if for_others:
        warnings.warn(
            f"model {', '.join(map(repr, for_others))} was compiled, and its trainable "
            f"weights have changed since: call compile again before fit.",
            stacklevel=4,
        )


def retrace_silently(model: keras.Model, paths: Iterable[str], uncompile: bool = False) -> None:
    """Do what `retrace` does, without a warning."""
    _retraced(model, paths, uncompile)


def _retraced(model: keras.Model, paths: Iterable[str], uncompile: bool) -> list[str]:
    """Return the names of the models that are not compiled any more."""
    everything = layers(model)
    changed = {id(everything[path]) for path in paths}
    uncompiled = set()
    for other in {id(x): x for x in [model, *models_in_use()]}.values():
        if other is not model and not any(id(x) in changed for x in sublayers_of(other)):
            continue
        other.train_function = other.test_function = other.predict_function = None
        if not getattr(other, "compiled", False):
            continue
        if uncompile or (other is not model and _stale(other)):
            other.compiled, other.optimizer = False, None
            uncompiled.add(other.name)
    return sorted(uncompiled)


def _stale(model: keras.Model) -> bool:
    """Whether a compiled model's optimizer was built for other variables."""
    known = optimizer_weights(model.optimizer)
    return bool(known) and {id(v) for v in known} != trainable_ids(model)


# Saving -------------------------------------------------------------------------------------------


def guard_configs(model: keras.Model) -> None:
    """Make layers refuse to be saved whose config does not hold the adapters inside of them.

    They would come back without adapters.

    Args:
        model: A model with adapters.
    """
    if contract.keeps_adapters(model):
        return
    everything = {"": model, **layers(model)}
    # The config of a `kft.Model` holds adapters in the head, whatever layers that has.
    kept = head_paths(model) if getattr(model, "keeps_head", False) else ()
    for path in [path for path, _ in adapted(model) if path not in kept]:
        for parent in ["", *ancestors(path)]:
            layer = everything[parent]
            if not _keeps_parts(layer):
                # Set here, so that Keras does not track it.
                vars(layer)["get_config"] = functools.partial(_refuse, type(layer).__name__, path)


def unguard_configs(model: keras.Model) -> None:
    """Let layers be saved again that `guard_configs` has made refuse it."""
    for part in [model, *layers(model).values()]:
        vars(part).pop("get_config", None)


def _keeps_parts(layer: keras.Layer) -> bool:
    """Whether a layer's config includes the layers inside it."""
    if getattr(layer, "keeps_adapters", False) or hasattr(layer, "adapters"):
        return True
    get_config = type(layer).get_config
    functional = re.match(r"(Functional|Sequential|Model)\.", get_config.__qualname__)
    return functional is not None and get_config.__module__.startswith(("keras.", "kft."))


def _refuse(kind: str, path: str) -> NoReturn:
    raise ValueError(
        f"The adapter of {path} is inside a {kind}, whose config does not hold it: the model "
        f"cannot be saved as a whole. Save the adapter with kft.save_adapter(model, folder), or "
        f"kft.merge_lora(model) and kft.lora.remove(model) before saving."
    )
