"""Adapter folders that are damaged, contradict themselves or hold no numbers: refused by name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import ml_dtypes
import numpy as np
import peft
import pytest
import references
import torch
from models import BACKBONES, esm2, perturb
from parity import assert_rounds_alike
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import EsmForMaskedLM, EsmForSequenceClassification, EsmForTokenClassification

import kft
from kft.files import atomic_replace, finish_replacing

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
]
TENSORS, CONFIG, HEAD = "adapter_model.safetensors", "adapter_config.json", "kft_head.safetensors"
QUERY = "base_model.model.encoder.layer.{}.attention.self.query.lora_{}.weight"
SEQUENCES = ["MKTAYI", "GSS"]


def model_of(blocks=1, head=None):
    return kft.Model(esm2(blocks), head or kft.heads.Classification(2, kernel_initializer="ones"))


def saved(folder, blocks=1, seed=1, head=None, **options):
    model = model_of(blocks, head)
    kft.add_lora(model, 2, **options)
    perturb(model, 0.3, seed, learning=True)
    kft.save_adapter(model, folder)
    return model


def changed(folder, tensors=None, without=(), kept=False, **config):
    """Changes an adapter's files as another program would: kft's digests go, unless `kept`."""
    found = {
        k: v
        for k, v in load_file(folder / TENSORS).items()
        if not re.search("|".join(without) or "$^", k)
    }
    with safe_open(folder / TENSORS, "np") as opened:
        about = opened.metadata()
    save_file({**found, **(tensors or {})}, folder / TENSORS, about if kept else {"format": "pt"})
    text = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**text, **config}))


NUMBERS = {
    "NaN": (np.nan, "float32", "query.lora_A.* holds 1 of 32 values .* the first nan"),
    "infinity": (np.inf, "float16", "not finite numbers, the first inf"),
    "too large": (1e300, "float64", r"the first 1e\+300, which float32 cannot hold"),
    "integers": (3, "int32", "query.lora_A.weight is stored as int32, expected floating-point"),
    "quantised": (
        3,
        "int8",
        "is stored as int8, expected floating-point .* does not read quantised adapters",
    ),
    "yes or no": (1, "bool", "is stored as bool"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_tensors_that_are_no_numbers(kind, tmp_path):
    saved(tmp_path)
    value, dtype, message = NUMBERS[kind]
    values = np.ones((2, 16), dtype)
    values[0, 0] = value
    changed(tmp_path, {QUERY.format(0, "A"): values})
    other = model_of()
    with pytest.raises(ValueError, match=message):
        kft.load_adapter(other, tmp_path)
    assert not kft.lora.names(other) and kft.parameters(other).frozen == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_numbers_of_other_lengths(dtype, tmp_path):
    saved(tmp_path)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    tensors = {k: v.astype(kind) for k, v in load_file(tmp_path / TENSORS).items()}
    changed(tmp_path, tensors)
    other = model_of()
    (tmp_path / HEAD).unlink()
    kft.load_adapter(other, tmp_path)
    found = other.get_layer("block_0").query.adapters["default"].a
    expected = tensors[QUERY.format(0, "A")].astype("float32").T
    np.testing.assert_array_equal(
        kft.params.weights(other) and np.asarray(found.value.cpu().detach()), expected
    )


OPTIONS = (
    ({"lora_alpha": float("nan")}, "lora_alpha must be a number above 0, received nan"),
    ({"lora_alpha": float("inf")}, "lora_alpha must be a number above 0, received inf"),
    ({"lora_alpha": 0}, "lora_alpha must be a number above 0, received 0"),
    ({"r": 0}, "r must be an integer from 1 to 65536, received 0"),
    ({"lora_dropout": 5}, "lora_dropout must be at least 0 and below 1, received 5"),
    ({"lora_dropout": -1}, "lora_dropout must be at least 0 and below 1, received -1"),
    ({"lora_dropout": float("nan")}, "lora_dropout must be at least 0 and below 1, received nan"),
    (
        {"alpha_pattern": {"query": float("nan")}},
        r"alpha_pattern\['query'\] must be numbers above 0",
    ),
    ({"rank_pattern": {"query": "2"}}, r"rank_pattern\['query'\] must be integers from 1 to 65536"),
    ({"rank_pattern": {"(": 2}}, r"rank_pattern has '\(', which is not a regular expression"),
    ({"bias": "some"}, "bias must be none, lora_only or all, received 'some'"),
    ({"target_modules": 3}, "target_modules must be a list or a string, received 3"),
)


@pytest.mark.parametrize("number", range(len(OPTIONS)))
def test_options_that_mean_nothing(number, tmp_path):
    saved(tmp_path)
    options, message = OPTIONS[number]
    changed(tmp_path, **options)
    with pytest.raises(ValueError, match=message):
        kft.load_adapter(model_of(), tmp_path)


CONTRADICTIONS = {  # what is left out of the tensors, what the config then says, the message
    "no tensors": (["."], {}, "holds no adapter: there is no lora_A in it"),
    "a block is missing": (
        [r"layer\.1\."], {}, r"2 of 4 modules .*'query', 'value'.* adapter: encoder.layer.1"
    ),
    "a target is missing": (["value"], {}, "2 of 4 modules"),
    "other targets": ([], {"target_modules": ["key"]}, "2 of 2 modules .*self.key"),
    "fewer targets": ([], {"target_modules": ["query"]}, "value.* does not list"),
    "a pattern of targets": ([], {"target_modules": r".*\.1\..*query"}, "does not list"),
    "a module in full without tensors": (
        [], {"modules_to_save": ["final"]}, "modules_to_save of .* names final, which have no"
    ),
    "biases that are told of": ([], {"bias": "lora_only"}, "4 of 4 modules .* of a bias"),
    "all biases": ([], {"bias": "all"}, "of 17 modules .* no tensors of a bias"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_tensors_and_options_that_contradict(kind, tmp_path):
    saved(tmp_path, blocks=2)
    without, options, message = CONTRADICTIONS[kind]
    changed(tmp_path, None, without, **options)
    (tmp_path / HEAD).unlink()
    other = model_of(2)
    with pytest.raises(ValueError, match=message):
        kft.load_adapter(other, tmp_path)
    assert not kft.lora.names(other)


def test_biases_that_nothing_tells_of(tmp_path):
    saved(tmp_path, bias="all")
    changed(tmp_path, bias="none")
    (tmp_path / HEAD).unlink()
    with pytest.raises(ValueError, match="tensors of a bias, which .* does not list"):
        kft.load_adapter(model_of(), tmp_path)


def test_only_some_layers(tmp_path):
    """PEFT's layers_to_transform and exclude_modules are why a block may have none."""
    saved(tmp_path, blocks=2)
    changed(tmp_path, None, [r"layer\.0\."], layers_to_transform=[1])
    (tmp_path / HEAD).unlink()
    assert kft.load_adapter(model_of(2), tmp_path) == ["block_1/query", "block_1/value"]
    first = [f"encoder.layer.0.attention.self.{x}" for x in ("query", "value")]
    for excluded in (r".*layer\.0\..*", first):
        changed(tmp_path, layers_to_transform=None, exclude_modules=excluded)
        assert kft.load_adapter(model_of(2), tmp_path) == ["block_1/query", "block_1/value"]
    options = {"layers_to_transform": [1], "exclude_modules": None}
    changed(tmp_path, **options, layers_pattern=["layer"])
    assert kft.load_adapter(model_of(2), tmp_path) == ["block_1/query", "block_1/value"]
    changed(tmp_path, **options, layers_pattern=["blocks"])  # then PEFT would adapt no layer
    with pytest.raises(ValueError, match="layers_to_transform|target_modules"):
        kft.load_adapter(model_of(2), tmp_path)


