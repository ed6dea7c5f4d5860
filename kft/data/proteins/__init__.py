"""Proteins: FASTA files and data sets of sequences."""
