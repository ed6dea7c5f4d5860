"""Files that are meant to do harm, or are only damaged: refused soon, and by name."""

import json
import os
import struct
import time

import models
import pandas as pd
import pytest
from PIL import Image

import kft
from kft.backbones.checkpoints import CheckpointError, Config, read_safetensors
from kft.backbones.checkpoints.torch_files import read_torch
from kft.files import read_json
from kft.messages import harmless, harmless_cell, listed, shown
from kft.training import memory

pytestmark = pytest.mark.once

NESTED = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small ESM-2 in Hugging Face's format."""
    return kft.backbones.save(models.esm2(2), tmp_path_factory.mktemp("esm2"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1_000_000}, "num_hidden_layers in config.json must be .* 1 to 256"),
        ({"num_hidden_layers": 200, "hidden_size": 8192}, "its file has .* the file is damaged"),
        ({"num_attention_heads": 0}, "num_attention_heads in config.json must be .* received 0"),
        ({"num_attention_heads": 3}, "frequencies do not fit"),
        ({"hidden_size": [16]}, r"hidden_size in config.json must be .* received \[16\]"),
        ({"hidden_size": True}, "hidden_size in config.json must be .* received True"),
        ({"intermediate_size": None}, "config.json has no intermediate_size"),
        ({"token_dropout": "yes"}, "token_dropout in config.json must be True or False"),
        ({"layer_norm_eps": {}}, "layer_norm_eps="),
        ({"model_type": ["esm"]}, "model_type="),
    ],
)
def test_configs_are_checked_before_anything_is_built(saved, tmp_path, changes, message):
    config = json.loads((saved / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        kft.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NESTED, "nested more than 32 levels deep"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested more than 32 levels deep"),
        ("[]", "must hold a JSON object, received a list"),
        ("null", "must hold a JSON object, received null"),
        ("{", "damaged: not JSON"),
        ("9" * 10_000, "damaged: not JSON"),
    ],
)
def test_json_files(tmp_path, text, message):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"x.json .*{message}"):
        read_json(path)
    with pytest.raises(ValueError, match="x.json has .* bytes, and a file of this kind at most 0:"):
        read_json(path, 0)
    path.write_text('{"a":' * 31 + "1" + "}" * 31)
    assert read_json(path)


def test_a_config_that_is_no_object():
    with pytest.raises(ValueError, match="it: rope of config.json must hold an object"):
        Config({"rope": [1]}, "it").part("rope")