def test_layers_in_full_have_the_weights_of_the_model(tmp_path):
    saved(tmp_path)
    (tmp_path / HEAD).unlink()
    norm = "base_model.model.encoder.emb_layer_norm_after"
    for change, message in (
        ({"weight": 16}, "final_norm has weight in full, and the layer has gamma, beta"),
        ({"weight": 16, "bias": 15}, r"of final_norm is \(15,\), expected \(16,\) of this model"),
    ):
        given = {f"{norm}.{name}": np.ones(size, "float32") for name, size in change.items()}
        changed(tmp_path, given, modules_to_save=["emb_layer_norm_after"])
        with pytest.raises(ValueError, match=message):
            kft.load_adapter(model_of(), tmp_path)


def gated(folder):
    """Saves an adapter of a gated layer, which is two modules in PEFT's files."""
    model = kft.backbones.randomised(BACKBONES["swiglu"](), 0)
    kft.add_lora(model, 2, targets="block_0/mlp/weights_in")
    perturb(model, 0.3, 1, learning=True)
    kft.save_adapter(model, folder)


def test_modules_that_are_one_layer_may_have_adapters_of_their_own(tmp_path):
    """As PEFT trains them: A of the one is not that of the other, or only one is adapted."""
    images = {"images": np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype("float32")}
    gated(tmp_path)
    tensors = load_file(tmp_path / TENSORS)
    gate, up = (next(k for k in tensors if f".{x}_proj.lora_A" in k) for x in ("gate", "up"))
    changed(tmp_path, {up: tensors[up][::-1] * 2.0})
    model = kft.backbones.randomised(BACKBONES["swiglu"](), 0)
    layer = model.get_layer("block_0").mlp.weights_in
    plain = layer.kernel.numpy().copy()
    kft.load_adapter(model, tmp_path)
    kft.merge_lora(model)
    tensors = load_file(tmp_path / TENSORS)
    added = [tensors[k].T @ tensors[k.replace("lora_A", "lora_B")].T for k in (gate, up)]
    scale = json.loads((tmp_path / CONFIG).read_text())["lora_alpha"] / 2
    merged = keras.ops.convert_to_numpy(model.get_layer("block_0").mlp.weights_in.kernel)
    assert_rounds_alike(merged, plain + scale * np.concatenate(added, axis=1))
    assert np.isfinite(model.predict_on_batch(images)).all()


