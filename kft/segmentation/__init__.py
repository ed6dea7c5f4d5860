"""Segmentation of images into objects: prompts, masks, training, scores, baselines and files.

Nothing in `masks`, `metrics`, `baselines`, `prompts`, `windows` and `automatic` needs Keras: they
work on arrays, whichever model has predicted them. `Predictor` and `segment` prompt a SAM, and
`Prompting` says how `kft.fit` does so in training.
"""

import importlib
from typing import TYPE_CHECKING, Any

from kft.segmentation import baselines as baselines
from kft.segmentation import prompts as prompts
from kft.segmentation.automatic import Found, Settings, find_masks
from kft.segmentation.masks import (
    boxes_of,
    from_rle,
    save_masks,
    to_coco,
    to_labels,
    to_masks,
    to_rle,
)
from kft.segmentation.metrics import accuracy_at, iou_matrix, mask_iou, mean_iou, score_labels
from kft.segmentation.windows import object_windows

# Imported when first used, since they import Keras.
_WITH_KERAS = {
    "Prediction": "predictor",
    "Predictor": "predictor",
    "Prompting": "training",
    "segment": "predictor",
    "segment_everything": "predictor",
}

if TYPE_CHECKING:
    from kft.segmentation.predictor import Prediction as Prediction
    from kft.segmentation.predictor import Predictor as Predictor
    from kft.segmentation.predictor import segment as segment
    from kft.segmentation.predictor import segment_everything as segment_everything
    from kft.segmentation.training import Prompting as Prompting

__all__ = [
    "Found",
    "Prediction",
    "Predictor",
    "Prompting",
    "Settings",
    "accuracy_at",
    "boxes_of",
    "find_masks",
    "from_rle",
    "iou_matrix",
    "mask_iou",
    "mean_iou",
    "object_windows",
    "save_masks",
    "score_labels",
    "segment",
    "segment_everything",
    "to_coco",
    "to_labels",
    "to_masks",
    "to_rle",
]


def __getattr__(name: str) -> Any:
    if name not in _WITH_KERAS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WITH_KERAS[name]}"), name)
