"""Adding adapters to a model, switching, combining, merging and removing them."""

import functools
import math
import numbers
import re
import warnings

import keras
import numpy as np

from kft.backbones.composite import Composite
from kft.backbones.esm2.model import ESM2, MaskedLM
from kft.keras_internals import models_in_use, optimizer_weights, sublayers_of
from kft.lora.kinds import LoRAWhole, bias_size, kind_of, why_not
from kft.lora.layers import Adapted, Settings
from kft.lora.owned import (
    adapted,
    beside,
    head_of,
    head_paths,
    head_settings,
    hold,
    names,
    take_strays,
)  # fmt: skip
from kft.params import find, layers, sign, train_only
from kft.params.paths import ancestors, by_pattern, listed

ALL_LINEAR = "all-linear"


def add_lora(
    model, rank=8, alpha=16, dropout=0.0, targets=None, *, name="default",
    rslora=False, dora=False, bias="none", ranks=None, alphas=None, seed=0,
):  # fmt: skip
    """Adds low-rank adapters to layers (Hu et al. 2021) and freezes all but these and the head.

    At the start the model answers as before: B, or A of an `Embedding`, is zero. A layer becomes
    one that holds adapters, in place; its kernel and bias never learn, whatever `trainable` is set
    to. Several adapters with different names may be added; the last one added counts. The head of
    a plain Keras model are the `Dense` layers that make its outputs; where it ends in something
    else, unfreeze that with `kft.unfreeze`. The head, and what `kft.unfreeze` lets learn, belong
    to the adapter, as PEFT's `modules_to_save` do.

    Args:
        model: a `kft.Model`, a backbone of kft or keras-hub, or any functional Keras model.
        rank: r, columns of A and rows of B.
        alpha: the adapter's output is scaled by alpha / r.
        dropout: share of an adapter's inputs that are dropped in training; not of an `Embedding`.
        targets: patterns of layers, see `kft.freeze`; None for what suits the backbone, query and
            value of a transformer and all blocks of a convolutional network; or "all-linear" for
            every `Dense` and `EinsumDense` that is not in the head. A layer that is made of others
            stands for all in it that can be adapted: `Dense`, `EinsumDense`, `Conv2D` and
            `Embedding`.
        name: of the adapter, an identifier.
        rslora: scale by alpha / sqrt(r) (Kalajdzievski 2023).
        dora: learn the magnitudes of the columns of W + s A B too (Liu et al. 2024).
        bias: "none"; "lora_only" for biases of adapted layers that learn; "all" for those of every
            layer outside the head. They are the adapter's own: without it, the model has its old.
        ranks, alphas: {pattern: value} for layers that differ.
        seed: int from which A is drawn.

    Returns:
        list of the paths of the layers with an adapter of rank r, in order.

    Raises:
        ValueError: numbers out of range; a pattern that matches nothing; targets that cannot be
            adapted, are in the head, or have an adapter of this name.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> kft.add_lora(model, rank=4)[:2]
        ['block_0/query', 'block_0/value']
        >>> kft.parameters(model).trainable  # 12 layers of 4 (320 + 320), and the head
        31041
    """
    _check(name, rank, alpha, dropout, bias)
    chosen = _targets(model, targets)
    settings = {
        path: Settings(
            rank, alpha, 0.0 if _is_table(layer) else dropout, rslora, dora,
            bias != "none" and bias_size(layer) > 0,
        )
        for path, layer in chosen.items()
    }  # fmt: skip
    settings = _differing(model, settings, ranks, alphas)
    if bias == "all":
        settings |= _biases(model, chosen)
    return install(model, settings, name, np.random.default_rng(seed))


