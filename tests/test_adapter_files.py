"""Adapters in PEFT's files, both ways, against PEFT itself."""

import json
import warnings

import keras
import numpy as np
import peft
import pytest
import references
import torch
from models import BACKBONES, perturb
from parity import assert_parity, assert_rounds_alike
from safetensors.numpy import load_file, save_file
from transformers import (
    EsmForMaskedLM,
    EsmForSequenceClassification,
    EsmForTokenClassification,
    EsmModel,
)

import kft
from kft.backbones.esm2 import weights as esm2_weights

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

DENSE = [
    "attention.self.query", "attention.self.key", "attention.self.value",
    "attention.output.dense", "intermediate.dense", "output.dense",
]  # fmt: skip
PROTEINS = [*references.proteins((3, 30, 12, 20, 7, 25, 16)), "MK<mask>AYI"]
TOKENS = kft.backbones.esm2.encode(PROTEINS)
LABELS = 16
CONFIGS = {  # what PEFT's LoraConfig and kft.add_lora are told
    "query and value": ({"r": 4, "lora_alpha": 8}, {"rank": 4, "alpha": 8}),
    "rank 1": ({"r": 1, "lora_alpha": 3}, {"rank": 1, "alpha": 3}),
    "rsLoRA": (
        {"r": 4, "lora_alpha": 8, "use_rslora": True},
        {"rank": 4, "alpha": 8, "rslora": True},
    ),
    "DoRA": ({"r": 4, "lora_alpha": 8, "use_dora": True}, {"rank": 4, "alpha": 8, "dora": True}),
    "biases of targets": (
        {"r": 4, "lora_alpha": 8, "bias": "lora_only"},
        {"rank": 4, "alpha": 8, "bias": "lora_only"},
    ),
    "all biases": (
        {"r": 4, "lora_alpha": 8, "bias": "all"},
        {"rank": 4, "alpha": 8, "bias": "all"},
    ),
    "all dense layers": (
        {"r": 4, "lora_alpha": 8, "target_modules": DENSE},
        {"rank": 4, "alpha": 8, "targets": "all-linear"},
    ),
    "ranks that differ": (
        {"r": 4, "lora_alpha": 8, "rank_pattern": {"layer.1.attention.self.query": 2},
         "alpha_pattern": {"value": 3}},
        {"rank": 4, "alpha": 8, "ranks": {"block_1/query": 2}, "alphas": {"value": 3}},
    ),
    "embedding": (
        {"r": 4, "lora_alpha": 8, "target_modules": ["query", "word_embeddings"]},
        {"rank": 4, "alpha": 8, "targets": ["query", "tokens"]},
    ),
    "embedding, DoRA": (
        {"r": 4, "lora_alpha": 8, "target_modules": ["word_embeddings"], "use_dora": True},
        {"rank": 4, "alpha": 8, "targets": "embedding", "dora": True},
    ),
}  # fmt: skip
FORMS = {  # transformers' model, PEFT's task, and the head of kft
    "backbone": (EsmModel, None, None),
    "language model": (EsmForMaskedLM, None, None),
    "classification": (EsmForSequenceClassification, "SEQ_CLS", kft.heads.EsmClassification),
    "tokens": (EsmForTokenClassification, "TOKEN_CLS", kft.heads.EsmTokenClassification),
}


def reference(form, blocks=1):
    """A model of transformers with weights large enough to matter."""
    shape = blocks, 32, 4
    torch.manual_seed(0)
    kind, _, head = FORMS[form]
    options = {"num_labels": LABELS} if head else {}
    if kind is EsmModel:
        model = kind(references.esm_config(*shape), add_pooling_layer=False)
    else:
        model = kind(references.esm_config(*shape, **options))
    return references._perturbed(model.eval(), 0.2)


