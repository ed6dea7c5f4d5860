"""ESM-C against transformers' `EsmcForMaskedLM`, on whatever backend runs the suite."""

import json
import shutil

import contracts
import keras
import models
import numpy as np
import pytest
import references
import safetensors.numpy
import torch
import transformers
from keras import ops
from models import perturb_adapters, same, values
from parity import assert_parity, assert_rounds_alike, errors
from transformers.models.esmc.tokenization_esmc import SEQUENCE_VOCAB

import kft
from kft.backbones import esmc
from kft.backbones.esmc import names, weights, writing
from kft.backbones.esmc.layers import gated_width
from kft.backbones.residue_tokens import ALPHABET, PAD, encode

PROTEINS = ["MKTAYIAKQR", "AC<mask>D", "GSSG"]
PARITY = [("two blocks", 0.2), ("20 heads of 16", 0.1), ("six deep", 0.1)]


def inputs():
    return encode(PROTEINS)


def labelled(records=24):
    sequences = models.strings([4 + i % 5 for i in range(records)])
    return sequences, np.array([[x.count("K") + x.count("A")] for x in sequences], "float32")


def make(**options):
    backbone = models.esmc(2, **options)
    return kft.Model(backbone, kft.heads.Regression(kernel_initializer="glorot_uniform"))


# The same numbers ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    ("shape", "scale", "lengths"),
    [
        *((*case, references.SHORT) for case in PARITY),
        *(pytest.param(*case, references.LENGTHS, marks=pytest.mark.long) for case in PARITY),
    ],
)
def test_parity(shape, scale, lengths, record_property):
    """Rule 6: beside float64, our float32 error is the reference's own."""
    token_ids = references.mixed_batch(lengths)
    reference = references.esmc(*references.SHAPES[shape], scale=scale)
    found = references.ours(references.from_reference(reference), {"token_ids": token_ids})
    single = references.outputs(reference, token_ids)
    truth = references.outputs(reference.double(), token_ids)
    where = references.counted("logits", token_ids)
    for part, *three in zip(references.PARTS[:2], found, single, truth, strict=True):
        both = assert_parity(*(x[where] for x in three), part)
        record_property(part, str(both))


def test_padding_and_batch_order_change_nothing():
    backbone = references.from_reference(references.esmc(2, 64, 4))
    proteins = references.proteins((20, 9, 58, 20))
    together = np.asarray(backbone.predict_on_batch(encode(proteins)))
    other = backbone.predict_on_batch(encode([proteins[i] for i in (2, 3, 1, 0)]))
    for row, again in zip(together, np.asarray(other)[[3, 2, 0, 1]], strict=True):
        assert_rounds_alike(row, again)
    (alone,) = np.asarray(backbone.predict_on_batch(encode([proteins[1]])))
    assert_rounds_alike(together[1, : len(alone)], alone)


def test_mixed_bfloat16():
    reference = references.esmc(1, 64, 4)
    exact = references.from_reference(reference)
    half = esmc.ESMC.from_config({**exact.get_config(), "dtype": "mixed_bfloat16"})
    half.set_weights(exact.get_weights())
    x = encode(references.proteins((58, 58)))
    assert half.output.dtype == "bfloat16"
    assert {w.dtype for w in half.weights} == {"float32"}
    found, expected = (np.asarray(m.predict_on_batch(x), "float32") for m in (half, exact))
    ids = torch.tensor(x["token_ids"]).long()
    with torch.no_grad():
        theirs = reference.bfloat16().esmc(ids, attention_mask=(ids != 1).long())[0]
    (error, _), (allowed, _) = errors(found, expected), errors(theirs.float().numpy(), expected)
    assert error <= 1.5 * allowed


