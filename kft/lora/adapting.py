"""Adding adapters to a model, switching, combining, merging and removing them."""

import math
import numbers
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np

from kft.arguments import check_instance, check_seed
from kft.keras_internals import is_quantized
from kft.lora.kinds import LoRAWhole, kind_of
from kft.lora.layers import Adapted, Settings
from kft.lora.owned import (
    active_adapters,
    adapted,
    check_head,
    check_unmerged,
    claim_unfrozen,
    head_of,
    head_settings,
    heads_on,
    hold,
    names,
)
from kft.lora.sharing import (
    guard_configs,
    retrace,
    retrace_silently,
    trainable_ids,
    unguard_configs,
)
from kft.lora.targets import settings_for
from kft.messages import listed
from kft.params import layers, record_marks, train_only


def add_lora(
    model: keras.Model,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Any = None,
    *,
    name: str = "default",
    rslora: bool = False,
    dora: bool = False,
    bias: Literal["none", "lora_only", "all"] = "none",
    ranks: dict[Any, int] | None = None,
    alphas: dict[Any, float] | None = None,
    seed: int = 0,
) -> list[str]:
    """Add low-rank adapters to layers (Hu et al. 2021) and freeze all but these and the head.

    The outputs do not change at first: B, or A of an `Embedding`, starts at zero. The layers hold
    the adapters; their own weights stay frozen even if `trainable` is set to True. Several adapters
    with different names may be added; the last one is active. The head (of a plain Keras model, the
    `Dense` layers that make its outputs) and layers that `kft.unfreeze` makes trainable belong to
    the adapter, as PEFT's `modules_to_save` do.

    Args:
        model: A `kft.Model`, a backbone of kft or keras-hub, or any functional Keras model.
        rank: Rank r: the number of columns of A and of rows of B.
        alpha: The adapter's output is scaled by alpha / r.
        dropout: Fraction of the inputs that are dropped in training; not for an `Embedding`.
        targets: Patterns of layers, see `kft.freeze`. A layer that contains others selects all
            layers inside it that can be adapted: `Dense`, `EinsumDense`, `Conv2D`, `Embedding`; of
            quantized ones `Dense` and `EinsumDense` in int8.
            None for query and value of a transformer or all blocks of a convolutional network;
            "all-linear" for every `Dense` and `EinsumDense` outside the head.
        name: Name of the adapter: letters, digits, "_" and "-".
        rslora: Whether to scale by alpha / sqrt(r) (Kalajdzievski 2023).
        dora: Whether to train the magnitudes of the columns of W + s A B too (Liu et al. 2024).
        bias: "none"; "lora_only" to train copies of the biases of adapted layers; "all" to train
            those of every layer outside the head.
        ranks: {pattern: rank} of targets with another rank; None for no others.
        alphas: {pattern: alpha} of targets with another alpha; None for no others.
        seed: Int from which A is drawn.

    Returns:
        Paths of the layers with an adapter of rank r, in order.

    Raises:
        ValueError: Numbers out of range; a pattern that matches nothing; targets that cannot be
            adapted, are in the head, or have an adapter of this name.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> kft.add_lora(backbone, rank=4)[:2]
        ['block_0/query', 'block_0/value']
    """
    check_seed("seed", seed)
    check_instance("name", name, str, "a string")
    settings = settings_for(
        model,
        rank,
        alpha,
        dropout,
        targets,
        rslora=rslora,
        dora=dora,
        bias=bias,
        ranks=ranks,
        alphas=alphas,
    )
    return install(model, settings, name, np.random.default_rng(seed))


