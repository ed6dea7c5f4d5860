"""Predictions, embeddings and zero-shot scores of trained models."""

from kft.inference.embedding import embed
from kft.inference.embeddings_file import Embeddings, load_embeddings
from kft.inference.predicting import predict
from kft.inference.shards import merge_embeddings

__all__ = ["Embeddings", "embed", "load_embeddings", "merge_embeddings", "predict"]