def test_modules_that_are_one_layer_have_to_fit_together(tmp_path):
    gated(tmp_path)
    tensors = load_file(tmp_path / TENSORS)
    a = next(k for k in tensors if "up_proj.lora_A" in k)
    b, module = a.replace("lora_A", "lora_B"), a.removesuffix(".lora_A.weight")
    model = kft.backbones.randomised(BACKBONES["swiglu"](), 0)
    for change, without, message in (
        ({a: tensors[a][:1], b: tensors[b][:, :1]}, (), "the modules that .* differ in rank"),
        ({f"{module}.base_layer.bias": np.ones(48, "float32")}, (), "one half of .* has a bias"),
        ({f"{module}.weight": np.ones((48, 16), "float32")}, (), "reads with adapters alone"),
        ({}, ("up_proj.lora_A",), "has only one of lora_A and lora_B"),
    ):
        changed(tmp_path, change, without)
        with pytest.raises(ValueError, match=message):
            kft.load_adapter(model, tmp_path)
        (tmp_path / TENSORS).unlink()
        save_file(tensors, tmp_path / TENSORS, {"format": "pt"})
    assert not kft.lora.names(model)


# Files that belong together -----------------------------------------------------------------------


def test_files_that_are_missing_or_of_another_adapter(tmp_path):
    for seed in (1, 2):
        saved(tmp_path / str(seed), seed=seed)
    folder, other = tmp_path / "1", tmp_path / "2"
    with safe_open(folder / TENSORS, "np") as opened:
        assert set(json.loads(opened.metadata()["kft_files"])) == {TENSORS, CONFIG, HEAD}
    head = (folder / HEAD).read_bytes()
    (folder / HEAD).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {HEAD}, which belongs to the adapter"):
        kft.load_adapter(model_of(), folder)
    (folder / HEAD).write_bytes((other / HEAD).read_bytes())
    with pytest.raises(
        ValueError, match=f"{HEAD} is not the file that was saved with this adapter"
    ):
        kft.load_adapter(model_of(), folder)
    (folder / HEAD).write_bytes(head)
    kft.load_adapter(model_of(), folder)
    changed(folder, kept=True, lora_alpha=7)
    with pytest.raises(ValueError, match=f"{CONFIG} is not the file that was saved with this"):
        kft.load_adapter(model_of(), folder)
    saved(folder)
    tensors = load_file(folder / TENSORS)
    changed(folder, {QUERY.format(0, "A"): tensors[QUERY.format(0, "A")] + 1}, kept=True)
    with pytest.raises(ValueError, match=f"({TENSORS}|{CONFIG}) is not the file that was saved"):
        kft.load_adapter(model_of(), folder)


