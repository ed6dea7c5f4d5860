"""Parts that all recipes use: arguments, data, backbone and head, training and results."""

from recipe.arguments import above_zero, arguments, fraction, image_arguments
from recipe.chains import draw_chain
from recipe.corpora import CORPUS, OPTIMIZERS, corpus, masked_report, optimizer, proteins
from recipe.defaults import REAL, SMALL, default_backbone
from recipe.interactome import interactome
from recipe.masks import mask_scores, prompted_sam, sam_arguments, trained_sam
from recipe.records import data, few_of_each
from recipe.results import report
from recipe.structures import (
    compare_on_chains,
    medians,
    nearest_part,
    structure_arguments,
)
from recipe.training import backbone, head, run, strategy

__all__ = [
    "CORPUS",
    "OPTIMIZERS",
    "REAL",
    "SMALL",
    "above_zero",
    "arguments",
    "backbone",
    "compare_on_chains",
    "corpus",
    "data",
    "default_backbone",
    "draw_chain",
    "few_of_each",
    "fraction",
    "head",
    "image_arguments",
    "interactome",
    "mask_scores",
    "masked_report",
    "medians",
    "nearest_part",
    "optimizer",
    "prompted_sam",
    "proteins",
    "report",
    "run",
    "sam_arguments",
    "strategy",
    "structure_arguments",
    "trained_sam",
]
