"""Attention and rotary positions against the equations, in numpy's float64."""

import keras
import numpy as np
import pytest
from keras import ops
from parity import assert_rounds_alike

from kft.backbones import attention as attention_module
from kft.backbones.attention import (
    attention,
    attention_weights,
    rotary_frequencies,
    rotate,
)

pytestmark = pytest.mark.usefixtures("optimised")

B, L, H, d = 3, 11, 2, 6


@pytest.fixture(params=["proteins", "heads"])
def pieces(request, monkeypatch):
    """Attention one protein at a time, and as for long ones one head at a time."""
    monkeypatch.setattr(attention_module, "_SHORT", 1)
    monkeypatch.setattr(attention_module, "_LONG", 10_000 if request.param == "proteins" else 1)


def projections():
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, B, L, H, d))
    return query, key, value, np.arange(L) < np.array([[L], [4], [1]])


def weights_by_equation(query, key, attention_mask):
    scores = np.einsum("blhd,bmhd->bhlm", query, key) / np.sqrt(d)
    exp = np.exp(scores) * attention_mask[:, None, None, :]
    return exp / exp.sum(axis=-1, keepdims=True)


def tensors(*arrays):
    return [ops.convert_to_tensor(a, "bool" if a.dtype == bool else "float32") for a in arrays]


@pytest.mark.usefixtures("pieces")
def test_attention_is_the_equation():
    query, key, value, mask = projections()
    weights = weights_by_equation(query, key, mask)
    found = attention_weights(*tensors(query, key, mask))
    assert_rounds_alike(ops.convert_to_numpy(found), weights)
    found = attention(*tensors(query, key, value, mask))
    expected = np.einsum("bhlm,bmhd->blhd", weights, value)
    assert_rounds_alike(ops.convert_to_numpy(found), expected)


def gradients(function, inputs):
    """Of sum(function^2), on any backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(lambda x: ops.sum(function(*x) ** 2))(inputs)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = ops.sum(function(*inputs) ** 2)
        return tape.gradient(loss, inputs)
    inputs = [x.clone().requires_grad_() for x in inputs]
    ops.sum(function(*inputs) ** 2).backward()
    return [x.grad for x in inputs]


@pytest.mark.usefixtures("pieces")
def test_all_backends_have_the_gradient_of_the_equation():
    """JAX and TensorFlow compute the weights a second time for it on a processor."""
    *inputs, mask = projections()
    *single, single_mask = tensors(*inputs, mask)
    found = gradients(lambda *x: attention(*x, single_mask), single)

    def loss(*x):
        return (np.einsum("bhlm,bmhd->blhd", weights_by_equation(*x[:2], mask), x[2]) ** 2).sum()

    rng = np.random.default_rng(1)
    for i, gradient in enumerate(found):
        direction = rng.normal(size=inputs[i].shape)
        moved = [
            [x + (j == i) * h * direction for j, x in enumerate(inputs)] for h in (1e-5, -1e-5)
        ]
        expected = (loss(*moved[0]) - loss(*moved[1])) / 2e-5
        slope = (ops.convert_to_numpy(gradient).astype("float64") * direction).sum()
        assert slope == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="programs for any length")
@pytest.mark.parametrize("training", [False, True, None])
def test_a_program_for_any_length_goes_by_heads_where_no_gradient_is_needed(training):
    """Of TensorFlow; the loop over heads is a "While" in it."""
    import tensorflow as tf

    class Attention(keras.layers.Layer):
        def call(self, *inputs):
            return attention(*inputs)

    layer = Attention()
    query, key, value, mask = projections()
    floats = [tf.TensorSpec((None, None, H, d))] * 3
    program = tf.function(
        lambda *inputs: layer(*inputs, training=training),
        input_signature=[*floats, tf.TensorSpec((None, None), "bool")],
    )
    found = program(*tensors(query, key, value, mask))
    weights = weights_by_equation(query, key, mask)
    assert_rounds_alike(found.numpy(), np.einsum("bhlm,bmhd->blhd", weights, value))
    loops = [op.type for op in program.get_concrete_function().graph.get_operations()]
    assert any("While" in loop for loop in loops) == (training is False)


def test_bfloat16_has_its_softmax_in_float32():
    query, key, value, mask = projections()
    half = [ops.cast(x, "bfloat16") for x in tensors(query, key, value)]
    mask = ops.convert_to_tensor(mask)
    assert keras.backend.standardize_dtype(attention(*half, mask).dtype) == "bfloat16"
    weights = ops.convert_to_numpy(attention_weights(*half[:2], mask))
    assert weights.dtype == np.float32
    assert_rounds_alike(weights.sum(axis=-1), np.ones((B, H, L)))


def test_rotation_is_the_equation():
    frequencies = rotary_frequencies(d)
    np.testing.assert_allclose(frequencies, 10000.0 ** (-2 * np.arange(d / 2) / d), rtol=1e-6)
    x = projections()[0]
    found = rotate(*tensors(x), frequencies)
    pairs = x[..., : d // 2] + 1j * x[..., d // 2 :]
    turned = pairs * np.exp(1j * np.outer(np.arange(L), frequencies))[None, :, None, :]
    expected = np.concatenate([turned.real, turned.imag], axis=-1)
    assert_rounds_alike(ops.convert_to_numpy(found), expected)


def test_attention_sees_only_how_far_apart_tokens_are():
    """Rotating all by the same number of positions changes no weight (RoFormer, equation 16)."""
    query, key, _, mask = projections()
    shown = []
    for before in (0, 7):
        padded = [np.pad(x, ((0, 0), (before, 0), (0, 0), (0, 0))) for x in (query, key)]
        rotated = [rotate(x, rotary_frequencies(d))[:, before:] for x in tensors(*padded)]
        shown.append(ops.convert_to_numpy(attention_weights(*rotated, *tensors(mask))))
    assert_rounds_alike(*shown)