def test_a_head_that_another_adapter_left(tmp_path):
    """PEFT saves over a folder of kft's: the head that lies there is not its own."""
    saved(tmp_path)
    changed(tmp_path)
    other = model_of()
    before = kft.predict(other, SEQUENCES)
    with pytest.warns(UserWarning, match=f"{HEAD} belongs to another adapter"):
        kft.load_adapter(other, tmp_path)
    kernel = other.head.dense.kernel
    np.testing.assert_array_equal(np.asarray(kernel.value.cpu().detach()), 1.0)
    assert np.abs(kft.predict(other, SEQUENCES) - before).max() >= 0


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    """A head that the new adapter has not is gone; files that are not an adapter's stay."""
    saved(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    backbone = esm2()
    kft.add_lora(backbone, 2)
    kft.save_adapter(backbone, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", CONFIG, TENSORS]
    kft.load_adapter(model_of(), tmp_path)


def test_interrupted_at_any_step(tmp_path, monkeypatch):
    """Whatever call of the file system is the last, all files are the old, or all are the new."""
    names = ["a", "b", "c"]

    def content():
        files = [p for p in tmp_path.iterdir() if not p.is_dir() and p.suffix != ".lock"]
        return {p.name: p.read_text() for p in files}

    old, new = {"a": "old", "c": "old"}, {"a": "new", "b": "new"}
    seen = set()
    for last in range(40):
        for path in tmp_path.iterdir():
            path.unlink() if not path.is_dir() else None
        with atomic_replace(tmp_path, names) as aside:
            for name, text in old.items():
                (aside / name).write_text(text)
        count = 0

        def step(call, last=last):
            def counted(*args, **kwargs):
                nonlocal count
                count += 1
                if count > last:
                    raise KeyboardInterrupt
                return call(*args, **kwargs)

            return counted

        with monkeypatch.context() as patch:
            for name in ("rename", "replace", "unlink", "rmdir", "write_text", "mkdir"):
                patch.setattr(Path, name, step(getattr(Path, name)))
            patch.setattr("kft.files.shutil.rmtree", lambda *args, **kwargs: None)
            try:
                with atomic_replace(tmp_path, names) as aside:
                    for name, text in new.items():
                        (aside / name).write_text(text)
                done = True
            except KeyboardInterrupt:
                done = False
        finish_replacing(tmp_path)
        assert content() in (old, new)
        seen.add((done, content() == new))
        if done:
            break
    assert seen == {(False, False), (False, True), (True, True)}
    assert not [p for p in tmp_path.iterdir() if p.is_dir() and p.name == ".replacing"]


PROGRAM = Path(__file__).parent / "benchmarks" / "killed.py"


@pytest.mark.long
def test_killed_while_saving():
    command = [sys.executable, PROGRAM, "10", "adapter"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "10 of 10 equal" in ended.stdout and " 0 files after" in ended.stdout


# PEFT's -------------------------------------------------------------------------------------------


def from_peft(folder, **options):
    torch.manual_seed(0)
    base = EsmForSequenceClassification(references.esm_config(2, 16, 2, num_labels=2)).eval()
    config = peft.LoraConfig(r=2, task_type="SEQ_CLS", **options)
    adapted = peft.get_peft_model(base, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(folder)


def test_a_norm_of_one_block_is_missing(tmp_path):
    from_peft(tmp_path, target_modules=["query"], modules_to_save=["LayerNorm"])
    model = model_of(2, kft.heads.EsmClassification(2))
    kft.load_adapter(model, tmp_path)
    changed(tmp_path, None, [r"layer\.1\.LayerNorm"])
    with pytest.raises(
        ValueError, match="1 of 6 modules .* no tensors of weights in full: .*layer.1"
    ):
        kft.load_adapter(model_of(2, kft.heads.EsmClassification(2)), tmp_path)
    changed(tmp_path, None, ["LayerNorm"])
    with pytest.raises(ValueError, match="modules_to_save of .* names LayerNorm"):
        kft.load_adapter(model_of(2, kft.heads.EsmClassification(2)), tmp_path)


@pytest.mark.parametrize("bias", ["none", "all"])
def test_a_part_that_the_model_has_not_is_named(bias, tmp_path):
    from_peft(tmp_path, target_modules="all-linear", bias=bias)
    model = model_of(2, kft.heads.EsmClassification(2))
    with pytest.warns(
        UserWarning, match=r"2 tensors of parts that model does not have.*contact_head"
    ):
        assert len(kft.load_adapter(model, tmp_path)) == 12
    expected = kft.predict(model, SEQUENCES)
    kft.save_adapter(model, tmp_path / "again")  # without the part
    other = model_of(2, kft.heads.EsmClassification(2))
    kft.load_adapter(other, tmp_path / "again")
    assert_rounds_alike(kft.predict(other, SEQUENCES), expected)


def test_an_adapter_keeps_the_model_that_it_fits(tmp_path):
    """Read from `EsmForMaskedLM` into a backbone, and written again: it fits the same."""
    torch.manual_seed(0)
    base = EsmForMaskedLM(references.esm_config(1, 16, 2)).eval()
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["query"]))
    adapted.save_pretrained(tmp_path / "theirs")
    backbone = esm2()
    kft.load_adapter(backbone, tmp_path / "theirs")
    kft.save_adapter(backbone, tmp_path / "again")
    assert (
        load_file(tmp_path / "again" / TENSORS).keys()
        == load_file(tmp_path / "theirs" / TENSORS).keys()
    )


@pytest.mark.parametrize("task", ["TOKEN_CLS", "SEQ_CLS"])
def test_all_biases_beside_a_head(task, tmp_path):
    """PEFT then writes the head's bias twice, once under a name with `modules_to_save`."""
    torch.manual_seed(0)
    kind = EsmForTokenClassification if task == "TOKEN_CLS" else EsmForSequenceClassification
    base = kind(references.esm_config(1, 16, 2, num_labels=2)).eval()
    config = peft.LoraConfig(r=2, task_type=task, target_modules=["query"], bias="all")
    adapted = peft.get_peft_model(base, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1 * parameter.requires_grad)
    adapted.save_pretrained(tmp_path)
    head = "EsmTokenClassification" if task == "TOKEN_CLS" else "EsmClassification"
    model = model_of(1, getattr(kft.heads, head)(2))
    kft.load_adapter(model, tmp_path)
    answers = model.head.dense if task == "TOKEN_CLS" else model.head.out_proj
    bias = load_file(tmp_path / TENSORS)
    bias = bias[
        "base_model.model.classifier" + ("" if task == "TOKEN_CLS" else ".out_proj") + ".bias"
    ]
    np.testing.assert_array_equal(np.asarray(answers.bias.value.cpu().detach()), bias)
