"""Weights by name from checkpoint files and from the Hugging Face hub.

Nothing here imports a model, Keras or torch: the package of a backbone states which tensor fills
which weight.
"""

from kft.backbones.checkpoints.arrays import oriented, rounded
from kft.backbones.checkpoints.configs import MOST_BLOCKS, MOST_HEADS, MOST_WIDTH, Config
from kft.backbones.checkpoints.filling import Origin, fill
from kft.backbones.checkpoints.hub import commit_of, hub_folder
from kft.backbones.checkpoints.labels import class_names
from kft.backbones.checkpoints.mapping import LoadReport, Tensors
from kft.backbones.checkpoints.safetensors import read_safetensors
from kft.backbones.checkpoints.torch_files import CheckpointError, read_torch

__all__ = [
    "MOST_BLOCKS",
    "MOST_HEADS",
    "MOST_WIDTH",
    "CheckpointError",
    "Config",
    "LoadReport",
    "Origin",
    "Tensors",
    "class_names",
    "commit_of",
    "fill",
    "hub_folder",
    "oriented",
    "read_safetensors",
    "read_torch",
    "rounded",
]
