"""Comparison of strategies with baselines and controls on one data set."""

from kft.comparison.results import Comparison, Row
from kft.comparison.scoring import evaluate
from kft.comparison.study import compare

__all__ = ["Comparison", "Row", "compare", "evaluate"]
