"""Data sets and readers: `load` a known one by name, or `read_csv`, `read_fasta`, `read_images`.

`spectrogram` computes an image from a gravitational-wave detector's strain.

To add a data set, write a file with a function that returns a `Dataset`, and add it to `LOADERS`.
Nothing here imports Keras.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from kft.data.dataset import Dataset, Split
from kft.data.gravitational_waves.chirps import load_gravitational_waves
from kft.data.gravitational_waves.strain import spectrogram
from kft.data.images.digits import load_digits
from kft.data.images.folders import read_images
from kft.data.inputs import Encoder, InputKind
from kft.data.proteins.amp import load_amp
from kft.data.proteins.chains import load_chains
from kft.data.proteins.fasta import Record, read_fasta
from kft.data.proteins.flip import load_gb1, load_secondary_structure
from kft.data.tables import read_csv
from kft.data.task import Task

__all__ = [
    "Dataset",
    "Encoder",
    "InputKind",
    "Record",
    "Split",
    "Task",
    "load",
    "names",
    "read_csv",
    "read_fasta",
    "read_images",
    "spectrogram",
]

LOADERS: dict[str, Callable[..., Dataset]] = {
    "amp": load_amp,
    "chains": load_chains,
    "digits": load_digits,
    "gb1": load_gb1,
    "gravitational_waves": load_gravitational_waves,
    "secondary_structure": load_secondary_structure,
}


def names() -> list[str]:
    """List the names that `load` accepts.

    Returns:
        The names, in alphabetical order.

    Example:
        >>> names()
        ['amp', 'chains', 'digits', 'gb1', 'gravitational_waves', 'secondary_structure']
    """
    return list(LOADERS)


def load(name: str, **options: Any) -> Dataset:
    """Load a data set by name.

    Args:
        name: One of `names()`.
        **options: Options of that data set, for example `crop=True` for "gb1".

    Returns:
        The data set, with train, valid and test, its source and its licence.

    Raises:
        ValueError: The name is unknown.
        TypeError: The data set has no such option.

    Example:
        >>> load("amp").task
        'classification'
    """
    if name not in LOADERS:
        close = difflib.get_close_matches(str(name), LOADERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"name must be one of {', '.join(LOADERS)}; received {name!r}.{hint} Use "
            "kft.data.read_csv for your own file."
        )
    known = tuple(inspect.signature(LOADERS[name]).parameters)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(
            f"data set {name!r} has no option {', '.join(map(repr, unknown))}; "
            + (f"its options are {', '.join(known)}." if known else "it takes none.")
        )
    return LOADERS[name](**options)
