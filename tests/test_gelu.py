"""The exact GELU."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import norm

from kft.backbones.gelu import gelu


@pytest.mark.usefixtures("as_written")
def test_it_is_x_times_the_normal_distribution_function():
    x = np.linspace(-12, 12, 4801)
    found = ops.convert_to_numpy(gelu(ops.convert_to_tensor(x, "float32")))
    np.testing.assert_allclose(found, x * norm.cdf(x), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras's GELU")
@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(dtype):
    x = ops.cast(np.linspace(-4, 4, 801), dtype)
    exact = ops.convert_to_numpy(ops.cast(x, "float32")).astype("float64")
    exact *= norm.cdf(exact)
    found = gelu(x)
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    digits = 2.0 ** -(10 if dtype == "float16" else 7)
    np.testing.assert_allclose(found, exact, rtol=digits, atol=1e-3 * digits)
