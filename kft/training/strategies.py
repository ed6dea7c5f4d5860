"""Strategies: what learns, in which phases and how fast. `kft.fit` runs them.

A strategy marks what learns in its first phase, by `layer.trainable`, and returns all phases.
From cheap to dear: linear_probe, head_only, last_blocks, gradual_unfreezing, lora, full;
from_scratch is the control that says whether pre-training helped. `AsMarked` chooses nothing: what
is marked trainable learns.
"""

import difflib
import math
import numbers
from dataclasses import dataclass, field, fields, replace

import keras
import numpy as np

from kft.backbones import randomised
from kft.lora import add_lora, remove
from kft.lora import names as adapter_names
from kft.lora.owned import adapted
from kft.models import Model, flat
from kft.params import find, layers, sign, train_only, unfreeze, weights
from kft.params.paths import ancestors, by_pattern

# Phases -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phase:
    """What learns for some epochs, and how fast.

    Attributes:
        name: for the log.
        model: the model that learns; a copy for from_scratch, else the one given.
        learns: paths of the layers that learn, None for all.
        epochs: how many; 0 where the head is solved for in closed form.
        rate: the highest learning rate.
        warmup: share of the steps in which the rate rises to it.
        factors: {path of a weight: what multiplies its rate}, 1 for those not named.
    """

    name: str
    model: keras.Model = field(repr=False)
    learns: tuple[str, ...] | None
    epochs: int
    rate: float
    warmup: float = 0.1
    factors: dict[str, float] = field(default_factory=dict, repr=False)

    def mark(self):
        """Freezes all but what learns in this phase."""
        if self.learns is None:
            unfreeze(self.model)
        else:
            train_only(self.model, lambda path: path in self.learns)
        sign(self.model)


@dataclass(frozen=True)
class _PhaseAsMarked(Phase):
    """A phase in which everything stays marked as it is."""

    def mark(self):
        """Changes nothing."""


def _groups(model):
    """The layers that are unfrozen together, from the input on, and those of the head.

    A stage without a matrix, as a norm or dropout is, goes with the one before it.
    """
    stages, heads = _stages(model)
    groups = []
    for stage in stages:
        if groups and all(len(w.shape) < 2 for w in stage.weights):
            groups[-1].append(stage)
        else:
            groups.append([stage])
    if not groups:
        raise ValueError(f"{model.name} has no layers with weights before its head.")
    return groups, heads


def _stages(model):
    """The layers before the head, and those of the head."""
    backbone, head = getattr(model, "backbone", None), getattr(model, "head", None)
    stages, heads = getattr(backbone, "stages", None), [head]
    if stages is None:
        stages = [x for x in flat(backbone or model).layers if not _is_input(x)]
        if head is None:
            # What has no weights and feeds the head, dropout above all, belongs to it.
            last = max(i for i, layer in enumerate(stages) if layer.weights)
            while last and not stages[last - 1].weights:
                last -= 1
            stages, heads = stages[:last], stages[last:]
    return stages, heads


def _is_input(layer):
    return isinstance(layer, keras.layers.InputLayer)


def _paths(model, *parts):
    """Paths of layers, each part a layer or a list of them."""
    wanted = {id(x) for part in parts for x in (part if isinstance(part, list) else [part])}
    return tuple(path for path, layer in layers(model).items() if id(layer) in wanted)


def _factors(model, decay, rates):
    """What multiplies the rate of each weight: decay per group from the head on, then `rates`."""
    groups, _ = _groups(model)
    by_id = {
        id(w): decay**depth
        for depth, group in enumerate(reversed(groups), 1)
        for layer in group
        for w in layer.weights
    }
    for pattern, factor in by_pattern("rates", rates):
        for _, layer in find(model, pattern):
            by_id |= {id(w): by_id.get(id(w), 1.0) * factor for w in layer.weights}
    return {w.path: f for w in weights(model) if (f := by_id.get(id(w.variable), 1.0)) != 1.0}


