"""Explore a data set: `explore` looks for defects, `near_copies` for test records seen in training.

Nothing here imports Keras.
"""

from kft.exploration.exploring import explore
from kft.exploration.findings import Finding, Findings, Severity
from kft.exploration.leakage import near_copies

__all__ = ["Finding", "Findings", "Severity", "explore", "near_copies"]
