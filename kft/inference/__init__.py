"""Predictions, embeddings and zero-shot scores of trained models."""

from kft.inference.predicting import embed, predict

__all__ = ["embed", "predict"]
