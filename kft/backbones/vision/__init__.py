"""Vision transformers and convolutional networks, of keras-hub's layers."""

from kft.backbones.vision import family
from kft.backbones.vision.images import ImageEncoder
from kft.backbones.vision.models import ConvNet, ImageClassifier, VisionBackbone, VisionTransformer
from kft.backbones.vision.published import PUBLISHED

__all__ = [
    "PUBLISHED",
    "ConvNet",
    "ImageClassifier",
    "ImageEncoder",
    "VisionBackbone",
    "VisionTransformer",
    "family",
]
