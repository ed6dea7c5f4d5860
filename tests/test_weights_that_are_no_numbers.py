"""Checkpoints whose weights are NaN, infinite, too large or no floats are refused by name."""

import json
import time
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from models import TINY_EFFICIENTNET, esm2
from typer.testing import CliRunner

import kft
from kft.backbones.checkpoints import Tensors, oriented, read_safetensors
from kft.backbones.esm2 import names as esm2_names
from kft.backbones.vision import convolutional_weights as vision_weights
from kft.backbones.vision import layouts
from kft.cli import app
from kft.models import load_model

pytestmark = pytest.mark.once

NAN, INF = float("nan"), float("inf")


def spoiled(tensor, value):
    tensor = tensor.double() if value == 1e300 else tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


# What is done to a tensor -> what the error says of it.
WRONG = {
    "nan": (lambda x: spoiled(x, NAN), "1 of {size} values that are not finite numbers"),
    "inf": (lambda x: spoiled(x, -INF), "the first -inf"),
    "all": (lambda x: x * NAN, "{size} of {size} values"),
    "float16": (lambda x: spoiled(x.half(), INF), "the first inf"),
    "bfloat16": (lambda x: spoiled(x.bfloat16(), NAN), "the first nan"),
    "1e300": (lambda x: spoiled(x, 1e300), "the first 1e+300, which float32 cannot hold"),
    "int8": (lambda x: (x * 100).to(torch.int8), "is stored as int8, expected floating-point"),
    "int64": (lambda x: (x * 100).long(), "is stored as int64"),
    "uint8": (lambda x: (x * 100).abs().to(torch.uint8), "is stored as uint8"),
    "bool": (lambda x: x > 0, "is stored as bool"),
}  # fmt: skip


@pytest.fixture(scope="module")
def esm():
    """The tensors and the config of an ESM-2 of transformers."""
    config = transformers.EsmConfig(
        vocab_size=33, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, position_embedding_type="rotary", token_dropout=True,
        emb_layer_norm_before=False, pad_token_id=1, mask_token_id=32, layer_norm_eps=1e-5,
    )  # fmt: skip
    model = transformers.EsmForMaskedLM(config)
    state = {k: v.contiguous().clone() for k, v in model.state_dict().items() if "decoder" not in k}
    state = {k: v for k, v in state.items() if "position_ids" not in k}
    return state, config.to_dict() | {"model_type": "esm"}


def folder_of(state, config, folder, kind="safetensors", shards=1):
    """A Hugging Face folder, its weights in one file or in several with an index."""
    folder.mkdir()
    stem, end = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    write = safetensors.torch.save_file if kind == "safetensors" else torch.save
    files = [f"{stem}-{i}.{end}" for i in range(shards)] if shards > 1 else [f"{stem}.{end}"]
    home = {name: files[i % shards] for i, name in enumerate(state)}
    for file in files:
        write({name: x for name, x in state.items() if home[name] == file}, folder / file)
    if shards > 1:
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"weight_map": home}))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def vision_transformer(family):
    """The tensors and the config of a vision transformer of transformers."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "patch_size": 8,
             "image_size": 32}  # fmt: skip
    if family == "vit":
        config = transformers.ViTConfig(**sizes, intermediate_size=64)
        model = transformers.ViTModel(config)
    elif family == "dinov3_vit":
        config = transformers.DINOv3ViTConfig(**sizes, intermediate_size=64, num_register_tokens=4)
        model = transformers.DINOv3ViTModel(config)
    else:
        config = transformers.Dinov2Config(**sizes, mlp_ratio=2)
        model = transformers.Dinov2Model(config)
    state = {name: x.contiguous().clone() for name, x in model.state_dict().items()}
    return state, config.to_dict()


def refusal(path):
    """What loading says; nothing but the error is allowed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*holds no weights for")
        with pytest.raises(ValueError) as error:
            kft.load(path)
    return str(error.value)


