"""Positions of patches: embeddings for images of another size, and the rotations of DINOv3.

Shapes: `P` patches, `D` width, `d` features of one head.
"""

import numpy as np

from kft.backbones.attention import rotary_frequencies


def interpolated(
    positions: np.ndarray,
    first: int,
    grid: tuple[int, int],
    before: tuple[int, int] | None = None,
) -> np.ndarray:
    """Interpolate position embeddings for another grid of patches, bicubic.

    Source: `interpolate_pos_encoding` of transformers 5 (ViT, DeiT, DINOv2), which is torch's
    bicubic interpolation: a = -0.75, edges repeated, no antialiasing. In numpy, since bicubic is
    another function in JAX and TensorFlow (a = -0.5, and pixels beyond the edges are left out).

    Args:
        positions: Float array (1, first + P, D).
        first: Number of tokens at the start that have no place in the image; they stay.
        grid: (rows, columns) of patches that are wanted.
        before: (rows, columns) of `positions`; None for a square.

    Returns:
        Float array (1, first + rows * columns, D), float32 where anything changed.

    Raises:
        ValueError: P is not the number of patches of `before`.

    Example:
        >>> interpolated(np.zeros((1, 1 + 4, 8)), 1, (3, 3)).shape
        (1, 10, 8)
    """
    count = positions.shape[1] - first
    before = before or (round(count**0.5),) * 2
    if before[0] * before[1] != count:
        raise ValueError(f"{count} position embeddings of patches do not fit a grid of {before}.")
    if tuple(grid) == tuple(before):
        return positions
    plane = positions[0, first:].reshape(*before, -1).astype("float64")  # (rows, columns, D)
    rows, columns = (_bicubic(n, m) for n, m in zip(before, grid, strict=True))
    plane = np.einsum("ij,jkd,lk->ild", rows, plane, columns).reshape(1, -1, plane.shape[-1])
    return np.concatenate([positions[:, :first], plane], axis=1).astype("float32")


def _bicubic(before: int, after: int) -> np.ndarray:
    """Return the matrix (after, before) of torch's bicubic interpolation along one axis."""
    a, matrix = -0.75, np.zeros((after, before))
    for i in range(after):
        centre = (i + 0.5) * before / after - 0.5
        start = int(np.floor(centre))
        for k in range(start - 1, start + 3):
            t = abs(centre - k)
            near = ((a + 2) * t - (a + 3)) * t * t + 1
            far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
            matrix[i, min(max(k, 0), before - 1)] += near if t <= 1 else far
    return matrix


def patch_rotations(grid: tuple[int, int], head_width: int, base: float) -> np.ndarray:
    """Compute cosines and sines of the angles by which patches rotate queries and keys.

    Source: `DINOv3ViTRopePositionEmbedding` of transformers 5. The centre of a patch has
    coordinates from -1 to 1 along each axis, whatever the number of patches is. A quarter of the
    features is rotated by the row, a quarter by the column; the other half is paired with them.

    Args:
        grid: (rows, columns) of patches.
        head_width: d, a multiple of 4.
        base: Ratio between the largest and the smallest frequency.

    Returns:
        float32 array (2, P, d), cosines and sines. Coordinates and frequencies are rounded to
        float32, as in the reference.

    Example:
        >>> patch_rotations((2, 3), 8, 100.0).shape
        (2, 6, 8)
    """
    centres = [2 * ((np.arange(n, dtype="float32") + 0.5) / np.float32(n)) - 1 for n in grid]
    rows_and_columns = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 2)
    frequencies = 2 * np.pi * np.array(rotary_frequencies(head_width // 2, base))  # (d/4,)
    angles = rows_and_columns[:, :, None] * frequencies  # (P, 2, d/4)
    angles = np.tile(angles.reshape(len(angles), -1), 2)  # (P, d)
    return np.stack([np.cos(angles), np.sin(angles)]).astype("float32")