@pytest.mark.once
def test_encode_is_the_references():
    differ = [(i, x) for i, x in enumerate(SEQUENCE_VOCAB) if x != ALPHABET[i]]
    assert differ == [(31, "|")]  # which `encode` does not take
    tokenizer = transformers.EsmcTokenizer()
    proteins = ["MKTAYIAKQRQISFVKSHFSRQ", "AC<mask>D-.X", "LAGVSERTIDPKQNFYMHWCXBUZO"]
    found = esmc.ESMC.encode(proteins)["token_ids"]
    np.testing.assert_array_equal(found, tokenizer(proteins, padding=True)["input_ids"])
    with pytest.raises(ValueError, match=r"sequences\[0\] has '\|' at position 3"):
        encode(["MK|TA"])


# Files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    return references.esmc(2, 32, 4)


@pytest.fixture(scope="module")
def saved(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("esmc")
    reference.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of the saved model that a test may spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(change(tensors) or tensors, path)


def reconfigure(folder, drop=(), **changes):
    path = folder / "config.json"
    config = {k: v for k, v in json.loads(path.read_text()).items() if k not in drop}
    path.write_text(json.dumps(config | changes))


def assert_same(backbone, reference, parts=2):
    where = inputs()["token_ids"] != PAD
    expected = references.outputs(reference, inputs()["token_ids"])
    found = references.ours(backbone, inputs())
    for one, other in list(zip(found, expected, strict=True))[:parts]:
        assert_rounds_alike(one[where], other[where])


@pytest.mark.once
def test_folder(saved, reference):
    backbone = kft.load(saved)
    assert_same(backbone, reference)
    report = backbone.load_report
    parts = (backbone, backbone.masked_lm)
    assert set(report.filled) == {w.path for part in parts for w in part.weights}
    assert report.missing == report.skipped == ()


def test_the_layout_that_was_published_first(folder, reference):
    """Fused projections, other names, a short config.json, states of fused kernels."""

    def published(tensors):
        found = {}
        for path in weights_of(kft.load(folder)):
            tensor, now = names.tensor_of(path, first=True), names.tensor_of(path).name
            prefix = "" if now.startswith("lm_head") else "esmc."
            found.setdefault(prefix + tensor.name, []).append((tensor.part, tensors[prefix + now]))
        joined = {k: np.concatenate([a for _, a in sorted(v, key=lambda x: x[0])])
                  for k, v in found.items()}  # fmt: skip
        return joined | {"esmc.transformer.blocks.0.ffn._extra_state": np.zeros(3, "uint8")}

    rewrite(folder, published)
    config = {"model_type": "esmc", "architectures": ["ESMCForMaskedLM"], "d_model": 32,
              "n_heads": 4, "n_layers": 2, "vocab_size": 64, "mask_token_id": 32,
              "pad_token_id": 1, "intermediate_size": 96}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    backbone = kft.load(folder)
    assert_same(backbone, reference)
    assert backbone.load_report.skipped == ("esmc.transformer.blocks.0.ffn._extra_state",)
    assert len(safetensors.numpy.load_file(folder / "model.safetensors")) == 2 * 10 + 8 + 1
    without = {k: v for k, v in config.items() if k != "intermediate_size"}
    assert weights._arguments(without, "", None)["hidden_width"] is None


def weights_of(backbone):
    return {w.path for part in (backbone, backbone.masked_lm) for w in part.weights}


@pytest.mark.once
def test_heads_of_other_tasks_are_skipped(tmp_path):
    """A file of a classifier has no language-model head; one of `EsmcModel` has no prefix."""
    config = references.esmc_config(1, 32, 4, num_labels=3)
    for kind, skipped in (("ForSequenceClassification", 4), ("ForTokenClassification", 2),
                          ("Model", 0)):  # fmt: skip
        model = getattr(transformers, f"Esmc{kind}")(config).eval()
        model.save_pretrained(tmp_path / kind)
        with pytest.warns(UserWarning) as said:
            backbone = kft.load(tmp_path / kind)
        texts = "".join(str(one.message) for one in said)
        assert "no weights for backbone.masked_lm" in texts
        assert ("kft.Model.from_checkpoint" in texts) == bool(skipped)
        assert len(backbone.load_report.skipped) == skipped
        assert {path.split("/")[0] for path in backbone.load_report.missing} == {"lm_head"}
        ids = torch.tensor(inputs()["token_ids"]).long()
        with torch.no_grad():
            body = model if kind == "Model" else model.esmc
            expected = body(ids, attention_mask=(ids != 1).long()).last_hidden_state.numpy()
        where = inputs()["token_ids"] != PAD
        found = ops.convert_to_numpy(backbone(inputs()))
        assert_rounds_alike(found[where], expected[where])


@pytest.mark.once
def test_what_kft_writes_transformers_reads(tmp_path):
    backbone = models.perturb(models.esmc(2, 32, 4, hidden_width=48, rope_theta=500.0))
    models.perturb(backbone.masked_lm)
    kft.backbones.save(backbone, tmp_path)
    model, info = transformers.EsmcForMaskedLM.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(info.values())
    assert_same(backbone, model.eval())
    again = kft.load(tmp_path)
    assert {**again.get_config(), "name": ""} == {**backbone.get_config(), "name": ""}
    assert same(values(again.masked_lm), values(backbone.masked_lm))
    kft.backbones.save(backbone, tmp_path / "half", dtype="float16")
    assert_rounds_alike(
        kft.embed(kft.load(tmp_path / "half"), PROTEINS), kft.embed(backbone, PROTEINS), 2**16
    )


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 33}, "is not an ESM-C: its config.json has vocab_size=33, expected 64"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu', expected 'silu'"),
        ({"attention_bias": True}, "attention_bias=True, expected False"),
        ({"mlp_bias": True}, "mlp_bias=True, expected False"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        ({"num_key_value_heads": 2}, "num_key_value_heads=2, expected 4"),
        ({"head_dim": 16}, "head_dim=16, expected 8"),
        ({"hidden_size": None}, "config.json has no hidden_size"),
        (
            {"hidden_size": "32"},
            "hidden_size in config.json must be an .* received '32'",
        ),
        ({"num_hidden_layers": 0}, "num_hidden_layers in config.json must be .* received 0"),
        ({"intermediate_size": None}, "config.json has no intermediate_size"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 6}, "even multiple"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn', expected 'default'"),
        ({"num_hidden_layers": 3}, r"does not fit an ESM-C .* missing esmc.layers|missing layers"),
        ({"num_hidden_layers": 1}, r"unknown esmc.layers.1.input_layernorm.bias"),
        ({"intermediate_size": 64}, r"is \(96, 32\), expected \(64, 32\)"),
        ({"model_type": "bert"}, "is not an .*ESM-C.* model_type='bert'"),
    ],
)
def test_another_architecture_is_named(folder, changes, message):
    reconfigure(folder, **changes)
    with pytest.raises(ValueError, match=message):
        kft.load(folder)


