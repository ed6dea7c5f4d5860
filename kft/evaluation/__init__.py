"""Scores of predictions: metrics with intervals, tests of significance, baselines, scaling laws.

Nothing here imports Keras.
"""

from kft.evaluation.metrics import (
    Interval,
    Scores,
    bootstrap,
    difference,
    hardly_varies,
    interval,
    score,
    table,
)

__all__ = [
    "Interval",
    "Scores",
    "bootstrap",
    "difference",
    "hardly_varies",
    "interval",
    "score",
    "table",
]
