"""Strategies beside baselines and controls on one data set."""

from kft.comparison.results import Comparison, Row
from kft.comparison.study import compare, evaluate

__all__ = ["Comparison", "Row", "compare", "evaluate"]