@pytest.mark.once
def test_damaged_files_are_named(folder, tmp_path):
    def without(tensors):
        del tensors["esmc.layers.1.self_attn.q_norm.weight"]

    def infinite(tensors):
        tensors["lm_head.decoder.weight"][0, 0] = np.inf

    def more(tensors):
        tensors["esmc.layers.0.self_attn.q_proj.bias"] = np.ones(32, "float32")

    def part_of_the_head(tensors):
        del tensors["lm_head.decoder.bias"]

    for change, message in (
        (without, "missing layers.1.self_attn.q_norm.weight"),
        (infinite, "lm_head.decoder.weight holds 1 of 2,048 values that are not finite"),
        (more, "unknown esmc.layers.0.self_attn.q_proj.bias"),
        (part_of_the_head, "missing lm_head.decoder.bias"),
    ):
        copied = shutil.copytree(folder, tmp_path / change.__name__)
        rewrite(copied, change)
        with pytest.raises(ValueError, match=message):
            kft.load(copied)
    (folder / "model.safetensors").write_bytes(b"\0" * 40)
    with pytest.raises(ValueError, match="model.safetensors"):
        kft.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="weights"):
        kft.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        kft.load(folder)


# Published names ----------------------------------------------------------------------------------

# The file of the first was published with 1,332,095,738 bytes: 4 of each, and names.
PARAMETERS = {"ESMC-300M": 332_997_184, "ESMC-600M": 575_036_992, "ESMC-6B": 6_352_005_184}


