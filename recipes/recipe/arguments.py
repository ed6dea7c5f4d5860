"""Command-line arguments of recipes."""

import argparse
import sys
from pathlib import Path

from kft.data import names
from recipe.defaults import REAL, SMALL


def arguments(doc, **defaults):
    """Make a parser with the arguments that every recipe takes.

    Args:
        doc: Docstring of the recipe; its first line is the description of `--help`.
        **defaults: Defaults of the recipe that differ.

    Returns:
        argparse.ArgumentParser, to which a recipe adds its own arguments.
    """
    sys.excepthook = show_message
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add, count = parser.add_argument, above_zero(int)
    known = ", ".join(names())
    add("--data", default="amp", help=f"{known}; a CSV file, or a folder with a folder per class")
    add("--inputs", default="sequence", help="column of a CSV file with sequences or image paths")
    add("--target", default="y", help="column of a CSV file to predict")
    add("--split", help="random, a column, or cluster (the default for sequences)")
    default = f"default: {REAL} if its package is installed, else {SMALL}"
    add("--backbone", help=f"name, folder or file; or untrained, a small ESM-2; {default}")
    add("--random", action="store_true", help="random weights in the architecture of --backbone")
    add("--dtype", help="Keras dtype policy; mixed_bfloat16 halves the memory")
    add("--seed", type=int, default=0, help="seed of the head, the order of batches and dropout")
    add("--epochs", type=count, help="default: that of the strategy; if untrained 10, on gb1 20")
    rate = "highest learning rate; default: that of the strategy; if untrained 1e-3"
    add("--learning-rate", type=above_zero(float), help=rate)
    add("--batch-size", type=count, default=32, help="records per step")
    add("--max-length", type=count, help="number of residues to keep of each protein")
    add("--records", type=count, help="number of training records, drawn at random")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out"), help="folder for results")
    parser.set_defaults(**defaults)
    return parser


def show_message(kind, error, trace):
    """Print an expected error without its traceback, as `sys.excepthook`; Python exits with 1.

    Args:
        kind, error, trace: The error's class, the error and its traceback.
    """
    if not issubclass(kind, ValueError | TypeError | OSError | ImportError):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)


def image_arguments(doc, **defaults):
    """Make a parser for recipes on images: EfficientNet-Lite0, simulated gravitational waves.

    Args:
        doc, **defaults: As for `arguments`.

    Returns:
        argparse.ArgumentParser.
    """
    images = {"data": "gravitational_waves", "backbone": "efficientnet_lite0", "inputs": "path"}
    parser = arguments(doc, **images)
    parser.add_argument("--image-size", type=above_zero(int), help="side of the images in pixels")
    # The size of the simulated images: with 224 pixels a run would take ten times as long.
    parser.set_defaults(**{"image_size": 64, **defaults})
    return parser


def above_zero(kind):
    """Make a type for argparse: an int or float above 0.

    Args:
        kind: int or float.

    Returns:
        Function that converts a string to such a number.
    """

    def read(text):
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    read.__name__ = f"{kind.__name__} above 0"
    return read


def fraction(text):
    """Read a float above 0 and below 1, for argparse.

    Args:
        text: The number as a string.

    Returns:
        The number.
    """
    value = above_zero(float)(text)
    if not value < 1:
        raise ValueError
    return value