def counterpart(model, form):
    """The same in kft: a backbone, its language model, or a model with a head of its own."""
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heads that the file lacks
        backbone = esm2_weights.from_hugging_face(model.config.to_dict(), state, "the reference")
    if form == "backbone":
        return backbone
    if form == "language model":
        return backbone.masked_lm
    ours = kft.Model(backbone, FORMS[form][2](LABELS))
    linear = {"out_proj": model.classifier.out_proj, "dense": model.classifier.dense} if (
        form == "classification"
    ) else {"dense": model.classifier}  # fmt: skip
    for name, module in linear.items():
        kernel, bias = (p.detach().numpy() for p in (module.weight, module.bias))
        getattr(ours.head, name).set_weights([kernel.T, bias])
    return ours


def with_peft(model, form, options):
    config = peft.LoraConfig(
        **{"target_modules": ["query", "value"], "task_type": FORMS[form][1], **options}
    )
    adapted = peft.get_peft_model(model, config).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return adapted


def answers(adapted, dtype):
    """Hidden states or logits of a model of PEFT; log-probabilities where it has a head."""
    tokens = torch.tensor(np.ascontiguousarray(TOKENS["token_ids"]))
    with torch.no_grad():
        found = adapted.to(dtype)(
            input_ids=tokens.long(), attention_mask=(tokens != 1).long(), return_dict=True
        )
    if "logits" not in found:
        return found.last_hidden_state.numpy()
    head = hasattr(adapted.get_base_model(), "classifier")
    return (torch.log_softmax(found.logits, -1) if head else found.logits).numpy()


def close_to(model, adapted, form):
    """Rule 6: beside float64, the error of PEFT itself, wherever there is a residue."""
    found = keras.ops.convert_to_numpy(model.predict_on_batch(TOKENS))
    found = np.log(found) if FORMS[form][2] else found
    single, exact = answers(adapted, torch.float32), answers(adapted, torch.float64)
    adapted.float()
    there = slice(None) if found.ndim == 2 else TOKENS["token_ids"] != 1
    assert_parity(found[there], single[there], exact[there], form)


def on_torch(cases, everywhere):
    """Cases as parameters: those named run on each backend, the others on torch alone."""
    mark = pytest.mark.in_turn("torch")
    together = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [
        pytest.param(*values, marks=() if case in everywhere else mark)
        for case, values in zip(cases, together, strict=True)
    ]


# Each backend computes with every configuration, one half of them read and the other written.
WRITTEN = ["rank 1", "rsLoRA", "biases of targets", "all dense layers", "embedding, DoRA"]
READ = [kind for kind in CONFIGS if kind not in WRITTEN]


@pytest.mark.usefixtures("optimised", "as_written")
@pytest.mark.parametrize("kind", on_torch(CONFIGS, READ))
def test_from_peft(kind, tmp_path):
    base = reference("backbone", blocks=2 if kind == "ranks that differ" else 1)
    model = counterpart(base, "backbone")
    adapted = with_peft(base, "backbone", CONFIGS[kind][0])
    adapted.save_pretrained(tmp_path)
    kft.load_adapter(model, tmp_path)
    close_to(model, adapted, "backbone")
    # PEFT counts the same parameters.
    trained = sum(
        p.numel() for name, p in adapted.named_parameters()
        if p.requires_grad and "contact_head" not in name  # kft has it in `backbone.contacts`
    )  # fmt: skip
    assert kft.parameters(model).trainable == trained


@pytest.mark.usefixtures("optimised", "as_written")
@pytest.mark.parametrize("kind", on_torch(CONFIGS, WRITTEN))
def test_to_peft(kind, tmp_path):
    base = reference("backbone", blocks=2 if kind == "ranks that differ" else 1)
    model = counterpart(base, "backbone")
    kft.add_lora(model, **CONFIGS[kind][1])
    perturb(model, learning=True)
    kft.save_adapter(model, tmp_path)
    with warnings.catch_warnings():
        # PEFT warns of keys that are missing or too many.
        warnings.filterwarnings("error", category=UserWarning)
        adapted = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    close_to(model, adapted, "backbone")


