"""Adapters on layers that are quantized to int8: gradients, training, files, refusals."""

import copy

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import esm2, perturb, perturb_adapters, strings, values

import kft
from kft.keras_internals import dequantised

RECORDS = strings([7, 5, 9]), np.array([0.5, -1.0, 1.0])


def small():
    """Dense and EinsumDense, quantized and with adapters, and a Dense in float32 as the head."""
    x = keras.Input((4,), name="x")
    stack = [
        layers.Dense(6, activation="tanh", name="first"),
        layers.EinsumDense("bi,ihd->bhd", (2, 3), bias_axes="hd", name="second"),
        layers.Flatten(),
        layers.Dense(2, name="third"),
    ]
    features = x
    for layer in stack:
        features = layer(features)
    model = perturb(keras.Model(x, layers.Activation("tanh")(features)), 0.5)
    for name in ("first", "second"):
        model.get_layer(name).quantize("int8")
    kft.add_lora(model, 2, targets=["first", "second"])
    perturb_adapters(model, 0.3)
    return model


def reference(model, weights, x):
    """The same model in float64 numpy: x (W + s A B) + b with dequantised W."""
    for name in ("first", "second"):
        layer = model.get_layer(name)
        matrix = ops.convert_to_numpy(dequantised(layer, "float32")).astype("float64")
        a, b = weights[f"{name}/lora_a_default"], weights[f"{name}/lora_b_default"]
        matrix = matrix.reshape(len(a), b.shape[1]) + 8 * a @ b
        x = x @ matrix + weights[f"{name}/bias"].astype("float64").ravel()
        x = np.tanh(x) if name == "first" else x
    return np.tanh(x @ weights["third/kernel"] + weights["third/bias"])


def test_gradients_of_the_dequantised_base():
    """Differences in float64 of the loss sum(y^2)."""
    model = small()
    x = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
    before = {path: value.astype("float64") for path, value in values(model).items()}
    rate = 1e-2
    model.compile(keras.optimizers.SGD(rate), lambda y, p: ops.sum(p * p))
    model.train_on_batch(x, np.zeros((3, 2)))
    after = values(model)
    learnt = [path for path in before if "/lora_" in path]
    assert len(learnt) == 4
    for path in learnt:
        found = (before[path] - after[path]) / rate
        expected = np.zeros_like(found)
        for i in np.ndindex(found.shape):
            sides = []
            for change in (1e-5, -1e-5):
                weights = {**before, path: before[path].copy()}
                weights[path][i] += change
                sides.append(np.sum(reference(model, weights, x.astype("float64")) ** 2))
            expected[i] = (sides[0] - sides[1]) / 2e-5
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


def test_outputs_of_the_dequantised_base():
    model = small()
    x = np.random.default_rng(1).standard_normal((3, 4))
    expected = reference(model, values(model), x)
    np.testing.assert_allclose(model.predict_on_batch(x), expected, rtol=1e-4, atol=1e-5)


def adapted(**options):
    backbone = perturb(esm2())
    backbone.quantize("int8")
    model = kft.Model(backbone, kft.heads.Regression())
    kft.add_lora(model, 2, **options)
    perturb_adapters(model)
    return model


def test_trained_saved_and_loaded(tmp_path):
    model = adapted(targets="all-linear", dora=True)
    fixed = kft.fingerprint(model, trainable=False)
    before = values(model)
    kft.fit(model, RECORDS, epochs=1, verbose=0)
    changed = {
        path for path, value in values(model).items() if not np.array_equal(value, before[path])
    }
    assert {"block_0/query/lora_b_default", "block_0/feedforward_in/lora_a_default"} <= changed
    assert not any(path.endswith("kernel_scale") for path in changed)
    assert kft.fingerprint(model, trainable=False) == fixed
    expected = kft.predict(model, RECORDS[0])
    model.save(tmp_path / "model.keras")
    assert np.array_equal(
        kft.predict(kft.load_model(tmp_path / "model.keras"), RECORDS[0]), expected
    )
    assert np.array_equal(kft.predict(copy.deepcopy(model), RECORDS[0]), expected)


@pytest.mark.once
def test_adapter_files(tmp_path):
    model = adapted()
    expected = kft.predict(model, RECORDS[0])
    kft.save_adapter(model, tmp_path / "adapter")
    other = kft.Model(perturb(esm2()), kft.heads.Regression())
    other.backbone.quantize("int8")
    kft.load_adapter(other, tmp_path / "adapter")
    assert np.array_equal(kft.predict(other, RECORDS[0]), expected)
    with pytest.raises(ValueError, match="block_0/query, .* are quantized, and nothing was merged"):
        kft.merge_lora(other)
    kft.lora.remove(other)
    assert other.backbone.stages[1].query.quantization_mode == "int8"


@pytest.mark.once
def test_only_int8():
    backbone = esm2()
    backbone.quantize("int4")
    with pytest.raises(ValueError, match="it is quantized, a Dense in int4, and adapters are for"):
        kft.add_lora(backbone, 2)
