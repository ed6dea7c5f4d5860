"""Choosing the layers that get an adapter, and its settings for each."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import keras

from kft.arguments import (
    check_choice,
    check_flag,
    check_fraction,
    check_integer,
    check_number_above,
)
from kft.backbones import contract
from kft.lora.kinds import bias_size, kind_of, why_not
from kft.lora.layers import MOST_RANK, Settings
from kft.lora.owned import head_paths
from kft.messages import listed
from kft.params import find, layers
from kft.params.paths import ancestors, by_pattern

ALL_LINEAR = "all-linear"


def settings_for(
    model: keras.Model,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Any = None,
    *,
    rslora: bool = False,
    dora: bool = False,
    bias: Literal["none", "lora_only", "all"] = "none",
    ranks: dict[Any, int] | None = None,
    alphas: dict[Any, float] | None = None,
) -> dict[str, Settings]:
    """Compute the settings of the adapters that `kft.add_lora` would add; nothing is changed.

    Args:
        model: A built Keras model, with adapters or without.
        rank: Rank r of the adapters.
        alpha: Numerator of the scale alpha / r.
        dropout: Fraction of the inputs that are dropped in training.
        targets: Patterns of layers, see `kft.add_lora`.
        rslora: Whether the scale is alpha / sqrt(r).
        dora: Whether the magnitudes of the columns are trained too.
        bias: Which biases are trained, see `kft.add_lora`.
        ranks: {pattern: rank} of targets with another rank, or None.
        alphas: {pattern: alpha} of targets with another alpha, or None.

    Returns:
        {path of a layer: `Settings`}, without the head.

    Raises:
        ValueError: As `kft.add_lora`.
    """
    check_settings(rank, alpha, dropout, bias)
    check_flag("rslora", rslora)
    check_flag("dora", dora)
    chosen = chosen_layers(model, targets)
    setting = Settings(rank, alpha, dropout, rslora, dora, bias != "none")
    settings = with_patterns(model, for_layers(setting, chosen), ranks, alphas)
    if bias == "all":
        settings |= other_biases(model, chosen)
    return settings


def check_settings(rank: int, alpha: float, dropout: float, bias: str) -> None:
    """Check the settings of an adapter.

    Raises:
        ValueError: One of them is out of range.
    """
    check_integer("rank", rank, 1, MOST_RANK)
    check_number_above("alpha", alpha)
    check_fraction("dropout", dropout)
    check_choice("bias", bias, ("none", "lora_only", "all"))


def chosen_layers(model: keras.Model, targets: Any) -> dict[str, keras.Layer]:
    """Find the layers that are to be adapted.

    Args:
        model: Any built Keras model.
        targets: See `kft.add_lora`.

    Returns:
        {path: layer}, in the order of the model.

    Raises:
        ValueError: Nothing matches, or what matches is in the head or cannot be adapted.
    """
    everything, head = layers(model), head_paths(model)
    if targets is None:
        targets = contract.lora_targets(model)
    if isinstance(targets, str) and targets == ALL_LINEAR:
        linear = (keras.layers.Dense, keras.layers.EinsumDense)
        matched = [p for p, x in everything.items() if isinstance(x, linear) and p not in head]
        if not matched:
            raise ValueError(f"{model.name} has no Dense or EinsumDense outside its head.")
        inside = []
    else:
        wanted = list(targets) if isinstance(targets, tuple) else targets
        matched = [path for path, _ in find(model, wanted, "targets")]
        inside = [p for p in everything if set(ancestors(p)) & set(matched)]
    outside = [path for path in matched if path not in head]
    if not outside:
        raise ValueError(
            f"targets {targets!r} match {listed(matched, 3)}, which belongs to the head: the head "
            f"is trained in full, without adapters. Name layers of the backbone."
        )
    chosen: dict[str, keras.Layer] = {}
    for path in outside:
        within = [p for p in inside if path in ancestors(p) and why_not(everything[p]) is None]
        if not within and (reason := why_not(everything[path])):
            raise ValueError(f"{path} of {model.name} cannot be adapted: {reason}.")
        chosen |= {p: everything[p] for p in within or [path]}
    return {path: layer for path, layer in everything.items() if path in chosen}


def for_layers(setting: Settings, chosen: Mapping[str, keras.Layer]) -> dict[str, Settings]:
    """Return {path: settings} without what a layer cannot have: a bias, dropout of a lookup.

    Args:
        setting: What is asked for.
        chosen: {path: layer}.
    """
    return {
        path: replace(
            setting,
            dropout=0.0 if isinstance(layer, keras.layers.Embedding) else setting.dropout,
            bias=setting.bias and bias_size(layer) > 0,
        )
        for path, layer in chosen.items()
    }


def with_patterns(
    model: keras.Model,
    settings: Mapping[str, Settings],
    ranks: dict[Any, int] | None,
    alphas: dict[Any, float] | None,
) -> dict[str, Settings]:
    """Return settings with the rank and alpha that patterns give to some of the layers.

    Args:
        model: The model.
        settings: {path: settings}.
        ranks: {pattern: rank} or None.
        alphas: {pattern: alpha} or None.

    Raises:
        ValueError: A pattern that matches none of the layers, or a value out of range.
    """
    settings = dict(settings)
    for name, patterns in (("rank", ranks), ("alpha", alphas)):
        for pattern, value in by_pattern(f"{name}s", patterns):
            matched = [path for path, _ in find(model, pattern, f"{name}s")]
            hits = [p for p in settings if p in matched or set(ancestors(p)) & set(matched)]
            if not hits:
                raise ValueError(f"{name}s names {pattern!r}, which is not among the targets.")
            for path in hits:
                values = {**vars(settings[path]), name: value}
                check_settings(values["rank"], values["alpha"], 0, "none")
                settings[path] = Settings(**values)
    return settings


def other_biases(model: keras.Model, chosen: Collection[str]) -> dict[str, Settings]:
    """Return settings of an adapter that is a bias alone, for layers that were not chosen.

    Args:
        model: The model.
        chosen: Paths of the layers with an adapter of rank r.

    Returns:
        {path: settings} for every layer with a bias outside the head.

    Raises:
        ValueError: A layer with a bias that cannot hold adapters.
    """
    found, head = {}, head_paths(model)
    for path, layer in layers(model).items():
        if path in chosen or path in head or not bias_size(layer):
            continue
        if kind_of(layer) is None:
            raise ValueError(
                f'bias="all" cannot adapt {path} of {model.name}, a {type(layer).__name__}.'
            )
        found[path] = Settings(0, 0.0, bias=True)
    return found