@pytest.mark.once
@pytest.mark.parametrize("name", esmc.PUBLISHED)
def test_published_sizes(name):
    """Without memory for the weights: what transformers makes of our configuration."""
    blocks, width, heads = esmc.PUBLISHED[name]
    sizes = {"num_blocks": blocks, "width": width, "num_heads": heads, "rope_theta": 10000.0}
    config = writing.config_json({**sizes, "hidden_width": gated_width(width)})
    with torch.device("meta"):
        model = transformers.EsmcForMaskedLM(transformers.EsmcConfig(**config))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    if name == "ESMC-6B":  # the defaults of transformers
        default = transformers.EsmcConfig(architectures=["EsmcForMaskedLM"])
        assert config.items() <= default.to_dict().items()


@pytest.mark.long
@pytest.mark.once
@pytest.mark.parametrize("name", ["ESMC-300M", "ESMC-600M"])
def test_published_names_without_weights(name):
    backbone = kft.load(name, weights=False)
    assert backbone.masked_lm.count_params() == PARAMETERS[name]
    assert 0.1 < np.std(kft.embed(backbone, ["MKTAYI"])) < 10


@pytest.mark.once
def test_without_the_hub_the_error_names_the_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"biohub/ESMC-300M: could not be downloaded"):
        kft.load("ESMC-300M")


def test_random_weights_are_the_same_on_every_backend():
    backbone = models.esmc(seed=3)
    first = ops.convert_to_numpy(backbone.stages[0].embeddings)
    expected = np.random.default_rng(3).standard_normal((64, 16), dtype="float32")
    assert_rounds_alike(first, expected / np.sqrt(16), 2)
    large = models.esmc(6, 64, 4, hidden_width=None)
    logits = ops.convert_to_numpy(large.masked_lm(encode(references.proteins((40,)))))
    assert 0.5 < logits.std() < 2


# The contract -------------------------------------------------------------------------------------


@pytest.mark.once
def test_config_and_stages():
    backbone = esmc.ESMC(3, 32, 4, hidden_width=48, rope_theta=500, name="mine")
    copied = esmc.ESMC.from_config(json.loads(json.dumps(backbone.get_config())))
    assert copied.get_config() == backbone.get_config()
    assert [stage.name for stage in copied.stages] == [
        "embedding", "block_0", "block_1", "block_2", "final_norm",
    ]  # fmt: skip
    assert copied.width == 32 and len(backbone.weights) == 1 + 3 * 13 + 1
    assert copied.stages[1].residual_scale == (3 / 36) ** 0.5
    contracts.check_sequence_encoder(backbone.encode)
    for sizes in ((0, 32, 4), (1, 30, 4), (1, 36, 4)):
        with pytest.raises(ValueError, match="even multiple|num_blocks must be an integer"):
            esmc.ESMC(*sizes)


@pytest.mark.parametrize(
    "part", models.in_turn(["backbone", "masked_lm"], everywhere=["masked_lm"])
)
def test_save_and_reload(part, reference, tmp_path):
    backbone = references.from_reference(reference)
    model = backbone if part == "backbone" else backbone.masked_lm
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    found, expected = (np.asarray(m.predict_on_batch(inputs())) for m in (again, model))
    np.testing.assert_array_equal(found, expected)
    if part == "backbone":  # with the head, which is not among its weights
        assert same(values(again.masked_lm), values(model.masked_lm))


@pytest.mark.parametrize(
    "trained",
    models.in_turn(
        ["head", ["final_norm", "head"], ["block_0"], ["block_1", "final_norm", "head"]]
    ),
)
def test_the_frozen_frontier(trained):
    model = make()
    kft.train_only(model, trained)
    contracts.check_split(model, inputs())


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize(
    "options",
    models.in_turn([{"dora": True}, {"targets": "all-linear", "bias": "all"}, {}], everywhere=[{}]),
)
def test_the_base_is_kept(options):
    contracts.check_base_is_kept(make(), inputs(), **options)


