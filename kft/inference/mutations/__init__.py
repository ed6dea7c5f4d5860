"""Effects of mutations without labels: notations, scores of mutants, scans of a whole protein."""

from kft.inference.mutations.methods import METHODS
from kft.inference.mutations.notation import Change, parse
from kft.inference.mutations.scanning import scan
from kft.inference.mutations.scoring import score_mutations

__all__ = ["METHODS", "Change", "parse", "scan", "score_mutations"]
