"""Arrays of weights between Keras and torch: which axis comes first, and rounding."""

import numpy as np


def oriented(path: str, array: np.ndarray) -> np.ndarray:
    """Turn a dense kernel from torch's (out, in) to Keras's (in, out), or back.

    Args:
        path: Path of the weight; what is not called "kernel" is left as it is.
        array: Its values.

    Example:
        >>> oriented("dense/kernel", np.zeros((2, 3))).shape
        (3, 2)
    """
    return array.T if path.endswith("kernel") else array


def rounded(path: str, array: np.ndarray, dtype: str | None) -> np.ndarray:
    """Round an array to the type in which it is written.

    Args:
        path: What the error calls the weight.
        array: Its values.
        dtype: Numpy dtype; None keeps that of the array.

    Returns:
        A contiguous array.

    Raises:
        ValueError: A number of this dtype cannot hold a value.

    Example:
        >>> rounded("bias", np.ones(2, "float32"), "float16").dtype
        dtype('float16')
    """
    with np.errstate(over="ignore"):  # the next line looks for it
        found = np.ascontiguousarray(array, dtype=dtype)
    if not np.isfinite(found).all():
        raise ValueError(f"{path} holds numbers that {found.dtype} cannot.")
    return found
