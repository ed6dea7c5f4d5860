"""kft's AdamW: Keras's numbers on every backend, by PyTorch's fused kernel on a processor."""

import importlib
from unittest import mock

import keras
import numpy as np
import pytest
import torch
from parity import assert_rounds_alike

from kft.training.optimizers import AdamW, adamw

SHAPES = (7, 5), (5,), (3, 4, 5)
OPTIONS = {
    "as_kft_makes_it": {},
    "not_clipped": {"clipnorm": None},
    "clipped_together": {"clipnorm": None, "global_clipnorm": 0.5},
    "accumulated": {"gradient_accumulation_steps": 2},
    "averaged": {"use_ema": True, "ema_overwrite_frequency": 3},
    "amsgrad": {"amsgrad": True},
}
KERAS = keras.optimizers.AdamW
ON_TORCH = pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's fused kernel")


def after_steps(kind, dtype="float32", steps=10, scale=1.0, **options):
    """Return the weights, and the state of an optimizer, after steps from the same start."""
    rng = np.random.default_rng(0)
    weights = [keras.Variable(rng.normal(size=shape), dtype=dtype) for shape in SHAPES]
    rate = keras.optimizers.schedules.ExponentialDecay(1e-2, 5, 0.5)
    optimizer = kind(rate, **{"weight_decay": 0.1, "clipnorm": 1.0, **options})
    optimizer.exclude_from_weight_decay(var_list=weights[1:2])
    optimizer.build(weights)
    for _ in range(steps):
        drawn = (scale * rng.normal(size=shape) for shape in SHAPES)
        optimizer.apply([keras.ops.convert_to_tensor(x, dtype=dtype) for x in drawn])
    numbers = [keras.ops.cast(v.value, "float32") for v in (*weights, *optimizer.variables)]
    return [keras.ops.convert_to_numpy(x) for x in numbers]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["clipped", "within the norm"])
def test_the_numbers_are_those_of_keras(options, scale):
    """Weights, both averages, counts; with gradients above the norm and below."""
    ours, theirs = (after_steps(kind, scale=scale, **options) for kind in (AdamW, KERAS))
    for one, other in zip(ours, theirs, strict=True):
        largest = max(np.abs(other).max(), 1e-12)
        assert_rounds_alike(one / largest, other / largest)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_as_exact_as_keras(dtype):
    exact, ours, theirs = (
        np.concatenate([x.ravel() for x in after_steps(*which, epsilon=1e-3)[: len(SHAPES)]])
        for which in ((KERAS,), (AdamW, dtype), (KERAS, dtype))
    )
    assert np.linalg.norm(ours - exact) <= 1.1 * np.linalg.norm(theirs - exact)


@ON_TORCH
def test_the_kernel_is_used_and_only_where_it_can_be():
    """`adamw` makes it; a transposed weight is updated by Keras."""
    start = np.random.default_rng(0).normal(size=(5, 7))
    module = importlib.import_module("torch.optim.adamw")
    results = []
    for transposed in (False, True):
        weight = keras.Variable(start, dtype="float32")
        if transposed:
            weight._value.data = weight.value.data.t().contiguous().t()
        assert weight.value.is_contiguous() != transposed
        optimizer = adamw(1e-2, [weight])
        optimizer.build([weight])
        with mock.patch.object(module, "adamw", wraps=module.adamw) as kernel:
            for step in range(3):
                optimizer.apply([torch.tensor(np.cos(start + step), dtype=torch.float32)])
        assert kernel.call_count == 3 * (not transposed)
        results.append(keras.ops.convert_to_numpy(weight.value))
    assert_rounds_alike(*results)


@ON_TORCH
def test_a_gradient_of_another_shape_is_an_error():
    """As with Keras; the kernel would read past its end."""
    weight = keras.Variable(np.ones((3, 4)), dtype="float32")
    optimizer = AdamW(1e-2, weight_decay=0.0)
    optimizer.build([weight])
    with pytest.raises(RuntimeError, match="size"):
        optimizer.apply([torch.ones(2, 2)])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight.value), np.ones((3, 4)))


@ON_TORCH
def test_gradients_that_are_not_finite_are_seen_in_the_weights():
    """As with Keras: a training that has diverged must not look as if it went on."""
    for bad in (np.nan, np.inf):
        for kind in (AdamW, KERAS):
            weight = keras.Variable(np.ones((2, 2)))
            optimizer = kind(1e-2, clipnorm=1.0)
            optimizer.build([weight])
            optimizer.apply([torch.tensor([[1.0, bad], [1.0, 1.0]])])
            assert np.isnan(keras.ops.convert_to_numpy(weight.value)).any(), (kind, bad)


def test_kept_with_a_model_and_continued(tmp_path):
    """A saved model trains further as the one that was not saved."""
    layers = [keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(AdamW(1e-2), "mse")
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.ones((8, 1))
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is AdamW
    for one in (model, again):
        one.fit(x, y, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