NAMES = ["esm.encoder.layer.0.attention.self.query.weight", "lm_head.bias",
         "esm.embeddings.word_embeddings.weight", "esm.contact_head.regression.weight",
         "esm.encoder.emb_layer_norm_after.weight"]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_esm2(esm, wrong, kind, tmp_path):
    state, config = esm
    change, said = WRONG[wrong]
    at = list(WRONG).index(wrong)
    for i, name in enumerate([*NAMES[at % 5 :], *NAMES][:2]):
        folder = tmp_path / str(i)
        found = refusal(
            folder_of(state | {name: change(state[name])}, config, folder, kind, 1 + 2 * (i % 2))
        )
        assert name in found and str(folder) in found
        assert said.format(size=f"{state[name].numel():,}") in found


def test_what_is_not_used_may_be_anything(esm, tmp_path):
    state, config = esm
    more = {
        "esm.embeddings.position_ids": torch.arange(8),
        "esm.pooler.dense.bias": torch.tensor([NAN]),
    }
    backbone = kft.load(folder_of(state | more, config, tmp_path / "more"))
    assert set(backbone.load_report.skipped) >= set(more)


@pytest.mark.parametrize("wrong", ["nan", "1e300", "int8", "bool"])
def test_fair_files(wrong, tmp_path):
    model, state = esm2().masked_lm, {}
    for v in model.weights:
        ours = esm2_names.tensor_names(1, "FAIR")[v.path]
        tensor = torch.tensor(oriented(v.path, keras.ops.convert_to_numpy(v)).copy())
        inside = "" if ours.startswith("lm_head") else "sentence_encoder."
        state[f"encoder.{inside}{ours}"] = tensor
    about = {"encoder_layers": 1, "encoder_embed_dim": 16, "encoder_attention_heads": 2,
             "token_dropout": True}  # fmt: skip
    path, name = tmp_path / "model.pt", "encoder.sentence_encoder.layers.0.fc1.weight"
    torch.save({"cfg": {"model": about}, "model": state}, path)
    with pytest.warns(match=r"no weights for backbone\.contacts"):
        kft.load(path)
    change, said = WRONG[wrong]
    torch.save({"cfg": {"model": about}, "model": state | {name: change(state[name])}}, path)
    found = refusal(path)
    assert name in found and str(path) in found
    assert said.format(size="1,024") in found


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("family", ["vit", "dinov2", "dinov3_vit"])
def test_vision_transformers(family, wrong, tmp_path):
    state, config = vision_transformer(family)
    change, said = WRONG[wrong]
    name = next(k for k in state if k.endswith(("layernorm_after.weight", "norm2.weight")))
    state[name] = change(state[name])
    found = refusal(folder_of(state, config, tmp_path / "m"))
    assert name in found and str(tmp_path) in found and said.format(size=32) in found


@pytest.mark.parametrize("value", [NAN, INF, 1e300])
def test_position_embeddings(value, tmp_path):
    state, config = vision_transformer("vit")
    name = "embeddings.position_embeddings"
    state[name] = spoiled(state[name], value)
    assert name in refusal(folder_of(state, config, tmp_path / "m"))


@pytest.mark.parametrize("wrong", ["inf", "1e300", "int8"])
def test_efficientnet(wrong, monkeypatch):
    """Statistics of a BatchNormalization too; counts of batches are integers and not used."""
    sizes = {**TINY_EFFICIENTNET, "stackwise_squeeze_and_excite_ratios": [0, 0, 0]}
    one = vision_weights.PUBLISHED["efficientnet_lite0"]
    small = replace(one, arguments={**one.arguments, "sizes": sizes})
    monkeypatch.setitem(vision_weights.PUBLISHED, "efficientnet_lite0", small)
    monkeypatch.setattr(vision_weights, "imagenet_classes", lambda: ["cat", "dog"])
    network = vision_weights.efficientnet_lite0(None, "lite0.pth")
    tensors = {"_bn0.num_batches_tracked": torch.tensor(3)}
    for path, v in vision_weights.by_layer(network, network.classifier).items():
        theirs = vision_weights.lite0_name(path, sizes)
        tensors[theirs] = torch.ones(layouts.torch_shape(v, path))

    def load():
        arrays = {name: x.numpy() for name, x in tensors.items()}
        return vision_weights.efficientnet_lite0(arrays, "lite0.pth")

    assert load().load_report.skipped == ("_bn0.num_batches_tracked",)
    name, (change, said) = "_blocks.2._bn1.running_var", WRONG[wrong]
    size = tensors[name].numel()
    tensors[name] = change(tensors[name])
    with pytest.raises(ValueError) as error:
        load()
    found = str(error.value)
    assert name in found and "lite0.pth" in found and said.format(size=size) in found