# Strategies -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AsMarked:
    """Trains what is marked trainable, as it is: what `kft.fit` does where no strategy is named.

    When: you have chosen yourself what learns, by `layer.trainable` or with `kft.freeze`.

    Args:
        epochs, rate: None for those of the named strategy that trains as much: of `head_only` where
            no weight outside the head learns, of `full` where all do, of `lora` where adapters do,
            else of `last_blocks`.
        warmup: share of the steps in which the rate rises.
    """

    epochs: int | None = None
    rate: float | None = None
    warmup: float = 0.1

    def filled(self, model):
        """The strategy with numbers for epochs and rate.

        Args:
            model: a functional Keras model, marked.

        Returns:
            (AsMarked, the name of the strategy whose numbers it took).

        Raises:
            ValueError: nothing is marked trainable.
        """
        if not model.trainable_variables:
            raise ValueError(
                f"No weight of {model.name} is marked trainable, so there is nothing to learn: "
                f"kft.unfreeze(model) or layer.trainable = True lets layers learn, or name "
                f"a strategy, one of {', '.join(_STRATEGIES)}."
            )
        name = _like(model)
        taken = {
            option: getattr(get(name), option)
            for option in ("epochs", "rate")
            if getattr(self, option) is None
        }
        return replace(self, **taken), name

    def __call__(self, model):
        own, _ = self.filled(model)
        learns = tuple(
            dict.fromkeys(w.path.rpartition("/")[0] for w in weights(model) if w.trainable)
        )
        return [_PhaseAsMarked("as marked", model, learns, own.epochs, own.rate, own.warmup)]


def _like(model):
    """The name of the strategy that trains about as much as is marked."""
    found = weights(model)
    if adapter_names(model):
        return "lora"
    if not any(weight.frozen for weight in found):
        return "full"
    heads = _paths(model, _stages(model)[1])
    in_head = [any(part in heads for part in ancestors(w.path)) for w in found if w.trainable]
    return "head_only" if all(in_head) else "last_blocks"


@dataclass(frozen=True)
class LinearProbe:
    """Solves for the head on features of the frozen backbone, in closed form, in seconds.

    When: first of all. It tells what the backbone knows as it is, and what a costlier strategy
    has to beat.

    Args:
        rows: most training rows, residues for a per-residue head; more are drawn at random.
    """

    rows: int = 200_000

    def __call__(self, model):
        _, heads = _groups(model)
        # Not what pools: no closed form finds its weights.
        solved = [getattr(head, "dense", head) for head in heads]
        return _marked([Phase("solve for the head", model, _paths(model, solved), 0, 0.0)])


@dataclass(frozen=True)
class HeadOnly:
    """Trains the head by gradient on a frozen backbone.

    When: there are a few hundred records, or the head is more than one linear layer. What is
    frozen is computed once, so that an epoch costs next to nothing.

    Args:
        epochs: how many.
        rate: highest learning rate.
        warmup: share of the steps in which the rate rises.
    """

    epochs: int = 20
    rate: float = 1e-3
    warmup: float = 0.1

    def __call__(self, model):
        _, head = _groups(model)
        learns = _paths(model, head)
        return _marked([Phase("head", model, learns, self.epochs, self.rate, self.warmup)])


@dataclass(frozen=True)
class LastBlocks:
    """Trains the head and the last blocks; early blocks stay as they were.

    When: there are some hundred to some thousand records whose task is near the pre-training's:
    early layers hold what is general, late ones what is special to a task.

    Args:
        blocks: how many, counted from the end.
        epochs, rate, warmup: as in `HeadOnly`.
        layer_decay: what multiplies the rate of each block, once more per block from the head on.
        rates: {pattern of layers: what multiplies their rate}.
    """

    blocks: int = 2
    epochs: int = 10
    rate: float = 3e-4
    warmup: float = 0.1
    layer_decay: float = 1.0
    rates: dict | None = None

    def __call__(self, model):
        groups, head = _groups(model)
        if not 1 <= self.blocks < len(groups):
            raise ValueError(
                f"blocks must be 1 to {len(groups) - 1} for {model.name}, received "
                f"{self.blocks!r}: the strategy 'full' trains everything."
            )
        learns = _paths(model, *groups[-self.blocks :], head)
        factors = _factors(model, self.layer_decay, self.rates)
        name = f"head and last {self.blocks} blocks" if self.blocks > 1 else "head and last block"
        return _marked([Phase(name, model, learns, self.epochs, self.rate, self.warmup, factors)])


