"""Each kind of layer that can hold adapters: numbers, gradients, merging, files."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from models import in_turn, perturb_adapters
from parity import assert_rounds_alike

import kft
from kft.lora.kinds import sizes_of


def layer_kinds():
    """{name: (layer, input)} of all that can be adapted."""
    rng = np.random.default_rng(0)
    bias = {"bias_initializer": keras.initializers.RandomNormal(seed=1)}
    image = rng.standard_normal((2, 6, 5, 3)).astype("float32")
    rows = rng.standard_normal((2, 5, 6)).astype("float32")
    heads = rng.standard_normal((2, 5, 3, 4)).astype("float32")
    layers, einsum = keras.layers, keras.layers.EinsumDense
    return {
        "dense": (layers.Dense(7, activation="tanh", **bias), rows),
        "dense without bias": (layers.Dense(7, use_bias=False), rows),
        "heads": (einsum("abc,cde->abde", (None, 3, 4), bias_axes="de", **bias), rows),
        "from heads": (einsum("abcd,cde->abe", (None, 6), bias_axes="e", **bias), heads),
        "any dimensions": (einsum("...x,xy->...y", 9, bias_axes="y", **bias), rows),
        "kernel turned": (einsum("abc,edc->aedb", (4, 3, 5), bias_axes="ed", **bias), rows),
        "convolution": (layers.Conv2D(7, 3, strides=2, padding="same", **bias), image),
        "dilated": (layers.Conv2D(4, (2, 3), dilation_rate=2, activation="relu", **bias), image),
        "embedding": (layers.Embedding(11, 6), rng.integers(0, 11, (2, 5)).astype("int32")),
    }  # fmt: skip


KINDS = list(layer_kinds())
# With magnitudes or without: what DoRA computes holds what LoRA does, so of the latter a few.
BOTH = [(kind, True) for kind in KINDS]
BOTH += [(kind, False) for kind in ("dense", "heads", "convolution", "embedding")]
LONG = [pytest.param(k, False, marks=pytest.mark.long) for k in KINDS if (k, False) not in BOTH]
EVERYWHERE = [("dense", True), ("heads", True), ("convolution", False), ("embedding", True)]


def around(kind, **options):
    """A functional model with one adapted layer, what it answered before, and its input."""
    layer, x = layer_kinds()[kind]
    inputs = keras.Input(x.shape[1:], dtype=x.dtype)
    model = keras.Model(inputs, layer(inputs))
    before = ops.convert_to_numpy(model(x))
    # The layer that answers would be taken for the head.
    model = keras.Model(inputs, keras.layers.Rescaling(1.0)(keras.layers.LayerNormalization(
        axis=-1)(layer(inputs))))  # fmt: skip
    kft.add_lora(model, 2, 3, targets=[layer.name], **options)
    return model, layer, before, x


def raw(layer):
    """The flattened kernel of a layer, (I, O), in float64."""
    return layer._flat("float64")


@pytest.mark.parametrize(("kind", "dora"), [*in_turn(BOTH, EVERYWHERE), *LONG])
def test_kinds(kind, dora):
    """At the start nothing changes; then W + s A B stands for W, with magnitudes or without."""
    model, layer, before, x = around(kind, dora=dora)
    assert_rounds_alike(ops.convert_to_numpy(layer(x)), before)
    kernel = ops.convert_to_numpy(layer._matrix_variable()).copy()
    perturb_adapters(model, scale=0.5)
    changed = ops.convert_to_numpy(layer(x))
    assert np.abs(changed - before).max() > 0.05

    adapter = layer.adapters["default"]
    a, b = (ops.convert_to_numpy(v).astype("float64") for v in (adapter.a, adapter.b))
    wanted = raw(layer) + 3 / 2 * a @ b
    if dora:
        wanted *= ops.convert_to_numpy(adapter.magnitude) / np.linalg.norm(wanted, axis=0)
    kft.merge_lora(model)
    assert_rounds_alike(raw(layer), wanted)
    assert_rounds_alike(ops.convert_to_numpy(layer(x)), changed)
    merged = ops.convert_to_numpy(layer._matrix_variable()).copy()
    kft.merge_lora(model)  # twice is once
    np.testing.assert_array_equal(ops.convert_to_numpy(layer._matrix_variable()), merged)
    kft.unmerge_lora(model)
    kft.unmerge_lora(model)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer._matrix_variable()), kernel)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), changed)


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("kind", in_turn(KINDS, everywhere=["heads"]))
def test_saved_and_loaded(kind, tmp_path):
    model, _, _, x = around(kind, rslora=True, bias="lora_only")
    perturb_adapters(model)
    expected = model.predict_on_batch(x)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_rounds_alike(again.predict_on_batch(x), expected)
    assert kft.fingerprint(again, None) == kft.fingerprint(model, None)
    assert kft.parameters(again).trainable == kft.parameters(model).trainable
    kft.lora.use(again, None)
    assert np.abs(again.predict_on_batch(x) - expected).max() > 1e-3


@pytest.mark.parametrize(("kind", "dora"), [*in_turn(BOTH, EVERYWHERE), *LONG])
def test_gradients(kind, dora):
    """Those of x (W + s A B) by hand in float64; the norm of DoRA is held fixed."""
    model, layer, _, x = around(kind, dora=dora)
    perturb_adapters(model, scale=0.5)
    layer.activation = None
    adapter = layer.adapters["default"]
    variables = [adapter.a, adapter.b]
    found = gradients(layer, x, weights_of(layer(x)), variables)

    a, b = (ops.convert_to_numpy(v).astype("float64") for v in variables)
    ratio = 1.0
    if dora:
        norms = np.linalg.norm(raw(layer) + 1.5 * a @ b, axis=0)
        ratio = ops.convert_to_numpy(adapter.magnitude) / norms
    g = matrix_gradient(kind) * ratio
    assert_rounds_alike(found[0], 1.5 * g @ b.T)
    assert_rounds_alike(found[1], 1.5 * a.T @ g)


def gradients(layer, x, weighing, variables):
    """d sum(weighing * layer(x)) / d variables, by the backend."""

    def total(answer):
        return ops.sum(answer * ops.convert_to_tensor(weighing))

    backend = keras.backend.backend()
    if backend == "torch":
        layer.zero_grad()
        total(layer(x)).backward()
        found = [variable.value.grad for variable in variables]
    elif backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = total(layer(x))
        found = tape.gradient(loss, [variable.value for variable in variables])
    else:
        import jax

        learns, rests = layer.trainable_variables, [v.value for v in layer.non_trainable_variables]

        def loss(values):
            return total(layer.stateless_call(values, rests, x)[0])

        by_id = dict(zip(map(id, learns), jax.grad(loss)([v.value for v in learns]), strict=True))
        found = [by_id[id(variable)] for variable in variables]
    return [ops.convert_to_numpy(value).astype("float64") for value in found]


def weights_of(answer):
    return np.random.default_rng(4).standard_normal(ops.shape(answer)).astype("float32")


@functools.cache
def matrix_gradient(kind):
    """dL/dM for L = sum(weighing * answer) of a plain layer, M its kernel as a matrix.

    The answer is linear in M, so that unit matrices tell it.
    """
    _, holder, _, _ = around(kind)
    layer, x = layer_kinds()[kind]
    weighing, shape = weights_of(layer(x)), holder.sizes
    layer.activation = None
    kernel = layer.embeddings if kind == "embedding" else layer.kernel

    def loss(matrix):
        kernel.assign(holder.unflattened(matrix))
        return np.sum(weighing * ops.convert_to_numpy(layer(x)).astype("float64"))

    units = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    bias = loss(np.zeros(shape))
    return np.reshape([loss(unit) - bias for unit in units], shape)


@pytest.mark.once
def test_the_sizes_of_a_layer_as_a_matrix():
    dense = keras.layers.Dense(4)
    dense.build((None, 3))
    assert sizes_of(dense) == (3, 4)
    with pytest.raises(TypeError, match="it is a Dropout, and adapters are for Dense"):
        sizes_of(keras.layers.Dropout(0.1))
