"""Segmentation of images into objects, by a model that is prompted with points and boxes.

The modules `masks`, `metrics`, `baselines`, `prompts` and `automatic` work on arrays, whichever
model has predicted them, and import no Keras; `predictor`, `everything` and `training` do.
"""

from kft.segmentation.automatic import Found, Settings, find_masks
from kft.segmentation.everything import segment_everything
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
from kft.segmentation.predictor import Prediction, Predictor, segment

__all__ = [
    "Found",
    "Prediction",
    "Predictor",
    "Settings",
    "accuracy_at",
    "boxes_of",
    "find_masks",
    "from_rle",
    "iou_matrix",
    "mask_iou",
    "mean_iou",
    "save_masks",
    "score_labels",
    "segment",
    "segment_everything",
    "to_coco",
    "to_labels",
    "to_masks",
    "to_rle",
]