@pytest.mark.usefixtures("as_written")
@pytest.mark.in_turn("torch")  # as those of ESM-2
def test_adapters_are_trained_and_written(tmp_path):
    model, again = make(), make()
    assert kft.add_lora(model, 2) == [
        f"block_{i}/{part}" for i in (0, 1) for part in ("query", "value")
    ]
    perturb_adapters(model)
    contracts.check_adapter_training(model, labelled(), tmp_path, rank=2)
    contracts.check_adapter_file(model, again, inputs(), tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.once
def test_a_table_of_tokens_in_peft_files_has_to_be_that_of_the_model(tmp_path):
    """PEFT writes `embed_tokens` beside its adapter."""
    model = models.esmc(2)
    kft.add_lora(model, 2, targets=["embedding", "query"])
    perturb_adapters(model)
    kft.save_adapter(model, tmp_path)
    expected = ops.convert_to_numpy(model(inputs()))
    file = tmp_path / "adapter_model.safetensors"
    table = ops.convert_to_numpy(model.stages[0].embeddings)
    tensors = safetensors.numpy.load_file(file)
    for key in ("embed_tokens", "lm_head.decoder"):
        tensors[f"base_model.model.{key}.base_layer.weight"] = table
    safetensors.numpy.save_file(tensors, file)
    kft.load_adapter(models.esmc(2), tmp_path)
    tensors["base_model.model.embed_tokens.base_layer.weight"] = table + 1e-3
    safetensors.numpy.save_file(tensors, file)
    again = models.esmc(2)
    with pytest.raises(ValueError, match="on another base: it holds the weights of embedding"):
        kft.load_adapter(again, tmp_path)
    assert kft.load_adapter(again, tmp_path, check_base=False)[0] == "embedding"
    assert_rounds_alike(ops.convert_to_numpy(again(inputs())), expected)


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification"])
def test_classifiers_that_were_published(kind, tmp_path):
    config = references.esmc_config(1, 32, 4, num_labels=3)
    theirs = getattr(transformers, f"EsmcFor{kind}")(config)
    theirs = references._perturbed(theirs.eval(), 0.2)
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no weights for backbone.masked_lm"):
        model = kft.Model.from_checkpoint(tmp_path)
    assert model.head.dropout.rate == 0.1
    ids = torch.tensor(inputs()["token_ids"]).long()
    with torch.no_grad():
        logits = theirs(ids, attention_mask=(ids != PAD).long()).logits
    expected = torch.softmax(logits, -1).numpy()
    found = ops.convert_to_numpy(model(inputs()))
    where = inputs()["token_ids"] != PAD if kind.startswith("Token") else slice(None)
    assert_rounds_alike(found[where], expected[where])


# Each trains an ESM-2 on every backend, in test_strategies.py.
@pytest.mark.in_turn("torch")
@pytest.mark.parametrize("strategy", kft.strategies.names())
def test_every_strategy(strategy):
    options = {"linear_probe": {}}.get(strategy, {"epochs": 1})
    model, data = make(), labelled()
    before = values(model)
    kft.fit(model, data, kft.strategies.get(strategy, **options), verbose=0)
    assert models.moved(before, values(model)) or strategy == "from_scratch"
    assert np.isfinite(kft.predict(model, data[0][:3])).all()


@pytest.mark.in_turn("torch")  # the training is that of ESM-2
def test_masked_language_modelling_improves_and_is_scored():
    backbone = models.esmc(1, 32, 4)
    proteins = ["MKTAYIAKQR" * 2] * 8
    before = kft.scoring.masked_score(backbone, proteins)
    options = {"epochs": 6, "tokens": 64, "crop": 32, "learning_rate": 3e-3, "verbose": 0}
    kft.pretraining.pretrain(backbone, proteins, **options)
    after = kft.scoring.masked_score(backbone, proteins)
    assert after.perplexity.value < before.perplexity.value
    ((gap,),) = kft.scoring.fill(backbone, ["MKT<mask>YI"])
    assert gap.position == 4 and len(gap.residues) == 3
