"""Similarity search: which records of a database are most like a query, by their embeddings."""

from kft.inference.search.building import build_index, load_index
from kft.inference.search.index import Index
from kft.inference.search.searching import Hits, search

__all__ = ["Hits", "Index", "build_index", "load_index", "search"]