def install(model, settings, name, rng):
    """Adds one adapter: what `add_lora` and the loading of files have in common.

    Args:
        model: a built Keras model.
        settings: {path of a layer: `Settings`}.
            The head is added to them.
        name: of the adapter.
        rng: numpy generator.

    Returns:
        list of the paths whose rank is not 0.
    """
    take_strays(model)
    settings = settings | head_settings(model)
    if not name.isidentifier():
        raise ValueError(f"name must be an identifier, received {name!r}.")
    everything = layers(model)
    there = [path for path in settings if name in getattr(everything[path], "adapters", ())]
    if there:
        raise ValueError(
            f"{listed(there, 3)} of {model.name} have an adapter {name!r} already: give the new "
            f"one another name, or kft.lora.remove(model, {name!r}) first."
        )
    insist_unmerged(model)
    for path, setting in settings.items():
        layer = everything[path]
        if not isinstance(layer, Adapted):
            (kind_of(layer) or LoRAWhole).take_over(layer)
        layer.add_adapter(name, setting, rng)
    for layer in beside(model, [everything[path] for path in settings]):
        hold(layer, name)
    _guard_configs(model)
    activate(model, name)
    return [path for path, setting in settings.items() if setting.rank]


def activate(model, name):
    """Lets one adapter count alone, and freezes all but adapters and head."""
    found = adapted(model)
    _count(model, {name: 1.0})
    # Those that do not count sleep wherever they are, until `use` calls them.
    learns = {*(path for path, _ in found), *head_of(model)}
    train_only(model, lambda path: path in learns)
    sign(model)
    _say(_compiled_anew(model, [path for path, _ in found]))


def _count(model, shares):
    """Lets adapters count, in the model and in the heads of others on the same layers."""
    found = [layer for _, layer in adapted(model)]
    for layer in [*found, *(x for x in beside(model, found) if isinstance(x, Adapted))]:
        layer.use(shares)


def use(model, active):
    """Switches adapters: one, several that are added up, or none.

    What an adapter has in full, its head for one, is switched with it; without adapters the base's
    answers. Of several the weights are added up as the updates are, base + share (adapter - base),
    and what is theirs in full does not learn meanwhile: it would be nobody's. A change of what
    learns un-compiles the model, as `kft.freeze` does.

    Args:
        model: a model with adapters.
        active: the name of one adapter; {name: share} for a weighted sum of their updates; None
            for the model without them.

    Raises:
        ValueError: no adapters, an unknown name, a share that is no finite number, adapters that
            are merged, or magnitudes (DoRA) in a combination.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> for name in ("soluble", "stable"):
        ...     _ = kft.add_lora(backbone, rank=2, name=name)
        >>> kft.lora.use(backbone, {"soluble": 0.5, "stable": 0.5})
        >>> kft.lora.use(backbone, None)
    """
    if not isinstance(active, str | dict | None):
        raise TypeError(f"active must be a name, {{name: share}} or None, received {active!r}.")
    shares = {} if active is None else {active: 1.0} if isinstance(active, str) else active
    found = _insist(model, shares)
    for name, share in shares.items():
        if not (isinstance(share, numbers.Real) and math.isfinite(share)):
            raise ValueError(f"share of {name!r} must be a finite number, received {share!r}.")
    insist_unmerged(model)
    plain = len(shares) == 1 and set(shares.values()) == {1.0}
    for path, layer in found:
        if not plain and any(layer.adapters[n].magnitude is not None for n in shares
                             if n in layer.adapters):  # fmt: skip
            raise ValueError(
                f"{path}: an adapter with magnitudes (DoRA) counts alone and with share 1, "
                f"received {shares}."
            )
    take_strays(model)
    found = adapted(model)
    awake = _awake(model)
    _count(model, shares)
    _say(_compiled_anew(model, [path for path, _ in found], uncompile=_awake(model) != awake))


def merge_lora(model):
    """Puts the active adapters into the kernels, so that they cost nothing any more.

    Does nothing where they are merged already. While they are, they cannot learn. A copy that is
    made weight by weight meanwhile (`keras.models.clone_model` or `from_config`, then
    `set_weights`) is merged too and answers the same, but cannot be unmerged or saved;
    `copy.deepcopy` and files hold both.

    Args:
        model: a model with adapters.

    Raises:
        ValueError: no adapters.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> _ = kft.add_lora(backbone)
        >>> kft.merge_lora(backbone)
    """
    found = _insist(model)
    for _, layer in found:
        layer.merge()
    _compiled_anew(model, [path for path, _ in found])


