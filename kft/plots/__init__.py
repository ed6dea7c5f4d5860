"""Figures, each with a caption: what the figure shows, how it was made and what stands out.

Every function returns (figure, caption). The sentences on what stands out are computed from the
numbers in the figure, so they are true for any result. Figures are made without pyplot: nothing
global changes, and no display is needed.
"""

from kft.plots.chain import plot_chain, plot_confidence
from kft.plots.comparison import plot_comparison
from kft.plots.dreaming import plot_features
from kft.plots.exploration import (
    plot_balance,
    plot_correlation,
    plot_distributions,
    plot_missing,
)
from kft.plots.images import plot_reconstructions
from kft.plots.judging import (
    plot_confusion,
    plot_groups,
    plot_reliability,
    plot_residuals,
    plot_roc_pr,
)
from kft.plots.learning_curve import plot_learning_curve
from kft.plots.maps import plot_map
from kft.plots.mutations import plot_scan
from kft.plots.results import plot_classification, plot_regression
from kft.plots.scaling import Panel, plot_scaling
from kft.plots.secondary_structure import plot_secondary_structure
from kft.plots.segmentation import plot_masks
from kft.plots.structure import plot_contacts, plot_ramachandran
from kft.plots.style import save_figure
from kft.plots.training import plot_history, plot_learning_rates, plot_pretraining

__all__ = [
    "Panel",
    "plot_balance",
    "plot_chain",
    "plot_classification",
    "plot_comparison",
    "plot_confidence",
    "plot_confusion",
    "plot_contacts",
    "plot_correlation",
    "plot_distributions",
    "plot_features",
    "plot_groups",
    "plot_history",
    "plot_learning_curve",
    "plot_learning_rates",
    "plot_map",
    "plot_masks",
    "plot_missing",
    "plot_pretraining",
    "plot_ramachandran",
    "plot_reconstructions",
    "plot_regression",
    "plot_reliability",
    "plot_residuals",
    "plot_roc_pr",
    "plot_scaling",
    "plot_scan",
    "plot_secondary_structure",
    "save_figure",
]
