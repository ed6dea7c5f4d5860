"""`kft.Model.from_checkpoint`: backbone and classifier of a checkpoint, and wrapped checkpoints."""

import json
import warnings

import keras
import numpy as np
import peft
import pytest
import references
import safetensors.numpy
import torch
import transformers
from keras import ops
from models import in_turn
from parity import assert_parity

import kft

NAMES = ["helix", "strand", "coil"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {x: i for i, x in enumerate(NAMES)}}
TOKENS = kft.backbones.esm2.encode([*references.proteins(range(3, 25)), "MK<mask>AYI"])
PIXELS = np.random.default_rng(0).standard_normal((22, 3, 32, 32)).astype("float32")
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8,
         "intermediate_size": 32, "image_size": 32, "layer_norm_eps": 1e-6}  # fmt: skip
PROTEINS = ["EsmForSequenceClassification", "EsmForTokenClassification"]
VISION = ["ViTForImageClassification", "DeiTForImageClassification",
          "Dinov2ForImageClassification"]  # fmt: skip


def reference(kind):
    """A classifier of transformers with weights large enough to matter."""
    torch.manual_seed(0)
    cls = getattr(transformers, kind)
    if kind in PROTEINS:
        config = references.esm_config(1, 16, 2, **LABELS)
    else:
        config = cls.config_class(**SIZES, **LABELS, hidden_dropout_prob=0.0)
    return references._perturbed(cls(config).eval(), 0.2)


def from_checkpoint(folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no weights for backbone.masked_lm")
        return kft.Model.from_checkpoint(folder)


def logits(theirs, dtype):
    """Log-probabilities of a model of transformers, those of padding as 0."""
    theirs = theirs.to(dtype)
    with torch.no_grad():
        if hasattr(theirs, "esm"):
            tokens = torch.tensor(np.ascontiguousarray(TOKENS["token_ids"])).long()
            found = theirs(input_ids=tokens, attention_mask=(tokens != 1).long())
        else:
            found = theirs(pixel_values=torch.tensor(PIXELS).to(dtype))
    return torch.log_softmax(found.logits, -1).numpy()


def log_probabilities(model):
    images = {"images": PIXELS.transpose(0, 2, 3, 1)}
    inputs = TOKENS if "token_ids" in model.input else images
    return np.log(ops.convert_to_numpy(model.predict_on_batch(inputs)))


@pytest.mark.usefixtures("optimised", "as_written")
@pytest.mark.parametrize("kind", in_turn([*PROTEINS, *VISION], PROTEINS))
def test_as_in_transformers(kind, tmp_path):
    """The numbers and names of transformers, in memory and from a file, and further training."""
    theirs = reference(kind)
    theirs.save_pretrained(tmp_path)
    model = from_checkpoint(tmp_path)
    assert model.classes == tuple(NAMES)
    found = log_probabilities(model)
    there = TOKENS["token_ids"] != 1 if found.ndim == 3 else slice(None)
    exact, single = logits(theirs, torch.float64), logits(theirs, torch.float32)
    assert_parity(found[there], single[there], exact[there], kind)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.classes == tuple(NAMES)
    assert np.array_equal(log_probabilities(again), found)
    if kind == PROTEINS[0]:
        before = kft.fingerprint(again, ["head"])
        kft.fit(again, (["MKT", "GSS", "AYI"], [0, 1, 2]), epochs=1, verbose=0)
        assert kft.fingerprint(again, ["head"]) != before


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_adapters_with_the_classifier_of_dinov2(tmp_path):
    """PEFT's file holds the classifier too, in both directions."""
    theirs = reference(VISION[2])
    theirs.save_pretrained(tmp_path)
    model = from_checkpoint(tmp_path)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"])
    adapted = references._perturbed(peft.get_peft_model(theirs, config).eval(), 0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    kft.load_adapter(model, tmp_path / "adapter", check_base=False)
    kft.save_adapter(model, tmp_path / "again")
    keys = ["base_model.model.classifier.weight", "base_model.model.classifier.bias"]
    first, second = (
        safetensors.numpy.load_file(tmp_path / name / "adapter_model.safetensors")
        for name in ("adapter", "again")
    )
    assert all(np.array_equal(first[key], second[key]) for key in keys)


@pytest.mark.once
def test_a_backbone_alone_names_the_classifier(tmp_path):
    reference(PROTEINS[0]).save_pretrained(tmp_path)
    with pytest.warns(UserWarning) as caught:
        kft.load(tmp_path)
    messages = [str(warning.message) for warning in caught]
    assert any("EsmForSequenceClassification too (4 tensors)" in x for x in messages)
    assert any(f"kft.Model.from_checkpoint({str(tmp_path)!r}) gives both" in x for x in messages)


@pytest.mark.once
def test_no_classifier(tmp_path):
    kind = transformers.ViTModel(transformers.ViTConfig(**SIZES), add_pooling_layer=False)
    kind.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must be a checkpoint with a classifier, received"):
        kft.Model.from_checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"source must be a checkpoint of .*EsmForMaskedLM"):
        kft.Model.from_checkpoint("kft_esm2_tiny")


@pytest.mark.once
@pytest.mark.parametrize("kind", [PROTEINS[0], VISION[0]])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "has problem_type='multi_label"),
        ({"id2label": {"0": "x"}}, "has one label, which is a regression"),
        (
            {"id2label": {"0": "x", "first": "y"}},
            "id2label in config.json must be {number: name of",
        ),
    ],
)
def test_other_problems(kind, change, message, tmp_path):
    theirs = reference(kind)
    one = len(change.get("id2label", "")) == 1
    if one and kind == PROTEINS[0]:
        theirs.classifier.out_proj = torch.nn.Linear(16, 1)
    elif one:
        theirs.classifier = torch.nn.Linear(16, 1)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        from_checkpoint(tmp_path)


@pytest.mark.once
@pytest.mark.parametrize(
    ("prefix", "state"),
    [
        ("module.", None),
        ("_orig_mod.", "state_dict"),
        ("module._orig_mod.", "model"),
        ("model.", "state_dict"),
        ("", "model_state_dict"),
    ],
)
def test_wrapped(prefix, state, tmp_path):
    """What training scripts save: parameters of wrapped modules, next to the optimizer."""
    theirs = reference(VISION[0])
    theirs.save_pretrained(tmp_path)
    expected = log_probabilities(from_checkpoint(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    content = {f"{prefix}{k}": torch.nn.Parameter(v) for k, v in theirs.state_dict().items()}
    if state:
        content = {"epoch": 3, "optimizer": {"lr": 1e-3}, state: content}
    torch.save(content, tmp_path / "pytorch_model.bin")
    assert np.array_equal(log_probabilities(from_checkpoint(tmp_path)), expected)


@pytest.mark.once
@pytest.mark.parametrize("kind", VISION)
def test_size_without_a_preprocessor(kind, tmp_path):
    """As in config.json; a photo is resized and cropped as 256 and 224 pixels are."""
    reference(kind).save_pretrained(tmp_path)
    backbone = kft.load(tmp_path)
    assert backbone.image_size == (32, 32)
    photo = np.zeros((50, 70, 3), "uint8")
    assert backbone.encode([photo])["images"].shape == (1, 32, 32, 3)