def install(
    model: keras.Model, settings: Mapping[str, Settings], name: str, rng: np.random.Generator
) -> list[str]:
    """Add one adapter, as `add_lora` and the loading of files do.

    Args:
        model: A built Keras model.
        settings: {path of a layer: its settings}; the head is added to them.
        name: Name of the adapter.
        rng: Generator from which A is drawn.

    Returns:
        Paths of the layers whose rank is not 0.

    Raises:
        ValueError: The name is not one or is taken, adapters are merged, or the head is quantized.
    """
    claim_unfrozen(model)
    settings = {**settings, **head_settings(model)}
    if not re.fullmatch(r"[^\W\d][\w-]*", name):
        raise ValueError(
            f"name must be letters, digits, _ and -, and begin with a letter or _, received "
            f"{name!r}."
        )
    check_head(model)
    everything = layers(model)
    taken = [path for path in settings if name in getattr(everything[path], "adapters", ())]
    if taken:
        raise ValueError(
            f"{listed(taken, 3)} of {model.name} have an adapter {name!r} already: give the new "
            f"one another name, or kft.lora.remove(model, {name!r}) first."
        )
    check_unmerged(model)
    for path, setting in settings.items():
        layer = everything[path]
        if not isinstance(layer, Adapted):
            (kind_of(layer) or LoRAWhole).attach(layer)
        layer.add_adapter(name, setting, rng)
    for layer in heads_on(model, [everything[path] for path in settings]):
        hold(layer, name)
    guard_configs(model)
    activate(model, name)
    return [path for path, setting in settings.items() if setting.rank]


def activate(model: keras.Model, name: str) -> None:
    """Make one adapter the only active one, and freeze all but adapters and head.

    Args:
        model: A model with adapters.
        name: Name of the adapter.
    """
    holders = adapted(model)
    _use(model, {name: 1.0})
    # Adapters that are not active stay frozen until `use` makes them active.
    trainable = {*(path for path, _ in holders), *head_of(model)}
    train_only(model, lambda path: path in trainable)
    record_marks(model)
    retrace(model, [path for path, _ in holders])


def _use(model: keras.Model, weights: dict[str, float]) -> None:
    """Make adapters active in the model and in the heads of others on the same layers."""
    holders = [layer for _, layer in adapted(model)]
    for layer in [*holders, *(x for x in heads_on(model, holders) if isinstance(x, Adapted))]:
        layer.use(weights)


def use(model: keras.Model, active: str | Mapping[str, float] | None) -> None:
    """Switch adapters: make one active, a weighted sum of several, or none.

    An adapter's own copies of weights, such as its head, are switched with it; without adapters the
    outputs are those of the base. In a sum, copies are combined like updates, base + weight
    (adapter - base), and are not trainable, since they belong to no single adapter. If other
    weights become trainable, the model must be compiled again, as with `kft.freeze`.

    Args:
        model: A model with adapters.
        active: Name of one adapter; {name: weight} for a weighted sum of their updates; None for
            the model without adapters.

    Raises:
        ValueError: No adapters, an unknown name, a weight that is not finite, adapters that are
            merged, or magnitudes (DoRA) in a sum.
        TypeError: `active` is of another type.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> for name in ("soluble", "stable"):
        ...     _ = kft.add_lora(backbone, rank=2, name=name)
        >>> kft.lora.use(backbone, {"soluble": 0.5, "stable": 0.5})
        >>> kft.lora.use(backbone, None)
    """
    if not isinstance(active, str | dict | None):
        raise TypeError(f"active must be a name, {{name: weight}} or None, received {active!r}.")
    weights = {} if active is None else {active: 1.0} if isinstance(active, str) else active
    _check_weights(_checked(model, weights), weights)
    check_unmerged(model)
    claim_unfrozen(model)
    paths = [path for path, _ in adapted(model)]
    before = trainable_ids(model)
    _use(model, weights)
    retrace(model, paths, uncompile=trainable_ids(model) != before)