@pytest.mark.usefixtures("optimised", "as_written")
@pytest.mark.once
@pytest.mark.parametrize(
    ("active", "removed"),
    [("c", "c"), ("default", "default"), ("c", "b"), (["b", "c"], "c")],
    ids=["the last", "the first", "an inactive one", "one of two active ones"],
)
def test_removing_the_active_adapter_leaves_what_peft_leaves(active, removed, tmp_path):
    base = reference("backbone")
    model = counterpart(base, "backbone")
    adapted = with_peft(base, "backbone", {"r": 2})
    for name in "bc":
        adapted.add_adapter(name, peft.LoraConfig(r=2, target_modules=["query", "value"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path)
    for name in ("default", "b", "c"):
        folder = tmp_path / ("" if name == "default" else name)
        kft.load_adapter(model, folder, name=name)
    (adapted.base_model if isinstance(active, list) else adapted).set_adapter(active)
    kft.lora.use(model, dict.fromkeys(active, 1.0) if isinstance(active, list) else active)
    close_to(model, adapted, "backbone")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        adapted.delete_adapter(removed)
        kft.lora.remove(model, removed)
    texts = [str(x.message) for x in said if "active" in str(x.message)]
    assert bool(texts) == (active == removed)
    assert kft.lora.names(model) == list(adapted.base_model.peft_config)
    layer = adapted.base_model.model.encoder.layer[0].attention.self.query
    assert list(model.get_layer("block_0").query.active) == layer.active_adapters
    trained = {n.split(".")[-2] for n, p in adapted.named_parameters() if p.requires_grad}
    ours = {w.path.split("_")[-1] for w in kft.params.weights(model) if w.trainable}
    assert ours == trained
    close_to(model, adapted, "backbone")


@pytest.mark.usefixtures("optimised", "as_written")
@pytest.mark.parametrize(
    ("form", "direction"),
    on_torch(
        [(form, to) for form in list(FORMS)[1:] for to in ("from", "to")],
        [("language model", "from"), ("classification", "to"), ("tokens", "from")],
    ),
)
def test_forms(form, direction, tmp_path):
    base = reference(form)
    model = counterpart(base, form)
    targets = ["query", "value"]
    if form == "language model":
        targets = ["query", "lm_head.dense"]
    if direction == "from":
        adapted = with_peft(base, form, {"r": 4, "target_modules": targets})
        adapted.save_pretrained(tmp_path)
        kft.load_adapter(model, tmp_path)
    else:
        kft.add_lora(model, 4, targets=targets)
        perturb(model, learning=True)
        kft.save_adapter(model, tmp_path)
        adapted = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    close_to(model, adapted, form)
    if form != "language model":
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        head = [key for key in tensors if "classifier" in key]
        assert len(head) == (4 if form == "classification" else 2)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"]


# Without PEFT -------------------------------------------------------------------------------------


def model_of(head, seed=0, width=32):
    backbone = kft.backbones.randomised(kft.backbones.esm2.ESM2(2, width, 4), seed)
    return kft.Model(backbone, head)


@pytest.mark.usefixtures("as_written")
@pytest.mark.once
def test_any_head(tmp_path):
    """A head of kft, its pooling, and a norm that learned in full come back too."""
    head = {"targets": 2, "pooling": "attention", "kernel_initializer": "glorot_uniform"}
    model = model_of(kft.heads.Regression(mean=3.0, std=2.0, **head))
    kft.add_lora(model, 4)
    kft.unfreeze(model, "final_norm")
    perturb(model, learning=True)
    kft.save_adapter(model, tmp_path)
    again = model_of(kft.heads.Regression(mean=3.0, std=2.0, **head))
    assert kft.load_adapter(again, tmp_path) == [
        f"block_{i}/{part}" for i in (0, 1) for part in ("query", "value")
    ]
    assert kft.fingerprint(again, None) == kft.fingerprint(model, None)
    assert_rounds_alike(again.predict_on_batch(TOKENS), model.predict_on_batch(TOKENS))
    # PEFT reads the adapters of it.
    adapted = peft.PeftModel.from_pretrained(reference("backbone", 2), tmp_path)
    found = adapted.state_dict()["base_model.model.encoder.layer.0.attention.self.query.lora_A."
                                 "default.weight"]  # fmt: skip
    expected = model.get_layer("block_0").query.adapters["default"].a
    assert np.array_equal(found.numpy(), keras.ops.convert_to_numpy(expected).T)
    with pytest.raises(ValueError, match=r"head/.* has no such weight. Give the model the head"):
        kft.load_adapter(model_of(kft.heads.Regression(targets=2)), tmp_path)
    with pytest.raises(ValueError, match=r"head/dense/bias is \(2,\), and model has it as \(5,\)"):
        kft.load_adapter(model_of(kft.heads.Classification(5, pooling="attention")), tmp_path)


@pytest.mark.once
def test_on_a_backbone(tmp_path):
    """What a model has learned, on its backbone alone: the head is named and left out."""
    model = model_of(kft.heads.Regression())
    kft.add_lora(model, 4)
    perturb(model, learning=True)
    kft.save_adapter(model, tmp_path)
    backbone = model_of(kft.heads.Regression()).backbone
    with pytest.warns(UserWarning, match="holds a head .* has none: it is not loaded"):
        kft.load_adapter(backbone, tmp_path)
    assert_rounds_alike(backbone.predict_on_batch(TOKENS), model.backbone.predict_on_batch(TOKENS))


@pytest.mark.once
def test_another_base(tmp_path):
    model = model_of(kft.heads.Regression())
    digest = kft.lora.peft.files.base_digest(model)
    kft.add_lora(model, 4, bias="all", targets="all-linear")
    perturb(model, learning=True)
    kft.merge_lora(model)
    assert kft.lora.peft.files.base_digest(model) == digest  # what is merged is not the base
    kft.save_adapter(model, tmp_path)
    other = model_of(kft.heads.Regression(), seed=1)
    received = kft.lora.peft.files.base_digest(other)
    with pytest.raises(
        ValueError, match=f"digest is {digest[:16]}, that of model is {received[:16]}"
    ):
        kft.load_adapter(other, tmp_path)
    assert not kft.lora.names(other)
    kft.load_adapter(other, tmp_path, check_base=False)
    assert kft.lora.names(other) == ["default"]


@pytest.mark.once
def test_another_shape_or_rank(tmp_path):
    model = model_of(kft.heads.Regression())
    kft.add_lora(model, 4, targets=["query", "feedforward_in"])
    kft.save_adapter(model, tmp_path)
    small = model_of(kft.heads.Regression(), width=16)
    with pytest.raises(
        ValueError, match="is for 32 inputs and 32 outputs, the layer has 16 and 16"
    ):
        kft.load_adapter(small.backbone, tmp_path)
    other = model_of(kft.heads.Regression())
    kft.add_lora(other, 2)
    with pytest.raises(ValueError, match="'default' of rank 2 on 4 layers, .* has rank 4 on 4, or"):
        kft.load_adapter(other, tmp_path)
    kft.load_adapter(other, tmp_path, name="second")
    assert kft.lora.names(other) == ["default", "second"]
    with pytest.raises(ValueError, match="has the adapters default, second: give one"):
        kft.save_adapter(other, tmp_path / "which")
    kft.save_adapter(other, tmp_path / "second", name="second")
    third = model_of(kft.heads.Regression())
    paths = kft.load_adapter(third, tmp_path / "second")
    assert paths == kft.load_adapter(third, tmp_path / "second")  # once more is the same
    assert {path.rpartition("/")[2] for path in paths} == {"query", "feedforward_in"}


@pytest.mark.once
def test_bad_files(tmp_path):
    """Each is refused by name, and leaves the model as it was."""
    fresh = model_of(kft.heads.Regression())
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config.json"):
        kft.load_adapter(fresh, tmp_path)
    model = model_of(kft.heads.Regression())
    kft.add_lora(model, 4)
    kft.save_adapter(model, tmp_path)
    path = tmp_path / "adapter_config.json"
    config = json.loads(path.read_text())
    lacking = [{k: v for k, v in config.items() if k != x} for x in ("r", "lora_alpha")]
    for content, message in (
        ("{", r"adapter_config.json is damaged: not JSON \(Expecting"),
        ("[]", "adapter_config.json must hold a JSON object, received a list"),
        (lacking[0], "adapter_config.json: r must be an integer, received nothing"),
        (lacking[1], "adapter_config.json: lora_alpha must be a number, received nothing"),
        ({"r": "4"}, "adapter_config.json: r must be an integer, received '4'"),
        ({"lora_dropout": "no"}, "lora_dropout must be a number, received 'no'"),
        ({"rank_pattern": [2]}, r"rank_pattern must be an object, received \[2\]"),
        ({"use_dora": 1}, "use_dora must be true or false, received 1"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3', expected 'LORA'"),
        ({"trainable_token_indices": [3]}, r"is \[3\], and there are rows of 0 tables"),
        ({"trainable_token_indices": 3}, "must be a list or an object, received 3"),
        ({"target_parameters": ["x"]}, r"target_parameters=\['x'\] is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not supported"),
        ({"r": 8}, "has rank 4 in the tensors and 8 in adapter_config.json"),
    ):
        if isinstance(content, dict):
            content = json.dumps(content if content in lacking else {**config, **content})
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            kft.load_adapter(fresh, tmp_path)
    path.write_text(json.dumps(config))
    tensors = tmp_path / "adapter_model.safetensors"
    whole = tensors.read_bytes()
    for content, message in ((whole[:-9], "truncated: has .* bytes"), (b"", "not a safetensors")):
        tensors.write_bytes(content)
        with pytest.raises(ValueError, match=f"adapter_model.safetensors: {message}"):
            kft.load_adapter(fresh, tmp_path)
    tensors.unlink()
    with pytest.raises(FileNotFoundError, match="has no adapter_model.safetensors: copy"):
        kft.load_adapter(fresh, tmp_path)
    assert not kft.lora.names(fresh) and kft.parameters(fresh).frozen == 0
    tensors.write_bytes(whole)
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"8 of 8 tensors have no place in the model"):
        kft.load_adapter(plain, tmp_path)
    for folder in (path, path / "inside"):
        with pytest.raises(NotADirectoryError, match="folder must be a folder .*config.json.* is"):
            kft.save_adapter(model, folder)


@pytest.mark.usefixtures("as_written")
def test_any_keras_model(tmp_path):
    """Layers that Hugging Face does not know have their own paths for names."""

    def build():
        layers = keras.layers
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(4, 3, name="conv")(inputs)
        x = layers.Flatten()(x)
        return keras.Model(inputs, layers.Dense(2, name="answer")(layers.Dense(5, name="d")(x)))

    model, again = build(), build()
    again.set_weights(model.get_weights())
    kft.add_lora(model, 2, targets=["conv", "d"], dora=True)
    perturb(model, learning=True)
    kft.save_adapter(model, tmp_path)
    keys = load_file(tmp_path / "adapter_model.safetensors")
    assert keys["base_model.model.conv.lora_A.weight"].shape == (2, 3, 3, 3)  # (r, C, h, w)
    assert keys["base_model.model.conv.lora_B.weight"].shape == (4, 2, 1, 1)
    kft.load_adapter(again, tmp_path)
    x = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype("float32")
    assert_rounds_alike(again.predict_on_batch(x), model.predict_on_batch(x))


@pytest.mark.usefixtures("optimised", "as_written")
@pytest.mark.parametrize("older", on_torch([False, True], []))
def test_vit(older, tmp_path):
    """keras-hub's ViT and that of transformers, adapted by the same file."""
    keras_hub = pytest.importorskip("keras_hub")
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**sizes, intermediate_size=16, image_size=32, patch_size=16,
                       layer_norm_eps=1e-6, hidden_dropout_prob=0.0)  # fmt: skip
    base = references._perturbed(ViTModel(config, add_pooling_layer=False).eval(), 0.2)
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=16
    )
    copy_vit(base, backbone)
    image = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype("float32")
    pixels = torch.tensor(image.transpose(0, 3, 1, 2))

    def close(reference, what):
        theirs = []
        for dtype in (torch.float64, torch.float32):
            with torch.no_grad():
                found = reference.to(dtype)(pixel_values=pixels.to(dtype)).last_hidden_state
            theirs.append(found.numpy())
        ours = keras.ops.convert_to_numpy(backbone.predict_on_batch(image))
        assert_parity(ours, theirs[1], theirs[0], what)

    close(base, "without adapters")
    names = ["q_proj", "o_proj", "fc1", "projection"]
    adapted = with_peft(base, "backbone", {"r": 2, "target_modules": names})
    adapted.save_pretrained(tmp_path)
    if older:  # the names before transformers 5
        tensors = load_file(tmp_path / "adapter_model.safetensors")
        for new, old in (("layers.", "encoder.layer."), ("attention.q_proj", "attention.attention."
                          "query"), ("attention.o_proj", "attention.output.dense"),
                         ("mlp.fc1", "intermediate.dense")):  # fmt: skip
            tensors = {key.replace(new, old): value for key, value in tensors.items()}
        save_file(tensors, tmp_path / "adapter_model.safetensors")
    kft.load_adapter(backbone, tmp_path)
    close(adapted, "read")
    perturb(backbone, learning=True)
    kft.save_adapter(backbone, tmp_path / "moved")
    adapted = peft.PeftModel.from_pretrained(adapted.unload(), tmp_path / "moved").eval()
    close(adapted, "written")


