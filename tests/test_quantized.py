"""Models with quantized weights: saved, loaded, copied, with adapters, and by a dtype policy."""

import copy

import keras
import numpy as np
import pytest
from keras import ops
from models import BACKBONES, esm2, esmc, perturb, perturb_adapters

import kft
from kft.backbones.rematerialised import blocks_of
from kft.keras_internals import dequantised

TOKENS = kft.backbones.esm2.encode(["MKTAYIG", "GSSAA"])
IMAGES = {"images": np.random.default_rng(0).random((2, 32, 32, 3)).astype("float32")}
MODELS = {
    "esm2": lambda: kft.Model(esm2(), kft.heads.Regression()),
    "language model": lambda: esm2().masked_lm,
    "esmc": esmc,
    **{name: BACKBONES[name] for name in ("vit", "swiglu", "dinov3", "efficientnet", "resnet")},
    "classifier": lambda: BACKBONES["vit"](classes=["a", "b"]).classifier,
}


def on_torch(names):
    """ESM-2 on each backend, all others on torch alone."""
    alone = keras.backend.backend() == "torch"
    return [name for name in names if alone or name == "esm2"]


def answers(model):
    inputs = TOKENS if "token_ids" in model.input else IMAGES
    return ops.convert_to_numpy(model.predict_on_batch(inputs))


def modes(model):
    return {x.path: x.quantization_mode for x in kft.params.layers(model).values() if x.weights}


