"""ESM-2, a protein language model (Lin et al. 2023)."""

from kft.backbones.esm2 import family
from kft.backbones.esm2.model import ESM2, PUBLISHED, Contacts, MaskedLM
from kft.backbones.residue_tokens import ALPHABET, CLS, EOS, MASK, PAD, encode

__all__ = [
    "ALPHABET",
    "CLS",
    "EOS",
    "ESM2",
    "MASK",
    "PAD",
    "PUBLISHED",
    "Contacts",
    "MaskedLM",
    "encode",
    "family",
]