@dataclass(frozen=True)
class GradualUnfreezing:
    """Trains the head first and unfreezes one more block per phase (Howard and Ruder 2018).

    When: full fine-tuning is unstable or forgets: the late blocks settle before early ones move.

    Args:
        epochs: in all; one per phase and the rest in the last. With fewer than phases, several
            blocks are unfrozen at once.
        rate, warmup, rates: as in `LastBlocks`.
        layer_decay: as in `LastBlocks`; the paper has 1/2.6 on four layers.
    """

    epochs: int = 10
    rate: float = 3e-4
    warmup: float = 0.1
    layer_decay: float = 0.9
    rates: dict | None = None

    def __call__(self, model):
        groups, head = _groups(model)
        steps = [head, *reversed(groups)]
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, received {self.epochs}.")
        cut = np.array_split(np.arange(len(steps)), min(self.epochs, len(steps)))
        factors = _factors(model, self.layer_decay, self.rates)
        phases, learns = [], ()
        for i, part in enumerate(cut):
            new = _paths(model, *(steps[k] for k in part))
            learns += new
            epochs = 1 if i + 1 < len(cut) else self.epochs - len(cut) + 1
            name = f"{'and ' * bool(i)}{', '.join(new)}"
            phases.append(Phase(name, model, learns, epochs, self.rate, self.warmup, factors))
        return _marked(phases)


@dataclass(frozen=True)
class LoRA:
    """Trains the head and low-rank adapters (Hu et al. 2021); see `kft.add_lora`.

    When: for most things that `full` is for, at a fraction of the memory, with a file of a few
    hundred kilobytes as the result, and with less to forget.

    Args:
        rank, alpha, dropout, targets, rslora, dora, bias: as for `kft.add_lora`. A model that has
            adapters keeps them, and these learn.
        epochs, rate, warmup, layer_decay, rates: as in `LastBlocks`.
        b_ratio: what multiplies the rate of B, above 0; LoRA+ (Hayou et al. 2024) takes 16.
        seed: int from which A is drawn, None for that of `kft.fit`.
    """

    rank: int = 8
    alpha: float = 16
    dropout: float = 0.0
    targets: list | str | None = None
    rslora: bool = False
    dora: bool = False
    bias: str = "none"
    epochs: int = 10
    rate: float = 1e-3
    warmup: float = 0.1
    layer_decay: float = 1.0
    rates: dict | None = None
    b_ratio: float = 1.0
    seed: int | None = None

    def __call__(self, model):
        ratio = self.b_ratio
        if not (isinstance(ratio, numbers.Real) and 0 < ratio < math.inf):
            raise ValueError(
                f"b_ratio must be a number above 0, 1 for the same rate, received {ratio!r}."
            )
        _, head = _groups(model)
        if not adapter_names(model):
            add_lora(
                model, self.rank, self.alpha, self.dropout, self.targets, rslora=self.rslora,
                dora=self.dora, bias=self.bias, seed=self.seed or 0,
            )  # fmt: skip
        holders = [layer for _, layer in adapted(model)]
        if not any(layer.active and not layer.merged for layer in holders):
            raise ValueError(
                f"The adapters of {model.name} are switched off or merged: call kft.lora.use or "
                f"kft.unmerge_lora first."
            )
        learns = (*_paths(model, holders), *_paths(model, head))
        factors = _factors(model, self.layer_decay, self.rates)
        if ratio != 1:
            second = {id(x.b) for layer in holders for x in layer.adapters.values()}
            for weight in weights(model):
                if id(weight.variable) in second:
                    factors[weight.path] = factors.get(weight.path, 1.0) * ratio
        name = "adapters and head"
        return _marked([Phase(name, model, learns, self.epochs, self.rate, self.warmup, factors)])


