"""A family of backbones that is not part of kft: what it says about itself is used everywhere."""

import json
from typing import ClassVar

import keras
import numpy as np
import pytest
from extensions.toy_backbone import ToyBackbone, family
from keras import ops
from parity import assert_rounds_alike
from safetensors.numpy import load_file, save_file

import kft
from kft import backbones

SEQUENCES = ["MKTAYI", "GSS"]


@keras.saving.register_keras_serializable("test_backbone_families")
class Published(ToyBackbone):
    """The toy backbone with all that is optional: a published head, names and files of its own."""

    objectives = ("guessing",)

    def __init__(self, blocks=1, width=8, name="published", dtype=None):
        super().__init__(blocks, width, name, dtype)
        vars(self)["guess"] = keras.layers.Dense(28, name="guess")
        self.guess.build((None, None, width))

    @property
    def published_heads(self):
        return [self.guess]

    def fan_in(self, variable):
        return 10_000 if variable.path == "block_0/kernel" else super().fan_in(variable)

    def module_names(self, paths, head, head_path):
        names = {path: f"layers.{path}" for path in paths if path in ("table", "block_0", "norm")}
        return backbones.ModuleNames(
            names, prefixes=("toy.",), prefix="toy.", other_parts=("guess",)
        )

    def to_hugging_face(self, dtype=None):
        tensors = {v.path: ops.convert_to_numpy(v).astype(dtype or "float32") for v in self.weights}
        return {"model_type": "toy", "width": self.width}, tensors


class Toys(backbones.Family):
    name = "published toys"
    model_types: ClassVar = {"toy": "Toy"}
    torch_layout = "toy"

    def names(self):
        return ["toy_8"]

    def load(self, name, weights, dtype):
        return Published(1, 8, name, dtype)

    def from_folder(self, folder, config, tensors, source, dtype):
        backbone = Published(1, config["width"], dtype=dtype)
        for variable in backbone.weights if tensors else ():
            variable.assign(tensors[variable.path])
        return backbone


@pytest.fixture
def toys():
    yield (found := backbones.register(Toys()))
    backbones.unregister(found)


@pytest.mark.once
def test_it_is_loaded_by_name_and_from_its_folder(toys, tmp_path):
    assert backbones.names()[-1] == "toy_8"
    one, two, other = (kft.load("toy_8", weights=False, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(*(x.get_weights() for x in (one, two, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.ptp(a) == 0 or not np.array_equal(a, c)
    backbones.save(one, tmp_path)
    again = kft.load(tmp_path)
    for a, b in zip(one.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"Did you mean 'toy_8'\?"):
        kft.load("toy_9")


@pytest.mark.once
def test_random_weights_are_those_that_it_asks_for(toys):
    backbone = kft.load("toy_8", weights=False)
    deviation = {v.path: np.std(ops.convert_to_numpy(v)) for v in backbone.weights}
    assert 0.005 < deviation["block_0/kernel"] < 0.02  # 1 / sqrt(10,000)
    assert 0.2 < deviation["table/embeddings"] < 0.5  # 1 / sqrt(8)
    guess = ops.convert_to_numpy(backbone.guess.kernel)
    kft.backbones.randomised(backbone, 5)
    assert not np.array_equal(ops.convert_to_numpy(backbone.guess.kernel), guess)


def test_adapters_have_its_targets_and_names(toys, tmp_path):
    backbone = kft.load("toy_8", weights=False)
    model = kft.Model(backbone, kft.heads.Regression(kernel_initializer="glorot_uniform"))
    assert kft.add_lora(model, 2) == ["block_0"]
    layer = backbone.get_layer("block_0")
    layer.adapters["default"].b.assign(np.ones((2, 8), "float32"))
    kft.save_adapter(model, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    prefix = "base_model.model.toy.layers.block_0.lora_"
    assert sorted(tensors) == [f"{prefix}A.weight", f"{prefix}B.weight"]
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == [
        "block_0"
    ]
    expected = kft.predict(model, SEQUENCES)
    other = kft.Model(
        kft.load("toy_8", weights=False), kft.heads.Regression(kernel_initializer="glorot_uniform")
    )
    assert kft.load_adapter(other, tmp_path) == ["block_0"]
    assert_rounds_alike(kft.predict(other, SEQUENCES), expected)


@pytest.mark.once
def test_tensors_of_its_other_parts_are_skipped(toys, tmp_path):
    backbone = kft.load("toy_8", weights=False)
    kft.add_lora(backbone, 2)
    kft.save_adapter(backbone, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    extra = {
        f"base_model.model.toy.guess.lora_{x}.weight": np.ones((2, 2), "float32") for x in "AB"
    }
    save_file(load_file(file) | extra, file)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text()) | {"target_modules": ["block_0", "guess"]}
    path.write_text(json.dumps(config))
    kft.lora.remove(backbone)
    with pytest.warns(UserWarning, match="2 tensors of parts that toy_8 does not have"):
        kft.load_adapter(backbone, tmp_path)


@pytest.mark.once
def test_what_it_cannot_do_is_said(toys, tmp_path):
    with pytest.raises(
        ValueError, match=r"image_size is not an option of toy_8, which is of .*toys"
    ):
        kft.load("toy_8", weights=False, image_size=32)
    backbones.register(Toys())  # a cell of a notebook that is run twice
    backbones.register(toys)
    assert backbones.names().count("toy_8") == 1
    taken = r"family 'toys' has toy_8, which the family 'published toys' has"
    with pytest.raises(ValueError, match=taken):
        backbones.register(family)
    with pytest.raises(ValueError, match="family 'toys' is not registered"):
        backbones.unregister(family)
    with pytest.raises(TypeError, match=r"must be an instance of .*Family, received <class"):
        backbones.register(Toys)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    kinds = "not an ESM-2, ESM-C, SAM, dense network of kft, ViT, DeiT, DINOv2, DINOv3 or Toy"
    wrong = rf"{kinds}: .* model_type='bert', expected 'esm', .*'toy'"
    with pytest.raises(ValueError, match=wrong):
        kft.load(tmp_path, weights=False)


@pytest.mark.once
def test_a_plain_model_says_nothing_and_has_the_defaults():
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, name="query")(x))
    contract = backbones.contract
    assert contract.lora_targets(model) == ("query", "value")
    assert not contract.keeps_adapters(model)
    assert contract.objectives(model) == ()
    assert contract.published_heads(model) == []
    assert contract.module_names(model, ["a/b"], None, "").names == {"a/b": "a.b"}
    assert contract.fan_in(model, model.weights[0]) == 3