def unmerge_lora(model):
    """Takes merged adapters out again: the kernels are what they were, bit by bit.

    Args:
        model: a model with adapters; merged or not.

    Raises:
        ValueError: no adapters.

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
    found = _insist(model)
    for _, layer in found:
        layer.unmerge()
    _compiled_anew(model, [path for path, _ in found])


def remove(model, name=None):
    """Forgets adapters. What is merged stays in the kernels; that is how a plain model is made.

    The layers stay frozen, and the model is not compiled any more. Unless the adapters are merged,
    what they have in full goes with them: the head is the base's again. A language-model head,
    which is tied to the table of tokens, then reads what was merged into that.

    Args:
        model: a model with adapters.
        name: one adapter; None for all, after which the layers are plain Keras layers again.

    Raises:
        ValueError: no adapters, an unknown name, or one of several that are merged.
    """
    found = _insist(model, [] if name is None else [name])
    if name is not None:
        insist_unmerged(model)
    merged = any(layer.merged for _, layer in found)
    holders = [layer for _, layer in found]
    holders += [x for x in beside(model, holders) if isinstance(x, Adapted) and x not in holders]
    for layer in holders:
        if name in layer.adapters:
            layer.remove_adapter(name)
        if name is None or not layer.adapters:
            layer.leave(merged)
    if not adapted(model):
        for part in [model, *layers(model).values()]:
            vars(part).pop("get_config", None)
    _compiled_anew(model, [path for path, _ in found], uncompile=True)


# What is asked for --------------------------------------------------------------------------------


def _check(name, rank, alpha, dropout, bias):
    for what, value, number, kind in (
        ("rank", rank, numbers.Integral, "an integer above 0"),
        ("alpha", alpha, numbers.Real, "a number above 0"),
    ):
        # bool is an Integral
        if isinstance(value, bool) or not (isinstance(value, number) and 0 < value < math.inf):
            raise ValueError(f"{what} must be {kind}, received {value!r}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, received {dropout!r}.")
    if bias not in ("none", "lora_only", "all"):
        raise ValueError(f"bias must be none, lora_only or all, received {bias!r}.")


def _targets(model, targets):
    """{path: layer} of what is to be adapted."""
    everything, head = layers(model), head_paths(model)
    if targets is None:
        backbone = getattr(model, "backbone", model)
        targets = getattr(backbone, "lora_targets", ("query", "value"))
    if isinstance(targets, str) and targets == ALL_LINEAR:
        linear = (keras.layers.Dense, keras.layers.EinsumDense)
        found = [p for p, x in everything.items() if isinstance(x, linear) and p not in head]
        if not found:
            raise ValueError(f"{model.name} has no Dense or EinsumDense outside its head.")
        matched, inside = found, []
    else:
        wanted = list(targets) if isinstance(targets, tuple) else targets
        matched = [path for path, _ in find(model, wanted)]
        inside = [p for p in everything if set(ancestors(p)) & set(matched)]
    outside = [path for path in matched if path not in head]
    if not outside:
        raise ValueError(
            f"targets {targets!r} match {listed(matched, 3)}, which belongs to the head: it learns "
            f"in full, without adapters."
        )
    chosen = {}
    for path in outside:
        within = [p for p in inside if path in ancestors(p) and why_not(everything[p]) is None]
        if not within and (reason := why_not(everything[path])):
            raise ValueError(f"{path} of {model.name} cannot be adapted: {reason}.")
        chosen |= {p: everything[p] for p in within or [path]}
    return {path: layer for path, layer in everything.items() if path in chosen}


def _differing(model, settings, ranks, alphas):
    """Settings with the rank and alpha that patterns give to some of the layers."""
    for what, patterns in (("rank", ranks), ("alpha", alphas)):
        for pattern, value in by_pattern(f"{what}s", patterns):
            matched = [path for path, _ in find(model, pattern)]
            hits = [p for p in settings if p in matched or set(ancestors(p)) & set(matched)]
            if not hits:
                raise ValueError(f"{what}s names {pattern!r}, which is none of the targets.")
            for path in hits:
                values = {**vars(settings[path]), what: value}
                _check("", values["rank"], values["alpha"], 0, "none")
                settings[path] = Settings(**values)
    return settings


def _biases(model, chosen):
    """{path: settings of a bias alone} for every layer outside the head that was not chosen."""
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


def _is_table(layer):
    return isinstance(layer, keras.layers.Embedding)


def insist_unmerged(model):
    if any(layer.merged for _, layer in adapted(model)):
        raise ValueError(f"{model.name} has merged adapters: call kft.unmerge_lora first.")


def _insist(model, wanted=()):
    found = adapted(model)
    if not found:
        raise ValueError(f"{model.name} has no adapters: kft.add_lora(model) adds them.")
    unknown = [name for name in wanted if name not in names(model)]
    if unknown:
        raise ValueError(
            f"{model.name} has no adapter {unknown[0]!r}; it has {', '.join(names(model))}."
        )
    return found


# What a change leaves behind ----------------------------------------------------------------------


def _awake(model):
    return {id(v) for v in model.trainable_variables}


def _compiled_anew(model, paths, uncompile=False):
    """Lets every model that shares the layers trace them once more; those that were uncompiled.

    A traced function would go on computing what it has seen, and a backbone may be part of several
    models. Keras keeps no list of them.
    """
    everything = layers(model)
    changed = {id(everything[path]) for path in paths}
    uncompiled = []
    for other in {id(x): x for x in [model, *models_in_use()]}.values():
        if other is not model and not any(id(x) in changed for x in sublayers_of(other)):
            continue
        other.train_function = other.test_function = other.predict_function = None
        if getattr(other, "compiled", False) and (
            uncompile or (other is not model and _stale(other))
        ):
            other.compiled, other.optimizer = False, None
            uncompiled.append(other.name)
    return sorted(set(uncompiled))


def _say(uncompiled):
    if uncompiled:
        warnings.warn(
            f"model {', '.join(map(repr, uncompiled))} was compiled, and what learns has changed "
            f"since: call compile again before fit.",
            stacklevel=4,
        )


def _stale(model):
    """Whether the optimizer was built for other variables."""
    known = optimizer_weights(model.optimizer)
    return bool(known) and {id(v) for v in known} != _awake(model)


def _guard_configs(model):
    """Lets layers of foreign classes refuse to be saved: they would come back without adapters."""
    if getattr(getattr(model, "backbone", model), "keeps_adapters", False):
        return
    everything = {"": model, **layers(model)}
    # A `kft.Model` tells of its head, whatever that is made of.
    told = head_paths(model) if getattr(model, "keeps_head", False) else ()
    for path in [path for path, _ in adapted(model) if path not in told]:
        for parent in ["", *ancestors(path)]:
            layer = everything[parent]
            if not _keeps_parts(layer):
                # By hand: it is no state of the layer, and not to be tracked.
                vars(layer)["get_config"] = functools.partial(_refuse, type(layer).__name__, path)


def _keeps_parts(layer):
    """Whether a layer's config tells of the layers in it."""
    if isinstance(layer, Composite | ESM2 | MaskedLM) or hasattr(layer, "adapters"):
        return True
    told = re.match(r"(Functional|Sequential|Model)\.", type(layer).get_config.__qualname__)
    return told is not None and type(layer).get_config.__module__.startswith(("keras.", "kft."))


def _refuse(kind, path):
    raise ValueError(
        f"The adapter of {path} is inside a {kind}, whose config does not tell of it: the model "
        f"cannot be saved as a whole. Save the adapter with kft.save_adapter(model, folder), or "
        f"kft.merge_lora(model) and kft.lora.remove(model) before saving."
    )