def _check_weights(holders: Sequence[tuple[str, Adapted]], weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        if not (isinstance(weight, numbers.Real) and math.isfinite(weight)):
            raise ValueError(f"weight of {name!r} must be a finite number, received {weight!r}.")
    if len(weights) == 1 and set(weights.values()) == {1.0}:
        return
    for path, layer in holders:
        adapters = [layer.adapters[name] for name in weights if name in layer.adapters]
        if any(adapter.magnitude is not None for adapter in adapters):
            raise ValueError(
                f"{path}: an adapter with magnitudes (DoRA) is used alone and with weight 1, "
                f"received {weights}."
            )


def merge_lora(model: keras.Model) -> None:
    """Add the active adapters to the kernels, so that they take no time any more.

    Adapters that are merged already stay as they are. Merged adapters cannot be trained. A copy
    that is made weight by weight from a merged model (`keras.models.clone_model` or `from_config`,
    then `set_weights`) is merged too and has the same outputs, but cannot be unmerged or saved;
    `copy.deepcopy` and files keep both kernels and adapters.

    Args:
        model: A model with adapters.

    Raises:
        ValueError: No adapters, or one with NaN or infinity, or on quantized layers; then nothing
            is merged.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> _ = kft.add_lora(backbone)
        >>> kft.merge_lora(backbone)
    """
    holders = _checked(model)
    if wrong := [path for path, layer in holders if not layer.is_finite()]:
        raise ValueError(
            f"The adapters of {listed(wrong, 3)} hold NaN or infinity, and nothing was merged: "
            f"their training has diverged. Train again with a smaller learning rate, or load an "
            f"adapter from before."
        )
    if rounded := [path for path, layer in holders if is_quantized(layer)]:
        raise ValueError(
            f"{listed(rounded, 3)} of {model.name} are quantized, and nothing was merged: a merged "
            f"adapter would be rounded with them. Keep the adapter beside them; or save it with "
            f"kft.save_adapter, load the backbone without quantization, then kft.load_adapter and "
            f"kft.merge_lora."
        )
    for _, layer in holders:
        layer.merge()
    retrace_silently(model, [path for path, _ in holders])


def unmerge_lora(model: keras.Model) -> None:
    """Restore the kernels from before merging, bit by bit.

    Args:
        model: A model with adapters, merged or not.

    Raises:
        ValueError: No adapters.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> before = kft.fingerprint(backbone, None)
        >>> _ = kft.add_lora(backbone)
        >>> kft.merge_lora(backbone)
        >>> kft.unmerge_lora(backbone)
        >>> kft.lora.remove(backbone)
        >>> kft.fingerprint(backbone, None) == before
        True
    """
    holders = _checked(model)
    for _, layer in holders:
        layer.unmerge()
    retrace_silently(model, [path for path, _ in holders])


def remove(model: keras.Model, name: str | None = None) -> None:
    """Remove adapters; merged ones stay in the kernels, as a part of a plain model.

    If none of the active adapters is left, the first of the others by alphabet becomes active, as
    in PEFT; the same one in all layers, where PEFT may take several if they are in other layers.
    The layers stay frozen, and the model must be compiled again. Unless the adapters are merged,
    their copies of weights are removed too, so the head is that of the base again. If an adapter
    was merged into the token embedding, a language-model head tied to it uses the merged one.

    Args:
        model: A model with adapters.
        name: Name of one adapter; None for all, after which the layers are plain Keras layers.

    Raises:
        ValueError: No adapters, an unknown name, or one of several that are merged.

    Warns:
        UserWarning: Another adapter became active.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> _ = kft.add_lora(backbone, rank=2)
        >>> kft.lora.remove(backbone)
        >>> kft.lora.names(backbone)
        []
    """
    in_model = _checked(model, [] if name is None else [name])
    if name is not None:
        check_unmerged(model)
    was_active = list(active_adapters(model))
    merged = any(layer.merged for _, layer in in_model)
    holders = [layer for _, layer in in_model]
    holders += [x for x in heads_on(model, holders) if isinstance(x, Adapted) and x not in holders]
    for layer in holders:
        if name in layer.adapters:
            layer.remove_adapter(name)
        if name is None or not layer.adapters:
            layer.detach(merged)
    if not adapted(model):
        unguard_configs(model)
    elif was_active == [name]:
        _use(model, {(new := min(names(model))): 1.0})
        warnings.warn(
            f"{name!r} was the active adapter of {model.name}, and {new!r} is now: call "
            f"kft.lora.use for another one or none.",
            stacklevel=2,
        )
    retrace_silently(model, [path for path, _ in in_model], uncompile=True)


def _checked(model: keras.Model, wanted: Iterable[str] = ()) -> list[tuple[str, Adapted]]:
    """Return `adapted(model)`, and raise an error if it lacks adapters or those that are wanted."""
    holders = adapted(model)
    if not holders:
        raise ValueError(f"{model.name} has no adapters: kft.add_lora(model) adds them.")
    unknown = [name for name in wanted if name not in names(model)]
    if unknown:
        raise ValueError(
            f"{model.name} has no adapter {unknown[0]!r}; it has {', '.join(names(model))}."
        )
    return holders
