"""ESM-C, the protein language model that follows ESM-2 (ESM Team 2024)."""

from kft.backbones.esmc import family
from kft.backbones.esmc.model import ESMC, PUBLISHED, ESMCMaskedLM

__all__ = ["ESMC", "PUBLISHED", "ESMCMaskedLM", "family"]
