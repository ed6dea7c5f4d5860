"""Predictions, embeddings and zero-shot scores of trained models."""

from kft.inference.embedding import embed
from kft.inference.predicting import predict
from kft.inference.reading import Embeddings, load_embeddings

__all__ = ["Embeddings", "embed", "load_embeddings", "predict"]
