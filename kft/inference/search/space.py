"""The space in which embeddings are compared: as they are, centred, or whitened.

Embeddings of a language model share a large common part and vary along a few directions, so that
the cosine of any two is near 1. Subtracting the mean removes the common part; whitening also scales
all directions alike. Both are computed from the records of the database.

Source: Su et al. 2021, "Whitening sentence representations for better semantics and faster
retrieval", arXiv:2103.15316.

Differences from the reference: `RIDGE` is added to the variances, which a small database does not
tell well; all directions are kept.

Shapes: `N` records, `D` width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRANSFORMS = ("none", "centered", "whitened")
RIDGE = 0.1  # added to each variance, as a fraction of their mean


class Moments:
    """Mean and covariance of vectors that come in parts.

    Args:
        width: D.

    Example:
        >>> moments = Moments(2)
        >>> moments.add(np.array([[0.0, 1.0], [2.0, 1.0]]))
        >>> moments.mean.tolist(), moments.covariance.tolist()
        ([1.0, 1.0], [[1.0, 0.0], [0.0, 0.0]])
    """

    def __init__(self, width: int):
        self.count = 0
        self._first = np.zeros(width)  # near the mean, so that squares lose no digits
        self._sum = np.zeros(width)
        self._squares = np.zeros((width, width))

    def add(self, vectors: np.ndarray) -> None:
        """Add some vectors.

        Args:
            vectors: Float array (N, D).
        """
        vectors = np.asarray(vectors, dtype="float64")
        if not self.count and len(vectors):
            self._first = vectors.mean(axis=0)
        vectors = vectors - self._first
        self.count += len(vectors)
        self._sum += vectors.sum(axis=0)
        self._squares += vectors.T @ vectors

    @property
    def mean(self) -> np.ndarray:
        """Float64 array (D,)."""
        return self._first + self._sum / self.count

    @property
    def covariance(self) -> np.ndarray:
        """Float64 array (D, D)."""
        mean = self._sum / self.count
        return self._squares / self.count - np.outer(mean, mean)


@dataclass(frozen=True)
class Space:
    """A change of vectors, after which they have length 1.

    Attributes:
        mean: Float64 array (D,), which is subtracted; zeros for none.
        matrix: Float64 array (D, D), by which the vectors are then multiplied; None for none.
    """

    mean: np.ndarray
    matrix: np.ndarray | None

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors in this space, float32 (N, D); one that becomes zero stays zero.

        Args:
            vectors: Float array (N, D).
        """
        moved = np.asarray(vectors, dtype="float64") - self.mean
        if self.matrix is not None:
            moved = moved @ self.matrix
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        return (moved / np.where(lengths > 0, lengths, 1)).astype("float32")


def space_of(moments: Moments, transform: str) -> Space:
    """Return the space that belongs to the vectors of a database.

    Args:
        moments: Of the vectors.
        transform: One of `TRANSFORMS`.

    Example:
        >>> moments = Moments(2)
        >>> moments.add(np.array([[10.0, 1.0], [10.0, -1.0]]))
        >>> space_of(moments, "centered").apply(np.array([[10.0, 3.0]])).tolist()
        [[0.0, 1.0]]
    """
    if transform == "none":
        return Space(np.zeros_like(moments.mean), None)
    if transform == "centered":
        return Space(moments.mean, None)
    variances, directions = np.linalg.eigh(moments.covariance)
    variances = np.maximum(variances, 0) + RIDGE * max(variances.mean(), np.finfo("float32").tiny)
    return Space(moments.mean, directions / np.sqrt(variances) @ directions.T)
