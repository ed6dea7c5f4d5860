"""A backbone, a head, a data set and a strategy that are not part of kft: a file each.

The files are templates for your own; `docs/extending.md` explains them. Importing one registers
what it adds. Here that is removed again, so that other tests do not find it; `registered` brings it
back.
"""

from contextlib import contextmanager

import kft
from extensions import toy_backbone, toy_data, toy_head, toy_strategy

__all__ = ["registered", "toy_backbone", "toy_data", "toy_head", "toy_strategy"]


def remove():
    kft.backbones.unregister(toy_backbone.family)
    kft.data.unregister("toy_counts")
    kft.strategies.unregister("toy_norms")


remove()


@contextmanager
def registered():
    """Register what the files add, and remove it again."""
    kft.backbones.register(toy_backbone.family)
    kft.data.register("toy_counts")(toy_data.load_toy_counts)
    kft.strategies.register("toy_norms")(toy_strategy.ToyNorms)
    try:
        yield
    finally:
        remove()