def test_safetensors_headers(saved, tmp_path):
    content = (saved / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for header in (NESTED.encode(), b"[]", b"\xff" * 40):
        path.write_bytes(struct.pack("<Q", len(header)) + header + content[-100:])
        with pytest.raises(CheckpointError, match="model.safetensors: damaged"):
            read_safetensors(path)


@pytest.mark.parametrize("body", [b")" + b"\x85" * 3_000_000, b"]" + b"]a" * 1_500_000])
def test_a_pickle_of_millions_of_instructions_is_refused_soon(tmp_path, body):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02" + body + b".")
    began = time.process_time()
    with pytest.raises(CheckpointError, match=r"x\.pt: its pickle has more than 400,000 instruct"):
        read_torch(tmp_path / "x.pt")
    assert time.process_time() - began < 10


def test_pipes_and_links_to_nothing_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for reader in (kft.data.read_csv, kft.data.read_fasta, read_json, kft.load_model):
        with pytest.raises(ValueError, match="pipe, which is a pipe, a socket or a device"):
            reader(tmp_path / "pipe")
        with pytest.raises(FileNotFoundError, match="link, which is a link to a file"):
            reader(tmp_path / "link")


# Images -------------------------------------------------------------------------------------------


@pytest.fixture
def stacks(tmp_path):
    """Two classes of TIFF files of three pages, whose values are ten times their number."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(4):
            pages = [Image.new("L", (4, 4), 10 * page + i) for page in range(3)]
            pages[0].save(tmp_path / name / f"{i}.tif", save_all=True, append_images=pages[1:])
    return tmp_path


def test_one_frame_of_each_file(stacks):
    with pytest.raises(ValueError, match=r"stack of 3 images.*frames=0"):
        kft.data.read_images(stacks)
    for frames in (0, 2):
        data = kft.data.read_images(stacks, frames=frames, split=None)
        pixels = kft.data.images.pixels.read_pixels(data.train.inputs[1], "image")
        assert (pixels == 10 * frames + 1).all()
        assert "frame" in str(data.train.inputs[0])
    with pytest.raises(ValueError, match="a file of 3 images, from 0 to 2, without number 3"):
        kft.data.read_images(stacks, frames=3)
    with pytest.raises(ValueError, match="frames must be an integer of at least 0, received 'all'"):
        kft.data.read_images(stacks, frames="all")


def test_what_is_no_image_is_named(stacks):
    os.mkfifo(stacks / "a" / "pipe.tif")
    (stacks / "b" / "link.tif").symlink_to(stacks / "gone")
    for _ in range(2):
        with pytest.raises(ValueError, match="1 entries are links to nothing, pipes or devices"):
            kft.data.read_images(stacks, frames=0)
        (stacks / "a" / "pipe.tif").unlink(missing_ok=True)
    (stacks / "b" / "link.tif").unlink()
    Image.new("1", (12_000, 9_000)).save(stacks / "b" / "large.png")
    with pytest.raises(ValueError, match=r"large.png, frame 0 \(larger than 100,000,000 pixels"):
        kft.data.read_images(stacks, frames=0)


# Tables and names ---------------------------------------------------------------------------------


def test_a_cell_beyond_the_usual_limit(tmp_path):
    path = tmp_path / "x.csv"
    long = "MKTAYIAKQR" * 20_000
    rows = [f"M{letter}AYIAK,{i}" for i, letter in enumerate("ACDEFGHIKLMN")]
    path.write_text("\n".join(["sequence,y", f"{long},1", *rows]))
    assert kft.data.read_csv(path, split=None).train.inputs[0] == long


def test_names_do_nothing_in_a_spreadsheet_or_a_terminal(tmp_path):
    names = ["=1+1", "+x", "-x", "@x", "\tx", "-1.5", "plain"]
    table = pd.DataFrame({"id": names, "sequence": ["MKT"] * len(names)})
    lines = kft.embed(models.esm2(), table, out=tmp_path / "x.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == [
        "'=1+1", "'+x", "'-x", "'@x", "'\tx", "-1.5", "plain",
    ]  # fmt: skip
    assert harmless_cell("=x") == "'=x" and harmless_cell(3) == "3"
    assert harmless("\x1b[31mred\u202e\n") == r"\x1b[31mred\u202e\n"
    assert harmless("a\nb\x07", keep="\n") == "a\nb\\x07"
    assert listed(["\x1b[0m"]) == r"\x1b[0m"
    assert len(shown("x" * 10_000)) < 100 and len(shown([[["x" * 99] * 99] * 99] * 99)) <= 200
    part = kft.data.Split(["MKT", "GSS"], [0, 1])
    data = kft.data.Dataset("x", "classification", part, None, None, source="", licence="",
                            citation="", checksum="", classes=("\x1b[31mred", "b"))  # fmt: skip
    assert "\x1b" not in repr(data)


# Memory -------------------------------------------------------------------------------------------


def test_a_protein_that_is_too_long_is_named(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_text(">short\nMKT\n>long one\n" + "MKTAYIAKQR" * 10_100 + "\n")
    model = kft.Model(models.esm2(), kft.heads.Regression())
    message = "record long has 101,002 tokens.*at most 100,000.*max_length.*windows"
    with pytest.raises(ValueError, match=message):
        kft.predict(model, path)
    with pytest.raises(ValueError, match=r"inputs\[0\] has 101,002 tokens"):
        kft.fit(model, (["MKTAYIAKQR" * 10_100], [1.0]), epochs=1, verbose=0)
    with pytest.warns(UserWarning, match="1 of 2 inputs were longer than max_length=50"):
        assert kft.predict(model, path, max_length=50).shape == (2, 1)


def test_the_estimate_is_compared_with_the_memory(monkeypatch):
    model = models.esm2()
    records = kft.batches((["MKT", "MKTAYIAKQR" * 300], [0.0, 1.0]), model.encode, names=["a", "b"])
    monkeypatch.setattr(memory.keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(memory, "on_processor", lambda: True)
    memory.check_memory(model, records)
    monkeypatch.setattr(memory, "available_memory", lambda: 100_000_000)
    tokens = max(map(records.padded, range(len(records))))  # torch pads to no fixed lengths
    message = rf"b has {tokens:,} tokens, .* about 0\.2 GB in a batch of 2 \(.*max_length.* 0\.1 GB"
    with pytest.raises(ValueError, match=message):
        memory.check_memory(model, records)


def test_the_estimate_counts_the_pairs_of_a_head(monkeypatch):
    """2 (P + K) numbers for each pair of tokens and protein; in training twice as many."""
    model = kft.Model(models.esm2(), kft.heads.Distogram())
    records = kft.batches(["MKT", "MKTAYIAKQR" * 50], model.encode, names=["a", "b"])
    tokens = records[0]["token_ids"].shape[1]
    pairs = 2 * tokens**2 * 4 * 2 * (32 + 64)
    for training, needed in ((False, pairs), (True, 2 * pairs)):
        monkeypatch.setattr(memory, "available_memory", lambda more=needed: int(1.2 * more))
        memory.check_memory(model, records, training)
        monkeypatch.setattr(memory, "available_memory", lambda less=needed: less)
        with pytest.raises(ValueError, match=f"b has {tokens} tokens, for which the model needs"):
            memory.check_memory(model, records, training)


def test_a_full_memory_is_explained():
    records = kft.batches((["MKT", "MKTAYI"], [0.0, 1.0]), models.esm2().encode, names=["a", "b"])
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried")):
        with (
            pytest.raises(MemoryError, match="longest input, b, has 8 tokens"),
            memory.explained(records),
        ):
            raise error
    with pytest.raises(RuntimeError, match="^another$"), memory.explained(records):
        raise RuntimeError("another")


# Caches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [".json", ".npy"])
def test_damaged_features_are_computed_again(tmp_path, end):
    model = kft.Model(models.esm2(), kft.heads.Regression())
    model.backbone.trainable = False
    model.compile("sgd", "mean_squared_error")
    records = ["MKTAYI", "GSS"], [0.0, 1.0]
    kft.fit_frontier(model, records, cache=tmp_path, verbose=0)
    (damaged,) = [path.parent for path in tmp_path.rglob("about.json")]
    next(path for path in damaged.iterdir() if path.suffix == end).write_bytes(b"")
    with pytest.warns(UserWarning, match="features in .* are damaged .* computed again"):
        kft.fit_frontier(model, records, cache=tmp_path, verbose=0)
    kft.fit_frontier(model, records, cache=tmp_path, verbose=0)  # and kept: no warning
    with pytest.raises(NotADirectoryError, match="cache must be a folder or a new name"):
        kft.fit_frontier(model, records, cache=__file__, verbose=0)


def test_a_keras_file_that_is_cut_off(tmp_path):
    path = tmp_path / "x.keras"
    kft.Model(models.esm2(), kft.heads.Regression()).save(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="x.keras is not a model that Keras saved"):
        kft.load_model(path)
