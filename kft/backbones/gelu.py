"""The exact GELU, by the error function on every backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

_as_keras = ContextVar("as_keras", default=False)


@contextmanager
def gelu_of_keras() -> Iterator[None]:
    """Compute the GELU as Keras does, to export a model: TensorFlow cannot read JAX's erf."""
    token = _as_keras.set(True)
    try:
        yield
    finally:
        _as_keras.reset(token)


def gelu(x: Any) -> Any:
    """Compute x Phi(x), where Phi is the normal distribution function.

    On JAX, Keras computes it by the complementary error function, which takes three times as long
    and differs by rounding. That is left to models that are exported.

    Args:
        x: Float tensor.

    Returns:
        Tensor of the same shape and dtype.

    Source: Hendrycks and Gimpel 2016, "Gaussian error linear units", arXiv:1606.08415.

    Example:
        >>> round(float(gelu(ops.convert_to_tensor(1.0))), 4)
        0.8413
    """
    exported = _as_keras.get() or not all(isinstance(n, int) for n in x.shape)
    if keras.backend.backend() != "jax" or exported:
        return ops.gelu(x, approximate=False)
    wide = ops.cast(x, "float32")  # 1 + erf(x) loses too much in half precision
    return ops.cast(0.5 * wide * (1.0 + ops.erf(wide * 0.5**0.5)), x.dtype)