@pytest.mark.parametrize(
    "tensor, kind",
    [
        (lambda: torch.quantize_per_tensor(torch.ones(4), 1, 0, torch.qint8), "_rebuild_qtensor"),
        (lambda: torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
        (lambda: torch.randn(3).to(torch.float8_e4m3fn), "_rebuild_tensor_v3"),
        (lambda: torch.randn(3).to(torch.complex64), "ComplexFloatStorage"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_another_kind_carry_no_code_but_are_not_read(tensor, kind, tmp_path):
    state = {"first.weight": torch.ones(2), "lm.weight": tensor()}
    for protocol in (2, 4):  # which names what it wants in two ways
        torch.save(state, tmp_path / "model.bin", pickle_protocol=protocol)
        message = rf"lm\.weight is not a plain tensor \(torch.*{kind}\)"
        with pytest.raises(ValueError, match=message):
            read_safetensors(tmp_path / "model.bin")


def test_eight_bit_floats_of_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"lm.weight": torch.randn(3).to(torch.float8_e4m3fn)}, path)
    with pytest.raises(ValueError, match=r"lm\.weight is stored as F8_E4M3"):
        read_safetensors(path)


def test_numbers_whose_sum_is_infinite_are_numbers():
    large = np.full((4, 100), np.finfo("float32").max)
    assert np.array_equal(Tensors.of({"x": large})["x"], large)
    half = np.full(100, np.finfo("float16").max)
    assert np.array_equal(Tensors.of({"x": half}, dtype=None)["x"], half)
    assert Tensors.of({"x": np.zeros((0, 3), "float32")})["x"].shape == (0, 3)


def test_looking_costs_little():
    """The 8 million numbers of the smallest published ESM-2: a few milliseconds."""
    arrays = {str(i): np.ones((320, 1280), "float32") for i in range(20)}
    tensors = Tensors.of(arrays)
    best = []
    for look in (lambda x: np.array(x), None):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            for name in tensors:
                look(arrays[name]) if look else tensors[name]
            times.append(time.perf_counter() - start)
        best.append(min(times))
    assert best[1] - best[0] < 0.25, best  # 10 ms alone on a core


@pytest.mark.parametrize("value", [NAN, INF])
def test_keras_files(value, tmp_path):
    model = kft.Model(esm2(), kft.heads.Regression())
    model.save(tmp_path / "good.keras")
    assert isinstance(load_model(tmp_path / "good.keras"), kft.Model)
    bias = model.backbone.stages[1].query.bias
    bias.assign(np.full(bias.shape, value))
    model.save(tmp_path / "bad.keras")
    with pytest.raises(ValueError, match=r"bad\.keras: block_0/query/bias hold NaN or infinity"):
        load_model(tmp_path / "bad.keras")
    (tmp_path / "a.fasta").write_text(">one\nMKTAYI\n")
    model, fasta, out = (str(tmp_path / name) for name in ("bad.keras", "a.fasta", "out.csv"))
    done = CliRunner().invoke(app, ["predict", model, fasta, "--out", out])
    assert done.exit_code and "block_0/query/bias hold NaN or infinity" in done.output + str(
        done.exception
    )
    assert not (tmp_path / "out.csv").exists()
