"""Backbones for rows of a table: `DenseBackbone`, a residual network of dense layers."""

from kft.backbones.tabular import family
from kft.backbones.tabular.columns import Column, RowEncoder, columns_of
from kft.backbones.tabular.model import DenseBackbone

__all__ = ["Column", "DenseBackbone", "RowEncoder", "columns_of", "family"]