@pytest.mark.parametrize("name", on_torch(MODELS))
def test_saved_and_loaded(name, tmp_path):
    model = perturb(MODELS[name]())
    model.quantize("int8")
    expected = answers(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(answers(again), expected)
    assert modes(again) == modes(model)
    if name not in ("efficientnet", "resnet"):  # Keras quantizes no convolutions
        assert "int8" in modes(again).values()


def test_weights_alone_are_rounded(tmp_path):
    """As if the float model had the weights that the integers stand for; Keras's way if asked."""
    floats, quantized, rounding = (perturb(esm2()) for _ in range(3))
    quantized.quantize("int8")
    rounding.quantize("int8", config=keras.quantizers.Int8QuantizationConfig())
    by_path = kft.params.layers(quantized)
    for path, layer in kft.params.layers(floats).items():
        if modes(quantized).get(path) == "int8":
            layer.kernel.assign(dequantised(by_path[path], "float32"))
    np.testing.assert_allclose(answers(quantized), answers(floats), rtol=1e-4, atol=1e-5)
    assert not np.allclose(answers(rounding), answers(floats), rtol=1e-4, atol=1e-5)
    rounding.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(answers(again), answers(rounding))


@pytest.mark.once
@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_other_modes(mode, tmp_path):
    model = perturb(esm2())
    model.quantize(mode)
    expected = answers(model)
    model.save(tmp_path / "model.keras")
    assert np.array_equal(answers(keras.saving.load_model(tmp_path / "model.keras")), expected)


@pytest.mark.once
def test_a_published_head_and_copies(tmp_path):
    """Of a head that is no part of the backbone's graph, the backbone's file says it too."""
    backbone = perturb(esm2())
    backbone.masked_lm.quantize("int8")
    expected = answers(backbone.masked_lm)
    backbone.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(answers(again.masked_lm), expected)
    clone = keras.models.clone_model(backbone)
    clone.set_weights(backbone.get_weights())
    for one in (clone, copy.deepcopy(backbone)):
        assert modes(one) == modes(backbone)
        assert np.array_equal(answers(one), answers(backbone))


@pytest.mark.filterwarnings("ignore:.*hold adapters and keep")
@pytest.mark.in_turn("torch")
def test_adapters_on_quantized_layers(tmp_path):
    """Layers that hold adapters are left out, either by `filters` or since they hold them."""
    first, second = esm2(), esm2()
    first.quantize("int8", filters=lambda layer: layer.name not in ("query", "value"))
    kft.add_lora(first, 2)
    kft.add_lora(second, 2)
    second.quantize("int8")
    assert modes(first) == modes(second)
    for model in (first, second):
        perturb_adapters(model)
    expected = answers(first)
    assert np.array_equal(answers(second), expected)
    first.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert np.array_equal(answers(again), expected)
    kft.merge_lora(again)
    kft.unmerge_lora(again)
    assert np.array_equal(answers(again), expected)


@pytest.mark.once
def test_what_cannot_be():
    backbone = esm2()
    kft.add_lora(backbone, 2)
    with pytest.warns(UserWarning, match="2 layers of esm2 hold adapters and keep .*block_0/query"):
        backbone.quantize("int8")
    kft.add_lora(backbone, 2, targets="key", name="other")
    assert modes(backbone)["block_0/key"] == "int8"
    model = kft.Model(esm2(), kft.heads.Regression())
    model.quantize("int8", filters="dense")
    with pytest.raises(ValueError, match="head/dense of model is quantized, and a head is trained"):
        kft.add_lora(model, 2)
    with pytest.raises(ValueError, match="'gptq/4/128_from_float32' needs data to quantize with"):
        kft.load("kft_esm2_tiny", dtype="gptq/4/128_from_float32")


def test_policies():
    """Weights are loaded and then quantized, by `dtype`, by Keras's policy or by a map."""
    quantized = kft.load("kft_esm2_tiny")
    quantized.quantize("int8")
    expected = answers(quantized)
    assert np.array_equal(answers(kft.load("kft_esm2_tiny", dtype="int8_from_float32")), expected)
    keras.config.set_dtype_policy("int8_from_float32")
    try:
        model = kft.Model(kft.load("kft_esm2_tiny"), kft.heads.Regression())
        assert np.array_equal(answers(model.backbone), expected)
        assert answers(model).shape == (2, 1)
        assert modes(esm2())["block_0/query"] == "int8"
    finally:
        keras.config.set_dtype_policy("float32")
    policies = {"block_0/query": "int8_from_float32", "block_1/.*": "bfloat16"}
    policies = {path: keras.dtype_policies.get(name) for path, name in policies.items()}
    mapped = keras.dtype_policies.DTypePolicyMap("float32", policies)
    backbone = kft.load("kft_esm2_tiny", dtype=mapped)
    again = type(backbone).from_config(backbone.get_config())
    for one in (backbone, again):
        kernels = [one.stages[1].query.kernel, one.stages[1].key.kernel, one.stages[2].key.kernel]
        assert [kernel.dtype for kernel in kernels] == ["int8", "float32", "bfloat16"]
    assert answers(backbone).shape == answers(again).shape


@pytest.mark.parametrize("name", ["esm2", "esmc", "vit"])
def test_parts_of_another_dtype(name):
    """The layers of a block have a dtype that the block does not have."""
    backbone = {**MODELS, "esm2": esm2}[name]()
    parts = {f"{blocks_of(backbone)[-1].name}/.*": keras.dtype_policies.get("bfloat16")}
    mapped = keras.dtype_policies.DTypePolicyMap("float32", parts)
    config = {**backbone.get_config(), "dtype": keras.saving.serialize_keras_object(mapped)}
    mixed = type(backbone).from_config(config)
    mixed.set_weights(backbone.get_weights())
    assert {weight.dtype for weight in mixed.weights} == {"float32", "bfloat16"}
    expected = answers(backbone)
    assert np.abs(answers(mixed) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.once
@pytest.mark.parametrize("make", [esm2, MODELS["esm2"], MODELS["language model"]])
def test_h5(make, tmp_path):
    """Keras writes such a file, and cannot load it."""
    with pytest.raises(ValueError, match=r"filepath must end in .keras, received '.*model.h5'"):
        make().save(tmp_path / "model.h5")
    (tmp_path / "model.h5").touch()
    with pytest.raises(ValueError, match="cannot be loaded .* save the model as a .keras file"):
        kft.load(tmp_path / "model.h5")
