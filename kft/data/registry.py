"""The names under which data sets are found."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from kft.arguments import check_instance
from kft.data.dataset import Dataset

_LOADERS: dict[str, Callable[..., Dataset]] = {}
Loader = TypeVar("Loader", bound=Callable[..., Dataset])


def register(name: str) -> Callable[[Loader], Loader]:
    """Give a data set of your own a name, by which `load` and `kft.compare` find it.

    Args:
        name: Name of the data set. The name of another data set is refused.

    Returns:
        A decorator of the function that makes the `Dataset`, which returns the function itself.
        The arguments of the function are the options of `load`, and all need a default.

    Raises:
        ValueError: The name belongs to another data set.
        TypeError: The decorated object is not a function.

    Example:
        >>> from kft.data.dataset import Split
        >>> @register("two_peptides")
        ... def load_two_peptides(seed: int = 0):
        ...     part = Split(["MKTAYI", "GIGKFL"], [0.5, 1.5])
        ...     return Dataset("two_peptides", "regression", part, None, None, source="typed in",
        ...                    licence="none", citation="", checksum="")
        >>> load("two_peptides").task
        'regression'
        >>> unregister("two_peptides")
    """

    def decorate(loader: Loader) -> Loader:
        if not callable(loader):
            raise TypeError(
                f"A data set is registered as a function that returns a kft.data.Dataset, "
                f"received {loader!r:.80}."
            )
        present = _LOADERS.get(name)
        # A cell of a notebook that is run again defines the same function again.
        if present is not None and _full_name(present) != _full_name(loader):
            raise ValueError(
                f"name {name!r} belongs to the data set {_full_name(present)}: choose another."
            )
        _LOADERS[name] = loader
        return loader

    return decorate


def unregister(name: str) -> None:
    """Remove a name that `register` gave.

    Args:
        name: Name of the data set.

    Raises:
        ValueError: There is no data set of this name.
    """
    _find(name)
    del _LOADERS[name]


def names() -> list[str]:
    """List the names that `load` accepts.

    Returns:
        The names, in alphabetical order.

    Example:
        >>> names()[:3]
        ['amp', 'cells', 'chains']
    """
    return sorted(_LOADERS)


def load(name: str, **options: Any) -> Dataset:
    """Load a data set by name.

    Args:
        name: One of `names()`.
        **options: Options of that data set, for example `crop=True` for "gb1".

    Returns:
        The data set, with train, valid and test, its source and its licence.

    Raises:
        ValueError: The name is unknown.
        TypeError: The data set has no such option, or its function does not return a `Dataset`.

    Example:
        >>> load("amp").task
        'classification'
    """
    loader = _find(name)
    known = tuple(inspect.signature(loader).parameters)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(
            f"data set {name!r} has no option {', '.join(map(repr, unknown))}; "
            + (f"its options are {', '.join(known)}." if known else "it takes none.")
        )
    data = loader(**options)
    if not isinstance(data, Dataset):
        raise TypeError(
            f"{_full_name(loader)}, registered as the data set {name!r}, must return a "
            f"kft.data.Dataset, received {type(data).__name__}."
        )
    return data


def _find(name: str) -> Callable[..., Dataset]:
    check_instance("name", name, str, "the name of a data set")
    if name not in _LOADERS:
        close = difflib.get_close_matches(str(name), _LOADERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"name must be one of {', '.join(names())}; received {name!r}.{hint} Use "
            "kft.data.read_csv for your own file, or kft.data.register for a data set of your own."
        )
    return _LOADERS[name]


def _full_name(loader: Callable[..., Dataset]) -> str:
    named = loader if hasattr(loader, "__qualname__") else type(loader)
    return f"{named.__module__}.{named.__qualname__}"
