"""Explore a data set: `explore` looks for defects and returns them as `Findings`.

Nothing here imports Keras.
"""

from kft.exploration.exploring import explore
from kft.exploration.findings import Finding, Findings, Severity

__all__ = ["Finding", "Findings", "Severity", "explore"]
