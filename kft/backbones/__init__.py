"""Backbones: pre-trained models as functional Keras graphs, each with its ordered `stages`."""

from kft.backbones.registry import load, names, randomised, save

__all__ = ["load", "names", "randomised", "save"]