def copy_vit(base, backbone):
    """The weights of transformers' ViT into keras-hub's."""
    state = {name: value.numpy() for name, value in base.state_dict().items()}
    modules = kft.lora.peft.modules.modules_of(backbone)
    embedding = backbone.get_layer("vit_patching_and_embedding")
    embedding.class_token.assign(state["embeddings.cls_token"])
    embedding.position_embedding.embeddings.assign(state["embeddings.position_embeddings"][0])
    for path, layer in kft.params.layers(backbone).items():
        if path in modules.names:
            kernel, bias = (state[f"{modules.names[path]}.{x}"] for x in ("weight", "bias"))
            kernel = kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T
            shapes = [variable.shape for variable in layer._trainable_variables]
            values = [kernel.reshape(shapes[0]), bias.reshape(shapes[1])]
            for variable, value in zip(layer._trainable_variables, values, strict=True):
                variable.assign(value)


@pytest.mark.once
def test_once_more_under_the_same_name(tmp_path):
    """What is loaded counts, whatever the model had switched off, and all else is frozen again."""
    model = model_of(kft.heads.Regression())
    kft.add_lora(model, 2)
    perturb(model, learning=True)
    kft.save_adapter(model, tmp_path)
    other = model_of(kft.heads.Regression())
    kft.add_lora(other, 2)
    kft.merge_lora(other)
    with pytest.raises(ValueError, match="merged adapters"):
        kft.load_adapter(other, tmp_path)
    kft.unmerge_lora(other)
    kft.lora.use(other, None)
    kft.unfreeze(other)
    kft.load_adapter(other, tmp_path)
    assert_rounds_alike(other.predict_on_batch(TOKENS), model.predict_on_batch(TOKENS))
    assert kft.parameters(other).trainable == kft.parameters(model).trainable


