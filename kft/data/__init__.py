"""Data sets and readers: `load` a known one by name, or `read_csv`, `read_fasta`, `read_images`.

`spectrogram` makes an image of a gravitational-wave detector's strain.

To add a data set, write one file with a function that returns a `Dataset`, and name it in
`LOADERS`. Nothing here knows Keras.
"""

import difflib
import inspect

from kft.data.dataset import Dataset, Split
from kft.data.gravitational_waves.chirps import load_gravitational_waves
from kft.data.gravitational_waves.strain import spectrogram
from kft.data.images.digits import load_digits
from kft.data.images.folders import read_images
from kft.data.proteins.amp import load_amp
from kft.data.proteins.chains import load_chains
from kft.data.proteins.fasta import Record, read_fasta
from kft.data.proteins.flip import load_gb1, load_secondary_structure
from kft.data.tables import read_csv

__all__ = [
    "Dataset",
    "Record",
    "Split",
    "load",
    "names",
    "read_csv",
    "read_fasta",
    "read_images",
    "spectrogram",
]

LOADERS = {
    "amp": load_amp,
    "chains": load_chains,
    "digits": load_digits,
    "gb1": load_gb1,
    "gravitational_waves": load_gravitational_waves,
    "secondary_structure": load_secondary_structure,
}


def names():
    """Return the names that `load` knows.

    Returns:
        tuple of str.

    Example:
        >>> names()
        ('amp', 'chains', 'digits', 'gb1', 'gravitational_waves', 'secondary_structure')
    """
    return tuple(LOADERS)


def load(name, **options):
    """Load a data set by name.

    Args:
        name: one of `names()`.
        **options: of that data set, for instance `crop=True` for "gb1".

    Returns:
        Dataset: with train, valid and test, and where it comes from.

    Raises:
        ValueError: if the name is unknown.
        TypeError: if the data set has no such option.

    Example:
        >>> load("amp").task
        'classification'
    """
    if name not in LOADERS:
        close = difflib.get_close_matches(str(name), LOADERS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"`name` must be one of {', '.join(LOADERS)}; got {name!r}.{hint} Your own file is "
            "read by kft.data.read_csv."
        )
    known = tuple(inspect.signature(LOADERS[name]).parameters)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(
            f"data set {name!r} has no option {', '.join(map(repr, unknown))}; "
            + (f"its options are {', '.join(known)}." if known else "it takes none.")
        )
    return LOADERS[name](**options)
