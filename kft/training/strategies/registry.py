"""The base class of strategies, and the names under which strategies are found."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import keras

from kft.arguments import check_instance
from kft.training.strategies.phases import Phase


@dataclass(frozen=True)
class Strategy:
    """Base class of strategies: which layers are trainable, in which phases and how fast.

    A strategy of your own is a frozen dataclass that derives from this class and defines `phases`.
    `kft.fit` and `kft.compare` take it as it is; `register` gives it a name.

    Example:
        >>> @dataclass(frozen=True)
        ... class LastNorm(Strategy):
        ...     epochs: int = 3
        ...     learning_rate: float = 1e-3
        ...
        ...     def phases(self, model):
        ...         layers = "final_norm", "head"
        ...         return [Phase("norm and head", layers, self.epochs, self.learning_rate)]
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> done = kft.fit(model, (["MKTAYI", "GSS"], [0.0, 1.0]), LastNorm(), epochs=1, verbose=0)
        >>> done.phases[0].trainable
        961
    """

    def prepare(self, model: keras.Model) -> keras.Model:
        """Add to a model what the strategy needs; here nothing.

        Args:
            model: A `kft.Model`, or any functional Keras model.

        Returns:
            The model to train: the given one, or a copy of it.
        """
        return model

    def phases(self, model: keras.Model) -> list[Phase]:
        """Return the phases of the training; the model is not changed.

        Args:
            model: A model that `prepare` returned.

        Returns:
            List of `Phase`, at least one.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define phases(model), which returns a list of "
            f"kft.strategies.Phase."
        )


_STRATEGIES: dict[str, type] = {}
_OF_PARTS: dict[str, type] = {}  # those that only a model with parts of these names can take
Kind = TypeVar("Kind", bound=type)


def register(name: str, of_part: bool = False) -> Callable[[Kind], Kind]:
    """Give a strategy of your own a name, by which `get`, `kft.fit` and `kft.compare` find it.

    Args:
        name: Name of the strategy. The name of another strategy is refused.
        of_part: Whether only a model with a part of this name can take it, such as a SAM. Then
            `names` does not list it.

    Returns:
        A decorator of the strategy's class, which returns the class itself.

    Raises:
        ValueError: The name belongs to another strategy.
        TypeError: The decorated object is not a dataclass with the methods of `Strategy`.

    Example:
        >>> @register("norm_only")
        ... @dataclass(frozen=True)
        ... class NormOnly(Strategy):
        ...     epochs: int = 3
        ...
        ...     def phases(self, model):
        ...         return [Phase("norm", ("final_norm",), self.epochs, 1e-3)]
        >>> get("norm_only", epochs=2).epochs
        2
        >>> unregister("norm_only")
    """

    def decorate(kind: Kind) -> Kind:
        check_strategy(kind)
        present = _STRATEGIES.get(name)
        # A cell of a notebook that is run again defines the same class again.
        if present is not None and _full_name(present) != _full_name(kind):
            raise ValueError(
                f"name {name!r} belongs to the strategy {_full_name(present)}: choose another."
            )
        (_OF_PARTS if of_part else _STRATEGIES)[name] = kind
        return kind

    return decorate


def unregister(name: str) -> None:
    """Remove a name that `register` gave.

    Args:
        name: Name of the strategy.

    Raises:
        ValueError: There is no strategy of this name.
    """
    _find(name)
    del (_STRATEGIES if name in _STRATEGIES else _OF_PARTS)[name]


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def check_strategy(strategy: object) -> None:
    """Raise an error where an object, or a class, is not a strategy.

    Args:
        strategy: Anything.

    Raises:
        TypeError: It is not a dataclass, or lacks `prepare` or `phases`.
    """
    methods = all(callable(getattr(strategy, name, None)) for name in ("prepare", "phases"))
    if not (methods and is_dataclass(strategy)):
        raise TypeError(
            f"A strategy must be a name of kft.strategies.names() or a dataclass derived from "
            f"kft.strategies.Strategy, received {strategy!r:.80}: with options, write "
            "kft.strategies.get('lora', rank=4)."
        )


def names() -> list[str]:
    """List the names of all strategies, those of kft from the control to the most expensive.

    Returns:
        List of strings, which `get` takes.

    Example:
        >>> names()[:3]
        ['from_scratch', 'linear_probe', 'head_only']
    """
    return list(_STRATEGIES)


def name_of(strategy: object) -> str:
    """Find the name under which `get` finds a strategy.

    Args:
        strategy: A strategy.

    Returns:
        The name; the name of its class where it is not registered.

    Example:
        >>> name_of(get("full"))
        'full'
    """
    kind = type(strategy)
    everything = {**_STRATEGIES, **_OF_PARTS}
    return next((name for name, known in everything.items() if known is kind), kind.__name__)


def get(name: str, **options: Any) -> Strategy:
    """Find a strategy by its name.

    Args:
        name: One of `kft.strategies.names()`.
        **options: Arguments of the strategy, see its class.

    Returns:
        The strategy. `strategy.prepare(model)` adds to a model what it needs,
        `strategy.phases(model)` lists its phases.

    Raises:
        ValueError: Unknown name, or an option that the strategy does not have.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> phases = kft.strategies.get("last_blocks", blocks=2).phases(model)
        >>> phases[0].trainable_layers
        ('block_4', 'block_5', 'final_norm', 'head')
    """
    kind = _find(name)
    known = [f.name for f in fields(kind)]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(
            f"The strategy {name} has no option {unknown[0]!r}; it has {', '.join(known)}."
        )
    return kind(**options)


def _find(name: str) -> type:
    check_instance("name", name, str, "the name of a strategy")
    everything = {**_STRATEGIES, **_OF_PARTS}
    if name not in everything:
        close = difflib.get_close_matches(str(name), everything, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Unknown strategy {name!r}.{hint} Valid are {', '.join(_STRATEGIES)}; for a SAM also "
            f"{', '.join(_OF_PARTS)}."
        )
    return everything[name]
