"""Judgement of one model, and comparison of strategies with baselines and controls."""

from kft.comparison.crossing import Crossover, crossover
from kft.comparison.estimating import Estimate, estimate
from kft.comparison.judging import Evaluation, evaluate
from kft.comparison.labels import learning_curve
from kft.comparison.planning import Plan, plan
from kft.comparison.results import Comparison, Row
from kft.comparison.study import compare

__all__ = [
    "Comparison",
    "Crossover",
    "Estimate",
    "Evaluation",
    "Plan",
    "Row",
    "compare",
    "crossover",
    "estimate",
    "evaluate",
    "learning_curve",
    "plan",
]