@pytest.mark.once
def test_one_path_at_the_end_of_another(tmp_path):
    def build():
        layers = keras.layers
        inner = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="dense")], name="vit")
        inputs = keras.Input((8,))
        x = inner(layers.Dense(8, name="dense")(inputs))
        return keras.Model(inputs, layers.Dense(1, name="out")(x))

    model, again = build(), build()
    again.set_weights(model.get_weights())
    options = {"ranks": {"vit": 4}, "alphas": {"vit": 64}}
    assert kft.add_lora(model, 2, targets="all-linear", **options) == ["dense", "vit/dense"]
    perturb(model, learning=True)
    kft.save_adapter(model, tmp_path)
    kft.load_adapter(again, tmp_path)
    x = np.ones((2, 8), "float32")
    assert_rounds_alike(again.predict_on_batch(x), model.predict_on_batch(x))


@pytest.mark.once
def test_files_that_contradict_themselves(tmp_path):
    """Each is found before anything is changed."""
    model = model_of(kft.heads.EsmClassification(2))
    kft.add_lora(model, 4, bias="all")
    kft.save_adapter(model, tmp_path)
    with pytest.raises(ValueError, match=r"classifier.* Give the model the head"):
        kft.load_adapter(model_of(kft.heads.Regression()), tmp_path)
    with pytest.warns(UserWarning, match="holds a head"):
        kft.load_adapter(model_of(kft.heads.Regression()).backbone, tmp_path)
    path = tmp_path / "adapter_config.json"
    config = path.read_text()
    path.write_text(json.dumps({**json.loads(config), "use_dora": True}))
    fresh = model_of(kft.heads.EsmClassification(2))
    with pytest.raises(ValueError, match="has 0 magnitudes, expected 32 with use_dora=True"):
        kft.load_adapter(fresh, tmp_path)
    path.write_text(config)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    key = "base_model.model.esm.encoder.layer.0.attention.self.key.bias"
    tensors[key] = tensors[key][:-1]
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="bias of block_0/key has 31 numbers, the layer 32"):
        kft.load_adapter(fresh, tmp_path)
    assert not kft.lora.names(fresh)


