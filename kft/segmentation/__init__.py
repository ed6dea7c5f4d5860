"""Segmentation of images into objects: prompts, automatic masks, scores, baselines and files.

Nothing in these modules needs Keras: `masks`, `metrics`, `baselines`, `prompts` and `automatic`
work on arrays, whichever model has predicted them.
"""

from kft.segmentation.automatic import Found, Settings, segment_everything
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

__all__ = [
    "Found",
    "Settings",
    "accuracy_at",
    "boxes_of",
    "from_rle",
    "iou_matrix",
    "mask_iou",
    "mean_iou",
    "save_masks",
    "score_labels",
    "segment_everything",
    "to_coco",
    "to_labels",
    "to_masks",
    "to_rle",
]