@dataclass(frozen=True)
class Full:
    """Trains all weights for a few epochs, with a warm-up.

    When: there are thousands of records, or the task is far from the pre-training's.

    Args:
        epochs, rate, warmup, layer_decay, rates: as in `LastBlocks`.
    """

    epochs: int = 5
    rate: float = 1e-4
    warmup: float = 0.1
    layer_decay: float = 1.0
    rates: dict | None = None

    def __call__(self, model):
        if adapter_names(model):
            raise ValueError(
                f"{model.name} has adapters, beside which kernels never learn: train it with "
                f"'lora', or kft.lora.remove(model) first."
            )
        factors = _factors(model, self.layer_decay, self.rates)
        name = "all weights"
        return _marked([Phase(name, model, None, self.epochs, self.rate, self.warmup, factors)])


@dataclass(frozen=True)
class FromScratch:
    """Trains all weights of a re-initialised copy; the given model keeps its weights.

    When: to know whether pre-training helped. What a fine-tuned model gains over this control is
    what the pre-trained weights were worth.

    Args:
        epochs, rate, warmup: as in `Full`; it learns from nothing, so more and faster.
        seed: int from which the weights are drawn, None for that of `kft.fit`.
    """

    epochs: int = 20
    rate: float = 1e-3
    warmup: float = 0.1
    seed: int | None = None

    def __call__(self, model):
        copy = _reinitialised(model, self.seed or 0)
        return _marked([Phase("all weights", copy, None, self.epochs, self.rate, self.warmup)])


def _reinitialised(model, seed):
    """A copy with new weights: an ESM-2 as `kft.load(..., weights=False)` makes it.

    The same is done with other models: each matrix that its initializer does not leave at one
    value is drawn normal with deviation 1 / sqrt(inputs), by numpy.
    """
    if isinstance(model, Model):
        copy = Model.from_config(model.get_config())
    else:
        copy = keras.models.clone_model(model)
    if adapter_names(copy):
        remove(copy)
    rng = np.random.default_rng(seed)
    given = {weight.path: weight.variable for weight in weights(model)}
    for weight in weights(copy):
        if isinstance(weight.layer, keras.layers.Normalization):  # of the data, not learned
            weight.variable.assign(given[weight.path].value)
            continue
        shape = weight.variable.shape
        if np.ptp(keras.ops.convert_to_numpy(weight.variable.value).astype("float32")) > 0:
            table = isinstance(weight.layer, keras.layers.Embedding)
            inputs = shape[-1] if table else int(np.prod(shape[:-1]))
            drawn = rng.standard_normal(shape, dtype="float32") / np.sqrt(max(inputs, 1))
            weight.variable.assign(drawn.astype("float32"))
    if hasattr(getattr(copy, "backbone", None), "stages"):
        randomised(copy.backbone, seed)
    return copy


def _marked(phases):
    phases[0].mark()
    return phases


_STRATEGIES = {
    "from_scratch": FromScratch,
    "linear_probe": LinearProbe,
    "head_only": HeadOnly,
    "last_blocks": LastBlocks,
    "gradual_unfreezing": GradualUnfreezing,
    "lora": LoRA,
    "full": Full,
}


def names():
    """The strategies that `get` knows, a list of strings from the control to the costliest."""
    return list(_STRATEGIES)


def name_of(strategy):
    """What `get` knows a strategy as, else the name of its class."""
    return next((n for n, kind in _STRATEGIES.items() if kind is type(strategy)),
                type(strategy).__name__)  # fmt: skip


def get(name, **options):
    """Finds a strategy by name.

    Args:
        name: one of `kft.strategies.names()`.
        **options: the strategy's arguments, see its class.

    Returns:
        The strategy: called with a model, it marks what learns first and returns its phases.

    Raises:
        ValueError: unknown name, or an option the strategy does not have.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> phases = kft.strategies.get("last_blocks", blocks=2)(model)
        >>> phases[0].learns
        ('block_4', 'block_5', 'final_norm', 'head')
    """
    if name not in _STRATEGIES:
        close = difflib.get_close_matches(str(name), _STRATEGIES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown strategy {name!r}.{hint} Valid are {', '.join(_STRATEGIES)}.")
    known = [f.name for f in fields(_STRATEGIES[name])]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f"{name} has no option {unknown[0]!r}; it has {', '.join(known)}.")
    return _STRATEGIES[name](**options)