@pytest.mark.once
def test_adapter_of_a_dinov3_of_transformers_4(tmp_path):
    """Its blocks were not in a module of their own."""
    model, again = (kft.backbones.randomised(BACKBONES["dinov3"](), 0) for _ in range(2))
    kft.add_lora(model, rank=2)
    perturb(model, learning=True)
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype("float32")
    expected = model.predict_on_batch({"images": images})
    assert np.abs(expected - again.predict_on_batch({"images": images})).max() > 0.01
    kft.save_adapter(model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    now = "base_model.model.model.layer.0.attention.q_proj.lora_A.weight"
    tensors = load_file(path)
    assert now in tensors
    older = {key.replace("model.model.", "model."): x for key, x in tensors.items()}
    save_file(older, path)
    kft.load_adapter(again, tmp_path)
    assert_rounds_alike(again.predict_on_batch({"images": images}), expected)


SAVED_IN_FULL = {  # what kft reads as PEFT computes it, with the arguments of PEFT's saving
    "lora_bias": ("backbone", {"lora_bias": True}, {}),
    "norms": ("backbone", {"modules_to_save": ["LayerNorm"]}, {}),
    "head's dense layer": ("language model", {"modules_to_save": ["lm_head.dense"]}, {}),
    "table": ("backbone", {"modules_to_save": ["word_embeddings"]}, {}),
    "embedding layers": ("language model", {}, {"save_embedding_layers": True}),
    "tokens": ("backbone", {"trainable_token_indices": [5, 20, 3]}, {}),
    "tokens of a table by name": (
        "language model", {"trainable_token_indices": {"word_embeddings": [20, 5]}}, {}
    ),
}  # fmt: skip


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*LoRA tensor.* have invalid shape")  # of a bias of B
@pytest.mark.filterwarnings("ignore:.*trained alone .trainable_token_indices.")
@pytest.mark.parametrize("case", SAVED_IN_FULL)
def test_other_options_of_peft(case, tmp_path):
    form, options, saving = SAVED_IN_FULL[case]
    base = reference(form)
    ours, other = counterpart(base, form), counterpart(base, form)
    adapted = with_peft(base, form, {"r": 2, "lora_alpha": 4, **options})
    adapted.save_pretrained(tmp_path, **saving)
    kft.load_adapter(ours, tmp_path, name="with-hyphen")
    close_to(ours, adapted, form)
    kft.save_adapter(ours, tmp_path / "again")
    kft.load_adapter(other, tmp_path / "again")
    assert_rounds_alike(other.predict_on_batch(TOKENS), ours.predict_on_batch(TOKENS))


@pytest.mark.once
def test_rows_of_tokens_are_those_of_the_files(tmp_path):
    base, path = reference("backbone"), tmp_path / "adapter_config.json"
    ours = counterpart(base, "backbone")
    options = {"r": 2, "trainable_token_indices": [5, 20]}
    with_peft(base, "backbone", options).save_pretrained(tmp_path)
    config = json.loads(path.read_text())
    for indices, message in (
        ([5, 99], r"different integers from 0 to 32, .* received \[5, 99\]"),
        ([5, 5], "different integers"),
        ([5], r"shape \(1, 32\) are expected, received \(2, 32\)"),
        ({"other": [5, 20]}, "different integers .* received 0"),
        (None, "is {}, and there are rows of 1 tables"),
    ):
        path.write_text(json.dumps({**config, "trainable_token_indices": indices}))
        with pytest.raises(ValueError, match=message):
            kft.load_adapter(ours, tmp_path)
    path.write_text(json.dumps(config))
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="is no table of tokens of"):
        kft.load_adapter(other, tmp_path)
    assert not kft.lora.names(ours) and kft.parameters(ours).frozen == 0
    with pytest.warns(UserWarning, match="has 2 rows of embedding/tokens that were trained alone"):
        kft.load_adapter(ours, tmp_path)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ("lm_head", r"cannot adapt, alone or with modules_to_save=\['lm_head'\]"),
        ("word_embeddings", "trained apart from the language-model head, which kft ties to it"),
    ],
)
def test_parts_of_the_language_model_that_kft_cannot_hold(saved, message, tmp_path):
    base = reference("language model")
    ours = counterpart(base, "language model")
    options = {"r": 2, "modules_to_save": [saved]}
    with_peft(base, "language model", options).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        kft.load_adapter(ours, tmp_path)
    assert not kft.lora.names(ours)


@pytest.mark.once
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(a+)+$", "repeats what repeats or has alternatives"),
        ("(a|aa)*b", "repeats what repeats or has alternatives"),
        (".*.*.*.*.*x", "has 5 repeats without limit"),
        ("(.*layer.*){5}", "repeats what repeats or has alternatives"),
        ("(", "is not a regular expression"),
        ("a" * 100_001, "has 100,001 characters"),
    ],
)
@pytest.mark.parametrize("option", ["rank_pattern", "alpha_pattern", "target_modules"])
def test_patterns_that_take_for_ever(pattern, message, option, tmp_path):
    value = pattern if option == "target_modules" else {pattern: 2}
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, option: value}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{option} has .* which {message}"):
        kft.load_adapter(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path)


@pytest.mark.once
@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?:model\.)?layers\.\d+\.(?:self_attn|mlp)\.(?:q_proj|k_proj)$",
        r"(?:.*?(?:vision|text).*?(?:attn|mlp).*?(?:q|k).*?)|(?:\blayers\.[\d]{1,}\.(?:a)\.(?:b))",
    ],
)
def test_patterns_that_are_in_use(pattern, tmp_path):
    kft.lora.peft.reading.check_pattern(pattern, "target_modules", tmp_path)
