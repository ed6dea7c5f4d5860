"""How torch keeps the weights of vision models: shapes, and arrays turned to Keras's.

Shapes: `D` width, `H` heads, `d` = D / H. torch keeps dense kernels as (out, in) and convolutions
as (out, in, height, width), Keras as (in, out) and (height, width, in, out).
"""

import re

import keras
import numpy as np

from kft.backbones.checkpoints import Origin


def origin(path: str, names: tuple[str, ...], variable: keras.Variable) -> Origin:
    """Return the location of a weight in a torch checkpoint.

    Args:
        path: Path of the weight.
        names: Names of the tensors that fill it.
        variable: The weight.
    """
    return Origin(names, torch_shape(variable, path), lambda x: oriented(x, variable, path))


def torch_shape(variable: keras.Variable, path: str) -> tuple[int, ...]:
    """Return the shape that torch keeps a weight in."""
    shape = tuple(variable.shape)
    if not path.endswith("/kernel"):
        # (1, 1, D) of a token stays; a bias (H, d) is flat.
        return shape if len(shape) != 2 else (int(np.prod(shape)),)
    if len(shape) == 4:
        return (shape[2], 1, *shape[:2]) if _is_depthwise(path) else (*shape[:1:-1], *shape[:2])
    if len(shape) == 3:  # (D, H, d) of a query, (H, d, D) of an output
        out = path.endswith("attention_output/kernel")
        inputs = int(np.prod(shape[:2])) if out else shape[0]
        return int(np.prod(shape)) // inputs, inputs
    return shape[::-1]


def oriented(array: np.ndarray, variable: keras.Variable, path: str) -> np.ndarray:
    """Turn torch's array of a weight into Keras's."""
    if path.endswith("/kernel"):
        if array.ndim == 4:
            # (out, in, h, w) -> (h, w, in, out); depthwise (C, 1, h, w) -> (h, w, C, 1)
            array = array.transpose((2, 3, 0, 1) if _is_depthwise(path) else (2, 3, 1, 0))
        else:
            array = array.T  # (out, in) -> (in, out), then split into heads
    return array.reshape(variable.shape)


def _is_depthwise(path: str) -> bool:
    return re.search(r"dwconv2?/kernel$", path) is not None
