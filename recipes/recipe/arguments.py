"""Command-line arguments of recipes."""

import argparse
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
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    add, count = parser.add_argument, above_zero(int)
    known = ", ".join(names())
    add("--data", default="amp", help=f"{known}; a CSV file, or a folder with a folder per class")
    add("--inputs", default="sequence", help="column of a CSV: sequences, or path, of images")
    add("--target", default="y", help="column of a CSV to predict")
    add("--split", help="random, a column, or cluster, the default for sequences")
    own = f"default: {REAL} if its package is installed, else {SMALL}"
    add("--backbone", help=f"name, folder or file; or untrained; {own}")
    add("--random", action="store_true", help="that architecture, with random weights")
    add("--dtype", help="mixed_bfloat16 halves the memory")
    add("--seed", type=int, default=0, help="of the head, the order of batches, dropout")
    add("--epochs", type=count, help="default: the strategy's own; untrained: 10, gb1 20")
    rate = "highest learning rate; default: the strategy's own; untrained: 1e-3"
    add("--learning-rate", type=above_zero(float), help=rate)
    add("--batch-size", type=count, default=32, help="records of a step")
    add("--max-length", type=count, help="residues to keep of each protein")
    add("--records", type=count, help="train on so many records, drawn at random")
    add("--tiny", action="store_true", help="a run of seconds, to see that it runs")
    add("--out", type=Path, default=Path("out"), help="folder for results")
    parser.set_defaults(**defaults)
    return parser


def image_arguments(doc, **defaults):
    """Make a parser for recipes on images: EfficientNet-Lite0, simulated gravitational waves.

    Args:
        doc, **defaults: As for `arguments`.

    Returns:
        argparse.ArgumentParser.
    """
    images = {"data": "gravitational_waves", "backbone": "efficientnet_lite0", "inputs": "path"}
    parser = arguments(doc, **images)
    parser.add_argument("--image-size", type=above_zero(int), help="pixels of a side")
    # The size of the simulated images: at 224 it would take ten times as long.
    parser.set_defaults(**{"image_size": 64, **defaults})
    return parser


def above_zero(kind):
    """Make a type for argparse: an int or float above 0.

    Args:
        kind: int or float.

    Returns:
        Function of a string.
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
        text: String.

    Returns:
        float.
    """
    value = above_zero(float)(text)
    if not value < 1:
        raise ValueError
    return value
